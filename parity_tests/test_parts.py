"""Which part of a file is the model: live weights before copies, every array used or named, no unchecked claim."""

import json
import shutil
import warnings

import numpy as np
import pytest
from safetensors.numpy import load_file

import convert
import ports
import specs
from convert.errors import ConvertError
from convert.files import open_checkpoint
from convert.files.base import Tensor
from convert.reading.nesting import rank, unwrapped
from convert.reading.readings import Ambiguous
from parity.__main__ import main as parity
from parity.given.targets import targets
from specs.config import as_dict

from .commands import GOOGLE, TIMM
from .conftest import needs
from .files.samples import store
from .golden import Case
from .test_routes import contents, write_numbers

HEAD = ("head.weight", "head.bias")


def arrays(path):
    return {name: np.frombuffer(data, dtype).reshape(shape) for name, (shape, dtype, data) in contents(path).items()}


def weights():
    return arrays(TIMM)


def plus(model, value):
    return {name: array + array.dtype.type(value) for name, array in model.items()}


def under(prefix, model):
    return {f"{prefix}{name}": array for name, array in model.items()}


def save(path, flat):
    """Arrays by their full names, in which "/" is nesting, in a format that can nest."""
    tensors = [(Tensor(n, a.shape, str(a.dtype)), [np.ascontiguousarray(a).tobytes()]) for n, a in flat.items()]
    return store(path, tensors)


@pytest.fixture
def model():
    """Weights as timm names them. Stored in .safetensors, where a "/" in a name is what a nested dict becomes."""
    return weights()


CASES = {  # what lies in the file beside the weights and the place that has to win; e is a copy of w, plus 1
    "root, ema": (lambda w, e: {**w, **under("ema/", e)}, ""),
    "ema, root": (lambda w, e: {**under("ema/", e), **w}, ""),
    "root, model_ema": (lambda w, e: {**w, **under("model_ema/", e)}, ""),
    "root, state": (lambda w, e: {**w, **under("state/", e)}, ""),
    "root, target": (lambda w, e: {**w, **under("target/", e)}, ""),
    "root, dotted ema": (lambda w, e: {**w, **under("ema.", e)}, ""),
    "backbone, ema": (lambda w, e: {**under("backbone/", w), **under("ema/", e)}, "backbone"),
    "ema, backbone": (lambda w, e: {**under("ema/", e), **under("backbone/", w)}, "backbone"),
    "wrapped, ema": (lambda w, e: {**under("net.", w), **under("ema_model.", e)}, "net."),
    "usual, strange": (lambda w, e: {**under("student/", e), **under("state_dict/", w)}, "state_dict"),
    "two usual": (lambda w, e: {**under("model/", e), **under("state_dict/", w)}, "state_dict"),
    "ema with more": (
        lambda w, e: {**w, **under("ema/module/", e), "ema/decay": np.float32([0.9])}, ""),
    "train_state": (lambda w, e: under("train_state/ema/", e) | under("train_state/params/", w), "train_state/params"),
    "ema alone": (lambda w, e: under("ema/module.", w), "ema/module."),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_live_weights_come_before_copies(case, model, tmp_path):
    build, place = CASES[case]
    path = save(tmp_path / "x.safetensors", build(model, plus(model, 1)))
    with convert.plan(path, src="timm", dst="timm") as plan:
        assert plan.reading.prefix == place
        for name, array in plan.arrays():
            np.testing.assert_array_equal(array, model[name])
        noted = " ".join(plan.notes())
        beside = {name for name in arrays(path) if not any(name == t.name for t in plan.sources.values())}
        assert sum(entry.arrays for entry in plan.aside) == len(beside)
    assert (f"took the weights under {place!r}" in noted) == bool(place)
    assert ("weights=" in noted) == (case != "ema alone")


def test_arrays_of_blocks_of_several_depths_are_listed_by_folded_names(model, tmp_path):
    names = [f"layers.{level}.blocks.{block}.x" for level, depth in enumerate((2, 2, 6, 2)) for block in range(depth)]
    path = save(tmp_path / "x.safetensors", {**dict.fromkeys(names, np.ones(3, "f4")), **under("state_dict/", model)})
    with convert.plan(path, src="timm", dst="torch") as read:
        listed = {entry.name: (entry.arrays, entry.elements) for entry in read.aside}
        assert listed == {"layers.{0..3}.blocks.{0..1}.x": (8, 24), "layers.2.blocks.{2..5}.x": (4, 12)}


def test_a_wrapped_copy_and_its_count_are_one_entry(model, tmp_path):
    copy = {**under("ema/module.", plus(model, 1)), "ema/n_averaged": np.array([3])}
    path = save(tmp_path / "x.safetensors", {**copy, **model})
    with convert.plan(path, src="timm", dst="timm") as plan:
        assert [(entry.name, entry.arrays) for entry in plan.aside] == [("ema/", len(copy))]
        assert " 1 array of 1 element " in str(plan.aside[0]._replace(arrays=1, elements=1))


@pytest.mark.parametrize("dialect", ["flax", "torch"])
def test_a_copy_of_a_tree_with_statistics(dialect, tmp_path):
    """Several trees make the model, and the copy has all of them."""
    config = specs.get("convmixer").tiny["even"]
    write_numbers(tmp_path / "w.msgpack", "convmixer", config, dialect)
    whole = arrays(tmp_path / "w.msgpack")
    path = save(tmp_path / "x.msgpack", {**under("ema/", plus(whole, 1)), **whole})
    with convert.plan(path, src=dialect, dst=dialect, settings={"act": "relu"}, assume=True) as plan:
        assert plan.reading.prefix == ""
        assert [(entry.name, entry.arrays) for entry in plan.aside] == [("ema/", len(whole))]
        for name, array in plan.arrays():
            np.testing.assert_array_equal(array, whole[name])
    with convert.plan(path, src=dialect, dst=dialect, settings={"act": "relu"}, weights="ema", assume=True) as plan:
        for name, array in plan.arrays():
            np.testing.assert_array_equal(array, whole[name] + whole[name].dtype.type(1))


@pytest.mark.parametrize("container", ["ema", "ema_params"])
def test_a_copy_of_the_parameters_without_the_name_of_their_collection(container, tmp_path):
    config = specs.get("convmixer").tiny["even"]
    write_numbers(tmp_path / "w.msgpack", "convmixer", config, "flax")
    whole = arrays(tmp_path / "w.msgpack")
    copy = {
        name.replace("params", container, 1): array + 1 for name, array in whole.items() if "batch_stats" not in name
    }
    path = save(tmp_path / "x.msgpack", {**whole, **copy})
    with convert.plan(path, src="flax", dst="flax", settings={"act": "relu"}, assume=True) as plan:
        assert [(entry.name, entry.arrays) for entry in plan.aside] == [(f"{container}/", len(copy))]
        assert "a copy of arrays of this model" in plan.aside[0].reason
        for name, array in plan.arrays():
            np.testing.assert_array_equal(array, whole[name])


def test_a_copy_of_all_parameters_is_named_with_the_option_that_takes_it(run, tmp_path):
    """A network without running statistics has one collection, so that nothing is missing from the copy."""
    write_numbers(tmp_path / "w.msgpack", "mlp_mixer", specs.get("mlp_mixer").tiny["headless"], "flax")
    whole = arrays(tmp_path / "w.msgpack")
    copy = {name.replace("params", "ema_params", 1): array + 1 for name, array in whole.items()}
    path = save(tmp_path / "x.msgpack", {**whole, **copy})
    code, printed, _ = run("inspect", path)
    assert code == 0 and "(a model with the same names: --weights ema_params takes it)" in printed
    words = ("diff", path, path, "--assume", "--weights")
    assert run(*words, "ema_params")[0] == 0 and run(*words, "ema_params", "--weights", "params")[0] == 1


def test_a_copy_has_its_running_statistics_beside_its_parameters(tmp_path):
    """Of this network few arrays are running statistics: their container is known by that of the parameters."""
    config = specs.get("mobile_former").tiny["plain"]
    write_numbers(tmp_path / "w.msgpack", "mobile_former", config, "flax")
    whole = arrays(tmp_path / "w.msgpack")
    path = save(tmp_path / "x.msgpack", {**whole, **under("ema_", plus(whole, 1))})
    settings = as_dict(config)
    with convert.plan(path, src="flax", dst="flax", settings=settings) as plan:
        reasons = {entry.name: entry.reason for entry in plan.aside}
        assert reasons == {
            "ema_params/": "a model with the same names: weights='ema_params' takes it",
            "ema_batch_stats/": "running statistics of ema_params/",
        }
        for name, array in plan.arrays():
            np.testing.assert_array_equal(array, whole[name])
    for choice, more in (("ema_params", 1), ("params", 0)):
        with convert.plan(path, src="flax", dst="flax", settings=settings, weights=choice) as plan:
            others = {f"{'' if more else 'ema_'}{name}/" for name in ("params", "batch_stats")}
            assert {entry.name for entry in plan.aside} == others
            for name, array in plan.arrays():
                np.testing.assert_array_equal(array, whole[name] + whole[name].dtype.type(more))


def test_a_copy_is_counted_and_not_listed_unless_there_is_nothing_else(run, tmp_path):
    """The arrays of an unknown model and of its average: the latter's have the same names."""
    own = {f"layer{k}.{leaf}": np.ones((3, 2 + k), "f4") for k in range(9) for leaf in ("weight", "scale")}
    path = save(tmp_path / "x.msgpack", {**under("model/", own), **under("model_ema/", own)})
    printed = run("inspect", path)[1]
    _, _, listed = printed.partition("\narrays:")
    assert "model/layer0.weight" in listed and "model_ema/layer" not in listed
    assert "\n  model_ema/: 18 arrays (a model with the same names: " in listed
    alone = run("inspect", save(tmp_path / "y.msgpack", under("opt_state/", own)))[1]
    assert "opt_state/layer0.weight" in alone


@pytest.mark.parametrize("names", [("backbone/", "target/"), ("student.", "teacher."), ("a/x.", "a/y.")])
def test_several_candidates_are_named_and_none_is_taken(names, model, run, tmp_path):
    flat = {**under(names[0], model), **under(names[1], plus(model, 1))}
    path = save(tmp_path / "x.safetensors", flat)
    shown = [name.removesuffix("/") for name in names]
    with pytest.raises(Ambiguous, match="names under each of") as refused:
        convert.plan(path)
    assert refused.value.places == shown
    code, printed, _ = run("inspect", path)
    assert code == 0 and all(repr(name) in printed for name in shown)
    assert "architecture: unknown" in printed
    for choice, value in zip(shown, (0, 1), strict=True):
        for weights in (choice, choice.rstrip(".")):
            with convert.plan(path, src="timm", dst="timm", weights=weights) as plan:
                assert plan.reading.prefix == choice
                np.testing.assert_array_equal(dict(plan.arrays())["norm.bias"], model["norm.bias"] + value)


def test_a_stray_array_in_the_live_weights_refuses_the_file(model, tmp_path):
    """It does not make a copy win."""
    path = save(tmp_path / "x.safetensors", {**model, "stray": np.zeros(3, "f4"), **under("ema/", plus(model, 1))})
    with pytest.raises(ConvertError) as refused:
        convert.plan(path, src="timm")
    assert "unexpected stray" in str(refused.value)


def test_every_array_is_used_or_named(model, run, tmp_path):
    headless = {name: array for name, array in model.items() if name not in HEAD}
    beside = {"head.weight": model["head.weight"], "prototypes": np.ones((3, 4), "f4"),
              **under("extra/", {"a": np.zeros(2, "f4"), "b.c": np.zeros(3, "f4")}),
              **under("opt/0/mu/", model)}  # fmt: skip
    path = save(tmp_path / "x.safetensors", {**under("state_dict/", headless), **beside})
    code, _, err = run("timm2torch", path, "-o", tmp_path / "y.safetensors")
    assert code == 0
    for told in ("head.weight float32 [7, 25] (named like a part of this model)", "prototypes float32 [3, 4] (no part",
                 "extra/ 2 arrays of 5 elements (training state)", f"opt/ {len(model)} arrays of"):  # fmt: skip
        assert told in err
    code, printed, _ = run("inspect", path)
    listed = printed.partition(f"set aside:    {len(beside)} arrays\n")[2]
    assert f"  opt/: {len(model)} arrays (training state)\n" in listed and printed.count("opt/") == 1, printed
    about = json.loads(run("inspect", path, "--json")[1])
    assert [entry["name"] for entry in about["aside"]] == ["head.weight", "prototypes", "extra/", "opt/"]
    assert about["part"] == "state_dict"
    same = {**model, **under("extra/", model), **under("opt/", {"x": np.zeros(2, "f4")})}
    with convert.plan(save(tmp_path / "root.safetensors", same), src="timm") as plan:  # beside a model at the root
        assert [(entry.name, entry.arrays) for entry in plan.aside] == [("extra/", len(model)), ("opt/", 1)]


def test_a_proof_says_what_it_does_not_cover(model, run, tmp_path):
    needs("torch"), needs("flax")
    headless = {name: array for name, array in model.items() if name not in HEAD}
    path = save(tmp_path / "x.safetensors", {**under("state_dict/", headless), "head.weight": model["head.weight"]})
    words = ["timm2torch", path, "-o", tmp_path / "y.safetensors", "--prove", "--force"]
    code, printed, err = run(*words)
    assert code == 0, err
    assert "proven: " in printed
    assert "not covered by this proof: head.weight float32 [7, 25] (named like a part" in printed
    proof = json.loads(run(*words, "--json")[1])["proof"]
    assert [entry["name"] for entry in proof["not_covered"]] == ["head.weight"]
    assert "not covered" not in run("timm2torch", TIMM, "-o", tmp_path / "z.safetensors", "--prove")[1]


def test_a_proof_runs_the_part_that_was_converted(model, run, tmp_path):
    needs("torch"), needs("flax")
    path = save(tmp_path / "x.safetensors", {**under("model.", model), **under("ema/", plus(model, 1))})
    words = ["timm2torch", path, "-o", tmp_path / "y.safetensors", "--prove", "--force"]
    for choice in ([], ["--weights", "ema"]):
        code, printed, err = run(*words, *choice)
        assert (code, "proven: " in printed) == (0, True), err


def test_every_command_reports_the_part_and_takes_a_choice(model, run, tmp_path, capsys):
    needs("torch"), needs("paddle")
    path = save(tmp_path / "x.safetensors", {**under("model/", model), **under("ema/", plus(model, 1))})
    live, copy = "took the weights under 'model'", "took the weights under 'ema'"
    assert live in run("timm2torch", path, "-o", tmp_path / "y.safetensors")[2]
    assert "part:         model\n" in run("inspect", path)[1]
    assert "part:         ema\n" in run("inspect", path, "--weights", "ema")[1]
    assert run("inspect", path, "--weights", "nowhere")[0] == 1
    for choice, same, told in (([], 0, [live]), (["ema"], 0, [copy]), (["model", "ema"], 1, [live, copy])):
        words = [word for part in choice for word in ("--weights", part)]
        code, _, err = run("diff", path, path, *words)
        assert code == same and all(note in err for note in told)
        assert json.loads(run("diff", path, path, *words, "--json")[1])["notes"]
    assert run("diff", path, path, *["--weights", "ema"] * 3)[0] == 2
    for choice, told, value in ((None, live, 0), ("ema", copy, 1)):
        with pytest.warns(UserWarning, match=told):
            port = ports.load(str(path), "torch", weights=choice)
        np.testing.assert_array_equal(port.state()["norm.bias"], model["norm.bias"] + value)
        (target,) = targets(str(path), weights=choice)
        assert told in capsys.readouterr().err
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            np.testing.assert_array_equal(
                target.port("torch", "float32", "cpu").state()["norm.bias"], model["norm.bias"] + value
            )
    assert parity([str(path), "--weights", "ema", "--check", "forward", "--frameworks", "torch", "paddle"]) == 0
    assert copy in capsys.readouterr().err


def test_the_root_can_be_chosen(model, tmp_path):
    path = save(tmp_path / "x.safetensors", {**model, **under("ema/", plus(model, 1))})
    with convert.plan(path, weights="/") as plan:
        assert plan.reading.prefix == ""


def test_an_architecture_is_stated_only_if_every_array_fits(run, tmp_path):
    """These five arrays have names that an official ConvMixer has as well."""
    sizes = {"0.weight": (4, 3), "0.bias": (4,), "2.weight": (5, 4), "2.bias": (5,), "3.0.fn.0.weight": (5,)}
    path = save(tmp_path / "x.safetensors", {name: np.zeros(shape, "f4") for name, shape in sizes.items()})
    code, printed, _ = run("inspect", path)
    assert code == 0
    assert "architecture: unknown" in printed and not {"part:", "dialect:", "variant:"} & set(printed.split())
    assert "nearest:      convmixer (official), which does not fit" in printed
    assert "missing 0.weight" not in printed  # which is there
    about = json.loads(run("inspect", path, "--json")[1])
    assert (about["architecture"], about["dialect"]) == (None, None)
    assert about["nearest"]["reasons"]
    flat = {name: np.zeros(4, "f4") for name in ("wte", "wpe", "norm.weight")}
    strange = save(tmp_path / "y.safetensors", flat)
    printed = run("inspect", strange)[1]
    assert "nearest" not in printed and "its names are those of no architecture known here (" in printed


def test_an_architecture_whose_activation_is_open_is_stated(run, tmp_path):
    config = specs.get("convmixer").tiny["even"]
    write_numbers(tmp_path / "x.safetensors", "convmixer", config, "official")
    about = json.loads(run("inspect", tmp_path / "x.safetensors", "--json")[1])
    assert (about["architecture"], about["dialect"]) == ("convmixer", "official")
    assert "act is open" in about["open"] and "act" not in about["config"]
    spoiled = {n: a for n, a in arrays(tmp_path / "x.safetensors").items() if n != "2.bias"}
    about = json.loads(run("inspect", save(tmp_path / "y.safetensors", spoiled), "--json")[1])
    assert (about["architecture"], about["nearest"]["architecture"]) == (None, "convmixer")


@pytest.mark.parametrize("prefix", ["backbone.", "encoder.", "model.backbone."])
def test_a_prefix_does_not_make_a_torch_file_a_paddle_one(prefix, model, run, tmp_path):
    path = save(tmp_path / "x.safetensors", under(f"state_dict/{prefix}", model))
    about = json.loads(run("inspect", path, "--json")[1])
    assert (about["dialect"], about["part"]) == ("timm", f"state_dict/{prefix}")


def test_another_frameworks_dialect_is_reported(run, tmp_path):
    spec = specs.get("mlp_mixer")
    write_numbers(tmp_path / "x.safetensors", "mlp_mixer", next(iter(spec.tiny.values())), "passl")
    _, printed, _ = run("inspect", tmp_path / "x.safetensors")
    assert "the arrays of this safetensors file fit passl, a dialect of paddle" in printed
    assert run("passl2paddle", tmp_path / "x.safetensors", "-o", tmp_path / "y.safetensors")[0] == 0
    assert "a dialect of" not in run("inspect", tmp_path / "y.safetensors")[1]  # which its record names


@pytest.mark.parametrize("devices", [1, 8])
def test_replicas_of_pmap_are_described(devices, run, tmp_path):
    flat = {name: np.repeat(array[None], devices, 0) for name, array in arrays(GOOGLE).items()}
    path = save(tmp_path / "x.npz", under("params/", flat))
    told = f"every array has a leading axis of {devices}, as pmap adds"
    code, _, err = run("google2torch", path)
    assert code == 1 and told in err and "missing" not in err
    code, printed, _ = run("inspect", path)
    assert code == 0 and told in printed and "architecture: unknown" in printed


def test_names_with_wrappers_of_single_blocks(model, run, tmp_path):
    for wrapper in ("_orig_mod.", "_checkpoint_wrapped_module.", "_fsdp_wrapped_module."):
        inner = {name.replace("norm1.", f"norm1.{wrapper}"): array for name, array in model.items()}
        path = save(tmp_path / "x.safetensors", inner)
        code, _, err = run("timm2torch", path, "-o", tmp_path / "y.safetensors", "--force")
        assert code == 0 and f"read without the wrappers in its names: {wrapper}" in err
        assert load_file(tmp_path / "y.safetensors")["blocks.0.norm1.weight"].tolist() == list(
            model["blocks.0.norm1.weight"]
        )
    both = model | {name.replace("norm1.", "norm1._orig_mod."): array + 1 for name, array in model.items()}
    code, _, err = run("timm2torch", save(tmp_path / "both.safetensors", both), "-o", tmp_path / "z.safetensors")
    assert code == 1 and "unexpected blocks.{0..2}.norm1._orig_mod.weight" in err
    assert unwrapped("a._orig_mod.b") == "a.b" and unwrapped("_orig_mod.module.b") == "b"


@pytest.mark.parametrize("suffix", [".pt", ".msgpack", ".pdparams"])
def test_shards_of_any_format(suffix, model, run, tmp_path):
    """As transformers writes pytorch_model.bin and flax_model.msgpack."""
    names = list(model)
    files = [f"m-0000{k}-of-00002{suffix}" for k in (1, 2)]
    for k, file in enumerate(files):
        save(tmp_path / file, {name: model[name] for name in names[k::2]})
    where = {name: files[k % 2] for k, name in enumerate(names)}
    index = tmp_path / f"m{suffix}.index.json"
    index.write_text(json.dumps({"metadata": {}, "weight_map": where}))
    words = "timm2torch", index, "-o", tmp_path / "y.safetensors"
    code, _, err = run(*words)
    assert code == 0, err
    assert load_file(tmp_path / "y.safetensors")["norm.bias"].tolist() == model["norm.bias"].tolist()
    code, _, err = run("timm2torch", tmp_path / files[0])
    assert code == 1 and f"it is shard 1 of 2, which are read through {index.name}: give that" in err
    assert "damaged" not in err and "truncated" not in err
    shutil.copy(GOOGLE, tmp_path / files[1])
    code, _, err = run(*words, "--force")
    assert code == 1 and "is an npz file, others are" in err
    index.write_text(json.dumps({"weight_map": {"a": index.name}}))
    assert "an index or a folder" in run("inspect", index)[2]


def test_causes_that_were_not_checked_are_not_named(run, tmp_path):
    (tmp_path / "x.bin").write_bytes(bytes(range(200, 256)) * 20)
    code, _, err = run("inspect", tmp_path / "x.bin")
    assert code == 1 and "download" not in err
    shutil.copy(Case("timm_mixer").folder / "model.safetensors", tmp_path / "y.safetensors")
    whole = (tmp_path / "y.safetensors").read_bytes()
    (tmp_path / "y.safetensors").write_bytes(whole + b"1")
    assert "bytes follow its last tensor" in run("inspect", tmp_path / "y.safetensors")[2]
    (tmp_path / "y.safetensors").write_bytes(whole[:-1])
    assert "it is truncated" in run("inspect", tmp_path / "y.safetensors")[2]
    code, _, err = run("torch2flax", TIMM)
    assert code == 1 and "no torch checkpoint" not in err


LEFT = {  # names of arrays beside a model of unknown architecture -> what `inspect` sets aside: name, arrays, reason
    "a training checkpoint": (
        {f"state_dict/tower.{i}.w": 3 for i in range(9)} | {f"state_dict_ema/tower.{i}.w": 3 for i in range(9)}
        | {f"optimizer/state/{i}/exp_avg": 3 for i in range(9)} | {"step": 1},
        [("optimizer/", 9, "training state"), ("step", 1, "training state"),
         ("state_dict_ema/", 9, "--weights state_dict_ema takes it")],
    ),
    "names without separators, as of latent diffusion": (
        {f"model.tower.{i}.w": 3 for i in range(9)} | {f"model_ema.tower{i}w": 3 for i in range(9)}
        | {"model_ema.decay": 1},
        [("model_ema.", 10, "--weights model_ema. takes it")],
    ),
    "two layers and torch's AveragedModel": (
        {f"model/{i}.{leaf}": 3 for i in range(2) for leaf in ("weight", "running_mean")}
        | {f"model_ema/module.{i}.{leaf}": 3 for i in range(2) for leaf in ("weight", "running_mean")}
        | {"model_ema/n_averaged": 1},
        [("model_ema/", 5, "--weights model_ema takes it")],
    ),
    "a layer that is named like a copy": (
        {f"{layer}.{leaf}": 3 for layer in ("fc", "avg_fc") for leaf in ("weight", "bias")}, [],
    ),
    "a word that is no copy": ({f"avg.tower.{i}.w": 3 for i in range(9)} | {f"other.{i}.w": 3 for i in range(9)}, []),
}  # fmt: skip


@pytest.mark.parametrize("case", LEFT)
def test_what_a_file_of_an_unknown_architecture_holds_beside_its_model(case, run, tmp_path):
    names, expected = LEFT[case]
    path = save(tmp_path / "x.safetensors", {name: np.ones(size, "f4") for name, size in names.items()})
    code, out, _ = run("inspect", path, "--json")
    about = json.loads(out)
    assert code == 0 and about["architecture"] is None
    left = [(entry["name"], entry["arrays"], entry["reason"]) for entry in about["aside"]]
    assert len(left) == len(expected)
    assert all(a[:2] == b[:2] and b[2] in a[2] for a, b in zip(left, expected, strict=True)), left
    of_model = sum(names.values()) - sum(entry["elements"] for entry in about["aside"])
    assert about["parameters"] + about["statistics"] == of_model
    assert ("set aside:" in run("inspect", path)[1]) is bool(expected)


def test_places_are_ranked():
    order = ["", "params/", "state_dict/", "state_dict/module.", "anything/", "ema/", "state_dict/ema."]
    assert sorted(order, key=rank)[:5] == order[:5]
    assert all(rank(place)[0] for place in ("modelEMA/", "ema_params/", "a/averaged_model.", "swa/"))
    assert not any(rank(place)[0] for place in ("", "schema/", "model/", "teacher."))
    with open_checkpoint(TIMM) as reader:
        assert "norm.bias" in reader.tensors


@pytest.mark.parametrize("wrapper", ["_orig_mod.", "module._orig_mod.", "_forward_module."])
@pytest.mark.parametrize("wrapped", ["blocks", "stem", "head"])
def test_names_with_wrappers_of_some_parts_of_the_root(wrapper, wrapped, model, run, tmp_path):
    """As of a model some of whose parts were compiled, whose file was merged with another's: none is left aside."""
    names = {name: f"{wrapper}{name}" if name.startswith(wrapped) else name for name in model}
    path = save(tmp_path / "x.safetensors", {names[name]: array for name, array in model.items()})
    code, _, err = run("timm2torch", path, "-o", tmp_path / "y.safetensors", "--prove")
    assert code == 0 and "read without the wrappers in its names: " in err and "set aside" not in err
    plain = save(tmp_path / "plain.safetensors", model)
    assert run("timm2torch", plain, "-o", tmp_path / "z.safetensors")[0] == 0
    assert run("diff", tmp_path / "y.safetensors", tmp_path / "z.safetensors")[0] == 0


def test_a_wrapped_copy_of_the_whole_model_is_named_as_one(model, run, tmp_path):
    both = {**model, **{f"_orig_mod.{name}": array + 1 for name, array in model.items()}}
    path = save(tmp_path / "both.safetensors", both)
    code, _, err = run("timm2torch", path, "-o", tmp_path / "y.safetensors")
    assert code == 0 and "(a model with the same names: --weights _orig_mod. takes it)" in err
    assert run("timm2torch", path, "-o", tmp_path / "z.safetensors", "--weights", "_orig_mod.")[0] == 0
    one, other = (load_file(tmp_path / f"{name}.safetensors")["norm.bias"] for name in "yz")
    np.testing.assert_array_equal(one + 1, other)


def test_a_conversion_back_says_that_the_source_had_its_weights_in_a_part(model, run, tmp_path):
    """In one step and in several: the records pass on where the arrays were."""
    nested = save(tmp_path / "nested.safetensors", under("model/", model))
    said = "the timm file of these weights had them under 'model': they are written without it"
    for route, source, target in (
        ("timm2torch", nested, "a.safetensors"),
        ("torch2flax", tmp_path / "a.safetensors", "b.msgpack"),
        ("flax2timm", tmp_path / "b.msgpack", "c.pth"),
        ("timm2timm", nested, "d.pth"),
        ("timm2timm", tmp_path / "c.pth", "e.pth"),
    ):
        code, _, err = run(route, source, "-o", tmp_path / target)
        assert (code, said in err) == (0, target in ("c.pth", "d.pth")), (target, err)


def test_all_remarks_on_a_loaded_file_are_one_warning(model, tmp_path):
    needs("torch")
    path = save(tmp_path / "x.safetensors", {**under("model/", model), **under("optimizer/", plus(model, 1))})
    with pytest.warns(UserWarning) as warned:
        ports.load(str(path), "torch")
    assert [str(one.message).splitlines()[:2] for one in warned] == [
        [f"{path}:", "  - took the weights under 'model'"],
    ]
    assert "\n  - set aside optimizer/ 42 arrays of " in str(warned[0].message) and warned[0].filename == __file__

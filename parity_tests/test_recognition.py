"""What a file is recognised as, and every reason why it is not."""

import json
import re
import shutil
from dataclasses import replace

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

import specs
from convert.files import open_checkpoint
from convert.files.base import Tensor
from convert.plans import planning
from specs.config import as_dict
from specs.layer import Sizes

from .commands import GOOGLE, TIMM, listing, spoiled
from .conftest import needs
from .golden import Case
from .test_routes import write_numbers


def test_an_official_variant_is_recognised(run, tmp_path):
    from specs.mlp_mixer import VARIANTS

    small = tmp_path / "s32.safetensors"
    write_shapes(small, replace(VARIANTS["S/32"], classes=10))
    about = json.loads(run("inspect", small, "--json")[1])
    assert about["variant"] == "S/32"
    assert about["config"]["classes"] == 10
    code, _, err = run("torch2flax", small, "--dry-run")  # equal sizes state nothing
    assert (code, "gelu is open" in err, "norm_eps is open" in err) == (2, True, True)
    assert "marked as assumed: gelu=erf, norm_eps=1e-6\n" in err  # the published S/32 is Google's: no variant says erf


def write_shapes(path, config):
    from convert.files import writer_for
    from specs.dialects import PORTS, shapes
    from specs.mlp_mixer import layers

    tensors = [Tensor(name, shape, "float16") for name, shape in shapes(layers(config), PORTS["torch"]).items()]
    with open(path, "w+b", buffering=0) as file:
        writer = writer_for(path)(file, tensors, {})
        for tensor in tensors:
            writer.write(tensor, [bytes(tensor.nbytes)])
        writer.finish()


def test_transposed_matrices_are_called_so(run, tmp_path):
    """In place of shapes that are expected of sizes which were read off them: the head has 7 classes, not 20."""
    assert run("google2timm", GOOGLE, "-o", tmp_path / "x.safetensors")[0] == 0
    arrays = load_file(tmp_path / "x.safetensors")
    for name in ("blocks.0.mlp_tokens.fc1.weight", "head.weight"):  # sizes are read off the first, which fits then
        turned = {**arrays, name: np.ascontiguousarray(arrays[name].T)}
        save_file(turned, tmp_path / "one.safetensors")
        code, _, err = run("timm2torch", tmp_path / "one.safetensors")
        shapes = f"{list(turned[name].shape)}: once it is transposed, to {list(arrays[name].shape)}, "
        assert code == 1 and f"\n  - {name} has shape {shapes}every array fits\n" in err and "expected" not in err, err
    second = "blocks.0.mlp_tokens.fc2.weight"
    save_file({**turned, second: np.ascontiguousarray(arrays[second].T)}, tmp_path / "two.safetensors")
    code, _, err = run("timm2torch", tmp_path / "two.safetensors")
    assert code == 1 and f"every array fits once these are transposed: {second}, head.weight" in err, err
    classes = str(len(arrays["head.bias"]))
    code, _, err = run("timm2torch", tmp_path / "one.safetensors", "--set", f"classes={classes}")
    assert code == 1 and f"\n  - head.weight has shape {shapes}every array fits\n" in err and "--set" not in err, err
    code, _, err = run("timm2torch", tmp_path / "one.safetensors", "--set", "classes=9")  # does not fit either way
    assert code == 2 and "classes=9 was asked for" in err and "once it is transposed" not in err, err
    save_file({**turned, "norm.bias": np.zeros(3, "f4")}, tmp_path / "other.safetensors")
    assert "once it is transposed" not in run("timm2torch", tmp_path / "other.safetensors")[2]


def test_a_damaged_array_is_named_and_not_those_that_fit(run, tmp_path):
    """Where sizes are read off the damaged one: by the record, by --config, and by the other arrays alone."""
    assert run("google2torch", GOOGLE, "-o", tmp_path / "x.npz")[0] == 0
    arrays, name = dict(np.load(tmp_path / "x.npz")), "blocks.0.channel_mix.fc1.weight"
    has, cut = arrays[name].shape, arrays[name][:-1]
    misfit = f"{name} has shape {list(cut.shape)}, expected {list(has)}"
    np.savez(tmp_path / "bare.npz", **{**arrays, name: cut})
    np.savez(tmp_path / "beside.npz", **{**arrays, name: cut})
    shutil.copy(tmp_path / "x.npz.json", tmp_path / "beside.npz.json")
    code, _, err = run("torch2flax", tmp_path / "beside.npz")
    assert code == 1 and err.strip().endswith(f"\n  - {misfit}"), err
    code, _, err = run("torch2flax", tmp_path / "bare.npz", "--config", tmp_path / "x.npz")
    assert code == 1 and err.strip().endswith(f"\n  - {misfit}"), err
    code, _, err = run("torch2flax", tmp_path / "bare.npz")  # fields are open besides, and no value helps
    assert code == 1 and "is open" not in err and f"as its weight has shape {list(cut.shape)}" in err, err
    code, _, err = run("torch2flax", tmp_path / "x.npz", "--set", f"channel_hidden={has[0] - 1}")
    assert code == 2 and "was asked for" in err, err  # which no array shows
    np.savez(tmp_path / "turned.npz", **{**arrays, name: arrays[name].T.copy()})
    code, _, err = run("torch2flax", tmp_path / "turned.npz")
    assert code == 1 and f"{name} has shape {list(has[::-1])}: once it is transposed" in err, err


def test_names_in_capitals_are_called_so(run, tmp_path):
    """Of the whole file, or of a part of it, whose right name stands beside."""
    assert run("google2timm", GOOGLE, "-o", tmp_path / "x.safetensors")[0] == 0
    arrays = load_file(tmp_path / "x.safetensors")
    save_file({name.upper(): array for name, array in arrays.items()}, tmp_path / "upper.safetensors")
    said = f"in lower case, all {len(arrays)} names are those of mlp_mixer (timm)"
    assert said in run("inspect", tmp_path / "upper.safetensors")[1]
    code, _, err = run("timm2torch", tmp_path / "upper.safetensors")
    assert code == 1 and said in err and "no architecture here has half" not in err
    some = {name.replace("mlp_tokens", "MLP_Tokens"): array for name, array in arrays.items()}
    save_file(some, tmp_path / "some.safetensors")
    near = "missing blocks.0.mlp_tokens.fc1.weight (nearest unused: blocks.0.MLP_Tokens.fc1.weight)"
    assert near in run("timm2torch", tmp_path / "some.safetensors")[2]


@pytest.mark.parametrize("name", ["extra", "mu", "mask"])
def test_an_array_beside_those_of_a_model_is_no_training_state(name, run, tmp_path):
    """Nobody knows what it is: only a container of such a name, or a counter of steps, is training state."""
    assert run("google2timm", GOOGLE, "-o", tmp_path / "x.safetensors")[0] == 0
    arrays = load_file(tmp_path / "x.safetensors")
    save_file({**arrays, name: np.ones(3, "f4")}, tmp_path / "more.safetensors")
    code, _, err = run("timm2torch", tmp_path / "more.safetensors")
    more, *rest = err.splitlines()[1:]
    assert (code, more) == (1, f"  - unexpected {name}"), err
    how = "all arrays of the model are there and fit: if what is unexpected is of it under another name, rename it"
    assert rest[0].startswith(f"  - {how}") and "convert by a Table (" in rest[0], err
    assert rest[1:] == ["  - convmixer has a dialect timm too"]  # the less likely cause comes last
    save_file({**arrays, "step": np.ones(1, "f4")}, tmp_path / "step.safetensors")
    code, _, err = run("timm2torch", tmp_path / "step.safetensors", "--dry-run", "-o", tmp_path / "y.pt")
    assert code == 0 and "set aside step float32 [1] (training state)" in err


def test_headless_and_other_class_counts(run, tmp_path):
    run("google2torch", GOOGLE, "-o", tmp_path / "full.safetensors")
    arrays = {n: a for n, a in load_file(tmp_path / "full.safetensors").items() if not n.startswith("head")}
    save_file(arrays, tmp_path / "headless.safetensors")
    code, printed, err = run("torch2flax", tmp_path / "headless.safetensors", "--json", "--assume")
    assert "note: the file has no head: read as classes=0" in err
    assert code == 0
    assert json.loads(printed)["config"]["classes"] == 0
    arrays["head.weight"], arrays["head.bias"] = np.zeros((3, 20), np.float32), np.zeros(3, np.float32)
    save_file(arrays, tmp_path / "three.safetensors")
    assert (
        json.loads(run("torch2flax", tmp_path / "three.safetensors", "--json", "--assume", "--force")[1])["config"][
            "classes"
        ]
        == 3
    )


def test_all_problems_at_once_with_the_nearest_names(run, tmp_path):
    def change(arrays):
        arrays["MixerBlock_1/LayerNorm_0/skale"] = arrays.pop("MixerBlock_1/LayerNorm_0/scale")
        arrays["head/bias"] = arrays["head/bias"][:3]
        for block in range(3):
            del arrays[f"MixerBlock_{block}/channel_mixing/Dense_1/bias"]

    code, _, err = run("google2torch", spoiled(tmp_path, change), "-o", tmp_path / "x.safetensors")
    assert code == 1
    assert "missing MixerBlock_1/LayerNorm_0/scale (nearest unused: MixerBlock_1/LayerNorm_0/skale)" in err
    assert "unexpected MixerBlock_1/LayerNorm_0/skale" in err
    assert "missing MixerBlock_{0..2}/channel_mixing/Dense_1/bias" in err
    assert "head/bias has shape [3], expected [7]" in err
    assert listing(tmp_path) == ["spoiled.npz"]


def test_a_block_that_is_missing_in_the_middle_is_named(run, tmp_path):
    """Not the last one, which is there."""
    torch = pytest.importorskip("torch", reason="torch is not installed")
    arrays = torch.load(TIMM, weights_only=True)
    torch.save({name: a for name, a in arrays.items() if not name.startswith("blocks.1.")}, tmp_path / "x.pt")
    code, _, err = run("timm2torch", tmp_path / "x.pt", "-o", tmp_path / "y.pt")
    assert code == 1 and "missing blocks.1.norm{1..2}.weight" in err
    assert "blocks.2" not in err and "unexpected" not in err


def test_a_number_far_beyond_the_blocks_is_no_depth():
    """A stray name must not make a model of a million blocks."""
    assert Sizes({f"blocks.{n}.a": {} for n in (0, 1, 2, 10**6)}).count("blocks") == 3
    assert Sizes({f"blocks.{n}.a": {} for n in (0, 1, 2, 4, 5)}).count("blocks") == 6
    assert Sizes({}).count("blocks") == 0


def test_arrays_of_a_layer_stand_together(run, tmp_path):
    """Though norms whose names differ in numbers alone are alike."""
    names = [f"down.{n}.{m}.{leaf}" for n, m in ((0, 1), (1, 0), (2, 0)) for leaf in ("bias", "weight")]
    save_file({name: np.ones(3 if ".2." not in name else 4, "f4") for name in names}, tmp_path / "x.safetensors")
    shown = [line.split()[-1] for line in run("inspect", tmp_path / "x.safetensors")[1].splitlines() if "down." in line]
    assert shown[-6:] == names


def test_tensors_of_training_state_are_counted_apart(run, tmp_path):
    """They are named below as one, so that the rows above are fewer than the file's tensors."""
    with np.load(GOOGLE) as file:
        arrays = dict(file)
    state = {f"optimizer/{name}": array for name, array in arrays.items()}
    np.savez(tmp_path / "x.npz", **arrays, **state, step=np.int64(5))
    printed = run("inspect", tmp_path / "x.npz")[1]
    size = len(arrays)
    assert f"\narrays:       {2 * size + 1}, of which {size} are listed here, and {size + 1} set aside\n" in printed
    assert f"\nset aside:    {size + 1} arrays\n" in printed and printed.count("step") == 1


def test_columns_of_inspect_are_aligned(run):
    """Names stand last: a long one breaks no column."""
    lines = run("inspect", TIMM)[1].splitlines()
    rows = lines[lines.index("arrays:       42") + 1 :]
    starts = {tuple(found.start() for found in re.finditer(r"(?<=  )\S", row)) for row in rows}
    assert rows[0].split() == ["dtype", "shape", "name"] and len(rows) > 10 and len(starts) == 1
    assert not any(line.startswith("part:") for line in lines)


def test_misfits_of_like_blocks_are_one_line(run, tmp_path):
    def change(arrays):
        for block in range(3):
            name = f"MixerBlock_{block}/channel_mixing/Dense_0/bias"
            arrays[name] = arrays[name][:5]

    code, _, err = run("google2torch", spoiled(tmp_path, change), "-o", tmp_path / "x.safetensors")
    assert code == 1
    assert err.count(" has shape [5]") == 1 and "as its kernel has shape [20, 36]" in err
    assert "MixerBlock_{0..2}/channel_mixing/Dense_0/bias has shape [5], expected [" in err


CHANNEL = ["--set", "channels=1"]


def test_sizes_that_were_assumed_are_told_where_shapes_do_not_fit(run, tmp_path):
    """Of one channel: a RaftMLP's shapes hold products alone. Its image changes no array of a ConvMixer."""
    config = replace(specs.get("raft_mlp").tiny["M"], channels=1)
    write_numbers(tmp_path / "raft.pt", "raft_mlp", config, "official")
    told = {k: v for k, v in as_dict(config).items() if k in ("patches", "rafts", "kernels", "image")}
    words = [word for k, v in told.items() for word in ("--set", f"{k}={json.dumps(v)}")]
    code, _, err = run("official2torch", tmp_path / "raft.pt", "-o", tmp_path / "x.safetensors", *words)
    assert code == 1
    assert "  - assumed: channels=3: --set channels=... if it is another" in err
    wrong = [word if word != f"image={json.dumps(told['image'])}" else "image=64" for word in words]
    code, _, err = run("official2torch", tmp_path / "raft.pt", "-o", tmp_path / "x.safetensors", *wrong, *CHANNEL)
    assert code == 1
    assert "assumed:" not in err  # all of it depends on the image
    words += CHANNEL
    assert run("official2torch", tmp_path / "raft.pt", "-o", tmp_path / "x.safetensors", *words)[0] == 0
    write_numbers(tmp_path / "a.safetensors", "convmixer", specs.get("convmixer").tiny["headless"], "torch")
    arrays = load_file(tmp_path / "a.safetensors")
    save_file({**arrays, "norm.bias": arrays["norm.bias"][:-1]}, tmp_path / "b.safetensors")
    code, _, err = run("torch2flax", tmp_path / "b.safetensors", "-o", tmp_path / "x.msgpack", "--set", "act=gelu")
    assert code == 1
    assert "norm.bias has shape" in err
    assert "assumed:" not in err


@pytest.mark.parametrize(("name", "dtype", "message"), [
    ("blocks.0.toformer_bridge.heads_q_proj.1.weight", "float64", "has dtype float64, and float32 is"),
    ("blocks.0.toformer_bridge.heads_q_proj.1.weight", "float16", "has dtype float16, and float32 is"),
    ("stem.conv.weight", "int32", "has dtype int32: weights are floating-point"),
])  # fmt: skip
def test_weights_that_are_no_numbers_of_one_kind(name, dtype, message, run, tmp_path):
    """Joined as they are, or taken for numbers that they are not, they would be other weights without a word."""
    config = next(iter(specs.get("mobile_former").tiny.values()))
    write_numbers(tmp_path / "a.safetensors", "mobile_former", config, "paddlevit")
    arrays = load_file(tmp_path / "a.safetensors")
    save_file({**arrays, name: arrays[name].astype(dtype)}, tmp_path / "b.safetensors")
    (tmp_path / "c.json").write_text(json.dumps(as_dict(config)))
    words = "-o", tmp_path / "x.safetensors", "--config", tmp_path / "c.json"
    assert run("paddlevit2torch", tmp_path / "a.safetensors", *words)[0] == 0
    code, _, err = run("paddlevit2torch", tmp_path / "b.safetensors", *words, "--force")
    assert code == 1
    assert f"{name} {message}" in err


@pytest.fixture
def alike(run, tmp_path):
    """A paddle checkpoint in a file that others use for torch, whose names are the same, without its record."""
    run("google2paddle", GOOGLE, "-o", tmp_path / "recorded.safetensors")
    save_file(load_file(tmp_path / "recorded.safetensors"), tmp_path / "bare.safetensors")
    return tmp_path / "bare.safetensors"


def test_inspect_plans_a_file_once_that_leaves_a_field_open(run, alike, monkeypatch):
    planned = []

    def counted(*arguments, **options):
        planned.append(arguments)
        return planning.plan_read(*arguments, **options)

    monkeypatch.setattr("convert.inspection.describe.plan_read", counted)
    assert "gelu: set it (erf or tanh)" in run("inspect", alike)[1]
    assert len(planned) == 1


def test_inspect_takes_what_its_user_states(run, alike, tmp_path):
    """As a conversion does: from the record of another file, or one by one; what does not fit is refused."""
    record = tmp_path / "recorded.safetensors"
    _, printed, _ = run("inspect", alike, "--config", record, "--json")
    about = json.loads(printed)
    assert (about["open"], about["config"]["gelu"]) == ("", run("inspect", record)[1].partition("gelu=")[2].split()[0])
    _, printed, _ = run("inspect", alike, "--set", "gelu=tanh", "--json")
    about = json.loads(printed)
    assert about["config"]["gelu"] == "tanh" and "norm_eps is open" in about["open"] and "gelu is" not in about["open"]
    code, _, err = run("inspect", alike, "--set", "gelo=tanh")
    assert code == 2 and "unknown name 'gelo', did you mean 'gelu'?" in err
    code, _, err = run("inspect", alike, "--table", "x.table", "--config", record)
    assert code == 2 and "leave one of them out" in err
    save_file({"a": np.ones(3, "f4")}, tmp_path / "other.safetensors")
    _, printed, _ = run("inspect", tmp_path / "other.safetensors", "--set", "gelu=tanh")
    assert "note:         --set not used, as the file fits no architecture" in printed


def test_what_stays_open_is_no_reason_why_a_file_does_not_fit(run):
    """Remedies follow `open:` alone; the nearest architecture is one whose fields nobody states."""
    printed = run("inspect", Case("raft_native").folder / "weights.pth")[1]
    nearest, stated = printed.partition("nearest:")[2].split("\nopen:")
    assert nearest.startswith("      raft_mlp (official), which may fit:\n")
    assert "that depends on patches, rafts, kernels and image: no official" in nearest and "--set" not in nearest
    assert stated.lstrip().startswith("if it is a raft_mlp, 4 fields are open: ")
    assert "is open" not in stated and "- patches: set it (as in --set patches=4,2,2,2)" in stated


def test_shapes_tell_frameworks_apart_whose_names_are_alike(run, alike, tmp_path):
    _, printed, _ = run("inspect", alike, "--json")
    about = json.loads(printed)
    assert (about["dialect"], "gelu is open" in about["open"]) == ("paddle", True)
    code, _, err = run("torch2flax", alike, "-o", tmp_path / "x.msgpack")
    assert code == 1
    assert "a file of dialect paddle, not of torch: every array fits as paddle: use paddle2flax" in err.splitlines()[0]
    assert "head.weight" not in err  # shapes that are expected in the wrong dialect explain nothing
    more = {**load_file(alike), "extra": np.ones(3, "f4")}
    save_file(more, alike)
    code, _, err = run("torch2flax", alike, "-o", tmp_path / "x.msgpack")
    first, *rest = err.splitlines()
    assert (
        code == 1
        and first.endswith("all but these fit as paddle: use paddle2flax")
        and rest[0] == "  - unexpected extra"
    )


@pytest.mark.parametrize("guess", ["convmixer", None])
def test_a_wrong_guess_changes_nothing(guess, run, tmp_path, monkeypatch):
    """The glance at names says only what to try first."""
    config = specs.get("raft_mlp").tiny["M"]
    write_numbers(tmp_path / "raft.pt", "raft_mlp", config, "official")
    right = run("inspect", tmp_path / "raft.pt", "--json")
    monkeypatch.setattr("specs.likely", lambda _: guess)
    assert run("inspect", tmp_path / "raft.pt", "--json") == right
    assert json.loads(right[1])["architecture"] == "raft_mlp"


def test_a_record_is_not_overruled(run, alike, tmp_path):
    """Square arrays would be transposed wrongly, unseen."""
    code, _, err = run("torch2flax", tmp_path / "recorded.safetensors", "-o", tmp_path / "x.msgpack")
    assert code == 1
    assert "its record says that it holds 'paddle' arrays, not torch ones" in err
    assert not (tmp_path / "x.msgpack").exists()


def test_a_guess_of_the_architecture_is_said_to_be_one(tmp_path, capsys):
    """An MLP of the user's own, of whose names a known architecture has some."""
    from parity.__main__ import main

    sizes = {"stem": (8, 4), "fc2": (8, 8), "head": (3, 8)}
    arrays = {f"{name}.weight": np.ones(shape, np.float32) for name, shape in sizes.items()}
    save_file(arrays | {f"{n}.bias": np.ones(s[0], np.float32) for n, s in sizes.items()}, tmp_path / "m.safetensors")
    assert main([str(tmp_path / "m.safetensors")]) == 1
    err = capsys.readouterr().err
    near = "no architecture is recognised: the nearest is convmixer (torch), which has 4 of 6 names, and does not fit; "
    assert near in err and "a Table converts models of one's own" in err and "no complete" not in err
    assert "stem.weight has shape [8, 4], from which no configuration follows" in err and "unexpected fc2.weight" in err


def test_what_cannot_be_inferred_is_named(run, tmp_path):
    source = spoiled(tmp_path, lambda arrays: arrays.pop("stem/kernel"))
    code, _, err = run("google2torch", source)
    assert code == 1
    assert "no complete google checkpoint of mlp_mixer" in err  # all names are its own
    assert "missing stem/kernel, from which the configuration would follow" in err
    about = json.loads(run("inspect", source, "--json")[1])
    assert (about["dialect"], about["architecture"]) == (None, None)
    assert (about["nearest"]["dialect"], about["nearest"]["architecture"]) == ("google", "mlp_mixer")
    assert any("missing stem/kernel" in reason for reason in about["nearest"]["reasons"])


def test_everything_that_is_missing_is_told_at_once(run, tmp_path):
    """Also where it is of the block that the configuration is read off: another stands in for it."""
    gone = ["MixerBlock_0/token_mixing/Dense_0/kernel", "MixerBlock_0/LayerNorm_0/scale", "head/bias"]

    def change(arrays):
        for name in gone:
            arrays.pop(name)
        arrays["MixerBlock_2/LayerNorm_1/bias"] = np.zeros(13, np.float32)
        arrays["head/more"] = np.zeros(13, np.float32)

    code, _, err = run("google2torch", spoiled(tmp_path, change))
    assert code == 1
    assert all(f"missing {name}" in err for name in gone)
    assert "MixerBlock_2/LayerNorm_1/bias has shape [13], expected [20]" in err
    assert "unexpected head/more" in err


def test_a_route_is_suggested_only_if_it_works(run, tmp_path):
    """All five names of this file are known in convmixer's dialect official, whose network it does not hold."""
    names = {"0.weight": [4, 3], "0.bias": [4], "2.weight": [2, 4], "2.bias": [2], "3.0.fn.0.weight": [2]}
    save_file({name: np.ones(shape, "f4") for name, shape in names.items()}, tmp_path / "x.safetensors")
    code, _, err = run("timm2torch", tmp_path / "x.safetensors")
    assert code == 1 and "5 of 5 are known in official (convmixer)" in err and "official2" not in err


def nested(path, places, prefix=""):
    """A torch file with the golden's names, all zeros, at each of these places."""
    import torch

    weights = {f"{prefix}{name}": torch.zeros(shape) for name, shape in shapes_of(TIMM).items()}
    tree = {"epoch": 3, "n_averaged": torch.tensor(1)}
    for place in places:
        *outer, last = ["top", *place.split("/")] if place else ["top"]
        node = {"top": tree}
        for key in outer:
            node = node.setdefault(key, {})
        node.update({last: dict(weights)}) if place else node["top"].update(weights)
    torch.save(tree, path)


@pytest.mark.parametrize("place", ["", "weights", "model_state", "student", "state/params", "a/b/c"])
@pytest.mark.parametrize(
    "prefix", ["", "module.", "module._orig_mod.", "_orig_mod.module.", "net.", "module.model.net."]
)
def test_a_model_is_found_wherever_it_lies(place, prefix, run, tmp_path):
    needs("torch")
    nested(tmp_path / "a.pth", [place], prefix)
    code, _, err = run("timm2torch", tmp_path / "a.pth", "-o", tmp_path / "x.safetensors")
    assert code == 0, err
    told = "/".join(filter(None, [place, prefix]))
    assert (f"took the weights under {told!r}" in err) == bool(told)


def test_what_an_optimizer_keeps_is_no_model(run, tmp_path):
    """Momentum has the model's names; and a model with a stray array is told so, not passed over for another."""
    needs("torch")
    nested(tmp_path / "a.pth", ["opt_state/trace"])
    code, _, err = run("timm2torch", tmp_path / "a.pth", "-o", tmp_path / "x.safetensors")
    assert code == 1
    assert "a torch file, but its names are not those of dialect timm (of convmixer and mlp_mixer; --spec PAGE" in err
    import torch

    nested(tmp_path / "b.pth", ["state_dict", "student"])
    tree = torch.load(tmp_path / "b.pth")
    tree["state_dict"]["stray.weight"] = torch.zeros(3)
    torch.save(tree, tmp_path / "b.pth")
    code, _, err = run("timm2torch", tmp_path / "b.pth", "-o", tmp_path / "x.safetensors")
    assert code == 1
    assert "unexpected stray.weight" in err


def test_of_what_a_table_wrote_no_part_is_asked_for(run, tmp_path):
    """Its record says what it is, whatever parts of it are named like models."""
    write_numbers(tmp_path / "m.safetensors", "mlp_mixer", next(iter(specs.get("mlp_mixer").tiny.values())), "torch")
    model = load_file(tmp_path / "m.safetensors")
    save_file({f"layers.{i}.{n}": a for i in range(9) for n, a in model.items()}, tmp_path / "a.safetensors")
    assert " and 1 more: say which" in run("inspect", tmp_path / "a.safetensors")[1]
    ends = {f"layers.{{i}}.{n}: {' '.join('abcd'[: a.ndim])}" for n, a in model.items()}
    (tmp_path / "x.table").write_text("table 1\n" + "".join(f"{end} <-> {end}\n" for end in sorted(ends)))
    words = ["--table", tmp_path / "x.table", tmp_path / "a.safetensors", "-o", tmp_path / "b.safetensors"]
    assert run(*words)[0] == 0
    printed = run("inspect", tmp_path / "b.safetensors")[1]
    assert "written by a Table" in printed and "say which" not in printed


def test_of_two_models_in_strange_places_none_is_guessed(run, tmp_path):
    needs("torch")
    nested(tmp_path / "a.pth", ["student", "teacher", "more/params"])
    words = "timm2torch", tmp_path / "a.pth", "-o", tmp_path / "x.safetensors"
    code, _, err = run(*words)
    assert code == 2
    assert (
        "a model's names under each of 'student', 'teacher', 'more/params': say which, as in --weights student" in err
    )
    assert "a model's names under each of" in run("inspect", tmp_path / "a.pth")[1]
    for place, found in (("teacher", "teacher"), ("more", "more/params")):
        code, _, err = run(*words, "--weights", place, "--force")
        assert code == 0, err
        assert f"took the weights under {found!r}" in err
    assert "nothing known lies under 'pupil' (it holds more, student, teacher)" in run(*words, "--weights", "pupil")[2]


def test_training_checkpoints(run, tmp_path):
    needs("torch")
    import torch

    weights = {f"module.{name}": torch.zeros(shape) for name, shape in shapes_of(TIMM).items()}
    ema = {name: torch.ones(shape) for name, shape in shapes_of(TIMM).items()}
    torch.save({"epoch": 3, "state_dict": weights, "state_dict_ema": ema}, tmp_path / "train.pth")
    code, _, err = run("timm2torch", tmp_path / "train.pth", "-o", tmp_path / "a.safetensors")
    assert code == 0
    assert "took the weights under 'state_dict/module.'" in err
    assert "state_dict_ema" in err
    assert not load_file(tmp_path / "a.safetensors")["norm.weight"].any()
    run("timm2torch", tmp_path / "train.pth", "-o", tmp_path / "b.safetensors", "--weights", "state_dict_ema")
    assert load_file(tmp_path / "b.safetensors")["norm.weight"].all()


def shapes_of(path):

    with open_checkpoint(path) as reader:
        return {t.name: t.shape for t in reader.tensors.values()}

"""Names as programs really leave them: deeper leaves, other separators, wrappers, prefixes, parts of weights."""

import json
import pickle
import re

import numpy as np
import pytest

import convert
import specs
from convert.__main__ import main
from convert.errors import ConvertError, FormatError
from convert.files import open_checkpoint
from convert.files.base import MAX_TENSORS, Tensor
from convert.reading.nesting import LONGEST
from convert.reading.parametrized import parametrized
from convert.reading.spelling import respelled

from .commands import GOOGLE, TIMM
from .conftest import needs
from .files.harm import soon
from .files.samples import store
from .test_parts import arrays, save, under
from .test_routes import write_numbers


def google():
    return arrays(GOOGLE)


def converted(path, src="google", **options):
    """The arrays of a file in its own dialect again, and the notes."""
    with convert.plan(path, src=src, dst=src, **options) as plan:
        return dict(plan.arrays()), " ".join(plan.notes()), plan


def same(one, other):
    assert one.keys() == other.keys()
    for name, array in other.items():
        np.testing.assert_array_equal(one[name], array)


def deeper(model, level, chosen=lambda name: True):
    return {f"{name}/{level}" if chosen(name) else name: array for name, array in model.items()}


OPTIMIZER = ("mu", "nu")


def moments(model, level=""):
    return {f"1/opt_state/0/{m}/{name}{level}": a * 0 for m in OPTIMIZER for name, a in model.items()}


BOXED = {
    "nnx state": lambda m: deeper(m, "value"),
    "raw value": lambda m: deeper(m, "raw_value"),
    "boxed params": lambda m: deeper(under("params/", m), "value"),
    "kernels alone": lambda m: deeper(under("params/", m), "value", lambda name: name.endswith("kernel")),
    "another level": lambda m: deeper(m, "array"),
    "another level of a part": lambda m: {**deeper(under("model/", m), "w"), **under("other/", {"a": np.ones(3)})},
    "model and optimizer": lambda m: {**deeper(under("0/", m), "value"), **moments(m, "/value"),
                                      "1/step/value": np.uint32(5)},
    "dropout keys": lambda m: {**deeper(m, "value"), "drop/rngs/count/value": np.uint32(1)},
    "train state": lambda m: {**deeper(under("params/", m), "value"),
                              **{f"opt_state/0/mu/{n}/value": a * 0 for n, a in m.items()}, "step": np.int32(3)},
}  # fmt: skip


@pytest.mark.parametrize("case", BOXED)
@pytest.mark.parametrize("suffix", [".msgpack", ".safetensors"])
def test_one_more_level_under_leaves(case, suffix, tmp_path):
    model = google()
    path = save(tmp_path / f"x{suffix}", BOXED[case](model))
    result, notes, plan = converted(path)
    same(result, model)
    assert "read its names without /" in notes
    used = {tensor.name for tensor in plan.sources.values()}
    assert len(used) + sum(entry.arrays for entry in plan.aside) == len(BOXED[case](model))


def test_a_level_that_is_part_of_names_stays(tmp_path):
    """A leaf of a layer without bias, moments of an optimizer, and a level that only some arrays have."""
    for model in (
        {f"block_{i}/kernel": np.ones(2) for i in range(9)},
        {f"block_{i}/kernel/momentum": np.ones(2) for i in range(9)},
        {f"block_{i}/{leaf}/gamma": np.ones(2) for i in range(3) for leaf in "ab"},
        {"attention/value": np.ones(2), "attention/query": np.ones(2)},
    ):
        with open_checkpoint(save(tmp_path / "x.msgpack", model)) as reader:
            assert respelled(reader) is reader


def test_two_arrays_never_get_one_name(tmp_path):
    with open_checkpoint(save(tmp_path / "x.safetensors", {"a/value": np.ones(2), "a": np.ones(2)})) as reader:
        assert respelled(reader) is reader


@pytest.mark.parametrize("architecture", ["convmixer", "mlp_mixer"])
def test_an_nnx_module_s_state(architecture, tmp_path):
    """Without collections, lists apart, alone and under a prefix; integer keys are as good as texts."""
    config = next(iter(specs.get(architecture).tiny.values()))
    write_numbers(tmp_path / "w.msgpack", architecture, config, "flax")
    whole = arrays(tmp_path / "w.msgpack")
    pure = {re.sub(r"_(\d+)(?=/)", r"/\1", name.partition("/")[2]): array for name, array in whole.items()}
    options = {"settings": {"act": "relu"}, "assume": True} if architecture == "convmixer" else {"assume": True}
    for contents in (pure, deeper(pure, "value"), deeper(under("0/", pure), "value"), under("model/", pure)):
        same(converted(save(tmp_path / "x.msgpack", contents), "flax", **options)[0], whole)
    save(tmp_path / "x.msgpack", pure)
    numbered = (tmp_path / "x.msgpack").read_bytes().replace(b"\xa10", b"\x00").replace(b"\xa11", b"\x01")
    (tmp_path / "x.msgpack").write_bytes(numbered)
    same(converted(tmp_path / "x.msgpack", "flax", **options)[0], whole)


def test_an_nnx_layout_is_restored_by_flax(tmp_path, capsys):
    """By StandardCheckpointer into the state of a module, which nnx.update then takes."""
    needs("flax")
    ocp = pytest.importorskip("orbax.checkpoint", reason="orbax is not installed: pip install '.[orbax]'")
    from flax import nnx

    out = tmp_path / "x.orbax"
    assert main(["google2flax", str(GOOGLE), "-o", str(out), "--layout", "nnx"]) == 0
    with open_checkpoint(out) as reader:
        stored = {n: np.frombuffer(reader.read(n), t.dtype).reshape(t.shape) for n, t in reader.tensors.items()}
    assert "blocks/0/norm1/scale/value" in stored and all(name.endswith("/value") for name in stored)
    module = _module({name.removesuffix("/value"): array.shape for name, array in stored.items()}, nnx)
    with ocp.StandardCheckpointer() as checkpointer:
        nnx.update(module, checkpointer.restore(out, nnx.state(module)))
    for path, variable in nnx.state(module).flat_state():
        np.testing.assert_array_equal(np.asarray(variable[...]), stored["/".join(map(str, (*path, "value")))])
    assert main(["verify", str(out)]) == 0
    assert main(["diff", str(out), str(GOOGLE)]) == 0
    assert main(["google2torch", str(GOOGLE), "-o", str(tmp_path / "x.pt"), "--layout", "nnx"]) == 2
    assert "torch is not a dialect of flax" in capsys.readouterr().err


def _module(shapes, nnx):
    """An nnx module with a Param at each path; levels that are numbers make lists."""

    class Node(nnx.Module):
        pass

    def node(inner):
        if all(key.isdigit() for key in inner):
            return nnx.List([node(inner[str(i)]) for i in range(len(inner))])
        made = Node()
        for key, value in inner.items():
            setattr(made, key, node(value) if isinstance(value, dict) else nnx.Param(np.zeros(value, "f4")))
        return made

    tree = {}
    for name, shape in shapes.items():
        *levels, leaf = name.split("/")
        at = tree
        for level in levels:
            at = at.setdefault(level, {})
        at[leaf] = shape
    return node(tree)


JOINED = {
    "dots": lambda name: name.replace("/", "."),
    "dots, boxed": lambda name: f"params/{name}/value".replace("/", "."),
    "arrows": lambda name: name.replace("/", "->"),
    "arrows, params": lambda name: f"params/{name}".replace("/", "->"),
    "tuple": lambda name: str(("params", *name.split("/"))),
    "tuple, double quotes": lambda name: str(tuple(name.split("/"))).replace("'", '"'),
    "keystr": lambda name: "".join(f"['{level}']" for level in ("params", *name.split("/"))),
    "attribute": lambda name: ".params" + "".join(f"['{level}']" for level in name.split("/")),
    "nested": lambda name: f"target/{name.replace('/', '.')}",
    **{f"mark {mark}": lambda name, mark=mark: name.replace("/", mark) for mark in ("__", "|", "-", " ", "::", "\\")},
}


@pytest.mark.parametrize("case", JOINED)
@pytest.mark.parametrize("suffix", [".npz", ".safetensors"])
def test_flax_names_joined_otherwise(case, suffix, tmp_path):
    model = google()
    path = tmp_path / f"x{suffix}"
    tensors = [(Tensor(JOINED[case](n), a.shape, str(a.dtype)), [a.tobytes()]) for n, a in model.items()]
    result, notes, _ = converted(store(path, tensors, metadata={"format": "flax"}))
    same(result, model)
    assert "of its names" in notes or "in its names" in notes


def test_marks_that_join_nothing_stay(tmp_path):
    """A mark of some names, a mark inside words, and torch's and paddle's own leaves."""
    for names in (
        ["layer_norm_scale", "b_bias"], ["a-kernel", "b|kernel"], ["bn.weight", "bn._mean"],
        ["bn._mean", "bn._variance"], ["a.weight", "pos.embedding"],
    ):  # fmt: skip
        path = save(tmp_path / "x.safetensors", {name: np.ones(2) for name in names})
        with open_checkpoint(path) as reader:
            assert respelled(reader) is reader, names


def test_keys_that_are_tuples(tmp_path):
    """As flax's flatten_dict makes them, in a pickle; one level more than allowed is refused, and a tuple of others."""
    flat = {("params", *name.split("/")): array for name, array in google().items()}
    path = tmp_path / "x.pkl"
    path.write_bytes(pickle.dumps(flat, protocol=4))
    same(converted(path)[0], google())
    deep = {("a",) * 30: {("b",) * 35: np.ones(2)}}
    for bad in (deep, {("a",) * 100_000: np.ones(2)}, {("a", None): np.ones(2)}, {(): np.ones(2)},
                {("a", "b"): np.ones(2), "a": {"b": np.ones(2)}}):  # fmt: skip
        path.write_bytes(pickle.dumps(bad, protocol=4))
        with pytest.raises(FormatError, match=r"name|nests"):
            open_checkpoint(path)


def test_counts_of_a_profiler_are_no_part_of_a_model(tmp_path):
    model = arrays(TIMM)
    counts = {"total_ops": np.zeros(1), "blocks.0.total_params": np.zeros(1)}
    result, _, plan = converted(save(tmp_path / "x.safetensors", {**model, **counts}), "timm")
    same(result, model)
    assert [(entry.name, entry.reason) for entry in plan.aside] == [(name, "counts of a profiler") for name in counts]


def test_weights_that_zero_3_left_elsewhere(tmp_path):
    path = save(tmp_path / "x.safetensors", {name: array.reshape(-1)[:0] for name, array in arrays(TIMM).items()})
    with pytest.raises(ConvertError, match=r"zero_to_fp32.py \. joined"):
        converted(path, "timm")


def test_dots_of_torch_stay(tmp_path):
    with open_checkpoint(TIMM) as reader:
        assert respelled(reader) is reader


WRAPPED = ("_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module", "module", "_forward_module")


@pytest.mark.parametrize("wrapper", WRAPPED)
@pytest.mark.parametrize("place", ["", "module.", "state_dict/net."])
def test_wrappers_at_any_depth(wrapper, place, tmp_path):
    model = arrays(TIMM)
    inner = {re.sub(r"^(blocks\.\d+)\.(\w+)\.", rf"\1.{wrapper}.\2._orig_mod.", n): a for n, a in model.items()}
    result, notes, _ = converted(save(tmp_path / "x.safetensors", under(place, inner)), "timm")
    same(result, model)
    assert f"{wrapper}." in notes


@pytest.mark.parametrize(
    "place", ["encoder.", "student.backbone.", "a.b.c.d.e.f.g.", "state_dict/lit.model.", "x/y/z."]
)
def test_a_model_under_any_prefix_beside_other_arrays(place, tmp_path):
    model = arrays(TIMM)
    beside = {"loss.weight": np.ones(3, "f4"), "metric/total": np.int64(3)}
    result, _, plan = converted(save(tmp_path / "x.safetensors", {**beside, **under(place, model)}), "timm")
    same(result, model)
    assert sorted(entry.name for entry in plan.aside) == sorted(beside)


@pytest.mark.parametrize(
    "choice", ["teacher.backbone", "teacher.backbone.", "state_dict/teacher.backbone", "d.teacher"]
)
def test_the_end_of_a_place_chooses_it(choice, tmp_path):
    model = arrays(TIMM)
    place = "state_dict/d.teacher." if choice == "d.teacher" else "state_dict/teacher.backbone."
    both = {**under("state_dict/student.backbone.", model), **under(place, {n: a + 1 for n, a in model.items()})}
    path = save(tmp_path / "x.safetensors", both)
    with pytest.raises(ConvertError, match=r"student.backbone.*teacher.*weights="):
        converted(path, "timm")
    result, _, plan = converted(path, "timm", weights=choice)
    same(result, {n: a + 1 for n, a in model.items()})
    assert "state_dict/student.backbone" in plan.aside[0].reason


def test_an_end_that_several_places_have_chooses_none(tmp_path):
    model = arrays(TIMM)
    path = save(tmp_path / "x.safetensors", {**under("a/net.", model), **under("b/net.", model)})
    with pytest.raises(ConvertError, match=r"weights='net' may mean each of 'a/net\.', 'b/net\.'"):
        converted(path, "timm", weights="net")


WEIGHT = "blocks.0.mlp_tokens.fc1"
PARTS = {  # leaves in place of "weight" -> what the message names
    "parametrizations.weight.original0 parametrizations.weight.original1": "remove_parametrizations",
    "parametrizations.weight.original parametrizations.weight.0._u": "remove_parametrizations",
    "weight_g weight_v": "remove_weight_norm(module)",
    "weight_orig weight_u weight_v": "remove_spectral_norm",
    "weight_orig weight_mask": "prune.remove",
    "base_layer.weight lora_A.default.weight lora_B.default.weight": "merge_and_unload",
    "lora_A.weight lora_B.weight weight": "merge_and_unload",
    "weight lora_down.weight lora_up.weight": "fuse_lora",
    "weight weight.absmax weight.quant_map": "dequantize()",
    "weight SCB": "dequantize()",
    "weight weight_scale_inv": "dequantize()",
    "qweight qzeros scales": "dequantize()",
    "weight ia3_l": "merge_and_unload",
    "_flat_param": "FULL_STATE_DICT",
}


@pytest.mark.parametrize("leaves", PARTS)
def test_weights_in_parts_are_named_for_what_they_are(leaves, tmp_path):
    model = arrays(TIMM)
    weight = model.pop(f"{WEIGHT}.weight")
    parts = {f"{WEIGHT}.{leaf}": weight for leaf in leaves.split()}
    with pytest.raises(ConvertError) as caught:
        converted(save(tmp_path / "x.safetensors", {**model, **parts}), "timm")
    assert PARTS[leaves] in str(caught.value) and "mlp_tokens.fc1" in str(caught.value)


def test_a_whole_model_is_not_in_parts():
    assert parametrized(arrays(TIMM)) == "" and parametrized(google()) == ""
    assert parametrized(["a.weight_v", "a.lora_A"]) == ""  # one part of two


def replicas(model, count=3):
    return {name: np.stack([array] * count) for name, array in model.items()}


@pytest.mark.parametrize("place", ["", "params/", "target/params/"])
def test_replicas_are_named_and_one_is_taken(place, tmp_path):
    model = google()
    path = save(tmp_path / "x.msgpack", {**under(place, replicas(model)), "opt_state/0/count": np.zeros(3, "i4")})
    with pytest.raises(ConvertError, match=r"leading axis of 3.*unreplicate=True takes one"):
        converted(path)
    result, notes, _ = converted(path, unreplicate=True)
    same(result, model)
    assert "the first of 3 replicas, which are equal" in notes


def test_replicas_that_differ_are_refused(tmp_path, capsys):
    """By one bit, of the last element of the last replica; NaNs are equal where their bits are."""
    model = replicas(google())
    model["head/kernel"][:, 0, 0] = np.nan
    path = save(tmp_path / "x.msgpack", model)
    assert np.isnan(converted(path, unreplicate=True)[0]["head/kernel"][0, 0])
    model["stem/kernel"].view("u4").reshape(-1)[-1] ^= 1
    save(path, model)
    command = ["google2torch", str(path), "-o", str(tmp_path / "y.pt"), "--unreplicate"]
    assert main(command) == 1
    assert "the replicas of stem/kernel differ" in capsys.readouterr().err
    assert not (tmp_path / "y.pt").exists()
    assert main(["google2torch", str(GOOGLE), "-o", str(tmp_path / "y.pt"), "--unreplicate"]) == 2
    assert "its arrays fit as they are: leave out --unreplicate" in capsys.readouterr().err


def _at_the_end(model):
    model["stem/kernel"].view("u4").reshape(-1)[-1] ^= 1


def _signed_zero(model):
    model["head/bias"][:] = 0
    model["head/bias"][1, 0] = -0.0


HOSTILE_REPLICAS = {  # a change of an array's replicas -> how many there are
    "the last bit": (_at_the_end, 2), "the last bit of many": (_at_the_end, 300), "a signed zero": (_signed_zero, 3),
    "another number of one array": (lambda m: m.update({"head/bias": m["head/bias"][:2]}), 3),
    "one array has none": (lambda m: m.update({"head/bias": m["head/bias"][0]}), 3),
    "none at all": (lambda m: m.update({name: array[:0] for name, array in m.items()}), 3),
    "huge and empty": (lambda m: m.update({n: np.empty((2**40, 0), "f4") for n in m}), 2),
}  # fmt: skip


@pytest.mark.parametrize("case", HOSTILE_REPLICAS)
@pytest.mark.parametrize("compressed", [False, True])
def test_hostile_replicas_are_refused_soon(case, compressed, tmp_path):
    change, count = HOSTILE_REPLICAS[case]
    model = replicas(google(), count)
    change(model)
    (np.savez_compressed if compressed else np.savez)(tmp_path / "x.npz", **model)
    with soon(case), pytest.raises(ConvertError):
        converted(tmp_path / "x.npz", unreplicate=True)


def test_replicas_larger_than_a_piece(tmp_path, monkeypatch):
    """Each of the two readers goes through a compressed file in order."""
    from convert.reading import replicas as module

    monkeypatch.setattr(module, "PIECE", 64)
    np.savez_compressed(tmp_path / "x.npz", **replicas(google()))
    same(converted(tmp_path / "x.npz", unreplicate=True)[0], google())
    wrong = replicas(google())
    _at_the_end(wrong)
    np.savez_compressed(tmp_path / "x.npz", **wrong)
    with pytest.raises(ConvertError, match="the replicas of stem/kernel differ"):
        converted(tmp_path / "x.npz", unreplicate=True)


def test_a_proof_of_one_replica(tmp_path):
    needs("torch")
    path = save(tmp_path / "x.msgpack", replicas(google(), 2))
    command = ["google2torch", str(path), "-o", str(tmp_path / "y.pt"), "--unreplicate", "--prove"]
    assert main(command) == 0


def _many(name, count=MAX_TENSORS):
    header = {name(i): {"dtype": "U8", "shape": [0], "data_offsets": [0, 0]} for i in range(count)}
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text


HOSTILE = {  # names by the thousands that cost whoever respells, places or matches them
    "prefixes": lambda i: f"p{i}." + "blocks.0.norm1.weight",
    "nested prefixes": lambda i: ".".join(f"{chr(97 + k)}{i >> k}" for k in range(16)) + ".blocks.0.norm1.weight",
    "places of one model each": lambda i: f"m{i // 8}.blocks.{i % 8}.norm1.weight",
    "copies of copies": lambda i: "ema." * 60 + f"ema{i}.blocks.0.norm1.weight",
    "thousands of levels": lambda i: f"{i}." + "p." * 1500 + "blocks.0.norm1.weight",
    "ends of places": lambda i: f"{i}.teacher.blocks.0.norm1.weight",
    "wrappers": lambda i: "module." * 40 + f"blocks.{i}.norm1.weight",
    "wrappers alone": lambda i: "module." * (1 + i % 600) + str(i),
    "names that wrappers alone tell apart": lambda i: "_orig_mod." * (i % 60) + f"blocks.{i // 60}.norm1.weight",
    "flat parameters": lambda i: f"_fsdp_wrapped_module.{i}._flat_param",
    "boxes": lambda i: f"{i}/value",
    "a level that all share": lambda i: f"{i}/" + "w/" * 60 + "w",
    "lists in lists": lambda i: f"params/{i}/" + "0/" * 60 + "kernel/value",
    "boxes without a name": lambda i: "/" * (i % 60) + f"{i // 60}/value/raw_value",
    "boxes in boxes": lambda i: f"{i}" + "/value" * 60,
    "tuples": lambda i: str(("params",) * 20 + (str(i),)),
    "open tuples": lambda i: "(" + "'a', " * 30 + str(i),
    "paths": lambda i: "['a']" * 20 + f"[{i}]" + "." * 30,
    "arrows": lambda i: "->" * 60 + str(i),
    "marks": lambda i: "a__" * 300 + f"{i}__kernel",
    "marks of many kinds": lambda i: f"a{'|-:~'[i % 4]}" * 100 + f"{i}{'|-:~'[i % 4]}kernel",
    "marks before many leaves": lambda i: ".kernel" * 80 + f".{i}.kernel.value",
    "dots": lambda i: "." * 100 + f"{i}.kernel",
    "modules": lambda i: "_modules/" * 30 + f"{i}",
    "parts": lambda i: f"{i}" + ".a_b_c" * 20 + ".weight_g",
    "low rank": lambda i: f"lora_A.{i}." + "lora_B." * 30,
    "leading axes": lambda i: f"blocks.{i}.norm1.weight",
}  # fmt: skip


LONG = {"thousands of levels", "names that wrappers alone tell apart", "marks", "copies of copies"}  # 1,000 suffice


@pytest.mark.parametrize("case", HOSTILE)
def test_hostile_names_are_refused_soon(case, tmp_path):
    count = 1_000 if case in LONG else 2_500
    (tmp_path / "x.safetensors").write_bytes(_many(HOSTILE[case], count))
    with soon(case, 3.0), pytest.raises(ConvertError) as caught:
        convert.plan(tmp_path / "x.safetensors", src="timm", dst="flax", weights="teacher" if "ends" in case else None)
    assert len(str(caught.value)) < 2000


@pytest.mark.parametrize("name", ["('" + "a" * 5000 + "',)", "a" + "->b" * 1500, "['a']" * 900])
def test_names_that_are_too_long_stay(name, tmp_path):
    path = tmp_path / "x.safetensors"
    path.write_bytes(_many(lambda i: f"{name}{i}"[: LONGEST * 9], 1))
    with soon(name[:9]), pytest.raises((ConvertError, FormatError)):
        convert.plan(path, src="google", dst="flax")

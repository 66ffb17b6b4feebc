"""A line of a dialect's table that does nothing is an error, which names the line and the nearest name."""

import math
import re
from types import SimpleNamespace

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

import specs
from convert import dialect_faults, plan
from convert.dialect_faults import check_dialects
from convert.errors import ConvertError
from convert.reading import recognise
from specs.dialects import place, shapes
from specs.dialects import table as table_between
from specs.layer import array, batch_norm, dense, norm, parameters
from specs.spec import Dialect

from .conftest import needs
from .golden import Case

WRONG = {
    "stem patch": "line 1 of the table, 'stem patch': write path: axes <-> path: axes",
    "stem  patch  embed": "one arrow",
    "stem <-> patch embed": "'patch embed' has no colon: write patch: embed, or \\u0020 for a space in a path",
    "stem -> drop": "a line of a dialect has one name on each side of <->",
    "norm.scale: c <-> a: c, b: c": "a line of a dialect has one name on each side of <->",
    "blocks.{i}.norm1 <-> b.{i}.{s=x|y}": "hole {s=x|y} lists values",
    "norm.scale:c <-> n.scale:c": "layers yields no 'norm.scale:c'",
    "head.kernel: 'o i' <-> h: i o": "an axis is a name, a composition such as (s u), or 1",
    "blocks.{i}.norn1 <-> b.{i}.n": "layers yields no 'blocks.{i}.norn1', did you mean 'blocks.{i}.norm1'?",
    "blocks.{i}.token_mix.fc1.kernal: i o <-> b.{i}.k: i o": "did you mean 'blocks.{i}.token_mix.fc1.kernel'?",
    "blocks.{i}.token_mix.fc1.kernel <-> b.{i}.k": "names an array without its axes: give them on both sides, as in "
    "'blocks.{i}.token_mix.fc1.kernel: i o'",
    "blocks.{i}.norm1: c <-> b.{i}.n: c": "names a layer, but has axes",
    "head.kernel: i o <-> h.weight": "has axes on one side only",
    "head.kernel: i o <-> h: i p": "axes: unknown name 'p'",
    "head.kernel: i o <-> h: i": "axis 'o' stands on one side only",
    "head.kernel: o i <-> h: i o": "its axes make shape",
    "head.kernel: i (o <-> h: i o": "axes 'i (o': parentheses",
    "blocks.{i}.norm1 <-> b.{j}.n": "{i} stands on one side only",
    "blocks.{i}.norm1 <-> b.{i}.{dept}.n": "hole {dept}: unknown name 'dept', did you mean 'depth'?",
    "blocks.{i}.norm1 <-> b.{patch[j]}.{i}.n": "hole {patch[j]}: unknown name 'j'",
    "blocks.{i}.norm1 <-> b.{i-1}.n": "{i-1} would be -1",
    "blocks.{i}.norm1 <-> b.{i.n": "{ without }",
    "blocks.{grid[i]}.norm1 <-> b.{i}.n": "stands on our side",
    "norm <-> n\nnorm <-> m": "line 2 of the table, 'norm <-> m': has no effect",
    "norm.scale: c = head.bias: c <-> a: c": "a line of a dialect has one name on each side of <->",
    "blocks.{i}.token_mix.fc1.weight: i o <-> b.{i}.k: i o": "no array is named 'blocks.{i}.token_mix.fc1.weight' "
    "(blocks.{i}.token_mix.fc1 has kernel: i o, bias: o)",
    "norm.scale: c <-> n: (1[:1] c)\nnorm.bias: c <-> n: (1[1:] c)": "line 1 of the table, "
    "'norm.scale: c <-> n: (1[:1] c)': has a window: a line of a dialect places whole arrays",
    "norm.scale: c[1:] <-> n: c": "has a window",
    "# first\ntable 1: a <-> b": "line 2 of the table, 'table 1: a <-> b': a dialect has no header",
    "norm <-> n  # last\nnorn <-> m  # last": "line 2 of the table, 'norn <-> m': layers yields no 'norn'",
    "head.{k=a|b}: i o <-> h.{k=a|b}: i o": "hole {k=a|b} lists values",
    "head.kernel: i o <-> h.{o=a|b}: i": "head.kernel: {o=a|b} lists 2 values, o has",
    "norm.scale: c <-> n: c[@order.txt]": "has an order of a file",
    "norm <-> n\nhead <-> n": "'n.bias' would be two arrays: norm.bias (line 1 of the table, 'norm <-> n'); "
    "head.bias (line 2 of the table, "
    "'head <-> n')",
    "norm <-> head": "'head.bias' would be two arrays: norm.bias (line 1 of the table, 'norm <-> head'); "
    "head.bias (which no line "
    "names)",
    "head.kernel: i o <-> a: o i = b: o": "axis 'i' stands on one side only",
    "head.kernel: i o <-> a: o i = b.{dept}: o i": "hole {dept}: unknown name 'dept'",
    "head.kernel: i o <-> a: o i = b.{s=x|y}: o i": "hole {s=x|y} lists values",
}


@pytest.fixture
def dialect(monkeypatch):
    """Give MLP-Mixer one dialect, for this test."""

    def give(table, **fields):
        broken = Dialect("torch", table, **fields)
        monkeypatch.setitem(specs.get("mlp_mixer").dialects, "mine", broken)
        _forget()
        return broken

    yield give
    monkeypatch.undo()
    _forget()


def _forget():
    for cached in (dialect_faults.check_dialects, recognise.lines, recognise.spellings):
        cached.cache_clear()


@pytest.mark.parametrize("table", WRONG)
def test_a_line_that_does_nothing_is_refused(table, dialect):
    dialect(table)
    with pytest.raises(ConvertError, match=re.escape(WRONG[table])) as error:
        check_dialects("mlp_mixer")
    assert str(error.value).startswith("mlp_mixer: dialect 'mine' ")


def test_a_layer_of_another_depth_is_no_hint(dialect):
    dialect("norm1 <-> n")
    with pytest.raises(ConvertError) as error:
        check_dialects("mlp_mixer")
    assert error.value.problems == [
        "line 1 of the table, 'norm1 <-> n': layers yields no 'norm1', did you mean 'norm'?"
    ]
    dialect("fc1 <-> n")
    with pytest.raises(ConvertError) as error:
        check_dialects("mlp_mixer")
    assert error.value.problems == ["line 1 of the table, 'fc1 <-> n': layers yields no 'fc1'"]


@pytest.fixture
def page(tmp_path, monkeypatch):
    """Write MLP-Mixer as a page from outside, whose one dialect has two wrong lines; it is forgotten after the test."""
    monkeypatch.setattr(specs, "_added", {})
    path = tmp_path / "my_mixer.py"
    path.write_text(
        "from dataclasses import replace\nfrom specs.mlp_mixer import SPEC as OURS\nfrom specs.spec import Dialect\n"
        'MINE = Dialect("torch", "norn <-> n\\nhaed <-> h", OURS.dialects["timm"].conventions)\n'
        'SPEC = replace(OURS, dialects={"mine": MINE}, readers={}, sign="")\n'
    )
    yield path
    check_dialects.cache_clear()


FAULTS = (
    "dialect 'mine'",
    "line 1 of the table, 'norn <-> n'",
    "line 2 of the table, 'haed <-> h'",
    "'norm'?",
    "'head'?",
)


def test_a_command_reports_every_fault_of_a_page_at_once(page, run, tmp_path):
    source, out = Case("timm_mixer").files[0], tmp_path / "out.safetensors"
    code, _, error = run("mine2torch", source, "-o", out, "--spec", page)
    assert code == 2
    assert all(part in error for part in FAULTS), error


def test_a_page_added_in_python_is_checked_before_it_is_used(page):
    architecture = specs.add(str(page))
    with pytest.raises(ConvertError, match="dialect 'mine'") as error:
        recognise.dialects(architecture)
    assert all(part in str(error.value) for part in FAULTS)


@pytest.mark.parametrize("architecture", specs.names())
def test_every_table_here_is_well_defined(architecture):
    check_dialects(architecture)
    for dialect, table in recognise.dialects(architecture).items():
        for config in specs.get(architecture).tiny.values():
            placed = [
                place(parameter, table, config)
                for parameter in parameters(list(specs.get(architecture).layers(config)))
            ]
            names = [name for view in placed if view is not None for name in view.names.values()]
            assert len(names) == len(set(names)), dialect


@pytest.fixture
def mixer(dialect, tmp_path):
    """Write a small Mixer of a dialect with given lines and extras, all of whose arrays count up from 0."""

    def write(table, change=dict, **fields):
        spec = specs.get("mlp_mixer")
        own = dialect(table, conventions=spec.dialects["timm"].conventions, **fields)
        config = next(twin for twin in spec.tiny.values() if twin.classes)
        stored = shapes(spec.layers(config), own, config)
        arrays = {name: np.arange(math.prod(shape), dtype="f4").reshape(shape) for name, shape in stored.items()}
        path = tmp_path / "mine.safetensors"
        save_file(change(arrays), path)
        return arrays, path

    return write


def spare(config):
    return [dense("spare", 2, config.width, bias=False)]


def test_extras_may_have_the_sizes_of_the_config(mixer, run, tmp_path):
    arrays, path = mixer("head <-> fc", extras=spare)
    width = len(arrays["norm.weight"])
    code, said, err = run("mine2mine", path, "-o", tmp_path / "x.safetensors")
    assert code == 0, err
    assert "never uses it, and the source lacks it: spare.weight (an extra of mine: tied arrays would be" in said + err
    stored = load_file(tmp_path / "x.safetensors")["spare.weight"]
    assert stored.shape == (width, 2) and not stored.any()
    arrays, path = mixer("head <-> fc", lambda arrays: arrays | {"spare.weight": np.ones((2, 2), "f4")}, extras=spare)
    code, said, err = run("mine2torch", path, "-o", tmp_path / "y.safetensors")
    assert (code, f"spare.weight has shape [2, 2], expected [{width}, 2]" in err) == (1, True), err


def places(config):
    """Return what the code of a dialect computes."""
    index, scale = np.arange(config.width * 2).reshape(-1, 2).T, 1 / np.arange(1, 4)
    return {"index": index, "scale": scale.astype("f4")}


def test_what_the_code_of_a_dialect_computes_is_compared_and_written(mixer, run, tmp_path):
    """Of floats up to rounding, in which libraries differ; an optimizer never trains them."""
    plain, _ = mixer("head <-> fc", computed=places)
    own = {n: np.ascontiguousarray(v) for n, v in places(SimpleNamespace(width=plain["norm.weight"].size)).items()}
    rounded = {**own, "scale": np.nextafter(own["scale"], np.float32(2))}
    for stored in ({}, own, rounded):
        _, path = mixer("head <-> fc", lambda arrays, stored=stored: arrays | stored, computed=places)
        code, said, err = run("mine2mine", path, "-o", tmp_path / "x.safetensors", "--force")
        assert (code, "batch counter" in said + err) == (0, False), err
        written = load_file(tmp_path / "x.safetensors")
        assert written.keys() - plain.keys() == own.keys()
        assert all(np.array_equal(written[name], own[name]) and written[name].dtype == own[name].dtype for name in own)
    for name, element in (("index", 1), ("scale", 1e-4)):
        other = {**own, name: own[name] + np.asarray(element, own[name].dtype)}
        _, path = mixer("head <-> fc", lambda arrays, other=other: arrays | other, computed=places)
        for command in ("mine2torch", "diff"):
            target = [path] if command == "diff" else ["-o", tmp_path / "y.safetensors"]
            code, _, err = run(command, path, *target)
            problem = f"{name} is not what its dialect mine computes of this configuration: {own[name].size} of "
            assert (code, problem in err, "(--set, --config); if the code differs" in err) == (1, True, True), err
        assert not (tmp_path / "y.safetensors").exists()
    spec, (config, *_) = specs.get("mlp_mixer"), specs.get("mlp_mixer").tiny.values()
    there, back = (table_between(spec, *sides, config) for sides in (("torch", "mine"), ("mine", "torch")))
    assert "drop <- index" in str(there) and "index -> drop" in str(back)
    assert {str(line) for line in there.reverse().lines} == {str(line) for line in back.lines}


def test_integers_are_no_extras(mixer, run, tmp_path):
    _, path = mixer("head <-> fc", lambda arrays: arrays | {"spare": np.arange(3)}, extras=(array("spare", n=3),))
    code, _, err = run("mine2torch", path, "-o", tmp_path / "y.safetensors")
    problem = "spare has dtype int64, and extras are never used, so that zeros are written: state it in the dialect's"
    assert (code, problem in err) == (1, True), err


def test_a_dialect_has_a_suffix_that_is_written(dialect):
    dialect("", suffix=".ptx")
    with pytest.raises(ConvertError, match=r"suffix: unknown name '.ptx', did you mean '.pt'\? \(one of"):
        check_dialects("mlp_mixer")


def test_an_extra_has_a_name_of_its_own(dialect):
    dialect("norm <-> spare", extras=spare)
    with pytest.raises(
        ConvertError, match=r"'spare.weight' would be two arrays: norm.scale \(line 1 of the table, .*; extras"
    ):
        check_dialects("mlp_mixer")
    dialect("norm <-> n", extras=lambda c: [dense("spare", c.widht, 1)])
    with pytest.raises(ConvertError, match=r"tiny 'S/32': .*widht"):
        check_dialects("mlp_mixer")


def test_an_extra_that_a_file_ties_to_a_used_array_is_refused(mixer, run, tmp_path):
    """torch.save stores such arrays once: zeros for one would be zeros for both."""
    needs("torch")
    import torch

    arrays, _ = mixer("head <-> fc")
    width, classes = arrays["norm.weight"].size, len(arrays["fc.weight"])
    mixer("head <-> fc", extras=(dense("out", width, classes, bias=False),))
    tensors = {name: torch.from_numpy(array) for name, array in arrays.items()}
    torch.save(tensors | {"out.weight": tensors["fc.weight"]}, tmp_path / "x.pth")
    code, _, err = run("mine2flax", tmp_path / "x.pth", "-o", tmp_path / "x.msgpack")
    problem = "out.weight is tied to fc.weight: tie both in a line of dialect mine, and leave it out of extras"
    assert (code, problem in err) == (1, True), err
    torch.save(tensors | {"out.weight": tensors["fc.weight"].clone()}, tmp_path / "x.pth")
    assert run("mine2flax", tmp_path / "x.pth", "-o", tmp_path / "x.msgpack")[0] == 0


@pytest.mark.parametrize("equal", [True, False])
def test_an_extra_with_the_values_of_a_used_array_is_noted(equal, mixer, run, tmp_path):
    """In formats that store tied arrays twice nothing else shows that it is used."""

    def beside(arrays):
        return arrays | {"out.weight": arrays["fc.weight"] + (not equal), "out.bias": arrays["fc.bias"]}

    arrays, _ = mixer("head <-> fc")
    width, classes = arrays["norm.weight"].size, len(arrays["fc.weight"])
    _, path = mixer("head <-> fc", beside, extras=(dense("out", width, classes),))
    code, said, err = run("mine2flax", path, "-o", tmp_path / "x.msgpack")
    note = "out.weight, an extra of mine, has the values of fc.weight: if its code ties them, tie them in the table"
    assert (code, note in said + err, "out.bias, an extra" in said + err) == (0, equal, False), err


TIED = "head.kernel: i o <-> wte: i o = out.weight: o i\nhead.bias <-> out.bias"


@pytest.fixture
def tied(mixer):
    """Write a small Mixer of a dialect that ties two arrays: with all arrays, or as a change leaves them."""

    def write(change=dict):
        def tie(arrays):
            arrays["out.weight"] = arrays["wte"].T.copy()
            return change(arrays)

        return mixer(TIED, tie)

    return write


def without(name):
    return lambda arrays: {other: array for other, array in arrays.items() if other != name}


@pytest.mark.parametrize("missing", ["", "wte", "out.weight"])
def test_tied_arrays_are_one_here_and_both_are_written(missing, tied, run, tmp_path):
    """Where the file leaves one of them out, as safetensors asks for, a note says so."""
    arrays, path = tied(without(missing))
    code, said, err = run("mine2flax", path, "-o", tmp_path / "x.msgpack")
    assert code == 0, err
    assert (f"tied and not in the file: {missing}" in said + err) == bool(missing)
    assert run("flax2mine", tmp_path / "x.msgpack", "-o", tmp_path / "y.safetensors")[0] == 0
    back = load_file(tmp_path / "y.safetensors")
    assert back.keys() == arrays.keys()
    assert all(np.array_equal(back[name], arrays[name]) for name in arrays)


@pytest.mark.parametrize(("change", "message"), [
    (lambda arrays: arrays | {"wte": arrays["wte"] + 1},
     "out.weight differ, and its dialect mine says that they are equal"),
    (lambda arrays: arrays | {"wte": arrays["wte"].astype("f2")},
     "out.weight has dtype float32, and wte, with which it is tied, has float16"),
    (lambda arrays: arrays | {"wte": arrays["wte"][:1].copy()}, "has shape"),
])  # fmt: skip
def test_tied_arrays_that_differ_are_refused(change, message, tied, run, tmp_path):
    _, path = tied(change)
    code, _, err = run("mine2flax", path, "-o", tmp_path / "x.msgpack")
    assert (code, message in err) == (1, True), err
    assert not (tmp_path / "x.msgpack").exists()
    if "differ" in message:
        assert "out.weight differ" in run("diff", path, path)[2]
        with pytest.raises(ConvertError, match=r"out\.weight differ"):
            plan(path, "mine", "torch").arrays()


SPELT = ("blocks.1.norm.scale", "blocks.1.bn.mean", "head.kernel")


@pytest.mark.parametrize(("table", "names"), [
    ("", "blocks_1/norm/scale blocks_1/bn/mean head/kernel"),
    ("blocks.{i} <-> Block_{i}", "Block_1/norm/scale Block_1/bn/mean head/kernel"),
    ("blocks <-> Block", "Block_1/norm/scale Block_1/bn/mean head/kernel"),
    ("blocks.{i} <-> params/Block_{i}",
     "params/Block_1/norm/scale batch_stats/Block_1/bn/mean params/head/kernel"),
    ("head <-> params/fc", "params/blocks_1/norm/scale batch_stats/blocks_1/bn/mean params/fc/kernel"),
    ("head.kernel: i o <-> params/w: i o", "params/blocks_1/norm/scale batch_stats/blocks_1/bn/mean params/w"),
])  # fmt: skip
def test_what_a_dialect_of_flax_does_not_name_is_spelt_as_linen_does(table, names):
    """Below a layer that a line renames, too; and in linen's collections, where the lines have them."""
    layers = [norm("blocks.1.norm", 3), batch_norm("blocks.1.bn", 3), dense("head", 3, 2)]
    every = [place(p, Dialect("flax", table)) for p in parameters(layers) if p.name in SPELT]
    assert [one.name for one in every] == names.split()

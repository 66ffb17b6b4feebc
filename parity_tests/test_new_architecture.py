"""`python -m ports new`: names that it takes and refuses, the files that it writes, and variants of a page."""

import sys
from dataclasses import replace

import numpy as np
import pytest
from safetensors.numpy import load_file

import ports
import specs
from convert.config.variants import from_variant
from ports.__main__ import main as ports_main
from specs.config import as_dict
from specs.layer import Sizes

from .conftest import needs
from .test_own_architecture import new, rewrite
from .test_routes import write_numbers

__all__ = ["new"]  # a fixture


def test_what_cannot_be_written_is_refused(new, tmp_path, capsys):
    new("fourteenth")
    for words, code, message in (
        (["fourteenth"], 2, "exist already: choose another name"), (["no-name"], 2, "is no name of an architecture"),
        (["class"], 2, "'class' is no name of an architecture: use letters, digits and _, and no keyword of Python's"),
        (["mlp_mixer"], 2, "there is an architecture 'mlp_mixer' already"),
        (["other"], 2, "there is no such folder"),
    ):  # fmt: skip
        out = tmp_path / "no" if words == ["other"] else tmp_path
        assert ports_main(["new", "--out", str(out), *words]) == code
        assert message in capsys.readouterr().err
    assert not list(tmp_path.glob("other*"))


@pytest.mark.parametrize(("name", "network"), [("MyNetworkV2", "Mynetworkv2"), ("other_my_network", "OtherMyNetwork")])
def test_a_name_may_contain_that_of_the_template(name, network, new):
    page = new(name)
    assert f"{name}_flax.py" in page.read_text()
    assert specs.get(specs.add(str(page))).network == network


def test_commands_to_copy_are_quoted(tmp_path, capsys):
    folder = tmp_path / "sp ace"
    folder.mkdir()
    assert ports_main(["new", "spaced", "--out", str(folder)]) == 0
    printed = capsys.readouterr().out
    assert f"--spec '{folder}/spaced.py'" in printed and f"python '{folder}/spaced_golden.py'" in printed


@pytest.mark.parametrize("name", ["torch", "numpy", "copy", "dataclasses", "jax", "convert", "parity_tests", "pytest"])
def test_a_name_that_would_hide_a_module_is_refused(name, tmp_path, capsys, monkeypatch):
    """Though nothing of that name is imported to find out."""
    monkeypatch.delitem(sys.modules, name, raising=False)
    assert ports_main(["new", "--out", str(tmp_path), name]) == 2
    err = capsys.readouterr().err
    assert f"{name!r} is the name of a Python module already (" in err and "Traceback" not in err
    assert name not in sys.modules and not list(tmp_path.iterdir())


def test_files_and_folders_of_the_user_hide_nothing(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))  # as `python -m` does
    for name in ("mine", "yours"):
        (tmp_path / name).mkdir()
        assert ports_main(["new", name, "--out", name]) == 0
    (tmp_path / "yours" / "__init__.py").touch()
    assert ports_main(["new", "yours"]) == 0
    assert ports_main(["new", "yours"]) == 2
    assert "./yours.py" in (err := capsys.readouterr().err) and "exist already: choose another name" in err


def test_the_class_of_a_network_may_be_stated(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(specs, "_added", {})
    assert ports_main(["new", "resmlp", "--class", "ResMLP", "--out", str(tmp_path)]) == 0
    assert specs.get(specs.add(str(tmp_path / "resmlp.py"))).network == "ResMLP"
    texts = {path.name: path.read_text() for path in tmp_path.glob("*.py")}
    assert len(texts) == 5 and not any("Resmlp" in text or "MyNetwork" in text for text in texts.values())
    for framework in ("flax", "torch", "paddle"):
        assert "\nclass ResMLP(" in texts[f"resmlp_{framework}.py"]
    for words, remedy in (
        (["block"], "cannot be 'Block', a name that the files use: state another with --class"),
        (["none"], "cannot be 'None', a name that the files use: state another with --class"),
        (["x", "--class", "Tensor"], "cannot be 'Tensor', a name that the files use: choose another"),
        (["x", "--class", "My Net"], "--class 'My Net' is no name of a class"),
    ):
        assert ports_main(["new", "--out", str(tmp_path), *words]) == 2
        assert remedy in capsys.readouterr().err


@pytest.mark.parametrize("framework", ["flax", "torch", "paddle"])
def test_a_port_begins_with_the_constants_that_its_page_states(framework, new, tmp_path):
    """Kernels, scales and a bias; other biases begin at 0."""
    needs(framework)
    page = new("constant")
    rewrite(page, (
        ('norm(f"blocks.{b}.norm", c.width)', 'Layer(f"blocks.{b}.norm", "norm", {"c": c.width}, init=1e-5)'),
        ("c.patch, c.patch)", "c.patch, c.patch, init=0.1)"),
        ("c.width, c.hidden)", "c.width, c.hidden, init=2, bias_init=1)"),
    ))  # fmt: skip
    port = ports.build(str(page), "tiny S", framework, seed=1)
    port.save(tmp_path / "x.safetensors")
    values = {name: set(array.ravel().tolist()) for name, array in load_file(tmp_path / "x.safetensors").items()}
    begun = {
        layer: [next(iter(found)) for name, found in values.items() if layer in name and len(found) == 1]
        for layer in ("stem", "norm", "fc1", "fc2")
    }
    scale = float(np.float32(1e-5))
    assert {layer: sorted(numbers) for layer, numbers in begun.items()} == {
        "stem": [0.0, float(np.float32(0.1))], "norm": [0.0, 0.0, scale, scale], "fc1": [1.0, 1.0, 2.0, 2.0],
        "fc2": [0.0, 0.0],
    }  # fmt: skip


@pytest.mark.parametrize(("words", "meant"), [(["--jsn"], "'--json'"), (["mlp_mixer", "--jsn"], "'--json'"),
                                              (["nwe", "name"], "'new'")])  # fmt: skip
def test_a_misspelt_option_or_command_of_ports_is_answered_with_the_one_that_was_meant(words, meant, capsys):
    assert ports_main(words) == 2 and f", did you mean {meant}? (see " in capsys.readouterr().err


@pytest.fixture
def twins(new, tmp_path):
    """Write a page of two variants with the same arrays, and an optional number; return it with a file of theirs."""
    page = new("twins")
    small = "patch=3, depth=1, width=5, hidden=13, image=9, channels=1, classes=0, norm_eps=1e-4"
    rewrite(page, [
        ('    image: int = 224', "    gate: int | None = None  # channels of a gate\n    image: int = 224"),
        ('        "patch": sizes', '        "gate": None,\n        "patch": sizes'),
        ("VARIANTS = {", f'VARIANTS = {{\n    "A": Config({small}),\n    "B": Config({small}, act="relu"),'),
        ('{"act": "gelu", "norm_eps": 1e-6}', '{"norm_eps": 1e-6}'),
        ("    tiny=TINY,", '    tiny=TINY,\n    unshown=frozenset({"act"}),'),
    ])  # fmt: skip
    name = specs.add(str(page))
    write_numbers(tmp_path / "w.safetensors", name, specs.get(name).variants["A"], "torch")
    return page, tmp_path / "w.safetensors"


def test_each_variant_is_named_that_has_the_arrays_and_another_value_of_an_open_field(twins, run):
    page, file = twins
    shown = run("inspect", file, "--spec", page)[1]
    assert "variant:      A or B\n" in shown, shown
    assert "act=gelu as in" not in shown and "norm_eps=1e-4 as in the official A or B" in shown
    for act, variant in (("gelu", "A"), ("relu", "B")):
        stated = run("inspect", file, "--spec", page, "--set", f"act={act}", "--set", "norm_eps=1e-4")[1]
        assert f"variant:      {variant}\n" in stated, stated


def test_none_is_a_value_where_the_arrays_show_it(twins, run):
    page, file = twins
    shown = run("inspect", file, "--spec", page)[1]
    assert " gate=None " in shown and "not stated: gate" not in shown
    stated = run("inspect", file, "--spec", page, "--set", "act=gelu", "--set", "norm_eps=1e-4")[1]
    assert " gate=None " in stated and "not stated: gate" not in stated


def test_variants_with_the_same_arrays_leave_open_what_they_differ_in():
    """Neither of two that compute something else is taken, whether or not the names show every size."""
    spec = specs.get("convmixer")
    small = spec.tiny["1024/20"]
    both = replace(spec, published={}, variants={"one": small, "two": replace(small, act="relu", norm_eps=0.5)})
    stated = {name: value for name, value in as_dict(small).items() if name in ("patch", "kernel", "depth", "width")}
    assert from_variant(both, stated, Sizes({}))[0] == "one or two"
    assert not {"act", "norm_eps"} & from_variant(both, stated, Sizes({}))[1].keys()
    alone = replace(spec, published={}, variants={"one": small})
    assert from_variant(alone, stated, Sizes({}))[1]["act"] == small.act

"""A line of a dialect's table that does nothing is an error, which names the line and the nearest name."""

import re

import pytest

import specs
from convert import dialect_faults, recognise
from convert.dialect_faults import check
from convert.errors import ConvertError
from specs.dialects import place
from specs.layer import parameters
from specs.spec import Dialect

from .golden import Case

WRONG = {
    "stem patch": "line 1, 'stem patch': write path: axes <-> path: axes",
    "stem  patch  embed": "one arrow",
    "stem <-> patch embed": "the path without white space",
    "stem -> drop": "a line of a dialect has one name on each side of <->",
    "norm.scale: c <-> a: c, b: c": "a line of a dialect has one name on each side of <->",
    "blocks.{i}.norm1 <-> b.{i}.{s=x|y}": "hole {s=x|y} lists values",
    "norm.scale:c <-> n.scale:c": "no layer is named 'norm.scale:c'",
    "blocks.{i}.norn1 <-> b.{i}.n": "no layer is named 'blocks.{i}.norn1', did you mean 'blocks.{i}.norm1'?",
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
    "norm <-> n\nnorm <-> m": "line 2, 'norm <-> m': has no effect",
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
    for cached in (dialect_faults.check, recognise.lines, recognise.spellings):
        cached.cache_clear()


@pytest.mark.parametrize("table", WRONG)
def test_a_line_that_does_nothing_is_refused(table, dialect):
    dialect(table)
    with pytest.raises(ConvertError, match=re.escape(WRONG[table])) as error:
        check("mlp_mixer")
    assert str(error.value).startswith("mlp_mixer: dialect 'mine' ")


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
    check.cache_clear()


FAULTS = ("dialect 'mine'", "line 1, 'norn <-> n'", "line 2, 'haed <-> h'", "'norm'?", "'head'?")


def test_a_command_reports_every_fault_of_a_page_at_once(page, run, tmp_path):
    source, out = Case("timm_mixer").files[0], tmp_path / "out.safetensors"
    code, _, error = run("mine2torch", source, "-o", out, "--spec", page)
    assert code == 1
    assert all(part in error for part in FAULTS), error


def test_a_page_added_in_python_is_checked_before_it_is_used(page):
    architecture = specs.add(str(page))
    with pytest.raises(ConvertError, match="dialect 'mine'") as error:
        recognise.dialects(architecture)
    assert all(part in str(error.value) for part in FAULTS)


@pytest.mark.parametrize("architecture", specs.names())
def test_every_table_here_is_well_defined(architecture):
    check(architecture)
    for dialect, table in recognise.dialects(architecture).items():
        for config in specs.get(architecture).tiny.values():
            placed = [
                place(parameter, table, config)
                for parameter in parameters(list(specs.get(architecture).layers(config)))
            ]
            names = [name for view in placed if view is not None for name in view.names.values()]
            assert len(names) == len(set(names)), dialect

"""docs/own-architecture.md: its page is well defined, and it leaves no member out."""

import re
import sys
from dataclasses import fields
from pathlib import Path

import pytest

from specs.checks import faults
from specs.kinds import KINDS
from specs.layer import Layer, count
from specs.preprocessing import Preprocessing
from specs.spec import Dialect, Spec

ROOT = Path(__file__).parent.parent
TEXT = (ROOT / "docs" / "own-architecture.md").read_text()
PYTHON = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)


def test_the_python_of_the_page_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    space = {"__name__": "docs"}
    monkeypatch.setitem(sys.modules, "docs", type(sys)("docs"))
    for code in PYTHON:
        exec(compile(code, "own-architecture.md", "exec", dont_inherit=True), space)
    assert faults(space["SPEC"]) == []
    fixed = {name for dialect in space["SPEC"].dialects.values() for name in dialect.conventions}
    assert space["SPEC"].unshown and space["SPEC"].unshown.isdisjoint(fixed)
    twin = space["TINY"]["S"]
    assert count(list(space["layers"](twin))) > 0
    with pytest.raises(ValueError, match="do not split"):
        space["SPEC"].check_images(twin, 7, 8)


def test_the_table_of_the_page_is_well_defined(tmp_path, monkeypatch):
    """Every line places or renames something, as the converter checks it."""
    import specs
    from convert import dialect_faults

    monkeypatch.setattr(specs, "_added", {})
    page = tmp_path / "documented.py"
    page.write_text("".join(code for code in PYTHON if "parity" not in code))
    (tmp_path / "head_mixer_torch.py").write_text("class HeadMixer: ...")
    monkeypatch.setitem(sys.modules, "my_package.head_mixer_flax", type(sys)("head_mixer_flax"))
    dialect_faults.check(specs.add(str(page)))


@pytest.mark.parametrize("name", [
    *(f.name for f in fields(Spec)), *Dialect._fields, *KINDS, *(f.name for f in fields(Preprocessing)),
])  # fmt: skip
def test_it_names_every_member_and_every_kind(name):
    assert f"`{name}`" in TEXT


@pytest.mark.parametrize("name", Layer._fields)
def test_it_says_what_a_layer_is_made_of(name):
    assert name in re.search(r"`Layer\(([^)]*)\)`", TEXT)[1]


@pytest.mark.parametrize(("kind", "leaf"), [(kind, leaf) for kind in KINDS for leaf in KINDS[kind].axes if leaf])
def test_it_names_every_leaf_with_its_axes(kind, leaf):
    (row,) = [line for line in TEXT.splitlines() if line.startswith("|") and f"`{kind}`" in line.split("|")[1]]
    assert leaf in row

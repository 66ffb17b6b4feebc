"""Every example of docs/table.md, run."""

import re
from pathlib import Path

import numpy as np
import pytest

from specs.notation.lines import TableError
from specs.table import Table

TEXT = (Path(__file__).parent.parent / "docs" / "table.md").read_text()
BLOCKS = re.findall(r"```table\n(.*?)```\n```python\n(.*?)```", TEXT, re.DOTALL)


def ones(*shape):
    """An array whose elements all differ."""
    return np.arange(1.0, 1 + int(np.prod(shape))).reshape(shape)


@pytest.mark.parametrize("lines, code", BLOCKS, ids=range(len(BLOCKS)))
def test_an_example_holds(lines, code):
    arrays, _, claims = code.partition("assert")
    space = {"ones": ones, "np": np, "Table": Table, "sizes": {}, "orders": {}}
    exec(arrays, space)
    table = Table.parse(lines, space["orders"])
    assert Table.parse(table.print(), space["orders"]) == table
    space |= {"table": table, "y": table.apply(space["x"], **space["sizes"])}
    exec("assert" + claims, space)
    like = {name: array for name, array in space["x"].items() if "mask" not in name}
    back = table.reverse().apply(space["y"], like=like, **space["sizes"])
    for name, array in back.items():
        assert np.array_equal(array, space["x"][name])


ROWS = re.findall(r"^\| (`attn.*?)\| (.*?)\| `(.*?)` \| (.*?) \|$", TEXT, re.MULTILINE)


@pytest.mark.parametrize("row", ROWS, ids=range(len(ROWS)))
def test_lengths_that_contradict_each_other_are_refused_as_the_page_says(row):
    """With other lengths its lines fit, so that nothing else is refused."""
    lines, shapes, given, said = row
    lines, sizes = re.findall(r"`(.*?)`", lines), {name: int(n) for name, n in re.findall(r"(\w+)=(\d+)", given)}
    table = Table.parse("\n".join(["table 1", *(f"{line} <-> right.{re.sub('[()]', '', line)}" for line in lines)]))
    names = [line.partition(":")[0] for line in lines]
    arrays = dict(zip(names, (ones(*map(int, re.findall(r"\d+", one))) for one in shapes.split("], ")), strict=True))
    with pytest.raises(TableError, match="lengths contradict each other") as refused:
        table.apply(arrays, **sizes)
    assert all(length in str(refused.value) for length in re.findall(r"\w+=\d+", said)), refused.value
    fitting = {"h2": 8, "h": 4} if "h2" in sizes else {"h": 6 if "h=6" in said else 4}
    table.apply(arrays | ({"attn.out": ones(5, 16)} if "attn.out" in names else {}), **fitting)


def test_every_contradiction_of_the_page_is_run():
    assert len(ROWS) == 5


def test_every_table_of_the_page_is_run():
    assert len(BLOCKS) == TEXT.count("```table") == TEXT.count("```python") >= 10

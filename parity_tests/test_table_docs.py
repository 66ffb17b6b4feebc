"""Every example of docs/table.md, run."""

import re
from pathlib import Path

import numpy as np
import pytest

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


def test_every_table_of_the_page_is_run():
    assert len(BLOCKS) == TEXT.count("```table") == TEXT.count("```python") >= 10

"""The documentation lists each field that `--json` prints, and no other."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np

import parity
from parity.results.result import Result
from parity_tests.conftest import needs

DOCS = Path(__file__).parent.parent / "docs"


def table(page: str) -> dict[str, str]:
    """Return {field: its row} of the table of fields on a page."""
    text = (DOCS / f"{page}.md").read_text().partition("| field in `--json` | meaning |\n|---|---|\n")[2]
    rows = text.partition("\n\n")[0].splitlines()
    return {name: row for row in rows for name in re.findall(r"`(\w+)`", row.split("|")[1])}


def derived() -> dict[str, Any]:
    needs("torch")
    import torch

    acts = torch.nn.Tanh, torch.nn.SiLU
    x = np.random.default_rng(0).standard_normal((4, 6))
    layers = [torch.nn.Sequential(torch.nn.Linear(6, 5), act(), torch.nn.Linear(5, 4)) for act in acts]
    fields: dict[str, Any] = parity.derive(*layers, (x,)).to_dict()
    return fields


def test_derive_prints_the_fields_of_its_table():
    fields, rows = derived(), table("derive")
    assert fields.keys() == rows.keys()
    for place in (fields["divergences"][0], fields["uses"][0]):
        row = rows["divergences" if "cause" in place else "uses"]
        assert [name for name in place if f"`{name}`" not in row] == []


def test_parity_prints_the_fields_of_its_table():
    row = Result("a", "v", "forward", "float64", "cpu", "x-y", 0.0, 1e-10, True).as_dict()
    assert row.keys() == table("parity").keys()

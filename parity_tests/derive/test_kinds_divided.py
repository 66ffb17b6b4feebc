"""Parameters that both sides divide differently: sums in parts, windows of tables, stacked tables, experts."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

import parity

from .test_kinds_matching import Net, linear, numbers, tokens
from .test_kinds_products import weight


def test_positions_that_begin_at_other_rows_of_both_tables():
    def run(first: int) -> Any:
        return lambda m, x: m.out((m.words(x) + m.places(torch.arange(first, first + x.shape[1]))).tanh())

    def parts(rows: int) -> dict[str, Any]:
        return {"words": torch.nn.Embedding(11, 6), "places": torch.nn.Embedding(rows, 6), "out": linear()}

    left, right = Net(run(2), **parts(12)), Net(run(1), **parts(13))
    found = parity.derive(left, right, (x := tokens(4, 7),))
    assert found.proven and not found.missing, (found.failure, found.reasons)
    assert found.inferred == ["places.weight"]
    given = numbers(left, x)
    moved = found.table.apply(given)["places.weight"]
    assert np.array_equal(moved[:11], given["places.weight"][1:]) and not moved[11:].any()

"""Recurrent and conditional models: steps that one side takes at once, and functions of several parameters."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import parity

from .pairs import images

torch = pytest.importorskip("torch", reason="both sides are torch modules")
from .test_kinds_matching import Net, linear, numbers  # noqa: E402


def derived(left: Any, right: Any, *inputs: np.ndarray) -> dict[str, np.ndarray]:
    """Derive a Table that is proven, and return the left element number of each right one."""
    found = parity.derive(left, right, inputs)
    assert found.proven, found.failure
    return found.table.apply(numbers(left, *inputs))


def test_columns_of_tokens_stay_within_their_tables():
    def towers(m: Any, x: Any) -> Any:
        return m.out(torch.cat([table(x[:, k]) for k, table in enumerate(m.tables)], 1))

    def parts() -> dict[str, Any]:
        return {"tables": torch.nn.ModuleList([torch.nn.Embedding(n, 4) for n in (9, 3, 2)]), "out": linear(12)}

    rows = np.stack([np.random.default_rng(0).permutation(18) % n for n in (9, 3, 2)], 1)
    derived(Net(towers, **parts()), Net(towers, **parts()), rows)

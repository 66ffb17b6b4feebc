"""Compose what a product meets: parameters whose sum is its matrix, and matrices of a batch that are one."""

from __future__ import annotations

import numpy as np

from parity.derive.trace.tape import Array

from .symbols import Symbol


def summands(symbol: Symbol) -> tuple[Symbol, ...]:
    """Return the parameters whose sum a matrix is: each meets the same values, since x (a + b) = x a + x b."""
    parts = symbol.split("add")
    return parts if all(part.plain and part.ids is not None for part in parts) else (symbol,)


def shared(x: Array, ids: Array) -> tuple[Array, Array, Array | None]:
    """Join batches that meet one matrix: (x, ids, the order in which x's batches stand there, None if unchanged)."""
    _, first, inverse, counts = np.unique(ids[:, 0, 0], return_index=True, return_inverse=True, return_counts=True)
    if len(first) == len(ids):
        return x, ids, None
    if (counts != counts[0]).any() or (ids != ids[first[inverse]]).any():
        return x, ids, None
    order = np.argsort(first[inverse], kind="stable")
    return x[order].reshape(len(first), -1, x.shape[2]), ids[np.sort(first)], order


def beside(x: Array, ids: Array) -> tuple[Array, Array]:
    """Join matrices of a batch that meet the same values, as those of heads: their columns stand side by side."""
    if len(x) == 1:
        return x, ids
    batches: dict[bytes, list[int]] = {}
    for k in range(len(x)):
        batches.setdefault(x[k].tobytes(), []).append(k)
    alike = list(batches.values())
    if len(alike) == len(x) or len({len(some) for some in alike}) > 1:
        return x, ids
    return x[[some[0] for some in alike]], np.stack([np.concatenate(list(ids[some]), 1) for some in alike])

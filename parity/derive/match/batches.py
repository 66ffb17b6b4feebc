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
        return *_chosen(x, ids), None
    order = np.argsort(first[inverse], kind="stable")
    return x[order].reshape(len(first), -1, x.shape[2]), ids[np.sort(first)], order


def _chosen(x: Array, ids: Array) -> tuple[Array, Array]:
    """Return (x, ids) with one matrix for the columns that the same batches meet, as tokens that choose experts do.

    Zeros fill up the rows of those that fewer batches meet. Batches stay as they are if widths of matrices differ.
    """
    every = ids.swapaxes(1, 2).reshape(-1, ids.shape[1])
    numbers, first, inverse = np.unique(every[:, 0], return_index=True, return_inverse=True)
    meets = np.zeros((len(numbers), len(ids)), bool)
    meets[inverse.ravel(), np.repeat(np.arange(len(ids)), ids.shape[2])] = True
    sets, which = np.unique(meets, axis=0, return_inverse=True)
    widths = np.bincount(which.ravel())
    if not numbers.all() or (widths != widths[0]).any() or (every != every[first[inverse.ravel()]]).any():
        return x, ids
    joined = np.zeros((len(sets), sets.sum(1).max() * x.shape[1], x.shape[2]))
    for rows, some in zip(joined, sets, strict=True):
        own = x[some].reshape(-1, x.shape[2])
        rows[: len(own)] = own
    return joined, np.stack([every[first[which.ravel() == k]].T for k in range(len(sets))])


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

"""Columns: what each element of a parameter meets, as statistics that do not depend on the order of rows."""

from __future__ import annotations

import numpy as np

from .tape import Array, Window, patches

STATISTICS = 5
BLOCK = 1 << 22  # distances computed at once: bounds memory
NEIGHBOURS = 64  # rows that are compared with each where all would be too many


def _sums(x: Array, axes: tuple[int, ...]) -> Array:
    """Sums of x, |x|, sqrt|x|, x**2, x**4 over axes: statistics first."""
    size = np.abs(x)
    return np.stack([f.sum(axes) for f in (x, size, np.sqrt(size), x * x, (x * x) ** 2)])


def _means(sums: Array, count: Array) -> Array:
    """Statistics (n, 5) of one column each, all in units of x."""
    m = (sums / np.maximum(count, 1)).reshape(STATISTICS, -1)
    return np.stack([m[0], m[1], m[2] ** 2, np.sqrt(m[3]), np.sqrt(np.sqrt(m[4]))], axis=1)


def of_product(x: Array, window: Window | None, taps: tuple[int, ...] = ()) -> Array:
    """Statistics of each column (b, k) of x[b, rows, k], or of the patches of a convolution."""
    if window is None:
        return _means(_sums(x, (1,)), np.float64(x.shape[1]))
    view = patches(x, taps, window)
    rows = tuple(range(2 + len(taps), view.ndim))
    count = np.prod([view.shape[d] for d in rows])
    sums = np.empty((STATISTICS, *view.shape[: 2 + len(taps)]))
    for tap in np.ndindex(*taps):
        where = (slice(None), slice(None), *tap)
        part = view[where]
        sums[(slice(None), *where)] = _sums(part, tuple(range(2, part.ndim)))
    return _means(sums, count)


def of_elements(x: Array, ids: Array) -> tuple[Array, Array]:
    """(element numbers, statistics of the values that each meets)."""
    numbers, inverse = np.unique(ids, return_inverse=True)
    inverse, flat = inverse.ravel(), np.ravel(x)
    size = np.abs(flat)
    sums = [np.bincount(inverse, f, len(numbers)) for f in (flat, size, np.sqrt(size), flat * flat, flat**4)]
    found = _means(np.stack(sums), np.bincount(inverse, minlength=len(numbers)))
    return (numbers[1:], found[1:]) if numbers[0] == 0 else (numbers, found)


def nearest(a: Array, b: Array) -> tuple[Array, Array]:
    """(index into b, distance) of the nearest row of b for each row of a.

    Of many rows, only those of the most similar root mean square are compared.
    """
    index, distance = np.empty(len(a), np.int64), np.empty(len(a))
    order = np.argsort(b[:, 3], kind="stable")
    width = len(b) if len(a) * len(b) <= BLOCK else min(NEIGHBOURS, len(b))
    first = np.clip(np.searchsorted(b[order, 3], a[:, 3]) - width // 2, 0, len(b) - width)
    step = max(1, BLOCK // (width * STATISTICS))
    for at in range(0, len(a), step):
        there = order[first[at : at + step, None] + np.arange(width)]
        gaps = np.abs(a[at : at + step, None] - b[there]).max(2)
        best = gaps.argmin(1)
        index[at : at + step] = there[np.arange(len(best)), best]
        distance[at : at + step] = gaps.min(1)
    return index, distance


def size_of(statistics: Array) -> float:
    """The scale of columns: their root mean square."""
    return float(np.sqrt((statistics[:, 3] ** 2).mean())) if len(statistics) else 0.0


def distance(a: Array, b: Array, one_way: bool = False) -> float:
    """How far two sets of columns are apart, relative to their scale; one way: whether b contains a."""
    scale = max(size_of(a), size_of(b))
    if scale == 0:
        return 0.0
    if abs(a[:, 3].max() - b[:, 3].max()) > 0.2 * scale and not one_way:
        return float("inf")
    apart = nearest(a, b)[1].mean()
    return float((apart if one_way else max(apart, nearest(b, a)[1].mean())) / scale)


def matched(a: Array, b: Array) -> Array | None:
    """For each row of a another row of b, the nearest; equal ones in the order written; None if there is none.

    Rows that are alike on both sides keep their place if that is possible.
    """
    if len(a) > len(b):
        return None
    index, apart = nearest(a, b)
    scale = max(size_of(a), size_of(b))
    if len(a) == len(b):
        there = np.abs(a - b).max(1)
        index = np.where(there <= apart + 1e-9 * scale, np.arange(len(a)), index)
    taken = np.zeros(len(b), bool)
    repeated = []
    for k in range(len(a)):
        if taken[index[k]]:
            repeated.append(k)
        taken[index[k]] = True
    for k in repeated:  # columns that are equal to others
        free = np.flatnonzero(~taken)
        gaps = np.abs(b[free] - a[k]).max(1)
        best = gaps.min()
        if best > apart[k] + 1e-6 * scale:
            return None
        index[k] = free[np.flatnonzero(gaps <= best + 1e-9 * scale)[0]]
        taken[index[k]] = True
    return index

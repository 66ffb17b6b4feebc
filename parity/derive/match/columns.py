"""Describe what each element of a parameter meets by statistics that do not depend on the order of rows."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import cached_property

import numpy as np

from parity.derive.trace.products import Window, patches
from parity.derive.trace.tape import Array

STATISTICS = 5
BLOCK = 1 << 22  # distances computed at once: bounds memory
HUGE = 5e3  # size from which a value only says that its place is masked: masks differ, and would hide all others
ROWS = 256  # rows after which a distance is compared with its limit
SAME = 1e-9  # distance of rows, relative to their scale, up to which they are equal
CLOSE = 3  # how much farther apart than their sorted statistics two sets in one order may be
PROBES = 12  # values of a column that are looked up among those of all columns of the other side
NEIGHBOURS = 64  # rows that are compared with each where all would be too many


def _powers(x: Array) -> tuple[Array, ...]:
    """Compute x, |x|, sqrt|x|, x**2, x**4, without the places that a mask hides."""
    size = np.abs(x)
    masked = ~(size < HUGE)
    if masked.any():
        x = np.where(masked, 0, x)
        size = np.abs(x)
    square = x * x
    return x, size, np.sqrt(size), square, square * square


def _means(sums: Array, count: Array) -> Array:
    """Return statistics (n, 5) of one column each, all in units of x."""
    m = (sums / np.maximum(count, 1)).reshape(STATISTICS, -1)
    return np.stack([m[0], m[1], m[2] ** 2, np.sqrt(m[3]), np.sqrt(np.sqrt(m[4]))], axis=1)


def of_product(x: Array, window: Window | None, taps: tuple[int, ...] = (), padded: bool = False) -> Array:
    """Return statistics of each column (b, k) of x[b, rows, k], or of the patches of a convolution.

    Rows of zeros do not count, as those that are routed to other experts, or that fill up a batch.

    Args:
      padded: whether zeros pad x, which count as they do for a convolution.
    """
    if window is None:
        powers = _powers(x)
        count = np.float64(x.shape[1]) if padded else powers[1].any(2).sum(1, keepdims=True)
        return _means(np.stack([power.sum(1) for power in powers]), count)
    sums = []
    for power in _powers(x):
        view = patches(power, taps, window)
        rows = tuple(range(2 + len(taps), view.ndim))
        sums.append(view.sum(rows))
    return _means(np.stack(sums), np.prod([view.shape[d] for d in rows]))


def counted_as(statistics: Array, rows: int, others: int) -> Array:
    """Return statistics of columns with so many rows that are not zeros, as if there were so many others.

    What several products read, each of rows of its own, one that joins them reads at all of these rows.
    """
    share = rows / others if rows and others else 1.0
    return statistics if share == 1 else statistics * share ** np.array([1, 1, 2, 0.5, 0.25])


def rows_of(x: Array) -> int:
    """Return how many rows of x[b, rows, k] are not zeros."""
    return int(x.any(2).sum())


def of_image(x: Array) -> Array:
    """Return statistics of each channel of images (n, c, *space), which zeros around these do not change."""
    rows = (0, *range(2, x.ndim))
    return _means(np.stack([power.sum(rows) for power in _powers(x)]), np.float64(len(x)))


def of_elements(x: Array, ids: Array) -> tuple[Array, Array]:
    """Return (element numbers, statistics of the values that each meets)."""
    spread = tuple(d for d, (n, step) in enumerate(zip(ids.shape, ids.strides, strict=True)) if n > 1 and step == 0)
    first = ids[tuple(0 if d in spread else slice(None) for d in range(ids.ndim))]
    numbers, inverse = np.unique(first, return_inverse=True)
    inverse = inverse.ravel()
    sums = [np.bincount(inverse, np.ravel(power.sum(spread)), len(numbers)) for power in _powers(x)]
    count = np.bincount(inverse, minlength=len(numbers)) * np.prod([ids.shape[d] for d in spread])
    found = _means(np.stack(sums), count)
    return (numbers[1:], found[1:]) if numbers[0] == 0 else (numbers, found)


def nearest(a: Array, b: Array) -> tuple[Array, Array]:
    """Return (index into b, distance) of the nearest row of b for each row of a.

    Of many rows, only those of the most similar root mean square are compared.
    """
    index, distance = np.empty(len(a), np.int64), np.empty(len(a))
    order = np.argsort(b[:, 3], kind="stable")
    b = b[order]
    width = len(b) if len(a) * len(b) <= BLOCK else min(NEIGHBOURS, len(b))
    first = np.clip(np.searchsorted(b[:, 3], a[:, 3]) - width // 2, 0, len(b) - width)
    step = max(1, BLOCK // (width * STATISTICS))
    for at in range(0, len(a), step):
        there = slice(None) if width == len(b) else first[at : at + step, None] + np.arange(width)
        gaps: Array = 0.0
        for here, other in zip(a[at : at + step].T, b.T, strict=True):  # faster than a maximum over a last axis of 5
            gaps = np.maximum(gaps, np.abs(here[:, None] - other[there]))
        best = gaps.argmin(1)
        distance[at : at + step] = gaps[np.arange(len(best)), best]
        index[at : at + step] = order[best if width == len(b) else first[at : at + step] + best]
    return index, distance


def size_of(statistics: Array) -> float:
    """Return the scale of columns: their root mean square."""
    return float(np.sqrt((statistics[:, 3] ** 2).mean())) if len(statistics) else 0.0


def alike(statistics: Array) -> Array:
    """Return which columns are like another one, as dead channels are, so that values do not tell their order."""
    scale = size_of(statistics) or 1.0
    rounded = np.round(statistics / scale, 9)
    _, inverse, counts = np.unique(rounded, axis=0, return_inverse=True, return_counts=True)
    found: Array = counts[inverse.ravel()] > 1
    return found


def equal(a: Array, b: Array) -> bool:
    """Tell whether columns are the same one by one, up to rounding."""
    return a.shape == b.shape and bool((np.abs(a - b) <= SAME * max(size_of(a), size_of(b))).all())


def distance(a: Array, b: Array) -> float:
    """Tell how far two sets of as many columns are apart, relative to their scale: each statistic, sorted."""
    return between(np.sort(a, axis=0), np.sort(b, axis=0), max(size_of(a), size_of(b)))


def between(a: Array, b: Array, scale: float) -> float:
    """Tell how far two sets of sorted statistics are apart, relative to a scale."""
    return float(np.abs(a - b).sum(0).max() / len(a) / scale) if scale else 0.0  # mean() takes twice as long


def distance_within(a: Array, b: Array, limit: float = np.inf) -> float:
    """Tell how far the columns of a are from those of b that are nearest, relative to their scale.

    Args:
      limit: distances from here on may be returned as infinity.
    """
    scale = max(size_of(a), size_of(b))
    if not scale:
        return 0.0
    if limit < np.inf and any(_mean_gap(here, there) > limit * scale for here, there in zip(a.T, b.T, strict=True)):
        return np.inf
    if len(a) * len(b) > BLOCK:
        return float(nearest(a, b)[1].mean() / scale)
    total, most = 0.0, limit * scale * len(a)
    for at in range(0, len(a), ROWS):
        total += nearest(a[at : at + ROWS], b)[1].sum()
        if total > most:
            return np.inf
    return float(total / len(a) / scale)


def _mean_gap(a: Array, b: Array) -> float:
    """Return the mean distance of numbers from the nearest of others."""
    b = np.sort(b)
    after = np.clip(np.searchsorted(b, a), 1, max(len(b) - 1, 1))
    return float(np.minimum(np.abs(a - b[after - 1]), np.abs(a - b[np.minimum(after, len(b) - 1)])).mean())


def matched(a: Array, b: Array, block: int = 1) -> Array | None:
    """Return for each row of a another row of b, the nearest; equal ones in the order written; None if there is none.

    Rows that are alike on both sides keep their place if that is possible.

    Args:
      block: the number of rows that belong together and keep their order: the taps of one channel.
    """
    if len(a) > len(b):
        return None
    scale = max(size_of(a), size_of(b))
    if len(a) == len(b):
        if (same := _sorted(a, b, scale)) is not None:
            return same
        if (same := _in_blocks(a, b, block, scale)) is not None:
            return same
        if (same := _flattened(a, b, scale)) is not None:
            return same
    index, apart = nearest(a, b)
    if len(a) == len(b):
        there = np.abs(a - b).max(1)
        index = np.where(there <= apart + SAME * scale, np.arange(len(a)), index)
    taken = np.zeros(len(b), bool)
    repeated = []
    for k in range(len(a)):
        if taken[index[k]]:
            repeated.append(k)
        taken[index[k]] = True
    slack = max(1e-6, CLOSE * apart.mean() / (scale or 1)) * scale
    for k in repeated:  # columns that are equal to others, or nearly so where models part
        free = np.flatnonzero(~taken)
        gaps = np.abs(b[free] - a[k]).max(1)
        best = gaps.min()
        if best > apart[k] + slack:
            return None
        index[k] = free[np.flatnonzero(gaps <= best + SAME * scale)[0]]
        taken[index[k]] = True
    return index


def row_by_row(a: Array, b: Array) -> Array | None:
    """Return the column of b (n, rows) that has the values of each one of a in their order; None unless it is one."""
    if a.shape[1] != b.shape[1] or a.size * len(b) > BLOCK:
        return None
    same = (np.abs(a[:, None] - b) <= SAME * np.abs(b).max(initial=0.0)).all(2)
    return same.argmax(1) if (same.sum(1) == 1).all() else None


def _in_blocks(a: Array, b: Array, block: int, scale: float) -> Array | None:
    """Return rows of b in their places or in the places of their blocks, if hardly any other order can be nearer."""
    limit = (CLOSE * distance(a, b) + SAME) * scale
    if np.abs(a - b).max(1).mean() <= limit:
        return np.arange(len(a))
    if block == 1:
        return None
    means = [side.reshape(-1, block, STATISTICS).mean(1) for side in (a, b)]
    blocks = matched(*means)
    if blocks is None:
        return None
    index = (blocks[:, None] * block + np.arange(block)).ravel()
    return index if np.abs(a - b[index]).max(1).mean() <= limit else None


def _flattened(a: Array, b: Array, scale: float) -> Array | None:
    """Return the rows of b if these are the same but that two axes were flattened in another order.

    Channels that are zeros at all places, as behind a ReLU, show their own place so.
    """
    count, limit = len(a), (CLOSE * distance(a, b) + SAME) * scale
    for length in (n for n in range(2, count // 2 + 1) if count % n == 0):
        order = np.arange(count).reshape(length, -1).T.ravel()
        if np.abs(a - b[order]).max(1).mean() <= limit:
            return order
    return None


def _sorted(a: Array, b: Array, scale: float) -> Array | None:
    """Return the row of b that is equal to each row of a, in their places or by size; None if they are not so."""
    near = SAME * scale
    if (np.abs(a - b) <= near).all():
        return np.arange(len(a))
    order, other = np.argsort(a[:, 3]), np.argsort(b[:, 3])
    if (np.diff(a[order, 3]) <= 2 * near).any() or (np.abs(a[order] - b[other]) > near).any():
        return None
    index = np.empty(len(a), np.int64)
    index[order] = other
    return index


def transposed(x: Array) -> Iterator[Array]:
    """Yield values x[b, rows, k] with their rows in the orders of two axes that are exchanged, as time and batch."""
    count = x.shape[1]
    for n in range(2, count // 2 + 1):
        if count % n == 0:
            yield x.reshape(x.shape[0], n, -1, x.shape[2]).swapaxes(1, 2).reshape(x.shape)


def resized(x: Array, shape: tuple[int, ...]) -> Array:
    """Crop images (n, c, *space) at the end of each axis, or repeat their last line there."""
    for axis, count in enumerate(shape[2:], 2):
        x = x.take(np.minimum(np.arange(count), x.shape[axis] - 1), axis)
    return x


def snapped(here: Array, orders: Sequence[Array], limit: float, sure: bool) -> Array | None:
    """Return the nearest of several arrays of values, if it is near, or if it is sure that one of them is meant."""

    def apart(other: Array) -> float:
        scale = (here * other).mean() / ((other * other).mean() or 1)
        return float(np.abs(here - scale * other).mean())

    nearest = min(orders, key=apart)  # of equal ones the first
    return nearest if sure or apart(nearest) <= limit * np.abs(here).mean() else None


class Values:
    """The values of columns (n, rows), sorted, to look up those of other columns that have only some of the rows."""

    def __init__(self, columns: Array):
        self.columns = columns

    @cached_property
    def _order(self) -> Array:
        return np.argsort(self.columns, axis=None)

    @cached_property
    def sorted(self) -> Array:
        """Return all values in their order."""
        return self.columns.ravel()[self._order]

    @cached_property
    def owners(self) -> Array:
        """Return the column of each of the sorted values."""
        return self._order // self.columns.shape[1]

    @cached_property
    def probes(self) -> Array:
        """Return the largest values of each column: zeros are no evidence."""
        large = np.argsort(-np.abs(self.columns), axis=1)[:, :PROBES]
        return np.take_along_axis(self.columns, large, 1)

    @cached_property
    def empty(self) -> Array:
        """Return the columns of zeros alone."""
        return np.flatnonzero(~self.columns.any(1))

    def holding(self, others: Values) -> tuple[Array, float] | None:
        """Return (the column that has the values of each of others, their distance); None if two of them are alike.

        A column of zeros alone is the one that is left over, if there is just one.
        """
        index, sure, gaps = self._nearest(others)
        if len(empty := others.empty) == 1:
            rest = np.setdiff1d(np.arange(len(self.columns)), np.delete(index, empty))
            index[empty], sure[empty] = rest[0], True
        return (index, float(gaps().mean())) if sure.all() and len(set(index)) == len(index) else None

    def among(self, others: Values, limit: float) -> Array | None:
        """Map each column to the one of others that has a part of its values; None unless the map is one to one.

        Args:
          limit: the distance from which on a column has none of the values.
        """
        index, sure, gaps = self._nearest(others)
        some = np.flatnonzero(sure & (gaps() < limit))
        if len(some) != len(self.columns) or len(set(index[some])) != len(some):
            return None
        return some[np.argsort(index[some])]

    def _nearest(self, others: Values) -> tuple[Array, Array, Callable[[], Array]]:
        """Return the column that has the values of each of others, whether most of them say so, and their distance."""
        probes = others.probes
        after = np.clip(np.searchsorted(self.sorted, probes), 1, len(self.sorted) - 1)
        near = after - (probes - self.sorted[after - 1] < self.sorted[after] - probes)
        owners = self.owners[near]
        here = probes != 0
        votes = ((owners[:, :, None] == owners[:, None]) & here[:, None]).sum(2) * here
        best = votes.argmax(1)
        index = np.take_along_axis(owners, best[:, None], 1)[:, 0]

        def gaps() -> Array:
            scale = np.sqrt((probes**2).mean()) or 1.0
            return _medians(np.abs(self.sorted[near] - probes), here) / scale

        return index, 2 * votes.max(1) > here.sum(1), gaps


def _medians(values: Array, which: Array) -> Array:
    """Return the median of some values of each row; 0 where there are none."""
    count = which.sum(1)
    ordered = np.sort(np.where(which, values, np.inf), axis=1)
    middle = np.stack([np.maximum(count - 1, 0) // 2, np.maximum(count, 1) // 2], axis=1).clip(0, values.shape[1] - 1)
    return np.where(count > 0, np.take_along_axis(ordered, middle, 1).mean(1), 0.0)


def hollow(right: Array, left: Array, of: tuple[Array, Array, int]) -> bool:
    """Tell whether a matrix has zeros in other places than the left one: then it is another term of a sum."""
    if right.all() and left.all():
        return False
    rows = matched(*of)
    return rows is None or not np.array_equal(right.reshape(-1, right.shape[2]) > 0,
                                              left.reshape(-1, left.shape[2])[rows] > 0)  # fmt: skip


def proportional(found: Array, other: Array) -> float:
    """Tell how far two sets of columns are apart but for one factor."""
    scale = size_of(found) / (size_of(other) or 1)
    return distance(found / scale, other) if scale else np.inf

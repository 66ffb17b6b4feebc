"""Name a pooling by its window, whatever operations it is written in: torch has one, JAX divides a sum by counts."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from parity.derive.limits import ROUNDED_FUNCTIONS
from parity.derive.trace.tape import Array
from specs.words import in_a_row

from .edit import two_sided
from .texts import Words

MOST = 64  # places along an axis that is pooled
LARGEST = 1 << 14  # elements of what is pooled, which is computed once for each place along each axis
LARGE = 1e6  # is added to the values of one place, so that each window which has it shows it

Run = Callable[[Array], Array]


class Line(NamedTuple):
    """How windows lie along one axis: how many places each has, their distance, and what lies outside on either end."""

    window: int
    stride: int
    padding: tuple[int, int]


class Pool(NamedTuple):
    """A pooling.

    Args:
      kind: "max" or "average". lines: of each axis that is pooled. counts: whether zeros beyond the edges count.
    """

    kind: str
    lines: tuple[Line, ...]
    counts: bool

    @property
    def settings(self) -> list[str]:
        """Return its settings; one value for all axes if they have the same."""
        every = [[str(getattr(line, name)) for line in self.lines] for name in Line._fields]
        window, stride, edges = (values[0] if len({*values}) == 1 else " x ".join(values) for values in every)
        counts = "padding counted" if self.counts else "padding not counted"
        return [f"window {window}", f"stride {stride}", f"{edges} places beyond the edges", counts]


def pools(left: Run, right: Run, shapes: Sequence[tuple[int, ...]]) -> Words | None:
    """Say how two poolings of arrays of these shapes differ; None where one of them is none, or both are alike."""
    one, other = (_pool(run, shape) for run, shape in zip((left, right), shapes, strict=True))
    if one is None or other is None or one == other:
        return None
    if one.kind != other.kind:
        both = f"{one.kind} pooling", f"{other.kind} pooling"
        return Words(two_sided(*both), both=both)
    unlike = [pair for pair in zip(one.settings, other.settings, strict=True) if pair[0] != pair[1]]
    left_words, right_words = (in_a_row(side) for side in zip(*unlike, strict=True))
    return Words(f"{one.kind} pooling with {two_sided(left_words, right_words)}", both=(left_words, right_words))


def _pool(run: Run, shape: tuple[int, ...]) -> Pool | None:
    """Return which pooling a function of arrays of a shape is; None if it is none."""
    if len(shape) not in (3, 4, 5):
        return None
    x = np.random.default_rng(0).standard_normal(shape)
    try:
        x = x if x.size <= LARGEST else _of_one_channel(run, x)
        if max(x.shape[1:]) > MOST or x.size > LARGEST:
            return None
        y, ones, negative = _value(run, x), _value(run, np.ones(x.shape)), _value(run, -x)
        beyond = _value(run, -np.ones(x.shape)).max() == 0  # of a maximum, where zeros were put around its input
        is_max = bool(np.isin(y, [*x.ravel(), 0] if beyond else x).all() and (y >= -negative).all())
        is_mean = np.allclose(negative, -y, 0, ROUNDED_FUNCTIONS) and np.isclose(ones.max(), 1)
        lines = [_line(run, x, axis) for axis in range(x.ndim)] if y.ndim == x.ndim and is_max | is_mean else []
    except Exception:  # an operation that does not take such values, or moves them
        return None
    windows = [line for line in lines if line and line != Line(1, 1, (0, 0))]
    if not windows or None in lines:
        return None
    return Pool("max" if is_max else "average", tuple(windows), beyond if is_max else not np.allclose(ones, 1))


def _of_one_channel(run: Run, x: Array) -> Array:
    """Return one channel of one example, if its result is that of all at once: channels come first or last."""
    y = _value(run, x)
    parts = [(array[:1, :1], array[:1, ..., :1]) for array in (x, y)]
    for own, there in zip(*parts, strict=True):
        with contextlib.suppress(Exception):  # a window may be larger than a part of one row
            if np.array_equal(_value(run, own), there):
                return own
    return x


def _value(run: Run, x: Array) -> Array:
    value = run(x.copy())
    return np.asarray(value[0] if isinstance(value, tuple) else value, np.float64)


def _line(run: Run, x: Array, axis: int) -> Line | None:
    """Return how windows lie along an axis; None where they are not alike, or have gaps."""
    y = _value(run, x)
    read = np.zeros((y.shape[axis], x.shape[axis]), bool)
    for place in range(x.shape[axis]):
        changed = x.copy()
        np.moveaxis(changed, axis, 0)[place] += LARGE
        apart = np.moveaxis(_value(run, changed) != y, axis, 0)
        read[:, place] = apart.reshape(len(apart), -1).any(1)
    sizes, firsts = read.sum(1), read.argmax(1)
    rows = zip(read, firsts, sizes, strict=True)
    if not sizes.all() or any(not row[first : first + size].all() for row, first, size in rows):
        return None
    window, lasts = int(sizes.max()), firsts + sizes - 1
    before, after = int(window - sizes[0]), int(window - sizes[-1])
    steps = {int(step) for step in np.diff(np.where(firsts > 0, firsts, lasts - window + 1))}
    if len(steps) > 1 or (len(sizes) > 2 and (sizes[1:-1] < window).any()):
        return None
    return Line(window, steps.pop() if steps else 1, (before, after))

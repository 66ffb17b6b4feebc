"""Name a pooling by its window, and a resize by its kernel, whatever operations they are written in.

Torch has one operation for each. JAX divides a sum by counts, and multiplies by matrices.
"""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import NamedTuple

import numpy as np

from parity.derive.limits import ROUNDED_FUNCTIONS
from parity.derive.trace.program import Program, Stretch
from parity.derive.trace.tape import Array, tried
from ports.resize import keys
from specs.words import in_a_row, with_article

from .edit import two_sided
from .texts import Words

MOST = 64  # places along an axis that is pooled
LARGEST = 1 << 14  # elements of what is pooled, which is computed once for each place along each axis
LARGE = 1e6  # is added to the values of one place, so that each window which has it shows it

Run = Callable[[Array], Array]
PLACES = 64  # places along an axis that is resized, before and after
KERNELS: Mapping[str, tuple[Callable[[Array], Array], int]] = {  # with their reach
    "linear": (lambda x: np.maximum(0, 1 - np.abs(x)), 1),
    "cubic (a = -0.5)": (partial(keys, a=-0.5), 2),
    "cubic (a = -0.75)": (partial(keys, a=-0.75), 2),
    "Lanczos": (lambda x: np.where(np.abs(x) < 3, np.sinc(x) * np.sinc(x / 3), 0), 3),
}


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


def resize(program: Program, stretch: Stretch) -> str:
    """Say how a stretch resizes: "a linear resize with antialiasing"; "" if it does something else."""
    before, after = program.shapes[stretch.entry], program.shapes[stretch.result]
    axes = [axis for axis, (n, m) in enumerate(zip(before, after, strict=False)) if n != m]
    if len(before) != len(after) or not axes or max(*before, *after) > PLACES:
        return ""
    names = {_named(matrix) if (matrix := _matrix(program, stretch, axis)) is not None else "" for axis in axes}
    return names.pop() if len(names) == 1 else ""


def _matrix(program: Program, stretch: Stretch, axis: int) -> Array | None:
    """Return the matrix (after, before) by which a stretch multiplies along an axis, if that is what it does."""
    shape, function = program.shapes[stretch.entry], program.function(stretch)
    columns = []
    for place in np.eye(shape[axis]):
        x = np.broadcast_to(np.expand_dims(place, [k for k in range(len(shape)) if k != axis]), shape)
        y = tried(lambda values: np.moveaxis(np.asarray(function(values), np.float64), axis, 0), x.copy())
        if y is None:
            return None
        y = y.reshape(len(y), -1)
        if np.ptp(y, 1).max() > ROUNDED_FUNCTIONS:
            return None
        columns.append(y[:, 0])
    return np.stack(columns, 1)


def _named(matrix: Array) -> str:
    near = (name for name, other in _known(*matrix.shape) if np.abs(matrix - other).max() <= ROUNDED_FUNCTIONS)
    return next(map(with_article, near), "")


def _known(after: int, before: int) -> Iterator[tuple[str, Array]]:
    """Yield the matrices of known resizes with their names, the plain ones first."""
    for align, smooth, inside in itertools.product((False, True), repeat=3):
        if (smooth and after > before) or (align and (after == 1 or smooth)):
            continue
        for name, (kernel, reach) in KERNELS.items():
            words = " with antialiasing" * smooth + " with align_corners" * align
            yield f"{name} resize{words}", _weights(after, before, kernel, reach, align, smooth, inside)


def _weights(
    after: int, before: int, kernel: Callable[[Array], Array], reach: int, align: bool, smooth: bool, inside: bool
) -> Array:
    """Return the matrix of a resize.

    Args:
      align: the first and the last place stay where they are. smooth: the kernel is as wide as the places are dense.
      inside: places outside have no weight, and the others have the sum 1; else they have the value at the edge.
    """
    step = (before - 1) / (after - 1) if align else before / after
    at = np.arange(after) * step if align else (np.arange(after) + 0.5) * step - 0.5
    width = max(step, 1.0) if smooth else 1.0
    margin = int(np.ceil(reach * width)) + 1
    places = np.arange(-margin, before + margin)
    weights = kernel((at[:, None] - places) / width)
    if inside:
        weights = weights[:, margin:-margin]
        return weights / weights.sum(1, keepdims=True)
    weights = weights / weights.sum(1, keepdims=True)
    found = np.zeros((after, before))
    np.add.at(found.T, np.clip(places, 0, before - 1), weights.T)
    return found

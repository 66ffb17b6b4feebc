"""Name a resize by its kernel, whatever operations it is written in: torch has one, JAX multiplies by matrices."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping
from functools import partial

import numpy as np

from parity.derive.limits import ROUNDED_FUNCTIONS
from parity.derive.trace.program import Program, Stretch
from parity.derive.trace.tape import Array, tried
from ports.resize import keys
from specs.words import with_article

MOST = 64  # places along an axis that is resized, before and after


KERNELS: Mapping[str, tuple[Callable[[Array], Array], int]] = {  # with their reach
    "linear": (lambda x: np.maximum(0, 1 - np.abs(x)), 1),
    "cubic (a = -0.5)": (partial(keys, a=-0.5), 2),
    "cubic (a = -0.75)": (partial(keys, a=-0.75), 2),
    "Lanczos": (lambda x: np.where(np.abs(x) < 3, np.sinc(x) * np.sinc(x / 3), 0), 3),
}


def resize(program: Program, stretch: Stretch) -> str:
    """Say how a stretch resizes: "a linear resize with antialiasing"; "" if it does something else."""
    before, after = program.shapes[stretch.entry], program.shapes[stretch.result]
    axes = [axis for axis, (n, m) in enumerate(zip(before, after, strict=False)) if n != m]
    if len(before) != len(after) or not axes or max(*before, *after) > MOST:
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

"""Write lines for arrays of which one axis is in another order: parts exchanged, or an order of its own."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import numpy as np

from specs.paths import escaped

from ..trace.tape import Array
from .names import SPARE, Names, composed
from .related import Axes, relate
from .rows import Row

MAX_PARTS = 8  # parts that are written as a sum; more are an order in a file


def permuted(source: str, shape: tuple[int, ...], target: str, numbers: Array, names: Names, side: int) -> Row | None:
    """Write `a: (i+f+g+o) c <-> target: (f+i+g+o) c`; None where the order is of more parts.

    Args:
      numbers: for each element of the target, the place in the flat source, from 0.
    """
    for axes, own, axis, places in _in_order(shape, numbers):
        edges = np.flatnonzero(np.diff(places) != 1) + 1
        if len(edges) < min(MAX_PARTS, len(places) // 2):
            return _summed(source, target, axes, own, axis, np.split(places, edges), names, side)
    return None


def listed(source: str, shape: tuple[int, ...], target: str, numbers: Array, names: Names, side: int) -> Row | None:
    """Write `a: o[@order.txt] c <-> target: o c`, in any order.

    Args:
      numbers: see permuted.
    """
    for axes, own, _, places in _in_order(shape, numbers):
        names.assign(axes, 0, side)
        left, right = _texts(axes)
        left[own] += f"[@{names.order([int(n) for n in places])}]"
        return Row(((escaped(source), " ".join(left)),), ((escaped(target), " ".join(right)),))
    return None


def _in_order(shape: tuple[int, ...], numbers: Array) -> Iterator[tuple[Axes, int, int, Array]]:
    """Yield (axes, an axis of the source, the target's, its positions) where only the order along one axis differs."""
    for axis, own, places in orders(numbers, shape):
        axes = relate(np.take(numbers, np.argsort(places), axis), shape)
        whole = axes is not None and len(axes.target[axis]) == len(axes.source[own]) == 1
        if axes and whole and not any(axes.windows) and axes.source[own][0] is axes.target[axis][0]:
            yield axes, own, axis, places


def orders(numbers: Array, shape: tuple[int, ...]) -> Iterator[tuple[int, int, Array]]:
    """Yield (axis, an axis of the source, its positions in order) where one is the other in some order.

    Args:
      numbers: see permuted. shape: of the source.
    """
    for axis in range(numbers.ndim):
        for own, length in enumerate(shape):
            if length != numbers.shape[axis] or length < 2:
                continue
            places = np.moveaxis(numbers // math.prod(shape[own + 1 :]) % length, axis, 0).reshape(length, -1)
            if (places == places[:, :1]).all() and len(set(places[:, 0])) == length:
                yield axis, own, places[:, 0]


def _texts(axes: Axes) -> tuple[list[str], list[str]]:
    return [composed(atoms, signs=True) for atoms in axes.source], [composed(atoms) for atoms in axes.target]


def _summed(
    source: str, target: str, axes: Axes, own: int, axis: int, parts: Sequence[Array], names: Names, side: int
) -> Row:
    names.assign(axes, 0, side)
    left, right = _texts(axes)
    letters = [name for name in SPARE if name not in " ".join((*left, *right))]
    ranges = sorted((int(part[0]), len(part), k) for k, part in enumerate(parts))
    called = {k: letters[n] for n, (_, _, k) in enumerate(ranges)}
    for _, length, k in ranges:
        names.lengths[called[k]] = length
    left[own] = f"({'+'.join(called[k] for _, _, k in ranges)})"
    right[axis] = f"({'+'.join(called[k] for k in range(len(parts)))})"
    return Row(((escaped(source), " ".join(left)),), ((escaped(target), " ".join(right)),))

"""Write lines for arrays of which one axis is in another order: parts exchanged, or an order of its own."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np

from specs.paths import escaped

from ..trace.tape import Array
from .names import SPARE, Names, composed
from .related import Axes, relate
from .rows import Row

MAX_PARTS = 8  # parts that are written as a sum; more are an order in a file


def permuted(source: str, shape: tuple[int, ...], target: str, numbers: Array, names: Names, side: int) -> Row | None:
    """Write `a: (i+f+g+o) c <-> target: (f+i+g+o) c`, or `a: o[@order.txt] c <-> target: o c`.

    Args:
      numbers: for each element of the target, the place in the flat source, from 0.
    """
    for axis, own, places in orders(numbers, shape):
        axes = relate(np.take(numbers, np.argsort(places), axis), shape)
        whole = axes is not None and len(axes.target[axis]) == len(axes.source[own]) == 1
        if axes is None or not whole or any(axes.windows) or axes.source[own][0] is not axes.target[axis][0]:
            continue
        return _written(source, target, axes, own, axis, places, names, side)
    return None


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


def _written(source: str, target: str, axes: Axes, own: int, axis: int, places: Array, names: Names, side: int) -> Row:
    names.assign(axes, 0, side)
    edges = np.flatnonzero(np.diff(places) != 1) + 1
    texts = [composed(atoms, signs=True) for atoms in axes.source], [composed(atoms) for atoms in axes.target]
    if len(edges) < min(MAX_PARTS, len(places) // 2):
        letters = [name for name in SPARE if name not in " ".join((*texts[0], *texts[1]))]
        parts = sorted((int(part[0]), len(part), k) for k, part in enumerate(np.split(places, edges)))
        called = {k: letters[n] for n, (_, _, k) in enumerate(parts)}
        for _, length, k in parts:
            names.lengths[called[k]] = length
        texts[0][own] = f"({'+'.join(called[k] for _, _, k in parts)})"
        texts[1][axis] = f"({'+'.join(called[k] for k in range(len(parts)))})"
    else:
        texts[0][own] += f"[@{names.order([int(n) for n in places])}]"
    return Row(((escaped(source), " ".join(texts[0])),), ((escaped(target), " ".join(texts[1])),))

"""Find arrays of indices whose order went into a Table: files with other indices need another Table."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np

from ..match.symbols import Elements
from ..trace.sides import Side
from ..trace.tape import Array


def stored_orders(left: Side, right: Side, found: Array, lefts: Elements, rights: Elements) -> list[str]:
    """List permutations that one model stores, and in whose order the other one has an axis of a parameter.

    Args:
      found: the left element of each right one.
    """
    others = [one for side in (left, right) for one in side.others.items() if one[1].dtype.kind in "iu"]
    stored = {name: array.astype(np.int64) for name, array in others if array.ndim == 1 and _permutes(array)}
    lengths = set(map(len, stored.values()))
    taken = {order for name in rights.names if stored for order in _orders(name, found, lefts, rights, lengths)}
    return [name for name, order in stored.items() if taken & {tuple(order), tuple(np.argsort(order))}]


def _permutes(array: Array) -> bool:
    straight = np.arange(len(array))
    return bool(np.array_equal(np.sort(array), straight) and not np.array_equal(array, straight))


def _orders(name: str, found: Array, lefts: Elements, rights: Elements, lengths: set[int]) -> Iterator[tuple[int, ...]]:
    """Yield in which order each axis of a right parameter has the positions of an axis of its left one."""
    numbers = np.asarray(rights.part(found, name))
    owners = lefts.owners(numbers)
    if len(owners) != 1 or not lengths.intersection(numbers.shape):
        return
    shape, first = lefts.shapes[owners[0]], lefts.first(owners[0])
    for axis, length in enumerate(numbers.shape):
        for own in [own for own, other in enumerate(shape) if other == length and length in lengths]:
            places = np.moveaxis((numbers - first) // math.prod(shape[own + 1 :]) % length, axis, 0)
            rows = places.reshape(length, -1)
            if (rows == rows[:, :1]).all():
                yield tuple(int(place) for place in rows[:, 0])

"""Find arrays of indices whose order went into a Table: files with other indices need another Table."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from parity.derive.fold.permuted import orders
from parity.derive.match.symbols import Elements
from parity.derive.trace.tape import Array

from .trial import Trial


def stored_orders(trial: Trial) -> list[str]:
    """List permutations that one model stores, and in whose order the other one has an axis of a parameter."""
    lefts, rights = trial.elements
    others = [one for side in trial.sides for one in side.others.items() if one[1].dtype.kind in "iu"]
    stored = [(name, array.astype(np.int64)) for name, array in others if array.ndim == 1 and _permutes(array)]
    lengths = {len(order) for _, order in stored}
    likely = [name for name in rights.names if lengths.intersection(rights.shapes[name])]
    taken = {order for name in likely for order in _orders(name, trial.maps[0], lefts, rights)}
    names = [name for name, order in stored if taken & {tuple(order), tuple(np.argsort(order))}]
    return list(dict.fromkeys(names))


def _permutes(array: Array) -> bool:
    straight = np.arange(len(array))
    return bool(np.array_equal(np.sort(array), straight) and not np.array_equal(array, straight))


def _orders(name: str, found: Array, lefts: Elements, rights: Elements) -> Iterator[tuple[int, ...]]:
    """Yield in which order each axis of a right parameter has the positions of an axis of its left one."""
    numbers = np.asarray(rights.part(found, name))
    owners = lefts.owners(numbers)
    if len(owners) == 1:
        for _, _, places in orders(numbers - lefts.first(owners[0]), lefts.shapes[owners[0]]):
            yield tuple(map(int, places))

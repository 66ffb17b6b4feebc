"""Name arrays that both models read and that the proof does not exchange: integers, booleans, complex numbers."""

from __future__ import annotations

from collections.abc import Collection, Mapping

import numpy as np

from specs.table import Table

from ..fold.buffers import VALUED, orders
from ..trace.sides import Side, draw
from ..trace.tape import Array


def unproven(left: Side, right: Side, table: Table) -> list[str]:
    """List arrays of the right side that both models read, unless the table makes them from the left side's.

    Each side keeps its own values of these in the proof: only values that are equal, in one order of axes alone, show
    that a line is right. Where one side alone has such arrays, as a table of indices, there is nothing to translate.
    """
    ours, theirs = _read(left), _read(right)
    if not ours or not theirs:
        return []
    first = {**{name: name for name in left.parameters}, **left.ties}
    arrays = {name: np.zeros(np.shape(left.parameters[owner])) for name, owner in first.items()}
    moved = table.apply({**arrays, **left.others})
    return [name for name in theirs if not _shown(right.others[name], moved.get(name))]


def _shown(array: Array, moved: Array | None) -> bool:
    """Tell whether an array is what the table makes, and would not be in another order of axes."""
    if moved is None or np.shape(moved) != array.shape or not np.array_equal(moved, array):
        return False
    return sum(1 for _ in orders(array, array)) == 1


def _read(of: Side) -> list[str]:
    """List the arrays without floats on which the outputs depend; single numbers are counters."""
    arrays = {name: a for name, a in of.others.items() if a.size > 1 and a.dtype.kind in VALUED}
    if not arrays:
        return []
    weights, inputs = draw(of, 0), of.call.arrays()
    usual = of.run(weights, inputs)

    def changes(names: Collection[str]) -> bool:
        try:
            outputs = of.run({**weights, **arrays, **_changed({name: arrays[name] for name in names})}, inputs)
        except Exception:  # an index that is not there
            return True
        return not all(map(np.array_equal, usual, outputs))

    try:
        return [name for name in arrays if changes([name])] if changes(arrays) else []
    finally:
        of.run({**weights, **arrays}, inputs)
        of.release()


def _changed(arrays: Mapping[str, Array]) -> dict[str, Array]:
    """Return other values of the same dtypes."""
    changed = {}
    for name, array in arrays.items():
        odd = np.arange(array.size).reshape(array.shape) % 2 == 1
        changed[name] = ~array if array.dtype.kind == "b" else np.where(odd, array, array[::-1] + 1).astype(array.dtype)
    return changed

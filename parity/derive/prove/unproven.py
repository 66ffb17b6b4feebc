"""Name arrays that both models read and that the proof does not exchange.

These are integers, booleans and complex numbers, and parameters that keep the models' own values, as a mask does.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from parity.derive.fold.buffers import VALUED, orders
from parity.derive.trace.sides import Side
from parity.derive.trace.tape import Array

from .trial import Trial, depended_on

FEW = 16  # arrays of more than one number that are changed one by one


def unproven(trial: Trial) -> list[str]:
    """List arrays of the right side that both models read, unless the table makes them from the left side's.

    Each side keeps its own values of these in the proof: only values that are equal, in one order of axes alone, show
    that a line is right. Where one side alone has such arrays, as a table of indices, there is nothing to translate.
    """
    left, right = trial.sides
    if (
        not _untouched(left)
        or not _untouched(right)
        or not (left_read := _read(left))
        or not (right_read := _read(right))
    ):
        return []  # the models are run only where both have such arrays
    first = {**{name: name for name in left.parameters}, **left.ties}
    arrays = {name: np.zeros(np.shape(left.parameters[owner])) for name, owner in first.items()}
    moved = trial.table.apply({**arrays, **left.others})
    again = trial.table.apply({**arrays, **left.others, **{name: _more(left.others[name]) for name in left_read}})
    return [name for name in right_read if not _shown(right.others[name], moved.get(name), again.get(name))]


def _shown(array: Array, moved: Array | None, again: Array | None) -> bool:
    """Tell whether an array is what the table makes of the left side's, and would not be in another order of axes.

    Args:
      again: what the table makes of other values: the same, if a line states a constant.
    """
    if moved is None or again is None or np.shape(moved) != array.shape or not np.array_equal(moved, array):
        return False
    return not np.array_equal(moved, again) and sum(1 for _ in orders(array, array)) == 1


def _untouched(of: Side) -> dict[str, Array]:
    """Return the arrays that the proof does not draw, but for floats of buffers.

    A buffer of floats that keeps its values is a mask or a table, which no training changes.
    """
    return {name: a for name, a in of.others.items() if a.size and (a.dtype.kind in VALUED or _trained(of, name, a))}


def _read(of: Side) -> list[str]:
    """List the arrays that the proof does not draw and on which the outputs depend."""
    arrays = _untouched(of)
    several = {name: array for name, array in arrays.items() if array.size > 1}
    counters = {name: array for name, array in arrays.items() if array.size == 1}
    return [*depended_on(of, several, CHANGES, _identical, FEW), *depended_on(of, counters, CHANGES, _identical)]


def _identical(outputs: Sequence[Array], others: Sequence[Array]) -> bool:
    return all(map(np.array_equal, outputs, others))


def _trained(of: Side, name: str, array: Array) -> bool:
    return bool(array.dtype.kind == "f" and name not in of.buffers)


def _rolled(array: Array) -> Array:
    return np.roll(array.ravel(), 1).reshape(array.shape)


def _more(array: Array) -> Array:
    return ~array if array.dtype.kind == "b" else array + 1


def _first(array: Array) -> Array:
    """Change one element alone: all of them together may mean the same again."""
    changed = array.copy()
    changed.flat[0] = _more(array).flat[0]
    return changed


CHANGES: tuple[Callable[[Array], Array], ...] = (_rolled, _more, _first)

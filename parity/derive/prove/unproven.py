"""Name arrays that the proof does not exchange, and integers for which it does not hold.

These arrays are integers, booleans and complex numbers, and parameters that keep the models' own values, as a mask
does. If a Table has taken over the order of stored indices, files with other indices need another Table. Integers may
be too large for JAX, which computes with 32 bits unless it is told otherwise: hashes, say.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence

import numpy as np

from parity.derive.edits.edit import SIDES
from parity.derive.fold import permuted
from parity.derive.fold.buffers import VALUED, orders
from parity.derive.fold.rows import moved
from parity.derive.match.symbols import Elements
from parity.derive.trace.reason import Reason
from parity.derive.trace.sides import Side
from parity.derive.trace.tape import Array

from .other_values import other_values
from .trial import Trial, depended_on, zeros_of

FEW = 16  # arrays of more than one number that are changed one by one
OF_JAX = {"linen", "nnx", "jax"}
LARGEST = 2**31 - 1  # of 32 bits
WIDE = "equal only with integers of 64 bits: JAX has 32, and those of the {} model pass them"
REMEDY = "set jax_enable_x64 before deriving, if the model runs with it; or keep integers below 2^31"


def unproven(trial: Trial) -> tuple[str, list[str]]:
    """Return why outputs are equal only with values of the proof, and the right arrays that nothing shows.

    Each side keeps its own values of the arrays that both models read: only values that the table makes of the left
    side's, in one order of axes alone, show that a line is right, and others that models accept. Where one side alone
    has such arrays, as a table of indices, there is nothing to translate.
    """
    left, right = trial.sides
    if (
        not _untouched(left)
        or not _untouched(right)
        or not (left_read := _read(left))
        or not (right_read := _read(right))
    ):
        return "", []  # the models are run only where both have such arrays
    arrays = zeros_of(left)
    made = moved(trial.table, arrays)
    again = moved(trial.table, {**arrays, **{name: _more(left.others[name]) for name in left_read}})
    unshown = [name for name in right_read if not _shown(right.others[name], made.get(name), again.get(name))]
    return ("", unshown) if unshown else other_values(trial, left_read, right_read)


def _shown(array: Array, moved: Array | None, again: Array | None) -> bool:
    """Tell whether an array is what the table makes of the left side's, and would not be in another order of axes.

    Args:
      again: what the table makes of other values: the same, if a line states a constant.
    """
    if moved is None or again is None or np.shape(moved) != array.shape or not np.array_equal(moved, array):
        return False
    return not np.array_equal(moved, again) and sum(1 for _ in orders(array, array)) == 1


def _untouched(side: Side) -> dict[str, Array]:
    """Return the arrays that the proof does not draw, but for floats of buffers.

    A buffer of floats that keeps its values is a mask or a table, which no training changes.
    """
    arrays = {name: array for name, array in side.others.items() if array.size}
    trained = [name for name, a in arrays.items() if a.dtype.kind == "f" and name not in side.buffers]
    return {name: a for name, a in arrays.items() if a.dtype.kind in VALUED or name in trained}


def _read(side: Side) -> list[str]:
    """List the arrays that the proof does not draw and on which the outputs depend."""
    arrays = _untouched(side)
    several = {name: array for name, array in arrays.items() if array.size > 1}
    counters = {name: array for name, array in arrays.items() if array.size == 1}
    changes = _rolled, _more, _first
    return [*depended_on(side, several, changes, _identical, FEW), *depended_on(side, counters, changes, _identical)]


def _identical(outputs: Sequence[Array], others: Sequence[Array]) -> bool:
    return all(map(np.array_equal, outputs, others))


def _rolled(array: Array) -> Array:
    return np.roll(array.ravel(), 1).reshape(array.shape)


def _more(array: Array) -> Array:
    return ~array if array.dtype.kind == "b" else array + 1


def _first(array: Array) -> Array:
    """Change one element alone: all of them together may mean the same again."""
    changed = array.copy()
    changed.flat[0] = _more(array).flat[0]
    return changed


def stored_orders(trial: Trial) -> list[str]:
    """List permutations that one model stores, and in whose order the other one has an axis of a parameter."""
    lefts, rights = trial.elements
    others = [item for side in trial.sides for item in side.others.items() if item[1].dtype.kind in "iu"]
    stored = [(name, array.astype(np.int64)) for name, array in others if array.ndim == 1 and _permutes(array)]
    lengths = {len(order) for _, order in stored}
    likely = [name for name in rights.names if lengths.intersection(rights.shapes[name])]
    taken = {order for name in likely for order in _orders(name, trial.maps[0], lefts, rights)}
    names = [name for name, order in stored if taken & {tuple(order), tuple(np.argsort(order))}]
    return list(dict.fromkeys(names))


def _permutes(array: Array) -> bool:
    straight = np.arange(len(array))
    return bool(np.array_equal(np.sort(array), straight) and not np.array_equal(array, straight))


def _orders(name: str, mapped: Array, lefts: Elements, rights: Elements) -> Iterator[tuple[int, ...]]:
    """Yield in which order each axis of a right parameter has the positions of an axis of its left one."""
    numbers = np.asarray(rights.part(mapped, name))
    owners = lefts.owners(numbers)
    if len(owners) == 1:
        for _, _, places in permuted.orders(numbers - lefts.first(owners[0]), lefts.shapes[owners[0]]):
            yield tuple(map(int, places))


def wide_integers(trial: Trial) -> Reason | None:
    """Say that a model of JAX computes integers of more bits in the proof than it does elsewhere; None if not."""
    jax = sys.modules.get("jax")
    if jax is None or jax.config.jax_enable_x64:
        return None
    for name, side, program in zip(SIDES, trial.sides, trial.programs, strict=True):
        integers = (value for value in program.indices.values() if np.asarray(value).dtype.kind == "i")
        if side.framework in OF_JAX and any(_is_wide(np.asarray(value)) for value in integers):
            return Reason(WIDE.format(name), REMEDY)
    return None


def _is_wide(value: np.ndarray) -> bool:
    """Tell whether some integers have more bits, but for the largest ones, which code asks for by their dtype."""
    large = value[(value > LARGEST) | (value < -LARGEST - 1)].astype(np.int64)
    limits = np.iinfo(np.int64)
    return bool(((large != limits.max) & (large != limits.min)).any())

"""Run both models with other values of inputs that the proof keeps: masks, and integers that are all the same."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Mapping

import numpy as np

from parity.derive.trace.call import label
from parity.derive.trace.inputs import carried, fresh, related
from parity.derive.trace.reason import Reason
from parity.derive.trace.tape import Array
from specs.numerals import short
from specs.words import in_a_row

from .trial import Trial

SEED = 10000
ONLY = "equal only for the given values of"
OTHER = "give inputs whose rows differ there, or make both models equal; then derive again"

Count = Callable[[Array], Array]
# How positions count the places that a mask shows: a hidden place has the number 0, or that of the shown one before it.
COUNTS: tuple[Count, ...] = (lambda mask: mask.cumsum(-1) * mask, lambda mask: mask.cumsum(-1))


def other_masks(trial: Trial) -> str:
    """Say that outputs differ where a mask has its edge one place earlier, or alike integers have another value."""
    given = trial.given
    every, (drawn, others) = related(*given), fresh(*given, SEED)
    moved = _moved(given[0], {name: drawn[name] for name, pairs in every.items() if pairs})
    if not moved:
        return ""
    inputs = drawn | moved, carried(moved, others, every)
    paired = {other for pairs in every.values() for other, _ in pairs}
    alone = [name for name, pairs in every.items() if not pairs], [name for name in others if name not in paired]
    masks = [(given[0][name] != 0, array != 0) for name, array in moved.items()]
    apart = trial.apart(inputs, SEED)
    for count in COUNTS:  # one side alone is given positions, and the other side counts what its mask shows
        counted = [_counted(side, names, masks, count) for side, names in zip(inputs, alone, strict=True)]
        if apart and any(counted):
            apart = trial.apart([side | new for side, new in zip(inputs, counted, strict=True)], SEED)
    if not apart:
        return ""
    names = in_a_row(label(name) for name in moved)
    return Reason(f"{ONLY} {names}: with another one there they differ by {short(apart)}", OTHER)


def _moved(given: Mapping[str, Array], drawn: Mapping[str, Array]) -> dict[str, Array]:
    """Return the inputs that keep their values in a proof, and have one of two values in their last row, with another.

    So a mask for padding hides one place more, or one less: both are those of texts of other lengths.
    """
    moved = dict[str, Array]()
    for name, array in drawn.items():
        values = np.unique(array)
        if not np.array_equal(array, given[name]) or array.ndim < 1 or array.shape[-1] < 2 or len(values) > 2:
            continue
        if len(values) == 1 and values[0] in (0, 1):
            values = np.array([0, 1], array.dtype)
        if len(values) == 2:
            moved[name] = array.copy()
            row = moved[name].reshape(-1, array.shape[-1])[-1]
            row[_edge(row)] = values[0] if row[_edge(row)] == values[1] else values[1]
    return moved


def _counted(
    side: Mapping[str, Array], names: Iterable[str], masks: Iterable[tuple[Array, Array]], count: Count
) -> dict[str, Array]:
    """Return the inputs of a side that are positions counted by a mask, as another mask counts them.

    Args:
      names: inputs that this side alone is given. masks: which places are shown in the proof, and in the trial.
    """
    new = dict[str, Array]()
    for name, (shown, other) in itertools.product(names, masks):
        if side[name].dtype.kind in "iu" and side[name].shape == shown.shape:
            offset = side[name] - count(shown.astype(int))
            if (offset == offset.flat[0]).all():
                new[name] = (count(other.astype(int)) + offset).astype(side[name].dtype)
    return new


def _edge(row: Array) -> int:
    """Return the place before the only step of a row, or behind it if it is the first one; else the last place."""
    steps = np.flatnonzero(row[1:] != row[:-1])
    return len(row) - 1 if len(steps) != 1 else int(steps[0]) if steps[0] else 1

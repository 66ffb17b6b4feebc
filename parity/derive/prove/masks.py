"""Run both models with other values of inputs that the proof keeps: masks, and integers that are all the same."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial

import numpy as np

from parity.derive.trace.call import label
from parity.derive.trace.inputs import Ties, carried, fresh, related, ties
from parity.derive.trace.outputs import differ_by
from parity.derive.trace.reason import Reason
from parity.derive.trace.tape import Array
from specs.words import in_a_row

from .trial import Trial

SEED = 10000
ONLY = "equal only for the given values of"
OTHER = "give inputs whose rows differ there, or make both models equal; then derive again"

SHIFTS = 16  # numbers of places by which a mask is moved, up to this one, are compared

Count = Callable[[Array], Array]
# How positions count the places that a mask shows: a hidden place has the number 0, or that of the shown one before it.
COUNTS: tuple[Count, ...] = (lambda mask: mask.cumsum(-1) * mask, lambda mask: mask.cumsum(-1))

Given = Sequence[Mapping[str, Array]]  # of the left and of the right side
Change = Callable[[Array, Array], Array]  # of rows and their two values


def other_masks(trial: Trial) -> str:
    """Say that outputs differ with other masks: of another edge, or moved ones; or with integers of another value."""
    drawn = fresh(*trial.given, SEED)
    for change in (_with_another_edge, _moved):
        each = [trial.apart(moved, SEED) for moved in with_masks(trial.given, drawn, change)]
        if each and all(each) and min(each) < math.inf:  # else a row that is hidden whole: see rows_of_one_value
            names = in_a_row(label(name) for name in _masks(trial.given, drawn, related(*trial.given)))
            return Reason(f"{ONLY} {names}: with another one there they {differ_by(min(each))}", OTHER)
    return ""


def rows_of_one_value(trial: Trial) -> str:
    """Say that outputs differ where a mask has one value in its last row, which it may hide whole; "" if they agree."""
    drawn = fresh(*trial.given, SEED)
    for k in (0, 1):
        each = [trial.unlike(moved, SEED) for moved in with_masks(trial.given, drawn, partial(_with_last, k))]
        if each and all(each):
            names = in_a_row(label(name) for name in _masks(trial.given, drawn, related(*trial.given)))
            return f"rows of one value in {names}, as where it hides all: with one, {each[0]}"
    return ""


def with_masks(given: Given, drawn: Given, change: Change) -> list[Given]:
    """Return inputs of both sides with other masks, and integers that are all alike; none if nothing is another.

    Each way in which inputs may go together has its own. Where one side alone is given positions, the inputs whose
    positions follow the masks, in either way, come too: both models agree if they do with one of these.
    """
    every = list[Given]()
    for way in ties(*given):
        masks = _masks(given, drawn, way)
        moved = {
            name: change(array.copy().reshape(-1, array.shape[-1]), values).reshape(array.shape)
            for name, (array, values) in masks.items()
        }
        if any(not np.array_equal(array, masks[name][0]) for name, array in moved.items()):
            inputs = [{**drawn[0], **moved}, carried(moved, drawn[1], way)]
            every += [inputs, *_with_positions(given, inputs, moved)]
    return every


def _masks(given: Given, drawn: Given, way: Ties) -> dict[str, tuple[Array, Array]]:
    """Return the left inputs that keep their values in a proof, and have one of two values, with these values."""
    masks = dict[str, tuple[Array, Array]]()
    for name, pairs in way.items():
        array, values = drawn[0][name], np.unique(drawn[0][name])
        if not pairs or not np.array_equal(array, given[0][name]) or array.ndim < 1 or array.shape[-1] < 2:
            continue
        if len(values) == 1 and values[0] in (0, 1):
            values = np.array([0, 1], array.dtype)
        if len(values) == 2:
            masks[name] = array, values
    return masks


def of_one_place(rows: Array, values: Array) -> Array:
    """Return a mask that shows one place of each row, the first or the last one, whichever it shows in all rows."""
    for place in (0, -1):
        shown = rows[0, place]
        if (rows[:, place] == shown).all():
            rows[:] = values[values != shown][0]
            rows[:, place] = shown
            break
    return rows


def _with_last(k: int, rows: Array, values: Array) -> Array:
    """Return a mask whose last row has one of the two values alone."""
    rows[-1] = values[k]
    return rows


def _with_another_edge(rows: Array, values: Array) -> Array:
    """Return a mask that hides one place more, or one less, in its last row, as those of texts of other lengths."""
    row = rows[-1]
    row[_edge(row)] = values[0] if row[_edge(row)] == values[1] else values[1]
    return rows


def _moved(rows: Array, values: Array) -> Array:
    """Return a mask with its rows moved, if some row has several edges, so that it hides places anywhere.

    They move by the number of places that gives most columns of one value the other one.
    """
    if np.count_nonzero(rows[:, 1:] != rows[:, :-1], axis=1).max() < 2:
        return rows
    alike = (rows == rows[:1]).all(0)
    every = (np.roll(rows, k, 1) for k in range(1, min(rows.shape[1], SHIFTS)))
    return max(every, key=lambda moved: np.count_nonzero((moved != rows)[:, alike]))


def _with_positions(given: Given, moved: Given, names: Iterable[str]) -> Iterator[Given]:
    """Yield inputs whose positions, which one side alone is given, count what the other side's moved masks show.

    Args:
      names: the masks of the left side.
    """
    every = related(*given)
    paired = {other for pairs in every.values() for other, _ in pairs}
    alone = [name for name, pairs in every.items() if not pairs], [name for name in given[1] if name not in paired]
    masks = [(given[0][name] != 0, moved[0][name] != 0) for name in names]
    for count in COUNTS:
        counted = [_counted(side, names, masks, count) for side, names in zip(moved, alone, strict=True)]
        if any(counted):
            yield [{**side, **new} for side, new in zip(moved, counted, strict=True)]


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

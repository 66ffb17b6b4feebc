"""Run both models with other values of inputs that the proof keeps: masks, and integers that are all the same."""

from __future__ import annotations

from collections.abc import Mapping

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


def other_masks(trial: Trial) -> str:
    """Say that outputs differ where a mask has its edge one place earlier, or alike integers have another value."""
    given = trial.given
    every, (drawn, others) = related(*given), fresh(*given, SEED)
    moved = _moved(given[0], {name: drawn[name] for name, pairs in every.items() if pairs})
    if not moved:
        return ""
    apart = trial.apart([drawn | moved, carried(moved, others, every)], SEED)
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


def _edge(row: Array) -> int:
    """Return the place before the only step of a row, or behind it if it is the first one; else the last place."""
    steps = np.flatnonzero(row[1:] != row[:-1])
    return len(row) - 1 if len(steps) != 1 else int(steps[0]) if steps[0] else 1

"""Run both models on inputs of which one example is zero: code may hide such ones, as padding, or divide by a norm."""

from __future__ import annotations

import numpy as np

from parity.derive.edits.edit import SIDES
from parity.derive.limits import AGREEING_OUTPUTS
from parity.derive.trace.call import label
from parity.derive.trace.inputs import carried, fresh, related
from parity.derive.trace.outputs import difference, incomparable
from parity.derive.trace.tape import Array
from specs.numerals import short
from specs.words import in_a_row

from .trial import Trial
from .unreached import moved_inputs

SEED = 11000


def rows_of_zeros(trial: Trial) -> str:
    """Say that outputs differ for zeros in the last example, or at the last place of a lone one; "" if they agree."""
    given = trial.given
    every, (drawn, others) = related(*given), fresh(*given, SEED, tokens=False)
    moved = moved_inputs(given[0], drawn)
    zeros = {name: _with_zeros(array) for name, array in moved.items() if array.ndim > 1 and every[name]}
    if not zeros:
        return ""
    outputs = trial.outputs([drawn | zeros, carried(zeros, others, every)], SEED)
    if not all(outputs) or [x.shape for x in outputs[0]] != [y.shape for y in outputs[1]]:
        return ""
    where = f"rows of zeros in {in_a_row(label(name) for name in zeros)}"
    for x, y in zip(*outputs, strict=True):
        alone = [bool((np.isnan(one) & ~np.isnan(other)).any()) for one, other in ((x, y), (y, x))]
        if any(alone):
            return f"{where}: with one, outputs of the {SIDES[alone[1]]} model alone are NaN"
    known = [[np.nan_to_num(x, posinf=np.inf, neginf=-np.inf) for x in side] for side in outputs]
    apart = 0.0 if incomparable(*known) else difference(*known)
    alike = apart <= trial.limit(AGREEING_OUTPUTS)
    return "" if alike else f"{where}: with one, outputs differ by {short(apart)}"


def _with_zeros(array: Array) -> Array:
    array = array.copy()
    array[-1 if len(array) > 1 else (0, -1)] = 0
    return array

"""Find a number that both models read with unlike values, which changes outputs by less than counts as different."""

from __future__ import annotations

import itertools
from collections.abc import Mapping

from parity.derive.edits.numbers import Change, changes
from parity.derive.limits import ROUNDED_FUNCTIONS, ROUNDING_OUTPUTS
from parity.derive.trace.outputs import difference
from parity.derive.trace.program import replayed
from parity.derive.trace.tape import Array, Tape
from specs.numbers import short

from .trial import Trial

SEED = 5000
MOST = 12  # changes that are tried
LESS = 1e-2  # part of a difference that remains at most with the number of the other side


def unlike_number(trial: Trial) -> str:
    """Say which number differs and makes a small difference of outputs; "" where none does, or rounding explains it.

    An epsilon shows in values that are small; with inputs that are large it hardly does.
    """
    if trial.exact <= ROUNDING_OUTPUTS:
        return ""
    tapes, weights, inputs = trial.tapes, trial.weights(SEED), trial.given

    def outputs(side: int, tape: Tape) -> list[Array]:
        return replayed(tape, weights[side], list(inputs[side].values()))

    before = [outputs(side, tape) for side, tape in enumerate(tapes)]
    apart = difference(*before)
    if apart <= ROUNDING_OUTPUTS:
        return ""
    for change in itertools.islice((one for one in changes(*tapes) if not _rounded(one, tapes)), MOST):
        other = outputs(change.side, change.tape(tapes[change.side]))
        if difference(other, before[1 - change.side]) <= LESS * apart:
            return f"equal to {short(apart)} only: {change.text}"
    return ""


def _rounded(change: Change, tapes: tuple[Tape, Tape]) -> bool:
    """Tell whether numbers are exchanged of which one is the other one in lower precision, as epsilons of paddle."""
    constants: Mapping[int, Array] = tapes[change.side].constants
    old = {number: float(constants[number].flat[0]) for number in change.values}
    return all(abs(old[number] - new) <= ROUNDED_FUNCTIONS * abs(new) for number, new in change.values.items())

"""Compare numbers that both models read, where unlike ones hardly show in outputs.

A fill of -100 hides a masked place beside small scores alone. Other numbers, such as an epsilon, may change outputs by
less than counts as different.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import NamedTuple

import numpy as np

from parity.derive.edits.edit import two_sided
from parity.derive.edits.numbers import Change, changes
from parity.derive.edits.swaps import Unary, unary
from parity.derive.limits import AGREEING_OUTPUTS, HUGE, ROUNDED_FUNCTIONS, ROUNDING_OUTPUTS
from parity.derive.trace.outputs import differ_by, difference
from parity.derive.trace.program import Program, replayed
from parity.derive.trace.tape import Array, Tape
from specs.numbers import measured, short
from specs.words import in_a_row

from .trial import Trial
from .unreached import GUARD, LESS, SEED, UNLIKE

FACTORS = [2 ** (k / 4) for k in range(17)]  # of weights, up to 16: scores grow by the square or more
HIDDEN = -1e30  # put in all masked places to see whether their fills are why outputs differ
LEAST = -10.0  # numbers above this hide nothing: a table of two values may be something else than a mask
OTHERS = 5000  # seed of weights with which other numbers are compared
MOST = 12  # changes that are tried


def unlike_fills(trial: Trial) -> str:
    """Say which numbers masked places get on each side, and with which scores outputs are equal; "" if they are alike.

    Numbers from -1e4 on stand for minus infinity. Masks that depend on inputs are not compared.
    """
    each = zip(trial.tapes, trial.weights(SEED), trial.given, strict=True)
    fills = [_fills(Program(tape, weights, list(inputs.values()))) for tape, weights, inputs in each]
    kinds = [{fill if fill.number > -GUARD else None for fill in side.values()} for side in fills]
    if not all(kinds) or kinds[0] == kinds[1]:
        return ""
    what = [in_a_row(dict.fromkeys(fill.text for fill in side.values())) for side in fills]
    return f"masked places get {two_sided(*what)}: {_with_larger_scores(trial, fills)}"


class Fill(NamedTuple):
    """What masked places get. Args: added: whether the number is added to what stands there."""

    number: float
    added: bool

    @property
    def text(self) -> str:
        return measured(self.number) + " added" * (self.added and self.number > -GUARD)


def _fills(program: Program) -> dict[int, Fill]:
    """Return the results of operations that mask values, each with what masked places get."""
    every = list(unary(program))
    found = {one.node.output: Fill(_fill(one, program.shapes[one.entry]), one.node.kind == "add") for one in every}
    return {output: fill for output, fill in found.items() if fill.number <= LEAST}


def _fill(one: Unary, shape: tuple[int, ...]) -> float:
    """Return the number that an operation puts in masked places, or adds there; 0 for one that does something else."""
    if mask := one.mask(shape):
        return mask.number
    tables = [np.unique(table) for table in one.known.values()] if one.node.kind == "add" else []
    return next((float(values[0]) for values in tables if len(values) == 2 and values[1] == 0), 0.0)


def _with_larger_scores(trial: Trial, fills: Sequence[Mapping[int, Fill]]) -> str:
    """Say up to which scores outputs are equal, and by how much they differ with larger ones, if fills are why."""
    equal = 0.0
    for factor in FACTORS:
        largest, apart = _scored(trial, fills, factor)
        if apart <= AGREEING_OUTPUTS:
            equal = largest
        elif not apart <= UNLIKE:  # else rounding, which large values magnify, may explain it
            break
    text = f"outputs are equal with scores up to {measured(equal)}"
    if apart > UNLIKE and _scored(trial, fills, factor, _hidden)[1] <= LESS * apart:
        text += f", and {differ_by(apart)} with scores up to {measured(largest)}"
    return text


def _scored(
    trial: Trial, fills: Sequence[Mapping[int, Fill]], factor: float, instead: Callable[..., Array] | None = None
) -> tuple[float, float]:
    """Run both models with larger weights; return the largest score that masks show, and the difference of outputs.

    Args:
      instead: runs a mask in another way: takes its function and operands.
    """
    scores = list[float]()
    changed = instead or partial(_noted, scores)

    def watched(tape: Tape, own: Mapping[int, Fill]) -> Tape:
        return tape.running(lambda node: partial(changed, node.run) if node.output in own else None)

    tapes = map(watched, trial.tapes, fills)
    each = zip(tapes, trial.weights(trial.grown(SEED, factor)), trial.given, strict=True)
    apart = difference(*(replayed(tape, weights, [*inputs.values()]) for tape, weights, inputs in each))
    return max(scores, default=0.0), apart


def _noted(scores: list[float], run: Callable[..., Array], *operands: Array) -> Array:
    """Run a mask, and note the largest score that it shows."""
    result = np.asarray(run(*operands))
    size = np.abs(result[_shown(result, operands)])
    scores.append(float(size[size < HUGE].max(initial=0)))
    return result


def _hidden(run: Callable[..., Array], *operands: Array) -> Array:
    """Run a mask, with the same number in all masked places."""
    result = np.asarray(run(*operands))
    return np.where(_shown(result, operands), result, HIDDEN)


def _shown(result: Array, operands: Sequence[Array]) -> Array:
    """Tell which places a mask leaves as they are in one of its operands."""
    values = [operand for operand in operands if np.asarray(operand).dtype.kind == "f" and np.size(operand) > 1]
    return np.any([np.broadcast_to(result == value, result.shape) for value in values], axis=0)


def unlike_number(trial: Trial) -> str:
    """Say which number differs and makes a small difference of outputs; "" where none does, or rounding explains it.

    An epsilon shows in values that are small; with inputs that are large it hardly does.
    """
    if trial.exact <= ROUNDING_OUTPUTS:
        return ""
    tapes, weights, inputs = trial.tapes, trial.weights(OTHERS), trial.given

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

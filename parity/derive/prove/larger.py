"""Run both models with larger weights and inputs: limits that no operation shows by its name, and branches of code."""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping, Sequence
from functools import partial

import numpy as np

from parity.derive.limits import AGREEING_OUTPUTS, HUGE
from parity.derive.trace.draws import Altered
from parity.derive.trace.inputs import fresh
from parity.derive.trace.outputs import difference, incomparable
from parity.derive.trace.program import Program
from parity.derive.trace.tape import Array, Tape

from .masks import of_one_place, with_masks
from .trial import Trial, outputs_of
from .unreached import COMPARISONS, GUARD, SEED, any_negative, moved_inputs, unexplained

# Factors of weights and inputs, signs of inputs, and whether masks show one place alone: few weights pass a limit in
# one draw, and the score of one place is often below a fill of -30.
TRIED = (4.0, 1, False), (32.0, -1, False), (4.0, 1, True)
ROUNDED = 1e-12  # part of each weight by which it is changed, to see what rounding may become
JUMPS = {"round", "floor", "ceil", "trunc", "sign"} | COMPARISONS  # functions that jump
DIGITS = 9  # after the point, to which values before a jump are rounded: what differs by less becomes one value
MAGNIFIED = 1e3  # times what this changes that outputs have to differ at least


def larger_weights(trial: Trial) -> str:
    """Say that outputs differ with larger weights; "" if they agree, or if rounding or guards may explain it.

    Nothing is said of models that choose by values, as experts or the largest ones: saturated values are alike.
    """
    if any(map(_chooses, trial.programs)):
        return ""
    for k, (factor, sign, masked) in enumerate(TRIED):
        weights = trial.grown(SEED + k, factor)
        if not (inputs := _inputs(trial, SEED + k, factor, sign, masked)):
            continue
        outputs = trial.outputs(inputs, weights)
        if not all(outputs) or incomparable(*outputs):
            continue
        apart = difference(*outputs)
        if apart <= AGREEING_OUTPUTS:
            continue
        near = Altered(weights, trial.trained, partial(_rounded, max(ROUNDED, 10 * trial.error)))
        again = outputs_of(trial.left, near, inputs[0])
        if not again or apart <= MAGNIFIED * difference(outputs[0], again):
            continue
        if _at_jumps(trial, inputs, weights):
            continue
        each = zip(trial.tapes, trial.weights(weights), inputs, strict=True)
        if all(_largest(tape, drawn, arrays) <= GUARD for tape, drawn, arrays in each):
            return unexplained(factor, apart)
    return ""


def _inputs(trial: Trial, seed: int, factor: float, sign: int, masked: bool) -> Sequence[Mapping[str, Array]]:
    """Return larger inputs of both sides.

    There are none if masks are to show one place, and there are no masks, or positions that one side alone counts, or
    if inputs may go together in several ways; see ties.

    Args:
      sign: of inputs that have negative numbers. masked: whether masks show one place.
    """
    drawn: Sequence[Mapping[str, Array]] = fresh(*trial.given, seed, tokens=False)
    grown = [moved_inputs(*one) for one in zip(trial.given, drawn, strict=True)]
    sign = sign if any_negative(grown) else 1
    if masked:
        masks = with_masks(trial.given, drawn, of_one_place)
        if len(masks) != 1:
            return []
        drawn = masks[0]
    return [
        {**one, **{name: sign * factor * array for name, array in of.items()}}
        for one, of in zip(drawn, grown, strict=True)
    ]


def _chooses(program: Program) -> bool:
    """Tell whether values that depend on weights become integers, as places of the largest ones do."""
    numbers = program.active.difference(program.plain).intersection(program.indices)
    return any(program.indices[number].dtype.kind in "iu" for number in numbers)


def _rounded(part: float, name: str, array: Array) -> Array:
    return array * (1 + part * np.random.default_rng(SEED).standard_normal(array.shape))


def _at_jumps(trial: Trial, inputs: Sequence[Mapping[str, Array]], weights: Mapping[str, Array]) -> bool:
    """Tell whether outputs differ only by rounding at a jump: `round(3.5 * tanh(x))` of a large x is at one.

    Both tapes agree then if values before jumps have fewer digits. Tapes lack the branches of code, which may be why
    models differ.
    """
    short = [_shortened(tape) for tape in trial.tapes]
    if all(map(operator.is_, short, trial.tapes)) or any(tape.reads_numbers for tape in trial.tapes):
        return False
    return trial.tapes_agree(short, inputs, weights, AGREEING_OUTPUTS)


def _shortened(tape: Tape) -> Tape:
    """Return the tape with fewer digits of the values before each jump; this one itself if it has none."""

    def shortened(run: Callable[..., Array], *operands: Array) -> Array:
        arrays = map(np.asarray, operands)
        return run(*(np.round(array, DIGITS) if array.dtype.kind == "f" else array for array in arrays))

    return tape.running(lambda node: partial(shortened, node.run) if node.name.strip("_") in JUMPS else None)


def _largest(tape: Tape, weights: Mapping[str, Array], inputs: Mapping[str, Array]) -> float:
    """Return the largest value of a run that hides none, as those that masks add do."""
    largest = [0.0]

    def noted(run: Callable[..., Array], *operands: Array) -> Array:
        result = run(*operands)
        if getattr(result, "dtype", np.dtype(bool)).kind == "f":
            size = np.abs(result)
            largest[0] = max(largest[0], float(np.max(size[size < HUGE], initial=0)))
        return result

    Program(tape.live().running(lambda node: partial(noted, node.run)), weights, list(inputs.values()))
    return largest[0]

"""Prove a Table by running both models on weights and inputs that were not used to find it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import numpy as np

from convert.errors import UsageError
from convert.folding import fold as folded_names
from parity.derive.edits.edit import SIDES
from parity.derive.limits import (
    EQUAL_GRADIENTS,
    EQUAL_OUTPUTS,
    FAINT_GRADIENTS,
    NO_GRADIENTS,
    REPLAYED_FLOAT64,
    REPLAYED_OUTPUTS,
    REPLAYED_SHORT,
    REPLAYED_TABLES,
    ROUNDED_GRADIENTS,
)
from parity.derive.trace.caches import trim
from parity.derive.trace.call import Call
from parity.derive.trace.cotangents import SPREAD, NoGradients, Take
from parity.derive.trace.draws import drawn
from parity.derive.trace.frames import message
from parity.derive.trace.inputs import PLAIN, fresh, undrawn
from parity.derive.trace.outputs import Outputs, coarse, difference, incomparable, largest
from parity.derive.trace.precomputed import RoundedTable, aligned
from parity.derive.trace.program import replayed
from parity.derive.trace.reason import Reason
from parity.derive.trace.sides import Side
from parity.derive.trace.tape import SHORT, Array, Tape
from specs.words import in_a_row

from .gradients import Gradients
from .idle_elements import idle_elements
from .trial import Trial, effects

DRAWS = 2
WEIGHTS, INPUTS = 1000, 2000  # seeds of the first
FACTORS = (1.0, 0.5, 0.25)  # of kernels: smaller ones are drawn where a softmax at the end is saturated, say
UNLIKE = (
    "not those of the operations that were recorded in float64: code that reads numbers (.item(), a branch), stores "
    "values for other calls outside the module, or computes in 16 bits, computes others"
)
GRADED = Reason(
    "others while gradients are computed: code asks for that, as by torch.is_grad_enabled()",
    "let both models compute the same with and without gradients; then derive again",
)
RANDOM = "others each time: set dropout that is active in evaluation, or what else is random, to zero in both models"
UNCLEAR = "those of {} are NaN or infinite in both models"
ALONE = "those of {} are NaN or infinite in one model alone"
SATURATED = "values that no parameter has an effect on, with random weights: a softmax at the end may be left out"


@dataclass(frozen=True, kw_only=True, repr=False)
class Proof:
    """What running both models showed.

    Args:
      error: relative error of the outputs as the models compute them; NaN where it says nothing, since the outputs
        depend on parameters that are missing. exact: the same in float64, with casts to lower precision made void.
      gradient: relative error of the gradients; None where they were not compared. limit: what their rounding explains.
      other_gradients: left parameters whose gradients differ by more than that.
      unobservable: left parameters on which no output depends: no proof covers their places. untold: those with zero
        gradients of which the time did not suffice to tell whether an output depends on them. idle_parts: right
        parameters on which no output depends, as the bias of a key -> the larger left one of which each is a part.
      idle_elements: right parameters of which some elements change no output.
      remark: why gradients were not compared, or which ones are not finite; "" where neither is so.
      tables: those that one side computes in lower precision.
      incomparable: why outputs cannot be compared, or say nothing; "" if they can.
      kept: inputs that kept their given values, each with the reason.
      rounding: the sides that compute partly in lower precision, where their outputs differ by that alone.
      own_rounding: how far outputs of a side as it computes them are from those in float64, where that is known.
    """

    error: float = 0.0
    exact: float = 0.0
    gradient: float | None = 0.0
    limit: float = EQUAL_GRADIENTS
    other_gradients: Sequence[str] = ()
    unobservable: Sequence[str] = ()
    untold: Sequence[str] = ()
    idle_parts: Mapping[str, str] = field(default_factory=dict)
    idle_elements: Sequence[str] = ()
    remark: str = ""
    tables: Sequence[RoundedTable] = ()
    incomparable: str = ""
    kept: Sequence[str] = ()
    rounding: Sequence[str] = ()
    own_rounding: float = 0.0

    @property
    def holds(self) -> bool:
        known = self.exact <= EQUAL_OUTPUTS and not self.incomparable
        return known and (self.gradient is None or self.gradient <= self.limit)

    def merged(self, other: Proof) -> Proof:
        """Return the proof by this draw of weights and inputs and by another: the larger errors, the first reason."""
        both = self.gradient, other.gradient
        return replace(
            self,
            error=max(self.error, other.error),
            exact=max(self.exact, other.exact),
            gradient=None if both[0] is None or both[1] is None else max(both[0], both[1]),
            limit=max(self.limit, other.limit),
            other_gradients=list(dict.fromkeys([*self.other_gradients, *other.other_gradients])),
            remark=self.remark or other.remark,
            tables=self.tables or other.tables,
            incomparable=self.incomparable or other.incomparable,
            kept=list(dict.fromkeys([*self.kept, *other.kept])),
            rounding=self.rounding or other.rounding,
            own_rounding=max(self.own_rounding, other.own_rounding),
        )


def prove(trial: Trial, whole: bool = True, inferred: Sequence[str] = ()) -> Proof:
    """Run both sides on two draws of weights and inputs, the right ones translated by the table.

    Args:
      whole: whether gradients are compared, if outputs agree. inferred: right parameters that nothing reads whole.
    """
    (left, right), (lefts, _), proof = trial.sides, trial.elements, Proof()
    seen, used, unclear = dict.fromkeys(lefts.names, False), set[str](), dict[str, None]()
    idle: list[dict[str, str]] = []
    zeros: list[Mapping[str, Array]] = []
    factors: Sequence[float] = FACTORS
    for k in range(DRAWS):
        for factor in factors:
            grads, run, faint = _draw(trial, bool(whole and lefts.names and not proof.remark), k, factor)
            if not faint:
                break
        factors = [smaller for smaller in factors if smaller <= factor]  # the next draw needs no larger one
        proof = proof.merged(run)
        if proof.exact > EQUAL_OUTPUTS:  # nothing is proven: another draw would tell nothing
            break
        if grads is None or run.gradient is None:
            continue
        used = grads.used
        idle.append(grads.idle_parts)
        zeros.append(grads.zeros)
        for name in lefts.names:
            seen[name] |= grads.shows(name)
        unclear.update(dict.fromkeys(grads.unclear))
        if grads.alone:
            proof = replace(proof, remark=ALONE.format(in_a_row(folded_names(grads.alone))))
            break
    else:
        if unclear:
            remark = proof.remark or UNCLEAR.format(in_a_row(folded_names(list(unclear))))
            proof = replace(proof, remark=remark, gradient=None)
    known = proof.gradient is not None
    without, untold = effects(left, [name for name in lefts.names if not seen[name] and name in used and known])
    idle_parts = _idle_in_all(right, idle) if known else {}
    rest = {name: np.logical_and.reduce([draw[name] for draw in zeros]) for name in _in_all(zeros) if known}
    elements = idle_elements(trial, rest, [*inferred, *idle_parts])
    left.release()
    right.release()
    return replace(proof, unobservable=without, untold=untold, idle_parts=idle_parts, idle_elements=elements)


def _in_all(draws: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return the names that each draw has."""
    return [name for name in draws[0] if all(name in draw for draw in draws)] if draws else []


def _idle_in_all(right: Side, draws: Sequence[Mapping[str, str]]) -> dict[str, str]:
    """Map each right parameter that changes no output in any draw to the left parameter that contains it."""
    return {name: draws[0][name] for name in effects(right, _in_all(draws)).without}


class Draw(NamedTuple):
    """Both models with one draw of weights.

    Args:
      grads: None if gradients are not compared. proof: by this draw alone.
      faint: whether gradients are so small that rounding may explain how they differ.
    """

    grads: Gradients | None
    proof: Proof
    faint: bool


def _draw(trial: Trial, compared: bool, k: int, factor: float) -> Draw:
    """Run both sides on new inputs, but on the given tokens if a model refuses others, as those without an end.

    Args:
      compared: whether gradients are.
    """

    def run(tokens: bool, refusal: str = "") -> Draw:
        grads = Gradients(trial.maps, *trial.elements) if compared else None
        inputs = fresh(*trial.given, INPUTS + k, tokens)
        draw = _drawn(trial, grads, inputs, k, factor)
        calls = [side.call for side in trial.sides]
        return draw._replace(proof=replace(draw.proof, kept=_kept(calls, inputs, refusal)))

    try:
        return run(True)
    except UsageError as refusal:
        return run(False, refusal.message)


def _kept(calls: Sequence[Call], drawn: Sequence[Mapping[str, Array]], refusal: str) -> list[str]:
    """Name the inputs that were not drawn anew, and say why.

    Args:
      calls, drawn: the given inputs of both sides, and those of the proof. refusal: why a model refuses other tokens;
        "" if none does.
    """
    sides = zip(("left", "right"), calls, drawn, strict=True)
    otherwise = (
        f"other tokens are refused: {refusal}" if refusal else "no order of axes makes one side's of the other's"
    )
    places: dict[str, dict[str, list[str]]] = {}
    for side, call, new in sides:
        for name, why in {**undrawn(call.arrays(), new), **dict.fromkeys(call.numbers(), PLAIN)}.items():
            places.setdefault(why or otherwise, {}).setdefault(name, []).append(f"the {side}")
    said = []
    for why, names in places.items():
        each = ", ".join(f"{name} on {' and '.join(where)}" for name, where in names.items())
        said.append(f"the given values of {each}, as {why}")
    return said


def _drawn(
    trial: Trial, grads: Gradients | None, inputs: tuple[Mapping[str, Array], Mapping[str, Array]], k: int,
    factor: float,
) -> Draw:  # fmt: skip
    """Run both sides on new weights, the right ones translated by the table, one after the other.

    Args:
      inputs: of both. k, factor: of the draw.
    """
    (left, right), tapes = trial.sides, trial.tapes
    weights, translated = trial.weights(drawn(left, WEIGHTS + k, factor))
    b, remark = _outputs(right, translated, inputs[1], grads.keep if grads else None)
    a, other = _outputs(left, weights, inputs[0], grads.compare if grads and not remark else None)
    remark = remark or other
    error = difference(a.written, b.written)
    sides = Ran(left, weights, inputs[0], a), Ran(right, translated, inputs[1], b)
    exact, float64, tables, unlike = _in_float64(sides, tapes)
    low = any(difference(own.exact, wide) > EQUAL_OUTPUTS for own, wide in zip((a, b), float64, strict=True))
    low |= any(tape.low_gradients for tape in tapes)
    limit = ROUNDED_GRADIENTS if low else EQUAL_GRADIENTS
    reason = (incomparable(a.exact, b.exact) or unlike if exact > EQUAL_OUTPUTS else "") or coarse(a.exact)
    if grads is not None and not remark and exact <= EQUAL_OUTPUTS and (noise := grads.noise):
        grads.leave_out(effects(left, noise).without)
    gradient = grads.error if grads is not None and not remark and exact <= EQUAL_OUTPUTS else None
    told = grads is not None and gradient is not None and not (grads.alone or grads.unclear)
    seen = grads.largest if grads is not None and told else math.inf
    void, faint = (seen <= part * SPREAD * largest(a.exact) for part in (NO_GRADIENTS, FAINT_GRADIENTS))
    rounded = [difference(own.written, wide) if exact <= EQUAL_OUTPUTS else 0.0
               for own, wide in zip((a, b), float64, strict=True)]  # fmt: skip
    rounding = [side for side, gap in zip(SIDES, rounded, strict=True) if error > EQUAL_OUTPUTS and gap > EQUAL_OUTPUTS]
    reason = reason or (SATURATED if void else "")
    others = grads.beyond(limit) if grads is not None and gradient is not None else []
    proof = Proof(error=error, exact=exact, gradient=gradient, limit=limit, other_gradients=others, remark=remark,
                  tables=tables, incomparable=reason, rounding=rounding,
                  own_rounding=max(rounded))  # fmt: skip
    return Draw(grads, proof, faint)


class Ran(NamedTuple):
    """A side that was run."""

    side: Side
    weights: Mapping[str, Array]
    inputs: Mapping[str, Array]
    outputs: Outputs

    def replayed(self, tape: Tape) -> list[Array]:
        """Return the outputs of a tape with the same weights and inputs."""
        return replayed(tape, self.weights, list(self.inputs.values()))

    def repeats(self, runs: int = 1) -> bool:
        """Tell whether the model gives the same outputs again; two runs are compared with each other."""
        known = [self.outputs.written, *(self.side.run(self.weights, self.inputs) for _ in range(runs))]
        return difference(*known[-2:]) <= EQUAL_OUTPUTS


class InFloat64(NamedTuple):
    """How far outputs differ without casts to lower precision.

    Args:
      exact: the difference. outputs: of both sides. tables: that the sides compute with different precision.
      unlike: why this does not show; "" if it does.
    """

    exact: float
    outputs: Sequence[Sequence[Array]]
    tables: Sequence[RoundedTable] = ()
    unlike: str = ""


def _in_float64(sides: tuple[Ran, Ran], tapes: tuple[Tape, Tape]) -> InFloat64:
    """Compare the outputs of both sides, and those of their tapes where these alone run without casts."""
    (a, b), own = (ran.outputs for ran in sides), [ran.outputs.exact for ran in sides]
    exact = difference(*own)
    low = any(tape.lowers and of.exact is of.written for of, tape in zip((a, b), tapes, strict=True))
    if max(difference(a.written, b.written), exact) <= EQUAL_OUTPUTS and not low:
        return InFloat64(exact, own)
    *same, tables = aligned(*tapes, *(list(ran.inputs.values()) for ran in sides))
    if exact <= EQUAL_OUTPUTS and not low:
        return InFloat64(exact, own, tables)
    replayed = [ran.replayed(tape) for ran, tape in zip(sides, same, strict=True)]
    wide, gaps = difference(*replayed), [difference(*one) for one in zip(own, replayed, strict=True)]
    near = [_replayed(ran.side, tape, bool(tables)) for ran, tape in zip(sides, tapes, strict=True)]
    if exact <= EQUAL_OUTPUTS and not (wide <= EQUAL_OUTPUTS and _within(gaps, near)):
        return InFloat64(exact, own, tables)
    short = [max(most, REPLAYED_SHORT * bool(SHORT & tape.lowers)) for most, tape in zip(near, tapes, strict=True)]
    if _within(gaps, near) or (wide > EQUAL_OUTPUTS and _within(gaps, short)):
        return InFloat64(wide, replayed, tables)
    why = UNLIKE if all(ran.repeats() for ran in sides) else GRADED if all(ran.repeats(2) for ran in sides) else RANDOM
    return InFloat64(exact, own, tables, why)


def _within(gaps: Sequence[float], limits: Sequence[float]) -> bool:
    return all(gap <= limit for gap, limit in zip(gaps, limits, strict=True))


def _replayed(side: Side, tape: Tape, tables: bool) -> float:
    """Return the difference of a model's outputs from those of its tape that its lower precision explains.

    Args:
      tables: whether a side reads tables of lower precision.
    """
    if tables:
        return REPLAYED_TABLES
    in_float32 = side.framework == "paddle" and not tape.reads_numbers  # its kernels take numbers as float32
    return REPLAYED_OUTPUTS if tape.lowers or in_float32 else REPLAYED_FLOAT64


def reads_numbers(trial: Trial) -> bool:
    """Tell whether a model computes other outputs than its tape with new weights.

    Its code reads numbers then, by `.item()` or to choose a branch: the tape has those of the weights that it was
    recorded with, so that values of uses say nothing about the models.
    """
    for side, weights, tape in zip(trial.sides, trial.weights(WEIGHTS), trial.tapes, strict=True):
        inputs = side.call.arrays()
        outputs = side.run(weights, inputs)
        side.release()
        if difference(outputs, Ran(side, weights, inputs, Outputs(outputs, outputs)).replayed(tape)) > REPLAYED_OUTPUTS:
            return True
    return False


def _outputs(
    side: Side, weights: Mapping[str, Array], inputs: Mapping[str, Array], take: Take | None
) -> tuple[Outputs, str]:
    """Return (outputs, why there are no gradients); `take` gets these.

    Raises: UsageError if the model cannot be run, though its tape was recorded.
    """
    remark = ""
    try:
        if take is not None:
            return side.gradients(weights, inputs, take), ""
    except NoGradients as problem:
        remark = str(problem)
    finally:
        side.release()
        trim()
    try:
        outputs = side.run(weights, inputs)
        return Outputs(outputs, outputs), remark
    except Exception as problem:
        error = message(problem).rstrip(".")
        why = "does its code read a module that is none of its own, as a function that was set as forward does?"
        raise UsageError(
            f"the {side.framework} model cannot be run with new weights in float64: {error}: {why}"
        ) from problem
    finally:
        side.release()

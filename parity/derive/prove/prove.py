"""Prove a Table by running both models on weights and inputs that were not used to find it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import NamedTuple

from convert.errors import UsageError
from convert.folding import fold as folded_names
from specs.table import Table
from specs.words import in_a_row

from ..limits import (
    EQUAL_GRADIENTS,
    EQUAL_OUTPUTS,
    FAINT_GRADIENTS,
    LARGE_MODEL,
    NO_GRADIENTS,
    REPLAYED_FLOAT64,
    REPLAYED_OUTPUTS,
    REPLAYED_TABLES,
    ROUNDED_GRADIENTS,
)
from ..match.symbols import Elements
from ..trace.caches import trim
from ..trace.call import Call
from ..trace.cotangents import Take
from ..trace.draws import Drawn
from ..trace.frames import message
from ..trace.inputs import PLAIN, fresh, undrawn
from ..trace.outputs import Outputs, coarse, difference, incomparable, largest
from ..trace.precomputed import RoundedTable, aligned
from ..trace.program import Program
from ..trace.sides import Side
from ..trace.tape import Array, Tape
from .gradients import Gradients
from .observable import effects
from .translated import TranslatedWeights

DRAWS = 2
WEIGHTS, INPUTS = 1000, 2000  # seeds of the first
FACTORS = (1.0, 0.5, 0.25)  # of kernels: smaller ones are drawn where a softmax at the end is saturated, say
UNLIKE = (
    "not those of the operations that were recorded in float64: code that reads numbers (.item(), a branch), or "
    "computes in 16 bits, computes others"
)
RANDOM = "others each time: set dropout that is active in evaluation, or what else is random, to zero in both models"
UNCLEAR = "those of {} are NaN or infinite in both models"
ALONE = "those of {} are NaN or infinite in one model alone"
SATURATED = "values that no parameter has an effect on, with random weights: a softmax at the end may be left out"


class Proof(NamedTuple):
    """The errors of running both models.

    Args:
      error: relative error of the outputs as the models compute them; exact: with casts to lower precision made void.
      gradient: relative error of the gradients; None where one side has none. limit: what rounding of them explains.
      unobservable: left parameters on which no output depends. untold: see Effects. idle_parts: right parameters on
        which none depends, as the bias of a key -> the larger left one of which each is a part.
      remark: why there are no gradients.
      rounded: tables that one side computes in lower precision.
      incomparable: why outputs cannot be compared, or say nothing; "" if they can.
      kept: inputs that kept their given values, each with the reason.
      lower: the sides that compute partly in lower precision, where their outputs differ by that alone.
    """

    error: float
    exact: float
    gradient: float | None
    unobservable: list[str]
    remark: str = ""
    rounded: Sequence[RoundedTable] = ()
    incomparable: str = ""
    limit: float = EQUAL_GRADIENTS
    kept: Sequence[str] = ()
    lower: Sequence[str] = ()
    untold: Sequence[str] = ()
    idle_parts: Mapping[str, str] = MappingProxyType({})

    @property
    def holds(self) -> bool:
        known = self.exact <= EQUAL_OUTPUTS and not self.incomparable
        return known and (self.gradient is None or self.gradient <= self.limit)


def prove(
    left: Side, right: Side, tapes: tuple[Tape, Tape], table: Table, found: Array, lefts: Elements, rights: Elements,
    plus: Array | None = None, whole: bool = True,
) -> Proof:  # fmt: skip
    """Run both sides on two draws of weights and inputs, the right ones translated by the table.

    Args:
      found, plus: the left element of each right one, and a second one that is added to it; see Match.
      whole: whether gradients are compared, if outputs agree.
    """
    maps = (found,) if plus is None or not plus.any() else (found, plus)
    error = exact = 0.0
    gradient: float | None = 0.0
    limit = EQUAL_GRADIENTS
    remark = reason = ""
    rounded: Sequence[RoundedTable] = ()
    seen, used, kept = dict.fromkeys(lefts.names, False), set[str](), dict[str, None]()
    unclear = dict[str, None]()
    idle: list[dict[str, str]] = []
    lower: Sequence[str] = ()
    factors: Sequence[float] = FACTORS
    for k in range(DRAWS):
        for factor in factors:
            compared = (maps, lefts, rights) if whole and not remark else None
            grads, run = _draw(left, right, table, tapes, compared, k, factor)
            if not run.faint:
                break
        factors = [one for one in factors if one <= factor]  # the next draw needs no larger one
        error, exact, rounded = max(error, run.error), max(exact, run.exact), rounded or run.rounded
        limit, lower = max(limit, run.limit), lower or run.lower
        kept.update(dict.fromkeys(run.kept))
        remark, reason = remark or run.remark, reason or run.incomparable
        if exact > EQUAL_OUTPUTS:  # nothing is proven: another draw would tell nothing
            gradient = None
            break
        if grads is None or run.remark:
            gradient = None
            continue
        used = grads.used
        idle.append(grads.idle_parts)
        for name in lefts.names:
            seen[name] |= grads.shows(name)
        unclear.update(dict.fromkeys(grads.unclear))
        if gradient is not None:
            gradient = max(gradient, grads.error)
        if grads.alone:
            remark = ALONE.format(in_a_row(folded_names(grads.alone)))
            break
    else:
        if unclear:
            remark, gradient = remark or UNCLEAR.format(in_a_row(folded_names(list(unclear)))), None
    unobservable = [name for name in lefts.names if not seen[name] and name in used and gradient is not None]
    unobservable, untold = effects(left, unobservable)
    parts = [name for name in idle[0] if all(name in one for one in idle)] if idle and gradient is not None else []
    idle_parts = {name: idle[0][name] for name in effects(right, parts).without}
    left.release()
    right.release()
    return Proof(
        error, exact, gradient, unobservable, remark, rounded, reason, limit, list(kept), lower, untold, idle_parts
    )


class Draw(NamedTuple):
    """Both models with one draw of weights: see Proof.

    Args:
      faint: whether gradients are so small that rounding may explain how they differ.
    """

    error: float
    exact: float
    rounded: Sequence[RoundedTable] = ()
    remark: str = ""
    incomparable: str = ""
    limit: float = EQUAL_GRADIENTS
    faint: bool = False
    lower: Sequence[str] = ()
    kept: Sequence[str] = ()


def _draw(
    left: Side, right: Side, table: Table, tapes: tuple[Tape, Tape],
    compared: tuple[Sequence[Array], Elements, Elements] | None, k: int, factor: float,
) -> tuple[Gradients | None, Draw]:  # fmt: skip
    """Run both sides on new inputs, but on the given tokens if a model refuses others, as those without an end.

    Args:
      compared: what Gradients takes; None if gradients are not compared.
    """

    given = left.call.arrays(), right.call.arrays()

    def run(tokens: bool, refusal: str = "") -> tuple[Gradients | None, Draw]:
        grads = Gradients(*compared) if compared else None
        inputs = fresh(*given, INPUTS + k, tokens)
        result = _drawn(left, right, table, tapes, grads, inputs, k, factor)
        return grads, result._replace(kept=_kept((left.call, right.call), inputs, refusal))

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
    left: Side, right: Side, table: Table, tapes: tuple[Tape, Tape], grads: Gradients | None,
    inputs: tuple[Mapping[str, Array], Mapping[str, Array]], k: int, factor: float,
) -> Draw:  # fmt: skip
    """Run both sides on new weights, the right ones translated by the table, one after the other.

    Args:
      inputs: of both. k, factor: of the draw.
    """
    weights: Mapping[str, Array] = Drawn(left, WEIGHTS + k, factor)
    if sum(array.size for array in left.parameters.values()) < LARGE_MODEL:
        weights = dict(weights)
    translated = TranslatedWeights(table, left, right, weights)
    b, remark = _outputs(right, translated, inputs[1], grads.keep if grads else None)
    a, other = _outputs(left, weights, inputs[0], grads.compare if grads and not remark else None)
    remark = remark or other
    error, exact = difference(a.written, b.written), difference(a.exact, b.exact)
    rounded: Sequence[RoundedTable] = ()
    unlike, float64 = "", [a.exact, b.exact]
    limit = EQUAL_GRADIENTS if exact <= EQUAL_OUTPUTS else ROUNDED_GRADIENTS
    if max(error, exact) > EQUAL_OUTPUTS:  # do casts to float32 explain it?
        *same, rounded = aligned(*tapes, *(list(i.values()) for i in inputs))
        if exact > EQUAL_OUTPUTS:
            sides = Ran(left, weights, inputs[0], a), Ran(right, translated, inputs[1], b)
            replayed = [ran.replayed(tape) for ran, tape in zip(sides, same, strict=True)]
            near = [_replayed(ran.side, tape, bool(rounded)) for ran, tape in zip(sides, tapes, strict=True)]
            apart = [difference(ran.outputs.written, own) for ran, own in zip(sides, replayed, strict=True)]
            if all(gap <= most for gap, most in zip(apart, near, strict=True)):
                exact, float64 = difference(*replayed), replayed
            else:
                unlike = UNLIKE if all(ran.repeats() for ran in sides) else RANDOM
    reason = (incomparable(a.exact, b.exact) or unlike if exact > EQUAL_OUTPUTS else "") or coarse(a.exact)
    told = grads is not None and not (remark or grads.alone or grads.unclear) and exact <= EQUAL_OUTPUTS
    seen = grads.largest if grads is not None and told else math.inf
    void, faint = (seen <= part * largest(a.exact) for part in (NO_GRADIENTS, FAINT_GRADIENTS))
    lower = [side for side, own, wide in zip(("left", "right"), (a, b), float64, strict=True)
             if exact <= EQUAL_OUTPUTS < error and difference(own.written, wide) > EQUAL_OUTPUTS]  # fmt: skip
    return Draw(error, exact, rounded, remark, reason or (SATURATED if void else ""), limit, faint, lower)


def _replayed(of: Side, tape: Tape, tables: bool) -> float:
    """Return the difference of a model's outputs from those of its tape that its lower precision explains.

    Args:
      tables: whether a side reads tables of lower precision.
    """
    if tables:
        return REPLAYED_TABLES
    rounds = tape.lowers or (of.framework == "paddle" and not tape.reads_numbers)  # its kernels take numbers as float32
    return REPLAYED_OUTPUTS if rounds else REPLAYED_FLOAT64


class Ran(NamedTuple):
    """A side that was run."""

    side: Side
    weights: Mapping[str, Array]
    inputs: Mapping[str, Array]
    outputs: Outputs

    def replayed(self, tape: Tape) -> list[Array]:
        """Return the outputs of a tape with the same weights and inputs."""
        return Program(tape, self.weights, list(self.inputs.values())).outputs

    def repeats(self) -> bool:
        """Tell whether the model gives the same outputs again."""
        return difference(self.side.run(self.weights, self.inputs), self.outputs.written) <= EQUAL_OUTPUTS


def reads_numbers(left: Side, right: Side, tapes: tuple[Tape, Tape], table: Table) -> bool:
    """Tell whether a model computes other outputs than its tape with new weights.

    Its code reads numbers then, by `.item()` or to choose a branch: the tape has those of the weights that it was
    recorded with, so that values of uses say nothing about the models.
    """
    drawn = Drawn(left, WEIGHTS)
    translated = TranslatedWeights(table, left, right, drawn)
    for of, weights, tape in zip((left, right), (drawn, translated), tapes, strict=True):
        inputs = of.call.arrays()
        outputs = of.run(weights, inputs)
        of.release()
        if difference(outputs, Ran(of, weights, inputs, Outputs(outputs, outputs)).replayed(tape)) > REPLAYED_OUTPUTS:
            return True
    return False


def _outputs(
    of: Side, weights: Mapping[str, Array], inputs: Mapping[str, Array], take: Take | None
) -> tuple[Outputs, str]:
    """Return (outputs, why there are no gradients); `take` gets these.

    Raises: UsageError if the model cannot be run, though its tape was recorded.
    """
    remark = ""
    try:
        if take is not None:
            return of.gradients(weights, inputs, take), ""
    except Exception as problem:  # an operation that has none in evaluation mode, as paddle's recurrent ones
        remark = message(problem)
    finally:
        of.release()
        trim()
    try:
        outputs = of.run(weights, inputs)
        return Outputs(outputs, outputs), remark
    except Exception as problem:
        error = message(problem).rstrip(".")
        why = "does its code read a module that is none of its own, as a function that was set as forward does?"
        raise UsageError(
            f"the {of.framework} model cannot be run with new weights in float64: {error}: {why}"
        ) from problem
    finally:
        of.release()

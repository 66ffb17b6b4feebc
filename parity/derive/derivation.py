"""Derive a proven Table from two models."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np

from convert.errors import UsageError
from specs.table import Table

from .attempt import Step
from .call import Call
from .causes import explain, run
from .complete import complete
from .fold import Facts, fold
from .freedom import freedom
from .hints import Hint, hint, weights_of
from .match import EXACT, Match, match
from .numbers import changes
from .prove import OUTPUT, Proof, prove, translate
from .rows import DerivedTable, Row, constant, dropped
from .sides import Side, draw, fresh, layouts, side
from .tape import Tape
from .walk import Elements, Program

SEED = 7
FIRST = 4  # seconds for a match, before the models are taken to differ
CORRECTING = 15  # seconds for finding numbers with which a match goes further
PARTED = 1e-6  # difference of values in the matching beyond which models are not proven equal
MAX_LAYOUTS = 8  # axis orders of the input that are tried


class Divergence(NamedTuple):
    """A place where the sides' values part.

    Args:
      left, right: paths of the modules.
      size: the relative difference of what is seen there.
    """

    left: str
    right: str
    size: float
    cause: str = ""


@dataclass(frozen=True)
class Derivation:
    """A Table and what supports it.

    Args:
      proven: outputs and gradients agree in float64 on weights and inputs that were not used to find the table.
      error: the relative error of the outputs there, as the models compute them.
      divergences: where the models part, the first one first.
      unobservable: left parameters on which no output depends: their place follows the pattern of their siblings.
      reasons: right parameters that the table does not fill, each with the reason; missing: their names.
      failure: why the matching stopped, "" if it did not.
      seconds: what it took.
      inferred: right parameters of which all or some elements follow a pattern or a name, since nothing reads them.
      freedom: what may be permuted without effect; the table keeps the order as it is written.
      uses: each use of a parameter on the right with its partner, in the order of execution.
    """

    table: DerivedTable
    proven: bool
    error: float
    divergences: list[Divergence]
    unobservable: list[str]
    reasons: dict[str, str]
    failure: str
    seconds: float
    inferred: list[str]
    freedom: list[str]
    uses: list[Step]

    @property
    def missing(self) -> list[str]:
        return list(self.reasons)

    def to_dict(self) -> dict[str, Any]:
        """The same as plain values, for JSON."""
        return {
            "table": self.table.print(),
            "proven": self.proven,
            "error": self.error if np.isfinite(self.error) else None,
            "divergences": [divergence._asdict() for divergence in self.divergences],
            "unobservable": self.unobservable,
            "inferred": self.inferred,
            "freedom": self.freedom,
            "missing": self.missing,
            "reasons": self.reasons,
            "failure": self.failure,
            "seconds": self.seconds,
            "uses": [
                {
                    "kind": use.kind,
                    "left": use.left.split(),
                    "right": use.right.split(),
                    "left_module": use.left_site,
                    "right_module": use.right_site,
                    "difference": use.gap,
                }
                for use in self.uses
            ],
        }


class _Best(NamedTuple):
    """The deepest match, the right side as it was called for it, its tape and inputs, and the hint."""

    found: Match
    side: Side
    tape: Tape
    inputs: list[Any]
    hint: Hint | None

    @property
    def depth(self) -> tuple[bool, int]:
        return not self.found.failure, len(self.found.steps)


def derive(
    left: Any,
    right: Any,
    inputs: Any,
    right_inputs: Any = None,
    seconds: float = 60,
    table: Table | None = None,
    left_weights: str | None = None,
) -> Derivation:
    """Find the translation of the left model's parameters into the right one's.

    Both models' own code is run, in evaluation mode.

    Args:
      left, right: torch module, paddle layer, nnx module, bound linen module, (linen module, variables), or (function,
        parameters) of JAX.
      inputs: a tuple of positional arguments, a single array, or a Call.
      right_inputs: the same for the right side; without it the left ones, in the axis order that fits.
      seconds: the time for matching; then the deepest attempt is returned.
      table: lines that are known: they are taken as given, completed, and proven with the rest.
      left_weights: a checkpoint of the left model, for models that random weights do not tell apart.
    Raises: UsageError for what is no model or cannot be called, and for lines that do not fit the models.
    """
    start = time.monotonic()
    a = side(left, call_of(inputs))
    weights = draw(a, SEED) if left_weights is None else weights_of(left_weights, a)
    given = a.call.arrays()
    tape = _recorded(a, weights, given, "left")
    lefts = Elements(weights, known=True)
    program = Program(tape, weights, list(given.values()))
    best: _Best | None = None
    problems = []
    for call in _calls(a.call, right_inputs):
        b = side(right, call)
        others = fresh(given, call.arrays(), None)[1]
        try:
            other = _recorded(b, b.parameters, others, "right")
        except UsageError as error:
            problems.append(f"with inputs {[tuple(v.shape) for v in others.values()]}: {error}")
            continue
        hinted = None if table is None else hint(table, a, b, lefts, Elements(b.parameters, known=False))
        target = Program(other, b.parameters, list(others.values()))
        left_over = seconds - (time.monotonic() - start)
        found = match(program, target, lefts, b.parameters, min(FIRST, left_over), hinted and hinted.map)
        attempt = _Best(found, b, other, list(others.values()), hinted)
        if best is None or attempt.depth > best.depth:
            best = attempt
        if not found.failure:
            break
    if best is None:
        raise UsageError("the right model cannot be run", problems)
    if best.found.failure:
        best = _corrected(best, (program, lefts), seconds - (time.monotonic() - start))
    if best.found.failure:
        target = Program(best.tape, best.side.parameters, best.inputs)
        left_over = seconds - (time.monotonic() - start)
        found = match(program, target, lefts, best.side.parameters, left_over, best.hint and best.hint.map)
        best = max(best, best._replace(found=found), key=lambda attempt: attempt.depth)
    return _concluded(a, best, (program, weights, lefts), start)


def _corrected(best: _Best, left: tuple[Program, Elements], seconds: float) -> _Best:
    """Match tapes that read other numbers, if the match goes further so: models that differ in a scale, say.

    The proof and the list of differences are of the models as they are.
    """
    program, lefts = left
    stop = time.monotonic() + min(seconds, CORRECTING)
    tapes = program.tape, best.tape
    inputs = [list(program.inputs.values()), best.inputs]
    while best.found.failure:
        for change in changes(*tapes):
            if time.monotonic() > stop:
                return best
            new = change.tapes(*tapes)
            try:
                own = Program(new[0], {n: lefts.values[lefts.numbers(n).astype(int)] for n in lefts.names}, inputs[0])
                target = Program(new[1], best.side.parameters, inputs[1])
                found = match(own, target, lefts, best.side.parameters, 2, best.hint and best.hint.map)
            except Exception:  # an operation that refuses the number
                continue
            if not found.failure or len(found.steps) > len(best.found.steps) + 1:
                best, tapes = best._replace(found=found), new
                break
        else:
            return best
    return best


def _recorded(of: Side, parameters: Any, inputs: Any, which: str) -> Tape:
    try:
        return of.record(parameters, inputs)
    except UsageError:
        raise
    except Exception as error:  # the user's code may raise anything
        raise UsageError(f"the {which} model cannot be run: {type(error).__name__}: {error}") from error


def _concluded(a: Side, best: _Best, known: tuple[Program, dict[str, Any], Elements], start: float) -> Derivation:
    """Write the Table of a match, prove it, and explain what differs."""
    found, b = best.found, best.side
    program, weights, lefts = known
    rights = Elements(b.parameters, known=False)
    mapped, inferred = complete(found.map, lefts, rights)
    frameworks = (a.framework, b.framework)
    blank = _blank(a, best, mapped, rights, lefts)
    facts = Facts(lefts, rights, mapped, found.plus, frameworks, (a.ties, b.ties), _shapes(a, b), _extra(a, b), blank)
    table, reasons = fold(facts, best.hint)
    proof = prove(a, b, (program.tape, best.tape), table, mapped, lefts, rights, found.plus)
    parted = any(step.gap > PARTED for step in found.steps)
    proven = proof.holds and not reasons and not found.failure and not parted
    divergences = _divergences(found, proof)
    free: list[str] = []
    if proven:
        free = freedom(a, program, weights, a.call.arrays())
    elif not reasons:
        divergences = _explained(a, best, (program, table, mapped), divergences)
    inferred = [*inferred, *blank]
    table = _commented(table, proof, proven, inferred, free)
    return Derivation(
        table, proven, proof.error, divergences, proof.unobservable, reasons, found.failure,
        time.monotonic() - start, inferred, free, found.steps,
    )  # fmt: skip


def _blank(a: Side, best: _Best, mapped: Any, rights: Elements, lefts: Elements) -> dict[str, float]:
    """Return right parameters that no output reads and that store one value, if no left one of their size is free."""
    read = {number for node in best.tape.live().nodes for number in node.inputs} | set(best.tape.outputs)
    used = set(lefts.owners(mapped))
    free = {array.size for name, array in a.parameters.items() if name not in used}
    blank = {}
    for name, array in best.side.parameters.items():
        unread = best.tape.parameters[name] not in read and not mapped[rights.numbers(name).astype(int)].any()
        if unread and array.size and array.size not in free and (array == array.flat[0]).all():
            blank[name] = float(array.flat[0])
    return blank


def _explained(
    a: Side, best: _Best, of: tuple[Program, DerivedTable, Any], known: list[Divergence]
) -> list[Divergence]:
    """Return the places where models with the same weights part, with causes; without any, those of the matching."""
    program, table, mapped = of
    b, weights = best.side, draw(a, SEED)
    inputs = fresh(a.call.arrays(), b.call.arrays(), None)
    sides = (
        run(program.tape, weights, list(inputs[0].values()), 0),
        run(best.tape, translate(table, a, b, weights), list(inputs[1].values()), 1),
    )
    places = [Divergence(*place) for place in explain(*sides, mapped)]
    seen = {place.right for place in places}
    return [*places, *(place for place in known if (place.right or "the top") not in {*seen, "output"})] or known


def _commented(table: DerivedTable, proof: Proof, proven: bool, inferred: list[str], free: list[str]) -> DerivedTable:
    """The table with what supports it above its first line."""
    if not table.lines:
        return table
    if proven:
        gradients = (
            f", no gradients ({proof.remark})" if proof.gradient is None else f", gradients to {proof.gradient:.0e}"
        )
        words = f"# derived and proven: outputs agree to {proof.exact:.0e}{gradients}, in float64 on two other draws"
    else:
        words = f"# derived, not proven: outputs differ by {proof.error:.0e}"
    comments = [words]
    if table.sizes:
        sizes = " ".join(f"{name}={length}" for name, length in table.sizes.items())
        comments.append(f"# lengths in the models that it was derived from: {sizes}")
    comments += [f"# inferred, since no value shows all of it: {name}" for name in inferred]
    comments += [f"# free: {text}" for text in free]
    return replace(table, lines=(replace(table.lines[0], above=tuple(comments)), *table.lines[1:]))


def call_of(inputs: Any) -> Call:
    """Return a Call of a tuple of arguments, or of one."""
    if isinstance(inputs, Call):
        return inputs
    return Call(*inputs) if isinstance(inputs, tuple) else Call(inputs)


def _calls(call: Call, right_inputs: Any) -> Iterator[Call]:
    """How the right side may be called."""
    if right_inputs is not None:
        yield call_of(right_inputs)
    elif len(call.args) == 1 and not call.kwargs and hasattr(call.args[0], "shape"):
        for array in list(layouts(np.asarray(call.args[0])))[:MAX_LAYOUTS]:
            yield Call(array, method=call.method, output=call.output)
    else:
        yield call


def _extra(a: Side, b: Side) -> list[Row]:
    """Lines for arrays that are no parameters."""
    rows = [dropped(name, 0) for name in a.others]
    for name, array in b.others.items():
        value = f"{array.flat[0]} {array.dtype}" if _uniform(array) else ""
        rows.append(constant(name, array.ndim, value) if value else dropped(name, 1))
    return rows


def _uniform(array: Any) -> bool:
    return bool(array.dtype.kind in "iu" and array.size and (array == array.flat[0]).all())


def _shapes(a: Side, b: Side) -> tuple[dict[str, Any], dict[str, Any]]:
    return (
        {name: np.shape(array) for name, array in a.others.items()},
        {name: np.shape(array) for name, array in b.others.items() if _uniform(array)},
    )


def _divergences(found: Match, proof: Proof) -> list[Divergence]:
    """Each place where values part by ten times more than before it."""
    divergences: list[Divergence] = []
    worst = EXACT
    for step in found.steps:
        if step.gap > 10 * worst:
            worst = step.gap
            divergences.append(Divergence(step.left_site, step.right_site, step.gap))
    if proof.exact <= OUTPUT < proof.error:
        divergences.append(Divergence("", "", proof.error, "one side computes partly in float32"))
    elif proof.exact > OUTPUT and not divergences:
        divergences.append(Divergence("output", "output", proof.exact))
    return divergences

"""Derive a proven Table from two models."""

from __future__ import annotations

import time
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np

from convert.by_table import UNFINISHED
from convert.errors import UsageError
from specs.paths import escaped
from specs.table import Table

from ..summary import count
from .fold.fold import Facts, fold
from .fold.lone import lone
from .fold.rows import DerivedTable, Row, constant, dropped, missing_lines, same
from .match.complete import complete, split
from .match.hints import Hint, hint, weights_of
from .match.match import EXACT, LIMIT, Match, Say, match, silent
from .match.regroup import Step
from .match.symbols import Elements, Filled
from .prove.causes import CAUSES, explain, run
from .prove.freedom import freedom
from .prove.prove import OUTPUT, Proof, prove, translate
from .trace.call import Call
from .trace.crops import cropped
from .trace.islands import aligned, fixed
from .trace.numbers import changes
from .trace.places import OWN, place
from .trace.program import Program
from .trace.sides import Side, check_inputs, draw, fresh, layouts, side
from .trace.tape import Tape

SEED = 7
FIRST = 4  # seconds for a match, before the models are taken to differ
CORRECTING = 15  # seconds for finding numbers with which a match goes further
PARTED = 1e-6  # difference of values in the matching beyond which models are not proven equal
MAX_ISLANDS = 4  # tables of lower precision that are listed
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
      seconds: the CPU time that it took, in all threads.
      inferred: right parameters of which all or some elements follow a pattern or a name, since nothing reads them.
      freedom: what may be permuted without effect; the table keeps the order as it is written.
      uses: each use of a parameter on the right with its partner, in the order of execution.
      fixed: blocks that stand alone in their list, if it is one: lines are fixed to their number.
      incomparable: why the outputs cannot be compared; "" if they can.
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
    fixed: list[str]
    incomparable: str = ""

    @property
    def outputs(self) -> str:
        """Say how far the outputs are apart."""
        if not np.isfinite(self.error):
            return f"outputs cannot be compared{f': {self.incomparable}' if self.incomparable else ''}"
        return f"outputs differ by {self.error:.1e}, relative to the largest"

    @property
    def missing(self) -> list[str]:
        return list(self.reasons)

    def to_dict(self) -> dict[str, Any]:
        """Return the same as plain values, for JSON."""
        return {
            "table": self.table.print(),
            "proven": self.proven,
            "error": self.error if np.isfinite(self.error) else None,
            "divergences": [divergence._asdict() for divergence in self.divergences],
            "unobservable": self.unobservable,
            "inferred": self.inferred,
            "freedom": self.freedom,
            "fixed": self.fixed,
            "missing": self.missing,
            "reasons": self.reasons,
            "failure": self.failure,
            "incomparable": self.incomparable,
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
    """The deepest match, the right side as it was called for it, its tape and inputs, and the hint.

    Args:
      exact: the tape as it is matched: with the left tables in place of rounded ones, and convolutions cropped.
      programs: those of both sides that were matched; with other numbers where these match deeper.
    """

    found: Match
    side: Side
    tape: Tape
    exact: Tape
    inputs: list[Any]
    hint: Hint | None
    programs: tuple[Program, Program]

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
    say: Say = silent,
) -> Derivation:
    """Find the translation of the left model's parameters into the right one's.

    Both models' own code is run, in evaluation mode.

    Args:
      left, right: torch module, paddle layer, nnx module, bound linen module, (linen module, variables), or (function,
        parameters) of JAX.
      inputs: a tuple of positional arguments, a single array, or a Call.
      right_inputs: the same for the right side; without it the left ones, in the axis order that fits.
      seconds: the CPU time for matching; then the deepest attempt is returned.
      table: lines that are known: they are taken as given, completed, and proven with the rest.
      left_weights: a checkpoint of the left model, for models that random weights do not tell apart.
      say: is called with what is done at present.
    Raises: UsageError for what is no model or cannot be called, for inputs that differ, and for lines that do not fit
      the models.
    """
    start, began = time.thread_time(), time.process_time()
    say("recording left")
    a = side(left, call_of(inputs))
    given = a.call.arrays()
    if right_inputs is not None:
        check_inputs(given, call_of(right_inputs).arrays())
    known = _read(a, left_weights)
    best: _Best | None = None
    problems = []
    for call in _calls(a.call, right_inputs):
        say("recording right")
        b = side(right, call)
        others = fresh(given, call.arrays(), None)[1]
        try:
            other = _recorded(b, b.parameters, others, "right")
        except UsageError as error:
            problems.append(f"with inputs {[tuple(v.shape) for v in others.values()]}: {error}")
            continue
        if _fix(a, other):
            known = _read(a, left_weights)
        program, lefts = known
        if _fix(b, program.tape):
            other = _recorded(b, b.parameters, others, "right")
        hinted = None if table is None else hint(table, a, b, lefts, Elements(b.parameters, known=False))
        exact = aligned(program.tape, other, list(given.values()), list(others.values()))[0]
        target = _program(exact, b.parameters, list(others.values()))
        left_over = seconds - (time.thread_time() - start)
        found = match(program, target, lefts, b.parameters, min(FIRST, left_over), hinted and hinted.map, say)
        attempt = _Best(found, b, other, target.tape, list(others.values()), hinted, (program, target))
        if best is None or attempt.depth > best.depth:
            best = attempt
        if not found.failure:
            break
    if best is None:
        raise UsageError("the right model cannot be run", problems)
    program, lefts = known
    plain = best.programs
    if best.found.failure:
        say("trying other numbers")
        best = _corrected(best, (program, lefts), seconds - (time.thread_time() - start))
    for programs in (best.programs, plain) if best.programs != plain else (plain,):
        left_over = seconds - (time.thread_time() - start)
        if not best.found.failure or (left_over <= 0 and (best.found.gap > LIMIT or programs is not best.programs)):
            break
        found = match(*programs, lefts, best.side.parameters, left_over, best.hint and best.hint.map, say, True)
        best = max(best, best._replace(found=found), key=lambda attempt: attempt.depth)
    say("proving")
    return _concluded(a, best, known, left_weights, began)


def _corrected(best: _Best, left: tuple[Program, Filled], seconds: float) -> _Best:
    """Match tapes that read other numbers, if the match goes further so: models that differ in a scale, say.

    The proof and the list of differences are of the models as they are.
    """
    program, lefts = left
    stop = time.thread_time() + min(seconds, CORRECTING)
    tapes = program.tape, best.exact
    inputs = [list(program.inputs.values()), best.inputs]
    while best.found.failure:
        for change in changes(*tapes):
            if time.thread_time() > stop:
                return best
            new = change.tapes(*tapes)
            try:
                own = Program(new[0], lefts.arrays, inputs[0])
                target = Program(new[1], best.side.parameters, inputs[1])
                found = match(own, target, lefts, best.side.parameters, 2, best.hint and best.hint.map)
            except Exception:  # an operation that refuses the number
                continue
            if not found.failure or len(found.steps) > len(best.found.steps) + 1:
                best, tapes = best._replace(found=found, programs=(own, target)), new
                break
        else:
            return best
    return best


def _read(a: Side, left_weights: str | None) -> tuple[Program, Filled]:
    """Return the left side's tape run on weights, and the elements that have these."""
    elements = Filled(a.parameters)
    _fill(a, elements, left_weights)
    given = a.call.arrays()
    tape = _recorded(a, elements.arrays, given, "left")
    return _program(tape, elements.arrays, list(given.values())), elements


def _fill(a: Side, elements: Filled, left_weights: str | None) -> None:
    """Give the left side's elements the values with which it is matched."""
    if left_weights is None:
        draw(a, SEED, elements.arrays)
        return
    for name, array in weights_of(left_weights, a).items():
        elements.arrays[name][...] = array


def _program(tape: Tape, parameters: Any, inputs: list[Any]) -> Program:
    """Run a tape, with convolutions computing only what is read of them."""
    program = Program(tape, parameters, inputs)
    less = cropped(program)
    return program if less is program.tape else Program(less, parameters, inputs)


def _fix(of: Side, other: Tape) -> bool:
    """Set aside parameters that hold what the other side computes: they keep their values. Tell whether there are."""
    names = fixed(of.parameters, other)
    of.fix(names)
    return bool(names)


def _recorded(of: Side, parameters: Any, inputs: Any, which: str) -> Tape:
    try:
        return of.record(parameters, inputs)
    except UsageError:
        raise
    except Exception as error:  # the user's code may raise anything
        raise UsageError(f"the {which} model cannot be run: {type(error).__name__}: {error}") from error


def _concluded(
    a: Side, best: _Best, known: tuple[Program, Filled], left_weights: str | None, began: float
) -> Derivation:
    """Write the Table of a match, prove it, and explain what differs."""
    found, b = best.found, best.side
    program, lefts = known
    rights = Elements(b.parameters, known=False)
    mapped, inferred = complete(found.map, lefts, rights, not found.failure)
    frameworks = (a.framework, b.framework)
    blank, dead = ({}, []) if found.failure else _unread(a, best, mapped, rights, lefts)
    partners = _buffers(a, b, mapped, lefts, rights)
    extra = [*_extra(a, b, partners), *(dropped(name, 1) for name in dead)]
    made = {name for name in b.others if any(dict(row.right).get(escaped(name)) is not None for row in extra)}
    facts = Facts(lefts, rights, mapped, found.plus, frameworks, (a.ties, b.ties), _shapes(a, b, made), extra, blank)
    table, reasons = fold(facts, best.hint)
    unread = {name: a.others[name] for name in partners.values()}, {name: b.others[name] for name in partners}
    table = replace(table, unread=unread)
    reasons = {name: why for name, why in reasons.items() if name not in dead}
    proof = prove(a, b, (program.tape, best.tape), table, mapped, lefts, rights, found.plus)
    if reasons:
        table = _without_drops(table, best.hint)
    # what a term of a sum was added to depends on the order of the terms, which frameworks choose
    parted = any(step.gap > PARTED and step.kind != "add" for step in found.steps)
    proven = proof.holds and not reasons and not found.failure and not parted
    divergences = _divergences(found, proof)
    free: list[str] = []
    if proven:
        _fill(a, lefts, left_weights)
        free = freedom(a, program, lefts, a.call.arrays())
    elif not reasons:
        divergences = _explained(a, best, (program, table, mapped, lefts), divergences)
    kept = [name for side in (a, b) for name, array in side.others.items() if array.dtype.kind == "f"]
    notes = [f"# fixed, since the other side computes it: {name}" for name in kept]
    notes += [f"# only on the right, where nothing reads it: {name}" for name in dead]
    inferred = [*inferred, *blank]
    table = _commented(table, proof, proven, inferred, reasons, [*notes, *(f"# free: {text}" for text in free)])
    return Derivation(
        table, proven, proof.error, divergences, proof.unobservable, reasons, found.failure,
        time.process_time() - began, inferred, free, found.steps, lone(table, lefts.names, rights.names),
        proof.incomparable,
    )  # fmt: skip


def _unread(a: Side, best: _Best, mapped: Any, rights: Elements, lefts: Elements) -> tuple[dict[str, float], list[str]]:
    """Divide right parameters that no output reads, and that correspond to nothing: (those of one value, the others).

    One that has the size of a free left parameter is in neither: it may correspond to that.
    """
    used = set(lefts.owners(mapped))
    free = {array.size for name, array in a.parameters.items() if name not in used}
    blank, dead = dict[str, float](), list[str]()
    for name in best.exact.unread():
        array = best.side.parameters[name]
        if rights.part(mapped, name).any() or array.size in free:
            continue
        if array.size and (array == array.flat[0]).all():
            blank[name] = float(array.flat[0])
        else:
            dead.append(name)
    return blank, dead


def _explained(
    a: Side, best: _Best, of: tuple[Program, DerivedTable, Any, Filled], known: list[Divergence]
) -> list[Divergence]:
    """Return the places where models with the same weights part, with causes; without any, those of the matching."""
    program, table, mapped, lefts = of
    b, weights = best.side, draw(a, SEED, lefts.arrays)
    inputs = fresh(a.call.arrays(), b.call.arrays(), None)
    sides = (
        run(program.tape, weights, list(inputs[0].values()), 0),
        run(best.exact, translate(table, a, b, weights), list(inputs[1].values()), 1),
    )
    places = [Divergence(*place) for place in explain(*sides, mapped)]
    explained = 0 < len(places) < CAUSES and all(place.cause for place in places)
    if explained:  # nothing differs any more with these causes removed
        return places
    seen = {place.right for place in places}
    return [*places, *(place for place in known if place.right not in {*seen, "output"})] or known


def _without_drops(table: DerivedTable, given: Hint | None) -> DerivedTable:
    """Leave out lines that drop left arrays, but for those that the user gave: what has no partner yet may need one."""
    kept = {str(line) for line in given.table.lines} if given else set[str]()
    drops = [line for line in table.lines if line.kind == "drop" and line.left.arrays and str(line) not in kept]
    whole = [line for line in drops if not any(array.windowed for array in line.left.arrays)]
    return replace(table, lines=tuple(line for line in table.lines if line not in whole), whole=table)


def _commented(
    table: DerivedTable, proof: Proof, proven: bool, inferred: list[str], reasons: dict[str, str], notes: list[str]
) -> DerivedTable:
    """Return the table with what supports it above its first line."""
    if not table.lines:
        return table
    if proven:
        gradients = (
            f", no gradients ({proof.remark})" if proof.gradient is None else f", gradients to {proof.gradient:.0e}"
        )
        words = f"# derived and proven: outputs agree to {proof.exact:.0e}{gradients}, in float64 on two other draws"
    else:
        how = f"differ by {proof.error:.0e}" if np.isfinite(proof.error) else "cannot be compared"
        words = f"# derived, not proven: outputs {how}"
    comments = [words]
    if reasons:
        what = count(len(reasons), "parameter")
        comments = [f"{UNFINISHED} {what} of the right model without a line: add lines, and remove this comment", words]
        comments += [f"# missing: {line}" for line in missing_lines(reasons)]
    if table.sizes:
        sizes = " ".join(f"{name}={length}" for name, length in table.sizes.items())
        comments.append(f"# lengths in the models that it was derived from: {sizes}")
    comments += [f"# inferred, since no value shows all of it: {name}" for name in inferred]
    comments += notes
    return replace(table, lines=(replace(table.lines[0], above=tuple(comments)), *table.lines[1:]))


def call_of(inputs: Any) -> Call:
    """Return a Call of a tuple of arguments, or of one."""
    if isinstance(inputs, Call):
        return inputs
    return Call(*inputs) if isinstance(inputs, tuple) else Call(inputs)


def _calls(call: Call, right_inputs: Any) -> Iterator[Call]:
    """Return how the right side may be called."""
    if right_inputs is not None:
        yield call_of(right_inputs)
    elif len(call.args) == 1 and not call.kwargs and hasattr(call.args[0], "shape"):
        for array in list(layouts(np.asarray(call.args[0])))[:MAX_LAYOUTS]:
            yield Call(array, method=call.method, output=call.output)
    else:
        yield call


def _extra(a: Side, b: Side, partners: Mapping[str, str]) -> list[Row]:
    """Return lines for arrays that are no parameters.

    Those that nothing reads, as counters, belong together where the parameters of their modules do. An integer that
    only the right side has is what a new model has there; what training leaves is dropped in reverse.

    Args:
      partners: see _buffers.
    """
    rows = [dropped(name, 0) for name in a.others if name not in partners.values()]
    for name, array in b.others.items():
        if name in partners:
            rows.append(same(partners[name], name, array.ndim))
        elif _uniform(array):
            arrow = "<->" if array.ndim else "<-"
            rows.append(constant(name, array.ndim, f"{array.flat[0]} {array.dtype}", arrow))
        else:
            rows.append(dropped(name, 1))
    return rows


def _buffers(a: Side, b: Side, mapped: Any, lefts: Elements, rights: Elements) -> dict[str, str]:
    """Return integer arrays of the right side -> those of the left in the module whose parameters became its own."""
    homes: dict[str, set[str]] = {}
    for name in rights.names:
        owners = lefts.owners(rights.part(mapped, name))
        homes.setdefault(split(name)[0], set()).update(split(owner)[0] for owner in owners)
    partners: dict[str, str] = {}
    for name, array in b.others.items():
        home = homes.get(split(name)[0], set())
        inside = [other for other, one in a.others.items() if split(other)[0] in home and _alike(one, array)]
        inside = [other for other in inside if split(other)[1] == split(name)[1]] or inside
        if len(home) == len(inside) == 1 and inside[0] not in partners.values():
            partners[name] = inside[0]
    return partners


def _alike(one: Any, other: Any) -> bool:
    """Tell whether arrays are integers of one kind, shape and value: two new models have the same there."""
    return bool(one.dtype == other.dtype and one.dtype.kind in "iu" and np.array_equal(one, other))


def _uniform(array: Any) -> bool:
    return bool(array.dtype.kind in "iu" and array.size and (array == array.flat[0]).all())


def _shapes(a: Side, b: Side, kept: Collection[str]) -> tuple[dict[str, Any], dict[str, Any]]:
    return (
        {name: np.shape(array) for name, array in a.others.items()},
        {name: np.shape(array) for name, array in b.others.items() if _uniform(array) or name in kept},
    )


def _divergences(found: Match, proof: Proof) -> list[Divergence]:
    """List each place where values part by ten times more than before it."""
    divergences: list[Divergence] = []
    worst = EXACT
    for step in found.steps:
        if step.gap > 10 * worst and step.kind != "add":  # see `parted`: such a gap depends on the order of terms
            worst = step.gap
            divergences.append(
                Divergence(place(step.left_site, step.left), place(step.right_site, step.right), step.gap)
            )
    if proof.exact <= OUTPUT < proof.error:
        text = "one side computes a table in float32"
        divergences += [
            Divergence(place(left, ""), place(right, ""), size, text)
            for left, right, size in proof.islands[:MAX_ISLANDS]
        ]
        divergences.append(Divergence(OWN, OWN, proof.error, "one side computes partly in float32"))
    elif proof.exact > OUTPUT and not divergences:
        divergences.append(Divergence("output", "output", proof.exact))
    return divergences

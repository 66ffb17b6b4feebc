"""Derive a proven Table from two models.

Some arrays are set aside, as random values would hide what they are for. `fix` keeps the values of parameters that hold
a table which the other side computes, `fix_masks` those of masks that the other side lacks or has with the same ones,
and `alone`, after a first match, those of buffers without a partner. Other steps change tapes: `still` makes constants
of inputs that one side alone is given, and `aligned` gives the same values to tables of both sides that differ by
rounding. What the proof calls `kept` are inputs that it does not draw anew.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np

from convert.errors import UsageError, command_or_call
from parity.momentum import momenta, unlike
from specs.claims import without_claims
from specs.table import Table

from .alone import alone, success
from .candidates import Candidate, Left, Weights, arranged, calls, fix, fix_masks, program_of, read, recorded
from .conclusion import concluded
from .depths import differing
from .derivation import Derivation
from .edits.activations import others
from .edits.axes import reaxed
from .edits.edit import Edit
from .edits.functions import FUNCTION, MASK, without_functions
from .edits.numbers import Change, changes
from .edits.rewiring import rewirings
from .edits.tables import retabled
from .edits.weights import plain_weights
from .limits import AGREEING_SUMS, EDIT_SECONDS, MATCH_SECONDS, PARTNER
from .match.hints import hint
from .match.match import Match, Say, Walked, match, silent, walked
from .match.symbols import Elements
from .partings import sizes_differ
from .recomposed import recomposed
from .trace.caches import trim
from .trace.call import Call, call_of
from .trace.inputs import check_inputs, fresh
from .trace.precomputed import aligned
from .trace.program import Program
from .trace.sides import Side, side
from .trace.still import still
from .trace.tape import Tape

TRIAL_SECONDS = 2  # of CPU time for the match with one edit
BEHIND = 48  # operations behind the last product that matched, among which activations are exchanged
PRODUCTS = 6  # before a match ends, in whose operations functions are left out


@np.errstate(all="ignore")  # values of models that differ overflow, and masks are infinite
def derive(
    left: Any,
    right: Any,
    inputs: Any,
    right_inputs: Any = None,
    seconds: float = 60,
    table: Table | None = None,
    left_weights: Weights = None,
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
      left_weights: a checkpoint of the left model, or its arrays by name or in a tree, for models that random weights
        do not tell apart.
      say: is called with what is done at present.
    Returns: the Table with what is known of it: whether it is proven, what is missing, and where the models part.
    Raises: UsageError for what is no model or cannot be called, for inputs that differ, and for lines that do not fit
      the models.
    """
    stop, began = time.thread_time() + seconds, time.process_time()
    say("recording left")
    a = side(left, call_of(inputs))
    if right_inputs is not None:
        check_inputs(a.call.arrays(), call_of(right_inputs).arrays())
    start = None if table is None else replace(table, lines=without_claims(table))
    known, uses, best = _best(read(a, left_weights), right, right_inputs, start, stop, say)
    buffers = alone(known, best)
    if buffers.left or buffers.right:
        a = side(left, call_of(inputs))
        a.fix(buffers.left)
        again = _best(read(a, left_weights), right, right_inputs, start, stop, say, buffers.right)
        if success(again[2]) > success(best) or (best.found.failure and success(again[2]) == success(best)):
            known, uses, best = again
    if best.found.failure and not _unlike(known, best):
        best = _completed(known, uses, best, stop, say)
    del uses  # which have the values that they meet
    trim()
    say("proving")
    return replace(concluded(known, best, began), momentum=unlike(momenta(left), momenta(right)))


def _best(
    known: Left, right: Any, right_inputs: Any, table: Table | None, stop: float, say: Say, fixed: Sequence[str] = ()
) -> tuple[Left, Walked, Candidate]:
    """Match the right side as it may be called; return the left side, as it was matched, and the deepest match.

    Args:
      table, say: see derive. fixed: buffers of the right model that keep their own values.
      stop: the thread's CPU time at which matching ends.
    Raises: UsageError if the right model cannot be run.
    """
    a, best, uses, deepest = known.side, None, None, None
    problems, waiting, cause = list[str](), calls(a.call, right_inputs), None
    while (called := next(waiting, None)) is not None:
        say("recording right")
        b = side(right, called.call)
        b.fix(fixed)
        # The right side comes first: once its mask is fixed, the left's same mask has no partner, and is fixed too.
        fix_masks(b, a)
        if fix_masks(a, b):
            known, uses = read(a, known.checkpoint), None
        given, others = fresh(known.inputs, called.call.arrays(), None)
        try:
            tape = recorded(b, b.parameters, others, "right")
        except UsageError as error:
            problems.append(error.message.removeprefix("the right model ").removeprefix("cannot be run "))
            cause = error.__cause__  # what the framework raised
            continue
        if fix(a, tape):
            known, uses = read(a, known.checkpoint), None
        if fix(b, known.tape):
            tape = recorded(b, b.parameters, others, "right")
        lefts, values = known.elements, list(others.values())
        hinted = None if table is None else hint(table, a, b, lefts, Elements(b.parameters, known=False))
        left_values = list(given.values())
        quiet = still(known.tape, left_values, values)
        own, exact, _ = aligned(quiet, tape, left_values, values)
        if own is not known.program.tape:
            program, uses = program_of(own, lefts.arrays, left_values), None
            known = known._replace(tape=program.tape if own is quiet else quiet, program=program)
        exact = still(exact, values, left_values)
        programs = known.program, program_of(exact, b.parameters, values)
        if right_inputs is None and _without_elements(programs[1]):
            problems.append("a convolution's kernel is larger than what it reads in this order of axes")
            continue
        other = arranged(called, a, b, programs[0].outputs, programs[1].outputs)
        if other.call is not called.call:
            waiting = itertools.chain([other], waiting)
            continue
        uses = uses or walked(known.program, lefts)
        limit = stop - time.thread_time()
        found = match(uses, programs[1], b.parameters, limit, hinted and hinted.map, say, idle=MATCH_SECONDS)
        attempt = Candidate(
            found, b, tape, programs[1].tape, values, hinted, programs, other.correspondence, other.clash,
            input_order=other.input_order,
        )  # fmt: skip
        if best is None or attempt.depth > best.depth:
            best, deepest = attempt, (known, uses)
        if not found.failure:
            break
    if best is None or deepest is None:
        problems = list(dict.fromkeys(problems))  # one for each order of axes
        raise UsageError("the right model cannot be run", [*problems, *_inputs_wanted(a.call, right_inputs)]) from cause
    return *deepest, best


def _without_elements(program: Program) -> bool:
    """Tell whether a convolution returns nothing: JAX refuses no kernel that is larger than the input."""
    return any(0 in program.shapes[node.output] for node in program.tape.nodes if node.window)


def _inputs_wanted(call: Call, right_inputs: Any) -> list[str]:
    """Say whose inputs the right side was called with, and how it gets others; nothing if axes alone were tried."""
    if right_inputs is not None:
        given = command_or_call("these are the inputs that the right side returns", "these are right_inputs")
        return [f"{given}: give the arguments that the right model takes, in its own order and order of axes"]
    if len(call.arrays()) < 2:
        return []
    remedy = command_or_call("return (model, inputs) on the right as well", "give right_inputs")
    return [f"it was called with the left inputs as they are: {remedy}, the same values in its own order of axes"]


def _unlike(known: Left, best: Candidate) -> bool:
    """Tell whether the models have other depths, or outputs of other lengths: more time would find no Table."""
    sides = known.side.parameters, best.side.parameters
    elements = [sum(array.size for array in side.values()) for side in sides]
    if elements[0] != elements[1] and differing(*sides):
        return True
    left_sizes, right_sizes = (sorted(map(np.size, program.outputs)) for program in (known.program, best.programs[1]))
    return left_sizes != right_sizes and sizes_differ(known, best)


def _completed(known: Left, uses: Walked, best: Candidate, stop: float, say: Say) -> Candidate:
    """Match further what has no complete match: with other numbers and sums, and for longer, also by parts of rows."""
    best = recomposed(known, uses, best, stop)
    plain = best.programs
    say("trying other numbers and sums")
    best = _corrected(best, known, uses, stop)
    for programs in (best.programs, plain) if best.programs != plain else (plain,):
        left_over = stop - time.thread_time()
        if not best.found.failure or (left_over <= 0 and (best.found.gap > PARTNER or programs is not best.programs)):
            break
        given = best.hint and best.hint.map
        left_uses = uses if programs[0] is uses.program else walked(programs[0], known.elements)
        found = match(left_uses, programs[1], best.side.parameters, left_over, given, say, True)
        best = max(best, best._replace(found=found), key=lambda attempt: attempt.depth)
    return best


def _corrected(best: Candidate, known: Left, uses: Walked, stop: float) -> Candidate:
    """Match edited tapes, if the match goes further so: of models that differ in a scale or a residual, say.

    The proof and the list of differences are of the models as they are.
    """
    stop = min(stop, time.thread_time() + EDIT_SECONDS)
    given = Tried(best, (known.program.tape, best.exact), uses)
    while given.best.found.failure:
        for edit in _edits(given, stop):
            new = _tried(edit, given, known)
            if new and (not new.best.found.failure or _further(new.best.found, given.best.found, edit)):
                tried = [new, *(_tried(wider, given, known) for wider in edit.wider)]
                given = max((one for one in tried if one), key=lambda one: (one.best.depth, one.best.found.at))
                break
        else:
            break
    return given.best


class Tried(NamedTuple):
    """A match of tapes, and the left uses in it."""

    best: Candidate
    tapes: tuple[Tape, Tape]
    uses: Walked


def _tried(edit: Edit, given: Tried, known: Left) -> Tried | None:
    """Match the tapes with one more edit; None if an operation refuses it, or parameters of a branch are lost."""
    best, lefts = given.best, known.elements
    tapes = edit.tapes(*given.tapes)
    if _too_few_read(tapes, given.tapes, (known.side, best.side), edit.side):
        return None
    same = tapes[0] is given.tapes[0]
    try:
        source = given.uses.program if same else Program(tapes[0], lefts.arrays, [*known.program.inputs.values()])
        target = Program(tapes[1], best.side.parameters, best.inputs)
        own = given.uses if same else walked(source, lefts)
        found = match(own, target, best.side.parameters, TRIAL_SECONDS, best.hint and best.hint.map)
    except Exception:  # an operation, which matching runs too, may raise anything for a number that it refuses
        return None
    if not found.failure and len(found.steps) < len(best.found.steps):  # the number hides what parameters meet
        return None
    gone = {*tapes[1].unread()} - {*given.tapes[1].unread()}
    left_out = {**best.left_out, **dict.fromkeys(gone, edit.text)}
    return Tried(best._replace(found=found, programs=(own.program, target), left_out=left_out), tapes, own)


def _too_few_read(tapes: Sequence[Tape], before: Sequence[Tape], sides: Sequence[Side], edited: int) -> bool:
    """Tell whether an edit leaves out a branch whose parameters the other side needs as partners of its own."""
    sizes = [
        sum(side.parameters[name].size for name in side.parameters.keys() - set(tape.unread()))
        for side, tape in ((sides[edited], before[edited]), *zip(sides, tapes, strict=True))
    ]
    read_before, read = sizes[0], sizes[1:]
    return read[edited] < min(read_before, read[1 - edited])


def _edits(given: Tried, stop: float) -> Iterator[Edit]:
    """Yield what may make the sides equal where the match ends: other operations near it and numbers, in turn."""
    best, tapes, uses = given
    own = [seen.use.node for seen in uses.seen if best.found.steps and seen.names == best.found.steps[-1].left]
    products = [at for at, node in enumerate(best.programs[1].tape.nodes[: best.found.at]) if node.kind == "product"]
    firsts = max(own, default=0), max(products, default=0)
    programs = uses.program, best.programs[1]
    nodes = list(map(_near, programs, firsts))
    spans = [(some.start, first + BEHIND) for some, first in zip(nodes, firsts, strict=True)]
    near = itertools.chain(
        others(programs, spans),
        rewirings(programs, firsts),
        without_functions(programs, nodes),
        retabled(*programs, nodes),
        reaxed(programs, nodes),
        plain_weights(programs, nodes),
    )
    numbers = sorted(changes(*tapes), key=lambda edit: _distance(edit, tapes[edit.side], programs[edit.side], firsts))
    both = (edit for pair in itertools.zip_longest(near, numbers) for edit in pair if edit)
    yield from itertools.takewhile(lambda _: time.thread_time() < stop, both)


def _distance(edit: Edit, tape: Tape, program: Program, firsts: Sequence[int]) -> int:
    """Count the operations between an edit and where the match ends: a number near that place is tried before others.

    Args:
      firsts: on each side, the last product or use that was matched.
    """
    places = (program.makers.get(tape.nodes[at].output, 0) for at in edit.nodes(tape))
    return min((abs(at - firsts[edit.side]) for at in places), default=len(tape.nodes))


def _near(program: Program, first: int) -> range:
    """Return the operations from some products before `first` on.

    A rotation of queries may stand several products before the match ends: before keys and values are projected.
    """
    before = [at for at, node in enumerate(program.tape.nodes[:first]) if node.kind == "product"]
    return range(before[-PRODUCTS:][0] if before else 0, len(program.tape.nodes))


def _further(found: Match, before: Match, edit: Edit) -> bool:
    """Tell whether a match with an edit goes further: where more than a number was edited, only on values that agree.

    Where a function was left out, two products have to agree: the first layers of any two models read the same input.
    """
    steps = found.steps[len(before.steps) :]
    if edit.kind in (FUNCTION, MASK):
        steps = [step for step in steps if step.kind == "product"]
    new = steps[:2]
    agreeing = all(step.gap <= AGREEING_SUMS for step in new if step.kind != "add")
    return len(new) == 2 and (isinstance(edit, Change) or agreeing)

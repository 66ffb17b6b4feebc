"""Match the right model in each way in which it may be called, until all of its parameters have partners.

Some arrays are set aside first, as random values would hide what they are for. `fix_masks` keeps the values of masks
that the other side lacks or has with the same ones, and `fix` those of parameters that hold a table which the other
side computes. Other steps change tapes: `still` makes constants of inputs that one side alone is given, and `aligned`
gives the same values to tables of both sides that differ by rounding.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, NoReturn

from convert.errors import UsageError, command_or_call
from parity.derive.forms.routed import scatters
from parity.derive.limits import LARGE_MODEL, MATCH_WORK
from parity.derive.match.hints import hint
from parity.derive.match.match import Walked, match, walked
from parity.derive.match.symbols import Elements
from parity.derive.trace.call import Call
from parity.derive.trace.draws import draw
from parity.derive.trace.inputs import fresh
from parity.derive.trace.precomputed import aligned
from parity.derive.trace.program import Program
from parity.derive.trace.sides import Side, side
from parity.derive.trace.still import still
from parity.derive.trace.tape import Array, Tape
from specs.table import Table
from specs.words import count

from .candidates import (
    SEED,
    Called,
    Candidate,
    Left,
    arranged,
    calls,
    fix,
    fix_masks,
    program_of,
    read,
    recorded,
    with_rows,
)
from .rounds import Rounds

NO_ELEMENTS = "a convolution's kernel is larger than what it reads in this order of axes"


class Matched(NamedTuple):
    """A match of both sides.

    Args:
      left: the left side, as it was matched. uses: those of its parameters, with the values that they meet.
      candidate: the right side, and the match.
    """

    left: Left
    uses: Walked
    candidate: Candidate


class Right(NamedTuple):
    """The right model, recorded as it was called.

    Args:
      inputs: with which it ran. left_inputs: those of the left model, which go with them.
    """

    side: Side
    tape: Tape
    inputs: Mapping[str, Array]
    left_inputs: Mapping[str, Array]


def matched_as_called(
    known: Left, right: Any, right_inputs: Any, table: Table | None, stop: float, rounds: Rounds,
    fixed: Sequence[str],
) -> Matched:  # fmt: skip
    """Return the deepest match of the left side with the right model, over the ways in which that may be called.

    Args:
      right_inputs, table: see derive. rounds: numbers each match. fixed: buffers of the right model that keep their own
        values.
      stop: the thread's CPU time at which matching ends.
    Raises: UsageError if the right model cannot be run.
    """
    best, uses, refusals = None, None, list[UsageError]()
    waiting = calls(known.side.call, right_inputs)
    while (called := next(waiting, None)) is not None:
        rounds.say("recording right")
        b = side(right, called.call)
        b.fix(fixed)
        known = _without_masks(known, b)
        try:
            model = _recorded(known, b, called)
        except UsageError as error:
            refusals.append(error)
            continue
        known, model = _without_tables(known, model)
        model = _with_rows(model)
        known, programs = _in_one_form(known, model)
        if right_inputs is None and _lacks_elements(programs[1]):
            refusals.append(UsageError(NO_ELEMENTS))
            continue
        other = arranged(called, known.side, b, programs[0].outputs, programs[1].outputs)
        if other.call is not called.call:
            waiting = itertools.chain([other], waiting)
            continue
        if uses is None or uses.program is not known.program:
            uses = walked(known.program, known.elements)
        candidate = _matched(known, uses, model, programs[1], other, table, stop, rounds)
        if best is None or candidate.depth > best.candidate.depth:
            best = Matched(known, uses, candidate)
        if not candidate.found.failure:
            break
    if best is None:
        _refuse(refusals, known.side.call, right_inputs)
    return best


def _without_masks(known: Left, b: Side) -> Left:
    """Set aside masks that one side alone has; return the left side, which is read again if it has such masks."""
    # The right side comes first: once its mask is fixed, the left's same mask has no partner, and is fixed too.
    fix_masks(b, known.side)
    return read(known.side, known.checkpoint) if fix_masks(known.side, b) else known


def _recorded(known: Left, b: Side, called: Called) -> Right:
    """Run the right model with the left inputs. Raises: UsageError for whatever its code raises."""
    given, others = fresh(known.inputs, called.call.arrays(), None)
    return Right(b, recorded(b, b.parameters, others, "right"), others, given)


def _without_tables(known: Left, model: Right) -> tuple[Left, Right]:
    """Set aside tables that the other side computes; return both sides, each run again if it has such tables."""
    if fix(known.side, model.tape):
        known = read(known.side, known.checkpoint)
    if fix(model.side, known.tape):
        model = model._replace(tape=recorded(model.side, model.side.parameters, model.inputs, "right"))
    return known, model


def _with_rows(model: Right) -> Right:
    """Return the right side with other matrices where its own router passes experts over, which show nothing then."""
    b, inputs = model.side, [*model.inputs.values()]
    if not scatters(model.tape) or sum(array.size for array in b.parameters.values()) >= LARGE_MODEL:
        return model

    def drawn(k: int) -> tuple[tuple[Tape, dict[str, Array]], Program]:
        tape = model.tape
        if k:
            others = draw(b, SEED + k - 1)
            b.parameters |= {name: others[name] for name in others if others[name].ndim > 1 and name not in b.buffers}
            tape = recorded(b, b.parameters, model.inputs, "right")
        return (tape, dict(b.parameters)), Program(tape, b.parameters, inputs)

    tape, parameters = with_rows(drawn)
    b.parameters |= parameters
    return model._replace(tape=tape)


def _in_one_form(known: Left, model: Right) -> tuple[Left, tuple[Program, Program]]:
    """Return the left side and both programs, with the same values in both sides' tables."""
    left_inputs, inputs = [*model.left_inputs.values()], [*model.inputs.values()]
    quiet = still(known.tape, left_inputs, inputs)
    own, exact, _ = aligned(quiet, model.tape, left_inputs, inputs)
    if own is not known.program.tape:
        program = program_of(own, known.elements.arrays, left_inputs)
        known = known._replace(tape=program.tape if own is quiet else quiet, program=program)
    other = program_of(still(exact, inputs, left_inputs), model.side.parameters, inputs)
    return known, (known.program, other)


def _lacks_elements(program: Program) -> bool:
    """Tell whether a convolution returns nothing: JAX refuses no kernel that is larger than the input."""
    return any(0 in program.shapes[node.output] for node in program.tape.nodes if node.window)


def _matched(
    known: Left, uses: Walked, model: Right, program: Program, called: Called, table: Table | None, stop: float,
    rounds: Rounds,
) -> Candidate:  # fmt: skip
    """Match both sides, given the lines of `table`.

    Args:
      program: of the right side.
    """
    b, hinted = model.side, None
    if table is not None:
        hinted = hint(table, known.side, b, known.elements, Elements(b.parameters, known=False))
    matched = match(uses, program, b.parameters, stop, hinted and hinted.map, rounds.next(), idle=MATCH_WORK)
    return Candidate(
        matched, b, model.tape, program.tape, [*model.inputs.values()], hinted, (known.program, program),
        called.correspondence, called.clash, input_order=called.input_order, output_order=called.output_order,
    )  # fmt: skip


def _also(others: Sequence[str]) -> str:
    """Count further attempts that failed for the same reason."""
    return f", and in {count(len(others), 'more way')}" if others else ""


def _refuse(refusals: Sequence[UsageError], call: Call, right_inputs: Any) -> NoReturn:
    """Raise a UsageError that says why the right model could be run in no way, each reason once."""
    texts = (error.message.removeprefix("the right model ").removeprefix("cannot be run ") for error in refusals)
    alike = dict[str, list[str]]()  # by the reason
    for text in dict.fromkeys(texts):
        tried, _, why = text.partition(": ")
        alike.setdefault(why, []).append(tried)
    texts = (f"{first}{_also(others)}{': ' * bool(why)}{why}" for why, (first, *others) in alike.items())
    raised = (error.__cause__ for error in reversed(refusals))  # by the framework
    problems = [*dict.fromkeys(texts), *_inputs_wanted(call, right_inputs)]
    raise UsageError("the right model cannot be run", problems) from next(filter(None, raised), None)


def _inputs_wanted(call: Call, right_inputs: Any) -> list[str]:
    """Say whose inputs the right side was called with, and how it gets others; nothing if axes alone were tried."""
    if right_inputs is not None:
        given = command_or_call("these are the inputs that the right side returns", "these are right_inputs")
        return [f"{given}: give the arguments that the right model takes, in its own order and order of axes"]
    if len(call.arrays()) < 2:
        return []
    remedy = command_or_call("return (model, inputs) on the right as well", "give right_inputs")
    return [f"it was called with the left inputs as they are: {remedy}, the same values in its own order of axes"]

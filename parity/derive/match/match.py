"""Match the parameters of two tapes by the values that meet them.

The left model's values are all known: each use of a parameter is listed with what it meets. The right tape is walked
beside it. Everything before a use agrees, so the values that reach it have been seen on the left; the use that met them
is its partner, and the columns of values tell which element corresponds to which. Where several partners fit, the
likeliest is tried first, and a dead end later goes back to the next. Where no choice helps, the models part: the
nearest partner is taken, and from there on values may differ by as much.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import numpy as np

from parity.derive.limits import EXACT, PARTNER
from parity.derive.trace.outputs import difference, incomparable
from parity.derive.trace.program import Program, Refused
from parity.derive.trace.tape import Array

from .advice import Stop
from .attempt import Attempt, DeadEnd
from .choices import Change, Step
from .symbols import Elements, Partnered
from .uses import Seen
from .walk import Walk

Say = Callable[[str], None]  # reports progress
APART = 1e-3  # difference of values beyond which unlikely choices are tried before it is accepted
MISLED = 256  # choices that are tried where all uses agree and the outputs differ all the same
TRIES = 12  # choices that are tried before a difference of values is accepted
FEW = 3  # the same, of a match with an edit
PASSED = 8  # uses without a partner that are passed over, one after the other: a gate, or a convolution and its norm


def silent(_: str) -> None:
    """Report nothing."""


@dataclass
class Match:
    """What matching found.

    Args:
      map: the left element of each right one; 0 where none was found; -n where zero is added to
        right element n, or where right element n is zero itself.
      plus: a second left element that is added to the first one, or 0.
      failure: the first use without a partner, None if all have one.
      gap: the distance of the nearest partner of that use.
      known: its operation, if it is no use of unknown elements; see DeadEnd.
      at: how far the walk went.
      lost: how many uses without a partner were passed over; unproven: of these, since values were last found.
      work: how much was computed. cut: whether a limit ended it though other choices were left.
    """

    map: Any  # Array or Packed
    plus: Array
    steps: list[Step] = field(default_factory=list)
    failure: Stop | None = None
    gap: float = 0.0
    known: int = -1
    at: int = 0
    outputs: list[Array] | None = None
    lost: int = 0
    unproven: int = 0
    work: int = 0
    cut: bool = False


class Walked(NamedTuple):
    """The left side: its tape, its elements, and each use of them."""

    program: Program
    elements: Elements
    seen: list[Seen]


def walked(program: Program, elements: Elements) -> Walked:
    """Walk the left tape."""
    seen: list[Seen] = []
    Walk(program, elements, lambda use: seen.append(Seen(use, program, elements))).run()
    return Walked(program, elements, seen)


def match(
    left: Walked,
    right: Program,
    right_arrays: Mapping[str, Array],
    stop: float,
    given: Array | None = None,
    say: Say = silent,
    rough: bool = False,
    idle: float = np.inf,
    plain: Match | None = None,
) -> Match:
    """Find the left element of each right element.

    Args:
      right_arrays: arrays of the right side's shapes.
      stop: the thread's CPU time at which the deepest attempt is returned, or goes on without other choices; the first
        attempt is made in any case.
      given: see Hint.map.
      rough: whether to go on where no choice helps and only some rows of a use meet the values of another.
      idle: work after which it ends as well, counted from where the values of both sides were last found to agree
        further: a walk along a large model alone takes seconds.
      plain: the match of the tapes without an edit: its partners come first where they are as likely as others. A FEW
        other choices are tried if this one comes as far, as the other one has tried them all.
    """
    attempt = Attempt(left.seen, right, left.elements, Partnered(right_arrays, left.elements), say)
    if given is not None:
        attempt.take(given)
    if plain is not None:
        attempt.followed = plain.steps
    found = _searched(attempt, left.program.outputs, stop, rough, idle, plain)
    return attempt.ended(replace(found, work=attempt.walk.work))


def _searched(
    attempt: Attempt, outputs: list[Array], stop: float, rough: bool, idle: float, plain: Match | None
) -> Match:
    """Go on with an attempt and step back where it ends early, until all uses have partners; return the deepest one.

    Args:
      outputs: the left ones. stop, rough, idle, plain: see match.
    """
    best, changes, tries, furthest, until = None, list[Change](), 0, -1, np.inf
    base: Match | None = None  # before the uses that were passed over and with which nothing was proven yet
    first: Match | None = None  # the first one that ended at a use without a partner, if that was passed over
    while True:
        found = _tried(attempt)
        if found.at > furthest and attempt.limit <= EXACT:
            furthest, until = found.at, attempt.walk.work + idle
        late = attempt.walk.work > until or time.thread_time() > stop
        if _misled(found, outputs):
            return _with_outputs(attempt, found, outputs, stop, attempt.walk.work + idle)
        if best is None or _goes_further(found, best):
            if found.failure and (best is None or found.at > best.at):  # what first came as far is the likeliest
                changes = attempt.changes()
            best, tries = _copied(found) if found.failure else found, 0
        most = _choices_to_try(best, plain)
        if not best.failure or (late and not (rough and best.gap <= PARTNER)):
            cut = late and tries < most and attempt.step_back()
            return replace(_ended(best, base, first), cut=cut and best.failure is not None)
        if found.gap > PARTNER and attempt.unscale():
            best, tries = None, 0
            continue
        tries += 1
        # what comes after a difference differs as well: other choices would hardly help
        parted = bool(attempt.rough or attempt.passed)
        if not late and tries <= (1 if parted else most) and _chosen_otherwise(attempt, changes):
            continue
        if best.gap > APART and best.known < 0 and not (attempt.patient or parted or plain is not None):
            attempt.patient, tries = True, 0
            if _chosen_otherwise(attempt, changes):
                continue
        base, first = best if not best.unproven else base, first if best.lost else best
        if not _eased(attempt, best, rough):
            return _ended(best, base, first)
        tries = 0
        if best.gap > PARTNER or best.known >= 0:
            best = None


def _choices_to_try(best: Match, plain: Match | None) -> int:
    """Return how many other choices are tried; see match."""
    if plain is None:
        return TRIES
    return FEW if len(best.steps) >= len(plain.steps) else 0


def _chosen_otherwise(attempt: Attempt, changes: list[Change]) -> bool:
    """Return to another choice; with patience to the first of `changes`, which leaves them; False if there is none."""
    if not attempt.patient:
        return attempt.step_back()
    if changes:
        attempt.replay(*changes.pop(0))
        return True
    return False


def _goes_further(found: Match, best: Match) -> bool:
    """Tell whether an attempt ends behind the best one, or at the same use with a nearer partner."""
    # at one operation, a sum may be read before a product: what ends at the sum is not as far
    level = found.at == best.at and len(found.steps) >= len(best.steps)
    return not found.failure or found.at > best.at or (level and PARTNER < found.gap < best.gap)


def _with_outputs(attempt: Attempt, found: Match, outputs: list[Array], stop: float, most: float) -> Match:
    """Try other choices where all uses have partners, but outputs differ; return the match if none makes them equal.

    Args:
      stop: the thread's CPU time at which it ends. most: the work of the attempt, likewise.
    """
    whole = _copied(found)
    for _ in range(MISLED):
        if attempt.walk.work > most or time.thread_time() > stop or not attempt.step_back():
            break
        found = _tried(attempt)
        if not found.failure and not _misled(found, outputs):
            return found
    return whole


def _eased(attempt: Attempt, best: Match, rough: bool) -> bool:
    """Accept what keeps the best attempt from going on, and return to it; tell whether there is anything to accept."""
    if best.known >= 0:
        attempt.excused.add(best.known)
    elif best.gap <= PARTNER:
        if 2 * best.gap <= attempt.limit:
            return False
        attempt.limit = 2 * best.gap
    elif rough and best.gap < 1 and best.at not in attempt.rough:
        attempt.rough.add(best.at)
    elif rough and best.unproven < PASSED and best.at not in attempt.passed:
        attempt.passed.add(best.at)
        attempt.rough.add(best.at)
    else:
        return False
    attempt.patient = attempt.patient and best.known >= 0
    attempt.replay([step.choice for step in best.steps])
    return True


def _ended(best: Match, base: Match | None, first: Match | None) -> Match:
    """Return a match with the first use that has no partner as its failure; without those passed over in vain."""
    if best.unproven and base is not None:
        best = base
    return replace(best, failure=first.failure if first else None) if best.lost else best


def _copied(found: Match) -> Match:
    """Return a match that does not change when its attempt goes on."""
    plus = found.plus.copy() if found.plus.any() else np.zeros_like(found.plus)  # zeros that nobody touches are free
    return replace(found, map=found.map.copy(), plus=plus, steps=found.steps.copy())


def _misled(found: Match, outputs: list[Array]) -> bool:
    """Tell whether outputs differ although all uses agree: then some choice seems wrong that no later use shows."""
    others = found.outputs
    if others is None or incomparable(outputs, others):
        return False
    if found.lost or any(step.gap > EXACT for step in found.steps if step.kind != "add"):
        return False
    return difference(outputs, others) > APART


def _tried(attempt: Attempt) -> Match:
    """Go on with an attempt until its end or to a use without a partner."""
    found = Match(attempt.map, attempt.plus, attempt.steps)
    try:
        found.outputs = attempt.run()
    except DeadEnd as error:
        found.failure, found.gap, found.known, found.at = error.stop, error.gap, error.known, attempt.walk.at
    except Refused as error:
        names = attempt.steps[-1].right if attempt.steps else ()
        stop = Stop(names, f"an operation behind it refuses its values ({error.__cause__})")
        found.failure, found.gap, found.known, found.at = stop, np.inf, -1, attempt.walk.at
    found.lost, found.unproven = len(attempt.lost), attempt.unproven
    return found

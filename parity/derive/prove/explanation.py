"""Locate where two models part, and why: a cause is named only if recomputing with it makes their values agree.

Both models run on weights that the Table translates. Each use of a parameter on the right meets the values that the
same elements meet on the left; the first use that meets others is where the models part. These causes are tried:
parameters that the right side lacks, another activation, sums (a term that one side lacks, a norm on the other side of
a sum), functions that one side lacks (a mask, rotations), and what one side has in place of the other's: a number (an
epsilon, a scale, a limit), a table (positions), an operation (a pooling). Of convolutions of the same image, the
padding, strides and dilations in which they differ are named, of attention the numbers of heads.
"""

from __future__ import annotations

import itertools
import math
import re
import time
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from specs.numerals import short

from ..edits.activations import others
from ..edits.affine import without_parameters
from ..edits.edit import Edit, and_so
from ..edits.functions import without_functions
from ..edits.norms import MOVED, WITH
from ..edits.numbers import changes
from ..edits.outputs import rearranged
from ..edits.rewiring import rewirings
from ..edits.roots import moved
from ..edits.stretches import restretched
from ..edits.swaps import swaps
from ..edits.tables import retabled
from ..limits import CAUSE_SECONDS, CAUSES_SECONDS, RECOMPUTED
from ..match.advice import feeds
from .convolutions import differing
from .heads import HEADS, unlike_heads
from .pairs import Mapped, Pair, Run
from .pairs import pairs as pairs_of
from .recomputation import BEHIND, SPAN, Cause, Recomputation, recomputed

CAUSES = 8  # causes that are looked for one after the other
MORE_PLACES = re.compile(r", and so in (\d+) more places?$")  # see and_so
OPERATION = re.compile(r" \(in \S+\)|\S+ \((?!in )([^()]*)\)")  # with its module, see other_values and placed


class Divergence(NamedTuple):
    """A place where the sides' values part.

    Args:
      left, right: paths of the modules.
      size: the relative difference of what is seen there.
      cause: "" where none was confirmed; advice: then, what to compare of what both models compute before it.
      kind: what a cause is of: "epsilon", "activation", "convolution window"; "" without a cause.
      whole: whether both models were run on with that cause removed.
      times: how many of that kind were removed at once, as one in each block.
      changed, places: the side, "left" or "right", of which the cause was removed, and each place where it was, in the
        order of execution.
      late: the time for finding a cause ended before all was tried.
      rest: the difference that remains with the cause removed; NaN where that is not known.
    """

    left: str
    right: str
    size: float
    cause: str = ""
    advice: str = ""
    kind: str = ""
    whole: bool = False
    times: int = 1
    late: bool = False
    changed: str = ""
    places: tuple[str, ...] = ()
    rest: float = math.nan

    def to_dict(self) -> dict[str, Any]:
        """Return what users see as plain values, for JSON."""
        shown = ("left", "right", "size", "cause", "advice", "late", "changed")
        return {**{name: getattr(self, name) for name in shown}, "places": list(self.places)}


def confirmed(places: Sequence[Divergence]) -> bool:
    """Tell whether the models are equal with the causes of all places removed, which shows that a Table is right."""
    return bool(places) and all(place.whole for place in places)


def explain(left: Run, right: Run, mapped: Mapped) -> tuple[list[Divergence], tuple[Run, Run]]:
    """Return where the models part, each with its cause, until a difference has none; and both without these causes."""
    places: list[Divergence] = []
    end = time.thread_time() + CAUSES_SECONDS
    while len(places) < CAUSES:
        pairs = list(pairs_of(left, right, mapped))
        at = next((k for k, pair in enumerate(pairs) if pair.parts), None)
        if at is None:
            break
        pair, stop = pairs[at], min(end, time.thread_time() + CAUSE_SECONDS)
        sites = left.site(pair.left), right.site(pair.right)
        heads, times = unlike_heads(left, right, pairs, at)
        if heads:
            places.append(Divergence(*sites, pair.gap, heads, kind=HEADS, times=times))
            break
        if not (causes := _causes(left, right, mapped, pairs, at, stop)):
            late = time.thread_time() >= stop
            places.append(Divergence(*sites, pair.gap, advice=_advice(pair, right), late=late))
            break
        for cause in causes:
            place = Divergence(*sites, cause.gap, cause.text, "", cause.kind, cause.sides is not None, cause.times)
            _add(places, place._replace(changed=cause.changed, places=cause.places, rest=cause.rest))
        if causes[-1].sides is None:
            break
        left, right = causes[-1].sides
    if len(places) >= CAUSES and any(pair.parts for pair in pairs_of(left, right, mapped)):
        places[-1] = places[-1]._replace(whole=False)  # there are more
    return places, (left, right)


def _add(places: list[Divergence], place: Divergence) -> None:
    """Add a place; one with the same cause as an earlier place joins that, as a fault in code that is used often."""
    at = next((k for k, other in enumerate(places) if _fault(other) == _fault(place)), None)
    if at is None or math.isnan(place.rest):
        places.append(place)
        return
    first = places[at]
    rest = max(first.rest, place.rest)
    more = _more(first.cause) + (place.times if place.kind == MOVED else 1 + _more(place.cause))
    places[at] = first._replace(
        cause=f"{MORE_PLACES.sub('', _what(first.cause))}{and_so(more)} {recomputed(rest)}",
        whole=first.whole and place.whole,
        times=first.times + place.times,
        places=(*first.places, *place.places),
        rest=rest,
    )


def _fault(place: Divergence) -> tuple[str, str, str]:
    """Return what places with the same cause share: it without the modules and the number of places."""
    what = MORE_PLACES.sub("", _what(place.cause))
    what = what.partition(WITH)[0] if place.kind == MOVED else what
    return place.kind, place.changed, OPERATION.sub(r"\1", what)


def _what(cause: str) -> str:
    """Return a cause without what came of recomputing."""
    return cause.partition(" (recomputed so")[0]


def _more(cause: str) -> int:
    """Return how many more places a cause names."""
    found = MORE_PLACES.search(_what(cause))
    return int(found[1]) if found else 0


def _advice(pair: Pair, right: Run) -> str:
    """List what to compare of the values that reach an operation, or the outputs."""
    if pair.right is None:
        return feeds("")
    return feeds(pair.right.kind, right.program.patches(right.tape.nodes[pair.right.node]))


def _causes(left: Run, right: Run, mapped: Mapped, pairs: Sequence[Pair], at: int, stop: float) -> list[Cause]:
    """Return the cause of a difference, or two that act at once; [] where none is confirmed."""
    pair = pairs[at]
    if pair.left is not None and pair.right is not None:
        window = left.tape.nodes[pair.left.node].window, right.tape.nodes[pair.right.node].window
        if text := differing((pair.left.x, pair.right.x), window):
            return [Cause(text, "convolution window", gap=pair.gap)]
    trial = Recomputation((left, right), mapped, pairs, at, stop)
    cause = _tried(trial)
    return [cause] if cause.text else _two(trial)


def _tried(trial: Recomputation) -> Cause:
    """Return the cause that one edit confirms, without a text where none does."""
    cause = trial.best(_simple(trial, _spans(trial, BEHIND)))
    return cause if cause.text else trial.best(_edits(trial, _spans(trial, SPAN)))


def _two(trial: Recomputation) -> list[Cause]:
    """Return two causes that make the sides equal together: the edit that leaves the least difference, and another."""
    left_over, edit = trial.nearest
    sides = trial.replaced(edit) if edit else None
    if edit is None or sides is None:
        return []
    pairs = list(pairs_of(*sides, trial.mapped))
    at = next((k for k, pair in enumerate(pairs) if pair.parts), None)
    if at != trial.at:
        return []
    other = Recomputation(sides, trial.mapped, pairs, at, trial.stop)
    other.limit = RECOMPUTED  # a difference that two edits make small by chance is none that they explain
    cause = _tried(other)
    first = trial.cause(edit, f"(recomputed so, they differ by {short(left_over)}, for the next cause)", cause.sides)
    return [first, cause] if cause.text else []


def _spans(trial: Recomputation, uses: int) -> list[tuple[int, int]]:
    """Return of each side the operations between the last `uses` that agree and the first that does not."""
    firsts, pair = trial.firsts(uses), trial.pairs[trial.at]
    return [(firsts[side], _end(run, pair, side)) for side, run in enumerate(trial.both)]


def _unseen(trial: Recomputation, side: int) -> set[int]:
    """Return the operations of a side that lead to where the sides part, from the uses before it that agree.

    A bias is compared where it is added, so that operations up to the next use, or to the outputs, are among them. So
    are functions of a parameter alone, whose result a use that agrees has added or multiplied with.
    """
    run = trial.both[side]
    uses = [(pair.left, pair.right)[side] for pair in trial.pairs]
    agreeing = {use.node for use in uses[: trial.at] if use is not None}
    parted = [use.node for use in uses[trial.at : trial.at + 2] if use is not None]
    found, waiting = set(parted), [number for at in parted for number in run.tape.nodes[at].inputs]
    waiting += run.tape.outputs if len(trial.pairs) <= trial.at + 2 else []
    while waiting:
        at = run.program.makers.get(waiting.pop())
        if at is None or at in found:
            continue
        inputs = run.tape.nodes[at].inputs
        if at in agreeing:
            waiting.extend(n for n in inputs if n not in run.program.active)
        else:
            found.add(at)
            waiting.extend(inputs)
    return found


def _simple(trial: Recomputation, spans: Sequence[tuple[int, int]]) -> Iterator[Edit]:
    """Yield what is told by one look: outputs in another order, parameters that one side lacks, other activations."""
    if trial.pairs[trial.at].right is None:
        yield from rearranged(*(run.program for run in trial.both))
    for side, names in enumerate(_without_partner(*trial.both, trial.mapped)):
        # where not all have been matched, those behind this place may have partners yet
        span = None if trial.mapped.whole else spans[side]
        yield from without_parameters(trial.both[side].program, names, side, span)
    yield from others([run.program for run in trial.both], spans)


def _without_partner(left: Run, right: Run, mapped: Mapped) -> list[list[str]]:
    """List the parameters of each side of which no element has a partner."""
    known = (left.elements, mapped.owned(left.elements)), (right.elements, mapped.numbers != 0)
    return [[name for name in of.names if not of.part(marks, name).any()] for of, marks in known]


def _edits(trial: Recomputation, spans: Sequence[tuple[int, int]]) -> Iterator[Edit]:
    """Yield what may make the sides equal, behind the last use that agrees.

    In turn: other numbers, sums, tables, operations and functions; then several operations in a row.
    """
    left, right = trial.both
    read = trial.read()
    every = changes(left.tape, right.tape, read)
    numbers = (edit for edit in every if not read[edit.side].isdisjoint(edit.values))
    alone = _without_partner(left, right, trial.mapped)
    sums = rewirings((left.program, right.program), [first for first, _ in spans], alone)
    near = [_unseen(trial, side) for side in (0, 1)]
    tables, operations = (yields(left.program, right.program, near) for yields in (retabled, swaps))
    functions = without_functions((left.program, right.program), near)
    epsilons = moved(left.program, right.program)
    for few in itertools.zip_longest(numbers, epsilons, sums, tables, operations, functions):
        yield from filter(None, few)
    for met in _met(trial):
        yield from restretched(left.program, right.program, met)


def _met(trial: Recomputation) -> Iterator[tuple[int, int]]:
    """Yield the values of both sides that are compared where these part: what a use meets, or each of the outputs."""
    pair, (left, right) = trial.pairs[trial.at], trial.both
    if pair.left is None or pair.right is None:
        yield from zip(left.tape.outputs, right.tape.outputs, strict=False)
        return
    inputs = left.tape.nodes[pair.left.node].inputs, right.tape.nodes[pair.right.node].inputs
    active = [[n for n in numbers if n in run.program.active] for run, numbers in zip(trial.both, inputs, strict=True)]
    if all(active):
        yield active[0][0], active[1][0]


def _end(run: Run, pair: Pair, side: int) -> int:
    """Return the number of the operation after the one at which a pair meets its values."""
    use = (pair.left, pair.right)[side]
    return len(run.tape.nodes) if use is None else use.node + 1

"""Match edited tapes, where the plain ones do not match whole: of models that differ in a number or a sum, say."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from parity.derive.edits.activations import others
from parity.derive.edits.affine import MISSING
from parity.derive.edits.axes import reaxed
from parity.derive.edits.chosen import chosen_otherwise
from parity.derive.edits.edit import ELSEWHERE, Edit, Scope
from parity.derive.edits.functions import FUNCTION, without_functions, without_turns
from parity.derive.edits.layers import KIND as LAYER
from parity.derive.edits.numbers import Change, changes
from parity.derive.edits.picked_rows import repicked
from parity.derive.edits.rewiring import rewirings
from parity.derive.edits.tables import retabled
from parity.derive.edits.texts import MASK
from parity.derive.edits.weights import plain_weights
from parity.derive.limits import AGREEING_OUTPUTS, AGREEING_SUMS, CALL_WORK, EDIT_WORK, EXACT, TRIAL_WORK
from parity.derive.match.choices import Step
from parity.derive.match.match import Match, Walked, match, walked
from parity.derive.trace.outputs import difference, equal
from parity.derive.trace.program import Program, replayed
from parity.derive.trace.reason import OneSided
from parity.derive.trace.sides import Side
from parity.derive.trace.tape import Tape

from .alone import lengths_of
from .as_called import Matched
from .candidates import Candidate, Left

BEHIND = 48  # operations behind the last product that matched, among which activations are exchanged
PRODUCTS = 6  # before a match ends, in whose operations functions are left out


@dataclass
class Budget:
    """What a search with edits may still take.

    Args:
      work: what may still be computed, alike on every machine. stop: the thread's CPU time at which the search ends.
      cut: whether a limit ended it, or a match with an edit, though others were left.
    """

    work: int
    stop: float
    cut: bool = False

    def rest(self, edits: Iterable[Edit]) -> Iterator[Edit]:
        """Yield edits until a limit is reached."""
        for edit in edits:
            if self.work <= 0 or time.thread_time() >= self.stop:
                self.cut = True
                return
            yield edit

    def spend(self, best: Match) -> None:
        """Count what a match with an edit has taken."""
        self.work -= best.work
        self.cut = self.cut or best.cut


class Tried(NamedTuple):
    """A match of tapes, and the left uses in it."""

    best: Candidate
    tapes: tuple[Tape, Tape]
    uses: Walked


def edited(matched: Matched, stop: float) -> tuple[Candidate, bool]:
    """Match edited tapes, as long as the match goes further with one more edit.

    The proof and the list of differences are of the models as they are.

    Returns: also whether a limit ended this though other edits were left.
    """
    known, uses, best = matched
    budget = Budget(EDIT_WORK, stop)
    given = Tried(best, (known.program.tape, best.exact), uses)
    while given.best.found.failure and (further := _with_an_edit(given, known, budget)):
        given = further
    return given.best, budget.cut


def _with_an_edit(given: Tried, known: Left, budget: Budget) -> Tried | None:
    """Return the match with the first edit with which it goes further, or with a wider one; None if none does."""
    for edit in budget.rest(_edits(given)):
        new = _tried(edit, given, known, budget)
        if new and (_is_whole(new, given.best.found, edit) or _further(new.best, given.best.found, edit)):
            tried = [new, *(_tried(wider, given, known, budget) for wider in edit.wider)]
            return max((one for one in tried if one), key=lambda one: (one.best.depth, one.best.found.at))
    return None


def _tried(edit: Edit, given: Tried, known: Left, budget: Budget) -> Tried | None:
    """Match the tapes with one more edit; None if an operation refuses it, or parameters of a branch are lost."""
    best, lefts = given.best, known.elements
    tapes = edit.tapes(*given.tapes)
    budget.work -= CALL_WORK * len(tapes[edit.side].nodes)
    if _too_few_read(tapes, given.tapes, (known.side, best.side), edit):
        return None
    same = tapes[0] is given.tapes[0]
    try:
        source = given.uses.program if same else Program(tapes[0], lefts.arrays, [*known.program.inputs.values()])
        target = Program(tapes[1], best.side.parameters, best.inputs)
        own = given.uses if same else walked(source, lefts)
        hints, plain = best.hint and best.hint.map, best.found
        matched = match(own, target, best.side.parameters, budget.stop, hints, idle=TRIAL_WORK, plain=plain)
        budget.spend(matched)
    except Exception:  # an operation, which matching runs too, may raise anything for a number that it refuses
        return None
    if not matched.failure and len(matched.steps) < len(best.found.steps):  # the number hides what parameters meet
        return None
    gone = {*tapes[1].unread()} - {*given.tapes[1].unread()}
    is_zero = bool(gone) and edit.kind != MISSING and _are_zeros_as_good(gone, given, target)
    ranks = {name: best.side.parameters[name].ndim if edit.kind == MISSING or is_zero else None for name in gone}
    alone = {name: OneSided(edit.text, best.programs[1].use(name), rank, is_zero) for name, rank in ranks.items()}
    left_out = {**best.left_out, **alone}
    return Tried(best._replace(found=matched, programs=(own.program, target), left_out=left_out), tapes, own)


def _are_zeros_as_good(gone: Collection[str], given: Tried, without: Program) -> bool:
    """Tell whether zeros in place of right parameters have the effect of an edit that leaves them out."""
    best = given.best
    zeros = {name: np.zeros_like(best.side.parameters[name]) for name in gone}
    values = replayed(given.tapes[1], {**best.side.parameters, **zeros}, best.inputs)
    return equal(values, without.outputs)


def _too_few_read(tapes: Sequence[Tape], before: Sequence[Tape], sides: Sequence[Side], edit: Edit) -> bool:
    """Tell whether an edit leaves out a branch whose parameters the other side needs as partners of its own.

    Of parameters that are left out one by one only the other side's arrays of their lengths may be partners.
    """
    edited = edit.side
    reads = [side.parameters.keys() - set(tape.unread())
             for side, tape in ((sides[edited], before[edited]), *zip(sides, tapes, strict=True))]  # fmt: skip
    gone = reads[0] - reads[1 + edited] if edit.kind == MISSING else ()
    alike = {lengths_of(sides[edited].parameters[name]) for name in gone}
    sizes = [
        sum(
            array.size for array in (side.parameters[name] for name in names) if not alike or lengths_of(array) in alike
        )
        for side, names in zip((sides[edited], *sides), reads, strict=True)
    ]
    read_before, read = sizes[0], sizes[1:]
    return read[edited] < min(read_before, read[1 - edited])


def _edits(given: Tried) -> Iterator[Edit]:
    """Yield what may make the sides equal where the match ends: other operations near it and numbers, in turn."""
    best, tapes, uses = given
    idle = _idle(given)
    own = [seen.use.node for seen in uses.seen if best.found.steps and seen.names == best.found.steps[-1].left]
    products = [at for at, node in enumerate(best.programs[1].tape.nodes[: best.found.at]) if node.kind == "product"]
    firsts = max(own, default=0), max(products, default=0)
    programs = uses.program, best.programs[1]
    nodes = list(map(_near, programs, firsts))
    spans = [(some.start, first + BEHIND) for some, first in zip(nodes, firsts, strict=True)]
    scope = Scope(programs, firsts, spans, nodes, [program.tape.parameters for program in programs])
    moved = itertools.zip_longest(without_functions(scope), rewirings(scope))  # in turn, as there are many of these
    near = itertools.chain(
        without_turns(scope),
        others(scope, even=False),
        itertools.chain.from_iterable(moved),
        *(yields(scope) for yields in (retabled, repicked, reaxed, plain_weights, chosen_otherwise)),
        others(scope, even=True),
    )
    numbers = sorted(changes(*tapes), key=lambda edit: _distance(edit, tapes[edit.side], programs[edit.side], firsts))
    yield from (edit for pair in itertools.zip_longest(near, numbers) for edit in pair if edit and not idle(edit))


def _idle(given: Tried) -> Callable[[Edit], bool]:
    """Return what tells that an edit of a number or a function cannot let the match go further.

    It comes before a product that reads exactly what its partner does, or on the right behind the end of the match.
    """
    found, target = given.best.found, given.best.programs[1]
    ended = target.tape.nodes[found.at].inputs if found.at < len(target.tape.nodes) else None
    firm = [step for step in found.steps if step.kind == "product" and step.gap <= EXACT]
    nodes = {seen.names: seen.use.node for seen in reversed(given.uses.seen) if seen.use.kind == "product"}
    names, weights = {step.right for step in firm}, target.weights
    read = (
        {n for step in firm if step.left in nodes for n in given.uses.program.tape.nodes[nodes[step.left]].inputs},
        {
            n
            for node in target.tape.nodes[: found.at]
            if node.kind == "product" and any(weights.get(number) in names for number in node.inputs)
            for n in node.inputs
        },
    )

    def idle(edit: Edit) -> bool:
        if not (isinstance(edit, Change) or edit.kind in (FUNCTION, MASK)):
            return False
        tape = (given.uses.program.tape, target.tape)[edit.side]
        changed = {
            *edit.changed,
            *(given.tapes[edit.side].nodes[at].output for at in edit.nodes(given.tapes[edit.side])),
        }
        reaches = edit.side == 0 or ended is None or tape.depends(ended, changed)
        return not reaches or tape.depends(read[edit.side], changed)

    return idle


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


def _is_whole(new: Tried, before: Match, edit: Edit) -> bool:
    """Tell whether a match is complete.

    Where something moved, or a layer is left out, outputs have to agree: it may stand behind all else. Where a layer
    is, so do uses that the match without it has not reached: a branch in place of its sum is nearly the sum.
    """
    found = new.best.found
    if found.failure:
        return False
    if edit.kind == LAYER:
        known = {step.right: step.gap for step in before.steps}
        if any(step.kind != "add" and step.gap > max(AGREEING_SUMS, known.get(step.right, 0)) for step in found.steps):
            return False
    elif not edit.kind.endswith(ELSEWHERE):
        return True
    return found.outputs is None or difference(new.uses.program.outputs, found.outputs) <= AGREEING_OUTPUTS


def _further(after: Candidate, before: Match, edit: Edit) -> bool:
    """Tell whether a match with an edit goes further: where more than a number was edited, only on values that agree.

    One of them has to be computed behind another one: the first layers of any two models, or branches, read the same
    input. A left use that has a partner shows nothing: the edit makes the right model compute the same values again.
    """
    known, steps = after.found.steps[: len(before.steps)], after.found.steps[len(before.steps) :]
    if isinstance(edit, Change):
        return len(steps) > 1
    taken = {step.partner: step.right for step in reversed(known) if step.kind != "add" and step.partner >= 0}

    def agrees(step: Step) -> bool:
        return step.kind == "add" or (step.gap <= AGREEING_SUMS and taken.get(step.partner, step.right) == step.right)

    agreeing = [*itertools.takewhile(agrees, steps)]
    if edit.kind == MISSING:  # no value is taken from elsewhere
        return len(agreeing) > 1
    names, program = {step.right for step in agreeing if step.kind != "add"}, after.programs[1]
    weights = program.weights
    nodes = (node for node in program.tape.nodes if node.kind in ("product", "mul"))
    return program.tape.is_chained([node for node in nodes if any(weights.get(n) in names for n in node.inputs)])

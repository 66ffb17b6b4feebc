"""Run both models with an edit of one, and take the edit after which most of their values agree."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, KeysView, Sequence
from dataclasses import replace
from functools import cached_property

import numpy as np

from parity.derive.edits.affine import MISSING
from parity.derive.edits.edit import ELSEWHERE, SIDES, Edit
from parity.derive.edits.gates import OPERATION
from parity.derive.edits.norms import each_norm
from parity.derive.edits.numbers import Change
from parity.derive.edits.scores import KIND as ATTENTION
from parity.derive.edits.scores import SCORES, scale_scores
from parity.derive.edits.sums import BESIDE
from parity.derive.limits import CALL_WORK, RECOMPUTED
from parity.derive.match.symbols import Elements, Use
from parity.derive.prove.pairs import Mapped, Pair, Run, agreeing, first, pairs, reading, run
from parity.derive.trace.outputs import difference
from parity.derive.trace.program import replayed
from parity.derive.trace.sites import OWN, shown
from parity.derive.trace.tape import Array, Tape
from specs.notation.paths import normal

from .divergence import Divergence
from .excerpts import Excerpt, excerpt

SPAN = 2  # uses before the first that differs whose operations are searched for the cause
BEHIND = 6  # the same for an activation, of a gate whose other factor comes from products after it
NEARER = 0.9  # part of a difference that may remain of it with one of two causes removed
TERM = "term"  # the kind of edits of numbers that are added
MORE = 12  # edits that are tried after one that is right here: another one may be right in later places too

Sides = tuple[Run, Run]


class Recomputation:
    """Both models from where they part, with weights that the Table translates.

    Args:
      every: all pairs of uses. at: the first that parts.
      reader: the pair that reads the sum of a term that parts; None of another use. size: the relative difference where
        the sides part: of a term, that of its reader, as sides may group their sums in other ways.
      by_reader: whether an edit is right that leaves a term unlike, if what reads its sum agrees with it.
      sums: how many terms of sums are in a row from there on; terms: how many right before it, if it is one too.
      unlike: terms before it that meet other values, though what reads their sums agrees.
      nearest: the smallest differences that remain where the sides part, with the edits that leave them, by kind.
      work: what may still be computed; nothing more is tried once it is used up. given: how much it was.
    """

    def __init__(self, both: Sides, mapped: Mapped, every: Sequence[Pair], at: int, work: int):
        self.both, self.mapped, self.pairs, self.at = both, mapped, every, at
        self.work = self.given = work
        self.reader = reading(every[at], every[at + 1 :], both[1])
        self.size = (self.reader or every[at]).gap
        self.by_reader = False
        self.limit = max(RECOMPUTED, self.size * 1e-3)
        self.nearest: dict[str, tuple[float, Edit]] = {}
        kinds = [pair.right.kind if pair.right else "" for pair in every]
        self.sums = sum(1 for _ in itertools.takewhile(lambda kind: kind == "add", kinds[at:]))
        self.terms = (
            sum(1 for _ in itertools.takewhile(lambda kind: kind == "add", kinds[:at][::-1])) if self.sums else 0
        )
        last = next((k for k, pair in enumerate(every) if pair is self.reader), 0)
        self.ends = _ends(both, every[: max(at + self.sums + 2, last + 1)])
        self.unlike = {_which(pair) for pair in every[:at] if pair.parts}

    @cached_property
    def excerpts(self) -> list[Excerpt]:
        """Return both sides from a few uses before they part: the short one, which serves most edits, is the first."""
        parted, last = self.pairs[self.at], self.behind_sums
        few = (excerpt(self.both, self.firsts(uses), self.mapped, parted, last) for uses in (SPAN, BEHIND))
        return [part for part in few if part]

    @property
    def behind_sums(self) -> Pair:
        """Return the first pair that parts; of a term what reads its sum, as functions may begin with a sum."""
        behind = self.pairs[self.at :]
        return self.reader or behind[self.sums if self.sums < len(behind) else 0]

    @property
    def _gap(self) -> float:
        """Return the relative difference that an edit has to remove."""
        return self.size if self.by_reader else self.pairs[self.at].gap

    @property
    def spent(self) -> int:
        """Return how much has been computed."""
        return self.given - self.work

    @cached_property
    def early(self) -> Sides:
        """Return both sides, run up to where they part; to their outputs where that cannot be told."""
        if not self.ends:
            return self.both
        early = _until(self.both[0], self.ends[0]), _until(self.both[1], self.ends[1])
        if self._agreement(early, self.at) == self._gap:
            return early
        self.ends = []  # what the use meets is computed behind it
        return self.both

    def read(self) -> list[KeysView[int]]:
        """Return the constants of each side that are read up to where they part."""
        if not (self.ends and self.excerpts):
            return [side.program.tape.constants.keys() for side in self.early]
        parts = [side.tape.until(end) for side, end in zip(self.both, self.ends, strict=True)]
        return [part.live().constants.keys() for part in parts if part]

    def firsts(self, uses: int) -> list[int]:
        """Return of each side the first operation of the last `uses` that agree before the sides part."""
        some = self.pairs[max(0, self.at - uses) : self.at]
        nodes = [(pair.left.node, pair.right.node) for pair in some if pair.left and pair.right]
        return [min((both[side] for both in nodes), default=0) for side in (0, 1)]

    def best(self, edits: Iterable[Edit]) -> tuple[Divergence | None, Sides | None]:
        """Return the cause without which the sides agree where they part, and furthest after it; and both without it.

        (None, None) if they agree without none.
        """
        best: tuple[Divergence | None, Sides | None] = None, None
        most, left_over = 0, MORE
        for edit in itertools.takewhile(lambda _: self.work > 0, edits):
            left_over -= best[0] is not None
            early = self._early(edit)
            if self.limit < early < self.nearest.get(edit.kind, (self._gap * NEARER, None))[0]:
                self.nearest[edit.kind] = early, edit
            for each in (edit, *edit.wider) if early <= self.limit else ():
                sides = self.replaced(each)
                gap = self._agreement(sides, self.at)
                some = self._agreeing(sides) if sides and gap <= self.limit else []
                if sides and len(some) > most and not self._only_here(each, sides, some):
                    best = self.cause(each, gap), sides
                    most = len(some)
                if most == len(self.pairs) or (each is edit and gap > self.limit):  # one place does not suffice there
                    break
            if most == len(self.pairs) or (best[0] and not left_over):
                break
        return best

    def _only_here(self, edit: Edit, sides: Sides, agreeing: Sequence[Pair]) -> bool:
        """Tell whether an edit makes the sides agree where they part, though no use that tells agrees behind it.

        What moves has to agree behind its other place. A branch that reads an earlier value, which both sides have,
        tells nothing: all has to agree then. Where parameters have no partner, that of this use may be a wrong one,
        which reads the same value by chance. A term, or a product in place of the sum, may be where a function
        behind the compared sum begins.
        """
        if edit.kind == BESIDE:
            return len(agreeing) < len(self.pairs)
        uses = [(pair.left, pair.right)[edit.side] for pair in agreeing[self.at :]]
        tape, ends = sides[edit.side].tape, None in uses
        nodes = [tape.nodes[use.node] for use in uses if use and use.kind != "add"]
        if not (self.mapped.whole or isinstance(edit, Change) or edit.kind == MISSING):
            return not tape.is_chained(nodes)
        if edit.kind.endswith(ELSEWHERE):
            return not ends and not tape.depends(
                [n for node in nodes for n in node.inputs], edit.counted or edit.changed
            )
        return edit.kind in (TERM, OPERATION) and self.sums > 0 and len(agreeing) <= self.at + self.sums

    @cached_property
    def alone(self) -> list[list[str]]:
        """Return the parameters of each side that an edit may leave out; see _without_partner."""
        return _without_partner(*self.both, self.mapped)

    @cached_property
    def observable(self) -> list[list[str]]:
        """Return `alone` without parameters on which no output depends, as a key's bias under softmax.

        Leaving these out explains nothing. Those of the same name in all blocks are drawn anew at once.
        """
        return [self._observable(side, names) for side, names in zip(self.both, self.alone, strict=True)]

    def _observable(self, side: Run, names: Sequence[str]) -> list[str]:
        groups: dict[str, list[str]] = {}
        for name in names:
            groups.setdefault(normal(name), []).append(name)
        if len(groups) < 2:  # one that changes nothing makes nothing agree
            return list(names)
        random = np.random.default_rng(0)  # weights without a partner may be zeros, which hide what they multiply
        whole = dict(side.weights)

        def drawn(some: Iterable[str]) -> dict[str, Array]:
            return {name: random.uniform(0.5, 1.5, np.shape(whole[name])) for name in some}

        whole |= drawn(names)
        self.work -= (len(groups) + 1) * sum(side.program.costs)
        before = replayed(side.tape, whole, side.inputs)
        after = {kind: replayed(side.tape, whole | drawn(some), side.inputs) for kind, some in groups.items()}
        return [name for kind, some in groups.items() if difference(before, after[kind]) > RECOMPUTED for name in some]

    def replaced(self, edit: Edit) -> Sides | None:
        """Return both sides with an edit; None if an operation refuses what it reads there.

        None, too, if the edit leaves out a parameter with a partner: what reads that one is compared with nothing then.
        """
        old = self.both[edit.side].tape
        new = edit.tape(old)
        if not {*self.alone[edit.side], *old.unread()}.issuperset(new.unread()):
            return None
        return self._replaced(self.both, edit.side, new)

    def _replaced(self, sides: Sides, side: int, tape: Tape) -> Sides | None:
        """Return both sides, of which one runs another tape; None if an operation refuses what it reads there."""
        old = sides[side]
        self.work -= CALL_WORK * len(tape.nodes)
        try:
            new = run(tape, old.weights, old.inputs, side)
        except Exception:  # an operation that refuses the number, or the shape
            return None
        self.work -= sum(new.program.costs)
        return (new, sides[1]) if side == 0 else (sides[0], new)

    def cause(self, edit: Edit, rest: float) -> Divergence:
        """Return an edit as the cause of the difference, of which `rest` remains with it."""
        run, pair, what, kind = self.both[edit.side], self.pairs[self.at], edit.what, edit.kind
        if kind == "factor" and scale_scores(run.program, edit.nodes(run.tape)):
            what, kind = f"{SCORES} have {what}", ATTENTION
        of, size = self._behind_scale(edit) or (pair, max(self.size, self._before_norm(edit)))
        sites = self.both[0].site(of.left), self.both[1].site(of.right)
        return Divergence(
            *sites, size, what, kind=kind, whole=True, times=edit.times, changed=SIDES[edit.side],
            places=self._places(edit), rest=rest, fault=edit.fault, both=edit.both, named=edit.named,
            more=edit.more, use=self.both[1].kind_and_names(pair.right),
        )  # fmt: skip

    def _behind_scale(self, edit: Edit) -> tuple[Pair, float] | None:
        """Return (what reads what an edit changes, the difference there), if a product with a scale before it parts.

        All factors in a row are compared at once, so that one behind a norm shows at the norm's scale. The edited side
        agrees with the other one, so that the difference is that of this side without the edit and with it.
        """
        side, whole = edit.side, self.both[edit.side]
        tape, nodes, use = whole.tape, edit.counted_nodes(whole.tape), self._uses(self.at)[edit.side]
        if use is None or use.kind != "mul" or not nodes or min(nodes) <= use.node:
            return None
        made = {tape.nodes[at].output for at in nodes}
        for at in range(self.at + 1, len(self.pairs)):
            reader = self._uses(at)[side]
            if tape.depends(read := _read(tape, reader and tape.nodes[reader.node].output), made):
                edited = edit.tape(tape)
                other = _read(edited, reader and tape.nodes[reader.node].output)
                values = [_results(tape, read, whole), _results(edited, other, whole)]
                return self.pairs[at], difference(*(values[::-1] if side else values))
        return None

    def _before_norm(self, edit: Edit) -> float:
        """Return the difference of what a norm reads, where a factor before it differs that it hides; else 0."""
        side, whole = edit.side, self.both[edit.side]
        use = (self.behind_sums.left, self.behind_sums.right)[side]
        if edit.kind != "factor" or use is None:
            return 0.0
        reader, tape = whole.tape.nodes[use.node], whole.tape
        inside = ((norm.entry, {node.output for node in norm.nodes}) for norm in each_norm(whole.program))
        entry, own = next(
            (some for some in inside if some[1].intersection([reader.output, *reader.inputs])), (-1, {-1})
        )
        if entry < 0 or not own.isdisjoint(tape.nodes[at].output for at in edit.nodes(tape)):
            return 0.0
        values = [_results(some, [entry], whole) for some in (tape, edit.tape(tape))]
        return difference(*(values[::-1] if side else values))

    def _uses(self, at: int) -> tuple[Use | None, Use | None]:
        return self.pairs[at].left, self.pairs[at].right

    def _places(self, edit: Edit) -> tuple[str, ...]:
        """Name the module of each difference that an edit removes; without one, that of the first use that reads it."""
        run = self.both[edit.side]
        nodes, uses = run.tape.nodes, [(use.node, run.site(use)) for use in run.uses]

        def reader(at: int) -> str:
            reading = (site for node, site in uses if node >= at)
            reads = (run.tape.depends([nodes[node].output], {nodes[at].output}) for node, _ in uses if node >= at)
            return next(itertools.compress(reading, reads), OWN)

        return tuple(shown(nodes[at].site) or reader(at) for at in edit.counted_nodes(run.tape))

    def _early(self, edit: Edit) -> float:
        """Return the difference where the sides part, of one that is run no further; 0 where that cannot be told."""
        whole = self.both[edit.side]
        for few in self.excerpts:
            if (tape := few.edited(edit, whole)) is not None:
                return self._agreement(self._replaced(few.sides, edit.side, tape), few.at, cut=True)
        early = self.early  # before the ends, which it may void
        part = edit.tape(whole.tape).until(self.ends[edit.side]) if self.ends else None
        return self._agreement(self._replaced(early, edit.side, part), self.at, cut=True) if part else 0.0

    def reach(self, sides: Sides) -> int:
        """Return how many pairs of uses of both sides agree before the first that does not."""
        return len(self._agreeing(sides))

    def _agreeing(self, sides: Sides) -> list[Pair]:
        """Return the pairs of uses of both sides before the first that meets other values."""
        return agreeing(pairs(*sides, self.mapped), sides[1])

    def _agreement(self, sides: Sides | None, at: int, cut: bool = False) -> float:
        """Return the relative difference of the use where the sides parted; infinity where they part before that place.

        Terms of one sum may be compared in another order, as where an edit leaves out the factor of some of them. An
        edit may also join them to one term, as of tables that are added: then what follows tells how far sides differ.

        Args:
          at: the number of that pair of uses.
          cut: whether the sides are run no further, so that 0 says that nothing can be told.
        """
        use, gap, last = self.pairs[self.at].right, math.inf, math.inf
        is_term = use is not None and use.kind == "add"
        every = pairs(*sides, self.mapped) if sides else iter(())
        parted = _which(self.pairs[self.at])
        before = sum(_which(pair) == parted for pair in self.pairs[self.at - at : self.at])
        for k, pair in enumerate(every):
            same = use is None or _which(pair) == parted
            before -= same
            if same and (before < 0 or k >= at - self.terms):  # an edit may join terms before it, or leave them out
                gap = pair.gap
                if self.by_reader and sides and gap > self.limit and (reader := reading(pair, every, sides[1])):
                    return reader.gap
            if k >= at and gap < math.inf:
                return gap
            if pair.parts and _which(pair) not in self.unlike:
                return last
            if k >= at and is_term and (pair.right is None or pair.right.kind != "add"):
                last = pair.gap
        return 0.0 if cut and sides else last


def _without_partner(left: Run, right: Run, mapped: Mapped) -> list[list[str]]:
    """List the parameters of each side of which no element has a partner that the other side reads."""
    known = marked(left, right, mapped)
    alone = [[name for name in elements.names if not elements.part(marks, name).any()] for elements, marks in known]
    dead = [{*side.tape.unread()} for side in (left, right)]
    if not any(dead):
        return alone
    pairs = [
        (owner, name)
        for name in right.elements.names
        for owner in left.elements.owners(right.elements.part(mapped.numbers, name))
    ]
    for side in (0, 1):
        read = {pair[side] for pair in pairs if pair[1 - side] not in dead[1 - side]}
        alone[side] += [*dict.fromkeys(pair[side] for pair in pairs if pair[side] not in read | dead[side])]
    return alone


def marked(left: Run, right: Run, mapped: Mapped) -> list[tuple[Elements, Array]]:
    """Return the elements of each side, and which of them have a partner."""
    return [(left.elements, mapped.owned(left.elements)), (right.elements, mapped.numbers != 0)]


def _which(pair: Pair) -> tuple[str, int]:
    """Return what tells the use of a pair from those of other parameters."""
    return (pair.right.kind, first(pair.right.ids)) if pair.right else ("", 0)


def _ends(sides: Sides, some: Sequence[Pair]) -> list[int]:
    """Return for each side the value up to which it has to run to compare these uses; [] if that is its outputs."""
    uses = [(pair.left, pair.right) for pair in some if pair.left and pair.right]
    if len(uses) < len(some):
        return []
    return [side.tape.nodes[max(use[k].node for use in uses)].output for k, side in enumerate(sides)]


def _read(tape: Tape, made: int | None) -> list[int]:
    """Return what the operation reads that makes a value; the outputs for None."""
    return next((list(node.inputs) for node in tape.nodes if node.output == made), tape.outputs)


def _results(tape: Tape, values: list[int], side: Run) -> list[Array]:
    """Return values of a tape that runs on the weights and inputs of a side."""
    return run(replace(tape, outputs=values), side.weights, side.inputs, side.side).program.outputs


def _until(side: Run, end: int) -> Run:
    """Return a side that was run up to a value."""
    part = side.tape.until(end)
    assert part is not None
    return run(part, side.weights, side.inputs, side.side)

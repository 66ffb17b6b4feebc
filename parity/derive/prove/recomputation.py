"""Run both models with an edit of one, and take the edit after which most of their values agree."""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from specs.numerals import short

from ..edits.edit import SIDES, Edit
from ..limits import RECOMPUTED
from ..trace.sites import OWN
from ..trace.tape import Tape
from .pairs import Mapped, Pair, Run, first, pairs, run

MORE = 12  # edits that are tried after one that is right here: another one may be right in later places too


class Cause(NamedTuple):
    """Why values part; see Divergence.

    Args:
      sides: both models with the cause removed; None where they cannot be run on so.
    """

    text: str = ""
    kind: str = ""
    sides: tuple[Run, Run] | None = None
    times: int = 1
    changed: str = ""
    places: tuple[str, ...] = ()


class Recomputation:
    """Both models from where they part, with weights that the Table translates.

    Args:
      every: all pairs of uses. at: the first that parts.
      stop: the thread's CPU time from which nothing more is tried.
    """

    def __init__(self, both: tuple[Run, Run], mapped: Mapped, every: Sequence[Pair], at: int, stop: float):
        self.both, self.mapped, self.pairs, self.at, self.stop = both, mapped, every, at, stop
        self.limit = max(RECOMPUTED, every[at].gap * 1e-3)
        self.ends = _ends(both, every[: at + 2])
        # both sides, run up to where they part
        self.early = (_until(both[0], self.ends[0]), _until(both[1], self.ends[1])) if self.ends else both
        if self.ends and self._agreement(self.early) != every[at].gap:  # what the use meets is computed behind it
            self.ends, self.early = [], both

    def best(self, edits: Iterable[Edit]) -> Cause:
        """Return the edit with which the sides agree where they part, and furthest after it; an empty one if none."""
        best, most, left_over = Cause(), 0, MORE
        for edit in itertools.takewhile(lambda _: time.thread_time() < self.stop, edits):
            left_over -= bool(best.text)
            for one in (edit, *edit.wider) if self._early(edit) <= self.limit else ():
                sides = _replaced(self.both, one.side, one.tape(self.both[one.side].tape))
                gap = self._agreement(sides)
                agreeing = _agreeing(sides, self.mapped) if gap <= self.limit else 0
                if agreeing > most:
                    same = f"they agree to {short(gap)}" if gap else "they are equal"
                    text = f"{one.text} (recomputed so, {same})"
                    best = Cause(text, one.kind, sides, one.times, SIDES[one.side], self._places(one))
                    most = agreeing
                elif one is edit and gap > self.limit:  # one place alone does not make the sides equal there
                    break
            if most == len(self.pairs) or (best.text and not left_over):
                break
        return best

    def _places(self, edit: Edit) -> tuple[str, ...]:
        """Name each place that an edit changes: its module, or the next use of a parameter where there is none."""
        run = self.both[edit.side]
        uses = [(use.node, run.site(use)) for use in run.uses]
        return tuple(
            run.tape.nodes[at].site or next((site for node, site in uses if node >= at), OWN)
            for at in edit.nodes(run.tape)
        )

    def _early(self, edit: Edit) -> float:
        """Return the difference where the sides part, of one that is run no further; 0 where that cannot be told."""
        part = edit.tape(self.both[edit.side].tape).until(self.ends[edit.side]) if self.ends else None
        return self._agreement(_replaced(self.early, edit.side, part)) if part else 0.0

    def _agreement(self, sides: tuple[Run, Run] | None) -> float:
        """Return the relative difference where the sides parted; infinity where they part before that place."""
        use = self.pairs[self.at].right
        for k, pair in enumerate(pairs(*sides, self.mapped)) if sides else ():
            same = use is None or (pair.right is not None and pair.right.kind == use.kind
                                   and first(pair.right.ids) == first(use.ids))  # fmt: skip
            if k >= self.at and same:
                return pair.gap
            if pair.parts:
                break
        return math.inf


def _agreeing(sides: tuple[Run, Run] | None, mapped: Mapped) -> int:
    """Count the pairs of uses before the first that meets other values."""
    every = pairs(*sides, mapped) if sides else iter(())
    return sum(1 for _ in itertools.takewhile(lambda pair: not pair.parts, every))


def _ends(sides: tuple[Run, Run], some: Sequence[Pair]) -> list[int]:
    """Return for each side the value up to which it has to run to compare these uses; [] if that is its outputs."""
    uses = [(pair.left, pair.right) for pair in some if pair.left and pair.right]
    if len(uses) < len(some):
        return []
    return [side.tape.nodes[max(use[k].node for use in uses)].output for k, side in enumerate(sides)]


def _until(side: Run, end: int) -> Run:
    """Return a side that was run up to a value."""
    part = side.tape.until(end)
    assert part is not None
    return run(part, side.weights, side.inputs, side.side)


def _replaced(sides: tuple[Run, Run], side: int, tape: Tape) -> tuple[Run, Run] | None:
    """Return both sides, of which one runs another tape; None if an operation refuses what it reads there."""
    old = sides[side]
    try:
        new = run(tape, old.weights, old.inputs, side)
    except Exception:  # an operation that refuses the number, or the shape
        return None
    return (new, sides[1]) if side == 0 else (sides[0], new)

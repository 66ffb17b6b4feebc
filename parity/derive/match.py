"""Match the parameters of two tapes by the values that meet them.

The left model's values are all known: each use of a parameter is listed with what it meets. The right tape is walked
beside it. Everything before a use agrees, so the values that reach it have been seen on the left; the use that met them
is its partner, and the columns of values tell which element corresponds to which. Where several partners fit, the
likeliest is tried first, and a dead end later goes back to the next.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np

from . import columns, roles
from .tape import Array
from .walk import Elements, Program, Similarity, Use, walk

LIMIT = 0.05  # distance of columns, relative to their scale, beyond which nothing is a partner
MARGIN = 30  # how much farther than the nearest another partner may be
EXACT = 1e-9  # distances below are rounding


class DeadEnd(Exception):
    """No partner fits a use."""


class Seen:
    """A use on the left, with its columns and groups computed once."""

    def __init__(self, use: Use, program: Program, elements: Elements):
        self.use, self.program = use, program
        self.name = " ".join(elements.owners(use.ids))

    @cached_property
    def statistics(self) -> Array:
        return _statistics(self.use, self.program)[1]

    @cached_property
    def numbers(self) -> Array:
        return _statistics(self.use, self.program)[0]

    @cached_property
    def groups(self) -> list[roles.Group]:
        return _groups(self.use, self.program)

    @cached_property
    def pattern(self) -> Array:
        return _pattern(self.use.ids)


def _statistics(use: Use, program: Program) -> tuple[Array, Array]:
    """(numbers, statistics): of a product's columns, numbered in order; else of the elements."""
    if use.kind != "product":
        return columns.of_elements(use.x, use.ids)
    node = program.tape.nodes[use.node]
    taps = program.shapes[node.inputs[1]][2:] if node.window else ()
    found = columns.of_product(use.x, node.window, taps)
    return np.arange(len(found)), found


def _groups(use: Use, program: Program) -> list[roles.Group]:
    count = use.ids.shape[2]
    if len(use.ids) > 1:
        return [roles.Group("batch", np.arange(count), np.arange(count)[:, None])]
    return roles.groups(program, use.node, use.flipped)


def _pattern(ids: Array) -> Array:
    """Each element replaced by its rank of first appearance: alike for equal repetitions."""
    flat = np.ravel(ids)
    _, first, inverse = np.unique(flat, return_index=True, return_inverse=True)
    rank = np.empty(len(first), np.int64)
    rank[np.argsort(first)] = np.arange(len(first))
    return rank[inverse.ravel()]


def _first(ids: Array, pattern: Array) -> Array:
    """The distinct elements in order of appearance."""
    return np.ravel(ids)[np.unique(pattern, return_index=True)[1]]


class Step(NamedTuple):
    """A use on the right and its partner.

    Args:
      gap: the distance of what they meet.
      choice, choices: which of the possible partners was taken.
    """

    kind: str
    left: str
    right: str
    left_site: str
    right_site: str
    gap: float
    choice: int
    choices: int


@dataclass
class Match:
    """What matching found.

    Args:
      map: the left element of each right one; 0 where none was found.
      failure: the first use without a partner, "" if all have one.
    """

    map: Array
    steps: list[Step] = field(default_factory=list)
    failure: str = ""
    outputs: list[Array] | None = None


def match(left: Program, right: Program, lefts: Elements, right_arrays: Mapping[str, Array], seconds: float) -> Match:
    """Find the left element of each right element.

    Args:
      right_arrays: arrays of the right side's shapes.
      seconds: after this time the deepest attempt is returned.
    """
    uses: list[Seen] = []
    walk(left, lefts, lambda use: uses.append(Seen(use, left, lefts)))
    start, choices, best, alike = time.monotonic(), list[int](), None, Similarity()
    while True:
        attempt = _Attempt(uses, right, lefts, Elements(right_arrays, known=False), choices, alike)
        found = attempt.run()
        if best is None or len(found.steps) > len(best.steps) or not found.failure:
            best = found
        if not found.failure or time.monotonic() - start > seconds:
            return best
        taken = [(step.choice, step.choices) for step in found.steps]
        while taken and taken[-1][0] + 1 >= taken[-1][1]:
            taken.pop()
        if not taken:
            return best
        choices = [choice for choice, _ in taken[:-1]] + [taken[-1][0] + 1]


class _Attempt:
    """One walk of the right tape with given choices."""

    def __init__(
        self,
        uses: list[Seen],
        program: Program,
        lefts: Elements,
        rights: Elements,
        choices: Sequence[int],
        alike: Similarity,
    ):
        self.uses, self.program, self.lefts, self.rights, self.alike = uses, program, lefts, rights, alike
        self.choices = choices
        self.map = np.zeros(len(rights.values), np.int64)
        self.owned = np.zeros(len(lefts.values), bool)
        self.steps: list[Step] = []

    def run(self) -> Match:
        try:
            outputs = walk(self.program, self.rights, self.meet)
            return Match(self.map, self.steps, "", outputs)
        except DeadEnd as error:
            return Match(self.map, self.steps, str(error))

    def meet(self, use: Use) -> None:
        wanted = use.ids[use.ids > 0].astype(np.int64)
        if (self.map[wanted] > 0).all():
            return
        if use.kind == "product":
            self._product(use)
        elif use.kind == "place":
            self._place(use)
        else:
            self._elementwise(use)

    def _assign(self, right: Array, left: Array) -> None:
        right, left = np.ravel(right).astype(np.int64), np.ravel(left).astype(np.int64)
        known = right > 0
        right, left = right[known], left[known]
        self.map[right] = left
        self.owned[left[left > 0]] = True
        self.rights.values[right] = np.where(left > 0, self.lefts.values[left], np.nan)

    def _choose(self, use: Use, options: list[tuple[Any, float, Seen, Any]], what: str) -> tuple[Seen, Any]:
        """Take the likeliest of (order, gap, partner, detail), or the next after a dead end."""
        site = self.program.tape.nodes[use.node].site
        name = " ".join(self.rights.owners(use.ids))
        if options:
            closest = min(option[1] for option in options)
            options = [option for option in options if option[1] <= max(MARGIN * closest, EXACT)]
            options.sort(key=lambda option: option[0])
        if not options:
            raise DeadEnd(f"{name}: no partner of its {use.kind}{what} at {site or 'the top'}")
        at = len(self.steps)
        choice = self.choices[at] if at < len(self.choices) else 0
        _, gap, seen, detail = options[choice]
        left_site = seen.program.tape.nodes[seen.use.node].site
        self.steps.append(Step(use.kind, seen.name, name, left_site, site, gap, choice, len(options)))
        return seen, detail

    def _free(self, seen: Seen, ids: Array) -> bool:
        numbers = ids[ids > 0].astype(np.int64)
        return not self.owned[numbers].all()

    def _order(self, use: Use, seen: Seen, *first: Any) -> tuple[Any, ...]:
        name = " ".join(self.rights.owners(use.ids))
        return (*first, seen.use.symbol.plain != use.symbol.plain, -self.alike(seen.name, name))

    def _product(self, use: Use) -> None:
        found = _statistics(use, self.program)[1]
        batches, k = use.ids.shape[:2]
        gaps = {}
        for seen in self._of_kind("product"):
            if seen.use.ids.shape[:2] == (batches, k):
                gap = columns.distance(found, seen.statistics)
                if gap < LIMIT:
                    gaps[seen] = gap
        for group in _groups(use, self.program):
            if (self.map[use.ids[:, :, group.columns].astype(np.int64)] > 0).all():
                continue
            options = []
            for seen, gap in gaps.items():
                for other in seen.groups:
                    ids = seen.use.ids[:, :, other.columns]
                    if len(other.columns) == len(group.columns):
                        first = (not self._free(seen, ids), gap > EXACT and gap, other.role != group.role)
                        order = self._order(use, seen, *first[:2], other.grid != group.grid, first[2])
                        options.append((order, gap, seen, other))
            seen, other = self._choose(use, options, f" ({group.role})")
            self._align_product(use, seen, group, other, found)

    def _align_product(self, use: Use, seen: Seen, group: roles.Group, other: roles.Group, found: Array) -> None:
        rows = columns.matched(found, seen.statistics)
        if rows is None:
            raise DeadEnd(f"{' '.join(self.rights.owners(use.ids))}: its columns and those of {seen.name} differ")
        right, left = use.ids[:, :, group.columns], seen.use.ids[:, :, other.columns]
        flat = left.reshape(-1, left.shape[2])[rows]
        self._assign(right.reshape(-1, right.shape[2]), flat)

    def _elementwise(self, use: Use) -> None:
        numbers, found = _statistics(use, self.program)
        numbers = numbers.astype(np.int64)
        options: list[tuple[Any, float, Seen, Any]] = []
        for seen in self._of_kind(use.kind):
            if len(seen.statistics) >= len(found):
                part = len(seen.statistics) > len(found)
                gap = columns.distance(found, seen.statistics, one_way=part)
                if gap < LIMIT:
                    order = self._order(use, seen, not self._free(seen, seen.numbers), part, gap > EXACT and gap)
                    options.append((order, gap, seen, None))
        if not options and (pool := [seen for seen in self._of_kind(use.kind) if self._free(seen, seen.numbers)]):
            statistics = np.concatenate([seen.statistics for seen in pool])
            gap = columns.distance(found, statistics, one_way=True)
            if gap < LIMIT:  # several on the left, one on the right
                every = np.concatenate([seen.numbers for seen in pool])
                options.append(((0,), gap, pool[0], (every, statistics)))
        seen, pooled = self._choose(use, options, "")
        left, statistics = pooled or (seen.numbers, seen.statistics)
        index = columns.matched(found, statistics)
        if index is None:
            raise DeadEnd(f"{' '.join(self.rights.owners(use.ids))}: its elements and those of {seen.name} differ")
        self._assign(numbers, left[index])

    def _place(self, use: Use) -> None:
        """Parameters whose value is needed as it is correspond by how often each element is repeated."""
        pattern = _pattern(use.ids)
        shares = np.bincount(pattern) / len(pattern)
        options = []
        for seen in self._of_kind("place"):
            same = np.array_equal(seen.pattern, pattern)
            if same or np.array_equal(np.bincount(seen.pattern) / len(seen.pattern), shares):
                order = self._order(use, seen, not self._free(seen, seen.use.ids), not same)
                options.append((order, 0.0, seen, None))
        seen, _ = self._choose(use, options, "")
        self._assign(_first(use.ids, pattern), _first(seen.use.ids, seen.pattern))

    def _of_kind(self, kind: str) -> Iterator[Seen]:
        return (seen for seen in self.uses if seen.use.kind == kind)

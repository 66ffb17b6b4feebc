"""Attempt to find the left partner of each use on the right, and record the choices that were taken."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cached_property
from typing import Any, TypeVar

import numpy as np

from convert.errors import command_or_call
from parity.derive.limits import ELEMENT_WORK, EXACT, MEET_WORK, PARTNER
from parity.derive.trace.sites import place
from parity.derive.trace.tape import Array

from . import columns, uses
from .advice import OPERATIONS, Stop, compare
from .alike_rows import AlikeRows
from .choices import DeadEnd, Option, every
from .products import Products
from .symbols import Use

Result = TypeVar("Result")


class Attempt(Products):
    """A walk of the right tape that finds a partner for each use, and can step back to its choices."""

    def __init__(self, *args: Any):
        super().__init__(*args)
        self._alike_rows = AlikeRows(self.program, self.rights)

    def run(self) -> list[Array]:
        """Go on to the end and return the outputs. Raises: DeadEnd."""
        return self.walk.run()

    def ended(self, result: Result) -> Result:
        """Release what the walk refers to, which refers to this attempt, and return the result."""
        del self.walk
        return result

    def meet(self, use: Use) -> Array | None:
        """Find the elements of a use, and their values; for a use where values part, return those of the left."""
        self._begin()
        self.walk.work += MEET_WORK + ELEMENT_WORK * np.size(use.x)
        if not self._orphan(use):
            try:
                other = self._met(use)
                if use.kind == "product" and self.limit <= EXACT and self.walk.at not in self.excused | self.rough:
                    self.confirmed.add(self.walk.at)
                return other
            except DeadEnd:
                if self.walk.at not in self.passed:
                    raise
        self._pass_over(use)
        return None

    def _pass_over(self, use: Use) -> None:
        """Leave a use without a partner: its elements get values with which it changes as little as possible."""
        self.lost[self.walk.at] = len(self.steps)
        self._partners.pop(use.node, None)  # what was tried in vain
        numbers = np.asarray(use.ids)
        square = use.kind == "product" and len(numbers) == 1 and numbers.shape[1] == numbers.shape[2]
        if square:
            values = np.eye(numbers.shape[1])[None]
        elif use.kind == "product":
            values = np.random.default_rng(0).standard_normal(numbers.shape) / np.sqrt(numbers.shape[1])
        else:
            values = np.full(numbers.shape, float(use.kind == "mul"))
        self.rights.lend(numbers, values)

    def _met(self, use: Use) -> Array | None:
        if use.kind == "product":
            self._sums.note(use.node, use.ids)
        if every(self.map, use.ids):
            if use.kind == "product":
                self._alike_rows.order(use, self._of_as_many_rows(use), self.map)
                if self.walk.at not in self.excused:
                    self._verify(use)
            return None
        if use.x is not None and use.x.size and np.isnan(use.x).all():  # nothing can be told from such values
            names = self.rights.owners(use.ids)
            if any(np.isfinite(output).any() for output in self.program.outputs):  # those of the model's own weights
                why = "what it reads depends on parameters that have no partner on the left"
                node = self.program.tape.nodes[use.node]
                raise DeadEnd(Stop(tuple(names), why, compare(use.kind, self.program.patches(node))))
            remedy = command_or_call("--left-weights CKPT takes those of a checkpoint", "left_weights= takes others")
            why = f"its {OPERATIONS[use.kind]} reads nothing but NaN with random weights: {remedy}"
            raise DeadEnd(Stop(tuple(names), why))
        if use.kind == "product":
            other = self._product(use)
            self._alike_rows.note(use)
            return other
        if use.kind == "place":
            self._place(use)
        else:
            self._elementwise(use)
        return None

    def _of_as_many_rows(self, use: Use) -> list[uses.Seen]:
        """Return the left products that have as many rows."""
        return [seen for seen in self._of_kind("product") if seen.use.ids.shape[:2] == use.ids.shape[:2]]

    def _verify(self, use: Use) -> None:
        """Check that a product of known elements meets values that the left has seen: else a choice was wrong."""
        found, pool = uses.statistics(use, self.program)[1], self._of_as_many_rows(use)
        gap = min(uses.distances(found, pool).values(), default=np.inf)
        window = self.program.tape.nodes[use.node].window
        if gap > self.limit and (window or not uses.partial(use, pool)):
            if gap > PARTNER and self._composed(use, found, pool):
                return
            names = self.rights.owners(use.ids)
            where = place(self.program.tape.nodes[use.node].site, names)
            why = f"it is used again, at {where}, on values that no operation on the left reads"
            before = compare(use.kind, self.program.patches(self.program.tape.nodes[use.node]))
            raise DeadEnd(Stop(tuple(names), why, before), gap, self.walk.at)

    def _composed(self, use: Use, found: Array, pool: list[uses.Seen]) -> bool:
        """Tell whether the left side has the same product but for a factor, or one of more or of fewer inputs."""
        scaled = self.scaling and any(columns.proportional(found, seen.statistics) <= EXACT for seen in pool)
        return scaled or any(self._contained(use, found, wider, self._of_kind("product")) for wider in (True, False))

    def _place(self, use: Use) -> None:
        """Place parameters whose value is needed as it is, by how often each of their elements is repeated."""
        pattern, options = uses.pattern(use.ids), self._places(use, self._of_kind("place"))
        if not options:
            for parts in uses.slices(use):
                if all(self._places(part, self._of_kind("place"), True) for part in parts):
                    for part in parts:
                        self._place(part)
                    return
            options = self._places(use, self._slices, True)
        seen, same = self._choose(use, options)
        if same:
            self._assign(uses.first_of(use.ids, pattern), uses.first_of(seen.use.ids, seen.pattern))
            self._add_bare(use)
        else:  # read in another order, as by steps of time
            self._assign(np.unique(use.ids), np.unique(seen.use.ids))

    def _places(self, use: Use, pool: Iterable[uses.Seen], exact: bool = False) -> list[Option]:
        """Return the left parameters of which elements are read as often.

        Args:
          exact: whether only those are that are read in the same order, and have no partner yet.
        """
        pattern, shares, options = uses.pattern(use.ids), uses.shares(use.ids), list[Option]()
        beside = {seen.use.node for seen, _ in self._partners.get(use.node, [])}  # the same function of parameters
        for seen in pool:
            same, free = np.array_equal(seen.pattern, pattern), self._free(seen.use.ids)
            if (same and (free or not exact)) or (not exact and np.array_equal(seen.shares, shares)):
                if any(_equal(seen, option.partner) for option in options):
                    continue  # rows that several products read are one option: trying each again tells nothing
                elsewhere = seen.use.node not in beside
                options.append(Option(self._order(use, seen, not free, elsewhere, not same), 0.0, seen, same))
        return options

    @cached_property
    def _slices(self) -> list[uses.Seen]:
        """Return the left parameters that are read as they are, position by position of an axis."""
        every = [part for seen in self._of_kind("place") for parts in uses.slices(seen.use) for part in parts]
        program = self.seen[0].program if self.seen else self.program
        return [uses.Seen(part, program, self.lefts) for part in every]


def _equal(one: uses.Seen, other: uses.Seen) -> bool:
    """Tell whether two uses read the same elements in the same order, by operations that show their values alike."""
    plain = one.use.symbol.plain == other.use.symbol.plain
    return one.names == other.names and plain and np.array_equal(one.use.ids, other.use.ids)

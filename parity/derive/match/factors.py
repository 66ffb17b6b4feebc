"""Match the elements of factors and terms by what each of them meets."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from functools import cached_property

import numpy as np

from parity.derive.limits import EXACT, MARGIN, PARTNER
from parity.derive.trace.sites import listed
from parity.derive.trace.tape import Array

from . import columns, uses
from .advice import Stop, compare
from .biases import Biases, bias, products
from .choices import DeadEnd, Option, Term
from .following import FOLLOWED
from .symbols import Use

ALIKE = 1e-3  # relative difference of the sizes of what two terms of a sum were first added to
WITHIN = 1e-4  # distance from the nearest of many elements beyond which these are others
SMALL = 1 << 14  # elements of a product that are compared one by one with those of elementwise products


def distinct(options: list[Option], key: Callable[[Option], Hashable]) -> list[Option]:
    """Return the likeliest one of each set of options that are alike: uses of the same elements, terms of one sum."""
    best: dict[Hashable, Option] = {}
    for option in sorted(options, key=lambda option: option.order):
        best.setdefault(key(option), option)
    return list(best.values())


def unpaired(names: Sequence[str], seen: uses.Seen) -> DeadEnd:
    """Return the dead end of parameters that read what a use on the left reads, in no order that can be told."""
    what = f"it reads the values that {listed(seen.names)} reads on the left, but not in the same order or number"
    return DeadEnd(Stop(tuple(names), what, compare(seen.use.kind)), FOLLOWED)


class Factors(Biases):
    """What an attempt does where a parameter is multiplied or added element by element."""

    def _elementwise(self, use: Use) -> None:
        self._zeros_for_bare(use)
        numbers, found = uses.statistics(use, self.program)
        new = self.map[numbers.astype(np.int64)] == 0  # a part of a vector may have been read before all of it
        if new.any():
            self._factors(use, numbers[new].astype(np.int64), found[new])

    def _factors(self, use: Use, numbers: Array, found: Array) -> None:
        """Match elements by what each of them meets."""
        terms = self._terms.setdefault(use.group[:2], [])
        partners = [term.partner for term in terms]
        pool = [seen for seen in self._of_kind(use.kind) if seen not in partners]
        options = self._alike(use, pool, numbers, found)
        if not terms and not any(option.gap <= EXACT for option in options) and self._without_bias(use, numbers, found):
            return
        if not options and self._without_bias_of_zeros(use, numbers):
            return
        options = options or self._of_several(pool, found)
        if self.walk.at in self.rough and all(option.gap > EXACT for option in options):
            options = []
        alone = use.kind == "mul" or not terms
        if alone and not options and (followed := self._following_elements(use, numbers, found)):
            self._assign(numbers, self._choose(use, followed, np.inf)[1])
            return
        near = [option for option in options if option.gap <= self.limit]
        if use.kind == "add" and terms and not any(self._free(option.partner.numbers) for option in near):
            self._assign_zeros(numbers, found, terms)
            return
        seen, pooled = self._choose(use, options)
        left, statistics = pooled or (seen.numbers, seen.statistics)
        if statistics is not None and len(numbers) < len(left):
            rest = ~self.owned[left.astype(np.int64)]
            if rest.sum() == len(numbers):  # the others were read before, on both sides
                left, statistics = left[rest], statistics[rest]
        index = np.arange(len(numbers)) if statistics is None else columns.matched(found, statistics)
        if index is None:
            raise unpaired(self.rights.owners(use.ids), seen)
        self._assign(numbers, left[index])
        if not pooled:
            terms.append(Term(seen, numbers, found))
            if use.kind == "add" and not use.group[2]:
                self._add_terms(terms)

    def _alike(self, use: Use, pool: list[uses.Seen], numbers: Array, found: Array) -> list[Option]:
        """Return the left uses whose elements, or some of them, meet the same values, or the same in some rows."""
        options = self._vectors(use, [seen for seen in pool if len(seen.numbers) == len(numbers)], found, False)
        if all(option.gap > EXACT for option in options):
            wider = [seen for seen in pool if len(seen.numbers) > len(numbers)]
            nearest = min((option.gap for option in options), default=np.inf)
            options += self._vectors(use, wider, found, True, min(PARTNER, max(MARGIN * nearest, self.limit)))
        if use.kind == "add":  # terms of one sum that meet the same are alike
            options = distinct(options, lambda option: (len(option.partner.numbers), option.partner.use.group[:2]))
        if not options and use.kind == "mul":
            options = self._vectors(use, self._apart, found, True)
        options = distinct(options, lambda option: option.partner.numbers.tobytes())
        if not options and np.shape(use.x) == np.shape(use.ids):
            options = [
                Option(
                    self._order(use, seen, not self._free(seen.numbers), gap > EXACT and gap, _size_gap(use, seen)),
                    gap,
                    seen,
                    (seen.numbers[index], None),
                )
                for seen, (index, gap) in uses.partial(use, pool).items()
            ]
        return options

    def _of_several(self, pool: list[uses.Seen], found: Array) -> list[Option]:
        """Return the elements of all free left uses as one option, where one on the right is several on the left."""
        pool = [seen for seen in pool if self._free(seen.numbers)]
        if not pool:
            return []
        every, statistics = uses.together(pool)
        gap = columns.distance_within(found, statistics)
        return [Option((False,), gap, pool[0], (every, statistics))] if gap < WITHIN else []

    def _vectors(
        self, use: Use, pool: list[uses.Seen], found: Array, part: bool, limit: float = PARTNER
    ) -> list[Option]:
        """Return the uses of a pool that meet the same values; or, for a `part`, those that meet them among others.

        Args:
          limit: the distance at which the search for the values among others may stop.
        """
        options: list[Option] = []
        if part:
            nearest = min(limit, WITHIN)
            gaps = {seen: columns.distance_within(found, seen.statistics, nearest) for seen in pool}
        else:
            gaps = uses.distances(found, pool)
        gaps = {seen: gap for seen, gap in gaps.items() if gap < (WITHIN if part else PARTNER)}
        strays = self._strays(use, gaps)
        for seen, gap in gaps.items():
            likely = seen in strays, not self._free(seen.numbers)
            apart = gap > EXACT and gap, self._elsewhere(use, seen), _size_gap(use, seen)
            order = self._order(use, seen, *likely, *apart)
            options.append(Option(order, gap, seen, None))
        return options

    def _elsewhere(self, use: Use, seen: uses.Seen) -> bool:
        """Tell whether two terms were first added to products that are no partners, of one sum that meets the same."""
        if use.kind != "add":
            return False
        own = {other.use.node for at in products(self.program, use.node) for other, _ in self._partners.get(at, [])}
        there = products(seen.program, seen.use.node) if own else own
        return bool(there) and own.isdisjoint(there)

    def _assign_zeros(self, numbers: Array, found: Array, terms: list[Term]) -> None:
        """Set a term of a sum that has fewer terms on the left to zero."""
        for term in terms:
            index = columns.matched(found, term.statistics) if len(term.numbers) == len(numbers) else None
            if index is not None:
                self._enter(numbers, numbers[:0])
                self.map[numbers] = -term.numbers[index]
                return
        why = "the sum that it is added to has fewer terms on the left: give both models the same biases"
        raise DeadEnd(Stop(tuple(self.rights.owners(numbers)), why))

    def _add_terms(self, terms: list[Term]) -> None:
        """Add the terms that the left sum has beyond those of the right one to the last of these.

        None is added to one that is subtracted, as a mean: a Table adds, and does not subtract.
        """
        plain = [term for term in terms if term.partner.use.symbol.plain]
        if not plain:
            return
        last, numbers, found = plain[-1]
        for other in self._of_kind("add"):
            if other.use.group[:2] != last.use.group[:2] or any(other is term.partner for term in terms):
                continue
            if not other.use.symbol.plain:
                continue
            index = columns.matched(found, other.statistics) if len(other.numbers) == len(last.numbers) else None
            left = None if index is None else other.numbers[index].astype(np.int64)
            if left is not None and not self.owned[left].any() and not self.plus[numbers].any():
                self._enter(numbers, left)
                self.plus[numbers] = left

    @cached_property
    def _added(self) -> Array:
        """Return the left element that is added to each left one before anything else reads it, or 0."""
        found = np.zeros(len(self.lefts), np.int32)
        for seen in self._of_kind("add"):
            elements, terms = seen.pairs
            found[elements] = terms
        return found

    def _add_bare(self, use: Use) -> None:
        """Add to elements that are read as they are what the left side adds to them, if the right side adds nothing."""
        numbers = uses.distinct_of(use.ids)
        terms = self._added[np.maximum(self.map[numbers], 0)]
        if terms.all() and not self.plus[numbers].any() and bias(self.program, self.walk.at) is None:
            self._enter(numbers, numbers[:0])
            self.plus[numbers] = terms

    def _zeros_for_bare(self, use: Use) -> None:
        """Set elements to zero that are added to other elements, to which the left side adds nothing."""
        elements, terms = uses.bare(use)
        alone = (self._added[np.maximum(self.map[elements], 0)] == 0) & (self.map[terms] == 0)
        if alone.any():
            self._enter(terms[alone], terms[:0])
            self.map[terms[alone]] = -elements[alone]

    @cached_property
    def _apart(self) -> list[uses.Seen]:
        """Return the products on the left with their elements one by one."""
        every = (seen for seen in self._of_kind("product") if seen.use.ids.size <= SMALL)
        return [uses.Apart(seen) for seen in every if seen.use.symbol.plain]


def _size_gap(use: Use, seen: uses.Seen) -> float:
    """Tell by how much the values to which two terms were first added differ in size; 0 if hardly."""
    apart = abs(seen.use.beside - use.beside) / (use.beside or 1)
    return apart if apart > ALIKE else 0.0

"""Attempt to find the left partner of each use on the right, and record the choices that were taken."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Any, NamedTuple, TypeVar

import numpy as np

from ..trace.places import place
from ..trace.program import Program
from ..trace.tape import Array
from . import columns, roles, uses
from .regroup import EXACT, LIMIT, MARGIN, Regrouping, Step
from .similarity import Similarity
from .symbols import Elements, Translated, Use
from .walk import Walk

SCALED = 0.04  # what counts as the distance of columns that are alike but for a factor
SNAP = 0.1  # mean relative difference up to which the values of two models are those of one use
PARTIAL = 1e-6  # distance of columns of which one side has some rows alone
ALIKE = 1e-3  # relative difference of the sizes of what two terms of a sum were first added to
MANY = 1 << 20  # elements that are looked at or mapped at once


class Term(NamedTuple):
    """A term of a sum on the right: its partner, its elements, and the statistics of what they meet."""

    partner: uses.Seen
    numbers: Array
    statistics: Array


Result = TypeVar("Result")
Places = Any  # indices: an array or a slice
Option = tuple[Any, float, uses.Seen, Any]  # order, distance, partner, detail


class DeadEnd(Exception):
    """No partner fits a use.

    Args:
      gap: the distance of the nearest one.
      known: the operation, if all its elements have partners already and only the values differ; else -1.
    """

    def __init__(self, message: str, gap: float = np.inf, known: int = -1):
        super().__init__(message)
        self.gap, self.known = gap, known


def _distinct(options: list[Option], key: Callable[[Option], Hashable]) -> list[Option]:
    """Return the likeliest of the options that are alike: uses of the same elements, terms of one sum."""
    best: dict[Hashable, Option] = {}
    for option in sorted(options, key=lambda option: option[0]):
        best.setdefault(key(option), option)
    return list(best.values())


def _places(numbers: Array) -> Places:
    """Return indices as a slice where they are a range in order."""
    if not len(numbers) or numbers[-1] - numbers[0] != len(numbers) - 1 or (np.diff(numbers) != 1).any():
        return numbers
    return slice(int(numbers[0]), int(numbers[-1]) + 1)


def every(marks: Array, ids: Array) -> bool:
    """Tell whether all of these elements are marked; 0 is no element."""
    if ids.size <= MANY:
        return bool(marks[ids[ids > 0].astype(np.int64)].all())
    chunks = np.nditer(ids, ["external_loop", "buffered"], buffersize=MANY)  # bounds memory
    return all(every(marks, chunk) for chunk in chunks)


def _proportional(found: Array, other: Array) -> float:
    """Tell how far two sets of columns are apart but for one factor."""
    scale = columns.size_of(found) / (columns.size_of(other) or 1)
    return columns.distance(found / scale, other) if scale else np.inf


class Point(NamedTuple):
    """A step at which there was a choice, with the state of everything before its operation.

    Args:
      likely, choices: the numbers of likely and of all choices.
    """

    step: int
    choice: int
    likely: int
    choices: int
    state: State


class State(NamedTuple):
    walk: tuple[int, dict[int, Any]]
    steps: int
    entries: int


class Attempt(Regrouping):
    """A walk of the right tape that finds a partner for each use, and can step back to its choices.

    Args:
      limit: distance of columns, relative to their scale, beyond which nothing is a partner.
      excused: operations of which all elements are known, and whose values need not be found on the left.
      rough: operations at which a use is a partner if some rows meet the same values.
      patient: whether unlikely choices are tried too: partners that others have, columns of other roles.
      scaling: whether a factor between the columns of two products is taken as one that the right side applies later.
    """

    def __init__(
        self, seen: list[uses.Seen], program: Program, lefts: Elements, rights: Translated, say: Callable[[str], None]
    ):
        self.seen, self.program, self.lefts, self.rights, self.alike = seen, program, lefts, rights, Similarity()
        self._say, self.limit = say, EXACT
        self.patient, self.scaling = False, True
        self._scaled: State | None = None  # before the first product that was taken so
        self.excused, self.rough = set[int](), set[int]()
        self._matrices = self._every_matrix()
        self.map, self.plus = rights.map, rights.plus
        self.owned = np.zeros(len(lefts), bool)
        self.steps: list[Step] = []
        self.walk = Walk(program, rights, self.meet)
        self._choices: list[int] = []
        self._points: list[Point] = []
        self._entries: list[tuple[Places, Places]] = []  # (right elements, left ones owned for the first time)
        self._terms: dict[tuple[int, int], list[Term]] = {}  # sum on the right -> its terms that have partners
        self._begun = (-1, 0, 0)  # operation, steps and entries before it

    def take(self, given: Array) -> None:
        """Take elements as known that the user states."""
        known = np.flatnonzero(given)
        self.map[known], self.owned[given[known]] = given[known], True

    def run(self) -> list[Array]:
        """Go on to the end and return the outputs. Raises: DeadEnd."""
        return self.walk.run()

    def ended(self, result: Result) -> Result:
        """Release what the walk refers to, which refers to this attempt, and return the result."""
        del self.walk
        return result

    def step_back(self) -> bool:
        """Return to the last choice that has another option; False if there is none."""
        for point in reversed(self._points):
            if point.choice + 1 < (point.choices if self.patient else point.likely):
                self._restore(point.state, [*self._taken(point.step), point.choice + 1])
                return True
        return False

    def unscale(self) -> bool:
        """Return to the first product whose columns are alike but for a factor, which is then taken as a difference."""
        if self._scaled is None:
            return False
        self.scaling = False
        self._restore(self._scaled, self._taken(self._scaled.steps))
        return True

    def replay(self, choices: list[int]) -> None:
        """Return to the point from which these choices differ from those taken, or to the present operation."""
        for point in self._points:
            if point.step >= len(choices) or point.choice != choices[point.step]:
                self._restore(point.state, choices)
                return
        same = self._begun[0] == self.walk.at
        steps, entries = self._begun[1:] if same else (len(self.steps), len(self._entries))
        self._restore(State(self.walk.state(), steps, entries), choices)

    def _taken(self, count: int) -> list[int]:
        return [step.choice for step in self.steps[:count]]

    def _restore(self, state: State, choices: list[int]) -> None:
        self.walk.restore(state.walk)
        self._choices = choices
        for right, left in self._entries[state.entries :]:
            self.map[right], self.plus[right] = 0, 0
            self.owned[left] = False
        del self._entries[state.entries :], self.steps[state.steps :]
        self._points = [point for point in self._points if point.step < state.steps]
        self._terms = {join: terms for join, terms in self._terms.items() if join[0] < self.walk.at}
        self._begun = (-1, 0, 0)
        if self._scaled is not None and self._scaled.walk[0] >= self.walk.at:
            self._scaled = None

    def meet(self, use: Use) -> Array | None:
        """Find the elements of a use, and their values; for a product where values part, return those of the left."""
        if self._begun[0] != self.walk.at:
            self._say(f"matching operation {self.walk.at} of {len(self.program.tape.nodes)}")
            self._begun = (self.walk.at, len(self.steps), len(self._entries))
        if every(self.map, use.ids):
            if use.kind == "product" and self.walk.at not in self.excused:
                self._verify(use)
            return None
        if use.kind == "product":
            return self._product(use)
        if use.kind == "place":
            self._place(use)
        else:
            self._elementwise(use)
        return None

    def _verify(self, use: Use) -> None:
        """Check that a product of known elements meets values that the left has seen: else a choice was wrong."""
        found = uses.statistics(use, self.program)[1]
        pool = [seen for seen in self._of_kind("product") if seen.use.ids.shape[:2] == use.ids.shape[:2]]
        gap = min((columns.distance(found, seen.statistics) for seen in pool), default=np.inf)
        window = self.program.tape.nodes[use.node].window
        if gap > self.limit and (window or not self._partial(use, pool)):
            if gap > LIMIT and self._composed(use, found, pool):
                return
            names = " ".join(self.rights.owners(use.ids))
            raise DeadEnd(f"{names}: another use of it meets values that no use on the left meets", gap, self.walk.at)

    def _composed(self, use: Use, found: Array, pool: list[uses.Seen]) -> bool:
        """Tell whether the left side has the same product but for a factor, or one of more or of fewer inputs."""
        scaled = self.scaling and any(_proportional(found, seen.statistics) <= EXACT for seen in pool)
        return scaled or any(self._contained(use, found, wider) for wider in (True, False))

    def _assign(self, right: Array, left: Array) -> None:
        """Map right elements that have no partner yet."""
        right, left = (np.ravel(numbers).astype(np.int32, copy=False) for numbers in (right, left))
        new = (right > 0) & (left > 0)
        right, left = right[new], left[new]
        new = self.map[right] == 0
        self._enter(right[new], left[new])
        self.map[right[new]] = left[new]

    def _enter(self, right: Array, left: Array) -> None:
        self._entries.append((_places(right), _places(left[~self.owned[left]])))
        self.owned[left] = True

    def _choose(self, use: Use, options: list[Option], what: str, limit: float | None = None) -> tuple[uses.Seen, Any]:
        """Take the likeliest of (order, gap, partner, detail), or the next after a dead end."""
        site = self.program.tape.nodes[use.node].site
        name = " ".join(self.rights.owners(use.ids))
        closest = min((option[1] for option in options), default=np.inf)
        if closest > (self.limit if limit is None else limit) or not options:
            raise DeadEnd(f"{name}: no partner of its {use.kind}{what} at {place(site, name)}", closest)
        options = [option for option in options if option[1] <= max(MARGIN * closest, EXACT)]
        options.sort(key=lambda option: option[0])
        at = len(self.steps)
        choice = self._choices[at] if at < len(self._choices) else 0
        if len(options) > 1:
            state = State(self.walk.state(), *self._begun[1:])
            likely = sum(option[0][0] == options[0][0][0] for option in options)
            self._points.append(Point(at, choice, likely, len(options), state))
        _, gap, seen, detail = options[min(choice, len(options) - 1)]
        left_site = seen.program.tape.nodes[seen.use.node].site
        self.steps.append(Step(use.kind, seen.name, name, left_site, site, gap, choice, len(options)))
        return seen, detail

    def _free(self, seen: uses.Seen, ids: Array) -> bool:
        return not every(self.owned, ids)

    def _order(self, use: Use, seen: uses.Seen, *first: Any) -> tuple[Any, ...]:
        name = " ".join(self.rights.owners(use.ids))
        return (*first, seen.use.symbol.plain != use.symbol.plain, -self.alike(seen.name, name))

    def _product(self, use: Use) -> Array | None:
        found = uses.statistics(use, self.program)[1]
        pool = [seen for seen in self._of_kind("product") if seen.use.ids.shape[:2] == use.ids.shape[:2]]
        gaps = {seen: columns.distance(found, seen.statistics) for seen in pool}
        partial, scales = dict[uses.Seen, tuple[Array, float]](), dict[uses.Seen, float]()
        window = self.program.tape.nodes[use.node].window
        if min(gaps.values(), default=np.inf) > LIMIT:
            partial = {} if window else self._partial(use, pool)
            if not partial:
                if self._by_matrix(use) or self._by_rows(use, found) or self._as_factors(use, found):
                    return None
                gaps |= self._contained(use, found, True)
        if min(gaps.values(), default=np.inf) > LIMIT:
            scales = {seen: columns.size_of(found) / (columns.size_of(seen.statistics) or 1) for seen in pool}
            scaled = {seen: _proportional(found, seen.statistics) for seen in pool}
            exact = self.scaling and min(scaled.values(), default=np.inf) <= EXACT
            gaps = {seen: gap if exact else max(gap, SCALED) for seen, gap in scaled.items()}
            if exact and self._scaled is None:
                self._scaled = State(self.walk.state(), *self._begun[1:])
            gaps |= {seen: gap for seen, (_, gap) in partial.items()}
        elif not any(gap <= LIMIT and self._free(seen, seen.use.ids) for seen, gap in gaps.items()):
            others = [seen for seen in pool if gaps[seen] > LIMIT and self._free(seen, seen.use.ids)]
            partial = {} if window else self._partial(use, others)
            gaps |= {seen: gap for seen, (_, gap) in partial.items()}
        near = {seen: gap for seen, gap in gaps.items() if gap < LIMIT}
        if not near and (agreeing := self._agreeing(use, pool)):
            partial = {seen: (rows, gaps.get(seen, LIMIT)) for seen, (rows, _) in agreeing.items()}
            near = {seen: gap for seen, (_, gap) in partial.items()}
        gaps = near
        taps = len(found) // use.x.shape[1] if window else 1
        rough = self.walk.at in self.rough

        def rows_of(seen: uses.Seen) -> Array | None:
            if seen in partial:
                return partial[seen][0]
            return columns.matched(found / scales.get(seen, 1.0), seen.statistics, taps)

        partners, rows = set[str](), None
        groups = uses.groups(use, self.program)
        for group in groups:
            right = group.of(use.ids)
            if every(self.map, right):
                continue
            unread = group.role if group.role == roles.UNREAD else ""
            options = []
            for seen, gap in gaps.items():
                for other in seen.groups:
                    ids = other.of(seen.use.ids)
                    if len(other.columns) == len(group.columns) and unread in ("", other.role):
                        taken = not self._free(seen, ids)
                        apart = gap > EXACT and gap
                        alone = seen.name not in partners  # groups of one use are likely to have one partner
                        hollow = self._hollow(right, ids, (found, seen.statistics, taps))
                        split = not roles.alike(groups, seen.groups)
                        likely = (hollow, taken, split, alone, roles.difference(group.role, other.role))
                        order = self._order(use, seen, likely, apart, other.grid != group.grid)
                        options.append((order, gap, seen, other))
            if unread and not options:
                continue
            if not options and self._at_once(use, gaps, rows_of):
                return None
            options = _distinct(options, lambda option: option[2].use.ids[0, 0, option[3].columns].tobytes())
            seen, other = self._choose(use, options, f" ({group.role})", np.inf if rough else self.limit)
            partners.add(seen.name)
            rows = rows_of(seen)
            self._align_product(use, seen, group, other, rows)
        return self._snapped(use, seen, rows, rough) if gaps and gaps[seen] > EXACT else None

    def _agreeing(self, use: Use, pool: list[uses.Seen]) -> dict[uses.Seen, tuple[Array, float]]:
        """Return (columns, part) of uses of which a part of the rows meets the same values, as behind other masks.

        Raises: DeadEnd unless this is the only evidence for a partner there is, since no other choice went on.
        """
        found = dict[uses.Seen, tuple[Array, float]]()
        for seen in pool if len(use.x) == 1 and not self.program.tape.nodes[use.node].window else ():
            here, there = use.x[0], seen.use.x[0]
            if here.shape != there.shape:
                continue
            apart = np.abs(np.sort(here, 1) - np.sort(there, 1)).max(1)
            same = here.any(1) & (apart <= EXACT * np.abs(there).max())
            rows = columns.matched(*(columns.of_product(x[None, same], None) for x in (here, there)))
            if same.any() and rows is not None:
                found[seen] = (rows, float(same.mean()))
        most = max((part for _, part in found.values()), default=0.0)
        if found and self.walk.at not in self.rough:
            names = " ".join(self.rights.owners(use.ids))
            raise DeadEnd(f"{names}: no use on the left meets all values of its product", 1 - most)
        return {seen: (rows, part) for seen, (rows, part) in found.items() if part == most}

    def _hollow(self, right: Array, left: Array, of: tuple[Array, Array, int]) -> bool:
        """Tell whether zeros that pad a matrix stand in other places: of several whose sum is read, another then."""
        if right.all() and left.all():
            return False
        rows = columns.matched(*of)
        return rows is None or not np.array_equal(right.reshape(-1, right.shape[2]) > 0,
                                                  left.reshape(-1, left.shape[2])[rows] > 0)  # fmt: skip

    def _snapped(self, use: Use, seen: uses.Seen, rows: Array | None, rough: bool = False) -> Array | None:
        """Return the left values in the order of the right ones, if these are near or part of them is the same.

        Rows must stand in that order.
        """
        here, there = use.x, seen.use.x
        if rows is None or here.shape != there.shape:
            return None
        window = self.program.tape.nodes[use.node].window
        if window:
            taps = len(rows) // here.shape[1]
            channels = rows[::taps] // taps
            moved = there[:, channels]
        else:
            flat = there.swapaxes(1, 2).reshape(len(rows), -1)[rows]
            moved = flat.reshape(here.shape[0], here.shape[2], here.shape[1]).swapaxes(1, 2)
        scale = (here * moved).mean() / ((moved * moved).mean() or 1)
        near = rough or np.abs(here - scale * moved).mean() <= SNAP * np.abs(here).mean()
        return moved if near else None

    def _partial(self, use: Use, pool: list[uses.Seen]) -> dict[uses.Seen, tuple[Array, float]]:
        """Return (columns, distance) of uses of which one side takes some rows alone, as one step of time."""
        found = dict[uses.Seen, tuple[Array, float]]()
        here = columns.Values(uses.raw(use))
        if not here.columns.size:
            return found
        for seen in pool:
            if seen.program.tape.nodes[seen.use.node].window or seen.values.columns.shape[0] != here.columns.shape[0]:
                continue
            fewer = len(here.sorted) < len(seen.values.sorted)
            some, every = (here, seen.values) if fewer else (seen.values, here)
            within = every.holding(some.columns)
            if within is not None and within[1] < PARTIAL:
                found[seen] = (within[0] if fewer else np.argsort(within[0]), within[1])
        return found

    def _align_product(
        self, use: Use, seen: uses.Seen, group: roles.Group, other: roles.Group, rows: Array | None
    ) -> None:
        if rows is None:
            raise DeadEnd(f"{' '.join(self.rights.owners(use.ids))}: its columns and those of {seen.name} differ")
        right, left = (ids.reshape(-1, ids.shape[2]) for ids in (group.of(use.ids), other.of(seen.use.ids)))
        step = max(1, MANY // max(right.shape[1], 1))  # bounds memory
        for at in range(0, len(rows), step):
            self._assign(right[at : at + step], left[rows[at : at + step]])

    def _elementwise(self, use: Use) -> None:
        numbers, found = uses.statistics(use, self.program)
        self._factors(use, numbers.astype(np.int64), found)

    def _factors(self, use: Use, numbers: Array, found: Array) -> None:
        """Match elements by what each of them meets."""
        terms = self._terms.setdefault(use.join[:2], [])
        partners = [term.partner for term in terms]
        pool = [seen for seen in self._of_kind(use.kind) if seen not in partners]
        options = self._vectors(use, [seen for seen in pool if len(seen.numbers) == len(numbers)], found, False)
        if all(option[1] > EXACT for option in options):
            options += self._vectors(use, [seen for seen in pool if len(seen.numbers) > len(numbers)], found, True)
        if use.kind == "add":  # terms of one sum that meet the same are alike
            options = _distinct(options, lambda option: (len(option[2].numbers), option[2].use.join[:2]))
        if not options and use.kind == "mul":
            options = self._vectors(use, self._apart, found, True)
        options = _distinct(options, lambda option: option[2].numbers.tobytes())
        if not options and np.shape(use.x) == np.shape(use.ids):
            options = [
                (
                    self._order(use, seen, not self._free(seen, seen.numbers), gap),
                    gap,
                    seen,
                    (seen.numbers[index], None),
                )
                for seen, (index, gap) in self._partial(use, pool).items()
            ]
        pool = [] if options else [seen for seen in pool if self._free(seen, seen.numbers)]
        if pool:  # several on the left, one on the right
            statistics, every = (
                np.concatenate([getattr(seen, name) for seen in pool]) for name in ("statistics", "numbers")
            )
            gap = columns.distance_within(found, statistics)
            if gap < LIMIT:
                options.append(((False,), gap, pool[0], (every, statistics)))
        near = [option for option in options if option[1] <= self.limit]
        if use.kind == "add" and terms and not any(self._free(seen, seen.numbers) for _, _, seen, _ in near):
            self._assign_zeros(numbers, found, terms)
            return
        seen, pooled = self._choose(use, options, "")
        left, statistics = pooled or (seen.numbers, seen.statistics)
        index = np.arange(len(numbers)) if statistics is None else columns.matched(found, statistics)
        if index is None:
            raise DeadEnd(f"{' '.join(self.rights.owners(use.ids))}: its elements and those of {seen.name} differ")
        self._assign(numbers, left[index])
        if not pooled:
            terms.append(Term(seen, numbers, found))
            if use.kind == "add" and not use.join[2]:
                self._add_terms(terms)

    def _vectors(self, use: Use, pool: list[uses.Seen], found: Array, part: bool) -> list[Option]:
        """Return those of the pool whose elements meet the same values, or some of whose elements do."""
        options: list[Option] = []
        distance = columns.distance_within if part else columns.distance
        for seen in pool:
            gap = distance(found, seen.statistics)
            if gap < LIMIT:
                apart = abs(seen.use.beside - use.beside) > ALIKE * use.beside
                first = (not self._free(seen, seen.numbers), gap > EXACT and gap, apart)
                options.append((self._order(use, seen, *first), gap, seen, None))
        return options

    def _assign_zeros(self, numbers: Array, found: Array, terms: list[Term]) -> None:
        """Set a term of a sum that has fewer terms on the left to zero."""
        for term in terms:
            index = columns.matched(found, term.statistics) if len(term.numbers) == len(numbers) else None
            if index is not None:
                self._enter(numbers, numbers[:0])
                self.map[numbers] = -term.numbers[index]
                return
        raise DeadEnd(f"{' '.join(self.rights.owners(numbers))}: a term of a sum that has fewer terms on the left")

    def _add_terms(self, terms: list[Term]) -> None:
        """Add the terms that the left sum has beyond those of the right one to the last of these."""
        last, numbers, found = terms[-1]
        for other in self._of_kind("add"):
            if other.use.join[:2] != last.use.join[:2] or any(other is term.partner for term in terms):
                continue
            index = columns.matched(found, other.statistics) if len(other.numbers) == len(last.numbers) else None
            left = None if index is None else other.numbers[index].astype(np.int64)
            if left is not None and not self.owned[left].any() and not self.plus[numbers].any():
                self._enter(numbers, left)
                self.plus[numbers] = left

    def _place(self, use: Use) -> None:
        """Place parameters whose value is needed as it is, by how often each of their elements is repeated."""
        pattern = uses.pattern(use.ids)
        shares = uses.shares(use.ids)
        options = []
        for seen in self._of_kind("place"):
            same = np.array_equal(seen.pattern, pattern)
            if same or np.array_equal(seen.shares, shares):
                order = self._order(use, seen, not self._free(seen, seen.use.ids), not same)
                options.append((order, 0.0, seen, same))
        seen, same = self._choose(use, options, "")
        if same:
            self._assign(uses.first_of(use.ids, pattern), uses.first_of(seen.use.ids, seen.pattern))
        else:  # read in another order, as by steps of time
            self._assign(np.unique(use.ids), np.unique(seen.use.ids))

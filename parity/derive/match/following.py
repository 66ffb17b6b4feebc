"""Find the partner of a use that meets other values, by the products whose results it reads.

Models that differ in an activation, a mask or a pooling meet other values behind it. What a use reads is made from the
results of the same products on both sides all the same.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from functools import cached_property
from typing import Any

import numpy as np

from parity.derive.limits import LARGE_USE
from parity.derive.trace.ancestors import INPUT, sources, way_back
from parity.derive.trace.program import Program
from parity.derive.trace.tape import Array

from . import columns, uses
from .advice import Stop
from .choices import Choices, DeadEnd, Option, State
from .symbols import Use

FOLLOWED = 0.99  # the distance that is given to uses that only read the results of the same products
WRITTEN = 0.9  # share of the best likeness of channels that the written order has to reach to be taken
SURE = 2  # standard errors by which channels have to be nearer in the written order than in another one
SAMPLE = 256  # channels that are compared with each other
ALIKE = 1e-6  # distance up to which values alone say which use is meant
MOST = 0.5  # part of the products that two uses read, from which on one may be the other's partner


class Following(Choices):
    """What an attempt does where a use meets other values than any on the left."""

    def __init__(self, *args: Any):
        super().__init__(*args)
        self._sources = dict[int, frozenset[int]]()  # of left uses
        self._at_once_matched = set[int]()  # right products of which all columns were matched at once
        self._colours = dict[int, Array]()  # right product -> the colours of its columns; see origins
        self._left_colours = dict[uses.Seen, Array | None]()  # of what left products read
        self._straight = dict[int, int]()  # right product whose columns correspond as they are written -> their number

    def _restore(self, state: State, choices: list[int]) -> None:
        super()._restore(state, choices)
        self._at_once_matched = {at for at in self._at_once_matched if at < self.walk.at}
        self._colours = {at: colours for at, colours in self._colours.items() if at < self.walk.at}
        self._straight = {at: count for at, count in self._straight.items() if at < self.walk.at}

    @cached_property
    def _products(self) -> set[int]:
        return {seen.use.node for seen in self._of_kind("product")}

    @cached_property
    def _first_steps(self) -> dict[int, int]:
        """Return for each left product the first one of the same matrix, as of a recurrent network's first step."""
        first = dict[tuple[int, ...], int]()
        return {seen.use.node: first.setdefault(matrix(seen.use), seen.use.node) for seen in self._of_kind("product")}

    @cached_property
    def _own_products(self) -> set[int]:
        return {at for at, node in enumerate(self.program.tape.nodes) if node.kind == "product"}

    @cached_property
    def _own_kernels(self) -> set[int]:
        """Return the products with parameters."""
        weights = self.program.weights.keys()
        return {at for at in self._own_products if not weights.isdisjoint(self.program.tape.nodes[at].inputs)}

    def _followers(self, use: Use, pool: Iterable[uses.Seen], near: bool = False) -> list[uses.Seen]:
        """Return those of the left uses that read the results of the partners of the products that this one reads.

        Args:
          near: whether to take those that read most of them, and few others, where none reads just these.
        """
        own = sources(self.program, use.node, self._partners)
        partners = [
            {self._first_steps[seen.use.node] for seen, _ in self._partners[at]} if at != INPUT else {INPUT}
            for at in own
        ]
        every, found = set[int]().union(*partners), dict[uses.Seen, float]()
        passing = bool(self.lost) or self.walk.at in self.passed
        if passing and use.kind == "product":
            pool = [seen for seen in pool if seen.use.ids.shape == use.ids.shape]
        for seen in pool:
            at = seen.use.node
            if at not in self._sources:
                left = sources(seen.program, at, self._products)
                self._sources[at] = frozenset(self._first_steps.get(product, product) for product in left)
            left_sources = self._sources[at]
            same = left_sources and left_sources <= every and all(some & left_sources for some in partners)
            found[seen] = (
                1.0 if same else len(left_sources & every) / max(1, len(left_sources | every)) if near else 0.0
            )
        best = max(found.values(), default=0.0)
        if best < 1 and passing and (behind := self._behind(pool, every, partners)):
            return behind
        return [seen for seen, part in found.items() if part == best >= MOST]

    def _reads_partners(self, right: Collection[int], left: Collection[int]) -> bool:
        """Tell whether left products are partners of these right ones, and each of these has one of them."""
        partners = [{self._first_steps[seen.use.node] for seen, _ in self._partners[at]} for at in right]
        found = {self._first_steps.get(at, at) for at in left}
        return found <= set[int]().union(*partners) and all(some & found for some in partners)

    def _behind(self, pool: Iterable[uses.Seen], every: set[int], partners: Sequence[set[int]]) -> list[uses.Seen]:
        """Return the left uses that come next behind the same products, past products that have no partner.

        Args:
          every: the left products whose results reach the right use; partners: the same, for each right one.
        """
        known = {seen.use.node for some in self._partners.values() for seen, _ in some}
        found = dict[uses.Seen, int]()
        for seen in pool:
            left_sources, between = way_back(seen.program, seen.use.node, known)
            if left_sources and left_sources <= every and all(some & left_sources for some in partners):
                found[seen] = len(between & self._products)
        fewest = min(found.values(), default=0)
        if fewest:
            self.beyond[self.walk.at] = len(self.steps)
        return [seen for seen, count in found.items() if count == fewest]

    def _namesakes(self, use: Use, pool: Iterable[uses.Seen]) -> list[uses.Seen]:
        """Return those of the left uses whose names are the right ones, or else go together as those of earlier blocks.

        Where values differ, names say more than the products that a use reads: a sum may leave out others. They say
        nothing behind a product that the left model lacks.
        """
        if not sources(self.program, use.node, self._own_products) & self._own_kernels <= self._partners.keys():
            return []
        names, pool = tuple(self.rights.owners(use.ids)), [*pool]
        same = [seen for seen in pool if seen.names == names]
        return same or [seen for seen in pool if self.analogous(seen.names, names)]

    def _strays(self, use: Use, gaps: Mapping[uses.Seen, float]) -> set[uses.Seen]:
        """Return uses that meet nearly the same values, but made from the results of other products than this one's."""
        if min(gaps.values(), default=0.0) <= ALIKE:
            return set()
        followers = set(self._followers(use, gaps))
        return set(gaps) - followers if followers else set()

    def _following(self, use: Use, pool: list[uses.Seen]) -> dict[uses.Seen, Array]:
        """Return rows of products that read the results of the same products, as behind another activation."""
        if use.flipped:
            return {}
        taps = taps_of(use, self.program)
        free = [seen for seen in pool if not seen.use.flipped and self._free(seen.use.ids)]
        alike = [seen for seen in free if taps_of(seen.use, seen.program) == taps]
        alike = [seen for seen in alike if len(_channels(seen.use, bool(taps))) == len(_channels(use, bool(taps)))]
        straight = self._in_order(use, use.x.shape[1 if taps else 2])
        namesakes = self._namesakes(use, alike)
        followers = dict.fromkeys((*self._followers(use, alike, True), *namesakes))
        found = {seen: order(use, seen, taps, straight) for seen in followers}
        rows = {seen: rows for seen, rows in found.items() if rows is not None}
        like = {seen: likeness(use, seen, taps, there) for seen, there in rows.items()}
        most = max(like.values(), default=0.0)
        return {seen: there for seen, there in rows.items() if seen in namesakes or 2 * like[seen] >= most}

    def _orphan(self, use: Use) -> bool:
        """Tell whether a norm or bias belongs to products alone that have no partner."""
        if not self.lost or use.kind not in ("add", "mul"):
            return False
        return sources(self.program, use.node, self._own_products) <= self.lost.keys()

    def _in_order(self, use: Use, count: int) -> bool:
        """Tell whether what a use reads has as many channels as the products behind it, in the same order as these."""
        own = sources(self.program, use.node, self._partners)
        return all(self._straight.get(at) == count for at in own)

    def _following_elements(self, use: Use, numbers: Array, found: Array) -> list[Option]:
        """Return the vectors that meet what is made from the results of the same products, and tables read alike.

        Raises: DeadEnd where another choice may still lead to a use that meets the same values.
        """
        options = list[Option]()
        count = len(numbers)
        pool = [seen for seen in self._of_kind(use.kind) if len(seen.numbers) == count]
        here, free = uses.raw(use), [seen for seen in pool if self._free(seen.numbers)]
        tables = [] if here.size else [seen for seen in free if alike(use, seen, numbers) is not None]
        namesakes = self._namesakes(use, free)
        for seen in tables or dict.fromkeys((*self._followers(use, free), *namesakes)):
            there = uses.raw(seen.use)
            rows = likest(here, there) if here.size and here.shape == there.shape else None
            rows = alike(use, seen, numbers) if rows is None else rows
            if rows is None and (written(found, seen.statistics) or self._in_order(use, count)):
                rows = np.arange(count)
            if rows is not None:
                beside = abs(seen.use.beside - use.beside)
                apart = seen.use.symbol.plain != use.symbol.plain, columns.distance(found, seen.statistics), beside
                first = self._order(use, seen, seen not in namesakes, *apart)
                options.append(Option(first, FOLLOWED, seen, seen.numbers[rows]))
        if options and self.walk.at not in self.rough:
            why = f"no use on the left meets all values that its {use.kind} meets"
            raise DeadEnd(Stop(tuple(self.rights.owners(use.ids)), why), FOLLOWED)
        return options


def matrix(use: Use) -> tuple[int, ...]:
    """Tell one matrix of elements from others."""
    return *use.ids.shape, int(use.ids.min()), int(use.ids.max())


def taps_of(use: Use, program: Program) -> tuple[int, ...]:
    """Return the taps of a convolution's kernel; () of other products."""
    node = program.tape.nodes[use.node]
    return program.shapes[node.inputs[1]][2:] if node.window else ()


def _channels(use: Use, window: bool) -> Array:
    """Return what each channel of a product's rows, or of the images of a convolution, has as values (channel, n)."""
    x = use.x.swapaxes(0, 1) if window else use.x.swapaxes(1, 2)
    return x.reshape(x.shape[0] if window else x.shape[0] * x.shape[1], -1)


def order(use: Use, seen: uses.Seen, taps: tuple[int, ...], straight: bool = False) -> Array | None:
    """Return the left row of each right one of two products, by how the values of channels vary; None if unclear.

    Args:
      taps: of both. straight: whether the order of channels is the same where values do not tell.
    """
    here, there = _channels(use, bool(taps)), _channels(seen.use, bool(seen.window))
    if len(here) != len(there):
        return None
    rows = likest(here, there) if here.shape == there.shape else None
    if rows is None and (straight or written(*(columns.of_product(x.T[None], None) for x in (here, there)))):
        rows = np.arange(len(here))
    count = int(np.prod(taps, dtype=int))
    return None if rows is None else (rows[:, None] * count + np.arange(count)).ravel()


def alike(use: Use, seen: uses.Seen, numbers: Array) -> Array | None:
    """Return the left element of each right one that is read at the same places, as of a table; None if none is.

    Args:
      numbers: of the right elements.
    """
    if use.ids.shape != seen.use.ids.shape or use.ids.size > LARGE_USE:
        return None
    pattern = uses.pattern(use.ids)
    if not np.array_equal(pattern, seen.pattern):
        return None
    here, there = (uses.first_of(one.ids, pattern) for one in (use, seen.use))
    order = np.argsort(here)
    return np.searchsorted(seen.numbers, there[order[np.searchsorted(here[order], numbers)]])


def likeness(use: Use, seen: uses.Seen, taps: tuple[int, ...], rows: Array) -> float:
    """Tell how much channels vary alike on both sides; 0 where they are of other sizes.

    Args:
      taps, rows: see order.
    """
    here, there = _channels(use, bool(taps)), _channels(seen.use, bool(seen.window))
    if here.shape != there.shape:
        return 0.0
    count = math.prod(taps)
    like = _normal(here) * _normal(there[rows[::count] // count])
    return max(0.0, float(like.sum(1).mean()))


def _normal(x: Array) -> Array:
    """Return channels (channel, n) with mean 0 and length 1."""
    x = x - x.mean(1, keepdims=True)
    return x / np.maximum(np.sqrt((x * x).sum(1, keepdims=True)), 1e-300)


def likest(here: Array, there: Array) -> Array | None:
    """Return, for each channel (channel, n), the other side's that varies most alike; None where that is not clear.

    Channels that do not vary on a side, as behind a ReLU, are at their own places if the others are.
    """
    right_rows, left_rows = _normal(here), _normal(there)
    like, varying = right_rows @ left_rows.T, right_rows.any(1) & left_rows.any(1)
    rows = like.argmax(1)
    if varying.sum() > 1 and like.diagonal()[varying].sum() >= WRITTEN * like.max(1)[varying].sum():
        return np.arange(len(rows))
    return rows if varying.all() and len(set(rows.tolist())) == len(rows) else None


def written(here: Array, there: Array) -> bool:
    """Tell whether the statistics of channels are clearly nearer to those at the same places than to the others."""
    count = len(here)
    if count < 2 or len(there) != count:
        return count == len(there)
    some = np.unique(np.linspace(0, count - 1, SAMPLE).astype(int))
    right_rows, left_rows = (x[some] / (columns.size_of(x) or 1) for x in (here, there))
    apart = np.abs(right_rows[:, None] - left_rows).mean(2)
    spread = apart.std() / np.sqrt(len(some))
    return bool(apart.mean() - apart.diagonal().mean() >= SURE * spread)

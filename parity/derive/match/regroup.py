"""Match products that the sides compose differently: matrix by matrix, by parts of rows, or as several factors."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from functools import cached_property
from typing import Any

import numpy as np

from parity.derive.limits import EXACT, MARGIN, PARTNER
from parity.derive.trace.tape import Array

from . import columns, uses
from .choices import Step
from .factors import SMALL, Factors
from .following import taps_of
from .symbols import Use

MATRICES = 64  # of a batch, up to which each is compared for itself


class Regrouping(Factors):
    """What an attempt does where no product on the left has the shape of one on the right."""

    def __init__(self, *args: Any):
        super().__init__(*args)
        self._matrices = self._every_matrix()

    @abstractmethod
    def _product(self, use: Use) -> Array | None: ...

    def _by_matrix(self, use: Use) -> bool:
        """Match each matrix of a batch, or one, to single ones and those of batches; tell whether there are such."""
        several = len(use.ids) > 1
        if self.program.tape.nodes[use.node].window or len(use.ids) > MATRICES or not (several or self._matrices):
            return False
        every, first = uses.items(use), uses.statistics(uses.items(use)[0], self.program)[1]
        single = [seen for seen in self._of_kind("product") if several and len(seen.use.ids) == 1]
        if all(
            columns.distance(first, seen.statistics) > PARTNER
            for seen in (*single, *self._matrices)
            if len(seen.statistics) == len(first)
        ):
            return False
        self.seen, self._matrices = [*self.seen, *self._matrices], []
        for item in every:
            self._product(item)
        return True

    def _contained(self, use: Use, found: Array, wider: bool, pool: Iterable[uses.Seen]) -> dict[uses.Seen, float]:
        """Return the uses of a pool whose columns contain these, or are contained in them.

        One side joins the inputs of products that the other side adds, or has them as the taps of a convolution.
        """
        window, gaps = self.program.tape.nodes[use.node].window, {}
        for seen in pool:
            alike = seen.window == window or (wider and window is None)
            fewer, more = sorted((len(found), len(seen.statistics)))
            if len(seen.use.ids) == len(use.ids) == 1 and alike and fewer < more and wider == (len(found) == fewer):
                other = seen.statistics if window else seen.beside(uses.rows(use, self.program))
                gaps[seen] = columns.distance_within(*((found, other) if wider else (other, found)), EXACT)
        return {seen: gap for seen, gap in gaps.items() if gap <= EXACT}

    @cached_property
    def _joined(self) -> list[uses.Seen]:
        """Return the left products that read several activations side by side, or one at several taps."""
        every = self._of_kind("product")
        return [seen for seen in every if _joins(seen) or math.prod(taps_of(seen.use, seen.program)) > 1]

    def _by_rows(self, use: Use, found: Array) -> bool:
        """Match parts of the rows, each to the product that reads it, or factors; columns of zeros may be left over."""
        window = self.program.tape.nodes[use.node].window
        taps = len(found) // use.x.shape[1] if window else 1
        left = found[:, 3] > 0
        parts = []
        steps = [] if window else [seen for seen in self._of_kind("product") if self._holds_steps(seen, use)]
        for seen in (*self._contained(use, found, False, self._of_kind("product")), *steps):
            rows = (
                columns.matched(seen.statistics if window else seen.beside(uses.rows(use, self.program)), found, taps)
                if seen not in steps
                else seen.values.among(columns.Values(uses.raw(use)), uses.PARTIAL)
            )
            if rows is not None and left[rows].all():
                left[rows] = False
                parts.append(np.sort(rows))
        if not parts or (left.any() and (window or not self._rest_as_factors(use, np.flatnonzero(left)))):
            return False
        for rows in parts:
            self.meet(_of_rows(use, rows, taps if window else 0))
        return True

    def _rest_as_factors(self, use: Use, rows: Array) -> bool:
        """Match the rows of a product that no other product reads to factors; tell whether they are such."""
        rest = _of_rows(use, rows)
        return self._as_factors(rest, uses.statistics(rest, self.program)[1])

    def _joined_steps(self, use: Use) -> dict[uses.Seen, tuple[Array, float]]:
        """Return (rows, distance) of left products that read one step of what this one reads, joined with a state."""
        found, here = dict[uses.Seen, tuple[Array, float]](), columns.Values(uses.raw(use))
        for seen in self._joined:
            more = len(seen.use.ids) == len(use.ids) == 1 and seen.use.ids.shape[1] > use.ids.shape[1]
            if more and seen.window is None and uses.longer(use, seen.use):
                rows = here.among(seen.values, uses.PARTIAL)
                if rows is not None:
                    found[seen] = rows, 0.0
        return found

    def _holds_steps(self, seen: uses.Seen, use: Use) -> bool:
        """Tell whether a left product reads fewer inputs at all steps of time, of which the right one reads some."""
        fewer = len(seen.use.ids) == len(use.ids) == 1 and seen.use.ids.shape[1] < use.ids.shape[1]
        return fewer and seen.window is None and uses.longer(seen.use, use)

    def _at_once(
        self,
        use: Use,
        mine: Array,
        gaps: Mapping[uses.Seen, float],
        rows_of: Callable[[uses.Seen], Array | None],
        role: str,
    ) -> bool:
        """Match columns as they are written: to those of one use or of several, or to a part of those of one.

        Columns that go one way on one side may go several ways on the other, as experts or gates that one side fuses.

        Args:
          mine: the elements of the columns, (b, k, columns).
          role: what they are for; "" if several things.
        """
        limit = min(self.limit, max(MARGIN * min(gaps.values(), default=np.inf), EXACT))
        limit = np.inf if self.walk.at in self.rough else limit
        wanted, parts, readers = mine.shape[2], list[Array](), list[uses.Seen]()
        by_role: dict[str, list[Array]] = {}
        for seen in (seen for seen, gap in gaps.items() if gap <= limit):
            rows = rows_of(seen)
            if rows is None:
                continue
            ids = seen.use.ids.reshape(-1, seen.use.ids.shape[2])[rows]
            free = ~self.owned[ids.astype(np.int64)].any(0)
            if free.any():
                parts.append(ids[:, free])
                readers.append(seen)
                for group in seen.groups():
                    columns_of = np.sort(group.columns[free[group.columns]])
                    by_role.setdefault(group.role, []).append(ids[:, columns_of])
        left = _columns(parts, _likest(by_role, role), wanted, self._beside(use) if role else 0)
        if left is None:
            return False
        self._partners.setdefault(use.node, []).extend((r, p.shape[1]) for r, p in zip(readers, parts, strict=True))
        self._at_once_matched.add(use.node)
        whole_one = any(left is p and r.use.ids.shape[2] == wanted for r, p in zip(readers, parts, strict=True))
        if mine is use.ids and whole_one:
            self._straight[use.node] = wanted
        site, names = self.program.tape.nodes[use.node].site, tuple(self.rights.owners(use.ids))
        owners, gap = tuple(self.lefts.owners(left)), min(gaps.values())
        self.steps.append(Step(use.kind, owners, names, "", site, gap, 0, 1, use.node, order_unknown=not whole_one))
        self._assign(mine.reshape(-1, wanted), left)
        return True

    def _beside(self, use: Use) -> int:
        """Count the columns of all products that read what this one reads: they may be parts of a wider one."""
        nodes = self.program.tape.nodes

        def read(at: int) -> int:
            return self.program.before_layouts(nodes[at].inputs[use.flipped])[0]

        own, axis = read(use.node), 1 if nodes[use.node].window or use.flipped else 2
        return sum(
            self.program.shapes[node.output][axis]
            for at, node in enumerate(nodes)
            if node.kind == "product" and node.window == nodes[use.node].window and read(at) == own
        )

    def _as_factors(self, use: Use, found: Array) -> bool:
        """Match the elements of a product to factors of several products that are added; tell whether they are such."""
        pool = [seen for seen in self._of_kind("mul") if self._free(seen.numbers)]
        if not pool or use.ids.size > SMALL:
            return False
        numbers, statistics = uses.each(use, found)
        gap = columns.distance_within(statistics, np.concatenate([seen.statistics for seen in pool]))
        if gap <= EXACT:
            group = (self.walk.at, 0, 0)  # factors of other products are none of this one's
            self._factors(use._replace(kind="mul", group=group), numbers, statistics)
        return gap <= EXACT

    def _every_matrix(self) -> list[uses.Seen]:
        """Return the matrices of the batches on the left, each for itself."""
        batches = (seen.use for seen in self._of_kind("product") if 1 < len(seen.use.ids) <= MATRICES)
        program = self.seen[0].program if self.seen else self.program
        plain = (use for use in batches if not program.tape.nodes[use.node].window)
        return [uses.Seen(item, program, self.lefts) for use in plain for item in uses.items(use)]


def _of_rows(use: Use, rows: Array, taps: int = 0) -> Use:
    """Return the part of a product that some rows of its matrix are.

    Args:
      taps: of a convolution, of which all rows of a channel are taken; 0 of other products.
    """
    x = use.x[:, rows[::taps] // taps] if taps else use.x[:, :, rows]
    return use._replace(x=x, symbol=replace(use.symbol, ids=use.ids[:, rows], leaves=(), parts=()))


def _columns(parts: list[Array], alike: list[list[Array]], wanted: int, beside: int) -> Array | None:
    """Return as many columns as are wanted: one part, several parts that make them up, or the first of a longer part.

    Args:
      alike: the parts of each role, the most similar first.
      beside: how many columns a longer part may have.
    """
    widths = {part.shape[1] for part in parts}
    sets = [parts, *alike]
    sets += [[part for part in parts if part.shape[1] == width] for width in sorted(widths)]
    whole = [some for some in sets if sum(part.shape[1] for part in some) == wanted]
    longer = [part for some in alike for part in some if wanted < part.shape[1] <= beside]
    if longer and min(part.shape[1] for part in alike[0]) > wanted:  # all that have this role
        return longer[0][:, :wanted]
    if wanted in widths:
        return next(part for part in parts if part.shape[1] == wanted)
    if whole:
        return np.concatenate(whole[0], 1)
    return longer[0][:, :wanted] if longer else None


def _likest(parts: Mapping[str, list[Array]], role: str) -> list[list[Array]]:
    """Return the parts of each role, the most similar to this role first.

    One side may have the activation of a gate as one function, the other as several: the first words are alike then.
    """

    def unlike(other: str) -> tuple[bool, bool]:
        return other != role, other.split(" ")[0] != role.split(" ")[0]

    return [parts[other] for other in sorted(parts, key=unlike)]


def _joins(seen: uses.Seen) -> bool:
    """Tell whether what a product reads is laid out of several activations."""
    program = seen.program
    value = program.tape.nodes[seen.use.node].inputs[seen.use.flipped]
    while (made := program.makers.get(value)) is not None and program.tape.nodes[made].kind == "layout":
        active = program.active.intersection(program.tape.nodes[made].inputs)
        if len(active) != 1:
            return len(active) > 1
        (value,) = active
    return False

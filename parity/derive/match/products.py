"""Match the columns of products by the values that reach their rows, and by what their results are for."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import cache, cached_property
from typing import Any, NamedTuple

import numpy as np

from parity.derive.limits import EXACT, LARGE_PIECE, PARTNER
from parity.derive.trace.ancestors import made_of
from parity.derive.trace.tape import Array

from . import columns, origins, roles, uses
from .added import Added
from .advice import Stop, compare
from .choices import DeadEnd, Option, every
from .factors import distinct, unpaired
from .following import ALIKE, FOLLOWED, order, taps_of
from .regroup import Regrouping
from .symbols import Use

Met = tuple[Array, Array]  # colours of what left columns, and of what right ones, are multiplied with or added to

# Distances that stand for kinds of likeness: below PARTNER, so that they count, and far above EXACT, so that any use
# that meets the very values comes first.
SCALED = 0.04  # of columns that are alike but for a factor
PADDED = 0.02  # at most, of equal images with other zeros around them: likelier than a factor
SNAP = 0.1  # mean relative difference up to which the values of two models are those of one use
CLEAR = 3  # times the distance of the nearest use: where all others are farther away, there is no doubt which one it is


class Near(NamedTuple):
    """Uses on the left that meet nearly the values of a product on the right.

    Args:
      use: the right product. found: statistics of its rows. taps: of its kernel; () if it is no convolution.
      gaps: the distance of each use.
      partial: the rows of those that were compared in part.
      scales: the factor by which the right values are larger.
      counted: see uses.rows.
      by_origin: returns the left channel of each right one, by where they come from; None where that is not clear.
    """

    use: Use
    found: Array
    taps: tuple[int, ...]
    gaps: Mapping[uses.Seen, float]
    partial: Mapping[uses.Seen, Array]
    scales: Mapping[uses.Seen, float]
    by_origin: Callable[[uses.Seen], Array | None] = lambda seen: None
    counted: int = 0

    def rows(self, seen: uses.Seen) -> Array | None:
        """Match the rows of the right product to those of a left use; None if the two meet different values."""
        if seen in self.partial:
            return self.partial[seen]
        parted = self.gaps.get(seen, 0.0) > ALIKE
        if (parted or columns.alike(self.found).any()) and (channels := self.by_origin(seen)) is not None:
            rows: Array = (channels[:, None] * self.block + np.arange(self.block)).ravel()
            if parted or columns.equal(self.found, seen.statistics[rows]):
                return rows
        wider = self.block == 1 and len(seen.statistics) > len(self.found)
        other = seen.beside(self.counted) if wider else seen.statistics
        plain = wider and not self.taps and seen.window is None
        if plain and columns.alike(other).any():  # as of values beside the same in reverse
            same = columns.row_by_row(uses.raw(self.use), uses.raw(seen.use))
            if same is not None:
                return same
        rows = columns.matched(self.found / self.scales.get(seen, 1.0), other, self.block)
        return order(self.use, seen, self.taps) if rows is None and len(self.found) == len(seen.statistics) else rows

    @property
    def block(self) -> int:
        """Return the number of rows that each channel has."""
        return int(np.prod(self.taps, dtype=int))


class Products(Regrouping):
    """What an attempt does where a parameter is a matrix or the kernel of a convolution."""

    def __init__(self, *args: Any):
        super().__init__(*args)
        self._sums = Added([*self._of_kind("product")], self.program, len(self.lefts))

    def _product(self, use: Use) -> Array | None:
        """Match each group of columns; return the left values where these differ a little from the right ones."""
        near = self._near(use)
        if near is None:
            return None
        rough = self.walk.at in self.rough
        partners, seen, rows = list[tuple[uses.Seen, roles.Group]](), None, None
        grouping = uses.grouped(use, self.program, near.gaps)
        whole = grouping.groups[0].role if len(grouping.groups) == 1 else ""
        by_group = _told_apart(grouping.groups, near.gaps)
        for group in grouping.groups:
            if every(self.map, group.of(use.ids)):
                continue
            options = _untaken(self._options(use, grouping, group, near, [one for one, _ in partners]), partners)
            if not options and group.role == roles.UNREAD:
                continue
            at_once = not (options or partners or by_group)
            if at_once and self._at_once(use, use.ids, near.gaps, near.rows, whole):
                seen = next(iter(near.gaps))
                return self._snapped(use, seen, near.rows(seen), True) if rough else None
            free = [
                one for one in options if self._free(_met_rows(near, one.partner, one.detail.of(one.partner.use.ids)))
            ]
            if not free and self._at_once(use, group.of(use.ids), near.gaps, near.rows, group.role):
                rows, seen, by_group = None, next(iter(near.gaps)), True
                continue
            options = distinct(options, lambda option: option.partner.use.ids[0, 0, option.detail.columns].tobytes())
            seen, other = self._choose(use, options, np.inf if rough else self.limit)
            partners.append((seen, other))
            rows = near.rows(seen)
            self._align_product(use, seen, group, other, rows)
        if seen is None or not near.gaps or near.gaps[seen] <= EXACT:
            return None
        return self._snapped(use, seen, rows, rough or _clear(seen, near.gaps))

    def _near(self, use: Use) -> Near | None:
        """Return the uses that meet nearly the same values; None if the product was matched in another composition."""
        found = uses.statistics(use, self.program)[1]
        pool = [seen for seen in self._of_kind("product") if seen.use.ids.shape[:2] == use.ids.shape[:2]]
        gaps = uses.distances(found, pool)
        partial, scales = dict[uses.Seen, tuple[Array, float]](), dict[uses.Seen, float]()
        window, taps = self.program.tape.nodes[use.node].window, taps_of(use, self.program)
        if window and min(gaps.values(), default=np.inf) > EXACT and (padded := self._padded(use, gaps)):
            return Near(use, found, taps, {seen: min(gaps[seen], PADDED) for seen in padded}, padded, {})
        if min(gaps.values(), default=np.inf) > PARTNER:
            partial = {} if window else uses.partial(use, pool)
            if not partial and (self._by_matrix(use) or self._by_rows(use, found) or self._as_factors(use, found)):
                return None
            wider = self._contained(use, found, True, self._of_kind("product"))
            partial |= {} if window or partial or wider else self._joined_steps(use)
            gaps |= wider and wider | {seen: gap for seen, (_, gap) in partial.items()}
        if min(gaps.values(), default=np.inf) > PARTNER:
            scales = {seen: columns.size_of(found) / (columns.size_of(seen.statistics) or 1) for seen in pool}
            scaled = {seen: columns.proportional(found, seen.statistics) for seen in pool}
            exact = self.scaling and min(scaled.values(), default=np.inf) <= EXACT
            gaps = {seen: gap if exact else max(gap, SCALED) for seen, gap in scaled.items()}
            if exact and self._scaled is None:
                self._scaled = self._now()
            gaps |= {seen: gap for seen, (_, gap) in partial.items()}
        elif not window:  # one that reads all steps of time at once, too, has the values of one step
            free = [seen for seen in pool if self._free(seen.use.ids)]
            taken = all(gaps[seen] > PARTNER for seen in free)
            others = [seen for seen in free if gaps[seen] > PARTNER]
            partial = uses.partial(use, [seen for seen in others if taken or uses.in_steps(seen.use, use)])
            gaps |= {seen: gap for seen, (_, gap) in partial.items()}
            gaps |= self._contained(use, found, True, self._joined)
        near = {seen: gap for seen, gap in gaps.items() if gap < PARTNER}
        unclear = self.walk.at in self.rough or all(
            gap > EXACT and not self._free(seen.use.ids) for seen, gap in near.items()
        )
        if unclear and (doubtful := self._doubtful(use, pool)):
            partial = {seen: (rows, gaps.get(seen, PARTNER)) for seen, rows in doubtful.items()}
            near = {seen: gap for seen, (_, gap) in partial.items()}
        rows = {seen: rows for seen, (rows, _) in partial.items()}
        by_origin = cache(lambda seen: self._by_origin(use, seen))
        return Near(use, found, taps, near, rows, scales, by_origin, uses.rows(use, self.program))

    @cached_property
    def _starts(self) -> dict[int, Array]:
        """Return the colours of the columns of each left product."""
        return origins.every(self.seen[0].program, self._products)

    def _by_origin(self, use: Use, seen: uses.Seen) -> Array | None:
        """Return the left channel of each right one, by the products whose columns they are."""
        if use.flipped or seen.use.flipped:
            return None
        right = origins.colours(self.program, use.node, self._colours, self._own_products)
        if right is None:
            return None
        if seen not in self._left_colours:
            program, at = seen.program, seen.use.node
            self._left_colours[seen] = origins.colours(program, at, self._starts, self._products)
        left = self._left_colours[seen]
        return None if left is None else origins.order(left, right)

    def _padded(self, use: Use, gaps: Mapping[uses.Seen, float]) -> dict[uses.Seen, Array]:
        """Return the rows of convolutions that read the same images with other zeros around them."""
        window = self.program.tape.nodes[use.node].window
        image, found = columns.of_image(use.x), dict[uses.Seen, Array]()
        for seen in gaps:
            alike = seen.window == window and len(seen.image) == len(image)
            if alike and columns.distance(image, seen.image) <= EXACT:
                channels = columns.matched(image, seen.image)
                taps = use.ids.shape[0] * use.ids.shape[1] // len(image)
                if channels is not None:
                    found[seen] = (channels[:, None] * taps + np.arange(taps)).ravel()
        return found

    def _options(
        self, use: Use, grouping: uses.Grouping, group: roles.Group, near: Near, partners: Sequence[uses.Seen]
    ) -> list[Option]:
        """Return groups of columns on the left that may correspond to one on the right.

        Args:
          grouping: of the whole product on the right.
          partners: those that the groups before this one have: one use is likely to have one partner, or several of one
            parameter. Layers that one parameter stacks are several too, so that roles tell more than its name.
        """
        right, options = group.of(use.ids), list[Option]()
        namesakes = self._namesakes(use, near.gaps) if self.walk.at in self.rough else []
        strays = self._strays(use, near.gaps).difference(namesakes)
        unread = group.role if group.role == roles.UNREAD else ""
        every = [(seen, other) for seen in near.gaps for other in grouping.of(seen)]
        every = [(seen, other) for seen, other in every if len(other.columns) == len(group.columns)]
        beside = self._right_beside(group) if len(every) > 1 or len(group.columns) > 1 else None
        for seen, other in every:
            if unread not in ("", other.role):
                continue
            gap, ids, left_groups = near.gaps[seen], other.of(seen.use.ids), grouping.of(seen)
            taken = not self._free(_met_rows(near, seen, ids))
            apart = gap > EXACT and gap
            alone, unnamed = seen not in partners, all(seen.names != one.names for one in partners)
            hollow = columns.hollow(right, ids, (near.found, seen.statistics, near.block))
            ends = use.node, group.columns, seen, other.columns
            added = len(every) > 1 and self._sums.otherwise(*ends, self.map, self._attempt)
            met = self._met_beside(beside, seen, other)
            elsewhere = len(every) > 1 and seen not in namesakes and self._beside_others(group, seen, other, met)
            split = not roles.same_group_sizes(grouping.groups, left_groups), roles.unmet(grouping.groups, left_groups)
            role, biased = roles.difference(group.role, other.role), group.biased != other.biased
            whole = len(seen.statistics) == len(near.found) and seen not in near.partial
            # an einsum exchanges its operands: which side one is on tells less than all of these
            unlikely = seen in strays, hollow, taken, added, elsewhere, *split
            likely = (*unlikely, not whole, alone, role > 1, unnamed, biased)
            differs = other.grid != group.grid
            # layouts exchange the axes of values; those of the operands of products are in one order
            unlike = differs and (group.role.startswith("product") or sorted(other.grid) != sorted(group.grid))
            aligned = self._aligned(group, seen, other, met)
            for turned, columns_of in enumerate((*aligned, other, *(other.orders() if differs else ()))):
                order = self._order(use, seen, (*likely, turned), role, seen not in namesakes, apart, unlike)
                options.append(Option(order, gap, seen, columns_of))
        return options

    def _aligned(self, group: roles.Group, seen: uses.Seen, other: roles.Group, met: Met | None) -> list[roles.Group]:
        """Return the left columns in the order of what they meet on the way, and of where that mixes them."""
        if len(group.columns) == 1:
            return []
        as_beside = met and origins.order(*met)  # of what the right ones are multiplied with or added to
        found = (as_beside, self._as_over(group, seen, other), roles.as_behind(group, other))
        orders = (index for index in found if index is not None and (np.diff(index) != 1).any())
        return [replace(other, columns=other.columns[index], places=other.places[index]) for index in orders]

    def _right_beside(self, group: roles.Group) -> Array | None:
        """Return the colours of what right columns are multiplied with or added to; None if not clear."""
        if group.beside is None:
            return None
        return origins.beside(self.program, group.beside, self._colours, self._own_products)

    def _met_beside(self, right: Array | None, seen: uses.Seen, other: roles.Group) -> Met | None:
        """Return the colours of what left columns meet, and those of the right ones, where both are clear."""
        if right is None or other.beside is None:
            return None
        left = origins.beside(seen.program, other.beside, self._starts, self._products)
        return None if left is None else (left, right)

    def _beside_others(self, group: roles.Group, seen: uses.Seen, other: roles.Group, met: Met | None) -> bool:
        """Tell whether left columns are not multiplied with or added to the partners of what the right ones are."""
        if met is not None:
            return origins.differ(*met)
        if group.beside is None or other.beside is None:
            return False
        right = made_of(self.program, group.beside.value, self._own_products)
        left = made_of(seen.program, other.beside.value, self._products)
        known = self._partners.keys() - {self.walk.at}  # of the product itself, some columns may have no partner yet
        return right <= known and not self._reads_partners(right, left)

    def _as_over(self, group: roles.Group, seen: uses.Seen, other: roles.Group) -> Array | None:
        """Return the left columns in the order of what the right ones are summed over with."""
        if group.over is None or other.over is None:
            return None
        right = origins.over(self.program, group.over, self._own_products)
        if right is None or right.max() == len(right) - 1:
            return None
        left = origins.over(seen.program, other.over, self._products)
        return None if left is None else origins.regrouped(left, right)

    def _doubtful(self, use: Use, pool: list[uses.Seen]) -> dict[uses.Seen, Array]:
        """Return the left row of each right one, of uses that meet other values, but that other evidence speaks for.

        Raises: DeadEnd where another choice may still lead to a use that does.
        """
        agreeing = self._agreeing(use, pool)
        most = max((part for _, part in agreeing.values()), default=0.0)
        found = {seen: rows for seen, (rows, part) in agreeing.items() if part == most}
        found = found or self._following(use, pool)
        if found and self.walk.at not in self.rough:
            names = self.rights.owners(use.ids)
            gap = 1 - most if agreeing else FOLLOWED
            what = "operations on the left read a part of the values that its product reads, none reads all"
            window = self.program.patches(self.program.tape.nodes[use.node])
            raise DeadEnd(Stop(tuple(names), what, compare(use.kind, window)), gap)
        return found

    def _agreeing(self, use: Use, pool: list[uses.Seen]) -> dict[uses.Seen, tuple[Array, float]]:
        """Return (rows, part) of uses of which a part of the rows meets the same values, as behind other masks."""
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
        return found

    def _snapped(self, use: Use, seen: uses.Seen, rows: Array | None, sure: bool) -> Array | None:
        """Return the left values in the order of the right ones, if these are near or part of them is the same.

        Args:
          sure: whether these are the values of this use even where they are not near.
        """
        here, there = use.x, seen.use.x
        node = self.program.tape.nodes[use.node]
        if rows is not None and node.window and here.shape[:2] == there.shape[:2]:
            taps = len(rows) // here.shape[1]
            moved = there[:, rows[::taps] // taps]
            if here.shape == there.shape:
                return columns.snapped(here, [moved], SNAP, sure)
            other = seen.program.tape.nodes[seen.use.node]
            alike = (
                node.window == other.window
                and all(  # the taps, and the positions of the result
                    self.program.shapes[mine][2:] == seen.program.shapes[its][2:]
                    for mine, its in ((node.inputs[1], other.inputs[1]), (node.output, other.output))
                )
            )
            if sure and not alike:
                return columns.resized(moved, here.shape)
            return moved if sure else None
        if rows is None or here.shape != there.shape:
            return None
        flat = there.swapaxes(1, 2).reshape(len(rows), -1)[rows]
        moved = flat.reshape(here.shape[0], here.shape[2], here.shape[1]).swapaxes(1, 2)
        return columns.snapped(here, [moved, *columns.transposed(moved)], SNAP, sure)

    def _align_product(
        self, use: Use, seen: uses.Seen, group: roles.Group, other: roles.Group, rows: Array | None
    ) -> None:
        self._partners.setdefault(use.node, []).append((seen, len(group.columns)))
        if rows is None:
            raise unpaired(self.rights.owners(use.ids), seen)
        if np.array_equal(group.columns, other.columns) and (len(use.ids) == 1 or (np.diff(rows) == 1).all()):
            self._straight[use.node] = len(use.ids) * len(group.columns)
        else:
            self._straight.pop(use.node, None)
        self._colour(use, seen, group, other, rows)
        right, left = (ids.reshape(-1, ids.shape[2]) for ids in (group.of(use.ids), other.of(seen.use.ids)))
        step = max(1, LARGE_PIECE // max(right.shape[1], 1))  # bounds memory
        for at in range(0, len(rows), step):
            self._assign(right[at : at + step], left[rows[at : at + step]])

    def _colour(self, use: Use, seen: uses.Seen, group: roles.Group, other: roles.Group, rows: Array) -> None:
        """Note which columns of a left product those of a right one correspond to."""
        window = self.program.tape.nodes[use.node].window
        (groups, length, count), (left_groups, left_length, left_count) = use.ids.shape, seen.use.ids.shape
        if use.flipped or seen.use.flipped or (not window and groups > 1):
            return
        if (groups, length) != (left_groups, left_length):
            return
        left = origins.colours_of(seen.use.node, left_groups * left_count).reshape(left_groups, left_count)
        own = self._colours.setdefault(use.node, np.zeros(groups * count)).reshape(groups, count)
        own[:, group.columns] = left[rows[::length] // length][:, other.columns]


def _met_rows(near: Near, seen: uses.Seen, ids: Array) -> Array:
    """Return the elements of a left product that read what the right one reads, if it reads other values beside."""
    if len(ids) > 1 or ids.shape[1] <= len(near.found):
        return ids
    rows = near.rows(seen)
    return ids if rows is None else ids[:, rows]


def _told_apart(groups: Sequence[roles.Group], lefts: Iterable[uses.Seen]) -> bool:
    """Tell whether groups of columns are for several kinds of things, each of which left columns are for as well."""
    right = {group.role.split(" ")[0] for group in groups}
    return len(right) > 1 and right <= {group.role.split(" ")[0] for seen in lefts for group in seen.groups()}


def _untaken(options: list[Option], partners: Sequence[tuple[uses.Seen, roles.Group]]) -> list[Option]:
    """Leave out left columns that other columns of the same right product have, unless nothing else is left."""
    free = [
        option
        for option in options
        if not any(option.partner is seen and np.isin(option.detail.columns, of.columns).any() for seen, of in partners)
    ]
    return free or options


def _clear(seen: uses.Seen, gaps: Mapping[uses.Seen, float]) -> bool:
    """Tell whether all other uses, but for those that meet the same values, are far more distant than this one."""
    near = (other for other, gap in gaps.items() if other is not seen and gap <= CLEAR * gaps[seen])
    return all(columns.distance(other.statistics, seen.statistics) <= EXACT for other in near)

"""Locate the cells of a line in their arrays, and compute the moves between them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NamedTuple

from specs.applied.moves import Move, Shape


class Place(NamedTuple):
    """One atom of an array as a cell sees it: which variable runs along it, over which range, in which order."""

    size: int  # of the atom
    variable: str  # "" where the cell has one index only
    start: int
    length: int
    backwards: bool = False
    order: tuple[int, ...] | None = None

    def position(self, index: int) -> int:
        index = self.length - 1 - index if self.backwards else index
        return self.start + (self.order[index] if self.order else index)

    @property
    def span(self) -> tuple[int, int]:
        return self.start, self.start + self.length


Box = tuple[Shape, tuple[tuple[int, int], ...]]  # atoms, and the range of each


def whole(place: Place) -> slice:
    return slice(None) if place.span == (0, place.size) else slice(*place.span)


def box(places: Iterable[Place], fixed: Mapping[str, int]) -> Box:
    """Return the range of each atom that places take, one index where a variable is fixed."""
    spans, atoms = [], []
    for place in places:
        atoms.append(place.size)
        if place.variable in fixed:
            at = place.position(fixed[place.variable])
            spans.append((at, at + 1))
        else:
            spans.append(place.span)
    return tuple(atoms), tuple(spans)


def between(source: str, left: list[Place], right: list[Place], fixed: Mapping[str, int]) -> Move:
    """Return the Move from one cell to another, each variable that is not fixed running along both.

    The target's ranges run forward; whatever is backwards or reordered on either side is selected so from the source.
    """
    ends = {place.variable: place for place in right if place.variable}
    select: list[int | slice | tuple[int, ...]] = []
    free: list[str] = []
    for place in left:
        if not place.variable:
            select.append(place.start)
        elif place.variable in fixed:
            select.append(place.position(fixed[place.variable]))
        else:
            free.append(place.variable)
            select.append(_selection(place, ends[place.variable]))
    into: list[int | slice] = []
    order: list[int] = []
    for place in right:
        if not place.variable:
            into.append(place.start)
        elif place.variable in fixed:
            into.append(place.position(fixed[place.variable]))
        else:
            into.append(whole(place))
            order.append(free.index(place.variable))
    atoms = tuple(place.size for place in left)
    return Move(source, atoms, tuple(select), tuple(order), tuple(place.size for place in right), tuple(into))


def _selection(left: Place, right: Place) -> slice | tuple[int, ...]:
    """Tell which elements of the left's range come to the right's, in the right's order."""
    if left.order is None and right.order is None:
        start, stop = left.span
        if left.backwards == right.backwards:
            return whole(left)
        return slice(stop - 1, start - 1 if start else None, -1)
    at = [0] * right.length
    for index in range(right.length):
        at[right.position(index) - right.start] = left.position(index)
    return tuple(at)

"""Write lines for arrays that are parts of one: unequal ones, and parts that repeat in groups."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import replace
from operator import mul
from typing import NamedTuple

import numpy as np

from parity.derive.match.symbols import Elements
from parity.derive.trace.axis_roles import axis_roles, follows
from parity.derive.trace.tape import Array
from specs.notation.paths import escaped

from .facts import Target
from .names import SPARE, Names, composed, initials
from .related import Atom, Axes, relate
from .rows import Row
from .swapped import Swap, equal_in_order, in_other_order

PAIR = 2  # channels that rotary positions turn
HEADS = 2  # pieces of (h d), whose width is that of a joined axis, too
PIECES = "rsuv"  # how many pieces each part has in a group, as (g r+1+1 d): r queries to one key and one value


class Period(NamedTuple):
    """How the arrays alternate along an axis.

    Args:
      groups: how often they repeat.
      order: the arrays, as they come.
      lengths: of each one's part.
    """

    groups: int
    order: tuple[int, ...]
    lengths: tuple[int, ...]


class Whole(NamedTuple):
    """The array that consists of parts.

    Args:
      path: as it is written; stacked: names of its holes, along which arrays are stacked: the first axes.
      numbers: the sources' elements.
    """

    path: str
    stacked: tuple[str, ...]
    numbers: Array


class Split(NamedTuple):
    """The places of the three axes into which the axis of the parts is split.

    Args:
      group: which of the groups. part: which piece of the part. width: which element of the piece.
    """

    group: int
    part: int
    width: int


Parts = dict[str, Axes]  # each part's axes by its name, in the order in which they come


def joined(of: Target, stacked: tuple[str, ...] = (), holes: tuple[str, ...] = ()) -> Row | None:
    """Write `a: o i, b: p i <-> target: (o+p) i`, or with groups and pieces `(g r+1+1 d)`; None where no axis is such.

    Args:
      of: its name is the target's path as it is written. stacked: see Whole.
      holes: names of holes in the sources' paths, along which the sources are stacked: their first axes.
    """
    numbers, names = of.numbers, of.names
    for axis in range(len(stacked), numbers.ndim):
        flat = np.moveaxis(numbers, axis, 0).reshape(numbers.shape[axis], -1)
        owner = np.searchsorted(of.sources.starts, flat, "right")
        if not (owner == owner[:, :1]).all():
            continue
        period = _period(owner[:, 0], len(of.parts))
        if period is None:
            continue
        in_order, swap = numbers, None
        if period.groups == 1 and not stacked and not holes:
            in_order, swap = _in_order(of, axis, period)
        whole, split = Whole(of.name, stacked, in_order), Split(axis, axis + 1, axis + 2)
        found = [parts for width in _widths(period) if (parts := _related(of.sources, whole, split, period, width))]
        for parts in sorted(found, key=lambda parts: len(next(iter(parts.values())).target[split.width])):
            before = dict(names.lengths)
            if row := _row(parts, whole, split, period.groups > 1, names, of.side, holes):
                return row if swap is None else in_other_order(row, swap)
            names.lengths = before  # what no line uses is free
    return None


def _in_order(of: Target, axis: int, period: Period) -> tuple[Array, Swap | None]:
    """Put equal parts of another axis, as gates, into the sources' order, if the target has one order for all sources.

    Args:
      axis: along which the target joins the sources.
    """
    sources, numbers = of.sources, of.numbers
    parts, swaps = list[Array](), list[Swap]()
    for k, part in zip(period.order, np.split(numbers, np.cumsum(period.lengths)[:-1], axis), strict=True):
        name = sources.names[k - 1]
        first = sources.first(name)
        moved, found = equal_in_order(part - first, sources.shapes[name], of.names, of.side, name, 0)
        parts.append(moved + first)
        swaps += found
    alike = len({(swap.own, swap.at, tuple(swap.order)) for swap in swaps}) == 1 and len(swaps) == len(parts)
    return (np.concatenate(parts, axis), swaps[0]) if alike else (numbers, None)


def _period(owner: Array, count: int) -> Period | None:
    edges = np.flatnonzero(np.diff(owner)) + 1
    heads = owner[[0, *edges]]
    lengths = np.diff([0, *edges, len(owner)])
    groups, rest = divmod(len(heads), count)
    if rest or len(set(heads[:count])) < count or (heads.reshape(groups, count) != heads[:count]).any():
        return None
    if (lengths.reshape(groups, count) != lengths[:count]).any():
        return None
    return Period(groups, tuple(map(int, heads[:count])), tuple(map(int, lengths[:count])))


def _widths(period: Period) -> list[int]:
    """Return the widths of pieces to try: in groups the largest first; else 1 first, and none that is a whole part."""
    common = math.gcd(*period.lengths)
    widths = [width for width in range(common, 0, -1) if common % width == 0]
    return widths if period.groups > 1 else [1, *(width for width in widths if 1 < width < max(period.lengths))]


def _related(sources: Elements, whole: Whole, split: Split, period: Period, width: int) -> Parts | None:
    """Express each part of the whole, split into pieces of a width, by its array; None where axes do not do it."""
    shape = whole.numbers.shape
    groups = whole.numbers.reshape(*shape[: split.group], period.groups, -1, *shape[split.group + 1 :])
    parts: Parts = {}
    for k, numbers in zip(period.order, np.split(groups, np.cumsum(period.lengths)[:-1], split.part), strict=True):
        name = sources.names[k - 1]
        pieces = numbers.reshape(*numbers.shape[: split.part], -1, width, *numbers.shape[split.part + 1 :])
        axes = relate(pieces - int(sources.numbers(name).reshape(-1)[0]), sources.shapes[name])
        if axes is None or any(axes.windows) or any(len(axes.target[d]) > 1 for d in (split.group, split.part)):
            return None
        if any(len(axes.target[d]) != 1 for d in range(len(whole.stacked))):
            return None
        parts[name] = axes
    return parts if _cut_alike(parts, split.width) else None


def _cut_alike(parts: Parts, at: int) -> bool:
    """Cut the atoms of one axis so that those of all parts have the same lengths; tell whether that is possible.

    A part whose pieces are in the order of its array is one atom, others are several: rotary positions order queries
    and keys of a head in pairs, but not values.
    """
    every = [list(itertools.accumulate((atom.length for atom in axes.target[at]), mul)) for axes in parts.values()]
    cuts = sorted(set(itertools.chain(*every)))  # how many steps of the outermost pieces there are
    for axes in parts.values():
        before = 1
        for atom in list(axes.target[at]):
            inside = [cut for cut in cuts if before < cut <= before * atom.length]
            lengths = [stop // start for start, stop in itertools.pairwise([before, *inside])]
            if math.prod(lengths) != atom.length or (len(lengths) > 1 and atom.backwards):
                return False
            before *= atom.length
            _cut(axes, at, atom, lengths)
    return True


def _cut(axes: Axes, at: int, atom: Atom, lengths: Sequence[int]) -> None:
    """Replace an atom of an axis of the target, and of its axis of the source, by pieces of these lengths."""
    pieces = [replace(atom, length=n, inner=atom.inner * math.prod(lengths[k + 1 :])) for k, n in enumerate(lengths)]
    for atoms in (axes.target[at], axes.source[atom.axis]) if len(pieces) > 1 else ():
        k = next(k for k, other in enumerate(atoms) if other is atom)
        atoms[k : k + 1] = pieces


def _row(
    parts: Parts, whole: Whole, split: Split, in_groups: bool, names: Names, side: int, holes: tuple[str, ...]
) -> Row | None:
    """Name all axes and write the line; None where the parts' other axes are not the same."""
    taken, count = {*whole.stacked, *holes}, len(whole.stacked)
    for axes in parts.values():
        if any(len(atoms) != 1 for atoms in axes.source[: len(holes)]):
            return None
        for name, (atom,) in zip(holes, axes.source, strict=False):
            atom.name = name
    for axes in parts.values():
        for name, (atom,) in zip(whole.stacked, axes.target, strict=False):
            atom.name = name
    _name_shared(parts, split.group, "g", names, taken)
    _name_shared(parts, split.width, "d" + SPARE, names, taken, HEADS)
    for axes, letter in zip(parts.values(), _letters(list(parts), whole, in_groups, names), strict=True):
        if pieces := axes.target[split.part]:
            names.give(pieces[0], letter, taken)
    for axes in parts.values():
        _name_others(axes, split, count, holes, names, side)
    written = {*range(count), *split}
    texts = [[composed(atoms) for d, atoms in enumerate(axes.target) if d not in written] for axes in parts.values()]
    if any(text != texts[0] for text in texts):
        return None
    sides = [
        (
            name if holes else escaped(name),
            " ".join(composed(atoms, signs=True) for atoms in axes.source[len(holes) :]),
        )
        for name, axes in parts.items()
    ]
    texts[0].insert(split.group - count, _composition(parts, split, names, side))
    return Row(tuple(sides), ((whole.path if whole.stacked else escaped(whole.path), " ".join(texts[0])),))


def _composition(parts: Parts, split: Split, names: Names, side: int) -> str:
    """Return the axis of the parts: "(o+p)", "(g r+1+1 d)".

    Of several pieces of a width, the only one of length 2 states it where it is a pair: it stays one in wider heads.
    """
    total = "+".join(composed(axes.target[split.part]) for axes in parts.values())
    groups, widths = ([axes.target[at] for axes in parts.values()] for at in (split.group, split.width))
    group, width = ([atom.name for atom in next(filter(None, pieces), ())] for pieces in (groups, widths))
    twos = [at for at, atom in enumerate(widths[0]) if atom.length == PAIR]
    if len(width) > 1 and len(twos) == 1 and _are_pairs(parts, widths, twos[0], names, side):
        width[twos[0]] += f"={PAIR}"
    return f"({' '.join(filter(None, (*group, total, *width)))})"


def _are_pairs(parts: Parts, widths: Sequence[Sequence[Atom]], at: int, names: Names, side: int) -> bool:
    """Tell whether a piece is of pairs of channels that rotary positions turn: one side has these as neighbours.

    Heads may be neighbours, too: a run shows them, and so does an array that has their channels as another axis.

    Args:
      widths: the pieces of each part. at: which one. names, side: see Target.
    """
    if any(len({atom.axis for atom in atoms}) > 1 for atoms in widths):
        return False
    pieces = [atoms[at] for atoms in widths]
    for name, atom in zip(parts, pieces, strict=True) if names.programs else ():
        if follows(axis_roles(names.programs[side], name, atom.axis).heads, atom.length, atom.inner):
            return False
    last = (atoms[-1] for axes in parts.values() for atoms in axes.target if atoms)
    return any(atom.inner == 1 for atom in pieces) or any(atom is piece for atom in last for piece in pieces)


def _letters(part_names: list[str], whole: Whole, in_groups: bool, names: Names) -> Sequence[str]:
    """Choose letters for the lengths of the parts: the initials of arrays, if they are no letters of usual axes."""
    if in_groups:
        return (PIECES + SPARE)[: len(part_names)]
    own = initials(part_names)
    usual = {letter for side in (0, 1) for letter in names.letters(side, whole.numbers.ndim)}
    return own if own and usual.isdisjoint(own) else SPARE[: len(part_names)]


def _name_shared(parts: Parts, at: int, wanted: str, names: Names, taken: set[str], count: int = 0) -> None:
    """Give the pieces of an axis that all parts share one name each. Args: count: see Names.give."""
    alike = [axes.target[at] for axes in parts.values() if axes.target[at]]
    for shared, letter in zip(zip(*alike, strict=True), wanted, strict=False):
        names.give(shared[0], letter, taken, count)
        for atom in shared:
            atom.name = shared[0].name


def _name_others(axes: Axes, split: Split, stacked: int, holes: Sequence[str], names: Names, side: int) -> None:
    """Name the other axes as they are called where nothing is split.

    Args:
      stacked: how many of the target's axes are named already. holes: see joined.
    """
    named = [*(atom.name for (atom,) in axes.target[:stacked]), *holes]
    before, joint, after = (
        axes.target[stacked : split.group],
        axes.target[split.group : split.width + 1],
        axes.target[split.width + 1 :],
    )
    source, before = (
        [atoms for atoms in some if [atom.name for atom in atoms] not in [[name] for name in named]]
        for some in (axes.source, before)
    )
    names.assign(Axes(source, [*before, [*itertools.chain(*joint)], *after], axes.windows), 0, side)

"""Write lines for blocks of an axis whose pieces stand in different orders, as rotary positions order queries alone.

So are blocks of each head of which rotary positions turn one: (h 1[:-1] r=2 p) <-> (h 1[:-1] p r), and the others.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from parity.derive.trace.tape import Array
from specs.notation.paths import escaped

from .facts import Target
from .names import SPARE, composed
from .ranges import blocks
from .related import Atom, Axes, relate
from .rows import Row

MAX_BLOCKS = 4
MAX_OF_HEADS = 15  # blocks of each head: a fifth of the channels of a query, a key and a value
PAIR = 2  # channels that rotary positions turn


class Cut(NamedTuple):
    """How an axis is cut: each of some groups, such as heads, into blocks. Args: blocks: in each. size: of one."""

    groups: int
    blocks: int
    size: int


class Run(NamedTuple):
    """Blocks that stand side by side in each group of an axis.

    Args:
      axis: the one. cut: how the axis is cut. start, blocks: the first one, and how many they are.
    """

    axis: int
    cut: Cut
    start: int
    blocks: int

    @property
    def is_one(self) -> bool:
        """Tell whether they are one of several equal pieces of each group, or all of it."""
        return self.start % self.blocks == self.cut.blocks % self.blocks == 0

    def text(self, dims: Sequence[list[Atom]], is_one: bool, states: bool) -> str:
        """Write the axes of an array of which these blocks are taken.

        Args:
          dims: pieces of its axes, of which the groups and the blocks are two.
          is_one: whether the blocks are written as one part. states: whether the line states lengths here.
        """
        texts = [composed(atoms, signs=states) for atoms in dims]
        groups, inner = ([composed([atom], signs=states) for atom in dims[self.axis + k]] for k in (0, 1))
        unit = self.blocks if is_one else 1
        range_ = blocks(self.start // unit, (self.cut.blocks - self.start - self.blocks) // unit)
        if is_one:
            inner = [f"1{range_}" * bool(range_), *inner]
        else:
            inner[0] += range_
        pieces = [piece for piece in (*groups, *inner) if piece]
        texts[self.axis : self.axis + 2] = [
            f"({' '.join(pieces)})" if len(pieces) > 1 else pieces[0] if pieces else "1"
        ]
        return " ".join(texts)


def apart(of: Target) -> list[Row] | None:
    """Write `a: (1[:-2] h d r) c <-> target: (1[:-2] h r d) c`, and a line for each other block of the axis."""
    for axis, length in enumerate(of.numbers.shape):
        line = np.moveaxis(of.numbers, axis, -1).reshape(-1, length)[0]
        if len(of.parts) == 1 and len(np.unique(np.diff(line))) == 1:  # it is in order
            continue
        for cut in _cuts(line):
            before = dict(of.names.lengths)
            if found := _rows(of, axis, cut):
                cuts = [cut, *(own.cut for _, own in found)]
                if any(some.groups > 1 for some in cuts):
                    share = min(some.blocks for some in cuts if some.blocks > 1)
                    of.names.shares.add(f"1 of {share} parts of each head")
                return [row for row, _ in found]
            of.names.lengths = before  # what no line uses is free
    return None


def _cuts(line: Array) -> Iterator[Cut]:
    """Yield the ways to cut an axis into blocks that are alike in all groups. Args: line: the elements along it."""
    for count in range(2, MAX_OF_HEADS + 1):
        for groups in (n for n in range(1, len(line) // count) if len(line) % (n * count) == 0):
            inside = line.reshape(groups, count, -1)
            size = inside.shape[-1]
            alike = (inside - inside[..., :1] == (inside - inside[..., :1])[:1]).all()
            if alike and (size > 1 if groups > 1 else count <= MAX_BLOCKS):
                yield Cut(groups, count, size)


def _rows(of: Target, axis: int, cut: Cut) -> list[tuple[Row, Run]] | None:
    """Return the line of each run of blocks, and the blocks of the source; None where one is no block of a source."""
    found, start = list[tuple[Row, Run]](), 0
    while start < cut.blocks:
        runs = (Run(axis, cut, start, n) for n in range(cut.blocks - start, 0, -1) if n < cut.blocks)
        row = next(filter(None, (_row(of, run) for run in runs)), None)
        if row is None:
            return None
        found.append(row)
        start += row[1].blocks
    return found


def _row(of: Target, run: Run) -> tuple[Row, Run] | None:
    """Write the line of blocks of the target, which are blocks of one axis of a source; None where they are not."""
    axis, cut, start, count = run
    shape = of.numbers.shape
    split = of.numbers.reshape(*shape[:axis], *cut, *shape[axis + 1 :]).take(range(start, start + count), axis + 1)
    part = split.reshape(*shape[:axis], cut.groups, count * cut.size, *shape[axis + 1 :])
    names = of.sources.owners(part)
    if len(names) != 1:
        return None
    for own, places, less in _blocks(part - of.sources.first(names[0]), of.sources.shapes[names[0]], run):
        axes = relate(places, less)
        if axes is None or any(axes.windows) or any(atom.backwards for atoms in axes.source for atom in atoms):
            continue
        inner = axes.source[own.axis + 1], axes.target[axis + 1]
        if {*map(id, inner[0])} != {*map(id, inner[1])}:  # blocks of another axis, which happens to be as long
            continue
        is_one = run.is_one and own.is_one
        if not is_one and not _led_by(count, *inner):
            continue
        _name(of, axes, own, run)
        left, right = own.text(axes.source, is_one, True), run.text(axes.target, is_one, False)
        return Row(((escaped(names[0]), left),), ((escaped(of.name), right),)), own
    return None


def _led_by(count: int, source: list[Atom], target: list[Atom]) -> bool:
    """Cut the outermost piece of each side so that its steps are the blocks; tell whether the pieces allow it.

    Of five blocks, rotary positions turn two: halves on one side, r=2[:-3], and blocks of pairs on the other, b=2[:-3].
    """
    outermost = {id(atoms[0]): atoms[0] for atoms in (source, target) if atoms}
    if not outermost or any(atom.length % count for atom in outermost.values()):
        return False
    for atom in outermost.values():
        size = atom.length // count
        pieces = [replace(atom, length=count, inner=atom.inner * size, stated=True), replace(atom, length=size)]
        for atoms in (source, target):
            at = next(k for k, some in enumerate(atoms) if some is atom)
            atoms[at : at + 1] = pieces if size > 1 else pieces[:1]
    return True


def _name(of: Target, axes: Axes, own: Run, run: Run) -> None:
    """Name all pieces; state the length of the only pair in a block of heads: rotary positions turn two channels."""
    taken, heads = set[str](), axes.target[run.axis] or axes.source[own.axis]
    inner, others = (
        [a for a in atoms if not a.stated] for atoms in (axes.target[run.axis + 1], axes.source[own.axis + 1])
    )
    if not heads and len(inner) == 3 and inner[0] is others[0]:
        heads, inner = inner[:1], inner[1:]
    if len(heads) == 1:
        of.names.give(heads[0], "h", taken, 2)
    if heads and len(inner) > 1:
        pairs = [atom for atom in inner if atom.length == PAIR]
        for atom, letter in zip(inner, SPARE, strict=False):
            atom.stated = pairs == [atom]
            of.names.give(atom, "r" if atom.stated else letter, taken)
    source, target = (
        [*dims[:k], dims[k] + dims[k + 1], *dims[k + 2 :]]
        for dims, k in ((axes.source, own.axis), (axes.target, run.axis))
    )
    of.names.assign(Axes(source, target, axes.windows), 0, of.side)


def _blocks(part: Array, shape: tuple[int, ...], run: Run) -> Iterator[tuple[Run, Array, tuple[int, ...]]]:
    """Yield (blocks of an axis of the source, places in these alone, their shape) where the part is such blocks.

    Args:
      part: the places of blocks of the target. shape: of the source; that of the blocks has groups and blocks as axes.
    """
    places, (size, count) = np.unravel_index(part.astype(np.int64), shape), (run.cut.size, run.blocks)
    for axis, length in enumerate(shape):
        for groups in (n for n in dict.fromkeys((1, run.cut.groups, *part.shape)) if length % (n * size) == 0):
            group, inside = np.divmod(places[axis], length // groups)
            start = int(inside.min())
            if start % size == 0 and inside.max() < start + count * size:
                less = (*shape[:axis], groups, count * size, *shape[axis + 1 :])
                own = Run(axis, Cut(groups, length // groups // size, size), start // size, count)
                moved = (*places[:axis], group, inside - start, *places[axis + 1 :])
                yield own, np.ravel_multi_index(moved, less), less

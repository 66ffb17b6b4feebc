"""Define a Layout: what a Table comes to for arrays that are known by name and shape.

The left side is read, the right side written. covering/proof builds a Layout: it binds the Table to the arrays
(solving/binding), and covering/filling divides every array among the lines and proves that the division is complete on
both sides.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple

from specs.notation.lines import Line

from .moves import Fill, Move, Shape

Parts = list[Move | Fill]


class Sum(NamedTuple):
    """A right array that is the sum of several left ones: what each of them puts into it."""

    terms: list[Parts]


class Entry(NamedTuple):
    """A right array and what fills it.

    Args:
      dtype: that which a constant states, if any.
      like: the left array whose dtype zeros take, if any.
    """

    name: str
    shape: Shape
    filling: Parts | Sum
    dtype: str = ""
    like: str = ""

    @property
    def moves(self) -> list[Move]:
        lists = self.filling.terms if isinstance(self.filling, Sum) else [self.filling]
        return [part for parts in lists for part in parts if isinstance(part, Move)]

    @property
    def sources(self) -> list[str]:
        return list(dict.fromkeys(move.source for move in self.moves))


class Equal(NamedTuple):
    """A promise about the left side's values: what `parts` put into `shape` is equal to `others`, or to a constant."""

    line: Line
    name: str
    shape: Shape
    parts: list[Move]
    other: str
    others: list[Move]
    value: float = 0.0
    dtype: str = ""  # that the line states for a constant


class Bound(NamedTuple):
    """A line at one value of the numbers that it counts, as for one block.

    Args:
      name: of its first array there. block: that name up to its last number that counts: layers.0 of layers.0.q.weight.
      sizes: lengths of axes.
    """

    line: Line
    name: str
    block: str
    sizes: Mapping[str, int]


class Layout(NamedTuple):
    """A translation of arrays that are known by name and shape.

    Args:
      entries: every right array, in the order of the table.
      checks: what has to be true of the left side's values.
      unchecked: what a line states of whole left arrays that it drops: `drop <- gate: c = 1`, read from right to left.
      dropped: left arrays without a place on the right.
      cut: those of which a window has none, with how much it is: "2 of 9 rows".
      sums: left arrays that only count as a sum; zeroed: right arrays that get zeros as the other terms of one.
      blank: right arrays of which a window gets zeros, since the table drops it in the other direction.
      constants: right arrays that hold one value.
      absent: names of tied arrays that the left side leaves out.
      unread: arrays of the file to be like that the table drops.
      sizes: lengths of axes by line number, of the last block.
      bound: the lines at each value of their numbers; () where no lengths are given.
    """

    entries: tuple[Entry, ...]
    checks: tuple[Equal, ...]
    dropped: tuple[str, ...]
    sums: tuple[str, ...]
    zeroed: tuple[str, ...]
    constants: tuple[str, ...]
    absent: tuple[str, ...]
    sizes: Mapping[int, Mapping[str, int]] = MappingProxyType({})
    unread: tuple[str, ...] = ()
    cut: Mapping[str, str] = MappingProxyType({})
    blank: tuple[str, ...] = ()
    unchecked: tuple[Equal, ...] = ()
    bound: tuple[Bound, ...] = ()

    @property
    def shapes(self) -> dict[str, Shape]:
        return {entry.name: entry.shape for entry in self.entries}

"""Define the rows of a Table before blocks are folded, and build the Table that they become."""

from __future__ import annotations

import math
import re
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

from convert.folding import by_reason, fold
from specs.applied.arrays import flat, translate
from specs.applied.layout import Layout
from specs.notation.axes import Dim
from specs.notation.lines import Line
from specs.notation.paths import escaped
from specs.notation.signature import Signature
from specs.solving.heads import follows_shown, names_in
from specs.solving.sizes import SizeError
from specs.table import Table, TableError
from specs.words import in_a_row

from .parts import Part

Arrays = tuple[tuple[str, str | None], ...]
NAME = re.compile(r"\b[A-Za-z]\w*")  # of an axis
DIM = re.compile(r"\([^()]*\)|\S+")


@dataclass(frozen=True)
class Row:
    """A line: the arrays of both sides as (path as written, axes).

    Args:
      joins: what stands between the arrays of each side.
      arrow: "<->"; "->" and "<-" drop an array that only one side has.
      constant: the value of an array that only the right side has.
      parts: those of its sums. Rows fold where these have the same lengths and origins.
    """

    left: Arrays = ()
    right: Arrays = ()
    joins: tuple[str, str] = (", ", ", ")
    arrow: str = "<->"
    constant: str = ""
    parts: tuple[Part, ...] = ()

    def reverse(self) -> Row:
        arrow = {"->": "<-", "<-": "->"}.get(self.arrow, self.arrow)
        return replace(self, left=self.right, right=self.left, joins=self.joins[::-1], arrow=arrow)

    def renamed(self, new: Mapping[str, str]) -> Row:
        """Return the row with other names of axes, or with several in place of one: h -> g r."""

        def rename(dim: re.Match[str]) -> str:
            text = NAME.sub(lambda name: new.get(name[0], name[0]), dim[0])
            return f"({text})" if " " in text and "(" not in text else text

        def renamed(axes: str | None) -> str | None:
            return axes and DIM.sub(rename, axes)

        left, right = (tuple((path, renamed(axes)) for path, axes in side) for side in (self.left, self.right))
        parts = tuple(replace(part, letter=new.get(part.letter, part.letter)) for part in self.parts)
        return replace(self, left=left, right=right, parts=parts)

    def __str__(self) -> str:
        sides = [
            join.join(path if axes is None else f"{path}: {axes}".strip() for path, axes in side)
            for side, join in zip((self.left, self.right), self.joins, strict=True)
        ]
        if self.constant and self.arrow != "<->":
            sides = [side or "drop" for side in sides]
            sides[0 if self.left else 1] += f" = {self.constant}"
            return f"{sides[0]} {self.arrow} {sides[1]}"
        arrow = "->" if self.joins[0] == " + " else "<-" if self.joins[1] == " + " else self.arrow
        if arrow != "<->":
            sides = [side or "drop" for side in sides]
        tail = f"= {self.constant}" if self.constant else ""
        return " ".join(filter(None, (sides[0], arrow, sides[1], tail)))


def dropped(name: str, side: int) -> Row:
    """Return the line for an array of one side that the other does not have."""
    array = ((escaped(name), None),)
    return Row(left=array, arrow="->") if side == 0 else Row(right=array, arrow="<-")


def missing_lines(reasons: Mapping[str, str]) -> list[str]:
    """Return "NAME: REASON" for each right parameter without a partner, with the numbers of blocks folded."""
    return [f"{name}: {of_it(why, [name])}" for why, names in by_reason(reasons).items() for name in fold(names)]


def of_it(why: str, names: Sequence[str]) -> str:
    """Return a reason that says "it" or "them" of folded names that stand in front of it."""
    return why.replace(f" {in_a_row(names)},", " them," if names[1:] else " it,")


def constant(name: str, rank: int, value: str, arrow: str = "<->", axes: str = "abcdefgh") -> Row:
    """Return the line for an array of one value that only the right side has; "<-" drops it in reverse, unchecked."""
    return Row(right=((escaped(name), " ".join(axes[:rank])),), constant=value, arrow=arrow)


def same(left: str, right: str, order: Sequence[int]) -> Row:
    """Return the line for arrays of which the right one has the left one's axes in an order."""
    names = "abcdefgh"[: len(order)]
    return Row(((escaped(left), " ".join(names)),), ((escaped(right), " ".join(names[d] for d in order)),))


def moved(table: Table, arrays: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a Table makes of left arrays, such as element numbers, though it states other values for them."""
    layout = table.layout({name: tuple(array.shape) for name, array in arrays.items()})
    return translate(layout._replace(checks=tuple(check for check in layout.checks if check.others)), arrays)


@dataclass(frozen=True, repr=False)
class DerivedTable(Table):
    """A Table that knows the shapes it was derived from: for them no sizes need be given.

    Args:
      known, like: shapes of the left and the right side's arrays.
      sizes: lengths of the axes that both sides' shapes may leave open.
      whole: of an incomplete Table, the same with lines that drop all left arrays which no other line uses.
      by_chance: numbers of parts that lines state, as s=3, and that neither model's code shows to be one of its own.
      unread: of each side, the models' own arrays that are no parameters and have a line, as counters. `apply` takes
        them where they are not given: a mapping of parameters alone is as good as a checkpoint.
      assumed: arrays of either side that join parts which are equally long in these models, and which no run shows to
        be so in others.
    """

    known: Mapping[str, tuple[int, ...]] = field(default_factory=dict, compare=False)
    like: Mapping[str, tuple[int, ...]] = field(default_factory=dict, compare=False)
    sizes: Mapping[str, int] = field(default_factory=dict, compare=False)
    by_chance: tuple[str, ...] = field(default=(), compare=False)
    whole: DerivedTable | None = field(default=None, compare=False)
    unread: tuple[Mapping[str, Any], Mapping[str, Any]] = field(default=({}, {}), compare=False)
    assumed: Sequence[str] = field(default=(), compare=False)

    def reverse(self) -> DerivedTable:
        return replace(super().reverse(), known=self.like, like=self.known, whole=None, unread=self.unread[::-1])

    def lengths(self) -> tuple[str, ...]:
        """Name the axes whose lengths the names and shapes of a checkpoint of the left side leave open."""
        return error.remedy.enough if (error := self._open()) else ()

    def array_with(self, name: str) -> str:
        """Name an array that has an axis whose length is open, as a dimension of its own where one has it so."""
        axes = error.axes if (error := self._open()) else {}
        lines = (line for line in self.lines if name in axes.get(line.number, ()))
        sizes = dict[str, float]()
        for array in (array for line in lines for array in line.arrays):
            parts = [[part for factor in dim.factors for part in factor] for dim in array.axes or ()]
            sizes[array.label] = min(
                (len(some) for some in parts if name in {part.name for part in some}), default=math.inf
            )
        return min(sizes, key=sizes.__getitem__)

    def of_right_alone(self) -> list[str]:
        """Name arrays of more than one element that only the right side has, and whose lengths nothing shows."""
        axes = error.axes if (error := self._open()) else {}
        return [line.right.arrays[0].label for line in self.lines if line.number in axes and not line.left.arrays]

    def _open(self) -> SizeError | None:
        """Return which lengths the names and shapes of a checkpoint of the left side leave open."""
        try:
            super().layout(self.known)
        except SizeError as error:
            return error
        except TableError:  # a conversion says what does not fit
            pass
        return None

    def open_lines(self) -> dict[str, list[str]]:
        """Return the lines, by their first array that has it, on which names and shapes leave an axis' length open."""
        found: dict[str, list[str]] = {}
        for error in filter(None, (self._open(), self.reverse()._open())):
            for line in self.lines:
                for name in error.axes.get(line.number, ()):
                    label = next(a.label for a in line.arrays if any(part.name == name for part in a.parts()))
                    found.setdefault(name, []).extend([label] * (label not in found.get(name, ())))
        return found

    def unchecked(self) -> tuple[str, ...]:
        """Name the axes whose lengths no shape of either side shows, such as a and b of (a+b) <-> (b+a)."""
        errors = self._open_both_ways()
        asked = dict.fromkeys(name for error in errors for name in error.remedy.enough)
        return tuple(name for name in asked if not self._is_shown(name, errors))

    def following(self) -> tuple[str, ...]:
        """Name the axes that no shape shows either, and whose lengths follow from those of `unchecked`."""
        if not (unchecked := self.unchecked()):
            return ()
        errors = self._open_both_ways()
        sides = [{name for names in error.axes.values() for name in names} for error in errors]
        names = set[str].intersection(*sides).difference(unchecked)
        return tuple(sorted(name for name in names if not self._is_shown(name, errors)))

    def _open_both_ways(self) -> list[SizeError]:
        """Return which lengths a checkpoint of either side leaves open, where those of both sides do."""
        errors = [error for error in (self._open(), self.reverse()._open()) if error and error.remedy.enough]
        return errors if self.whole is None and len(errors) == 2 else []

    def _is_shown(self, name: str, errors: Sequence[SizeError]) -> bool:
        """Tell whether a conversion compares a length with another line: one that is alike, or of the same module.

        Lines are alike that have it as a whole axis, and another one that is composed with it where it is open; a
        letter alone may stand for another length on each line.
        """
        if any(name == hole.name for line in self.lines for array in line.arrays for hole in array.holes):
            return True
        asked = [line for line in self.lines if any(name in error.axes.get(line.number, ()) for error in errors)]
        beside = set[str]().union(*(names_in(d) for line in asked for d in _dims(line) if name in names_in(d))) - {name}
        for line in self.lines:
            own = set[str]().union(*map(names_in, _dims(line)))
            if name in _whole(line.arrays) and (name[0].isupper() or beside & own):
                return True
        return all(self._are_compared(name, error) for error in errors)

    def _are_compared(self, name: str, error: SizeError) -> bool:
        """Tell whether a conversion compares a length with a shape on a line that leaves it open."""
        asked = (line for line in self.lines if name in error.axes.get(line.number, ()))
        return any(follows_shown(line, name, error.shown) for line in asked)

    def apply(self, arrays: Mapping[str, Any], like: Mapping[str, Any] | None = None, **sizes: int) -> dict[str, Any]:
        if self.whole is not None:
            what = "this Table is incomplete: what it returns lacks arrays of the right model (`missing` names them)"
            warnings.warn(what, stacklevel=2)
            return self.whole.apply(arrays, like, **sizes)
        own, arrays = self.unread[0], flat(arrays)
        if any(name in arrays for name in own):
            return super().apply(arrays, like, **sizes)
        return super().apply({**own, **arrays}, like, **sizes)

    def layout(self, shapes: Any, like: Any = None, sizes: Any = None) -> Any:
        if like is None and not sizes and dict(shapes) == dict(self.known):
            return self._layout
        return super().layout(shapes, like, sizes)

    @cached_property
    def _layout(self) -> Layout:
        """Lay the Table out for the shapes that it was derived from, once: a proof translates dozens of draws."""
        return super().layout(self.known, self.like, self.sizes)


def table_of(
    rows: Sequence[Row | Line],
    sides: tuple[str, str],
    orders: Mapping[str, Sequence[int]],
    known: Mapping[str, tuple[int, ...]],
    like: Mapping[str, tuple[int, ...]],
    lengths: Mapping[str, int],
) -> DerivedTable:
    """Parse the rows' text; of `lengths`, keep those of axes that are not whole axes on both sides in every line."""
    text = "\n".join([f"table 1: {sides[0]} <-> {sides[1]}", *map(str, rows)]) + "\n"
    table = Table.parse(text, {name: order for name, order in orders.items() if f"[@{name}]" in text})
    needed = {name for line in table.lines for name in _composed(line)}
    sizes = {name: length for name, length in lengths.items() if name in needed}
    return DerivedTable(table.lines, table.sides, table.orders, known=known, like=like, sizes=sizes)


def _composed(line: Line) -> set[str]:
    """Return the parts of axes that one side of a line does not have as a whole axis, whose length its shapes show."""
    sides = [side.arrays for side in (line.left, line.right) if side.arrays]
    whole = [_whole(array for array in arrays if not array.windowed) for arrays in sides]
    return {part.name for array in line.arrays for part in array.parts()} - set[str].intersection(*whole)


def _dims(line: Line) -> Iterator[Dim]:
    """Yield each dimension of a line's arrays."""
    return (dim for array in line.arrays for dim in array.axes or ())


def _whole(arrays: Iterable[Signature]) -> set[str]:
    """Return the names of axes that are composed of nothing else."""
    factors = (dim.factors for array in arrays for dim in array.axes or ())
    return {of[0][0].name for of in factors if len(of) == 1 and len(of[0]) == 1}

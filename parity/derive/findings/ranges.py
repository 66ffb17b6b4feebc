"""Find ranges of arrays that one model has and the other lacks, such as rows of positions that no input reads."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import NamedTuple

from parity.derive.fold.rows import DerivedTable
from specs.notation.axes import Dim
from specs.notation.claims import last_range
from specs.notation.lines import Line
from specs.notation.paths import match
from specs.notation.signature import Signature
from specs.words import count


class Range(NamedTuple):
    """A range of an axis of an array.

    Args:
      number, of: how many positions it has, of how many of the axis in the models of the derivation. noun: of one.
      dim: as the line writes it: "x[7:]".
    """

    array: Signature
    dim: Dim
    number: int
    of: int
    noun: str

    @property
    def fixed(self) -> bool:
        """Tell whether the range has no end, so that its beginning is a number of these models."""
        return self.dim.window is not None and self.dim.window[1] is None

    def __str__(self) -> str:
        return f"{self.array} ({self.number:,} of {count(self.of, self.noun)})"

    @property
    def counted(self) -> str:
        """Return "2 of 9 rows of pos"."""
        return f"{self.number:,} of {count(self.of, self.noun)} of {self.array.label}"


def dropped_ranges(table: DerivedTable) -> list[Range]:
    """List the ranges of left arrays that lines drop."""
    return [each for line in table.lines if line.kind == "drop" for each in _ranges(line, table.known, 0)]


def filled_ranges(table: DerivedTable) -> list[Range]:
    """List the ranges of right arrays that lines set to a constant, and compare with it on the way back."""
    lines = (line for line in table.lines if line.kind == "constant" and line.arrow == "<->")
    return [each for line in lines for each in _ranges(line, table.like, 1)]


def shifted_rows(table: DerivedTable, names: Collection[str]) -> list[str]:
    """List the lines by which rows of one table are later ones of the other: "pos: o[2:] i <-> pos: o i".

    Args:
      names: right arrays of which inputs pick rows.
    """
    lines = [
        line for line in table.lines if line.kind == "move" and len(line.left.arrays) == len(line.right.arrays) == 1
    ]
    shifts = [line for line in lines if _first_row(line.left.arrays[0]) != _first_row(line.right.arrays[0])]
    return [str(line) for line in shifts if any(match(line.right.arrays[0].path, name) for name in names)]


def _first_row(array: Signature) -> int:
    window = array.axes[0].window if array.axes else None
    return (window[0] or 0) if window else 0


def dropped_arrays(table: DerivedTable, names: Collection[str]) -> list[str]:
    """Return those of the right model's arrays that lines drop as a whole."""
    lines = (line for line in table.lines if line.kind == "drop" and not line.fills)
    paths = [array.path for line in lines for array in line.right.arrays]
    return [name for name in names if any(match(path, name) for path in paths)]


def dropped_read(table: DerivedTable, read: Sequence[Collection[str]]) -> tuple[list[str], list[str]]:
    """Return the arrays of each side that lines drop as a whole, as these call them, of those that the side reads."""
    lines = [line for line in table.lines if line.kind == "drop"]

    def of(side: int) -> list[str]:
        whole = [array for line in lines for array in (line.left, line.right)[side].arrays if not array.windowed]
        return [array.label for array in whole if any(match(array.path, name) for name in read[side])]

    return of(0), of(1)


def names_of(ranges: Collection[Range], names: Collection[str]) -> list[str]:
    """Return those of some names of arrays of which ranges are."""
    return [name for name in names if any(match(each.array.path, name) for each in ranges)]


def together(ranges: Collection[Range], what: str) -> str:
    """Say how much is dropped or filled: "2 of 9 rows of pos, which are dropped"; "" for nothing."""
    if not ranges:
        return ""
    arrays = dict.fromkeys(each.array.label for each in ranges)
    some = next(iter(ranges)).counted if len(ranges) == 1 else f"ranges of {count(len(arrays), 'array')}"
    return f"{some}, which {'is' if some.startswith('1 of') else 'are'} {what}"


def _ranges(line: Line, shapes: Mapping[str, tuple[int, ...]], side: int) -> Iterator[Range]:
    for array in (line.left, line.right)[side].arrays:
        axis, dim = last_range(array) or (0, None)
        name = next((name for name in shapes if match(array.path, name)), "") if dim else ""
        if not (dim and dim.window and name):
            continue
        shape = shapes[name]
        start, stop, _ = slice(*dim.window).indices(shape[axis])
        rows = all(length == 1 for length in shape[:axis]) and not any(d.window for d in (array.axes or ())[:axis])
        yield Range(array, dim, stop - start, shape[axis], "row" if rows else "position")

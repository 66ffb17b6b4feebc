"""State that rotary positions turn pairs of channels: (d=2 h), where one side pairs neighbours and the other halves."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import pairwise

from .joined import PAIR
from .rows import Arrays, Row

PIECES = re.compile(r"\((\w+(?: \w+)+)\)")  # of an axis, without sums and stated lengths
Two = tuple[str, str]


def with_pairs(rows: Sequence[Row], lengths: Mapping[str, int]) -> list[Row]:
    """Return the rows with the length of pairs stated, which no shape shows: it is 2 in larger models too.

    Of two pieces of outputs that stand in another order on the other side, the one of length 2 is such, unless inputs
    have pieces in another order: that of heads shows in the projection behind an attention as well.

    Args:
      lengths: those of all letters.
    """
    found = [[*_exchanged(row)] for row in rows]
    inputs = [two for row, every in zip(rows, found, strict=True) if _projects(row) for two in every]
    of_inputs = {_lengths(two, lengths) for two in inputs}

    def stated(row: Row, every: Sequence[Two]) -> Row:
        for two in every:
            long = [lengths[letter] for letter in two]
            if long.count(PAIR) == 1 and _lengths(two, lengths) not in of_inputs:
                return replace(row, left=_with_length(row.left, two, two[long.index(PAIR)]))
        return row

    return [stated(row, every) for row, every in zip(rows, found, strict=True)]


def _exchanged(row: Row) -> Iterator[Two]:
    """Yield two pieces that follow each other in an axis of both sides, and in opposite order."""
    left, right = _neighbours(row.left), _neighbours(row.right)
    yield from (two for two in left if two[::-1] in right)


def _neighbours(arrays: Arrays) -> dict[Two, None]:
    pieces = (axis.split(" ") for _, axes in arrays for axis in PIECES.findall(axes or ""))
    return dict.fromkeys(two for every in pieces for two in pairwise(every))


def _projects(row: Row) -> bool:
    """Tell whether the pieces are of a matrix' inputs: its outputs are a whole axis."""
    whole = {axis for _, axes in (*row.left, *row.right) for axis in (axes or "").split(" ")}
    return "o" in whole and "i" not in whole


def _lengths(two: Two, lengths: Mapping[str, int]) -> frozenset[int]:
    return frozenset(lengths[letter] for letter in two)


def _with_length(arrays: Arrays, two: Two, letter: str) -> Arrays:
    """Return the arrays with the length of a piece stated where it stands beside the other one."""

    def write(axis: re.Match[str]) -> str:
        pieces = axis[1].split(" ")
        if two not in pairwise(pieces):
            return axis[0]
        return f"({' '.join(f'{piece}={PAIR}' if piece == letter else piece for piece in pieces)})"

    return tuple((path, axes and PIECES.sub(write, axes)) for path, axes in arrays)

"""State in a Table's lines the lengths that one side's shapes leave open, as the record of a conversion needs them."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping
from dataclasses import replace
from typing import TypeVar

from specs.applied.moves import Shape
from specs.notation.axes import Dim, Part, extent
from specs.notation.claims import derived_lengths
from specs.notation.lines import Line, Lines, TableError
from specs.notation.signature import Signature

from .binding import bind
from .heads import names_in
from .matching import Matcher
from .open_axes import linked
from .sizes import SizeError

T = TypeVar("T", bound=Lines)
Lengths = Mapping[int, Mapping[str, int]]  # by line number


def stated(table: T, left: Mapping[str, Shape], right: Mapping[str, Shape], lengths: Lengths) -> T:
    """Return a Table that needs no lengths from its user for these arrays, whichever side is read.

    Only lines with open axes change. They state every axis of such a dimension: files of other lengths are refused.
    A Table comes back as it is where blocks have different lengths on one line, which a line cannot state.

    Args:
      left, right: arrays of the two sides.
      lengths: of the axes of each line in the conversion.
    """
    numbers = _composed(table)
    if not numbers:
        return table
    part = replace(table, lines=tuple(line for line in table.lines if line.number in numbers))
    try:
        part = _stated(part, _spoken(part, left), _spoken(part.reverse(), right), lengths)
    except TableError:
        return table
    lines = {line.number: line for line in part.lines}
    return replace(table, lines=tuple(lines.get(line.number, line) for line in table.lines))


def without_lengths(line: Line) -> Line:
    """Return a line without the lengths that it states, to compare it with one that states others."""
    return _changed(line, lambda part: part._replace(length=0))


def _composed(table: Lines) -> set[int]:
    """Return the numbers of lines that compose axes, and of those that may tell their lengths.

    Lengths pass between lines of one array, and everywhere for names that begin with a capital letter.
    """
    keys = {
        line.number: {array.label for array in line.arrays} | set(filter(table.shared, line.axes))
        for line in table.lines
    }
    composing = {
        line.number for line in table.lines if any(_names(dim) > 1 for a in line.arrays for dim in a.axes or ())
    }
    return linked(composing, keys)


def _names(dim: Dim) -> int:
    return sum(bool(part.name) for factor in dim.factors for part in factor)


def _spoken(table: Lines, shapes: Mapping[str, Shape]) -> dict[str, Shape]:
    """Return the arrays of which some line of a Table speaks."""
    others = set(Matcher(table, shapes).match().unexpected)
    return {name: shape for name, shape in shapes.items() if name not in others}


def _stated(table: T, left: Mapping[str, Shape], right: Mapping[str, Shape], lengths: Lengths) -> T:
    """State lengths as `stated` does, of a Table all of whose lines may need it. Raises: TableError where it cannot."""
    own = table
    for backwards, shapes in ((False, left), (True, right)):
        while dims := _open(own.reverse() if backwards else own, shapes):
            lines = tuple(_with(line, dims, lengths) for line in own.lines)
            if lines == own.lines:
                raise TableError(f"{table.name}: lengths stay open")
            own = replace(own, lines=lines)
    if own is not table:
        bind(own, left, right, {})  # where blocks have different lengths, those of one do not fit another
    return own


def _open(table: Lines, shapes: Mapping[str, Shape]) -> dict[tuple[int, Dim], None]:
    """Return (line number, dimension) of each dimension with axes that one side's shapes leave open."""
    try:
        bind(table, shapes, None, {})
    except SizeError as error:
        return dict.fromkeys(error.dims)
    return {}


def _with(line: Line, dims: Mapping[tuple[int, Dim], None], lengths: Lengths) -> Line:
    """Return a line that states the lengths of all axes of its open dimensions, each where it is first composed."""
    open_dims = [dim for number, dim in dims if number == line.number]
    names = {part.name for dim in open_dims for factor in dim.factors for part in factor} - line.lengths.keys()
    missing = {name: length for name, length in lengths.get(line.number, {}).items() if name in names}

    return _changed(line, lambda one: one._replace(length=missing.pop(one.name, one.length)), open_dims)


def _changed(line: Line, change: Callable[[Part], Part], dims: Collection[Dim] | None = None) -> Line:
    """Return a line with other parts of its axes.

    Args:
      dims: the dimensions in which parts are changed; None for all.
    """

    def array(one: Signature) -> Signature:
        if one.axes is None:
            return one
        return one._replace(axes=tuple(_map(dim, change) if dims is None or dim in dims else dim for dim in one.axes))

    left, right = (side._replace(arrays=tuple(map(array, side.arrays))) for side in (line.left, line.right))
    return replace(line, left=left, right=right)


def _map(dim: Dim, part: Callable[[Part], Part]) -> Dim:
    return dim._replace(factors=tuple(tuple(map(part, factor)) for factor in dim.factors))


def divided_otherwise(table: Lines, given: Mapping[str, int], lengths: Lengths) -> str:
    """Name an axis that is as long as in the models of a derivation, but divided otherwise as given; "" for none.

    Args:
      lengths: of the axes of each line.
    """
    derived = {name: int(length) for name, length in derived_lengths(table).items()}
    for line in table.lines:
        own = lengths.get(line.number, {})
        others = {name: derived[name] for name in own.keys() & derived.keys() - line.lengths.keys()}
        for array, dim in ((one, dim) for one in line.arrays for dim in one.axes or ()):
            names = names_in(dim)
            unlike = names & given.keys() and any(own[name] != others[name] for name in names & others.keys())
            here, there = (math.prod(extent(f, {**own, **some}) or 0 for f in dim.factors) for some in ({}, others))
            if unlike and here and here == there:
                return f"{dim} of {array.label}"
    return ""

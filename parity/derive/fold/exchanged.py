"""Find arrays whose parts stand in another order on the other side: one model concatenates the other way round."""

from __future__ import annotations

from collections.abc import Callable

from specs.notation.lines import Line, Lines, Side

ORDER = (
    "the models join the parts of an axis in different orders, and these lines exchange the parts: those of (-p=2 c) "
    "and (a=1+b=1 c) have one length in every model, those of (a+b) may differ in length"
)

FLATTENED = "the models flatten the same axes in different orders, which the Table exchanges, as (h d) <-> (d h)"


def exchanged(table: Lines) -> list[str]:
    """Return the right paths of lines that reverse the parts of an axis, or put them into another order."""
    return _right_paths(table, lambda line: _is_reordered(line, _sums) or _reversed(line.left))


def reordered(table: Lines) -> list[str]:
    """Return the right paths of lines that compose an axis of the same pieces in different orders on both sides."""
    return _right_paths(table, lambda line: _is_reordered(line, _composed))


def _right_paths(table: Lines, holds: Callable[[Line], bool]) -> list[str]:
    moves = (line for line in table.lines if line.kind == "move")
    return list(dict.fromkeys(array.label for line in moves if holds(line) for array in line.right.arrays))


def _is_reordered(line: Line, names: Callable[[Side], list[list[str]]]) -> bool:
    """Tell whether something on the left has the same names as something on the right, in another order."""
    left, right = names(line.left), names(line.right)
    return any(sorted(one) == sorted(other) and one != other for one in left for other in right)


def _composed(side: Side) -> list[list[str]]:
    """Return the names of the pieces of each axis that has several."""
    dims = [dim for array in side.arrays for dim in array.axes or ()]
    names = [[factor[0].name for factor in dim.factors if len(factor) == 1] for dim in dims]
    return [some for some, dim in zip(names, dims, strict=True) if len(some) == len(dim.factors) > 1]


def _sums(side: Side) -> list[list[str]]:
    """Return the names of the parts of each sum."""
    factors = [factor for array in side.arrays for dim in array.axes or () for factor in dim.factors]
    return [[part.name for part in factor] for factor in factors if len(factor) > 1]


def _reversed(side: Side) -> bool:
    """Tell whether an axis has a stated number of parts in reverse order."""
    return any(part.backwards and part.length for array in side.arrays for part in array.parts())

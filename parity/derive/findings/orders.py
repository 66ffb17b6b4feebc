"""Find arrays whose parts or axes stand in another order on the other side than usual.

One model concatenates the other way round, or uses a square matrix transposed, which the usual order would fit too.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import NamedTuple

from parity.derive.fold.rows import DerivedTable
from specs.notation.axes import Dim
from specs.notation.lines import Line, Lines, Side
from specs.notation.paths import normal

EQUAL, FREE = "have one length in every model", "may differ in length"
AGAIN = "derive again for a checkpoint with other numbers of heads, groups or positions"
FIXED = f"have these lengths alone: {AGAIN}"
OPEN = "are places, of which other models may have more or fewer"

Exchanges = dict[str, tuple[Dim, Dim]]  # path of a right array -> the first axis of its line that differs, of each side
UNUSUAL = "the matrices are square, so that weights in the usual order would fit in shape too, at wrong places"
OUT_IN = "torch"  # whose dense layers store (outputs, inputs); those of all others (inputs, outputs)


def exchanged(table: Lines) -> Exchanges:
    """Return the lines that reverse the parts of an axis, or put them into another order."""
    return _found(table, _swapped)


def reordered(table: Lines) -> Exchanges:
    """Return the lines that compose an axis of the same pieces in different orders on both sides."""
    return _found(table, _turned)


def order(table: Lines) -> str:
    """Say which parts lines exchange, in the words of these, and whether their lengths are free."""
    shown = dict[str, str]()  # what is said of the parts -> it with the first line that it is of
    kinds = ((is_fixed, FIXED), (_is_open, OPEN), (_is_equal, EQUAL))
    for sides in exchanged(table).values():
        left, right = sides
        said = next((words for holds, words in kinds if any(map(holds, sides))), FREE)
        shown.setdefault(said, f"as {left} <-> {right}, whose parts {said}")
    what = "the models join the parts of an axis in different orders, and these lines exchange the parts"
    return f"{what}, {'; '.join(shown[said] for said in (EQUAL, FREE, OPEN, FIXED) if said in shown)}"


def flattened(table: Lines) -> str:
    """Say which axes lines flatten in another order, in the words of the first one."""
    left, right = next(iter(reordered(table).values()))
    return f"the models flatten the same axes in different orders, which the Table exchanges, as {left} <-> {right}"


def _found(table: Lines, dims_of: Callable[[Line], Iterator[tuple[Dim, Dim]]]) -> Exchanges:
    exchanges: Exchanges = {}
    for line in (line for line in table.lines if line.kind == "move"):
        if dims := next(dims_of(line), None):
            exchanges.update(dict.fromkeys((array.label for array in line.right.arrays), dims))
    return exchanges


def _swapped(line: Line) -> Iterator[tuple[Dim, Dim]]:
    """Yield the axes whose parts stand in another order on the right: sums, parts in reverse, and lists of places."""
    for left, right in itertools.product(_dims(line.left), _dims(line.right)):
        pairs = ((one, other) for one in _sums(left) for other in _sums(right))
        own, others = ([part for factor in dim.factors for part in factor] for dim in (left, right))
        moved = {part.name for part in own if part.backwards and len(left.factors) > 1}
        moved |= {part.name for part in (*own, *others) if part.order}
        if any(sorted(one) == sorted(other) and one != other for one, other in pairs) or (
            moved & {part.name for part in own} & {part.name for part in others}
        ):
            yield left, right


def _turned(line: Line) -> Iterator[tuple[Dim, Dim]]:
    """Yield the axes in which two pieces or more, that both have, stand in different orders.

    One side may join more, as parts that the other one has as arrays: (h d) beside (s d h).
    """
    for left, right in itertools.product(_dims(line.left), _dims(line.right)):
        one, other = _pieces(left), _pieces(right)
        if [name for name in one if name in other] != [name for name in other if name in one]:
            yield left, right


def _dims(side: Side) -> list[Dim]:
    return [dim for array in side.arrays for dim in array.axes or ()]


def _pieces(dim: Dim) -> list[str]:
    """Return the names of the pieces of an axis; [] where it has one, or a sum."""
    names = [factor[0].name for factor in dim.factors if len(factor) == 1]
    return names if len(names) == len(dim.factors) > 1 else []


def _sums(dim: Dim) -> list[list[str]]:
    """Return the names of the parts of each sum."""
    return [[part.name for part in factor] for factor in dim.factors if len(factor) > 1]


def is_fixed(dim: Dim) -> bool:
    """Tell whether parts have the lengths of these models alone: (a=1+b=1+e=1+f=5), or the order of a file.

    Gates in an order of their own, (a=1+b=1+e=1), have the width that the other side's axis has beside them.
    """
    if any(part.order for factor in dim.factors for part in factor):
        return True
    lengths = [part.length or 0 for part in dim.factors[0]] if len(dim.factors) == 1 else []
    return len(lengths) > 1 and all(lengths) and max(lengths) > 1


def _is_open(dim: Dim) -> bool:
    """Tell whether so many parts run backwards as no line states: (-p i)."""
    return any(part.backwards and not part.length for factor in dim.factors for part in factor)


def _is_equal(dim: Dim) -> bool:
    """Tell whether the parts of an axis have one length, whatever that is: (-p=2 c), (a=1+b=1 c)."""
    parts = [part for factor in dim.factors for part in factor if len(factor) > 1 or part.backwards]
    return all(part.length for part in parts)


class Matrix(NamedTuple):
    """The line of a matrix.

    Args:
      leaves: the last parts of both names. is_turned: whether its axes change places.
    """

    label: str
    leaves: tuple[str, str]
    is_turned: bool
    is_square: bool


def unusual(table: DerivedTable, products: Collection[str]) -> list[str]:
    """List the lines of square matrices whose axes change places where those of others do not, or stay where they do.

    Others are matrices of the same names that are not square; without any, the layers of both frameworks say it.

    Args:
      products: right parameters that only products use.
    """
    shapes: dict[str, list[tuple[int, ...]]] = {}
    for name in products:
        shapes.setdefault(normal(name), []).append(table.like.get(name, ()))
    matrices = [matrix for line in table.lines if (matrix := _matrix(line, shapes))]
    by_frameworks = (table.sides[0] == OUT_IN) != (table.sides[1] == OUT_IN)
    names = []
    for matrix in (other for other in matrices if other.is_square):
        others = {other.is_turned for other in matrices if other.leaves == matrix.leaves and not other.is_square}
        if matrix.is_turned not in (others or {by_frameworks}):
            names.append(matrix.label)
    return names


def _matrix(line: Line, shapes: Mapping[str, Sequence[tuple[int, ...]]]) -> Matrix | None:
    """Return what is known of a line of one matrix on each side that products use; None for other lines.

    Args:
      shapes: of right parameters, by their names without numbers.
    """
    if line.kind != "move" or len(line.left.arrays) != 1 or len(line.right.arrays) != 1:
        return None
    left, right = line.left.arrays[0], line.right.arrays[0]
    axes = [[str(dim) for dim in array.axes or ()] for array in (left, right)]
    if len(axes[0]) != 2 or sorted(axes[0]) != sorted(axes[1]) or any("(" in axis for axis in axes[0]):
        return None
    kinds = shapes.get(normal(re.sub(r"\{[^}]*\}", "#", right.label)))
    if not kinds:
        return None
    leaves = re.split(r"[./]", left.label)[-1], re.split(r"[./]", right.label)[-1]
    return Matrix(right.label, leaves, axes[0] != axes[1], all(len({*shape}) == 1 for shape in kinds))

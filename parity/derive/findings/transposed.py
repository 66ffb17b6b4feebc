"""Find square matrices in an order of axes that is unusual between both sides: the usual one would fit too."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from typing import NamedTuple

from parity.derive.fold.rows import DerivedTable
from specs.notation.lines import Line
from specs.notation.paths import normal

UNUSUAL = "the matrices are square, so that weights in the usual order would fit in shape too, at wrong places"
OUT_IN = "torch"  # whose dense layers store (outputs, inputs); those of all others (inputs, outputs)


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

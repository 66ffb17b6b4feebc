"""Compare the rows of tables: those that stand elsewhere in the other model, and those that no input reads.

Positions may begin at 0 and at 1, and one model may tie a table to its head. Tokens read some rows alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from parity.derive.match.symbols import Elements
from parity.derive.trace.program import Program
from parity.derive.trace.reason import Reason
from parity.derive.trace.tape import Array

REMEDY = "let both models read the same rows of these tables, and derive again"
ALL_ROWS = "give tokens that read all rows of these tables, which shows what is tied; then derive again"


def shifted(name: str, mapped: Array, lefts: Elements, rights: Elements) -> str:
    """Say which rows of a right table are which ones of a left table of its shape; "" where they are the same ones.

    Args:
      mapped: the left element of each right one, 0 where no value shows it.
    """
    part = _rows(np.asarray(rights.part(mapped, name)))
    known = [at for at, row in enumerate(part) if row.all()] if part.ndim == 2 else []
    owners = lefts.owners(part[known]) if known else []
    if len(owners) != 1:
        return ""
    own = _rows(np.asarray(lefts.numbers(owners[0])))
    if own.shape != part.shape:
        return ""
    numbers = {tuple(row): at for at, row in enumerate(own.tolist())}
    rows = [numbers.get(tuple(part[at].tolist()), -1) for at in known]
    steps = {there - here for there, here in zip(rows, known, strict=True)}
    if -1 in rows or len(steps) != 1 or steps == {0}:
        return ""
    ranges = f"{known[0]}..{known[-1]}", f"{rows[0]}..{rows[-1]}"
    where = f"the right model reads its rows {ranges[0]} where the left one reads rows {ranges[1]} of {owners[0]}"
    return Reason(f"{where}, and no line shifts rows: let both read the same rows", REMEDY)


def parted(name: str, mapped: Array, lefts: Elements, rights: Elements) -> str:
    """Say which rows of a right table are those of which of two left ones; "" where they are not.

    Tokens that read some rows alone leave the others to another use of the table: a head that is tied on one side.
    """
    part = _rows(np.asarray(rights.part(mapped, name)))
    owners = lefts.owners(part) if part.ndim == 2 and part.all() else []
    tables = [_rows(np.asarray(lefts.numbers(owner))) for owner in owners]
    if len(owners) != 2 or any(table.shape != part.shape for table in tables):
        return ""
    first, second = ((part == table).all(1) for table in tables)
    if not (first ^ second).all():
        return ""
    rows = f"{first.sum()} of its {len(part)} rows are those of {owners[0]}, the others those of {owners[1]}"
    return Reason(f"{rows}, as if the right model used one table where the left one has two", ALL_ROWS)


def _rows(array: Array) -> Array:
    """Leave out axes of length 1 before the last two."""
    return array.reshape(array.shape[-2:]) if array.ndim > 2 and array.size == np.prod(array.shape[-2:]) else array


def read_in_rows(program: Program, mapped: Array, rights: Elements, names: Iterable[str]) -> list[str]:
    """Return the right parameters whose elements have no partner just where the run picks other rows.

    Args:
      mapped: see Match.map. names: of parameters to look at.
    """
    some = [name for name in names if _some_rows(rights.part(mapped, name) > 0)]
    return [name for name in some if _picked(program, mapped, rights, name)]


def _some_rows(known: Array) -> bool:
    """Tell whether some rows are known as a whole, and nothing of the others."""
    axis = _axis_of_rows(known.shape)
    rows = known.reshape(known.shape[axis], -1) if known.ndim > axis + 1 else np.zeros((0, 1), bool)
    return bool(rows.any() and not rows.all() and (rows.all(1) == rows.any(1)).all())


def _axis_of_rows(shape: Sequence[int]) -> int:
    """Return the first axis that is longer than 1: tables of positions may have an axis for the batch before it."""
    return next((axis for axis, length in enumerate(shape) if length > 1), 0)


def _picked(program: Program, mapped: Array, rights: Elements, name: str) -> bool:
    """Tell whether all that reads a table picks rows of it, and none of those without a partner."""
    value = program.tape.parameters[name]
    shape = program.shapes[value]
    axis = _axis_of_rows(shape)
    known = (rights.part(mapped, name) > 0).reshape(shape[axis], -1).any(1)
    rows = known.reshape([-1, *[1] * (len(shape) - axis - 1)])
    unread = np.broadcast_to(1.0 - rows, shape)  # Paddle picks no rows of bools
    readers = program.reading(value)
    for node in readers:
        operands = [unread if number == value else program.known(number) for number in node.inputs]
        if node.kind != "layout" or any(operand is None for operand in operands) or np.any(node.run(*operands)):
            return False
    return bool(readers)

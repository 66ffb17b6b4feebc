"""Tell tables of which the inputs read some rows alone, as tokens do, from parameters that are not read otherwise."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from parity.derive.match.symbols import Elements
from parity.derive.trace.program import Program
from parity.derive.trace.tape import Array


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
    readers = [program.tape.nodes[at] for at, _ in program.readers(value)]
    for node in readers:
        operands = [unread if number == value else program.known(number) for number in node.inputs]
        if node.kind != "layout" or any(operand is None for operand in operands) or np.any(node.run(*operands)):
            return False
    return bool(readers)

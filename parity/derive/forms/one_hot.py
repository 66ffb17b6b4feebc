"""Look rows up by their numbers, where a model multiplies a table by rows of zeros with a single one.

Code for TPUs embeds tokens so, as `jax.nn.one_hot(ids, n) @ table`; other models index the table.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from parity.derive.trace.program import Program
from parity.derive.trace.tape import Array, Node, Operation, Replacement, Tape

LARGE = 1 << 24  # elements of a value of inputs alone from which on it is no row of tokens


def looked_up(program: Program) -> Tape:
    """Return the tape with such products as lookups; the same one where there are none."""
    weights, values = program.weights, {**program.tape.constants, **program.inputs}

    def instead(_: int, node: Node, new: Replacement) -> list[Node]:
        for slot in (0, 1) if node.kind == "product" and not node.window else ():
            ones, table = node.inputs[slot], node.inputs[1 - slot]
            if table in weights and ones in program.plain and _are_one_hot(_value(program, ones, values), slot):
                argmax = Node("other", (ones,), -1, _numbers_of(slot), node.site, None, Operation("argmax"))
                new.record("layout", (table, new.again(argmax, (ones,))), _rows_of(slot))
                return new.nodes
        return [node]

    return program.tape.rewritten(instead)


def _value(program: Program, number: int, values: dict[int, Array]) -> Array | None:
    """Return a value that is computed from inputs alone; None of a large one."""
    if number not in values:
        node = program.tape.nodes[program.makers[number]]
        operands = [_value(program, other, values) for other in node.inputs]
        small = np.prod(program.shapes[number]) < LARGE and all(operand is not None for operand in operands)
        values[number] = node.run(*operands) if small else None
    return values[number]


def _are_one_hot(value: Array | None, slot: int) -> bool:
    """Tell whether all rows of an operand of a product are zeros and a single one, and not all the same."""
    if value is None:
        return False
    rows = _by_rows(value, slot)
    single = rows.shape[-1] > 1 and ((rows == 0) | (rows == 1)).all() and (rows.sum(-1) == 1).all()
    return bool(single and (rows != rows[:, :1]).any())


def _by_rows(value: Array, slot: int) -> Array:
    """Return the rows of a product's first operand, or the columns of its second one as rows, and the reverse."""
    return value if slot == 0 else value.swapaxes(1, 2)


def _numbers_of(slot: int) -> Callable[[Array], Array]:
    """Return what finds the place of the single one in each row; -1 of rows without."""

    def numbers(value: Array) -> Array:
        rows = _by_rows(value, slot)
        return np.where(rows.any(-1), rows.argmax(-1), -1)

    return numbers


def _rows_of(slot: int) -> Callable[[Array, Array], Array]:
    """Return what looks up rows of a table (b, k, o), and zeros for -1; of (b, o, k) columns, which stay columns."""

    def rows(table: Array, numbers: Array) -> Array:
        table = _by_rows(table, slot)
        table = np.concatenate([table, np.zeros_like(table[:, :1])], 1)
        picked = np.take_along_axis(table, numbers[:, :, None], 1)
        return _by_rows(picked, slot)

    return rows

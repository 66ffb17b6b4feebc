"""Let one side read the rows of a table that the other one reads: of types of tokens, say, or of positions."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import numpy as np

from parity.derive.trace.program import Program
from parity.derive.trace.tape import Array, Node

from .edit import SIDES, Replaced, Scope

KIND = "reading of rows"
MOST = 4  # readings that are tried with the rows of others
SHOWN = 8  # rows that are written one by one


class Reading(NamedTuple):
    """A reading of rows of a parameter.

    Args:
      rows: their numbers, in the shape of the result without its last axis. stated: whether an input has these numbers.
    """

    node: Node
    name: str
    shape: tuple[int, ...]
    rows: Array
    stated: bool

    @property
    def text(self) -> str:
        """Say which rows it reads."""
        known = np.unique(self.rows)
        if self.stated and len(known) > 1:
            return "the rows that an input states"
        first, last = known[0], known[-1]
        if len(known) > 2 and len(known) == last - first + 1:
            return f"rows {first}..{last}"
        listed = ", ".join(map(str, [*known[:SHOWN], *["..."] * (len(known) > SHOWN)]))
        return f"row{'s' * (len(known) > 1)} {listed}"


@dataclass(frozen=True)
class OtherRows(Replaced):
    """Read other rows of tables. Args: values: results of the readings -> the numbers of the rows in their place."""

    values: Mapping[int, Array]

    def instead(self, node: Node) -> Node:
        return node._replace(run=partial(_taken, self.values[node.output]))


def _taken(rows: Array, *operands: Array) -> Array:
    """Take rows of the table among the operands, the other one of which is an index."""
    return np.take(next(array for array in operands if array.dtype.kind == "f"), rows, 0)


def repicked(scope: Scope) -> Iterator[OtherRows]:
    """Yield edits by which a right table is read in the rows in which the left side reads one of its shape."""
    lefts, rights = (list(_readings(program)) for program in scope.programs)
    free = [one for one in lefts if not any(_alike(one, other) for other in rights)]
    pairs = [(one, other) for other in rights if not any(_alike(one, other) for one in lefts)
             for one in free if (one.shape, one.rows.size) == (other.shape, other.rows.size)]  # fmt: skip
    for one, other in pairs[:MOST]:
        names = " and ".join(dict.fromkeys([one.name, other.name]))
        does = f"the {SIDES[0]} reads {one.text}, the {SIDES[1]} {other.text}"
        does += ", in another order" * (one.text == other.text)
        yield OtherRows(
            1, KIND, f"of {names}, {does}", {other.node.output: one.rows.reshape(other.rows.shape)}, fault=does
        )


def _alike(one: Reading, other: Reading) -> bool:
    return one.shape == other.shape and np.array_equal(one.rows.ravel(), other.rows.ravel())


def _readings(program: Program) -> Iterator[Reading]:
    """Yield the readings of rows of parameters (rows, width) by integers."""
    names = {number: name for name, number in program.tape.parameters.items()}
    given = [np.ravel(array) for array in program.inputs.values()]
    for node in program.tape.nodes:
        tables = [slot for slot, number in enumerate(node.inputs) if number in names]
        if node.kind != "layout" or len(node.inputs) != 2 or len(tables) != 1:
            continue
        number, shape = node.inputs[tables[0]], program.shapes[node.inputs[tables[0]]]
        if node.inputs[1 - tables[0]] not in program.indices or len(shape) != 2:
            continue
        numbered = program.labelled(node, tables[0], np.broadcast_to(np.arange(float(shape[0]))[:, None], shape))
        rows = numbered[..., 0].astype(np.int64)
        if numbered.shape[-1:] == shape[1:] and (numbered == numbered[..., :1]).all():
            stated = any(np.array_equal(rows.ravel(), array) for array in given)
            yield Reading(node, names[number], shape, rows, stated)

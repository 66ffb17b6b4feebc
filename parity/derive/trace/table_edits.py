"""Let one side read a table as the other one computes it: a mask, rotations, positions, biases by distance."""

from __future__ import annotations

from collections.abc import Container, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from specs.words import in_a_row

from .edits import Edit
from .precomputed import Precomputed, tables, with_tables
from .program import Program
from .table_texts import difference
from .tape import Array, Tape

SAME = 1e-12  # relative difference of tables that rounding explains
MOST = 4  # tables of one shape that are tried in place of one another

Pair = tuple[Array, Precomputed]  # a left table, and the right one whose place it takes


@dataclass(frozen=True)
class OtherTables(Edit):
    """Compute with other values in place of those of some tables, by number."""

    values: Mapping[int, Array]

    def tape(self, tape: Tape) -> Tape:
        return with_tables(tape, self.values)


def retabled(left: Program, right: Program, near: Sequence[Container[int]]) -> Iterator[OtherTables]:
    """Yield edits that put left tables in place of right ones.

    Args:
      near: on each side, the numbers of the operations that read the tables.
    """
    every = list(_tables(right, range(len(right.tape.nodes))))
    own, others = (_distinct(_tables(program, nodes)) for program, nodes in zip((left, right), near, strict=True))
    pairs = [pair for shape in dict.fromkeys(map(_shape, others)) for pair in _pairs(own, others, shape)]
    for some in [pairs, *([pair] for pair in pairs)] if len(pairs) > 1 else [[pair] for pair in pairs]:
        if len({id(table) for _, table in some}) < len(some):  # alternatives to one another
            continue
        values = {
            table.number: value.reshape(table.value.shape)
            for value, of in some
            for table in every
            if np.array_equal(table.value, of.value)
        }
        texts = dict.fromkeys(difference(value.reshape(of.value.shape), of.value) for value, of in some)
        yield OtherTables(1, "table", in_a_row(texts), values, times=len(some))


def _tables(program: Program, nodes: Container[int]) -> Iterator[Precomputed]:
    """Yield the tables of more than one value that some operations read, in the order of these."""
    for table in tables(program.tape, list(program.inputs.values())):
        readers = [at for at, _ in program.consumers.get(table.number, ())]
        if table.value.size > 1 and any(at in nodes for at in readers):
            yield table


def _distinct(some: Iterator[Precomputed]) -> list[Precomputed]:
    found: list[Precomputed] = []
    for table in some:
        if not any(_same(table, other) for other in found):
            found.append(table)
    return found


def _shape(table: Precomputed) -> tuple[int, ...]:
    """Return the lengths of a table's axes that have more than one place."""
    return tuple(n for n in table.value.shape if n > 1)


def _same(one: Precomputed, other: Precomputed) -> bool:
    if _shape(one) != _shape(other):
        return False
    x, y = one.value.ravel(), other.value.ravel()
    return bool(np.allclose(x, y, SAME, 0, equal_nan=True))


def _pairs(own: Sequence[Precomputed], others: Sequence[Precomputed], shape: tuple[int, ...]) -> list[Pair]:
    """Pair the tables of a shape that are not the same on both sides: one by one if these are as many."""
    lefts, rights = ([table for table in side if _shape(table) == shape] for side in (own, others))
    alone = [table for table in lefts if not any(_same(table, other) for other in rights)]
    unlike = [table for table in rights if not any(_same(table, other) for other in lefts)]
    if len(alone) == len(unlike):
        return [(one.value, other) for one, other in zip(alone, unlike, strict=True)]
    return [(one.value, other) for other in unlike[:MOST] for one in (alone or lefts)[:MOST]]

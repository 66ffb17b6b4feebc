"""Let one side read a table as the other one computes it: a mask, rotations, positions, biases by distance, rows."""

from __future__ import annotations

import itertools
from collections.abc import Container, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from parity.derive.limits import HIDING
from parity.derive.trace.precomputed import tables, with_tables
from parity.derive.trace.program import Program
from parity.derive.trace.tape import Array, Tape
from specs.words import in_a_row

from .edit import Scope, Valued
from .texts import MASK, difference, hides, named, without_copies

TABLE = "table"  # the kind of most of these edits; those of masks have another
SAME = 1e-12  # difference of tables, relative to a value or to the largest one, that rounding explains
DOUBLED = {"halves", "pairs"}
ROWS = 128  # along an axis of a table, as of heads, up to which other orders are tried
SHOWN = 8  # rows whose order is written
MOST = 4  # tables of one shape that are tried in place of one another


class Core(NamedTuple):
    """A table without copies: along whole axes, and of halves or pairs in the last one, as rotations of heads have.

    Args:
      shape: of the table with copies. doubled: "halves", "pairs" or "".
    """

    value: Array
    shape: tuple[int, ...]
    doubled: str

    @classmethod
    def of(cls, table: Array) -> Core:
        (core,) = without_copies(table)
        half = core.shape[-1] // 2
        if core.shape[-1] % 2 or not half:
            return cls(core, table.shape, "")
        if np.array_equal(core[..., :half], core[..., half:]):
            return cls(core[..., :half], table.shape, "halves")
        pairs = np.array_equal(core[..., ::2], core[..., 1::2])
        return cls(core[..., ::2] if pairs else core, table.shape, "pairs" if pairs else "")

    @property
    def lengths(self) -> tuple[int, ...]:
        return tuple(n for n in self.value.shape if n > 1)

    @property
    def form(self) -> tuple[str, tuple[int, ...]]:
        """Return what tables have in common that may stand for one another: numbers of rows are integers."""
        return self.value.dtype.kind, self.lengths

    def is_like(self, other: Core) -> bool:
        """Tell whether two tables are the same but for copies."""
        if self.form != other.form:
            return False
        largest = np.abs(self.value[np.abs(self.value) < -HIDING]).max(initial=0)
        return bool(np.allclose(self.value.ravel(), other.value.ravel(), SAME, SAME * largest, equal_nan=True))

    def filled(self, other: Core) -> Array:
        """Return another table of these lengths, with this one's copies."""
        value = other.value.reshape(self.value.shape)
        if self.doubled:
            value = np.concatenate([value, value], -1) if self.doubled == "halves" else np.repeat(value, 2, -1)
        return np.broadcast_to(value, self.shape).copy()


@dataclass(frozen=True)
class OtherTables(Valued):
    """Compute with other values in place of those of some tables, by number."""

    values: Mapping[int, Array]

    def tape(self, tape: Tape) -> Tape:
        return with_tables(tape, self.values)


def retabled(scope: Scope) -> Iterator[OtherTables]:
    """Yield edits that put left tables in place of right ones."""
    (left, right), near = scope.programs, scope.near
    lefts, every = _tables(left), _tables(right)
    own, others = _distinct(lefts, left, near[0]), _distinct(every, right, near[1])
    pairs = [pair for form in dict.fromkeys(core.form for core in others) for pair in _pairs(own, others, form)]
    for some in [pairs, *([pair] for pair in pairs)] if len(pairs) > 1 else [[pair] for pair in pairs]:
        if len({id(core) for _, core in some}) < len(some):  # alternatives to one another
            continue
        values = {n: core.filled(one) for one, other in some for n, core in every.items() if core.is_like(other)}
        texts = dict[str, int]()  # cosines of another base are no difference beside their sines
        for one, other in some:
            text = difference(one.value.reshape(other.value.shape), other.value)
            texts.setdefault(text, next(n for n in values if every[n].is_like(other)))
        number, counted = len(texts), tuple(texts.values())
        kind = MASK if all(hides(one.value) or hides(other.value) for one, other in some) else TABLE
        yield OtherTables(1, kind, in_a_row(texts), values, times=number, named=number, counted=counted)
    yield from _in_place_of_parameters(scope, (own, others))
    yield from _other_copies(own, others, every)
    yield from _exchanged(own, others, every)
    yield from _rearranged(own, others, every)


def _in_place_of_parameters(scope: Scope, cores: Sequence[Sequence[Core]]) -> Iterator[OtherTables]:
    """Yield edits by which a side adds a table of the other one in place of a parameter, as for positions."""
    for side, program in enumerate(scope.programs):
        weights, shapes = program.weights, program.shapes
        added = dict.fromkeys(
            number
            for node in (program.tape.nodes[at] for at in scope.near[side])
            if node.kind == "add" and not program.active.isdisjoint(node.inputs)
            for number in node.inputs
            if len(weights.get(number, ())) == 1 and weights[number][0] in scope.alone[side]
        )
        for number, core in itertools.product(added, cores[1 - side]):
            if core.lengths == tuple(n for n in shapes[number] if n > 1) and len(core.lengths) > 1:
                added_here, added_there = weights[number][0], named(np.squeeze(core.value))
                left, right = (added_there, added_here) if side else (added_here, added_there)
                value = core.filled(core).reshape(shapes[number])
                yield OtherTables(side, TABLE, f"the left adds {left}, the right {right}", {number: value})


def _exchanged(own: Sequence[Core], others: Sequence[Core], every: Mapping[int, Core]) -> Iterator[OtherTables]:
    """Yield edits that exchange two right tables, both of which the left side has too: sines for cosines, say."""
    shared = [core for core in others if any(core.is_like(one) for one in own)]
    pairs = [pair for pair in itertools.combinations(shared, 2) if pair[0].form == pair[1].form]
    for one, other in pairs[:MOST]:
        values = {n: table.filled(other) for n, table in every.items() if table.is_like(one)}
        values |= {n: table.filled(one) for n, table in every.items() if table.is_like(other)}
        names = dict.fromkeys(named(np.squeeze(core.value)) for core in (one, other))
        text = f"{in_a_row(names)} stand in one another's place on the right"
        yield OtherTables(1, TABLE, text, values, times=len(values))


def _rearranged(own: Sequence[Core], others: Sequence[Core], every: Mapping[int, Core]) -> Iterator[OtherTables]:
    """Yield edits that put the rows of a table of both sides in another order, as heads that share keys may have it."""
    for core in [core for core in others if any(core.is_like(one) for one in own)][:MOST]:
        shape = core.value.shape
        for axis, length in enumerate(shape):
            for parts in range(2, length // 2 + 1 if length < min(ROWS, core.value.size) else 0):
                if length % parts:
                    continue
                order = np.arange(length).reshape(parts, -1).T.ravel()
                values = {n: table.filled(core._replace(value=core.value.take(order, axis)))
                          for n, table in every.items() if table.is_like(core)}  # fmt: skip
                size = " x ".join(map(str, shape))
                rows = ", ".join(map(str, [*order[:SHOWN], *["..."] * (length > SHOWN)]))
                text = (
                    f"the left reads the table of {size} of the right with its rows along axis {axis} in the order "
                    f"{rows}, as where one side repeats each head of keys, and the other all of them in turn"
                )
                yield OtherTables(1, TABLE, text, values, counted=(next(iter(values)),))


def _other_copies(own: Sequence[Core], others: Sequence[Core], every: Mapping[int, Core]) -> Iterator[OtherTables]:
    """Yield the edit that repeats the values of right tables as the left ones do: rotations have pairs or halves."""
    pairs = ((one, other) for other in others for one in own if one.is_like(other))
    some = [(one, other) for one, other in pairs if {one.doubled, other.doubled} == DOUBLED]
    if some:
        values = {
            n: core._replace(doubled=one.doubled).filled(core)
            for one, other in some
            for n, core in every.items()
            if core.is_like(other) and core.doubled == other.doubled
        }
        one, other = some[0]
        text = f"the values of a table are repeated as {one.doubled} on the left, as {other.doubled} on the right"
        yield OtherTables(1, TABLE, text, values, both=(one.doubled, other.doubled), counted=(next(iter(values)),))


def _tables(program: Program) -> dict[int, Core]:
    """Return the tables of a program that have several values, by number, in the order of reading."""
    every = tables(program.tape, list(program.inputs.values()), "fi")
    return {t.number: Core.of(t.value) for t in every if t.value.ndim and (t.value != t.value.flat[0]).any()}


def _distinct(some: Mapping[int, Core], program: Program, nodes: Container[int]) -> list[Core]:
    """List the tables that some operations read, each once."""
    cores: list[Core] = []
    for number, core in some.items():
        is_read = any(at in nodes for at, _ in program.readers(number))
        if is_read and not any(core.is_like(other) for other in cores):
            cores.append(core)
    return cores


def _pairs(own: Sequence[Core], others: Sequence[Core], form: tuple[str, tuple[int, ...]]) -> list[tuple[Core, Core]]:
    """Pair the tables of a form that are not the same on both sides: one by one if these are as many."""
    lefts, rights = ([core for core in side if core.form == form] for side in (own, others))
    alone = [core for core in lefts if not any(core.is_like(other) for other in rights)]
    unlike = [core for core in rights if not any(core.is_like(other) for other in lefts)]
    if len(alone) == len(unlike):
        return list(zip(alone, unlike, strict=True))
    return [(one, other) for other in unlike[:MOST] for one in (alone or lefts)[:MOST]]

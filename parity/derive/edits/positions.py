"""Leave out positions that one side adds to what an operation reads, as to values: parameters, or a table."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from convert.folding import fold as folded_names
from parity.derive.trace.program import Program
from parity.derive.trace.sites import shown_once
from parity.derive.trace.tape import Node
from specs.words import in_a_row

from .edit import SIDES, Reread, Scope, repeats, widened
from .texts import named

MOST = 4  # readers of sums of a side that are tried


class Read(NamedTuple):
    """An operation that reads the sum of a value and positions.

    Args:
      total: the sum. value: what positions are added to. what: names these.
    """

    reader: Node
    total: int
    value: int
    what: str


def without_positions(scope: Scope, side: int) -> Iterator[Reread]:
    """Yield edits by which what reads a sum of a value and positions reads the value alone."""
    every = list(_reads(scope.programs[side]))
    for read in scope.nearest(side, every, lambda each: each.reader.output, MOST):
        alike = [other for other in every if other.what == read.what]
        yield widened(_without(some, side) for some in repeats(read, alike, lambda each: each.reader.site))


def _reads(program: Program) -> Iterator[Read]:
    """Yield what reads sums of a value and positions: these vary along more than the axis of channels, unlike a bias.

    Of tables, those of which other operations read the value, or the sum too: scores with a mask or slopes have one.
    """
    weights, shapes = program.weights, program.shapes
    for node in program.tape.nodes:
        values = [number for number in node.inputs if number in program.active]
        others = [number for number in node.inputs if number not in values]
        if node.kind != "add" or len(values) != 1 or len(others) != 1 or shapes[values[0]] != shapes[node.output]:
            continue
        if sum(length > 1 for length in shapes[others[0]]) < 2:
            continue
        table, readers = program.known(others[0]), program.reading(node.output)
        what = in_a_row(folded_names(weights.get(others[0], ())))
        if table is not None and len(readers) + len(program.reading(values[0])) > 2:
            what = named(table)
        yield from (Read(reader, node.output, values[0], what) for reader in readers if what)


def _without(some: Sequence[Read], side: int) -> Reread:
    """Return the edit by which some readers of sums with the same positions read the values alone."""
    sites = in_a_row(folded_names(shown_once(read.reader.site for read in some if read.reader.site)))
    kind = "a sum" if some[0].reader.kind == "add" else ""
    place = " in ".join(filter(None, (kind, sites)))
    before = f" before {place}" if place else ""
    text = f"the {SIDES[side]} adds {some[0].what}{before}, the {SIDES[1 - side]} does not"
    values = {read.reader.output: {read.total: read.value} for read in some}
    return Reread(side, "added term", text, values, times=len(some), named=len(some))

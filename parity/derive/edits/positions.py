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
    """Operations of one module that read the sum of a value and positions, as those of a norm; one without a module.

    Args:
      total: the sum. value: what positions are added to. what: names these.
    """

    readers: Sequence[Node]
    total: int
    value: int
    what: str

    @property
    def site(self) -> str:
        return self.readers[0].site


def without_positions(scope: Scope, side: int) -> Iterator[Reread]:
    """Yield edits by which what reads a sum of a value and positions reads the value alone.

    Of positions that may stand for one another, those of a name that the other side lacks are tried first.
    """
    every, names = list(_reads(scope.programs[side])), scope.programs[1 - side].tape.parameters
    near = scope.nearest(side, every, lambda each: each.readers[0].output, MOST)
    for read in sorted(near, key=lambda each: each.what in names):
        alike = [other for other in every if other.what == read.what]
        yield widened(_without(some, side) for some in repeats(read, alike, lambda each: each.site))


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
        groups: dict[str | int, list[Node]] = {}
        for reader in readers if what else ():
            groups.setdefault(reader.site or reader.output, []).append(reader)
        yield from (Read(group, node.output, values[0], what) for group in groups.values())


def _without(some: Sequence[Read], side: int) -> Reread:
    """Return the edit by which some readers of sums with the same positions read the values alone."""
    sites = in_a_row(folded_names(shown_once(read.site for read in some if read.site)))
    kind = "a sum" if some[0].readers[0].kind == "add" else ""
    place = " in ".join(filter(None, (kind, sites)))
    before = f" before {place}" if place else ""
    text = f"the {SIDES[side]} adds {some[0].what}{before}, the {SIDES[1 - side]} does not"
    values = {node.output: {read.total: read.value} for read in some for node in read.readers}
    counted = tuple(read.readers[0].output for read in some)
    return Reread(side, "added term", text, values, times=len(some), named=len(some), counted=counted)

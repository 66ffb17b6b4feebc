"""Multiply by a gate behind a product in place of before it, as GRUs differ in their reset gate."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np

from parity.derive.trace.program import Program
from parity.derive.trace.tape import Node, Tape
from specs.words import in_a_row

from .edit import SIDES, Valued

MOST = 4  # matrices of a side that are tried
MOVED = "gate in another place"  # the kind of these edits


class Gated(NamedTuple):
    """A product that reads a value times a gate, each of the shape of its result. Args: layouts: of what it reads."""

    node: Node
    gate: int
    value: int
    layouts: Sequence[Node]


@dataclass(frozen=True)
class Behind(Valued):
    """Multiply by gates behind products. Args: values: {result of a product: the product with its gate}."""

    values: Mapping[int, Gated]

    def tape(self, tape: Tape) -> Tape:
        new = replace(tape, nodes=[], parts={})
        for node in tape.nodes:
            new.nodes += self._moved(node, new) if node.output in self.values else [node]
        return new.live()

    def _moved(self, node: Node, tape: Tape) -> list[Node]:
        """Return a product of the value alone, and its multiplication by the gate in the same layout."""
        place, nodes, ends = self.values[node.output], list[Node](), list[int]()
        for number in (place.gate, place.value):
            for layout in place.layouts:
                nodes.append(layout._replace(inputs=(number,), output=tape.number()))
                number = nodes[-1].output
            ends.append(number)
        product = node._replace(inputs=(ends[1], node.inputs[1]), output=tape.number())
        return [*nodes, product, Node("mul", (ends[0], product.output), node.output, np.multiply, node.site, None)]


def behind_products(program: Program, first: int, side: int) -> Iterator[Behind]:
    """Yield edits that multiply by a gate behind all products with a matrix.

    Args:
      first: the operation of this side from which on the sides may differ.
    """
    groups = defaultdict[tuple[str, ...], list[tuple[Gated, Gated]]](list)
    weights = program.weights()
    for node in program.tape.nodes[first:]:
        names = weights.get(node.inputs[1]) if node.kind == "product" and not node.window else None
        if names and (found := _gated(program, node)):
            groups[names].append(found)
    for names, places in [*groups.items()][:MOST]:
        does = f"the {SIDES[side]} multiplies by a gate before the product with {in_a_row(names)}"
        for some in zip(*places, strict=True):
            values = {one.node.output: one for one in some}
            yield Behind(
                side, MOVED, f"{does}, the {SIDES[1 - side]} behind it", values, times=len(some), named=len(some)
            )


def _gated(program: Program, node: Node) -> tuple[Gated, Gated] | None:
    """Return a product with either factor of what it reads as the gate; None where it reads something else."""
    value, layouts = program.before_layouts(node.inputs[0])
    maker = program.maker(value)
    if maker is None or maker.kind != "mul" or not program.active.issuperset(maker.inputs):
        return None
    shapes = {program.shapes[number] for number in (*maker.inputs, value)}
    if len(shapes) > 1 or program.shapes[node.inputs[0]] != program.shapes[node.output]:
        return None
    one, other = maker.inputs
    return Gated(node, one, other, layouts), Gated(node, other, one, layouts)

"""Leave out a gate, multiply by it behind a product or by one minus it, or combine two values by another operation.

GRUs differ in whether their reset gate comes before a product or behind it. Another operation adds a gate, for
example, by which the other side multiplies.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from parity.derive.trace.ancestors import made_of
from parity.derive.trace.program import Program, Stretch
from parity.derive.trace.sites import shown_once
from parity.derive.trace.tape import Node, Replacement, Tape, tried
from specs.words import in_a_row, with_article

from .edit import ELSEWHERE, SIDES, Edit, LeftOut, Replaced, Scope, Valued, repeats, two_sided, widened, with_names

MOST = 4  # matrices, gates, or operations of two values, of a side that are tried
STEPS = 3  # operations at most that compute one minus a gate
VALUES = np.linspace(-2, 2, 9)  # at which that is told
NOUNS = {"add": "sum", "mul": "product"}  # of kinds of operations
OPERATION = "operation"  # the kind of edits that combine values otherwise
MOVED = f"gate {ELSEWHERE}"  # the kind of these edits


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
        return tape.rewritten(lambda _, node, new: self._moved(node, new) if node.output in self.values else [node])

    def _moved(self, node: Node, new: Replacement) -> list[Node]:
        """Return a product of the value alone, and its multiplication by the gate in the same layout."""
        place = self.values[node.output]
        gate, value = place.gate, place.value
        for layout in place.layouts:
            gate, value = new.again(layout, (gate,)), new.again(layout, (value,))
        product = new.again(node, (value, node.inputs[1]))
        new.record("mul", (gate, product), np.multiply)
        return new.nodes


@dataclass(frozen=True)
class Complement(Replaced):
    """Compute one minus gates in place of them."""

    def instead(self, node: Node) -> Node:
        return node._replace(kind="other", run=lambda *operands: 1 - node.run(*operands))


@dataclass(frozen=True)
class Combined(Replaced):
    """Compute values from two others by an operation of the other side."""

    by: Node

    def instead(self, node: Node) -> Node:
        return node._replace(kind=self.by.kind, run=self.by.run, call=self.by.call)


def combined(scope: Scope) -> Iterator[Edit]:
    """Yield edits by which the right side combines two values as the left one does: a product in place of a sum."""
    lefts, rights = (list(_of_two(program)) for program in scope.programs)
    others = {node.title: node for node in scope.nearest(0, lefts, lambda node: node.output, MOST)}
    for node in scope.nearest(1, rights, lambda node: node.output, MOST):
        every = [other for other in rights if other.title == node.title]
        for other in (other for title, other in others.items() if title != node.title):
            sets = repeats(node, every, lambda one: one.site)
            yield widened(_combined(some, other) for some in sets)


def _of_two(program: Program) -> Iterator[Node]:
    """Yield the operations that combine two values of one shape, place by place."""
    for node in program.tape.nodes:
        if node.kind not in ("add", "mul", "other") or len(node.inputs) != 2:
            continue
        shapes = {program.shapes[number] for number in (*node.inputs, node.output)}
        if len(shapes) == 1 and program.active.issuperset(node.inputs):
            yield node


def _combined(nodes: Sequence[Node], by: Node) -> Combined:
    one, other = (f"{with_article(NOUNS.get(node.kind, node.title))} of two values" for node in (by, nodes[0]))
    does, sites = two_sided(one, other), shown_once(site for node in nodes if (site := node.site))
    values = {node.output: node for node in nodes}
    what = does + with_names(sites)
    return Combined(1, OPERATION, what, values, by, fault=does, times=len(nodes), named=len(nodes))


def without_gates(scope: Scope, side: int) -> Iterator[LeftOut]:
    """Yield edits that leave out gates, if a side multiplies more values by others than the other side does."""
    every, others = (list(_gates(program)) for program in (scope.programs[side], scope.programs[1 - side]))
    if len(every) > len(others):
        for gate in scope.nearest(side, every, lambda each: each[0].output, MOST):
            sets = repeats(gate, every, lambda each: f"{each[0].site} {each[1]}")
            yield widened(_ungated(some, side) for some in sets)


def _gates(program: Program) -> Iterator[tuple[Node, int]]:
    """Yield products of a value and a gate, each with the place of the value, which has the result's shape.

    Both depend on parameters, and the gate on the result of a matrix that makes no part of the value: a product of a
    value and a function of it is a function, as SiLU is.
    """
    values = program.active - program.plain
    matrices = {at for at, node in enumerate(program.tape.nodes) if node.kind == "product"}
    for node in program.tape.nodes:
        if node.kind == "mul" and len({*node.inputs}) == 2 and values.issuperset(node.inputs):
            makers = [made_of(program, number, matrices) for number in node.inputs]
            alike = [program.shapes[number] == program.shapes[node.output] for number in node.inputs]
            yield from ((node, k) for k in (0, 1) if alike[k] and makers[1 - k] - makers[k])


def _ungated(gates: Sequence[tuple[Node, int]], side: int) -> LeftOut:
    sites = shown_once(site for node, _ in gates if (site := node.site))
    does = f"the {SIDES[side]} multiplies by a gate, the {SIDES[1 - side]} does not"
    values = {node.output: node.inputs[kept] for node, kept in gates}
    return LeftOut(side, "gate", does + with_names(sites), values, fault=does, times=len(gates), named=len(gates))


def behind_products(scope: Scope, side: int) -> Iterator[Behind]:
    """Yield edits that multiply by a gate behind all products with a matrix."""
    groups = defaultdict[tuple[str, ...], list[tuple[Gated, Gated]]](list)
    program = scope.programs[side]
    weights = program.weights
    for node in program.tape.nodes[scope.firsts[side] :]:
        names = weights.get(node.inputs[1]) if node.kind == "product" and not node.window else None
        if names and (gated := _gated(program, node)):
            groups[names].append(gated)
    for names, places in [*groups.items()][:MOST]:
        does = f"the {SIDES[side]} multiplies by a gate before the product with {in_a_row(names)}"
        for some in zip(*places, strict=True):
            values = {place.node.output: place for place in some}
            yield Behind(
                side, MOVED, f"{does}, the {SIDES[1 - side]} behind it", values, times=len(some), named=len(some)
            )


def complemented(scope: Scope, side: int) -> Iterator[Edit]:
    """Yield edits that exchange a gate with one minus it, each of which multiplies a value."""
    program = scope.programs[side]
    gates = {node.output: gate for node in program.tape.nodes if (gate := _complemented(program, node))}
    every = [*gates.values()]
    for _, gate in scope.nearest(side, gates.items(), lambda item: item[0], MOST):
        yield widened(_exchanged(some, side) for some in repeats(gate, every, lambda other: other.site))


def _complemented(program: Program, node: Node) -> Node | None:
    """Return the gate of which an operation computes one minus it; None where it computes something else."""
    for entry, nodes in program.regions(node.output, STEPS) if node.kind == "add" else ():
        y = tried(program.function(Stretch(entry, nodes)), VALUES)
        if y is not None and np.shape(y) == VALUES.shape and np.allclose(y, 1 - VALUES):
            return program.maker(entry)
    return None


def _exchanged(gates: Sequence[Node], side: int) -> Replaced:
    sites = shown_once(site for gate in gates if (site := gate.site))
    does = f"the {SIDES[side]} multiplies by a gate where the {SIDES[1 - side]} multiplies by one minus it"
    values = {gate.output: gate for gate in gates}
    return Complement(side, MOVED, does + with_names(sites), values, fault=does, times=len(gates), named=len(gates))


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

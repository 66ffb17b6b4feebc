"""Take a value that a side computes on the way to another one, as the cell state of an LSTM for its output."""

from __future__ import annotations

import itertools
import math
from collections.abc import Collection, Iterator

from parity.derive.trace.program import Program
from parity.derive.trace.tape import Node
from specs.words import in_a_row

from .edit import SIDES, LeftOut, Scope

KIND = "value"  # the kind of these edits
STEPS = 24  # operations on the way back that are looked at
MOST = 12  # values of a side that are looked at, the last first
LONGEST = 4  # operations that are named
KINDS = {"add": "a sum", "mul": "a product"}


def earlier_values(scope: Scope, met: tuple[int, int]) -> Iterator[LeftOut]:
    """Yield edits by which a side takes a value of the same shape that it computes earlier.

    Args:
      met: of each side, the value that is compared where the sides part.
    """
    for side, program in enumerate(scope.programs):
        value = _in_own_shape(program, met[side])
        for earlier in itertools.islice(_before(program, value, scope.near[side]), MOST):
            nodes = _between(program, earlier, value)
            if 0 < len(nodes) <= LONGEST and all(node.kind != "product" for node in nodes):
                names = in_a_row(dict.fromkeys(map(_named, nodes)))
                does = f"computes {names} of a value that the {SIDES[1 - side]} takes as it is"
                yield LeftOut(side, KIND, f"the {SIDES[side]} {does}", {value: earlier})


def _in_own_shape(program: Program, value: int) -> int:
    """Return the value of which another one has all elements, laid out otherwise."""
    while (at := program.makers.get(value)) is not None:
        node = program.tape.nodes[at]
        sizes = {math.prod(program.shapes[number]) for number in (*node.inputs, value)}
        if node.kind != "layout" or len(node.inputs) > 1 or len(sizes) > 1:
            break
        value = node.inputs[0]
    return value


def _before(program: Program, value: int, near: Collection[int]) -> Iterator[int]:
    """Yield the values of a value's shape from which it is computed, without parameters on the way, the last first."""
    weights, waiting, seen = program.weights(), {program.makers.get(value, -1)}, 0
    while waiting and seen < STEPS:
        at = max(waiting)
        waiting.remove(at)
        node = program.tape.nodes[at]
        if at not in near or node.kind == "product":
            continue
        seen += 1
        alike = program.shapes[node.output] == program.shapes[value]
        if node.output != value and node.kind != "layout" and alike and node.output in program.active:
            yield node.output
        if weights.keys().isdisjoint(node.inputs):
            waiting |= {program.makers[number] for number in node.inputs if number in program.makers}


def _between(program: Program, start: int, end: int) -> list[Node]:
    """List the operations on the way from one value to another, without layouts."""
    reached, wanted, nodes = {start}, {end}, program.tape.nodes[program.makers[start] + 1 : program.makers[end] + 1]
    for node in nodes:
        if not reached.isdisjoint(node.inputs):
            reached.add(node.output)
    between = list[Node]()
    for node in reversed(nodes):
        if node.output in wanted and node.output in reached:
            wanted.update(node.inputs)
            between.append(node)
    return [node for node in reversed(between) if node.kind != "layout"]


def _named(node: Node) -> str:
    return KINDS.get(node.kind) or node.title

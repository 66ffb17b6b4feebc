"""Return other values: a model's outputs in another order or with other axes first, or values on the way to them.

Of outputs of one shape, nothing else tells the order. An LSTM may return its cell state for its output.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import NamedTuple

import numpy as np

from parity.derive.limits import PARTED_USES
from parity.derive.trace.outputs import MOST_AXES, difference
from parity.derive.trace.program import Program
from parity.derive.trace.tape import Array, Node, Tape
from specs.words import in_a_row

from .edit import SIDES, Edit, LeftOut, Scope

MOST = 16  # outputs of a model that are compared with each other
KIND = "value"  # the kind of these edits
STEPS = 24  # operations on the way back that are looked at
EARLIER = 12  # values of a side that are looked at, the last first
LONGEST = 4  # operations that are named
KINDS = {"add": "a sum", "mul": "a product"}


class Place(NamedTuple):
    """Where an output of the left model is on the right: the number of that output, and the order of its axes."""

    at: int
    axes: tuple[int, ...]


@dataclass(frozen=True)
class Rearranged(Edit):
    """Return other outputs of the right side, or the same with their axes in another order."""

    places: Sequence[Place]
    outputs: Sequence[int]

    @property
    def changed(self) -> Collection[int]:
        return self.outputs

    def tape(self, tape: Tape) -> Tape:
        nodes, outputs = list(tape.nodes), list[int]()
        for k, (at, axes) in enumerate(self.places):
            outputs.append(tape.size + k)
            nodes.append(Node("layout", (tape.outputs[at],), tape.size + k, partial(np.transpose, axes=axes), ""))
        return replace(tape, nodes=nodes, outputs=outputs, size=tape.size + len(outputs))


def rearranged(scope: Scope) -> Iterator[Rearranged]:
    """Yield the edit by which each output of the right side is that of the left one, if there is one."""
    left, right = scope.programs
    if not len(left.outputs) == len(right.outputs) <= MOST:
        return
    places = [_place(output, k, right.outputs) for k, output in enumerate(left.outputs)]
    known = [place for place in places if place]
    if len(known) < len(places) or len({place.at for place in known}) < len(known):
        return
    texts = [_text(k, place, len(known) > 1) for k, place in enumerate(known)]
    outputs = [right.tape.outputs[place.at] for place, text in zip(known, texts, strict=True) if text]
    if outputs:
        yield Rearranged(1, "order of outputs", in_a_row([text for text in texts if text]), known, outputs)


def _place(output: Array, k: int, others: Sequence[Array]) -> Place | None:
    """Return where an output is among others, at its own place and in the order of its axes if it is there."""
    for at in sorted(range(len(others)), key=lambda at: at != k):
        other, axes = np.asarray(others[at]), range(np.ndim(others[at]))
        for order in itertools.permutations(axes) if len(axes) <= MOST_AXES else (tuple(axes),):
            turned = other.transpose(order)
            if turned.shape == np.shape(output) and difference([output], [turned]) <= PARTED_USES:
                return Place(at, order)
    return None


def _text(k: int, place: Place, several: bool) -> str:
    """Say where an output of the left model is; "" where it stands at its place."""
    turned = list(place.axes) != sorted(place.axes)
    axes = f"with its axes in the order {place.axes}" if turned else ""
    if place.at != k:
        return f"output {k + 1} of the left model is output {place.at + 1} of the right one {axes}".rstrip()
    which = f"output {k + 1}" if several else "the output"
    return f"{which} of the left model is that of the right one {axes}" if turned else ""


def earlier_values(scope: Scope, met: tuple[int, int]) -> Iterator[LeftOut]:
    """Yield edits by which a side takes a value of the same shape that it computes earlier.

    Args:
      met: of each side, the value that is compared where the sides part.
    """
    for side, program in enumerate(scope.programs):
        value = _in_own_shape(program, met[side])
        for earlier in itertools.islice(_before(program, value, scope.near[side]), EARLIER):
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
    weights, waiting, seen = program.weights, {program.makers.get(value, -1)}, 0
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

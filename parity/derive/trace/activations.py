"""Let one side compute another activation function, whatever operations its own one is written in."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np

from ...hypotheses import ACTIVATIONS, NONE
from .edits import Edit, and_so
from .program import Program
from .tape import Array, Node, Tape

VALUES = np.linspace(-6, 6, 49)  # at which functions are compared
ROUNDED = 1e-6  # difference of two functions that numbers of float32 explain
MOST = 24  # operations whose results are looked at, the last first
DEPTH = 16  # operations of one activation function at most


class Activation(NamedTuple):
    """Operations that compute an activation function.

    Args:
      name: a key of ACTIVATIONS. entry: the value that they read. result: the last of them. size: how many they are.
    """

    name: str
    entry: int
    result: Node
    size: int


@dataclass(frozen=True)
class Other(Edit):
    """Compute values by another function.

    Args:
      entries: by the values, what they are computed from.
    """

    entries: Mapping[int, int]
    run: Callable[[Array], Array]

    def tape(self, tape: Tape) -> Tape:
        nodes = [
            Node("other", (self.entries[node.output],), node.output, self.run, node.site, None)
            if node.output in self.entries
            else node
            for node in tape.nodes
        ]
        return replace(tape, nodes=nodes, parts={})


def others(program: Program, span: tuple[int, int], side: int) -> Iterator[Other]:
    """Yield other functions in place of each activation in a span of operations, and of all like it.

    Args:
      span: the first operation and the end. side: 0 for the left one.
    """
    for node in program.tape.nodes[slice(*span)][::-1][:MOST]:
        if (own := _activation(program, node)) is None:
            continue
        like = [_activation(program, other) for other in program.tape.nodes if other.kind == node.kind]
        every = {one.result.output: one.entry for one in like if one and (one.name, one.size) == (own.name, own.size)}
        for name, run in ACTIVATIONS.items():
            if name == own.name:
                continue
            left, right = (own.name, name) if side == 0 else (name, own.name)
            text = f"{left} on the left, {right} on the right"
            more = text + and_so(len(every) - 1)
            wider = (Other(side, "activation", more, every, run, times=len(every)),) if len(every) > 1 else ()
            yield Other(side, "activation", text, {node.output: own.entry}, run, wider=wider)


def _activation(program: Program, result: Node) -> Activation | None:
    """Return the activation function that a value is the result of; None if it is that of none."""
    shape = program.shapes[result.output]
    if result.kind not in ("mul", "other") or result.output not in program.active or not shape:
        return None
    for entry, nodes in _regions(program, result):
        if program.shapes[entry] != shape:
            continue
        x = np.resize(VALUES, shape)
        y = _computed(program, entry, nodes, x)
        for name, run in ACTIVATIONS.items() if y is not None and y.shape == shape else ():
            if name != NONE and np.abs(run(x) - y).max(initial=0) <= ROUNDED:
                return Activation(name, entry, result, len(nodes))
    return None


def _regions(program: Program, result: Node) -> Iterator[tuple[int, list[Node]]]:
    """Yield (value, the operations from it to a result) for each single value that all of the result depends on."""
    frontier, nodes = {result.output}, list[Node]()
    while len(nodes) < DEPTH:
        at = max(program.makers.get(number, -1) for number in frontier)
        if at < 0 or (node := program.tape.nodes[at]).kind == "product":
            return
        nodes.append(node)
        frontier.remove(node.output)
        frontier |= program.active.intersection(node.inputs)
        if len(frontier) == 1:
            yield next(iter(frontier)), nodes[::-1]


def _computed(program: Program, entry: int, nodes: list[Node], x: Array) -> Array | None:
    """Return the result of operations on other values; None where they read parameters, or refuse these values."""
    values: dict[int, Array] = {entry: x}

    def value(number: int) -> Array:
        if number in values:
            return values[number]
        if number in program.tape.constants:
            return program.tape.constants[number]
        made = program.tape.nodes[program.makers[number]]  # KeyError: a parameter
        return made.run(*map(value, made.inputs))

    try:
        for node in nodes:
            values[node.output] = node.run(*map(value, node.inputs))
        return np.asarray(values[nodes[-1].output], np.float64)
    except Exception:  # an operation that does not take such values, or reads a parameter
        return None

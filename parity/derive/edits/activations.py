"""Let one side compute another activation function, whatever operations its own one is written in."""

from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import numpy as np

from parity.causes.hypotheses import ACTIVATIONS, NONE
from parity.derive.limits import ROUNDED_FUNCTIONS
from parity.derive.trace.program import Program, Stretch
from parity.derive.trace.tape import Array, Node

from .edit import Other, Scope, two_sided
from .functions import VALUES, is_scaled, known_as, named

KIND = "activation"
KINDS = "mul", "other"  # of the last operation of an activation function
MOST = 24  # such operations whose results are looked at, the last first
FEW = 3  # unknown functions of a side that are tried in place of activation functions
DEPTH = 16  # operations of one activation function at most


class Activation(NamedTuple):
    """Operations that compute an activation function.

    Args:
      name: a key of ACTIVATIONS.
    """

    name: str
    stretch: Stretch

    @property
    def entry(self) -> int:
        """Return the value that they read."""
        return self.stretch.entry

    @property
    def result(self) -> Node:
        """Return the last of them."""
        return self.stretch.nodes[-1]

    @property
    def size(self) -> int:
        """Count them."""
        return len(self.stretch.nodes)


def others(scope: Scope, even: bool | None = None) -> Iterator[Other]:
    """Yield the functions of one side in place of those of the other, in the spans, and of all like these.

    Functions that are no known activations come last.

    Args:
      even: whether to yield those alone that both sides compute equally often, or the others alone.
    """
    counts = [] if even is None else [_counts(program) for program in scope.programs]
    by_side = [
        [act for node in _results(program, span)[:MOST] if (act := activation(program, node))]
        for program, span in zip(scope.programs, scope.spans, strict=True)
    ]
    for side, own in enumerate(by_side):
        names = dict.fromkeys([*(act.name for act in by_side[1 - side]), NONE])
        for act in own:
            scaled = is_scaled(scope.programs[side], act.stretch)
            for name in names:
                if counts and even != all(counts[0][one] == counts[1][one] for one in (act.name, name)):
                    continue
                if name != act.name and not (scaled and name == NONE):  # left out with its scales, as a function
                    yield _other(scope, side, act, name, ACTIVATIONS[name])
    for side, own in enumerate(by_side if not even else ()):
        program, sizes = scope.programs[1 - side], [_elements(scope.programs[side], act.stretch) for act in own]
        unknown = _unknown(program, scope.spans[1 - side], by_side[1 - side], sizes) if own else ()
        for function, (act, size) in itertools.product(unknown, zip(own, sizes, strict=True)):
            if size == _elements(program, function):
                yield _other(scope, side, act, named(program, function), program.function(function))


def _other(scope: Scope, side: int, act: Activation, name: str, run: Callable[[Array], Array]) -> Other:
    """Return the edit that computes another function in place of an activation function, and of all like it."""
    both = (act.name, name) if side == 0 else (name, act.name)
    values, alike = {act.result.output: act.entry}, _written_as(scope.programs[side], act)
    return Other(side, KIND, two_sided(*both), values, run, both=both).everywhere(alike)


def _elements(program: Program, stretch: Stretch) -> int:
    return math.prod(program.shapes[stretch.result])


def _unknown(
    program: Program, span: tuple[int, int], known: Sequence[Activation], sizes: Sequence[int]
) -> list[Stretch]:
    """List the longest functions of single values in a span that are no known ones, and have none in them.

    Args:
      sizes: how many elements their results have.
    """
    found, passed = list[Stretch](), {node.output for act in known for node in act.stretch.nodes}
    for node in _results(program, span)[:MOST]:
        if node.output in passed or math.prod(program.shapes[node.output]) not in sizes:
            continue
        every = list(_of_single_values(program, node))
        longest, values = every[-1] if every else (None, VALUES)
        outputs = {one.output for one in longest.nodes} if longest else set[int]()
        if longest and passed.isdisjoint(outputs) and not np.allclose(np.diff(values, 2), 0, 0, ROUNDED_FUNCTIONS):
            found.append(longest)
            passed |= outputs
    return found[:FEW]


def _results(program: Program, span: tuple[int, int]) -> list[Node]:
    """Return the operations of a span that may end an activation function, the last first."""
    nodes = program.tape.nodes[slice(*span)][::-1]
    return [node for node in nodes if node.kind in KINDS and node.output in program.active]


def _counts(program: Program) -> Counter[str]:
    """Count the activation functions of a program by their names."""
    every = (activation(program, node) for node in program.tape.nodes)
    return Counter(one.name for one in every if one)


def _written_as(program: Program, one: Activation) -> dict[int, int]:
    """Return {result: entry} of each activation that is written as this one is."""
    every = (activation(program, node) for node in program.tape.nodes if node.kind == one.result.kind)
    return {other.result.output: other.entry for other in every
            if other and (other.name, other.size) == (one.name, one.size)}  # fmt: skip


def activation(program: Program, result: Node) -> Activation | None:
    """Return the activation function that a value is the result of; None if it is that of none."""
    return program.once(_activation, program.makers[result.output])


def _activation(program: Program, at: int) -> Activation | None:
    for stretch, first in _of_single_values(program, program.tape.nodes[at]):
        if name := known_as(first):
            return Activation(name, stretch)
    return None


def _of_single_values(program: Program, result: Node) -> Iterator[tuple[Stretch, Array]]:
    """Yield the functions of single values of which a value is the result, each with what it makes of VALUES."""
    shape = program.shapes[result.output]
    if result.kind not in KINDS or result.output not in program.active or 0 in shape:
        return
    rounds = -(-len(VALUES) // math.prod(shape))  # a state of a small model has fewer elements
    for entry, nodes in program.regions(result.output, DEPTH):
        if program.shapes[entry] != shape:
            continue
        x = np.resize(VALUES, (rounds, *shape))
        every = [y for some in x if (y := _computed(program, entry, nodes, some)) is not None and y.shape == shape]
        if len(every) < rounds:
            continue
        y = np.ravel(every)
        first = y[: len(VALUES)]
        if np.allclose(y, np.resize(first, y.size), 0, ROUNDED_FUNCTIONS):  # else it mixes values
            yield Stretch(entry, nodes), first


def _computed(program: Program, entry: int, nodes: Sequence[Node], x: Array) -> Array | None:
    """Return the result of operations on other values; None where they read parameters, refuse them, or are complex."""
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
        result = np.asarray(values[nodes[-1].output])
        return None if result.dtype.kind == "c" else result.astype(np.float64)
    except Exception:  # an operation that does not take such values, or reads a parameter
        return None

"""Let one side choose as many of several values as the other, or divide the chosen ones by their sum.

Routers of experts do: they choose the largest weights of all, before a softmax, behind it, or with a norm of their own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import numpy as np

from parity.derive.trace.program import Program
from parity.derive.trace.tape import Array, Node

from .edit import SIDES, Replaced, Scope, two_sided

CHOOSING = frozenset(["topk", "top_k"])  # what frameworks call it
CHOICE, NORM = "choice", "missing norm"  # the kinds of these edits
FILLS = -np.inf, 0.0  # what is in the place of a value that is not chosen, before a softmax and behind it


class Choice(NamedTuple):
    """The largest of several values, the first one first.

    Args:
      value: their number. axis: along which they stand. chosen, every: how many there are.
    """

    value: int
    axis: int
    chosen: int
    every: int


@dataclass(frozen=True)
class Chosen(Replaced):
    """Compute something of values that were chosen. Args: run: computes it."""

    run: Callable[[Array], Array]

    def instead(self, node: Node) -> Node:
        return node._replace(kind="other", run=lambda *operands: self.run(node.run(*operands)))


def chosen_otherwise(scope: Scope) -> Iterator[Chosen]:
    """Yield edits by which a side chooses fewer values, if the other one does, or divides them by their sum."""
    every = [_choices(program) for program in scope.programs]
    counts = [[(choice.chosen, choice.every) for choice in choices] for choices in every]
    if counts[0] != counts[1] and len(counts[0]) == len(counts[1]):
        side = int(sum(of for of, _ in counts[1]) > sum(of for of, _ in counts[0]))
        fewer, more = next(both for both in zip(every[1 - side], every[side], strict=True) if both[0][2] != both[1][2])
        alike = [choice for choice in every[side] if choice[1:] == more[1:]]
        texts = [f"the largest {count} of {of}" for count, of in (side[0] for side in counts)]
        for fill in FILLS:
            run = partial(_filled, axis=more.axis, first=fewer.chosen, fill=fill)
            edit = Chosen(side, CHOICE, two_sided(*texts), {more.value: None}, run, both=tuple(texts))
            yield edit.everywhere({choice.value: None for choice in alike})
    for side, choices in enumerate(every):
        for choice in choices:
            alike = [other for other in choices if other[1:] == choice[1:]]
            what = f"the largest {choice.chosen} of {choice.every} add up to 1 on the {SIDES[1 - side]} alone"
            edit = Chosen(side, NORM, what, {choice.value: None}, partial(_normalized, axis=choice.axis))
            yield edit.everywhere({choice.value: None for choice in alike})


def _filled(x: Array, axis: int, first: int, fill: float) -> Array:
    """Return values with a number in the place of those behind the first ones."""
    hidden = np.arange(x.shape[axis]) >= first
    return np.where(np.expand_dims(hidden, tuple(range(1, x.ndim - axis))), fill, x)


def _normalized(x: Array, axis: int) -> Array:
    return x / x.sum(axis, keepdims=True)


def _choices(program: Program) -> list[Choice]:
    """Return what a program chooses, once for each array of which it does."""
    found = dict[int, Choice]()
    for node in (node for node in program.tape.nodes if node.name in CHOOSING):
        shape = program.shapes[node.inputs[0]]
        for value in _chosen(program, node):
            chosen = program.shapes[value]
            axes = [axis for axis, n in enumerate(shape) if chosen[axis : axis + 1] != (n,)]
            if len(chosen) == len(shape) and len(axes) == 1:
                found.setdefault(node.inputs[0], Choice(value, axes[0], chosen[axes[0]], shape[axes[0]]))
    return [*found.values()]


def _chosen(program: Program, node: Node) -> Iterator[int]:
    """Yield the values that an operation returns, or else what others are picked by their places."""
    waiting = [node.output]
    for value in waiting:
        if value not in program.indices:
            yield value
        if value in program.indices or value == node.output:
            kinds = ("layout",) if value in program.indices else ("layout", "other")
            readers = (reader for reader in program.reading(value) if reader.output not in waiting)
            waiting += [one.output for one in readers if one.kind in kinds or one.output in program.indices]

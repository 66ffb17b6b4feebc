"""Let one side compute an operation as the other one does: a pooling, a resize, an activation with other settings."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Container, Iterator, Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from parity.derive.trace.program import Program
from parity.derive.trace.sites import shown
from parity.derive.trace.tape import Array, Node, tried

from .edit import Replaced, Scope
from .resampling import pools
from .texts import (
    Mask,
    Place,
    Words,
    between,
    hides,
    mask,
    other_settings,
    other_values,
    over_axes,
    unlike,
    without_copies,
)

VALUES = np.linspace(-8, 8, 65)  # at which functions of single values are compared
MOST = 16  # operations of a side that are tried, the last first
ORDERS = {3: ((0, 2, 1),), 4: ((0, 3, 1, 2), (0, 2, 3, 1)), 5: ((0, 4, 1, 2, 3), (0, 2, 3, 4, 1))}  # channels move
RESAMPLING = re.compile(r"pad|upsample|interp|nearest")  # names of operations that move elements, as others compute


class Unary(NamedTuple):
    """An operation of one activation or parameter; its other operands are known before the model runs.

    Args:
      entry: the number of the activation or parameter. slot: its place among the operands.
      known: the others, by their places.
    """

    node: Node
    entry: int
    slot: int
    known: Mapping[int, Array]

    def run(self, x: Array) -> Array:
        operands = {**self.known, self.slot: x}
        return self.node.run(*(operands[k] for k in range(len(self.node.inputs))))

    def mask(self, shape: tuple[int, ...]) -> Mask | None:
        """Return the mask that it applies to arrays of a shape: truth values that choose, or a table that is added."""
        for table in map(np.asarray, self.known.values()):
            if table.dtype == bool:
                return mask(self.run, shape)
            if self.node.kind == "add" and hides(table):
                ones = np.ones(shape)
                is_plain = (ones + table).shape == shape and np.array_equal(self.run(ones), ones + table)
                return Mask(np.broadcast_to(table < 0, shape), float(table.min())) if is_plain else None
        return None

    @property
    def at(self) -> Place:
        return Place(shown(self.node.site), self.node.call.title if self.node.call else "")


@dataclass(frozen=True)
class Swap(Replaced):
    """Compute values of the right side by an operation of the left one.

    Args:
      values: those values -> the place among each operation's operands of what it is computed from.
      run: the operation.
    """

    run: Callable[[Array], Array]

    def instead(self, node: Node) -> Node:
        """Return a node that computes the new value, with as many results as the node that it replaces."""

        def run(*operands: Array) -> Array:
            old, new = node.run(*operands), self.run(operands[self.values[node.output]])
            several = isinstance(old, tuple)
            new = _of_rank(new, np.shape(old[0] if several else old))
            return (new, *old[1:]) if several else new

        return node._replace(kind="other", run=run)


def _of_rank(value: Array, shape: tuple[int, ...]) -> Array:
    """Return a value with the axes of length one that a shape has, as one side alone may drop a pooled axis."""
    lengths, wanted = ([n for n in some if n != 1] for some in (np.shape(value), shape))
    return np.reshape(value, shape) if lengths == wanted else value


def swaps(scope: Scope) -> Iterator[Swap]:
    """Yield for some operations of the right side those of the left side that read arrays of its shape."""
    left, right = scope.programs
    left_some, right_some = (
        list(unary(program, nodes)) for program, nodes in zip(scope.programs, scope.near, strict=True)
    )
    every = list(unary(right))
    for node in right_some[::-1][:MOST]:
        alike = {other.node.output: other.slot for other in every if _one_function(other, node)}
        for other in left_some[::-1][:MOST]:
            shapes = left.shapes[other.entry], right.shapes[node.entry]
            if _resizes(left, other) != _resizes(right, node) and not pools(other.run, node.run, shapes):
                continue  # an activation in place of a pooling: what it returns has all values of the pooled map
            for words, run in _runs(other, node, shapes):
                values = {node.node.output: node.slot}
                swap = Swap(1, words.kind, words.what, values, run, fault=words.fault, both=words.both)
                yield swap.everywhere(alike)


def _resizes(program: Program, unary: Unary) -> bool:
    """Tell whether an operation returns another number of elements than it reads."""
    sizes = [math.prod(program.shapes[number]) for number in (unary.entry, unary.node.output)]
    return sizes[0] != sizes[1]


def _runs(
    left: Unary, right: Unary, shapes: tuple[tuple[int, ...], tuple[int, ...]]
) -> Iterator[tuple[Words, Callable[[Array], Array]]]:
    """Yield how two operations differ, with the left one as one of the right one's arrays: a mask also of others."""
    some = [*orders(*shapes)]
    for order in some:
        yield _difference(left, right, shapes), turned(left.run, order)
    one, other = (None, None) if some else (left.mask(shapes[0]), right.mask(shapes[1]))
    if one is None or other is None:
        return
    hidden, places = (without_copies(side.hidden)[0] for side in (one, other))
    if np.squeeze(hidden).shape == np.squeeze(places).shape and hidden.size > 1:  # of heads in groups, say
        hidden = hidden.reshape(places.shape)
        words = between(Mask(hidden, one.number), Mask(places, other.number))
        yield words, lambda x: np.where(hidden, one.number, x)


def unary(program: Program, nodes: Container[int] | None = None) -> Iterator[Unary]:
    """Yield those operations that read one activation or parameter, as a table of positions, and else what is known.

    Those that only move elements are among them if others would compute in their place; sums and products, if they are
    with a table: single numbers are changed one by one instead.
    """
    for node in (node for at, node in enumerate(program.tape.nodes) if nodes is None or at in nodes):
        every = {k: program.known(number) for k, number in enumerate(node.inputs)}
        known = {k: value for k, value in every.items() if value is not None}
        moves = node.kind == "layout" and RESAMPLING.search(node.name)
        joins = node.kind in ("add", "mul") and any(np.size(value) > 1 for value in known.values())
        slots = list(every.keys() - known)
        if (node.kind == "other" or moves or joins) and len(slots) == 1:
            yield Unary(node, node.inputs[slots[0]], slots[0], known)


def _difference(left: Unary, right: Unary, shapes: tuple[tuple[int, ...], tuple[int, ...]]) -> Words:
    """Say how two operations differ, one of each side, on arrays of these shapes."""
    if shapes[0] == shapes[1]:
        one, other = left.mask(shapes[0]), right.mask(shapes[1])
        if one and other:
            return between(one, other)
    if left.node.call and right.node.call and (settings := unlike(left.node.call, right.node.call)):
        return other_settings(right.at, settings)
    axes = [joined_axes(side.run, shape) for side, shape in zip((left, right), shapes, strict=True)]
    if shapes[0] == shapes[1] and all(axes) and axes[0] != axes[1]:
        return over_axes(left.at, right.at, axes)
    return pools(left.run, right.run, shapes) or other_values(left.at, right.at)


def joined_axes(run: Callable[[Array], Array], shape: tuple[int, ...]) -> list[int]:
    """Return the axes along which an operation computes places from others, as a transform; [] of one without axes."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal(shape)
    value, axes = tried(run, x), list[int]()
    for axis in range(x.ndim) if value is not None and np.shape(value) == shape else ():
        other = np.moveaxis(x.copy(), axis, 0)
        other[:1] = rng.standard_normal(other[:1].shape)
        changed = tried(run, np.moveaxis(other, 0, axis))
        if changed is not None and np.moveaxis(changed != value, axis, 0)[1:].any():
            axes.append(axis)
    return axes


def _one_function(one: Unary, other: Unary) -> bool:
    """Tell whether operations are one function: of single values, or the same call with the same known operands."""
    if one.node.output == other.node.output:
        return True
    if one.node.call and one.node.call == other.node.call and not (one.known or other.known):
        return True
    if one.known or other.known:
        called = (one.node.call, one.slot) == (other.node.call, other.slot) and one.known.keys() == other.known.keys()
        return called and all(np.array_equal(value, other.known[k]) for k, value in one.known.items())
    values, others = (tried(function.run, VALUES) for function in (one, other))  # a pooling takes no list of numbers
    if values is None or others is None:
        return False
    return values.shape == VALUES.shape and np.array_equal(values, others, equal_nan=True)


def orders(left: tuple[int, ...], right: tuple[int, ...]) -> Iterator[tuple[int, ...]]:
    """Yield the orders of a right array's axes that make it one of the left side's shape."""
    for order in (tuple(range(len(right))), *ORDERS.get(len(right), ())):
        if tuple(right[d] for d in order) == left:
            yield order


def turned(function: Callable[[Array], Array], order: tuple[int, ...]) -> Callable[[Array], Array]:
    """Return a function of the left side as one of arrays whose axes have the right side's order."""
    back = np.argsort(order)

    def run(x: Array) -> Array:
        value = function(np.transpose(x, order))
        value = value[0] if isinstance(value, tuple) else value
        return np.transpose(value, back) if value.ndim == len(order) else value

    return run

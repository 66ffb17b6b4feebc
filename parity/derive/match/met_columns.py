"""Find what the columns of a product are multiplied with, added to or summed over with, which shows their order."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

import numpy as np

from parity.derive.trace.ancestors import made_of
from parity.derive.trace.program import Program
from parity.derive.trace.tape import Array, Node

from .operations import SINGLE, keeps_places, mixing

PASSED = ("layout", "add", "mul")  # kinds of operations that move the labels of columns, or spread them
MAX_STEPS = 200  # operations that are followed from one product
MAX_SUMMED = 40  # the same, to a product with an activation


class Met(NamedTuple):
    """Another activation that labelled columns meet: its number, and the labels, which fit its shape."""

    value: int
    labels: Array


class Beside(NamedTuple):
    """What columns are multiplied with or added to, or summed over with.

    Args:
      value: its number. shape: of the result, or of what is summed over. places: there, the first of each column.
    """

    value: int
    shape: tuple[int, ...]
    places: Array


def met(program: Program, value: int, labels: Array) -> list[Met]:
    """Return the first products or sums with another activation that columns meet, past functions and masks.

    Args:
      labels: of the value's elements: the number of the column, from 1.
    """

    def passes(node: Node, slot: int) -> bool:
        return node.kind in PASSED or program.by_channel(node, slot) or mixing(program, node, slot) == SINGLE

    activations, rest, found = program.active - program.plain, {*np.unique(labels)} - {0}, list[Met]()
    for node, slot, here in _walked(program, value, labels, MAX_STEPS, passes):
        if node.kind in ("add", "mul") and node.inputs[1 - slot] in activations:
            if rest.intersection(columns := np.unique(here)):
                found.append(Met(node.inputs[1 - slot], here))
                rest.difference_update(columns)
            if not rest:
                break
    return found


def summed_over(program: Program, value: int, labels: Array) -> list[Met]:
    """Return the products with an activation that sum over columns, past sums and products with others.

    Args:
      labels: see met; those returned have one place along the axis of the other operand that is not summed.
    """
    found = list[Met]()
    for node, slot, here in _walked(program, value, labels, MAX_SUMMED, lambda node, _: node.kind in PASSED):
        if node.kind == "product" and not node.window:
            other, columns = node.inputs[1 - slot], here if slot else here.swapaxes(1, 2)  # (b, summed, kept)
            if other in program.active and (columns == columns[:, :, :1]).all():
                columns = columns[:, :, :1]
                found.append(Met(other, columns.swapaxes(1, 2) if slot else columns))
    return found


def summed_with(program: Program, found: Iterable[Met]) -> dict[int, frozenset[int]]:
    """Return for each column, by its label, the products that make what it is summed over with.

    What layouts join of several values, as keys of two parts, is followed part by part.

    Args:
      found: see summed_over.
    """
    products = {at for at, node in enumerate(program.tape.nodes) if node.kind == "product"}
    every = dict[int, frozenset[int]]()
    for value, labels in found:
        parts = _parts(program, value)
        pairs = np.unique(np.stack([np.ravel(one) for one in np.broadcast_arrays(labels, parts)]), axis=1)
        for label, part in pairs.T.astype(np.int64).tolist():
            every[label] = every.get(label, frozenset()) | made_of(program, part, products)
    return every


def _parts(program: Program, value: int) -> Array:
    """Return for each element of a value the number of the value from which layouts have taken it."""
    node = program.maker(value)
    if node is None or node.kind != "layout":
        return np.full(program.shapes[value], float(value))
    parts = (program.indices.get(number) for number in node.inputs)
    every = zip(node.inputs, parts, strict=True)
    return node.run(*(_parts(program, number) if index is None else index for number, index in every))


def behind(program: Program, value: int, labels: Array) -> Iterator[tuple[Node | None, int, Array]]:
    """Yield (operation, which of its operands, labels of that) of what mixes columns, past functions of single values.

    An output has no operation.

    Args:
      labels: see met.
    """

    def passes(node: Node, slot: int) -> bool:
        return node.kind == "layout" or program.by_channel(node, slot) or keeps_places(program, node, slot)

    for node, slot, here in _walked(program, value, labels, MAX_STEPS, passes):
        if not passes(node, slot):
            yield node, slot, here
        elif node.output in program.tape.outputs and not program.routes(node):
            yield None, 0, program.labelled(node, slot, here)


def _walked(
    program: Program, value: int, labels: Array, most: int, passes: Callable[[Node, int], bool]
) -> Iterator[tuple[Node, int, Array]]:
    """Yield (operation, which of its operands, labels of that) of what reads a value, nearest first, and each once.

    Args:
      most: how many values are followed. passes: whether the labels of an operand go on to the operation's result.
    """
    waiting, known = [(value, labels)], dict[int, list[Array]]()
    for _ in range(most):
        if not waiting:
            return
        value, labels = waiting.pop(0)
        for at, slot in program.readers(value):
            node = program.tape.nodes[at]
            yield node, slot, labels
            if passes(node, slot) and not program.routes(node):
                there = program.labelled(node, slot, labels)
                before = known.setdefault(node.output, [])
                # a slice may have none of the columns, and x * f(x) is reached twice
                if np.any(there) and not any(np.array_equal(there, other) for other in before):
                    before.append(there)
                    waiting.append((node.output, there))


def beside(program: Program, found: Iterable[Met], columns: Array) -> Beside | None:
    """Return where columns meet another activation, the first that all of them meet; None where there is none."""
    for other, labels in found:
        shape = np.broadcast_shapes(labels.shape, program.shapes[other])
        every, first = np.unique(np.broadcast_to(labels, shape), return_index=True)
        at = np.searchsorted(every, columns + 1)
        if (at < len(every)).all() and (every[at] == columns + 1).all():
            return Beside(other, shape, first[at])
    return None

"""Tell the order of channels by the products whose columns they are made of, where values do not tell it any more.

Each column of a product gets a colour, the same one on both sides for columns that correspond. Layouts move colours,
sums and products of values add them, and functions pass them on: what corresponding uses read has the same colours.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Collection, Mapping

import numpy as np

from parity.derive.limits import LARGE_COLUMNS
from parity.derive.trace.ancestors import INPUT, way_back
from parity.derive.trace.program import Program
from parity.derive.trace.tape import Array, Node, along

from .met_columns import Beside
from .uses import pattern

COLOURS = 1 << 40  # whole numbers, so that sums of some thousand are exact in any order


def colours_of(at: int, count: int) -> Array:
    """Return the colours of the columns of a left product, by its place on the tape."""
    return np.random.default_rng(at).integers(1, COLOURS, count).astype(np.float64)


def every(program: Program, products: Collection[int]) -> dict[int, Array]:
    """Return the colours of the columns of each product of the left tape."""
    nodes = ((at, program.tape.nodes[at]) for at in products)
    return {at: colours_of(at, program.shapes[node.output][_axis(node)]) for at, node in nodes}


def colours(program: Program, at: int, start: Mapping[int, Array], products: Collection[int]) -> Array | None:
    """Return the colours of the channels that a product reads; None where they cannot be told.

    Args:
      at: the product. start, products: see coloured.
    """
    reader = program.tape.nodes[at]
    read = coloured(program, reader.inputs[0], start, products)
    if read is None:
        return None
    rows = np.moveaxis(read, _axis(reader), 0)
    channels = _constant(rows.reshape(len(rows), -1), 1)
    return None if channels is None else channels[:, 0]


def beside(program: Program, of: Beside, start: Mapping[int, Array], products: Collection[int]) -> Array | None:
    """Return the colours of what columns are multiplied with or added to; None where they cannot be told.

    Args:
      start, products: see coloured.
    """
    met = coloured(program, of.value, start, products, True)
    return None if met is None else np.broadcast_to(met, of.shape)[np.unravel_index(of.places, of.shape)]


def over(program: Program, of: Beside, products: Collection[int]) -> Array | None:
    """Number what columns are summed over with, with one number for what is alike; None where it cannot be told.

    That has to be made of the columns of one product, as keys are; these are counted in the order of appearance.

    Args:
      products: see coloured.
    """
    made = program.makers.get(of.value)
    sources = frozenset[int]() if made is None else way_back(program, made, products)[0]
    if len(sources) != 1 or INPUT in sources:
        return None
    (at,) = sources
    node = program.tape.nodes[at]
    found = beside(program, of, {at: colours_of(0, program.shapes[node.output][_axis(node)])}, products)
    return None if found is None else pattern(found)


def coloured(
    program: Program, number: int, start: Mapping[int, Array], products: Collection[int], masked: bool = False
) -> Array | None:
    """Return the colours of a value; None where they cannot be told.

    Args:
      start: the colours of the columns of products, by their places on the tape. products: all of the tape.
      masked: whether inputs of the model, as masks, have no colour; else no value has one that reads them.
    """
    made = program.makers.get(number)
    if made is None:
        return None
    if made in products:
        sources, between = frozenset([made]), set[int]()
    else:
        sources, between = way_back(program, made, products)
        between.add(made)
    sources -= {INPUT} if masked else set()
    size = sum(math.prod(program.shapes[program.tape.nodes[k].output]) for k in (*sources, *between))
    if not sources or not sources <= start.keys() or size > LARGE_COLUMNS:
        return None
    values = dict[int, Array]()
    for k in sources:
        node = program.tape.nodes[k]
        shape = program.shapes[node.output]
        if len(start[k]) != shape[_axis(node)] or not start[k].all() or 0 in shape:
            return None
        values[node.output] = np.broadcast_to(along(start[k], _axis(node), len(shape)), shape)
    for k in sorted(between):
        node = program.tape.nodes[k]
        if masked and not any(number in values for number in node.inputs):
            continue
        passed = _passed(program, node, values)
        if passed is None:
            return None
        values[node.output] = passed
    return values.get(number)


def order(left: Array, right: Array) -> Array | None:
    """Return the left channel of each right one of the same colour; None if colours differ or occur twice."""
    return _paired(left, right) if len(np.unique(left)) == len(left) else None


def differ(left: Array, right: Array) -> bool:
    """Tell whether the colours of both sides are not the same ones, in any order."""
    return len(left) == len(right) and bool((np.sort(left) != np.sort(right)).any())


def regrouped(left: Array, right: Array) -> Array | None:
    """Return the left column of each right one of the same colour, in order, where each colour occurs several times.

    An example are heads of queries that share heads of keys, as neighbours or by turns. None if both sides have one
    order already.
    """
    return _paired(left, right) if len(left) != len(right) or (left != right).any() else None


def _paired(left: Array, right: Array) -> Array | None:
    """Return the left place of each right one of the same colour, in order; None if the colours differ."""
    there, here = (np.argsort(colours, kind="stable") for colours in (left, right))
    if len(left) != len(right) or (left[there] != right[here]).any():
        return None
    return there[np.argsort(here)]


def _axis(node: Node) -> int:
    """Return the axis of the channels of what a product reads and makes."""
    return 1 if node.window else 2


def _passed(program: Program, node: Node, values: Mapping[int, Array]) -> Array | None:
    """Return the colours of an operation's result."""
    if node.kind == "layout":
        return program.laid_out(node, values)
    total: Array | None = None
    for number in node.inputs:
        if number in values:
            fitted = _fitted(values[number], program.shapes[node.output])
            if fitted is None:
                return None
            total = fitted if total is None else total + fitted
    return total


def _fitted(colours: Array, shape: tuple[int, ...]) -> Array | None:
    """Return colours in the shape of an operation's result, which may have pooled axes along which they are alike."""
    if colours.shape == shape:
        return colours
    for axis in range(colours.ndim):
        alike = _constant(colours, axis)
        colours = colours if alike is None else alike
    single = [d for d, n in enumerate(colours.shape) if n == 1]
    for dropped in itertools.combinations(single[::-1], max(0, colours.ndim - len(shape))):
        less = np.squeeze(colours, dropped)
        if less.ndim == len(shape) and all(n in (1, m) for n, m in zip(less.shape, shape, strict=True)):
            return np.broadcast_to(less, shape)
    return None


def _constant(colours: Array, axis: int) -> Array | None:
    """Return the colours along one place of an axis if they are alike along it, but for zeros of padding."""
    if not colours.size:
        return None
    most = colours.max(axis, keepdims=True)
    return most if ((colours == most) | (colours == 0)).all() else None

"""Write convolutions as products over patches, or over the part of an image that later operations keep.

Other products may read the rows of patches one by one. A convolution whose result is cropped reads a part of the image,
like one that pads less.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import NamedTuple

import numpy as np

from parity.derive.trace.products import Window, patches
from parity.derive.trace.program import Program
from parity.derive.trace.tape import Array, Node, Replacement, Tape, identity

MOST = 1 << 24  # elements of patches, about: bounds memory


def unfolded(program: Program, groups: Collection[int] = (1,)) -> Tape:
    """Return the tape with convolutions of these numbers of groups as products; the same one where there are none."""

    def instead(_: int, node: Node, new: Replacement) -> list[Node]:
        window = node.window
        taps = program.shapes[node.inputs[1]][2:] if window else ()
        count = math.prod(taps)
        if (
            not window
            or window.groups not in groups
            or count == 1
            or count * math.prod(program.shapes[node.inputs[0]]) > MOST
        ):
            return [node]
        x, w = node.inputs
        operands = new.layout(x, _rows(taps, window)), new.layout(w, _matrices(window))
        new.layout(new.record("product", operands, np.matmul), _images(program.shapes[node.output]))
        return new.nodes

    return program.tape.rewritten(instead)


def _rows(taps: Sequence[int], window: Window) -> Callable[[Array], Array]:
    """Return the layout of what a convolution reads as (group, image and position, channel and tap)."""
    return lambda a: (
        patches(a, taps, window)
        .reshape(window.groups, a.shape[1] * math.prod(taps) // window.groups, -1)
        .swapaxes(1, 2)
    )


def _matrices(window: Window) -> Callable[[Array], Array]:
    """Return the layout of a kernel as (group, channel and tap, channel of the result)."""
    return lambda a: a.reshape(window.groups, len(a) // window.groups, -1).swapaxes(1, 2)


def _images(shape: tuple[int, ...]) -> Callable[[Array], Array]:
    """Return the layout of a product's result (group, image and position, channel) as images."""
    return lambda a: np.moveaxis(a.swapaxes(1, 2).reshape(shape[1], shape[0], *shape[2:]), 0, 1)


class Crop(NamedTuple):
    """What is read of a convolution's result.

    Args:
      start, length: the first position and how many, along each axis of space.
      readers: the operations that crop it.
      turns: operations that exchange its axes -> their order.
    """

    start: tuple[int, ...]
    length: tuple[int, ...]
    readers: tuple[int, ...]
    turns: Mapping[int, tuple[int, ...]]


def cropped(program: Program) -> Tape:
    """Return the tape with each convolution computing only what the operations after it keep."""
    tape, size = program.tape, program.tape.size
    nodes = list(tape.nodes)
    inserted: dict[int, Node] = {}
    for at, node in enumerate(tape.nodes):
        if not node.window or (crop := _crop(program, node)).length == program.shapes[node.output][2:]:
            continue
        taps = program.shapes[node.inputs[1]][2:]
        axes = zip(crop.start, crop.length, node.window.stride, node.window.dilation, taps, strict=True)
        part = tuple(slice(a * s, (a + n - 1) * s + (t - 1) * d + 1) for a, n, s, d, t in axes)
        inserted[at] = Node("layout", node.inputs[:1], size, _cut(part), node.site)
        nodes[at] = node._replace(inputs=(size, node.inputs[1]))
        for reader in crop.readers:
            nodes[reader] = nodes[reader]._replace(run=identity)
        for reader, order in crop.turns.items():
            nodes[reader] = nodes[reader]._replace(run=partial(np.transpose, axes=order))
        size += 1
    if not inserted:
        return tape
    every = [new for at, node in enumerate(nodes) for new in ((inserted[at], node) if at in inserted else (node,))]
    return replace(tape, nodes=every, size=size)


def _crop(program: Program, node: Node) -> Crop:
    """Follow the result of a convolution through biases, scales and crops, as long as one operation reads it."""
    whole = program.shapes[node.output]
    order, value = tuple(range(len(whole))), node.output  # the axes of the result in the order of the value's
    start, length, readers, turns = [0] * len(whole), list(whole), list[int](), dict[int, tuple[int, ...]]()
    while (found := program.only_reader(value)) is not None:
        at, slot = found
        reader = program.tape.nodes[at]
        space = [d for d, axis in enumerate(order) if axis > 1]
        if reader.kind == "layout":
            turn = _turned(program, reader)
            kept = _crop_start(program, reader, space) if turn is None else None
            if turn is not None:
                turns[at], order = turn, tuple(order[d] for d in turn)
            elif kept is not None:
                readers.append(at)
                for d, first in enumerate(kept):
                    start[order[d]] += first
                    length[order[d]] = program.shapes[reader.output][d]
            else:
                break
        elif reader.kind not in ("add", "mul") or not _flat(program.shapes[reader.inputs[1 - slot]], space, len(order)):
            break
        value = reader.output
    return Crop(tuple(start[2:]), tuple(length[2:]), tuple(readers), turns)


def _flat(shape: tuple[int, ...], space: Sequence[int], rank: int) -> bool:
    """Tell whether an operand is the same at each position along the axes of space."""
    shape = (1,) * (rank - len(shape)) + shape
    return all(shape[d] == 1 for d in space)


def _turned(program: Program, reader: Node) -> tuple[int, ...] | None:
    """Return the order into which an operation brings all axes; None unless it does just that."""
    shape, other = program.shapes[reader.inputs[0]], program.shapes[reader.output]
    if len(reader.inputs) > 1 or sorted(shape) != sorted(other):
        return None
    numbers = np.arange(float(np.prod(shape))).reshape(shape)
    result = reader.run(numbers)
    orders = (order for order in itertools.permutations(range(len(shape))) if order != tuple(range(len(shape))))
    orders = (order for order in orders if tuple(shape[d] for d in order) == other)
    return next((order for order in orders if np.array_equal(result, numbers.transpose(order))), None)


def _cut(part: tuple[slice, ...]) -> Callable[[Array], Array]:
    return lambda a: a[(..., *part)]


def _crop_start(program: Program, reader: Node, space: Sequence[int]) -> tuple[int, ...] | None:
    """Return the first position along each axis that an operation keeps; None unless it only crops axes of space."""
    shape, kept = program.shapes[reader.inputs[0]], program.shapes[reader.output]
    if len(reader.inputs) > 1 or len(shape) != len(kept) or 0 in kept:
        return None
    if any(n > m or (n < m and d not in space) for d, (n, m) in enumerate(zip(kept, shape, strict=True))):
        return None
    numbers = np.arange(float(np.prod(shape))).reshape(shape)
    moved: Array = reader.run(numbers)
    start = tuple(int(k) for k in np.unravel_index(int(moved.flat[0]), shape))
    box = tuple(slice(a, a + n) for a, n in zip(start, kept, strict=True))
    return start if np.array_equal(moved, numbers[box]) else None

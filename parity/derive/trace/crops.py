"""Rewrite convolutions whose result is cropped: they read a part of the image, like those that pad less."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from .program import Program
from .tape import Array, Node, Tape


class Crop(NamedTuple):
    """What is read of a convolution's result.

    Args:
      start, length: the first position and how many, along each axis of space.
      readers: the operations that crop it.
    """

    start: tuple[int, ...]
    length: tuple[int, ...]
    readers: tuple[int, ...]


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
        inserted[at] = Node("layout", node.inputs[:1], size, _cut(part), node.site, None)
        nodes[at] = node._replace(inputs=(size, node.inputs[1]))
        for reader in crop.readers:
            nodes[reader] = nodes[reader]._replace(run=lambda a: a)
        size += 1
    if not inserted:
        return tape
    every = [new for at, node in enumerate(nodes) for new in ((inserted[at], node) if at in inserted else (node,))]
    return replace(tape, nodes=every, size=size)


def _crop(program: Program, node: Node) -> Crop:
    """Follow the result of a convolution through biases, scales and crops, as long as one operation reads it."""
    whole = program.shapes[node.output]
    crop, value = Crop((0,) * len(whole[2:]), whole[2:], ()), node.output
    while len(readers := program.consumers.get(value, [])) == 1 and value not in program.tape.outputs:
        at, slot = readers[0]
        reader = program.tape.nodes[at]
        if reader.kind == "layout":
            start = _kept(program, reader)
            if start is None:
                break
            starts = tuple(a + b for a, b in zip(crop.start, start, strict=True))
            crop = Crop(starts, program.shapes[reader.output][2:], (*crop.readers, at))
        elif reader.kind not in ("add", "mul") or not _flat(program.shapes[reader.inputs[1 - slot]], len(whole) - 2):
            break
        value = reader.output
    return crop


def _flat(shape: tuple[int, ...], rank: int) -> bool:
    """Tell whether an operand is the same at each position of an image."""
    return all(n == 1 for n in shape[-rank:])


def _cut(part: tuple[slice, ...]) -> Callable[[Array], Array]:
    return lambda a: a[(..., *part)]


def _kept(program: Program, reader: Node) -> tuple[int, ...] | None:
    """Return the first position that an operation keeps of an image; None unless it only crops."""
    shape, kept = program.shapes[reader.inputs[0]], program.shapes[reader.output]
    if len(reader.inputs) > 1 or len(shape) != len(kept) or shape[:2] != kept[:2]:
        return None
    if any(n > m for n, m in zip(kept, shape, strict=True)):
        return None
    numbers = np.arange(float(np.prod(shape))).reshape(shape)
    found: Array = reader.run(numbers)
    start = tuple(int(k) for k in np.unravel_index(int(found.flat[0]), shape))[2:]
    box = tuple(slice(a, a + n) for a, n in zip(start, kept[2:], strict=True))
    return start if np.array_equal(found, _cut(box)(numbers)) else None

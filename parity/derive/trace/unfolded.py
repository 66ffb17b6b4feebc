"""Write convolutions of several taps as products over patches, whose rows other products may read one by one."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from .program import Program
from .tape import Array, Node, Tape, Window, patches

MOST = 1 << 24  # elements of patches, about: bounds memory


def unfolded(program: Program) -> Tape:
    """Return the tape with convolutions of one group as products; the same one where there are none."""
    tape, nodes, size = program.tape, list[Node](), program.tape.size
    for node in tape.nodes:
        window = node.window
        taps = program.shapes[node.inputs[1]][2:] if window else ()
        count = math.prod(taps)
        if not window or window.groups > 1 or count == 1 or count * math.prod(program.shapes[node.inputs[0]]) > MOST:
            nodes.append(node)
            continue
        x, w = node.inputs
        nodes += [
            Node("layout", (x,), size, _rows(taps, window), node.site, None),
            Node("layout", (w,), size + 1, lambda a: a.reshape(1, len(a), -1).swapaxes(1, 2), node.site, None),
            Node("product", (size, size + 1), size + 2, np.matmul, node.site, None),
            Node("layout", (size + 2,), node.output, _images(program.shapes[node.output]), node.site, None),
        ]
        size += 3
    return tape if size == tape.size else replace(tape, nodes=nodes, size=size)


def _rows(taps: Sequence[int], window: Window) -> Callable[[Array], Array]:
    """Return the layout of what a convolution reads as (1, image and position, channel and tap)."""
    return lambda a: patches(a, taps, window).reshape(a.shape[1] * math.prod(taps), -1).T[None]


def _images(shape: tuple[int, ...]) -> Callable[[Array], Array]:
    """Return the layout of a product's result (1, image and position, channel) as images."""
    return lambda a: np.moveaxis(a.reshape(shape[0], *shape[2:], shape[1]), -1, 1)

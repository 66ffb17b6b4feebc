"""Write convolutions of several taps as products over patches, whose rows other products may read one by one."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Sequence

import numpy as np

from parity.derive.trace.program import Program
from parity.derive.trace.tape import Array, Node, Replacement, Tape, Window, patches

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

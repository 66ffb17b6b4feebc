"""Let a convolution read the other one's patches of the same image: its padding, strides and dilations."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from functools import partial

import numpy as np

from parity.derive.trace.products import Window, convolution
from parity.derive.trace.tape import Array, Node, Replacement, Tape

from .edit import Edit, two_sided

KIND = "convolution window"
SAME = 1e-10  # relative difference of values of the same image

Frame = tuple[tuple[int, int], ...]  # of each axis of space, how many zeros stand before and after the image


@dataclass(frozen=True)
class OtherWindow(Edit):
    """Put other zeros around an image, and take patches of it by another window.

    Args:
      result: of the convolution. frame: the zeros that are added; those that are left out are negative.
    """

    result: int
    frame: Frame
    window: Window

    @property
    def changed(self) -> Collection[int]:
        return (self.result,)

    def tape(self, tape: Tape) -> Tape:
        return tape.rewritten(lambda _, node, new: self._moved(node, new) if node.output == self.result else [node])

    def _moved(self, node: Node, new: Replacement) -> list[Node]:
        """Return the convolution with what it reads."""
        image, kernel = node.inputs
        other = node._replace(run=convolution(self.window), window=self.window)
        new.again(other, (new.layout(image, partial(_framed, self.frame)), kernel))
        return new.nodes


def other_window(nodes: tuple[Node, Node], images: tuple[Array, Array]) -> OtherWindow | None:
    """Return the edit by which the right one of two convolutions of an image takes the left one's patches.

    None if they read other images, or the same patches.

    Args:
      images: what both convolutions read, with zeros around it.
    """
    windows = [node.window for node in nodes if node.window]
    inner = [np.sort(x[x != 0]) for x in map(np.ravel, images)] if len(windows) == 2 else [np.zeros(0), np.ones(1)]
    if len(inner[0]) != len(inner[1]):
        return None
    if np.abs(inner[0] - inner[1]).max(initial=0) > SAME * np.abs(inner[0]).max(initial=1e-300):
        return None
    frames = [_frame(x) for x in images]
    facts = {
        "padding": [" ".join(f"({before}, {after})" for before, after in frame) for frame in frames],
        "stride": [str(window.stride) for window in windows],
        "dilation": [str(window.dilation) for window in windows],
    }
    odd = {what: both for what, both in facts.items() if both[0] != both[1]}
    if not odd:
        return None
    text = "; ".join(f"{what} {two_sided(*both)}" for what, both in odd.items())
    left, right = ("; ".join(f"{what} {both[side]}" for what, both in odd.items()) for side in (0, 1))
    zeros = tuple((one[0] - other[0], one[1] - other[1]) for one, other in zip(*frames, strict=True))
    window = windows[0]._replace(groups=windows[1].groups)
    return OtherWindow(1, KIND, f"{text}, of the same image", nodes[1].output, zeros, window, both=(left, right))


def _framed(frame: Frame, image: Array) -> Array:
    """Add zeros around an image (n, c, *space), or leave out what stands there."""
    added = [(max(before, 0), max(after, 0)) for before, after in frame]
    image = np.pad(image, [(0, 0), (0, 0), *added])
    kept = [slice(max(-before, 0), min(after, 0) or None) for before, after in frame]
    return image[(slice(None), slice(None), *kept)]


def _frame(x: Array) -> Frame:
    """Tell how many positions before and after the image are zero along each axis of space."""
    widths = []
    for axis in range(2, x.ndim):
        there = np.flatnonzero((x != 0).any(tuple(d for d in range(x.ndim) if d != axis)))
        widths.append((int(there[0]), x.shape[axis] - 1 - int(there[-1])) if len(there) else (0, 0))
    return tuple(widths)

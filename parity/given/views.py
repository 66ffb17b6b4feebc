"""Define a View: how an array of one model lies in the order of axes in which it is compared."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

Shape = tuple[int, ...]
Places = tuple[int, ...]


class View(NamedTuple):
    """An array's own shape, and how it is compared: array.reshape(split).transpose(order).reshape(shape).

    Args:
      taken: of each axis of `split`, the order in which its elements are taken before that, as numpy.take does; ()
        where it stays, or for all.
    """

    own: Shape
    split: Shape
    order: tuple[int, ...]
    shape: Shape
    taken: tuple[Places, ...] = ()

    @classmethod
    def turned(cls, own: Shape, order: Sequence[int]) -> View:
        """Return the view with axes in another order."""
        return cls(own, own, tuple(order), tuple(own[axis] for axis in order))

    @property
    def is_plain(self) -> bool:
        """Tell whether the array is compared as it is."""
        return self.own == self.split == self.shape and list(self.order) == sorted(self.order) and not any(self.taken)

    def seen(self, array: np.ndarray) -> np.ndarray:
        """Return the model's own array as it is compared; one of another shape as it is."""
        if array.shape != self.own:
            return array
        split = array.reshape(self.split)
        for axis, places in self._exchanged():
            split = split.take(places, axis)
        return split.transpose(self.order).reshape(self.shape)

    def back(self, array: np.ndarray) -> np.ndarray:
        """Return an array that is compared as the model has it; one of another shape as it is."""
        if array.shape != self.shape:
            return array
        split = array.reshape([self.split[axis] for axis in self.order]).transpose(np.argsort(self.order))
        for axis, places in self._exchanged():
            split = split.take(np.argsort(places), axis)
        return split.reshape(self.own)

    def place(self, index: Shape) -> Shape:
        """Return the place in the model's own array of an index as it is compared."""
        flat = np.ravel_multi_index(index[: len(self.shape)], self.shape)
        moved = np.unravel_index(flat, [self.split[axis] for axis in self.order])
        split = [moved[k] for k in np.argsort(self.order)]
        for axis, places in self._exchanged():
            split[axis] = places[split[axis]]
        own = np.unravel_index(np.ravel_multi_index(split, self.split), self.own)
        return (*(int(k) for k in own), *index[len(self.shape) :])

    def _exchanged(self) -> list[tuple[int, Places]]:
        return [(axis, places) for axis, places in enumerate(self.taken) if places]


class Block(NamedTuple):
    """Axes that two models compose otherwise, as (h d) in one and h, d in the other.

    Args:
      left, right: lengths of each side's axes. split: of the right side's, as far as the other side tells them apart.
      order: of these, in which the left side has them. taken: see View; of all axes of `split`.
      is_output: whether an array with these axes alone shows that they are those of a module's features.
    """

    left: Shape
    right: Shape
    split: Shape
    order: tuple[int, ...]
    taken: tuple[Places, ...]
    is_output: bool

    def views(self, left: Shape, right: Shape) -> Iterator[View]:
        """Yield views of a right array in the shape of a left one, with these axes wherever they fit, last first."""
        for at in range(len(right) - len(self.right), 0, -1):
            tail = right[at + len(self.right) :]
            if right[at:] == self.right + tail and left == right[:at] + self.left + tail:
                start, inner, end = range(at), len(self.split), range(at, at + len(tail))
                order = (*start, *(at + k for k in self.order), *(inner + k for k in end))
                taken = (*((),) * at, *self.taken, *((),) * len(tail)) if any(self.taken) else ()
                yield View(right, right[:at] + self.split + tail, order, left, taken)


def merges(one: Shape, other: Shape) -> bool:
    """Tell whether axes of one shape, side by side, multiply to those of the other, which has more or fewer of them."""
    if len(one) == len(other) or math.prod(one) != math.prod(other) or 0 in one:
        return False
    edges = [set(itertools.accumulate(shape, int.__mul__)) for shape in (one, other)]
    return edges[0] <= edges[1] or edges[1] <= edges[0]

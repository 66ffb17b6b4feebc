"""Write lines for blocks of an axis whose pieces stand in different orders, as rotary positions order queries alone."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from parity.derive.trace.tape import Array
from specs.notation.paths import escaped

from .facts import Target
from .names import composed
from .ranges import block
from .related import relate
from .rows import Row

MAX_BLOCKS = 4


def apart(of: Target) -> list[Row] | None:
    """Write `a: (1[:-2] h d r) c <-> target: (1[:-2] h r d) c`, and a line for each other block of the axis."""
    places = of.places
    for axis, length in enumerate(places.shape):
        for count in (n for n in range(2, MAX_BLOCKS + 1) if length % n == 0 and length > n):
            rows = list[Row]()
            for k, part in enumerate(np.split(places, count, axis)):
                row = _row(of, part, (axis, k, length))
                if row is None:
                    break
                rows.append(row)
            if len(rows) == count:
                return rows
    return None


def _row(of: Target, part: Array, block_of: tuple[int, int, int]) -> Row | None:
    """Write the line of one block that is a block of an axis of the source; None where no composition of axes does.

    Args:
      part: the places of the block. block_of: the axis of the target, which of its blocks this is, and its length.
    """
    axis, k, length = block_of
    size = part.shape[axis]
    for own, start, places, less in _blocks(part, of.shape, size):
        axes = relate(places, less)
        if axes is None or any(axes.windows) or any(atom.backwards for atoms in axes.source for atom in atoms):
            continue
        of.names.assign(axes, 0, of.side)
        left = [composed(atoms, signs=True) for atoms in axes.source]
        right = [composed(atoms) for atoms in axes.target]
        left[own] = block(left[own].strip("()"), start, size, of.shape[own])
        right[axis] = block(right[axis].strip("()"), k * size, size, length)
        return Row(((escaped(of.parts[0]), " ".join(left)),), ((escaped(of.name), " ".join(right)),))
    return None


def _blocks(part: Array, shape: tuple[int, ...], size: int) -> Iterator[tuple[int, int, Array, tuple[int, ...]]]:
    """Yield (axis of the source, start, places in that block alone, its shape) where the part is one block."""
    places = np.unravel_index(part.astype(np.int64), shape)
    for own, n in enumerate(shape):
        start = int(places[own].min())
        if n > size and n % size == 0 and start % size == 0 and places[own].max() < start + size:
            inside = [index - start if d == own else index for d, index in enumerate(places)]
            less = tuple(size if d == own else n for d, n in enumerate(shape))
            yield own, start, np.ravel_multi_index(inside, less), less

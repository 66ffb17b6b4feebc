"""Write lines for equal parts of an axis that are not in one order: queries and keys in one line, values in another.

Rotary positions order the channels of queries and keys, but not those of values. All parts have one length, which a
sum would ask for part by part: (s[:-1] h r=2 d) <-> {s=q|k}: (h d r) and (1[2:] o) <-> v: o ask for h alone. Where one
array has all of them, each block of its axis gets a line.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from itertools import groupby

import numpy as np

from parity.derive.trace.tape import Array
from specs.notation.paths import escaped

from .equal_parts import Joint
from .facts import Target
from .names import composed
from .ranges import block
from .related import relate
from .rows import DIM, Row

Write = Callable[[Target], list[Row] | None]
MAX_BLOCKS = 4


def parted(of: Target, write: Write) -> list[Row] | None:
    """Return a line for each run of parts whose axes are made alike; None if the parts are unequal, or all alike.

    Args:
      of: its sources are in the order of the parts.
      write: writes the lines for a part of the target that consists of some sources.
    """
    numbers, count = of.numbers, len(of.parts)
    if len({of.sources.shapes[name] for name in of.parts}) > 1:
        return None
    for axis in range(numbers.ndim):
        if numbers.shape[axis] % count:
            continue
        parts = np.split(numbers, count, axis)
        made = [_made(of._replace(parts=[name], numbers=part)) for name, part in zip(of.parts, parts, strict=True)]
        if "" in made or len(set(made)) == 1:
            continue
        joint = Joint(1 - of.side, of.name, numbers.shape, axis, count, dict.fromkeys(of.parts, of.shape), -1)
        of.names.assume(of.name, of.parts, partial(joint.is_shown, of.names.programs))
        runs = [list(run) for _, run in groupby(range(count), key=made.__getitem__)]
        rows = [
            _row(
                of._replace(parts=[of.parts[k] for k in run], numbers=np.concatenate([parts[k] for k in run], axis)),
                (run[0], count), axis, write,
            )
            for run in runs
        ]  # fmt: skip
        if found := [row for row in rows if row]:
            return found if len(found) == len(rows) else None
    return None


def _made(of: Target) -> str:
    """Describe how the axes of a part are made of those of a whole source; "" if they are not."""
    if not np.isin(of.numbers, of.sources.numbers(of.parts[0])).all():
        return ""
    axes = relate(of.places, of.shape)
    return "" if axes is None or any(axes.windows) else str(axes.target)


def _row(of: Target, place: tuple[int, int], axis: int, write: Write) -> Row | None:
    """Return the line of parts that stand one behind the other.

    Args:
      place: the number of the first part, and of all of them in the target.
    """
    rows, count = write(of), len(of.parts)
    if not rows or len(rows) > 1:
        return None
    ((path, axes),) = rows[0].right
    texts = DIM.findall(axes or "")
    inside = texts[axis].strip("()")
    number, _, rest = inside.partition(" ") if count > 1 else ("1", "", inside)
    if "+" in number or (count > 1 and f"{{{number}=" not in rows[0].left[0][0]):
        return None
    before, after = place[0], place[1] - place[0] - count
    texts[axis] = f"({number}[{before or ''}:{-after if after else ''}] {rest})"
    return replace(rows[0], right=((path, " ".join(texts)),))


def apart(of: Target) -> list[Row] | None:
    """Write `a: (1[:-2] h d r) c <-> target: (1[:-2] h r d) c`, and a line for each other block of the axis."""
    places = of.places
    for axis, length in enumerate(places.shape):
        for count in (n for n in range(2, MAX_BLOCKS + 1) if length % n == 0 and length > n):
            rows = list[Row]()
            for k, part in enumerate(np.split(places, count, axis)):
                row = _block_row(of, part, (axis, k, length))
                if row is None:
                    break
                rows.append(row)
            if len(rows) == count:
                return rows
    return None


def _block_row(of: Target, part: Array, block_of: tuple[int, int, int]) -> Row | None:
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

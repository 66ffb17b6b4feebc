"""Write lines for the pieces of an axis as for arrays of their own, where both sides have a fused projection.

Rotary positions order the channels of queries and keys alone: w: i s=2[:-1] h r d, and w: i 1[2:] h d for values.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from copy import copy
from dataclasses import replace

import numpy as np

from parity.derive.match.symbols import Elements
from specs.notation.paths import escaped

from .facts import Target
from .ranges import blocks
from .rows import DIM, Row

MOST = 4  # pieces, as the gates of a cell; queries, keys and values are three
PIECE = re.compile(r"\.(?:(\w+)piece|\{(\w+)=([^}]+)\})$")

Write = Callable[[Target], list[Row] | None]


def in_pieces(of: Target, write: Write) -> list[Row] | None:
    """Return the lines of the pieces of an axis of one side's array; None where no axis of either side has such."""
    if found := _of_source(of, write):
        return found
    if not np.array_equal(np.sort(of.places, axis=None), np.arange(np.prod(of.shape, dtype=int))):
        return None
    own = Elements({of.name: np.broadcast_to(0.0, of.numbers.shape)}, known=False)
    back = np.argsort(of.places, axis=None).reshape(of.shape) + 1
    found = _of_source(Target(own, [of.name], of.parts[0], back, of.names, 1 - of.side), write)
    return found and [row.reverse() for row in found]


def _of_source(of: Target, write: Write) -> list[Row] | None:
    for axis, length in enumerate(of.shape):
        for count in range(2, MOST + 1):
            if length % count == 0 and (rows := _cut(of, axis, count, write)):
                return rows
    return None


def _cut(of: Target, axis: int, count: int, write: Write) -> list[Row] | None:
    """Return the lines of so many equal pieces of an axis of the source, named NAME.0piece and so on."""
    own, size = of.parts[0], of.shape[axis] // count
    outer, inner = of.shape[:axis], of.shape[axis + 1 :]
    shape = (*outer, *[size] * (size > 1), *inner)
    order = np.moveaxis(np.arange(np.prod(of.shape, dtype=int)).reshape(*outer, count, size, *inner), axis, 0)
    moved = np.argsort(order, axis=None)[of.places.astype(np.int64)] + 1
    pieces = Elements({f"{own}.{k}piece": np.broadcast_to(0.0, shape) for k in range(count)}, known=False)
    names = copy(of.names)
    names.programs, names.fused = (), False  # no program has such arrays, and none has queries beside keys
    rows = write(of._replace(sources=pieces, parts=pieces.names, numbers=moved, names=names, whole=False))
    whole = [_whole(row, own, axis, count, size) for row in rows or ()]
    if not whole or not all(whole):
        return None
    of.names.lengths = names.lengths
    return [row for row in whole if row]


def _whole(row: Row, own: str, axis: int, count: int, size: int) -> Row | None:
    """Write a line of pieces as one of ranges of their array; None where it has several pieces beside each other."""
    (path, axes), *others = row.left
    found = PIECE.search(path)
    if others or axes is None or found is None or "@" in axes:
        return None
    numbers = [int(word.removesuffix("piece")) for word in (found[1] or found[3]).split("|")]
    if numbers != [*range(numbers[0], numbers[-1] + 1)]:
        return None
    range_ = blocks(numbers[0], count - numbers[-1] - 1)
    texts, hole = DIM.findall(axes), f"{found[2]}={len(numbers)}" if found[2] else "1"
    if size > 1 and "+" in texts[axis]:  # the lengths of its parts fit one size alone
        return None
    if size > 1:
        texts[axis] = f"({hole}{range_} {texts[axis].strip('()')})"
    else:
        texts.insert(axis, hole + range_)
    return replace(row, left=((escaped(own), " ".join(texts)),))

"""Write lines for the pieces of an axis as for arrays of their own, where both sides have a fused projection.

Rotary positions order the channels of queries and keys alone: w: i s=2[:-1] h r d, and w: i 1[2:] h d for values.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from copy import copy
from dataclasses import replace

import numpy as np

from parity.derive.match.symbols import Elements
from parity.derive.trace.tape import Array
from specs.notation.paths import escaped

from .facts import Facts, Target
from .names import Names
from .ranges import blocks
from .rows import DIM, Row

MOST = 4  # pieces, as the gates of a cell; queries, keys and values are three
PIECE = re.compile(r"\.(?:(\w+)piece|\{(\w+)=([^}]+)\})$")

Write = Callable[[Target], list[Row] | None]
Cut = tuple[int, int]  # an axis of an array, and the number of equal pieces into which it is cut


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


def crosswise(
    facts: Facts, left_names: Sequence[str], right_names: Sequence[str], names: Names, write: Write
) -> list[Row] | None:
    """Write lines for arrays of which each side has fused others: q|k and v on the left, q and k|v on the right."""
    lefts, rights, back = facts.lefts, facts.rights, facts.back(right_names)
    cuts = {name: _cut_by_owner(rights, lefts.part(back, name)) for name in left_names}
    cuts_of_right = {name: _cut_by_owner(lefts, facts.part(name)) for name in right_names}
    if not all(cuts.values()) or not all(cuts_of_right.values()):
        return None
    parts = {part: numbers for name in left_names for part, numbers in _split(name, lefts.numbers(name), cuts[name])}
    sources = Elements({name: np.broadcast_to(0.0, part.shape) for name, part in parts.items()}, known=False)
    moved = np.zeros(len(lefts), np.int64)
    for part, numbers in parts.items():
        moved[numbers] = sources.numbers(part)
    own, rows = copy(names), list[Row]()
    own.programs, own.fused = (), False
    for right in right_names:
        for part, numbers in _split(right, facts.part(right), cuts_of_right[right]):
            owners = sources.owners(moved[numbers])
            target = Target(sources, owners, part, moved[numbers], own, 0, whole=False)
            written = write(target) if len(owners) == 1 else None
            if not written or not all(row.left and row.right for row in written):  # other arrays read the rest
                return None
            for row in written:
                of_left = _of_array(row, cuts, lefts)
                of_both = of_left and _of_array(of_left.reverse(), cuts_of_right, rights)
                if not of_both:
                    return None
                rows.append(of_both.reverse())
    names.lengths = own.lengths
    return rows


def _cut_by_owner(others: Elements, numbers: Array) -> Cut | None:
    """Return an axis and the number of its equal pieces of which each is of one other array; None without such."""
    for count in range(1, MOST + 1):
        for axis, length in enumerate(numbers.shape if (numbers > 0).all() else ()):
            fits = length % count == 0 and (length > count or count == 1)
            if fits and all(len(others.owners(part)) == 1 for part in np.split(numbers, count, axis)):
                return axis, count
    return None


def _split(name: str, numbers: Array, cut: Cut | None) -> Iterator[tuple[str, Array]]:
    """Yield the pieces of an array, named NAME.0piece and so on, or the array."""
    axis, count = cut or (0, 1)
    for k, part in enumerate(np.split(numbers.astype(np.int64), count, axis)):
        yield f"{name}.{k}piece" if count > 1 else name, part


def _of_array(row: Row, cuts: Mapping[str, Cut | None], sources: Elements) -> Row | None:
    """Write a line of a piece as one of a range of its array; as it is, where it is of a whole array."""
    path = row.left[0][0]
    own = next((name for name in cuts if PIECE.search(path) and PIECE.sub("", path) == escaped(name)), "")
    axis, count = cuts.get(own) or (0, 1)
    return _whole(row, own, axis, count, sources.shapes[own][axis] // count) if own else row


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

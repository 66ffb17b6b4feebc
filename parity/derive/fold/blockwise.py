"""Write lines for arrays of unequal shapes that are parts of one array in each block of the other side."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from parity.derive.match.symbols import Elements
from parity.derive.trace.tape import Array
from specs.notation.paths import escaped, normal

from .facts import Facts, Target
from .grids import COUNTING, grid
from .joined import joined
from .names import Names
from .rows import DIM, Row

Write = Callable[[Target], list[Row] | None]


def blockwise(facts: Facts, left_names: list[str], right_names: list[str], names: Names) -> list[Row] | None:
    """Write `q: l i (g r) d, kv: l i s g d <-> blocks.{l}.qkv: (g r+s d) i`, or the same with the sides exchanged."""
    lefts, rights = facts.lefts, facts.rights
    back = facts.back(right_names)
    row = _joined(lefts, left_names, rights, right_names, facts.part, names, 0)
    if row is None and all((lefts.part(back, name) > 0).all() for name in left_names):
        row = _joined(rights, right_names, lefts, left_names, lambda name: lefts.part(back, name), names, 1)
        row = row and row.reverse()
    return [row] if row else None


def alike(of: Target, write: Write) -> list[Row] | None:
    """Write `qkv.{l}: (h 1[:-2] r b) i <-> qkv: l i 1[:-2] h (b r)`: one block's lines for all of a scan.

    Args:
      of: its sources are the blocks. write: writes the lines of one block.
    """
    path, places, counts = grid(of.parts, of.sources.shapes) or ("", {}, {})
    for axis, length in enumerate(of.numbers.shape if tuple(counts) == COUNTING[:1] else ()):
        if length != len(of.parts):
            continue
        names = sorted(of.parts, key=places.__getitem__)
        blocks = [
            part - of.sources.first(name) for name, part in zip(names, np.moveaxis(of.numbers, axis, 0), strict=True)
        ]
        if any(not np.array_equal(block, blocks[0]) for block in blocks):
            continue
        rows = write(of._replace(parts=names[:1], numbers=blocks[0] + of.sources.first(names[0])))
        if rows and all(row.left[0][0] == escaped(names[0]) for row in rows):
            return [_of_all(row, path, axis) for row in rows]
    return None


def _of_all(row: Row, path: str, axis: int) -> Row:
    """Write a line of one block as one of all blocks. Args: path: of all. axis: of the array that stacks them."""
    ((name, axes),) = row.right
    texts = DIM.findall(axes or "")
    texts.insert(axis, COUNTING[0])
    return replace(row, left=((path, row.left[0][1]),), right=((name, " ".join(texts)),))


def of_blocks(of: Target) -> Row | None:
    """Write `q.{l}: o i, kv.{l}: p i <-> qkv: l (o+p) i`: the blocks' parts of one array that stacks all blocks.

    So are the gates of a recurrent cell: `x/{s=i|f}: i o, h/{s=i|f}: j o <-> w: (i+j) (s o)`.
    """
    forms: dict[str, list[str]] = {}
    for name in of.parts:
        forms.setdefault(normal(name), []).append(name)
    if len(forms) == len(of.parts):
        forms = _by_word(of.parts)
    cells = [grid(some) for some in forms.values()]
    holes = {tuple(cell[2]) if cell else () for cell in cells}
    if len(cells) <= 1 or len(holes) > 1 or len(next(iter(holes))) != 1:
        return None
    stacked: dict[str, Array] = {}
    for (path, _, counts), some in zip(filter(None, cells), forms.values(), strict=True):
        shapes = {of.sources.shapes[name] for name in some}
        if len(shapes) > 1:
            return None
        stacked[path] = np.broadcast_to(0.0, (*counts.values(), *shapes.pop()))
    own = Elements(stacked, known=False)
    starts = {
        name: own.first(path) + places[name] * math.prod(of.sources.shapes[name])
        for (path, places, _), some in zip(filter(None, cells), forms.values(), strict=True)
        for name in some
    }
    moved = of.sources.renumbered(of.numbers, starts)
    return joined(of._replace(sources=own, parts=own.names, numbers=moved), holes=holes.pop())


def _by_word(names: Sequence[str]) -> dict[str, list[str]]:
    """Return names of two words by the one of which there are fewer; {} where they are no such names."""
    if (found := grid(names)) is None or len(found[2]) != 2:
        return {}
    _, places, counts = found
    first, second = counts.values()
    forms: dict[str, list[str]] = {}
    for name in names:
        words = divmod(places[name], second)
        forms.setdefault(str(words[first > second]), []).append(name)
    return forms


def _joined(
    sources: Elements,
    source_names: Sequence[str],
    targets: Elements,
    target_names: Sequence[str],
    part: Callable[[str], Array],
    names: Names,
    side: int,
) -> Row | None:
    """Write the line for blocks of one shape, stacked along the holes of their names.

    Args:
      part: returns the sources' elements of a target.
      side: the side of the sources.
    """
    target_names = sorted(target_names, key=lambda name: part(name).min())  # words, as of gates, are listed in order
    cells = grid(target_names) if len({targets.shapes[name] for name in target_names}) == 1 else None
    if cells is None:
        return None
    path, order, counts = cells
    blocks = [part(name) for name in sorted(target_names, key=order.__getitem__)]
    numbers = np.stack(blocks).reshape(*counts.values(), *blocks[0].shape)
    return joined(Target(sources, source_names, path, numbers, names, side), tuple(counts))

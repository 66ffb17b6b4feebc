"""Write the lines for parameters of both sides that share elements."""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial

import numpy as np

from parity.derive.match.symbols import Elements
from parity.derive.trace.axis_roles import axis_roles, follows
from parity.derive.trace.tape import Array
from specs.notation.paths import escaped

from .apart import apart
from .blockwise import alike, blockwise, of_blocks
from .equal_parts import Joint
from .facts import Facts, Target
from .grids import COUNTING, grid
from .joined import joined
from .names import Names, composed
from .parted import parted
from .permuted import listed, listed_parts
from .pieces import crosswise, in_pieces
from .ranges import block, even, left_over, window
from .related import Atom, Axes, relate
from .rows import Row
from .segments import segmented
from .swapped import equal_in_order, exchanged, with_letters


def lines(facts: Facts, left_names: list[str], right_names: list[str], names: Names) -> list[Row] | None:
    """Return the lines of one group of parameters; None if no line can say how they correspond."""
    lefts, rights = facts.lefts, facts.rights
    if len(right_names) == 1:
        return many_to_one(Target(lefts, left_names, right_names[0], facts.part(right_names[0]), names, 0))
    if any((facts.part(name) == 0).any() for name in right_names):
        return None
    if len(left_names) > 1:
        every = facts, left_names, right_names, names
        return _crossed(*every) or blockwise(*every) or crosswise(*every, many_to_one)
    copies = [facts.part(name) for name in right_names]
    if all(np.array_equal(np.unique(copy), np.unique(copies[0])) for copy in copies):
        return _tied(lefts, left_names, right_names, copies, names)
    numbers = lefts.part(facts.back(right_names), left_names[0])
    rows = many_to_one(Target(rights, right_names, left_names[0], numbers, names, 1))
    return rows and [row.reverse() for row in rows]


def _tied(
    lefts: Elements, left_names: list[str], right_names: list[str], copies: list[Array], names: Names
) -> list[Row] | None:
    targets = (Target(lefts, left_names, name, copy, names, 0) for name, copy in zip(right_names, copies, strict=True))
    every = list(map(many_to_one, targets))
    whole = [rows[0] for rows in every if rows and len(rows) == 1 and every[0] and rows[0].left == every[0][0].left]
    if len(whole) < len(every):
        return None
    return [Row(whole[0].left, tuple(row.right[0] for row in whole), (", ", " = "))]


def many_to_one(of: Target) -> list[Row] | None:
    """Write the line for one array that consists of one or several others, and lines for what is left over."""
    if (of.numbers == 0).any():
        return _part_of_target(of)
    if len(of.parts) > 1:
        first = {name: int(np.isin(of.numbers, of.sources.numbers(name)).argmax()) for name in of.parts}
        of = of._replace(parts=sorted(of.parts, key=first.__getitem__))
    cells = grid(of.parts, of.sources.shapes) if len({of.sources.shapes[name] for name in of.parts}) == 1 else None
    if cells and (rows := _stacked(of, cells)):
        return rows
    if of.whole and (rows := alike(of, _apart)):
        return rows
    if len(of.parts) == 1:
        return _alone(segmented(of)) or _apart(of) or (_alone(listed(of)) if of.whole else None)
    before = dict(of.names.lengths)
    if rows := parted(of, many_to_one):
        return rows
    of.names.lengths = before  # what no line uses is free
    if not of.whole:  # no line has several ranges of one array
        return apart(of)
    return (
        _alone(joined(of) or of_blocks(of) or segmented(of))
        or apart(of)
        or _beside_one(of)
        or _alone(listed_parts(of, joined))
    )


def _apart(of: Target) -> list[Row] | None:
    """Write lines for blocks or pieces of an axis."""
    return apart(of) or (in_pieces(of, many_to_one) if of.whole else None)


def _beside_one(of: Target) -> list[Row] | None:
    """Write `a: i o <-> target: i[:-1] o` and `b: o <-> target: 1[-1:] o`: a matrix, and a vector as one row more."""
    for axis, length in enumerate(of.numbers.shape):
        for at, own, others in ((length - 1, "[-1:]", "[:-1]"), (0, "[:1]", "[1:]")):
            rest = [k for k in range(length) if k != at]
            rows = [_in_range(of, axis, *some) for some in (([at], own), (rest, others))] if rest[1:] else []
            if len(rows) == 2 and rows[0] and rows[1] and rows[0].left[0][0] != rows[1].left[0][0]:
                return [rows[1], rows[0]]
    return None


def _in_range(of: Target, axis: int, places: list[int], where: str) -> Row | None:
    """Write the line of the source that alone makes a range of the target's axis; None where several do."""
    numbers = of.numbers.take(places, axis)
    names = of.sources.owners(numbers)
    if len(names) > 1 or (len(places) == 1 and len(of.sources.shapes[names[0]]) >= numbers.ndim):
        return None
    rows = many_to_one(of._replace(numbers=numbers, parts=names)) or []
    (path, written), *_ = rows[0].right if len(rows) == 1 else (("", ""),)
    texts = str(written).split(" ")
    if len(texts) != numbers.ndim or "(" in str(written):
        return None
    texts[axis] += where
    return replace(rows[0], right=((path, " ".join(texts)),))


def _alone(row: Row | None) -> list[Row] | None:
    return [row] if row else None


def _stacked(of: Target, cells: tuple[str, dict[str, int], dict[str, int]]) -> list[Row] | None:
    """Return sources of one shape whose names form a grid: their holes are axes of the target."""
    path, places, counts = cells
    shape, names, side, first = of.shape, of.names, of.side, of.parts[0]
    stacked = of.sources.renumbered(of.numbers, {name: places[name] * math.prod(shape) for name in of.parts})
    stacked, swapped = equal_in_order(stacked, (*counts.values(), *shape), names, side, first, len(counts))
    axes = relate(stacked, (*counts.values(), *shape))
    if axes is None or any(axes.windows[: len(counts)]) or any(len(atoms) != 1 for atoms in axes.source[: len(counts)]):
        return None
    if _count_roles(names, 1 - side, of.name, axes.target, dict(zip(counts, axes.source, strict=False))):
        listed_cells = grid(of.parts, counts=False)
        return listed_cells and _stacked(of, listed_cells)
    for name, (atom,) in zip(counts, axes.source[: len(counts)], strict=True):
        atom.name = name
    found = [*swapped, *exchanged(axes, names, side, first, len(counts))]
    names.assume(of.name, of.parts, lambda: _of_one_length(of, axes, counts))
    names.assign(axes, len(counts), side, first)
    texts = [composed(atoms, signs=True) for atoms in axes.source[len(counts) :]]
    turned = [atom for (atom,) in axes.source[: len(counts)] if atom.backwards]  # as blocks that run from the last one
    if any(len(atoms) > 1 and atom in turned for atoms in axes.target for atom in atoms):
        return None
    others = [composed(atoms, signs=any(atom in turned for atom in atoms)) for atoms in axes.target]
    parts = with_letters(texts, others, found)
    windows = axes.windows[len(counts) :]
    source = [text + window(*range_, length) if range_ else text
              for text, range_, length in zip(texts, windows, shape, strict=True)]  # fmt: skip
    row = Row(((path, " ".join(source)),), ((escaped(of.name), " ".join(others)),), parts=parts)
    return [row, *_left_over(path, texts, source, windows, shape, side)]


def _count_roles(
    names: Names, side: int, name: str, dims: Sequence[list[Atom]], holes: Mapping[str, Sequence[Atom]]
) -> bool:
    """Tell whether holes count parts of an array, side by side, that its model's code takes apart.

    Args:
      side, name, dims: of that array of the other side, with its axes. holes: of names, each with its piece.
    """
    counted = [id(atom) for hole, (atom, *_) in holes.items() if hole in COUNTING] if names.programs else []
    return any(
        follows(
            axis_roles(names.programs[side], name, axis).readers,
            atoms[0].length,
            math.prod(part.length for part in atoms[1:]),
        )
        for axis, atoms in enumerate(dims)
        if len(atoms) > 1 and id(atoms[0]) in counted
    )


def _of_one_length(of: Target, axes: Axes, counts: Collection[str]) -> bool:
    """Tell whether a run shows that parts side by side, one for each word of names, as {s=q|k|v}, have one length."""
    parts, words = dict.fromkeys(of.parts, of.shape), {name for name in counts if name not in COUNTING}
    joints = (
        Joint(1 - of.side, of.name, of.numbers.shape, at, atoms[0].length, parts, atoms[1].axis - len(counts))
        for at, atoms in enumerate(axes.target)
        if _joins(atoms, words)
    )
    return all(joint.is_shown(of.names.programs) for joint in joints)


def _joins(atoms: Sequence[Atom], words: Collection[str]) -> bool:
    """Tell whether an axis joins parts side by side, one for each word of names. Args: words: holes of names."""
    return len(atoms) > 1 and atoms[0].name in words


def _crossed(
    facts: Facts, left_names: list[str], right_names: list[str], names: Names, counted: Sequence[bool] = (True, True)
) -> list[Row] | None:
    """Return arrays of one shape on each side whose names form a grid: the holes of one are axes of the other.

    Args:
      counted: of each side, whether numbers in names count; see grid.
    """
    lefts, rights = facts.lefts, facts.rights
    right_names = sorted(right_names, key=lambda name: int(facts.part(name).flat[0]))
    order = np.concatenate([facts.part(name).ravel() for name in right_names])
    left_names = sorted(left_names, key=lambda name: int(np.isin(order, lefts.numbers(name)).argmax()))
    shapes = [{side.shapes[name] for name in of} for side, of in ((lefts, left_names), (rights, right_names))]
    left_grid, right_grid = grid(left_names, (), counted[0]), grid(right_names, (), counted[1])
    if any(len(found) != 1 for found in shapes) or left_grid is None or right_grid is None:
        return None
    (path, places, counts), (other, cells, others) = left_grid, right_grid
    (shape,), (target,) = shapes
    starts = {name: places[name] * math.prod(shape) for name in left_names}
    parts = [lefts.renumbered(facts.part(name), starts) for name in sorted(right_names, key=cells.__getitem__)]
    numbers = np.stack(parts).reshape(*others.values(), *target)
    axes = relate(numbers, (*counts.values(), *shape))
    if axes is None or any(axes.windows):
        return None
    numbered, holes = axes.source[: len(counts)], axes.target[: len(others)]
    if any(len(atoms) != 1 for atoms in (*numbered, *holes)) or any(a[0] is b[0] for a in numbered for b in holes):
        return None
    dims = axes.source[len(counts) :], axes.target[len(others) :]
    counted_parts = dict(zip(others, holes, strict=True)), dict(zip(counts, numbered, strict=True))
    own = zip((0, 1), (left_names[0], right_names[0]), dims, counted_parts, strict=True)
    are_roles = [_count_roles(names, *each) for each in own][::-1]  # numbers in left names count parts of right arrays
    if any(are_roles):
        listed_too = [was and not roles for was, roles in zip(counted, are_roles, strict=True)]
        return _crossed(facts, left_names, right_names, names, listed_too)
    arrays = dict.fromkeys(left_names, shape), dict.fromkeys(right_names, target)
    return [_crossed_row(names, arrays, axes, (path, counts), (other, others))]


def _crossed_row(
    names: Names, arrays: Sequence[dict[str, tuple[int, ...]]], axes: Axes, left_grid: tuple[str, dict[str, int]],
    right_grid: tuple[str, dict[str, int]],
) -> Row:  # fmt: skip
    """Return the line of arrays on each side.

    Args:
      arrays: their shapes. left_grid, right_grid: their path, and the lengths of its holes.
    """
    (path, counts), (other, others) = left_grid, right_grid
    numbered, holes = axes.source[: len(counts)], axes.target[: len(others)]
    for name, (atom,) in zip(counts, numbered, strict=True):
        atom.name = name
    for name, (atom,) in zip(others, holes, strict=True):
        atom.name = name if name not in counts else next(free for free in "sruvl" if free not in {*counts, *others})
        other = re.sub(rf"\{{{name}(?=[}}=+-])", f"{{{atom.name}", other)
    words = [{atom.name for name, (atom,) in zip(*some, strict=True) if name not in COUNTING}
             for some in ((others, holes), (counts, numbered))]  # fmt: skip
    _note_equal(names, arrays, (axes.source[len(counts) :], axes.target[len(others) :]), words)
    names.assign(Axes(axes.source, axes.target[len(others) :], axes.windows), len(counts), 0)
    left = " ".join(composed(atoms, signs=True) for atoms in axes.source[len(counts) :])
    return Row(((path, left),), ((other, " ".join(map(composed, axes.target[len(others) :]))),))


def _note_equal(
    names: Names, arrays: Sequence[dict[str, tuple[int, ...]]], dims: Sequence[Sequence[list[Atom]]],
    words: Sequence[Collection[str]],
) -> None:  # fmt: skip
    """Note arrays of both sides that join parts, one for each word of the other side's names, as equally long.

    Args:
      arrays: their shapes. dims: their axes. words: holes of the other side's names.
    """
    for side, parts in enumerate(reversed(arrays)):
        for at, atoms in enumerate(dims[side]):
            if _joins(atoms, words[side]):
                own = next((k for k, some in enumerate(dims[1 - side]) if some == [atoms[1]]), -1)
                for name, shape in arrays[side].items():
                    joint = Joint(side, name, shape, at, atoms[0].length, parts, own)
                    names.assume(name, parts, partial(joint.is_shown, names.programs))


def _left_over(
    path: str, texts: list[str], written: list[str], windows: Sequence[tuple[int, int] | None], shape: Sequence[int],
    side: int,
) -> Iterator[Row]:  # fmt: skip
    """Yield lines for the positions before and after a window: dropped on the left, zeros on the right."""
    for array in left_over(path, texts, written, windows, shape):
        yield Row(left=array, arrow="->") if side == 0 else Row(left=array, constant="0")


def _part_of_target(of: Target) -> list[Row] | None:
    """Return a target of which only positions in one range have a source; the others are zeros, or dropped."""
    numbers = of.numbers
    for axis in range(numbers.ndim):
        rows = np.moveaxis(numbers, axis, 0).reshape(numbers.shape[axis], -1) > 0
        inside = np.flatnonzero(rows.all(1))
        if not len(inside) or rows.any(1).sum() != len(inside) or inside[-1] - inside[0] + 1 != len(inside):
            continue
        start, stop = int(inside[0]), int(inside[-1]) + 1
        part = of._replace(numbers=np.take(numbers, inside, axis))
        whole = many_to_one(part)
        if not whole or "(" in (texts := str(whole[0].right[0][1]).split(" "))[axis]:
            return None
        if len(whole) > 1 and not _as_far_as_both(part, start, stop, len(numbers)):
            return None
        written = [*texts]
        size = even([(start, stop)], len(numbers)) if numbers.ndim == 1 else 0  # biases, but no tables of positions
        written[axis] = (
            block(texts[axis], start, size, len(numbers)) if size
            else texts[axis] + window(start, stop, numbers.shape[axis])
        )  # fmt: skip
        windows = [(start, stop) if d == axis else None for d in range(numbers.ndim)]
        row = replace(whole[0], right=((escaped(of.name), " ".join(written)),))
        rest = _left_over(escaped(of.name), texts, written, windows, numbers.shape, 1 - of.side)
        return [row, *whole[1:], *(r.reverse() for r in rest)]
    return None


def _as_far_as_both(part: Target, start: int, stop: int, count: int) -> bool:
    """Tell whether ranges of two axes end where one of both axes ends: else what lies beyond is not known to differ.

    Args:
      part: a range of an axis of the target. start, stop: where it lies on the axis. count: the axis' length.
    """
    if len(part.parts) != 1:
        return False
    axes = relate(part.places, part.shape)
    cut = [(range_, n) for range_, n in zip(axes.windows, part.shape, strict=True) if range_] if axes else []
    if len(cut) != 1:
        return False
    (first, last), length = cut[0]
    return min(first, start) == 0 and (last == length or stop == count)

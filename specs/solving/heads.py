"""Find lengths of axes that contradict each other on heads, where a user gives what no shape shows."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Iterator, Mapping

from specs.notation.axes import Dim, parts
from specs.notation.lines import Line, Lines
from specs.notation.signature import Signature
from specs.words import in_a_row

from .open_axes import SIZE_OF_HEAD

SIZE = re.compile(rf"{SIZE_OF_HEAD}\d*")  # of heads: d, and d2 where there are two
GRID = frozenset("hw")  # a height and a width: composed with w, h counts no heads
Length = tuple[frozenset[str], int, int]  # the axes from which it follows, itself, and a line
Dimension = tuple[str, frozenset[str]]  # as it is written, and the axes in it whose lengths are given


def clashes(lines: Lines, given: Mapping[str, int], sizes: Mapping[int, Mapping[str, int]]) -> Iterator[str]:
    """Yield where lengths that the user gives contradict each other on heads, in modules of one module.

    With h2=8 in (h2 d) of attn.q and h=3 in (h d) of attn.k, the size d of a head is two lengths. Dimensions that are
    composed alike may have several sizes, as those of queries and of values, but unlike ones, as (s h d) of a fused
    projection and (h d) of the output, have one in common. A size goes with one number of heads in each line of a name.
    Both are those of other arrays of the module with this axis, as the scale of a norm of keys, or slopes of heads.
    Other letters are not checked: each has its own length on each line; nor are height, width and depth of a grid.

    Args:
      given: one of 1 is not checked, as it also stands for a length that is not known.
      sizes: lengths of axes by line number.
    """
    given = {name: length for name, length in given.items() if length > 1}
    remedy = "give lengths from which one {axis} follows, or rename one {axis} of the Table if there are two"
    by_axis: dict[tuple[str, str], dict[Dimension, dict[int, int]]] = {}  # (parent, axis) -> dimension -> length: line
    for line in lines.lines:
        own = sizes.get(line.number, {})
        for dim, names in ((str(dim), names) for names, dim in _dims(line)):
            beside = frozenset(name for name in names & given.keys() if own.get(name) == given[name])
            for axis in (names - given.keys()) & own.keys() if beside else ():
                by = by_axis.setdefault((_modules(line)[0], axis), {})
                by.setdefault((dim, beside), {}).setdefault(own[axis], line.number)
    for (_, axis), by in by_axis.items():
        for clash in _clashes(axis, by):
            made = in_a_row(f"{_given(names, given)} {axis}={length} on line {n}" for names, length, n in clash)
            yield f"lengths contradict each other, as {made}: {remedy.format(axis=axis)}"
    for axis, other in _unlike_shown(lines, given, sizes):
        yield f"lengths contradict each other, as {other}: {remedy.format(axis=axis)}"


def _clashes(axis: str, by: Mapping[Dimension, Mapping[int, int]]) -> Iterator[tuple[Length, Length]]:
    """Yield pairs of lengths of an axis that contradict each other.

    Args:
      by: of each dimension the lengths that follow, with a line of each.
    """
    for ((_, one), at), ((_, other), there) in itertools.combinations(by.items(), 2):
        if SIZE.fullmatch(axis) and at.keys().isdisjoint(there):
            yield (one, *next(iter(at.items()))), (other, *next(iter(there.items())))
    for size in sorted({name for _, names in by for name in names if SIZE.fullmatch(name)}):
        known = {n: (names, n, line) for (_, names), at in by.items() if size in names for n, line in at.items()}
        yield from itertools.combinations(known.values(), 2)


def _given(names: Iterable[str], given: Mapping[str, int]) -> str:
    """Return "h=2 makes", or "g=2 and r=3 make"."""
    texts = [f"{name}={given[name]}" for name in sorted(names)]
    return f"{in_a_row(texts)} make{'s' * (len(texts) == 1)}"


def _unlike_shown(
    lines: Lines, given: Mapping[str, int], sizes: Mapping[int, Mapping[str, int]]
) -> Iterator[tuple[str, str]]:
    """Yield an axis of heads, and where given lengths make it another one than an array of the same module shows."""
    shown: dict[tuple[str, str], int] = {}  # (module, axis) -> number of a line that has it as a whole axis
    widths = {(_modules(line)[1], axes) for line in lines.lines for axes in map(_texts, line.arrays) if "w" in axes}
    for line in lines.lines:
        turned = {(_modules(line)[1], tuple(map({"h": "w"}.get, axes, axes))) for axes in map(_texts, line.arrays)}
        heights = set("h") if turned & widths else set[str]()  # h c beside w c of the same module
        for axis in (_whole(line) - heights) & sizes.get(line.number, {}).keys():
            for module in _modules(line):
                shown.setdefault((module, axis), line.number)
    for line in lines.lines:
        own = sizes.get(line.number, {})
        dims = [names for names, _ in _dims(line)]
        heads = set[str]().union(*(names for names in dims if len(names) > 1 and any(map(SIZE.fullmatch, names))))
        taken = sorted(name for name in heads & given.keys() if own.get(name) == given[name])
        at = {axis: shown[one, axis] for one in _modules(line) for axis in heads & own.keys() if (one, axis) in shown}
        for axis, number in sorted(at.items()) if taken else ():
            if own[axis] != sizes[number][axis]:
                length = f"{axis}={own[axis]}"
                stated = f"{length} was given" if axis in taken else f"{_given(taken, given)} {length}"
                seen = f"the shapes show {axis}={sizes[number][axis]} on line {number}"
                yield axis, f"{stated} for line {line.number}, and {seen}"


def _whole(line: Line) -> set[str]:
    """Return the names that are an axis of each array of a line, but for height and depth beside a kernel's width."""
    own = [set(_texts(array)) for array in line.arrays]
    common = set[str]().union(*own).intersection(*own)
    is_deep = any("d h w" in " ".join(_texts(array)) for array in line.arrays)
    return common - ({"h"} if any("w" in axes for axes in own) else set()) - ({SIZE_OF_HEAD} if is_deep else set())


def _texts(array: Signature) -> tuple[str, ...]:
    """Return the axes of an array as they are written."""
    return tuple(map(str, array.axes or ()))


def _dims(line: Line) -> Iterator[tuple[set[str], Dim]]:
    """Yield each dimension of a line's arrays that may have heads, with the names of its axes: (h w c) is a grid."""
    dims = ((names_in(dim), dim) for array in line.arrays for dim in array.axes or ())
    return ((names, dim) for names, dim in dims if not names >= GRID)


def module_of(name: str) -> str:
    """Return the name of the module that has an array, with its last sign: "attn." of "attn.q"."""
    return name[: max(name.rfind("."), name.rfind("/")) + 1]


def _modules(line: Line) -> tuple[str, str]:
    """Return the module that has the module of a line's first array, and this one."""
    module = module_of(line.arrays[0].label)
    return module_of(module[:-1]), module


def names_in(dim: Dim) -> set[str]:
    """Return the names of the axes that a dimension is composed of."""
    return {part.name for part in parts((dim,))}

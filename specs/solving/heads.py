"""Find lengths of axes that contradict each other on heads, where a user gives what no shape shows."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cache

from specs.applied.layout import Bound
from specs.notation.axes import Dim, parts
from specs.notation.lines import Line
from specs.notation.signature import Signature
from specs.words import in_a_row

from .open_axes import SIZE_OF_HEAD
from .sizes import dims as dims_of

SIZE = re.compile(rf"{SIZE_OF_HEAD}\d*")  # of heads: d, and d2 where there are two
GRID = frozenset("hw")  # a height and a width: composed with w, h counts no heads
Length = tuple[frozenset[str], int, int]  # the axes from which it follows, itself, and a line
Dimension = tuple[str, frozenset[str]]  # as it is written, and the axes in it whose lengths are given
Shown = Mapping[tuple[int, str], str]  # (line, axis) -> where its length is shown: "h=2 on line 5"


def clashes(bound: Sequence[Bound], given: Mapping[str, int]) -> Iterator[str]:
    """Yield where lengths that the user gives contradict each other on heads, in modules of one module.

    With h2=8 in (h2 d) of attn.q and h=3 in (h d) of attn.k, the size d of a head is two lengths. Dimensions that are
    composed alike may have several sizes, as those of queries and of values, but unlike ones, as (s h d) of a fused
    projection and (h d) of the output, have one in common. A size goes with one number of heads in each line of a name.
    Both are those of other arrays of the module with this axis, as the scale of a norm of keys, or slopes of heads.
    Other letters are not checked: each has its own length on each line; nor are height, width and depth of a grid.

    Args:
      bound: lines, in each block.
      given: one of 1 is not checked, as it also stands for a length that is not known.
    """
    given = {name: length for name, length in given.items() if length > 1}
    if not given:
        return
    remedy = "give lengths from which one {axis} follows, or rename one {axis} of the Table if there are two"
    by_axis: dict[tuple[str, str], dict[Dimension, dict[int, int]]] = {}  # (module, axis) -> dimension -> length: line
    for one in bound:
        for dim, names in _dims(one.line):
            beside = frozenset(name for name in names & given.keys() if one.sizes.get(name) == given[name])
            for axis in (names - given.keys()) & one.sizes.keys() if beside else ():
                by = by_axis.setdefault((_modules(one)[0], axis), {})
                by.setdefault((dim, beside), {}).setdefault(one.sizes[axis], one.line.number)
    for (_, axis), by in by_axis.items():
        for clash in _clashes(axis, by):
            made = in_a_row(f"{_given(names, given)} {axis}={length} on line {n}" for names, length, n in clash)
            yield f"lengths contradict each other, as {made}: {remedy.format(axis=axis)}"
    for axis, other in _unlike_shown(bound, given):
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


def _unlike_shown(bound: Sequence[Bound], given: Mapping[str, int]) -> Iterator[tuple[str, str]]:
    """Yield an axis of heads, and where given lengths make it another one than an array of the same module shows."""
    for one, axis, other in _compared(bound):
        taken = sorted(name for name in _heads(one.line) & given.keys() if one.sizes.get(name) == given[name])
        if taken and one.sizes.get(axis, other.sizes[axis]) != other.sizes[axis]:
            length = f"{axis}={one.sizes[axis]}"
            stated = f"{length} was given" if axis in taken else f"{_given(taken, given)} {length}"
            seen = f"the shapes show {axis}={other.sizes[axis]} on line {other.line.number}"
            yield axis, f"{stated} for line {one.line.number}, and {seen}"


def shown_heads(bound: Sequence[Bound]) -> Shown:
    """Return where another array of the same module shows the length of an axis of heads; a number if blocks agree."""
    lengths: dict[tuple[int, str], dict[int, set[int]]] = {}  # (line, axis) -> line that shows it -> lengths
    for one, axis, other in _compared(bound):
        lengths.setdefault((one.line.number, axis), {}).setdefault(other.line.number, set()).add(other.sizes[axis])
    return {
        (line, axis): f"{axis}={min(own)} on line {number}" if len(own) == 1 else f"{axis} on line {number}"
        for (line, axis), by_line in lengths.items()
        for number, own in [*by_line.items()][:1]
    }


def follows_shown(line: Line, name: str, shown: Shown) -> bool:
    """Tell whether a length of a line is compared with a shape: beside slopes of h, h of (s=3 h d) is, and so is d."""
    composed = [names - line.lengths.keys() for _, names in _dims(line) if name in names]
    others = [names - {name} for names in composed if len(names) > 1]
    is_shown = (line.number, name) in shown
    return is_shown or (bool(others) and all((line.number, other) in shown for names in others for other in names))


def _compared(bound: Sequence[Bound]) -> Iterator[tuple[Bound, str, Bound]]:
    """Yield lines that compose an axis of heads, this axis, and a line of the same module that has it as it is."""
    shown: dict[tuple[str, str], Bound] = {}  # (module, axis) -> a line that has it as a whole axis
    widths = {(_modules(one)[1], axes) for one in bound for axes in map(_texts, one.line.arrays) if "w" in axes}
    for one in bound:
        turned = {(_modules(one)[1], tuple(map({"h": "w"}.get, axes, axes))) for axes in map(_texts, one.line.arrays)}
        heights = set("h") if turned & widths else set[str]()  # h c beside w c of the same module
        for axis in (_whole(one.line) - heights) & one.sizes.keys():
            for module in _modules(one):
                shown.setdefault((module, axis), one)
    for one in bound:
        for axis in sorted(_heads(one.line)):
            if found := [shown[module, axis] for module in _modules(one) if (module, axis) in shown]:
                yield one, axis, found[-1]


def _heads(line: Line) -> set[str]:
    """Return the axes of a line that are composed with the size of a head."""
    dims = [names for _, names in _dims(line)]
    return set[str]().union(*(names for names in dims if len(names) > 1 and any(map(SIZE.fullmatch, names))))


def _whole(line: Line) -> set[str]:
    """Return the names that are an axis of each array of a line, but for height and depth beside a kernel's width."""
    own = [set(_texts(array)) for array in line.arrays]
    common = set[str]().union(*own).intersection(*own)
    is_deep = any("d h w" in " ".join(_texts(array)) for array in line.arrays)
    return common - ({"h"} if any("w" in axes for axes in own) else set()) - ({SIZE_OF_HEAD} if is_deep else set())


@cache
def _texts(array: Signature) -> tuple[str, ...]:
    """Return the axes of an array as they are written."""
    return tuple(map(str, array.axes or ()))


def _dims(line: Line) -> Iterator[tuple[str, set[str]]]:
    """Yield each dimension of a line's arrays that may have heads, with the names of its axes: (h w c) is a grid."""
    dims = ((text, set(names)) for array in line.arrays for _, text, names in dims_of(array))
    return ((text, names) for text, names in dims if not names >= GRID)


def module_of(name: str) -> str:
    """Return the name of the module that has an array, with its last sign: "attn." of "attn.q"."""
    return name[: max(name.rfind("."), name.rfind("/")) + 1]


def _modules(one: Bound) -> tuple[str, str]:
    """Return the module that has the module of a line's first array, and this one: of a block both end within it."""
    module = module_of(one.name)[:-1]
    return max(module_of(module)[:-1], one.block, key=len), max(module, one.block, key=len)


def names_in(dim: Dim) -> set[str]:
    """Return the names of the axes that a dimension is composed of."""
    return {part.name for part in parts((dim,))}

"""Read lengths of axes that the user gives for a Table, and compare them with those that shapes show."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Iterator, Mapping

from convert.errors import ConvertError, UsageError, option
from convert.records.record import Record
from specs.applied.moves import Shape
from specs.covering.cut import check_derived
from specs.notation.axes import Dim, parts
from specs.notation.claims import derived_lengths
from specs.notation.lines import Line
from specs.solving.open_axes import SIZE_OF_HEAD
from specs.solving.sizes import SizeError
from specs.solving.stating import without_lengths
from specs.table import Table
from specs.words import in_a_row

from .file import recorded_table
from .plan import TablePlan

SIZE = re.compile(rf"{SIZE_OF_HEAD}\d*")  # of heads: d, and d2 where there are two
Length = tuple[frozenset[str], int, int]  # the axes from which it follows, itself, and a line
Dimension = tuple[str, frozenset[str]]  # as it is written, and the axes in it whose lengths are given


def lengths(texts: Iterable[str]) -> dict[str, int]:
    """Parse the lengths of axes: ["h=12"] -> {"h": 12}. Raises: UsageError."""
    given: dict[str, int] = {}
    for text in texts:
        name, _, number = text.partition("=")
        if not re.fullmatch(r"\d{1,15}", number, re.ASCII):
            raise UsageError(f"--set {text}: with --table, write an axis and its length, as in h=12")
        if given.setdefault(name, int(number)) != int(number):
            raise UsageError(f"--set {name}: given twice, as {given[name]} and as {int(number)}")
    return given


def supplied(lines: Table, given: Mapping[str, int], sizes: Mapping[int, Mapping[str, int]]) -> list[str]:
    """Say which lengths the user gives, and which others follow: "--set h=3, so that d=16 in (h d) of q"; [] if none.

    Any factor of a dimension fits, so that no shape tells a wrong one. What a derived Table says of the models that it
    was derived from is put beside.

    Args:
      sizes: lengths of axes by line number.
    """
    taken = {name: length for name, length in given.items() if any(own.get(name) == length for own in sizes.values())}
    if not taken:
        return []
    following = dict[tuple[str, int], str]()  # axis and its length -> where it is composed with a given one
    for line in lines.lines:
        own = sizes.get(line.number, {})
        for array, dim in ((one, dim) for one in line.arrays for dim in one.axes or ()):
            axes = {part.name for part in parts((dim,))}
            for name in sorted(axes - taken.keys() - line.lengths.keys()) if not axes.isdisjoint(taken) else ():
                if name in own:
                    following.setdefault((name, own[name]), f"{name}={own[name]} in {dim} of {array.label}")
    texts = " ".join(option("set", f"{name}={length}") for name, length in taken.items())
    follow = f", so that {in_a_row(following.values())}" if following else ""
    derived, names = derived_lengths(lines), dict.fromkeys([*taken, *(name for name, _ in following)])
    others = in_a_row(f"{name}={derived[name]}" for name in names if name in derived)
    models = f"; the Table was derived from models with {others}" if others else ""
    return [f"given, as no shape shows {'it' if len(taken) == 1 else 'them'}: {texts}{follow}{models}"]


def contradictions(lines: Table, given: Mapping[str, int], sizes: Mapping[int, Mapping[str, int]]) -> Iterator[str]:
    """Yield what contradicts lengths that the user gives, if a name stands for one length in lines that are alike.

    Those share another axis that is composed with it, as d in (h d) and h d: a kernel's h is no number of heads.

    Args:
      sizes: lengths of axes by line number.
    """
    composed = {line.number: [_names(dim) for array in line.arrays for dim in array.axes or ()] for line in lines.lines}
    for name, length in given.items():
        taken = [number for number, own in sizes.items() if own.get(name) == length]
        beside = {other for number in taken for names in composed[number] if name in names for other in names} - {name}
        others = {n: own[name] for n, own in sizes.items() if own.get(name, length) != length and beside & own.keys()}
        if others:
            number, other = next(iter(others.items()))
            what = f"{name}={length} was given, and the shapes show {name}={other} on line {number}"
            remedy = f"if {name} is one length there, give {name}={other}; {name.upper()} in the table makes it one"
            yield f"{what}: {remedy}"


def check_given(path: str, lines: Table, given: Mapping[str, int], sizes: Mapping[int, Mapping[str, int]]) -> None:
    """Check that the lengths that the user gives agree on heads, in modules of one module.

    With h2=8 in (h2 d) of attn.q and h=3 in (h d) of attn.k, the size d of a head is two lengths. Dimensions that are
    composed alike may have several sizes, as those of queries and of values, but unlike ones, as (s h d) of a fused
    projection and (h d) of the output, have one in common. A size goes with one number of heads in each line of a name.
    Both are those of other arrays of the module with this axis, as the scale of a norm of keys, or slopes of heads.
    Other letters are not checked: each has its own length on each line.

    Args:
      path: of the file.
      given: one of 1 is not checked, as it also stands for a length that is not known.
      sizes: lengths of axes by line number.
    Raises: UsageError.
    """
    given = {name: length for name, length in given.items() if length > 1}
    remedy = "give lengths from which one {axis} follows, or rename one {axis} of the Table if there are two"
    by_axis: dict[tuple[str, str], dict[Dimension, dict[int, int]]] = {}  # (parent, axis) -> dimension -> length: line
    for line in lines.lines:
        own = sizes.get(line.number, {})
        for dim, names in ((str(dim), _names(dim)) for array in line.arrays for dim in array.axes or ()):
            beside = frozenset(name for name in names & given.keys() if own.get(name) == given[name])
            for axis in (names - given.keys()) & own.keys() if beside else ():
                by = by_axis.setdefault((_modules(line)[0], axis), {})
                by.setdefault((dim, beside), {}).setdefault(own[axis], line.number)
    for (_, axis), by in by_axis.items():
        for clash in _clashes(axis, by):
            made = in_a_row(f"{_given(names, given)} {axis}={length} on line {n}" for names, length, n in clash)
            raise UsageError(f"{path}: lengths contradict each other, as {made}: {remedy.format(axis=axis)}")
    for axis, other in _unlike_shown(lines, given, sizes):
        raise UsageError(f"{path}: lengths contradict each other, as {other}: {remedy.format(axis=axis)}")


def check_derived_ranges(path: str, planned: TablePlan, given: Mapping[str, int]) -> None:
    """Check what a derived Table drops of arrays of other lengths; see check_derived.

    Args:
      path: of the file. given: lengths that the user gives.
    Raises: ConvertError.
    """
    try:
        shapes = {name: tensor.shape for name, tensor in planned.sources.items()}
        check_derived(planned.table, planned.layout.cut, shapes, given)
    except SizeError as error:
        raise ConvertError(f"{path}: {error.what}{error.remedy.options()}", error.problems) from None


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
    lines: Table, given: Mapping[str, int], sizes: Mapping[int, Mapping[str, int]]
) -> Iterator[tuple[str, str]]:
    """Yield an axis of heads, and where given lengths make it another one than an array of the same module shows."""
    shown: dict[tuple[str, str], int] = {}  # (module, axis) -> number of a line that has it as a whole axis
    for line in lines.lines:
        for axis in _whole(line) & sizes.get(line.number, {}).keys():
            for module in _modules(line):
                shown.setdefault((module, axis), line.number)
    for line in lines.lines:
        own = sizes.get(line.number, {})
        dims = [_names(dim) for array in line.arrays for dim in array.axes or ()]
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
    """Return the names that are an axis of each array of a line, but for the height beside the width of a kernel."""
    own = [set(map(str, array.axes or ())) for array in line.arrays]
    return set[str]().union(*own).intersection(*own) - ({"h"} if any("w" in axes for axes in own) else set())


def check_record(path: str, record: Record, lines: Table, sizes: Mapping[int, Mapping[str, int]]) -> None:
    """Check that lengths are those with which a file was made, where its record has a Table of the same lines.

    Args:
      record: the file's record. lines: the Table, read in either direction. sizes: lengths of axes by line number.
    Raises: UsageError.
    """
    if record.damage or record.change or not (own := recorded_table(record)):
        return
    known = {without_lengths(line): line.lengths for table in (own, own.reverse()) for line in table.lines}
    for line in lines.lines:
        for name, length in known.get(without_lengths(line), {}).items():
            here = sizes.get(line.number, {}).get(name, length)
            if here != length:
                what = f"was made with {name}={length} in {line.arrays[0].label}, as its record says; here it is {here}"
                remedy = f"{option('table', record.file(path))} takes the lengths of the record"
                raise UsageError(f"{path}: it {what}: {remedy}")


def unlike(constants: Iterable[str], shapes: Mapping[str, Shape], given: Mapping[str, int]) -> Iterator[str]:
    """Yield each constant whose length the user gives and that no array of its module has as first or last dimension.

    Args:
      constants: names of the target's arrays that hold one value. shapes: of all its arrays.
    """
    for name in constants:
        module, length = _module(name), shapes[name][0] if len(shapes[name]) == 1 else 0
        beside = [one for one, shape in shapes.items() if module and _module(one) == module and len(shape) > 1]
        axes = [axis for axis, size in given.items() if size == length]
        if axes and beside and not any(length in (shapes[one][0], shapes[one][-1]) for one in beside):
            known = in_a_row(f"{one} has {list(shapes[one])}" for one in beside)
            remedy = f"if that is wrong, give another length, or {option('like', 'FILE')}, which shows it"
            yield f"{name} gets the shape [{length}], as {axes[0]}={length} was given, and {known}: {remedy}"


def _module(name: str) -> str:
    return name[: max(name.rfind("."), name.rfind("/")) + 1]


def _modules(line: Line) -> tuple[str, str]:
    """Return the module that has the module of a line's first array, and this one."""
    module = _module(line.arrays[0].label)
    return _module(module[:-1]), module


def _names(dim: Dim) -> set[str]:
    """Return the names of the axes that a dimension is composed of."""
    return {part.name for part in parts((dim,))}

"""Read lengths of axes that the user gives for a Table, and compare them with those that shapes show."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence

from convert.errors import ConvertError, OpenLengths, UsageError, option
from convert.records.record import Record
from specs.applied.layout import Bound, Layout
from specs.applied.moves import Shape
from specs.covering.cut import check_derived
from specs.notation.claims import derived_lengths
from specs.solving.heads import GRID, clashes, follows_shown, module_of, names_in
from specs.solving.sizes import SizeError
from specs.solving.stating import divided_otherwise, without_lengths
from specs.table import Table
from specs.words import in_a_row

from .file import recorded_table
from .plan import TablePlan


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


def supplied(lines: Table, given: Mapping[str, int], layout: Layout, without: OpenLengths | None) -> list[str]:
    """Say which lengths the user gives, and which others follow: "--set h=3, so that d=16 in (h d) of q"; [] if none.

    Any factor of a dimension fits, so that no shape tells a wrong one. What a derived Table says of the models that it
    was derived from is put beside. Lengths that `check_given` compares with shapes are left out.

    Args:
      without: what is open without the lengths that are given.
    """
    taken = {
        name: length for name, length in given.items()
        if any(own.get(name) == length for own in layout.sizes.values())
        and not (without and _compared(lines, name, without))
    }  # fmt: skip
    if not taken:
        return []
    following = dict[tuple[str, str], dict[int, str]]()  # axis, where it is composed with a given one -> length: block
    for one in layout.bound:
        for label, dim in ((array.label, dim) for array in one.line.arrays for dim in array.axes or ()):
            axes = names_in(dim) & one.sizes.keys()
            given_here = any(one.sizes[name] == taken[name] for name in axes & taken.keys())  # and no hole of this name
            for name in sorted(axes - taken.keys() - one.line.lengths.keys()) if given_here else ():
                following.setdefault((name, f"{dim} of {label}"), {}).setdefault(one.sizes[name], one.block)
    said = dict[tuple[str, int], str]()
    for (name, where), blocks in following.items():
        for length, block in blocks.items():
            said.setdefault((name, length), f"{name}={length} in {where}{f' ({block})' * (len(blocks) > 1)}")
    texts = " ".join(option("set", f"{name}={length}") for name, length in taken.items())
    follow = f", so that {in_a_row(said.values())}" if said else ""
    derived, names = derived_lengths(lines), dict.fromkeys([*taken, *(name for name, _ in said)])
    others = in_a_row(f"{name}={derived[name]}" for name in names if name in derived)
    models = f"; the Table was derived from models with {others}" if others else ""
    if models and (axis := divided_otherwise(lines, taken, layout.sizes)):
        models += f", where {axis} was as long, but divided otherwise: check what was given"
    return [f"given, as no shape shows {'it' if len(taken) == 1 else 'them'}: {texts}{follow}{models}"]


def _compared(lines: Table, name: str, without: OpenLengths) -> bool:
    """Tell whether an open length is compared with a shape of the same module on a line that leaves it open."""
    asked = (line for line in lines.lines if name in without.axes.get(line.number, ()))
    return any(follows_shown(line, name, without.shown) for line in asked)


def check_given(path: str, bound: Sequence[Bound], given: Mapping[str, int]) -> None:
    """Check that the lengths that the user gives agree on heads. Raises: UsageError that names the file."""
    for text in clashes(bound, given):
        raise UsageError(f"{path}: {text}")


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


def contradictions(lines: Table, given: Mapping[str, int], sizes: Mapping[int, Mapping[str, int]]) -> Iterator[str]:
    """Yield what contradicts lengths that the user gives, if a name stands for one length in lines that are alike.

    Those share another axis that is composed with it, as d in (h d) and h d: a kernel's h is no number of heads. Nor is
    its height that of a grid (h w), unless both have as many places.

    Args:
      sizes: lengths of axes by line number.
    """
    composed = {
        line.number: [names_in(dim) for array in line.arrays for dim in array.axes or ()] for line in lines.lines
    }
    for name, length in given.items():
        taken = [number for number, own in sizes.items() if own.get(name) == length]
        beside = {other for number in taken for names in composed[number] if name in names for other in names} - {name}
        others = {n: own[name] for n, own in sizes.items() if own.get(name, length) != length and beside & own.keys()}
        if beside | {name} == GRID:
            places = {_places(sizes[number]) for number in taken}
            others = {number: other for number, other in others.items() if _places(sizes[number]) in places}
        if others:
            number, other = next(iter(others.items()))
            what = f"{name}={length} was given, and the shapes show {name}={other} on line {number}"
            remedy = f"if {name} is one length there, give {name}={other}; {name.upper()} in the table makes it one"
            yield f"{what}: {remedy}"


def _places(own: Mapping[str, int]) -> int:
    """Return how many places a grid has, by the lengths of a line; 0 of a line without one."""
    return own["h"] * own["w"] if own.keys() >= GRID else 0


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
        module, length = module_of(name), shapes[name][0] if len(shapes[name]) == 1 else 0
        beside = [one for one, shape in shapes.items() if module and module_of(one) == module and len(shape) > 1]
        axes = [axis for axis, size in given.items() if size == length]
        if axes and beside and not any(length in (shapes[one][0], shapes[one][-1]) for one in beside):
            known = in_a_row(f"{one} has {list(shapes[one])}" for one in beside)
            remedy = f"if that is wrong, give another length, or {option('like', 'FILE')}, which shows it"
            yield f"{name} gets the shape [{length}], as {axes[0]}={length} was given, and {known}: {remedy}"

"""Say which lengths of axes stay open, and which few of them determine the others."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from specs.notation.axes import Dim, extent
from specs.notation.claims import derived_lengths
from specs.notation.lines import Lines
from specs.notation.signature import Signature
from specs.words import in_a_row

from .env import Env
from .sizes import LIKE, Remedy, SizeError, View

SIZE_OF_HEAD = "d"  # in derived Tables: users know numbers of heads, so it is asked for where it stands for two of them
MOST = 40  # axes and dimensions that one message lists


Following = tuple[tuple[frozenset[str], frozenset[str]], ...]  # see _settles


class Open(NamedTuple):
    """A dimension with axes of unknown length.

    Args:
      names: of those axes. length: of the whole dimension; 0 if it is not known.
    """

    env: Env
    array: Signature
    dim: Dim
    names: frozenset[str]
    length: int

    @property
    def follows(self) -> frozenset[str]:
        """Return the axes whose length follows from the others': beside a window of unknown parts only its own axis."""
        unknown = [factor for factor in self.dim.factors if extent(factor, self.env.sizes) is None]
        windows = frozenset(part.name for factor in unknown for part in factor if part.window)
        return (self.names & windows if windows else self.names) if self.length else frozenset()

    def __str__(self) -> str:
        listed = [p.name for factor in self.dim.factors for p in factor if p.name in self.names]
        return f"line {self.env.line.number}: {in_a_row(dict.fromkeys(listed))} in {self.dim} of {self.array.label}"


def open_dims(env: Env, views: Iterable[View]) -> list[Open]:
    """Return the dimensions of a line's arrays that have axes of unknown length."""
    shown = {id(view.array): view.shape for view in views if view.shape is not None}
    shapes = [(array, shown.get(id(array)) or shown.get(id(env.line.resolved(array)))) for array in env.line.arrays]
    return [
        Open(env, array, dim, names, shape[d] if shape else 0)
        for array, shape in shapes
        for d, dim in enumerate(array.axes or ())
        if (names := frozenset(p.name for f in dim.factors for p in f if p.name).difference(env.sizes))
    ]


def enough(dims: Sequence[Open]) -> list[str]:
    """Return few of the open axes from whose lengths all others follow, in the order in which lines name them.

    Lengths follow within a line, where a dimension of known length has one axis left; that is less than a Solver can
    do, so that the answer is never too small.
    """
    by_env: dict[Env, list[Open]] = {}
    for one in dims:
        by_env.setdefault(one.env, []).append(one)
    parts = {tuple((one.names, one.follows) for one in own): None for own in by_env.values()}
    written = [p.name for one in dims for f in one.dim.factors for p in f if p.name in one.names]
    wanted = list(dict.fromkeys(written))
    head, others = [name for name in wanted if name == SIZE_OF_HEAD], [n for n in wanted[::-1] if n != SIZE_OF_HEAD]
    return min((_spared(wanted, order, parts) for order in (head + others, others + head)), key=len)


def _spared(wanted: Sequence[str], order: Sequence[str], parts: Iterable[Following]) -> list[str]:
    """Leave out the axes whose lengths follow from the others', in this order."""
    left = list(wanted)
    for name in order[:MOST]:
        rest = [other for other in left if other != name]
        if all(_settles(part, rest) for part in parts):
            left = rest
    return left


def _settles(part: Following, given: Iterable[str]) -> bool:
    """Tell whether all open axes of a line follow from the lengths of some.

    Args:
      part: of each dimension its open axes, and those of which one may follow.
    """
    known, before = set(given), -1
    while len(known) != before:
        before = len(known)
        for names, follows in part:
            if len(left := names - known) == 1 and left <= follows:
                known |= left
    return all(names <= known for names, _ in part)


def error(table: Lines, dims: Sequence[Open], like: bool, shown: Mapping[tuple[int, str], str]) -> SizeError:
    """Build the error for open axes, which says where they are and what states them.

    Args:
      like: whether the shapes of a file of the other side are known too.
      shown: (line, axis) -> where a shape of the same module shows an open axis: "h=2 on line 5".
    """
    names = dict.fromkeys(p.name for one in dims for f in one.dim.factors for p in f if p.name in one.names)
    few = tuple(enough(dims))
    problems = [*list(dict.fromkeys(map(str, _widest(dims))))[:MOST], *_two_lengths(dims), *_blocks(dims)]
    if shown:
        where = in_a_row(dict.fromkeys(shown.values()))
        problems.append(f"shapes of the same modules show {where}: lengths that contradict them are refused")
    derived = derived_lengths(table)
    if known := [f"{name}={derived[name]}" for name in few if name in derived]:
        what = "in the models that the Table was derived from: give those of this file's model"
        problems.append(f"{in_a_row(known)} {what}")
    axes = {
        number: frozenset().union(*(one.names for one in dims if one.env.line.number == number))
        for number in {one.env.line.number for one in dims}
    }
    what = _unshown(dims, names) if like else "the names and shapes at hand leave open lengths of axes"
    remedy = Remedy(few, tuple(name for name in names if name not in few), or_like=not like)
    open_ = [(one.env.line.number, one.dim) for one in dims]
    return SizeError(f"{table.name}: {what}", problems, remedy, open_, axes, shown)


def _unshown(dims: Sequence[Open], names: Iterable[str]) -> str:
    """Say which axes neither side shows, and where."""
    numbers = sorted({one.env.line.number for one in dims})
    where = f"line{'s' * (len(numbers) > 1)} {in_a_row(numbers[:MOST])}"
    both = all(one.env.line.left.arrays and one.env.line.right.arrays for one in dims)
    why = ", as both sides flatten them" if both else ""
    return f"neither the shapes at hand nor those of {LIKE} show {in_a_row(names)} on {where}{why}"


def _widest(dims: Sequence[Open]) -> list[Open]:
    """Leave out each dimension whose open axes another one of its line has too: the wider one, or else the first."""
    by_line: dict[int, list[Open]] = {}
    for one in sorted(dims, key=lambda one: -len(one.names)):  # stable: the first of the widest
        kept = by_line.setdefault(one.env.line.number, [])
        if not any(one.names <= other.names for other in kept):
            kept.append(one)
    return [one for one in dims if any(one is other for other in by_line[one.env.line.number])]


def _two_lengths(dims: Sequence[Open]) -> list[str]:
    """Return advice on names that are open on lines that share no other open axis: they may be of two lengths."""
    beside: dict[str, dict[int, set[str]]] = {}
    for one in dims:
        for name in one.names:
            if not name[:1].isupper():
                beside.setdefault(name, {}).setdefault(one.env.line.number, set()).update(one.names - {name})
    return [
        f"{name} has one length on lines {in_a_row([min(by_line), *others])}: "
        "if that is wrong, give it another letter on one of them in the Table"
        for name, by_line in sorted(beside.items())
        if (others := sorted(by_line.keys() - linked({min(by_line)}, by_line)))
    ]


def _blocks(dims: Sequence[Open]) -> list[str]:
    """Return advice on dimensions that have other lengths in other blocks of a line: a given axis has one in all."""
    lengths = dict[tuple[int, str], dict[int, Open]]()
    for one in dims:
        if one.length and len(one.names) > 1:
            lengths.setdefault((one.env.line.number, str(one.dim)), {}).setdefault(one.length, one)
    unlike = {next(iter(found.values())).names: found for found in reversed(lengths.values()) if len(found) > 1}
    firsts = ((next(iter(found.values())), in_a_row(found)) for found in unlike.values())
    return [
        f"{one.dim} of {one.array.label} is {found} long in several blocks, and what you give holds for all: "
        f"give one of {in_a_row(sorted(one.names))} that is alike in them; only a file of the other side shows others"
        for one, found in firsts
    ]


def linked(first: set[int], names: Mapping[int, set[str]]) -> set[int]:
    """Return the numbers of lines that share a name with one of the first lines, or with another that does.

    Args:
      names: number of a line -> the names of its axes or arrays that link it.
    """
    reached, known = set(first), set[str]().union(*(names[number] for number in first))
    while more := {number for number, own in names.items() if number not in reached and own & known}:
        reached |= more
        known.update(*(names[number] for number in more))
    return reached


def contradicted(
    given: Mapping[str, int], taken: Mapping[str, Mapping[int, set[str]]], wrong: set[int]
) -> list[tuple[str, str]]:
    """Return what is wrong with lengths given by the user that fit some lines with an axis of their name alone.

    Args:
      taken: axis -> number of each line for which its length was taken -> the axes with which it composes it.
      wrong: numbers of the lines that do not fit.
    """
    problems = []
    for name, beside in taken.items():
        for bad in sorted(beside.keys() & wrong):
            together = linked({bad}, beside)
            if (good := sorted(beside.keys() - together)) and not wrong & set(good):
                what = f"was given, and fits line {in_a_row(good)} but not {in_a_row(sorted(together & wrong))}"
                problems.append((f"{name}={given[name]}", f"{what}: if {name} stands for two lengths, rename one"))
                break
    return problems

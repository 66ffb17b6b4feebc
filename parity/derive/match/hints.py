"""Read what the user knows already: lines of a Table, and a checkpoint of the left model."""

from __future__ import annotations

import itertools
import re
from collections.abc import Container, Iterator, Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType
from typing import NamedTuple

import numpy as np

from convert.errors import ConvertError, UsageError
from parity.derive.limits import PARTED_USES
from parity.derive.trace import sites
from parity.derive.trace.program import Program
from parity.derive.trace.sides import Side
from parity.derive.trace.tape import Array
from specs.applied.arrays import translate
from specs.applied.layout import Entry, Layout, Sum
from specs.applied.moves import Fill, Move
from specs.notation.lines import Line, Misfit
from specs.solving.matching import Matcher
from specs.solving.sizes import LIKE, SizeError
from specs.table import Table, TableError
from specs.words import in_a_row

from .choices import Step
from .symbols import Elements

Shapes = Mapping[str, tuple[int, ...]]

ONE_SIDED = ("drop", "constant")  # kinds of lines for arrays of one side alone
TRIED = 1 << 10  # lengths of the axes of a line that are tried


class Hint(NamedTuple):
    """Lines that are taken as given.

    Args:
      map: two rows: the left element of each right one that they describe, 0 elsewhere, as in arrays that they drop,
        and negative where they set zero; and a second left element that they add to the first one, or 0.
      left, right: the arrays that they speak of.
      constants: the right arrays that they set to one value.
      left_out: lines that were left out, as the models' shapes do not show the lengths of their axes.
    """

    table: Table
    map: Array
    left: tuple[str, ...]
    right: tuple[str, ...]
    constants: Mapping[str, float] = MappingProxyType({})
    left_out: tuple[Line, ...] = ()

    @property
    def open(self) -> tuple[str, ...]:
        """Return the labels of the lines that were left out."""
        return tuple(map(_labelled, self.left_out))


def hint(table: Table, a: Side, b: Side, lefts: Elements, rights: Elements) -> Hint:
    """Apply a part of a Table to element numbers, without lines that have axes of unknown length.

    Raises: UsageError where its lines do not fit the two models, or describe no one-to-one correspondence.
    """
    numbers, spoken, like = _arrays(table, a, b, lefts, rights)
    try:
        layout = _fitting(table, spoken, like, "right")
        sums = {entry.name: entry.filling.terms for entry in layout.entries if isinstance(entry.filling, Sum)}
        if several := [name for name, terms in sums.items() if len(terms) > 2]:
            raise UsageError(f"{table.name}: a sum of more than two arrays cannot be given", several)
        _fitting(table.reverse(), like, spoken, "left")  # refuses to drop a right array that another line fills
    except SizeError as error:
        numbered = _sharing(table, {number for number, _ in error.dims})
        left_out = tuple(line for line in table.lines if line.number in numbered)
        rest = Table.of(replace(table, lines=tuple(line for line in table.lines if line.number not in numbered)))
        return hint(rest, a, b, lefts, rights)._replace(left_out=left_out)
    try:
        moved = [translate(_of_numbers(layout, k), {name: numbers[name] for name in spoken}) for k in (0, 1)]
    except TableError as error:  # arrays are not equal that a line ties
        raise UsageError(f"{table.name}: does not fit the two models", [error.message]) from error
    found, _ = maps = np.zeros((2, len(rights)), np.int64)
    for numbers_of, arrays in zip(maps, moved, strict=True):
        for name, array in arrays.items():
            if name in rights.shapes:
                rights.part(numbers_of, name)[...] = array
    for entry in layout.entries:
        if entry.name in rights.shapes and (fills := _fills(entry)) and not any(fill.value for fill in fills):
            part = rights.part(found, entry.name)
            part[part == 0] = -rights.numbers(entry.name)[part == 0]
    constants = {entry.name: fill.value for entry in layout.entries if not entry.moves for fill in _fills(entry)}
    return Hint(table, maps, tuple(spoken), tuple(like), constants)


def _arrays(
    table: Table, a: Side, b: Side, lefts: Elements, rights: Elements
) -> tuple[dict[str, Array], dict[str, tuple[int, ...]], dict[str, tuple[int, ...]]]:
    """Return the element numbers of all left arrays, and the shapes of those of each side of which a table speaks."""
    numbers = {name: lefts.numbers(a.ties.get(name, name)) for name in (*lefts.names, *a.ties)} | dict(a.others)
    right_shapes = {**{name: np.shape(b.parameters[b.ties.get(name, name)]) for name in (*rights.names, *b.ties)},
              **{name: np.shape(array) for name, array in b.others.items()}}  # fmt: skip
    spoken = _spoken(table, {name: np.shape(array) for name, array in numbers.items()}, "left")
    return numbers, spoken, _spoken(table.reverse(), right_shapes, "right")


def lengths_found(given: Hint, a: Side, b: Side, lefts: Elements, rights: Elements, found: Array) -> dict[str, str]:
    """Return {line that was left out: the lengths, "a=5 and b=8", with which alone it says what was found}.

    Args:
      found: the left element of each right one, as the run shows it.
    """
    lengths, waiting = dict[str, str](), {line.number for line in given.left_out}
    while waiting:
        numbered = _sharing(replace(given.table, lines=given.left_out), {min(waiting)})
        waiting -= numbered
        lines = tuple(line for line in given.left_out if line.number in numbered)
        table = Table.of(replace(given.table, lines=lines))
        every = _fits(table, _arrays(table, a, b, lefts, rights), rights, found)
        if len(fits := [*itertools.islice(every, 2)]) == 1:
            text = in_a_row(f"{name}={length}" for name, length in fits[0].items())
            lengths |= {_labelled(line): text for line in lines}
    return lengths


def _fits(
    table: Table, arrays: tuple[Mapping[str, Array], Shapes, Shapes], rights: Elements, found: Array
) -> Iterator[dict[str, int]]:
    """Yield lengths with which lines say which left elements the right ones are; see lengths_found."""
    numbers, spoken, like = arrays
    names: Sequence[str] = ()
    try:
        table.layout(spoken, like)
    except SizeError as error:
        names = error.remedy.enough
    longest = max(itertools.chain(*spoken.values(), *like.values()))
    every = itertools.product(range(1, longest + 1), repeat=len(names))
    for lengths in itertools.islice(every, TRIED):
        sizes = dict(zip(names, lengths, strict=True))
        try:
            layout = _of_numbers(table.layout(spoken, like, sizes), 0)
            moved = translate(layout, {name: numbers[name] for name in spoken})
        except TableError:  # no whole number of steps fits
            continue
        parts = ((array, rights.part(found, name)) for name, array in moved.items() if name in rights.shapes)
        if all(np.array_equal(array, part) for array, part in parts):
            yield sizes


def _fitting(table: Table, shapes: Shapes, like: Shapes, other: str) -> Layout:
    """Lay out a Table for two models; `other` is the one of `like`. Raises: SizeError, UsageError."""
    try:
        return table.layout(shapes, like)
    except SizeError:
        raise
    except TableError as error:
        problems = [problem.replace(LIKE, f"the {other} model") for problem in error.problems]
        raise UsageError(f"{table.name}: does not fit the two models", problems) from error


def _of_numbers(layout: Layout, term: int) -> Layout:
    """Return a layout that moves element numbers, of the first or the second term of each sum.

    They are 0, no element, in place of values that lines set or expect. What is no sum has no second term.
    """
    of_term = [entry for entry in layout.entries if term == 0 or isinstance(entry.filling, Sum)]
    entries = [entry._replace(filling=_of_term(entry, term)) for entry in of_term]
    return layout._replace(entries=tuple(entries), checks=tuple(check for check in layout.checks if check.others))


def _of_term(entry: Entry, term: int) -> list[Move | Fill]:
    if isinstance(entry.filling, Sum):
        return list(entry.filling.terms[term])
    return [*entry.moves, *(fill._replace(value=0) for fill in _fills(entry))]


def _fills(entry: Entry) -> list[Fill]:
    """Return the values that lines set in a right array."""
    return [] if isinstance(entry.filling, Sum) else [part for part in entry.filling if isinstance(part, Fill)]


def to_check(
    given: Hint, steps: Sequence[Step], program: Program, site: str = "", stopped: Sequence[str] = ()
) -> Line | None:
    """Return the given line that may be wrong: the last one read between uses that agree and where values part.

    Args:
      steps: uses of parameters, in the order of execution: none of those that are given. program: of the right model.
      site: the place on the right at which values part first. stopped: the parameters at which the matching stopped.
    Returns: None where nothing differs, as far as values were compared, or no given line lies between.
    """
    uses = _first_uses(program)
    parted = [name for step in steps if step.gap > PARTED_USES for name in step.right]
    if not (parted or site or stopped):
        return None
    nodes = program.tape.nodes
    at_site = [name for name, at in uses.items() if name in given.right and _is_at(site, nodes[at].site, name)]
    first = next((name for name in (*parted, *at_site, *stopped) if name in uses), "")
    if site and not first:  # which parameters are read ahead of it is not known
        return None
    agreeing = {name for step in steps for name in step.right} - {*parted}
    read = _read_before(program, uses.get(first, -1), agreeing)
    last = max((name for name in given.right if name in read), key=lambda name: uses[name], default="")
    return _line_of(given, given.table.reverse(), last) if last else None


def _is_at(site: str, own: str, name: str) -> bool:
    """Tell whether a place is that where a parameter is used. Args: own: the path of the module that runs there."""
    return site in (own, sites.place(own, [name]))


def in_causes(given: Hint, causes: Sequence[str]) -> Line | None:
    """Return the given line that speaks of a parameter that the cause of a difference names; None for none.

    Such a cause is confirmed with the line in place: a wrong line makes the models differ too.
    """
    words = {word.rstrip(",:") for cause in causes for word in cause.split()}
    for names, table in ((given.right, given.table.reverse()), (given.left, given.table)):
        for name in names:
            if name in words:
                return _line_of(given, table, name)
    return None


def _line_of(given: Hint, table: Table, name: str) -> Line | None:
    """Return the given line that speaks of an array. Args: table: the one whose left side has it."""
    found = Matcher(table, {name: ()}).match()
    numbers = [line.number for line in table.lines for _, arrays in found.groups(line) if any(arrays)]
    return next((line for line in given.table.lines if line.number in numbers[:1]), None)


def accusation(given: Hint, line: Line) -> str:
    """Say that a given line may be wrong."""
    return f"lines given by {given.table.name}: check them first: {_labelled(line)}"


def left_out_with(given: Hint, line: Line) -> set[int]:
    """Return the numbers of the lines that have to be left out with a given one, whose arrays they speak of too.

    One that drops an array or sets a constant may hide the partner of what another one drops.
    """
    lone = {other.number for other in given.table.lines if other.kind in ONE_SIDED}
    return _sharing(given.table, {line.number} | (lone if line.kind in ONE_SIDED else set()))


def _first_uses(program: Program) -> dict[str, int]:
    """Return the number of the first operation by which each parameter meets an activation, in this order."""
    first, weights = dict[str, int](), program.weights
    for at, node in enumerate(program.tape.nodes):
        for number in node.inputs if node.output in program.active else ():
            for name in weights.get(number, ()):
                first.setdefault(name, at)
    return first


def _read_before(program: Program, end: int, agreeing: Container[str]) -> set[str]:
    """Return the parameters that lead to an operation, -1 for the outputs, from the uses before it that agree."""
    weights, found, done = program.weights, set[str](), set[int]()
    waiting = [program.makers.get(number, -1) for number in program.tape.outputs] if end < 0 else [end]
    while waiting:
        at = waiting.pop()
        if at < 0 or at in done:
            continue
        done.add(at)
        inputs = program.tape.nodes[at].inputs
        names = {name for number in inputs for name in weights.get(number, ())}
        if at == end or not names or any(name not in agreeing for name in names):
            found |= names
            waiting += [program.makers.get(number, -1) for number in inputs]
    return found


def _labelled(line: Line) -> str:
    """Name a line by its number and its first array on the left."""
    return f"line {line.number} ({line.arrays[0].label})"


def _sharing(table: Table, numbers: set[int]) -> set[int]:
    """Add the numbers of lines that speak of the same arrays: without the others they would speak of parts alone."""
    labels = {line.number: {array.label for array in line.arrays} for line in table.lines}
    while True:
        spoken = {label for number in numbers for label in labels[number]}
        more = {number for number, own in labels.items() if own & spoken}
        if more == numbers:
            return numbers
        numbers = more


def check_lines(given: Hint, table: Table, shapes: Shapes, like: Shapes) -> None:
    """Check that no line that the user gave speaks of what others do. Raises: UsageError that quotes the lines.

    Args:
      table: the given lines and those that were found. shapes: of the left side. like: of the right side.
    """
    try:
        table.layout(shapes)
    except SizeError as error:
        problems = _quoted(table, error.problems or [error.message])
        what = "letters of its lines have other lengths in lines that were found: write others, or leave the lines out"
        raise UsageError(f"{given.table.name}: {what}", problems) from error
    except Misfit as error:
        raise _contradiction(given, table, error) from error
    try:
        table.reverse().layout(like, shapes)
    except Misfit as error:  # a given line drops what another one fills
        if any(name in given.right for name, _ in error.misfits):
            raise _contradiction(given, table, error) from error
    except TableError:  # lengths that only this direction leaves open
        pass


def _contradiction(given: Hint, table: Table, error: Misfit) -> UsageError:
    """Return an error that quotes the lines which contradict each other."""
    what = "its lines contradict what the models compute: correct them, or leave them out"
    return UsageError(f"{given.table.name}: {what}", _quoted(table, error.problems))


def _quoted(table: Table, problems: Sequence[str]) -> list[str]:
    """Return problems with the text of lines in place of their numbers."""
    lines = {str(line.number): f'"{line}"' for line in table.lines}
    return [re.sub(r"line (\d+)", lambda found: lines[found[1]], problem) for problem in problems]


def _spoken(table: Table, shapes: Shapes, side: str) -> dict[str, tuple[int, ...]]:
    """Return the arrays of one side of which the table speaks. Raises: UsageError where it speaks of others as well."""
    found = Matcher(table, shapes).match()
    drops = [line for line in table.lines if line.kind == "drop" and line.left.arrays]
    absent = [line.left.arrays[0].label for line in drops if not any(found.groups(line))]
    if missing := [*found.missing, *absent]:
        raise UsageError(f"{table.name}: the {side} model has no such arrays", missing)
    return {name: shape for name, shape in shapes.items() if name not in found.unexpected}


def weights_of(path: str, side: Side) -> dict[str, Array]:
    """Return the left model's parameters from a checkpoint with its names, also below one place of it, or in wrappers.

    Raises: ConvertError for names or shapes that differ.
    """
    from convert.arrays.casting import decoded
    from convert.files import open_checkpoint
    from convert.reading.spelling import out_of_modules
    from convert.table.part import spellings

    with open_checkpoint(path) as opened:
        reader, wanted = out_of_modules(opened), side.parameters
        place, names = _names_below(path, list(reader.tensors), list(wanted))
        if len(names) < len(wanted):  # Orbax joins all levels by dots, say, and nnx has one more, "value"
            tops = dict.fromkeys(f"{name.partition('/')[0]}/" for name in wanted if "/" in name)
            others = (
                (other, *_names_below(path, list(other.tensors), list(wanted))) for other in spellings(reader, [*tops])
            )
            reader, place, names = max([(reader, place, names), *others], key=lambda found: len(found[2]))
        tensors = {name: reader.tensors[stored] for name, stored in names.items()}
        problems = [f"missing {name}" for name in wanted if name not in tensors]
        for name, tensor in tensors.items():
            if tensor.shape != np.shape(wanted[name]):
                problems.append(f"{name} has shape {list(tensor.shape)}, the model {list(np.shape(wanted[name]))}")
        if problems:
            under = f", under {place!r}" if place else ""
            raise ConvertError(f"{path}: is no checkpoint of the left model{under}", problems)
        return {
            name: decoded(reader.read(tensor.name), tensor.dtype).astype(np.float64).reshape(tensor.shape)
            for name, tensor in tensors.items()
        }


def _names_below(path: str, stored: list[str], wanted: list[str]) -> tuple[str, dict[str, str]]:
    """Find the place below which a file has most of the names that are wanted, its weights before copies of them.

    Returns: the place, "" for the file's root, and the names there: wanted name -> name in the file.
    Raises: ConvertError where several places are alike.
    """
    from convert.reading.nesting import cuts, is_training, rank, unwrapped

    found: dict[str, dict[str, str]] = {"": {name: name for name in stored}}
    every = set(wanted)
    for name in stored:
        bare = unwrapped(name)
        for end in {bare[cut:] for cut in cuts(bare)} & every:
            place = bare.removesuffix(end)
            if not is_training(place):
                found.setdefault(place, {}).setdefault(end, name)
    for place in found:
        found[place] = {name: found[place][name] for name in wanted if name in found[place]}
    most = max(map(len, found.values()))
    best = sorted((rank(place)[0], place) for place in found if len(found[place]) == most)
    live = [place for is_copy, place in best if is_copy == best[0][0]]
    if len(live) > 1 and most:
        places = " and under ".join(map(repr, live))
        raise ConvertError(f"{path}: the left model's names lie under {places}: save one of both alone")
    return live[0], found[live[0]]

"""Check the tables of a page's dialects: every line parses, and places or renames something.

A line that matches nothing would be ignored: the arrays that it is about would keep our names, in files that nobody
else reads. A page from outside is checked when the user names it; the tests check the pages here, so that no command
has to.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator, Sequence
from functools import cache
from itertools import islice
from typing import Any

import specs
from specs import config as configs
from specs.checking.asked import arrays_of
from specs.dialects import PORTS, UNUSED, Rule, applied, beside, bind, place, readable, rules, shapes, written
from specs.layer import Parameter, parameters
from specs.notation.axes import names, shape_of
from specs.notation.paths import BLOCK, fill, match, normal, pattern
from specs.notation.signature import Signature
from specs.spec import Dialect, Spec, described
from specs.words import FAR, hint, in_a_row, nearest, unknown

from .dialect_lines import Lines, lines_of, placing, sizes_of
from .errors import UsageError
from .examples import Example, examples
from .files import written_suffixes


@cache
def check_dialects(architecture: str) -> None:
    """Check every dialect of an architecture.

    Raises: UsageError that names the page, each dialect and each wrong line, with what is wrong and the nearest name;
    and lengths that `infer` reads and no file of our ports shows.
    """
    if hidden := sorted({text for dialect in PORTS.values() for text in _hidden(specs.get(architecture), dialect)}):
        raise UsageError(f"{_page(architecture)}: `infer` reads what no file shows", hidden)
    every = {name: list(_problems(architecture, one)) for name, one in specs.get(architecture).dialects.items()}
    wrong = {name: problems for name, problems in every.items() if problems}
    if len(wrong) == 1:
        ((name, problems),) = wrong.items()
        raise UsageError(f"{_page(architecture)}: dialect {name!r} is not well defined", problems)
    if wrong:
        names, listed = in_a_row(map(repr, wrong)), [f"{name!r}: {one}" for name, of in wrong.items() for one in of]
        raise UsageError(f"{_page(architecture)}: dialects {names} are not well defined", listed)


def _page(architecture: str) -> str:
    """Name the file of a page from outside; a page here is its architecture."""
    code = getattr(specs.get(architecture).layers, "__code__", None)
    return code.co_filename if code is not None and specs.folder(architecture) is not None else architecture


def _problems(architecture: str, dialect: Dialect) -> Iterator[str]:
    """Describe each wrong line, and a format that nobody writes; what else a dialect names is checked with its Spec."""
    if dialect.suffix and dialect.suffix not in (written := written_suffixes()):
        yield f"suffix: {unknown(dialect.suffix, written, listed=True)}"
    faults = readable(dialect.table)[1]
    named = {number: re.sub(r"^line \d+", r"\g<0> of the table", fault) for number, fault in faults.items()}
    dialect = _without(dialect, named)
    lines = rules(dialect.table)
    first = {_without_letters(line): line.number for line in sorted(lines, key=lambda line: -line.number)}
    chosen: dict[Rule, list[Example]] = {line: [] for line in lines}
    for example in examples(architecture):
        if used := applied(example.parameter, dialect):
            chosen[used[0]].append(example)
    for line in lines:
        users = chosen[line] or list(_users(architecture, dialect, line))
        problem = "; ".join(_meaning(line, users, dialect)) if users else _without_effect(architecture, line)
        if not users and (same := first[_without_letters(line)]) != line.number:
            problem = f"has no effect: line {same} names the same on its left side"
        if problem:
            named[line.number] = f"line {line.number} of the table, {line.text!r}: {problem}"
    yield from (named[number] for number in sorted(named))
    doubles = list(_doubles(architecture, _without(dialect, named), by_lines=bool(named)))
    yield from doubles or (() if named else islice(_misread(specs.get(architecture), dialect), 1))


def _without(dialect: Dialect, wrong: Collection[int]) -> Dialect:
    """Return a dialect without lines that are wrong; the others keep their numbers."""
    lines = ["#" if number in wrong else line for number, line in enumerate(written(dialect.table), 1)]
    return dialect._replace(table="\n".join(lines)) if wrong else dialect


def _doubles(architecture: str, dialect: Dialect, by_lines: bool) -> Iterator[str]:
    """Describe the names that two arrays of a network would have, numbers aside.

    Args:
      by_lines: leave out arrays that no line names, as the line that names them may be wrong.
    """
    spec, said = specs.get(architecture), set[str]()
    for twin, config in spec.tiny.items():
        try:
            named = [p for p in parameters(list(spec.layers(config))) if not by_lines or applied(p, dialect)]
            every = [(_origin(p, dialect), place(p, dialect, config)) for p in named]
            every += [("extras or computed", one) for one in beside(dialect, config)]
        except (ValueError, LookupError, AttributeError) as error:
            yield f"tiny {twin!r}: {error}"
            continue
        first: dict[str, str] = {}
        for origin, stored in every:
            for name in [name for one in (stored.alternatives if stored else ()) for name in one.names.values()]:
                if name in first and normal(name) not in said:
                    said.add(normal(name))
                    yield f"{name!r} would be two arrays: {first[name]}; {origin}"
                first.setdefault(name, origin)


def _hidden(spec: Spec, dialect: Dialect) -> Iterator[str]:
    """Name a length that `infer` reads off a file of one of our ports, and that shapes do not show."""
    lines = lines_of(spec, dialect)
    for config in spec.tiny.values():
        try:
            spec.infer(sizes_of(lines, shapes(spec.layers(config), dialect, config)))
        except KeyError as error:
            yield f"{error.args[0]}: let `infer` read an axis that stands alone in each framework"


def _misread(spec: Spec, dialect: Dialect) -> Iterator[str]:
    """Describe what `infer` reads wrongly off the names of a file of each twin, with the lines that share a name."""
    lines = lines_of(spec, dialect)
    for twin, config in spec.tiny.items():
        named = shapes(spec.layers(config), dialect, config)
        shared = [name for name, shape in named.items() if len(_claims(lines, name, len(shape))) > 1]
        try:
            shown = spec.infer(sizes_of(lines, named))
            again = configs.build(spec.config, {**configs.as_dict(config), **shown})
            if arrays_of(spec, again) == arrays_of(spec, config):
                continue
            other = [name for name in shown if getattr(again, name) != getattr(config, name)]
            wrong = in_a_row(f"{k}={getattr(again, k)!r}, the Config has {getattr(config, k)!r}" for k in other)
            problem = f"infer returns {wrong}"
        except Exception as error:  # of the page's own code
            if not shared:  # an axis whose length no name or shape shows: the user states what follows from it
                continue
            problem = f"infer: {described(error)}"
        text = f"tiny {twin!r}: of its names in this dialect, {problem}"
        if shared:
            claims = [_origin(_named(spec, ours), dialect) for ours in _claims(lines, shared[0])]
            text += f": {shared[0]!r} may be {' or '.join(claims)}: let `infer` ask for what one line alone places"
        yield text


def _claims(lines: Lines, name: str, rank: int | None = None) -> list[str]:
    """Return the arrays of ours that a name of theirs may be, those aside that a Config alone tells."""
    placed = [(line, numbers) for line, numbers in placing(lines, name, rank) if not line.asks_config]
    return list(dict.fromkeys(fill(line.ours.path, {**numbers, **dict(line.listed)}) for line, numbers in placed))


def _named(spec: Spec, name: str) -> Parameter:
    """Return an array of this name, as a twin has it at any numbers."""
    every = (p for config in spec.tiny.values() for p in parameters(list(spec.layers(config))))
    alike = next(p for p in every if pattern(p.name) == pattern(name))
    return alike._replace(layer=alike.layer._replace(path=name.removesuffix(f".{alike.leaf}")))


def _origin(parameter: Parameter, dialect: Dialect) -> str:
    """Say what an array is, and which line names it."""
    used = applied(parameter, dialect)
    line = f"line {used[0].number} of the table, {used[0].text!r}" if used else "which no line names"
    return f"{parameter.name} ({line})"


def _users(architecture: str, dialect: Dialect, line: Rule) -> Iterator[Example]:
    """Yield an array that the line places among all arrays of all twins: the line may name one number alone."""
    spec = specs.get(architecture)
    for config in spec.tiny.values():
        for layer in spec.layers(config):
            for parameter in layer.parameters():
                if (used := applied(parameter, dialect)) and used[0] is line:
                    yield Example(parameter, config)
                    return


def _without_letters(line: Rule) -> str:
    """Return our side of a line without the letters of its numbers: lines that are alike name the same arrays."""
    return re.sub(r"\{\w+\}", "{}", str(line.ours))


def _without_effect(architecture: str, line: Rule) -> str:
    """Say why a line that parses is never applied."""
    spec = specs.get(architecture)
    every = [p for config in spec.tiny.values() for p in parameters(list(spec.layers(config)))]
    arrays = {p.name for p in every}
    paths = {
        ".".join(parts[:n]) for p in every for parts in [p.layer.path.split(".")] for n in range(1, len(parts) + 1)
    }
    if line.ours.axes is None and any(match(line.ours.path, name) for name in arrays):
        example = next(p for p in every if match(line.ours.path, p.name))
        axes = " ".join(example.axes)
        return f"names an array without its axes: give them on both sides, as in '{line.ours.label}: {axes}'"
    placing = line.ours.axes is not None
    if any(match(line.ours.path, name) for name in (arrays if placing else paths)):
        return "has no effect: lines of more specific names place all that it names"
    if placing and any(match(line.ours.path, path) for path in paths):
        return "names a layer, but has axes: name one of its arrays, or leave the axes out"
    if placing and (own := _leaves(line, every)):
        return own
    known = {_pattern(name, line): None for name in sorted(arrays if placing else paths)}
    what = "array" if placing else "layer"
    near = hint(line.ours.label, [name for name in known if name.count(".") == line.ours.label.count(".")], FAR)
    return f"layers yields no {'' if what == 'layer' else what + ' '}{line.ours.label!r}{near}"


def _leaves(line: Rule, known: Iterable[Parameter]) -> str:
    """Describe the arrays of the layer in which a line names one that it does not have; "" without such a layer."""
    layer, _, leaf = line.ours.label.rpartition(".")
    own = {p.leaf: " ".join(p.axes) for p in known if p.leaf and _pattern(p.layer.path, line) == layer}
    if not own:
        return ""
    near = nearest(leaf, own)
    meant = f", did you mean {f'{layer}.{near}'!r}?" if near else ""
    has = ", ".join(f"{name}: {axes}" for name, axes in own.items())
    return f"no array is named {line.ours.label!r}{meant} ({layer} has {has})"


def _pattern(name: str, line: Rule) -> str:
    """Spell a name with the holes of a line in place of its numbers, as far as they go."""
    holes = iter([hole.name for hole in line.ours.holes])
    return BLOCK.sub(lambda number: f"{{{hole}}}" if (hole := next(holes, "")) else number[0], name)


def _meaning(line: Rule, users: Sequence[Example], dialect: Dialect) -> Iterator[str]:
    """Say what is wrong with a line that is applied: with its holes, with its axes, or else where arrays are placed."""
    wrong = [problem for find in (_wrong_holes, _wrong_axes) if (problem := find(line, users))]
    yield from wrong
    for parameter, config in [] if wrong else users:
        try:
            bind(place(parameter, None), place(parameter, dialect, config), UNUSED, 1)
        except (ValueError, IndexError) as error:
            yield f"{parameter.name}: {error}"
            return


def _theirs(array: Signature) -> list[tuple[str, ...]]:
    """Return the words of each hole on the dialect's side: a name, or a field and its index."""
    return [tuple(filter(None, hole.name.removesuffix("]").partition("[")[::2])) for hole in array.holes]


def _wrong_holes(line: Rule, users: Iterable[Example]) -> str | None:
    ours = [hole.name for hole in line.ours.holes]
    for array in line.arrays:
        theirs = _theirs(array)
        if lost := [word for word in ours if word not in {name for words in theirs for name in words}]:
            return f"{{{lost[0]}}} stands on one side only: arrays of all its numbers would share one name"
        known = [*ours, *names(line.ours.axes or ())]
        for _, config in users:
            for words in theirs:
                if problem := _hole(words, known, config):
                    return problem
    return None


def _wrong_axes(line: Rule, users: Iterable[Example]) -> str | None:
    for array in line.arrays if line.ours.axes is not None else ():
        stacked = {words[0] for words in _theirs(array)}
        for parameter, _ in users:
            if problem := _axes(line.ours, array, parameter, stacked):
                return problem
    return None


def _axes(here: Signature, there: Signature, parameter: Parameter, stacked: set[str]) -> str | None:
    """Say what is wrong with a line's axes for an array that it places."""
    ours, theirs, sizes = here.axes or (), there.axes or (), parameter.layer.sizes
    mine, others = names(ours), names(theirs)
    for axis in (*mine, *others):
        if axis not in sizes:
            return f"axes: {unknown(axis, sizes)} (axes of {parameter.name}: {', '.join(sizes)})"
    lost = [axis for axis in mine if axis not in others and axis not in stacked]
    lost += [axis for axis in others if axis not in mine]
    if lost:
        return f"axis {lost[0]!r} stands on one side only"
    if shape_of(ours, sizes) != parameter.shape:
        what = f"{parameter.name}: {' '.join(parameter.axes)}"
        return f"its axes make shape {list(shape_of(ours, sizes))} where {what} has {list(parameter.shape)}"
    return None


def _hole(words: tuple[str, ...], known: list[str], config: Any) -> str | None:
    """Say what is wrong with a hole on the dialect's side.

    Args:
      known: words that have a number: our side's holes, and axes that a path may stack.
      config: the twin whose fields and properties the hole may name instead.
    """
    word, index = words[0], words[1] if len(words) > 1 else None
    value = getattr(config, word, None)
    if index is None and (word in known or (isinstance(value, int) and not isinstance(value, bool))):
        return None
    if index in known and isinstance(value, tuple):
        return None
    if index is not None and isinstance(value, tuple):
        return f"hole {{{word}[{index}]}}: {unknown(index, known)}"
    of_config = [name for name in dir(config) if not name.startswith("_")]
    hole = f"{{{word}[{index}]}}" if index else f"{{{word}}}"
    return f"hole {hole}: {unknown(word, of_config if index else [*known, *of_config])}"

"""Where a dialect keeps each array: its table applied to the names and layouts of its framework."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cache
from typing import Any, NamedTuple

from specs.kinds import ANY, FRAMEWORKS, KINDS, PORTED, Leaf
from specs.layer import Layer, Parameter
from specs.notation import Axes, Path, View, parse_axes, view
from specs.spec import Dialect

# A port's checkpoint is a dialect without a table: our names, its framework's leaves.
PORTS = {framework: Dialect(framework, about=f"ports/{framework}") for framework in FRAMEWORKS}


class Rule(NamedTuple):
    """One line of a dialect's table, or what the framework's own names make of one array.

    Args:
      axes: (ours, theirs), or None where the line renames layers.
      number: of the line, from 1.
      text: the line itself.
    """

    ours: Path
    theirs: Path
    axes: tuple[Axes, Axes] | None
    number: int = 0
    text: str = ""


@cache
def rules(table: str) -> tuple[Rule, ...]:
    """Parse a dialect's table; longest lines first, so that the most specific one applies.

    Raises: ValueError that lists every line which cannot be parsed.
    """
    parsed, problems = [], []
    lines = [line for line in map(str.strip, table.splitlines()) if line]
    for number, line in enumerate(lines, 1):
        try:
            parsed.append(_rule(number, line))
        except ValueError as error:
            problems.append(f"line {number}, {line!r}: {error}")
    if problems:
        raise ValueError("\n".join(problems))
    return tuple(sorted(parsed, key=lambda rule: -len(rule.ours.text)))


def _rule(number: int, line: str) -> Rule:
    """Parse "ours   theirs" or "ours: axes   theirs: axes"."""
    sides = re.split(r"\s{2,}", line)
    if len(sides) != 2:
        raise ValueError(f"has {len(sides)} columns, not 2: two or more spaces stand between ours and theirs alone")
    (ours, our_colon, our_axes), (theirs, their_colon, their_axes) = (side.partition(": ") for side in sides)
    if bool(our_colon) != bool(their_colon):
        raise ValueError("has axes on one side only: ': ' and the axes stand on both sides or on neither")
    for path in (ours, theirs):
        if strange := re.search(r"\{[^}]*\}?|[\s:}]", Path.HOLE.sub("", path)):
            what = "hole" if strange[0].startswith("{") else "character"
            raise ValueError(f"unknown {what} {strange[0]!r} in {path!r}: a hole is {{i}}, {{i+2}} or {{field[i]}}")
    if indexed := [f"{{{word}[{index}]}}" for word, index, _ in Path(ours).holes if index]:
        raise ValueError(f"hole {indexed[0]} stands on our side: fields are looked up on theirs alone")
    axes = (parse_axes(our_axes), parse_axes(their_axes)) if our_colon else None
    return Rule(Path(ours), Path(theirs), axes, number, line)


def hub_axes(parameter: Parameter) -> Axes:
    """The dimensions of an array in the hub's layout."""
    return tuple((axis,) for axis in parameter.axes)


def template(parameter: Parameter, dialect: Dialect, port: bool) -> tuple[Rule, Mapping[str, int]] | None:
    """The line that places one array and the numbers in its path; None where the framework keeps no such thing.

    What no line of the dialect names keeps our name, with the framework's leaf.
    """
    leaf = KINDS[parameter.layer.kind].leaves[PORTED[dialect.framework]][parameter.leaf]
    if leaf is None:
        return None
    path, ours, numbers = _numbered(parameter.layer.path)
    if placed := applied(parameter, dialect):
        rule, filled, rest = placed
        if rule.axes:
            return rule, filled
        tail, ours_tail, more = _numbered(rest, len(filled))
        path, ours, numbers = rule.theirs.text + tail, rule.ours.text + ours_tail, {**filled, **more}
    theirs = _flax_port(path, parameter) if port and dialect.framework == "flax" else path
    separator = "/" if dialect.framework == "flax" else "."
    name = separator.join(filter(None, [theirs, leaf.name]))
    own = ".".join(filter(None, [ours, parameter.leaf]))
    return Rule(Path(own), Path(name), (hub_axes(parameter), _axes(parameter, leaf))), numbers


def _axes(parameter: Parameter, leaf: Leaf) -> Axes:
    """The dimensions of an array as a library stores it."""
    return hub_axes(parameter) if leaf.axes == ANY else parse_axes(leaf.axes)


def applied(parameter: Parameter, dialect: Dialect) -> tuple[Rule, dict[str, int], str] | None:
    """Return the line that names one array, its numbers and what follows the line's path in the array's name.

    Lines with axes name arrays and go before those that rename layers; None if no line names the array.
    """
    for rule in rules(dialect.table):
        if rule.axes and (match := rule.ours.match(parameter.name)):
            return rule, match[0], match[1]
    for rule in rules(dialect.table):
        if not rule.axes and (match := rule.ours.match(parameter.layer.path, whole=False)):
            return rule, match[0], match[1]
    return None


NUMBER = re.compile(r"\.(\d+)(?=\.|$)")


@cache
def _numbered(path: str, first: int = 0) -> tuple[str, str, Mapping[str, int]]:
    """A path with its numbers replaced by holes, twice (theirs and ours), and the numbers."""
    numbers = {f"n{first + k}": int(m[1]) for k, m in enumerate(NUMBER.finditer(path))}
    names = iter(numbers)
    text = NUMBER.sub(lambda _: ".{" + next(names) + "}", path)
    return text, text, numbers


LISTED = re.compile(r"\.(\{|\d)")


def _flax_port(path: str, parameter: Parameter) -> str:
    """linen's spelling: lists of modules join name and number, and each collection is a tree of its own."""
    joined = LISTED.sub(r"_\1", path).replace(".", "/")
    return ("params/" if parameter.trained else "batch_stats/") + joined


def place(parameter: Parameter, dialect: Dialect, config: Any, port: bool = False) -> View | None:
    """How a dialect holds one array; None where its framework keeps no such thing."""
    placed = template(parameter, dialect, port)
    if placed is None:
        return None
    rule, numbers = placed
    assert rule.axes is not None
    return view(rule.axes[0], rule.theirs, rule.axes[1], parameter.layer.sizes, numbers, config)


def extra(layer: Layer, dialect: Dialect) -> list[tuple[str, tuple[int, ...]]]:
    """(name, shape) of the arrays of a layer that only the dialect's files hold."""
    plain = Dialect(dialect.framework)
    views = [place(parameter, plain, None) for parameter in layer.parameters()]
    return [(v.names[()], v.shape) for v in views if v is not None]

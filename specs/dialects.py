"""Define dialects: where a code base keeps each array of an architecture, as lines of a Table.

    blocks.{i}.norm1  <->  MixerBlock_{i}/LayerNorm_0                        without axes: renames a layer, or all below
    blocks.{b}.query.kernel: h i o  <->  blocks.{b}.q_proj.{h}.weight: i o   with axes: places one array
    embed.table: v d  <->  wte.weight: v d = lm_head.weight: v d             a tie: one array here, two equal ones there
    qkv.kernel: i (s o)  <->  {s=query|key|value}.weight: o i                one array here, one for each word there

Ours stand on the left. What no line names keeps our name, with the names and layouts of the dialect's framework. In
flax, linen's names have "/" and "_{i}" for our "." and ".{i}", also below a layer that a line renames. Where a line
there begins with params/, what no line places lies in params/ too, and running statistics lie in batch_stats/.

Where several lines name an array, the longest path applies, and of one length that with fewer holes: a line for
blocks.0.norm1 goes before one for blocks.{i}.norm1.

A hole on the right may also stand for a number of the Config, `{depth+5}`, or for one that it lists, `{position[s]}`:
both are numbers once the Config is known, and what is left is a Table.
"""

import itertools
import re
from collections.abc import Iterable, Mapping
from dataclasses import replace
from functools import cache, lru_cache
from typing import Any, NamedTuple

from specs.notation.axes import Axes, Factor, names, parse_axes, plain, shape_of
from specs.notation.lines import Constant, Line, Side
from specs.notation.parsing import COMMENT, HEADER, parse_line
from specs.notation.paths import Hole, Path, fill, holes, joined, match
from specs.notation.signature import Signature
from specs.solving.env import Env
from specs.solving.ranges import Key
from specs.words import count

from .kinds import ANY, BUFFERS, COLLECTIONS, FRAMEWORKS, KINDS, PORTED, Leaf
from .layer import Layer, Parameter, parameters
from .spec import Dialect, Spec
from .table import Table

MAY_BE = "or tied ones on theirs: OURS: axes <-> THEIRS: axes = THEIRS: axes"
HUB = "hub"  # our own names and layouts, as a dialect
UNCOUNTED = Constant(0, "int64")  # of batch counters that a source does not store
UNUSED = Constant(0)  # of arrays that a dialect's files hold and the network never uses
# A port's checkpoint is a dialect without a table: our names, its framework's leaves.
PORTS = {framework: Dialect(framework, about=f"ports/{framework}") for framework in FRAMEWORKS}


class Rule(NamedTuple):
    """One line of a dialect's table, or what the framework's own names make of one array.

    Args:
      number: of the line, from 1. text: the line itself.
      ties: further arrays on their side, each equal to `theirs`.
    """

    ours: Signature
    theirs: Signature
    number: int = 0
    text: str = ""
    ties: tuple[Signature, ...] = ()

    @property
    def arrays(self) -> tuple[Signature, ...]:
        """Return their array, or all that are tied."""
        return (self.theirs, *self.ties)


@cache
def rules(table: str) -> tuple[Rule, ...]:
    """Parse a dialect's table; the most specific lines first: longer paths, and of one length those with fewer holes.

    Raises: ValueError that lists every line which cannot be parsed.
    """
    parsed, problems = readable(table)
    if problems:
        raise ValueError("\n".join(problems.values()))
    return parsed


def readable(table: str) -> tuple[tuple[Rule, ...], dict[int, str]]:
    """Return the lines of a dialect's table that parse, sorted as above, and {number: what is wrong} of the others."""
    parsed, problems = list[Rule](), dict[int, str]()
    for number, line in enumerate(written(table), 1):
        text = re.sub(COMMENT, "", line).strip()
        try:
            parsed += [_rule(number, text)] if text else []
        except ValueError as error:
            problems[number] = f"line {number}, {line!r}: {error}"
    return tuple(sorted(parsed, key=lambda rule: (-rule.ours.label.count("."), len(rule.ours.holes)))), problems


def written(table: str) -> list[str]:
    """Return the lines of a dialect's table that are not empty, which are numbered from 1."""
    return [line for line in map(str.strip, table.splitlines()) if line]


def _rule(number: int, text: str) -> Rule:
    if re.fullmatch(HEADER, text):
        raise ValueError("a dialect has no header: its name and its framework stand in Dialect")
    line = parse_line(text)
    tied = len(line.right.arrays) == 1 or line.right.join == "="
    if line.arrow != "<->" or len(line.left.arrays) != 1 or not tied or line.left.constant or line.right.constant:
        raise ValueError(f"a line of a dialect has one name on each side of <->, {MAY_BE}")
    (ours,), (theirs, *ties) = line.left.arrays, line.right.arrays
    if len({array.axes is None for array in line.arrays}) > 1:
        raise ValueError("has axes on one side only: ': ' and the axes stand on both sides or on neither")
    for array in line.arrays:
        split = {*names(ours.axes or ())}.difference(names(array.axes or ()))
        if listed := [hole for hole in array.holes if hole.values is not None and hole.name not in split]:
            remedy = f"write {{{listed[0].name}}} for all numbers; a line for a single number goes before it"
            what = "numbers tell layers apart; words name parts of our axis"
            raise ValueError(f"hole {listed[0]} lists values: {what} ({remedy})")
    if any(array.windowed for array in line.arrays):
        raise ValueError("has a window: a line of a dialect places whole arrays")
    if any(part.order for array in line.arrays for part in array.parts()):
        raise ValueError("has an order of a file: a dialect has no files")
    if indexed := [hole for hole in ours.holes if "[" in hole.name]:
        raise ValueError(f"hole {indexed[0]} stands on our side: fields are looked up on theirs alone")
    return Rule(ours, theirs, number, text, tuple(ties))


def template(parameter: Parameter, dialect: Dialect) -> tuple[Rule, Mapping[str, int]] | None:
    """Return the line that places one array and the numbers in its path; None where the framework keeps no such thing.

    What no line of the dialect names keeps our name, with the framework's leaf.
    """
    leaf = KINDS[parameter.layer.kind].leaves[PORTED[dialect.framework]][parameter.leaf]
    if leaf is None:
        return None
    numbers: Mapping[str, int]
    ours, numbers = numbered(parameter.layer.path)
    theirs = ours
    if placed := applied(parameter, dialect):
        rule, filled, rest = placed
        if rule.ours.axes is not None:
            return rule, filled
        tail, more = numbered(rest, len(filled))
        below = _linen(tail) if dialect.framework == "flax" else tail
        ours, theirs, numbers = (*rule.ours.path, *tail), (*rule.theirs.path, *below), {**filled, **more}
    elif dialect.framework == "flax":
        theirs = _linen(ours, f"{COLLECTIONS[0]}/" * (dialect is PORTS["flax"] or _has_collections(dialect.table)))
    return _default(ours, theirs, parameter.axes, parameter.leaf, leaf, dialect.framework), numbers


@cache
def _default(ours: Path, theirs: Path, axes: tuple[str, ...], leaf: str, stored: Leaf, framework: str) -> Rule:
    """Return the line that a framework's own names make of a layer's array; its path is `ours` or `theirs`."""
    trained = f"{COLLECTIONS[0]}/"
    first = theirs[0] if theirs else ""  # a model's own path
    if framework == "flax" and leaf in BUFFERS and isinstance(first, str) and first.startswith(trained):
        theirs = (f"{COLLECTIONS[1]}/{first.removeprefix(trained)}", *theirs[1:])
    there = _below(theirs, "/" if framework == "flax" else ".", stored.name)
    return Rule(
        Signature(_below(ours, ".", leaf), _plain(axes)),
        Signature(there, _plain(axes) if stored.axes == ANY else parse_axes(stored.axes)),
    )


def _below(path: Path, separator: str, name: str) -> Path:
    """Return the path of a layer's array; that of a whole model, and a collection's, need no separator."""
    whole = not path or (isinstance(path[-1], str) and path[-1].endswith("/"))
    return joined((*path, name if whole or not name else separator + name))


def applied(parameter: Parameter, dialect: Dialect) -> tuple[Rule, Mapping[str, int], str] | None:
    """Return the line that names one array, its numbers and what follows the line's path in the array's name.

    Lines with axes name arrays and go before those that rename layers; None if no line names the array.
    """
    return _first(dialect.table, True, parameter.name) or _first(dialect.table, False, parameter.layer.path)


@lru_cache(maxsize=10_000)  # all arrays of a layer share the line that renames it, and Configs share most layers
def _first(table: str, places: bool, name: str) -> tuple[Rule, Mapping[str, int], str] | None:
    """Return the first line that applies, as `applied` does; `places`: of the lines with axes, or of the others."""
    for rule in rules(table):
        if (rule.ours.axes is not None) == places and (matched := match(rule.ours.path, name, whole=places)):
            return rule, *matched
    return None


@cache
def numbered(path: str, first: int = 0) -> tuple[Path, Mapping[str, int]]:
    """Put holes in place of the numbers in a path; return them with the path."""
    pieces: list[str | Hole] = []
    numbers: dict[str, int] = {}
    for k, word in enumerate(path.split(".")):
        dot = "." if k else ""
        if word.isdecimal() and k:
            numbers[name := f"n{first + len(numbers)}"] = int(word)
            pieces += [dot, Hole(name)]
        else:
            pieces.append(dot + word)
    return joined(pieces), numbers


_plain = cache(plain)


@cache
def _has_collections(table: str) -> bool:
    """Tell whether a dialect's files have linen's collections in their names."""
    heads = [array.path[0] for rule in rules(table) for array in rule.arrays]
    return any(isinstance(head, str) and head.startswith(f"{COLLECTIONS[0]}/") for head in heads)


@cache
def _linen(path: Path, head: str = "") -> Path:
    """Return linen's spelling of a path, after `head`: lists of modules join name and number."""
    pieces: list[str | Hole] = [head]
    for piece, after in itertools.zip_longest(path, path[1:]):
        if isinstance(piece, str):
            piece = piece[:-1] + "_" if isinstance(after, Hole) and piece.endswith(".") else piece
            piece = piece.replace(".", "/")
        pieces.append(piece)
    return joined(pieces)


class Stored(NamedTuple):
    """How one side stores one array.

    Args:
      hub: the array's own dimensions in this side's axes.
      theirs: its names and dimensions there: an axis that stands in the path is stacked.
      sizes: length of every axis.
      ties: further arrays there, each equal to `theirs`.
    """

    hub: Axes
    theirs: Signature
    sizes: Mapping[str, int]
    ties: tuple[Signature, ...] = ()

    @property
    def alternatives(self) -> tuple["Stored", ...]:
        """Return one Stored for each tied array: any of them alone has all elements."""
        if not self.ties:
            return (self,)
        return tuple(self._replace(theirs=one, ties=()) for one in (self.theirs, *self.ties))

    @property
    def side(self) -> Side:
        """Return its side of a line."""
        return Side((self.theirs, *self.ties), "=" if self.ties else ",")

    @property
    def names(self) -> dict[Key, str]:
        """Return {indices of the stacked axes: name}, {(): name} where one tensor stores it all; ties aside."""
        if isinstance(self.theirs.path[0], str) and len(self.theirs.path) == 1:
            return {(): self.theirs.path[0]}
        stacked = sorted({hole.name for hole in self.theirs.holes})
        return {
            tuple(zip(stacked, index, strict=True)): fill(self.theirs.path, dict(zip(stacked, index, strict=True)))
            for index in itertools.product(*(range(self.sizes[axis]) for axis in stacked))
        }

    @property
    def name(self) -> str:
        """Return the name of the first tensor, or the only one."""
        return next(iter(self.names.values()))

    @property
    def shape(self) -> tuple[int, ...]:
        return shape_of(self.theirs.axes or (), self.sizes)


def place(parameter: Parameter, dialect: Dialect | None, config: Any = None) -> Stored | None:
    """Tell how a dialect (None: we ourselves) stores one array; None where its framework keeps no such thing.

    Raises: AttributeError, IndexError, ValueError for a line that does not fit the Config.
    """
    if dialect is None:
        axes = _plain(parameter.axes)
        return Stored(axes, Signature((parameter.name,), axes), parameter.layer.sizes)
    placed = template(parameter, dialect)
    if placed is None:
        return None
    rule, numbers = placed
    sizes, hub = parameter.layer.sizes, rule.ours.axes or ()

    def there(theirs: Signature) -> Signature:
        axes = theirs.axes or ()
        stacked = {hole.name for hole in holes(theirs.path) if hole.name not in numbers}
        if stacked:
            stacked = stacked.intersection(names(hub)).difference(names(axes))

        def piece(part: str | Hole) -> str | Hole:
            if isinstance(part, str):
                return part
            if part.values is not None and len(part.values) != sizes[part.name]:
                raise ValueError(f"{part} lists {count(len(part.values), 'value')}, {part.name} has {sizes[part.name]}")
            if part.name in stacked:
                return Hole(part.name, values=tuple(map(part.fill, range(sizes[part.name]))))
            number = fill((part,), numbers, config)
            if number.startswith("-"):
                raise ValueError(f"{part} would be {number}")
            return number

        return Signature(joined(map(piece, theirs.path)), _measured(axes, sizes))

    return Stored(_measured(hub, sizes), there(rule.theirs), sizes, tuple(map(there, rule.ties)))


def _measured(axes: Axes, sizes: Mapping[str, int], every: bool = False) -> Axes:
    """Return the axes, with the lengths of those that are composed, or of every one: no shape alone would tell them."""
    if not every and all(len(dim.factors) < 2 for dim in axes):
        return axes

    def measured(factor: Factor) -> Factor:
        return tuple(part._replace(length=sizes[part.name]) if part.name else part for part in factor)

    chosen = [every or len(dim.factors) > 1 for dim in axes]
    return tuple(
        dim._replace(factors=tuple(map(measured, dim.factors))) if yes else dim
        for dim, yes in zip(axes, chosen, strict=True)
    )


def extras(dialect: Dialect | None, config: Any) -> list[Stored]:
    """Return the arrays that only a dialect's files hold, and the network never uses."""
    return _placed(dialect, dialect.unused(config)) if dialect else []


def computed(dialect: Dialect | None, config: Any) -> list[tuple[Stored, Any]]:
    """Return the arrays that a dialect's code computes from a Config and stores, each with its values."""
    if dialect is None or dialect.computed is None:
        return []
    values = dialect.computed(config)
    return [
        (stored, array)
        for path, array in values.items()
        for stored in _placed(dialect, [Layer(path, "array", {f"d{k}": n for k, n in enumerate(array.shape)})])
    ]


def beside(dialect: Dialect | None, config: Any) -> list[Stored]:
    """Return the arrays of a dialect's files that are none of the model's: extras, and what its code computes."""
    return [*extras(dialect, config), *(stored for stored, _ in computed(dialect, config))]


def _placed(dialect: Dialect, layers: Iterable[Layer]) -> list[Stored]:
    every = (place(parameter, Dialect(dialect.framework)) for layer in layers for parameter in layer.parameters())
    return [one for one in every if one is not None]


def shapes(layers: Iterable[Layer], dialect: Dialect, config: Any = None) -> dict[str, tuple[int, ...]]:
    """Return names and shapes of all arrays of a network in a dialect's files."""
    every = [place(parameter, dialect, config) for layer in layers for parameter in layer.parameters()]
    stored = [each for one in every if one is not None for each in one.alternatives]
    return {name: one.shape for one in stored for name in one.names.values()}


def bind(source: Stored | None, target: Stored | None, constant: Constant | None, number: int) -> Env | None:
    """Return the line between two ways to store one array, with its names and lengths; None if neither side stores it.

    Args:
      constant: what the target stores if the source stores nothing; None: what no line says, so that it drops it.
    Raises: ValueError where the two split one axis in two ways.
    """
    if source is not None and target is not None:
        return Env(_line(source, target, number), (), [one.names for one in source.alternatives], {**source.sizes})
    if source is not None:
        dropped = Side(tuple(array._replace(axes=None) for array in source.side.arrays))
        return Env(Line(dropped, Side(), "->", number), (), [one.names for one in source.alternatives], {})
    if target is not None and constant is None:
        dropped = Side(tuple(array._replace(axes=None) for array in target.side.arrays))
        return Env(Line(Side(), dropped, "<-", number), (), [], {})
    if target is not None:
        measured = [(array, _measured(array.axes or (), target.sizes, every=True)) for array in target.side.arrays]
        made = Side(tuple(array._replace(axes=axes) for array, axes in measured), constant=constant)
        return Env(Line(Side(), made, number=number), (), [], {**target.sizes})
    return None


def _line(source: Stored, target: Stored, number: int) -> Line:
    if source.hub == target.hub:
        return Line(source.side, target.side, number=number)
    from specs.notation.compose import through

    return replace(through(source.side, source.hub, target.hub, target.side), number=number)


def table(spec: Spec, source: str, target: str, config: Any) -> Table:
    """Build the Table from one dialect of an architecture to another, for one Config; "hub" is our own names."""
    dialects = {HUB: None, **PORTS, **spec.dialects}
    own, other = dialects[source], dialects[target]
    every: list[tuple[Stored | None, Stored | None, Constant | None]] = [
        (place(parameter, own, config), place(parameter, other, config), UNCOUNTED)
        for parameter in parameters(list(spec.layers(config)))
    ]
    if source == target:
        every += [(one, one, UNUSED) for one in beside(own, config)]
    else:
        every += [(one, None, UNUSED) for one in beside(own, config)]
        every += [(None, one, UNUSED) for one in extras(other, config)]
        every += [(None, one, None) for one, _ in computed(other, config)]
    bound = [env.line for number, pair in enumerate(every, 1) if (env := bind(*pair, number)) is not None]
    one_way = {number for number, (first, _, constant) in enumerate(every, 1) if first is None and constant is UNUSED}
    lines = (replace(line, arrow="<-") if line.number in one_way else line for line in bound)  # back, they are dropped
    return Table(tuple(lines), (source, target), name=f"{source}2{target}")

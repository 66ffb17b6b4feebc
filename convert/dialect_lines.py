"""Read names and shapes of a dialect's arrays in our terms, by what its table makes of the arrays of all tiny twins."""

import itertools
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import chain
from typing import NamedTuple

from specs.dialects import template
from specs.kinds import GATES
from specs.layer import Sizes, parameters
from specs.notation.axes import names as axis_names
from specs.notation.paths import Hole, Path, fill, holes, joined, match, normal
from specs.notation.signature import Signature
from specs.spec import Dialect, Spec


class DialectLine(NamedTuple):
    """One kind of array in a dialect, for any numbers: what `template` says, stripped of an example's numbers."""

    ours: Signature
    theirs: Signature
    hub: tuple[str, ...]  # the kind's own axes
    gates: int  # length of the axis g; 0 for a kind without
    axes: tuple[list[list[str]], list[list[str]]]  # names in each dimension, in ours and in theirs
    listed: tuple[tuple[str, int], ...]  # which word of each list stands in their name

    @property
    def asks_config(self) -> bool:
        """Tell whether a number in their name is the Config's, so that the line places one of the names it matches."""
        ours = {hole.name for hole in self.ours.holes}.union(*self.axes[0])
        return any(hole.name not in ours for hole in self.theirs.holes)


Lines = Mapping[str, Sequence[DialectLine]]  # {normal(their name): lines}


def lines_of(spec: Spec, dialect: Dialect) -> dict[str, list[DialectLine]]:
    """Return {normal(their name): lines}, learnt from all layers of the tiny twins, which use every option.

    One array for each name would not do: a line may place that of one number alone, as `stages.0.down <-> stem`.
    """
    every = [(p, template(p, dialect)) for twin in spec.tiny.values() for p in parameters(list(spec.layers(twin)))]
    index: dict[str, list[DialectLine]] = {}
    known = ((placed[0], p.axes, GATES.get(p.layer.kind, 0)) for p, placed in every if placed)
    for rule, hub, gates in dict.fromkeys(known):
        for theirs in rule.arrays:
            axes = [[axis_names((dim,)) for dim in side.axes or ()] for side in (rule.ours, theirs)]
            for listed, path in _spelt_out(theirs.path):
                sample = "".join("0" if isinstance(piece, Hole) else piece for piece in path)
                line = DialectLine(rule.ours, theirs._replace(path=path), hub, gates, (axes[0], axes[1]), listed)
                index.setdefault(normal(sample), []).append(line)
    return index


def _spelt_out(path: Path) -> Iterator[tuple[tuple[tuple[str, int], ...], Path]]:
    """Yield a path with each choice of words in place of its lists."""
    lists = {hole.name: hole for hole in holes(path) if hole.values is not None}
    for chosen in itertools.product(*(range(len(hole.values or ())) for hole in lists.values())):
        at = dict(zip(lists, chosen, strict=True))
        pieces = (p.fill(at[p.name]) if isinstance(p, Hole) and p.name in at else p for p in path)
        yield tuple(at.items()), joined(pieces)


def placing(lines: Lines, name: str, rank: int | None = None) -> list[tuple[DialectLine, Mapping[str, int]]]:
    """Return the lines that place an array of their name, with its numbers.

    A line that has a number where others have a hole goes before these, as a line for blocks.0.conv before one for
    blocks.{i}.conv: what it places is no array of the others. Several are left where only a Config tells.

    Args:
      rank: of the array; None takes any.
    """
    every = [line for line in lines.get(normal(name), ()) if rank in (None, len(line.axes[1]))]
    matched = [(line, found[0]) for line in every if (found := match(line.theirs.path, name))]
    fewest = min((len(line.theirs.holes) for line, _ in matched if not line.asks_config), default=len(name))
    return [(line, numbers) for line, numbers in matched if len(line.theirs.holes) <= fewest]


def sizes_of(lines: Lines, shapes: Mapping[str, Sequence[int]]) -> Sizes:
    """Return sizes of a file's arrays in our terms, read off their names and shapes, for the spec's `infer`."""
    read = [(line, numbers, s) for name, s in shapes.items() for line, numbers in placing(lines, name, len(s))]
    ranks = _ranks(numbers for _, numbers, _ in read)
    axes: dict[str, dict[str, int]] = {}
    for line, numbers, shape in read:
        own = {w: n for w, n in numbers.items() if "[" not in w} | dict(line.listed)
        own |= {w[w.index("[") + 1 : -1]: ranks[w].index(n) for w, n in numbers.items() if "[" in w}
        known = axes.setdefault(fill(line.ours.path, own), {})
        for axis in set(chain.from_iterable(line.axes[0])) & own.keys():
            known[axis] = max(known.get(axis, 0), own[axis] + 1)  # stacked: as many as there are names
        known.update(_lengths(line, shape, known))
    return Sizes(axes)


def _ranks(readings: Iterable[Mapping[str, int]]) -> dict[str, list[int]]:
    """Return, for each hole that indexes a list of the Config ("at[s]"), the sorted numbers in the names."""
    numbers_of: dict[str, set[int]] = {}
    for numbers in readings:
        for word, number in numbers.items():
            if "[" in word:
                numbers_of.setdefault(word, set()).add(number)
    return {word: sorted(positions) for word, positions in numbers_of.items()}


def _lengths(line: DialectLine, shape: Sequence[int], known: Mapping[str, int]) -> dict[str, int]:
    """Return lengths of one array's axes: those that stand alone, and of compositions that both sides share.

    Of a composition whose other axes are known, as gates are, the last one follows, and its own length of all parts.
    """
    groups = {frozenset(group): length for group, length in zip(line.axes[1], shape, strict=True)}
    alone = {**known, **{next(iter(g)): length for g, length in groups.items() if len(g) == 1}}
    if line.gates:
        alone |= {group[0]: line.gates for axis, group in zip(line.hub, line.axes[0], strict=True) if axis == "g"}
    for composed, length in groups.items():
        if len(left := composed - alone.keys()) == 1:
            others = math.prod(alone[axis] for axis in composed - left)
            alone |= {axis: length // others for axis in left if others and length % others == 0}
    for axis, group in zip(line.hub, line.axes[0], strict=True):
        if frozenset(group) in groups:
            alone[axis] = groups[frozenset(group)]
        elif all(part in alone for part in group):
            alone[axis] = math.prod(alone[part] for part in group)
    return alone

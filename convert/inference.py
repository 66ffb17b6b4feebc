"""What a checkpoint's names and shapes say of its configuration, in the hub's terms."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import suppress
from itertools import chain

from specs.kinds import BUFFERS
from specs.layer import Sizes
from specs.notation import atoms

from .parts import normal
from .recognise import Line, Match, lines


def sizes(match: Match) -> Sizes:
    """Sizes of a file's arrays in the hub's terms, read off names and shapes, for the spec's `infer`."""
    read = [
        (line, found[0], tensor.shape)
        for name, tensor in match.tensors.items()
        for line in lines(match.architecture, match.dialect).get(normal(name), ())
        if (found := line.theirs.match(name)) and len(line.axes[1]) == len(tensor.shape)
    ]
    ranks = _ranks(numbers for _, numbers, _ in read)
    axes: dict[str, dict[str, int]] = {}
    for line, numbers, shape in read:
        own = {w: n for w, n in numbers.items() if "[" not in w}
        own |= {w[w.index("[") + 1 : -1]: ranks[w].index(n) for w, n in numbers.items() if "[" in w}
        known = axes.setdefault(line.ours.fill(own), {})
        for axis in set(atoms(line.axes[0])) & own.keys():
            known[axis] = max(known.get(axis, 0), own[axis] + 1)  # stacked: as many as there are names
        known.update(_lengths(line, shape, known))
    return Sizes(axes)


def _ranks(readings: Iterable[Mapping[str, int]]) -> dict[str, list[int]]:
    """Of numbers that are positions in a list of the Config ("at[s]"): all that occur, in order."""
    found: dict[str, set[int]] = {}
    for numbers in readings:
        for word, number in numbers.items():
            if "[" in word:
                found.setdefault(word, set()).add(number)
    return {word: sorted(positions) for word, positions in found.items()}


def _lengths(line: Line, shape: tuple[int, ...], known: Mapping[str, int]) -> dict[str, int]:
    """Lengths of one array's axes: those that stand alone, and of compositions that both sides share."""
    groups = {frozenset(group): length for group, length in zip(line.axes[1], shape, strict=True)}
    alone = {**known, **{next(iter(g)): length for g, length in groups.items() if len(g) == 1}}
    for axis, group in zip(line.hub, line.axes[0], strict=True):
        if frozenset(group) in groups:
            alone[axis] = groups[frozenset(group)]
        elif len(group) == 1 and group[0] in alone:
            alone[axis] = alone[group[0]]
    return alone


def in_their_terms(match: Match, name: str) -> str | None:
    """One of our names as a file's dialect has it; None where that depends on the Config."""
    for line in chain.from_iterable(lines(match.architecture, match.dialect).values()):
        if found := line.ours.match(name):
            with suppress(AttributeError):  # the Config's, which is not known
                return line.theirs.fill(found[0])
    return None


def trained(match: Match) -> int:
    """Trained parameters in a file, counted by name: running statistics and what has no known name aside."""
    known = {
        name: line.ours.text.rpartition(".")[2]
        for name in match.tensors
        for line in lines(match.architecture, match.dialect).get(normal(name), ())
        if line.theirs.match(name)
    }
    return sum(match.tensors[name].size for name, leaf in known.items() if leaf not in BUFFERS)

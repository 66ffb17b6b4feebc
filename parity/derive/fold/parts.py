"""Tell parts of an axis that have one width in every model from parts of different parameters, which need not."""

from __future__ import annotations

import itertools
import re
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from parity.derive.trace.program import Program
from parity.derive.trace.sources import Sources, of_one_width, part_sources
from parity.derive.trace.tape import Array

from .names import SPARE, Names
from .related import Atom, Axes

UNKNOWN = "unknown"


class Part(NamedTuple):
    """A part of a sum, (a+b).

    Args:
      origin: the parameter or input that it is made of, with # for the numbers of the blocks that both are in.
    """

    letter: str
    length: int
    origin: str


def origins(program: Program, name: str, axis: int, parts: Array) -> tuple[str, ...] | None:
    """Return the origin of each part of an axis of a parameter; None where all have one width in every model.

    Args:
      parts: the number of the part of each index of the axis, from 0.
    """
    found = part_sources(program, name, axis, parts)
    if found is None:
        return (UNKNOWN,) * (int(parts.max()) + 1)
    return None if of_one_width(found) else tuple(_origin(program, some, name) for some in found)


def _origin(program: Program, sources: Sources, name: str) -> str:
    """Return the source that the model reads first, as the others have its width; as a block's own where it is one."""
    read = {other: program.readers(number)[:1] for other, number in program.tape.parameters.items()}
    first = min(sources, key=lambda source: (read.get(source, [(-1, 0)]), source), default="")
    blocks = [name[: match.end() + 1] for match in re.finditer(r"\d+(?=[./])", name)]
    block = next((block for block in blocks[::-1] if first.startswith(block)), "")
    return first.replace(block, re.sub(r"\d", "#", block)) if block else first


def exchanged(axes: Axes, names: Names, side: int, name: str, stacked: int) -> list[tuple[int, int, list[Part]]]:
    """Make one piece of parts that a concatenation exchanges where these need not be equally wide.

    Returns (axis of the source behind the stacked ones, axis of the target, the parts in the source's order) of each.

    Args:
      axes: pieces without names, of which the exchanged ones become one. side: of the source.
      name: of the source. stacked: how many of its axes stand in its path.
    """
    found = []
    for own, atoms in enumerate(axes.source[stacked:]):
        at = next((k for k, others in enumerate(axes.target) if len(atoms) == 2 and _same(atoms, others)), None)
        if at is None or not atoms[0].backwards or not names.programs:
            continue
        count, width = (atom.length for atom in atoms)
        of = origins(names.programs[side], name, own, np.arange(count * width) // width)
        if of is None:
            continue
        whole = Atom(count * width, atoms[1].axis, 1)
        axes.source[own + stacked], axes.target[at] = [whole], [whole]
        found.append((own, at, [Part("", width, origin) for origin in of]))
    return found


def with_letters(
    source: list[str], target: list[str], found: Sequence[tuple[int, int, Sequence[Part]]]
) -> tuple[Part, ...]:
    """Write (a+b) and (b+a) into the axes of both sides, and return the parts with their letters.

    Args:
      found: see exchanged.
    """
    text = " ".join([*source, *target])
    numbers = itertools.chain([""], map(str, itertools.count(2)))
    free = (letter + number for number in numbers for letter in SPARE if letter not in text)
    every = list[Part]()
    for own, at, parts in found:
        named = [part._replace(letter=next(free)) for part in parts]
        letters = [part.letter for part in named]
        source[own], target[at] = summed(letters), summed(letters[::-1])
        every += named
    return tuple(every)


def _same(atoms: Sequence[Atom], others: Sequence[Atom]) -> bool:
    return len(atoms) == len(others) and all(a is b for a, b in zip(atoms, others, strict=True))


def summed(letters: Sequence[str]) -> str:
    """Write a sum of parts."""
    return f"({'+'.join(letters)})" if len(letters) > 1 else letters[0]

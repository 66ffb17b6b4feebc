"""Write axes whose parts stand in another order on the other side, as (a+b) <-> (b+a), or (-p=2 c) <-> (p c)."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from parity.derive.trace.program import Program
from parity.derive.trace.tape import Array

from .equal_parts import equal_parts
from .names import SPARE, Names
from .part_roles import have_roles
from .parts import Origin, Part, origins, summed
from .permuted import is_in_order, likely_orders
from .related import Atom, Axes
from .rows import DIM, Row

MOST_PARTS = 8  # equal ones in another order that are written out


@dataclass(frozen=True)
class Swap:
    """Parts of an axis that stand in another order on the other side.

    Args:
      own: the axis of the source, behind the stacked ones. at: the axis of the target.
      parts: in the source's order. order: of the target, as places among them.
      equal: whether every model has as many of them, of one length: (a=1+b=1+e=1 c) <-> (b+e+a c).
    """

    own: int
    at: int
    parts: Sequence[Part]
    order: Sequence[int]
    equal: bool = False


def exchanged(axes: Axes, names: Names, side: int, name: str, stacked: int) -> list[Swap]:
    """Make one piece of parts that a concatenation exchanges where these need not be equally wide.

    Args:
      axes: pieces without names, of which the exchanged ones become one. side: of the source.
      name: of the source. stacked: how many of its axes stand in its path.
    """
    found = []
    for own, atoms in enumerate(axes.source[stacked:]):
        at = next((k for k, others in enumerate(axes.target) if len(atoms) == 2 and _same_atoms(atoms, others)), None)
        if at is None or not atoms[0].backwards:
            continue
        count, width = (atom.length for atom in atoms)
        of = origins(names, side, name, own, np.arange(count * width) // width)
        if of is None:
            continue
        whole = Atom(count * width, atoms[1].axis, 1)
        axes.source[own + stacked], axes.target[at] = [whole], [whole]
        found.append(Swap(own, at, [Part("", width, origin) for origin in of], range(count)[::-1]))
    return found


def equal_in_order(
    numbers: Array, shape: tuple[int, ...], names: Names, side: int, name: str, stacked: int
) -> tuple[Array, list[Swap]]:
    """Put equal parts of an axis into the source's order, as gates of an LSTM; those in reverse order stay as they are.

    Args:
      numbers: for each element of the target, the place in the flat source, from 0.
      shape: of the source. side, name, stacked: see exchanged.
    """
    if not names.programs:
        return numbers, []
    for at, axis, places in likely_orders(numbers, shape):
        order = _blocks(places)
        is_sure = _are_parts(order, (names.programs[side], name, axis - stacked), len(places)) and axis >= stacked
        if is_sure and is_in_order(numbers, shape, at, axis, places):
            parts = [Part("", len(places) // len(order), Origin())] * len(order)
            return np.take(numbers, np.argsort(places), at), [Swap(axis - stacked, at, parts, order, True)]
    for at, axis, order in _orders_of_stacks(numbers, shape):
        if axis >= stacked and _are_parts(order, (names.programs[side], name, axis - stacked), shape[axis]):
            parts, width = [Part("", shape[axis] // len(order), Origin())] * len(order), numbers.shape[at] // len(order)
            places = (np.argsort(order)[:, None] * width + np.arange(width)).ravel()
            return np.take(numbers, places, at), [Swap(axis - stacked, at, parts, order, True)]
    return numbers, []


def _are_parts(order: list[int], where: tuple[Program, str, int], length: int) -> bool:
    """Tell whether so many parts of an axis are a number of the code, and in an order that has to be written out."""
    if not 2 < len(order) <= MOST_PARTS or order == [*range(len(order))][::-1]:
        return False
    return equal_parts(*where, len(order)) and have_roles(*where, len(order), length // len(order))


def _orders_of_stacks(numbers: Array, shape: tuple[int, ...]) -> Iterator[tuple[int, int, list[int]]]:
    """Yield (axis, axis of the source, order of its parts) where one side has the parts as an axis, as gates.

    Args:
      numbers, shape: see equal_in_order.
    """
    for (at, length), (own, other) in itertools.product(enumerate(numbers.shape), enumerate(shape)):
        count = min(length, other)
        if length == other or count <= 2 or max(length, other) % count:
            continue
        row = numbers[tuple(slice(None) if k == at else 0 for k in range(numbers.ndim))]
        parts = (row // math.prod(shape[own + 1 :]) % other // (other // count)).reshape(count, -1)
        order = parts[:, 0].astype(int).tolist()
        if (parts == parts[:, :1]).all() and sorted(order) == [*range(count)] != order:
            yield at, own, order


def _blocks(places: Array) -> list[int]:
    """Return the order of the widest equal parts that places of an axis keep whole; [] where all are in order."""
    in_order = (np.diff(places) == 1).all()
    for count in (count for count in range(2, len(places)) if len(places) % count == 0 and not in_order):
        blocks = places.reshape(count, -1)
        if (np.diff(blocks, axis=1) == 1).all() and not (blocks[:, 0] % blocks.shape[1]).any():
            return (blocks[:, 0] // blocks.shape[1]).tolist()
    return []


def with_letters(source: list[str], target: list[str], found: Sequence[Swap]) -> tuple[Part, ...]:
    """Write (a+b) and (b+a) into the axes of both sides, and return the parts that need not be equal, with letters."""
    text = " ".join([*source, *target])
    numbers = itertools.chain([""], map(str, itertools.count(2)))
    free = (letter + number for number in numbers for letter in SPARE if letter not in text)
    every = list[Part]()
    for swap in found:
        named = [replace(part, letter=next(free)) for part in swap.parts]
        letters = [part.letter for part in named]
        others = [letters[k] for k in swap.order]
        if swap.equal:
            source[swap.own], target[swap.at] = _in_parts(source[swap.own], target[swap.at], letters, others)
        else:
            source[swap.own], target[swap.at] = summed(letters), summed(others)
            every += named
    return tuple(every)


def in_other_order(row: Row, swap: Swap) -> Row:
    """Write the order of equal parts into a line of several sources, of which each has them: (a=1+b=1+e=1 o)."""
    sources, target = [(path, DIM.findall(axes or "")) for path, axes in row.left], DIM.findall(row.right[0][1] or "")
    text = " ".join(itertools.chain(target, *(axes for _, axes in sources)))
    letters = [letter for letter in SPARE if letter not in text][: len(swap.order)]
    others, to = [letters[k] for k in swap.order], target[swap.at]
    for _, axes in sources:
        axes[swap.own], target[swap.at] = _in_parts(axes[swap.own], to, letters, others)
    left = tuple((path, " ".join(axes)) for path, axes in sources)
    return replace(row, left=left, right=((row.right[0][0], " ".join(target)),))


def _in_parts(own: str, other: str, letters: Sequence[str], others: Sequence[str]) -> tuple[str, str]:
    """Write the parts of an axis, in the order of each side: (a=1+b=1 c) and (b+a c), or (b+a) where it has no more."""
    stated, is_stack = "+".join(f"{letter}=1" for letter in letters), own.startswith("(") != other.startswith("(")
    pieces = [text.strip("()").split(" ")[is_stack:] for text in (own, other)]
    first, second = (" ".join([parts, *rest]) for parts, rest in zip((stated, "+".join(others)), pieces, strict=True))
    return f"({first})", f"({second})"


def _same_atoms(atoms: Sequence[Atom], others: Sequence[Atom]) -> bool:
    return len(atoms) == len(others) and all(a is b for a, b in zip(atoms, others, strict=True))

"""Read from an array of element numbers how an array's axes are made of those of another."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from parity.derive.match.stepped import steps
from parity.derive.trace.tape import Array


@dataclass
class Atom:
    """A piece of an axis that is whole on both sides.

    Args:
      length: how many steps it has.
      axis, inner: the axis of the source, and how many of its elements one step passes.
      backwards: whether it runs the other way.
      stated: whether the line states its length.
    """

    length: int
    axis: int
    inner: int
    backwards: bool = False
    name: str = ""
    stated: bool = False


@dataclass(frozen=True)
class Axes:
    """An array's axes as compositions of pieces, on both sides.

    Args:
      source, target: the pieces of each axis, outermost first; none for an axis of length 1.
      windows: the range of each source axis that is used; None for all of it.
    """

    source: list[list[Atom]]
    target: list[list[Atom]]
    windows: list[tuple[int, int] | None]


def relate(numbers: Array, shape: Sequence[int]) -> Axes | None:
    """Express the target's axes by the source's; None where no composition of axes does.

    Args:
      numbers: for each element of the target, the place in the flat source, from 0.
      shape: the source's.
    """
    if (lines := steps(numbers)) is None:
        return None
    origin = int(numbers[(0,) * numbers.ndim])
    target: list[list[Atom]] = []
    for line in lines:
        pieces = _runs(line) if len(line) > 1 else []
        atoms = None if pieces is None else [_placed(*piece, shape) for piece in pieces]
        if atoms is None or any(found is None for found in atoms):
            return None
        target.append([atom for found in atoms for atom in found or []])
    source, windows = [], []
    for axis, length in enumerate(shape):
        own = sorted((a for row in target for a in row if a.axis == axis), key=lambda a: -a.inner)
        start = origin // math.prod(shape[axis + 1 :]) % length
        covered = math.prod(a.length for a in own)
        expected = sum((a.length - 1) * a.inner for a in own if a.backwards)
        tiled = all(a.inner == math.prod(b.length for b in own[k + 1 :]) for k, a in enumerate(own))
        window = None if covered == length else (start, start + covered)
        if not tiled or (window is None and start != expected) or (window and (len(own) > 1 or expected)):
            return None
        source.append(own)
        windows.append(window)
    return Axes(source, target, windows)


def _runs(line: Array) -> list[tuple[int, int]] | None:
    """Return (length, step) of nested arithmetic progressions, outermost first."""
    n, step = len(line), int(line[1])
    steady = np.flatnonzero(line != step * np.arange(n))
    run = int(steady[0]) if len(steady) else n
    for length in (m for m in range(run, 1, -1) if n % m == 0):
        heads = line[::length]
        if np.array_equal(line.reshape(-1, length), heads[:, None] + step * np.arange(length)):
            outer = _runs(heads) if len(heads) > 1 else []
            return None if outer is None else [*outer, (length, step)]
    return None


def _placed(length: int, step: int, shape: Sequence[int]) -> list[Atom] | None:
    """Return a progression as pieces of single source axes, outermost first."""
    for axis in reversed(range(len(shape))):
        stride = math.prod(shape[axis + 1 :])
        if shape[axis] == 1 or abs(step) < stride or abs(step) >= stride * shape[axis] or step % stride:
            continue
        inner = abs(step) // stride
        room = shape[axis] // inner
        if length <= room:
            return [Atom(length, axis, inner, step < 0)]
        if shape[axis] % inner or length % room:
            return None
        outer = _placed(length // room, step * room, shape)
        return None if outer is None else [*outer, Atom(room, axis, inner, step < 0)]
    return None

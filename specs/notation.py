"""Parse the lines of dialects, "path: axes" on both sides, and compute moves between two layouts of one array.

    conv.kernel: o i h w                         weight: o i h w
    blocks.{i}.to_former.query.kernel: h i o     blocks.{i}.toformer_bridge.heads_q_proj.{h}.weight: i o
    levels.{l}.blocks.{b}.vertical.norm.scale: (g o)     levels.{l}.fn.{b+2}.1.norm.1.weight: (o g)

A word in braces stands for a number: one of the path's own (`{b}`), the same shifted (`{b+2}`), one that the Config
holds (`{depth+5}`) or a position it lists (`{position[s]}`). A number that is also an axis of the other side stacks
that axis: many arrays here, one array there. Parentheses compose axes as in einops. A `View` is one side's way of
holding an array; `moves` translates between any two views of the same array, so reading a line from right to left
is the inverse of reading it from left to right, by construction.
"""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Iterator, Mapping
from functools import cache
from itertools import zip_longest
from typing import Any, NamedTuple

from .moves import Move

Axes = tuple[tuple[str, ...], ...]  # each dimension as the axes composed in it; () is a dimension of length 1


@cache
def parse_axes(text: str) -> Axes:
    """ "(g o) h 1" -> (("g", "o"), ("h",), ())."""
    if not re.fullmatch(r"(\s*(\(\s*\w+(\s+\w+)*\s*\)|\w+))*\s*", text):
        raise ValueError(f"axes {text!r} are not names and (compositions of names)")
    groups = (tuple((m[1] or m[2]).split()) for m in re.finditer(r"\(([^)]*)\)|(\w+)", text))
    return tuple(() if group == ("1",) else group for group in groups)


def atoms(axes: Axes) -> list[str]:
    """All elementary axes, in order."""
    return [axis for group in axes for axis in group]


def shape_of(axes: Axes, sizes: Mapping[str, int]) -> tuple[int, ...]:
    """The array shape that axes of these sizes make."""
    return tuple(math.prod(sizes[axis] for axis in group) for group in axes)


class Path:
    """A name with holes: "blocks.{i}.fn.{b+2}" fills numbers in, and reads them back out of a name."""

    HOLE = re.compile(r"\{(\w+)(?:\[(\w+)\]|\+(\d+))?\}")
    DIGITS = re.compile(r"\d{1,18}")

    def __init__(self, text: str):
        self.text = text
        self.literals, self.holes = self._parsed(text)
        self.prefix = self.literals[0]

    @classmethod
    @cache
    def _parsed(cls, text: str) -> tuple[list[str], list[tuple[str, str | None, int]]]:
        """What stands before, between and after the holes; (word, index into it, shift) of each hole."""
        found = list(cls.HOLE.finditer(text))
        edges = zip([0, *(hole.end() for hole in found)], [*(hole.start() for hole in found), len(text)], strict=True)
        return [text[start:end] for start, end in edges], [(hole[1], hole[2], int(hole[3] or 0)) for hole in found]

    def fill(self, numbers: Mapping[str, int], config: Any = None) -> str:
        """The name, with `numbers` in its holes; words they lack are looked up in `config`."""
        return "".join(
            literal + part
            for literal, part in zip(
                self.literals, [*(self._number(h, numbers, config) for h in self.holes), ""], strict=True
            )
        )

    @staticmethod
    def _number(hole: tuple[str, str | None, int], numbers: Mapping[str, int], config: Any) -> str:
        word, index, shift = hole
        if index is not None:
            return str(getattr(config, word)[numbers[index]])
        return str((numbers[word] if word in numbers else getattr(config, word)) + shift)

    def match(self, name: str, whole: bool = True) -> tuple[dict[str, int], str] | None:
        """Numbers read out of a name, and what follows the path in it; None where it does not fit.

        With whole=False the path may be the head of a name, up to a separator.
        """
        if not name.startswith(self.prefix):  # most names, at once
            return None
        numbers: dict[str, int] = {}
        at = 0
        for literal, hole in zip_longest(self.literals, self.holes):
            digits = self.DIGITS.match(name, at + len(literal)) if hole else None
            if not name.startswith(literal, at) or (hole and not digits):
                return None
            at += len(literal)
            if hole and digits:
                word, index, shift = hole
                key, value = (f"{word}[{index}]" if index else word), int(digits[0]) - shift
                if value < 0 or numbers.setdefault(key, value) != value or str(int(digits[0])) != digits[0]:
                    return None
                at = digits.end()
        fits = at == len(name) or (not whole and name[at] in "./")
        return (numbers, name[at:]) if fits else None


class View(NamedTuple):
    """How one side holds one array.

    Args:
      hub: the array's own dimensions in this side's axes.
      names: tensor name by the numbers of the stacked axes; {(): name} where one tensor holds it all.
      stacked: the axes that stand in the names.
      axes: dimensions of each tensor.
      sizes: length of every axis.
    """

    hub: Axes
    names: Mapping[tuple[int, ...], str]
    stacked: tuple[str, ...]
    axes: Axes
    sizes: Mapping[str, int]

    @property
    def shape(self) -> tuple[int, ...]:
        return shape_of(self.axes, self.sizes)

    def refine(self, finer: Mapping[str, tuple[str, ...]], sizes: Mapping[str, int]) -> View:
        """The same view, with axes split as `finer` says."""
        if not finer:
            return self

        def split(axes: Axes) -> Axes:
            return tuple(tuple(a for axis in group for a in finer.get(axis, (axis,))) for group in axes)

        return View(split(self.hub), self.names, self.stacked, split(self.axes), {**self.sizes, **sizes})


def view(hub: Axes, path: Path, axes: Axes, sizes: Mapping[str, int], numbers: Mapping[str, int], config: Any) -> View:
    """The view that a line gives: its path filled, axes that stand in the path stacked.

    Raises: ValueError where the two sides name different axes.
    """
    outer, inner = atoms(hub), atoms(axes)
    stacked = tuple(axis for axis in outer if axis not in inner and any(axis == h[0] for h in path.holes))
    if sorted(outer) != sorted([*inner, *stacked]):
        raise ValueError(f"{hub} and {axes} with {stacked} name different axes")
    names = {
        index: path.fill({**numbers, **dict(zip(stacked, index, strict=True))}, config)
        for index in itertools.product(*(range(sizes[axis]) for axis in stacked))
    }
    return View(hub, names, stacked, axes, sizes)


def align(left: View, right: View) -> tuple[View, View]:
    """Two views of one array in common axes: where one side composes what the other does not, the other splits.

    Raises: ValueError where both compose the same dimension differently.
    """
    to_left: dict[str, tuple[str, ...]] = {}
    to_right: dict[str, tuple[str, ...]] = {}
    for one, other in zip(left.hub, right.hub, strict=True):
        if len(one) == len(other) <= 1:
            if one != other:
                to_right[other[0]] = one  # the same axis under two names
        elif len(other) == 1:
            to_right[other[0]] = one
        elif len(one) == 1:
            to_left[one[0]] = other
        elif one != other:
            raise ValueError(f"({' '.join(one)}) and ({' '.join(other)}) split the same axis in two ways")
    return left.refine(to_left, right.sizes), right.refine(to_right, left.sizes)


def moves(source: View, target: View) -> Iterator[tuple[str, tuple[int, ...], list[Move]]]:
    """(name, shape, moves) of every target tensor: what fills it, each source element used exactly once."""
    source, target = align(source, target)
    length = {**source.sizes, **target.sizes}.__getitem__
    outer, inner = atoms(source.axes), atoms(target.axes)
    for index, name in target.names.items():
        fixed = dict(zip(target.stacked, index, strict=True))
        parts = []
        for source_index, source_name in source.names.items():
            given = dict(zip(source.stacked, source_index, strict=True))
            if any(fixed.get(axis, number) != number for axis, number in given.items()):
                continue
            kept = [axis for axis in outer if axis not in fixed]
            parts.append(
                Move(
                    source_name,
                    tuple(map(length, outer)),
                    tuple(fixed.get(axis, slice(None)) for axis in outer),
                    tuple(kept.index(axis) for axis in inner if axis not in given),
                    tuple(map(length, inner)),
                    tuple(given.get(axis, slice(None)) for axis in inner),
                )
            )
        yield name, target.shape, parts

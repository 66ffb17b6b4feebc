"""Parse, print and measure axes of arrays.

(h d) c               composed axes, as in einops
(g=4 h) i             a length that is written down
o i -h -w             reversed axes
(g r+1+1 d) c         parts of unequal lengths, joined within each g
p[2:] d               a window: the line speaks of positions 2 and on
o[@classes.txt] c     output o stands where line o of the file (from 0) says
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from .paths import NAME

_PART = re.compile(rf"(-?)({NAME})(?:=([1-9]\d{{0,14}}))?(?:\[@([^\[\]\s]+)\])?|1")
_WINDOW = re.compile(r"\[(-?\d{1,15})?:(-?\d{1,15})?\]")


class Part(NamedTuple):
    """One axis, or a summand of one.

    Args:
      name: "" for length 1.
      order: the file of its order, if any.
      length: if it is written, else 0.
    """

    name: str
    backwards: bool = False
    order: str = ""
    length: int = 0

    @property
    def turn(self) -> tuple[bool, str]:
        """Tell how its elements are ordered: (False, "") runs forward."""
        return self.backwards, self.order

    def __str__(self) -> str:
        length = f"={self.length}" if self.length else ""
        order = f"[@{self.order}]" if self.order else ""
        return "-" * self.backwards + (self.name or "1") + length + order


Factor = tuple[Part, ...]  # parts that follow each other along one axis


class Dim(NamedTuple):
    """One dimension of an array: factors composed as in einops, and the range of it that the line speaks of."""

    factors: tuple[Factor, ...]
    window: tuple[int | None, int | None] | None = None

    def __str__(self) -> str:
        texts = ["+".join(map(str, factor)) for factor in self.factors]
        plain = len(self.factors) == 1 and len(self.factors[0]) == 1
        text = texts[0] if plain else f"({' '.join(texts)})" if texts else "1"
        if self.window is None:
            return text
        start, stop = ("" if edge is None else str(edge) for edge in self.window)
        return f"{text}[{start}:{stop}]"


Axes = tuple[Dim, ...]


def plain(names: Iterable[str]) -> Axes:
    """Return one dimension for each name."""
    return tuple(Dim(((Part(name),),)) for name in names)


def parts(axes: Axes) -> list[Part]:
    """Return every named axis, in order."""
    return [part for dim in axes for factor in dim.factors for part in factor if part.name]


def names(axes: Axes) -> list[str]:
    return [part.name for part in parts(axes)]


def shape_of(axes: Axes, sizes: Mapping[str, int]) -> tuple[int, ...]:
    """Return the shape of an array whose axes have these lengths."""
    return tuple(math.prod(total(factor, sizes) for factor in dim.factors) for dim in axes)


def parse_axes(text: str) -> tuple[Dim, ...]:
    """Parse "(g r+1+1 d) i p[2:]" into dimensions. Raises: ValueError."""
    dims: list[Dim] = []
    at = 0
    while at < len(text):
        if text[at].isspace():
            at += 1
            continue
        if text[at] == "(":
            end = text.find(")", at)
            if end < 0 or "(" in text[at + 1 : end]:
                raise ValueError(f"axes {text!r}: parentheses do not nest, and each one closes")
            factors = tuple(_factor(word, text) for word in re.sub(r"\s*\+\s*", "+", text[at + 1 : end]).split())
            end += 1
        else:
            found = _PART.match(text, at)
            if not found:
                raise ValueError(f"axes {text!r} are not names, (compositions of names) and 1")
            factors, end = ((_part(found),),), found.end()
        window = _WINDOW.match(text, end)
        dims.append(Dim(tuple(f for f in factors if f != (Part(""),)), _window(window, text) if window else None))
        at = window.end() if window else end
        if at < len(text) and not text[at].isspace() and text[at] != "(":
            raise ValueError(f"axes {text!r}: {text[at:]!r} is no axis (sums stand in parentheses: (q+k+v))")
    return tuple(dims)


def _factor(word: str, text: str) -> Factor:
    found = [_PART.fullmatch(item) for item in word.split("+")]
    if not all(found):
        raise ValueError(f"axes {text!r}: {word!r} is neither a name nor a sum of names and 1")
    return tuple(_part(match) for match in found if match)


def _part(found: re.Match[str]) -> Part:
    return Part(found[2] or "", bool(found[1]), found[4] or "", int(found[3] or 0))


def _window(found: re.Match[str], text: str) -> tuple[int | None, int | None] | None:
    start, stop = (None if edge is None else int(edge) for edge in found.groups())
    start = start or None if start is None or start >= 0 else start
    if start is None and stop is None:
        return None
    if stop is not None and (stop < 0) == ((start or 0) < 0) and stop <= (start or 0):
        raise ValueError(f"axes {text!r}: the window {found[0]} is empty")
    return start, stop


def solve(dim: Dim, length: int | None, sizes: Mapping[str, int]) -> dict[str, int]:
    """Solve a dimension for its only unknown axis; {} if there are several or none. Raises: ValueError if none fits."""
    inner = window(dim, length)
    open_factors = [factor for factor in dim.factors if any(part.name and part.name not in sizes for part in factor)]
    known = math.prod(total(factor, sizes) for factor in dim.factors if factor not in open_factors)
    if inner is None or len(open_factors) > 1:
        return {}
    if not open_factors:
        if known != inner:
            raise ValueError(f"{dim} is {spelt(dim, sizes)}, not {inner}")
        return {}
    (factor,) = open_factors
    names = [part.name for part in factor if part.name and part.name not in sizes]
    if not known or inner % known:
        raise ValueError(f"{inner} is no multiple of {known} ({dim})")
    rest = inner // known - total([part for part in factor if part.name not in names], sizes)
    if rest < 0:
        raise ValueError(f"{inner} is too short for {dim}")
    return {names[0]: rest} if len(names) == 1 else {}


def total(factor: Factor | list, sizes: Mapping[str, int]) -> int:
    """Return length of a factor: the sum of its parts."""
    return sum(sizes[part.name] if part.name else 1 for part in factor)


def spelt(dim: Dim, sizes: Mapping[str, int]) -> str:
    """Return "12 x 64" of (h d)."""
    return " x ".join(str(total(factor, sizes)) for factor in dim.factors) or "1"


def window(dim: Dim, length: int | None) -> int | None:
    """Tell how many positions a dimension's line speaks of. Raises: ValueError where its window does not fit."""
    if dim.window is None:
        return length
    start, stop = dim.window
    if length is not None:
        first, last, _ = slice(start, stop).indices(length)
        if first > last or max(abs(start or 0), abs(stop or 0)) > length:
            raise ValueError(f"{length} is too short for the window of {dim}")
        return last - first
    if (start or 0) >= 0 and stop is not None and stop > 0:
        return stop - (start or 0)
    if start is not None and start < 0 and (stop is None or stop < 0):
        return (stop or 0) - start
    return None


def full(dim: Dim, sizes: Mapping[str, int]) -> int | None:
    """Return length of a whole dimension; None where only a window with fixed ends is known."""
    inner = math.prod(total(factor, sizes) for factor in dim.factors)
    if dim.window is None:
        return inner
    start, stop = dim.window
    if (start or 0) >= 0 and (stop is None or stop < 0):
        return (start or 0) + inner - (stop or 0)
    return None

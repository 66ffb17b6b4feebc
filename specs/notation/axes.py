"""Parse, print and measure axes of arrays.

(h d) c               composed axes, as in einops
(g=4 h) i             a length that is written down
o i -h -w             reversed axes
(g r+1+1 d) c         parts of unequal lengths, joined within each g
p[2:] d               a window: the line speaks of positions 2 and on
(s[:-1] c) i          the same of one factor: all blocks of c but the last; (1[2:] c) is the third of three
o[@classes.txt] c     output o stands where line o of the file (from 0) says
"""

import math
import re
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from .paths import NAME

_PART = re.compile(rf"(-?)({NAME})(?:=([1-9]\d{{0,14}}))?(?:\[@([^\[\]\s]+)\])?|1")
_WINDOW = re.compile(r"\[(-?\d{1,15})?:(-?\d{1,15})?\]")


Window = tuple[int | None, int | None]


class Part(NamedTuple):
    """One axis, or a summand of one.

    Args:
      name: "" for length 1.
      order: the file of its order, if any.
      length: if it is written, else 0.
      window: the range of a factor of a composition that the line speaks of.
    """

    name: str
    backwards: bool = False
    order: str = ""
    length: int = 0
    window: Window | None = None

    @property
    def turn(self) -> tuple[bool, str]:
        """Tell how its elements are ordered: (False, "") runs forward."""
        return self.backwards, self.order

    def __str__(self) -> str:
        length = f"={self.length}" if self.length else ""
        order = f"[@{self.order}]" if self.order else ""
        return "-" * self.backwards + (self.name or "1") + length + order + _range(self.window)


def _range(window: Window | None) -> str:
    """Write a window as a slice."""
    return "" if window is None else "[{}:{}]".format(*("" if edge is None else edge for edge in window))


Factor = tuple[Part, ...]  # parts that follow each other along one axis


class Dim(NamedTuple):
    """One dimension of an array: factors composed as in einops, and the range of it that the line speaks of."""

    factors: tuple[Factor, ...]
    window: Window | None = None

    def __str__(self) -> str:
        texts = ["+".join(map(str, factor)) for factor in self.factors]
        plain = len(self.factors) == 1 and len(self.factors[0]) == 1
        text = texts[0] if plain else f"({' '.join(texts)})" if texts else "1"
        return text + _range(self.window)


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
    return tuple(math.prod(extent(factor, sizes) or 0 for factor in dim.factors) for dim in axes)


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
                how = "parentheses do not nest, and each one closes: h, k and v blocks of d are (h+k+v d)"
                raise ValueError(f"axes {text!r}: {how}")
            factors = tuple(_factor(word, text) for word in re.sub(r"\s*\+\s*", "+", text[at + 1 : end]).split())
            end += 1
        else:
            part = _PART.match(text, at)
            if not part:
                raise ValueError(f"axes {text!r}: {text[at:]!r}: an axis is a name, a composition such as (s u), or 1")
            factors, end = ((_part(part),),), part.end()
        window = _WINDOW.match(text, end)
        dims.append(_dim(factors, _window(window, text) if window else None, text))
        at = window.end() if window else end
        if at < len(text) and not text[at].isspace() and text[at] != "(":
            raise ValueError(f"axes {text!r}: {text[at:]!r} is no axis (sums stand in parentheses: (q+k+v))")
    return tuple(dims)


def _dim(factors: tuple[Factor, ...], window: Window | None, text: str) -> Dim:
    """Return a dimension; the window of its only factor is its own."""
    factors = tuple(f for f in factors if f != (Part(""),))
    own = [part.window for factor in factors for part in factor if part.window]
    if own and window:
        raise ValueError(f"axes {text!r}: a window of a window")
    if own and len(factors) == 1:
        ((part,),) = factors
        return Dim(((part._replace(window=None),),) if part.name else (), own[0])
    return Dim(factors, window)


def _factor(word: str, text: str) -> Factor:
    terms = [_PART.fullmatch(item) for item in word.split("+")]
    if len(terms) == 1 and (one := _PART.match(word)) and (range_ := _WINDOW.fullmatch(word, one.end())):
        return (_part(one)._replace(window=_window(range_, text)),)
    if not all(terms):
        raise ValueError(f"axes {text!r}: {word!r} is neither a name nor a sum of names and 1")
    return tuple(_part(match) for match in terms if match)


def _part(match: re.Match[str]) -> Part:
    return Part(match[2] or "", bool(match[1]), match[4] or "", int(match[3] or 0))


def _window(match: re.Match[str], text: str) -> Window | None:
    """Return the ends of a window such as [2:-1]; None for [0:], the whole axis. Raises: ValueError if it is empty."""
    start, stop = (None if edge is None else int(edge) for edge in match.groups())
    first = start or 0
    if stop == 0 or (stop is not None and (stop < 0) == (first < 0) and stop <= first):  # from the same end of the axis
        raise ValueError(f"axes {text!r}: the window {match[0]} is empty")
    return (start or None, stop) if start or stop else None


def solve(dim: Dim, length: int | None, sizes: Mapping[str, int]) -> dict[str, int]:
    """Solve a dimension for its only unknown axis; {} if there are several or none. Raises: ValueError if none fits."""
    inner = _within(dim.window, length, dim)
    extents = [extent(factor, sizes) for factor in dim.factors]
    known = math.prod(size for size in extents if size is not None)
    if inner is None or extents.count(None) > 1:
        return {}
    if None not in extents:
        if known != inner:
            said = f"{dim} is {spelt(dim, sizes)}, not {inner}" if dim.factors else f"an axis is {inner}, not 1"
            raise ValueError(said)
        return {}
    factor = dim.factors[extents.index(None)]
    if not known or inner % known:
        raise ValueError(f"{inner} is no multiple of {known}, as {dim} needs")
    unknown = [part.name for part in factor if part.name and part.name not in sizes]
    names = set(unknown)
    rest = _within(factor[0].window, inner // known, dim) or 0
    rest -= total([part for part in factor if part.name not in names], sizes)
    if rest < 0 or (rest and not names):
        raise ValueError(f"{inner} is too {'short' if rest < 0 else 'long'} for {dim}")
    if len(names) != 1:
        return {}
    if rest % len(unknown):
        raise ValueError(f"{rest} is no multiple of {len(unknown)}, as {dim} needs")
    return {unknown[0]: rest // len(unknown)}


def total(factor: Factor | list, sizes: Mapping[str, int]) -> int:
    """Return length of a factor: the sum of its parts."""
    return sum(sizes[part.name] if part.name else 1 for part in factor)


def extent(factor: Factor, sizes: Mapping[str, int]) -> int | None:
    """Return length of a factor with what is outside of its window; None where an axis or that is unknown."""
    if any(part.name and part.name not in sizes for part in factor):
        return None
    return _around(factor[0].window, total(factor, sizes))


def spelt(dim: Dim, sizes: Mapping[str, int]) -> str:
    """Return "12 x 64" of (h d)."""
    return " x ".join(str(extent(factor, sizes)) for factor in dim.factors) or "1"


def _within(window: Window | None, length: int | None, dim: Dim) -> int | None:
    """Tell how many positions a window leaves of a length. Raises: ValueError where it does not fit."""
    if window is None:
        return length
    start, stop = window
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


def _around(window: Window | None, inner: int) -> int | None:
    """Tell how long that is of which a window leaves `inner`; None where the window has fixed ends."""
    start, stop = window or (None, None)
    return (start or 0) + inner - (stop or 0) if (start or 0) >= 0 and (stop is None or stop < 0) else None


def full(dim: Dim, sizes: Mapping[str, int]) -> int | None:
    """Return length of a whole dimension; None where only a window with fixed ends is known."""
    extents = [extent(factor, sizes) for factor in dim.factors]
    return None if None in extents else _around(dim.window, math.prod(size or 0 for size in extents))

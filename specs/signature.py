r"""The signature of an array in a Table: "path: axes", parsed and printed.

    blocks.{i}.attn.{s=query|key|value}.weight: (h d) c     holes count, or list values
    net.{2*i+1}.weight: o i -h -w                           computed numbers; reversed axes
    qkv.weight: (g r+1+1 d) c                               parts of unequal lengths, joined within each g
    positions: p[2:] d                                      a window: the line speaks of positions 2 and on
    head.weight: o[@classes.txt] c                          output o stands where line o of the file (from 0) says

A path is any name without white space. A backslash makes the next character literal (\\ \{ \} \: \# \| \.), and \uXXXX
or \UXXXXXXXX names any character, white space too.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple

AXIS = r"[^\W\d]\w*"
MAX_VALUES = 10_000  # that one hole lists
_RANGE = re.compile(r"(0|[1-9]\d{0,8})\.\.(0|[1-9]\d{0,8})")
_HOLE = re.compile(rf"(?:([1-9]\d{{0,5}})\*)?({AXIS})(?:([+-])(\d{{1,9}}))?")
_PART = re.compile(rf"(-?)({AXIS})(?:\[@([^\[\]\s]+)\])?|1")
_WINDOW = re.compile(r"\[(-?\d{1,15})?:(-?\d{1,15})?\]")


class Hole(NamedTuple):
    """A gap in a path: the word that `values` lists for its index, or the number scale * index + shift."""

    name: str
    scale: int = 1
    shift: int = 0
    values: tuple[str, ...] | None = None

    def fill(self, index: int) -> str:
        return self.values[index] if self.values is not None else str(self.scale * index + self.shift)

    def __str__(self) -> str:
        if self.values is not None:
            return f"{{{self.name}={_listed(self.values)}}}"
        scale = f"{self.scale}*" if self.scale != 1 else ""
        return f"{{{scale}{self.name}{f'{self.shift:+d}' if self.shift else ''}}}"


class Part(NamedTuple):
    """One axis, or a summand of one: its name ("" for length 1), backwards or not, and the file of its order if any."""

    name: str
    backwards: bool = False
    order: str = ""

    def __str__(self) -> str:
        return "-" * self.backwards + (self.name or "1") + (f"[@{self.order}]" if self.order else "")


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


class Signature(NamedTuple):
    """An array's path, literal text and holes in turn, and its dimensions; None where they do not matter (drops)."""

    path: tuple[str | Hole, ...]
    axes: tuple[Dim, ...] | None

    @property
    def holes(self) -> list[Hole]:
        return [piece for piece in self.path if isinstance(piece, Hole)]

    def parts(self) -> Iterator[Part]:
        """Every named axis."""
        for dim in self.axes or ():
            for factor in dim.factors:
                yield from (part for part in factor if part.name)

    def parts_of_sums(self) -> list[Part]:
        """The summands among the axes."""
        factors = [factor for dim in self.axes or () for factor in dim.factors]
        return [part for factor in factors if len(factor) > 1 for part in factor]

    @property
    def label(self) -> str:
        """The path alone, as it is written."""
        return "".join(str(piece) if isinstance(piece, Hole) else escaped(piece) for piece in self.path)

    def __str__(self) -> str:
        if self.axes is None:  # a label alone could be taken for another word of the line
            words = ("drop", "=", "+", "->", "<-", "<->")
            return f"\\u{ord(self.label[0]):04x}{self.label[1:]}" if self.label in words else self.label
        return " ".join([f"{self.label}:", *map(str, self.axes)])


def escaped(text: str, special: str = "{}\\") -> str:
    """Text of a name as a path spells it."""
    found = []
    for at, c in enumerate(text):
        if c in special or (c == "#" and at == 0) or (c == ":" and at == len(text) - 1):
            found.append("\\" + c)
        elif c.isprintable() and not c.isspace():
            found.append(c)
        else:
            found.append(f"\\u{ord(c):04x}" if ord(c) < 0x10000 else f"\\U{ord(c):08x}")
    return "".join(found)


def unescaped(text: str) -> str:
    """The text that `escaped` spelt. Raises: ValueError."""
    return "".join(c for c, _ in _characters(text))


def _characters(text: str) -> Iterator[tuple[str, bool]]:
    """Each character and whether it is meant literally. Raises: ValueError for an escape that does not exist."""
    at = 0
    while at < len(text):
        if text[at] != "\\":
            yield text[at], False
            at += 1
            continue
        mark = text[at + 1 : at + 2]
        digits = {"u": 4, "U": 8}.get(mark, 0)
        code = text[at + 2 : at + 2 + digits]
        if digits and re.fullmatch(rf"[0-9a-fA-F]{{{digits}}}", code) and int(code, 16) < 0x110000:
            yield chr(int(code, 16)), True
        elif not digits and mark and not mark.isalnum():
            yield mark, True
        else:
            raise ValueError(f"{text!r}: a backslash comes before a sign, or as \\u0020")
        at += 2 + digits


def parse_path(text: str) -> tuple[str | Hole, ...]:
    """Literal text and holes in turn. Raises: ValueError."""
    pieces: list[str | Hole] = []
    literal, inner = "", None  # `inner`: the text of the hole that is open, as it is written
    for c, meant in _characters(text):
        if inner is None and c == "{" and not meant:
            if literal:
                pieces.append(literal)
            literal, inner = "", ""
        elif inner is not None and c == "}" and not meant:
            pieces.append(_hole(inner))
            inner = None
        elif inner is not None:
            inner += "\\" + c if meant and not c.isalnum() else c
        elif c == "}" and not meant:
            raise ValueError(f"{text}: }} without {{ (a backslash makes it part of the name)")
        else:
            literal += c
    if inner is not None:
        raise ValueError(f"{text}: {{ without }}")
    if literal:
        pieces.append(literal)
    if not pieces:
        raise ValueError("a path is empty")
    _check_path(text, pieces)
    return tuple(pieces)


def _check_path(text: str, pieces: list[str | Hole]) -> None:
    holes: dict[str, Hole] = {}
    for before, piece in zip([None, *pieces], pieces, strict=False):
        if not isinstance(piece, Hole):
            continue
        if isinstance(before, Hole) and before.values is None and piece.values is None:
            raise ValueError(f"{text}: nothing parts the numbers of {before} and {piece}")
        first = holes.setdefault(piece.name, piece)
        if (first.values is None) != (piece.values is None) or (piece.values and piece.values != first.values):
            raise ValueError(f"{text}: {first} and {piece} are one name with two meanings")


def _hole(text: str) -> Hole:
    name, equals, listed = text.partition("=")
    if equals:
        values = tuple(_values(listed))
        if not re.fullmatch(AXIS, name) or len(set(values)) != len(values):
            raise ValueError(f"{{{text}}}: write a name and distinct values, as in {{s=query|key|value}} or {{i=0..5}}")
        return Hole(name, values=values)
    found = _HOLE.fullmatch(text)
    if not found:
        raise ValueError(f"{{{text}}} is no hole: write {{i}}, {{i+2}}, {{2*i+1}} or {{s=query|key|value}}")
    shift = int(found[4] or 0)
    return Hole(found[2], int(found[1] or 1), -shift if found[3] == "-" else shift)


def _values(text: str) -> Iterator[str]:
    """ "query|key" -> query, key; "0..3|7" -> 0, 1, 2, 3, 7."""
    count = 0
    for item in re.split(r"(?<!\\)\|", text):
        if span := _RANGE.fullmatch(item):
            first, last = int(span[1]), int(span[2])
            step = 1 if first <= last else -1
            if (count := count + abs(last - first)) > MAX_VALUES:
                raise ValueError(f"{{{text[:40]}}} lists over {MAX_VALUES:,} values")
            yield from map(str, range(first, last + step, step))
        else:
            yield unescaped(item)


def _listed(values: tuple[str, ...]) -> str:
    """Values as a hole spells them: whole ranges in short."""
    items, at = [], 0
    while at < len(values):
        run = next((run for step in (1, -1) if len(run := _run(values[at:], step)) > 2), values[at : at + 1])
        items.append(f"{run[0]}..{run[-1]}" if len(run) > 2 else _value(run[0]))
        at += len(run)
    return "|".join(items)


def _run(values: tuple[str, ...], step: int) -> tuple[str, ...]:
    """The values at the beginning that count up or down."""
    if not re.fullmatch(r"0|[1-9]\d{0,8}", values[0]):
        return ()
    first = int(values[0])
    length = next((k for k, value in enumerate(values) if value != str(first + step * k)), len(values))
    return values[:length]


def _value(text: str) -> str:
    return escaped(text, "{}\\|.:#" if _RANGE.fullmatch(text) else "{}\\|:#")


def parse_axes(text: str) -> tuple[Dim, ...]:
    """ "(g r+1+1 d) i p[2:]" as dimensions. Raises: ValueError."""
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
    return Part(found[2] or "", bool(found[1]), found[3] or "")


def _window(found: re.Match[str], text: str) -> tuple[int | None, int | None] | None:
    start, stop = (None if edge is None else int(edge) for edge in found.groups())
    start = start or None if start is None or start >= 0 else start
    if start is None and stop is None:
        return None
    if stop is not None and (stop < 0) == ((start or 0) < 0) and stop <= (start or 0):
        raise ValueError(f"axes {text!r}: the window {found[0]} is empty")
    return start, stop

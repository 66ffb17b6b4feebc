r"""Parse, print, fill and match paths of arrays: names with holes.

    blocks.{i}.attn.{s=query|key|value}.weight     holes count, or list values
    net.{2*i+1}.weight                             computed numbers
    network.{at[s]}.{depth+5}                      in a dialect: a number that the Config lists, or holds

A path is any name without white space. A backslash makes the next character literal (\\ \{ \} \: \# \| \.), and \uXXXX
or \UXXXXXXXX names any character, white space too.
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

NAME = r"[^\W\d]\w*"
MAX_VALUES = 10_000  # that one hole lists
MAX_DIGITS = 9  # of a number in a name
_RANGE = r"(0|[1-9]\d{0,8})\.\.(0|[1-9]\d{0,8})"
_HOLE = re.compile(rf"(?:([1-9]\d{{0,5}})\*)?({NAME}(?:\[{NAME}\])?)(?:([+-])(\d{{1,9}}))?")
_DIGITS = re.compile(r"\d+", re.ASCII)
BLOCK = re.compile(r"(?<=\.)\d+(?=\.|$)")


def pattern(path: str) -> str:
    """Replace the numbers of blocks in a path of ours: "blocks.3.norm1" -> "blocks.#.norm1"."""
    return BLOCK.sub("#", path)


def dotted(path: Iterable[Any]) -> str:
    """Write a path with each number by itself: ("blocks_3", "norm1") or ("blocks", 3, "norm1") -> "blocks.3.norm1"."""
    return ".".join(re.sub(r"_(?=\d+(_\d+)*$)", ".", str(part)) for part in path)


class Hole(NamedTuple):
    """A gap in a path: the word that `values` lists for its index, or the number scale * index + shift.

    A name `at[s]` stands for entry s of the Config's list `at`.
    """

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


Path = tuple[str | Hole, ...]  # literal text and holes in turn


def holes(path: Path) -> list[Hole]:
    return [piece for piece in path if isinstance(piece, Hole)]


def spelt(path: Path) -> str:
    """Return the path as it is written."""
    return "".join(str(piece) if isinstance(piece, Hole) else escaped(piece) for piece in path)


def joined(pieces: Iterable[str | Hole]) -> Path:
    """Return a path of these pieces, neighbouring texts in one."""
    levels: list[str | Hole] = []
    for piece in pieces:
        if levels and isinstance(piece, str) and isinstance(levels[-1], str):
            levels[-1] += piece
        elif piece:
            levels.append(piece)
    return tuple(levels)


def normal(name: str) -> str:
    """Return a name with its numbers folded: names that differ only in numbers have one normal form."""
    return _DIGITS.sub("#", name)


def fill(path: Path, index: Mapping[str, int], config: Any = None) -> str:
    """Return the name at these indices; what they lack is looked up in the Config.

    Raises: AttributeError, IndexError where the Config does not have it.
    """
    return "".join(piece if isinstance(piece, str) else piece.fill(_index(piece.name, index, config)) for piece in path)


def _index(name: str, index: Mapping[str, int], config: Any) -> int:
    if name in index:
        return index[name]
    field, bracket, entry = name.partition("[")
    value = getattr(config, field)
    number: int = value[index[entry[:-1]]] if bracket else value
    return number


def match(path: Path, name: str, whole: bool = True) -> tuple[dict[str, int], str] | None:
    """Return the indices that a name has in its counting holes, and what follows the path; None if it does not fit.

    With whole=False the path may be the head of a name, up to a separator.
    """
    index: dict[str, int] = {}
    at = 0
    for k, piece in enumerate(path):
        if isinstance(piece, str):
            if not name.startswith(piece, at):
                return None
            at += len(piece)
            continue
        digits = _DIGITS.match(name, at)
        number = digits[0] if digits else ""
        if number and k + 1 < len(path):
            number = number.removesuffix(_leading(path[k + 1]))
        if not number or (number[0] == "0" and number != "0") or len(number) > MAX_DIGITS:
            return None
        place, rest = divmod(int(number) - piece.shift, piece.scale)
        if rest or place < 0 or index.setdefault(piece.name, place) != place:
            return None
        at += len(number)
    fits = at == len(name) or (not whole and name[at] in "./")
    return (index, name[at:]) if fits else None


def _leading(piece: str | Hole) -> str:
    """Return the digits with which the text after a hole begins: they are no part of its number."""
    digits = _DIGITS.match(piece) if isinstance(piece, str) else None
    return digits[0] if digits else ""


def escaped(text: str, special: str = "{}\\") -> str:
    """Return text of a name as a path spells it."""
    letters = []
    for at, c in enumerate(text):
        if c in special or (c == "#" and at == 0) or (c == ":" and at == len(text) - 1):
            letters.append("\\" + c)
        elif c.isprintable() and not c.isspace():
            letters.append(c)
        else:
            letters.append(f"\\u{ord(c):04x}" if ord(c) < 0x10000 else f"\\U{ord(c):08x}")
    return "".join(letters)


def unescaped(text: str) -> str:
    """Return the text that `escaped` spelt. Raises: ValueError."""
    return "".join(c for c, _ in _characters(text))


def _characters(text: str) -> Iterator[tuple[str, bool]]:
    """Yield each character and whether it is meant literally. Raises: ValueError for an escape that does not exist."""
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


def parse_path(text: str) -> Path:
    """Return literal text and holes in turn. Raises: ValueError."""
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
    for k, piece in enumerate(pieces):
        if not isinstance(piece, Hole):
            continue
        apart = [p for p in pieces[max(k - 2, 0) : k] if not (isinstance(p, str) and _DIGITS.fullmatch(p))]
        before = apart[-1] if apart else None
        if isinstance(before, Hole) and before.values is None and piece.values is None:
            raise ValueError(f"{text}: nothing parts the numbers of {before} and {piece}")
        first = holes.setdefault(piece.name, piece)
        if (first.values is None) != (piece.values is None) or (piece.values and piece.values != first.values):
            raise ValueError(f"{text}: {first} and {piece} are one name with two meanings")


def _hole(text: str) -> Hole:
    name, equals, listed = text.partition("=")
    if equals:
        values = tuple(_values(listed))
        if not re.fullmatch(NAME, name) or len(set(values)) != len(values):
            raise ValueError(f"{{{text}}}: write a name and distinct values, as in {{s=query|key|value}} or {{i=0..5}}")
        return Hole(name, values=values)
    parsed = _HOLE.fullmatch(text)
    if not parsed:
        raise ValueError(f"{{{text}}} is no hole: write {{i}}, {{i+2}}, {{2*i+1}} or {{s=query|key|value}}")
    shift = int(parsed[4] or 0)
    return Hole(parsed[2], int(parsed[1] or 1), -shift if parsed[3] == "-" else shift)


def _values(text: str) -> Iterator[str]:
    """Yield the values of a hole: "query|key" -> query, key; "0..3|7" -> 0, 1, 2, 3, 7."""
    count = 0
    for item in re.split(r"(?<!\\)\|", text):
        if span := re.fullmatch(_RANGE, item):
            first, last = int(span[1]), int(span[2])
            step = 1 if first <= last else -1
            if (count := count + abs(last - first)) > MAX_VALUES:
                raise ValueError(f"{{{text[:40]}}} lists over {MAX_VALUES:,} values")
            yield from map(str, range(first, last + step, step))
        else:
            yield unescaped(item)


def _listed(values: tuple[str, ...]) -> str:
    """Return values as a hole spells them: whole ranges in short."""
    items, at = [], 0
    while at < len(values):
        run = next((run for step in (1, -1) if len(run := _run(values[at:], step)) > 2), values[at : at + 1])
        items.append(f"{run[0]}..{run[-1]}" if len(run) > 2 else _value(run[0]))
        at += len(run)
    return "|".join(items)


def _run(values: tuple[str, ...], step: int) -> tuple[str, ...]:
    """Return the values at the beginning that count up or down."""
    if not re.fullmatch(r"0|[1-9]\d{0,8}", values[0]):
        return ()
    first = int(values[0])
    length = next((k for k, value in enumerate(values) if value != str(first + step * k)), len(values))
    return values[:length]


def _value(text: str) -> str:
    return escaped(text, "{}\\|.:#" if re.fullmatch(_RANGE, text) else "{}\\|:#")

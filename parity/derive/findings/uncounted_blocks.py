"""Find lines that hold for the depth alone of the models they come from: blocks that no {i} counts."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Iterator, Mapping

from parity.derive.fold.blocks import numbers
from specs.notation.lines import Line, Lines
from specs.notation.paths import Hole, Path

BEFORE_WORDS = re.compile(r"\d+(?=_[A-Za-z])")  # as in down0_conv
NUMBER = re.compile(r"\d+$")
REFUSED = "a checkpoint with more or fewer of these blocks is refused"


def uncounted_blocks(table: Lines) -> list[str]:
    """Return the left paths, up to their last number, of blocks that are numbered on both sides and not folded.

    These are lines that differ in such numbers alone, and lines that list them: {i=0|1}. Layers of different kinds
    under numbers, as a convolution and its norm, are no blocks.
    """
    blocks: dict[str, None] = {}
    groups: dict[tuple[str, ...], list[Line]] = {}
    for line in table.lines:
        if line.kind != "move" or not (line.left.arrays and line.right.arrays):
            continue
        blocks.update(dict.fromkeys(_listed(line)))
        arrays = (*line.left.arrays, *line.right.arrays)
        groups.setdefault(tuple(_blanked(array.path) for array in arrays), []).append(line)
    for lines in groups.values():
        blocks.update(dict.fromkeys(_varying_beginnings([line.left.arrays[0].path for line in lines])))
    inside = _inside(table)
    return [place for place in blocks if _is_block(place, blocks, inside)]


def _inside(table: Lines) -> dict[str, dict[str, int]]:
    """Return {place up to a number: {what follows in the name of an array there: its number of axes}}."""
    inside: dict[str, dict[str, int]] = {}
    for array in (array for line in table.lines for array in line.left.arrays):
        for name in _each(array.path, {hole.name for hole in array.holes}):
            for match in _numbers(name):
                inside.setdefault(name[: match.end()], {})[name[match.end() :]] = len(array.axes or ())
    return inside


def _is_block(place: str, numbered: Iterable[str], inside: Mapping[str, Mapping[str, int]]) -> bool:
    """Tell whether what lies under a number is a block, or a layer like one of those under other numbers."""
    leaves = inside.get(place, {})
    layer = all(name.count(".") + name.count("/") <= 1 for name in leaves)
    siblings = [other for other in numbered if other != place and NUMBER.sub("", other) == NUMBER.sub("", place)]
    return not layer or not siblings or any(inside.get(other, {}) == leaves for other in siblings)


def _listed(line: Line) -> Iterator[str]:
    """Yield the blocks of holes that list numbers and stand in a path of each side, or that list names of blocks."""
    lefts, rights = ({hole.name for array in side.arrays for hole in array.holes} for side in (line.left, line.right))
    for hole in (hole for array in line.arrays for hole in array.holes if hole.name not in lefts & rights):
        yield from _names_of_blocks(hole)
    for array in line.left.arrays:
        at = [
            k
            for k, piece in enumerate(array.path)
            if isinstance(piece, Hole) and piece.name in rights and _is_range(piece)
        ]
        if at:
            yield from _each(array.path[: at[-1] + 1], rights)


def _names_of_blocks(hole: Hole) -> Iterator[str]:
    """Yield those of a hole's values that differ in numbers of blocks alone: enc.0 and enc.1 of {s=enc.0|enc.1|dec}."""
    groups: dict[str, list[str]] = {}
    for value in hole.values or ():
        if not value.isdigit():
            groups.setdefault(_blanked((value,)), []).append(value)
    yield from (value for group in groups.values() if len(group) > 1 for value in group)


def _is_range(hole: Hole) -> bool:
    return hole.values is not None and all(value.isdigit() for value in hole.values)


def _each(path: Path, shared: set[str]) -> Iterator[str]:
    """Yield a path for each number that its holes list; other holes stay as they are written."""
    pieces = [
        piece.values or () if isinstance(piece, Hole) and piece.name in shared and _is_range(piece) else (str(piece),)
        for piece in path
    ]
    yield from map("".join, itertools.product(*pieces))


def _varying_beginnings(paths: list[Path]) -> Iterator[str]:
    """Yield the beginnings of paths that differ in numbers of blocks, up to the last of these."""
    texts = [_plain(path) for path in paths]
    every = [_numbers(text) for text in texts]
    varying = [k for k, column in enumerate(zip(*every, strict=True)) if len({match[0] for match in column}) > 1]
    for path, text, places in zip(paths, texts, every, strict=True) if varying else ():
        holes = iter([str(piece) for piece in path if isinstance(piece, Hole)])
        yield re.sub(r"\{\}", lambda _, holes=holes: next(holes), text[: places[varying[-1]].end()])  # type: ignore[misc]


def _plain(path: Path) -> str:
    """Return a path with {} in the place of each hole."""
    return "".join("{}" if isinstance(piece, Hole) else piece for piece in path)


def _blanked(path: Path) -> str:
    """Return a path with # in the place of each number of a block."""
    text, at, out = _plain(path), 0, ""
    for match in _numbers(text):
        out += f"{text[at : match.start()]}#"
        at = match.end()
    return " ".join([out + text[at:], *(str(piece) for piece in path if isinstance(piece, Hole))])


def _numbers(text: str) -> list[re.Match[str]]:
    every = {match.start(): match for match in (*BEFORE_WORDS.finditer(text), *numbers(text))}
    return [every[at] for at in sorted(every)]

"""Find lines that hold for some blocks alone: for the depth of these models, or for the one block of a list.

No {i} counts the blocks of the former, and the models have no second block that would show a list of the latter.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence

from convert.folding import fold
from parity.derive.fold.blocks import numbers
from specs.notation.lines import Line, Lines
from specs.notation.paths import Hole, Path, joined
from specs.notation.signature import Signature
from specs.words import in_a_row

BEFORE_WORDS = re.compile(r"\d+(?=_[A-Za-z])")  # as in down0_conv
NUMBER = re.compile(r"\d+$")
REFUSED = "a checkpoint with more or fewer of these blocks is refused"
COUNTS = r"\{[^}=]*\}"  # a hole that counts


def uncounted_blocks(table: Lines) -> list[str]:
    """Return the left paths, up to their last number, of blocks that are numbered on both sides and not folded.

    These are lines that differ in such numbers alone, and lines that list them: {i=0|1}. Layers of different kinds
    under numbers, as a convolution and its norm, are no blocks.
    """
    blocks: dict[str, None] = {}
    for line in _moves(table):
        blocks.update(dict.fromkeys(_listed(line)))
    for lines in _by_kind(table):
        blocks.update(dict.fromkeys(_varying_beginnings([path for _, path in lines])))
    inside = _inside(table)
    return [place for place in blocks if _is_block(place, blocks, inside)]


def unlike_orders(table: Lines) -> str:
    """Return REFUSED, and which uncounted blocks have the same parts in different orders or arrays, if any.

    Of several lines in which the same blocks differ, the first one is returned.
    """
    texts: dict[tuple[tuple[str, ...], ...], str] = {}
    for lines in _by_kind(table):
        own: dict[str, list[str]] = {}
        for (line, _), place in zip(lines, _varying_beginnings([path for _, path in lines]), strict=False):
            own.setdefault(place, []).append(_order(line))
        orders: dict[str, list[str]] = {}
        for place, some in own.items():
            orders.setdefault(", ".join(sorted(some)), []).append(place)
        if len(orders) > 1:
            text = in_a_row(f"{in_a_row(fold(places))} as {order}" for order, places in orders.items())
            texts.setdefault(tuple(map(tuple, orders.values())), text)
    differ = "; they differ in the order of parts: "
    return REFUSED + (differ + "; ".join(texts.values())) * bool(texts)


def _order(line: Line) -> str:
    """Return the parts of a line in its order, the names that holes list and its arrays: "k|v", or "up, gate".

    Of a line without such parts, return it without the paths of the blocks: "gate.w: o i <-> up.w: o i".
    """
    arrays = line.left.arrays
    names = ["|".join(hole.values) for array in arrays for hole in array.holes if hole.values and not _is_range(hole)]
    names += [re.split("[./]", str(array.path[-1]))[-1] for array in arrays if len(arrays) > 1]
    return ", ".join(names) or " <-> ".join(_inside_block(array) for array in line.arrays)


def _inside_block(array: Signature) -> str:
    """Return an array without what stands in its path up to the last number of a block."""
    text = str(array.path[-1])
    ends = [match.end() for match in _numbers(text)]
    return str(array._replace(path=(text[ends[-1] if ends else 0 :].lstrip("./_"),)))


def _moves(table: Lines) -> Iterator[Line]:
    """Yield the lines that move arrays of both sides."""
    return (line for line in table.lines if line.kind == "move" and line.left.arrays and line.right.arrays)


def _by_kind(table: Lines) -> Iterator[list[tuple[Line, Path]]]:
    """Yield lines that differ in numbers of blocks alone on the left, each with its first left path.

    They may also differ in the order of their parts, and in the array of a block on the right. A line that lists
    blocks stands there once for each of them, unless it is alone. Kernels and vectors are of different kinds: a
    convolution and a norm have them both as "weight".
    """
    groups: dict[tuple[object, ...], list[Line]] = {}
    for line in _moves(table):
        lefts, rights = (
            tuple(sorted(_blanked(_with_numbers(array.path)[0]) for array in side.arrays))
            for side in (line.left, line.right)
        )
        ranks = tuple(sorted(len(array.axes or ()) for array in line.left.arrays))
        groups.setdefault((lefts, ranks, tuple(path.rpartition("#")[0] or path for path in rights)), []).append(line)
    for lines in groups.values():
        firsts = ((line, _first(line)) for line in lines)
        yield [(line, path) for line, of in firsts for path in (_with_numbers(of) if len(lines) > 1 else [of])]


def _with_numbers(path: Path) -> list[Path]:
    """Return a path once for each number that its holes list."""
    pieces = (piece.values or () if isinstance(piece, Hole) and _is_range(piece) else (piece,) for piece in path)
    return [joined(some) for some in itertools.product(*pieces)]


def _first(line: Line) -> Path:
    """Return the left path that comes first by name: a line may list its arrays in another order than others."""
    return min((array.path for array in line.left.arrays), key=_plain)


def _inside(table: Lines) -> dict[str, dict[str, int]]:
    """Return {place up to a number: {what follows in the name of an array there: its number of axes}}."""
    inside: dict[str, dict[str, int]] = {}
    for array in (array for line in table.lines for array in line.left.arrays):
        for name in ("".join(map(str, path)) for path in _with_numbers(array.path)):
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
    holes = [piece for piece in path if isinstance(piece, Hole)]
    return " ".join([out + text[at:], *("|".join(sorted(hole.values)) if hole.values else str(hole) for hole in holes)])


def _numbers(text: str) -> list[re.Match[str]]:
    every = {match.start(): match for match in (*BEFORE_WORDS.finditer(text), *numbers(text))}
    return [every[at] for at in sorted(every)]


def lone(table: Lines, lefts: Iterable[str], rights: Iterable[str]) -> list[str]:
    """Return the beginnings of paths that hold for one block alone, where the other side has one block there as well.

    Left paths are returned; right ones where the left side stacks its one block along a first axis. A block is the only
    one of its list, if that is one (stages.0), or the only one with some arrays (stages.1.short). Of arrays that
    are dropped under one number of blocks which other lines count, the whole paths are returned: blocks.1.mask.

    Args:
      lefts, rights: the names of both sides' arrays.
    """
    left_names, right_names = list(lefts), list(rights)
    left_texts = [_text(array) for line in table.lines for array in line.left.arrays]
    right_texts = [_text(array) for line in table.lines for array in line.right.arrays]
    beginnings: dict[str, None] = {}
    for line in table.lines:
        if line.kind == "drop":
            beginnings.update(dict.fromkeys(_dropped_alone(line.left.arrays, left_texts)))
            beginnings.update(dict.fromkeys(_dropped_alone(line.right.arrays, right_texts)))
        left = [[*_alone(_text(array), left_names, left_texts)] for array in line.left.arrays]
        right = [[*_alone(_text(array), right_names, right_texts)] for array in line.right.arrays]
        if line.kind != "move":
            continue
        if all(left) and (all(right) or _stacked(line.right.arrays, line.left.arrays)):
            beginnings.update(dict.fromkeys(left[0]))
        elif all(right) and _stacked(line.left.arrays, line.right.arrays):
            beginnings.update(dict.fromkeys(right[0]))
    return list(beginnings)


def _dropped_alone(arrays: Iterable[Signature], texts: list[str]) -> Iterator[str]:
    """Yield the paths of dropped arrays that have a number where other lines of their side count blocks."""
    for text in (_text(array) for array in arrays if not array.windowed):
        if any(_counted(text[: match.start()], int(match[0]), texts) for match in numbers(text)):
            yield text


def _stacked(arrays: Sequence[Signature], others: Sequence[Signature]) -> bool:
    """Tell whether arrays begin with an axis of length 1, and others do not: layers.scale: 1 c <-> h.0.scale: c."""
    one, other = ([not array.axes[0].factors if array.axes else False for array in side] for side in (arrays, others))
    return all(one) and not any(other)


def _text(array: Signature) -> str:
    return "".join(str(piece) if isinstance(piece, Hole) else piece for piece in array.path)


def _alone(text: str, names: list[str], texts: list[str]) -> Iterator[str]:
    """Yield the shortest beginning of a path, for each of its numbers, in which no name has another number there.

    A beginning that ends in its number stands for a list of one block, whose number is 0 or 1. A longer one stands for
    a part that one block has and the others of its list lack: other lines count the blocks of that list, and the path
    counts nothing before it.
    """
    for match in numbers(text):
        start, end = match.span()
        if text.rfind("{", 0, start) > text.rfind("}", 0, start):  # in a hole
            continue
        if match[0] in ("0", "1") and _replacing(text, start, end, end, names) == {match[0]}:
            yield text[:end]
        elif not re.search(COUNTS, text[:start]) and _counted(text[:start], int(match[0]), texts):
            ends = (stop.start() for stop in re.finditer(r"[./]|$", text) if stop.start() > end)
            few = (stop for stop in ends if _replacing(text, start, end, stop, names) == {match[0]})
            yield from (text[:stop] for stop in [*few][:1])


def _replacing(text: str, start: int, end: int, stop: int, names: list[str]) -> set[str]:
    """Return the numbers that names have in the place from `start` to `end` of text[:stop]."""
    before, after = (re.sub(r"\\\{[^}]*\\\}", r"[^./]+", re.escape(part)) for part in (text[:start], text[end:stop]))
    pattern = re.compile(rf"{before}(\d+){after}(?![A-Za-z0-9])")
    return {match[1] for name in names if (match := pattern.match(name))}


def _counted(before: str, number: int, texts: list[str]) -> bool:
    """Tell whether another line counts in the place behind `before`, and this number is among those that it counts."""
    hole = re.compile(rf"{re.escape(before)}\{{(?:(\d+)\*)?\w+(?:\+(\d+))?\}}")
    counts = [(int(match[1] or 1), int(match[2] or 0)) for text in texts if (match := hole.match(text))]
    return any(number >= first and (number - first) % step == 0 for step, first in counts)

"""Prove that the lines of a Table use, or fill, every element of an array once, and state one dtype for it."""

from __future__ import annotations

import itertools
import math
from collections.abc import Collection, Iterator, Mapping, Sequence

from specs.notation.lines import Line

from .places import Box


def gap(boxes: list[tuple[Line, Box | None]], size: int) -> str:
    """Return why the boxes do not cover an array of this size exactly once; "" if they do."""
    lines = " and ".join(dict.fromkeys(f"line {line.number}" for line, _ in boxes))
    whole = [box for _, box in boxes if box is None]
    if whole and len(boxes) > 1:
        return f"is used twice, by {lines}"
    if whole:
        return ""
    parts = [box for _, box in boxes if box is not None]
    if len({atoms for atoms, _ in parts}) > 1:
        parts = [_merged(box) for box in parts]
    if len({atoms for atoms, _ in parts}) > 1:
        cuts = sorted({math.prod(atoms[k:]) for atoms, _ in parts for k in range(len(atoms) + 1)})
        cut = [_cut(box, cuts) for box in parts]
        parts = [box for box in cut if box is not None]
    if len(parts) < len(boxes) or len({atoms for atoms, _ in parts}) > 1:
        return f"is divided by {lines} in ways that do not match: write its axes alike"
    if size and _overlap([spans for _, spans in parts], 0):
        return f"is used twice in places, by {lines}"
    used = sum(math.prod(stop - start for start, stop in spans) for _, spans in parts)
    return "" if used == size else f"is used only in part, by {lines}: {size - used} of {size} elements are left over"


def _merged(box: Box) -> Box:
    """Return the box with each axis of which it has all positions made one with the axis before."""
    lengths, spans = list[int](), list[tuple[int, int]]()
    for length, (start, stop) in zip(*box, strict=True):
        if lengths and (start, stop) == (0, length):
            lengths[-1] *= length
            spans[-1] = (spans[-1][0] * length, spans[-1][1] * length)
        else:
            lengths.append(length)
            spans.append((start, stop))
    return tuple(lengths), tuple(spans)


def _cut(box: Box, cuts: Sequence[int]) -> Box | None:
    """Return the box with its axes cut into finer ones; None if it is no range of each of these.

    Args:
      cuts: how many elements one step along each finer axis passes, from the last axis on, and the size of the array.
    """
    lengths, spans, stride = list[int](), list[tuple[int, int]](), 1
    for length, (start, stop) in zip(*map(reversed, box), strict=True):
        for inner, outer in itertools.pairwise(cut for cut in cuts if stride <= cut <= stride * length):
            n, rest = divmod(outer, inner)
            if rest:
                return None
            if start % n == stop % n == 0:
                span, start, stop = (0, n), start // n, stop // n
            elif start // n == (stop - 1) // n:
                span, start, stop = (start % n, (stop - 1) % n + 1), start // n, start // n + 1
            else:
                return None
            lengths.append(n)
            spans.append(span)
        stride *= length
    return tuple(lengths[::-1]), tuple(spans[::-1])


def _overlap(boxes: list[tuple[tuple[int, int], ...]], axis: int) -> bool:
    """Tell whether any two of these boxes, equal along all axes before this one, share an element."""
    if len(boxes) < 2:
        return False
    if axis == len(boxes[0]):
        return True
    groups: dict[tuple[int, int], list[tuple[tuple[int, int], ...]]] = {}
    for box in boxes:
        groups.setdefault(box[axis], []).append(box)
    spans = sorted(groups)
    if any(later[0] < former[1] for former, later in itertools.pairwise(spans)):  # ranges that differ and meet
        return any(
            all(a[0] < b[1] and b[0] < a[1] for a, b in zip(one, other, strict=True))
            for one, other in itertools.combinations(boxes, 2)
        )
    return any(_overlap(group, axis + 1) for group in groups.values())


def misstated(stated: Mapping[str, Sequence[tuple[str, int]]], moved: Collection[str]) -> Iterator[tuple[str, str]]:
    """Yield (array, what is wrong with its dtype): a part has that of the array's other parts.

    Args:
      stated: dtypes that constants state for each array, "" where none is, each with the number of its line.
      moved: arrays that left arrays fill too.
    """
    for name, dtypes in stated.items():
        first, number = dtypes[0]
        for dtype, line in dtypes:
            if dtype and name in moved:
                yield name, f"takes its dtype from the left arrays that fill the rest: leave out {dtype} (line {line})"
            elif dtype != first:
                yield name, f"has parts of several dtypes (lines {number} and {line}): state one"

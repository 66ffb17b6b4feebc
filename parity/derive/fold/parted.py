"""Write lines for equal parts of an axis that are not in one order: queries and keys in one line, values in another.

Rotary positions order the channels of queries and keys, but not those of values. All parts have one length, which a
sum would ask for part by part: (s[:-1] h r=2 d) <-> {s=q|k}: (h d r) and (1[2:] o) <-> v: o ask for h alone.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import groupby

import numpy as np

from parity.derive.match.symbols import Elements
from parity.derive.trace.tape import Array

from .related import relate
from .rows import Row

Write = Callable[[Sequence[str], Array], list[Row] | None]


def parted(sources: Elements, source_names: Sequence[str], numbers: Array, write: Write) -> list[Row] | None:
    """Return a line for each run of parts whose axes are made alike; None if the parts are unequal, or all alike.

    Args:
      source_names: in the order of the parts. numbers: of the sources' elements, in the shape of the target.
      write: writes the lines for a part of the target that consists of some sources.
    """
    count = len(source_names)
    if len({sources.shapes[name] for name in source_names}) > 1:
        return None
    for axis in range(numbers.ndim):
        if numbers.shape[axis] % count:
            continue
        parts = np.split(numbers, count, axis)
        made = [_made(sources, name, part) for name, part in zip(source_names, parts, strict=True)]
        if "" in made or len(set(made)) == 1:
            continue
        runs = [list(run) for _, run in groupby(range(count), key=made.__getitem__)]
        rows = [_row([source_names[k] for k in run], [parts[k] for k in run], (run[0], count), axis, write)
                for run in runs]  # fmt: skip
        if found := [row for row in rows if row]:
            return found if len(found) == len(rows) else None
    return None


def _made(sources: Elements, name: str, part: Array) -> str:
    """Describe how the axes of a part are made of those of a whole source; "" if they are not."""
    if not np.isin(part, sources.numbers(name)).all():
        return ""
    axes = relate(part - sources.first(name), sources.shapes[name])
    return "" if axes is None or any(axes.windows) else str(axes.target)


def _row(names: Sequence[str], parts: Sequence[Array], place: tuple[int, int], axis: int, write: Write) -> Row | None:
    """Return the line of parts that stand one behind the other.

    Args:
      place: the number of the first part, and of all of them in the target.
    """
    rows = write(names, np.concatenate(parts, axis))
    if not rows or len(rows) > 1:
        return None
    ((path, axes),) = rows[0].right
    texts = dims(axes or "")
    inside = texts[axis].strip("()")
    number, _, rest = inside.partition(" ") if len(names) > 1 else ("1", "", inside)
    if "+" in number or (len(names) > 1 and f"{{{number}=" not in rows[0].left[0][0]):
        return None
    before, after = place[0], place[1] - place[0] - len(names)
    texts[axis] = f"({number}[{before or ''}:{-after if after else ''}] {rest})"
    return replace(rows[0], right=((path, " ".join(texts)),))


def dims(axes: str) -> list[str]:
    """Split the text of axes into that of each dimension."""
    return re.findall(r"\([^()]*\)|\S+", axes)

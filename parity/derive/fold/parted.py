"""Write lines for equal parts of an axis that are not in one order: queries and keys in one line, values in another.

Rotary positions order the channels of queries and keys, but not those of values. All parts have one length, which a
sum would ask for part by part: (s[:-1] h r=2 d) <-> {s=q|k}: (h d r) and (1[2:] o) <-> v: o ask for h alone.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from itertools import groupby

import numpy as np

from .equal_parts import Joint
from .facts import Target
from .related import relate
from .rows import DIM, Row

Write = Callable[[Target], list[Row] | None]


def parted(of: Target, write: Write) -> list[Row] | None:
    """Return a line for each run of parts whose axes are made alike; None if the parts are unequal, or all alike.

    Args:
      of: its sources are in the order of the parts.
      write: writes the lines for a part of the target that consists of some sources.
    """
    numbers, count = of.numbers, len(of.parts)
    if len({of.sources.shapes[name] for name in of.parts}) > 1:
        return None
    for axis in range(numbers.ndim):
        if numbers.shape[axis] % count:
            continue
        parts = np.split(numbers, count, axis)
        made = [_made(of._replace(parts=[name], numbers=part)) for name, part in zip(of.parts, parts, strict=True)]
        if "" in made or len(set(made)) == 1:
            continue
        joint = Joint(1 - of.side, of.name, numbers.shape, axis, count, dict.fromkeys(of.parts, of.shape), -1)
        of.names.assume(of.name, of.parts, partial(joint.is_shown, of.names.programs))
        runs = [list(run) for _, run in groupby(range(count), key=made.__getitem__)]
        rows = [
            _row(
                of._replace(parts=[of.parts[k] for k in run], numbers=np.concatenate([parts[k] for k in run], axis)),
                (run[0], count), axis, write,
            )
            for run in runs
        ]  # fmt: skip
        if found := [row for row in rows if row]:
            return found if len(found) == len(rows) else None
    return None


def _made(of: Target) -> str:
    """Describe how the axes of a part are made of those of a whole source; "" if they are not."""
    if not np.isin(of.numbers, of.sources.numbers(of.parts[0])).all():
        return ""
    axes = relate(of.places, of.shape)
    return "" if axes is None or any(axes.windows) else str(axes.target)


def _row(of: Target, place: tuple[int, int], axis: int, write: Write) -> Row | None:
    """Return the line of parts that stand one behind the other.

    Args:
      place: the number of the first part, and of all of them in the target.
    """
    rows, count = write(of), len(of.parts)
    if not rows or len(rows) > 1:
        return None
    ((path, axes),) = rows[0].right
    texts = DIM.findall(axes or "")
    inside = texts[axis].strip("()")
    number, _, rest = inside.partition(" ") if count > 1 else ("1", "", inside)
    if "+" in number or (count > 1 and f"{{{number}=" not in rows[0].left[0][0]):
        return None
    before, after = place[0], place[1] - place[0] - count
    texts[axis] = f"({number}[{before or ''}:{-after if after else ''}] {rest})"
    return replace(rows[0], right=((path, " ".join(texts)),))

"""Write lines for equal parts of an axis that are not in one order: queries and keys in one line, values in another.

Rotary positions order the channels of queries and keys, but not those of values. All parts have one length, which a
sum would ask for part by part: (s[:-1] h r=2 d) <-> {s=q|k}: (h d r) and (1[2:] o) <-> v: o ask for h alone.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import replace
from functools import partial

import numpy as np

from .equal_parts import Joint
from .facts import Target
from .ranges import blocks
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
        runs = [list(run) for _, run in itertools.groupby(range(count), key=made.__getitem__)]
        found = [
            _rows(
                of._replace(parts=[of.parts[k] for k in run], numbers=np.concatenate([parts[k] for k in run], axis)),
                (run[0], count), axis, write,
            )
            for run in runs
        ]  # fmt: skip
        if any(found):
            return [*itertools.chain(*found)] if all(found) else None
    return None


def _made(of: Target) -> str:
    """Describe how the axes of a part are made of those of a whole source, by its name if several lines have to say it.

    Returns: "" if the part is made of several sources, or of a range of one.
    """
    if not np.isin(of.numbers, of.sources.numbers(of.parts[0])).all():
        return ""
    axes = relate(of.places, of.shape)
    if axes is None:
        return of.parts[0]
    return "" if any(axes.windows) else str(axes.target)


def _rows(of: Target, place: tuple[int, int], axis: int, write: Write) -> list[Row]:
    """Return the lines of parts that stand one behind the other; [] if there are none.

    Args:
      place: the number of the first part, and of all of them in the target.
    """
    rows, count = list[Row](), len(of.parts)
    before, after = place[0], place[1] - place[0] - count
    for row in write(of) or ():
        ((path, axes),) = row.right
        if any("@" in (own or "") for _, own in row.left):  # an order in a file fits one size alone
            return []
        texts = DIM.findall(axes or "")
        inside = texts[axis].strip("()")
        number, _, rest = inside.partition(" ") if count > 1 else ("1", "", inside)
        if "+" in number or (count > 1 and f"{{{number}=" not in row.left[0][0]):
            return []
        window = number + blocks(before, after)
        texts[axis] = f"({window} {rest})" if rest not in ("", "1") else window
        rows.append(replace(row, right=((path, " ".join(texts)),)))
    return rows

"""Lay out a Table from names and shapes, and prove it in both directions."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace

from .binding import bind
from .filling import Filling
from .layout import Layout
from .lines import Lines, Misfit, TableError
from .matching import Matcher
from .moves import Shape
from .sizes import LIKE


def lay_out(
    table: Lines, shapes: Mapping[str, Shape], like: Mapping[str, Shape] | None, sizes: Mapping[str, int]
) -> Layout:
    """Lay out a Table; arguments and errors as in Table.layout."""
    envs, absent = bind(table, shapes, like, sizes)
    filling = Filling(table, envs, shapes, like)
    layout = filling.layout(absent)
    return layout if like is None else layout._replace(unread=_unread(table, filling, like))


def _unread(table: Lines, filling: Filling, like: Mapping[str, Shape]) -> tuple[str, ...]:
    """Compare the right arrays with those of the file to be like; return which of these the table drops."""
    misfits = []
    for name, (line, shape) in filling.targets.items():
        if name not in like:
            misfits.append((name, f"is made by line {line.number}, and is not in {LIKE}"))
        elif like[name] != shape:
            misfits.append((name, f"has shape {list(like[name])} in {LIKE}, {list(shape)} here"))
    drops = tuple(line for line in table.reverse().lines if line.kind == "drop")
    found = Matcher(replace(table, lines=drops), like).match()
    dropped = {
        name for line in drops for _, arrays in found.groups(line) for named in arrays for name in named.values()
    }
    others = [name for name in like if name not in filling.targets and name not in dropped]
    made = {_form(name) for name in filling.targets}
    if more := [name for name in others if _form(name) in made]:
        there, here = ({name for name in names if _form(name) == _form(more[0])} for names in (like, filling.targets))
        what = (
            f"{len(there)} arrays of this form are in {LIKE}, and {len(here)} are made here: another number of blocks"
        )
        misfits.append((more[0], f"is one of {len(more)} that no line makes: {what}"))
    others = [name for name in others if name not in more]
    misfits += [(name, f"is in {LIKE}, and no line makes it (drop <- NAME leaves it to the model)") for name in others]
    if misfits:
        raise Misfit(f"{table.name}: does not fit", [], [], misfits)
    return tuple(sorted(dropped))


def prove(
    table: Lines, shapes: Mapping[str, Shape], like: Mapping[str, Shape] | None, sizes: Mapping[str, int]
) -> Layout:
    """Prove a Table from names and shapes; arguments and errors as in Table.prove."""
    there = lay_out(table, shapes, like, sizes)
    left = {name: shape for name, shape in shapes.items() if name not in there.dropped}
    # A tied name that the left side leaves out comes back: `left` settles sizes, and is compared here.
    envs, _ = bind(table.reverse(), there.shapes, left, sizes)
    returned = Filling(table.reverse(), envs, there.shapes, left).layout().shapes
    back = {name: shape for name, shape in returned.items() if name not in there.absent}
    if back != left:
        wrong = sorted(name for name in {**back, **left} if back.get(name) != left.get(name))
        raise TableError(f"{table.name}: does not lead back to the same arrays", wrong)
    return there


def _form(name: str) -> str:
    """Return a name without its numbers: blocks differ in those alone."""
    return re.sub(r"\d+", "#", name)

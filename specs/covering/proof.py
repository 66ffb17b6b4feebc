"""Lay out a Table from names and shapes, and prove it in both directions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from specs.applied.layout import Layout
from specs.applied.moves import Shape
from specs.notation.lines import Lines, Misfit, TableError
from specs.notation.paths import normal
from specs.solving.binding import bind
from specs.solving.matching import Matcher
from specs.solving.sizes import ABSENT, LIKE, NO_LINE, unlike_shape

from .filling import Filling


def lay_out(
    table: Lines, shapes: Mapping[str, Shape], like: Mapping[str, Shape] | None, sizes: Mapping[str, int]
) -> Layout:
    """Lay out a Table; arguments and errors as in Table.layout."""
    envs, absent = bind(table, shapes, like, sizes)
    filling = Filling(table, envs, shapes, like)
    layout = filling.layout(absent)._replace(bound=tuple(env.bound() for env in envs) if sizes else ())
    return layout if like is None else layout._replace(unread=_unread(table, filling, like))


def _unread(table: Lines, filling: Filling, like: Mapping[str, Shape]) -> tuple[str, ...]:
    """Compare the right arrays with those of the file to be like; return which of these the table drops."""
    misfits = []
    for name, (line, shape) in filling.targets.items():
        if name not in like:
            misfits.append((name, ABSENT))
        elif like[name] != shape:
            misfits.append((name, unlike_shape(line, shape, like[name])))
    drops = tuple(line for line in table.reverse().lines if line.kind == "drop")
    matched = Matcher(replace(table, lines=drops), like).match()
    dropped = {
        name for line in drops for _, arrays in matched.groups(line) for named in arrays for name in named.values()
    }
    others = [name for name in like if name not in filling.targets and name not in dropped]
    made = {normal(name) for name in filling.targets}
    more = [name for name in others if normal(name) in made]
    misfits += [(name, f"is in {LIKE}, and is not made here") for name in more]
    others = [name for name in others if name not in more]
    misfits += [(name, f"{NO_LINE} (drop <- NAME leaves it to the model)") for name in others]
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

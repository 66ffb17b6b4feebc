"""Find what one model alone stores and reads: integers and flags of new models, and trained tables.

Steps, orders from 0 on and full masks are such integers and flags. Those that the other model has in its code are
constants, even if they are 0, as are integers that pick rows of parameters alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from functools import partial
from typing import NamedTuple

import numpy as np

from parity.derive.edits.edit import SIDES
from parity.derive.fold.rows import moved
from parity.derive.trace.cotangents import NoGradients
from parity.derive.trace.draws import draw
from parity.derive.trace.outputs import equal
from parity.derive.trace.reason import Reason
from parity.derive.trace.sides import Side
from parity.derive.trace.tape import Array
from specs.words import in_a_row

from .in_code import array_in_code, number_in_code
from .other_values import KINDS, following, is_trivial
from .table_rows import picks_rows
from .trial import Trial, depended_on, zeros_of

FAR = 1_000_000  # steps, beyond any number that code waits for
FIRST = "equal only while what one model alone stores is that of a new one"
REMEDY = (
    "derive from a model whose numbers are those of the checkpoint, or let both models have them; "
    "keep constants out of the model's state (in torch, register_buffer(..., persistent=False))"
)


class Stored(NamedTuple):
    """What one model alone stores and reads.

    Args:
      reason: why nothing is proven: numbers of 0 and flags that are not set, as a new model has them, and with which
        the other model's code does not compare; arrays of one value or of numbers in their order, as a new model has
        them, that do more than to pick rows of parameters. "" if none is.
      notes: on the other ones, which a checkpoint may have as they are.
    """

    reason: str = ""
    notes: Sequence[str] = ()


def stored_alone(trial: Trial) -> Stored:
    """Name the integers and flags that one model alone stores and reads, and that the table drops or fills."""
    new, notes = list[str](), list[str]()
    for k, names in enumerate(_alone(trial)):
        side, unset = trial.sides[k], list[str]()
        for name in names:
            if side.others[name].size > 1:
                if not (picks_rows(trial, k, name) or array_in_code(trial, k, name)):
                    unset.append(_values(name, side.others[name]))
                continue
            text = f"{name} {side.others[name].item()}"
            if side.others[name].any():
                notes.append(f"equal with {text}, which the {SIDES[k]} model alone has")
            elif number_in_code(trial, k, name):
                notes.append(f"equal with {text} on the {SIDES[k]}, which the {SIDES[1 - k]} model has in its code")
            else:
                unset.append(text)
        if unset:
            new.append(f"{in_a_row(unset)} on the {SIDES[k]}")
    return Stored(Reason(f"{FIRST}: {'; '.join(new)}", REMEDY) if new else "", notes)


def trained_tables(trial: Trial) -> list[str]:
    """List trained tables that keep the models' own values, as the other model computes these: "pos on the left".

    Gradients of the outputs reach them, so that training changes them. None is listed of a model without gradients.
    """
    return [f"{name} on the {which}" for side, which in zip(trial.sides, SIDES, strict=True) for name in _trained(side)]


def _trained(side: Side) -> list[str]:
    tables = {name: a for name, a in side.others.items() if a.dtype.kind == "f" and name not in side.buffers}
    reached = list[str]()
    if not tables:
        return reached

    def take(name: str, gradient: Array) -> None:
        if name in tables and gradient.any():
            reached.append(name)

    try:
        with suppress(NoGradients):
            side.gradients({**draw(side, 0), **tables}, side.call.arrays(), take)
    finally:
        side.release()
    return reached


def _alone(trial: Trial) -> tuple[list[str], list[str]]:
    """List those of each side that it reads, unless a line relates them to those that the other reads; see _read."""
    left, right = trial.sides
    read = _read(left), _read(right)
    if not any(read):
        return read
    arrays = zeros_of(left)

    def reached(names: Sequence[str]) -> set[str]:
        """Return the right arrays that the table makes of some left ones."""
        changed = moved(trial.table, {**arrays, **{name: following(left.others[name]) for name in names}})
        return {name for name, array in changed.items() if not np.array_equal(array, usual[name])}

    usual = moved(trial.table, arrays)
    made = reached(read[0])
    return [name for name in read[0] if reached([name]).isdisjoint(read[1])], [n for n in read[1] if n not in made]


def _values(name: str, array: Array) -> str:
    """Return the name of an array with its values: "order 0..7"."""
    first, last = array.flat[0], array.flat[-1]
    return f"{name} {first}..{last}" if first != last else f"{name} {first} ({array.size} times)"


def _read(side: Side) -> list[str]:
    """List the integers and flags of a model that are as those of a new one, and on which its outputs depend."""
    arrays = {name: a for name, a in side.others.items() if a.size and a.dtype.kind in KINDS and is_trivial(a)}
    return depended_on(side, arrays, (following, partial(following, by=FAR), np.zeros_like), equal)

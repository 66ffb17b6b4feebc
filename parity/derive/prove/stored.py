"""Find single integers and flags that one model alone stores and reads: steps, or whether it has been initialized."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from parity.derive.edits.edit import SIDES
from parity.derive.trace.outputs import equal
from parity.derive.trace.reason import Reason
from parity.derive.trace.sides import Side
from parity.derive.trace.tape import Array
from specs.table import Table
from specs.words import in_a_row

from .trial import depended_on

KINDS = "iub"
FAR = 1_000_000  # steps, beyond any number that code waits for
FIRST = "equal only while what one model alone stores is that of a new one"
REMEDY = (
    "derive from a model whose numbers are those of the checkpoint, or let both models have them; "
    "keep constants out of the model's state (in torch, register_buffer(..., persistent=False))"
)


class Stored(NamedTuple):
    """What one model alone stores and reads.

    Args:
      reason: why nothing is proven: numbers of 0 and flags that are not set, as a new model has them. "" if none is.
      notes: on the other ones, which a checkpoint may have as they are.
    """

    reason: str = ""
    notes: Sequence[str] = ()


def stored_alone(left: Side, right: Side, table: Table) -> Stored:
    """Name the single numbers that one model alone stores and reads, and that the table drops or fills."""
    new, notes = list[str](), list[str]()
    for side, of, names in zip(SIDES, (left, right), _alone(left, right, table), strict=True):
        values = {f"{name} {of.others[name].item()}": bool(of.others[name].any()) for name in names}
        if unset := [text for text, is_set in values.items() if not is_set]:
            new.append(f"{in_a_row(unset)} on the {side}")
        notes += [f"equal with {text}, which the {side} model alone has" for text, is_set in values.items() if is_set]
    return Stored(Reason(f"{FIRST}: {'; '.join(new)}", REMEDY) if new else "", notes)


def _alone(left: Side, right: Side, table: Table) -> tuple[list[str], list[str]]:
    """List the single numbers of each side that it reads, unless a line relates them to those that the other reads."""
    read = _read(left), _read(right)
    if not any(read):
        return read
    first = {**{name: name for name in left.parameters}, **left.ties}
    arrays = {name: np.zeros(np.shape(left.parameters[owner])) for name, owner in first.items()} | left.others

    def reached(names: Sequence[str]) -> set[str]:
        """Return the right arrays that the table makes of some left ones."""
        changed = table.apply({**arrays, **{name: _next(left.others[name]) for name in names}})
        return {name for name, array in changed.items() if not np.array_equal(array, usual[name])}

    usual = table.apply(arrays)
    made = reached(read[0])
    return [name for name in read[0] if reached([name]).isdisjoint(read[1])], [n for n in read[1] if n not in made]


def _read(of: Side) -> list[str]:
    """List the single integers and flags of a model on which its outputs depend."""
    singles = {name: a for name, a in of.others.items() if a.size == 1 and a.dtype.kind in KINDS}
    return depended_on(of, singles, (_next, _far, np.zeros_like), equal)


def _next(array: Array, by: int = 1) -> Array:
    """Return a number that counts once more, or a flag that is turned."""
    return ~array if array.dtype.kind == "b" else (array.astype(np.int64) + by).astype(array.dtype)


def _far(array: Array) -> Array:
    """Return a counter of many more steps."""
    return _next(array, FAR)

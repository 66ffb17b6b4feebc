"""Run both models on a token that one side alone asks for, as for padding, and that the given ones do not have."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from parity.derive.edits.edit import SIDES
from parity.derive.limits import EQUAL_OUTPUTS
from parity.derive.trace.inputs import fresh, token_ids
from parity.derive.trace.outputs import difference, incomparable
from parity.derive.trace.sides import Side
from parity.derive.trace.tape import Array, Node, Tape
from specs.numerals import short
from specs.table import Table

from .examples import ROUNDING, outputs_of_both

SEED = 9000
EQUALITIES = {"eq", "ne", "equal", "not_equal"}  # by what frameworks call them, without underscores around


def absent_token(left: Side, right: Side, tapes: tuple[Tape, Tape], table: Table, error: float) -> str:
    """Say which token makes outputs differ, of those that one side alone compares with and no input has.

    Args:
      error: the difference of the outputs for the tokens as they are.
    """
    given = left.call.arrays(), right.call.arrays()
    asked = [set(_asked(tape, [*arrays.values()])) for tape, arrays in zip(tapes, given, strict=True)]
    rare = [{name: _rarest(array) for name, array in arrays.items() if token_ids(array)} for arrays in given]
    if {*rare[0].values()} != {*rare[1].values()}:  # tokens of one side are counted from another number
        return ""
    for number in sorted(asked[0] ^ asked[1]):
        drawn = zip(fresh(*given, SEED), rare, strict=True)
        inputs = [
            {name: np.where(array == of.get(name), number, array).astype(array.dtype) for name, array in arrays.items()}
            for arrays, of in drawn
        ]
        outputs = outputs_of_both(left, right, table, inputs, SEED)
        apart = 0.0 if not all(outputs) or incomparable(*outputs) else difference(*outputs)
        if apart > max(EQUAL_OUTPUTS, ROUNDING * error):
            asks = f"for which the {SIDES[number in asked[1]]} model asks"
            return f"{number}, {asks}: with it outputs differ by {short(apart)}"
    return ""


def _asked(tape: Tape, inputs: Sequence[Array]) -> Iterator[int]:
    """Yield the numbers for which code asks in tokens, be these moved or cast, and which they do not have."""
    known = {number: array for number, array in zip(tape.inputs, inputs, strict=True) if token_ids(array)}
    for node in tape.live().nodes if known else ():
        slots = [slot for slot, number in enumerate(node.inputs) if number in known]
        if len(slots) != 1:
            continue
        values = known[node.inputs[slots[0]]]
        if node.call and node.call.name.strip("_") in EQUALITIES:
            yield from (number for number in _numbers(tape, node) if number not in values)
        elif len(node.inputs) == 1:
            moved = np.asarray(node.run(values))
            if moved.dtype.kind in "iu" and np.isin(moved, values).all():
                known[node.output] = moved


def _numbers(tape: Tape, node: Node) -> Iterator[int]:
    """Yield the whole number with which an operation compares, be it a setting or an operand."""
    numbers = [*(node.call.settings.values() if node.call else ()), *map(tape.constants.get, node.inputs)]
    for number in numbers:
        if number is not None and np.size(number) == 1 and np.asarray(number).dtype.kind in "iu":
            yield int(np.asarray(number).item())


def _rarest(tokens: Array) -> int:
    """Return the token that an input has least often, the smallest of these."""
    each, counts = np.unique(tokens, return_counts=True)
    return int(each[counts.argmin()])

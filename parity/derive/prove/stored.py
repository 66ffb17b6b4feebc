"""Find single integers and flags that one model alone stores and reads: steps, or whether it has been initialized.

A number with which the other model's code compares, as with that of padding, is a constant, even if it is 0: both are
run with another number in its place, and agree again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from typing import NamedTuple

import numpy as np

from parity.derive.edits.edit import SIDES
from parity.derive.fold.rows import moved
from parity.derive.trace.draws import draw
from parity.derive.trace.outputs import equal
from parity.derive.trace.program import replayed
from parity.derive.trace.reason import Reason
from parity.derive.trace.sides import Side
from parity.derive.trace.tape import Array, Node, Tape
from specs.words import in_a_row

from .absent import EQUALITIES, compared_numbers
from .trial import Trial, depended_on, zeros_of
from .unreached import COMPARISONS

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
      reason: why nothing is proven: numbers of 0 and flags that are not set, as a new model has them, and with which
        the other model's code does not compare. "" if none is.
      notes: on the other ones, which a checkpoint may have as they are.
    """

    reason: str = ""
    notes: Sequence[str] = ()


def stored_alone(trial: Trial) -> Stored:
    """Name the single numbers that one model alone stores and reads, and that the table drops or fills."""
    new, notes = list[str](), list[str]()
    for k, names in enumerate(_alone(trial)):
        side, unset = trial.sides[k], list[str]()
        for name in names:
            text = f"{name} {side.others[name].item()}"
            if side.others[name].any():
                notes.append(f"equal with {text}, which the {SIDES[k]} model alone has")
            elif _in_code(trial, k, name):
                notes.append(f"equal with {text} on the {SIDES[k]}, which the {SIDES[1 - k]} model has in its code")
            else:
                unset.append(text)
        if unset:
            new.append(f"{in_a_row(unset)} on the {SIDES[k]}")
    return Stored(Reason(f"{FIRST}: {'; '.join(new)}", REMEDY) if new else "", notes)


def _in_code(trial: Trial, k: int, name: str) -> bool:
    """Tell whether a number of one side is one with which the other side's code compares.

    With the next number in both places outputs have to agree, and to be others than before.

    Args:
      k, name: the side that stores the number, and by which name.
    """
    both = trial.weights(draw(trial.left, 0))
    side, other = trial.sides[k], trial.sides[1 - k]
    number, inputs = side.others[name], side.call.arrays()
    if number.dtype.kind == "b":  # a flag
        return False
    try:
        usual, changed = (side.run({**both[k], name: one}, inputs) for one in (number, _next(number)))
    except Exception:  # an index that is not there
        return False
    finally:
        side.run({**both[k], name: number}, inputs)  # gives the model its own number again
        side.release()
    given = [*other.call.arrays().values()]
    others = (replayed(tape, both[1 - k], given) for tape in _with_next(trial.tapes[1 - k], int(number.item())))
    return not equal(usual, changed) and any(equal(changed, outputs) for outputs in others)


def _with_next(tape: Tape, number: int) -> Iterator[Tape]:
    """Yield the tape with the next number in place of one that it compares with: everywhere, then at each place."""

    def shifted(run: Callable[..., Array], slot: int, *operands: Array) -> Array:
        lower = np.asarray(operands[slot]) - np.int64(1)  # is this number as that one is the next
        return run(*(lower if at == slot else operand for at, operand in enumerate(operands)))

    def changed(nodes: Sequence[Node]) -> Tape:
        new = {node.output: node for node in nodes}
        return replace(tape, nodes=[new.get(node.output, node) for node in tape.nodes])

    following = list[Node]()
    for node in tape.live().nodes:
        slots = [slot for slot, value in enumerate(node.inputs) if value not in tape.constants]
        compares = node.name.strip("_") in EQUALITIES | COMPARISONS
        if compares and len(slots) == 1 and [*compared_numbers(tape, node)] == [number]:
            following.append(node._replace(run=partial(shifted, node.run, slots[0])))
    yield from (changed(nodes) for nodes in (following, *([node] for node in following)) if nodes)


def _alone(trial: Trial) -> tuple[list[str], list[str]]:
    """List the single numbers of each side that it reads, unless a line relates them to those that the other reads."""
    left, right = trial.sides
    read = _read(left), _read(right)
    if not any(read):
        return read
    arrays = zeros_of(left)

    def reached(names: Sequence[str]) -> set[str]:
        """Return the right arrays that the table makes of some left ones."""
        changed = moved(trial.table, {**arrays, **{name: _next(left.others[name]) for name in names}})
        return {name for name, array in changed.items() if not np.array_equal(array, usual[name])}

    usual = moved(trial.table, arrays)
    made = reached(read[0])
    return [name for name in read[0] if reached([name]).isdisjoint(read[1])], [n for n in read[1] if n not in made]


def _read(side: Side) -> list[str]:
    """List the single integers and flags of a model on which its outputs depend."""
    singles = {name: a for name, a in side.others.items() if a.size == 1 and a.dtype.kind in KINDS}
    return depended_on(side, singles, (_next, partial(_next, by=FAR), np.zeros_like), equal)


def _next(array: Array, by: int = 1) -> Array:
    """Return a number that counts once more, or a flag that is turned."""
    return ~array if array.dtype.kind == "b" else (array.astype(np.int64) + by).astype(array.dtype)

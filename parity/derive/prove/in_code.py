"""Tell whether the code of one model has the integers and flags that the other one stores.

Both are run with other values in their place, and agree again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial

import numpy as np

from parity.derive.trace.draws import draw
from parity.derive.trace.module_side import ModuleSide
from parity.derive.trace.outputs import equal
from parity.derive.trace.program import replayed
from parity.derive.trace.tape import Array, Node, Tape

from .absent import EQUALITIES, compared_numbers
from .other_values import another, following
from .trial import Trial, outputs_of
from .unreached import COMPARISONS

SEED = 13000


def array_in_code(trial: Trial, k: int, name: str) -> bool:
    """Tell whether constants of one side's code are those that the other one computes of an array which it stores.

    This is known of torch modules and paddle layers, whose tapes can be recorded with other values of such an array.

    Args:
      k, name: the side that stores the array, and by which name.
    """
    side, other, tape = trial.sides[k], trial.sides[1 - k], trial.tapes[1 - k].live()
    if not isinstance(side, ModuleSide):
        return False
    both, inputs = trial.weights(draw(trial.left, 0)), side.call.arrays()
    own = {**both[k], name: side.others[name]}
    new = {**own, name: another(np.random.default_rng(SEED), side.others[name])}
    changed, usual = (outputs_of(side, some, inputs) for some in (new, own))
    if not changed or equal(changed, usual):
        return False
    tapes = [side.record({**draw(side, 0), name: some[name]}, inputs).live() for some in (new, own)]  # its own last
    pairs = [(array, tapes[0].constants.get(number)) for number, array in tapes[1].constants.items()]
    constants = {number: _instead(array, pairs) for number, array in tape.constants.items()}
    outputs = replayed(replace(tape, constants=constants), both[1 - k], [*other.call.arrays().values()])
    return equal(changed, outputs)


def _instead(array: Array, pairs: Sequence[tuple[Array, Array | None]]) -> Array:
    """Return the second array of the pair whose first one is an array, but for axes of length 1; else that array."""
    for one, new in pairs:
        if new is None or np.shape(new) != np.shape(one) or np.array_equal(one, new):
            continue
        if np.array_equal(np.squeeze(one), np.squeeze(array)):
            return np.reshape(new, np.shape(array))
    return array


def number_in_code(trial: Trial, k: int, name: str) -> bool:
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
        usual, changed = (side.run({**both[k], name: one}, inputs) for one in (number, following(number)))
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

    comparing = list[Node]()
    for node in tape.live().nodes:
        slots = [slot for slot, value in enumerate(node.inputs) if value not in tape.constants]
        compares = node.name.strip("_") in EQUALITIES | COMPARISONS
        if compares and len(slots) == 1 and [*compared_numbers(tape, node)] == [number]:
            comparing.append(node._replace(run=partial(shifted, node.run, slots[0])))
    yield from (changed(nodes) for nodes in (comparing, *([node] for node in comparing)) if nodes)

"""Tell whether integers that a model stores pick rows of its parameters alone, as positions and kinds of tokens do.

Such integers are the same in a trained model: what another model picks by its code are rows of the same parameters.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from parity.derive.limits import REPLAYED_OUTPUTS
from parity.derive.trace.draws import draw, of_one_value
from parity.derive.trace.outputs import difference
from parity.derive.trace.program import Program, replayed
from parity.derive.trace.tape import Array, Node, Tape

from .trial import Trial, outputs_of


def picks_rows(trial: Trial, k: int, name: str) -> bool:
    """Tell whether all that an array of one value, or one that counts from its first value, does is to pick rows.

    With other values, the outputs have to be those of the tape in which these values pick rows of parameters.

    Args:
      k, name: the side that stores the array, and by which name.
    """
    side, stored = trial.sides[k], trial.sides[k].others[name]
    if stored.dtype.kind == "b":  # a mask
        return False
    weights, inputs = trial.weights(draw(trial.left, 0))[k], side.call.arrays()
    changed = outputs_of(side, {**weights, name: _exchanged(stored, stored)}, inputs)
    outputs_of(side, {**weights, name: stored}, inputs)  # gives the model its own values again
    tapes = _with_other_rows(trial.programs[k], stored)
    outputs = (replayed(tape, weights, [*inputs.values()]) for tape in tapes)
    return bool(changed) and any(difference(changed, some) <= REPLAYED_OUTPUTS for some in outputs)


def _exchanged(values: Array, stored: Array) -> Array:
    """Return other values in place of some that an array stores: the next one, or those in reverse."""
    first, last = int(stored.flat[0]), int(stored.flat[-1])
    changed = values.astype(np.int64) + 1 if of_one_value(stored) else first + last - values.astype(np.int64)
    return changed.astype(stored.dtype)


def _with_other_rows(program: Program, stored: Array) -> Iterator[Tape]:
    """Yield the tape with other values of an array where constants pick rows by them: of each kind alone, then of all.

    Other constants may have some of these values, as kinds of tokens have the first one of positions.
    """
    tape, weights = program.tape, program.weights
    picking: dict[bytes, list[Node]] = {}
    for node in tape.nodes:
        if node.kind != "layout" or len(node.inputs) != 2 or node.inputs[0] not in weights:
            continue
        index = np.asarray(tape.constants.get(node.inputs[1], np.nan))
        if index.dtype.kind in "iu" and np.isin(index, stored).all():
            picking.setdefault(np.unique(index).astype(np.int64).tobytes(), []).append(node)
    for nodes in (*picking.values(), [node for some in picking.values() for node in some]):
        new, constants = dict[int, Node](), dict(tape.constants)
        for size, node in enumerate(nodes, tape.size):
            constants[size] = _exchanged(np.asarray(tape.constants[node.inputs[1]]), stored)
            new[node.output] = node._replace(inputs=(node.inputs[0], size))
        changed = [new.get(node.output, node) for node in tape.nodes]
        yield replace(tape, nodes=changed, constants=constants, size=tape.size + len(nodes), parts={})

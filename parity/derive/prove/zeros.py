"""Run both models on inputs with zeros: code may hide a whole example of them, as padding, or divide by its norm.

It may ask for single zeros, too: `x != 0` of all numbers in a row, or of any.

A router without a bias gives all experts the same score there, of which each framework chooses others. Both tapes agree
if these scores differ a little, by the same order of experts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from parity.derive.limits import AGREEING_OUTPUTS
from parity.derive.trace.call import label
from parity.derive.trace.draws import Drawn
from parity.derive.trace.inputs import carried, fresh, related
from parity.derive.trace.tape import Array, Node, Replacement, Tape
from specs.words import in_a_row

from .trial import Trial
from .unreached import moved_inputs

SEED = 11000
CHOICES = {"topk", "top_k", "sort", "argsort", "argmax", "argmin", "max", "min"}  # by what frameworks call them
AXES = ("dim", "axis", "dimension", "axes")  # settings that say along which axis
STEP = 1e-9  # between values that tie: more than rounding, less than counts as different


def rows_of_zeros(trial: Trial) -> str:
    """Say that outputs differ for zeros in the last example, or at the last place of a lone one; "" if they agree.

    Zeros are all numbers there, or every second one.
    """
    return _with(trial, 1, "rows of zeros", "one") or _with(trial, 2, "single zeros", "these")


def _with(trial: Trial, step: int, what: str, which: str) -> str:
    """Say that outputs differ with such zeros. Args: step: from one zero to the next along the last axis."""
    given = trial.given
    every, (drawn, others) = related(*given), fresh(*given, SEED, tokens=False)
    moved = moved_inputs(given[0], drawn)
    zeros = {name: _with_zeros(array, step) for name, array in moved.items() if array.ndim > 1 and every[name]}
    if not zeros:
        return ""
    inputs = drawn | zeros, carried(zeros, others, every)
    if not (said := trial.unlike(inputs, SEED)):
        return ""
    where = f"{what} in {in_a_row(label(name) for name in zeros)}"
    ties = ", where models choose among equal values" if _only_ties(trial, inputs) else ""
    return f"{where}{ties}: with {which}, {said}"


def _only_ties(trial: Trial, inputs: Sequence[Mapping[str, Array]]) -> bool:
    """Tell whether both tapes agree once values among which they choose do not tie."""
    apart = [_without_ties(tape) for tape in trial.tapes]
    if any(other is tape for other, tape in zip(apart, trial.tapes, strict=True)):
        return False
    return trial.tapes_agree(apart, inputs, Drawn(trial.left, SEED), trial.limit(AGREEING_OUTPUTS))


def _without_ties(tape: Tape) -> Tape:
    """Return the tape with values that grow a little along the axis of each choice; this one itself if it has none."""
    chosen, made = dict[int, int](), {node.output for node in tape.nodes}
    for node in tape.nodes:
        if node.call and node.name.strip("_") in CHOICES and node.inputs[0] in made:
            axes = [node.call.settings[key] for key in AXES if node.call.settings.get(key) is not None]
            chosen[node.inputs[0]] = int(np.ravel([*axes, -1][0])[0])
    return tape.rewritten(
        lambda _, node, new: [node] if node.output not in chosen else _grown(node, chosen[node.output], new)
    )


def _grown(node: Node, axis: int, new: Replacement) -> list[Node]:
    """Return an operation, and behind it what lets its values grow along an axis."""

    def grow(values: Array) -> Array:
        steps = np.arange(np.shape(values)[axis]) * (STEP if np.asarray(values).dtype.kind == "f" else 0)
        return np.moveaxis(np.moveaxis(values, axis, -1) + steps.astype(np.asarray(values).dtype), -1, axis)

    new.record("other", (new.again(node, node.inputs),), grow)
    return new.nodes


def _with_zeros(array: Array, step: int) -> Array:
    array = array.copy()
    last = array[-1:] if len(array) > 1 else array[:, -1:]
    last[..., ::step] = 0
    return array

"""Run both models with other signs of what is positive, and on inputs with zeros.

Scales of norms are positive, and images. A model that takes their absolute values is equal to one that does not, until
training makes a scale negative, or images are normalized. Code may hide a whole example of zeros, as padding, or divide
by its norm. It may ask for single zeros, too: `x != 0` of all numbers in a row, or of any.

A router without a bias gives all experts the same score there, of which each framework chooses others. Both tapes agree
if these scores differ a little, by the same order of experts.
"""

from __future__ import annotations

import functools
import math
import zlib
from collections.abc import Callable, Collection, Mapping, Sequence

import numpy as np

from parity.derive.limits import AGREEING_OUTPUTS
from parity.derive.trace.call import label
from parity.derive.trace.draws import Altered, positive
from parity.derive.trace.inputs import carried, fresh, related
from parity.derive.trace.tape import Array, Node, Replacement, Tape
from specs.words import in_a_row

from .trial import Trial, differing
from .unreached import moved_inputs

SEED = 4000  # of other signs
APART = 1e-3  # relative difference of outputs that rounding does not explain, whatever the signs are
OTHER_SIGNS = 100  # times the error of the proof that rounding to a lower precision may cause with other signs
OTHERS = 2  # draws of signs beside the one that turns the first value of all
FEW = 16  # parameters that are tried one by one
ZEROS = 11000  # seed
CHOICES = {"topk", "top_k", "sort", "argsort", "argmax", "argmin", "max", "min"}  # by what frameworks call them
AXES = ("dim", "axis", "dimension", "axes")  # settings that say along which axis
STEP = 1e-9  # between values that tie: more than rounding, less than counts as different


def only_positive(trial: Trial) -> list[str]:
    """List left parameters that are positive in the model, and with which outputs are equal only if they stay so.

    A model that cannot be run with negative ones, or gives no finite values then, tells nothing.
    """
    left = trial.left
    names = [name for name in trial.trained if positive(left.parameters[name])]

    def differ(turned: Collection[str], change: Callable[[str, Array], Array] = _signed) -> bool:
        return _differ(trial, trial.given, Altered(trial.drawn(SEED), turned, change))

    changes: Sequence[Callable[[str, Array], Array]] = (
        _signed,
        *(functools.partial(_own_signs, seed) for seed in range(OTHERS)),
    )
    if not names or not any(differ(names, change) for change in changes):
        return []
    return [name for name in names[:FEW] if differ([name])] or names


def only_positive_inputs(trial: Trial) -> list[str]:
    """List inputs that are positive as given, and with which outputs are equal only if they stay so.

    Inputs of two values may be masks, and keep their signs.
    """
    names, inputs = _negated(trial)
    return names if names and _differ(trial, inputs, SEED) else []


def negative_inputs(trial: Trial) -> str:
    """Say that outputs of one model alone are not finite if inputs that are positive as given are negative."""
    names, inputs = _negated(trial)
    if not names or (apart := trial.apart(inputs, SEED)) < math.inf:
        return ""
    return f"negative values of {in_a_row(names)}: with these, {differing(apart)}"


def _negated(trial: Trial) -> tuple[list[str], Sequence[Mapping[str, Array]]]:
    """Return the left inputs that are positive as given, and inputs of both sides in which these are negative."""
    given = trial.given
    drawn = fresh(*given, SEED, tokens=False)
    turned = [
        {name: -np.abs(new[name]) for name, array in one.items() if _only_positive(array, new[name])}
        for one, new in zip(given, drawn, strict=True)
    ]
    if not all(turned):
        return [], []
    return [label(name) for name in turned[0]], [new | one for new, one in zip(drawn, turned, strict=True)]


def _differ(trial: Trial, inputs: Sequence[Mapping[str, Array]], drawn: int | Mapping[str, Array]) -> bool:
    """Tell whether outputs are finite and differ; see Trial.apart."""
    return 0 < trial.apart(inputs, drawn, trial.limit(APART, OTHER_SIGNS)) < math.inf


def _only_positive(array: Array, drawn: Array) -> bool:
    """Tell whether an input has positive numbers, no mask, and the proof draws others."""
    positive_numbers = array.dtype.kind == "f" and array.size > 1 and array.min() >= 0
    return bool(positive_numbers and not np.array_equal(array, drawn) and len(np.unique(array)) > 2)


def _signed(name: str, array: Array) -> Array:
    """Return the values with random signs, the first of them negative."""
    array = _own_signs(0, name, array)
    array.flat[0] = -abs(array.flat[0])
    return array


def _own_signs(seed: int, name: str, array: Array) -> Array:
    """Return the values with random signs, others for each name: which of two single numbers is which shows so."""
    signs = np.random.default_rng([seed, zlib.crc32(name.encode())]).choice([-1.0, 1.0], array.shape)
    return array * signs


def rows_of_zeros(trial: Trial) -> str:
    """Say that outputs differ for zeros in the last example, or at the last place of a lone one; "" if they agree.

    Zeros are all numbers there, or every second one.
    """
    return _with(trial, 1, "rows of zeros", "one") or _with(trial, 2, "single zeros", "these")


def _with(trial: Trial, step: int, what: str, which: str) -> str:
    """Say that outputs differ with such zeros. Args: step: from one zero to the next along the last axis."""
    given = trial.given
    every, (drawn, others) = related(*given), fresh(*given, ZEROS, tokens=False)
    moved = moved_inputs(given[0], drawn)
    zeros = {name: _with_zeros(array, step) for name, array in moved.items() if array.ndim > 1 and every[name]}
    if not zeros:
        return ""
    inputs = drawn | zeros, carried(zeros, others, every)
    if not (said := trial.unlike(inputs, ZEROS)):
        return ""
    where = f"{what} in {in_a_row(label(name) for name in zeros)}"
    ties = ", where models choose among equal values" if _only_ties(trial, inputs) else ""
    return f"{where}{ties}: with {which}, {said}"


def _only_ties(trial: Trial, inputs: Sequence[Mapping[str, Array]]) -> bool:
    """Tell whether both tapes agree once values among which they choose do not tie."""
    apart = [_without_ties(tape) for tape in trial.tapes]
    if any(other is tape for other, tape in zip(apart, trial.tapes, strict=True)):
        return False
    return trial.tapes_agree(apart, inputs, trial.drawn(ZEROS), trial.limit(AGREEING_OUTPUTS))


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

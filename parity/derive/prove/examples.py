"""Run both models on twice as many examples as they were given, and on one.

What mixes examples does not show in one, nor does a number of examples that code of one model alone reads.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from parity.derive.trace.inputs import fresh
from parity.derive.trace.reason import Reason
from parity.derive.trace.tape import Array

from .trial import Trial, differing

SEED = 7000
MIXED = Reason(
    "equal only for one example alone, as one model mixes those of a batch, or both do so in other ways",
    "give inputs of two examples or more; then derive again",
)
ANOTHER = "equal only for this number of examples: for {} in place of {}, {}"
SOME = "equal only for some inputs: for others, {}"
EQUAL = "make both models equal for such inputs; then derive again"
MORE = "make both models independent of how many examples they get; then derive again"


class Examples(NamedTuple):
    """What two examples show.

    Args:
      shapes: of the left inputs; none where the models were not run. reason: why nothing is proven; "" if they agree.
    """

    shapes: tuple[tuple[int, ...], ...] = ()
    reason: str = ""


def more_examples(trial: Trial) -> Examples:
    """Compare outputs for twice as many examples, if both models take them."""
    given = trial.given
    number = _examples(given)
    if not number:
        return Examples()
    draws = [fresh(*given, SEED + k) for k in range(2)]
    inputs = [{name: np.concatenate([draw[side][name] for draw in draws]) for name in given[side]} for side in (0, 1)]
    outputs = trial.outputs(inputs, SEED)
    shapes = [[np.shape(array) for array in arrays] for arrays in outputs]
    if not all(outputs) or shapes[0] != shapes[1] or any(shape[:1] != (2 * number,) for shape in shapes[0]):
        return Examples()  # axis 0 is no axis of examples there
    apart, each = trial.gap(*outputs, trial.limit()), [trial.apart(draw, SEED) for draw in draws]
    if any(each):
        return Examples(reason=Reason(SOME.format(differing(max(each))), EQUAL))
    if number == 1:
        return Examples(tuple(array.shape for array in inputs[0].values()), MIXED if apart else "")
    return Examples(reason=Reason(ANOTHER.format(2 * number, number, differing(apart)), MORE) if apart else "")


def one_example(trial: Trial) -> str:
    """Say that outputs differ for the first example alone; "" if they agree, or if it is the only one."""
    if _examples(trial.given) < 2:
        return ""
    first = [{name: array[:1] for name, array in inputs.items()} for inputs in fresh(*trial.given, SEED)]
    said = trial.unlike(first, SEED, shapes=True)
    return f"one example alone: with it, {said}" if said else ""


def _examples(given: Sequence[Mapping[str, Array]]) -> int:
    """Return how many examples both sides were given, the first length of all inputs; 0 where that is unclear."""
    arrays = [array for side in given for array in side.values()]
    numbers = {array.shape[:1] for array in arrays}
    if not all(given) or len(numbers) != 1 or numbers == {()} or (numbers == {(1,)} and not all(map(_one, arrays))):
        return 0
    return int(numbers.pop()[0])


def _one(array: Array) -> bool:
    """Tell whether the first axis alone has length 1, or is that of images or sounds of one channel."""
    return array.ndim > 1 and (array.shape[1] > 1 or array.ndim > 3)

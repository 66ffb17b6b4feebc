"""Run both models on two examples at once where they were given one: what mixes examples does not show in one."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from parity.derive.trace.inputs import fresh
from parity.derive.trace.outputs import difference
from parity.derive.trace.reason import Reason
from parity.derive.trace.tape import Array

from .trial import Trial

SEED = 7000
MIXED = Reason(
    "equal only for one example alone, as one model mixes those of a batch, or both do so in other ways",
    "give inputs of two examples or more; then derive again",
)


class Examples(NamedTuple):
    """What two examples show.

    Args:
      shapes: of the left inputs; none where the models were not run. reason: why nothing is proven; "" if they agree.
    """

    shapes: tuple[tuple[int, ...], ...] = ()
    reason: str = ""


def two_examples(trial: Trial) -> Examples:
    """Compare outputs for two examples, if the inputs of both sides are one and both models take two."""
    given = trial.given
    if not all(side and all(map(_one_example, side.values())) for side in given):
        return Examples()
    draws = [fresh(*given, SEED + k) for k in range(2)]
    inputs = [{name: np.concatenate([draw[side][name] for draw in draws]) for name in given[side]} for side in (0, 1)]
    outputs = trial.outputs(inputs, SEED)
    every = [array for found in outputs for array in found]
    if not all(outputs) or any(np.shape(array)[:1] != (2,) for array in every):  # axis 0 is no axis of examples there
        return Examples()
    if [np.shape(array) for array in outputs[0]] != [np.shape(array) for array in outputs[1]]:
        return Examples()
    mixed = difference(*outputs) > trial.limit()
    return Examples(tuple(array.shape for array in inputs[0].values()), MIXED if mixed else "")


def _one_example(array: Array) -> bool:
    """Tell whether the first axis alone has length 1, or is that of images or sounds of one channel."""
    return array.shape[:1] == (1,) and array.ndim > 1 and (array.shape[1] > 1 or array.ndim > 3)

"""Run both models on two examples at once where they were given one: what mixes examples does not show in one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from parity.derive.limits import EQUAL_OUTPUTS
from parity.derive.trace.caches import trim
from parity.derive.trace.draws import Drawn
from parity.derive.trace.inputs import fresh
from parity.derive.trace.outputs import difference
from parity.derive.trace.reason import Reason
from parity.derive.trace.sides import Side
from parity.derive.trace.tape import Array
from specs.table import Table

from .translated import TranslatedWeights

SEED = 7000
ROUNDING = 100  # times the difference for one example: what rounding may make of it for two
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


def two_examples(left: Side, right: Side, table: Table, error: float) -> Examples:
    """Compare outputs for two examples, if the inputs of both sides are one and both models take two.

    Args:
      error: the difference of the outputs for one.
    """
    given = left.call.arrays(), right.call.arrays()
    if not all(side and all(map(_one_example, side.values())) for side in given):
        return Examples()
    draws = [fresh(*given, SEED + k) for k in range(2)]
    inputs = [{name: np.concatenate([draw[side][name] for draw in draws]) for name in given[side]} for side in (0, 1)]
    outputs = outputs_of_both(left, right, table, inputs, SEED)
    every = [array for found in outputs for array in found]
    if not all(outputs) or any(np.shape(array)[:1] != (2,) for array in every):  # axis 0 is no axis of examples there
        return Examples()
    if [np.shape(array) for array in outputs[0]] != [np.shape(array) for array in outputs[1]]:
        return Examples()
    mixed = difference(*outputs) > max(EQUAL_OUTPUTS, ROUNDING * error)
    return Examples(tuple(array.shape for array in inputs[0].values()), MIXED if mixed else "")


def _one_example(array: Array) -> bool:
    """Tell whether the first axis alone has length 1, or is that of images or sounds of one channel."""
    return array.shape[:1] == (1,) and array.ndim > 1 and (array.shape[1] > 1 or array.ndim > 3)


def outputs_of_both(
    left: Side, right: Side, table: Table, inputs: Sequence[Mapping[str, Array]], drawn: int | Mapping[str, Array]
) -> tuple[list[Array], list[Array]]:
    """Run both sides on the same weights, the right ones translated by the table.

    A side whose code refuses the inputs has no outputs; the right one is not run if the left one does.

    Args:
      inputs: of the left and of the right side. drawn: the left weights, or a seed of random ones.
    """
    weights = Drawn(left, drawn) if isinstance(drawn, int) else drawn
    first = outputs_of(left, weights, inputs[0])
    second = outputs_of(right, TranslatedWeights(table, left, right, weights), inputs[1]) if first else []
    return first, second


def outputs_of(of: Side, weights: Mapping[str, Array], inputs: Mapping[str, Array]) -> list[Array]:
    """Run a side; return no outputs if its code refuses these inputs."""
    try:
        return of.run(weights, inputs)
    except Exception:  # the user's code may raise anything, as for a shape that it states
        return []
    finally:
        of.release()
        trim()

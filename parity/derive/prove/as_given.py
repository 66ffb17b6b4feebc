"""Run both models in the dtypes of their given weights: code may ask for its dtype, as for float32."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from convert.errors import UsageError
from parity.derive.edits.edit import SIDES
from parity.derive.trace.call import as_float32
from parity.derive.trace.draws import Altered
from parity.derive.trace.frames import message
from parity.derive.trace.outputs import differ_by, difference, incomparable
from parity.derive.trace.tape import SHORT, Array

from .trial import Trial, outputs_of

SEED = 13000
APART = 1e-4  # relative difference of outputs that rounding to float32 does not explain
ROUNDED = 1e-7  # part of each weight by which it is changed, to see what rounding to float32 may become
MAGNIFIED = 1e3  # times what this changes that outputs have to differ at least: each operation rounds


class AsGiven(NamedTuple):
    """What runs in the dtypes of the given weights show.

    Args:
      apart: how far outputs differ there; "" where rounding may explain it. skipped: why models were not run so.
    """

    apart: str = ""
    skipped: str = ""


def as_given(trial: Trial) -> AsGiven:
    """Compare the outputs of both models in the dtypes of their given weights, if one of them has float32.

    Its inputs are of float32 there. Weights of float64 alone are those of the other runs.
    """
    single = [any(array.dtype == np.float32 for array in side.parameters.values()) for side in trial.sides]
    if not any(single):
        return AsGiven()
    if any(SHORT & tape.lowers for tape in trial.tapes):
        return AsGiven(skipped="a model casts to 16 bits, which rounds too much")
    inputs, weights, outputs = trial.given, trial.weights(SEED), list[list[Array]]()
    for which, side, own, given, is_single in zip(SIDES, trial.sides, weights, inputs, single, strict=True):
        try:
            outputs.append(side.run_as_given(own, as_float32(given) if is_single else given))
        except UsageError as error:
            return AsGiven(skipped=f"the {which} model {error.message}")
        except Exception as error:  # the user's code may raise anything
            return AsGiven(skipped=f"the {which} model: {message(error)}")
    if why := incomparable(*outputs):
        return AsGiven(f"outputs are {why}" if not incomparable(*trial.outputs(inputs, SEED)) else "")
    if (apart := difference(*outputs)) <= APART:
        return AsGiven()
    near = Altered(weights[0], trial.trained, _rounded)
    usual, again = (outputs_of(trial.left, some, inputs[0]) for some in (weights[0], near))
    rounding = difference(usual, again) if usual and again else math.inf
    return AsGiven(f"outputs {differ_by(apart)}" if apart > MAGNIFIED * rounding else "")


def _rounded(_: str, array: Array) -> Array:
    return array * (1 + ROUNDED * np.random.default_rng(SEED).standard_normal(array.shape))

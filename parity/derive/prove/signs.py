"""Run both models with other signs of parameters and inputs that are positive, and that the proof draws mostly so.

Scales of norms are such, and images. A model that takes their absolute values is equal to one that does not, until
training makes a scale negative, or images are normalized.
"""

from __future__ import annotations

import functools
import math
import zlib
from collections.abc import Callable, Collection, Mapping, Sequence

import numpy as np

from parity.derive.trace.call import label
from parity.derive.trace.draws import Altered, Drawn, positive
from parity.derive.trace.inputs import fresh
from parity.derive.trace.tape import Array
from specs.words import in_a_row

from .trial import Trial, differing

SEED = 4000
APART = 1e-3  # relative difference of outputs that rounding does not explain, whatever the signs are
OTHER_SIGNS = 100  # times the error of the proof that rounding to a lower precision may cause with other signs
OTHERS = 2  # draws of signs beside the one that turns the first value of all
FEW = 16  # parameters that are tried one by one


def only_positive(trial: Trial) -> list[str]:
    """List left parameters that are positive in the model, and with which outputs are equal only if they stay so.

    A model that cannot be run with negative ones, or gives no finite values then, tells nothing.
    """
    left = trial.left
    names = [name for name in trial.trained if positive(left.parameters[name])]

    def differ(turned: Collection[str], change: Callable[[str, Array], Array] = _signed) -> bool:
        return _differ(trial, trial.given, Altered(Drawn(left, SEED), turned, change))

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

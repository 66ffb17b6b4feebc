"""Run both models with other signs of parameters that are positive in them, and are drawn so for the proof.

Scales of norms are such. A model that takes their absolute values is equal to one that does not, until training makes
one of them negative.
"""

from __future__ import annotations

import functools
import zlib
from collections.abc import Callable, Collection, Sequence

import numpy as np

from parity.derive.trace.draws import Altered, Drawn, positive
from parity.derive.trace.outputs import difference, incomparable
from parity.derive.trace.sides import Side
from parity.derive.trace.tape import Array
from specs.table import Table

from .translated import TranslatedWeights

SEED = 4000
APART = 1e-3  # relative difference of outputs that rounding does not explain, whatever the signs are
OTHER_SIGNS = 100  # times the error of the proof that rounding to a lower precision may cause with other signs
OTHERS = 2  # draws of signs beside the one that turns the first value of all
FEW = 16  # parameters that are tried one by one


def only_positive(left: Side, right: Side, table: Table, error: float) -> list[str]:
    """List left parameters that are positive in the model, and with which outputs are equal only if they stay so.

    A model that cannot be run with negative ones, or gives no finite values then, tells nothing.

    Args:
      error: that of the outputs in the proof, as the models compute them.
    """
    names = [name for name, array in left.parameters.items() if name not in left.buffers and positive(array)]

    def differ(turned: Collection[str], change: Callable[[str, Array], Array] = _signed) -> bool:
        weights = Altered(Drawn(left, SEED), turned, change)
        try:
            left_outputs = left.run(weights, left.call.arrays())
            right_outputs = right.run(TranslatedWeights(table, left, right, weights), right.call.arrays())
        except Exception:  # a model that refuses negative numbers
            return False
        return not incomparable(left_outputs, right_outputs) and difference(left_outputs, right_outputs) > max(
            APART, OTHER_SIGNS * error
        )

    changes: Sequence[Callable[[str, Array], Array]] = (
        _signed,
        *(functools.partial(_own_signs, seed) for seed in range(OTHERS)),
    )
    if not names or not any(differ(names, change) for change in changes):
        return []
    return [name for name in names[:FEW] if differ([name])] or names


def _signed(name: str, array: Array) -> Array:
    """Return the values with random signs, the first of them negative."""
    array = _own_signs(0, name, array)
    array.flat[0] = -abs(array.flat[0])
    return array


def _own_signs(seed: int, name: str, array: Array) -> Array:
    """Return the values with random signs, others for each name: which of two single numbers is which shows so."""
    signs = np.random.default_rng([seed, zlib.crc32(name.encode())]).choice([-1.0, 1.0], array.shape)
    return array * signs

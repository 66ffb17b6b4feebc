"""Run both models with other signs of parameters that are positive in them, and are drawn so for the proof.

Scales of norms are such. A model that takes their absolute values is equal to one that does not, until training makes
one of them negative.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping

import numpy as np

from specs.table import Table

from ..trace.draws import Drawn
from ..trace.outputs import difference, incomparable
from ..trace.sides import Side
from ..trace.tape import Array
from .prove import Translated

SEED = 4000
APART = 1e-3  # relative difference of outputs that rounding does not explain, whatever the signs are
ROUNDED = 100  # times the error of the proof that rounding to a lower precision may cause with other signs
FEW = 16  # parameters that are tried one by one


def only_positive(left: Side, right: Side, table: Table, error: float) -> list[str]:
    """List left parameters that are positive in the model, and with which outputs are equal only if they stay so.

    A model that cannot be run with negative ones, or gives no finite values then, tells nothing.

    Args:
      error: that of the outputs in the proof, as the models compute them.
    """
    names = [
        name
        for name, array in left.parameters.items()
        if name not in left.buffers and array.ndim < 3 and array.size and (array > 0).all()
    ]

    def differ(turned: Collection[str]) -> bool:
        weights = Signed(left, turned)
        try:
            ours = left.run(weights, left.call.arrays())
            theirs = right.run(Translated(table, left, right, weights), right.call.arrays())
        except Exception:  # a model that refuses negative numbers
            return False
        return not incomparable(ours, theirs) and difference(ours, theirs) > max(APART, ROUNDED * error)

    if not names or not differ(names):
        return []
    return [name for name in names[:FEW] if differ([name])] or names


class Signed(Mapping[str, Array]):
    """Random values for every parameter, as for the proof, with random signs of some."""

    def __init__(self, of: Side, turned: Collection[str]):
        self._drawn, self._turned = Drawn(of, SEED), frozenset(turned)

    def __len__(self) -> int:
        return len(self._drawn)

    def __iter__(self) -> Iterator[str]:
        return iter(self._drawn)

    def __getitem__(self, name: str) -> Array:
        array = self._drawn[name]
        if name in self._turned:
            array *= np.random.default_rng(array.size).choice([-1.0, 1.0], array.shape)
            array.flat[0] = -abs(array.flat[0])
        return array

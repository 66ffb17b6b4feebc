"""Run both models with other integers and flags in place of those that both store, as orders from 0 on and masks.

The proof draws no such values, and those of a new model show little: an order from 0 on is its own inverse.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial

import numpy as np

from convert.folding import fold
from parity.derive.fold.rows import moved
from parity.derive.trace.draws import draw, of_one_value
from parity.derive.trace.reason import Reason
from parity.derive.trace.tape import Array
from specs.words import in_a_row

from .trial import Trial, differing, outputs_of, zeros_of

SEED = 12000
DRAWS = 3  # of each array: a short order that is shuffled once may be its own inverse
FEW = 16  # arrays that are changed one by one, where all of them together are refused or differ
KINDS = "iub"
ONLY = "equal only with these values of {}: with others, {}"
REMEDY = "let both models use these values alike, or derive from models that have those of the checkpoint"


class OtherValues:
    """Both models, and the integers and flags that both store, which a Table relates."""

    def __init__(self, trial: Trial):
        self.trial = trial
        self.weights = trial.weights(draw(trial.left, SEED))
        self._arrays = zeros_of(trial.left)
        self._moved = moved(trial.table, self._arrays)

    def changed(self, names: Iterable[str], new: Callable[[Array], Array]) -> list[dict[str, Array]]:
        """Return other values of left arrays, and those of the right ones that the Table makes of them."""
        own = self.trial.right.others
        lefts = {name: new(self.trial.left.others[name]) for name in names}
        made = moved(self.trial.table, {**self._arrays, **lefts})
        rights = {name: array for name, array in made.items() if not np.array_equal(array, self._moved[name])}
        return [lefts, {name: np.asarray(array).astype(own[name].dtype) for name, array in rights.items()}]

    def outputs(self, others: Sequence[Mapping[str, Array]]) -> tuple[list[Array], list[Array]]:
        """Run both models with other values; those of one whose code refuses them are []."""
        each = zip(self.trial.sides, self.weights, others, self.trial.given, strict=True)
        left, right = (outputs_of(side, {**weights, **some}, inputs) for side, weights, some, inputs in each)
        return left, right


def other_values(trial: Trial, lefts: Sequence[str], rights: Sequence[str]) -> tuple[str, list[str]]:
    """Return why outputs are equal only with the stored values, and the right arrays that nothing shows.

    Args:
      lefts, rights: the arrays of each side that its model reads.
    """
    both = OtherValues(trial)
    integers = [name for name in lefts if trial.left.others[name].dtype.kind in KINDS]
    names = [name for name in integers if not both.changed([name], following)[1].keys().isdisjoint(rights)]
    if not names:
        return "", []
    try:
        apart, unshown = _tried(both, names)
        if not apart and not unshown:
            return "", []
        each = {name: _tried(both, [name]) for name in names[:FEW]}
        if apart := max([apart, *(gap for gap, _ in each.values())]):
            parted = [name for name, (gap, _) in each.items() if gap] or names
            return Reason(ONLY.format(in_a_row(fold(parted)), differing(apart)), REMEDY), []
        return "", [name for _, some in each.values() for name in some]
    finally:
        both.outputs([side.others for side in trial.sides])  # gives the models their own values again


def _tried(both: OtherValues, names: Sequence[str]) -> tuple[float, list[str]]:
    """Return how far outputs differ with other values of some arrays, and the right arrays that no run shows.

    These are trivial, as all of a new model are, and a model refuses each other value.
    """
    own, refused = both.trial.right.others, True
    for k in range(DRAWS):
        others = both.changed(names, partial(another, np.random.default_rng(SEED + k)))
        outputs = both.outputs(others)
        refused &= not all(outputs)
        if all(outputs) and (gap := both.trial.gap(*outputs, both.trial.limit())):
            return gap, []
    return 0.0, [name for name in others[1] if refused and is_trivial(own[name])]


def is_trivial(array: Array) -> bool:
    """Tell whether an array has one value, or counts from its first one, as arrays of new models do."""
    flat = array.ravel()
    counts = array.dtype.kind in "iu" and np.array_equal(flat - flat[0], np.arange(flat.size))
    return bool(of_one_value(array) or counts)


def another(rng: np.random.Generator, array: Array) -> Array:
    """Return other values that a model is likely to accept: others of flags, and of integers the same in another order.

    Those of one value become, at random, that value and the next one.
    """
    if array.size == 1:
        return following(array)
    if array.dtype.kind == "b":
        return rng.random(array.shape) < 0.5
    if of_one_value(array):
        return (array.astype(np.int64) + rng.integers(0, 2, array.shape)).astype(array.dtype)
    return rng.permutation(array.ravel()).reshape(array.shape)


def following(array: Array, by: int = 1) -> Array:
    """Return numbers that count once more, or flags that are turned."""
    return ~array if array.dtype.kind == "b" else (array.astype(np.int64) + by).astype(array.dtype)

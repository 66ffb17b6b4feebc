"""Run both models with other integers, flags and complex numbers in place of those that both store.

The proof draws no such values, and those of a new model show little: an order from 0 on is its own inverse, and
squares of 0 and 1 are the same again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import cached_property, partial

import numpy as np

from convert.folding import fold
from parity.derive.fold.rows import moved
from parity.derive.trace.draws import draw, of_one_value
from parity.derive.trace.outputs import incomparable
from parity.derive.trace.program import Program
from parity.derive.trace.reason import Reason
from parity.derive.trace.tape import Array
from specs.words import in_a_row

from .trial import Trial, differing, outputs_of, zeros_of

SEED = 12000
SHUFFLES = 3  # of each array: a short order that is shuffled once may be its own inverse
DRAWS = 2  # of new numbers
AXES = 4  # that one array of indices has as its last axis, as JAX stacks them
FURTHER = 100  # beyond the largest number at most: code may count up to it
FEW = 16  # arrays that are changed one by one, where all of them together are refused or differ
KINDS = "iub"
SAME_SIZE = 1e-5  # difference of sizes of complex numbers, beside the largest, that rounding to float32 explains
ONLY = "equal only with these values of {}: with others, {}"
Change = Callable[[np.random.Generator, Array], Array]
REMEDY = "let both models use these values alike, or derive from models that have those of the checkpoint"


class OtherValues:
    """Both models, and the integers and flags that both store, which a Table relates."""

    def __init__(self, trial: Trial):
        self.trial = trial
        self.weights = trial.weights(draw(trial.left, SEED))
        self._arrays = zeros_of(trial.left)
        self._moved = moved(trial.table, self._arrays)

    @cached_property
    def indices(self) -> set[str]:
        """Return the left arrays whose numbers pick elements in one of the models."""
        every = [np.unique(index) for program in self.trial.programs for index in _indices(program)]
        arrays = self.trial.left.others.items()
        return {name for name, array in arrays if any(_picks(np.unique(array), index, array.size) for index in every)}

    def changed(self, names: Iterable[str], new: Callable[[Array], Array]) -> list[dict[str, Array]]:
        """Return other values of left arrays, and those of the right ones that the Table makes of them."""
        own = self.trial.right.others
        lefts = {name: new(self.trial.left.others[name]) for name in names}
        made = moved(self.trial.table, {**self._arrays, **lefts})
        rights = {name: array for name, array in made.items() if not np.array_equal(array, self._moved[name])}
        return [lefts, {name: np.asarray(array).astype(own[name].dtype) for name, array in rights.items()}]

    def outputs(self, others: Sequence[Mapping[str, Array]]) -> tuple[list[Array], list[Array]]:
        """Run both models with other values of some arrays; the outputs of one whose code refuses them are []."""
        each = zip(self.trial.sides, self.weights, others, self.trial.given, strict=True)
        left, right = (
            outputs_of(side, {**weights, **side.others, **some}, inputs) for side, weights, some, inputs in each
        )
        return left, right


def other_values(trial: Trial, lefts: Sequence[str], rights: Sequence[str]) -> tuple[str, list[str]]:
    """Return why outputs are equal only with the stored values, and the right arrays that nothing shows.

    Args:
      lefts, rights: the arrays of each side that its model reads.
    """
    both = OtherValues(trial)
    stored = [name for name in lefts if trial.left.others[name].dtype.kind in f"{KINDS}c"]
    names = [name for name in stored if not both.changed([name], following)[1].keys().isdisjoint(rights)]
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

    A model refuses each other value of these, or takes the same integers alone, though some of them are equal.
    """
    lefts = both.trial.left.others
    orders = [name for name in names if name in both.indices and len(np.unique(lefts[name])) == lefts[name].size > 1]
    loose = [name for name in names if name not in orders and lefts[name].dtype.kind not in "bc"]
    beyond = [name for name in loose if name not in both.indices]
    changes = [(another, names)] * SHUFFLES + [(larger, beyond)] * DRAWS + [(within, loose)] * DRAWS
    accepted = set[Change]()
    for k, (change, some) in enumerate(changes):
        if not some or (change is within and larger in accepted and beyond == loose):
            continue
        outputs = both.outputs(both.changed(some, partial(change, np.random.default_rng(SEED + k))))
        if all(outputs) and not incomparable(*outputs):
            accepted.add(change)
        if gap := both.trial.gap(*outputs, both.trial.limit()):
            return gap, []
    if (another in accepted or names == loose) and (accepted - {another} or not loose):
        return 0.0, []
    return 0.0, list(both.changed(names, following)[1])


def _picks(values: Array, index: Array, count: int) -> bool:
    """Tell whether indices are the integers of an array, or some of those of an order.

    Args:
      values, index: the integers of each, sorted. count: how many an array has.
    """
    return bool(np.isin(index, values).all()) if len(values) == count > 1 else np.array_equal(values, index)


def _indices(program: Program) -> Iterator[Array]:
    """Yield the integers by which the layouts of a run pick elements; those of several axes also one by one."""
    for node in program.tape.nodes:
        for number in node.inputs if node.kind == "layout" else ():
            index = np.asarray(program.tape.constants.get(number, np.nan))
            if index.dtype.kind in "iu" and index.size:
                yield index
                yield from np.moveaxis(index, -1, 0) if index.ndim > 1 and index.shape[-1] <= AXES else ()


def is_trivial(array: Array) -> bool:
    """Tell whether an array has one value, or counts from its first one, as arrays of new models do."""
    flat = array.ravel()
    counts = array.dtype.kind in "iu" and np.array_equal(flat - flat[0], np.arange(flat.size))
    return bool(of_one_value(array) or counts)


def another(rng: np.random.Generator, array: Array) -> Array:
    """Return other values that any model is likely to accept: of flags others, of integers the same in another order.

    Those of one value become, at random, that value and the next one. A mask of several rows keeps the first of the
    places that have each of its two values in a row: code may hide none of its rows whole.
    """
    if array.dtype.kind == "c":
        return turned(rng, array)
    if array.size == 1:
        return following(array)
    values = np.unique(array)
    if array.dtype.kind == "b" or (array.ndim > 1 and len(values) == 2):
        new = rng.choice(np.array([False, True]) if array.dtype.kind == "b" else values, array.shape)
        for value in values if array.ndim > 1 else ():
            new[(array == value) & ((array == value).cumsum(-1) == 1)] = value
        return new
    if of_one_value(array):
        return (array.astype(np.int64) + rng.integers(0, 2, array.shape)).astype(array.dtype)
    return rng.permutation(array.ravel()).reshape(array.shape)


def turned(rng: np.random.Generator, array: Array) -> Array:
    """Return other complex numbers: of other sizes, but where all have one, as rotations do, which code relies on."""
    new = rng.standard_normal(array.shape) + 1j * rng.standard_normal(array.shape)
    sizes = np.abs(array)
    if np.ptp(sizes) <= SAME_SIZE * sizes.max():
        new = new / np.abs(new) * sizes
    return new.astype(array.dtype)


def larger(rng: np.random.Generator, array: Array) -> Array:
    """Return other integers, the largest one larger than all of an array; negative ones only where it has such."""
    least, most, limits = int(array.min()), int(array.max()), np.iinfo(array.dtype)
    least = max(least - min(-least, FURTHER) - 2, limits.min) if least < 0 else 0
    most = min(most + min(abs(most), FURTHER) + 2, limits.max)
    new = _drawn(rng, array, least, most)
    new.flat[rng.integers(array.size)] = most
    return new


def within(rng: np.random.Generator, array: Array) -> Array:
    """Return other integers between the least and the largest one of an array, as indices have to be."""
    return another(rng, array) if of_one_value(array) else _drawn(rng, array, int(array.min()), int(array.max()))


def _drawn(rng: np.random.Generator, array: Array, least: int, most: int) -> Array:
    return rng.integers(least, most, array.shape, np.int64, endpoint=True).astype(array.dtype)


def following(array: Array, by: int = 1) -> Array:
    """Return numbers that count once more, or flags that are turned."""
    if array.dtype.kind == "c":
        return array + by
    return ~array if array.dtype.kind == "b" else (array.astype(np.int64) + by).astype(array.dtype)

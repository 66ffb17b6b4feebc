"""Compare the weights of two models that a Table pairs, before they run: other weights give other outputs."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from convert.arrays.counters import COUNTER
from parity.given.quoting import marked
from specs.numbers import short
from specs.words import count

from .elements import double, without_shared, worst

Arrays = Mapping[str, np.ndarray]


@dataclass(frozen=True)
class UnequalWeights:
    """The arrays that differ between two models.

    Args:
      errors: (name in the right model, largest difference relative to the array's largest value) of each array that
        differs, in the order of the models' own lists.
      compared: how many arrays were compared.
      rounded: label of the model in which each of these arrays is the other one's, rounded to float32; "" for neither.
    """

    errors: tuple[tuple[str, float], ...]
    compared: int
    rounded: str = ""

    def __str__(self) -> str:
        (name, error), *others = self.errors
        most, largest = max(self.errors, key=lambda pair: pair[1])
        by = f"{'such as ' * bool(others)}{marked(name)} {_by(error)}"
        by += f", most {marked(most)} {_by(largest)}" * (largest > error)
        rounded = f"; {self.rounded} has those values rounded to float32" * bool(self.rounded)
        return f"{len(self.errors):,} of {count(self.compared, 'array')}, {by}{rounded}"


def _by(error: float) -> str:
    return f"by {short(error)} of its largest value" if math.isfinite(error) else "(NaN or infinite in one model alone)"


def unequal(models: Mapping[str, Arrays]) -> UnequalWeights | None:
    """Compare arrays of the same names in two models, by their labels; None if they are equal.

    Counters of batches count steps, and are no weights.
    """
    left, right = models.values()
    names = [name for name in left if name in right and not name.endswith(COUNTER) and left[name].size]
    errors = {name: worst(*without_shared(left[name], right[name])).error for name in names}
    errors = {name: error for name, error in errors.items() if error}
    if not errors:
        return None
    one, other = models
    rounded = one if _rounds(left, right, errors) else other if _rounds(right, left, errors) else ""
    return UnequalWeights(tuple(errors.items()), len(names), rounded)


def _rounds(a: Arrays, b: Arrays, names: Mapping[str, float]) -> bool:
    """Tell whether arrays of the first model are those of the second one, rounded to float32."""
    with np.errstate(over="ignore"):
        pairs = ((double(a[name]), double(b[name]).astype(np.float32)) for name in names)
        return all(np.array_equal(one, other, equal_nan=True) for one, other in pairs)

"""Find parameters of which some elements change no output, as columns that zeros reach in every run.

No value shows where such elements belong: they follow what is read of the parameter.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping

import numpy as np

from parity.derive.trace.cotangents import NoGradients
from parity.derive.trace.draws import Altered, Drawn, drawn
from parity.derive.trace.inputs import fresh
from parity.derive.trace.outer import Outer
from parity.derive.trace.outputs import equal
from parity.derive.trace.sides import Side
from parity.derive.trace.tape import Array

from .trial import Trial

RUNS = 4  # beyond those of the proof: a ReLU that is zero in all of these, for all rows, is hardly so by chance
MOST_RUNS = 24  # the same where each run shows more elements, as in a deep model, whose units are zero in most runs
FEW = 12  # arrays: to look at these one by one takes no longer than some further runs
MANY = 1000  # elements: if any of so many is read, other values of all of them show it
SEED = 14000


def zeros_of(gradient: Array | Outer) -> Array | None:
    """Return which elements of a parameter have no gradient at all; None if all or none of them."""
    if isinstance(gradient, Outer):
        rows, columns = (~np.any(part, 0) for part in (gradient.rows, gradient.columns))
        zeros = (rows[:, None] | columns).ravel() if rows.any() or columns.any() else None
    else:
        array = np.ravel(gradient)
        zeros = None if array.all() else array == 0
    return None if zeros is None or zeros.all() else zeros


def idle_elements(trial: Trial, zeros: Mapping[str, Array], known: Collection[str]) -> list[str]:
    """List right parameters of which some elements change no output in these runs and in further ones.

    Args:
      zeros: which elements of left parameters have no gradient in the proof. known: right parameters that are not
        looked at, as it is known that nothing reads all of them.
    """
    lefts, rights = trial.elements
    if not zeros:
        return []
    names = [name for name in rights.names if name not in known]

    def parts(name: str) -> Iterator[Array]:
        return (np.maximum(rights.part(found, name), 0) for found in trial.maps)

    owned = np.zeros(len(lefts), bool)
    for part in (part for name in names for part in parts(name)):
        owned[part] = True
    left = {name: where for name, where in zeros.items() if (where & lefts.part(owned, name).ravel()).any()}
    number = _count(left)
    for k in range(MOST_RUNS):
        before, left = number, _still(trial, left, SEED + k) if left else {}
        number = _count(left)
        if k + 1 >= RUNS and (number == before or (len(left) <= FEW and number > MANY)):
            break
    idle = np.zeros(len(lefts), bool)
    for name in _idle(trial.left, left) if left else ():
        lefts.part(idle, name)[...] = left[name].reshape(lefts.shapes[name])
    return [name for name in names if any(idle[part].any() for part in parts(name))]


def _count(places: Mapping[str, Array]) -> int:
    return sum(int(where.sum()) for where in places.values())


def _idle(side: Side, places: Mapping[str, Array]) -> list[str]:
    """List the parameters of which other values of some elements change no output: code may cut their gradients.

    All are changed at once, and one by one where that has an effect, as on a unit that its ReLU has kept at zero.
    """
    usual, others, inputs = drawn(side, SEED), Drawn(side, SEED + MOST_RUNS), side.call.arrays()
    outputs = side.run(usual, inputs)

    def change(name: str, array: Array) -> Array:
        return np.where(places[name].reshape(array.shape), others[name], array)

    def silent(*names: str) -> bool:
        return equal(outputs, side.run(Altered(usual, names, change), inputs))

    return [*places] if silent(*places) else [name for name in places if silent(name)]


def _still(trial: Trial, zeros: Mapping[str, Array], seed: int) -> dict[str, Array]:
    """Return those of some elements of left parameters that have no gradient for other weights and inputs either."""
    found = dict[str, Array | None]()

    def take(name: str, gradient: Array | Outer) -> None:
        if name in zeros:
            found[name] = zeros_of(gradient)

    try:
        trial.left.gradients(Drawn(trial.left, seed), fresh(*trial.given, seed)[0], take)
    except NoGradients:
        return {}
    still = {name: where & zeros[name] for name, where in found.items() if where is not None}
    return {name: where for name, where in still.items() if where.any()}

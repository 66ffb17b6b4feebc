"""Prove a Table by running both models on weights and inputs that were not used to find it."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from specs.table import Table

from .islands import Island, aligned
from .sides import Side, draw, fresh
from .tape import Array, Tape
from .walk import Elements, Filled, Program

OUTPUT = 1e-9  # relative error of outputs that rounding of float64 explains: a thousand operations in a row
GRADIENT = 1e-7  # that of gradients, which lose more digits
ROUNDED = 1e-4  # that of gradients where a model computes partly in float32: these run as the models are written
UNSEEN = 1e-12  # gradients below this part of the largest are zero: nothing observable depends on the parameter
DRAWS = 2


class Proof(NamedTuple):
    """The errors of running both models.

    Args:
      error: relative error of the outputs as the models compute them; exact: with casts to lower precision made void.
      gradient: relative error of the gradients; None where one side has none.
      unobservable: left parameters on which no output depends.
      remark: why there are no gradients.
      islands: tables that one side computes in lower precision.
    """

    error: float
    exact: float
    gradient: float | None
    unobservable: list[str]
    remark: str = ""
    islands: Sequence[Island] = ()

    @property
    def holds(self) -> bool:
        limit = GRADIENT if self.error <= OUTPUT else ROUNDED
        return self.exact <= OUTPUT and (self.gradient is None or self.gradient <= limit)


def prove(
    left: Side, right: Side, tapes: tuple[Tape, Tape], table: Table, found: Array, lefts: Filled,
    rights: Elements, plus: Array | None = None,
) -> Proof:  # fmt: skip
    """Run both sides on two draws of weights and inputs, the right ones translated by the table.

    Args:
      lefts: get the drawn values.
      found, plus: the left element of each right one, and a second one that is added to it; see Match.
    """
    maps = (found,) if plus is None or not plus.any() else (found, plus)
    error = exact = 0.0
    gradient: float | None = 0.0
    remark, islands = "", list[Island]()
    seen = dict.fromkeys(lefts.names, False)
    for k in range(DRAWS):
        weights = draw(left, 1000 + k, lefts.arrays)
        inputs = fresh(left.call.arrays(), right.call.arrays(), 2000 + k)
        translated = translate(table, left, right, weights)
        a, b = left.run(weights, inputs[0]), right.run(translated, inputs[1])
        here = difference(a, b)
        error = max(error, here)
        if here > OUTPUT:  # do casts to float32 explain it?
            arrays = [list(i.values()) for i in inputs]
            exact_right, islands = aligned(*tapes, *arrays)
            programs = zip((tapes[0], exact_right), (weights, translated), arrays, strict=True)
            here = difference(*(Program(*program).outputs for program in programs))
        exact = max(exact, here)
        rng = np.random.default_rng(3000 + k)
        cotangents = [rng.standard_normal(np.shape(out)) for out in a]
        if [np.shape(out) for out in a] != [np.shape(out) for out in b] or exact > OUTPUT:
            gradient = None
            continue
        try:
            grads = left.gradients(weights, inputs[0], cotangents)
            others = right.gradients(translated, inputs[1], cotangents)
        except Exception as problem:  # an operation that has none in evaluation mode, as paddle's recurrent ones
            gradient, remark = None, f"{type(problem).__name__}: {str(problem).strip().splitlines()[0]}"
            continue
        del weights, translated  # of a large model, this is as large as the model
        largest = max((max(g.max(initial=0), -g.min(initial=0)) for g in grads.values()), default=0.0)
        for name in lefts.names:
            seen[name] |= name not in grads or bool(np.abs(grads[name]).max(initial=0) > UNSEEN * largest)
        if gradient is not None:
            gradient = max(gradient, _gradient_error(grads, others, maps, lefts, rights, largest))
        del grads, others
    left.release()
    right.release()
    used = {name for found in maps for name in lefts.owners(found)} if gradient is not None else set()
    unobservable = [name for name in lefts.names if not seen[name] and name in used]
    return Proof(error, exact, gradient, unobservable, remark, islands)


def translate(table: Table, left: Side, right: Side, weights: Mapping[str, Array]) -> dict[str, Array]:
    """Return the right side's parameters; those that the table does not have keep their values."""
    arrays = dict(weights)
    arrays |= {name: weights[first] for name, first in left.ties.items() if first in weights}
    moved = table.apply({**arrays, **left.others})
    return {name: moved.get(name, array) for name, array in right.parameters.items()}


def difference(a: list[Array], b: list[Array]) -> float:
    """Return the largest relative difference of two lists of outputs."""
    if len(a) != len(b):
        return float("inf")
    worst = 0.0
    for x, y in zip(a, b, strict=True):
        if np.shape(x) != np.shape(y) or not (np.isfinite(x).all() and np.isfinite(y).all()):
            return float("inf")
        if x.dtype.kind == "f":
            worst = max(worst, float(np.abs(x - y).max(initial=0) / max(np.abs(x).max(initial=0), 1e-300)))
    return worst


def _gradient_error(
    left: Mapping[str, Array],
    right: Mapping[str, Array],
    maps: Sequence[Array],
    lefts: Elements,
    rights: Elements,
    largest: float,
) -> float:
    """Return the largest difference of a left gradient from the sum of the gradients of the elements it became."""
    total = np.zeros(len(lefts))
    whole = np.ones(len(lefts), bool)
    for name, found in itertools.product(rights.names, maps):
        elements = np.maximum(rights.part(found, name).ravel(), 0)
        if name in right:
            np.add.at(total, elements, right[name].ravel())
        else:
            whole[elements] = False
    worst = 0.0
    used = np.zeros(len(lefts), bool)
    for found in maps:
        used[np.maximum(found, 0)] = True
    for name, grad in left.items():
        comparable = lefts.part(used, name) & lefts.part(whole, name)
        gap = np.abs(lefts.part(total, name) - grad)[comparable].max(initial=0)
        scale = max(np.abs(grad).max(initial=0), 1e-3 * largest)
        worst = max(worst, float(gap / scale)) if scale else worst
    return worst

"""Prove a Table by running both models on weights and inputs that were not used to find it."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from specs.table import Table

from ..match.symbols import Elements, Filled
from ..trace.islands import Island, aligned
from ..trace.program import Program
from ..trace.sides import Side, draw, fresh
from ..trace.tape import Array, Tape

OUTPUT = 1e-9  # relative error of outputs that rounding of float64 explains: a thousand operations in a row
GRADIENT = 1e-7  # that of gradients, which lose more digits
ROUNDED = 1e-4  # that of gradients where a model computes partly in float32: these run as the models are written
UNSEEN = 1e-12  # gradients below this part of the largest are zero: nothing observable depends on the parameter
DRAWS = 2
CHUNK = 1 << 20  # elements whose gradients are compared at once: bounds memory


class Proof(NamedTuple):
    """The errors of running both models.

    Args:
      error: relative error of the outputs as the models compute them; exact: with casts to lower precision made void.
      gradient: relative error of the gradients; None where one side has none.
      unobservable: left parameters on which no output depends.
      remark: why there are no gradients.
      islands: tables that one side computes in lower precision.
      incomparable: why outputs cannot be compared; "" if they can.
    """

    error: float
    exact: float
    gradient: float | None
    unobservable: list[str]
    remark: str = ""
    islands: Sequence[Island] = ()
    incomparable: str = ""

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
    remark = reason = ""
    islands: Sequence[Island] = ()
    seen = dict.fromkeys(lefts.names, False)
    for k in range(DRAWS):
        run = _run(left, right, table, tapes, lefts, k)
        error, exact, islands = max(error, run.error), max(exact, run.exact), run.islands
        remark, reason = remark or run.remark, reason or run.incomparable
        if run.gradients is None or exact > OUTPUT:
            gradient = None
            continue
        grads, others = run.gradients
        sizes = {name: max(g.max(initial=0), -g.min(initial=0)) for name, g in grads.items()}
        largest = max(sizes.values(), default=0.0)
        for name in lefts.names:
            seen[name] |= name not in grads or sizes[name] > UNSEEN * largest
        if gradient is not None:
            gradient = max(gradient, _gradient_error(grads, others, maps, lefts, rights, sizes))
    left.release()
    right.release()
    used = {name for found in maps for name in lefts.owners(found)} if gradient is not None else set()
    unobservable = [name for name in lefts.names if not seen[name] and name in used]
    return Proof(error, exact, gradient, unobservable, remark, islands, reason)


class Run(NamedTuple):
    """Both models with one draw of weights: see Proof; gradients: of the left and the right side, None without any."""

    error: float
    exact: float
    islands: Sequence[Island]
    gradients: tuple[dict[str, Array], dict[str, Array]] | None = None
    remark: str = ""
    incomparable: str = ""


def _run(left: Side, right: Side, table: Table, tapes: tuple[Tape, Tape], lefts: Filled, k: int) -> Run:
    """Run both sides on new weights and inputs, the right ones translated by the table."""
    right.release()
    weights = draw(left, 1000 + k, lefts.arrays)
    inputs = fresh(left.call.arrays(), right.call.arrays(), 2000 + k)
    translated = translate(table, left, right, weights)
    a, b = left.run(weights, inputs[0]), right.run(translated, inputs[1])
    error = exact = difference(a, b)
    islands: Sequence[Island] = ()
    if error > OUTPUT:  # do casts to float32 explain it?
        arrays = [list(i.values()) for i in inputs]
        exact_right, islands = aligned(*tapes, *arrays)
        programs = zip((tapes[0], exact_right), (weights, translated), arrays, strict=True)
        exact = difference(*(Program(*program).outputs for program in programs))
    if [np.shape(out) for out in a] != [np.shape(out) for out in b] or exact > OUTPUT:
        return Run(error, exact, islands, incomparable=incomparable(a, b))
    rng = np.random.default_rng(3000 + k)
    cotangents = [rng.standard_normal(np.shape(out)) for out in a]
    try:
        others = right.gradients(translated, inputs[1], cotangents)
        del translated  # of a large model, each of these is as large as the model
        right.release()
        return Run(error, exact, islands, (left.gradients(weights, inputs[0], cotangents), others))
    except Exception as problem:  # an operation that has none in evaluation mode, as paddle's recurrent ones
        remark = f"{type(problem).__name__}: {str(problem).strip().splitlines()[0]}"
        return Run(error, exact, islands, remark=remark)


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


def incomparable(a: list[Array], b: list[Array]) -> str:
    """Return why two lists of outputs cannot be compared; "" if they can."""
    if len(a) != len(b):
        return f"{len(a)} on the left, {len(b)} on the right"
    for x, y in zip(a, b, strict=True):
        if np.shape(x) != np.shape(y):
            return f"shape {np.shape(x)} on the left, {np.shape(y)} on the right"
        for array, side in ((x, "left"), (y, "right")):
            if not np.isfinite(array).all():
                return f"those on the {side} are not all finite"
    return ""


def _gradient_error(
    left: dict[str, Array],
    right: dict[str, Array],
    maps: Sequence[Array],
    lefts: Elements,
    rights: Elements,
    sizes: Mapping[str, float],
) -> float:
    """Return the largest difference of a left gradient from the sum of the gradients of the elements it became.

    Args:
      left, right: gradients, which are dropped as they are read: each side's are as large as its model.
      sizes: of the left ones.
    """
    apart = np.zeros(len(lefts))  # gradients of the right side less those of the left
    whole, used = np.ones(len(lefts), bool), np.zeros(len(lefts), bool)
    for name in list(left):
        lefts.part(apart, name)[...] -= left.pop(name)
    for name in rights.names:
        grad = np.ravel(right.pop(name)) if name in right else None
        for found, at in itertools.product(maps, range(0, np.prod(rights.shapes[name], dtype=int), CHUNK)):
            elements = np.maximum(rights.part(found, name).ravel()[at : at + CHUNK], 0).astype(np.int64)
            used[elements] = True
            if grad is None:
                whole[elements] = False
            else:
                np.add.at(apart, elements, grad[at : at + CHUNK])
    apart[~(used & whole)] = 0
    worst, largest = 0.0, max(sizes.values(), default=0.0)
    for name, size in sizes.items():
        part = lefts.part(apart, name)
        scale = max(size, 1e-3 * largest)
        worst = max(worst, float(max(part.max(initial=0), -part.min(initial=0)) / scale)) if scale else worst
    return worst

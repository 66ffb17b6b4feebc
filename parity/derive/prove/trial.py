"""Run both models, with weights that a Table translates, on other inputs and weights than those of the proof.

Tell on which arrays outputs depend, and parameters that none does from those whose gradient the code cuts.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from parity.derive.edits.edit import SIDES
from parity.derive.limits import AGREEING_OUTPUTS, EFFECT_SECONDS, EQUAL_OUTPUTS
from parity.derive.match.symbols import Elements
from parity.derive.trace.caches import trim
from parity.derive.trace.draws import Altered, draw, drawn
from parity.derive.trace.outputs import differ_by, difference, equal, incomparable
from parity.derive.trace.program import Program, replayed
from parity.derive.trace.sides import Side, arrays_of
from parity.derive.trace.tape import Array, Tape
from specs.table import Table

from .translated import TranslatedWeights

ROUNDING = 100  # times the difference in the proof: what rounding may make of it for other inputs
SEEDS = 5000, 5001  # of usual values, and of others


@dataclass(frozen=True)
class Trial:
    """Both models and the Table between them: what each function that looks for an objection to it takes.

    Args:
      tapes: of both sides, as they were recorded. programs: those that were matched, without edits.
      maps: the left element of each right one, and, where such are added, a second one; see Match.
      elements: of both sides.
      error: the difference of the outputs in the proof, as the models compute them, or of one's from those in float64.
        exact: the same of both in float64.
    """

    left: Side
    right: Side
    table: Table
    tapes: tuple[Tape, Tape]
    programs: tuple[Program, Program]
    maps: Sequence[Array]
    elements: tuple[Elements, Elements]
    error: float = 0.0
    exact: float = 0.0
    _last: dict[int, Mapping[str, Array]] = field(default_factory=dict, init=False, repr=False)  # see drawn

    @property
    def sides(self) -> tuple[Side, Side]:
        """Return both models, the left one first."""
        return self.left, self.right

    @property
    def given(self) -> tuple[dict[str, Array], dict[str, Array]]:
        """Return the inputs of the left and of the right side."""
        return self.left.call.arrays(), self.right.call.arrays()

    @property
    def trained(self) -> list[str]:
        """Return the names of the left parameters that are no buffers."""
        return [name for name in self.left.parameters if name not in self.left.buffers]

    def drawn(self, seed: int) -> Mapping[str, Array]:
        """Return random left weights; those of the last seed are stored, as one check runs the models several times."""
        if seed not in self._last:
            self._last.clear()
            self._last[seed] = drawn(self.left, seed)
        return self._last[seed]

    def grown(self, seed: int, factor: float) -> Altered:
        """Draw left weights, and multiply those that are trained."""
        return Altered(self.drawn(seed), self.trained, lambda _, array: array * factor)

    def outputs(
        self, inputs: Sequence[Mapping[str, Array]], drawn: int | Mapping[str, Array]
    ) -> tuple[list[Array], list[Array]]:
        """Run both sides on the same weights, the right ones translated.

        A side whose code refuses the inputs has no outputs; the right one is not run if the left one does.

        Args:
          inputs: of the left and of the right side. drawn: the left weights, or a seed of random ones.
        """
        weights, translated = self.weights(drawn)
        first = outputs_of(self.left, weights, inputs[0])
        return first, outputs_of(self.right, translated, inputs[1]) if first else []

    def weights(self, drawn: int | Mapping[str, Array]) -> tuple[Mapping[str, Array], TranslatedWeights]:
        """Return the weights of both sides; drawn: the left ones, or a seed of random ones."""
        weights = self.drawn(drawn) if isinstance(drawn, int) else drawn
        return weights, TranslatedWeights(self.table, self.left, self.right, weights)

    def limit(self, least: float = EQUAL_OUTPUTS, rounding: float = ROUNDING) -> float:
        """Return the difference of outputs that rounding may explain: a multiple of that in the proof."""
        return max(least, rounding * self.error)

    def apart(
        self, inputs: Sequence[Mapping[str, Array]], drawn: int | Mapping[str, Array], limit: float | None = None
    ) -> float:
        """Return how far outputs differ: infinitely far where those of one model alone are infinite or NaN.

        The difference is 0 where outputs cannot be compared, or rounding may explain it.

        Args:
          inputs, drawn: see outputs. limit: what rounding explains; see limit.
        """
        return self.gap(*self.outputs(inputs, drawn), self.limit() if limit is None else limit)

    def gap(self, left: list[Array], right: list[Array], limit: float) -> float:
        """Return how far the outputs of a run differ, as `apart` does."""
        if not left or not right or not _alike_in_shape(left, right):
            return 0.0
        if _finite_on_one_side(left, right):
            return math.inf
        apart = 0.0 if incomparable(left, right) else difference(left, right)
        return apart if apart > limit else 0.0

    def unlike(self, inputs: Sequence[Mapping[str, Array]], seed: int, shapes: bool = False) -> str:
        """Say that outputs differ, or that those of one model alone are NaN or infinite; "" if rounding may explain it.

        Args:
          inputs: see outputs. seed: of random weights. shapes: whether to say that outputs have other shapes.
        """
        outputs = self.outputs(inputs, seed)
        if not all(outputs):
            return ""
        if not _alike_in_shape(*outputs):
            return f"outputs have {incomparable(*outputs)}" if shapes else ""
        if alone := _finite_on_one_side(*outputs):
            return alone
        known = [[np.nan_to_num(x, posinf=np.inf, neginf=-np.inf) for x in side] for side in outputs]
        apart = 0.0 if incomparable(*known) else difference(*known)
        return "" if apart <= self.limit(AGREEING_OUTPUTS) else f"outputs {differ_by(apart)}"

    def tapes_agree(
        self, tapes: Sequence[Tape], inputs: Sequence[Mapping[str, Array]], weights: Mapping[str, Array], limit: float
    ) -> bool:
        """Tell whether a tape of each side computes the same outputs as the other one, from such left weights.

        Args:
          inputs: of the left and of the right side. limit: the difference up to which outputs are the same.
        """
        each = zip(tapes, self.weights(weights), inputs, strict=True)
        outputs = [replayed(tape, w, [*x.values()]) for tape, w, x in each]
        return not incomparable(*outputs) and difference(*outputs) <= limit


def differing(apart: float) -> str:
    """Say how far outputs differ; see Trial.apart."""
    return f"outputs {differ_by(apart)}" if apart < math.inf else "outputs of one model alone are infinite or NaN"


def _alike_in_shape(a: Sequence[Array], b: Sequence[Array]) -> bool:
    return [np.shape(x) for x in a] == [np.shape(y) for y in b]


def _finite_on_one_side(a: Sequence[Array], b: Sequence[Array]) -> str:
    """Say that outputs of one model alone are NaN or infinite somewhere; "" if none are."""
    for x, y in zip(a, b, strict=True):
        for what, where in (("NaN", np.isnan), ("infinite", np.isinf)):
            alone = [bool((where(one) & ~where(other)).any()) for one, other in ((x, y), (y, x))]
            if any(alone):
                return f"outputs of the {SIDES[alone[1]]} model alone are {what}"
    return ""


def outputs_of(side: Side, weights: Mapping[str, Array], inputs: Mapping[str, Array]) -> list[Array]:
    """Run a side; return no outputs if its code refuses these inputs."""
    try:
        return side.run(weights, inputs)
    except Exception:  # the user's code may raise anything, as for a shape that it states
        return []
    finally:
        side.release()
        trim()


def zeros_of(side: Side) -> dict[str, Array]:
    """Return zeros for each parameter of a model, under all of its names, and the model's other arrays."""
    return {name: np.zeros(np.shape(array)) for name, array in arrays_of(side).items()} | side.others


def depended_on(
    side: Side, arrays: Mapping[str, Array], changes: Sequence[Callable[[Array], Array]],
    alike: Callable[[list[Array], list[Array]], bool], few: int = 0,
) -> list[str]:  # fmt: skip
    """List the arrays, of those that the proof does not draw, on which the outputs of a model depend.

    Args:
      changes: make other values of one array. alike: compares outputs.
      few: arrays up to this number are changed one by one; more of them are changed together first.
    """
    if not arrays:
        return []
    weights, inputs = {**draw(side, 0), **arrays}, side.call.arrays()

    def differ(names: Sequence[str]) -> bool:
        changed = [{name: change(arrays[name]).astype(arrays[name].dtype) for name in names} for change in changes]
        try:
            return not all(alike(usual, side.run({**weights, **some}, inputs)) for some in changed)
        except Exception:  # an index that is not there
            return True

    try:
        usual = side.run(weights, inputs)
        return [name for name in arrays if differ([name])] if len(arrays) <= few or differ([*arrays]) else []
    finally:
        side.run(weights, inputs)  # gives the model its own values again
        side.release()


class Effects(NamedTuple):
    """What is known of parameters whose gradient is zero.

    Args:
      without: those that no output depends on. untold: those of which time did not suffice to tell.
    """

    without: list[str]
    untold: list[str]


def effects(side: Side, names: Sequence[str]) -> Effects:
    """Tell which of these parameters no output depends on: zero gradients may be those of no_grad or detach.

    All are changed at once, then halves of those that have an effect together.
    """
    if not names:
        return Effects([], [])
    inputs, (weights, others) = side.call.arrays(), (drawn(side, seed) for seed in SEEDS)
    usual = side.run(weights, inputs)
    stop, silent, waiting = time.process_time() + EFFECT_SECONDS, set[str](), [names]
    changes: Sequence[Callable[[str, Array], Array]] = (
        lambda name, _: others[name],
        lambda name, _: -9 * others[name],  # as where code asks for a sign, or a limit
    )
    while waiting and time.process_time() < stop:
        some = waiting.pop(0)
        if all(equal(usual, side.run(Altered(weights, some, change), inputs)) for change in changes):
            silent.update(some)
        elif len(some) > 1:
            half = len(some) // 2
            waiting += [some[:half], some[half:]]
    untold = {name for some in waiting for name in some}
    return Effects([name for name in names if name in silent], [name for name in names if name in untold])

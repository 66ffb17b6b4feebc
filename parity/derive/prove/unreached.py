"""Find limits (relu6, clamp, x > 7) of one side alone that no value of the proof reaches, and run both beyond them.

Both tapes run with larger and larger weights and inputs, until values pass the limit: then outputs decide. They run
with negated inputs too, as a limit above zero may meet negative values alone in a small draw.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from convert.folding import listed
from parity.derive.edits.edit import SIDES
from parity.derive.limits import AGREEING_OUTPUTS
from parity.derive.trace.inputs import fresh
from parity.derive.trace.outputs import differ_by, difference
from parity.derive.trace.program import replayed
from parity.derive.trace.reason import Reason
from parity.derive.trace.sites import OWN, shown_once
from parity.derive.trace.tape import Array, Node, Tape
from specs.numbers import measured
from specs.words import in_a_row

from .trial import Trial

SEED = 6000
OPERATIONS = {
    "clamp", "clamp_min", "clamp_max", "clip", "hardtanh", "relu6", "minimum", "maximum", "min", "max",
}  # fmt: skip  # by which frameworks limit values
COMPARISONS = {
    "gt", "lt", "ge", "le", "greater", "less", "greater_than", "less_than", "greater_equal", "less_equal",
}  # fmt: skip  # by whose results code chooses between functions
BESIDE = 1e-6  # relative distance from a number at which a comparison with it is decided
FAR = 1e30  # a value beyond every limit
GUARD = 1e4  # limits from here on prevent overflow, as of float16, or stand for infinity
FACTORS = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0)  # of weights and inputs
GROWS = 1.1  # times the largest value with the factor before, below which larger weights do not lead to the limit
PASSED = 2.0  # part of a limit from which on values pass it by so much that outputs show it
LESS = 1e-2  # part of a difference that remains at most without the limits
UNLIKE = 1e-2  # difference of outputs with larger weights that magnified rounding does not explain
LIMITED = "equal only until values pass a limit that one side alone has"
REMEDY = "give both models the same limits; then derive again"
DIFFERS = "equal only with the weights of the proof"
COMPARE = "run both models on converted weights, and compare where their values part"


class Limited(Reason):
    """That outputs are equal up to limits, which it names with their places."""


@dataclass(frozen=True, eq=False)
class Limit:
    """An operation that passes values unchanged up to a limit above zero, or down to one below.

    Args:
      side: 0 for the left. node: the operation. slot: which of its operands it limits. value: the limit, or those of
        single channels, as of actions.
    """

    side: int
    node: Node
    slot: int
    value: float | Array

    @property
    def numbers(self) -> tuple[float, ...]:
        """Return each value of the limit once."""
        return tuple(np.unique(self.value).tolist())

    def reach(self, *operands: Array) -> float:
        """Return the value nearest to the limit, or farthest beyond it, as a part of the limit; 0 of whole numbers."""
        values = np.asarray(operands[self.slot])
        return float(np.max(values / self.value, initial=0)) if values.dtype.kind == "f" else 0.0

    def passed(self, before: float, now: float) -> bool:
        """Tell by how far values reach whether they are beyond the limit.

        Args:
          before, now: with the factor before, 0 where this is the first one, and with this one.
        """
        return now > 1

    def liftable(self, before: float, now: float) -> bool:
        """Tell whether taking the limit away changes nothing but values beyond it; before, now: see passed."""
        return True

    def without(self, run: Callable[..., Array], *operands: Array) -> Array:
        """Compute an operation, but keep the values beyond this limit."""
        values = np.asarray(operands[self.slot])
        return np.where(values / self.value > 1, values, run(*operands))


class Comparison(Limit):
    """A comparison with a number, as of a function that is another one from there on."""

    def without(self, run: Callable[..., Array], *operands: Array) -> Array:
        """Return for all values what holds at 0, on this side of the number."""
        return _filled(run, operands, self.slot, 0)


@dataclass(frozen=True, eq=False)
class Flat(Limit):
    """A limit beyond which all values lie at first, as the factor of a norm that is cut only where it is large.

    Args:
      far: a value on that side of the limit.
    """

    far: float

    def reach(self, *operands: Array) -> float:
        """Return how near to the limit the nearest value is: above 1 on its other side."""
        values = np.asarray(operands[self.slot])
        if values.dtype.kind != "f" or not values.size:
            return 0.0
        parts = values / self.value
        if self.far * self.numbers[0] < 0:
            return float(parts.max())
        return float(1 / parts.min()) if parts.min() > 0 else math.inf

    def passed(self, before: float, now: float) -> bool:
        """Tell whether values have come back from beyond the limit, where all were before."""
        return 0 < before <= 1 < now

    liftable = passed

    def without(self, run: Callable[..., Array], *operands: Array) -> Array:
        """Return for all values what holds beyond the limit."""
        return _filled(run, operands, self.slot, self.far)


class Threshold(Limit):
    """The number from which on a softplus returns its operand."""

    def without(self, run: Callable[..., Array], *operands: Array) -> Array:
        """Return the softplus of all values."""
        beta, _ = _softplus(self.node)
        return np.logaddexp(0, beta * np.asarray(operands[self.slot])) / beta


def _filled(run: Callable[..., Array], operands: Sequence[Array], slot: int, fill: float) -> Array:
    """Compute an operation with one number in all places of an operand."""
    full = np.full_like(operands[slot], fill)
    return np.asarray(run(*(full if k == slot else value for k, value in enumerate(operands))))


def _softplus(node: Node) -> tuple[float, float]:
    """Return beta and the threshold of a softplus; frameworks share their defaults."""
    settings = node.call.settings if node.call else {}
    return float(settings.get("beta", 1)), float(settings.get("threshold", 20))


def unreached(trial: Trial) -> Reason | None:
    """Say up to which limit alone outputs are equal; None if they are so with all values that larger weights give."""
    limits = _of_one_side([limit for side, tape in enumerate(trial.tapes) for limit in _limits(tape, side)])
    if not limits:
        return None
    drawn = fresh(*trial.given, SEED, tokens=False)
    moved = [moved_inputs(*one) for one in zip(trial.given, drawn, strict=True)]
    for sign in (1, -1) if any_negative(moved) else (1,):
        inputs = [
            one | {name: sign * array for name, array in of.items()} for one, of in zip(drawn, moved, strict=True)
        ]
        found, reason = _grown(trial, limits, inputs, moved)
        if found:
            return reason
    return None


def _grown(
    trial: Trial, limits: Sequence[Limit], drawn: Sequence[Mapping[str, Array]], moved: Sequence[Iterable[str]]
) -> tuple[bool, Reason | None]:
    """Run both tapes with larger and larger weights and inputs, until outputs differ.

    Args:
      drawn: the inputs of both sides. moved: the names of those that grow.
    Returns: whether outputs differ, and the limits that are why, or that they differ although no limit explains it.
    """
    tapes = trial.tapes
    before = dict.fromkeys(limits, 0.0)
    for factor in FACTORS:
        arrays = trial.weights(trial.grown(SEED, factor))
        inputs = [_larger(*one, factor) for one in zip(drawn, moved, strict=True)]
        reached: dict[Limit, float] = {}
        outputs = _outputs([_watched(tape, part, reached) for tape, part in _split(tapes, before)], arrays, inputs)
        apart = difference(*outputs)
        if apart > AGREEING_OUTPUTS:
            lifted = [limit for limit, value in reached.items() if limit.liftable(before[limit], value)]
            beyond: dict[Limit, float] = {}  # without limits before them, values pass limits that they did not reach
            free = [_watched(_free(tape, part), part, beyond) for tape, part in _split(tapes, lifted)]
            explained = difference(*_outputs(free, arrays, inputs)) <= LESS * min(apart, 1)
            passed = [limit for limit in lifted if limit.passed(before[limit], beyond[limit])]
            if explained and passed:
                return True, _reason(passed)
            return True, unexplained(factor, apart) if factor == 1 or apart > UNLIKE else None
        before = {part: value for part, value in reached.items() if GROWS * before[part] < value < PASSED}
        if not before:
            break
    return False, None


def _limits(tape: Tape, side: int) -> Iterator[Limit]:
    """Yield the limits of operations of which one operand alone is no constant."""
    for node in tape.live().nodes:
        slots = [slot for slot, number in enumerate(node.inputs) if number not in tape.constants]
        name = node.name.strip("_") if len(slots) == 1 else ""
        if name in COMPARISONS and (number := _compared(tape, node, slots[0])):
            yield Comparison(side, node, slots[0], number)
            yield Flat(side, node, slots[0], number, math.copysign(FAR, number))
        if name == "softplus":
            beta, threshold = _softplus(node)
            yield Threshold(side, node, slots[0], threshold / beta)
        for far in (FAR, -FAR) if name in OPERATIONS else ():
            yield from _limits_towards(tape, side, node, slots[0], far)


def _limits_towards(tape: Tape, side: int, node: Node, slot: int, beyond: float) -> Iterator[Limit]:
    """Yield the limits of an operation for values that grow far beyond them, on one side of zero."""
    value = _results(tape, node, slot, beyond)
    if len(np.unique(value)) == 1:
        value = np.unique(value)[0]
    ahead = np.unique(value / beyond > 0)
    within = value * np.where(ahead[0], 0.5, 2)
    if len(ahead) > 1 or not np.all(np.abs(value) < GUARD) or not np.all(_results(tape, node, slot, within) == within):
        return
    if ahead[0]:
        yield Limit(side, node, slot, value)
    if np.all(np.abs(value) > 1 / GUARD):
        yield Flat(side, node, slot, value, beyond)


def _compared(tape: Tape, node: Node, slot: int) -> float:
    """Return the number with which an operation compares an operand; 0 where it is 0, a guard, or not one number."""
    settings = node.call.settings.values() if node.call else ()
    numbers = [value for value in settings if isinstance(value, (int, float)) and not isinstance(value, bool)]
    constants = [np.unique(tape.constants[number]) for k, number in enumerate(node.inputs) if k != slot]
    numbers += [float(values[0]) for values in constants if values.size == 1 and values.dtype.kind in "iuf"]
    if len(numbers) != 1 or not 0 < abs(numbers[0]) < GUARD:
        return 0.0
    number = float(numbers[0])
    beside = [_at(tape, node, slot, number * (1 + sign * BESIDE)) for sign in (-1, 1)]
    return number if sorted(beside) == [0, 1] else 0.0


def _at(tape: Tape, node: Node, slot: int, value: float) -> float:
    """Return what an operation makes of one number; NaN if it does not take it, or makes several numbers of it."""
    results = np.unique(_results(tape, node, slot, value))
    return float(results[0]) if results.size == 1 else math.nan


def _results(tape: Tape, node: Node, slot: int, value: float | Array) -> Array:
    """Return what an operation makes of numbers; NaN if it does not take them."""
    operands = [np.array(value) if k == slot else tape.constants[number] for k, number in enumerate(node.inputs)]
    try:
        return np.asarray(node.run(*operands), float)
    except Exception:  # a largest value along an axis
        return np.array(math.nan)


def _of_one_side(limits: Sequence[Limit]) -> list[Limit]:
    """Return those of which both sides do not have equally many."""
    counts = [Counter((type(limit), limit.numbers) for limit in limits if limit.side == side) for side in (0, 1)]
    return [limit for limit in limits if len({count[type(limit), limit.numbers] for count in counts}) > 1]


def _split(tapes: Sequence[Tape], limits: Iterable[Limit]) -> list[tuple[Tape, list[Limit]]]:
    limits = list(limits)
    return [(tape, [limit for limit in limits if limit.side == side]) for side, tape in enumerate(tapes)]


def _watched(tape: Tape, limits: Sequence[Limit], reached: dict[Limit, float]) -> Tape:
    """Return the tape, which then notes how far values reach."""

    def noted(limit: Limit, run: Callable[..., Array], *operands: Array) -> Array:
        reached[limit] = limit.reach(*operands)
        return run(*operands)

    return _with(tape, limits, noted)


def _free(tape: Tape, limits: Sequence[Limit]) -> Tape:
    """Return the tape without some limits."""
    return _with(tape, limits, lambda limit, run, *operands: limit.without(run, *operands))


def _with(tape: Tape, limits: Sequence[Limit], instead: Callable[..., Array]) -> Tape:
    """Return the tape with another function in the place of each limit's: of the limit, its function and operands."""
    nodes = {node.output: node for node in tape.nodes}
    for limit in limits:
        node = nodes[limit.node.output]
        nodes[node.output] = node._replace(run=partial(instead, limit, node.run))
    return replace(tape, nodes=list(nodes.values()))


def _outputs(
    tapes: Sequence[Tape], weights: Sequence[Mapping[str, Array]], inputs: Sequence[Sequence[Array]]
) -> list[list[Array]]:
    return [replayed(*one) for one in zip(tapes, weights, inputs, strict=True)]


def moved_inputs(given: Mapping[str, Array], drawn: Mapping[str, Array]) -> dict[str, Array]:
    """Return the inputs that are numbers which the proof draws."""
    return {
        name: array
        for name, array in drawn.items()
        if array.dtype.kind == "f" and array.size and not np.array_equal(array, given[name])
    }


def any_negative(inputs: Sequence[Mapping[str, Array]]) -> bool:
    """Tell whether an input of either side has negative numbers."""
    return any(array.min() < 0 for side in inputs for array in side.values())


def _larger(drawn: Mapping[str, Array], moved: Iterable[str], factor: float) -> list[Array]:
    """Return inputs, multiplied if they are named."""
    return [array * factor if name in moved else array for name, array in drawn.items()]


def _reason(limits: Sequence[Limit]) -> Reason:
    """Say which limits larger weights pass, the side that has them, and where."""
    texts = []
    for side in dict.fromkeys(limit.side for limit in limits):
        own = [limit for limit in limits if limit.side == side]
        values = dict.fromkeys(_range(limit.numbers) for limit in own)
        sites = shown_once(limit.node.site for limit in own)
        texts.append(f"{in_a_row(values)} on the {SIDES[side]}, at {listed(site or OWN for site in sites)}")
    return Limited(f"{LIMITED}: {'; '.join(texts)}", REMEDY)


def unexplained(factor: float, apart: float) -> Reason:
    """Say that outputs differ with other weights, and how much larger these are."""
    larger = f", {factor:.0f} times as large" if factor > 1 else ""
    how = differ_by(apart) if math.isfinite(apart) else "cannot be compared"
    return Reason(f"{DIFFERS}: with others{larger}, they {how}", COMPARE)


def _range(numbers: Sequence[float]) -> str:
    """Write the smallest and the largest of some numbers, or the only one."""
    return " to ".join(dict.fromkeys(measured(number) for number in (numbers[0], numbers[-1])))


def without_places(reason: str) -> str:
    """Return a reason without the limits and their places, which a cause names that recomputing confirms."""
    return Reason(LIMITED, REMEDY) if isinstance(reason, Limited) else reason

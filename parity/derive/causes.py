"""Where two models part, and why: a cause is named only if recomputing with it makes their values agree.

Both models run on weights that the Table translates. Each use of a parameter on the right meets the values that the
same elements meet on the left; the first use that meets others is where the models part. Two kinds of cause are tried:
a number of one side (an epsilon, a scale, a limit) in place of the other's, and another activation.
"""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from ..hypotheses import ACTIVATIONS
from . import columns
from .tape import Array, Tape
from .walk import Elements, Program, Use, walk

PARTED = 1e-8  # relative difference of values that rounding does not explain
CLOSE = 1e-10  # that of values recomputed with the right cause, or that are a thousand times nearer than before
SPAN = 4  # uses before the first that differs whose operations are searched for the cause
CAUSES = 8  # differences that are explained one after the other
NEUTRAL = {"add": 0.0, "mul": 1.0}


class Place(NamedTuple):
    """Where values part.

    Args:
      left, right: paths of the modules.
      size: the relative difference of what is seen there; cause: "" if none was confirmed.
    """

    left: str
    right: str
    size: float
    cause: str


class Run(NamedTuple):
    """A side with weights: its tape, what runs it, and each use of a parameter in order."""

    tape: Tape
    weights: Mapping[str, Array]
    inputs: Sequence[Array]
    elements: Elements
    program: Program
    uses: list[Use]

    def site(self, use: Use | None) -> str:
        return "the output" if use is None else self.tape.nodes[use.node].site or "the top"


class Pair(NamedTuple):
    """Uses of the same elements; None for the outputs."""

    left: Use | None
    right: Use | None
    gap: float


def run(tape: Tape, weights: Mapping[str, Array], inputs: Sequence[Array]) -> Run:
    program, elements, uses = Program(tape, weights, inputs), Elements(weights, known=True), list[Use]()
    walk(program, elements, uses.append)
    return Run(tape, weights, inputs, elements, program, uses)


def explain(left: Run, right: Run, found: Array, seconds: float = 5) -> list[Place]:
    """List where the models part, each with its cause, until a difference has none."""
    places: list[Place] = []
    stop = time.monotonic() + seconds
    while len(places) < CAUSES:
        pairs = list(_pairs(left, right, found))
        at = next((k for k, pair in enumerate(pairs) if pair.gap > PARTED), None)
        if at is None:
            break
        pair = pairs[at]
        cause, better = _cause(left, right, found, pairs, at, stop)
        places.append(Place(left.site(pair.left), right.site(pair.right), pair.gap, cause))
        if better is None:
            break
        left, right = better
    return places


def _pairs(left: Run, right: Run, found: Array) -> Iterator[Pair]:
    """Each use on the right beside the left one of the same elements, at the same turn; last, the outputs."""
    by_kind: dict[str, list[tuple[Use, set[int]]]] = {}
    for use in left.uses:
        if use.kind != "place":
            by_kind.setdefault(use.kind, []).append((use, set(np.unique(use.ids).astype(int).tolist())))
    turns: dict[tuple[str, int], int] = {}
    for use in right.uses:
        ids = use.ids[use.ids > 0].astype(np.int64)
        element = int(found[ids.flat[0]]) if ids.size else 0
        if use.kind == "place" or not element:
            continue
        turn = turns[use.kind, element] = turns.get((use.kind, element), -1) + 1
        theirs = [other for other, elements in by_kind.get(use.kind, []) if element in elements]
        if turn < len(theirs):
            yield Pair(theirs[turn], use, _gap(theirs[turn], use, left, right, found))
    yield Pair(None, None, _outputs_gap(left.program.outputs, right.program.outputs))


def _outputs_gap(left: Sequence[Array], right: Sequence[Array]) -> float:
    gaps = [0.0]
    for a, b in zip(left, right, strict=False):
        if np.shape(a) != np.shape(b):
            return math.inf
        if a.dtype.kind == "f":
            gaps.append(float(np.abs(a - b).max(initial=0) / max(np.abs(a).max(initial=0), 1e-300)))
    return max(gaps)


def _gap(a: Use, b: Use, left: Run, right: Run, found: Array) -> float:
    """The relative difference of what two uses meet."""
    if a.kind != "product":
        numbers, ours = columns.of_elements(b.x, b.ids)
        there, theirs = columns.of_elements(a.x, a.ids)
        place = {int(n): k for k, n in enumerate(there)}
        index = [place.get(int(found[int(n)])) for n in numbers]
        if None in index:
            return math.inf
        theirs = theirs[index]
        return float(np.abs(ours - theirs).max(initial=0) / max(columns.size_of(theirs), 1e-300))
    statistics = []
    for use, side in ((a, left), (b, right)):
        node = side.tape.nodes[use.node]
        taps = side.program.shapes[node.inputs[1]][2:] if node.window else ()
        statistics.append(columns.of_product(use.x, node.window, taps))
    scale = max(map(columns.size_of, statistics))
    apart = max(columns.nearest(statistics[1], statistics[0])[1].max(initial=0),
                columns.nearest(statistics[0], statistics[1])[1].max(initial=0))  # fmt: skip
    return float(apart / scale) if scale else 0.0


def _cause(
    left: Run, right: Run, found: Array, pairs: Sequence[Pair], at: int, stop: float
) -> tuple[str, tuple[Run, Run] | None]:
    """(cause, both sides with it removed); ("", None) where none is confirmed."""
    limit = max(CLOSE, pairs[at].gap * 1e-3)
    for sides, text in _with_other_numbers(left, right, pairs, at):
        if time.monotonic() > stop:
            break
        gap = next((p.gap for k, p in enumerate(_pairs(*sides, found)) if k == at), math.inf)
        if gap <= limit:
            return f"{text} (recomputed so, to {gap:.0e})", sides
    pair = pairs[at]
    if pair.left is not None and pair.right is not None and stop > time.monotonic():
        return _padding(pair, left, right) or _activation(pair, left, right, _span(pairs, at)), None
    return "", None


def _span(pairs: Sequence[Pair], at: int) -> tuple[tuple[int, int], tuple[int, int]]:
    """The nodes on each side between the uses before and the first that differs."""
    spans = []
    for side in ("left", "right"):
        nodes = [getattr(pair, side).node for pair in pairs[:at] if getattr(pair, side) is not None]
        last = getattr(pairs[at], side)
        stop = math.inf if last is None else last.node
        before = sorted(node for node in nodes if node < stop)[-SPAN:]
        spans.append((before[0] if len(before) == SPAN else 0, stop))
    return spans[0], spans[1]  # type: ignore[return-value]


def _numbers(side: Run, span: tuple[float, float]) -> dict[float, list[tuple[int, str]]]:
    """The single numbers that operations of the span read: {value: [(constant, kind of operation)]}."""
    found: dict[float, list[tuple[int, str]]] = {}
    for k, node in enumerate(side.tape.nodes):
        for number in node.inputs if span[0] <= k <= span[1] else ():
            array = side.tape.constants.get(number)
            if array is not None and np.size(array) and getattr(array, "dtype", np.dtype("O")).kind == "f":
                value = float(np.ravel(array)[0])
                if (array == value).all():
                    found.setdefault(value, []).append((number, node.kind))
    return found


def _with_other_numbers(
    left: Run, right: Run, pairs: Sequence[Pair], at: int
) -> Iterator[tuple[tuple[Run, Run], str]]:
    """Both sides with a number of one replaced by one of the other, or by what has no effect."""
    spans = _span(pairs, at)
    ours, theirs = _numbers(left, spans[0]), _numbers(right, spans[1])
    trials = []
    for value, places in theirs.items():
        if value not in ours:
            others = [*(other for other in ours if other not in theirs), NEUTRAL.get(places[0][1])]
            trials += [(1, value, places, other) for other in others if other is not None]
    for value, places in ours.items():
        neutral = NEUTRAL.get(places[0][1])
        if value not in theirs and neutral is not None:
            trials.append((0, value, places, neutral))
    for side, value, places, other in trials:
        changed = _replaced((left, right)[side], value, [number for number, _ in places], other)
        if changed is not None:
            names = ("the left", "the right")
            what = _called(places[0][1], value, other)
            absent = other == NEUTRAL.get(places[0][1])
            text = f"{what} {value:.6g} on {names[side]}" + (
                ", which the other side does not have" if absent else f", {other:.6g} on {names[1 - side]}"
            )
            yield ((changed, right) if side == 0 else (left, changed)), text


def _called(kind: str, value: float, other: float) -> str:
    if kind == "add" and 0 < value <= 1e-2 and (0 < other <= 1e-2 or other == 0):
        return "epsilon"
    return {"mul": "a factor of", "add": "a term of"}.get(kind, "the number")


def _replaced(side: Run, value: float, numbers: Sequence[int], other: float) -> Run | None:
    """The side with this number replaced wherever operations like these have it."""
    readers = {n.kind for n in side.tape.nodes if set(numbers) & set(n.inputs)}
    constants = dict(side.tape.constants)
    for node in side.tape.nodes:
        for number in node.inputs if node.kind in readers else ():
            array = side.tape.constants.get(number)
            if array is not None and np.size(array) and getattr(array, "dtype", np.dtype("O")).kind == "f":
                if (np.asarray(array) == value).all():
                    constants[number] = np.full(np.shape(array), other)
    try:
        return run(replace(side.tape, constants=constants), side.weights, side.inputs)
    except Exception:  # an operation that refuses the number
        return None


def _activation(pair: Pair, left: Run, right: Run, spans: Sequence[tuple[float, float]]) -> str:
    """The activations that give each side's values from one value that the right side computes before."""
    assert pair.left is not None and pair.right is not None
    wanted = [np.sort(x[x != 0]) for x in (np.ravel(pair.left.x), np.ravel(pair.right.x))]
    for value in _values(right, spans[1]):
        if value.dtype.kind != "f" or value.size < 2:
            continue
        names = []
        for target in wanted:
            names.append(next((name for name, f in ACTIVATIONS.items() if _same(f(value), target)), None))
        if None not in names and names[0] != names[1]:
            return f"{names[0]} on the left, {names[1]} on the right (recomputed so)"
    return ""


def _same(values: Array, target: Array) -> bool:
    values = np.ravel(values)
    values = np.sort(values[values != 0])
    if len(values) != len(target):
        return False
    return bool(np.abs(values - target).max(initial=0) <= CLOSE * max(np.abs(target).max(initial=0), 1e-300))


def _values(side: Run, span: tuple[float, float]) -> Iterator[Array]:
    """The values of the operations in the span, the latest first."""
    values = {**side.tape.constants, **side.program.inputs}
    values.update({number: side.weights[name] for name, number in side.tape.parameters.items()})
    found = []
    with np.errstate(all="ignore"):
        for k, node in enumerate(itertools.islice(side.tape.nodes, int(min(span[1], len(side.tape.nodes))))):
            values[node.output] = node.run(*(values[number] for number in node.inputs))
            if k >= span[0] and isinstance(values[node.output], np.ndarray):
                found.append(values[node.output])
    return reversed(found)


def _padding(pair: Pair, left: Run, right: Run) -> str:
    """Frames of zeros of different widths around the same image."""
    assert pair.left is not None and pair.right is not None
    nodes = left.tape.nodes[pair.left.node], right.tape.nodes[pair.right.node]
    if not all(node.window for node in nodes):
        return ""
    frames = [_frame(use.x) for use in (pair.left, pair.right)]
    inner = [np.sort(x[x != 0]) for x in (np.ravel(pair.left.x), np.ravel(pair.right.x))]
    if frames[0] == frames[1] or len(inner[0]) != len(inner[1]):
        return ""
    if np.abs(inner[0] - inner[1]).max(initial=0) > CLOSE * np.abs(inner[0]).max(initial=1e-300):
        return ""
    return f"padding {_spelt(frames[0])} on the left, {_spelt(frames[1])} on the right, of the same image"


def _frame(x: Array) -> tuple[tuple[int, int], ...]:
    """How many positions before and after the image are zero along each axis of space."""
    widths = []
    for axis in range(2, x.ndim):
        there = np.flatnonzero((x != 0).any(tuple(d for d in range(x.ndim) if d != axis)))
        widths.append((int(there[0]), x.shape[axis] - 1 - int(there[-1])) if len(there) else (0, 0))
    return tuple(widths)


def _spelt(frame: tuple[tuple[int, int], ...]) -> str:
    return " ".join(f"({before}, {after})" for before, after in frame)

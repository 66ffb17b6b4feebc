"""Locate where two models part, and why: a cause is named only if recomputing with it makes their values agree.

Both models run on weights that the Table translates. Each use of a parameter on the right meets the values that the
same elements meet on the left; the first use that meets others is where the models part. Two kinds of causes are tried:
a number of one side (an epsilon, a scale, a limit) in place of the other's, and another activation. Of convolutions of
the same image, the padding, strides and dilations in which they differ are named.
"""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from specs.numerals import short

from ...hypotheses import ACTIVATIONS
from ..match import columns
from ..match.advice import feeds
from ..match.stepped import Stepped
from ..match.symbols import Elements, Use
from ..match.uses import compact
from ..match.walk import Walk
from ..trace.numbers import Change, changes
from ..trace.outputs import difference
from ..trace.places import place
from ..trace.program import Program
from ..trace.tape import Array, Tape

PARTED = 1e-8  # relative difference of values that rounding does not explain
CLOSE = 1e-10  # that of values recomputed with the right cause, or that are a thousand times nearer than before
SPAN = 4  # uses before the first that differs whose operations are searched for the cause
CAUSES = 8  # differences that are explained one after the other


class Divergence(NamedTuple):
    """A place where the sides' values part.

    Args:
      left, right: paths of the modules.
      size: the relative difference of what is seen there.
      cause: "" where none was confirmed; advice: then, what to compare of what both models compute before it.
      kind: what a cause is of that recomputing confirmed: "epsilon", "activation"; "" of others.
      whole: whether both models were run on with that cause removed.
    """

    left: str
    right: str
    size: float
    cause: str = ""
    advice: str = ""
    kind: str = ""
    whole: bool = False

    def to_dict(self) -> dict[str, Any]:
        """Return what users see as plain values, for JSON."""
        return {name: getattr(self, name) for name in ("left", "right", "size", "cause", "advice")}


class Run(NamedTuple):
    """A side (0 for the left) with weights: its tape, what runs it, and each use of a parameter in order."""

    side: int
    tape: Tape
    weights: Mapping[str, Array]
    inputs: Sequence[Array]
    elements: Elements
    program: Program
    uses: list[Use]

    def site(self, use: Use | None) -> str:
        if use is None:
            return "the output"
        return place(self.tape.nodes[use.node].site, " ".join(self.elements.owners(use.ids)))


class Cause(NamedTuple):
    """Why values part; see Divergence.

    Args:
      sides: both models with the cause removed; None where they cannot be run on so.
    """

    text: str = ""
    kind: str = ""
    sides: tuple[Run, Run] | None = None


class Pair(NamedTuple):
    """Uses of the same elements; None for the outputs."""

    left: Use | None
    right: Use | None
    gap: float


def run(tape: Tape, weights: Mapping[str, Array], inputs: Sequence[Array], side: int) -> Run:
    """Run a tape, and list its uses of parameters."""
    program, elements, uses = Program(tape, weights, inputs), Elements(weights, known=True), list[Use]()
    Walk(program, elements, lambda use: uses.append(compact(use))).run()
    return Run(side, tape, weights, inputs, elements, program, uses)


def explain(left: Run, right: Run, found: Array, seconds: float = 5) -> list[Divergence]:
    """List where the models part, each with its cause, until a difference has none."""
    places: list[Divergence] = []
    stop = time.thread_time() + seconds
    while len(places) < CAUSES:
        pairs = list(_pairs(left, right, found))
        at = next((k for k, pair in enumerate(pairs) if pair.gap > PARTED), None)
        if at is None:
            break
        pair = pairs[at]
        text, kind, sides = _cause(left, right, found, pairs, at, stop)
        advice = "" if text else _advice(pair, right)
        sites = left.site(pair.left), right.site(pair.right)
        places.append(Divergence(*sites, pair.gap, text, advice, kind, sides is not None))
        if sides is None:
            break
        left, right = sides
    return places


def _advice(pair: Pair, right: Run) -> str:
    """List what to compare of the values that reach an operation, or the outputs."""
    if pair.right is None:
        return feeds("")
    return feeds(pair.right.kind, right.tape.nodes[pair.right.node].window)


def _pairs(left: Run, right: Run, found: Array) -> Iterator[Pair]:
    """Yield each use on the right beside the left one of the same elements, at the same turn; last, the outputs."""
    by_kind: dict[str, list[tuple[Use, int, int]]] = {}
    for use in left.uses:
        if use.kind != "place" and use.ids.size:
            by_kind.setdefault(use.kind, []).append((use, int(use.ids.min()), int(use.ids.max())))
    turns: dict[tuple[str, int], int] = {}
    for use in right.uses:
        element = int(found[_first(use.ids)])
        if use.kind == "place" or not element:
            continue
        turn = turns[use.kind, element] = turns.get((use.kind, element), -1) + 1
        theirs = [
            other
            for other, low, high in by_kind.get(use.kind, [])
            if low <= element <= high and _holds(other.ids, element)
        ]
        if turn < len(theirs):
            yield Pair(theirs[turn], use, _gap(theirs[turn], use, left, right, found))
    yield Pair(None, None, difference(left.program.outputs, right.program.outputs))


def _holds(ids: Array, element: int) -> bool:
    """Tell whether an element between the smallest and the largest is one of these."""
    return (isinstance(ids, Stepped) and ids.whole) or bool((np.asarray(ids) == element).any())


def _first(ids: Array) -> int:
    """Return the first element of a use; 0, which is none, where there is no other."""
    corner = int(ids[(0,) * ids.ndim]) if ids.size else 0
    return corner or int(next(iter(np.asarray(ids)[np.asarray(ids) > 0]), 0))


def _gap(a: Use, b: Use, left: Run, right: Run, found: Array) -> float:
    """Return the relative difference of what two uses meet."""
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


def _cause(left: Run, right: Run, found: Array, pairs: Sequence[Pair], at: int, stop: float) -> Cause:
    """Return the cause of a difference, without a text where none is confirmed."""
    pair, limit = pairs[at], max(CLOSE, pairs[at].gap * 1e-3)
    if pair.left is not None and pair.right is not None:
        if text := _windows(pair, left, right):
            return Cause(text, "convolution's window")
        if text := _activation(pair, right, _span(pairs, at)):
            return Cause(text, "activation")
    for change in changes(left.tape, right.tape):
        if time.thread_time() > stop:
            break
        try:
            sides = _changed(left, change), _changed(right, change)
        except Exception:  # an operation that refuses the number
            continue
        gap = next((p.gap for k, p in enumerate(_pairs(*sides, found)) if k == at), math.inf)
        if gap <= limit:
            same = f"they agree to {short(gap)}" if gap else "they are equal"
            return Cause(f"{change.text} (recomputed so, {same})", change.kind, sides)
    return Cause()


def _changed(side: Run, change: Change) -> Run:
    """Return the side with the change's number; the same where the change is one of the other side."""
    return run(change.tape(side.tape), side.weights, side.inputs, side.side) if side.side == change.side else side


def _span(pairs: Sequence[Pair], at: int) -> tuple[int, int]:
    """Return the nodes on the right between the uses before and the first that differs."""
    last = pairs[at].right
    assert last is not None
    before = sorted(pair.right.node for pair in pairs[:at] if pair.right is not None and pair.right.node < last.node)
    return before[-SPAN] if len(before) >= SPAN else 0, last.node


def _activation(pair: Pair, right: Run, span: tuple[int, int]) -> str:
    """Return the activations that give each side's values from one value that the right side computes before."""
    assert pair.left is not None and pair.right is not None
    wanted = [np.sort(x[x != 0]) for x in (np.ravel(pair.left.x), np.ravel(pair.right.x))]
    for value in _values(right, span):
        if value.dtype.kind != "f" or value.size < max(2, *map(len, wanted)):
            continue
        names = []
        for target in wanted:
            names.append(next((name for name, f in ACTIVATIONS.items() if _same(f(value), target)), None))
        if None not in names and names[0] != names[1]:
            return f"{names[0]} on the left, {names[1]} on the right (recomputed so)"
    return ""


def _same(values: Array, target: Array) -> bool:
    values = np.ravel(values)
    values = values[values != 0]
    if len(values) != len(target):
        return False
    apart = np.abs(np.sort(values) - target).max(initial=0)
    return bool(apart <= CLOSE * max(np.abs(target).max(initial=0), 1e-300))


def _values(side: Run, span: tuple[int, int]) -> Iterator[Array]:
    """Return the values in the span that depend on the inputs, the latest first."""
    program = side.program
    tape = program.tape
    values: dict[int, Array] = {**tape.constants, **program.inputs}
    names = {number: name for name, number in tape.parameters.items()}
    found = []
    with np.errstate(all="ignore"):
        for k, node in enumerate(itertools.islice(tape.nodes, span[1])):
            operands = [values[number] if number in values else side.weights[names[number]] for number in node.inputs]
            values[node.output] = node.run(*operands)
            if k >= span[0] and node.output in program.active and isinstance(values[node.output], np.ndarray):
                found.append(values[node.output])
            for number in node.inputs:
                if program.last[number] == k:  # bounds memory
                    values.pop(number, None)
    return reversed(found)


def _windows(pair: Pair, left: Run, right: Run) -> str:
    """Return frames of zeros, strides and dilations in which convolutions of the same image differ."""
    assert pair.left is not None and pair.right is not None
    windows = left.tape.nodes[pair.left.node].window, right.tape.nodes[pair.right.node].window
    if windows[0] is None or windows[1] is None:
        return ""
    inner = [np.sort(x[x != 0]) for x in (np.ravel(pair.left.x), np.ravel(pair.right.x))]
    if len(inner[0]) != len(inner[1]):
        return ""
    if np.abs(inner[0] - inner[1]).max(initial=0) > CLOSE * np.abs(inner[0]).max(initial=1e-300):
        return ""
    frames = [_spelt(_frame(use.x)) for use in (pair.left, pair.right)]
    facts = {
        "padding": frames,
        "stride": [str(window.stride) for window in windows if window],
        "dilation": [str(window.dilation) for window in windows if window],
    }
    odd = [f"{what} {a} on the left, {b} on the right" for what, (a, b) in facts.items() if a != b]
    return f"{'; '.join(odd)}, of the same image" if odd else ""


def _frame(x: Array) -> tuple[tuple[int, int], ...]:
    """Tell how many positions before and after the image are zero along each axis of space."""
    widths = []
    for axis in range(2, x.ndim):
        there = np.flatnonzero((x != 0).any(tuple(d for d in range(x.ndim) if d != axis)))
        widths.append((int(there[0]), x.shape[axis] - 1 - int(there[-1])) if len(there) else (0, 0))
    return tuple(widths)


def _spelt(frame: tuple[tuple[int, int], ...]) -> str:
    return " ".join(f"({before}, {after})" for before, after in frame)

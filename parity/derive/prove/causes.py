"""Locate where two models part, and why: a cause is named only if recomputing with it makes their values agree.

Both models run on weights that the Table translates. Each use of a parameter on the right meets the values that the
same elements meet on the left; the first use that meets others is where the models part. Four kinds of causes are
tried: another activation, a number of one side (an epsilon, a scale, a limit) in place of the other's, sums (a term
that one side lacks, a norm on the other side of a sum), and an operation of one side in place of the other's (a
pooling). Of convolutions of the same image, the padding, strides and dilations in which they differ are named.
"""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from specs.numerals import short

from ...hypotheses import ACTIVATIONS
from ..match.advice import feeds
from ..trace.edits import Edit
from ..trace.numbers import changes
from ..trace.sums import rewirings
from ..trace.swaps import swaps
from ..trace.tape import Array, Tape
from .pairs import Mapped, Pair, Run, first, run
from .pairs import pairs as pairs_of
from .windows import differing

CLOSE = 1e-10  # that of values recomputed with the right cause, or that are a thousand times nearer than before
SPAN = 4  # uses before the first that differs whose operations are searched for the cause
MORE = 12  # causes that are tried after one that is right here: another one may be right in later places too
CAUSES = 8  # differences that are explained one after the other


class Divergence(NamedTuple):
    """A place where the sides' values part.

    Args:
      left, right: paths of the modules.
      size: the relative difference of what is seen there.
      cause: "" where none was confirmed; advice: then, what to compare of what both models compute before it.
      kind: what a cause is of that recomputing confirmed: "epsilon", "activation"; "" of others.
      whole: whether both models were run on with that cause removed.
      times: how many of that kind were removed at once, as one in each block.
    """

    left: str
    right: str
    size: float
    cause: str = ""
    advice: str = ""
    kind: str = ""
    whole: bool = False
    times: int = 1

    def to_dict(self) -> dict[str, Any]:
        """Return what users see as plain values, for JSON."""
        return {name: getattr(self, name) for name in ("left", "right", "size", "cause", "advice")}


class Cause(NamedTuple):
    """Why values part; see Divergence.

    Args:
      sides: both models with the cause removed; None where they cannot be run on so.
    """

    text: str = ""
    kind: str = ""
    sides: tuple[Run, Run] | None = None
    times: int = 1


def explain(left: Run, right: Run, mapped: Mapped, seconds: float = 5) -> list[Divergence]:
    """List where the models part, each with its cause, until a difference has none."""
    places: list[Divergence] = []
    stop = time.thread_time() + seconds
    while len(places) < CAUSES:
        pairs = list(pairs_of(left, right, mapped))
        at = next((k for k, pair in enumerate(pairs) if pair.parts), None)
        if at is None:
            break
        pair = pairs[at]
        text, kind, sides, times = _cause(left, right, mapped, pairs, at, stop)
        advice = "" if text else _advice(pair, right)
        sites = left.site(pair.left), right.site(pair.right)
        places.append(Divergence(*sites, pair.gap, text, advice, kind, sides is not None, times))
        if sides is None:
            break
        left, right = sides
    return places


def _advice(pair: Pair, right: Run) -> str:
    """List what to compare of the values that reach an operation, or the outputs."""
    if pair.right is None:
        return feeds("")
    return feeds(pair.right.kind, right.tape.nodes[pair.right.node].window)


def _cause(left: Run, right: Run, mapped: Mapped, pairs: Sequence[Pair], at: int, stop: float) -> Cause:
    """Return the cause of a difference, without a text where none is confirmed."""
    pair, limit, both = pairs[at], max(CLOSE, pairs[at].gap * 1e-3), (left, right)
    if pair.left is not None and pair.right is not None:
        window = left.tape.nodes[pair.left.node].window, right.tape.nodes[pair.right.node].window
        if text := differing((pair.left.x, pair.right.x), window):
            return Cause(text, "convolution's window")
        if text := _activation(pair, right, _span(pairs, at)):
            return Cause(text, "activation")
    ends = _ends(both, pairs[: at + 2])
    early = (_until(left, ends[0]), _until(right, ends[1])) if ends else both
    if ends and _agreement(early, mapped, pair, at) != pair.gap:  # what the use meets is computed behind it
        ends, early = [], both
    best, most, left_over = Cause(), 0, MORE
    for edit in itertools.takewhile(lambda _: time.thread_time() < stop, _edits(both, early, pairs, at)):
        left_over -= bool(best.text)
        part = edit.tape(both[edit.side].tape).until(ends[edit.side]) if ends else None
        if not part or _agreement(_replaced(early, edit.side, part), mapped, pair, at) <= limit:
            for one in (edit, *edit.wider):
                sides = _edited(both, one)
                gap = _agreement(sides, mapped, pair, at)
                agreeing = _agreeing(sides, mapped) if gap <= limit else 0
                if agreeing > most:
                    same = f"they agree to {short(gap)}" if gap else "they are equal"
                    best = Cause(f"{one.text} (recomputed so, {same})", one.kind, sides, one.times)
                    most = agreeing
                elif one is edit:  # one place alone does not make the sides equal there
                    break
        if most == len(pairs) or (best.text and not left_over):
            break
    return best


def _edits(both: tuple[Run, Run], early: tuple[Run, Run], pairs: Sequence[Pair], at: int) -> Iterator[Edit]:
    """Yield what may make the sides equal: in turn other numbers, sums and operations behind the last uses that agree.

    Args:
      early: both sides, run up to where they part.
    """
    read = [side.program.tape.constants.keys() for side in early]
    numbers = (
        edit for edit in changes(both[0].tape, both[1].tape, True) if not read[edit.side].isdisjoint(edit.constants)
    )
    before = [(pair.left.node, pair.right.node) for pair in pairs[max(0, at - 2) : at] if pair.left and pair.right]
    firsts = [min((nodes[side] for nodes in before), default=0) for side in (0, 1)]
    sums = rewirings((both[0].program, both[1].program), firsts)
    spans = [(first, _end(side, pairs[at], k)) for k, (first, side) in enumerate(zip(firsts, both, strict=True))]
    operations = swaps(both[0].program, both[1].program, spans)
    for few in itertools.zip_longest(numbers, sums, operations):
        yield from filter(None, few)


def _end(side: Run, pair: Pair, k: int) -> int:
    """Return the operation of a side behind which a pair tells nothing."""
    use = (pair.left, pair.right)[k]
    return len(side.tape.nodes) if use is None else use.node + 1


def _ends(sides: tuple[Run, Run], pairs: Sequence[Pair]) -> list[int]:
    """Return for each side the value up to which it has to run to compare these uses; [] if that is its outputs."""
    uses = [(pair.left, pair.right) for pair in pairs if pair.left and pair.right]
    if len(uses) < len(pairs):
        return []
    return [side.tape.nodes[max(use[k].node for use in uses)].output for k, side in enumerate(sides)]


def _until(side: Run, end: int) -> Run:
    """Return a side that was run up to a value."""
    part = side.tape.until(end)
    assert part is not None
    return run(part, side.weights, side.inputs, side.side)


def _edited(sides: tuple[Run, Run], edit: Edit) -> tuple[Run, Run] | None:
    """Return both sides, one of them with an edit; None if an operation refuses it."""
    return _replaced(sides, edit.side, edit.tape(sides[edit.side].tape))


def _replaced(sides: tuple[Run, Run], side: int, tape: Tape) -> tuple[Run, Run] | None:
    """Return both sides, of which one runs another tape; None if an operation refuses what it reads there."""
    old = sides[side]
    try:
        new = run(tape, old.weights, old.inputs, side)
    except Exception:  # an operation that refuses the number, or the shape
        return None
    return (new, sides[1]) if side == 0 else (sides[0], new)


def _agreement(sides: tuple[Run, Run] | None, mapped: Mapped, parted: Pair, at: int) -> float:
    """Return the relative difference where the sides parted; infinity where they part before that place."""
    use = parted.right
    for k, pair in enumerate(pairs_of(*sides, mapped)) if sides else ():
        same = use is None or (pair.right is not None and pair.right.kind == use.kind
                               and first(pair.right.ids) == first(use.ids))  # fmt: skip
        if k >= at and same:
            return pair.gap
        if pair.parts:
            break
    return math.inf


def _agreeing(sides: tuple[Run, Run] | None, mapped: Mapped) -> int:
    """Count the pairs of uses before the first that meets other values."""
    pairs = pairs_of(*sides, mapped) if sides else iter(())
    return sum(1 for _ in itertools.takewhile(lambda pair: not pair.parts, pairs))


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

"""Let one side normalize as the other does, over other axes or groups of channels: a softmax, or a norm without its
parameters, which may leave the mean as it is (RMSNorm).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import NamedTuple

import numpy as np

from parity.derive.limits import ROUNDED_FUNCTIONS
from parity.derive.trace.program import Program, Stretch
from parity.derive.trace.tape import Array, Node
from specs.words import count

from .edit import Replaced, Scope, two_sided
from .texts import Words

SOFTMAX, NORM = "softmax", "norm"  # the kinds of these edits
DEPTH = 24  # operations of a softmax or a norm at most, as frameworks write them out
REDUCES = re.compile(r"softmax|mean|var|sum")  # names of operations of which one at least is among them
LARGEST = 1e-1  # epsilon
# in the place of a number of groups: what is normalized by itself
EACH, POSITIONS = 0, -1
NAMES = {EACH: "the channels of each position", POSITIONS: "the positions of each channel"}


class Over(NamedTuple):
    """What is normalized together: along an axis by a softmax; groups along an axis of channels by a norm.

    Args:
      axis: counted from the last one, which is -1. groups: of channels with all their positions, EACH, or, in words
        alone, POSITIONS.
      centred: whether a norm subtracts the mean.
    """

    axis: int
    groups: int | None = None
    centred: bool = True

    @property
    def text(self) -> str:
        if self.groups is None:
            return f"axis {self.axis}"
        return NAMES.get(self.groups) or f"{count(self.groups, 'group')} of channels"

    def is_like(self, other: Over) -> bool:
        """Tell whether both are the same axis, or as many groups, whichever axis has the channels."""
        return self == other or (self.groups is not None and self[1:] == other[1:])

    def statistics(self, x: Array) -> tuple[Array, Array]:
        """Return the mean, if it is subtracted, and the variance around it that a norm has for each element."""
        y = np.moveaxis(x, self.axis, 1)
        parts = y if self.groups == EACH else y.reshape(len(y), self.groups, -1)
        axis = 1 if self.groups == EACH else 2
        mean = parts.mean(axis, keepdims=True) if self.centred else np.zeros(1)
        var = np.square(parts - mean).mean(axis, keepdims=True)
        mean, var = (np.broadcast_to(value, parts.shape) for value in (mean, var))
        return np.moveaxis(mean.reshape(y.shape), 1, self.axis), np.moveaxis(var.reshape(y.shape), 1, self.axis)


class Normalized(NamedTuple):
    """Operations whose result is a softmax, or what a norm computes on the way.

    Args:
      entry: the value that they read. result: the last of them. epsilon: of the deviation, if that has a part in it.
    """

    kind: str
    over: Over
    entry: int
    result: Node
    inner: frozenset[int]
    run: Callable[[Over, Array], Array]


@dataclass(frozen=True)
class OtherAxes(Replaced):
    """Normalize values over other axes or groups."""

    runs: Mapping[int, Callable[[Array], Array]]

    def instead(self, node: Node) -> Node:
        return Node("other", (self.values[node.output],), node.output, self.runs[node.output], node.site)


def reaxed(scope: Scope) -> Iterator[OtherAxes]:
    """Yield edits by which a side normalizes over the axes or groups of the other one, here and wherever it does so."""
    normalized = [
        _outermost(_normalized(program, node) for at, node in enumerate(program.tape.nodes) if at in near)
        for program, near in zip(scope.programs, scope.near, strict=True)
    ]
    for side in (1, 0):
        program, others = scope.programs[side], normalized[1 - side]
        groups: dict[tuple[str, Over], list[Normalized]] = {}
        for place in normalized[side]:
            groups.setdefault((place.kind, place.over), []).append(place)
        for (kind, own), places in groups.items():
            rank = len(program.shapes[places[0].entry])
            for other in dict.fromkeys(place.over for place in others if place.kind == kind):
                both = (own, other) if side == 0 else (other, own)
                shown = [_shown(*each, kind) for each in zip(scope.programs, both, normalized, strict=True)]
                if own.is_like(other) and {over.groups for over in shown} != {EACH, POSITIONS}:
                    continue
                words = _words(kind, both, shown)
                for new in _turned(own, other, rank):
                    yield _edit(program, side, words, places, new)


def _shown(program: Program, over: Over, normalized: Sequence[Normalized], kind: str) -> Over:
    """Return what norms have in common in the terms of channels: these lie along the axis of their parameters.

    Of an array (n, c, l), the positions of each channel are normalized like the channels of each position of (n, l, c).
    Without parameters, nothing tells which axis has the channels, and the axis itself is returned.
    """
    if over.groups != EACH:
        return over
    places = [place for place in normalized if (place.kind, place.over) == (kind, over)]
    weights, axes = program.weights, set[int]()
    for node in (node for place in places for node in program.reading(place.result.output)):
        shapes = [program.shapes[n] for n in node.inputs if n in weights] if node.kind in ("add", "mul") else []
        axes |= {axis for shape in shapes for axis in range(-len(shape), 0) if shape[axis] > 1}
    if axes == {over.axis}:
        return over
    is_line = len(axes) == 1 and len(program.shapes[places[0].entry]) == 3
    return over._replace(groups=POSITIONS if is_line else None)


def _words(kind: str, overs: Sequence[Over], shown: Sequence[Over]) -> Words:
    """Say how both sides normalize. Args: overs: of the left and the right. shown: these in the terms of channels."""
    left, right = overs
    if left.groups == right.groups and left.centred != right.centred:
        said = ["a norm that subtracts the mean" if over.centred else "an RMSNorm" for over in overs]
        return Words(two_sided(*said), both=(said[0], said[1]))
    texts = [over.text for over in shown]
    one, other = (over.groups for over in shown)
    second = texts[1]
    if one is None and other is None:
        second = str(right.axis)
    elif one and other and min(one, other) > 0:
        second = str(other)
    return Words(f"{'a ' * (kind == NORM)}{kind} over {two_sided(texts[0], second)}", both=(texts[0], texts[1]))


def _turned(own: Over, other: Over, rank: int) -> Iterator[Over]:
    """Yield what a side may normalize instead, where its axes may have another order than those of the other side."""
    if other.groups is None:
        yield from sorted((Over(-k) for k in range(1, rank + 1) if -k != own.axis), key=lambda one: one != other)
    else:
        yield from (Over(axis, *other[1:]) for axis in dict.fromkeys((own.axis, -1, 1 - rank)))


def _edit(program: Program, side: int, words: Words, some: Sequence[Normalized], new: Over) -> OtherAxes:
    """Return the edit of some places, with one of all that are like these."""
    kind, over, kinds = some[0].kind, some[0].over, {(entry.result.kind, entry.result.name) for entry in some}
    every = _outermost(_normalized(program, node) for node in program.tape.nodes if (node.kind, node.name) in kinds)
    sets = [some, [entry for entry in every if entry.kind == kind and entry.over.is_like(over)]]

    def edit(of: Sequence[Normalized]) -> OtherAxes:
        values, runs = {}, {}
        for entry in of:
            values[entry.result.output], runs[entry.result.output] = entry.entry, partial(entry.run, new)
        firsts = {entry.entry: entry.result.output for entry in reversed(of)}  # a norm may have a second result
        both, times = words.both, len(firsts)
        counted = tuple(firsts.values())
        return OtherAxes(side, kind, words.what, values, runs, both=both, times=times, more=times - 1, counted=counted)

    narrow, wider = map(edit, sets)
    return replace(narrow, wider=(wider,)) if wider.times > narrow.times else narrow


def _outermost(every: Iterable[Normalized | None]) -> list[Normalized]:
    """Return those that are no part of others."""
    entries = [entry for entry in every if entry is not None]
    inner = frozenset().union(*(entry.inner for entry in entries))
    return [entry for entry in entries if entry.result.output not in inner]


def _normalized(program: Program, result: Node) -> Normalized | None:
    """Return what normalizes up to a value, from the first value of which this is so; None where nothing does."""
    return program.once(_normalized_at, program.makers[result.output])


def _normalized_at(program: Program, at: int) -> Normalized | None:
    normalized, weights, result = None, program.weights, program.tape.nodes[at]
    for entry, nodes in program.regions(result.output, DEPTH) if result.output in program.active else ():
        if any(number in weights for node in nodes for number in node.inputs):
            break
        shapes = program.shapes[entry], program.shapes[result.output]
        if len(shapes[0]) != len(shapes[1]) or not any(REDUCES.search(node.name) for node in nodes):
            continue
        if known := _recognized(program, Stretch(entry, nodes)):
            inner = frozenset(node.output for node in nodes[:-1])
            normalized = Normalized(known[0], known[1], entry, result, inner, known[2])
    return normalized


def _recognized(program: Program, stretch: Stretch) -> tuple[str, Over, Callable[[Over, Array], Array]] | None:
    """Tell what a stretch normalizes, by random values: (kind, over what, its function of that and of values)."""
    moves = stretch.nodes[-1].kind == "layout"
    x = np.random.default_rng(0).standard_normal(program.shapes[stretch.entry])
    try:
        value = np.asarray(program.function(stretch)(x), np.float64)
        y = np.broadcast_to(value, x.shape)
    except Exception:  # an operation that does not take such values, or a result of another shape
        return None
    for axis in range(-1, -1 - x.ndim, -1) if value.shape == x.shape and not moves and (value > 0).all() else ():
        if _close(y, _softmax(Over(axis), x)):
            return SOFTMAX, Over(axis), _softmax
    for over in _overs(x.shape):
        mean, var = over.statistics(x)
        if not var.all():  # of single elements
            continue
        if over.centred and _close(y, x - mean):
            return NORM, over, lambda over, x: x - over.statistics(x)[0]
        with np.errstate(all="ignore"):
            deviations = (1 / y, _scaled), ((x - mean) / y, _standardized)
        for deviation, run in deviations:
            epsilon = float(np.median(deviation**2 - var))
            if -ROUNDED_FUNCTIONS < epsilon <= LARGEST and _close(deviation**2, var + epsilon):
                return NORM, over, partial(run, max(epsilon, 0.0), value.shape)
    return None


def _overs(shape: tuple[int, ...]) -> Iterator[Over]:
    """Yield what a norm of an array (n, c, ...) or (n, ..., c) may have in common."""
    axes = dict.fromkeys((-1, 1 - len(shape))) if len(shape) > 1 else ()
    for centred in (True, False):
        yield from (Over(axis, EACH, centred) for axis in axes if len(shape) > 2)
        for groups in range(1, max(shape, default=0) + 1):
            yield from (Over(axis, groups, centred) for axis in axes if shape[axis] % groups == 0)


def _close(y: Array, to: Array) -> bool:
    return bool(np.allclose(y, to, ROUNDED_FUNCTIONS, ROUNDED_FUNCTIONS))


def _softmax(over: Over, x: Array) -> Array:
    y = np.exp(x - x.max(over.axis, keepdims=True))
    return y / y.sum(over.axis, keepdims=True)


def _standardized(epsilon: float, _: tuple[int, ...], over: Over, x: Array) -> Array:
    mean, var = over.statistics(x)
    return (x - mean) / np.sqrt(var + epsilon)


def _scaled(epsilon: float, shape: tuple[int, ...], over: Over, x: Array) -> Array:
    """Return one over the deviation, without copies along axes that have none on the other side either."""
    y = 1 / np.sqrt(over.statistics(x)[1] + epsilon)
    if over.groups == EACH:
        return y
    return y[tuple(slice(1 if n == 1 else None) for n in shape)]

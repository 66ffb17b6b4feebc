"""Apply a norm behind what reduces its result, as the mean over tokens, where the other side has them in that order."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import numpy as np

from parity.derive.limits import ROUNDED_FUNCTIONS
from parity.derive.trace.program import Program, Stretch
from parity.derive.trace.tape import Array, Node, Replacement, Tape, tried

from .edit import SIDES, Edit, Scope
from .norms import MOVED, Norm, each_norm, which
from .selections import reduced

STEPS = 4  # operations that reduce, at most: a framework may write a mean as a sum, a factor and a layout
MOST = 2  # norms of a side that are tried

Spread = Callable[[Array], Array]


class Reduced(NamedTuple):
    """A norm whose result is reduced, and read by nothing else.

    Args:
      stretch: what reduces it. spread: repeats a result of this, which it reduces to the same again.
    """

    norm: Norm
    stretch: Stretch
    spread: Spread


@dataclass(frozen=True)
class Behind(Edit):
    """Reduce what norms read, and normalize the results, of which the norm's operations get copies in their shape."""

    places: Sequence[Reduced]

    @property
    def changed(self) -> Collection[int]:
        return [value for place in self.places for value in (place.norm.result, place.stretch.result)]

    def tape(self, tape: Tape) -> Tape:
        skipped = {node.output for place in self.places for node in place.norm.nodes}
        results = {place.stretch.result: place for place in self.places}
        entries = {place.norm.result: place.norm.entry for place in self.places}

        def instead(_: int, node: Node, new: Replacement) -> list[Node]:
            if node.output in skipped:
                return []
            inputs = tuple(entries.get(n, n) for n in node.inputs)
            if (place := results.get(node.output)) is None:
                return [node._replace(inputs=inputs)]
            named = {place.norm.entry: new.layout(new.again(node, inputs), place.spread)}
            for part in (*place.norm.nodes, *place.stretch.nodes):
                named[part.output] = new.again(part, tuple(named.get(n, n) for n in part.inputs))
            return new.nodes

        return tape.rewritten(instead)


def behind_reductions(scope: Scope, side: int) -> Iterator[Behind]:
    """Yield edits that apply a norm behind what reduces its result."""
    program = scope.programs[side]
    late = (norm for norm in each_norm(program) if program.makers[norm.result] >= scope.firsts[side])
    for norm in itertools.islice(late, MOST):
        if place := _reduced(program, norm):
            what = reduced(program, place.stretch) or "its result is reduced"
            text = f"the {SIDES[side]} normalizes before {what}, the {SIDES[1 - side]} after it{which([norm])}"
            yield Behind(side, MOVED, text, [place], counted=(place.stretch.result,))


def _reduced(program: Program, norm: Norm) -> Reduced | None:
    """Return what reduces the result of a norm to fewer elements; None where nothing does."""
    value, nodes = norm.result, list[Node]()
    while len(nodes) < STEPS and (reader := program.only_reader(value)):
        node = program.tape.nodes[reader[0]]
        if node.kind == "product" or any(program.known(n) is None for n in node.inputs if n != value):
            break
        nodes.append(node)
        value, stretch = node.output, Stretch(norm.result, nodes[:])
        fewer = math.prod(program.shapes[value]) < math.prod(program.shapes[norm.result])
        if fewer and (spread := _spread(program, stretch)):
            return Reduced(norm, stretch, spread)
    return None


def _spread(program: Program, stretch: Stretch) -> Spread | None:
    """Return what repeats results along the reduced axes, if these are the mean, or the like, of such copies."""
    before, after = program.shapes[stretch.entry], program.shapes[stretch.result]
    x = np.random.default_rng(0).standard_normal(after)
    for axes in itertools.chain.from_iterable(itertools.combinations(range(len(before)), k) for k in (1, 2, 3)):
        shape = tuple(1 if axis in axes else n for axis, n in enumerate(before))
        if after not in (shape, tuple(n for axis, n in enumerate(before) if axis not in axes)):
            continue
        spread = partial(_copies, shape, before)
        y = tried(program.function(stretch), spread(x))
        if y is None:
            return None
        if np.allclose(x, y, ROUNDED_FUNCTIONS, ROUNDED_FUNCTIONS):
            return spread
    return None


def _copies(shape: tuple[int, ...], before: tuple[int, ...], x: Array) -> Array:
    return np.broadcast_to(np.reshape(x, shape), before).copy()

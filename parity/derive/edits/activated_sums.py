"""Move an activation function from a term of a sum to the sum, or from the sum to a term."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

from parity.derive.trace.program import Program
from parity.derive.trace.tape import Array, Node, Tape
from parity.hypotheses import ACTIVATIONS

from .activations import Activation, activation
from .edit import SIDES, Edit, alike
from .sums import adds

KIND = "activation in another place"
MOST = 4  # activations of a side that are tried
DEPTH = 12  # operations behind a sum among which its activation function is


class Place(NamedTuple):
    """An activation function beside a sum.

    Args:
      total: the sum. term: of its operands, the one that is or becomes the result of the function.
      before: whether the function is applied before the sum at present.
    """

    one: Activation
    total: Node
    term: int
    before: bool


@dataclass(frozen=True)
class Moved(Edit):
    """Apply activation functions after sums where they were before, or the other way round."""

    places: Sequence[Place]
    run: Callable[[Array], Array]

    @property
    def changed(self) -> Collection[int]:
        return [value for place in self.places for value in (place.one.result.output, place.total.output)]

    def tape(self, tape: Tape) -> Tape:
        skipped = {place.one.result.output: place.one.entry for place in self.places}
        totals: Mapping[int, Place] = {place.total.output: place for place in self.places}
        size, nodes = tape.size, list[Node]()
        for node in tape.nodes:
            if node.output in skipped:
                nodes.append(Node("layout", (skipped[node.output],), node.output, _same, node.site, None))
            elif (place := totals.get(node.output)) is None:
                nodes.append(node)
            elif place.before:
                nodes += [node._replace(output=size), Node("other", (size,), node.output, self.run, node.site, None)]
                size += 1
            else:
                terms = tuple(size if number == place.term else number for number in node.inputs)
                nodes += [Node("other", (place.term,), size, self.run, node.site, None), node._replace(inputs=terms)]
                size += 1
        return replace(tape, nodes=nodes, size=size, parts={})


def moved_activations(programs: Sequence[Program], firsts: Sequence[int]) -> Iterator[Edit]:
    """Yield edits that apply an activation function after a sum where it is before, or to one of its terms.

    Args:
      firsts: on each side, the operation from which on the sides may differ.
    """
    for side, program in enumerate(programs):
        for before in (True, False):
            if next(_places(program, before, firsts[side]), None) is None:
                continue
            every = list(_places(program, before, 0))
            near = (place for place in every if program.makers[place.total.output] >= firsts[side])
            for place in itertools.islice(near, 2 * MOST):
                some = [other for other in every if _like(other, place)]
                one, *wider = (_moved(of, side) for of in alike(place, some, lambda at: at.one.result.site))
                yield replace(one, wider=tuple(wider))


def _like(one: Place, other: Place) -> bool:
    """Tell whether the same function is applied to the same term of two sums."""
    slots = [list(place.total.inputs).index(place.term) for place in (one, other)]
    return one.one.name == other.one.name and slots[0] == slots[1]


def _places(program: Program, before: bool, first: int) -> Iterator[Place]:
    """Yield activation functions of terms of sums, or those of sums with each of the terms, from an operation on."""
    for at, total in enumerate(program.tape.nodes):
        if at < first or not adds(program, total):
            continue
        if before:
            made = [program.tape.nodes[program.makers[n]] for n in total.inputs if n in program.makers]
            every = [(node, node.output) for node in made if program.only_reader(node.output)]
            yield from (Place(one, total, term, True) for node, term in every if (one := activation(program, node)))
        else:
            behind = (activation(program, node) for node in program.tape.nodes[at + 1 : at + DEPTH])
            one = next((one for one in behind if one and one.entry == total.output), None)
            yield from (Place(one, total, term, False) for term in total.inputs if one)


def _moved(places: Sequence[Place], side: int) -> Moved:
    name, before = places[0].one.name, places[0].before
    where = ("before", "after") if before else ("after", "before")
    text = f"the {SIDES[side]} applies {name} {where[0]} the sum, the {SIDES[1 - side]} {where[1]} it"
    counted = tuple(place.total.output for place in places)
    more = len(places) - 1
    return Moved(side, KIND, text, places, ACTIVATIONS[name], times=len(places), more=more, counted=counted)


def _same(value: object) -> object:
    return value

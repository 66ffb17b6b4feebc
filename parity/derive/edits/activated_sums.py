"""Move an activation function from a term of a sum to the sum, or from the sum to a term."""

from __future__ import annotations

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
        for kind in ([*_before(program)], [place for k in (0, 1) for place in _behind(program, k)]):
            near = [place for place in kind if program.makers[place.one.result.output] >= firsts[side]]
            for place in near[: 2 * MOST]:
                every = [other for other in kind if _like(other, place)]
                one, *wider = (_moved(some, side) for some in alike(place, every, lambda at: at.one.result.site))
                yield replace(one, wider=tuple(wider))


def _like(one: Place, other: Place) -> bool:
    """Tell whether the same function is applied to the same term of two sums."""
    slots = [list(place.total.inputs).index(place.term) for place in (one, other)]
    return one.one.name == other.one.name and slots[0] == slots[1]


def _before(program: Program) -> Iterator[Place]:
    """Yield the activation functions of terms of sums."""
    for total in (node for node in program.tape.nodes if adds(program, node)):
        for term in total.inputs:
            if program.only_reader(term) and term in program.makers:
                one = activation(program, program.tape.nodes[program.makers[term]])
                if one and one.entry != term:
                    yield Place(one, total, term, True)


def _behind(program: Program, slot: int) -> Iterator[Place]:
    """Yield the activation functions of sums, each with one of the two terms."""
    for node in program.tape.nodes:
        one = activation(program, node)
        total = program.tape.nodes[program.makers[one.entry]] if one and one.entry in program.makers else None
        if one and total and adds(program, total):
            yield Place(one, total, total.inputs[slot], False)


def _moved(places: Sequence[Place], side: int) -> Moved:
    name, before = places[0].one.name, places[0].before
    where = ("before", "after") if before else ("after", "before")
    text = f"the {SIDES[side]} applies {name} {where[0]} the sum, the {SIDES[1 - side]} {where[1]} it"
    counted = tuple(place.total.output for place in places)
    more = len(places) - 1
    return Moved(side, KIND, text, places, ACTIVATIONS[name], times=len(places), more=more, counted=counted)


def _same(value: object) -> object:
    return value

"""Move an activation function: from a term of a sum to the sum, from the sum to a term, or behind a norm."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

from convert.folding import fold as folded_names
from parity.causes.hypotheses import ACTIVATIONS
from parity.derive.trace.program import Program
from parity.derive.trace.sites import shown_once
from parity.derive.trace.tape import Array, Node, Replacement, Tape, identity
from specs.words import in_a_row

from .activations import Activation, activation
from .affine import chains
from .edit import ELSEWHERE, SIDES, Edit, Scope, repeats, widened
from .norms import each_norm
from .sums import adds

KIND = f"activation {ELSEWHERE}"
MOST = 4  # activations of a side that are tried
DEPTH = 12  # operations behind a sum among which its activation function is


class Place(NamedTuple):
    """An activation function beside a sum, or before a norm or other operations with parameters.

    Args:
      total: the sum, or the last of these. term: of a sum's operands, the one that is or becomes the function's result.
      before: whether the function is applied before the sum at present. beside: what else than a sum it stands at.
    """

    one: Activation
    total: Node
    term: int
    before: bool
    beside: str = ""

    @property
    def alike(self) -> tuple[str, int]:
        """Return what places that are moved together have in common: the function, and the operand of the sums."""
        return self.one.name, -1 if self.beside else list(self.total.inputs).index(self.term)


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

        def instead(_: int, node: Node, new: Replacement) -> list[Node]:
            if node.output in skipped:
                new.layout(skipped[node.output], identity)
            elif (place := totals.get(node.output)) is None:
                return [node]
            elif place.before:
                new.record("other", (new.again(node, node.inputs),), self.run)
            else:
                term = new.record("other", (place.term,), self.run)
                new.again(node, tuple(term if number == place.term else number for number in node.inputs))
            return new.nodes

        return tape.rewritten(instead)


def moved_activations(scope: Scope) -> Iterator[Edit]:
    """Yield edits that apply an activation function after a sum where it is before, or to one of its terms."""
    firsts = scope.firsts
    for side, program in enumerate(scope.programs):
        for places in (partial(_places, program, True), partial(_places, program, False), partial(_behind, program)):
            if next(places(firsts[side]), None) is None:
                continue
            every = list(places(0))
            near = (place for place in every if program.makers[place.total.output] >= firsts[side])
            for place in itertools.islice(near, 2 * MOST):
                some = [other for other in every if other.alike == place.alike]
                yield widened(_moved(alike, side) for alike in repeats(place, some, _site))


def _site(place: Place) -> str:
    return place.total.site if place.beside else place.one.result.site


def _places(program: Program, before: bool, first: int) -> Iterator[Place]:
    """Yield activation functions of terms of sums, or those of sums with each of the terms, from an operation on."""
    for at, total in enumerate(program.tape.nodes):
        if at < first or not adds(program, total):
            continue
        if before:
            made = filter(None, map(program.maker, total.inputs))
            every = [(node, node.output) for node in made if program.only_reader(node.output)]
            yield from (Place(one, total, term, True) for node, term in every if (one := activation(program, node)))
        else:
            behind = (activation(program, node) for node in program.tape.nodes[at + 1 : at + DEPTH])
            one = next((one for one in behind if one and one.entry == total.output), None)
            yield from (Place(one, total, term, False) for term in total.inputs if one)


def _behind(program: Program, first: int) -> Iterator[Place]:
    """Yield activation functions of which a norm, or operations with parameters, alone read the result."""
    blocks = [(norm.entry, norm.nodes, norm.parameters) for norm in each_norm(program)]
    for chain in chains(program):
        nodes, names = tuple(act.node for act in chain), tuple(n for act in chain for n in act.names)
        blocks.append((chain[0].value, nodes, names))
    for entry, nodes, names in blocks:
        inner, made = {node.output for node in nodes}, program.makers.get(entry)
        readers = {node.output for node in program.reading(entry)}
        if made is None or not readers <= inner or program.makers[nodes[-1].output] < first:
            continue
        if act := activation(program, program.tape.nodes[made]):
            yield Place(act, nodes[-1], entry, True, nodes[-1].site or in_a_row(folded_names(dict.fromkeys(names))))


def _moved(places: Sequence[Place], side: int) -> Moved:
    name, before = places[0].one.name, places[0].before
    where = ("before", "after") if before else ("after", "before")
    what = in_a_row(folded_names(shown_once(place.beside for place in places))) if places[0].beside else "the sum"
    text = f"the {SIDES[side]} applies {name} {where[0]} {what}, the {SIDES[1 - side]} {where[1]} it"
    counted, times = tuple(place.total.output for place in places), len(places)
    named = times if places[0].beside else 1
    return Moved(side, KIND, text, places, ACTIVATIONS[name], times=times, named=named, more=times - named,
                 counted=counted)  # fmt: skip

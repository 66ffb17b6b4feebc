"""Let one side use parameters as the other one does: as they are, without a function of them, or one in two places."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from convert.folding import fold as folded_names
from parity.derive.trace.names import Similarity, split
from parity.derive.trace.program import Program
from parity.derive.trace.tape import Array, Node, Tape
from specs.words import in_a_row

from .edit import SIDES, Edit, LeftOut, Scope

FUNCTION, SHARED = "function of a parameter", "shared parameter"  # the kinds of these edits
MOST = 4  # parameters that are tried one by one


def plain_weights(scope: Scope) -> Iterator[Edit]:
    """Yield edits by which a side uses a parameter as it is, where it computes something of it first."""
    near = scope.near
    for side, program in enumerate(scope.programs):
        every = _functions(program)
        near_values = [value for value in every if program.makers[value] in near[side]]
        calls = {value: _calls(program, value) for value in every} if near_values else {}
        for value in near_values:
            name = every[value]
            alike = {v: name_of for v, name_of in every.items() if calls[v] == calls[value]}
            plain = _plain(program, {value: name}, side)
            yield replace(plain, wider=(_plain(program, alike, side),)) if len(alike) > 1 else plain


def _functions(program: Program) -> dict[int, str]:
    """Return what operations compute of parameters before activations meet it, each with the parameter of its shape."""
    weights, functions = program.weights, dict[int, str]()
    for node in program.tape.nodes:
        for number in node.inputs if not program.active.isdisjoint([*node.inputs, node.output]) else ():
            value = program.before_layouts(number)[0]
            made = program.maker(value)
            if value in weights and made is not None and made.kind in ("mul", "other"):
                shape, parameters = program.shapes[value], program.tape.parameters
                if names := [name for name in weights[value] if program.shapes[parameters[name]] == shape]:
                    functions[value] = names[0]
    return functions


def _calls(program: Program, value: int) -> tuple[str, ...]:
    """Name the operations that compute a value of parameters."""
    wanted, names = {value}, list[str]()
    for node in reversed(program.tape.nodes[: program.makers[value] + 1]):
        if node.output in wanted:
            wanted.update(node.inputs)
            names.append(node.title)
    return tuple(reversed(names))


def _plain(program: Program, some: Mapping[int, str], side: int) -> LeftOut:
    names = in_a_row(folded_names(some.values()))
    text = f"the {SIDES[side]} {_does(program, next(iter(some)), names)}, the {SIDES[1 - side]} does not"
    values = {result: program.tape.parameters[name] for result, name in some.items()}
    return LeftOut(side, FUNCTION, text, values, times=len(some), named=len(some))


def _does(program: Program, value: int, names: str) -> str:
    """Say what a side does with parameters: name the operation if it is one, or what they are multiplied by."""
    node = program.tape.nodes[program.makers[value]]
    if node.kind == "mul":
        if min(math.prod(program.shapes[number]) for number in node.inputs) == 1:
            return f"divides or multiplies {names} by a number that it computes, as spectral normalization does"
        return f"multiplies {names} by numbers that it computes, as weight normalization does"
    return f"applies {in_a_row(dict.fromkeys(_calls(program, value)))} to {names}"


@dataclass(frozen=True)
class Instead(Edit):
    """Read other elements in the place of parameters.

    Args:
      values: numbers of the parameters that are replaced -> the number of the one that is read, and its layout.
      read: the results of the operations that read them.
    """

    values: Mapping[int, tuple[int, Callable[[Array], Array]]]
    read: Collection[int]

    @property
    def changed(self) -> Collection[int]:
        return self.read

    def tape(self, tape: Tape) -> Tape:
        named, first, size = dict[int, int](), list[Node](), tape.size
        for number, (other, layout) in self.values.items():
            named[number] = size
            first.append(Node("layout", (other,), size, layout, ""))
            size += 1
        nodes = [node._replace(inputs=tuple(named.get(n, n) for n in node.inputs)) for node in tape.nodes]
        return replace(tape, nodes=[*first, *nodes], size=size, parts={})


def shared(program: Program, alone: Collection[str], partners: Mapping[str, str]) -> Iterator[Instead]:
    """Yield edits by which the left side uses those parameters of its own that the right one uses at several places.

    Args:
      alone: left parameters without a partner. partners: left parameters -> the right one that has each.
    """
    similar = Similarity()
    weights = program.tape.parameters
    best = dict[str, tuple[str, tuple[int, ...]]]()
    for name in (name for name in alone if name in weights and _readers(program, weights[name])):
        own = program.shapes[weights[name]]
        orders = {
            other: order
            for other in partners.keys() & weights.keys()
            if weights[other] in program.shapes  # something reads it
            for order in (tuple(range(len(own)))[::-1], tuple(range(len(own))))
            if len(program.shapes[weights[other]]) == len(own)
            and tuple(program.shapes[weights[other]][d] for d in order) == own
        }
        if orders:
            other = max(sorted(orders), key=lambda one: (split(one)[1] == split(name)[1], similar(name, one)))
            best[name] = other, orders[other]
    singles = [{name: one} for name, one in best.items()] if len(best) > 1 else []
    for some in ([best] if best else []) + singles[:MOST]:
        rights = in_a_row(folded_names(dict.fromkeys(partners[other] for other, _ in some.values())))
        text = f"the left has {in_a_row(folded_names(some))} of its own, the right uses {rights} there too"
        values = {
            weights[name]: (weights[other], partial(np.transpose, axes=order)) for name, (other, order) in some.items()
        }
        read = sorted({at for number in values for at in _readers(program, number)})
        yield Instead(0, SHARED, text, values, read, times=len(some), named=len(some))


def _readers(program: Program, number: int) -> list[int]:
    return [node.output for node in program.reading(number)]

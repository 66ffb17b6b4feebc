"""Leave out layers on a shortcut: products and norms through which one side alone passes a term of a residual sum."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from parity.derive.trace.program import Program
from parity.derive.trace.sites import shown_once
from parity.derive.trace.tape import Node
from specs.words import in_a_row

from .edit import SIDES, Edit, LeftOut, Scope, repeats, widened, with_names
from .sums import adds

KIND = "layer on a shortcut"
MOST = 4  # shortcuts of a side that are tried


class Shortcut(NamedTuple):
    """Operations from a value that a branch reads to the term to which the branch is added.

    Args:
      nodes: of which one is a product with parameters at least, in order of execution.
    """

    entry: int
    nodes: Sequence[Node]

    @property
    def result(self) -> int:
        return self.nodes[-1].output


def without_shortcuts(scope: Scope, side: int) -> Iterator[Edit]:
    """Yield edits that leave out the layers on a shortcut, if a side has more products than the other one."""
    if not has_more_products(scope, side):
        return
    program, names = scope.programs[side], scope.alone[side]
    every = [each for each in _shortcuts(program) if set(parameters_of(program, each.nodes)) <= {*names}]
    for one in scope.nearest(side, every, lambda each: each.result, MOST):
        yield widened(_left_out(program, some, side) for some in repeats(one, every, lambda each: each.nodes[-1].site))


def _left_out(program: Program, some: Sequence[Shortcut], side: int) -> LeftOut:
    what = layers_of(program, some[0].nodes)
    sites = shown_once(node.site for each in some for node in each.nodes if node.site)
    does = f"the {SIDES[side]} applies {what} on a shortcut, the {SIDES[1 - side]} does not"
    values = {each.result: each.entry for each in some}
    return LeftOut(side, KIND, does + with_names(sites), values, fault=does, times=len(some), named=len(some))


def _shortcuts(program: Program) -> Iterator[Shortcut]:
    for node in program.tape.nodes:
        if adds(program, node):
            pairs = (node.inputs, node.inputs[::-1])
            yield from (found for value, branch in pairs if (found := _shortcut(program, value, branch)))


def _shortcut(program: Program, value: int, branch: int) -> Shortcut | None:
    """Return the operations to a value from one of which the branch is computed, with a product; None without such."""
    nodes, number, products = list[Node](), value, 0
    while (node := program.maker(number)) is not None:
        active = program.active.intersection(node.inputs)
        if len(active) != 1:
            return None
        nodes.append(node)
        products += node.kind == "product"
        (number,) = active
        alike = program.shapes[number] == program.shapes[value] and program.before_layouts(branch)[0] != number
        if products and alike and program.tape.depends([branch], [number]):
            return Shortcut(number, nodes[::-1])
    return None


def has_more_products(scope: Scope, side: int) -> bool:
    """Tell whether a side has more products than the other one."""
    counts = [sum(node.kind == "product" for node in program.tape.nodes) for program in scope.programs]
    return counts[side] > counts[1 - side]


def parameters_of(program: Program, nodes: Iterable[Node]) -> list[str]:
    """Return the names of the parameters that operations read."""
    weights = program.weights
    return [name for node in nodes for number in node.inputs for name in weights.get(number, ())]


def layers_of(program: Program, nodes: Iterable[Node]) -> str:
    """Name what operations with parameters compute: "a convolution and a norm"."""
    weights, words = program.weights, dict[str, None]()
    for node in nodes:
        if node.kind == "product":
            words["a convolution" if node.window else "a dense layer"] = None
        elif node.kind == "mul" and any(number in weights for number in node.inputs):
            words["a norm"] = None
    return in_a_row(words)

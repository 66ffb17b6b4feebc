"""Leave out layers that one side alone has: operations with a product, from one value to another of its shape."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from parity.derive.trace.program import Program, Stretch
from parity.derive.trace.sites import shown_once
from parity.derive.trace.tape import Node

from .affine import applied
from .edit import Edit, LeftOut, Scope, repeats, widened, with_names
from .shortcuts import has_more_products, layers_of, parameters_of

KIND = "layer"
DEPTH = 64  # operations of such layers at most
AHEAD = 512  # operations behind the last one that agrees, among which they are looked for
PRODUCTS = 4  # of them that are products at most
MOST = 6  # of a side that are tried


def without_layers(scope: Scope, side: int) -> Iterator[Edit]:
    """Yield edits that leave out one layer or several in a row, if a side has more products than the other one."""
    if not has_more_products(scope, side):
        return
    program, names = scope.programs[side], scope.spare(side)
    every = [one for one in _rows(scope, side) if names.issuperset(parameters_of(program, one.nodes))]
    makers, first, others = program.makers, scope.firsts[side], scope.programs[1 - side].tape.parameters

    def order(one: Stretch) -> tuple[int, bool, int, int]:
        """Take first what has names that the other side lacks, and begins behind the last product that agrees."""
        own, at = {*parameters_of(program, one.nodes)}, makers[_products(one)[0]]
        return len(own & others.keys()), at <= first, abs(at - first), -len(own)

    for one in sorted(every, key=order)[:MOST]:
        yield widened(_left_out(scope, some, side) for some in repeats(one, every, lambda each: each.nodes[-1].site))


def _rows(scope: Scope, side: int) -> list[Stretch]:
    """List the layers of a side near the place where both may differ.

    They begin or end with a product, and have the norms and functions between it and the next one with them; or they
    are added to what they read. A product's bias is a part of it.
    """
    program = scope.programs[side]
    sums = {step.value: step.node for step in applied(program) if step.node.kind == "add"}
    ends = {node.output: _with_bias(program, node, sums) for node in program.tape.nodes if node.kind == "product"}
    inner = {value for product, values in ends.items() for value in [product, *values][:-1]}
    last = {[product, *values][-1] for product, values in ends.items()}
    behind, before, whole = dict[tuple[int, int], Stretch](), dict[tuple[int, int], Stretch](), list[Stretch]()
    first = min(scope.firsts[side], *scope.near[side], len(program.tape.nodes))
    for node in program.tape.nodes[first : first + AHEAD]:
        moves = node.kind == "layout" and node.output not in last
        if node.output not in program.active or moves or node.output in inner:
            continue
        for one in program.regions(node.output, DEPTH, products=True):
            products = _products(one)
            if len(products) > PRODUCTS:
                break
            if not products or one.entry in inner or program.shapes[one.entry] != program.shapes[one.result]:
                continue
            if node.kind == "add" and one.entry in node.inputs:
                whole.append(one)
            elif next(each for each in one.nodes if each.kind != "layout").output == products[0]:
                behind[one.entry, len(products)] = one
            elif one.result in last:
                before[one.result, len(products)] = one
    return [*behind.values(), *before.values(), *whole]


def _products(one: Stretch) -> list[int]:
    return [node.output for node in one.nodes if node.kind == "product"]


def _with_bias(program: Program, product: Node, sums: Mapping[int, Node]) -> list[int]:
    """Return the results of the layouts and sums with parameters by which the module of a product goes on.

    Args:
      sums: the sums with parameters, by the values that they read.
    """
    found, value = list[int](), product.output
    while (reader := program.only_reader(value)) is not None:
        node = program.tape.nodes[reader[0]]
        if node.site != product.site or not (node.kind == "layout" or sums.get(value) is node):
            break
        value = node.output
        found.append(value)
    return found


def _left_out(scope: Scope, some: Sequence[Stretch], side: int) -> LeftOut:
    program, nodes = scope.programs[side], some[0].nodes
    sites = shown_once(node.site for one in some for node in one.nodes if node.site)
    does = scope.lacking(side, f"applies {layers_of(program, nodes)}", parameters_of(program, nodes))
    values = {one.result: one.entry for one in some}
    return LeftOut(side, KIND, does + with_names(sites), values, fault=does, times=len(some), named=len(some))

"""Leave out layers that one side alone has: operations with a product, from one value to another of its shape."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from parity.derive.trace.program import Stretch
from parity.derive.trace.sites import shown_once
from parity.derive.trace.tape import Node

from .edit import Edit, LeftOut, Scope, repeats, widened, with_names
from .shortcuts import has_more_products, layers_of, parameters_of

KIND = "layer"
DEPTH = 64  # operations of such layers at most
PRODUCTS = 4  # of them that are products at most
MOST = 6  # of a side that are tried


def without_layers(scope: Scope, side: int) -> Iterator[Edit]:
    """Yield edits that leave out one layer or several in a row, if a side has more products than the other one."""
    if not has_more_products(scope, side):
        return
    program, names = scope.programs[side], scope.spare(side)
    every = [one for one in _rows(scope, side) if names.issuperset(parameters_of(program, one.nodes))]
    makers, first = program.makers, scope.firsts[side]

    def order(one: Stretch) -> tuple[bool, int, int]:
        """Take first what begins behind the last product that agrees, and has the most parameters."""
        at = makers[next(node for node in one.nodes if node.kind == "product").output]
        return at <= first, abs(at - first), -len({*parameters_of(program, one.nodes)})

    for one in sorted(every, key=order)[:MOST]:
        yield widened(_left_out(scope, some, side) for some in repeats(one, every, lambda each: each.nodes[-1].site))


def _rows(scope: Scope, side: int) -> list[Stretch]:
    """List the layers of a side near the place where both may differ.

    They begin or end with a product, and have the norms and functions between it and the next one with them; or they
    are added to what they read.
    """
    program = scope.programs[side]
    behind, before, whole = dict[tuple[int, int], Stretch](), dict[tuple[int, int], Stretch](), list[Stretch]()
    first = min(scope.firsts[side], *scope.near[side], len(program.tape.nodes))
    for node in program.tape.nodes[first:]:
        if node.output not in program.active or node.kind == "layout":
            continue
        for one in program.regions(node.output, DEPTH, products=True):
            products = [each for each in one.nodes if each.kind == "product"]
            if len(products) > PRODUCTS:
                break
            if not products or program.shapes[one.entry] != program.shapes[one.result]:
                continue
            if node.kind == "add" and one.entry in node.inputs:
                whole.append(one)
            elif _computing(one.nodes)[0].kind == "product":
                behind[one.entry, len(products)] = one
            elif node.kind == "product":
                before[one.result, len(products)] = one
    return [*behind.values(), *before.values(), *whole]


def _computing(nodes: Sequence[Node]) -> list[Node]:
    return [node for node in nodes if node.kind != "layout"]


def _left_out(scope: Scope, some: Sequence[Stretch], side: int) -> LeftOut:
    program, nodes = scope.programs[side], some[0].nodes
    sites = shown_once(node.site for one in some for node in one.nodes if node.site)
    does = scope.lacking(side, f"applies {layers_of(program, nodes)}", parameters_of(program, nodes))
    values = {one.result: one.entry for one in some}
    return LeftOut(side, KIND, does + with_names(sites), values, fault=does, times=len(some), named=len(some))

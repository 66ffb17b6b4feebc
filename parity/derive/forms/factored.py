"""Multiply by both factors of a low-rank kernel, where a model multiplies these first: x (w + a b) = x w + (x a) b.

LoRA adds such a kernel to a trained one. Code that merges both computes one product; other code adds two results.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from parity.derive.trace.program import Program
from parity.derive.trace.tape import Array, Node, Replacement, Tape, identity

DEPTH = 12  # operations between the factors and the product that reads their kernel, at most


Factors = tuple[int, int, bool]  # both factors of a low-rank term, and whether its layout transposes it


class Term(NamedTuple):
    """A term of a kernel.

    Args:
      value: its number. run: lays it out as the kernel. scales: the numbers of the constants that it is multiplied by.
    """

    value: int
    run: Callable[[Array], Array]
    scales: tuple[int, ...]


def factored(program: Program) -> Tape:
    """Return the tape with such products apart; the same one where there are none."""
    tape = program.tape
    given = {*tape.inputs}
    for node in tape.nodes:
        if not given.isdisjoint(node.inputs):
            given.add(node.output)

    def instead(_: int, node: Node, new: Replacement) -> list[Node]:
        x, w = node.inputs[0], node.inputs[-1]
        if node.kind != "product" or node.window or x not in given or w in given or program.shapes[w][0] > 1:
            return [node]
        terms = _terms(program, Term(w, identity, ()), DEPTH)
        factors = [_factors(program, term) for term in terms]
        return _separate_products(node, terms, factors, new) if any(factors) else [node]

    return tape.rewritten(instead)


def _terms(program: Program, summand: Term, depth: int) -> list[Term]:
    """Return the terms of a kernel, each before layouts of it and before factors of one number."""
    node = program.maker(summand.value) if depth else None
    if node is None:
        return [summand]
    if node.kind == "layout" and len(node.inputs) == 1:
        run, last = node.run, summand.run
        return _terms(program, Term(node.inputs[0], lambda a: last(run(a)), summand.scales), depth - 1)
    alike = [n for n in node.inputs if program.shapes[n] == program.shapes[summand.value]]
    if node.kind == "add" and len(alike) == 2:
        return [term for n in node.inputs for term in _terms(program, summand._replace(value=n), depth - 1)]
    single = [n for n in node.inputs if n in program.tape.constants and np.size(program.tape.constants[n]) == 1]
    if node.kind == "mul" and len(single) == 1 and len(alike) == 1:
        return _terms(program, Term(alike[0], summand.run, (*summand.scales, *single)), depth - 1)
    return [summand]


def _factors(program: Program, term: Term) -> Factors | None:
    """Return both factors of a low-rank term, and whether its layout transposes it; None of another term."""
    node = program.maker(term.value)
    if node is None or node.kind != "product" or node.window or program.shapes[term.value][0] > 1:
        return None
    places = np.arange(np.prod(program.shapes[term.value])).reshape(program.shapes[term.value])
    moved = term.run(places)
    for transposed in (False, True):
        if np.array_equal(moved, places.swapaxes(1, 2) if transposed else places):
            one, other = node.inputs
            return one, other, transposed
    return None


def _separate_products(
    node: Node, terms: Sequence[Term], factors: Sequence[Factors | None], new: Replacement
) -> list[Node]:
    """Return the products with each term of a kernel, and their sum. Args: factors: of each term, if it has some."""
    results, x = list[int](), node.inputs[0]
    for term, both in zip(terms, factors, strict=True):
        if both is None:
            y = new.record("product", (x, new.layout(term.value, term.run)), node.run)
        else:
            *pair, transposed = both
            if transposed:
                pair = [new.layout(n, lambda a: a.swapaxes(1, 2)) for n in pair[::-1]]
            y = new.record("product", (new.record("product", (x, pair[0]), node.run), pair[1]), node.run)
        for scale in term.scales:
            scalar = new.layout(scale, lambda a: np.reshape(a, (1, 1, 1)))
            y = new.record("mul", (y, scalar), np.multiply)
        results.append(y)
    new.sum(results)
    return new.nodes

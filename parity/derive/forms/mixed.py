"""Write weighted means, choices and sums over stacked values as sums of two.

A mean x * m + y * (1 - m) by a parameter m becomes y + (x - y) * m, so that m meets one value alone. A choice between x
and x + y becomes x plus a choice between 0 and y, as masks are added elsewhere. A sum over the axis along which x and y
are stacked becomes x + y.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import replace

import numpy as np

from parity.derive.trace.program import Program
from parity.derive.trace.tape import Array, Node, Replacement, Tape, elements, picked, tried

TOTALS = frozenset(["sum", "reduce_sum", "mean"])  # what frameworks call sums over axes, and means, which divide them
CASES = {"select_n": (1, 2), "where": (1, 2)}  # which operands are chosen from, by what frameworks call the operation


def mixed(program: Program) -> Tape:
    """Return the tape with such means in one form; the same one where there are none."""

    def instead(_: int, node: Node, new: Replacement) -> list[Node]:
        mean = _mean(program, node) if node.kind == "add" else None
        if mean is None:
            return [node]
        x, y, weight = mean
        apart = new.sum([x, new.record("other", (y,), np.negative)])
        new.again(node, (y, new.record("mul", (apart, weight), np.multiply)))
        return new.nodes

    return program.tape.rewritten(instead)


def _mean(program: Program, node: Node) -> tuple[int, int, int] | None:
    """Return x, y and m of a sum that is a mean of x and y; None of others."""
    terms = [*filter(None, map(program.maker, node.inputs))]
    if len(terms) != 2 or any(term.kind != "mul" for term in terms):
        return None
    for term, other in (terms, terms[::-1]):
        for (weight, x), (rest, y) in itertools.product(*map(_turned, (term, other))):
            if {weight, rest} & program.active or not {x, y} & program.active:
                continue
            if program.shapes[x] == program.shapes[y] and _is_rest(
                program, program.origin(weight), program.origin(rest)
            ):
                return x, y, weight
    return None


def _turned(node: Node) -> tuple[tuple[int, int], ...]:
    """Return both orders of the operands of a product."""
    one, other = node.inputs
    return (one, other), (other, one)


def _negates(node: Node) -> bool:
    made = tried(node.run, np.array([2.0, -0.5])) if len(node.inputs) == 1 else None
    return made is not None and np.array_equal(made, [-2.0, 0.5])


def _is_rest(program: Program, weight: tuple[int, Array], rest: tuple[int, Array]) -> bool:
    """Tell whether each element of the second value is 1 minus that of the first one."""
    node = program.maker(rest[0])
    if node is None or node.kind != "add":
        return False
    one = [n for n in node.inputs if np.all(np.equal(program.tape.constants.get(n, 0), 1))]
    minus = [*filter(None, map(program.maker, node.inputs))]
    if len(one) != 1 or len(minus) != 1 or not _negates(minus[0]):
        return False
    number, places = program.origin(minus[0].inputs[0])
    if number != weight[0] or program.shapes[node.output] != places.shape or not rest[1].all() or not places.all():
        return False
    order = places.ravel()[rest[1].astype(np.int64) - 1]
    ndim = max(order.ndim, weight[1].ndim)
    a, b = (np.expand_dims(each, tuple(range(ndim - each.ndim))) for each in (order, weight[1]))
    return bool(np.array_equal(a, b))


def added(tape: Tape) -> Tape:
    """Return the tape with such choices as sums; the same one where there are none."""
    sums = {node.output: node.inputs for node in tape.nodes if node.kind == "add"}

    def instead(_: int, node: Node, new: Replacement) -> list[Node]:
        terms = _terms(node, sums)
        if terms is None:
            return [node]
        plain, x, y = terms
        operands = tuple(y if k in _cases(node) else value for k, value in enumerate(node.inputs) if k != plain)
        new.sum([x, new.again(node._replace(run=_with_zero(node.run, plain)), operands)])
        return new.nodes

    return tape.rewritten(instead)


def _with_zero(run: Callable[..., Array], at: int) -> Callable[..., Array]:
    """Return the same choice with 0 in the place of an operand."""
    return lambda *operands: run(*operands[:at], np.zeros(()), *operands[at:])


def _cases(node: Node) -> tuple[int, ...]:
    return CASES.get(node.name, ()) if len(node.inputs) == 3 else ()


def _terms(node: Node, sums: dict[int, tuple[int, ...]]) -> tuple[int, int, int] | None:
    """Return the operand that is x alone, x, and y, of a choice between x and x + y; None of others."""
    cases = _cases(node)
    for plain, other in (cases, cases[::-1]) if cases else ():
        x, terms = node.inputs[plain], sums.get(node.inputs[other], ())
        if x in terms:
            return plain, x, terms[1 - terms.index(x)]
    return None


def totals(program: Program) -> Tape:
    """Return the tape with sums of several values in place of sums over the axis along which layouts stack them.

    It is the same one where there are none. A mean is their sum times a number.
    """
    tape = replace(program.tape, constants=dict(program.tape.constants))

    def instead(_: int, node: Node, new: Replacement) -> list[Node]:
        terms = _stacked(program, node) if node.name in TOTALS else []
        if not terms:
            return [node]
        total = new.sum([new.layout(value, picked(places)) for value, places in terms])
        if node.name == "mean":
            tape.constants[factor := new.number()] = np.float64(1 / len(terms))
            new.record("mul", (total, factor), np.multiply)
        return new.nodes

    changed = tape.rewritten(instead)
    return program.tape if changed is tape else changed


def _stacked(program: Program, node: Node) -> list[tuple[int, Array]]:
    """Return the values of which an operation sums one element each, and the flat places of these; [] for others."""
    value, layouts = program.before_layouts(node.inputs[0])
    made = program.maker(value)
    if made is None or made.kind != "layout" or not program.indices.keys().isdisjoint(made.inputs):
        return []
    zeros = [np.zeros(program.shapes[number]) for number in made.inputs]

    def summed(k: int, x: Array) -> Array:
        """Return the sum with one of the values, and zeros in place of the others."""
        out = made.run(*zeros[:k], x, *zeros[k + 1 :])
        for layout in layouts:
            out = layout.run(out)
        return node.run(out) * (len(zeros) if node.name == "mean" else 1)

    found = list[tuple[int, Array]]()
    for k, number in enumerate(made.inputs):
        if not np.allclose(summed(k, np.ones_like(zeros[k])), 1):  # a mean of many rounds; more elements make 2 and up
            return []
        places = summed(k, elements(program.shapes[number]))
        found.append((number, np.rint(places).astype(np.int64) - 1))
    return found

"""Write a choice between x and x + y as x plus a choice between 0 and y, as masks are added elsewhere."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from parity.derive.trace.tape import Array, Node, Tape

CASES = {"select_n": (1, 2), "where": (1, 2)}  # which operands are chosen from, by what frameworks call the operation


def added(tape: Tape) -> Tape:
    """Return the tape with such choices as sums; the same one where there are none."""
    sums = {node.output: node.inputs for node in tape.nodes if node.kind == "add"}

    def instead(_: int, node: Node, number: Callable[[], int]) -> list[Node]:
        terms = _terms(node, sums)
        if terms is None:
            return [node]
        (plain, x, y), chosen = terms, number()
        operands = tuple(y if k in _cases(node) else value for k, value in enumerate(node.inputs) if k != plain)
        choice = node._replace(inputs=operands, output=chosen, run=_with_zero(node.run, plain))
        return [choice, Node("add", (x, chosen), node.output, np.add, node.site, None)]

    return tape.rewritten(instead)


def _with_zero(run: Callable[..., Array], at: int) -> Callable[..., Array]:
    """Return the same choice with 0 in the place of an operand."""
    return lambda *operands: run(*operands[:at], np.zeros(()), *operands[at:])


def _cases(node: Node) -> tuple[int, ...]:
    return CASES.get(node.call.name, ()) if node.call and len(node.inputs) == 3 else ()


def _terms(node: Node, sums: dict[int, tuple[int, ...]]) -> tuple[int, int, int] | None:
    """Return the operand that is x alone, x, and y, of a choice between x and x + y; None of others."""
    cases = _cases(node)
    for plain, other in (cases, cases[::-1]) if cases else ():
        x, terms = node.inputs[plain], sums.get(node.inputs[other], ())
        if x in terms:
            return plain, x, terms[1 - terms.index(x)]
    return None

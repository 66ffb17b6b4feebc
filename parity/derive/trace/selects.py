"""Write a choice between x and x + y as x plus a choice between 0 and y, as masks are added elsewhere."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from .tape import Node, Tape

CASES = {"select_n": (1, 2), "where": (1, 2)}  # which operands are chosen from, by what frameworks call the operation


def added(tape: Tape) -> Tape:
    """Return the tape with such choices as sums; the same one where there are none."""
    sums = {node.output: node.inputs for node in tape.nodes if node.kind == "add"}
    own = replace(tape, nodes=[], constants=dict(tape.constants))
    for node in tape.nodes:
        found = _terms(node, sums)
        if found is None:
            own.nodes.append(node)
            continue
        plain, x, y = found
        zero, cases = own.constant(np.zeros(())), _cases(node)
        operands = [zero if k == plain else y if k in cases else number for k, number in enumerate(node.inputs)]
        chosen = own.record(node.kind, operands, node.run, node.site, call=node.call)
        own.nodes.append(Node("add", (x, chosen), node.output, np.add, node.site, None))
    return tape if own.size == tape.size else own.live()


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

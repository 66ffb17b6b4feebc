"""Tell whether operations scale the scores of attention: products of queries and keys before a softmax."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np

from parity.derive.trace.program import Program
from parity.derive.trace.tape import Node

KIND = "attention scale"
SCORES = "the scores before the softmax"
PASSING = ("layout", "mul", "add")  # kinds of operations between a product and its softmax: masks, scales, layouts
STEPS = 24  # operations that are looked at on the way


def scale_scores(program: Program, places: Iterable[int]) -> bool:
    """Tell whether each of these operations scales queries, keys or their product, on the way to a softmax."""
    every = [program.tape.nodes[at] for at in places]
    return bool(every) and all(_scales(program, node) for node in every)


def _scales(program: Program, node: Node) -> bool:
    is_behind = any(_of_activations(program, made) for made in _before(program, node))
    waiting, left = [(node, is_behind)], STEPS
    while waiting and left:
        left -= 1
        one, is_score = waiting.pop(0)
        for reader in _readers(program, one.output):
            if is_score and _is_softmax(program, reader):
                return True
            if reader.kind in PASSING or _masks(program, reader):
                waiting.append((reader, is_score))
            elif not is_score and _of_activations(program, reader):
                waiting.append((reader, True))
    return False


def _masks(program: Program, node: Node) -> bool:
    """Tell whether an operation chooses by truth values, as masked_fill and where."""
    known = (program.known(number) for number in node.inputs if node.kind == "other")
    return any(getattr(value, "dtype", np.dtype(float)).kind == "b" for value in known)


def _before(program: Program, node: Node) -> Iterator[Node]:
    """Yield the operations from which an operation's operand comes, up to other kinds than layouts and sums."""
    waiting, left = [node], STEPS
    while waiting and left:
        left -= 1
        one = waiting.pop(0)
        for at in (program.makers[number] for number in one.inputs if number in program.makers):
            made = program.tape.nodes[at]
            yield made
            if made.kind in PASSING:
                waiting.append(made)


def _of_activations(program: Program, node: Node) -> bool:
    return node.kind == "product" and program.active.issuperset(node.inputs)


def _is_softmax(program: Program, node: Node) -> bool:
    """Tell a softmax, also one that is written as exp(x) over its sum."""
    name = node.call.name if node.call else ""
    sums = (reader.call.name for reader in _readers(program, node.output) if reader.call)
    return "softmax" in name or (name == "exp" and any("sum" in one for one in sums))


def _readers(program: Program, number: int) -> list[Node]:
    return [program.tape.nodes[at] for at, _ in program.readers(number)]

"""Tell whether operations scale the scores of attention, products of queries and keys before a softmax; by how much.

Models scale queries, keys, scores or several of these: what counts is the product of all factors.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence

import numpy as np

from parity.derive.trace.program import Program
from parity.derive.trace.tape import Node

from .edit import Scope
from .numbers import Change, factor

KIND = "attention scale"
SCORES = "the scores before the softmax"
PASSING = ("layout", "mul", "add")  # kinds of operations between a product and its softmax: masks, scales, layouts
STEPS = 24  # operations that are looked at on the way


def rescaled(scope: Scope) -> Iterator[Change]:
    """Yield edits of factors of scores, of which one side has several, to the product that the other side has."""
    programs, alike = scope.programs, dict[tuple[float, float], list[tuple[Sequence[int], ...]]]()
    every = [
        [_factors(program, node) for node in program.tape.nodes if _is_score(program, node)] for program in programs
    ]
    if len(every[0]) != len(every[1]):
        return
    for both in zip(*every, strict=True):
        pairs = zip(programs, both, strict=True)
        one, other = (math.prod(_number(program, value) for value in some) for program, some in pairs)
        if max(map(len, both)) > 1 and one and other and not math.isclose(one, other):
            alike.setdefault((one, other), []).append(both)
    for factors, places in alike.items():
        side = int(all(both[1] for both in places))
        own, share = [both[side][0] for both in places if both[side]], factors[1 - side] / factors[side]
        values = {value: _number(programs[side], value) * share for value in own}
        twice = [(program, some) for program, some in zip(programs, places[0], strict=True) if len(some) == 2]
        roots = any(len({_number(program, constant) for constant in some}) == 1 for program, some in twice)
        yield factor(side, values, factors, scale=roots)


def _number(program: Program, constant: int) -> float:
    return float(np.ravel(program.tape.constants[constant])[0])


def _is_score(program: Program, node: Node) -> bool:
    return _of_activations(program, node) and _reaches_softmax(program, node, True)


def _factors(program: Program, node: Node) -> list[int]:
    """Return the single numbers by which a product of queries and keys, or either of these, is multiplied."""
    factors, value = list[int](), node.output
    for number in node.inputs:
        while (made := program.maker(number)) is not None and (constants := _passed(program, made)) is not None:
            factors += constants
            number = next(n for n in made.inputs if n not in constants)
    while (reading := program.only_reader(value)) is not None:
        then = program.tape.nodes[reading[0]]
        if (constants := _passed(program, then)) is None:
            break
        factors, value = factors + constants, then.output
    return factors


def _passed(program: Program, node: Node) -> list[int] | None:
    """Return the number by which an operation multiplies, [] if it moves elements alone; None of others."""
    if node.kind == "layout" and len(node.inputs) == 1:
        return []
    constants = [n for n in node.inputs if n in program.tape.constants]
    numbers = np.unique(program.tape.constants[constants[0]]) if len(constants) == 1 else ()
    if node.kind != "mul" or len(numbers) != 1:
        return None
    return constants


def scale_scores(program: Program, places: Iterable[int]) -> bool:
    """Tell whether each of these operations scales queries, keys or their product, on the way to a softmax."""
    every = [program.tape.nodes[at] for at in places]
    return bool(every) and all(_scales(program, node) for node in every)


def _scales(program: Program, node: Node) -> bool:
    return _reaches_softmax(program, node, any(_of_activations(program, made) for made in _before(program, node)))


def _reaches_softmax(program: Program, node: Node, is_score: bool) -> bool:
    """Tell whether a result goes to a softmax past layouts, scales and masks, if it is no score in a product first."""
    waiting, left = [(node, is_score)], STEPS
    while waiting and left:
        left -= 1
        step, is_score = waiting.pop(0)
        for reader in program.reading(step.output):
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
        step = waiting.pop(0)
        for at in (program.makers[number] for number in step.inputs if number in program.makers):
            made = program.tape.nodes[at]
            yield made
            if made.kind in PASSING:
                waiting.append(made)


def _of_activations(program: Program, node: Node) -> bool:
    return node.kind == "product" and program.active.issuperset(node.inputs)


def _is_softmax(program: Program, node: Node) -> bool:
    """Tell a softmax, also one that is written as exp(x) over its sum."""
    sums = any("sum" in reader.name for reader in program.reading(node.output))
    return "softmax" in node.name or (node.name == "exp" and sums)

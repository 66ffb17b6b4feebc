"""Tell whether the number of parts of an axis is one of the models' code, which uses the parts in different ways.

An LSTM has four gates and attention has queries, keys and values, whatever the width. Places, groups of heads and
layers are parts too: code moves them together, or treats them alike in a loop, and a larger model has more of them.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from parity.derive.trace.program import Program
from parity.derive.trace.tape import Array, elements

from .equal_parts import indices
from .sources import Met, first_met

STEPS = 3  # operations behind a part, or before it, that tell its use: add, sigmoid and multiply of a gate
Use = frozenset[object]


def have_roles(program: Program, name: str, axis: int, count: int, inner: int) -> bool:
    """Tell whether code takes each part of an axis of a parameter by itself, and not all alike.

    There are at least half as many uses as parts: the first or the last step of a loop may differ from all others.

    Args:
      count: how many parts there are. inner: how many indices of the axis one step from part to part passes.
    """
    met = first_met(program, name, axis)
    if met is None or met.fixed:
        return met is not None
    uses = dict[int, set[Use]]()
    for part, use in (*_read(program, name, axis, count, inner), *_made(program, met, count, inner)):
        uses.setdefault(part, set()).add(use)
    kinds = {frozenset(some) for some in uses.values()}
    return len(uses) == count and len(kinds) > 1 and 2 * len(kinds) >= count


def _read(program: Program, name: str, axis: int, count: int, inner: int) -> Iterator[tuple[int, Use]]:
    """Yield each part that a layout takes from others, and what reads it."""
    found = indices(program, name, axis)
    for node in found.passed() if found else ():
        part = _single(found.labels.get(node.output), count, inner) if found and node.kind == "layout" else None
        if part is not None and found and _single(found.labels.get(node.inputs[0]), count, inner) is None:
            yield part, program.once(_readers, node.output, STEPS)


def _made(program: Program, met: Met, count: int, inner: int) -> Iterator[tuple[int, Use]]:
    """Yield each part that a layout joins with others, and what makes it."""
    waiting = [] if met.own else [(met.value, met.places)]
    while waiting:
        value, labels = waiting.pop()
        node = program.maker(value)
        if node is None or node.kind == "product":
            continue
        for number in {*node.inputs} & program.active:
            own = labels_before(program, value, number, labels)
            part = _single(own, count, inner)
            if part is not None:
                yield part, program.once(_makers, number, STEPS)
            elif own is not None and own.any():
                waiting.append((number, own))


def labels_before(program: Program, value: int, number: int, labels: Array) -> Array | None:
    """Return the labels of an operand's elements, by those of the result; None where nothing tells them."""
    node, shape = program.tape.nodes[program.makers[value]], program.shapes[number]
    if node.kind != "layout":
        return labels if shape == labels.shape else None
    moved = program.laid_out(node, {number: elements(shape)})
    if moved is None or moved.shape != labels.shape:
        return None
    own = np.zeros(shape)
    own.flat[moved[moved > 0].astype(int) - 1] = labels[moved > 0]
    return own


def _single(labels: Array | None, count: int, inner: int) -> int | None:
    """Return the part to which all elements with labels belong; None where they belong to several, or none has one."""
    if labels is None:
        return None
    parts = np.unique((labels[labels > 0] - 1) // inner % count)
    return int(parts[0]) if len(parts) == 1 else None


def _readers(program: Program, value: int, steps: int) -> Use:
    """Return which operations read a value, behind layouts, and so on for some steps."""
    uses = set[object]()
    for at, slot in program.readers(value) if steps else ():
        node = program.tape.nodes[at]
        if node.kind == "layout":
            uses |= program.once(_readers, node.output, steps)
        else:
            place = slot if node.kind == "product" else 0
            uses.add((node.kind, node.name, place, program.once(_readers, node.output, steps - 1)))
    return frozenset(uses)


def _makers(program: Program, value: int, steps: int) -> Use:
    """Return which operation makes a value, before layouts, and so on for some steps, up to a product."""
    node = program.maker(value)
    if node is None or not steps:
        return frozenset()
    left = steps if node.kind == "layout" else 0 if node.kind == "product" else steps - 1
    before = (program.once(_makers, number, left) for number in node.inputs if number in program.active)
    every = frozenset[object]().union(*before)
    return every if node.kind == "layout" else frozenset([(node.kind, node.name, every)])

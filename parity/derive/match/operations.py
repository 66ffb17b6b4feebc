"""Tell what an operation between products computes of one operand: a function of it, and along which axis."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import TypeVar
from weakref import WeakKeyDictionary

import numpy as np

from parity.derive.trace.program import Program
from parity.derive.trace.tape import Array, Node

T = TypeVar("T")
SINGLE = -1  # in place of an axis: a function of single values mixes none


def _once(compute: Callable[[Program, Node, int], T]) -> Callable[[Program, Node, int], T]:
    """Store what is computed for an operand of a program's operation, as long as the program is in use."""
    known = WeakKeyDictionary[Program, dict[tuple[int, int], T]]()

    def stored(program: Program, node: Node, slot: int) -> T:
        results, key = known.setdefault(program, {}), (node.output, slot)
        if key not in results:
            results[key] = compute(program, node, slot)
        return results[key]

    return wraps(compute)(stored)


def function(program: Program, node: Node, slot: int) -> Callable[[Array], Array] | None:
    """Return an operation as a function of one operand; None where others are no constants, or it has another form."""
    others = {k: program.tape.constants.get(number) for k, number in enumerate(node.inputs) if k != slot}
    if node.kind != "other" or any(value is None for value in others.values()):
        return None
    return lambda x: node.run(*(others.get(k, x) for k in range(len(node.inputs))))


@_once
def mixing(program: Program, node: Node, slot: int) -> int | None:
    """Return the axis along which the function of an operand mixes values; see `mixed`. None if it is no function."""
    run = function(program, node, slot)
    return None if run is None else mixed(run, program.shapes[node.inputs[slot]])


def mixed(run: Callable[[Array], Array], shape: tuple[int, ...]) -> int | None:
    """Return the axis along which the function of one array mixes values, as a softmax or a sum does.

    SINGLE is returned for a function of each single value; None for one that mixes along several axes.
    """

    def changed(place: tuple[int, ...]) -> Array:
        values = np.zeros(shape)
        before = run(values)
        values[place] = 1
        return run(values) != before

    first = (0,) * len(shape)
    try:
        places = changed(first)
        if places.shape == shape:
            axes = [axis for axis, along in enumerate(np.nonzero(places)) if along.any()]
        else:  # fewer values: those along the axis reach the same one
            seconds = [(axis, (*first[:axis], 1, *first[axis + 1 :])) for axis, n in enumerate(shape) if n > 1]
            axes = [axis for axis, second in seconds if (places & changed(second)).any()]
    except Exception:  # a function that does not take such an array
        return None
    if not shape or (places.shape != shape and not axes):
        return None
    return axes[0] if len(axes) == 1 else None if axes else SINGLE


@_once
def keeps_places(program: Program, node: Node, slot: int) -> bool:
    """Tell whether each element of an operation's result is computed from one operand's element at its place alone."""
    if node.kind != "other":
        return node.kind in ("add", "mul")
    values = {k: program.known(number) for k, number in enumerate(node.inputs) if k != slot}
    drawn = {k: _drawn(program.shapes[node.inputs[k]]) if v is None else v for k, v in values.items()}
    axis = mixed(
        lambda x: node.run(*(drawn.get(k, x) for k in range(len(node.inputs)))), program.shapes[node.inputs[slot]]
    )
    return axis == SINGLE


def _drawn(shape: tuple[int, ...]) -> Array:
    return np.random.default_rng(0).standard_normal(shape)

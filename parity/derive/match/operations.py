"""Tell what an operation between products computes of one operand: a function of it, and along which axis."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any, TypeVar
from weakref import WeakKeyDictionary

import numpy as np

from parity.derive.trace.program import Program
from parity.derive.trace.tape import Array, Node

T = TypeVar("T")
SINGLE = -1  # in place of an axis: a function of single values mixes none

# The axes of operations, by operand, shapes and constants, which live as long as their ids are in a key: tapes share
# operations with those that were edited.
_axes = WeakKeyDictionary[Callable[..., Array], dict[tuple[Any, ...], tuple[int | None, list[Array]]]]()


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
    return None if function(program, node, slot) is None else _axis(program, node, slot)


def _axis(program: Program, node: Node, slot: int) -> int | None:
    """Return the axis along which an operation mixes values of one operand; others that are not known are drawn.

    It is computed once for all programs that have the operation, unless one of the others is computed from inputs.
    """
    shapes = tuple(program.shapes[number] for number in node.inputs)
    others = {k: program.known(number) for k, number in enumerate(node.inputs) if k != slot}
    known = {k: value for k, value in others.items() if value is not None}
    try:
        results = _axes.setdefault(node.run, {}) if all(node.inputs[k] in program.tape.constants for k in known) else {}
    except TypeError:  # no weak reference to a function of numpy exists
        results = {}
    key = slot, shapes, tuple((k, id(value)) for k, value in known.items())
    if key not in results:
        values = {k: known[k] if k in known else _drawn(shapes[k]) for k in others}
        axis = mixed(lambda x: node.run(*(values.get(k, x) for k in range(len(shapes)))), shapes[slot])
        results[key] = axis, [*known.values()]
    return results[key][0]


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
    return _axis(program, node, slot) == SINGLE


def _drawn(shape: tuple[int, ...]) -> Array:
    return np.random.default_rng(0).standard_normal(shape)

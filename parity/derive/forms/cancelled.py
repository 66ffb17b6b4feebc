"""Leave out running maxima and masks that later operations cancel.

A recurrence in a numerically stable form subtracts a running maximum before each exponential, and its quotient does not
depend on that. Experts that read masked rows compute something of zeros, which a later mask hides again. Other models
compute without either: then both sides meet the same values.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import replace

import numpy as np

from parity.derive.limits import HUGE
from parity.derive.trace.outputs import equal
from parity.derive.trace.program import Program, replayed
from parity.derive.trace.tape import Array, Node, Tape

MAXIMA = ("maximum", "max")  # names of operations
CHOICES = {"where": 1, "select_n": 2}  # which operand a mask of ones chooses
RUNS = 48  # of the tape at most

Place = tuple[int, int]  # an operation, and which of its operands is a mask; -1 where its result is a maximum


def cancelled(program: Program, parameters: Mapping[str, Array]) -> Tape:
    """Return the tape without maxima and masks that do not show in its outputs; the same one where there are none.

    Earlier ones are left out first: of two masks that hide the same rows, one before experts and one behind them, the
    second stays.

    Args:
      parameters: with which the program ran. It keeps none, as large ones take gigabytes.
    """
    kept, rest, runs = list[Place](), [list(_places(program, parameters))], 0
    while rest and runs < RUNS:
        some = rest.pop()
        runs += 1
        if some and _shows_nothing(program, parameters, {*kept, *some}):
            kept += some
        elif len(some) > 1:
            middle = len(some) // 2
            rest += [some[middle:], some[:middle]]
    return _without(program, set(kept)) if kept else program.tape


def _places(program: Program, parameters: Mapping[str, Array]) -> Iterator[Place]:
    """Yield maxima of two values, and masks of zeros and ones that depend on parameters, as those of a router."""
    values = {**program.tape.constants, **program.inputs}
    names = {number: name for name, number in program.tape.parameters.items()}
    masks = dict[int, bool]()

    def read(number: int) -> Array:
        if number in names and number not in values:
            values[number] = program.as_read(number, parameters[names[number]])
        return values[number]

    with np.errstate(all="ignore"):
        for at, node in enumerate(program.tape.nodes):
            if node.name in MAXIMA and len(node.inputs) == 2 and not any(_is_limit(program, n) for n in node.inputs):
                yield at, -1
            for slot in _slots(program, node):
                number = node.inputs[slot]
                if number in program.active and number not in program.plain:
                    if number not in masks:
                        masks[number] = _is_mask(read(number))
                    if masks[number]:
                        yield at, slot
            values[node.output] = node.run(*map(read, node.inputs))
            for number in {n for n in node.inputs if program.last[n] == at}:
                del values[number]


def _is_limit(program: Program, number: int) -> bool:
    """Tell whether a value is a constant other than the first of a running maximum, which is below all others."""
    return number in program.tape.constants and bool((program.tape.constants[number] > -HUGE).any())


def _is_mask(value: Array) -> bool:
    """Tell whether a value has zeros, and else ones alone: none where a router passes an expert over."""
    zeros = np.asarray(value == 0)
    return bool(zeros.any() and (zeros | (value == 1)).all())


def _shows_nothing(program: Program, parameters: Mapping[str, Array], places: Collection[Place]) -> bool:
    """Tell whether the outputs are the same without these maxima and masks."""
    outputs = replayed(_without(program, places), parameters, [*program.inputs.values()])
    return equal(program.outputs, outputs)


def _slots(program: Program, node: Node) -> tuple[int, ...]:
    """Return the operands of an operation that may be masks: it returns the other one where a mask has ones."""
    outer = node.kind == "product" and not node.window and program.shapes[node.inputs[0]][2] == 1
    if node.kind == "mul" or outer:
        return 0, 1
    return (0,) if node.name in CHOICES and len(node.inputs) == 3 else ()


def _without(program: Program, places: Collection[Place]) -> Tape:
    """Return the tape with zeros in place of these maxima, and without these masks."""
    tape = program.tape
    new = replace(tape, nodes=[], constants=dict(tape.constants), parts={})
    for at, node in enumerate(tape.nodes):
        slot = next((slot for slot in (0, 1) if (at, slot) in places), None)
        if (at, -1) in places:
            new.constants[node.output] = np.zeros(program.shapes[node.output])
        else:
            new.nodes.append(node if slot is None else _unmasked(program, node, slot))
    return new.live()


def _unmasked(program: Program, node: Node, slot: int) -> Node:
    """Return the other operand of an operation, spread as its result is."""
    shape = program.shapes[node.output]
    other = 1 - slot if node.kind != "other" else CHOICES[node.name]
    return Node("layout", (node.inputs[other],), node.output, lambda a: np.broadcast_to(a, shape), node.site)

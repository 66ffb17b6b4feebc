"""Move factors to one side of products: gates of experts, and temperatures of similarities, stand at either place."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import NamedTuple

import numpy as np

from .program import Program
from .tape import Array, Node, Tape, elements, picked


class Gate(NamedTuple):
    """A factor of each row of a product.

    Args:
      chain: the layouts between the product and the factor.
      factor: the value's number. pick: its flat element for each row (b, rows, 1) of the product.
    """

    product: int
    chain: tuple[int, ...]
    factor: int
    pick: Array


def scaled_before(program: Program) -> Tape:
    """Return the tape with such products of scaled rows; the same one where there are none."""
    tape = program.tape
    found = [gate for at in range(len(tape.nodes)) if (gate := _gate(program, at)) is not None]
    moved = {at for gate in found for at in (gate.product, *gate.chain)}
    gates = {program.readers(_last(tape, gate))[0][0]: gate for gate in found}

    def instead(at: int, node: Node, number: Callable[[], int]) -> list[Node]:
        if at not in gates:
            return [] if at in moved else [node]
        gate, factor, scaled = gates[at], number(), number()
        product, chain = tape.nodes[gate.product], [tape.nodes[k] for k in gate.chain]
        x, w = product.inputs
        *behind, last = [product._replace(inputs=(scaled, w)), *chain]
        return [
            Node("layout", (gate.factor,), factor, picked(gate.pick), node.site, None),
            Node("mul", (x, factor), scaled, np.multiply, node.site, None),
            *behind,
            last._replace(output=node.output),
        ]

    return tape.rewritten(instead)


def _last(tape: Tape, gate: Gate) -> int:
    """Return the value that is multiplied."""
    return tape.nodes[gate.chain[-1] if gate.chain else gate.product].output


def _gate(program: Program, at: int) -> Gate | None:
    """Return the factor by which all columns of a product are multiplied; None where there is none."""
    node, tape = program.tape.nodes[at], program.tape
    if node.kind != "product" or node.window or [n in program.active for n in node.inputs] != [True, False]:
        return None
    shape = program.shapes[node.output]
    reading = program.past_layouts(node.output, elements(shape))
    if reading is None or (then := tape.nodes[reading.at]).kind != "mul":
        return None
    other = then.inputs[1 - reading.slot]
    if other not in program.active or program.shapes[then.output] != np.shape(reading.labels):
        return None
    pick = _rows(reading.labels, program.shapes[other], shape)
    return None if pick is None else Gate(at, reading.layouts, other, pick)


def _rows(numbers: Array, factor: tuple[int, ...], shape: tuple[int, ...]) -> Array | None:
    """Return the element of a factor that each row of a product meets; None where columns meet different ones.

    Args:
      numbers: of the product's elements, where the factor meets them. shape: of the product.
    """
    met = np.broadcast_to(np.arange(np.prod(factor, dtype=int)).reshape(factor), numbers.shape)
    rows = (numbers.astype(np.int64) - 1) // shape[2]
    found = np.full(shape[0] * shape[1], -1)
    if (numbers <= 0).any():
        return None
    found[rows.ravel()] = met.ravel()
    if (found < 0).any() or (found[rows] != met).any():
        return None
    return found.reshape(shape[0], shape[1], 1)


class Scale(NamedTuple):
    """A factor that weights alone determine, and that a product does not sum over.

    Args:
      entry: the multiplication. value: what it multiplies. factor: the factor's value.
      behind: the last product that it may follow instead. pick: the factor's flat element for each of its results.
    """

    entry: int
    value: int
    factor: int
    behind: int
    pick: Array


def scaled_behind(program: Program) -> Tape:
    """Return the tape with such factors behind the products; the same one where there are none."""
    tape, weights = program.tape, program.weights()
    found = [scale for at in range(len(tape.nodes)) if (scale := _scale(program, at, weights)) is not None]
    renamed = dict[int, int]()  # the result of a multiplication that moves -> what it multiplied
    for scale in found:
        renamed[tape.nodes[scale.entry].output] = renamed.get(scale.value, scale.value)

    def instead(at: int, node: Node, number: Callable[[], int]) -> list[Node]:
        if node.output in renamed:
            return []
        nodes = [node._replace(inputs=tuple(renamed.get(value, value) for value in node.inputs))]
        for scale in (scale for scale in found if scale.behind == at):
            product, plain, factor = nodes.pop(), number(), number()
            nodes += [
                product._replace(output=plain),
                Node("layout", (scale.factor,), factor, picked(scale.pick), node.site, None),
                Node("mul", (plain, factor), product.output, np.multiply, node.site, None),
            ]
        return nodes

    return tape.rewritten(instead)


def _scale(program: Program, at: int, weights: Collection[int]) -> Scale | None:
    """Return the factor that this operation multiplies with, if it may stand behind a product instead."""
    node, tape = program.tape.nodes[at], program.tape
    if node.kind != "mul" or sum(number in weights for number in node.inputs) != 1:
        return None
    factor, x = sorted(node.inputs, key=lambda number: number not in weights)
    if x not in program.active or program.shapes[node.output] != program.shapes[x]:
        return None
    pick, value, found = np.broadcast_to(elements(program.shapes[factor]), program.shapes[x]), node.output, None
    while (reading := program.past_layouts(value, pick)) is not None:
        then, pick = tape.nodes[reading.at], reading.labels
        if then.kind == "product" and not then.window:
            summed = 1 if reading.slot else 2
            most = pick.max(summed, keepdims=True)
            if not ((pick == most) | (pick == 0)).all():  # 0 stands where zeros are padded
                return found
            pick = np.broadcast_to(most, program.shapes[then.output])
            every = np.maximum(pick, 1).astype(np.int64) - 1
            found = Scale(at, x, factor, reading.at, every)
        elif then.kind == "mul":
            pick = program.labelled(then, reading.slot, pick)
        else:
            return found
        value = then.output
    return found

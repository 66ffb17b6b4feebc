"""Multiply what a product reads and what it returns, where a model multiplies its matrix by factors of each example.

StyleGAN scales the kernel of a convolution by the style of each image, which then is a group of its own. Other models
scale the image and the result, and convolve all images with one kernel: then both sides meet the same values.
"""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

import numpy as np

from parity.derive.trace.products import convolution
from parity.derive.trace.program import Program
from parity.derive.trace.tape import Array, Node, Replacement, Tape, elements, picked


class Part(NamedTuple):
    """A factor of a matrix: the value's number, and its flat element at each place (group, output, input and tap)."""

    value: int
    pick: Array


class Modulated(NamedTuple):
    """A product whose matrix is the same for all groups but for factors.

    Args:
      before: factors of inputs. behind: factors of outputs.
    """

    matrix: Part
    before: list[Part]
    behind: list[Part]


def modulated(program: Program) -> Tape:
    """Return the tape with such factors outside of products, which come before norms; itself where there are none."""

    def instead(_: int, node: Node, new: Replacement) -> list[Node]:
        modulation = _modulated(program, node) if node.kind == "product" and node.inputs[1] in program.active else None
        return [node] if modulation is None else _written(program, node, modulation, new)

    tape = program.tape.rewritten(instead)
    return tape if tape is program.tape and not _scales_first(program) else _as_needed(tape)


def _scales_first(program: Program) -> bool:
    """Tell whether a matrix is scaled before it is multiplied, as for the norm that its result is divided by."""
    weights, scaled = program.weights, set[str]()
    for node in program.tape.nodes:
        names = {name for number in node.inputs for name in weights.get(number, ())}
        if node.kind == "product" and not scaled.isdisjoint(names):
            return True
        if node.kind == "mul" and any(number in program.active for number in node.inputs):
            scaled |= names
    return False


def _as_needed(tape: Tape) -> Tape:
    """Return the tape with each operation as late as possible: a matrix meets what it multiplies before its norm."""
    makers = {node.output: node for node in tape.nodes}
    nodes, done, wanted = list[Node](), set[int](), tape.outputs[::-1]
    while wanted:
        node = makers.get(wanted[-1])
        if node is None or node.output in done:
            wanted.pop()
        elif before := [n for n in node.inputs if n in makers and n not in done]:
            wanted += before[::-1]
        else:
            done.add(node.output)
            nodes.append(node)
    return replace(tape, nodes=nodes, parts={})


def _modulated(program: Program, node: Node) -> Modulated | None:
    """Return the matrix of a product and its factors; None if it has none, or others for several groups."""
    shape = program.shapes[node.inputs[1]]
    places = np.arange(np.prod(shape)).reshape(shape)
    if node.window:
        places = places.reshape(node.window.groups, shape[0] // node.window.groups, shape[1], -1)
    else:
        places = places.swapaxes(1, 2)[..., None]
    matrices, before, behind = list[Part](), list[Part](), list[Part]()
    rest = [Part(node.inputs[1], places)]
    while rest:
        value, pick = rest.pop()
        if value not in program.active and value not in program.tape.constants:
            matrices.append(Part(value, pick))
        elif (pick == pick[:, :, :1, :1]).all():
            behind.append(Part(value, pick[:, :, 0, 0]))
        elif (pick == pick[:, :1, :, :1]).all():
            before.append(Part(value, pick[:, 0, :, 0]))
        elif (operands := _operands(program, Part(value, pick))) is not None:
            rest += operands
        else:
            return None
    if len(matrices) != 1 or (matrices[0].pick != matrices[0].pick[:1]).any():
        return None
    return Modulated(matrices[0], before, behind)


def _operands(program: Program, part: Part) -> list[Part] | None:
    """Return the two factors of a value that is a product of each element, laid out otherwise or not."""
    value, moved = program.origin(part.value)
    at = program.makers.get(value)
    if at is None or (node := program.tape.nodes[at]).kind != "mul":
        return None
    shape = program.shapes[value]
    picked = moved.ravel()[part.pick].astype(np.int64) - 1
    if (picked < 0).any():  # zeros that were put between
        return None
    sizes = [program.shapes[number] for number in node.inputs]
    met = [np.broadcast_to(np.arange(np.prod(size, dtype=int)).reshape(size), shape) for size in sizes]
    return [Part(number, each.ravel()[picked]) for number, each in zip(node.inputs, met, strict=True)]


def _before_padding(program: Program, value: int, picks: list[Array]) -> tuple[int, list[Node], list[Array]]:
    """Return the value of which another one is a layout, the layouts, and the elements of factors that it meets.

    Args:
      picks: for each factor its element at each place of the value.
    """
    layouts = list[Node]()
    while (at := program.makers.get(value)) is not None:
        node = program.tape.nodes[at]
        if node.kind != "layout" or len(node.inputs) > 1:
            break
        shape = program.shapes[node.inputs[0]]
        moved = node.run(elements(shape)).astype(np.int64)
        own = [np.full(np.prod(shape, dtype=int), -1) for _ in picks]
        for each, pick in zip(own, picks, strict=True):
            each[moved[moved > 0] - 1] = pick[moved > 0]
        consistent = (((each[moved - 1] == pick) | (moved == 0)).all() for each, pick in zip(own, picks, strict=True))
        if not all(consistent) or any((each < 0).any() for each in own):
            break
        value, picks = node.inputs[0], [each.reshape(shape) for each in own]
        layouts.insert(0, node)
    return value, layouts, picks


def _written(program: Program, node: Node, modulation: Modulated, new: Replacement) -> list[Node]:
    """Return a product of all groups with one matrix, between multiplications by the factors."""
    (x, matrix), window, groups = node.inputs, node.window, len(modulation.matrix.pick)
    shape, out, kernel = (program.shapes[value] for value in (x, node.output, matrix))

    def spread(part: Part, shape: tuple[int, ...]) -> Array:
        pick = part.pick.reshape(1, -1, *[1] * (len(shape) - 2)) if window else part.pick[:, None]
        return np.broadcast_to(pick, shape)

    def scaled(value: int, parts: list[Part], picks: list[Array]) -> int:
        for part, pick in zip(parts, picks, strict=True):
            value = new.record("mul", (value, new.layout(part.value, picked(pick))), np.multiply)
        return value

    x, layouts, picks = _before_padding(program, x, [spread(part, shape) for part in modulation.before])
    x = scaled(x, modulation.before, picks)
    for layout in layouts:
        x = new.again(layout, (x,))
    pick = modulation.matrix.pick[0]
    if window:
        w = new.layout(modulation.matrix.value, picked(pick.reshape(-1, *kernel[1:])))
        x = new.layout(x, lambda a: a.reshape(-1, shape[1] // groups, *shape[2:]))
        window = window._replace(groups=1)
    else:
        w = new.layout(modulation.matrix.value, picked(pick[None, ..., 0].swapaxes(1, 2)))
        x = new.layout(x, lambda a: a.reshape(1, -1, shape[2]))
    product = node._replace(run=convolution(window) if window else node.run, window=window)
    y = new.layout(new.again(product, (x, w)), lambda a: a.reshape(out))
    scaled(y, modulation.behind, [spread(part, out) for part in modulation.behind])
    return new.nodes

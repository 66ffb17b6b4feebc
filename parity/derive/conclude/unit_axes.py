"""Tell what layouts of a run do with axes of length 1: what code picks by an index, joins, reduces or adds."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import numpy as np

from parity.derive.limits import LARGE_PIECE
from parity.derive.trace.program import Program
from parity.derive.trace.tape import Array, Node, elements, tried

RESHAPES = frozenset(["view", "unsafe_view", "reshape", "reshape_alias", "view_shape", "flatten"])
JOINS = frozenset(["cat", "concat", "concatenate", "stack"])
REDUCTIONS = frozenset(["mean", "sum", "amax", "amin", "logsumexp", "reduce_sum", "reduce_max", "reduce_min"])
TILES = frozenset(["tile", "repeat"])
EXPANSIONS = frozenset(["expand", "expand_as"])
CUTS = frozenset(["split", "split_with_sizes", "chunk", "unsafe_split", "unsafe_chunk", "split_with_num"])


def moves_alone(program: Program, node: Node, value: int) -> bool:
    """Tell whether an operation is a layout of one value, of which constants may pick elements."""
    return node.kind == "layout" and all(number in program.tape.constants for number in node.inputs if number != value)


def indexes_all(program: Program, node: Node, value: int, labels: Array) -> bool:
    """Tell whether an array of indices picks all of an axis in its order, which it may do in these models alone.

    Args:
      labels: of the elements of what the operation reads.
    """
    if len(node.inputs) < 2:
        return False
    moved, first = (
        tried(node.run, *(labels if n == value else factor * program.tape.constants[n] for n in node.inputs))
        for factor in (1, 0)
    )
    return moved is not None and np.array_equal(moved, labels) and not np.array_equal(labels, np.asarray(first))


def picks_one(program: Program, node: Node) -> bool:
    """Tell whether code picks by its index what has an axis of length 1, and joins no list of such."""
    before, after = program.shapes[node.inputs[0]], program.shapes[node.output]
    dropped = len(after) < len(before) and before[1:].count(1) > after[1:].count(1)  # of several examples or one
    if not dropped or is_reshape(node) or node.name in ("", "squeeze") or is_reduced(program, node.inputs[0]):
        return False
    reading = program.past_layouts(node.output, np.zeros(after))
    return not any(joins_one(program.tape.nodes[at]) for at in (reading.layouts if reading else ()))


def picks_each(program: Program, node: Node) -> bool:
    """Tell whether code joins places that it picks one by one, by indices on axes of which one has length 1."""
    picked = [program.before_layouts(number) for number in node.inputs]
    if len({value for value, _ in picked}) != 1 or any(is_reshape(step) for _, steps in picked for step in steps):
        return False
    whole, shapes = program.shapes[picked[0][0]], [program.shapes[number] for number in node.inputs]
    return all(whole[1:].count(1) > shape[1:].count(1) and len(whole) > len(shape) + 1 for shape in shapes)


def joins_one(node: Node) -> bool:
    """Tell whether an operation joins a list that has one value in this model."""
    return node.name in JOINS and len(node.inputs) == 1


def is_reshape(node: Node) -> bool:
    """Tell whether the model's code asks for other lengths of axes: no squeeze, whose axes have one length always."""
    return node.kind == "layout" and node.name.strip("_") in RESHAPES


def order_of_units(program: Program, value: int, step: int) -> tuple[int, ...]:
    """Return which axes of a convolution's result those of length 1 with a step are; () where a value is not such.

    Functions of each element, and layouts that permute axes or join these, may stand between both.
    """
    axes = _ones(program.shapes[value], step)
    while (node := program.maker(value)) is not None and node.window is None:
        made = [number for number in node.inputs if number in program.active]
        if len(made) != 1 or node.kind == "product":
            return ()
        before, after = program.shapes[made[0]], program.shapes[value]
        if is_reshape(node):
            axes = _ones(before, math.prod(after[axes[0] + 1 :])) if axes else []
        elif node.kind == "layout":
            moved = [tried(node.run, np.zeros(doubled(before, axis))) for axis in range(len(before))]
            shapes = [None if new is None else new.shape for new in moved]
            axes = [shapes.index(new) for new in (doubled(after, axis) for axis in axes) if new in shapes]
        elif len(before) != len(after):
            return ()
        (value,) = made
    return () if node is None else tuple(axes)


def _ones(shape: Sequence[int], step: int) -> list[int]:
    """Return the axes of length 1 of which one step would pass so many elements."""
    return [axis for axis, n in enumerate(shape) if n == 1 and math.prod(shape[axis + 1 :]) == step]


def doubled(shape: Sequence[int], axis: int) -> tuple[int, ...]:
    """Return a shape with an axis of twice its length."""
    return (*shape[:axis], 2 * shape[axis], *shape[axis + 1 :])


def drops_axis(program: Program, node: Node) -> bool:
    """Tell whether an operation squeezes what it reads."""
    before, after = program.shapes[node.inputs[0]], program.shapes[node.output]
    return node.kind == "layout" and not is_reshape(node) and len(after) < len(before)


def is_added(program: Program, value: int) -> bool:
    """Tell whether layouts add axes of length 1 to make a value, as for a stack or a repeat."""
    for node in reversed(program.before_layouts(value)[1]):
        before, after = program.shapes[node.inputs[0]], program.shapes[node.output]
        if before != after:
            return len(before) < len(after)
    return False


def is_batch(program: Program, value: int) -> bool:
    """Tell whether products of two activations alone read a value: its first axis joins all others of the batch."""
    readers = program.reading(value)
    return bool(readers) and all(node.kind == "product" and program.active.issuperset(node.inputs) for node in readers)


def is_reduced(program: Program, value: int) -> bool:
    """Tell whether a value's axes of length 1 are what a reduction leaves of axes, or an operation for it adds."""
    while (node := program.maker(value)) is not None:
        made = [number for number in node.inputs if number in program.active]
        if node.kind == "other" and node.name.strip("_") in REDUCTIONS:
            return any(len(program.shapes[number]) == len(program.shapes[value]) for number in made)
        if len(made) != 1 or node.kind == "product":
            return False
        before, after = program.shapes[made[0]], program.shapes[value]
        if node.kind == "layout":
            if after.count(1) > before.count(1) and not is_reshape(node):
                maker = program.maker(made[0])  # of a product, the layout gives its operands' own axes back
                return not joins_one(node) and (maker is None or maker.kind != "product")
        elif before != after:
            return False
        value = made[0]
    return False


def spread(program: Program, value: int) -> Iterator[tuple[int, str]]:
    """Yield (how often, where) of each axis of length 1 that code repeats and then joins with the repeats.

    It stands "outside" of them or "inside", as where they are tiled; "" where code picks each repeat by its index.
    """
    layouts = list[tuple[Node, int]]()
    while (node := program.maker(value)) is not None:
        made = [number for number in node.inputs if number in program.active]
        if len(made) != 1 or not moves_alone(program, node, made[0]):
            break
        (value,) = made
        layouts.insert(0, (node, value))
    places = elements(program.shapes[value])
    for node, number in layouts:
        moved = program.laid_out(node, {number: places})
        if moved is None or moved.size > LARGE_PIECE:
            return
        before, after = places.shape, moved.shape
        if is_reshape(node) and len(after) < len(before):
            for axis, n in enumerate(before[1:], 1):
                if n > 1 and (places == places.take([0], axis)).all():
                    beside = {"outside": axis - 1, "inside": axis + 1}
                    yield from ((n, where) for where, at in beside.items() if before[at : at + 1] == (1,) and at)
        elif len(after) == len(before) and node.name not in EXPANSIONS:
            where = "inside" if node.name in TILES else ""
            yield from ((n, where) for n, one in zip(after[1:], before[1:], strict=True) if one == 1 < n)
        places = moved


def axis_of(node: Node) -> int:
    """Return the axis along which an operation joins or cuts, by its settings."""
    settings = node.call.settings if node.call else {}
    return next((settings[key] for key in ("dim", "axis", "dimension") if key in settings), 0)

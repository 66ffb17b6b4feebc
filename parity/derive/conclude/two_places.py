"""Find lines that reverse an axis of two places, where a reversal, a roll and any other exchange are the same."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from parity.derive.fold.equal_parts import indices
from parity.derive.fold.part_roles import labels_before
from parity.derive.fold.rows import DerivedTable
from parity.derive.fold.sources import first_met
from parity.derive.trace.program import Program
from parity.derive.trace.tape import Array, Node
from specs.notation.lines import Line
from specs.notation.paths import match

FLIPS = frozenset(["flip", "rev"])


def two_places(table: DerivedTable, programs: Sequence[Program]) -> list[str]:
    """List the right parameters of which a line reverses an axis of two places that neither model's code reverses.

    A line that states the number of places speaks of parts that code uses in different ways.
    """
    found = dict[str, None]()
    for line in (line for line in table.lines if line.kind == "move"):
        letters = {part.name for array in line.arrays for part in array.parts() if part.backwards and not part.length}
        for letter in letters:
            axes = list(_axes(table, line, letter))
            whole = (shape[axis] for _, _, shape, axis, alone in axes if alone)
            if next(whole, table.sizes.get(letter)) == 2 and not any(
                _is_reversed(programs[side], name, axis) for side, name, _, axis, _ in axes
            ):
                paths = [array.path for array in line.right.arrays]
                found.update((name, None) for name in table.like if any(match(path, name) for path in paths))
    return list(found)


def _axes(table: DerivedTable, line: Line, letter: str) -> Iterator[tuple[int, str, tuple[int, ...], int, bool]]:
    """Yield (side, name, shape, axis, whether it is all of it) of each axis of which a letter of a line is a piece.

    Of blocks that of the first one.
    """
    for side, (arrays, shapes) in enumerate(((line.left, table.known), (line.right, table.like))):
        for array in arrays.arrays:
            name = next((name for name in shapes if match(array.path, name)), "")
            for axis, dim in enumerate(array.axes or () if name else ()):
                if letter in {part.name for factor in dim.factors for part in factor}:
                    yield side, name, shapes[name], axis, len(dim.factors) == len(dim.factors[0]) == 1


def _is_reversed(program: Program, name: str, axis: int) -> bool:
    """Tell whether code reverses an axis of a parameter, or what it meets, or whether it is the taps of a kernel."""
    found, value = indices(program, name, axis), program.tape.parameters.get(name)
    if found is None or value is None:
        return False
    if _is_taps(program, value, found.labels[value]):  # a transposed convolution reads them the other way round
        return True
    if any(_flips(program, node, found.labels.get(node.inputs[0])) for node in found.passed()):
        return True
    met = first_met(program, name, axis)
    return met is not None and not met.own and _is_made_by_flips(program, met.value, met.places)


def _is_taps(program: Program, value: int, labels: Array) -> bool:
    """Tell whether labels of a kernel differ along its taps, behind layouts."""
    for at, slot in program.readers(value):
        node = program.tape.nodes[at]
        if node.kind == "layout" and len(node.inputs) == 1 and _is_taps(program, node.output, node.run(labels)):
            return True
        if node.window and slot == 1 and (labels != labels[(..., *[slice(1)] * (labels.ndim - 2))]).any():
            return True
    return False


def _is_made_by_flips(program: Program, value: int, labels: Array) -> bool:
    """Tell whether a value with labels is made by a layout that reverses them, before functions of each element."""
    while (node := program.maker(value)) is not None and node.kind != "product":
        made = [number for number in node.inputs if number in program.active]
        before = labels_before(program, value, made[0], labels) if len(made) == 1 else None
        if before is None:
            return False
        if _flips(program, node, before):
            return True
        value, labels = made[0], before
    return False


def _flips(program: Program, node: Node, labels: Array | None) -> bool:
    """Tell whether an operation reverses the labels of its operand."""
    if labels is None or node.kind != "layout" or node.name.strip("_") not in FLIPS:
        return False
    moved = program.laid_out(node, {node.inputs[0]: labels})
    return moved is not None and not np.array_equal(moved, labels)

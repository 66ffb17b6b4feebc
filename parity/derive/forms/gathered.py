"""Multiply rows by the matrices of all experts and choose results, where a model gathers the matrices of each row.

Other models compute all experts on all rows, and choose or weight the results: then both sides meet the same values.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from parity.derive.trace.program import Program
from parity.derive.trace.tape import Array, Node, Replacement, Tape

ELEMENTWISE = ("add", "mul", "other")  # kinds of operations that may compute each element from those at its place


class Weights(NamedTuple):
    """Matrices, or biases, that are gathered from those of all experts, laid out otherwise or not.

    Args:
      source: the value that has them all, expert by expert. which: the value of their experts' numbers.
      labels: for each element its position in the indices times the size of an expert, plus its number in that.
    """

    source: int
    which: int
    labels: Array


class Chosen(NamedTuple):
    """A value that is chosen from the results of all experts, full[e, n, c].

    Args:
      which: the value of the experts' numbers e.
      places: for each element its position in the indices, its row n and its column c: (3, ...).
    """

    full: int
    which: int
    places: Array


class Forms(NamedTuple):
    """What is known of the values of a program: gathered matrices, and chosen results."""

    program: Program
    weights: dict[int, Weights]
    chosen: dict[int, Chosen]
    shapes: dict[int, tuple[int, ...]]  # of results of all experts


def gathered(program: Program) -> Tape:
    """Return the tape with results of all experts, some of which are chosen; the same one where there are none."""
    forms = Forms(program, {}, {}, {})
    parameters = program.weights

    def instead(at: int, node: Node, new: Replacement) -> list[Node]:
        if node.kind == "layout" and node.inputs[0] in parameters and len(node.inputs) == 2:
            _note(forms, node)
        elif node.kind == "layout" and len(node.inputs) == 1 and node.inputs[0] in forms.weights:
            rows = forms.weights[node.inputs[0]]
            forms.weights[node.output] = rows._replace(labels=node.run(rows.labels + 1) - 1)
        elif node.kind == "product" and not node.window:
            return _multiplied(forms, node, new) or [node]
        elif any(value in forms.chosen for value in node.inputs):
            return _followed(forms, node, new) or [node]
        return [node]

    return program.tape.rewritten(instead)


def _note(forms: Forms, node: Node) -> None:
    """Note what gathers matrices or biases of experts by their numbers."""
    source, index = node.inputs
    shape, numbers = forms.program.shapes[source], forms.program.indices.get(index)
    if numbers is None or index not in forms.program.active or len(shape) < 2:
        return
    each = np.arange(np.prod(shape)).reshape(shape)
    read = node.run(each, numbers)
    size = each[0].size
    if read.size == numbers.size * size and np.array_equal(read.ravel(), each[numbers.ravel()].ravel()):
        # each reading may count negative numbers from the end
        seen = (weight.which for weight in forms.weights.values())
        which = next(
            (one for one in seen if np.array_equal(forms.program.indices[one].ravel(), numbers.ravel())), index
        )
        forms.weights[node.output] = Weights(source, which, np.arange(read.size).reshape(read.shape))


def _multiplied(forms: Forms, node: Node, new: Replacement) -> list[Node]:
    """Return the product with all experts, and what chooses its results; nothing if it is no such product."""
    slot = 1 if node.inputs[1] in forms.weights else 0
    if (weight := forms.weights.get(node.inputs[slot])) is None:
        return []
    experts, *each = forms.program.shapes[weight.source]
    columns = _columns(weight.labels if slot else weight.labels.swapaxes(1, 2), int(np.prod(each)))
    rows = columns and _rows(forms, node.inputs[1 - slot], slot, weight.which, columns)
    if not columns or not rows:
        return []
    matrices = new.layout(weight.source, _side_by_side(columns.matrix, rows.shared))
    product = new.again(node, (new.layout(rows.value, rows.layout), matrices))
    full = new.layout(product, _split_by_expert(experts, rows.shared))
    places = np.stack(np.broadcast_arrays(columns.at, rows.numbers[:, :, None], columns.column[:, None]))
    forms.shapes[full] = (experts, rows.n, columns.matrix.shape[1])
    return _choice(forms, Chosen(full, weight.which, places if slot else places.swapaxes(2, 3)), node, new)


class Columns(NamedTuple):
    """The columns of gathered matrices (b, k, o).

    Args:
      at: the position of their expert in the indices, (b, 1, o). column: which of its columns they are, (b, o).
      matrix: the elements of an expert, (k, c).
    """

    at: Array
    column: Array
    matrix: Array


def _columns(labels: Array, size: int) -> Columns | None:
    """Return the columns of gathered matrices; None where a column has elements of several of them."""
    at, inner = labels // size, labels % size
    firsts, column = np.unique(inner[:, 0], return_inverse=True)
    column = column.reshape(inner[:, 0].shape)
    matrix = np.zeros((inner.shape[1], len(firsts)), int)
    matrix[:, column] = inner.swapaxes(0, 1)
    if (at != at[:, :1]).any() or (matrix[:, column] != inner.swapaxes(0, 1)).any():
        return None
    return Columns(at[:, :1], column, matrix)


class Inputs(NamedTuple):
    """The rows that meet gathered matrices.

    Args:
      value: of which they are a layout: (1, n, k) if `shared` by all experts, else (e, n, k).
      numbers: which of the n rows meets them, (b, rows). n: how many there are.
    """

    value: int
    layout: Callable[[Array], Array]
    shared: bool
    numbers: Array
    n: int


def _rows(forms: Forms, x: int, slot: int, index: int, columns: Columns) -> Inputs | None:
    """Return the rows of the other operand; None where they are chosen from results of other experts."""
    known, shape = forms.chosen.get(x), forms.program.shapes[x]
    if known is None:
        b, rows, k = shape if slot else (shape[0], shape[2], shape[1])
        numbers = np.arange(b * rows).reshape(b, rows)
        return Inputs(x, lambda v: (v if slot else v.swapaxes(1, 2)).reshape(1, -1, k), True, numbers, b * rows)
    at, row, own = known.places if slot else known.places.swapaxes(2, 3)
    whole = (at == at[..., :1]).all() and (row == row[..., :1]).all() and (own == own[:1, :1]).all()
    if known.which != index or not whole or (at[..., :1] != columns.at).any():
        return None
    return Inputs(known.full, lambda v: v[:, :, own[0, 0]], False, row[..., 0], forms.shapes[known.full][1])


def _side_by_side(matrix: Array, shared: bool) -> Callable[[Array], Array]:
    """Return what lays matrices out as (e, k, c), or side by side as (1, k, e c)."""

    def run(w: Array) -> Array:
        each = w.reshape(len(w), -1)[:, matrix]
        return each.swapaxes(0, 1).reshape(1, len(matrix), -1) if shared else each

    return run


def _split_by_expert(experts: int, shared: bool) -> Callable[[Array], Array]:
    """Return what lays results out as (e, n, c)."""
    return lambda y: y.reshape(y.shape[1], experts, -1).swapaxes(0, 1) if shared else y


def _choice(forms: Forms, chosen: Chosen, node: Node, new: Replacement) -> list[Node]:
    """Choose results in place of an operation, note it, and return all that stands in its place."""
    forms.chosen[node.output] = chosen
    place, row, column = chosen.places

    def run(full: Array, index: Array) -> Array:
        return full[np.reshape(index, -1)[place], row, column]

    new.record("layout", (chosen.full, chosen.which), run)
    return new.nodes


def _followed(forms: Forms, node: Node, new: Replacement) -> list[Node]:
    """Return an operation on the results of all experts, and what chooses them; nothing where it joins elements."""
    known = [forms.chosen[value] for value in node.inputs if value in forms.chosen]
    first = known[0]
    if node.kind == "layout" and len(node.inputs) == 1:
        places = np.stack([node.run(part + 1) - 1 for part in first.places])
        return [] if (places < 0).any() else _choice(forms, first._replace(places=places), node, new)
    alike = all(chosen.which == first.which and np.array_equal(chosen.places, first.places) for chosen in known)
    if node.kind not in ELEMENTWISE or not alike or not _elementwise(forms, node):
        return []
    operands = list[int]()
    for value in node.inputs:
        if value in forms.chosen:
            operands.append(forms.chosen[value].full)
        elif np.prod(forms.program.shapes.get(value, (2,))) == 1:
            operands.append(value)
        elif (columns := _of_columns(forms, value, first)) is not None:
            operands.append(new.layout(forms.weights[value].source, _row_by_expert(columns)))
        else:
            return []
    full = new.again(node, tuple(operands))
    forms.shapes[full] = forms.shapes[first.full]
    return _choice(forms, first._replace(full=full), node, new)


def _of_columns(forms: Forms, value: int, chosen: Chosen) -> Array | None:
    """Return the element of an expert's bias that meets each column of chosen results; None where these are no such."""
    weight, (at, _, column) = forms.weights.get(value), chosen.places
    if weight is None or weight.which != chosen.which or weight.labels.shape != at.shape:
        return None
    size = math.prod(forms.program.shapes[weight.source][1:])
    columns = np.full(forms.shapes[chosen.full][2], -1)
    columns[column] = weight.labels % size
    alike = (columns >= 0).all() and (columns[column] == weight.labels % size).all()
    return columns if alike and (weight.labels // size == at).all() else None


def _row_by_expert(columns: Array) -> Callable[[Array], Array]:
    """Return what lays biases out as (e, 1, c)."""
    return lambda b: b.reshape(len(b), 1, -1)[:, :, columns]


def _elementwise(forms: Forms, node: Node) -> bool:
    """Tell whether each element of a result depends on those at its place alone, in arrays of any shape."""
    rng = np.random.default_rng(0)
    size = int(np.prod(forms.program.shapes[node.output]))
    many = {*forms.chosen, *forms.weights}
    values = [rng.standard_normal(size if value in many else 1) for value in node.inputs]
    few = [value[:2] for value in values]
    try:
        return all(np.allclose(node.run(*few)[:1], node.run(*(v[:n] for v in values))[:1]) for n in (1, size))
    except Exception:  # it states a shape
        return False

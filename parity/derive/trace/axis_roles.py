"""Tell from a run how an array's axis is used: as parts that the code takes apart, or as heads of attention."""

from __future__ import annotations

from collections.abc import Iterator, Set
from typing import NamedTuple

import numpy as np

from parity.derive.limits import LARGE_ORIGINS

from .program import Program
from .tape import Array, Node, along, elements

Labels = tuple[object, ...]  # one for each index of an axis


class AxisRoles(NamedTuple):
    """What is known of each index of an axis; () where nothing is.

    Args:
      readers: the operations that read its values first, as queries, keys and values are read by products of their own.
      heads: its place among the products of a batch, as attention computes each head by itself, or the operations of
        a loop that does so.
    """

    readers: Labels = ()
    heads: Labels = ()


def axis_roles(program: Program, name: str, axis: int) -> AxisRoles:
    """Return the roles of one axis of a parameter: of what a layer returns, or of what it reads."""
    value = program.tape.parameters.get(name)
    shape = program.shapes.get(-1 if value is None else value, ())
    if value is None or np.prod(shape, dtype=int) > LARGE_ORIGINS:
        return AxisRoles()
    places = along(elements([shape[axis]]), axis, len(shape))
    reads = list(_reads(program, value, np.broadcast_to(places, shape)))
    if len(reads) == 1 and reads[0].own:
        return AxisRoles(heads=_from_heads(program, reads[0], shape[axis]))
    if not reads or any(read.own for read in reads):
        return AxisRoles()
    met = [set(np.unique(read.places)) for read in reads]
    readers = tuple(frozenset(k for k, some in enumerate(met) if n in some) for n in range(1, shape[axis] + 1))
    if _are_alike(program, reads, set(readers)):
        return AxisRoles(heads=readers)
    return AxisRoles(readers, _in_batch(program, reads, shape[axis]))


def is_summed(program: Program, name: str) -> bool:
    """Tell whether sums alone read a parameter, as a table of positions, and no product."""
    waiting = [program.tape.parameters.get(name, -1)]
    for value in waiting:
        nodes = [program.tape.nodes[at] for at, _ in program.readers(value)]
        waiting += [node.output for node in nodes if node.kind == "layout"]
        if any(node.kind not in ("layout", "add") for node in nodes):
            return False
    return True


def _are_alike(program: Program, reads: list[_Read], parts: Set[frozenset[int]]) -> bool:
    """Tell whether all parts of an axis are used alike, as heads of which each is a step of a loop.

    Args:
      parts: which of its uses read each part.
    """
    used = {tuple(sorted(program.fates[reads[k].at][reads[k].slot] for k in part)) for part in parts}
    return len(used) == 1 < len(parts)


class _Read(NamedTuple):
    """A use of an axis: an operation, which of its operands, and the index of the axis at each of its elements.

    Args:
      at: the operation's place on the tape.
      own: whether it is a product with the parameter itself that sums over the axis.
    """

    at: int
    node: Node
    slot: int
    places: Array
    own: bool = False


def _reads(program: Program, value: int, places: Array) -> Iterator[_Read]:
    """Yield the operations that read an axis, behind layouts, sums with parameters and the parameter's own product."""
    for at, slot in program.readers(value):
        node, is_weight = program.tape.nodes[at], value not in program.active
        others = [number for k, number in enumerate(node.inputs) if k != slot]
        passes = node.kind in ("add", "mul") and (is_weight or not program.active.intersection(others))
        if passes or (node.kind == "layout" and not others):
            yield from _reads(program, node.output, program.labelled(node, slot, places))
        elif node.kind == "product" and not node.window and slot == 1 and is_weight:
            if (places == places[:, :1]).all():
                yield from _reads(program, node.output, np.broadcast_to(places[:, :1], program.shapes[node.output]))
            else:
                yield _Read(at, node, slot, places, own=True)
        else:
            yield _Read(at, node, slot, places)


def _in_batch(program: Program, reads: list[_Read], count: int) -> Labels:
    """Return the first place among the products of a batch at which each index is read."""
    labels: list[object] = [None] * count
    for read in reads:
        if read.node.kind != "product" or read.node.window or not program.active.issuperset(read.node.inputs):
            return ()
        for batch, places in enumerate(read.places):
            for n in np.unique(places):
                if labels[int(n) - 1] is None:
                    labels[int(n) - 1] = batch
    return () if None in labels else tuple(labels)


def _from_heads(program: Program, read: _Read, count: int) -> Labels:
    """Return the product of a batch that computes each element that the first row reads."""
    if not (read.places == read.places[:1, :, :1]).all():
        return ()
    heads = heads_read(program, read.node)
    if not heads:
        return ()
    order = read.places[0, :, 0].astype(int) - 1  # of the axis at each element of a row
    labels: list[object] = [None] * count
    for index, head in zip(order, heads, strict=True):
        labels[index] = head
    return tuple(labels)


def heads_read(program: Program, node: Node) -> Labels:
    """Return for each element of the first row that a product reads which product of a batch computed it; see heads.

    Args:
      node: a product with a parameter. () where it does not read what a batch of products gives.
    """
    rows = _rows_read(program, node)
    return tuple(map(float, rows[0][0])) if rows else ()


class Attention(NamedTuple):
    """What a product reads of attention in one row.

    Args:
      heads: how many. products: of which products of a batch: heads that share keys may be rows of one.
      values: the operand of this batch that has the values of attention.
    """

    heads: int
    products: tuple[int, ...]
    values: int


def attention(program: Program, node: Node) -> Attention | None:
    """Return what a product with a parameter reads of attention in one row; None where it reads none.

    What a row reads of one head has one place in a product of the batch, and that is another one in another row.
    """
    rows = _rows_read(program, node)
    if not rows:
        return None
    batch, *places = rows
    apart = [k for k, each in enumerate(places) if any(set(each[0]).isdisjoint(other) for other in each[1:])]
    if len(apart) != 1:
        return None
    value, _ = program.before_layouts(next(n for n in node.inputs if n in program.active))
    maker = program.tape.nodes[program.makers[value]]
    heads = len(set(zip(batch[0], places[apart[0]][0], strict=True)))
    return Attention(heads, tuple(sorted(set(batch[0].astype(int)))), maker.inputs[1 - apart[0]])


def _rows_read(program: Program, node: Node) -> list[Array]:
    """Return where a batch of products computed what a product reads, as (row, element) each.

    These are the product of the batch, and the row and the column of its result; [] where there is no such batch.
    """
    slots = [slot for slot, number in enumerate(node.inputs) if number in program.active]
    if node.kind != "product" or node.window or len(slots) != 1:
        return []
    value, layouts = program.before_layouts(node.inputs[slots[0]])
    at = program.makers.get(value)
    if (
        at is None
        or (maker := program.tape.nodes[at]).kind != "product"
        or maker.window
        or not program.active.issuperset(maker.inputs)
    ):
        return []
    every = []
    for axis in np.indices(program.shapes[value], float):
        for layout in layouts:
            axis = layout.run(axis)
        every.append(axis[0].T if slots[0] else axis[0])
    return every


def follows(labels: Labels, length: int, inner: int) -> bool:
    """Tell whether labels tell each step of a piece of an axis, and nothing else.

    Args:
      length: of the piece. inner: how many indices one step of it passes.
    """
    met = dict[int, set[object]]()
    for index, label in enumerate(labels):
        met.setdefault(index // inner % length, set()).add(label)
    every = [label for some in met.values() for label in some]
    return bool(labels) and all(len(some) == 1 for some in met.values()) and len(set(every)) == len(every) == length

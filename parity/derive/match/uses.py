"""List the uses of parameters on the left side, with what identifies each of them, computed once."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import replace
from functools import cached_property
from typing import NamedTuple

import numpy as np

from parity.derive.limits import LARGE_USE
from parity.derive.trace.products import Window
from parity.derive.trace.program import Program
from parity.derive.trace.tape import Array

from . import columns, roles
from .stepped import stepped
from .symbols import Elements, Symbol, Use

MOST = 64  # positions of an axis up to which each is compared for itself
PLAIN, GATES = roles.Depth(), roles.Depth(gates=True)  # how far columns are followed
BEYOND, SUMMED = roles.Depth(beyond=True), roles.Depth(summed=True)
PARTIAL = 1e-6  # distance of columns of which one side has some rows alone


class Seen:
    """A use on the left, with its columns and groups computed once."""

    def __init__(self, use: Use, program: Program, elements: Elements):
        self.use, self.program = compact(use), program
        self.names = tuple(elements.owners(self.use.ids))
        self.pairs = bare(use)
        if (
            use.kind in ("add", "mul") and use.x.size > LARGE_USE
        ):  # bounds memory: its statistics are all that is needed
            symbol = Symbol(self.numbers, use.symbol.value, use.symbol.plain)
            self.use = use._replace(x=np.zeros(0), symbol=symbol, bare=None)

    @property
    def window(self) -> Window | None:
        return self.program.tape.nodes[self.use.node].window

    @cached_property
    def image(self) -> Array:
        """Return statistics of what a convolution reads, whatever its padding."""
        return columns.of_image(self.use.x)

    @cached_property
    def statistics(self) -> Array:
        return self._both[1]

    @cached_property
    def rows(self) -> int:
        return rows(self.use, self.program)

    def beside(self, count: int) -> Array:
        """Return the statistics of the columns, scaled as in a product of `count` rows that reads these and others."""
        return columns.counted_as(self.statistics, self.rows, count)

    @cached_property
    def _ordered(self) -> tuple[Array, float]:
        """Return the statistics, each sorted, and their scale."""
        return np.sort(self.statistics, axis=0), columns.size_of(self.statistics)

    @cached_property
    def numbers(self) -> Array:
        return self._both[0]

    @cached_property
    def _both(self) -> tuple[Array, Array]:
        return statistics(self.use, self.program)

    def groups(self, depth: roles.Depth = PLAIN) -> list[roles.Group]:
        """Group the columns; see groups."""
        return groups(self.use, self.program, depth)

    @cached_property
    def values(self) -> columns.Values:
        return columns.Values(raw(self.use))

    @cached_property
    def pattern(self) -> Array:
        return pattern(self.use.ids)

    @cached_property
    def shares(self) -> Array:
        return shares(self.use.ids)


def bare(use: Use) -> tuple[Array, Array]:
    """Return (elements of parameters, those that a term of a sum adds to each)."""
    if use.bare is None or np.shape(use.bare) != np.shape(use.ids):
        return np.zeros(0, np.int64), np.zeros(0, np.int64)
    there = (np.asarray(use.bare) > 0) & (np.asarray(use.ids) > 0)
    pairs = np.unique(np.stack([np.asarray(use.bare)[there], np.asarray(use.ids)[there]]).astype(np.int64), axis=1)
    return pairs[0], pairs[1]


def distances(found: Array, pool: Iterable[Seen]) -> dict[Seen, float]:
    """Tell how far statistics of columns are from those of each use that has as many."""
    ordered, scale = np.sort(found, axis=0), columns.size_of(found)
    return {seen: columns.between(ordered, seen._ordered[0], max(scale, seen._ordered[1])) for seen in pool}


def together(pool: Sequence[Seen]) -> tuple[Array, Array]:
    """Return the elements of several uses, and the statistics of what they meet."""
    return np.concatenate([seen.numbers for seen in pool]), np.concatenate([seen.statistics for seen in pool])


def compact(use: Use) -> Use:
    """Return a use that is to be stored: a large one without the numbers of all its elements, which bounds memory."""
    if use.kind not in ("product", "place") or use.ids.size <= LARGE_USE:
        return use
    return use._replace(symbol=Symbol(stepped(use.ids), _dropped, use.symbol.plain))


def _dropped() -> Array:
    raise AssertionError("the value of a use that is stored")


class Apart(Seen):
    """The elements of a product one by one: what each meets is what a factor of a sum of products meets."""

    def __init__(self, product: Seen):
        self.use, self.program, self.names = product.use._replace(kind="mul"), product.program, product.names
        self._product = product

    @cached_property
    def _both(self) -> tuple[Array, Array]:
        return each(self.use, self._product.statistics)


def items(use: Use) -> list[Use]:
    """Return the products of a batch of matrices as one product for each matrix."""
    return [
        use._replace(x=use.x[k : k + 1], symbol=replace(use.symbol, ids=use.ids[k : k + 1], leaves=(), parts=()))
        for k in range(len(use.ids))
    ]


def slices(use: Use) -> list[list[Use]]:
    """Return for each axis the use as one for each position of that axis, as tokens are read by steps of time."""
    ids, found = np.asarray(use.ids), list[list[Use]]()
    for axis in range(ids.ndim if 1 < ids.size <= LARGE_USE else 0):
        parts = list(np.moveaxis(ids, axis, 0))
        if 1 < len(parts) <= MOST:
            found.append([use._replace(symbol=replace(use.symbol, ids=p, leaves=(), parts=())) for p in parts])
    return found


def each(use: Use, found: Array) -> tuple[Array, Array]:
    """Return (numbers, statistics of what each meets) of the elements of a product, from those of its columns."""
    ids = np.ravel(use.ids)
    numbers, first = np.unique(ids, return_index=True)
    there = first[numbers > 0]
    return ids[there].astype(np.int64), found[there // use.ids.shape[2]]


def rows(use: Use, program: Program) -> int:
    """Return how many rows the statistics of a product's columns count; 0 of a convolution, which counts them all."""
    node = program.tape.nodes[use.node]
    if program.patches(node):
        return 0
    x = _in_rows(use.x, node.window)
    return x.shape[1] if program.padded(node.inputs[0]) else columns.rows_of(x)


def statistics(use: Use, program: Program) -> tuple[Array, Array]:
    """Return (numbers, statistics): of a product's columns, numbered in order; else of the elements."""
    if use.kind != "product":
        return columns.of_elements(use.x, use.ids)
    node = program.tape.nodes[use.node]
    if window := program.patches(node):
        found = columns.of_product(use.x, window, program.shapes[node.inputs[1]][2:])
    else:
        found = columns.of_product(_in_rows(use.x, node.window), None, padded=program.padded(node.inputs[0]))
    return np.arange(len(found)), found


def _in_rows(x: Array, window: Window | None) -> Array:
    """Return what a product reads as x[b, rows, k], also of a convolution that multiplies each position by itself."""
    if window is None:
        return x
    grouped = x.reshape(len(x), window.groups, x.shape[1] // window.groups, -1)
    return grouped.transpose(1, 0, 3, 2).reshape(window.groups, -1, grouped.shape[2])


def raw(use: Use) -> Array:
    """Return the columns (b k, rows) of a product, or the values (element, row) that each element meets; or empty.

    Empty, too, for the elements of a product taken one by one, which meet columns of it.
    """
    if use.kind == "product":
        return use.x.swapaxes(1, 2).reshape(-1, use.x.shape[1])
    if not use.x.size or use.x.size > LARGE_USE or use.x.shape != use.ids.shape:
        return np.zeros((0, 1))
    ids = np.ravel(use.ids)
    count = len(np.unique(ids))
    order = np.argsort(ids, kind="stable")
    if ids.size % count or (ids[order].reshape(count, -1) != ids[order].reshape(count, -1)[:, :1]).any():
        return np.zeros((0, 1))
    return np.ravel(use.x)[order].reshape(count, -1)


def groups(use: Use, program: Program, depth: roles.Depth = PLAIN) -> list[roles.Group]:
    """Group the columns of a product by what its result is for, once for each way in which they are followed.

    Args:
      depth: those of a convolution alone are followed through sums with another activation only if it says so.
    """
    count, node = use.ids.shape[2], program.tape.nodes[use.node]
    single = len(use.ids) == 1 and count == program.shapes[node.output][1 if node.window or use.flipped else 2]
    if not single:
        return [roles.Group("batch", np.arange(count), np.arange(count)[:, None])]
    return program.once(roles.groups, use.node, use.flipped, depth._replace(gates=depth.gates or not node.window))


class Grouping(NamedTuple):
    """The groups of columns of a product on the right.

    Args:
      depth: how far these were followed, and those of left products are.
    """

    groups: list[roles.Group]
    depth: roles.Depth = PLAIN

    def of(self, seen: Seen) -> list[roles.Group]:
        """Return the groups of a use on the left, whose columns were followed as far."""
        return seen.groups(self.depth)


def grouped(use: Use, program: Program, near: Collection[Seen]) -> Grouping:
    """Group the columns of a product on the right.

    If no partner has as many columns, those of convolutions are grouped by what their sum with others is for. If
    columns come apart only behind an activation function, on one side or alike on both, they are grouped by what reads
    them there; and if they do only by what they are summed over with, by the products that make this.

    Args:
      near: its possible partners.
    """
    own = groups(use, program)
    wanted = {len(group.columns) for group in own}
    if not near:
        return Grouping(own)
    if wanted <= _widths(near):
        may_part = any(group.role.startswith(roles.FUNCTION) and len(group.columns) > 1 for group in own)
        finer = groups(use, program, BEYOND) if may_part else own
        if len(finer) > len(own) and any(roles.same_group_sizes(finer, seen.groups(BEYOND)) for seen in near):
            return Grouping(finer, BEYOND)
        if _have_partners(own, near, PLAIN):
            return Grouping(own)
        finer = groups(use, program, SUMMED)
        return Grouping(finer, SUMMED) if _have_partners(finer, near, SUMMED) else Grouping(own)
    if program.tape.nodes[use.node].window and len(own) == 1:
        return Grouping(groups(use, program, GATES))
    if wanted <= _widths(near, GATES):
        return Grouping(own, GATES)
    for depth in (BEYOND, SUMMED):
        finer = groups(use, program, depth)
        if {len(group.columns) for group in finer} <= _widths(near, depth):
            return Grouping(finer, depth)
    return Grouping(own)


def _widths(near: Iterable[Seen], depth: roles.Depth = PLAIN) -> set[int]:
    """Return how many columns the groups of left products have."""
    return {len(group.columns) for seen in near for group in seen.groups(depth)}


def _have_partners(groups: Iterable[roles.Group], near: Iterable[Seen], depth: roles.Depth) -> bool:
    """Tell whether left products have a group of as many columns, for the same, for each of these."""
    every = [other for seen in near for other in seen.groups(depth)]
    return all(any(roles.alike(group, other) for other in every) for group in groups)


def pattern(ids: Array) -> Array:
    """Return each element replaced by its rank of first appearance: alike for equal repetitions."""
    flat = np.ravel(ids)
    _, first, inverse = np.unique(flat, return_index=True, return_inverse=True)
    rank = np.empty(len(first), np.int64)
    rank[np.argsort(first)] = np.arange(len(first))
    return rank[inverse.ravel()]


def shares(ids: Array) -> Array:
    """Tell how often each element is read, in the order of the elements, as a part of all."""
    return np.unique(ids, return_counts=True)[1] / ids.size


def distinct_of(ids: Array) -> Array:
    """Return the distinct elements."""
    numbers = np.unique(np.asarray(ids)).astype(np.int64)
    return numbers[numbers > 0]


def first_of(ids: Array, pattern: Array) -> Array:
    """Return the distinct elements in order of appearance."""
    return np.ravel(ids)[np.unique(pattern, return_index=True)[1]]


def longer(one: Use, other: Use) -> bool:
    """Tell whether a use reads several times as many rows as another one, and not too many to look them up."""
    rows, few = one.x.shape[1], other.x.shape[1]
    return one.x.size <= LARGE_USE and rows > few and rows % few == 0


def in_steps(one: Use, other: Use) -> bool:
    """Tell whether one of two uses reads several times as many rows as the other one: all steps of time, not one."""
    return longer(one, other) or longer(other, one)


def partial(use: Use, pool: list[Seen]) -> dict[Seen, tuple[Array, float]]:
    """Return (columns, distance) of uses of which one side takes some rows alone, as one step of time."""
    found = dict[Seen, tuple[Array, float]]()
    here = columns.Values(raw(use)) if pool else None
    if here is None or not here.columns.size:
        return found
    for seen in pool:
        if seen.program.tape.nodes[seen.use.node].window or seen.values.columns.shape[0] != here.columns.shape[0]:
            continue
        fewer = here.columns.size < seen.values.columns.size
        some, every = (here, seen.values) if fewer else (seen.values, here)
        within = every.holding(some)
        if within is not None and within[1] < PARTIAL:
            found[seen] = (within[0] if fewer else np.argsort(within[0]), within[1])
    return found

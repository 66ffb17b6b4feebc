"""Tell products apart by the products to which their columns are added, where equal gates read the same values.

The state of a recurrent network meets as many gates as its input: each column for the state is added to one for the
input, or stands below it in one matrix. Those of the right side have to be added to the partners of what they are added
to there.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import cached_property

import numpy as np

from parity.derive.limits import LARGE_COLUMNS, LARGE_USE
from parity.derive.trace.program import Program
from parity.derive.trace.tape import Array, Node, along

from .met_columns import PASSED
from .stepped import Stepped, stepped
from .uses import Seen


class Sums:
    """Which columns of the products of a program are added to each other, through layouts, biases and scales.

    Columns that are added, to each other or to the same others, are of one class. Classes are numbered from 1.
    """

    def __init__(self, program: Program):
        self._program = program
        self._first = dict[int, int]()  # product -> the number of its first column
        self._above = [0]  # of each column, another one of its class; itself if it stands for the class
        every = sum(map(math.prod, program.shapes.values()))
        values = dict[int, Array]()
        for at, node in enumerate(program.tape.nodes if every <= LARGE_COLUMNS else ()):
            labels = self._numbered(at, node) if node.kind == "product" else self._passed(node, values)
            if labels is not None:
                values[node.output] = labels

    def __len__(self) -> int:
        """Return the number of columns, and of column 0, which is none."""
        return len(self._above)

    def classes(self, at: int) -> Array | None:
        """Return the class of each column of a product; None where that is not told."""
        if at not in self._first:
            return None
        node = self._program.tape.nodes[at]
        count = self._program.shapes[node.output][_axis(self._program, node)]
        return np.array([self._top(number) for number in range(self._first[at], self._first[at] + count)])

    def join(self, some: Array, others: Array) -> None:
        """Make one class of the columns at each place of two arrays; 0 is none."""
        both = (some > 0) & (others > 0)
        for one, other in np.unique(np.stack([some[both], others[both]]).astype(np.int64), axis=1).T:
            self._above[self._top(int(one))] = self._top(int(other))

    def _top(self, number: int) -> int:
        while (above := self._above[number]) != number:
            self._above[number] = self._above[above]
            number = above
        return number

    def _numbered(self, at: int, node: Node) -> Array | None:
        """Number the columns of a parameter that an activation meets; return the numbers, spread over the result."""
        if len(self._program.active.intersection(node.inputs)) != 1:
            return None
        axis, shape = _axis(self._program, node), self._program.shapes[node.output]
        self._first[at] = len(self._above)
        self._above += range(len(self._above), len(self._above) + shape[axis])
        numbers = np.arange(self._first[at], len(self._above), dtype=float)
        return np.broadcast_to(along(numbers, axis, len(shape)), shape)

    def _passed(self, node: Node, values: Mapping[int, Array]) -> Array | None:
        """Return the numbers of the columns that a layout moves, or to which something is added."""
        slots = [slot for slot, number in enumerate(node.inputs) if number in values]
        if not slots or node.kind not in PASSED or self._program.routes(node):
            return None
        if node.kind == "mul" and self._program.active.issuperset(node.inputs):
            return None
        try:
            moved = [self._program.labelled(node, slot, values[node.inputs[slot]]) for slot in slots]
        except Exception:  # a function that takes no such array
            return None
        labels = moved[0]
        for other in moved[1:]:
            if node.kind == "add":
                self.join(labels, other)
            labels = np.where(labels > 0, labels, other)
        return labels


def _axis(program: Program, node: Node) -> int:
    """Return the axis of a product's result along which the columns of its parameter lie."""
    return 1 if node.window or node.inputs[0] not in program.active else 2


class Added:
    """The sums of both sides, as far as the right columns have partners.

    Args:
      products: those of the left side. program: the right one. count: of left elements.
    """

    def __init__(self, products: Sequence[Seen], program: Program, count: int):
        self._products, self._program, self._count = products, program, count
        self._read = dict[int, Array | Stepped]()  # right product -> the elements of its matrix
        self._known, self._done, self._attempt = np.zeros(0, np.int64), set[int](), -1

    def note(self, at: int, ids: Array) -> None:
        """Note the elements (b, k, columns) of a matrix that a right product reads: large ones by their steps."""
        if at not in self._read:
            self._read[at] = ids if ids.size <= LARGE_USE else stepped(ids)

    def otherwise(self, at: int, own: Array, seen: Seen, others: Array, found: Array, attempt: int) -> bool:
        """Tell whether left columns are not added to the partners of what the right ones are added to.

        Args:
          at: the right product. own: columns of it. others: of the left one.
          found: the left element of each right one. attempt: its number, which another map has too.
        """
        right, left = self._right.classes(at), self._left[0].classes(seen.use.node)
        if right is None or left is None or own.max() >= len(right) or others.max() >= len(left):
            return False
        wanted = self._partners(at, found, attempt)[right[own]]
        return bool(((wanted > 0) & (wanted != left[others])).any())

    @cached_property
    def _right(self) -> Sums:
        return Sums(self._program)

    @cached_property
    def _left(self) -> tuple[Sums, Array]:
        """Return the sums of the left side, and the class of the column in which each element stands."""
        sums = Sums(self._products[0].program)
        classes = np.zeros(self._count if len(sums) > 1 else 0, np.int32)  # bounds memory
        for renew in (False, True):  # columns of one matrix that several steps read are of one class
            for seen in self._products:
                own = sums.classes(seen.use.node)
                if own is None or len(seen.use.ids) > 1 or len(own) != seen.use.ids.shape[2]:
                    continue
                numbers = np.asarray(seen.use.ids[0]).astype(np.int64)
                if not renew:
                    sums.join(classes[numbers], np.broadcast_to(own, numbers.shape))
                classes[numbers] = own
        classes[:1] = 0
        return sums, classes

    def _partners(self, at: int, found: Array, attempt: int) -> Array:
        """Return the left class of each right one of which a column has a partner; 0 for others."""
        if attempt != self._attempt:
            self._known, self._done, self._attempt = np.zeros(len(self._right), np.int64), set(), attempt
        for product, ids in self._read.items():
            own = None if product in self._done or product > at else self._right.classes(product)
            if own is None or len(own) != ids.shape[-1]:
                continue
            left = self._left[1][np.maximum(found[np.asarray(ids).astype(np.int64)], 0)].max((0, 1))
            self._known[own[left > 0]] = left[left > 0]
            if product < at:
                self._done.add(product)
        return self._known

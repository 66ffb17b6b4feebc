"""Match biases that one side's layers have and the other's have not: these are zeros."""

from __future__ import annotations

from collections import Counter

import numpy as np

from parity.derive.limits import EXACT
from parity.derive.trace.program import Program
from parity.derive.trace.tape import Array, Node

from . import columns
from .following import Following
from .symbols import Use
from .uses import Seen, together


class Biases(Following):
    """What an attempt does where a vector is added to products whose partners on the left have no bias."""

    def _without_bias(self, use: Use, numbers: Array, found: Array) -> bool:
        """Set elements of a vector to zero that are added to products whose partners have no bias.

        Tell whether all its elements are known then: the others have to meet the same values as some on the left.
        """
        made = products(self.program, use.node) if use.kind == "add" else set()
        partners = [partner for at in made for partner in self._partners.get(at, [])]
        terms = list(self._of_kind("add"))
        pool = [seen for seen in terms if self._free(seen.numbers)]
        bare = _bare(partners, terms)
        if not bare or any(at not in self._partners or at in self._at_once_matched for at in made):
            return False
        zero = np.ones(len(numbers), bool)
        partly = bare < sum(n for _, n in partners)
        if partly and pool:
            every, statistics = together(pool)
            index, apart = columns.nearest(found, statistics)
            zero = apart > EXACT * columns.size_of(found)
            if zero.sum() != bare or len(set(index[~zero])) != (~zero).sum():
                return False
            self._assign(numbers[~zero], every[index[~zero]])
        elif partly and len(numbers) != bare:
            return False
        self._set_to_zero(numbers[zero])
        return True

    def _without_bias_of_zeros(self, use: Use, numbers: Array) -> bool:
        """Set a factor to zero that is the bias of a product of zeros, if the left side has no such factor to give.

        In its first step a GRU multiplies its reset gate by that bias alone. Later steps show whether it is zero.
        """
        if not _of_zeros(use, self.program):
            return False
        if any(_of_zeros(seen.use, seen.program) and self._free(seen.numbers) for seen in self._of_kind("mul")):
            return False
        self._set_to_zero(numbers)
        return True

    def _set_to_zero(self, numbers: Array) -> None:
        self._enter(numbers, numbers[:0])
        self.map[numbers] = -numbers


def _bare(partners: list[tuple[Seen, int]], terms: list[Seen]) -> int:
    """Return how many columns of left products have no bias, also where a bias is joined of vectors and zeros.

    Args:
      partners: left products, and how many of their columns right ones have.
      terms: left vectors that are added.
    """
    count = Counter[Seen]()
    for seen, n in partners:
        count[seen] += n
    for seen, n in count.items():
        at = bias(seen.program, seen.use.node)
        added = 0 if at is None else sum(len(term.numbers) for term in terms if term.use.node == at) or n
        count[seen] = max(n - added, 0)
    return count.total()


def _of_zeros(use: Use, program: Program) -> bool:
    """Tell whether a factor is nothing but a bias that was added to a product of zeros, as of an initial state."""
    waiting = [number for number in program.tape.nodes[use.node].inputs if number not in program.active]
    while waiting and use.kind == "mul" and use.symbol.plain:
        made = program.makers.get(waiting.pop())
        node = None if made is None else program.tape.nodes[made]
        if node is not None and node.kind == "product":
            return True
        if node is not None and node.kind in ("layout", "add"):
            waiting += node.inputs
    return False


def products(program: Program, at: int) -> set[int]:
    """Return the products whose result an operation reads, through layout and scales; empty if it reads others too."""
    found, waiting = set[int](), [at]
    while waiting:
        for number in program.tape.nodes[waiting.pop()].inputs:
            if number not in program.active:
                continue
            node = program.maker(number)
            if node is not None and node.kind == "product":
                found.add(program.makers[number])
            elif node is not None and (node.kind == "layout" or _scale(program, node)):
                waiting.append(program.makers[number])
            else:
                return set()
    return found


def bias(program: Program, at: int) -> int | None:
    """Return the operation that adds something that no input determines to the result of a product, if there is one.

    It may be added to the sum of several products, as of one whose input one side joins.
    """
    waiting = [program.tape.nodes[at].output]
    while waiting:
        for reader, _ in program.readers(waiting.pop()):
            node = program.tape.nodes[reader]
            if node.kind == "add" and _scale(program, node):
                return reader
            if node.kind == "layout" or _scale(program, node) or (node.kind == "add" and products(program, reader)):
                waiting.append(node.output)
    return None


def _scale(program: Program, node: Node) -> bool:
    """Tell whether an operation adds something that no input determines, or multiplies with it."""
    return node.kind in ("add", "mul") and len(program.active.intersection(node.inputs)) < len(set(node.inputs))

"""Follow what a matrix makes to the matrices that read it, to see which exchanges of units could have no effect."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from parity.derive.trace.program import Program

from .symbols import Elements, Use


class Reached(NamedTuple):
    """Where the results of a matrix go.

    Args:
      readers: the parameters of the next matrices, each as their names in one text.
      meetings: operations at which they are multiplied by other activations.
    """

    readers: frozenset[tuple[str, ...]]
    meetings: frozenset[int]


class Reach:
    """Tells where results go; what only moves, scales, adds or normalizes them lets them through."""

    def __init__(self, program: Program, uses: Iterable[Use], elements: Elements):
        self.program = program
        self._matrices = {use.node: use for use in uses if is_matrix(use)}
        self._owners = {at: tuple(sorted(elements.owners(use.ids))) for at, use in self._matrices.items()}
        self._known: dict[int, Reached] = {}

    def undoes(self, use: Use, other: Use) -> bool:
        """Tell whether the inputs of the other matrix may undo an exchange of outputs: nothing else reads these."""
        return self._of(use).readers == {self._owners[other.node]}

    def meet(self, use: Use, other: Use) -> bool:
        """Tell whether outputs of two matrices are multiplied by each other, as queries by keys."""
        return bool(self._of(use).meetings & self._of(other).meetings)

    def gate(self, use: Use, other: Use) -> bool:
        """Tell whether outputs of two matrices are multiplied one by one, as those of a gate by what it scales."""
        nodes = self.program.tape.nodes
        return any(nodes[at].kind == "mul" for at in self._of(use).meetings & self._of(other).meetings)

    def add_up(self, use: Use, other: Use) -> bool:
        """Tell whether all that becomes of two terms is that their sums are added to each other."""
        return use.node == other.node or not self._sums(use).isdisjoint(self._sums(other))

    def _sums(self, use: Use) -> set[int]:
        """Return the operations after a term that add and move alone, as long as one alone reads the result."""
        nodes, at, found = self.program.tape.nodes, use.node, set[int]()
        while at not in found and nodes[at].kind in ("add", "layout"):
            found.add(at)
            readers = {reader for reader, _ in self.program.readers(nodes[at].output)}
            if len(readers) == 1:
                at = min(readers)
        return found

    def _of(self, use: Use) -> Reached:
        if use.node not in self._known:
            self._known[use.node] = self._follow(use)
        return self._known[use.node]

    def _follow(self, use: Use) -> Reached:
        """Go on until the next matrices: those of which the inputs are a multiple of these outputs."""
        nodes, active = self.program.tape.nodes, self.program.active
        waiting, seen, width = [nodes[use.node].output], set[int](), use.ids.shape[2]
        readers, meetings = set[tuple[str, ...]](), set[int]()
        while waiting:
            for at, _ in self.program.readers(waiting.pop()):
                if at in seen:
                    continue
                seen.add(at)
                reader = self._matrices.get(at)
                if reader is not None and reader.ids.shape[1] % width == 0:
                    readers.add(self._owners[at])
                    continue
                if nodes[at].kind in ("product", "mul") and active.issuperset(nodes[at].inputs):
                    meetings.add(at)
                waiting.append(nodes[at].output)
        return Reached(frozenset(readers), frozenset(meetings))


def is_matrix(use: Use) -> bool:
    """Tell whether a use is a product with one matrix, that mixes all channels."""
    return use.kind == "product" and len(use.ids) == 1

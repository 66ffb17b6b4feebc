"""Let one side compute several operations in a row as the other one does: a pooling that a framework writes as many."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

from specs.words import in_a_row

from ..trace.program import Program
from ..trace.tape import Array, Node, Operation
from .activations import Other
from .edit import and_so
from .swaps import ITSELF, orders, turned
from .texts import unlike

DEPTH = 16  # operations on the way back from where the sides part
MOST = 64  # pairs of stretches that are tried, the shortest first

Signature = tuple[str, ...]


class Stretch(NamedTuple):
    """Operations without parameters from one value to another one, which depends on nothing else."""

    entry: int
    nodes: Sequence[Node]

    @property
    def result(self) -> int:
        return self.nodes[-1].output

    @property
    def signature(self) -> Signature:
        return tuple(f"{node.kind} {node.call}" for node in self.nodes if node.kind != "layout")

    @property
    def calls(self) -> list[Operation]:
        return [node.call for node in self.nodes if node.call and node.kind == "other"]

    @property
    def name(self) -> str:
        names = in_a_row(dict.fromkeys(call.name for call in self.calls))
        site = self.nodes[-1].site
        return f"{site} ({names})" if site and names else site or names or ITSELF

    def function(self, program: Program) -> Callable[[Array], Array]:
        """Return what it computes of other values."""

        def run(x: Array) -> Array:
            values = {self.entry: x}
            for node in self.nodes:
                operands = (values[n] if n in values else program.known(n) for n in node.inputs)
                values[node.output] = node.run(*operands)
            return values[self.result]

        return run


def restretched(left: Program, right: Program, uses: tuple[int, int]) -> Iterator[Other]:
    """Yield edits by which stretches of the right side compute what those of the left one do.

    Args:
      uses: on each side, the value that the first use meets where the sides part.
    """
    own, others = (_stretches(program, value) for program, value in zip((left, right), uses, strict=True))
    pairs = [(a, b) for a in own for b in others if len(a.nodes) + len(b.nodes) > 2 and a.signature != b.signature]
    pairs.sort(key=lambda pair: sum(len(one.nodes) for one in pair))
    every: dict[Signature, list[Stretch]] | None = None
    tried = 0
    for a, b in pairs:
        for order in orders(left.shapes[a.entry], right.shapes[b.entry]):
            if sorted(left.shapes[a.result]) != sorted(right.shapes[b.result]):
                continue
            tried += 1
            if tried > MOST:
                return
            every = _alike(right) if every is None else every
            alike = {one.result: one.entry for one in every.get(b.signature, ())} | {b.result: b.entry}
            text = _difference(a, b)
            run = turned(a.function(left), order)
            more = Other(1, "operation", text + and_so(len(alike) - 1), alike, run, times=len(alike))
            yield Other(1, "operation", text, {b.result: b.entry}, run, wider=(more,) * (len(alike) > 1))


def _difference(left: Stretch, right: Stretch) -> str:
    """Say how two stretches differ: in the settings of their calls, where these are the same ones."""
    both = zip(left.calls, right.calls, strict=False)
    settings = [f"{right.name}: {', '.join(texts)}" for a, b in both if (texts := unlike(a, b))]
    if settings and [call.name for call in left.calls] == [call.name for call in right.calls]:
        return "; ".join(settings)
    return f"{left.name} on the left and {right.name} on the right compute other values from the same input"


def _stretches(program: Program, value: int) -> list[Stretch]:
    """List the stretches on the way back from a value."""
    weights = program.weights()
    chain = [(value, list[Node]()), *program.regions(value, DEPTH)]
    found = []
    for k, (_, behind) in enumerate(chain):
        for entry, nodes in chain[k + 1 :]:
            some = nodes[: len(nodes) - len(behind)]
            if any(number in weights for node in some for number in node.inputs):
                break
            if some and any(node.kind != "layout" for node in some):
                found.append(Stretch(entry, some))
    return found


def _alike(program: Program) -> dict[Signature, list[Stretch]]:
    """Return all stretches of a program by what they compute, of each value the longest one of each kind."""
    found: dict[Signature, dict[int, Stretch]] = defaultdict(dict)
    for node in program.tape.nodes:
        if node.kind == "layout" or node.output not in program.active:
            continue
        for entry, nodes in program.regions(node.output, DEPTH):
            stretch = Stretch(entry, nodes)
            found[stretch.signature].setdefault(stretch.result, stretch)
    return {signature: list(of.values()) for signature, of in found.items()}

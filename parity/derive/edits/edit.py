"""Define an edit: a change of one side's tape by which it may become equal to the other side's."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple, Self, TypeVar

from convert.folding import fold as folded_names
from parity.derive.trace.program import Program
from parity.derive.trace.tape import Array, Node, Tape, identity
from specs.words import count, in_a_row

SIDES = ("left", "right")
ELSEWHERE = "in another place"  # ends the kind of edits that move something
WHOLE = re.compile(r"(?<![^./\[])\d+(?![^./\]])")  # numbers that are whole parts of a path: of blocks
NUMBERS = WHOLE, re.compile(r"(?<![A-Za-z0-9])\d+"), re.compile(r"\d+")  # also behind "_", and of all modules
TURNS = 4  # values that are computed alike in each step of a recurrent network, up to which one of them is meant

T = TypeVar("T")
E = TypeVar("E", bound="Edit")
Fault = tuple[str, str, str]  # what is the same at each of its places: its kind, the side, how both differ


class Scope(NamedTuple):
    """Both sides, and where causes are looked for: all that yield edits of both take it.

    Args:
      programs: of both sides.
      firsts: on each side, the operation from which on the sides may differ.
      spans: on each side, the first operation and the end, between which activations are exchanged.
      near: on each side, the numbers of the operations in which the sides may differ.
      alone: of each side, the parameters that may be left out: those without a partner, where that is known.
    """

    programs: tuple[Program, Program]
    firsts: Sequence[int]
    spans: Sequence[tuple[int, int]]
    near: Sequence[Collection[int]]
    alone: Sequence[Collection[str]]

    def spare(self, side: int) -> set[str]:
        """Return the parameters of which one use may be left out: those without a partner, or that more reads."""
        program = self.programs[side]
        read = program.tape.parameters.items()
        return {*self.alone[side], *(name for name, number in read if len(program.readers(number)) > 1)}

    def lacking(self, side: int, does: str, names: Iterable[str]) -> str:
        """Say that the other side does not do something; where it has the parameters of that, less often."""
        other = SIDES[1 - side]
        ends = f", the {other} does not" if {*self.alone[side]}.issuperset(names) else f" more often than the {other}"
        return f"the {SIDES[side]} {does}{ends}"

    def nearest(self, side: int, some: Iterable[T], value: Callable[[T], int], most: int) -> list[T]:
        """Return what may be why the sides differ, at most so many: what is nearest to where they may differ first.

        Args:
          value: returns the value that tells where one of them is.
        """
        makers, first, near = self.programs[side].makers, self.firsts[side], self.near[side]
        places = [(at, item) for item in some if (at := makers[value(item)]) >= first or at in near]
        return [item for _, item in sorted(places, key=lambda place: abs(place[0] - first))[:most]]


def with_names(names: Iterable[str]) -> str:
    """Name modules or parameters behind what is said of them: ", with a.0 and a.1"; "" for none."""
    folded = folded_names(list(names))
    return f", with {in_a_row(folded)}" if folded else ""


def two_sided(left: str, right: str) -> str:
    """Say what both sides have: "ReLU on the left, SiLU on the right"."""
    return f"{left} on the left, {right} on the right"


def and_so(more: int) -> str:
    """Say that what differs has other places too; "" if it has none."""
    return f", and so in {count(more, 'more place')}" if more else ""


@dataclass(frozen=True)
class Edit(ABC):
    """A change of one side.

    Args:
      side: 0 for the left.
      kind: what differs, as a noun: "epsilon", "residual".
      what: how both sides differ. fault: the same without modules, if `what` names some.
      both: the left and the right value, if that is all that `what` says; () otherwise.
      times: how many of that kind differ. named: of their places, those that `what` names; more: the others.
      wider: what is tried with it, and may be better: the same in all blocks that are alike, if there are such, and in
        all modules; of a norm also its other edits.
      counted: one of the changed values for each of `times`; () if that is each of them once.
    """

    side: int
    kind: str
    what: str
    fault: str = field(default="", kw_only=True)
    both: tuple[str, ...] = field(default=(), kw_only=True)
    times: int = field(default=1, kw_only=True)
    named: int = field(default=1, kw_only=True)
    more: int = field(default=0, kw_only=True)
    wider: tuple[Edit, ...] = field(default=(), kw_only=True)
    counted: tuple[int, ...] = field(default=(), kw_only=True)

    @property
    def text(self) -> str:
        return self.what + and_so(self.more)

    @property
    def same(self) -> Fault:
        """Return what is the same wherever both sides differ so."""
        return self.kind, SIDES[self.side], self.fault or self.what

    @abstractmethod
    def tape(self, tape: Tape) -> Tape:
        """Return the side's tape with the change."""

    @property
    @abstractmethod
    def changed(self) -> Collection[int]:
        """Return the values of the tape that it computes otherwise, or replaces."""

    def nodes(self, tape: Tape) -> list[int]:
        """Return the operation that computes each changed value; if none does, the first one that reads it."""
        return _nodes(tape, self.changed)

    def counted_nodes(self, tape: Tape) -> list[int]:
        """Return the operation of each of the differences that `times` counts."""
        return _nodes(tape, self.counted or self.changed)

    def tapes(self, left: Tape, right: Tape) -> tuple[Tape, Tape]:
        """Return both tapes, one of them with the change."""
        return (self.tape(left), right) if self.side == 0 else (left, self.tape(right))


@dataclass(frozen=True)
class Valued(Edit):
    """Change some values of a tape. Args: values: their numbers, each with what the change reads."""

    values: Mapping[int, Any]

    @property
    def changed(self) -> Collection[int]:
        return self.values


@dataclass(frozen=True)
class Replaced(Valued):
    """Compute values in another way."""

    def tape(self, tape: Tape) -> Tape:
        return replace(tape, nodes=[self.instead(node) if node.output in self.values else node for node in tape.nodes])

    @abstractmethod
    def instead(self, node: Node) -> Node:
        """Return what computes a node's value."""

    def everywhere(self, values: Mapping[int, Any]) -> Self:
        """Return the edit with wider ones: of all values that are computed alike, and of every second, third, ...

        The steps of a recurrent network compute several such values in turn.

        Args:
          values: all that are computed alike, in the order of execution.
        """
        first, every = next(iter(self.values)), list(values)
        sets = [every]
        if first in values:
            sets += [every[every.index(first) % step :: step] for step in range(2, TURNS + 1)]
        more = self.more - len(self.values)
        wider = [
            replace(self, values={value: values[value] for value in some}, times=len(some), more=more + len(some))
            for some in sets
            if len(some) > len(self.values)
        ]
        return replace(self, wider=tuple(wider)) if wider else self


@dataclass(frozen=True)
class Reread(Replaced):
    """Let operations read other values, which run before them then.

    Args:
      values: results of the operations -> {a value that each reads: the one in its place}.
    """

    values: Mapping[int, Mapping[int, int]]

    def tape(self, tape: Tape) -> Tape:
        missing, waiting, nodes = {node.output for node in tape.nodes}, list[Node](), list[Node]()
        for node in super().tape(tape).nodes:
            waiting.append(node)
            while ready := next((one for one in waiting if missing.isdisjoint(one.inputs)), None):
                waiting.remove(ready)
                missing.remove(ready.output)
                nodes.append(ready)
        return replace(tape, nodes=nodes, parts={})

    def instead(self, node: Node) -> Node:
        other = self.values[node.output]
        return node._replace(inputs=tuple(other.get(number, number) for number in node.inputs))


@dataclass(frozen=True)
class LeftOut(Replaced):
    """Leave out operations.

    Args:
      values: their results -> what takes the place of each: a value of the same shape that it is computed from.
    """

    def instead(self, node: Node) -> Node:
        return Node("layout", (self.values[node.output],), node.output, identity, node.site)


@dataclass(frozen=True)
class Other(Replaced):
    """Compute values by another function.

    Args:
      values: those values -> what each is computed from.
    """

    run: Callable[[Array], Array]

    def instead(self, node: Node) -> Node:
        return Node("other", (self.values[node.output],), node.output, self.run, node.site)


def _nodes(tape: Tape, values: Collection[int]) -> list[int]:
    """Return the operation that computes each value, or else the first that reads it, in the order of execution."""
    places = dict[int, int]()
    for at, node in enumerate(tape.nodes):
        for number in (*node.inputs, node.output):
            if number == node.output or number in tape.constants:
                places.setdefault(number, at)
    return sorted(places[number] for number in values if number in places)


def widened(edits: Iterable[E]) -> E:
    """Return the first of several edits, with the others as wider ones."""
    first, *wider = edits
    return replace(first, wider=tuple(wider))


def repeats(item: T, every: Sequence[T], site: Callable[[T], str]) -> list[list[T]]:
    """Return [one], then larger sets with it: what stands at its place in modules of other numbers."""
    sets = [[item]]
    for pattern in NUMBERS if site(item).strip() else ():
        ranks, counts = dict[int, tuple[str, int]](), Counter[str]()
        for other in every:
            where = site(other)
            ranks[id(other)] = pattern.sub("#", where), counts[where]
            counts[where] += 1
        numbered = [other for other in every if ranks[id(other)] == ranks[id(item)]]
        if len(numbered) > len(sets[-1]):
            sets.append(numbered)
    return sets

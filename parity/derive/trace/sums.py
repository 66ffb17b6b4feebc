"""Change how a tape's sums are composed: leave out a term, or apply a norm to a sum instead of in its branch."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple, TypeVar

from convert.folding import fold as folded_names
from specs.words import in_a_row

from .edits import SIDES, Edit
from .program import Program
from .tape import Node, Tape

SUMS = 4  # sums, and norms, of a side that are tried
DEPTH = 32  # operations from a norm's input to its result at most
NUMBERS = re.compile(r"(?<![A-Za-z0-9])\d+"), re.compile(r"\d+")  # in a path, of blocks and of all modules

T = TypeVar("T")


@dataclass(frozen=True)
class Without(Edit):
    """Leave out a term of sums.

    Args:
      passed: the results of the sums -> the term that remains.
    """

    passed: Mapping[int, int]

    def tape(self, tape: Tape) -> Tape:
        nodes = [
            Node("layout", (self.passed[node.output],), node.output, _same, node.site, None)
            if node.output in self.passed
            else node
            for node in tape.nodes
        ]
        return replace(tape, nodes=nodes, parts={})


class Norm(NamedTuple):
    """Operations from one value to another of its shape, which several of them read: a norm with its parameters.

    Args:
      total: the sum behind it.
    """

    entry: int
    result: int
    nodes: tuple[Node, ...]
    total: Node


@dataclass(frozen=True)
class After(Edit):
    """Apply norms to the sums behind them.

    Args:
      norms: by the results of the sums.
    """

    norms: Mapping[int, Norm]

    def tape(self, tape: Tape) -> Tape:
        size, nodes, normalized = tape.size, list[Node](), dict[int, int]()
        skipped = {norm.result: norm.entry for norm in self.norms.values()}
        inner = {node.output for norm in self.norms.values() for node in norm.nodes}

        def renamed(numbers: Iterable[int]) -> tuple[int, ...]:
            return tuple(normalized.get(n, n) for n in (skipped.get(n, n) for n in numbers))

        for node in tape.nodes:
            if node.output in inner:
                continue
            nodes.append(node._replace(inputs=renamed(node.inputs)))
            if (norm := self.norms.get(node.output)) is None:
                continue
            named = {norm.entry: node.output}
            for part in norm.nodes:
                named[part.output] = size
                nodes.append(part._replace(inputs=tuple(named.get(n, n) for n in part.inputs), output=size))
                size += 1
            normalized[node.output] = named[norm.result]
        return replace(tape, nodes=nodes, outputs=list(renamed(tape.outputs)), size=size, parts={})


def _same(value: object) -> object:
    return value


def rewirings(programs: Sequence[Program], firsts: Sequence[int]) -> Iterator[Edit]:
    """Yield edits of the sums that follow certain operations.

    Args:
      firsts: on each side, the operation from which on the sides may differ.
    """
    for side in (0, 1):
        yield from _after(programs[side], firsts[side], side)
    counts = [Counter(_is_residual(program, node) for node in _sums(program)) for program in programs]
    for side in (0, 1):
        more = {kind for kind in (True, False) if counts[side][kind] > counts[1 - side][kind]}
        yield from _without(programs[side], firsts[side], side, more)


def _sums(program: Program) -> list[Node]:
    return [node for node in program.tape.nodes if _adds(program, node)]


def _is_residual(program: Program, node: Node) -> bool:
    """Tell whether one term of a sum went through more products than the other one."""
    if not program.depths:
        for other in program.tape.nodes:
            before = max((program.depths.get(number, 0) for number in other.inputs), default=0)
            program.depths[other.output] = before + (other.kind == "product")
    one, two = (program.depths.get(number, 0) for number in node.inputs[:2])
    return one != two


def _after(program: Program, first: int, side: int) -> Iterator[Edit]:
    every = list(_norms(program))
    for norm in [norm for norm in every if program.makers[norm.result] >= first][:SUMS]:
        one, *wider = (
            After(side, "moved norm", _moved(some, side), {one.total.output: one for one in some}, times=len(some))
            for some in _sets(norm, every, lambda other: f"{other.nodes[-1].site} {other.total.site}")
        )
        yield replace(one, wider=tuple(wider))


def _moved(norms: Sequence[Norm], side: int) -> str:
    """Say on which side of their sums norms stand in both models."""
    names = in_a_row(folded_names(norm.nodes[-1].site for norm in norms if norm.nodes[-1].site))
    which = f", with {names}" if names else ""
    return f"the {SIDES[side]} normalizes before the sum, the {SIDES[1 - side]} after it{which}"


def _without(program: Program, first: int, side: int, more: Collection[bool]) -> Iterator[Edit]:
    """Yield edits that leave out a term of sums of which this side has more than the other, residual ones or others."""
    every = _sums(program)
    late = [node for node in every if program.makers[node.output] >= first and _is_residual(program, node) in more]
    for node in late[:SUMS]:
        sets = _sets(node, every, lambda other: other.site)
        for remaining in (0, 1):
            one, *wider = (_left_out(program, some, remaining, side) for some in sets)
            yield replace(one, wider=tuple(wider))


def _left_out(program: Program, sums: Sequence[Node], remaining: int, side: int) -> Without:
    """Return the edit that leaves out one term of sums."""
    term, kind = _term(program, sums, remaining)
    text = f"the {SIDES[side]} adds {term}, the {SIDES[1 - side]} does not"
    return Without(side, kind, text, {node.output: node.inputs[remaining] for node in sums}, times=len(sums))


def _sets(one: T, every: Sequence[T], site: Callable[[T], str]) -> list[list[T]]:
    """Return one alone, and all that stand at the same place of modules that differ in their numbers alone."""
    sets = [[one]]
    for pattern in NUMBERS if site(one).strip() else ():
        ranks, counts = dict[int, tuple[str, int]](), Counter[str]()
        for other in every:
            where = site(other)
            ranks[id(other)] = pattern.sub("#", where), counts[where]
            counts[where] += 1
        alike = [other for other in every if ranks[id(other)] == ranks[id(one)]]
        if len(alike) > len(sets[-1]):
            sets.append(alike)
    return sets


def _adds(program: Program, node: Node) -> bool:
    """Tell whether an operation adds two values of one shape, both of which depend on the inputs."""
    shapes = {program.shapes[number] for number in (*node.inputs, node.output)}
    return (
        node.kind == "add" and len({*node.inputs}) == 2 and len(shapes) == 1 and program.active.issuperset(node.inputs)
    )


def _term(program: Program, sums: Sequence[Node], remaining: int) -> tuple[str, str]:
    """Return (what the other operand of these sums is, what the other side lacks where it does not add it)."""
    terms = [_named(program, node, remaining) for node in sums]
    kinds = {kind for _, _, kind in terms}
    whats = dict.fromkeys(what for what, _, _ in terms)
    if len(kinds) > 1 or len(whats) > 1:
        return "another term", "added term"
    (what,), (kind,) = whats, kinds
    return " ".join(filter(None, [what, in_a_row(folded_names(site for _, site, _ in terms if site))])), kind


def _named(program: Program, node: Node, remaining: int) -> tuple[str, str, str]:
    """Return (what one operand of a sum is, the module, kind): the input of the branch beside it, or another term."""
    number = node.inputs[1 - remaining]
    made = _maker(program, number)
    if _reaches(program, number, node.inputs[remaining]):
        if made is None or (node.site and not re.match(rf"{re.escape(node.site)}($|[./\[])", made.site)):
            return ("the input of" if node.site else "the model's input"), node.site, "residual"
        readers = [program.tape.nodes[at].site for at, _ in program.consumers[number]]
        inside = next((site for site in readers if site and site != node.site), "")
        return ("the input of" if inside else "the input of its branch"), inside, "residual"
    if made is not None and made.site and made.site != node.site:
        return "the output of", made.site, "added term"
    return "another term", "", "added term"


def _reaches(program: Program, start: int, end: int) -> bool:
    """Tell whether a value depends on another one."""
    reached = {start}
    for node in program.tape.nodes[program.makers.get(start, -1) + 1 : program.makers.get(end, -1) + 1]:
        if not reached.isdisjoint(node.inputs):
            reached.add(node.output)
    return end in reached


def _maker(program: Program, number: int) -> Node | None:
    """Return the operation that computes a value, before it is laid out otherwise; None for an input of the model."""
    while number in program.makers:
        node = program.tape.nodes[program.makers[number]]
        active = [n for n in node.inputs if n in program.active]
        if node.kind != "layout" or len(active) != 1:
            return node
        number = active[0]
    return None


def _norms(program: Program) -> Iterator[Norm]:
    """Yield each norm that reads a sum's term or gives one, or that a product in a branch of a sum reads."""
    tape, weights = program.tape, set(program.tape.parameters.values())
    for node in tape.nodes:
        if node.output not in program.active and not weights.isdisjoint(node.inputs):
            weights.add(node.output)
    seen = set[int]()
    for node in tape.nodes:
        if node.kind != "product" and not _adds(program, node):
            continue
        for number in node.inputs:
            made = _maker(program, number) if number in program.active else None
            if made is None or made.output in seen:
                continue
            seen.add(made.output)
            norm = _norm(program, made.output, weights)
            if norm is not None:
                yield norm


def _norm(program: Program, result: int, weights: set[int]) -> Norm | None:
    """Return the norm that gives this value; None if it is none, or in no branch of a sum."""
    forked = (region for region in program.regions(result, DEPTH) if any(_forks(program, node) for node in region[1]))
    entry, nodes = next(forked, (result, []))
    if not nodes:
        return None
    inner = {node.output for node in nodes}
    read = {at for node in nodes[:-1] for at, _ in program.consumers[node.output]}
    plain = all(weights.isdisjoint(node.inputs) for node in nodes) or program.shapes[entry] != program.shapes[result]
    if plain or any(program.tape.nodes[at].output not in inner for at in read):
        return None
    total = _total(program, result)
    return None if total is None else Norm(entry, result, tuple(nodes), total)


def _forks(program: Program, node: Node) -> bool:
    return len(program.active.intersection(node.inputs)) > 1


def _total(program: Program, result: int) -> Node | None:
    """Return the first sum of which one term alone depends on a value, and which has that value's shape."""
    reached = {result}
    for node in program.tape.nodes[program.makers[result] + 1 :]:
        if reached.isdisjoint(node.inputs):
            continue
        one = len(reached.intersection(node.inputs)) == 1
        if one and _adds(program, node) and program.shapes[node.output] == program.shapes[result]:
            return node
        reached.add(node.output)
    return None

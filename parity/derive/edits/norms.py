"""Change where a tape's norms stand: apply one to the sum behind its branch, or leave it out."""

from __future__ import annotations

import itertools
import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

from parity.derive.trace.program import Program, Stretch
from parity.derive.trace.sites import shown_once
from parity.derive.trace.tape import Node, Tape

from .affine import chains
from .edit import ELSEWHERE, NUMBERS, SIDES, Edit, LeftOut, Reread, Scope, repeats, widened, with_names
from .sums import adds

MOST = 4  # norms of a side that are tried
DEPTH = 32  # operations from a norm's input to its result at most


MOVED = f"norm {ELSEWHERE}"  # the kind of edits that move one
SUM = "before the sum", "after it"  # where one side normalizes, and where the other one does
BRANCH = "what a branch reads", "what it returns"
SCALE = "before it multiplies by a scale", "after that"


class Norm(NamedTuple):
    """Operations from one value to another of its shape, which several of them read: a norm with its parameters.

    Args:
      parameters: the last ones, which follow on what normalizes.
      total: the first sum behind it to which another term is added, if there is one.
      branch: the term of that sum which depends on it.
    """

    entry: int
    result: int
    nodes: tuple[Node, ...]
    parameters: tuple[str, ...]
    total: Node | None
    branch: int


@dataclass(frozen=True)
class After(Edit):
    """Apply norms to values behind them: sums, or what is added there.

    Args:
      norms: by the numbers of these values.
    """

    norms: Mapping[int, Norm]

    @property
    def changed(self) -> Collection[int]:
        return self.norms

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
        return replace(tape, nodes=nodes, outputs=list(renamed(tape.outputs)), size=size)


class Joined(NamedTuple):
    """A sum of one of a norm's two values, which it reads and returns, and of a branch that reads one of them.

    Args:
      term, read: 0 where the sum has, and the branch reads, what the norm reads; 1 for the norm's result.
    """

    norm: Norm
    total: Node
    term: int
    read: int

    def reread(self, program: Program, term: int, read: int) -> dict[int, dict[int, int]]:
        """Return what reads another value, if the sum and the branch read these ones of the norm's two."""
        ends = self.norm.entry, self.norm.result
        apart = {self.total.output, *(node.output for node in self.norm.nodes)}
        readers = {node.output for node in program.reading(ends[self.read])} - apart
        values = {output: {ends[self.read]: ends[read]} for output in readers} if read != self.read else {}
        return values | ({self.total.output: {ends[self.term]: ends[term]}} if term != self.term else {})


def retaken(scope: Scope, side: int) -> Iterator[Edit]:
    """Yield edits by which the sum behind a norm, its branch, or both read what the norm reads for its result."""
    program = scope.programs[side]
    every = [joined for norm in each_norm(program) for joined in _joined(program, norm)]
    for each in scope.nearest(side, every, lambda each: each.total.output, MOST):
        alike = [other for other in every if (other.term, other.read) == (each.term, each.read)]
        twice = {(0, 0)} if (each.term, each.read) == (1, 0) else set()  # the branch may compute the norm again
        for term, read in sorted({(0, 1), (1, 1), (1, 0), *twice} - {(each.term, each.read)}):
            yield widened(
                _taken(program, some, term, read, side)
                for some in repeats(each, alike, lambda other: _site(other.norm))
            )


def _joined(program: Program, norm: Norm) -> Iterator[Joined]:
    """Yield the sums of a norm's result, or of what it reads, and of what is computed of one of the two."""
    ends, inner = (norm.entry, norm.result), {node.output for node in norm.nodes}
    for term, value in enumerate(ends):
        for node in program.reading(value):
            if not adds(program, node) or node.output in inner or {*node.inputs} == {*ends}:
                continue
            reads = _reads(program, next(number for number in node.inputs if number != value), ends)
            yield from (Joined(norm, node, term, read) for read in (0, 1) if reads == {ends[read]} and (term or read))


def _reads(program: Program, value: int, ends: Sequence[int]) -> set[int]:
    """Return those of some values from which another one is computed, without what these are computed from."""
    reached, waiting = set[int](), {value}
    first = min(program.makers.get(end, -1) for end in ends)
    while waiting:
        number = waiting.pop()
        if number in ends:
            reached.add(number)
        elif (at := program.makers.get(number, -1)) > first:
            waiting.update(program.tape.nodes[at].inputs)
    return reached


def _taken(program: Program, some: Sequence[Joined], term: int, read: int, side: int) -> Reread:
    first, names = some[0], ("input", "output")
    sides = f"the {SIDES[side]}", f"the {SIDES[1 - side]}"
    if first.read != read and first.term != term:
        does = f"{sides[0]} adds the {names[first.term]} of a norm to a branch that reads its {names[first.read]}, "
        does += f"{sides[1]} the {names[term]} to one that reads the {names[read]}"
    elif first.read != read:
        does = f"{sides[0]} has a branch that reads the {names[first.read]} of a norm, {sides[1]} its {names[read]}"
    else:
        does = (
            f"{sides[0]} adds the {names[first.term]} of a norm to the branch behind it, {sides[1]} its {names[term]}"
        )
    values = {output: new for joined in some for output, new in joined.reread(program, term, read).items()}
    counted = tuple(joined.total.output for joined in some)
    text = does + which([joined.norm for joined in some])
    return Reread(side, "residual", text, values, fault=does, times=len(some), named=len(some), counted=counted)


def norm_edits(scope: Scope, side: int) -> Iterator[Edit]:
    """Yield edits that apply a norm to the sum behind it, to the branch that is added there, or leave it out.

    Each is tried with the others, which may be the better ones.
    """
    program, names = scope.programs[side], scope.alone[side]
    every = list(each_norm(program))
    behind = [norm for norm in every if norm.total]
    parents = set[str]()
    scaled = {id(other): by for other in every if (by := _scaled(program, other)) is not None}
    for norm in scope.nearest(side, every, lambda norm: scaled.get(id(norm), norm.result), MOST):
        out = all(name in names for name in norm.parameters)
        beside = [other for other in every if _parent(other) == _parent(norm) and set(other.parameters) <= {*names}]
        if out and len(beside) > 1 and _parent(norm) not in parents:  # of queries and keys, which meet each other
            parents.add(_parent(norm))
            yield _left_out(scope, beside, side)
        edits: list[list[Edit]] = (
            [[_left_out(scope, some, side) for some in repeats(norm, every, _site)]] if out else []
        )
        if norm.total:
            sets = repeats(norm, behind, lambda other: f"{_site(other)} {other.total and other.total.site}")
            edits.insert(0, [_moved(some, side, SUM, [n.total.output for n in some if n.total]) for some in sets])
            if norm.branch != norm.result:
                edits.insert(0, [_moved(some, side, BRANCH, [n.branch for n in some]) for some in sets])
        if id(norm) in scaled:
            scales = [other for other in every if id(other) in scaled]
            sets = repeats(norm, scales, _site)
            edits.insert(0, [_moved(some, side, SCALE, [scaled[id(n)] for n in some]) for some in sets])
        yield from (widened(itertools.chain(*edits[k:])) for k in range(len(edits)))


def without_repeated_norms(scope: Scope, side: int) -> Iterator[Edit]:
    """Yield edits that leave out one use of a norm's parameters, which others read too."""
    names, alone = scope.spare(side), {*scope.alone[side]}
    norms = [norm for norm in each_norm(scope.programs[side]) if not alone.issuperset(norm.parameters)]
    every = [norm for norm in norms if names.issuperset(norm.parameters)]
    for norm in scope.nearest(side, every, lambda norm: norm.result, MOST):
        yield widened(_left_out(scope, some, side) for some in repeats(norm, every, _site))


def _site(norm: Norm) -> str:
    return norm.nodes[-1].site


def _parent(norm: Norm) -> str:
    """Return the path of the module that has a norm, as one has those of queries and keys; without its numbers."""
    return NUMBERS[1].sub("#", re.sub(r"[./]?[^./]*$", "", _site(norm)))


def _scaled(program: Program, norm: Norm) -> int | None:
    """Return the product of a norm's result and another value, if that alone reads the result; None for others."""
    reader = program.only_reader(norm.result)
    node = program.tape.nodes[reader[0]] if reader else None
    shapes = program.shapes
    scales = node is not None and node.kind == "mul" and len({*node.inputs}) == 2
    return node.output if node and scales and shapes[node.output] == shapes[norm.result] else None


def _moved(norms: Sequence[Norm], side: int, ways: tuple[str, str], places: Sequence[int]) -> After:
    """Return the edit that applies norms elsewhere.

    Args:
      ways: SUM, BRANCH or SCALE. places: the value that each norm is applied to.
    """
    does = f"the {SIDES[side]} normalizes {ways[0]}, the {SIDES[1 - side]} {ways[1]}"
    values = dict(zip(places, norms, strict=True))
    return After(side, MOVED, does + which(norms), values, fault=does, times=len(norms), named=len(norms))


def _left_out(scope: Scope, norms: Sequence[Norm], side: int) -> LeftOut:
    text = scope.lacking(side, "normalizes", [name for norm in norms for name in norm.parameters]) + which(norms)
    return LeftOut(side, "missing norm", text, {norm.result: norm.entry for norm in norms}, times=len(norms))


def which(norms: Sequence[Norm]) -> str:
    """Name the modules of norms, or their parameters."""
    sites = shown_once(map(_site, norms))
    return with_names(sites if all(sites) else [name for norm in norms for name in norm.parameters])


def each_norm(program: Program) -> Iterator[Norm]:
    """Yield each norm: operations that join a value with others computed from it, and their parameters, if any."""
    ended = set[int]()
    for chain in chains(program):
        if norm := _norm(program, chain[-1].node.output, tuple(name for step in chain for name in step.names)):
            ended |= {node.output for node in norm.nodes}
            yield norm
    for node in program.tape.nodes:
        shapes = [program.shapes[number] for number in node.inputs if number in program.active]
        scales = node.kind == "mul" and len(shapes) == 2 and shapes[0] != shapes[1]
        if scales and node.output not in ended and (norm := _norm(program, node.output, ())):
            yield norm


def _norm(program: Program, result: int, names: tuple[str, ...]) -> Norm | None:
    """Return the norm that ends with a value, and with these parameters; None if it is none."""
    forked = (region for region in program.regions(result, DEPTH) if _forks(region))
    # inside a norm of groups, values have an axis for the groups: its entry has the shape of its result again
    entry, nodes = next((way for way in forked if program.shapes[way.entry] == program.shapes[result]), (result, []))
    inner = {node.output for node in nodes}
    read = {at for node in nodes[:-1] for at, _ in program.readers(node.output)}
    whole = all(program.tape.nodes[at].output in inner for at in read)
    if not nodes or not whole:
        return None
    return Norm(entry, result, tuple(nodes), names, *_total(program, result))


def _forks(region: Stretch) -> bool:
    """Tell whether an operation joins values that are both computed from the entry, and not from other inputs."""
    reached = {region.entry}
    for node in region.nodes:
        if len(reached.intersection(node.inputs)) > 1:
            return True
        if not reached.isdisjoint(node.inputs):
            reached.add(node.output)
    return False


def _total(program: Program, result: int) -> tuple[Node | None, int]:
    """Return (the first sum of which one term alone depends on a value, of that value's shape; that term)."""
    reached = {result}
    for node in program.tape.nodes[program.makers[result] + 1 :]:
        terms = reached.intersection(node.inputs)
        if not terms:
            continue
        joins = node.kind == "add" and program.active.issuperset(node.inputs)  # a term may be one for all positions
        if len(terms) == 1 and joins and program.shapes[node.output] == program.shapes[result]:
            return node, terms.pop()
        reached.add(node.output)
    return None, result

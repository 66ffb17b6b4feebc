"""Change where a tape's norms stand: apply one to the sum behind its branch, or leave it out."""

from __future__ import annotations

import itertools
import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

from convert.folding import fold as folded_names
from parity.derive.trace.program import Program
from parity.derive.trace.sites import shown_once
from parity.derive.trace.tape import Node, Tape
from specs.words import in_a_row

from .affine import Applied, chains
from .edit import NUMBERS, SIDES, Edit, LeftOut, Replaced, repeats, widened
from .sums import adds

MOST = 4  # norms of a side that are tried
DEPTH = 32  # operations from a norm's input to its result at most


MOVED = "norm in another place"  # the kind of edits that move one


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


@dataclass(frozen=True)
class Retaken(Replaced):
    """Add other terms in sums.

    Args:
      values: results of the sums -> the term that is replaced, and the one in its place.
    """

    values: Mapping[int, tuple[int, int]]

    def instead(self, node: Node) -> Node:
        old, new = self.values[node.output]
        return node._replace(inputs=tuple(new if number == old else number for number in node.inputs))


def retaken(program: Program, first: int, side: int) -> Iterator[Edit]:
    """Yield edits of residuals around a norm: what it reads is added where its result was, or the other way round."""
    every = list(each_norm(program))
    for before in (False, True):
        sums = {id(norm): at for norm in every if (at := _residual(program, norm, before)) is not None}
        some = [norm for norm in every if id(norm) in sums]
        for norm in [norm for norm in some if sums[id(norm)] >= first][:MOST]:
            yield widened(_taken(program, of, sums, before, side) for of in repeats(norm, some, _site))


def _residual(program: Program, norm: Norm, before: bool) -> int | None:
    """Return the sum that adds a norm's result, or what it reads, to what is computed of its result."""
    term = norm.entry if before else norm.result
    inner = {node.output for node in norm.nodes}
    for at, _ in program.readers(term):
        node = program.tape.nodes[at]
        if adds(program, node) and node.output not in inner:
            branch = next(number for number in node.inputs if number != term)
            if branch != norm.result and program.tape.depends([branch], [norm.result]):
                return at
    return None


def _taken(program: Program, norms: Sequence[Norm], sums: Mapping[int, int], before: bool, side: int) -> Retaken:
    term, other = ("input", "output") if before else ("output", "input")
    does = f"the {SIDES[side]} adds the {term} of a norm to the branch behind it, the {SIDES[1 - side]} its {other}"
    values = {
        program.tape.nodes[sums[id(norm)]].output: (norm.entry, norm.result) if before else (norm.result, norm.entry)
        for norm in norms
    }
    return Retaken(side, "residual", does + which(norms), values, fault=does, times=len(norms), named=len(norms))


def norm_edits(program: Program, first: int, side: int, names: Collection[str]) -> Iterator[Edit]:
    """Yield edits that apply a norm to the sum behind it, to the branch that is added there, or leave it out.

    Each is tried with the others, which may be the better ones.

    Args:
      first: the operation of this side from which on the sides may differ.
      names: parameters of norms that may be left out.
    """
    every = list(each_norm(program))
    behind = [norm for norm in every if norm.total]
    parents = set[str]()
    for norm in [norm for norm in every if program.makers[norm.result] >= first][:MOST]:
        out = all(name in names for name in norm.parameters)
        beside = [other for other in every if _parent(other) == _parent(norm) and set(other.parameters) <= {*names}]
        if out and len(beside) > 1 and _parent(norm) not in parents:  # of queries and keys, which meet each other
            parents.add(_parent(norm))
            yield _left_out(beside, side)
        edits: list[list[Edit]] = [[_left_out(some, side) for some in repeats(norm, every, _site)]] if out else []
        if norm.total:
            sets = repeats(norm, behind, lambda other: f"{_site(other)} {other.total and other.total.site}")
            edits.insert(0, [_after_sum(some, side) for some in sets])
            if norm.branch != norm.result:
                edits.insert(0, [_after_branch(some, side) for some in sets])
        if scaled := {id(other): by for other in every if (by := _scaled(program, other)) is not None}:
            scales = [other for other in every if id(other) in scaled]
            if norm in scales:
                edits.insert(0, [_after_scale(some, scaled, side) for some in repeats(norm, scales, _site)])
        yield from (widened(itertools.chain(*edits[k:])) for k in range(len(edits)))


def _site(norm: Norm) -> str:
    return norm.nodes[-1].site


def _parent(norm: Norm) -> str:
    """Return the path of the module that has a norm, as one has those of queries and keys; without its numbers."""
    return NUMBERS[0].sub("#", re.sub(r"[./]?[^./]*$", "", _site(norm)))


def _after_sum(norms: Sequence[Norm], side: int) -> After:
    does = f"the {SIDES[side]} normalizes before the sum, the {SIDES[1 - side]} after it"
    return _moved(norms, side, does, {n.total.output: n for n in norms if n.total})


def _after_branch(norms: Sequence[Norm], side: int) -> After:
    does = f"the {SIDES[side]} normalizes what a branch reads, the {SIDES[1 - side]} what it returns"
    return _moved(norms, side, does, {n.branch: n for n in norms})


def _scaled(program: Program, norm: Norm) -> int | None:
    """Return the product of a norm's result and another value, if that alone reads the result; None for others."""
    reader = program.only_reader(norm.result)
    node = program.tape.nodes[reader[0]] if reader else None
    shapes = program.shapes
    scales = node is not None and node.kind == "mul" and len({*node.inputs}) == 2
    return node.output if node and scales and shapes[node.output] == shapes[norm.result] else None


def _after_scale(norms: Sequence[Norm], products: Mapping[int, int], side: int) -> After:
    does = f"the {SIDES[side]} normalizes before it multiplies by a scale, the {SIDES[1 - side]} after that"
    return _moved(norms, side, does, {products[id(n)]: n for n in norms})


def _moved(norms: Sequence[Norm], side: int, does: str, places: Mapping[int, Norm]) -> After:
    return After(side, MOVED, does + which(norms), places, fault=does, times=len(norms), named=len(norms))


def _left_out(norms: Sequence[Norm], side: int) -> LeftOut:
    text = f"the {SIDES[side]} normalizes, the {SIDES[1 - side]} does not{which(norms)}"
    return LeftOut(side, "missing norm", text, {norm.result: norm.entry for norm in norms}, times=len(norms))


def which(norms: Sequence[Norm]) -> str:
    """Name the modules of norms, or their parameters."""
    sites = shown_once(map(_site, norms))
    return f", with {in_a_row(folded_names(sites if all(sites) else [n for norm in norms for n in norm.parameters]))}"


def each_norm(program: Program) -> Iterator[Norm]:
    """Yield each norm with parameters: these follow on operations that join a value with others computed from it."""
    for chain in chains(program):
        norm = _norm(program, chain)
        if norm is not None:
            yield norm


def _norm(program: Program, chain: Sequence[Applied]) -> Norm | None:
    """Return the norm that ends with these parameters; None if it is none."""
    result = chain[-1].node.output
    forked = (region for region in program.regions(result, DEPTH) if any(_forks(program, node) for node in region[1]))
    # inside a norm of groups, values have an axis for the groups: its entry has the shape of its result again
    entry, nodes = next((one for one in forked if program.shapes[one.entry] == program.shapes[result]), (result, []))
    inner = {node.output for node in nodes}
    read = {at for node in nodes[:-1] for at, _ in program.readers(node.output)}
    whole = all(program.tape.nodes[at].output in inner for at in read)
    if not nodes or not whole:
        return None
    names = tuple(name for one in chain for name in one.names)
    return Norm(entry, result, tuple(nodes), names, *_total(program, result))


def _forks(program: Program, node: Node) -> bool:
    return len(program.active.intersection(node.inputs)) > 1


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

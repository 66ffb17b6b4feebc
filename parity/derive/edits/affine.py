"""Leave out parameters that one side alone adds or multiplies by, or exchange the order of a product and a sum."""

from __future__ import annotations

import itertools
import math
from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import NamedTuple

import numpy as np

from convert.folding import fold as folded_names
from parity.derive.trace.program import Program
from parity.derive.trace.tape import Array, Node, Tape
from specs.numbers import measured
from specs.words import in_a_row

from .edit import ELSEWHERE, SIDES, Edit, LeftOut, Scope, repeats, widened
from .sums import term
from .weights import Instead

MOST = 4  # chains of a side that are tried
PAIRS = 8  # pairs of operations of a side that are exchanged
MISSING = "missing parameter"  # the kind of edits that leave some out
MOVED = f"product {ELSEWHERE}"  # the kind of edits that exchange it with a sum
VERBS = {"add": "adds", "mul": "multiplies by"}


class Applied(NamedTuple):
    """An operation that adds parameters to a value, or multiplies it by them, or by one number.

    Args:
      value: what it reads beside them. names: of the parameters. number: without such names, the number.
    """

    node: Node
    value: int
    names: tuple[str, ...]
    number: float = 1.0

    def reading(self, value: int, output: int) -> Node:
        """Return the operation with another value beside its parameters, and another result."""
        inputs = tuple(value if number == self.value else number for number in self.node.inputs)
        return self.node._replace(inputs=inputs, output=output)


def applied(program: Program, numbers: bool = False) -> Iterator[Applied]:
    """Yield each operation that adds parameters to a value of its result's shape, or multiplies it by them.

    Args:
      numbers: whether those that multiply it by one number count too.
    """
    weights = program.weights
    for node in program.tape.nodes:
        values = [number for number in node.inputs if number in program.active]
        names = tuple(name for number in node.inputs for name in weights.get(number, ()))
        if node.kind not in VERBS or len(values) != 1 or program.shapes[values[0]] != program.shapes[node.output]:
            continue
        known = [program.tape.constants[number] for number in node.inputs if number in program.tape.constants]
        if names:
            yield Applied(node, values[0], names)
        elif numbers and node.kind == "mul" and len(known) == 1 and np.size(known[0]) == 1:
            yield Applied(node, values[0], (), float(np.real(np.ravel(known[0])[0])))


def _looked_up(program: Program) -> Iterator[Applied]:
    """Yield each operation that adds rows of a parameter, picked by inputs, to a value of its result's shape."""
    for node in program.tape.nodes:
        if node.kind == "add" and len(node.inputs) == 2 and program.active.issuperset(node.inputs):
            for number, value in itertools.permutations(node.inputs):
                names = _picked(program, number)
                if names and program.shapes[value] == program.shapes[node.output]:
                    yield Applied(node, value, names)


def added_tables(program: Program) -> list[str]:
    """List the parameters that are read only to add rows of them, picked by integers."""

    def picks(node: Node) -> bool:
        return node.kind == "layout" and not program.indices.keys().isdisjoint(node.inputs)

    def kinds(number: int) -> set[str]:
        return {program.tape.nodes[program.makers[output]].kind for output in _readers(program, number)}

    read = program.tape.parameters.items()
    return [name for name, number in read if all(map(picks, program.reading(number))) and kinds(number) == {"add"}]


def _picked(program: Program, value: int) -> tuple[str, ...]:
    """Return the names of the parameters of which a value is rows that inputs pick; () for any other value."""
    while value not in program.weights and (node := program.maker(value)) is not None and node.kind == "layout":
        sources = [number for number in node.inputs if number not in program.indices]
        if len(sources) != 1:
            return ()
        (value,) = sources
    return program.weights.get(value, ())


@dataclass(frozen=True)
class Exchanged(Edit):
    """Run two operations with parameters in the other order.

    Args:
      pairs: of operations, the second of which alone reads the result of the first.
    """

    pairs: Sequence[tuple[Applied, Applied]]

    @property
    def changed(self) -> Collection[int]:
        return [step.node.output for pair in self.pairs for step in pair]

    def tape(self, tape: Tape) -> Tape:
        firsts = {first.node.output for first, _ in self.pairs}
        seconds = {second.node.output: (first, second) for first, second in self.pairs}
        nodes = list[Node]()
        for node in tape.nodes:
            if node.output in seconds:
                first, second = seconds[node.output]
                nodes += [second.reading(first.value, second.value), first.reading(second.value, node.output)]
            elif node.output not in firsts:
                nodes.append(node)
        return replace(tape, nodes=nodes, parts={})


def chains(program: Program) -> list[list[Applied]]:
    """Return the operations of `applied` in groups that follow one another within a module, in order of execution."""
    ends: dict[int, list[Applied]] = {}
    for step in applied(program):
        chain = ends.get(step.value, [])
        follows = bool(chain) and chain[-1].node.site == step.node.site and len(program.readers(step.value)) == 1
        if follows:
            del ends[step.value]
        ends[step.node.output] = [*chain, step] if follows else [step]
    return list(ends.values())


def without_parameters(
    program: Program, names: Collection[str], side: int, span: tuple[int, int] | None
) -> Iterator[LeftOut]:
    """Yield an edit that leaves out the parameters of one side that have no partner on the other one.

    Args:
      names: of these, each of which is left out if it is added or a factor wherever it is read.
      span: the first operation and the end, between which all of them are read; None for anywhere.
    """
    every = [*applied(program), *_looked_up(program)]
    inside = [step for step in every if span is None or span[0] <= program.makers[step.node.output] < span[1]]
    some = [step for step in inside if set(step.names) <= set(names)]
    done = {step.node.output for step in some}
    read = {name for name in names if name in program.tape.parameters}
    elsewhere = {name for name in read if not _readers(program, program.tape.parameters[name]) <= done}
    some = [step for step in some if elsewhere.isdisjoint(step.names)]
    if some:
        yield _left_out([some], side)


def without_elements(program: Program, parts: Mapping[str, Array], side: int) -> Iterator[Instead]:
    """Yield an edit that puts zeros in place of the elements of one side that have no partner on the other one.

    Args:
      parts: names of parameters -> which of their elements have a partner. Those that are only added are changed.
    """
    weights = {name: program.tape.parameters[name] for name in parts if name in program.tape.parameters}
    added = {node.output for node in program.tape.nodes if node.kind == "add"}
    read = {name: _readers(program, number) for name, number in weights.items()}
    some = {name: parts[name] for name, outputs in read.items() if outputs and outputs <= added}
    if some:
        lacking = [f"{(~kept).sum():,} of {kept.size:,} elements of {name}" for name, kept in some.items()]
        text = f"the {SIDES[side]} adds {in_a_row(lacking)}, the {SIDES[1 - side]} does not"
        values = {weights[name]: (weights[name], partial(_only, kept)) for name, kept in some.items()}
        outputs = sorted({output for name in some for output in read[name]})
        firsts = tuple(min(read[name]) for name in some)
        yield Instead(side, MISSING, text, values, outputs, times=len(some), named=len(some), counted=firsts)


def _only(kept: Array, values: Array) -> Array:
    return np.where(kept, values, 0)


def without_chains(scope: Scope, side: int) -> Iterator[Edit]:
    """Yield edits that leave out parameters that are added or multiplied where the sides may differ."""
    program, names = scope.programs[side], scope.alone[side]
    found = chains(program)
    sums = (chain for chain in found if len(chain) > 1 and all(step.node.kind == "add" for step in chain))
    terms = [[step] for step in (*itertools.chain.from_iterable(sums), *_looked_up(program))]
    for some_chains in (terms, found):
        every = [chain for chain in some_chains if all(name in names for step in chain for name in step.names)]
        late = [chain for chain in every if program.makers[chain[-1].node.output] >= scope.firsts[side]]
        for chain in late[:MOST]:
            yield widened(_left_out(some, side) for some in repeats(chain, every, lambda other: other[-1].node.site))


def exchanged(scope: Scope, side: int) -> Iterator[Edit]:
    """Yield edits that multiply after something is added, or the other way round."""
    program = scope.programs[side]
    made = defaultdict[int, list[Applied]](list)
    every = list[tuple[Applied, Applied]]()
    for two in _joining(program):
        alone = program.only_reader(two.value) is not None
        every += [(step, two) for step in made[two.value] if alone and step.node.kind != two.node.kind]
        made[two.node.output].append(two)
    for pair in scope.nearest(side, every, lambda pair: pair[1].node.output, PAIRS):
        sorts = [_sort(step) for step in pair]
        alike = [other for other in every if [_sort(step) for step in other] == sorts]
        sets = repeats(pair, alike, lambda other: other[1].node.site)
        yield widened(_exchanged(program, some, side) for some in sets)


def _joining(program: Program) -> Iterator[Applied]:
    """Yield `applied` with numbers, and each operation that adds a table or a value, or multiplies by a value."""
    known = {step.node.output: step for step in applied(program, numbers=True)}
    for node in program.tape.nodes:
        shapes = {program.shapes[number] for number in node.inputs}
        values = [number for number in node.inputs if number in program.active]
        if node.output in known:
            yield known[node.output]
        elif node.kind not in VERBS or len({*node.inputs}) < 2:
            continue
        elif len(values) == 2 and shapes == {program.shapes[node.output]}:
            yield from (Applied(node, value, ()) for value in values)
        elif len(values) == 1 and node.kind == "add" and program.shapes[values[0]] == program.shapes[node.output]:
            others = [math.prod(program.shapes[number]) for number in node.inputs if number != values[0]]
            yield from (Applied(node, values[0], ()) for size in others if size > 1)


def _sort(step: Applied) -> tuple[str, bool, int]:
    """Return what operations have in common that are exchanged together."""
    return step.node.kind, bool(step.names), step.node.inputs.index(step.value)


def _exchanged(program: Program, pairs: Sequence[tuple[Applied, Applied]], side: int) -> Exchanged:
    verbs = [VERBS[step.node.kind] for step in pairs[0]]
    firsts, seconds = (_beside(program, [pair[k] for pair in pairs]) for k in (0, 1))
    does = f"{verbs[0]} {firsts} before it {verbs[1]} {seconds}"
    text = f"the {SIDES[side]} {does}, the {SIDES[1 - side]} after that"
    counted = tuple(second.node.output for _, second in pairs)
    named = all(step.names or step.number != 1 for step in pairs[0])
    fault = "" if named else f"the {SIDES[side]} {verbs[0]} before it {verbs[1]}"  # values are named by modules
    return Exchanged(side, MOVED, text, pairs, fault=fault, times=len(pairs), named=len(pairs), counted=counted)


def _beside(program: Program, some: Sequence[Applied]) -> str:
    """Name what is added to a value, or multiplies it: parameters, a number, a table, or another value."""
    step, node = some[0], some[0].node
    other = next(number for number in node.inputs if number != step.value)
    if step.names:
        return in_a_row(folded_names(dict.fromkeys(name for each in some for name in each.names)))
    if other in program.active:
        places = node.inputs.index(step.value)
        return term(program, [each.node for each in some], places)[0] if node.kind == "add" else "a gate"
    return measured(step.number) if node.kind == "mul" else "a table"


def _left_out(some: Sequence[Sequence[Applied]], side: int) -> LeftOut:
    """Return the edit that leaves out operations with parameters."""
    every = [step for chain in some for step in chain]
    words: dict[str, dict[str, None]] = {kind: {} for kind in VERBS}
    for step in every:
        words[step.node.kind].update(dict.fromkeys(step.names))
    texts = [f"{verb} {in_a_row(folded_names(words[kind]))}" for kind, verb in VERBS.items() if words[kind]]
    firsts: dict[str, int] = {}  # the result of the operation that uses a parameter first
    for step in every:
        firsts = {**dict.fromkeys(step.names, step.node.output), **firsts}
    text = f"the {SIDES[side]} {' and '.join(texts)}, the {SIDES[1 - side]} does not"
    return LeftOut(side, MISSING, text, {step.node.output: step.value for step in every},
                   times=len(firsts), counted=tuple(firsts.values()))  # fmt: skip


def _readers(program: Program, number: int) -> set[int]:
    """Return the results of the operations that read a parameter, also laid out otherwise."""
    readers = set[int]()
    for at, _ in program.readers(number):
        node = program.tape.nodes[at]
        readers |= _readers(program, node.output) if node.kind == "layout" else {node.output}
    return readers

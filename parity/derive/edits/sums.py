"""Leave out a term of a tape's sums, as a residual connection that one side alone has, or a branch that reads them."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from convert.folding import fold as folded_names
from parity.derive.trace.program import Program
from parity.derive.trace.sites import shown_once
from parity.derive.trace.tape import Node
from specs.words import in_a_row

from .edit import ELSEWHERE, SIDES, WHOLE, Edit, LeftOut, Reread, Scope, repeats, widened, with_names

MOST = 4  # sums of a side that are tried
FEW = 3  # parameters by which a term is named
BESIDE = f"sublayer {ELSEWHERE}"  # the kind of edits by which branches read a term of a sum


def _sums(program: Program) -> list[Node]:
    return [node for node in program.tape.nodes if adds(program, node)]


def _is_residual(program: Program, node: Node) -> bool:
    """Tell whether one term of a sum went through more products than the other one."""
    return len({program.depths.get(number, 0) for number in node.inputs[:2]}) > 1


def without_terms(scope: Scope, near_alone: bool = False) -> Iterator[Edit]:
    """Yield edits that leave out a term of sums of which a side has more than the other, residual ones or others.

    Args:
      near_alone: whether those near the place where the sides part are also counted alone: before it, one side may add
        what the other has as a constant.
    """
    programs, firsts = scope.programs, scope.firsts
    sums = [[(node, _is_residual(program, node)) for node in _sums(program)] for program in programs]
    near = [
        [(node, kind) for node, kind in some if program.makers[node.output] in nodes]
        for some, program, nodes in zip(sums, programs, scope.near, strict=True)
    ]
    counted = (sums, near) if near_alone else (sums,)
    counts = [[Counter(kind for _, kind in some) for some in which] for which in counted]
    for side, program in enumerate(programs):
        more = {kind for kind in (True, False) if any(c[side][kind] > c[1 - side][kind] for c in counts)}
        every = [node for node, _ in sums[side]]
        late = [(node, kind) for node, kind in sums[side] if program.makers[node.output] >= firsts[side]]
        some = dict.fromkeys(node.output for node, kind in (*late, *(near[side] if near_alone else ())) if kind in more)
        for node in [program.tape.nodes[program.makers[output]] for output in some][:MOST]:
            sets = repeats(node, every, lambda other: other.site)
            for remaining in (0, 1):
                yield widened(_left_out(program, some, remaining, side) for some in sets)


def beside_terms(scope: Scope, side: int) -> Iterator[Edit]:
    """Yield edits by which what reads a residual sum, and adds nothing to it, reads the term that has no branch."""
    program = scope.programs[side]
    every = [node for node in _sums(program) if _branches(program, node)]
    for node in scope.nearest(side, every, lambda node: node.output, MOST):
        for remaining in (0, 1):
            alike = [add for add in every if program.tape.depends([add.inputs[1 - remaining]], [add.inputs[remaining]])]
            if node in alike:
                sets = repeats(node, alike, lambda other: _branches(program, other)[0].site)
                yield widened(_beside(program, some, remaining, side) for some in sets)


class Term(NamedTuple):
    """A value of the residual stream that a sum adds to a branch, and an earlier one of that stream.

    Args:
      branch: the operation that computes the branch.
    """

    total: Node
    value: int
    earlier: int
    branch: Node


def earlier_terms(scope: Scope, side: int) -> Iterator[Edit]:
    """Yield edits by which a sum adds the value before the last residual sum to its branch."""
    program = scope.programs[side]
    every, stream = list[Term](), list[tuple[int, int]]()  # the stream: of each residual sum, the term and the result
    for node in _sums(program):
        for value, branch in (node.inputs, node.inputs[::-1]):
            if program.tape.depends([branch], [value]):
                last = reversed(stream[-MOST:])
                before = next((own for own, total in last if program.tape.depends([value], [total])), None)
                made = _maker(program, branch)
                if made and before is not None and program.shapes[before] == program.shapes[value]:
                    every.append(Term(node, value, before, made))
                stream.append((value, node.output))
    for one in scope.nearest(side, every, lambda each: each.total.output, MOST):
        yield widened(_retaken(some, side) for some in repeats(one, every, lambda each: each.branch.site))


def _retaken(some: Sequence[Term], side: int) -> Reread:
    own, other = "the value from which it is computed", "an earlier value of the residual stream"
    does = f"the {SIDES[side]} adds a branch to {own}, the {SIDES[1 - side]} to {other}"
    values, times = {each.total.output: {each.value: each.earlier} for each in some}, len(some)
    sites = shown_once(each.branch.site for each in some if each.branch.site)
    return Reread(side, "residual", does + with_names(sites), values, fault=does, times=times, named=times)


def _branches(program: Program, node: Node) -> list[Node]:
    """Return what reads a sum to which something else is added too, but for these sums."""
    readers = program.reading(node.output)
    others = [reader for reader in readers if not adds(program, reader)]
    return others if len(others) < len(readers) else []


def _beside(program: Program, sums: Sequence[Node], remaining: int, side: int) -> Reread:
    values = {end.output: {node.output: node.inputs[remaining]} for node in sums for end in _branches(program, node)}
    sites = shown_once(site for node in sums for end in _branches(program, node)[:1] if (site := end.site))
    does = f"the {SIDES[side]} has a branch behind the one before it, the {SIDES[1 - side]} beside it"
    counted, times = tuple(node.output for node in sums), len(sums)
    return Reread(side, BESIDE, does + with_names(sites), values, fault=does, times=times, named=times, counted=counted)


def _left_out(program: Program, sums: Sequence[Node], remaining: int, side: int) -> LeftOut:
    """Return the edit that leaves out one term of sums."""
    what, kind = term(program, sums, remaining)
    text = f"the {SIDES[side]} adds {what}, the {SIDES[1 - side]} does not"
    values = {node.output: node.inputs[remaining] for node in sums}
    fault = WHOLE.sub("#", text)  # the same in each block
    return LeftOut(side, kind, text, values, fault=fault, times=len(sums), named=len(sums))


def adds(program: Program, node: Node) -> bool:
    """Tell whether an operation adds two values of one shape, both of which depend on the inputs."""
    shapes = {program.shapes[number] for number in (*node.inputs, node.output)}
    return (
        node.kind == "add" and len({*node.inputs}) == 2 and len(shapes) == 1 and program.active.issuperset(node.inputs)
    )


def term(program: Program, sums: Sequence[Node], remaining: int) -> tuple[str, str]:
    """Return (the name of the term that one side alone adds, the kind of this cause, such as "added term")."""
    terms = [_named(program, node, remaining) for node in sums]
    kinds = {kind for _, _, kind in terms}
    whats = dict.fromkeys(what for what, _, _ in terms)
    if len(kinds) > 1 or len(whats) > 1:
        return "another term", "added term"
    (what,), (kind,) = whats, kinds
    names = in_a_row(folded_names(shown_once(name for _, own, _ in terms for name in own if name)))
    return " ".join(filter(None, [what, names])), kind


def _named(program: Program, node: Node, remaining: int) -> tuple[str, Sequence[str], str]:
    """Return (what one operand of a sum is, of which module or parameters, kind).

    It is the input of the branch beside it, or another term, which has the name of the parameters that it alone reads,
    or else of the operands of the product that it is.
    """
    number, other = node.inputs[1 - remaining], node.inputs[remaining]
    made = _maker(program, number)
    if program.tape.depends([other], [number]):
        if made is None or (node.site and not re.match(rf"{re.escape(node.site)}($|[./\[])", made.site)):
            return ("the input of" if node.site else "the model's input"), [node.site], "residual"
        sites = (reader.site for reader in program.reading(number))
        inside = next((site for site in sites if site and site != node.site), "")
        return ("the input of" if inside else "the input of its branch"), [inside], "residual"
    if made is not None and made.site and made.site != node.site:
        return "the output of", [made.site], "added term"
    own = program.tape.behind([number]) - program.tape.behind([other])
    names = [name for name, value in program.tape.parameters.items() if value in own]
    if 0 < len(names) <= FEW:
        return "a term of", names, "added term"
    factors = _factors(program, made)
    return "a product of" if factors else "another term", factors, "added term"


def _factors(program: Program, node: Node | None) -> list[str]:
    """Name both operands of a product: parameters, and the module that computes the other one; [] for no names."""
    if node is None or node.kind != "product":
        return []
    made = {number: _maker(program, number) for number in node.inputs if number not in program.weights}
    sites = {number: maker.site for number, maker in made.items() if maker is not None}
    every = [program.weights.get(number, (sites.get(number, ""),)) for number in node.inputs]
    return [name for names in every for name in names] if all(all(names) for names in every) else []


def _maker(program: Program, number: int) -> Node | None:
    """Return the operation that computes a value, before it is laid out otherwise; None for an input of the model."""
    while (node := program.maker(number)) is not None:
        active = [n for n in node.inputs if n in program.active]
        if node.kind != "layout" or len(active) != 1:
            return node
        number = active[0]
    return None

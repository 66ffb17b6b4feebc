"""Leave out a function of one value that one side alone computes: a mask, rotations, a table that is added."""

from __future__ import annotations

import itertools
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from parity.causes.hypotheses import ACTIVATIONS, NONE
from parity.derive.limits import ROUNDED_FUNCTIONS
from parity.derive.trace.draws import of_one_value
from parity.derive.trace.program import Program, Stretch
from parity.derive.trace.sites import shown
from parity.derive.trace.tape import Array, Node, tried
from specs.numbers import exact, measured
from specs.words import in_a_row

from .edit import SIDES, LeftOut, Reread, Scope
from .texts import CLOSE, MASK, dropout, mask
from .texts import named as table_named

FUNCTION, ORDER = "function", "reversal"  # the kinds of these edits
DEPTH = 16  # operations of one function at most
FEW = 3  # functions at one place that are left out one by one, as of queries, keys and values
DIGITS, LONGEST = 6, 80  # of a number in a function that is written out; characters of the function
VALUES = np.linspace(-7, 7, 15)  # at which functions are compared: few, as arrays have to hold them
KNOWN = {name: run(VALUES) for name, run in ACTIVATIONS.items() if name != NONE}
MOST = 12  # functions of a side that are tried, the shortest first

Signature = tuple[str, ...]


def _signature(function: Stretch) -> Signature:
    """Return what a function computes, in the framework's words."""
    return tuple(node.name or node.kind for node in function.nodes)


def without_functions(scope: Scope) -> Iterator[LeftOut]:
    """Yield edits that leave out a function wherever a side computes it, if the other side does so less often."""
    programs, near = scope.programs, scope.near
    every = [_by_signature(program) for program in programs]
    for side, program in enumerate(programs):
        more = {
            signature: stretches
            for signature, stretches in every[side].items()
            if len(stretches) > len(every[1 - side].get(signature, ()))
            and any(program.makers[function.result] in near[side] for function in stretches)
        }
        single = list[LeftOut]()  # as rotations of queries alone, where one side has those of keys too
        for signature in sorted(more, key=len)[:MOST]:
            some = [function for function in more[signature] if program.makers[function.result] in near[side]]
            alike = [other for other in more[signature] if formula(program, other) == formula(program, some[0])]
            site = some[0].nodes[-1].site
            beside = [function for function in some if function.nodes[-1].site == site and function in alike]
            name = named(program, some[0])
            kind = MASK if name.startswith("a mask") else FUNCTION
            does, not_so = f"the {SIDES[side]} applies {name}", f", the {SIDES[1 - side]} does not"
            everywhere, fault = _passed(alike), does + not_so
            edits = [
                LeftOut(
                    side, kind, does + _to_output(program, function.entry) + not_so, _passed([function]), fault=fault
                ).everywhere(everywhere)
                for function in (beside[-FEW:][::-1] if len(beside) > 1 else ())
            ]
            if edits and every[1 - side].get(signature):  # the other side computes it too, if less often
                yield from edits
                continue
            yield LeftOut(side, kind, fault, _passed(beside), times=len(beside)).everywhere(everywhere)
            single += edits
        yield from single


def without_turns(scope: Scope) -> Iterator[LeftOut | Reread]:
    """Yield edits that leave out a reversed order, as of the steps that a recurrent layer reads or returns.

    A product of all steps agrees in any order, so that the sides part behind it only.
    """
    turns = [dict(_turns(program)) for program in scope.programs]
    for side, own in enumerate(turns):
        program, text = scope.programs[side], f"the {SIDES[side]} reverses axis {{}}, the {SIDES[1 - side]} does not"
        for value in list(own)[: FEW if len(own) > len(turns[1 - side]) else 0]:
            entry = program.tape.nodes[program.makers[value]].inputs[0]
            yield LeftOut(side, ORDER, text.format(own[value]), {value: entry})
        text = f"the {SIDES[side]} joins what it computes in reverse order, the {SIDES[1 - side]} does not"
        for node in itertools.islice(_joined_backwards(program), FEW):
            instead = dict(zip(node.inputs, node.inputs[::-1], strict=True))
            yield Reread(side, ORDER, text, {node.output: instead})


def _turns(program: Program) -> Iterator[tuple[int, int]]:
    """Yield (value, axis) of each layout that reverses an axis of activations, and does nothing else."""
    for node in program.tape.nodes:
        shape = program.shapes[node.output]
        if node.kind != "layout" or len(node.inputs) > 1 or program.shapes[node.inputs[0]] != shape:
            continue
        if node.output in program.active and (few := [axis for axis, n in enumerate(shape) if n > 1]):
            x = np.arange(np.prod(shape)).reshape(shape)
            y = node.run(x)
            yield from ((node.output, axis) for axis in few if np.array_equal(np.flip(x, axis), y))


def _joined_backwards(program: Program) -> Iterator[Node]:
    """Yield layouts that join values of one shape, of which each is computed before the one ahead of it."""
    for node in program.tape.nodes:
        makers = [program.makers.get(number, -1) for number in node.inputs]
        backwards = len(makers) > 1 and all(one > other >= 0 for one, other in itertools.pairwise(makers))
        if node.kind == "layout" and backwards and len({program.shapes[number] for number in node.inputs}) == 1:
            yield node


def _passed(some: Sequence[Stretch]) -> dict[int, int]:
    return {function.result: function.entry for function in some}


def _to_output(program: Program, value: int) -> str:
    """Name the module that computes a value, whatever moves its elements after that; "" without a name."""
    made = program.maker(value)
    while made is not None and made.kind == "layout":
        made = program.maker(made.inputs[0])
    site = shown(made.site) if made else ""
    return f" to the output of {site}" * bool(site)


def _by_signature(program: Program) -> dict[Signature, list[Stretch]]:
    """List the functions of a program by what they compute: from one value to another of its shape."""
    weights, groups = program.weights, defaultdict[Signature, list[Stretch]](list)
    for result in program.tape.nodes:
        if result.output not in program.active or (result.kind == "layout" and len(result.inputs) < 2):
            continue
        for function in program.regions(result.output, DEPTH):
            if any(number in weights for node in function.nodes for number in node.inputs):
                break
            same = program.shapes[function.entry] == program.shapes[result.output]
            if same and _computes(program, function.nodes):
                groups[_signature(function)].append(function)
    return groups


def _computes(program: Program, nodes: Sequence[Node]) -> bool:
    """Tell whether operations do more than move elements, and add or multiply single numbers."""
    kinds = {node.kind for node in nodes}
    return "other" in kinds or any(_tables(program, node) for node in nodes if node.kind in ("add", "mul"))


def _tables(program: Program, node: Node) -> dict[int, Array]:
    """Return the known values of several elements that an operation reads: constants, or computed from the inputs."""
    known = {number: np.asarray(x) for number in node.inputs if (x := program.known(number)) is not None}
    return {number: x for number, x in known.items() if x.size > 1 and (x != x.flat[0]).any()}


def named(program: Program, function: Stretch) -> str:
    """Name a function by what it masks, by its tables, or by its operations."""
    if len(function.nodes) == 1 and (found := mask(program.function(function), program.shapes[function.entry])):
        call = function.nodes[0].call
        token = call.settings.get("padding_idx") if call else None
        return found.text if token is None else f"a mask of token {token} (padding_idx)"
    if text := dropout(program.function(function), program.shapes[function.entry]):
        return text
    if text := formula(program, function):
        return text
    read = [item for node in function.nodes for item in _tables(program, node).items()]
    constants = program.tape.constants
    tables = [table_named(table, number not in constants) for number, table in read if table.dtype != bool]
    names = [node.call.title for node in function.nodes if node.call and node.kind == "other"]
    what = [*dict.fromkeys(names), *dict.fromkeys(tables)]
    return in_a_row(what) if what else "a function of its own"


def formula(program: Program, function: Stretch) -> str:
    """Write a function of single numbers: "sin(9 * x)", or its name if that says all; "" for other functions.

    Numbers before and behind it that cancel each other are among them.
    """
    function = _with_scales(program, function)
    texts = {function.entry: "x"}
    for node in function.nodes:
        texts[node.output] = _written(program, node, texts)
        if not 0 < len(texts[node.output]) <= LONGEST:
            return ""
    if call := re.fullmatch(r"(\w+)\(x\)", texts[function.result]):
        return call[1]
    values = tried(program.function(function), VALUES)
    name = known_as(values) if values is not None and values.shape == VALUES.shape else ""
    return name or texts[function.result]


def known_as(values: Array) -> str:
    """Name the activation that has these values at VALUES; "" if none has."""
    close = (np.abs(np.stack([*KNOWN.values()]) - values) <= ROUNDED_FUNCTIONS).all(1)  # of finite values
    return [*KNOWN][close.argmax()] if close.any() else ""


def _written(program: Program, node: Node, texts: Mapping[int, str]) -> str:
    """Write an operation; "" where it is none of single numbers, or has no name.

    Args:
      texts: the values that the function has computed before it.
    """
    own = [number for number in node.inputs if number in texts]
    operands = [texts[number] for number in own]
    numbers = [value for number in node.inputs if (value := _number(program, number)) is not None]
    if len(numbers) + len(operands) < len(node.inputs):
        return ""
    if node.kind == "add":
        return " + ".join([*operands, *(measured(value, DIGITS) for value in numbers)]).replace("+ -", "- ")
    if node.kind == "mul":
        sums = [texts[n] != "x" and (made := program.maker(n)) is not None and made.kind == "add" for n in own]
        factors = [f"({text})" if is_sum else text for text, is_sum in zip(operands, sums, strict=True)]
        divisors = [1 / value for value in numbers if _divides(value)]
        factors = [*(measured(value, DIGITS) for value in numbers if not _divides(value)), *factors]
        text = " / ".join([" * ".join(factors), *(measured(value, DIGITS) for value in divisors)])
        return text.replace("* 1 / ", "/ ")
    if node.kind != "other" or len(node.inputs) > 1:
        return ""
    if node.call is None:
        return f"1 / ({operands[0]})" if tried(node.run, np.array(4.0)) == 1 / 4 else ""
    settings = (f", {name}={exact(value)}" for name, value in node.call.settings.items())
    return f"{node.call.title}({operands[0]}{''.join(settings)})"


def _divides(value: float) -> bool:
    """Tell whether a factor divides by a whole number."""
    return 0 < abs(value) < 1 and abs(1 / value - round(1 / value)) < CLOSE / abs(value)


def _number(program: Program, number: int) -> float | None:
    """Return the one number that a constant has everywhere; None for other values."""
    value = np.asarray(program.tape.constants.get(number, ()))
    return float(value.flat[0]) if value.dtype.kind in "iuf" and of_one_value(value) else None


def is_scaled(program: Program, function: Stretch) -> bool:
    """Tell whether numbers before and behind a function cancel each other, as in 30 * tanh(x / 30)."""
    return _with_scales(program, function) is not function


def _with_scales(program: Program, function: Stretch) -> Stretch:
    """Return a function with the fewest numbers before and behind it that cancel each other; itself without any."""
    before, behind = list[Node](), list[Node]()
    made = program.maker(function.entry)
    while made is not None and _scales(program, made):
        before.insert(0, made)
        made = program.maker(_scaled(program, made))
    reader = program.only_reader(function.result)
    while reader is not None and _scales(program, node := program.tape.nodes[reader[0]]):
        behind.append(node)
        reader = program.only_reader(node.output)
    x = np.array([0.0, 1.0])
    for first, count in itertools.product(range(len(before))[::-1], range(1, len(behind) + 1)):
        y, own = x, [*before[first:], *behind[:count]]
        for node in own:
            y = node.run(*(y if (value := _number(program, n)) is None else value for n in node.inputs))
        if np.allclose(x, y, 0, CLOSE):
            return Stretch(_scaled(program, own[0]), [*before[first:], *function.nodes, *behind[:count]])
    return function


def _scales(program: Program, node: Node) -> bool:
    """Tell whether an operation adds a number to a value, or multiplies by it."""
    return node.kind in ("add", "mul") and sum(_number(program, number) is None for number in node.inputs) == 1


def _scaled(program: Program, node: Node) -> int:
    """Return the value that an operation scales."""
    return next(number for number in node.inputs if _number(program, number) is None)

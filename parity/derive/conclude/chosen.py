"""Tell which partners, of several that fit, nothing confirms that is computed from them."""

from __future__ import annotations

import itertools
import math
from collections.abc import Collection, Mapping, Sequence

from parity.derive.limits import PARTED_USES
from parity.derive.match.choices import Step
from parity.derive.match.symbols import Elements
from parity.derive.trace.names import split
from parity.derive.trace.program import Program

FACTORS = "product", "mul"  # kinds of uses that meet values of whole columns, which agree by no chance


def chosen(program: Program, steps: Sequence[Step]) -> list[str]:
    """List right parameters that fit several left ones, where no product or scale behind them meets the same values.

    Among them are those whose columns no value puts in order, with all that read the same values as these, those whose
    partner shows by how often its elements are read, and by no value, and the others of their modules, which follow
    that choice, as a bias beside its weight.

    Args:
      program: of the right side. steps: its uses of parameters with their partners.
    """
    unordered = {value for step in steps if step.order_unknown for value in _read(program, step)}
    unsure = [
        step
        for step in steps
        if step.choices > 1 or step.kind == "place" or not unordered.isdisjoint(_read(program, step))
    ]
    names = dict.fromkeys(name for step in unsure for name in step.right)
    confirmed = _confirmed(program, *_agreeing(steps)) if names else set[str]()
    found = {name for name in names if name not in confirmed}
    modules = {path for path, _ in map(split, found) if path}
    every = dict.fromkeys(name for step in steps for name in step.right if name not in confirmed)
    return [name for name in every if name in found or split(name)[0] in modules]


def repeated(
    steps: Sequence[Step], partners: Mapping[str, Sequence[str]], lefts: Elements, rights: Elements
) -> set[str]:
    """Return right parameters that read what one left use reads whose partner is another one, as in a residual skipped.

    A left parameter of the same number of elements has no partner then. The right parameter that has the left one's
    name keeps it, or else the one that is read first.

    Args:
      partners: the right parameters of each left one.
    """
    free = {math.prod(lefts.shapes[name]) for name in lefts.names if name not in partners}
    uses = dict[tuple[int, tuple[str, ...]], dict[tuple[str, ...], None]]()
    for step in steps:
        if step.kind != "place" and step.partner >= 0:
            uses.setdefault((step.partner, step.left), {})[step.right] = None
    found = set[str]()
    for (_, left), names in uses.items():
        found.update(beside_owner(left, names))
    return {name for name in found if math.prod(rights.shapes[name]) in free}


def beside_owner(left: tuple[str, ...], rights: Collection[tuple[str, ...]]) -> list[str]:
    """Return right parameters that share left ones with others: the one of its name has it, or else the first one.

    Args:
      left: the left parameters. rights: those of each right use.
    """
    owner = left if left in rights else next(iter(rights))
    return [name for some in rights if some != owner for name in some]


def _read(program: Program, step: Step) -> set[int]:
    """Return the activations that a product with a parameter reads, before layouts; none of other uses."""
    inputs = program.tape.nodes[step.node].inputs if step.kind == "product" else ()
    return {program.before_layouts(number)[0] for number in inputs if number in program.active}


def _agreeing(steps: Sequence[Step]) -> tuple[set[str], int]:
    """Return the parameters of products and scales that meet the same values before the models part, and where they do.

    Behind that place the right side goes on with the left one's values, which confirms nothing: not even a later layer
    of a stacked parameter, which an earlier layer has met the same values with.

    Returns: also the operation on the right at which the models part; where they do not, the one behind the last use,
      as a search that ended early has not compared what follows.
    """
    before = [*itertools.takewhile(lambda step: step.kind == "add" or step.gap <= PARTED_USES, steps)]
    parted = len(before) < len(steps)
    end = steps[len(before)].node if parted else 1 + max((step.node for step in steps), default=-1)
    return {name for step in before if step.kind in FACTORS for name in step.right}, end


def _confirmed(program: Program, agreeing: set[str], end: int) -> set[str]:
    """Return the parameters from which values are computed that are multiplied by some others before an operation."""
    weights, bits = program.weights, {name: 1 << k for k, name in enumerate(program.tape.parameters)}
    behind = {number: bits[name] for name, number in program.tape.parameters.items()}  # parameters as bits: many nodes
    confirmed = 0
    for node in program.tape.nodes[:end]:
        for number, other in zip(node.inputs, node.inputs[::-1], strict=True) if node.kind in FACTORS else ():
            if other in weights and number in program.active and agreeing.issuperset(weights[other]):
                confirmed |= behind.get(number, 0)
        behind[node.output] = 0
        for number in node.inputs:
            behind[node.output] |= behind.get(number, 0)
    return {name for name, bit in bits.items() if confirmed & bit}

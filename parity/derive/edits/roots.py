"""Move the epsilon of a division by a deviation: from under the root, sqrt(variance + e), to the deviation, or back."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np

from parity.derive.limits import ROUNDED_FUNCTIONS
from parity.derive.trace.program import Program
from parity.derive.trace.tape import Array, Node, tried
from specs.numbers import measured

from .edit import Other, Scope, two_sided

LARGEST = 1e-2  # epsilon
VALUES = np.linspace(0.5, 4, 8)  # at which functions are compared
POWERS = {0.5: np.sqrt(VALUES), -0.5: VALUES**-0.5, -1.0: 1 / VALUES}


class Epsilon(NamedTuple):
    """A small number that is added to a variance or to a deviation.

    Args:
      power: of the sum: of a variance 0.5 or -0.5, of a deviation 1.
      entry: what the root reads, a variance with this number, or the deviation. result: of the root, or of the sum.
      active: whether these depend on the inputs.
    """

    value: float
    power: float
    entry: int
    result: int
    active: bool

    @property
    def inside(self) -> bool:
        return abs(self.power) < 1

    @property
    def where(self) -> str:
        """Return the number and where it is added: "1e-6 under the root"."""
        return f"{measured(self.value, 6)} {'under the root' if self.inside else 'added to the root'}"


def moved(scope: Scope) -> Iterator[Other]:
    """Yield edits of the right side that put epsilons where the left side has them, wherever it has such a one."""
    lefts, rights = map(_groups, scope.programs)
    for other in rights:
        for one in lefts:
            if one[0].inside != other[0].inside and one[0].active == other[0].active:
                both = one[0].where, other[0].where
                text = two_sided(f"epsilon {both[0]}", f"epsilon {both[1]}")
                for power in dict.fromkeys(epsilon.power for epsilon in other):
                    some = {epsilon.result: epsilon.entry for epsilon in other if epsilon.power == power}
                    run, more = _as(one[0].value, other[0].value, power), len(other) - 1
                    yield Other(1, "epsilon", text, some, run, both=both, times=len(some), more=more)


def _as(value: float, own: float, power: float) -> Callable[[Array], Array]:
    """Return the function that has an epsilon in the other place than its own one, of this power."""
    if power == 1:
        return lambda deviation: np.sqrt(np.square(deviation) + value)
    return lambda total: (np.sqrt(np.maximum(total - own, 0)) + value) ** np.sign(power)


def _groups(program: Program) -> list[list[Epsilon]]:
    """Return the epsilons of a program, those of one kind together."""
    groups: dict[tuple[float, float, bool], list[Epsilon]] = {}
    for epsilon in _epsilons(program):
        groups.setdefault((epsilon.value, epsilon.power, epsilon.active), []).append(epsilon)
    return list(groups.values())


def _epsilons(program: Program) -> Iterator[Epsilon]:
    for node in program.tape.nodes:
        value, entry = _added(program, node)
        reader = _reader(program, node) if value is not None else None
        if value is None or reader is None:
            continue
        power, active = _power(reader), node.output in program.active
        if power in (0.5, -0.5):
            yield Epsilon(value, power, reader.inputs[0], reader.output, active)
        elif power == -1:
            yield Epsilon(value, 1, entry, node.output, active)


def _reader(program: Program, node: Node) -> Node | None:
    """Return the one operation that reads a result, laid out otherwise or not; None if there are others."""
    while len(places := program.readers(node.output)) == 1:
        node = program.tape.nodes[places[0][0]]
        if node.kind != "layout" or len(node.inputs) > 1:
            return node
    return None


def _added(program: Program, node: Node) -> tuple[float | None, int]:
    """Return (a small number that an operation adds, what it adds it to); (None, 0) for other operations."""
    for number, entry in zip(node.inputs, node.inputs[::-1], strict=True) if node.kind == "add" else ():
        array = program.tape.constants.get(number)
        if array is not None and np.size(array) and np.asarray(array).dtype.kind == "f":
            value = float(np.ravel(array)[0])
            if 0 < value <= LARGEST and (np.asarray(array) == value).all():
                return value, entry
    return None, 0


def _power(node: Node) -> float | None:
    """Return the power that an operation raises to: 0.5, -0.5 or -1; None for other operations."""
    if node.kind != "other" or len(node.inputs) != 1:
        return None
    values = tried(node.run, VALUES)
    near = (power for power, value in POWERS.items() if values is not None and values.shape == value.shape
            and np.allclose(values, value, ROUNDED_FUNCTIONS, 0))  # fmt: skip
    return next(near, None)

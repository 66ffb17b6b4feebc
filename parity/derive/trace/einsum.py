"""Record an einsum as layouts around one product."""

from __future__ import annotations

import math
import string
from collections.abc import Sequence
from typing import NamedTuple

from .tape import Tape


class Contraction(NamedTuple):
    """An einsum of two operands none of which has a label of its own that is summed.

    Args:
      terms, result: labels of the axes of the operands and of the result.
      sizes: of each label.
    """

    terms: tuple[str, str]
    result: str
    sizes: dict[str, int]

    def record(self, tape: Tape, inputs: Sequence[int], site: str) -> int:
        """Append the einsum's operations and return its value's number."""
        a, b = self.terms
        batch = "".join(k for k in a if k in b and k in self.result)
        summed = "".join(k for k in a if k in b and k not in self.result)
        free = ["".join(k for k in term if k not in other) for term, other in ((a, b), (b, a))]
        matrices = (batch, free[0], summed), (batch, summed, free[1])
        x, w = (self._moved(tape, *use, site) for use in zip(inputs, self.terms, matrices, strict=True))
        order, shape = batch + free[0] + free[1], self._shape
        axes = [order.index(k) for k in self.result]
        y = tape.product(x, w, site) if summed else tape.multiply(x, w, site)
        return tape.layout(y, lambda v: v.reshape(shape(order)).transpose(axes), site)

    def _moved(self, tape: Tape, value: int, term: str, groups: Sequence[str], site: str) -> int:
        """Bring an operand into three axes, each of which joins those of some labels."""
        axes, shape = [term.index(k) for k in "".join(groups)], [math.prod(self._shape(part)) for part in groups]
        return tape.layout(value, lambda v: v.transpose(axes).reshape(shape), site)

    def _shape(self, labels: str) -> list[int]:
        return [self.sizes[k] for k in labels]


def read_einsum(equation: str, shapes: Sequence[Sequence[int]]) -> Contraction | None:
    """Read the equation of an einsum; None for one that is no product of two operands: diagonals, sums of one alone."""
    left, arrow, result = equation.replace(" ", "").partition("->")
    terms = left.split(",")
    unused = [letter for letter in string.ascii_letters if letter not in equation]
    hidden = [len(shape) - len(term.replace("...", "")) for term, shape in zip(terms, shapes, strict=True)]
    spread = "".join(unused[: max(hidden)])
    terms = [term.replace("...", spread[len(spread) - n :]) for term, n in zip(terms, hidden, strict=True)]
    if len(terms) != 2 or any(len(set(term)) < len(term) for term in terms):
        return None
    if not arrow:
        result = "..." + "".join(sorted(k for k in set(left) if left.count(k) == 1 and k.isalpha()))
    result = result.replace("...", spread)
    sizes: dict[str, int] = {}
    for term, shape in zip(terms, shapes, strict=True):
        if any(sizes.setdefault(k, n) != n for k, n in zip(term, shape, strict=True)):
            return None
    alone = set(terms[0]) ^ set(terms[1])
    return Contraction((terms[0], terms[1]), result, sizes) if alone <= set(result) else None

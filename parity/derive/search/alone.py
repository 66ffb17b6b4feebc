"""Find buffers that only one model has: masks and tables that the other one computes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping
from typing import NamedTuple

from parity.derive.limits import AGREEING_OUTPUTS
from parity.derive.match.symbols import Elements
from parity.derive.trace.outputs import difference
from parity.derive.trace.tape import Array

from .candidates import Candidate, Left


class Alone(NamedTuple):
    """Names of buffers without a partner, which keep the models' own values."""

    left: list[str]
    right: list[str]


def alone(known: Left, best: Candidate) -> Alone:
    """List the buffers of each side without a partner, where the other side has fewer arrays of that shape left over.

    Random values, which all arrays get, make a model compute something else where they replace a mask or a table of
    frequencies. Buffers of one value, as new statistics, stay: any could be the partner of another. Where outputs
    agree nothing is listed.
    """
    if _distance(best) <= AGREEING_OUTPUTS:
        return Alone([], [])
    rights = Elements(best.side.parameters, known=False)
    placed = {*known.elements.owners(best.found.map), *known.elements.owners(best.found.plus)}
    left = {name: array for name, array in known.side.parameters.items() if name not in placed}
    right = {n: a for n, a in best.side.parameters.items() if not rights.part(best.found.map, n).any()}
    return Alone(_spare(left, known.side.buffers, right), _spare(right, best.side.buffers, left))


def _spare(arrays: Mapping[str, Array], buffers: Collection[str], others: Mapping[str, Array]) -> list[str]:
    """List the buffers among arrays left over that are more than the other side has of their shape."""
    named: dict[tuple[int, ...], list[str]] = {}
    for name, array in arrays.items():
        if name in buffers and array.size and array.min() < array.max():
            named.setdefault(lengths_of(array), []).append(name)
    counts = Counter(map(lengths_of, arrays.values()))
    counts.subtract(map(lengths_of, others.values()))
    return [name for lengths, names in named.items() if len(names) <= counts[lengths] for name in names]


def lengths_of(array: Array) -> tuple[int, ...]:
    """Return an array's shape without what layouts change: the order of axes, and those of length 1."""
    return tuple(sorted(length for length in array.shape if length != 1))


def success(candidate: Candidate) -> tuple[bool, float, int]:
    """Return what grows with how well a match went: complete, with outputs that agree, or at least far."""
    complete, uses = candidate.depth
    return complete, -_distance(candidate), uses


def _distance(candidate: Candidate) -> float:
    """Return how far the outputs are apart, as matched, or values before them; infinite where it is not complete.

    Where values part a little, the right side goes on with the left ones, so that its outputs may agree all the same.
    """
    matched = candidate.found
    if matched.failure or matched.outputs is None:
        return float("inf")
    gaps = [step.gap for step in matched.steps if step.kind != "add"]
    return max(difference(candidate.programs[0].outputs, matched.outputs), *gaps, 0.0)

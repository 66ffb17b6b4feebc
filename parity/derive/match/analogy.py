"""Choose between partners by their names as earlier blocks were paired."""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import cache
from typing import NamedTuple

from specs.notation.paths import normal

Names = tuple[str, ...]  # of the parameters of one use


class Numbered(NamedTuple):
    """The names of a use: a template with # for each number, and the numbers."""

    template: str
    numbers: tuple[int, ...]

    def step(self, before: Numbered) -> int:
        """Return by how much the only number that differs is larger; 0 where none or several differ."""
        steps = [a - b for a, b in zip(self.numbers, before.numbers, strict=True) if a != b]
        return steps[0] if len(steps) == 1 else 0


@cache
def numbered(names: Names) -> Numbered:
    """Take names apart; once, since each step back compares the same ones."""
    name = " ".join(names)
    return Numbered(normal(name), tuple(map(int, re.findall(r"\d+", name))))


class Analogy:
    """Chooses between partners of equal evidence as earlier blocks did.

    If layers.1.a was paired with blocks.3.b, layers.2.a is paired with blocks.4.b, however alike other names are.
    """

    def __init__(self, pairs: Iterable[tuple[Names, Names]] = ()):
        self._pairs: dict[str, dict[tuple[int, ...], Numbered]] = {}  # right template -> its numbers -> left names
        for left, right in pairs:
            self.learn(left, right)

    def learn(self, left: Names, right: Names) -> None:
        """Remember that two uses are partners."""
        name = numbered(right)
        if name.numbers:
            self._pairs.setdefault(name.template, {})[name.numbers] = numbered(left)

    def __call__(self, left: Names, right: Names) -> bool:
        """Tell whether both are as many blocks further as names that were paired."""
        here, there = numbered(right), numbered(left)
        return any(
            before.template == there.template and (step := here.step(Numbered(here.template, numbers)))
            and step == there.step(before)
            for numbers, before in self._pairs.get(here.template, {}).items()
        )  # fmt: skip

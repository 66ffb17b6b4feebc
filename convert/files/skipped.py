"""Collect what a checkpoint contains beside its tensors, so that commands report it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Set
from typing import Any

from specs.numbers import exact

MAX_SKIPPED = 1000  # names of entries without tensors that are kept for reports; more are counted
NAMELESS = "named tuples, whose fields a pickle stores by number, without their names"
SETTINGS = "settings of pickled modules"  # whether it trains, a kernel's size, a module without arrays
MAX_VALUES = 50_000  # plain values of a file that are kept: as many as tensors


class Skipped:
    """What a checkpoint contains beside its tensors, by reason, for commands to report.

    No reader drops an entry without recording it here; None and empty containers have no content to report.

    Attributes:
      names: reason -> names in file order, at most MAX_SKIPPED of them.
      counts: reason -> the number of all.
      values: name -> the number, text, or list of such, of the first MAX_VALUES entries that are no more than that.
      classes: full names of what a pickle of torch names that torch.load refuses by weights_only=True, its default.
      empty: names of a pickle's empty dicts, at most MAX_SKIPPED of them. none: of values that are None, likewise.
      pending: what reads more values, for formats in which each is a read of its own; see `load`.
    """

    def __init__(self) -> None:
        self.names: dict[str, list[str]] = {}
        self.counts: Counter[str] = Counter()
        self.values: dict[str, Any] = {}
        self.classes: set[str] = set()
        self.empty: list[str] = []
        self.none: list[str] = []
        self.pending: list[Callable[[], dict[str, Any]]] = []

    def add(self, name: str | Callable[[], str], reason: str, value: Any = None) -> None:
        """Record an entry.

        Args:
          name: of the entry; a function is called only while names are kept, as a file may have millions of entries.
          reason: what it is, as in "a number" or "a file that nothing refers to"; one of a few texts.
          value: of a plain entry; None where it is not to be kept.
        """
        self.counts[reason] += 1
        names = self.names.setdefault(reason, [])
        keeps_name, keeps_value = len(names) < MAX_SKIPPED, value is not None and len(self.values) < MAX_VALUES
        if not keeps_name and not keeps_value:
            return
        text = name if isinstance(name, str) else name()
        if keeps_name:
            names.append(text)
        if keeps_value:
            self.values[text] = value

    def load(self) -> dict[str, Any]:
        """Return all values, with those that were not read so far. Raises: FormatError."""
        while self.pending:
            self.values.update(self.pending.pop()())
        return self.values

    def described(self, name: str) -> str:
        """Say what the file has under a name instead of an array: "a list of 8 numbers", "None"; "" if nothing."""
        if name in self.none:
            return "None"
        if name in self.empty:
            return "an empty dict"
        value = self.values.get(name)
        if isinstance(value, list):
            kind = "numbers" if all(isinstance(each, (int, float)) for each in value) else "numbers or texts"
            return f"a list of {len(value):,} {kind}"
        if isinstance(value, (int, float)):
            return f"the number {exact(value)}"
        for what, names in self.names.items():
            if name in names:
                return what
            if any(inner.startswith(f"{name}/") for inner in names):
                return "a list or dict of other values"
        return ""

    def without(self, used: Set[str]) -> Skipped:
        """Return the same without some entries, which something else reports."""
        rest = Skipped()
        rest.classes = self.classes
        for reason, names in self.names.items():
            left = [name for name in names if name not in used]
            if count := self.counts[reason] - len(names) + len(left):
                rest.names[reason], rest.counts[reason] = left, count
        rest.values = {name: value for name, value in self.values.items() if name not in used}
        return rest

    def update(self, other: Skipped) -> None:
        """Record everything that another reader has skipped."""
        for reason, names in other.names.items():
            for name in names:
                self.add(name, reason)
            self.counts[reason] += other.counts[reason] - len(names)
        self.values.update(other.values)
        self.classes |= other.classes

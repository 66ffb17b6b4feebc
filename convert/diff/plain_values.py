"""Compare the numbers and texts that two checkpoints have beside their arrays, as a learning rate or an epoch."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from convert.config.conventions import same
from convert.files.base import Reader
from convert.folding import cut
from convert.reading.nesting import training
from specs.numbers import exact
from specs.words import count

from .numbered import LISTS, Match, compared, in_group, is_implied

UNMATCHED = Match()

LISTED = 8  # values that a note lists


@dataclass(frozen=True)
class PlainValues:
    """The values that two files have by the same names, those of a part of either file by that of A's part.

    Args:
      names: of all, as either file has them.
      differing: {name: its values in A and in B} of those that differ; None where a file stores none.
      alike: {name: its value} of those that agree, without groups that were matched by names of parameters.
    """

    names: frozenset[str]
    differing: Mapping[str, tuple[object, object]]
    alike: Mapping[str, object]

    @classmethod
    def of(
        cls, a: Reader, b: Reader, match: Match = UNMATCHED, parts: tuple[str, str] = ("", ""), asked: str | None = None
    ) -> PlainValues:
        """Compare two files; floats count as equal where they are one float32. Raises: FormatError.

        Args:
          match: of two optimizers' parameters, by which their groups' values are compared.
          parts: prefixes of what is compared of A and of B.
          asked: prefix of names of which a value that one file alone stores is a difference; None is of no name.
        """
        ours, theirs = a.skipped.load(), b.skipped.load()
        in_a, in_b = (_renamed(values, part, common(parts)) for values, part in zip((ours, theirs), parts, strict=True))
        names = [name for name in {**in_a, **in_b} if match.known or not in_group(name)]
        of_files = {name: (in_a.get(name, ""), in_b.get(name, "")) for name in names}
        grouped, of_groups = set[str](), dict[str, tuple[object, object]]()
        if match.a and match.b:
            keys, of_groups = compared(match.a, match.b)
            entries = {**match.a.entries(ours), **match.b.entries(theirs)}
            of_files = {name: own for name, own in of_files.items() if entries.keys().isdisjoint(own)}
            grouped = {name for name, key in entries.items() if key in keys or key in LISTS}
        pairs = {name: (ours.get(one), theirs.get(two)) for name, (one, two) in of_files.items()}
        alone = {name for name, values in pairs.items() if any(value is None for value in values)}
        left_out = {
            name for name in alone if asked is None or not name.startswith(asked) or is_implied(name, pairs[name])
        }
        pairs = {name: values for name, values in pairs.items() if name not in left_out}
        differing = {name: values for name, values in pairs.items() if name in alone or not same(*values)}
        alike = {name: value for name, (value, _) in pairs.items() if name not in differing}
        both = {*grouped, *pairs, *(one for name in pairs for one in of_files[name])}
        return cls(frozenset(both), {**differing, **of_groups}, alike)

    def beside(self, others: PlainValues) -> PlainValues:
        """Return these and other values."""
        differing, alike = {**others.differing, **self.differing}, {**others.alike, **self.alike}
        return PlainValues(self.names | others.names, differing, alike)

    def only(self, kept: Callable[[str], bool]) -> PlainValues:
        """Return those of the values whose names `kept` takes."""
        differing = {name: values for name, values in self.differing.items() if kept(name)}
        alike = {name: value for name, value in self.alike.items() if kept(name)}
        return PlainValues(frozenset(filter(kept, self.names)), differing, alike)

    def part(self, root: str | None) -> PlainValues:
        """Return those of a part of both files, of an optimizer also those of its groups; None is no part."""
        grouped = bool(root and training(root))  # "lr of a.weight"
        return self.only(lambda name: root is not None and (name.startswith(root) or (grouped and " of " in name)))

    def entries(self) -> list[dict[str, Any]]:
        """Describe the values that differ, as `differences` describes arrays."""
        return [
            {"setting": name, "kind": "plain", "error": None, "a": ours, "b": theirs,
             "detail": " and ".join(_apart(ours, theirs))}
            for name, (ours, theirs) in self.differing.items()
        ]  # fmt: skip

    def verdict(self) -> list[str]:
        """Return what the verdict excepts: the two may be one training at different steps."""
        number = len(self.differing)
        return [f"{count(number, 'plain value')} that differ{'s' if number == 1 else ''}"] if number else []

    def notes(self, entries: Iterable[Mapping[str, Any]]) -> list[str]:
        """List the values that agree, and those that differ and are none of these differences, which are shown."""
        same_ones = [f"{name}={_shortened(value)}" for name, value in self.alike.items()]
        agree = [f"plain values that agree: {_listed(same_ones)}"] if same_ones else []
        shown = {entry.get("setting") for entry in entries}
        others = {name: _apart(*values) for name, values in self.differing.items() if name not in shown}
        apart = [f"{name} is {ours} in A, {theirs} in B" for name, (ours, theirs) in others.items()]
        return [*agree, *([f"plain values that differ: {_listed(apart)}"] if apart else [])]


def common(parts: tuple[str, str]) -> str:
    """Return the prefix under which values of both parts are named: A's, or B's where A is a whole file."""
    return parts[0] or parts[1]


def _renamed(names: Iterable[str], part: str, root: str) -> dict[str, str]:
    """Return {name as both files may have it: name in the file}, with `root` in place of the part."""
    outside = {name: name for name in names if not name.startswith(part)}
    return outside | {root + name.removeprefix(part): name for name in names if name.startswith(part)}


def _listed(texts: Sequence[str]) -> str:
    more = len(texts) - LISTED
    return "; ".join(texts[:LISTED]) + f"; and {more:,} more" * (more > 0)


def _apart(ours: object, theirs: object) -> tuple[str, str]:
    """Return two values that differ as texts that differ: of long lists the length, or the first unlike element."""
    a, b = _shortened(ours), _shortened(theirs)
    if a != b or not (isinstance(ours, list) and isinstance(theirs, list)):
        return a, b
    if len(ours) != len(theirs):
        return f"a list of {len(ours):,}", f"a list of {len(theirs):,}"
    at = next(number for number, pair in enumerate(zip(ours, theirs, strict=True)) if not same(*pair))
    return f"{_shortened(ours[at])} at [{at}]", f"{_shortened(theirs[at])} at [{at}]"


def _shortened(value: object) -> str:
    """Return a value as a text; None is what a file does not store."""
    return "not stored" if value is None else cut(exact(value))

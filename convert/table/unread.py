"""Name arrays of a file that no line of a Table speaks of, and the lines that may mean them."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable

from convert import folding
from specs.notation.folding import LEVEL, first_block
from specs.notation.paths import escaped
from specs.table import Table

OTHER_DEPTH = "the Table holds for one number of these blocks: derive it again from models with as many as the file has"
ONE_BLOCK = "numbers that count blocks: write {i} for them, or derive the table from models with two of everything"
SEVERAL = 3  # arrays of one block that are listed one by one
LISTED = re.compile(r"\{\w+=\d[\d.|]*\}")  # numbers that a hole lists


def unread(unexpected: list[str], missing: list[str], table: Table, drop: str) -> list[str]:
    """Return "X: no line speaks of it (nearest: line 7, ...)" for each name, with advice where numbers alone differ.

    Args:
      missing: what lines need and the file lacks: a name is near to no other line.
      drop: a line that drops an array; "" where a wrong name is the likelier cause.
    """
    labels = {array.label: line.number for line in table.lines for array in line.left.arrays}
    alike = _fixed(labels)
    forms = Counter(map(_level_numbers, labels))
    lines, groups, advice = list[str](), dict[str, list[str]](), dict[str, None]()
    blocks: dict[str, list[tuple[list[str], list[str]]]] = {}
    for name in unexpected:
        groups.setdefault(_level_numbers(name), []).append(name)
    for label, names in [(alike[form], groups.pop(form)) for form in list(groups) if form in alike]:
        why = f"line {labels[label]}, {label}, has other numbers"
        own = [f"{name}: no line speaks of it ({why})" for name in folding.fold(names)]
        blocks.setdefault(first_block(label), []).append((names, own))
        several = forms[_level_numbers(label)] > 1 or LISTED.search(label)
        advice[OTHER_DEPTH if several else ONE_BLOCK] = None
    for block, arrays in blocks.items():
        names = [name for some, _ in arrays for name in some]
        known = ", ".join(folding.fold(dict.fromkeys(map(first_block, names))))
        what = f"{known}: no line speaks of these blocks, {len(names)} arrays (the table has {block} alone)"
        lines += [what] if len(arrays) > SEVERAL else [line for _, own in arrays for line in own]
    others = folding.fold(name for names in groups.values() for name in names)
    near = folding.nearest(others, [label for label in labels if label in missing])
    for name in others:
        where = f" (nearest: line {labels[near[name]]}, {near[name]})" if name in near else ""
        lines.append(f"{name}: no line speaks of it{where}")
    if others and drop and (example := next(reversed(groups.values()))[-1]):
        lines[-1] += f": if the other side needs none, the line {drop.format(escaped(example))} leaves it out"
    return [*folding.capped(lines, "arrays without a line"), *advice]


def _fixed(labels: Iterable[str]) -> dict[str, str]:
    """Return {a name of a Table with # for its numbers: the name}, of names with numbers that count nothing."""
    plain = ((label, re.sub(r"\{[^}]*\}", "", label)) for label in labels)
    return {_level_numbers(label): label for label, rest in plain if LISTED.search(label) or LEVEL.search(rest)}


def of_other_blocks(unexpected: Iterable[str], table: Table) -> int:
    """Count the names that differ from a Table's in numbers alone, as of a model with more blocks."""
    fixed = _fixed(array.label for line in table.lines for array in line.left.arrays)
    return sum(_level_numbers(name) in fixed for name in unexpected)


def _level_numbers(name: str) -> str:
    """Return a name with each level that is a number, or counts, as #: "layers/{i}/ln1" is "layers/#/ln1"."""
    return LEVEL.sub("#", re.sub(r"\{[^}=]*\}", "0", LISTED.sub("0", name)))

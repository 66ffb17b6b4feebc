"""Find blocks that a file lacks as a whole, though it has blocks of lower and of higher numbers."""

from __future__ import annotations

from collections.abc import Collection, Iterable

from specs.notation.folding import LEVEL, fold
from specs.words import count


def gaps(missing: Iterable[str], names: Collection[str]) -> tuple[list[str], list[str]]:
    """Return a line for each block without any array between others, and the missing names outside of such blocks."""
    there: dict[str, set[int]] = {}  # what stands before a number -> the numbers
    for name in names:
        for at in LEVEL.finditer(name):
            there.setdefault(name[: at.start()], set()).add(int(at[0]))
    ends = {before: (min(numbers), max(numbers)) for before, numbers in there.items()}
    blocks: dict[tuple[str, str], int] = {}
    others = []
    for name in missing:
        pairs = ((name[: at.start()], at[0]) for at in LEVEL.finditer(name))
        block = next(
            ((before, n) for before, n in pairs if before in there and _is_gap(int(n), there[before], ends[before])),
            None,
        )
        if block:
            blocks[block] = blocks.get(block, 0) + 1
        else:
            others.append(name)
    present = {before: fold(f"{before}{n}" for n in there[before])[0] for before in {before for before, _ in blocks}}
    lines = [
        f"missing {before}{number}, with {count(arrays, 'array')}: the file has {present[before]}"
        for (before, number), arrays in blocks.items()
    ]
    return lines, others


def _is_gap(number: int, numbers: Collection[int], ends: tuple[int, int]) -> bool:
    """Tell whether a number is absent between the lowest and the highest of others."""
    return ends[0] < number < ends[1] and number not in numbers

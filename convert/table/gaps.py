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
    blocks: dict[tuple[str, str], int] = {}
    others = []
    for name in missing:
        found = ((name[: at.start()], at[0]) for at in LEVEL.finditer(name))
        block = next(((before, n) for before, n in found if _is_between(int(n), there.get(before, set()))), None)
        if block:
            blocks[block] = blocks.get(block, 0) + 1
        else:
            others.append(name)
    return [_line(*block, number, there[block[0]]) for block, number in blocks.items()], others


def _is_between(number: int, numbers: set[int]) -> bool:
    return bool(numbers) and number not in numbers and min(numbers) < number < max(numbers)


def _line(before: str, number: str, arrays: int, numbers: set[int]) -> str:
    (present,) = fold(f"{before}{n}" for n in numbers)
    return f"missing {before}{number}, with {count(arrays, 'array')}: the file has {present}"

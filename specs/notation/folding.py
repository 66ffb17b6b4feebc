"""Fold the numbers of names, so that many names of blocks take few lines."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable

FOLDED = 6  # numbers in a name that are folded: the first ones
RUNS = 12  # numbers, or runs of them, that a folded name lists
LINES = 40  # lines of one kind; more are counted
SEVERAL = 3  # arrays of one block that are listed one by one
LEVEL = re.compile(r"(?<![A-Za-z0-9])[0-9]+(?![A-Za-z0-9])")  # a number in a name that may count blocks
_NUMBER = re.compile(r"([0-9]+)")


def fold(names: Iterable[str]) -> list[str]:
    """Fold the numbers of names: blocks.0.bias, blocks.1.bias, blocks.2.bias -> blocks.{0..2}.bias."""
    return list(counted(names))


def counted(names: Iterable[str]) -> dict[str, int]:
    """Fold the numbers of names, and return {folded name: how many names it stands for}."""
    split = {tuple(_NUMBER.split(name, FOLDED)): 1 for name in names}
    for at in range(1, max(map(len, split), default=0), 2):
        numbers: dict[tuple[str, ...], list[str]] = {}
        sizes: Counter[tuple[str, ...]] = Counter()
        for parts, size in split.items():
            key = parts
            if at < len(parts) and len(parts[at]) < 9:
                key = (*parts[:at], "#", *parts[at + 1 :])
                numbers.setdefault(key, []).append(parts[at])
            sizes[key] += size
        split = {
            (*key[:at], _span(numbers[key]), *key[at + 1 :]) if key in numbers else key: size
            for key, size in sizes.items()
        }
    return {"".join(parts): size for parts, size in split.items()}


def _span(numbers: list[str]) -> str:
    """Return numbers as names spell them, zeros before them included: "3", "{0..3}", "{00..11}" or "{1,01,4..9}".

    Of many, at equal distances or not, the first ones and the last one stand there: "{0,3,6,9,12,15,...,3999}".
    """
    spelled = sorted(set(numbers), key=lambda number: (int(number), number))
    runs: list[list[str]] = []
    for number in spelled:
        if runs and int(number) == int(runs[-1][-1]) + 1:
            runs[-1].append(number)
        else:
            runs.append([number])
    long = 1 if len(runs) == 1 else 2  # a pair among others is as short without dots
    parts = [part for run in runs for part in ([f"{run[0]}..{run[-1]}"] if len(run) > long else run)]
    if len(parts) > RUNS:
        parts = [*parts[: RUNS // 2], "...", parts[-1]]
    return spelled[0] if len(spelled) == 1 else "{" + ",".join(parts) + "}"


def first_block(name: str) -> str:
    """Return a name up to its first level that is a number: "encoder.0" of "encoder.0.norm.weight"."""
    first = LEVEL.search(name)
    return name[: first.end()] if first else name


def capped(lines: list[str], what: str) -> list[str]:
    """Return at most LINES lines, and how many more there are."""
    return lines if len(lines) <= LINES else [*lines[:LINES], f"and {len(lines) - LINES} more {what}"]


def misfits(pairs: Iterable[tuple[str, str]]) -> list[str]:
    """Return "X has shape ..., expected ..." for each folded name: pairs of a name and what is wrong with it.

    Of blocks with several such arrays, the first is named and the others are counted.
    """
    others, groups = _grouped(pairs)
    names: dict[str, list[str]] = {}
    for name, problem in others:
        names.setdefault(problem, []).append(name)
    lines = [f"{name} {problem}" for problem, like in names.items() for name in fold(like)]
    for arrays, blocks in groups.items():
        (first, problem), *more = arrays
        each = " each" * (len(blocks) > 1)
        if all(other == problem for _, other in more):
            example = first.lstrip("./")
            lines.append(f"{', '.join(fold(blocks))} ({len(arrays)} arrays{each}, as {example}): each {problem}")
        else:
            names_of_first = ", ".join(fold(block + first for block in blocks))
            lines.append(f"{names_of_first} {problem} (and {len(more)} more arrays of{each or ' this'} block)")
    return capped(lines, "that do not fit")


Named = tuple[str, str]  # a name, and what is said of it


def _grouped(pairs: Iterable[Named]) -> tuple[list[Named], dict[tuple[Named, ...], list[str]]]:
    """Separate the arrays of blocks that have more than SEVERAL of them: {their names below the block: the blocks}."""
    every = list(dict.fromkeys(pairs))
    block_of = {name: first_block(name) for name, _ in every if LEVEL.search(name)}
    inside: dict[str, list[Named]] = {}
    for name, what in every:
        if name in block_of:
            inside.setdefault(block_of[name], []).append((name[len(block_of[name]) :], what))
    large = {block: arrays for block, arrays in inside.items() if len(arrays) > SEVERAL}
    groups: dict[tuple[Named, ...], list[str]] = {}
    for block, arrays in large.items():
        groups.setdefault(tuple(arrays), []).append(block)
    return [pair for pair in every if block_of.get(pair[0]) not in large], groups

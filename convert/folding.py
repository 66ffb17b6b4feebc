"""Report many names in few lines: fold their numbers, and show the nearest names beside what is missing."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence

from .files.skipped import SETTINGS, Skipped

SHOWN = 6  # folded names in one line; more are counted
LINES = 40  # lines of one kind; more are counted
MATCHED = 200  # unused names among which the nearest is searched, as comparing them takes time
SIMILARITY = 0.6  # least ratio (0 to 1) of a name and its suggestion
FOLDED = 6  # numbers in a name that are folded: the first ones
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


def equations(rows: Iterable[Sequence[str]]) -> list[str]:
    """Fold rows of equal names: a.0 = b.c0, a.1 = b.c1 -> a.{0..1} = b.c{0..1}, the n-th number with the n-th."""
    alike: dict[tuple[str, ...], list[Sequence[str]]] = {}
    for row in rows:
        alike.setdefault(tuple(_NUMBER.sub("#", name) for name in row), []).append(row)
    lines = []
    for group in alike.values():
        sides = [list(names) for names in zip(*sorted(group, key=lambda row: _numbers(row[0])), strict=True)]
        folded = [fold(names) for names in sides]
        in_order = all(sorted(set(names), key=_numbers) == names for names in sides)  # and each name once
        one_each = all(len(names) == 1 for names in folded)
        lines += [" = ".join(row) for row in (zip(*folded, strict=True) if in_order and one_each else group)]
    return lines


def _numbers(name: str) -> tuple[list[int], str]:
    """Return what names that differ in their numbers alone are sorted by."""
    return [int(number) for number in _NUMBER.findall(name)], name


def _span(numbers: list[str]) -> str:
    """Return numbers as names spell them, zeros before them included: "3", "{0..3}", "{00..11}" or "{1,01,4..9}"."""
    spelled = sorted(set(numbers), key=lambda number: (int(number), number))
    runs: list[list[str]] = []
    for number in spelled:
        if runs and int(number) == int(runs[-1][-1]) + 1:
            runs[-1].append(number)
        else:
            runs.append([number])
    long = 1 if len(runs) == 1 else 2  # a pair among others is as short without dots
    parts = [part for run in runs for part in ([f"{run[0]}..{run[-1]}"] if len(run) > long else run)]
    return spelled[0] if len(spelled) == 1 else "{" + ",".join(parts) + "}"


def missing(names: list[str], unused: list[str]) -> list[str]:
    """Return "missing X (nearest unused: Y)" for each folded name."""
    folded = fold(names)
    near = nearest(folded, fold(unused))
    lines = [f"missing {name}{f' (nearest unused: {near[name]})' if name in near else ''}" for name in folded]
    return capped(lines, "missing")


def unexpected(names: list[str]) -> list[str]:
    return capped([f"unexpected {name}" for name in fold(names)], "unexpected")


def skipped(entries: Skipped, part: str = "") -> list[str]:
    """Return a line for each reason why entries of a file were skipped, with their folded names.

    Args:
      entries: what the reader of the file skipped.
      part: the part of the file in which the model lies; entries in it come first.
    """
    lines = []
    for reason, names in entries.names.items():
        if reason == SETTINGS:  # every module has some: one of each kind is listed
            lines.append(f"{reason}: {_cut(list(dict.fromkeys(name.rpartition('/')[2] for name in names)))}")
            continue
        shown = [*_inside(names, part), *_outside(names, part)]
        lines.append(f"{reason}: {_cut(shown, entries.counts[reason] - len(names))}")
    return lines


def _inside(names: list[str], part: str) -> list[str]:
    return _quoted(fold(name for name in names if not part or name.startswith(f"{part}/")))


def _quoted(names: Iterable[str]) -> list[str]:
    """Quote names that are numbers, which read as counts."""
    return [repr(name) if name.isdigit() else name for name in names]


def _outside(names: list[str], part: str) -> list[str]:
    """Return names outside the model, folded; where they are many, the containers in which they lie."""
    others = _quoted(fold(name for name in names if part and not name.startswith(f"{part}/")))
    if len(others) <= SHOWN:
        return others
    containers = Counter(name.partition("/")[0] for name in others)
    return [container if n == 1 else f"{container}/... ({n})" for container, n in containers.items()]


def damage(lines: Iterable[str]) -> list[str]:
    """Fold like lines about many damaged tensors, and count those beyond the first."""
    return capped(fold(lines), "like these")


def nearest(names: Sequence[str], unused: Sequence[str]) -> dict[str, str]:
    """Pair each name with its nearest unused name, {name: unused}; no unused name is given twice."""
    others = [other for other in unused if other not in names][:MATCHED]
    if not names or not others:
        return {}
    from difflib import SequenceMatcher, get_close_matches

    pairs = [
        (SequenceMatcher(None, name, other).ratio(), name, other)
        for name in names[:LINES]
        for other in get_close_matches(name, others, n=1, cutoff=SIMILARITY)
    ]
    found: dict[str, str] = {}
    for _, name, other in sorted(pairs, key=lambda pair: -pair[0]):
        if other not in found.values():
            found[name] = other
    return found


def capped(lines: list[str], what: str) -> list[str]:
    """Return at most LINES lines, and how many more there are."""
    return lines if len(lines) <= LINES else [*lines[:LINES], f"and {len(lines) - LINES} more {what}"]


def misfits(pairs: Iterable[tuple[str, str]]) -> list[str]:
    """Return "X has shape ..., expected ..." for each folded name: pairs of a name and what is wrong with it."""
    names: dict[str, list[str]] = {}
    for name, problem in pairs:
        names.setdefault(problem, []).append(name)
    return capped([f"{name} {problem}" for problem, like in names.items() for name in fold(like)], "that do not fit")


def summarised(names: Iterable[str]) -> str:
    """Return "norm.bias", or "blocks.{0..3}.norm.bias and 2 more", for one name or more: 2 names, not folded ones."""
    (first, _), *others = counted(names).items()
    more = sum(size for _, size in others)
    return first + (f" and {more:,} more" if more else "")


def listed(names: Iterable[str]) -> str:
    """Return folded names in one line, and how many more there are."""
    return _cut(fold(names))


def bfloat16(names: Sequence[str], others: int) -> list[str]:
    """Report arrays of uint16 that are read as bfloat16, if there are any.

    Args:
      others: the number of arrays that are not.
    """
    which = f"all {len(names):,} arrays" if len(names) > 1 and not others else listed(names) if names else ""
    return [f"uint16, read as the bfloat16 that paddle stores so: {which}"] if names else []


def _cut(folded: list[str], more: int = 0) -> str:
    """Join the first SHOWN names, and count the others and those that `more` counts."""
    more += len(folded[SHOWN:])
    return f"{', '.join(folded[:SHOWN])}{f' and {more:,} more' if more else ''}"

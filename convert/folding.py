"""Report many names in few lines: fold their numbers, and show the nearest names beside what is missing."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from .files.skipped import Skipped

SHOWN = 6  # folded names in one line about entries that were skipped
LINES = 40  # of one kind; more are counted
MATCHED = 200  # names among which the nearest is looked for, as comparing them takes time
ALIKE = 0.6  # from which share of common characters on a name is near another
FOLDED = 6  # numbers of a name, those that come first
_NUMBER = re.compile(r"([0-9]+)")


def fold(names: Iterable[str]) -> list[str]:
    """blocks.0.norm.bias, blocks.1.norm.bias, blocks.2.norm.bias -> blocks.{0..2}.norm.bias"""
    split = [tuple(_NUMBER.split(name, FOLDED)) for name in dict.fromkeys(names)]  # text and numbers in turn
    for at in range(1, max(map(len, split), default=0), 2):
        groups: dict[tuple[str, ...], list[str]] = {}
        for parts in split:
            if at < len(parts) and len(parts[at]) < 9:
                groups.setdefault((*parts[:at], "#", *parts[at + 1 :]), []).append(parts[at])
            else:
                groups[parts] = []
        split = [(*key[:at], _span(found), *key[at + 1 :]) if found else key for key, found in groups.items()]
    return list(map("".join, split))


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
        shown = [*_inside(names, part), *_outside(names, part)]
        more = len(shown[SHOWN:]) + entries.counts[reason] - len(names)
        lines.append(f"{reason}: {', '.join(shown[:SHOWN])}{f' and {more:,} more' if more else ''}")
    return lines


def _inside(names: list[str], part: str) -> list[str]:
    return fold(name for name in names if not part or name.startswith(f"{part}/"))


def _outside(names: list[str], part: str) -> list[str]:
    """Return names outside the model, folded; where they are many, the containers in which they lie."""
    others = fold(name for name in names if part and not name.startswith(f"{part}/"))
    if len(others) <= SHOWN:
        return others
    containers = Counter(name.partition("/")[0] for name in others)
    return [container if n == 1 else f"{container}/... ({n})" for container, n in containers.items()]


def damage(lines: Iterable[str]) -> list[str]:
    """Fold like lines about many damaged tensors, and count those beyond the first."""
    return capped(fold(lines), "like these")


def nearest(names: Sequence[str], among: Sequence[str]) -> dict[str, str]:
    """Return for names the one among others that is nearest to it, each of those for the name alone that is likest."""
    others = [other for other in among if other not in names][:MATCHED]
    if not names or not others:
        return {}
    from difflib import SequenceMatcher, get_close_matches

    pairs = [
        (SequenceMatcher(None, name, other).ratio(), name, other)
        for name in names[:LINES]
        for other in get_close_matches(name, others, n=1, cutoff=ALIKE)
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


def not_finite(
    tensors: Mapping[str, Mapping[str, Any]], labels: Callable[[], Mapping[str, str]] = dict
) -> tuple[dict[str, int], str]:
    """Count NaNs and infinities of a record's tensors that no cast produced: ({name: how many}, a note or "").

    Args:
      labels: computes what the note calls a tensor, where that is not its name.
    """
    counts = {
        name: line.get("not_finite", 0) - line.get("lossy", {}).get("infinities", 0) for name, line in tensors.items()
    }
    odd = {name: count for name, count in counts.items() if count}
    if not odd:
        return {}, ""
    called = labels()
    names = where(called.get(name, name) for name in odd)
    return odd, f"NaNs or infinities ({sum(odd.values()):,}) in {names}: copied as they are"


def where(counts: Iterable[str]) -> str:
    """Return "norm.bias", or "blocks.{0..3}.norm.bias and 2 more"."""
    first, *others = fold(counts)
    return first + (f" and {len(others)} more" if others else "")


def listed(names: Iterable[str]) -> str:
    """Return folded names in one line, and how many more there are."""
    shown = fold(names)
    more = len(shown[SHOWN:])
    return f"{', '.join(shown[:SHOWN])}{f' and {more:,} more' if more else ''}"

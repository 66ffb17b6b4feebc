"""Report many names in few lines: fold their numbers, and show the nearest names beside what is missing."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence

from specs.notation.folding import LINES, capped, counted, fold, misfits
from specs.words import first_few, in_a_row

from .files.skipped import SETTINGS, Skipped

__all__ = ["LINES", "capped", "counted", "fold", "misfits"]  # which callers take from here

SHOWN = 6  # folded names in one line; more are counted
LONGEST = 60  # characters of a plain value
MATCHED = 200  # unused names among which the nearest is searched, as comparing them takes time
SIMILARITY = 0.6  # least ratio (0 to 1) of what differs in a name and in its suggestion
_NUMBER = re.compile(r"([0-9]+)")
_OWN = "\0"  # stands for the name that a reason is of


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


def by_reason(reasons: Mapping[str, str]) -> dict[str, list[str]]:
    """Group names, {name: why}, by their reason: {why: names}. Reasons that differ in their own name alone are one."""
    groups: dict[str, list[str]] = {}
    several = Counter(reasons.values())
    for name, why in reasons.items():
        own = rf"(?<![\w./]){re.escape(name)}(?![\w/]|\.\w)"  # no part of a word: a name may be one letter
        groups.setdefault(why if several[why] > 1 or not name else re.sub(own, _OWN, why), []).append(name)
    return {why.replace(_OWN, in_a_row(fold(names))): names for why, names in groups.items()}


def _numbers(name: str) -> tuple[list[int], str]:
    """Return what names that differ in their numbers alone are sorted by."""
    return [int(number) for number in _NUMBER.findall(name)], name


def missing(names: list[str], unused: list[str]) -> list[str]:
    """Return "missing X (nearest unused: Y)" for each folded name."""
    folded = fold(names)
    near = nearest(folded, fold(unused))
    lines = [f"missing {name}{f' (nearest unused: {near[name]})' if name in near else ''}" for name in folded]
    return capped(lines, "missing")


def no_arrays(
    names: Iterable[str], described: Callable[[str], str], remedy: str = "save it as an array"
) -> dict[str, str]:
    """Return {name that is missing: what the file has under it, which is no array, and the remedy}.

    Args:
      described: says what the file has under a name; "" if nothing.
    """
    has = {name: what for name in names if (what := described(name))}
    return {name: f"{name} is {what} in the file, no array: {remedy}" for name, what in has.items()}


def unexpected(names: list[str]) -> list[str]:
    return capped([f"unexpected {name}" for name in fold(names)], "unexpected")


def skipped(entries: Skipped, part: str = "") -> list[str]:
    """Return "epoch, version (plain numbers)" for each reason why entries of a file were skipped.

    Args:
      entries: what the reader of the file skipped.
      part: the part of the file in which the model lies; entries in it come first.
    """
    lines = []
    for reason, names in entries.names.items():
        if reason == SETTINGS:  # every module has some: one of each kind is listed
            lines.append(
                f"{first_few(list(dict.fromkeys(name.rpartition('/')[2] for name in names)), SHOWN)} ({reason})"
            )
            continue
        shown = [*_inside(names, part), *_outside(names, part)]
        lines.append(f"{first_few(shown, SHOWN, entries.counts[reason] - len(names))} ({reason})")
    return lines


def _inside(names: list[str], part: str) -> list[str]:
    return _quoted(fold(name for name in names if part and name.startswith(f"{part}/")))


def _quoted(names: Iterable[str]) -> list[str]:
    """Quote names that are numbers, which read as counts."""
    return [repr(name) if name.isdigit() else name for name in names]


def _outside(names: list[str], part: str) -> list[str]:
    """Return names outside the model's part, folded; where they are many, the containers in which they lie."""
    others = _quoted(fold(name for name in names if not (part and name.startswith(f"{part}/"))))
    if len(others) <= SHOWN:
        return others
    containers: dict[str, list[str]] = {}
    for name in others:
        containers.setdefault(name.partition("/")[0], []).append(name)
    return [f"{place}/... ({len(some)})" if some[1:] else some[0] for place, some in containers.items()]


def damage(lines: Iterable[str]) -> list[str]:
    """Fold like lines about many damaged tensors, and count those beyond the first."""
    return capped(fold(lines), "like these")


def nearest(names: Sequence[str], unused: Sequence[str]) -> dict[str, str]:
    """Pair each name with the unused name that may be meant, {name: unused}; no unused name is given twice.

    The levels in which two names differ are compared: head.weight and stem.weight, which share one, are no such pair.
    """
    others = [other for other in unused if other not in names][:MATCHED]
    pairs = [(_likeness(name, other), name, other) for name in names[:LINES] for other in others]
    partners: dict[str, str] = {}
    for likeness, name, other in sorted(pairs, key=lambda pair: -pair[0]):
        if likeness >= SIMILARITY and name not in partners and other not in partners.values():
            partners[name] = other
    return partners


def _likeness(name: str, other: str) -> float:
    """Return how alike two names are in the levels in which they differ, 0 to 1, whatever their case.

    Numbers that are folded, as {0..11}, and a hole for them, as {i}, are alike.
    """
    from difflib import SequenceMatcher

    left, right = (re.split(r"[./]", re.sub(r"\{[^}]*\}", "#", one.lower())) for one in (name, other))
    shared = 0
    for end in (0, -1):
        while left and right and left[end] == right[end]:
            left.pop(end), right.pop(end)
            shared += 1
    if not left and not right:  # they differ in case, or in how numbers are written
        return 1.0
    if not left or not right:  # one has levels more
        return SIMILARITY if shared > 1 else 0.0
    matcher = SequenceMatcher(None, ".".join(left), ".".join(right))
    return matcher.ratio() if matcher.quick_ratio() >= SIMILARITY else 0.0


def summarised(names: Iterable[str], most: int = 1) -> str:
    """Return "norm.bias", or "blocks.{0..3}.norm.bias and 2 more", for one name or more: 2 names, not folded ones.

    Args:
      most: how many folded names stand there.
    """
    sizes = counted(names)
    return first_few([*sizes][:most], most, sum([*sizes.values()][most:]))


def listed(names: Iterable[str]) -> str:
    """Return folded names in one line, and how many more there are."""
    return first_few(fold(names), SHOWN)


def cut(text: str) -> str:
    """Return a plain value as a text, without the end of a long one."""
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 3]}..."


def bfloat16(names: Sequence[str], others: int) -> list[str]:
    """Report arrays of uint16 that are read as bfloat16, if there are any.

    Args:
      others: the number of arrays that are not.
    """
    which = f"all {len(names):,} arrays" if len(names) > 1 and not others else listed(names) if names else ""
    return [f"uint16, read as the bfloat16 that paddle stores so: {which}"] if names else []

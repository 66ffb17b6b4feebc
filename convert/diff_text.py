"""Print what `diff` found: the verdict first, a row for each group of arrays that differ alike, the count last."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable
from math import isfinite
from typing import Any

from specs.numerals import exact, short
from specs.words import count, in_a_row

from .array_differences import OWN
from .diff import Comparison
from .diff_plans import NOBODY
from .errors import printable
from .folding import fold, summarised
from .readings import normal
from .settings import spelled
from .terminal import say, table

SMALL = 1e-8  # of the largest element of all: arrays below it are the rounding of zeros, whatever their error
# Of the verdict, by the kind of a difference: words before the number, and the noun and words behind it.
KINDS = {
    "architecture": ("", "architecture", ""), "config": ("", "setting", ""), "missing": ("", "array", " only in A"),
    "unexpected": ("", "array", " only in B"), "shape": ("the shape of ", "array", ""),
    "value": ("the values of ", "array", ""),
}  # fmt: skip
ERROR = "error: the largest difference, relative to the largest finite element of the two arrays"
ORDER, ROUNDING = "order: largest error first", "; last, arrays whose values are below 1e-8 of the largest value listed"
NAMES = "names: those in A; --json states those in B too"
MODEL = ("architecture", "config")  # differences that are of no array
PLACED = ("shape", "value")  # differences that name axes or a position
HEADS = {  # of the table of each kind; names, which may be long, stand last, so that no row breaks the columns
    "architecture": ("", "in A", "in B"), "config": ("setting", "in A", "in B"),
    "missing": ("arrays only in A",), "unexpected": ("arrays only in B",),
    "shape": ("shape in A", "shape in B", "array"), "value": ("error", "elements", "array"),
}  # fmt: skip
NUMBERS = (0, 1)  # columns that are aligned on the right in the table of values


def show(comparison: Comparison, a: str, b: str) -> None:
    """Print a comparison of the files a and b. The first line is the verdict, the last one counts."""
    kind = {True: "good", False: "bad", None: "doubt"}[comparison.same]
    say(printable(f"{comparison.verdict}{counted(comparison.differences)}"), kind=kind)
    say(printable(f"A: {a}"))
    say(printable(f"B: {b}"))
    if comparison.differences:
        for line in ["", *rows(comparison.differences), ""]:
            say(printable(line))
        if any(entry["kind"] == "value" for entry in comparison.differences):
            say(ERROR, kind="soft")
        if len({normal(_name(entry)) for entry in comparison.differences if entry["kind"] == "value"}) > 1:
            say(order(comparison.differences), kind="soft")
        named = [entry for entry in comparison.differences if entry["kind"] not in MODEL]
        if any(entry["a"] != entry["b"] for entry in named if entry["a"] and entry["b"]):
            say(NAMES, kind="soft")
        placed = [
            entry for entry in comparison.differences if entry["kind"] in PLACED and entry["a"] != [entry["tensor"]]
        ]
        own, common = (
            {entry["kind"] for entry in placed if (entry["layout"] == OWN) is is_own} for is_own in (True, False)
        )
        if own:
            arrays = " of a row with one array on A's side" if own & common else ""
            too = ", and B's shapes too" if "shape" in own else ""
            say(f"{_what(own)}{arrays}: in A's own layout{too}", kind="soft")
        if common:
            say(f"layout of {'other ' * bool(own & common)}{_what(common)}: {comparison.layout}", kind="soft")
    neither = dict.fromkeys(entry["field"] for entry in comparison.assumed if entry["from"] == NOBODY)
    for name in neither:
        remedy = f"--set {name}=... states it, --assume accepts that they agree"
        say(printable(f"open: {name}, which neither file states: {remedy}"), kind="doubt")
    for line in assumptions(entry for entry in comparison.assumed if entry["field"] not in neither):
        say(printable(line), kind="doubt")
    say(printable(tally(comparison)))


def _what(kinds: Collection[str]) -> str:
    return " and ".join(["shapes"] * ("shape" in kinds) + ["positions"] * ("value" in kinds))


def order(differences: list[dict[str, Any]]) -> str:
    """Say in which order rows stand, and of arrays of rounding alone where there are any."""
    top = _top(differences)
    rounding = any(entry["kind"] == "value" and _size(entry) <= SMALL * top for entry in differences)
    return ORDER + ROUNDING * rounding


def tally(comparison: Comparison) -> str:
    """Count the arrays that were compared, and those that differ, also by no more than was asked for."""
    counts = Counter(entry["kind"] for entry in comparison.differences)
    apart, within = counts["shape"] + counts["value"], len(comparison.within)
    every = "all " * (1 < apart == comparison.arrays)
    parts = [f"{every}{apart:,} {_differ(apart)}"] if apart else []
    if within:
        worst, error = max(comparison.within.items(), key=lambda one: one[1])
        more = "more " if apart else ""
        parts.append(
            f"{within:,} {more}{_differ(within)} by at most {short(error)}, within {exact(comparison.rtol)} ({worst})"
        )
    parts = parts or ["every element equal"] * bool(comparison.arrays)
    parts += [f"{counts[kind]:,} more{KINDS[kind][2]}" for kind in ("missing", "unexpected") if counts[kind]]
    return ", ".join([f"{count(comparison.arrays, 'array')}{comparison.of} compared", *parts])


def _differ(number: int) -> str:
    return "differs" if number == 1 else "differ"


def assumptions(assumed: Iterable[dict[str, Any]]) -> list[str]:
    """Return a line for all values that have one source and that the same files do not state."""
    assumed = list(assumed)
    files: dict[tuple[str, bool, str, str], list[str]] = {}  # (source, by the user, value, what it replaces) -> files
    for entry in assumed:
        instead = f", whose record assumes {exact(entry['recorded'])}" if "recorded" in entry else ""
        value = f"{entry['field']}={exact(entry['value'])}"
        files.setdefault((entry["from"], "stated" in entry, value, instead), []).append(entry["file"])
    groups: dict[tuple[str, bool, str, str], list[str]] = {}
    for (source, stated, value, instead), every in files.items():
        groups.setdefault((source, stated, instead, " and ".join(dict.fromkeys(every))), []).append(value)
    options = {f"{one['field']}={exact(one['value'])}": spelled(one["field"], one["value"]) for one in assumed}
    lines = []
    for (source, stated, instead, paths), values in groups.items():
        if stated:
            lines.append(f"from {source}, not stated in {paths}{instead}: {', '.join(values)}")
            continue
        one, several = len(values) == 1, " and " in paths
        why = instead or f", which {'do' if several else 'does'} not state {'it' if one else 'them'}"
        remedy = f"{' '.join(options[value] for value in values)} {'states it' if one else 'state them'}"
        lines.append(f"assumed: {', '.join(values)} of {paths}{why}: from {source} ({remedy})")
    return lines


def counted(differences: list[dict[str, Any]]) -> str:
    """Count the differences by kind: ": 1 setting, 2 arrays only in A and the values of 3 arrays"."""
    counts = Counter(entry["kind"] for entry in differences)
    if counts["architecture"]:
        return ": two architectures"
    kinds = {kind: words for kind, words in KINDS.items() if counts[kind]}
    shown = in_a_row(f"{before}{count(counts[kind], noun)}{after}" for kind, (before, noun, after) in kinds.items())
    return f": {shown}" if shown else ""


def rows(differences: list[dict[str, Any]]) -> list[str]:
    """Return a table for each kind of difference; arrays whose names differ in numbers alone share a row."""
    lines: list[str] = []
    top = _top(differences)
    for kind, heads in HEADS.items():
        groups: dict[tuple[str, str], list[dict[str, Any]]] = {}
        for entry in differences:
            if entry["kind"] == kind:
                detail = "" if kind == "value" else entry["detail"]
                groups.setdefault((normal(_name(entry)), detail), []).append(entry)
        if groups:
            worst = [max(group, key=lambda entry: _rank(entry, top)) for group in groups.values()]
            ranked = sorted(
                zip(worst, groups.values(), strict=True), key=lambda pair: _rank(pair[0], top), reverse=True
            )
            cells = [_cells(group, entry) for entry, group in ranked]
            lines += [""] * bool(lines) + (
                [f"  {heads[0]}", *(f"    {name}" for (name,) in cells)]
                if len(heads) == 1
                else table(heads, cells, NUMBERS if kind == "value" else ())
            )
    return lines


def _top(differences: list[dict[str, Any]]) -> float:
    """Return the largest value of all arrays that differ."""
    return max((_size(entry) for entry in differences if isfinite(_size(entry))), default=0.0)


def _size(entry: dict[str, Any]) -> float:
    """Return the largest element of two arrays, infinity where the difference is not finite or of no values."""
    return float("inf") if entry["error"] is None or entry.get("largest") is None else float(entry["largest"])


def _rank(entry: dict[str, Any], top: float) -> tuple[bool, float]:
    """Rank a difference: arrays of rounding alone below all others, then by its error; not finite is the largest."""
    error = float("inf") if entry["error"] is None else float(entry["error"])
    return _size(entry) > SMALL * top, error


def _name(entry: dict[str, Any]) -> str:
    """Return A's own name of an array, B's where A lacks it, or the name of a field."""
    return str(entry["setting"]) if entry["kind"] in MODEL else " + ".join(fold(entry["a"] or entry["b"]))


def _cells(group: list[dict[str, Any]], worst: dict[str, Any]) -> tuple[str, ...]:
    a, _, b = worst["detail"].partition(" and ")
    if worst["kind"] in MODEL:
        return worst["setting"], a, b
    names = summarised(name for entry in group for name in entry["a"] or entry["b"])
    if worst["kind"] != "value":
        return (a, b, names) if worst["kind"] == "shape" else (names,)
    where, _, values = worst["detail"].partition(": ")
    a, _, b = values.partition(" and ")
    error = "not finite" if worst["error"] is None else short(worst["error"])
    error = "NaN" if "NaN" in (a, b) else error
    counted = f"{sum(entry['differing'] for entry in group):,} of {sum(entry['elements'] for entry in group):,}"
    of = f" of {_name(worst)}" if len(group) > 1 else ""
    return error, counted, f"{names}: A={a}, B={b} {where}{of}"

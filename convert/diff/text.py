"""Print what `diff` found: the verdict first, a row for each group of arrays that differ alike, the count last."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from math import isfinite
from typing import Any

from convert.config.settings import spelled
from convert.errors import printable
from convert.folding import fold, summarised
from convert.reading.families import MOMENTS
from convert.reading.readings import normal
from convert.terminal import say, table
from specs.numbers import above, exact, short
from specs.words import count, in_a_row

from .array_differences import OWN
from .compare import Comparison
from .plans import NOBODY

SMALL = 1e-8  # of the largest element of all: arrays below it may be the rounding of zeros, whatever their error
# Of the verdict, by the kind of a difference: words before the number, and the noun and words behind it.
KINDS = {
    "architecture": ("", "architecture", ""), "config": ("", "setting", ""),
    "plain": ("", "plain value", ""), "missing": ("", "array", " only in A"),
    "unexpected": ("", "array", " only in B"), "shape": ("the shape of ", "array", ""),
    "value": ("the values of ", "array", ""),
}  # fmt: skip
ERROR = "error: the largest difference, relative to the largest finite element of the two arrays"
ORDER = "order: largest error first"
LAST = ", but arrays of tiny values last"
TINY = (
    "of tiny values, below 1e-8 of the largest in arrays of their kind that differ, as rounding leaves where no "
    "gradient reaches a parameter: --atol {} accepts {}"
)
NAMES = "names: those in A; --json states those in B too"
MODEL = ("architecture", "config", "plain")  # differences that are of no array
PLACED = ("shape", "value")  # differences that name axes or a position
HEADS = {  # of the table of each kind; names, which may be long, stand last, so that no row breaks the columns
    "architecture": ("", "in A", "in B"), "config": ("setting", "in A", "in B"),
    "plain": ("in A", "in B", "plain value"),
    "missing": ("arrays only in A",), "unexpected": ("arrays only in B",),
    "shape": ("shape in A", "shape in B", "array"), "value": ("error", "elements", "array"),
}  # fmt: skip
NUMBERS = (0, 1)  # columns that are aligned on the right in the table of values


def show_verdict(comparison: Comparison) -> None:
    """Print the verdict, and how many differences of each kind there are."""
    kind = {True: "good", False: "bad", None: "doubt"}[comparison.same]
    say(printable(f"{comparison.verdict}{counted(comparison.differences)}"), kind=kind)


def show(comparison: Comparison, a: str, b: str) -> None:
    """Print a comparison of the files a and b. The first line is the verdict, the last one counts."""
    show_verdict(comparison)
    say(printable(f"A: {a}"))
    say(printable(f"B: {b}"))
    if comparison.differences:
        for line in ["", *rows(comparison.differences, comparison.within), ""]:
            say(printable(line))
        if any(entry["kind"] == "value" for entry in comparison.differences):
            say(ERROR, kind="soft")
        if len({normal(_name(entry)) for entry in comparison.differences if entry["kind"] == "value"}) > 1:
            say(order(comparison.differences, comparison.within), kind="soft")
        for line in tiny_arrays(comparison):
            say(line, kind="soft")
        named = [entry for entry in comparison.differences if entry["kind"] not in MODEL]
        if any(entry["a"] != entry["b"] for entry in named if entry["a"] and entry["b"]):
            say(NAMES, kind="soft")
        for line in _layouts(comparison):
            say(line, kind="soft")
    neither = dict.fromkeys(entry["field"] for entry in comparison.assumed if entry["from"] == NOBODY)
    for name in neither:
        accept = "accepted here: that they agree" if comparison.accepted else "--assume accepts that they agree"
        remedy = f"--set {name}=... states it, {accept}"
        say(printable(f"open: {name}, which neither file states; {remedy}"), kind="doubt")
    for line in assumptions(entry for entry in comparison.assumed if entry["field"] not in neither):
        say(printable(line))
    say(printable(tally(comparison)))


def _layouts(comparison: Comparison) -> Iterator[str]:
    """State the layout of the shapes and positions that rows show: that of A's file, or the common one."""
    rows_of_layout = [entry for entry in comparison.differences
                      if entry["kind"] in PLACED and entry["a"] != [entry["tensor"]]]  # fmt: skip
    in_a = {entry["kind"] for entry in rows_of_layout if entry["layout"] == OWN}
    in_common = {entry["kind"] for entry in rows_of_layout if entry["layout"] != OWN}
    both = bool(in_a & in_common)  # rows of one kind in both layouts: say which rows are in which
    if in_a and not comparison.is_own:
        which = " of arrays that A has whole" * both
        converted = " (B's shapes are brought into it)" * ("shape" in in_a)
        yield f"{_what(in_a)}{which}: in the layout of A's file{converted}"
    if in_common:
        which = " of arrays that A has in parts, or within others" * both
        yield f"{_what(in_common)}{which}: in {comparison.layout}"


def _what(kinds: Collection[str]) -> str:
    return " and ".join((["shapes"] if "shape" in kinds else []) + (["positions"] if "value" in kinds else []))


def order(differences: Sequence[dict[str, Any]], within: Sequence[dict[str, Any]] = ()) -> str:
    """Say in which order rows stand, and that arrays of tiny values are the last where there are any."""
    return ORDER + LAST * bool(_tiny(differences, _tops([*differences, *within])))


def tiny_arrays(comparison: Comparison) -> list[str]:
    """Say how many arrays may differ by rounding alone, and how to accept them."""
    tiny = _tiny(comparison.differences, _tops([*comparison.differences, *comparison.within]))
    if not tiny:
        return []
    gap = max(entry["error"] * entry["largest"] for entry in tiny)
    return [f"{count(len(tiny), 'array')} {TINY.format(above(gap), 'it' if len(tiny) == 1 else 'them')}"]


def _tiny(differences: Iterable[dict[str, Any]], tops: Mapping[str, float]) -> list[dict[str, Any]]:
    return [entry for entry in differences if entry["kind"] == "value" and _is_tiny(entry, tops)]


def tally(comparison: Comparison) -> str:
    """Count the arrays that were compared, and those that differ, also by no more than was asked for."""
    counts = Counter(entry["kind"] for entry in comparison.differences)
    apart = counts["shape"] + counts["value"]
    every = "all " * (1 < apart == comparison.arrays)
    relative, absolute = comparison.tolerance
    limits = ([exact(relative)] if relative else []) + ([f"--atol {exact(absolute)}"] if absolute else [])
    off = [entry for entry in comparison.differences if entry["kind"] in ("shape", "value")]
    numbers = all(entry["kind"] == "value" and entry["error"] is not None for entry in off)  # no NaN, no shape
    beyond = f" by more than {' and '.join(limits)}" if limits and numbers else ""
    parts = [f"{every}{apart:,} {_differ(apart)}{beyond}"] if apart else []
    by_share = [entry for entry in comparison.within if entry["error"] <= relative]
    by_number = [entry for entry in comparison.within if entry["error"] > relative]
    for entries, limit, gap_of in (
        (by_share, exact(relative), lambda entry: entry["error"]),
        (by_number, f"--atol {exact(absolute)}", lambda entry: entry["error"] * entry["largest"]),
    ):
        if entries:
            worst = max(entries, key=gap_of)
            more = "more " if parts else ""
            what = f"{len(entries):,} {more}{_differ(len(entries))} by at most {short(gap_of(worst))}"
            parts.append(f"{what}, within {limit} ({_name(worst)})")
    parts = parts or (["every element equal"] if comparison.arrays else [])
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
        lines.append(f"assumed of {paths}{why}: {', '.join(values)}, from {source} ({remedy})")
    return lines


def counted(differences: list[dict[str, Any]]) -> str:
    """Count the differences by kind: ": 1 setting, 2 arrays only in A and the values of 3 arrays"."""
    counts = Counter(entry["kind"] for entry in differences)
    if counts["architecture"]:
        return ": two architectures"
    kinds = {kind: words for kind, words in KINDS.items() if counts[kind]}
    shown = in_a_row(f"{before}{count(counts[kind], noun)}{after}" for kind, (before, noun, after) in kinds.items())
    return f": {shown}" if shown else ""


def rows(differences: Sequence[dict[str, Any]], within: Sequence[dict[str, Any]] = ()) -> list[str]:
    """Return a table for each kind of difference; arrays whose names differ in numbers alone share a row.

    An array of tiny values shares none with others: a row shows the largest error of its arrays.

    Args:
      within: entries of arrays that differ by no more than is accepted.
    """
    lines: list[str] = []
    tops = _tops([*differences, *within])
    for kind, heads in HEADS.items():
        groups: dict[tuple[str, str | bool], list[dict[str, Any]]] = {}
        for entry in differences:
            if entry["kind"] == kind:
                detail = _is_tiny(entry, tops) if kind == "value" else entry["detail"]
                groups.setdefault((normal(_name(entry)), detail), []).append(entry)
        if groups:
            worst = [max(group, key=lambda entry: _rank(entry, tops)) for group in groups.values()]
            ranked = sorted(
                zip(worst, groups.values(), strict=True), key=lambda pair: _rank(pair[0], tops), reverse=True
            )
            cells = [_cells(group, entry) for entry, group in ranked]
            lines += ([""] if lines else []) + (
                [f"  {heads[0]}", *(f"    {name}" for (name,) in cells)]
                if len(heads) == 1
                else table(heads, cells, NUMBERS if kind == "value" else ())
            )
    return lines


def _tops(differences: Iterable[dict[str, Any]]) -> dict[str, float]:
    """Return the largest value of all arrays that differ, of each kind; integers and single numbers aside."""
    tops: dict[str, float] = {}
    for entry in differences:
        if isfinite(size := _size(entry)) and entry["elements"] > 1:
            tops[_kind(entry)] = max(size, tops.get(_kind(entry), 0.0))
    return tops


def _kind(entry: dict[str, Any]) -> str:
    """Return whose moment an array is: those of squares are small where none is rounding. "" of all other arrays."""
    if entry["kind"] in MODEL:
        return ""
    name = f"/{(entry['a'] or entry['b'] or [entry['tensor']])[0]}"
    for slot, names in MOMENTS.items():
        of_paddle = re.search(rf"_{names.paddle}_\d+$", name)
        if of_paddle or f"/{names.optax}/" in name or name.endswith((f"/{names.torch}", f".{names.torch}")):
            return slot
    return ""


def _is_tiny(entry: dict[str, Any], tops: Mapping[str, float]) -> bool:
    return _size(entry) <= SMALL * tops.get(_kind(entry), 0.0)


def _size(entry: dict[str, Any]) -> float:
    """Return the largest element of two arrays; infinity of integers, and of no values or a gap that is not finite."""
    is_measured = entry["error"] is not None and entry.get("largest") is not None and not entry["integers"]
    return float(entry["largest"]) if is_measured else float("inf")


def _rank(entry: dict[str, Any], tops: Mapping[str, float]) -> tuple[bool, float]:
    """Rank a difference: arrays of tiny values below all others, then by its error; not finite is the largest."""
    error = float("inf") if entry["error"] is None else float(entry["error"])
    return not _is_tiny(entry, tops), error


def _name(entry: dict[str, Any]) -> str:
    """Return A's own name of an array, B's where A lacks it, or the name of a field."""
    return str(entry["setting"]) if entry["kind"] in MODEL else " + ".join(fold(entry["a"] or entry["b"]))


def _cells(group: list[dict[str, Any]], worst: dict[str, Any]) -> tuple[str, ...]:
    a, _, b = worst["detail"].partition(" and ")
    if worst["kind"] in MODEL:
        name = summarised(entry["setting"] for entry in group)
        return (a, b, name) if worst["kind"] == "plain" else (name, a, b)
    names = summarised(name for entry in group for name in entry["a"] or entry["b"])
    if worst["kind"] != "value":
        return (a, b, names) if worst["kind"] == "shape" else (names,)
    where, _, values = worst["detail"].rpartition(": ")  # "" where, of a single number
    a, _, b = values.partition(" and ")
    error = "not finite" if worst["error"] is None else short(worst["error"])
    error = "NaN" if "NaN" in (a, b) else error
    counted = f"{sum(entry['differing'] for entry in group):,} of {sum(entry['elements'] for entry in group):,}"
    of = f" of {_name(worst)}" if len(group) > 1 else ""
    return error, counted, f"{names}: A={a}, B={b}{' ' * bool(where)}{where}{of}"

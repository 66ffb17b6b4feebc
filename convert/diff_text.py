"""Print what `diff` found: the verdict, a row for each group of arrays that differ alike, the summary."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

from .diff import NOBODY, Comparison
from .errors import printable
from .folding import where
from .readings import normal
from .terminal import say, table

KINDS = {
    "architecture": "in architecture", "config": "in a setting", "missing": "missing in B",
    "unexpected": "missing in A", "shape": "in shape", "dtype": "in dtype", "value": "in values",
}  # fmt: skip
ERROR = "error: the largest difference, relative to the largest element of A's array"


def show(comparison: Comparison, a: str, b: str) -> None:
    """Print a comparison of the files a and b. The last line is the verdict."""
    if comparison.differences:
        say(printable(f"different: A = {a}, B = {b}"), kind="bad")
        for line in rows(comparison.differences):
            say(printable(line))
        if any(entry["error"] is not None for entry in comparison.differences):
            say(ERROR, kind="soft")
    neither = dict.fromkeys(entry["field"] for entry in comparison.assumed if entry["from"] == NOBODY)
    for name in neither:
        remedy = f"--set {name}=... states it, --assume accepts that they agree"
        say(printable(f"open: {name}, which neither file states: {remedy}"), kind="doubt")
    for entry in comparison.assumed:
        if entry["field"] in neither:
            continue
        value = f"{entry['field']}={entry['value']}"
        why = f"whose record assumes {entry['recorded']}" if "recorded" in entry else "which does not state it"
        say(printable(f"assumed: {value} of {entry['file']}, {why}: from {entry['from']}"), kind="doubt")
    kind = {True: "good", False: "bad", None: "doubt"}[comparison.same]
    say(printable(f"{comparison.verdict}{counted(comparison.differences)}"), kind=kind)


def counted(differences: list[dict[str, Any]]) -> str:
    """Count the differences by kind."""
    counts = Counter(entry["kind"] for entry in differences)
    shown = ", ".join(f"{counts[kind]:,} {words}" for kind, words in KINDS.items() if counts[kind])
    return f": {shown}" if shown else ""


def rows(differences: list[dict[str, Any]]) -> list[str]:
    """Return a table of the differences; arrays whose names differ in numbers alone share a row."""
    groups: dict[tuple[str, str, str], list[dict[str, Any]]] = {}
    for entry in differences:
        detail = "" if entry["kind"] == "value" else entry["detail"]
        groups.setdefault((normal(entry["tensor"]), entry["kind"], detail), []).append(entry)
    cells = list(_cells(groups.values()))
    return table(("tensor", "differs in", "error", "A and B"), cells, right=2)


def _cells(groups: Any) -> Iterator[tuple[str, str, str, str]]:
    for group in groups:
        worst = max(group, key=lambda entry: float("inf") if entry["error"] is None else entry["error"])
        nothing = "NaN" if worst["kind"] == "value" else ""
        error = nothing if worst["error"] is None else f"{worst['error']:.2e}"
        of = f"{worst['tensor']} " if len(group) > 1 and worst["kind"] == "value" else ""
        kind = {"missing": "missing in B", "unexpected": "missing in A"}.get(worst["kind"], worst["kind"])
        yield where(entry["tensor"] for entry in group), kind, error, f"{of}{worst['detail']}"

"""Implement the commands but for converting (conversion.py). Part of the command line: it may import any floor."""

from __future__ import annotations

import sys
from argparse import Namespace
from typing import Any

from specs.dialects import PORTS
from specs.kinds import SUFFIX

from .errors import ConvertError, UsageError, printable
from .planning import plan
from .program import dumps
from .recognise import dialects
from .settings import stated


def run(arguments: Namespace) -> int:
    if arguments.spec:
        from .pages import use

        use(arguments.spec)
    if arguments.command in COMMANDS:
        return COMMANDS[arguments.command](arguments)
    from .conversion import convert

    return convert(arguments)


def inspect(arguments: Namespace) -> int:
    from .inspection import inspect

    return inspect(arguments)


def _by_arrays(arguments: Namespace, notes: list[str]) -> list[dict[str, Any]] | None:
    """Compare two files by a Table, or as they are if no architecture is known; None if neither applies."""
    from .by_table import length
    from .diff import across, by_names

    a, b = arguments.files
    if arguments.table is not None:
        entries, remarks = across(
            a, b, arguments.table, arguments.rtol, dict(map(length, arguments.set)), arguments.reverse
        )
        notes += remarks
        return entries
    if arguments.weights:  # parts are of models
        return None
    try:
        plan(a, sampled=True).close()
    except UsageError:
        return None
    except ConvertError:
        if (compared := by_names(a, b, arguments.rtol)) is None:
            return None
        entries, remarks = compared
        notes += remarks
        return entries
    return None


def diff(arguments: Namespace) -> int:
    """Compare two files; 0 only if they are shown to be the same model, or what is not shown is accepted."""
    from .diff import Comparison, compare

    a, b = arguments.files
    if not 0 <= arguments.rtol < float("inf"):
        raise UsageError(f"--rtol {arguments.rtol}: a number from 0 on, as in 1e-6")
    notes: list[str] = []
    arrays = _by_arrays(arguments, notes)
    if arrays is None:
        parts = _sides(arguments.weights)
        comparison = compare(a, b, arguments.rtol, stated(arguments), arguments.assume, parts, notes)
    else:
        comparison = Comparison(arrays, what="the same arrays", rtol=arguments.rtol)
    for note in notes:
        print(printable(f"note: {note}"), file=sys.stderr)
    if arguments.json:
        about = {"same": comparison.same, "verdict": comparison.verdict}
        print(dumps({**about, "assumed": comparison.assumed, "differences": comparison.differences, "notes": notes}))
    else:
        for entry in comparison.differences:
            error = "" if entry["error"] is None else f" by {entry['error']:.2e} times A's largest element"
            detail = f" ({entry['detail']})" if entry.get("detail") else ""
            print(printable(f"{entry['tensor']}: {entry['kind']}{error}{detail}"))
        for entry in comparison.assumed:
            value = f"{entry['field']}={entry['value']}"
            why = f"whose record assumes {entry['recorded']}" if "recorded" in entry else "which does not state it"
            print(printable(f"assumed: {value} of {entry['file']}, {why}: from {entry['from']}"))
        print(comparison.verdict)
    accepted = comparison.same or (comparison.same is None and arguments.assume)
    return 0 if accepted else 1


def _sides(weights: list[str]) -> tuple[str | None, str | None]:
    """The part to take of each file: one --weights is for both, two are for A and B."""
    if len(weights) > 2:
        raise UsageError(f"--weights was given {len(weights)} times: once for both files, or twice for A and B")
    first, second = (*weights, *weights)[:2] if weights else (None, None)
    return first, second


def verify(arguments: Namespace) -> int:
    from .verification import check

    problems = check(arguments.file)
    if arguments.json:
        print(dumps({"intact": not problems, "problems": problems}))
    else:
        lines = [f"{arguments.file}: {'damaged or changed' if problems else 'intact'}", *(f"  - {p}" for p in problems)]
        print("\n".join(map(printable, lines)))
    return 1 if problems else 0


def routes(arguments: Namespace) -> int:
    import specs

    table = [
        {"route": f"{src}2{dst}", "architecture": name}
        for name in specs.names()
        for src in dialects(name)
        for dst in dialects(name)
        if src != dst
    ]
    if arguments.json:
        print(dumps(table))
        return 0
    from ports.frameworks import place

    for name in specs.names():
        print(f"{name}: any of these into any other, e.g. {table[0]['route']}")
        for dialect, entry in dialects(name).items():
            about = (place(name, dialect) or "no port") if dialect in PORTS else entry.about
            print(f"  {dialect:12} {entry.framework:7} {entry.suffix or SUFFIX[entry.framework]:13} {about}")
    return 0


def derive(arguments: Namespace) -> int:
    """Find the Table between two models."""
    from parity.derive.command import run as derive_table

    return derive_table(
        arguments.left, arguments.right, arguments.out, arguments.json, arguments.table, arguments.left_weights
    )


COMMANDS = {"inspect": inspect, "diff": diff, "verify": verify, "derive": derive, "routes": routes}

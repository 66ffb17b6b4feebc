"""Implement the commands but for converting (conversion.py). Part of the command line: it may import any floor."""

from __future__ import annotations

import os
import sys
from argparse import Namespace
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from convert.config.settings import stated_settings
from convert.errors import ConvertError, PlanError, UsageError, called, option, printable
from convert.files import open_checkpoint
from convert.files.inside import look, looks
from convert.plans.planning import plan
from convert.reading.aside import training_and_copies
from convert.reading.nesting import ROOT
from convert.reading.readings import Ambiguous
from convert.reading.recognise import dialects
from convert.records import altered, record
from convert.running import dumps
from convert.terminal import say, say_note
from convert.terminal import table as aligned
from specs.dialects import PORTS
from specs.kinds import SUFFIX
from specs.words import count, unknown

if TYPE_CHECKING:
    from convert.diff.array_differences import Differences, Tolerance
    from convert.diff.compare import Comparison


SAME_ARRAYS = "has the same {} as were written, in another layout or with other metadata"
REVERSED = "--reverse reads a Table from right to left: give it too, by --table FILE"


def run(arguments: Namespace) -> int:
    if arguments.spec:
        from convert.pages import use

        use(arguments.spec)
    if arguments.command in COMMANDS:
        return COMMANDS[arguments.command](arguments)
    from .conversion import convert

    return convert(arguments)


def inspect(arguments: Namespace) -> int:
    from convert.inspection.describe import inspect

    return inspect(arguments)


def _by_arrays(arguments: Namespace, tolerance: Tolerance) -> tuple[Differences, list[str]] | None:
    """Compare two files by a Table, or as they are if no architecture is known; None if neither applies.

    Returns: also notes on what is not compared.
    """
    from convert.diff.across import across
    from convert.diff.arrays import by_names
    from convert.table.lengths import lengths

    a, b = arguments.a, arguments.b
    parts = _sides(arguments.weights)
    if arguments.reverse and arguments.table is None:
        raise UsageError(REVERSED)
    if arguments.table is not None:
        sizes = lengths(arguments.set)
        return across(a, b, arguments.table, tolerance, sizes, arguments.reverse, parts)
    try:
        plan(a, sampled=True, weights=parts[0]).close()
    except UsageError:
        return None
    except ConvertError:
        pair = by_names(a, b, tolerance, parts)
        given = [f"--{name}" for name in ("set", "config", "assume") if getattr(arguments, name)]
        if not pair or not given:
            return pair
        unused = f"{' and '.join(given)} {'is' if len(given) == 1 else 'are'} not used"
        part = f", its part {parts[0]}," if parts[0] else ""
        return pair[0], [f"{a}{part} fits no architecture here, so arrays are compared by names: {unused}", *pair[1]]
    return None


def _by_names_alone(
    error: ConvertError, a: str, b: str, tolerance: Tolerance, parts: tuple[str | None, str | None]
) -> tuple[Differences, list[str]] | None:
    """Compare two files of which one lacks arrays of its architecture, or has others; None where names differ.

    Args:
      error: why it is not of the architecture.
    """
    from convert.diff.arrays import by_names

    compared = by_names(a, b, tolerance, parts) if isinstance(error, PlanError) else None
    return compared and (compared[0], [f"compared by names alone: {error.message}", *compared[1]])


def _everything(arguments: Namespace, tolerance: Tolerance) -> Comparison | None:
    """Compare all that two files of one layout store; None for models of two layouts that have nothing beside them.

    Raises: UsageError where they have.
    """
    from convert.diff.arrays import by_names
    from convert.diff.compare import EVERYTHING, compare, of_arrays

    a, b = arguments.a, arguments.b
    compared = by_names(a, b, tolerance, (ROOT, ROOT))
    if compared is None:
        if not (_has_parts(a) or _has_parts(b)):
            return None
        what = f"{a} and {b}: {option('weights', ROOT)} compares all parts of files that are laid out alike"
        remedy = "leave it out to compare the models, or name a part of each file"
        raise UsageError(f"{what}, and most of their names differ: {remedy}")
    arrays, notes = compared
    try:
        comparison = compare(a, b, tolerance, stated_settings(arguments), arguments.assume, everything=arrays)
    except ConvertError as error:
        if isinstance(error, UsageError) and not isinstance(error, Ambiguous):
            raise
        return of_arrays(arrays, notes, tolerance, EVERYTHING)
    return replace(comparison, notes=(*notes, *comparison.notes))


def _has_parts(path: str) -> bool:
    """Tell whether a file has arrays beside its model: training state, or a copy of the weights."""
    with open_checkpoint(path) as reader:
        return bool(training_and_copies(reader.tensors))


def _compared(arguments: Namespace, tolerance: Tolerance) -> Comparison:
    """Compare two files as models of one architecture, or array by array where they are of none."""
    from convert.diff.compare import compare, of_arrays

    a, b, parts = arguments.a, arguments.b, _sides(arguments.weights)
    if parts == (ROOT, ROOT) and arguments.table is None and (comparison := _everything(arguments, tolerance)):
        return comparison
    compared = _by_arrays(arguments, tolerance)
    if compared is None:
        try:
            return compare(a, b, tolerance, stated_settings(arguments), arguments.assume, parts)
        except UsageError:
            raise
        except ConvertError as error:
            from convert.diff.strangers import unrelated

            compared = _by_names_alone(error, a, b, tolerance, parts)
            if compared is None:
                raise (None if arguments.weights else unrelated(a, b)) or error from None
    return of_arrays(*compared, tolerance)


def diff(arguments: Namespace) -> int:
    """Compare two files; 0 only if they are shown to be the same model, or what is not shown is accepted."""
    from convert.diff.array_differences import Tolerance
    from convert.optimizer.variances import apart

    locations = looks((arguments.a, arguments.b), arguments.step)
    a, b = arguments.a, arguments.b = [one.path for one in locations]
    tolerance = Tolerance(arguments.rtol, arguments.atol)
    for name, value in zip(("--rtol", "--atol"), tolerance, strict=True):
        if not 0 <= value < float("inf"):
            raise UsageError(f"{name} {value}: a number from 0 on, as in 1e-6")
    notes = [note for one in locations for note in one.notes]
    comparison = _compared(arguments, tolerance)
    notes += [*comparison.notes, *apart(comparison.differences)]
    if arguments.json:
        about = {"same": comparison.same, "verdict": comparison.verdict}
        print(dumps({**about, "assumed": comparison.assumed, "differences": comparison.differences, "notes": notes}))
    else:
        from convert.diff.text import show, show_verdict

        if not arguments.quiet:
            show(comparison, a, b)
        elif not comparison.holds:
            show_verdict(comparison)
    print(end="", flush=True)  # before the notes, which are on standard error
    for note in notes:
        say_note(note)
    return 0 if comparison.holds else 1


def _sides(weights: list[str]) -> tuple[str | None, str | None]:
    """Return the part to take of each file: one --weights is for both, two are for A and B."""
    if len(weights) > 2:
        raise UsageError(f"--weights was given {len(weights)} times: once for both files, or twice for A and B")
    first, second = (*weights, *weights)[:2] if weights else (None, None)
    return first, second


def verify(arguments: Namespace) -> int:
    """Compare each file with its record; 0 only if all are as they were written.

    Raises: ConvertError of a file that is the only one.
    """
    several, results = len(arguments.files) > 1, []
    for file in arguments.files:
        try:
            results.append(_verified(file, arguments, several))
        except ConvertError as error:
            if not several:
                raise
            results.append({"file": file, "error": str(error)})
            say(f"{called('convert')}: {error.line() if arguments.json else error}", sys.stderr, "bad")
    intact = sum(result.get("intact", False) for result in results)
    if arguments.json:
        print(dumps(results if several else results[0]))
    elif several and not arguments.quiet:
        print(f"{intact} of {len(results)} intact")
    return 0 if intact == len(results) else 1


def _verified(file: str, arguments: Namespace, several: bool) -> dict[str, Any]:
    """Compare a file with its record, print the result for people, and return what --json prints of it."""
    from convert.records.verification import verify
    from convert.table.file import doubts

    location = look(file, arguments.step)
    problems, arrays, same = verify(location.path)
    notes = list(location.notes)
    if not problems:  # else the file may not be readable
        stored = record.at(location.path)
        notes += [*doubts(stored.content), *altered.notes(stored.place, stored.content)]
    if not arguments.json:
        for note in notes:
            say_note(f"{location.path}: {note}" if several and location.path not in note else note)
        if problems or not arguments.quiet:
            every = count(arrays, "array")
            verdict = (SAME_ARRAYS.format(every) if same else "damaged or changed") if problems else "intact"
            checked = "" if problems else f" (names, shapes, dtypes and values of {every})"
            say(printable(f"{location.path}: {verdict}{checked}"), kind="bad" if problems else "good", words=verdict)
            for problem in problems:
                say(printable(f"  - {problem}"))
    return {
        "file": location.path, "intact": not problems, "same_arrays": same, "problems": problems, "notes": notes,
    }  # fmt: skip


def routes(arguments: Namespace) -> int:
    import specs

    for name in arguments.architectures:
        if name not in specs.names():
            page = f"{name.removesuffix('.py')}.py"
            own = (
                f"if {page} is its page, add --spec {page}" if os.path.isfile(page) else "one of your own: --spec PAGE"
            )
            raise UsageError(f"{unknown(name, specs.names(), listed=True)}; {own}")
    chosen = [name for name in specs.names() if name in (arguments.architectures or specs.names())]
    table = [
        {"route": f"{src}2{dst}", "architecture": name}
        for name in chosen
        for src in dialects(name)
        for dst in dialects(name)
        if src != dst
    ]
    if arguments.json:
        print(dumps(table))
        return 0
    from ports.frameworks import place

    for name in chosen:
        say(f"{name}: any of these into any other, as in {table[0]['route']}", kind="head")
        rows = []
        for dialect, entry in dialects(name).items():
            about = (place(name, dialect) or "no port") if dialect in PORTS else entry.about
            rows.append((dialect, entry.framework, entry.suffix or SUFFIX[entry.framework], about))
        for line in aligned(("dialect", "library", "suffix", "code"), rows):
            say(printable(line))
    return 0


def derive(arguments: Namespace) -> int:
    """Find the Table between two models."""
    from parity.derive.command import run as derive_table

    return derive_table(
        arguments.left, arguments.right, arguments.out, arguments.json, arguments.table, arguments.left_weights,
        arguments.report, arguments.quiet, arguments.force,
    )  # fmt: skip


COMMANDS = {"inspect": inspect, "diff": diff, "verify": verify, "derive": derive, "routes": routes}

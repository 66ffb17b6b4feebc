"""Implement `python -m convert SRC2DST` and `--table`. Part of the command line: it may import any floor."""

from __future__ import annotations

import functools
import os
import sys
from argparse import Namespace
from collections.abc import Mapping
from typing import Any

from convert.errors import ConvertError, UsageError, called
from convert.running import dumps
from convert.terminal import say

from .one_file import by_route, by_table_file
from .outcome import Notes
from .routes import route
from .source_paths import over, sources


def convert(arguments: Namespace) -> int:
    """Convert files by a route, or by a Table; return 1 if any of several failed.

    Raises: ConvertError for what no file can be converted with, and that of the file if there is one.
    """
    if arguments.prove and arguments.dry_run:
        raise UsageError("--prove runs what was written, and --dry-run writes nothing: leave one of them out")
    notes = Notes(later=arguments.json)
    one = by_route(arguments, notes) if arguments.table is None else by_table_file(arguments, notes)
    given = sources(arguments.files, arguments.step, functools.partial(_is_own_target, arguments))
    files = given.files
    for line in given.lines():
        notes.add(line)
    if len(files) > 1 and arguments.out and not os.path.isdir(arguments.out):
        what = "it is no folder" if os.path.lexists(arguments.out) else "there is none of this name: create it"
        raise UsageError(f"-o {arguments.out}: the targets of {len(files)} files need a folder, and {what}")
    results: list[dict[str, Any]] = []
    failures = 0
    others: dict[str, str] = {}  # of another dialect
    for file in files:
        notes.of(file if len(files) > 1 else "")
        try:
            results.append(one(file, {result["out"]: result["source"] for result in results if "out" in result}))
        except ConvertError as error:
            if error.fits_as and file in given.found:
                others[file] = f"dialect {error.fits_as}"
                continue
            if len(files) == 1:
                raise
            failures += 1
            results.append({"source": file, "error": str(error)})
            say(f"{called('convert')}: {error.line() if arguments.json else error}", sys.stderr, "bad")
    notes.of("")
    if others.keys() == set(files):
        src, _ = route(arguments.command)
        raise UsageError(f"{' '.join(arguments.files)}: no checkpoint there has the dialect {src}", over(others))
    for line in over(others):
        notes.add(line)
    passed_over = {**given.passed_over, **others}
    results += [{"source": path, "passed_over": reason} for path, reason in passed_over.items()]
    notes.flush()
    if arguments.json:
        print(dumps(results if len(results) > 1 else results[0]))
    elif len(files) > 1 and not arguments.quiet:
        wanted = len(files) - len(others)
        print(f"{wanted - failures} of {wanted} converted")
    return 1 if failures else 0


def _is_own_target(arguments: Namespace, its: Mapping[str, Any]) -> bool:
    """Tell whether a checkpoint with this record is what these arguments make: by the same route or Table."""
    if arguments.table is None:
        return (its.get("source", {}).get("dialect"), its.get("dialect")) == route(arguments.command)
    table = its.get("table", {})
    return (table.get("file"), table.get("reversed")) == (os.path.basename(arguments.table), arguments.reverse)

"""Implement `python -m convert SRC2DST` and `--table`. Part of the command line: it may import any floor."""

from __future__ import annotations

import functools
import os
import shlex
import sys
from argparse import Namespace
from collections.abc import Mapping
from typing import Any, NamedTuple

from convert.errors import ConvertError, UsageError, called
from convert.files import is_named_as_checkpoint
from convert.files.inside import PATTERN
from convert.files.parts import listed
from convert.running import dumps
from convert.terminal import say

from .one_file import OneFile
from .outcome import Notes
from .route_conversion import by_route
from .routes import route
from .source_paths import Sources, over, sources


def convert(arguments: Namespace) -> int:
    """Convert files by a route, or by a Table; return 1 if any of several failed.

    Raises: ConvertError for what no file can be converted with, and that of the file if there is one.
    """
    if arguments.prove and arguments.dry_run:
        raise UsageError("--prove runs what was written, and --dry-run writes nothing: leave one of them out")
    notes = Notes(later=arguments.json)
    _check_not_target(arguments.files, arguments.out)
    one = _one_file(arguments, notes)
    given = sources(arguments.files, arguments.step, functools.partial(_is_own_target, arguments))
    for line in given.lines():
        notes.add(line)
    _check_folder(arguments.out, given.files)
    outcomes = _convert_each(one, given, notes, arguments.json)
    if outcomes.others.keys() == set(given.files):
        src, _ = route(arguments.command)
        what = f"no checkpoint there has the dialect {src}"
        raise UsageError(f"{' '.join(arguments.files)}: {what}", over(outcomes.others))
    for line in over(outcomes.others):
        notes.add(line)
    passed_over = {**given.passed_over, **outcomes.others}
    results = [*outcomes.results, *({"source": path, "passed_over": why} for path, why in passed_over.items())]
    notes.flush()
    if arguments.json:
        print(dumps(results if len(results) > 1 else results[0]))
    elif len(given.files) > 1 and not arguments.quiet:
        wanted = len(given.files) - len(outcomes.others)
        print(f"{wanted - outcomes.failures} of {wanted} converted")
    return 1 if outcomes.failures else 0


def _one_file(arguments: Namespace, notes: Notes) -> OneFile[Any]:
    if arguments.table is None:
        return by_route(arguments, notes)
    from .table_conversion import by_table

    return by_table(arguments, notes)


def _check_not_target(files: list[str], out: str | None) -> None:
    """Raise UsageError if the second of two files is meant as the target, as `cp` takes it: nothing is there."""
    if len(files) != 2 or out or PATTERN.search(files[1]):
        return
    if is_named_as_checkpoint(files[1]) and not os.path.lexists(files[1]):
        raise UsageError(f"{files[1]}: there is no such file: if it is the target, write -o {shlex.quote(files[1])}")


def _check_folder(out: str | None, files: list[str]) -> None:
    """Raise UsageError if several files are to go into one path that is no folder."""
    if len(files) > 1 and out and not os.path.isdir(out):
        what = "it is no folder" if os.path.lexists(out) else "there is none of this name: create it"
        several = f"{len(files)} files ({listed(files)})"
        raise UsageError(f"-o {out}: the targets of {several} need a folder, and {what}, or give one of the files")


class Outcomes(NamedTuple):
    """What became of several files.

    Args:
      results: what there is to print of each, errors too. failures: how many are errors.
      others: {file: its dialect} of those that a pattern or folder contains and that have another dialect.
    """

    results: list[dict[str, Any]]
    failures: int
    others: dict[str, str]


def _convert_each(one: OneFile[Any], given: Sources, notes: Notes, json: bool) -> Outcomes:
    """Convert one file after another. Raises: ConvertError of a file that is the only one."""
    results, failures, others = list[dict[str, Any]](), 0, dict[str, str]()
    several = len(given.files) > 1
    for file in given.files:
        notes.of(file if several else "")
        try:
            earlier = {result["out"]: result["source"] for result in results if "out" in result}
            results.append(one(file, given.files, earlier))
        except ConvertError as error:
            if error.fits_as and file in given.found:
                others[file] = f"dialect {error.fits_as}"
                continue
            if not several:
                raise
            failures += 1
            results.append({"source": file, "error": str(error)})
            say(f"{called('convert')}: {error.line() if json else error}", sys.stderr, "bad")
    notes.of("")
    return Outcomes(results, failures, others)


def _is_own_target(arguments: Namespace, record: Mapping[str, Any]) -> bool:
    """Tell whether a checkpoint with this record is what these arguments make: by the same route or Table."""
    if arguments.table is None:
        return (record.get("source", {}).get("dialect"), record.get("dialect")) == route(arguments.command)
    table = record.get("table", {})
    return (table.get("file"), table.get("reversed")) == (os.path.basename(arguments.table), arguments.reverse)

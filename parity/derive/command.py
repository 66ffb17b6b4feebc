"""Run `python -m convert derive LEFT RIGHT`: read two files of code, write a Table."""

from __future__ import annotations

import os
import re
import shlex
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, redirect_stdout
from dataclasses import replace
from typing import Any

import numpy as np

import ports  # noqa: F401  whose filter of warnings has to precede the user's imports
from convert import terminal
from convert.errors import ConvertError, UsageError, called, printable
from convert.files import files_of
from convert.progress import Status
from convert.replacing import Text
from convert.running import dumps
from convert.table.file import load
from convert.targets import check_path
from parity.report import PAGE, check_page, write_page
from specs.table import Table, TableError
from specs.words import count, in_words

from .deriving import derive
from .findings.converting import converting
from .findings.derivation import Derivation, Line
from .findings.remarks import exceptions, stated
from .fold.rows import DerivedTable
from .prove.prove import DRAWS
from .search.candidates import SEED
from .trace.call import call_of
from .user_code import RETURN, build, parsed, side_names
from .user_modules import Imports

TABLE = Text(rb"(?:[ \t\r]*(?:#[^\n]*)?\n)*[ \t]*table\s+\d", "Table")  # comments, and its first line
COMMAND = "command"  # the kind of a line that is a command


def run(
    left: str, right: str, out: str | None, as_json: bool, start: str | None = None, left_weights: str | None = None,
    report: str | None = None, quiet: bool = False, force: bool = False,
) -> int:  # fmt: skip
    """Derive, print and save. Returns: 0 if the table is proven, 1 if not.

    Args:
      left, right: file.py:function, which returns (model, inputs); the right one may return the model alone.
      out: where the table is written, complete or not.
      start: a file with lines of the table that are known; left_weights: a checkpoint of the left model.
      report: where a page is written.
      quiet: print only what is wrong, and the table where nothing else is to contain it.
      force: replace files that exist at `out` and `report`.
    Raises: UsageError for files and functions that do not fit; ConvertError for places that cannot be written.
    """
    files = [parsed(text)[0] for text in (left, right)]
    files += [*filter(None, [start]), *(files_of(left_weights) if left_weights else ())]
    _check_targets(files, out, report, force)
    with Status() as status, _to_standard_error(), Imports() as imports:
        derivation, sides = _derived(left, right, start, left_weights, status.show, imports)
    frameworks = derivation.table.sides
    derivation = replace(derivation, table=_with_names(derivation.table, left, right))
    saved = out if derivation.table.lines else None
    if saved:
        _save(derivation.table, saved)
    if report:
        options = {"--table": start, "--left-weights": left_weights, "-o": out, "--report": report}
        flags = {"--json": as_json, "--quiet": quiet, "--force": force}
        words = [word for option, path in options.items() if path for word in (option, path)]
        words += [flag for flag, is_set in flags.items() if is_set]
        command = f"{called('convert')} {shlex.join(['derive', left, right, *words])}"
        about = {"command": command} | ({} if force else {"to repeat": f"{command} --force"})  # the files exist by now
        about |= _about(left, right, start, left_weights, imports)
        _write_page(report, derivation, about, (left, right), frameworks, sides, saved)
    if as_json:
        print(dumps(derivation.to_dict()))
    else:
        _print(derivation, out, quiet, table=out is None and not (quiet and report), report=report)  # whose page has it
    return 0 if derivation.proven else 1


def _check_targets(sources: Sequence[str], out: str | None, report: str | None, force: bool) -> None:
    """Check that the Table and the page may be written, before anything is run. Raises: ConvertError.

    Args:
      sources: all files that are read.
    """
    for path, kind in ((out, TABLE), (report, PAGE)):
        if path is None:
            continue
        check_page(path)
        check_path(sources, path, force, kind)
        try:  # the system does not say of each folder, as of /proc, that it takes no files
            if not os.path.exists(path):
                tempfile.TemporaryFile(dir=os.path.dirname(os.path.realpath(path))).close()
        except OSError as error:
            raise UsageError(f"{path}: cannot be written: {error.strerror}: give another place") from error
    if out and report and os.path.realpath(out) == os.path.realpath(report):
        raise UsageError(f"{report}: is the file of -o and of --report: give two names")


def _save(table: Table, out: str) -> None:
    """Save a Table. Raises: ConvertError where the system does not let it, or an order beside it is another Table's."""
    try:
        table.save(out)
    except TableError as error:
        raise ConvertError(str(error)) from error
    except OSError as error:
        raise ConvertError(f"{out}: {error.strerror}") from error


@contextmanager
def _to_standard_error() -> Iterator[None]:
    """Send what the user's code prints to standard error, also what C code and other processes print."""
    with ExitStack() as stack:
        if sys.stdout is not None and sys.stderr is not None:  # closed by the shell: other files may have these numbers
            sys.stdout.flush()
            own = os.dup(1)
            stack.callback(os.close, own)
            os.dup2(2, 1)
            stack.callback(os.dup2, own, 1)
        stack.enter_context(redirect_stdout(sys.stderr))
        yield


def _write_page(
    report: str, derivation: Derivation, about: dict[str, str], sides: tuple[str, str], frameworks: tuple[str, str],
    built: tuple[str, str, str], saved: str | None,
) -> None:  # fmt: skip
    """Write the page of a derivation.

    Args:
      about: what was run on what, by label. sides: both files with their functions. built: see _derived.
      saved: the file of the Table.
    """
    from .report import page

    for k, side in enumerate(("left", "right")):
        size = f"{count(derivation.arrays[k], 'array')}, {count(derivation.elements[k], 'element')}"
        about[side] += f", {built[k]} ({frameworks[k]}), {size}"
    about |= {
        "inputs": built[2],
        "seed": f"{SEED} and those after it for the search, {in_words(DRAWS)} other seeds for the proof",
    }
    about |= {"time": derivation.took} | ({"Table": saved} if saved else {})
    left, right = (f"{name} ({framework})" for name, framework in zip(side_names(*sides), frameworks, strict=True))
    write_page(report, page(derivation, about, saved, (left, right)))


def _print(derivation: Derivation, out: str | None, quiet: bool, table: bool, report: str | None) -> None:
    """Print what was found in words; if `quiet`, only what is wrong.

    Args:
      table: whether the Table comes first. report: the page that was written.
    """
    if table:
        print(derivation.table.print().rstrip())
    if not quiet:
        lines = _summary(derivation, out, report)
        _say(line for line in lines if line.kind or not (table and stated(derivation.table, line.text)))
    elif not derivation.proven:
        _say(derivation.judgement)


def _derived(
    left: str, right: str, start: str | None, left_weights: str | None, say: Callable[[str], None], imports: Imports
) -> tuple[Derivation, tuple[str, str, str]]:
    """Run both files and derive. Returns: also (class of the left model, of the right one, shapes of the inputs)."""
    began = time.process_time()
    say(f"running {left}")
    a, inputs = build(left, "left", imports)
    if inputs is None:
        raise UsageError(f"the left side, {left}: returns a model without inputs: {RETURN}")
    say(f"running {right}")
    b, right_inputs = build(right, "right", imports)
    built = time.process_time() - began
    derivation = derive(a, b, inputs, right_inputs, table=_started(start), left_weights=left_weights, say=say)
    shapes = ", ".join(str([*np.shape(array)]) for array in call_of(inputs).arrays().values())
    return replace(derivation, built=built), (_named(a), _named(b), shapes)


def _with_names(table: DerivedTable, left: str, right: str) -> DerivedTable:
    """Call the sides of a Table by their files if both are of one framework, which would not tell them apart."""
    if table.sides[0] != table.sides[1] or left == right:
        return table
    one, other = (re.sub(r"\s", "_", name) for name in side_names(left, right))  # a header's names have no white space
    return replace(table, sides=(one, other))


def _named(model: Any) -> str:
    """Return the name of a model's class, or of its function."""
    first = model[0] if isinstance(model, tuple) and model else model
    return getattr(first, "__name__", type(first).__name__)


def _about(left: str, right: str, start: str | None, left_weights: str | None, imports: Imports) -> dict[str, str]:
    """Return what was run on what, by label: both sides, files with their hashes, versions."""
    from convert.files.hashing import sha256
    from parity.running.provenance import frameworks, surroundings

    about = {"left": left, "right": right}
    given = {"lines that were given": start, "weights on the left": left_weights}
    about |= {label: path for label, path in given.items() if path}
    about |= surroundings() | frameworks()
    files = dict.fromkeys([*_sources(left, right, imports), *filter(os.path.isfile, filter(None, given.values()))])
    return about | {path: f"sha256 {sha256(path)}" for path in files}


def _sources(left: str, right: str, imports: Imports) -> list[str]:
    """Return the files of both sides, and those that these imported from their own folders."""
    paths = dict.fromkeys(text.rpartition(":")[0] for text in (left, right))
    own = {os.path.realpath(path) for path in paths}
    beside = {os.path.relpath(file) for file in imports.files if os.path.realpath(file) not in own}
    return [*paths, *sorted(filter(os.path.isfile, beside))]


def _say(lines: Iterable[Line]) -> None:
    for line in lines:
        if line.kind == COMMAND:  # whole, so that it can be copied
            print(printable(line.text))
        else:
            terminal.say(printable(line.text), kind=line.kind)


def _started(path: str | None) -> Table | None:
    """Return the table that the user began. Raises: ConvertError for a file that is none."""
    if path is None:
        return None
    try:
        return load(path)
    except ConvertError as error:
        if error.message.startswith(path):
            raise
        raise ConvertError(f"{path}: {error.message}", error.problems) from error


def _summary(derivation: Derivation, out: str | None, report: str | None = None) -> list[Line]:
    """Return what is printed: the verdict with its exceptions, then where the Table was written; the page last."""
    known = 1 + len(exceptions(derivation))
    verdict, others = derivation.summary[:known], derivation.summary[known:]
    lines = count(len(derivation.table.lines), "line") if derivation.table.lines else "no lines, nothing written"
    written = [] if out is None else [Line(f"{out}: {lines}")]
    page = [] if report is None else [Line(f"report: {report}", "head")]
    return [*verdict, *written, *_converting(derivation, out), *others, *page]


def _converting(derivation: Derivation, out: str | None) -> list[Line]:
    """Say how a proven Table that was saved converts checkpoints."""
    if out is None or not derivation.proven:
        return []
    return [
        line
        for what, command in converting(derivation.table, out)
        for line in (Line(f"{what}:"), Line(f"  {command}", COMMAND))
    ]

"""Run `python -m convert derive LEFT RIGHT`: read two files of code, write a Table."""

from __future__ import annotations

import importlib.util
import math
import os
import sys
import traceback
from collections.abc import Callable
from typing import Any

import ports  # noqa: F401  whose filter of warnings has to precede the user's imports
from convert import terminal
from convert.errors import ConvertError, UsageError, printable
from convert.files.atomic import check
from convert.program import dumps
from convert.progress import Status
from convert.table_file import load
from specs.table import Table

from ..report import check_page, write_page
from .derivation import ROUNDING, Derivation
from .deriving import derive
from .fold.rows import missing_lines
from .trace.call import Call


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
      quiet: print nothing of a table that is proven, and else what is wrong.
      force: replace files that exist at `out` and `report`.
    Raises: UsageError for files and functions that do not fit; ConvertError for places that cannot be written.
    """
    for path in filter(None, (out, report)):
        check_page(path)
        check([text.rpartition(":")[0] for text in (left, right)], path, force)
    with Status() as status:
        found = _derived(left, right, start, left_weights, status.show)
    if out:
        found.table.save(out)
    if report:
        from .report import page

        write_page(report, page(found, _about(left, right, start, left_weights)))
    if as_json:
        print(dumps(found.to_dict()))
    elif not quiet:
        if out is None:
            print(found.table.print().rstrip())
        for line in _summary(found, out):
            terminal.say(printable(line), kind=_kind(line))
    elif not found.proven:
        for line in _verdict(found):
            terminal.say(printable(line), kind=_kind(line))
    return 0 if found.proven else 1


def _derived(
    left: str, right: str, start: str | None, left_weights: str | None, say: Callable[[str], None]
) -> Derivation:
    """Run both files and derive."""
    say(f"running {left}")
    a, inputs = _build(left)
    say(f"running {right}")
    b, right_inputs = _build(right)
    if inputs is None:
        raise UsageError(f"{left}: returns a model without inputs: return (model, inputs)")
    return derive(a, b, inputs, right_inputs, table=_started(start), left_weights=left_weights, say=say)


def _about(left: str, right: str, start: str | None, left_weights: str | None) -> dict[str, str]:
    """Return what was run on what, by label: both sides, files with their hashes, versions."""
    from convert.files.hashing import sha256

    from ..provenance import frameworks, surroundings

    about = {"left": left, "right": right}
    given = {"lines that were given": start, "weights on the left": left_weights}
    about |= {label: path for label, path in given.items() if path}
    about |= surroundings() | frameworks()
    files = dict.fromkeys([*_sources(left, right), *filter(os.path.isfile, filter(None, given.values()))])
    return about | {path: f"sha256 {sha256(path)}" for path in files}


def _sources(*sides: str) -> list[str]:
    """Return the files of both sides, and the modules that these imported from their own folders."""
    paths = [text.rpartition(":")[0] for text in sides]
    folders = {os.path.dirname(os.path.abspath(path)) for path in paths}
    files = [getattr(module, "__file__", None) or "" for module in list(sys.modules.values())]
    beside = [file for file in files if os.path.dirname(file) in folders and os.path.isfile(file)]
    absolute = {os.path.abspath(path) for path in paths}
    return [*dict.fromkeys(paths), *sorted(os.path.relpath(file) for file in {*beside} - absolute)]


def _kind(line: str) -> str:
    """Return the colour of a line: a key of terminal.CODES, or "" for none."""
    word = line.partition(":")[0]
    return {"proven": "good", "complete, but not proven": "bad", "incomplete": "bad", "missing": "bad"}.get(word, "")


def _build(text: str) -> tuple[Any, Any]:
    """Return (model, inputs) from file.py:function; None for inputs that it does not give."""
    path, _, name = text.rpartition(":")
    if not path or not name.isidentifier():
        raise UsageError(f"{text}: write file.py:function, where the function returns (model, inputs)")
    if not os.path.isfile(path):
        raise UsageError(f"{path}: there is no such file")
    spec = importlib.util.spec_from_file_location(os.path.splitext(os.path.basename(path))[0], path)
    if spec is None or spec.loader is None:
        raise UsageError(f"{path}: is no Python file")
    module = importlib.util.module_from_spec(spec)
    sys.path.insert(0, os.path.dirname(os.path.abspath(path)))
    try:
        spec.loader.exec_module(module)
        result = getattr(module, name)()
    except Exception as error:  # the user's code may raise anything
        raise ConvertError(f"{_where(error, path)} in {name}: {type(error).__name__}: {error}") from error
    finally:
        sys.path.pop(0)
    if not isinstance(result, tuple) or len(result) != 2 or _is_half(result[0]):
        return result, None
    model, inputs = result
    return model, inputs if isinstance(inputs, (tuple, Call)) else (inputs,)


def _is_half(first: Any) -> bool:
    """Tell whether this is no model without its parameters: an unbound linen module, or a function."""
    linen = sys.modules.get("flax.linen")
    if linen and isinstance(first, linen.Module):
        return first.scope is None
    homes = (("torch.nn", "Module"), ("paddle.nn", "Layer"), ("flax.nnx", "Module"))
    classes = tuple(getattr(sys.modules[home], name) for home, name in homes if home in sys.modules)
    return callable(first) and not isinstance(first, classes)


def _where(error: BaseException, path: str) -> str:
    """Return the file and the line of the innermost frame that lies in the folder of the user's file."""
    if isinstance(error, SyntaxError):
        return f"{error.filename}:{error.lineno}"
    folder = os.path.dirname(os.path.abspath(path))
    frames = [(os.path.abspath(frame.filename), frame.lineno) for frame in traceback.extract_tb(error.__traceback__)]
    own = [(file, line) for file, line in frames if os.path.dirname(file) == folder]
    return (
        f"{os.path.relpath(own[-1][0]) if own[-1][0] != os.path.abspath(path) else path}:{own[-1][1]}" if own else path
    )


def _started(path: str | None) -> Table | None:
    """Return the table that the user began. Raises: UsageError for a file that is none."""
    try:
        return None if path is None else load(path)
    except ConvertError as error:
        raise UsageError(f"{path}: {error}") from error


def _summary(found: Derivation, out: str | None) -> list[str]:
    lines = [] if out is None else [f"{out}: {len(found.table.lines)} lines"]
    lines += _verdict(found)
    lines += [f"unobservable: {name}" for name in found.unobservable]
    if found.fixed:
        lines.append(f"fixed to one number: {', '.join(found.fixed)}: derive with two of everything to fold it")
    lines += [f"free: {text}" for text in found.freedom]
    return [*lines, f"{found.seconds:.1f} s of CPU"]


def _verdict(found: Derivation) -> list[str]:
    """Say whether the table is proven, and what is not."""
    verdict = "proven" if found.proven else "complete, but not proven" if not found.missing else "incomplete"
    uses = (
        f"; {found.agreeing:,} of {len(found.uses):,} uses of parameters agree to {ROUNDING:.0e}" if found.uses else ""
    )
    lines = [f"{verdict}: {found.outputs}{uses}"]
    lines += [f"missing: {line}" for line in missing_lines(found.reasons)]
    if found.failure:
        lines.append(f"stopped: {found.failure}")
    for place in found.divergences:
        size = f"{place.size:.1e}" if math.isfinite(place.size) else "cannot be compared"
        lines.append(f"parts at {place.left} <-> {place.right}: {size}{f': {place.cause}' if place.cause else ''}")
    return lines

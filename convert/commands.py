"""What each command does and prints."""

from __future__ import annotations

import contextlib
import os
import re
import sys
from argparse import Namespace
from collections.abc import Iterator, Mapping
from typing import Any

from specs import config as configs
from specs.kinds import SUFFIX
from specs.notation import Move

from .aside import as_json
from .configuration import told
from .errors import ConvertError, UsageError, printable
from .files import FOLDERS, suffixes
from .parts import normal
from .planning import Constant, Plan, Planned, Sum, plan, sources_of
from .program import dumps
from .recognise import all_dialects, dialects, known_dialect
from .report import not_finite, where
from .walk import sources


def run(arguments: Namespace) -> int:
    from .inspection import inspect

    known = {"inspect": inspect, "diff": diff, "verify": verify, "routes": routes}
    return known.get(arguments.command, convert)(arguments)


def route(text: str) -> tuple[str, str]:
    """ "google2torch" -> ("google", "torch"). Raises: UsageError with the nearest route."""
    halves = [(text[:k], text[k + 1 :]) for k, letter in enumerate(text) if letter == "2"]
    for src, dst in halves:
        with contextlib.suppress(UsageError):
            return known_dialect(src), known_dialect(dst)
    if os.path.lexists(text):
        raise UsageError(f"{text}: the command comes first, as in google2torch {text} or inspect {text}")
    if not halves:
        commands = ["inspect", "diff", "verify", "routes", *(f"{name}2torch" for name in all_dialects())]
        raise UsageError(f"{configs.unknown(text, commands)}: neither a command nor a route (python -m convert routes)")
    for name in halves[0]:
        known_dialect(name)
    raise UsageError(f"no route {text!r} (python -m convert routes)")


def convert(arguments: Namespace) -> int:
    """Convert files by a route, or by a Table."""
    if arguments.table is None:
        src, dst = route(arguments.command)
    found = sources(arguments.files)
    files = found.files
    notes = Notes(later=arguments.json)
    for line in found.lines():
        notes.add(line)
    if len(files) > 1 and arguments.out and not os.path.isdir(arguments.out):
        raise UsageError(f"-o {arguments.out}: {len(files)} sources need a folder that exists")
    results: list[dict[str, Any]] = []
    failures, one = 0, len(files) == 1
    for file in files:
        made_of = {result["out"]: result["source"] for result in results if "out" in result}
        try:
            if arguments.table is None:
                results.append(_convert_one(file, src, dst, arguments, made_of, notes))
            else:
                results.append(_by_table(file, arguments, made_of, notes))
        except ConvertError as error:
            if one:
                raise
            failures += 1
            results.append({"source": file, "error": str(error)})
            print(f"convert: {error.line() if arguments.json else error}", file=sys.stderr)
    results += [{"source": path, "passed_over": reason} for path, reason in found.passed_over.items()]
    notes.flush()
    if arguments.json:
        print(dumps(results if len(results) > 1 else results[0]))
    elif not one:
        print(f"{len(files) - failures} of {len(files)} converted")
    return 1 if failures else 0


class Notes:
    """Prints what a user should know on standard error: at once, or with --json at the end, so that an error is one
    line there."""

    def __init__(self, later: bool):
        self.later, self.waiting = later, list[str]()

    def add(self, text: str) -> None:
        self.waiting.append(printable(f"note: {text}"))
        if not self.later:
            self.flush()

    def flush(self) -> None:
        for line in self.waiting:
            print(line, file=sys.stderr)
        self.waiting.clear()


def _convert_one(
    file: str, src: str, dst: str, arguments: Namespace, made_of: Mapping[str, str], notes: Notes
) -> dict[str, Any]:
    """Convert a file; `made_of` says which source each target of this call was made of so far."""
    from .files.hashing import Source

    settings = told(arguments)
    with contextlib.ExitStack() as stack:
        # The source is hashed while it is planned.
        source = None if arguments.dry_run else stack.enter_context(Source(file, arguments.verify))
        made = stack.enter_context(plan(file, src, dst, settings, arguments.dtype, arguments.weights, arguments.assume))
        dialect = dialects(made.architecture)[made.dst]
        out = target(file, dialect.suffix or SUFFIX[dialect.framework], arguments.out)
        _check_target(file, out, made_of)
        result: dict[str, Any] = {
            "source": file, "out": out, "architecture": made.architecture, "variant": made.variant, "src": src,
            "dst": dst, "config": configs.as_dict(made.config), "tensors": len(made.steps),
            "parameters": made.parameters, "part": made.match.prefix or "/", "aside": as_json(made.aside),
            "skipped": made.skipped(), "assumed": list(made.assumed), "notes": made.notes(),
        }  # fmt: skip
        for note in made.notes():
            notes.add(note)
        if arguments.dry_run:
            result["plan"] = list(_steps(made))
        else:
            proofs: list[dict[str, Any]] = []
            prove = (lambda written: proofs.append(_prove(made, written))) if arguments.prove else None
            size = _bytes(arguments.shard_size)
            removed: list[str] = []
            options = {"prove": prove, "shard_size": size, "verify": arguments.verify, "source": source}
            written = made.write(out, arguments.force, removed=removed.append, lossy=arguments.lossy, **options)
            if removed:
                result["removed"] = removed
                notes.add(f"removed {', '.join(removed)}")
            result |= {"proof": proofs[0] if proofs else None, "not_finite": _not_finite(written, notes)}
            if lossy := _lossy(written, notes):
                result["lossy"] = lossy
            result["out"] = out if os.path.lexists(out) else f"{out}.index.json"
        if not arguments.json:
            _tell(made, result, arguments.dry_run)
    return result


def _check_target(file: str, out: str, made_of: Mapping[str, str]) -> None:
    for name in (out, f"{out}.index.json"):
        if name in made_of:
            raise ConvertError(f"{file}: {out} was made of {made_of[name]} a moment ago: convert it elsewhere")


def _by_table(file: str, arguments: Namespace, made_of: Mapping[str, str], notes: Notes) -> dict[str, Any]:
    """Convert a file by a Table; `made_of` says which source each target of this call was made of so far."""
    from . import by_table
    from .files.hashing import Source

    table = by_table.load(arguments.table)
    sizes = dict(map(_length, arguments.set))
    with contextlib.ExitStack() as stack:
        source = None if arguments.dry_run else stack.enter_context(Source(file, arguments.verify))
        made = stack.enter_context(
            by_table.plan(file, table, arguments.reverse, arguments.like, sizes, arguments.dtype, arguments.weights)
        )
        out = target(file, ".safetensors", arguments.out)
        _check_target(file, out, made_of)
        for note in made.notes():
            notes.add(note)
        about: dict[str, Any] = {"source": file, "out": out, "table": arguments.table, "reversed": arguments.reverse}
        about |= {"tensors": len(made.steps), "parameters": made.parameters, "notes": made.notes()}
        if arguments.dry_run:
            about["plan"] = list(_steps(made))
        else:
            size = _bytes(arguments.shard_size)
            removed: list[str] = []
            options = {"shard_size": size, "verify": arguments.verify, "lossy": arguments.lossy}
            written = made.write(out, arguments.force, source, removed=removed.append, **options)
            if removed:
                about["removed"] = removed
                notes.add(f"removed {', '.join(removed)}")
            about["not_finite"] = _not_finite(written, notes)
            if lossy := _lossy(written, notes):
                about["lossy"] = lossy
            about["out"] = out if os.path.lexists(out) else f"{out}.index.json"
        if not arguments.json:
            ends = f"{made.reader.path} ({made.table.sides[0]}) -> {about['out']} ({made.table.sides[1]})"
            print(printable(f"{ends}: {len(made.steps)} tensors, {made.parameters:,} parameters"))
            if arguments.dry_run:
                _print_steps(made)
    return about


def _length(text: str) -> tuple[str, int]:
    """ "h=12" -> ("h", 12)."""
    name, _, number = text.partition("=")
    if not re.fullmatch(r"\d{1,15}", number, re.ASCII):
        raise UsageError(f"--set {text}: with --table, write an axis and its length, as in h=12")
    return name, int(number)


def _not_finite(about: Mapping[str, Any], notes: Notes) -> dict[str, int]:
    """Report NaNs and infinities of the target's tensors: {name: how many}, those aside that a cast made."""
    found, note = not_finite(about["tensors"])
    if note:
        notes.add(note)
    return found


def _lossy(about: Mapping[str, Any], notes: Notes) -> dict[str, dict[str, int]]:
    """Count and report values that the target's dtype cannot hold: {name: {"zeros": ..., "infinities": ...}}."""
    found = {name: line["lossy"] for name, line in about["tensors"].items() if "lossy" in line}
    for kind, became in (("zeros", "zero"), ("infinities", "infinite")):
        counts = {name: lost[kind] for name, lost in found.items() if kind in lost}
        if counts:
            dtypes = ", ".join(sorted({about["tensors"][name]["dtype"] for name in counts}))
            notes.add(f"{sum(counts.values()):,} values became {became} in {dtypes}: {where(counts)}")
    return found


def _prove(made: Plan, written: str) -> dict[str, Any]:
    from parity.prove import prove  # the one place that looks up to the floors above

    return prove(made, written)


def _tell(made: Plan, result: Mapping[str, Any], dry: bool) -> None:
    what = f"{made.architecture} {made.variant or '(no official variant)'}, {made.parameters:,} parameters"
    line = f"{made.reader.path} ({made.src}, {made.reader.format}) -> {result['out']} ({made.dst}): {what}"
    print(printable(line))
    if dry:
        _print_steps(made)
    if proof := result.get("proof"):
        lost = ", and values were lost" if result.get("lossy") else ""
        verdict = "proven" if proof["exact"] else f"measured, not proven, as the dtype changed{lost}"
        tolerance = f", tolerance {proof['tolerance']:.0e}" if proof["exact"] else ""
        print(
            f"{verdict}: {proof['source']} and {proof['target']} in float64 differ by at most {proof['error']:.1e} "
            f"(at {proof['worst']}, {proof['taps']} taps compared{tolerance})"
        )
        for line in made.left_out():
            print(printable(f"not covered by this proof: {line}"))


def _print_steps(made: Planned) -> None:
    for line in _folded_steps(made):
        print(printable(line))
    print(f"{len(made.steps)} tensors; nothing was written")


def _steps(made: Planned) -> Iterator[dict[str, Any]]:
    for tensor, filling in made.steps:
        sources = sources_of(filling)
        yield {
            "target": tensor.name,
            "shape": list(tensor.shape),
            "dtype": tensor.dtype,
            "sources": sources,
            "how": _how(filling),
        }


def _how(filling: Any) -> str:
    if isinstance(filling, Constant):
        return f"constant {filling.value}"
    if isinstance(filling, Sum):
        return f"sum of {len(filling.terms)}"
    moves = [part for part in filling if isinstance(part, Move)]
    move = moves[0]
    if move.copies:
        return "copy"
    stacked = f"{len(moves)} joined, " if len(moves) > 1 else ""
    padded = "constants, " if len(moves) < len(filling) else ""
    part = any(isinstance(s, int) or (isinstance(s, slice) and s != slice(None)) for s in move.select)
    reordered = "reordered, " if any(isinstance(s, tuple) for s in move.select) else ""
    return f"{stacked}{padded}{'sliced, ' if part else ''}{reordered}axes {' '.join(map(str, move.order))}"


def _folded_steps(made: Planned) -> Iterator[str]:
    groups: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for step in _steps(made):
        groups.setdefault((normal(step["target"]), f"{step['shape']} {step['how']}"), []).append(step)
    for (_, how), steps in groups.items():
        first = steps[0]
        times = f"  x{len(steps)}" if len(steps) > 1 else ""
        source = first["sources"][0] if first["sources"] else "-"
        more = f" (+{len(first['sources']) - 1})" if len(first["sources"]) > 1 else ""
        print_shape = how.replace("] ", "]  ", 1)
        yield f"  {first['target']} <- {source}{more}  {print_shape}{times}"


def _bytes(text: str | None) -> int | None:
    """ "5GB" -> 5_000_000_000."""
    if text is None:
        return None
    found = re.fullmatch(r"(\d{1,18}(?:\.\d+)?)\s*([KMGT]?)(I?)B?", text.upper())
    if not found or not float(found[1]):
        raise UsageError(f"--shard-size {text}: write a size as in 5GB or 500MiB")
    return int(float(found[1]) * (1024 if found[3] else 1000) ** " KMGT".index(found[2] or " "))


def target(file: str, usual: str, out: str | None) -> str:
    """Where the result goes: -o, or beside the source with the suffix that the target's users expect."""
    stem = os.path.basename(os.path.abspath(file)).removesuffix(".tar").removesuffix(".index.json")
    root, suffix = os.path.splitext(stem)
    name = (root if suffix.lower() in suffixes() else stem) + usual
    if out is None:
        return os.path.normpath(os.path.join(os.path.dirname(file.rstrip(os.sep)), name))
    checkpoint = out.rstrip(os.sep).lower().endswith(suffixes(FOLDERS))
    if out.endswith(os.sep) and not checkpoint and not os.path.isdir(out):
        raise ConvertError(f"-o {out}: there is no such folder: create it first")
    folder = os.path.isdir(out) and not checkpoint
    return os.path.normpath(os.path.join(out, name) if folder else out)


def _by_arrays(arguments: Namespace, notes: list[str]) -> list[dict[str, Any]] | None:
    """What `diff` finds by a Table, or in two files of one layout and no known architecture; None if neither holds."""
    from . import plain

    a, b = arguments.files
    if arguments.table is not None:
        found, remarks = plain.across(
            a, b, arguments.table, arguments.rtol, dict(map(_length, arguments.set)), arguments.reverse
        )
        notes += remarks
        return found
    if arguments.weights:  # parts are of models
        return None
    try:
        plan(a).close()
    except UsageError:
        return None
    except ConvertError:
        if (compared := plain.by_names(a, b, arguments.rtol)) is None:
            return None
        found, remarks = compared
        notes += remarks
        return found
    return None


def diff(arguments: Namespace) -> int:
    """Compare two files; 0 only if they are shown to be the same model, or what is not shown is accepted."""
    from .compare import Comparison, compare

    a, b = arguments.files
    if not 0 <= arguments.rtol < float("inf"):
        raise UsageError(f"--rtol {arguments.rtol}: a number from 0 on, as in 1e-6")
    notes: list[str] = []
    arrays = _by_arrays(arguments, notes)
    if arrays is None:
        parts = _sides(arguments.weights)
        found = compare(a, b, arguments.rtol, told(arguments), arguments.assume, parts, notes)
    else:
        found = Comparison(arrays, what="the same arrays")
    for note in notes:
        print(printable(f"note: {note}"), file=sys.stderr)
    if arguments.json:
        about = {"same": found.same, "verdict": found.verdict}
        print(dumps({**about, "assumed": found.assumed, "differences": found.differences, "notes": notes}))
    else:
        for entry in found.differences:
            error = "" if entry["error"] is None else f" by {entry['error']:.2e}"
            detail = f" ({entry['detail']})" if entry.get("detail") else ""
            print(printable(f"{entry['tensor']}: {entry['kind']}{error}{detail}"))
        for entry in found.assumed:
            value = f"{entry['field']}={entry['value']}"
            why = f"whose record assumes {entry['recorded']}" if "recorded" in entry else "which does not state it"
            print(printable(f"assumed: {value} of {entry['file']}, {why}: from {entry['from']}"))
        print(found.verdict)
    accepted = found.same or (found.same is None and arguments.assume)
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
    for name in specs.names():
        print(f"{name}: any of these into any other, e.g. {table[0]['route']}")
        for dialect, entry in dialects(name).items():
            print(f"  {dialect:12} {entry.framework:7} {entry.suffix or SUFFIX[entry.framework]:13} {entry.about}")
    return 0

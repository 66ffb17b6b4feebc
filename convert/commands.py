"""What each command does and prints."""

from __future__ import annotations

import contextlib
import json
import os
import re
import sys
from argparse import Namespace
from collections.abc import Iterator, Mapping
from typing import Any

from specs import config as configs

from .configuration import told
from .errors import ConvertError, UsageError, printable
from .formats import FOLDERS, FORMATS, folder_format, suffixes
from .kinds import SUFFIX
from .planning import Constant, Plan, plan
from .recognise import all_dialects, dialects, known_dialect, normal
from .report import fold


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
    src, dst = route(arguments.command)
    files = list(dict.fromkeys(_files(arguments.files)))
    if len(files) > 1 and arguments.out and not os.path.isdir(arguments.out):
        raise UsageError(f"-o {arguments.out}: {len(files)} sources need a folder that exists")
    results: list[dict[str, Any]] = []
    failures = 0
    for file in files:
        made_of = {result["out"]: result["source"] for result in results if "out" in result}
        try:
            results.append(_convert_one(file, src, dst, arguments, made_of))
        except ConvertError as error:
            if len(files) == 1:
                raise
            failures += 1
            results.append({"source": file, "error": str(error)})
            print(f"convert: {error}", file=sys.stderr)
    if arguments.json:
        print(json.dumps(results if len(files) > 1 else results[0], indent=1))
    elif len(files) > 1:
        print(f"{len(files) - failures} of {len(files)} converted")
    return 1 if failures else 0


def _convert_one(file: str, src: str, dst: str, arguments: Namespace, made_of: Mapping[str, str]) -> dict[str, Any]:
    """Convert a file; `made_of` says which source each target of this call was made of so far."""
    from .hashing import Source

    settings = told(arguments)
    with contextlib.ExitStack() as stack:
        # The source is hashed while it is planned.
        source = None if arguments.dry_run else stack.enter_context(Source(file, arguments.verify))
        made = stack.enter_context(plan(file, src, dst, settings, arguments.dtype, arguments.weights, arguments.assume))
        out = os.path.normpath(target(file, made, arguments.out))
        for name in (out, f"{out}.index.json"):
            if name in made_of:
                raise ConvertError(f"{file}: {out} was made of {made_of[name]} a moment ago: convert it elsewhere")
        result: dict[str, Any] = {
            "source": file, "out": out, "architecture": made.architecture, "variant": made.variant, "src": src,
            "dst": dst, "config": configs.as_dict(made.config), "tensors": len(made.steps),
            "parameters": made.parameters, "assumed": list(made.assumed), "notes": made.notes(),
            "skipped": made.skipped(),
        }  # fmt: skip
        for note in [*made.notes(), *(f"set aside, {line}" for line in made.skipped())]:
            print(printable(f"note: {note}"), file=sys.stderr)
        if arguments.dry_run:
            result["plan"] = list(_steps(made))
        else:
            proofs: list[dict[str, Any]] = []
            prove = (lambda written: proofs.append(_prove(made, written, arguments))) if arguments.prove else None
            size = _bytes(arguments.shard_size)
            options = {"prove": prove, "shard_size": size, "verify": arguments.verify, "source": source}
            written = made.write(out, arguments.force, **options)
            result |= {"proof": proofs[0] if proofs else None, "not_finite": _not_finite(written)}
            result["out"] = out if os.path.lexists(out) else f"{out}.index.json"
        if not arguments.json:
            _tell(made, result, arguments.dry_run)
    return result


def _not_finite(about: Mapping[str, Any]) -> dict[str, int]:
    """{name: how many} of the target's tensors that hold NaNs or infinities, which is told and not changed."""
    found = {name: line["not_finite"] for name, line in about["tensors"].items() if "not_finite" in line}
    if found:
        first, *others = fold(found)
        where = first + (f" and {len(others)} more" if others else "")
        print(
            printable(f"note: NaNs or infinities ({sum(found.values()):,}) in {where}: kept as they are"),
            file=sys.stderr,
        )
    return found


def _prove(made: Plan, written: str, arguments: Namespace) -> dict[str, Any]:
    from parity.prove import prove  # the one place that looks up to the floors above

    return prove(made, written, arguments.weights)


def _tell(made: Plan, result: Mapping[str, Any], dry: bool) -> None:
    what = f"{made.architecture} {made.variant or '(no official variant)'}, {made.parameters:,} parameters"
    line = f"{made.reader.path} ({made.src}, {made.reader.format}) -> {result['out']} ({made.dst}): {what}"
    print(printable(line))
    if dry:
        for line in _folded_steps(made):
            print(line)
        print(f"{len(made.steps)} tensors; nothing was written")
    if proof := result.get("proof"):
        verdict = "proven" if proof["exact"] else "measured, not proven, as the dtype changed"
        tolerance = f", tolerance {proof['tolerance']:.0e}" if proof["exact"] else ""
        print(
            f"{verdict}: {proof['source']} and {proof['target']} in float64 differ by at most {proof['error']:.1e} "
            f"(at {proof['worst']}, {proof['taps']} taps compared{tolerance})"
        )
        for line in made.skipped():
            print(printable(f"not covered by this proof, as set aside, {line}"))


def _steps(made: Plan) -> Iterator[dict[str, Any]]:
    for tensor, filling in made.steps:
        sources = [move.source for move in filling] if isinstance(filling, list) else []
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
    move = filling[0]
    if move.copies:
        return "copy"
    stacked = f"{len(filling)} stacked, " if len(filling) > 1 else ""
    sliced = "sliced, " if any(isinstance(s, int) for s in move.select) else ""
    return f"{stacked}{sliced}axes {' '.join(map(str, move.order))}"


def _folded_steps(made: Plan) -> Iterator[str]:
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


def target(file: str, made: Plan, out: str | None) -> str:
    """Where the result goes: -o, or beside the source with the suffix that the target's users expect."""
    dialect = dialects(made.architecture)[made.dst]
    stem = os.path.basename(os.path.abspath(file)).removesuffix(".tar").removesuffix(".index.json")
    root, suffix = os.path.splitext(stem)
    name = (root if suffix.lower() in suffixes() else stem) + (dialect.suffix or SUFFIX[dialect.framework])
    if out is None:
        return os.path.join(os.path.dirname(file.rstrip(os.sep)), name)
    checkpoint = out.rstrip(os.sep).lower().endswith(suffixes(FOLDERS))
    if out.endswith(os.sep) and not checkpoint and not os.path.isdir(out):
        raise ConvertError(f"-o {out}: there is no such folder: create it first")
    folder = os.path.isdir(out) and not checkpoint
    return os.path.join(out, name) if folder else out


def _files(given: list[str]) -> Iterator[str]:
    """The sources that are meant: files, folders, and patterns that no shell has expanded."""
    for path in given:
        if os.path.lexists(path) or not re.search(r"[*?[]", path):
            yield from _inside(path)
            continue
        from glob import glob

        matches = sorted(glob(path, recursive=True))
        if not matches:
            raise ConvertError(f"{path}: no file has such a name: check the pattern")
        indexed = any(match.endswith(".index.json") for match in matches)
        for match in _without_shards(matches) if indexed else matches:
            yield from _inside(match)


def _inside(path: str) -> list[str]:
    """A file, or a folder that is one checkpoint, as it is; of any other folder, every checkpoint inside."""
    if not os.path.isdir(path) or folder_format(path):
        return [path]
    known = suffixes(FORMATS)
    try:
        visible = [entry for entry in os.scandir(path) if not entry.name.startswith(".")]
    except OSError as error:
        raise ConvertError(f"{path}: cannot be read: {error.strerror}") from None
    found = [
        e.path
        for e in visible
        if (e.is_file() and e.name.lower().removesuffix(".tar").endswith(known)) or folder_format(e.path)
    ]
    if not (whole := _without_shards(found)):
        raise ConvertError(f"{path}: this folder holds no checkpoint ({' '.join(known)})")
    return sorted(whole)


def _without_shards(paths: list[str]) -> list[str]:
    """Shards are read through their index."""
    return [path for path in paths if not re.search(r"-\d{5}-of-\d{5}\.safetensors$", path)]


def diff(arguments: Namespace) -> int:
    from .compare import differences

    a, b = arguments.files
    if not 0 <= arguments.rtol < float("inf"):
        raise UsageError(f"--rtol {arguments.rtol}: a number from 0 on, as in 1e-6")
    found = differences(a, b, arguments.rtol, told(arguments), arguments.assume)
    if arguments.json:
        print(json.dumps({"same": not found, "differences": found}, indent=1))
    else:
        for entry in found:
            error = "" if entry["error"] is None else f" by {entry['error']:.2e}"
            print(
                f"{entry['tensor']}: {entry['kind']}{error}" + (f" ({entry['detail']})" if entry.get("detail") else "")
            )
        print("different" if found else "the same model")
    return 1 if found else 0


def verify(arguments: Namespace) -> int:
    from .verification import check

    problems = check(arguments.file)
    if arguments.json:
        print(json.dumps({"intact": not problems, "problems": problems}, indent=1))
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
        print(json.dumps(table, indent=1))
        return 0
    for name in specs.names():
        print(f"{name}: any of these into any other, e.g. {table[0]['route']}")
        for dialect, entry in dialects(name).items():
            print(f"  {dialect:12} {entry.framework:7} {entry.suffix or SUFFIX[entry.framework]:13} {entry.about}")
    return 0

"""Implement `python -m convert SRC2DST` and `--table`. Part of the command line: it may import any floor."""

from __future__ import annotations

import contextlib
import functools
import os
import re
import sys
from argparse import Namespace
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import specs
from specs import config as configs
from specs.kinds import SUFFIX

from . import planning
from .aside import as_json
from .casting import LOSSES
from .dry_run import described, folded
from .errors import ConvertError, UsageError, called, install, printable
from .execute import execute
from .files import FOLDERS, INDEX, suffixes
from .files.base import URL, Reader
from .files.hashing import Source
from .folding import not_finite, where
from .pixels import sized
from .plans import Plan
from .program import dumps
from .recognise import all_dialects, dialects, known_dialect
from .settings import stated
from .source_paths import sources
from .targets import target_of
from .terminal import say

if TYPE_CHECKING:
    from .by_table import TablePlan
    from .optimizer.plan import OptimizerPlan, Request

Convert = Callable[[str, Mapping[str, str]], dict[str, Any]]  # (source, {target made so far: its source}) -> result


def convert(arguments: Namespace) -> int:
    """Convert files by a route, or by a Table."""
    notes = Notes(later=arguments.json)
    one = _by_route(arguments, notes) if arguments.table is None else _by_table(arguments, notes)
    given = sources(arguments.files, arguments.step)
    files = given.files
    for line in given.lines():
        notes.add(line)
    if len(files) > 1 and arguments.out and not os.path.isdir(arguments.out):
        raise UsageError(f"-o {arguments.out}: {len(files)} sources need a folder that exists")
    results: list[dict[str, Any]] = []
    failures = 0
    for file in files:
        try:
            results.append(one(file, {result["out"]: result["source"] for result in results if "out" in result}))
        except ConvertError as error:
            if len(files) == 1:
                raise
            failures += 1
            results.append({"source": file, "error": str(error)})
            say(f"{called('convert')}: {error.line() if arguments.json else error}", sys.stderr, "bad")
    results += [{"source": path, "passed_over": reason} for path, reason in given.passed_over.items()]
    notes.flush()
    if arguments.json:
        print(dumps(results if len(results) > 1 else results[0]))
    elif len(files) > 1 and not arguments.quiet:
        print(f"{len(files) - failures} of {len(files)} converted")
    return 1 if failures else 0


def route(text: str) -> tuple[str, str]:
    """ "google2torch" -> ("google", "torch"). Raises: UsageError with the nearest route."""
    halves = [(text[:k], text[k + 1 :]) for k, letter in enumerate(text) if letter == "2"]
    for src, dst in halves:
        with contextlib.suppress(UsageError):
            return known_dialect(src), known_dialect(dst)
    if os.path.lexists(text):
        raise UsageError(f"{text}: the command comes first, as in google2torch {text} or inspect {text}")
    for name in (text, *(half for each in halves for half in each)):
        if name in specs.names():
            raise UsageError(f"{name} is an architecture; a route is DIALECT2DIALECT, e.g. flax2torch")
    if not halves:
        commands = ["inspect", "diff", "verify", "derive", "routes", *(f"{name}2torch" for name in all_dialects())]
        unknown = configs.unknown(text, commands)
        raise UsageError(f"{unknown}: neither a command nor a route ({called('convert routes')} lists them)")
    for name in halves[0]:
        known_dialect(name)
    raise UsageError(f"no route {text!r} ({called('convert routes')} lists them)")


class Notes:
    """Prints what a user should know on standard error.

    At once, or with --json at the end, so that an error is one line there.
    """

    def __init__(self, later: bool):
        self.later, self.waiting = later, list[str]()

    def add(self, text: str) -> None:
        self.waiting.append(printable(f"note: {text}"))
        if not self.later:
            self.flush()

    def flush(self) -> None:
        for line in self.waiting:
            say(line, sys.stderr, "doubt")
        self.waiting.clear()


def _by_route(arguments: Namespace, notes: Notes) -> Convert:
    """Return the conversion of one file by a route. Raises: UsageError for what is no route."""
    src, dst = route(arguments.command)
    settings, optimizer = stated(arguments), _request(arguments)

    def one(file: str, earlier: Mapping[str, str]) -> dict[str, Any]:
        with contextlib.ExitStack() as stack:
            source = _hashed(file, arguments, stack)
            given = (file, src, dst, settings, arguments.dtype, arguments.weights, arguments.assume)
            try:
                plan = planning.plan(*given, not arguments.verify, arguments.unreplicate)
            except planning.NotReplicated:
                if optimizer is None:
                    raise
                plan = planning.plan(*given, not arguments.verify)  # the state of the optimizer may be replicated alone
            stack.enter_context(plan)
            if arguments.image:
                notes.add(f"--image {arguments.image} is recorded: every array stays as it is")
            if arguments.layout:
                from .nnx import as_nnx

                plan = as_nnx(plan)
            dialect = dialects(plan.architecture)[plan.dst]
            usual = dialect.suffix or SUFFIX[dialect.framework]
            if optimizer:
                from .optimizer.families import USUAL

                usual = USUAL[dialect.framework]
            out = target(file, usual, arguments.out, earlier)
            result: dict[str, Any] = {
                "source": file, "out": out, "architecture": plan.architecture, "variant": plan.variant, "src": src,
                "dst": dst, "config": configs.as_dict(plan.config), "tensors": len(plan.steps),
                "parameters": plan.parameters, "part": plan.reading.prefix or "/", "aside": as_json(plan.aside),
                "skipped": plan.skipped(), "assumed": list(plan.assumed), "notes": plan.notes(),
                "preprocessing": sized(plan.preprocessing, plan.config, plan.unread).as_json(),
            }  # fmt: skip
            whole, about = _whole(plan, out, optimizer, stack)
            result |= {"notes": whole.notes(), **about}
            result |= _carry_out(plan, whole, out, arguments, source, notes)
            if not arguments.json and not arguments.quiet:
                _print(plan, result)
        return result

    return one


def _by_table(arguments: Namespace, notes: Notes) -> Convert:
    """Return the conversion of one file by a Table. Raises: ConvertError for a Table that cannot be read."""
    from . import by_table
    from .table_file import load

    table, sizes = load(arguments.table), dict(map(by_table.length, arguments.set))
    optimizer = _request(arguments)

    def one(file: str, earlier: Mapping[str, str]) -> dict[str, Any]:
        with contextlib.ExitStack() as stack:
            source = _hashed(file, arguments, stack)
            plan = by_table.plan(
                file, table, arguments.reverse, arguments.like, sizes, arguments.dtype, arguments.weights,
                _apart if optimizer else None, unreplicate=arguments.unreplicate,
            )  # fmt: skip
            stack.enter_context(plan)
            out = target(file, ".safetensors", arguments.out, earlier)
            result = {
                "source": file, "out": out, "table": arguments.table, "reversed": arguments.reverse,
                "tensors": len(plan.steps), "parameters": plan.parameters, "notes": plan.notes(),
            }  # fmt: skip
            whole, about = _whole(plan, out, optimizer, stack)
            result |= {"notes": whole.notes(), **about}
            result |= _carry_out(plan, whole, out, arguments, source, notes)
            if not arguments.json and not arguments.quiet:
                _print_by_table(plan, result)
        return result

    return one


def _apart(reader: Reader, unused: Callable[[], frozenset[str]]) -> frozenset[str]:
    """Name the arrays that are no weights: the optimizer's state, and copies of weights that no line speaks of."""
    from .optimizer import copies, finding

    state = finding.apart(reader)
    copied = copies.apart(reader, state)
    return state | (copied & unused() if copied else copied)


def _hashed(file: str, arguments: Namespace, stack: contextlib.ExitStack) -> Source | None:
    """Begin to hash a source, which goes on while it is planned; not if nothing will be written."""
    return None if arguments.dry_run else stack.enter_context(Source(file, arguments.verify))


def _request(arguments: Namespace) -> Request | None:
    """Tell what the user asks of the optimizer; None without --with-optimizer."""
    if not arguments.with_optimizer:
        given = [name for name in ("optimizer", "hyper") if getattr(arguments, name)]
        given += ["like"] if arguments.like and arguments.table is None else []
        if given:
            raise UsageError(f"--{given[0]} is of the state of an optimizer: add --with-optimizer")
        return None
    from .optimizer.plan import Request
    from .optimizer.state import given as hyperparameters

    hyper = hyperparameters(arguments.hyper)
    return Request(arguments.optimizer, arguments.like, hyper, arguments.dtype, arguments.unreplicate)


def _whole(
    plan: Plan | TablePlan, out: str, optimizer: Request | None, stack: contextlib.ExitStack
) -> tuple[Plan | TablePlan | OptimizerPlan, dict[str, Any]]:
    """Return the plan with the state of the optimizer where that is asked for, and what there is to print of it."""
    if optimizer is None:
        return plan, {}
    from .optimizer.plan import with_optimizer

    whole = with_optimizer(plan, out, optimizer, stack)
    return whole, {"optimizer": dict(whole.about)}


def _check_inputs(out: str, arguments: Namespace) -> None:
    """Check that a target is none of the command's other files. Raises: UsageError that names the option."""
    for name in ("table", "like", "config", "optimizer", "spec"):
        values = getattr(arguments, name, None) or ()
        for path in (values,) if isinstance(values, str) else values:
            if os.path.exists(out) and os.path.exists(path) and os.path.samefile(path, out):
                raise UsageError(f"{out}: is the file of --{name}: give another -o")


def _carry_out(
    plan: Plan | TablePlan,
    whole: Plan | TablePlan | OptimizerPlan,
    out: str,
    arguments: Namespace,
    source: Source | None,
    notes: Notes,
) -> dict[str, Any]:
    """Execute a plan, or describe its steps on --dry-run; return what there is to print of it.

    Args:
      plan: of the weights. whole: the same, or with the state of the optimizer.
    """
    _check_inputs(out, arguments)
    for note in whole.notes():
        notes.add(note)
    if arguments.dry_run:
        target_of(whole, out, arguments.force, _bytes(arguments.shard_size))
        return {"plan": list(described(whole))}
    prove = functools.partial(_prove, plan) if arguments.prove and isinstance(plan, Plan) else None
    removed: list[str] = []
    outcome = execute(
        whole, out, arguments.force, prove=prove, shard_size=_bytes(arguments.shard_size), verify=arguments.verify,
        source=source, removed=removed.append, lossy=arguments.lossy,
    )  # fmt: skip
    if removed:
        notes.add(f"removed {', '.join(removed)}")
    result: dict[str, Any] = {"removed": removed} if removed else {}
    result |= {"proof": outcome.proof} if isinstance(plan, Plan) else {}
    result["not_finite"] = _not_finite(whole, outcome.record, notes)
    if lossy := _lossy(outcome.record, notes):
        result["lossy"] = lossy
    return {**result, "out": out if os.path.lexists(out) else f"{out}.index.json"}


def _not_finite(whole: Plan | TablePlan | OptimizerPlan, about: Mapping[str, Any], notes: Notes) -> dict[str, int]:
    """Report NaNs and infinities of the target's tensors, {name: how many}, without those that a cast produced."""
    found, note = not_finite(about["tensors"], lambda: getattr(whole, "labels", {}))
    if note:
        notes.add(note)
    return found


def _lossy(about: Mapping[str, Any], notes: Notes) -> dict[str, dict[str, int]]:
    """Count and report values that the target's dtype cannot hold: {name: {"zeros": ..., "infinities": ..., ...}}."""
    found = {name: line["lossy"] for name, line in about["tensors"].items() if "lossy" in line}
    for kind, became in LOSSES.items():
        counts = {name: lost[kind] for name, lost in found.items() if kind in lost}
        if counts:
            dtypes = ", ".join(sorted({about["tensors"][name]["dtype"] for name in counts}))
            notes.add(f"{sum(counts.values()):,} values {became} in {dtypes}: {where(counts)}")
    return found


def _prove(plan: Plan, written: str) -> dict[str, Any]:
    """Run source and target on the CPU: jax neither looks for a GPU nor logs that it finds none."""
    os.environ.setdefault("JAX_PLATFORMS", "cpu")
    from parity.conversion_proof import prove  # runs models, which is the business of a floor above

    return prove(plan, written)


def _print(plan: Plan, result: Mapping[str, Any]) -> None:
    what = f"{plan.architecture} {plan.variant or '(no official variant)'}, {_contents(plan, result)}"
    line = f"{plan.reader.path} ({plan.src}, {plan.reader.format}) -> {result['out']} ({plan.dst}): {what}"
    say(printable(line))
    _print_steps(plan, result)
    if proof := result.get("proof"):
        lost = ", and values were lost" if result.get("lossy") else ""
        say(_verdict(proof, lost), kind="good" if proof["exact"] and proof["source"] != proof["target"] else "doubt")
        for line in plan.left_out():
            say(printable(f"not covered by this proof, as {line}"), kind="doubt")


def _contents(plan: Plan | TablePlan, result: Mapping[str, Any]) -> str:
    """Say what a target contains: the weights, or the state of their optimizer alone."""
    alone = result["out"].endswith(".pdopt")
    return f"{'the optimizer alone of ' if alone else ''}{plan.parameters:,} parameters"


def _verdict(proof: Mapping[str, Any], lost: str) -> str:
    """Say what was proven: by running both sides in two frameworks or in one, or without running them."""
    measured = "" if proof["exact"] else f"measured, not proven, as the dtype changed{lost}"
    tolerance = f", tolerance {proof['tolerance']:.0e}" if proof["exact"] else ""
    source, target = proof["source"], proof["target"]
    differ = f"differ by at most {proof['error']:.1e}"
    worst = f"at {proof['worst']}, " if proof["error"] else ""
    about = f"({worst}{proof['taps']} {'outputs of modules' if source else 'arrays'} compared{tolerance})"
    if source is None:
        what = f"{measured or 'proven of the arrays alone'}: source and target, read in one layout,"
        why = f"no framework is installed that could run them: {install('torch')}"
        return f"{what} {differ if proof['error'] else 'are equal'} {about}; {why}"
    if source == target:
        what = f"{measured or f'proven in {source} alone'} (no second framework with a port is installed): source and"
        same = differ if proof["error"] else "give the same outputs, exactly"
        return f"{what} target, each read into {source}'s port in float64, {same} {about}"
    return f"{measured or 'proven'}: {source} and {target} in float64 {differ} {about}"


def _print_by_table(plan: TablePlan, result: Mapping[str, Any]) -> None:
    ends = f"{plan.reader.path} ({plan.table.sides[0]}) -> {result['out']} ({plan.table.sides[1]})"
    say(printable(f"{ends}: {len(plan.steps)} tensors, {_contents(plan, result)}"))
    _print_steps(plan, result)


def _print_steps(plan: Plan | TablePlan, result: Mapping[str, Any]) -> None:
    """Print the steps of a plan that was not executed."""
    if "plan" in result:
        for line in folded(plan):
            say(printable(line))
        print(f"{len(plan.steps)} tensors; nothing was written")


def _bytes(text: str | None) -> int | None:
    """ "5GB" -> 5_000_000_000."""
    if text is None:
        return None
    found = re.fullmatch(r"(\d{1,18}(?:\.\d+)?)\s*([KMGT]?)(I?)B?", text.upper())
    if not found or not float(found[1]):
        raise UsageError(f"--shard-size {text}: write a size as in 5GB or 500MiB")
    return int(float(found[1]) * (1024 if found[3] else 1000) ** " KMGT".index(found[2] or " "))


def _named(file: str, usual: str, out: str | None) -> str:
    """Name the result: -o, or beside the source with the suffix that the target's users expect.

    Raises: UsageError where that is at a URL.
    """
    if out is None and URL.match(file):
        raise UsageError(f"{file}: nothing is written beside a URL: give -o")
    if out is not None and URL.match(out):
        return out  # refused where it is written
    stem = os.path.basename(os.path.abspath(file)).removesuffix(".tar")
    stem = INDEX.sub("", stem)
    root, suffix = os.path.splitext(stem)
    name = (root if suffix.lower() in suffixes() else stem) + usual
    if out is None:
        return os.path.normpath(os.path.join(os.path.dirname(file.rstrip(os.sep)), name))
    checkpoint = out.rstrip(os.sep).lower().endswith(suffixes(FOLDERS))
    if out.endswith(os.sep) and not checkpoint and not os.path.isdir(out):
        raise ConvertError(f"-o {out}: there is no such folder: create it first")
    folder = os.path.isdir(out) and not checkpoint
    return os.path.normpath(os.path.join(out, name) if folder else out)


def target(file: str, usual: str, out: str | None, earlier: Mapping[str, str] | None = None) -> str:
    """Name the result of one file.

    Args:
      usual: the suffix that the target's users expect. out: -o.
      earlier: {target: source} of this call so far. Raises: ConvertError where one of those has the same name.
    """
    name = _named(file, usual, out)
    for taken in (name, f"{name}.index.json"):
        if earlier and taken in earlier:
            raise ConvertError(f"{file}: {name} was made of {earlier[taken]} a moment ago: convert it elsewhere")
    return name

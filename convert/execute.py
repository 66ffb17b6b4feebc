"""Execute a plan: each tensor is read, permuted, hashed and written in turn; then the file is verified and renamed."""

from __future__ import annotations

import contextlib
import json
import os
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import IO, Any

from . import folding, replacing
from .arrays.casting import Tally, count_negative
from .arrays.payload import Scratch, check_steps, chunks
from .arrays.steps import Step, Writable, tied
from .errors import ConvertError, option
from .files import atomic, atomic_folder, hashing
from .files.atomic import Claim
from .files.background import Task
from .files.base import Tensor, Writer
from .files.sharded import PART
from .progress import Progress
from .records import new, record
from .records.odd_values import NEGATIVE
from .records.verification import damage
from .replacing import Removed
from .targets import Target, path_of, payload_bytes, target_of

Prove = Callable[[str], Any]
ROOM, LINE_ROOM = 256, 160  # bytes of a record and of a tensor's line for counts: values not finite, and lost ones
ALTERED = "reads back otherwise than it was written, by a faulty disk or memory, or as another program wrote to it"
PAUSE = 0.02  # seconds between two syncs while a file is written


@dataclass(frozen=True)
class Outcome:
    """What executing a plan leaves.

    Args:
      record: travels with the target.
      proof: what `prove` returned; None without one.
    """

    record: dict[str, Any]
    proof: Any


@dataclass(frozen=True)
class Options:
    """What a caller of `execute` chooses; see there."""

    force: bool
    prove: Prove | None
    verify: bool
    removed: Removed
    lossy: bool


@dataclass(frozen=True)
class Job:
    """A plan while it is executed.

    Args:
      source: watched, and hashed meanwhile.
    """

    plan: Writable
    target: Target
    options: Options
    source: hashing.Source
    progress: Progress
    scratch: Scratch


def write(
    plan: Writable,
    out: str | os.PathLike[str],
    force: bool = False,
    shard_size: int | None = None,
    verify: bool = True,
    lossy: bool = False,
) -> dict[str, Any]:
    """Write a plan's target file; it appears whole, verified and under its name, or not at all.

    Args:
      out, force, shard_size, verify, lossy: see `execute`.
    Returns: the record that travels with the target.
    Raises: ConvertError for a place that cannot be written, and for values that the target cannot hold.
    """
    return execute(plan, out, force, shard_size=shard_size, verify=verify, lossy=lossy).record


def execute(
    plan: Writable,
    out: str | os.PathLike[str],
    force: bool = False,
    prove: Prove | None = None,
    shard_size: int | None = None,
    verify: bool = True,
    source: hashing.Source | None = None,
    removed: Removed = replacing.warn,
    lossy: bool = False,
) -> Outcome:
    """Write a plan's target file; it appears whole, verified and under its name, or not at all.

    Args:
      out: target, a file or a folder; its suffix picks the format.
      force: replace an existing file.
      prove: called with the path of the finished file before it gets its name; raises to refuse it.
      shard_size: bytes of payload a file; more become several files and an index. Where `out` names the index, one
        file has an index as well.
      verify: hash the source and every tensor, and compare what the disk holds; else the record has no hashes.
      source: the source being hashed, where that began before it was planned.
      removed: called with each file beside the target that was removed: of what `force` replaces, or of a killed run.
      lossy: accept values that become infinite, and more that become zero or crude than casting.SHARE.
    """
    target = target_of(plan, os.fsdecode(out), force, shard_size)
    with contextlib.ExitStack() as stack:
        stack.enter_context(_naming(target))
        progress = Progress(payload_bytes(plan.steps), os.path.basename(target.out))
        stack.callback(progress.close)
        source = source or stack.enter_context(hashing.Source(path_of(plan), verify))
        hashing.check_unchanged(plan.reader.opened)  # since it was planned
        check_steps(plan)
        job = Job(plan, target, Options(force, prove, verify, removed, lossy), source, progress, Scratch())
        if not target.writer.one_file:
            return _write_folder(job)
        return _write_shards(job) if target.sharded else _write_whole(job)


@contextlib.contextmanager
def _naming(target: Target) -> Iterator[None]:
    """Name the target in errors of its unfinished file, which its user does not know."""
    try:
        yield
    except ConvertError as error:
        names = {atomic.temporary_of(out): out for out in (target.out, *(target.names if target.sharded else ()))}
        names[_unproven(target)] = target.out
        for temporary, out in names.items():
            error.message = error.message.replace(temporary, out)
            error.problems = [problem.replace(temporary, out) for problem in error.problems]
        raise


def _write_folder(job: Job) -> Outcome:
    """Write a checkpoint that is a folder; the record lies in it."""
    out = job.target.out
    with atomic_folder.claimed(out, job.options.removed) as claim:
        outcome = _write_recorded(job, claim)
        with atomic.undisturbed():
            atomic_folder.publish(claim.path, out, job.options.force)
    return outcome


def _write_whole(job: Job) -> Outcome:
    """Write one file; the record lies in it, or beside it."""
    out, force, removed = job.target.out, job.options.force, job.options.removed
    with atomic.claimed(out, removed) as claim:
        outcome = _write_recorded(job, claim)
        if job.target.writer.keeps_metadata:
            with atomic.undisturbed():
                atomic.publish(claim.path, out, force)
                _remove_outdated(job)
            return outcome
        text = record.dumps(record.sealed({**outcome.record, **hashing.identity(claim.path)}), indent=1) + "\n"
        beside = out + ".json"
        with (
            atomic.claimed(beside, removed) as record_claim,
            atomic.undisturbed(),
            atomic.accompanied(beside, record_claim, text.encode(), force),
        ):
            atomic.publish(claim.path, out, force)
            _remove_outdated(job)
    return outcome


def _remove_outdated(job: Job) -> None:
    """Remove what is left of the checkpoint that was replaced, its index before its shards."""
    for name in reversed(job.target.outdated):
        atomic.remove(name)
        job.options.removed(name)


def _write_recorded(job: Job, claim: Claim) -> Outcome:
    """Write the only file or folder of a target; verify and prove it."""
    facts = _facts(job)
    lines = _write_file(job, job.target.shards[0], claim, facts)
    content = _record(job, facts, lines)
    return Outcome(content, job.options.prove(claim.path) if job.options.prove else None)


def _facts(job: Job) -> dict[str, Any]:
    """Return the facts of the record that need no payload: the plan's, and the target's other metadata."""
    other = _metadata(job.target, None) if job.target.writer.one_file else {}
    return {**job.plan.facts(), **({"metadata": other} if other else {})}


def _record(job: Job, facts: dict[str, Any], lines: dict[str, Any]) -> dict[str, Any]:
    """Build the record of what was written; waits until the source is hashed.

    Raises: ConvertError where the source is no longer what it was.
    """
    complete = new.complete(facts, lines, job.source.sha256())
    hashing.check_unchanged(job.plan.reader.opened)
    return complete


def _write_shards(job: Job) -> Outcome:
    """Write several files and the index that holds their record.

    An old index goes first and the new one comes last: at no moment does an index lead to a mixture of two checkpoints.
    The unfinished index always lists the shards that are ours, which the next run may replace if this one is killed.
    """
    target, options = job.target, job.options
    facts, lines = _facts(job), dict[str, Any]()
    with contextlib.ExitStack() as stack:
        index = stack.enter_context(atomic.claimed(target.index, options.removed))
        atomic.rewrite(index.file, _listing(target))
        claims = [stack.enter_context(atomic.claimed(name, options.removed)) for name in target.names]
        for steps, claim in zip(target.shards, claims, strict=True):
            lines |= _write_file(job, steps, claim, None)
        content = _record(job, facts, lines)
        proof = None
        if options.prove is not None:
            proof = _prove_shards(target, options.prove, content, [claim.path for claim in claims])
        with atomic.undisturbed():
            with atomic.accompanied(target.index, index, _index(target, content, target.names), options.force):
                for name, claim in zip(target.names, claims, strict=True):
                    atomic.publish(claim.path, name, options.force)
            _remove_outdated(job)
    return Outcome(content, proof)


def _prove_shards(target: Target, prove: Prove, content: dict[str, Any], temporaries: list[str]) -> Any:
    """Prove shards that have no names yet, through an index that is removed again."""
    unnamed = _unproven(target)
    with contextlib.ExitStack() as stack:
        stack.callback(atomic.remove, unnamed)
        atomic.write(unnamed, _index(target, content, temporaries))
        return prove(unnamed)


def _unproven(target: Target) -> str:
    """Return the path of the index that leads to shards without names."""
    folder, name = os.path.split(os.path.abspath(target.out))
    return os.path.join(folder, f".{name}.triptych.unproven.index.json")


def _listing(target: Target) -> bytes:
    """Return an index of the shards of the old checkpoint, as far as they exist."""
    old = [os.path.basename(name) for name in (*target.names, *target.outdated) if os.path.lexists(name)]
    return json.dumps({"weight_map": dict(zip(old, old, strict=True))}).encode()


def _index(target: Target, content: dict[str, Any], files: list[str]) -> bytes:
    """Return the index of a sharded checkpoint whose shards are these files."""
    where = {t.name: os.path.basename(f) for f, steps in zip(files, target.shards, strict=True) for t, _ in steps}
    size = sum(map(payload_bytes, target.shards))
    index = {
        "metadata": {"total_size": size, record.KEY: record.dumps(record.sealed(content))},
        "weight_map": where,
    }
    return (json.dumps(index, indent=1) + "\n").encode()


def _write_file(job: Job, steps: list[Step], claim: Claim, facts: dict[str, Any] | None) -> dict[str, Any]:
    """Write some of a plan's tensors into one file, sync and verify it; return their lines of the record.

    The record goes into the file's own metadata where it has such, unless `facts` is None: then an index holds it.
    """
    (file, path), writer_type, verify = claim, job.target.writer, job.options.verify
    tensors = [tensor for tensor, _ in steps]
    same = _tied(job, steps) if writer_type.ties else {}
    stored = [step for step in steps if step[0].name not in same]
    if writer_type.one_file:
        atomic.reserve(file, payload_bytes(stored))
    blank = _metadata(job.target, facts and new.blank(facts, tensors, verify), reserve=True)
    writer = _writer(job, file, tensors, blank, same)
    with _synced_meanwhile(file.fileno()) if writer_type.one_file else contextlib.nullcontext():
        own = _payloads(job, stored, writer)
    lines = {tensor.name: own[same.get(tensor.name, tensor.name)] for tensor in tensors}
    if facts is not None and writer_type.keeps_metadata:
        writer.annotate(_metadata(job.target, _record(job, facts, lines)))
    writer.finish()
    file.flush()
    with Task(lambda _: os.fsync(file.fileno())) as synced:
        if verify and (problems := damage(path, lines)):
            raise ConvertError(f"{path}: {ALTERED}", problems)
        synced.result()
    return lines


def _tied(job: Job, steps: list[Step]) -> dict[str, str]:
    """Return {tensor: an earlier one of which it is another name}; moments have none: torch updates each in place."""
    labels = getattr(job.plan, "labels", {})
    return tied(job.plan, [step for step in steps if step[0].name not in labels])


def _writer(
    job: Job, file: IO[bytes], tensors: list[Tensor], metadata: dict[str, str], same: Mapping[str, str]
) -> Writer:
    """Begin a file of the target's format. Raises: ConvertError that names the target, for what it cannot hold.

    Args:
      same: {tensor: an earlier one of which it is another name}, for formats that store such once.
    """
    tree: dict[str, Any] = {} if job.plan.tree is None else {"tree": job.plan.tree}
    ties: dict[str, Any] = {"tied": same} if same else {}
    try:
        return job.target.writer(file, tensors, metadata, **tree, **ties)
    except ConvertError as error:
        error.message = f"{job.target.out}: {error.message}"
        raise


@contextlib.contextmanager
def _synced_meanwhile(descriptor: int) -> Iterator[None]:
    """Sync to the disk while more is written, so that little is left for the sync at the end.

    Raises: OSError of the disk, which reports it once.
    """

    def sync(stop: threading.Event) -> None:
        while not stop.wait(PAUSE):
            os.fsync(descriptor)

    with Task(sync) as syncing:
        yield
    syncing.result()


def _payloads(job: Job, steps: list[Step], writer: Writer) -> dict[str, dict[str, Any]]:
    """Write each tensor; return their lines of the record.

    Raises: ConvertError that lists every tensor that loses too much by a change of dtype, where that is not accepted.
    """
    lines = {}
    refused: dict[str, tuple[str, str]] = {}  # name -> its dtype, and what it loses
    squares = getattr(job.plan, "squares", frozenset[str]())
    for step in steps:
        tensor, tally = step[0], Tally()
        counts = {NEGATIVE: count_negative} if tensor.name in squares else {}
        digest = hashing.Digest(tensor, job.options.verify, counts)
        writer.write(tensor, job.progress.of(digest.of(chunks(job.plan, step, job.scratch, tally))))
        lines[tensor.name] = digest.line() | ({"lossy": lost} if (lost := tally.lost()) else {})
        if problem := tally.problem(tensor.dtype):
            refused[tensor.name] = tensor.dtype, problem
    if refused and not job.options.lossy:
        what = (
            f"{job.plan.reader.path}: values would be lost: keep the source's dtype, or accept it by {option('lossy')}"
        )
        raise ConvertError(what, _losses(refused, getattr(job.plan, "labels", {})))
    return lines


def _losses(refused: Mapping[str, tuple[str, str]], labels: Mapping[str, str]) -> list[str]:
    """List what tensors lose; the moments of an optimizer, which have labels, in one line for each dtype."""
    lines = folding.misfits((name, problem) for name, (_, problem) in refused.items() if name not in labels)
    moments: dict[str, list[str]] = {}
    for name, (dtype, _) in refused.items():
        if name in labels:
            moments.setdefault(dtype, []).append(name)
    for dtype, names in moments.items():
        count = f"{len(names):,} of {len(labels):,} moments of the optimizer have values that {dtype} does not hold"
        lines.append(f"{count}, as {names[0]}, which {refused[names[0]][1]}")
    return lines


def _metadata(target: Target, content: dict[str, Any] | None, reserve: bool = False) -> dict[str, str]:
    """Build a file's safetensors metadata: "format", which transformers asks for, and of a shard the index's name.

    Args:
      content: the record to add; None for a shard, whose record is in the index.
      reserve: leave room in the record for counts to come.
    """
    if not target.writer.keeps_metadata:
        return {}
    part = {PART: os.path.basename(target.index)} if len(target.shards) > 1 else {}
    if content is None:
        return {"format": "pt", **part}
    room = " " * (ROOM + LINE_ROOM * len(content["tensors"])) if reserve else ""
    return {"format": "pt", record.KEY: record.dumps(record.sealed(content)) + room}

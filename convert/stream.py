"""Executes a plan a tensor at a time: read, permuted, hashed and written, then verified on disk and renamed."""

from __future__ import annotations

import contextlib
import json
import os
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from . import manifest, replacing, report
from .casting import Tally
from .errors import ConvertError, UsageError
from .files import atomic, atomic_folder, files_of, hashing, writer_for
from .files.atomic import Claim
from .files.background import Task
from .files.base import Writer
from .files.sharded import PART, shard_name
from .payload import Scratch, check, chunks
from .planning import Planned, Step
from .progress import Progress
from .replacing import Removed, index_of
from .verification import differences

Prove = Callable[[str], Any]
ROOM, LINE_ROOM = 256, 112  # bytes of a record and of a tensor's line for counts: values not finite, and lost ones
PAUSE = 0.02  # seconds between two syncs while a file is written


@dataclass(frozen=True)
class Job:
    """A conversion while it is written.

    Args:
      shards: the plan's steps by file.
      names: the files' final names.
      source: watched, and hashed meanwhile.
      verify: read back what was written.
      outdated: files to remove once the target has its name.
      removed: is called with each file that was removed.
      lossy: accept whatever a change of dtype loses.
    """

    plan: Planned
    out: str
    force: bool
    prove: Prove | None
    writer_type: type[Writer]
    shards: list[list[Step]]
    names: list[str]
    source: hashing.Source
    verify: bool
    progress: Progress
    scratch: Scratch
    outdated: list[str]
    removed: Removed
    lossy: bool

    @property
    def index(self) -> str:
        """Of a sharded checkpoint."""
        return index_of(self.out)


def write(
    plan: Planned,
    out: str,
    force: bool = False,
    prove: Prove | None = None,
    shard_size: int | None = None,
    verify: bool = True,
    source: hashing.Source | None = None,
    removed: Removed = replacing.warn,
    lossy: bool = False,
) -> dict[str, Any]:
    """Write a plan's target file; it appears whole, verified and under its name, or not at all.

    Args:
      out: target, a file or a folder; its suffix picks the format.
      force: replace an existing file.
      prove: called with the path of the finished file before it gets its name; raises to refuse it.
      shard_size: bytes of payload a file; more become several files and an index (safetensors only).
      verify: hash the source and every tensor, and compare what the disk holds; else the record has no hashes.
      source: the source being hashed, where that began before it was planned.
      removed: called with each file beside the target that was removed: of what `force` replaces, or of a killed run.
      lossy: accept values that become infinite, and more of them that become zero than casting.ZEROED.
    Returns: the record that travels with the file.
    """
    atomic.folder_of(out)  # told before its suffix
    out = os.path.normpath(out)
    writer_type, shards = writer_for(out), split(plan.steps, shard_size)
    names = [out] if len(shards) == 1 else [shard_name(out, k + 1, len(shards)) for k in range(len(shards))]
    outdated = _check(plan, out, force, writer_type, names)
    with contextlib.ExitStack() as stack:
        progress = Progress(sum(tensor.nbytes for tensor, _ in plan.steps), os.path.basename(out))
        stack.callback(progress.close)
        source = source or stack.enter_context(
            hashing.Source(plan.reader.path if plan.reader.on_disk else None, verify)
        )
        check(plan)
        job = Job(
            plan, out, force, prove, writer_type, shards, names, source, verify, progress, Scratch(), outdated,
            removed, lossy,
        )  # fmt: skip
        if not writer_type.one_file:
            return _write_folder(job)
        return _write_whole(job) if len(shards) == 1 else _write_shards(job)


def split(steps: list[Step], shard_size: int | None) -> list[list[Step]]:
    """Steps in groups whose payloads fit the size; a tensor larger than it has a group of its own."""
    groups: list[list[Step]] = [[]]
    room = shard_size
    for step in steps:
        if shard_size is not None and room is not None:
            if step[0].nbytes > room and groups[-1]:
                groups.append([])
                room = shard_size
            room -= step[0].nbytes
        groups[-1].append(step)
    return groups


def _check(plan: Planned, out: str, force: bool, writer_type: type[Writer], names: list[str]) -> list[str]:
    """Check that the target may be written; return the files that it makes outdated.

    Raises: ConvertError before anything is read.
    """
    sharded, inside = len(names) > 1, writer_type.keeps_metadata
    if sharded and not (writer_type.one_file and inside):
        raise UsageError(f"{out}: only .safetensors is written in shards")
    sources = files_of(plan.reader.path) if plan.reader.on_disk else []
    if not writer_type.one_file:
        atomic.check([], out, force)
        atomic_folder.check(plan.reader.path if plan.reader.on_disk else None, out, force, writer_type)
        return []
    for name in dict.fromkeys([*names, *([index_of(out), out] if inside else [out + ".json"])]):
        atomic.check(sources, name, force)
        if os.path.isdir(name):
            raise ConvertError(f"{name}: is a folder: give a file name")
    outdated: list[str] = []
    if force:
        replacing.check(out, names, record_beside=not inside)
        outdated = replacing.outdated(out, names) if inside else []
    for name in outdated:
        atomic.check(sources, name, force)
    atomic.check_room(out, sum(tensor.nbytes for tensor, _ in plan.steps))  # a folder's chunks may be compressed
    return outdated


def _write_folder(job: Job) -> dict[str, Any]:
    """A checkpoint that is a folder; the record lies in it."""
    with atomic_folder.claimed(job.out, job.removed) as claim:
        about = _write_recorded(job, claim)
        atomic_folder.publish(claim[1], job.out, job.force)
    return about


def _write_whole(job: Job) -> dict[str, Any]:
    """One file; the record lies in it, or beside it."""
    with atomic.claimed(job.out, job.removed) as claim:
        about = _write_recorded(job, claim)
        if job.writer_type.keeps_metadata:
            with atomic.undisturbed():
                atomic.publish(claim[1], job.out, job.force)
                _remove_outdated(job)
            return about
        beside = manifest.dumps(manifest.sealed({**about, **hashing.identity(claim[1])}), indent=1) + "\n"
        name = job.out + ".json"
        with (
            atomic.claimed(name, job.removed) as its,
            atomic.undisturbed(),
            atomic.accompanied(name, its, beside.encode()),
        ):
            atomic.publish(claim[1], job.out, job.force)
    return about


def _remove_outdated(job: Job) -> None:
    """Remove what is left of the checkpoint that was replaced, its index before its shards."""
    for name in reversed(job.outdated):
        atomic.remove(name)
        job.removed(name)


def _write_recorded(job: Job, claim: Claim) -> dict[str, Any]:
    """The only file or folder of a target, verified and proven; its record."""
    about = job.plan.record()
    about = manifest.finished(about, _write_file(job, job.plan.steps, claim, about))
    about["source"]["sha256"] = job.source.sha256()
    if job.prove is not None:
        job.prove(claim[1])
    return about


def _write_shards(job: Job) -> dict[str, Any]:
    """Several files and the index that holds their record. An old index goes first and the new one comes last: at no
    moment does an index lead to a mixture of two checkpoints."""
    about, lines = job.plan.record(), dict[str, Any]()
    with contextlib.ExitStack() as stack:
        index = stack.enter_context(atomic.claimed(job.index, job.removed))
        claims = [stack.enter_context(atomic.claimed(name, job.removed)) for name in job.names]
        for steps, claim in zip(job.shards, claims, strict=True):
            lines |= _write_file(job, steps, claim, None)
        about = manifest.finished(about, lines)
        about["source"]["sha256"] = job.source.sha256()
        if job.prove is not None:
            _prove_shards(job, job.prove, about, [temporary for _, temporary in claims])
        with atomic.undisturbed():
            with atomic.accompanied(job.index, index, _index(job, about, job.names)):
                for name, (_, temporary) in zip(job.names, claims, strict=True):
                    atomic.publish(temporary, name, job.force)
            _remove_outdated(job)
    return about


def _prove_shards(job: Job, prove: Prove, about: dict[str, Any], temporaries: list[str]) -> None:
    """Prove shards that have no names yet, through an index that is gone again."""
    folder, name = os.path.split(os.path.abspath(job.out))
    unnamed = os.path.join(folder, f".{name}.triptych.unproven.index.json")
    with contextlib.ExitStack() as stack:
        stack.callback(atomic.remove, unnamed)
        with atomic.claimed(unnamed) as claim, atomic.accompanied(unnamed, claim, _index(job, about, temporaries)):
            pass
        prove(unnamed)


def _index(job: Job, about: dict[str, Any], files: list[str]) -> bytes:
    """The index of a sharded checkpoint whose shards are these files."""
    where = {t.name: os.path.basename(f) for f, steps in zip(files, job.shards, strict=True) for t, _ in steps}
    size = sum(t.nbytes for steps in job.shards for t, _ in steps)
    content = {
        "metadata": {"total_size": size, manifest.KEY: manifest.dumps(manifest.sealed(about))},
        "weight_map": where,
    }
    return (json.dumps(content, indent=1) + "\n").encode()


def _write_file(job: Job, steps: list[Step], claim: Claim, about: dict[str, Any] | None) -> dict[str, Any]:
    """Some of a plan's tensors into one file, synced and verified; their lines of the record.

    The record goes into the file's own metadata where it has such, unless `about` is None: then an index holds it.
    """
    file, path = claim
    tensors = [tensor for tensor, _ in steps]
    if job.writer_type.one_file:
        atomic.reserve(file, sum(tensor.nbytes for tensor in tensors))
    blank = _kept(job, about and manifest.blank(about, tensors, job.verify), reserve=True)
    writer = job.writer_type(file, tensors, blank)
    with _synced_meanwhile(file.fileno()) if job.writer_type.one_file else contextlib.nullcontext():
        lines = _payloads(job, steps, writer)
    if about is not None and job.writer_type.keeps_metadata:
        about["source"]["sha256"] = job.source.sha256()
        writer.annotate(_kept(job, manifest.finished(about, lines)))
    writer.finish()
    file.flush()
    with Task(lambda _: os.fsync(file.fileno())) as synced:
        if job.verify and (problems := differences(path, lines)):
            raise ConvertError(f"{path}: reads back otherwise than it was written: the disk is at fault", problems)
        synced.result()
    return lines


@contextlib.contextmanager
def _synced_meanwhile(descriptor: int) -> Iterator[None]:
    """What is written goes to the disk while more is written: little is left for the sync at the end.

    Raises: OSError of the disk, which tells it once.
    """

    def sync(stop: threading.Event) -> None:
        while not stop.wait(PAUSE):
            os.fsync(descriptor)

    with Task(sync) as syncing:
        yield
    syncing.result()


def _payloads(job: Job, steps: list[Step], writer: Writer) -> dict[str, dict[str, Any]]:
    """Write each tensor; their lines of the record.

    Raises: ConvertError that lists every tensor that loses too much by a change of dtype, where that is not accepted.
    """
    lines = {}
    refused: list[tuple[str, str]] = []
    for step in steps:
        tensor, tally = step[0], Tally()
        digest = hashing.Digest(tensor, job.verify)
        writer.write(tensor, job.progress.of(digest.of(chunks(job.plan, step, job.scratch, tally))))
        lines[tensor.name] = digest.line() | ({"lossy": lost} if (lost := tally.lost()) else {})
        if problem := tally.problem(tensor.dtype):
            refused.append((tensor.name, problem))
    if refused and not job.lossy:
        what = f"{job.plan.reader.path}: values would be lost: keep the source's dtype, or accept it with --lossy"
        raise ConvertError(what, report.misfits(refused))
    return lines


def _kept(job: Job, about: dict[str, Any] | None, reserve: bool = False) -> dict[str, str]:
    """The record as safetensors metadata ("format" is what transformers asks for), with room for counts to come; of a
    shard, whose record is in the index, the index's name."""
    if not job.writer_type.keeps_metadata:
        return {}
    if about is None:
        return {"format": "pt", PART: os.path.basename(job.index)}
    room = " " * (ROOM + LINE_ROOM * len(about["tensors"])) if reserve else ""
    return {"format": "pt", manifest.KEY: manifest.dumps(manifest.sealed(about)) + room}

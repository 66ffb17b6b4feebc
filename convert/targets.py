"""Name the files of a target, and check that each may be written, before anything is read."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from . import replacing
from .arrays.steps import Step, Writable
from .errors import ConvertError, Exists, UsageError, command_or_call
from .files import FOLDERS, atomic_folder, files_of, suffixes, writer_for
from .files import INDEX as NUMBERED
from .files.base import URL, Writer, shown
from .files.sharded import SUFFIX as INDEX
from .files.sharded import shard_name
from .records import record
from .replacing import index_of


@dataclass(frozen=True)
class Target:
    """The files of a target.

    Args:
      writer: of its format.
      shards: the plan's steps by file.
      names: the files' final names.
      outdated: files to remove once the target has its name.
      sharded: whether an index leads to the files, and holds the record.
    """

    out: str
    writer: type[Writer]
    shards: list[list[Step]]
    names: list[str]
    outdated: list[str]
    sharded: bool

    @property
    def index(self) -> str:
        """Return the path of a sharded checkpoint's index."""
        return index_of(self.out)


def payload_bytes(steps: Sequence[Step]) -> int:
    return sum(tensor.nbytes for tensor, _ in steps)


def path_of(plan: Writable) -> str | None:
    """Return the path of a plan's source; None where that lies in memory."""
    return plan.reader.path if plan.reader.on_disk else None


def target_of(plan: Writable, out: str, force: bool, shard_size: int | None, others: Iterable[str] = ()) -> Target:
    """Name the files of a target and check that each may be written. Raises: ConvertError before anything is read.

    Args:
      others: what else the same command converts, which its targets do not replace either.
    """
    if shard_size is not None and not (isinstance(shard_size, int | float) and shard_size >= 1):
        raise UsageError(f"shard_size={shard_size!r}: give a number of bytes from 1 on, as in shard_size=5_000_000_000")
    folder_of(out)  # an error in the folder's name is reported before one in the suffix
    out = os.path.normpath(out)  # after the check: it would change a URL
    indexed = out.endswith(INDEX)
    if indexed and shard_size is None:
        size = command_or_call("--shard-size 5GB", "shard_size=5_000_000_000")
        raise UsageError(f"{out}: an index leads to shards: give their size, as in {size}")
    out = out.removesuffix(INDEX)
    writer, shards = writer_for(out), split(plan.steps, shard_size)
    sharded = indexed or len(shards) > 1
    names = [shard_name(out, k + 1, len(shards)) for k in range(len(shards))] if sharded else [out]
    _check_format(plan, out, writer, sharded)
    read = dict.fromkeys(path for path in (path_of(plan), *plan.beside, *others) if path and not URL.match(path))
    folders = [path for path in read if os.path.isdir(path) or not writer.one_file]
    for path in folders:
        atomic_folder.check_apart(path, out)
    sources = [file for path in read for file in _files_of(path)]
    if not writer.one_file:
        atomic_folder.check(out, writer, record.is_record)  # first: --force is no remedy for what this refuses
        check_path([], out, force)
        return Target(out, writer, shards, names, [], sharded)
    _check_files(sources, out, force, names, record_beside=not writer.keeps_metadata and not sharded)
    outdated = replacing.outdated(out, names) if force else []
    for name in outdated:
        check_path(sources, name, force)
    check_room(out, payload_bytes(plan.steps))  # a folder's chunks may be compressed
    return Target(out, writer, shards, names, outdated, sharded)


def split(steps: Sequence[Step], shard_size: int | None) -> list[list[Step]]:
    """Group steps so that the payloads of each group fit the size; a tensor larger than it has a group of its own."""
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


def _check_format(plan: Writable, out: str, writer: type[Writer], sharded: bool) -> None:
    """Check that a format holds what a plan writes. Raises: UsageError."""
    if sharded and not writer.one_file:
        raise UsageError(f"{out}: a folder is not written in shards: it has files of its own")
    if plan.tree is not None and (sharded or not writer.nests):
        what = "shards hold" if sharded else "this format holds"
        raise UsageError(f"{out}: {what} arrays alone, and neither an optimizer's state nor paddle's own names of them")


def _files_of(path: str) -> list[str]:
    """List every file of a source; one that cannot be read is refused where it is converted."""
    try:
        return files_of(path)
    except ConvertError:
        return [path]


def _check_files(sources: list[str], out: str, force: bool, names: list[str], record_beside: bool) -> None:
    """Check that the files of a target may be written. Raises: ConvertError before anything is read.

    Args:
      sources: all files that are read.
      record_beside: the target's record is a file of its own, OUT.json.
    """
    for name in dict.fromkeys([*names, index_of(out), out, *([f"{out}.json"] if record_beside else [])]):
        try:
            check_path(sources, name, force)
        except Exists:
            replacing.check(out, names, record_beside)  # what --force does not replace either has another remedy
            raise
        if os.path.isdir(name):
            raise UsageError(f"{name}: is a folder: give a file name")
    if force:
        replacing.check(out, names, record_beside)


def check_path(sources: Iterable[str], out: str, force: bool, kind: replacing.Text | None = None) -> None:
    """Check that a target may be written, before anything is read. Raises: ConvertError.

    Args:
      sources: all files that are read. kind: of texts that `force` replaces; None for any file.
    """
    folder = folder_of(out)
    there = filter(os.path.exists, sources) if os.path.exists(out) else ()
    if any(os.path.samefile(source, out) for source in there):
        elsewhere = command_or_call("give another -o", "give another path")
        raise UsageError(f"{out}: is read itself, or as a part of what is read: {elsewhere}")
    if kind:
        kind.check(out)
    if os.path.lexists(out) and not force:
        raise Exists(out)
    if not os.access(folder, os.W_OK):
        raise ConvertError(f"{folder}: is not writable: give -o a place elsewhere")


def folder_of(out: str) -> str:
    """Return the folder that a target lies in. Raises: UsageError where there is none, for a URL, and for no name."""
    try:
        is_name = b"\0" not in os.fsencode(out)
    except UnicodeEncodeError:
        is_name = False
    if not is_name:
        raise UsageError(f"{shown(out)}: is no name that a file can have: give another")
    if URL.match(out):
        raise UsageError(f"{out}: a URL can be read, not written: give -o a folder of this machine, and copy it there")
    folder = os.path.dirname(os.path.abspath(out))
    if not os.path.isdir(folder):
        raise UsageError(f"{out}: there is no folder {folder}: create it first")
    return folder


def check_room(out: str, size: int) -> None:
    """Check that the disk has `size` bytes left. Raises: ConvertError."""
    folder = os.path.dirname(os.path.abspath(out))
    disk = os.statvfs(folder)
    if disk.f_blocks and (left := disk.f_bavail * disk.f_frsize) < size:  # /proc and the like count none
        raise ConvertError(
            f"{out}: needs {size / 1e6:,.1f} MB, and {folder} has {left / 1e6:,.1f} MB left: make room there"
        )


def _named(file: str, usual: str, out: str | None) -> str:
    """Name the result: -o, or beside the source with the suffix that the target's users expect.

    Raises: UsageError where that is at a URL.
    """
    if out is None and URL.match(file):
        raise UsageError(f"{file}: nothing is written beside a URL: give -o")
    if out is not None and URL.match(out):
        return out  # refused where it is written
    stem = os.path.basename(os.path.abspath(file)).removesuffix(".tar")
    stem = NUMBERED.sub("", stem)
    root, suffix = os.path.splitext(stem)
    name = (root if suffix.lower() in suffixes() else stem) + usual
    if out is None:
        return os.path.normpath(os.path.join(os.path.dirname(file.rstrip(os.sep)), name))
    checkpoint = out.rstrip(os.sep).lower().endswith(suffixes(FOLDERS))
    if out.endswith(os.sep) and not checkpoint and not os.path.isdir(out):
        raise UsageError(f"-o {out}: there is no such folder: create it first")
    folder = os.path.isdir(out) and not checkpoint
    return os.path.normpath(os.path.join(out, name) if folder else out)


def target_name(file: str, usual: str, out: str | None, earlier: Mapping[str, str] | None = None) -> str:
    """Name the result of one file.

    Args:
      usual: the suffix that the target's users expect. out: -o.
      earlier: {target: source} of this call so far. Raises: ConvertError where one of those has the same name.
    """
    name = _named(file, usual, out)
    for taken in (name, f"{name}.index.json"):
        if earlier and taken in earlier:
            raise ConvertError(
                f"{file}: this command already wrote {name}, from {earlier[taken]}: convert one of them to another -o"
            )
    return name

"""Verify that a file is what its record says: read it back from disk, a large one by two readers at once."""

from __future__ import annotations

import json
import os
import threading
from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import suppress
from itertools import takewhile
from typing import Any, NamedTuple

from convert import folding
from convert.errors import ConvertError, FormatError, option
from convert.files import INDEX, files_of, open_checkpoint
from convert.files.background import Task
from convert.files.base import File, Reader, Tensor, meant
from convert.files.hashing import HASH, digest
from convert.files.inside import look
from convert.files.sharded import ShardedReader

from . import record as records

TWO_READERS = 32 << 20  # bytes read in 10 ms; less gets one reader: opening a file again takes as long, a folder 300 ms
OTHER_VALUES = " has other values than were written"
SEVERAL = 4  # arrays of other values from which on one line counts them


class Verification(NamedTuple):
    """What comparing a file with its record shows.

    Args:
      problems: what in the file, or in its record, is not as it was written; [] where all that is compared is.
      arrays: how many the record lists.
      same_arrays: whether all of them have the names, shapes, dtypes and values that were written.
    """

    problems: list[str]
    arrays: int = 0
    same_arrays: bool = False


def verify(path: str) -> Verification:
    """Compare a file with its record. It is read from the disk itself, where the system lets go of what it keeps in
    memory.

    Raises: ConvertError where the file has no record, or one without hashes.
    """
    path = look(path).path
    try:
        with open_checkpoint(path) as reader:
            record = records.read(reader)
            metadata = _metadata(reader, record.content)
    except FormatError as error:
        if not os.path.isfile(path) or not (record := records.of_file(path)).content:
            raise
        beside = f"{record.place} lies beside it" + (f": it {record.damage}" if record.damage else "")
        return Verification([str(error), beside])
    if not record.place:
        why = "it was not written by this converter, or its record was removed"
        if os.path.isfile(path) and not INDEX.search(path) and reader.format != "safetensors":
            beside = os.path.basename(path) + ".json"
            why = f"it was not written by this converter, or {beside}, which belongs beside it, was not copied along"
        raise ConvertError(f"{path}: has no record of its tensors: {why}")
    lines = record.content.get("tensors")
    if not lines:
        raise ConvertError(f"{path}: {record.place} {record.damage or 'lists no tensors'}: it is damaged, or not ours")
    if not any(HASH in line for line in lines.values()):
        if record.damage:
            raise ConvertError(f"{path}: {record.place} {record.damage}, and holds no hashes to check the file by")
        raise ConvertError(f"{path}: was written with {option('no-verify')}: its record holds no hashes to check it by")
    if hasattr(os, "posix_fadvise"):
        for name in files_of(path):
            _let_go(name)
    damaged = [f"{record.place} {record.damage}"] if record.damage else []
    change = [f"{record.place} no longer fits the file, {record.change}"] if record.change else []
    wrong = _few(_problems(path, lines), len(lines))
    others = folding.damage(line for line in wrong if record.change != f"whose {line}")  # which `change` says already
    same = not (record.damage or wrong)
    return Verification([*damaged, *change, *metadata, *others], len(lines), same)


def _metadata(reader: Reader, content: Mapping[str, Any]) -> list[str]:
    """Tell what in a file's metadata, or in that of its shards, is not as the record says; its record aside."""
    if "metadata" not in content:  # the format keeps none, or the record is of an older version
        return []
    parts: Mapping[str, Reader] = {"": reader}
    sizes: list[str] = []
    if isinstance(reader, ShardedReader):
        parts, size = reader.shards, sum(tensor.nbytes for tensor in reader.tensors.values())
        wrong = f"its total_size is {reader.total_size!r}, its tensors have {size} bytes"
        sizes = [wrong] if reader.total_size != size else []
    own = {name: {k: v for k, v in part.metadata.items() if k != records.KEY} for name, part in parts.items()}
    written = json.dumps(content["metadata"])
    return sizes + [
        f"{f'{name}: its ' if name else ''}metadata are {json.dumps(metadata)}, written were {written}"
        for name, metadata in own.items()
        if metadata != content["metadata"]
    ]


def _let_go(path: str) -> None:
    """Tell the system that it need not keep a file's pages, those aside that are not on the disk yet."""
    file = File(path)
    try:
        os.posix_fadvise(file.fd, 0, 0, os.POSIX_FADV_DONTNEED)
    finally:
        file.close()


def with_every_value(reader: Reader, record: records.Record) -> records.Record:
    """Check a record that fits a file so far against all values of the file; `record.read` checks a sample.

    A record whose file was changed says nothing of the file's arrays, whichever of them it was.
    """
    lines = record.content.get("tensors", {})
    if not record.sample or record.change or not any(HASH in line for line in lines.values()):
        return record
    problems = damage(reader.path, lines)
    return record._replace(sample="", change=f"whose {problems[0]}" if problems else "")


def damage(path: str, lines: dict[str, Any]) -> list[str]:
    """Return what in a file is not as the record's lines say, folded."""
    return folding.damage(_problems(path, lines))


def _few(problems: list[str], arrays: int) -> list[str]:
    """Return problems with one line for all arrays whose values differ, where these are several."""
    names = [line.removesuffix(OTHER_VALUES) for line in problems if line.endswith(OTHER_VALUES)]
    if len(names) < SEVERAL:
        return problems
    others = [line for line in problems if not line.endswith(OTHER_VALUES)]
    return [
        *others,
        f"{len(names):,} of {arrays:,} arrays have other values than were written: {folding.listed(names)}",
    ]


def _problems(path: str, lines: dict[str, Any]) -> list[str]:
    """Return what in a file is not as the record's lines say; a large file is read twice as fast by two readers."""
    with open_checkpoint(path) as reader:
        problems = [f"missing {name}" for name in lines if name not in reader.tensors]
        problems += [f"unexpected {name}" for name in reader.tensors if name not in lines]
        todo = deque(tensor for name, tensor in reader.tensors.items() if name in lines)
        if sum(tensor.nbytes for tensor in todo) < TWO_READERS:
            return [*problems, *_bad(reader, lines, todo)]
        with Task(lambda stop: _damaged(path, lines, todo, stop)) as other:
            return [*problems, *_bad(reader, lines, todo), *other.result()]


def _damaged(path: str, lines: dict[str, Any], todo: deque[Tensor], stop: threading.Event) -> list[str]:
    """Return what the second reader finds."""
    with open_checkpoint(path) as reader:
        return list(takewhile(lambda _: not stop.is_set(), _bad(reader, lines, todo)))


def _bad(reader: Reader, lines: dict[str, Any], todo: deque[Tensor]) -> Iterator[str]:
    """Check tensors from the shared queue `todo`; yield a line for each that differs from the record."""
    with suppress(IndexError):  # nothing left to do
        while tensor := todo.popleft():
            line = lines[tensor.name]
            if list(tensor.shape) != line.get("shape"):
                yield f"{tensor.name} has shape {list(tensor.shape)}, recorded was {line.get('shape')}"
            elif meant(tensor.dtype) != meant(line.get("dtype", "")):
                yield f"{tensor.name} has dtype {tensor.dtype}, recorded was {line.get('dtype')}"
            elif not isinstance(line.get(HASH), str):
                yield f"{tensor.name} has no hash in the record"
            elif _hash(reader, tensor.name) != line[HASH]:
                yield tensor.name + OTHER_VALUES


def _hash(reader: Reader, name: str) -> str:
    """Return the hash of an array's values; "" where they cannot be read, as of a damaged compressed array."""
    try:
        return digest(reader, name)
    except FormatError:
        return ""

"""Sharded safetensors: `model.safetensors.index.json` maps each tensor to one of many files in its folder.

Shards are named by base name and must lie, links followed, inside the index's own folder: it cannot point elsewhere.
"""

from __future__ import annotations

import os
import re
from typing import Any

from convert.errors import FormatError
from convert.formats import bounded_json
from convert.formats.base import MAX_TENSORS, File, Reader, shown
from convert.formats.folder import KEY
from convert.formats.safetensors import SafetensorsReader

MAX_INDEX = 16 << 20  # bytes of an index; 50,000 tensors take 5 MB
MAX_SHARDS = 10_000
KEYS = (KEY, "total_size", "total_parameters")  # of an index's metadata: our record, and what transformers writes
_NUMBERS = re.compile(r"\d+")
REMEDY = "it is damaged or was put together by hand: download it again"


def sniff(head: bytes, path: str) -> bool:
    """An index is JSON by its name: nothing in its first bytes tells it from any other JSON."""
    return path.endswith(".index.json") and head.lstrip()[:1] == b"{"


class Index:
    """What an index says: where each tensor is, where each shard lies, and our record.

    Raises: FormatError where it is damaged or leads out of its folder.
    """

    def __init__(self, path: str):
        self.path = path
        content = self._content()
        where = content.get("weight_map") if isinstance(content, dict) else None
        if not isinstance(where, dict) or not where or not all(isinstance(v, str) for v in where.values()):
            problem = "has no weight_map of tensor names to shards"
            raise FormatError(path, problem, "give an index of safetensors shards")
        names = sorted(set(where.values()))
        if len(names) > MAX_SHARDS or len(where) > MAX_TENSORS:
            raise FormatError(path, f"lists {len(names)} shards and {len(where)} tensors, too many", REMEDY)
        self.where: dict[str, str] = where
        self.shards = {name: self._inside(name) for name in names}
        about = content.get("metadata", {})
        record = about.get(KEY) if isinstance(about, dict) else None
        self.metadata = {KEY: record} if isinstance(record, str) else {}
        self.unknown = [key for key in content if key not in ("metadata", "weight_map")]
        fields = about if isinstance(about, dict) else {"": about}
        self.unknown += [f"metadata: {key}" for key in fields if key not in KEYS]

    def unlisted(self) -> list[str]:
        """Files beside the index that are named like its shards, numbers aside, and that it does not list."""
        patterns = {_NUMBERS.sub("#", name) for name in self.shards}
        beside = sorted(os.listdir(os.path.dirname(os.path.abspath(self.path))))
        return [name for name in beside if name not in self.shards and _NUMBERS.sub("#", name) in patterns]

    def _content(self) -> Any:
        file = File(self.path)
        try:
            if file.size > MAX_INDEX:
                raise FormatError(self.path, f"is an index of {file.size} bytes, over {MAX_INDEX}", REMEDY)
            return bounded_json.loads(file.read(file.size, 0))
        except ValueError as error:
            raise FormatError(self.path, f"cannot be read as JSON: {error}", REMEDY) from None
        finally:
            file.close()

    def _inside(self, name: str) -> str:
        folder = os.path.dirname(os.path.abspath(self.path))
        path = os.path.join(folder, name)
        if os.path.basename(name) != name or name in ("", ".", ".."):
            raise FormatError(self.path, f"names the shard {shown(name)}: not a plain file name", REMEDY)
        if os.path.dirname(os.path.realpath(path)) != os.path.realpath(folder):
            raise FormatError(
                self.path, f"the shard {shown(name)} is a link out of its folder", "copy the file itself there"
            )
        return path


class ShardedReader(Reader):
    """All shards of an index, opened and checked against it: each tensor where the index says, none beside."""

    format = "safetensors"

    def __init__(self, path: str | os.PathLike[str]):
        self.path, self.tensors = os.fspath(path), {}
        self.shards: dict[str, SafetensorsReader] = {}
        index = Index(self.path)
        self.metadata, self._where = index.metadata, index.where
        try:
            self._open(index)
        except BaseException:
            self.close()
            raise

    def _open(self, index: Index) -> None:
        for name, path in index.shards.items():
            self.shards[name] = SafetensorsReader(path)
        for name, shard in index.where.items():
            if name not in self.shards[shard].tensors:
                raise FormatError(self.path, f"{shown(name)} is not in {shown(shard)}, where the index has it", REMEDY)
            self.tensors[name] = self.shards[shard].tensors[name]
        for shard, reader in self.shards.items():
            if extra := sorted(name for name in reader.tensors if index.where.get(name) != shard):
                problem = f"{shown(shard)} holds {shown(extra[0])}, which the index does not list there"
                raise FormatError(self.path, problem, REMEDY)
            self.skipped.update(reader.skipped)
        for name in index.unlisted():
            self.skipped.add(name, "a shard that the index does not list")
        for name in index.unknown:
            self.skipped.add(name, "an entry of the index that is neither a tensor nor a size")

    def read(self, name: str, start: int = 0, stop: int | None = None) -> bytes:
        return self.shards[self._where[name]].read(name, start, stop)

    def close(self) -> None:
        for shard in self.shards.values():
            shard.close()


def shard_name(out: str, number: int, count: int) -> str:
    """model.safetensors -> model-00001-of-00003.safetensors"""
    stem, suffix = os.path.splitext(out)
    return f"{stem}-{number:05}-of-{count:05}{suffix}"

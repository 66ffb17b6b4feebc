"""Sharded safetensors: `model.safetensors.index.json` maps each tensor to one of many files in its folder.

Shards are named by base name and must lie, links followed, inside the index's own folder: it cannot point elsewhere.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from typing import Any

from convert.errors import FormatError
from convert.formats import bounded_json
from convert.formats.base import MAX_TENSORS, File, Reader, shown
from convert.formats.safetensors import SafetensorsReader

MAX_INDEX = 16 << 20  # bytes of an index; 50,000 tensors take 5 MB
MAX_SHARDS = 10_000
REMEDY = "it is damaged or was put together by hand: download it again"


def sniff(head: bytes, path: str) -> bool:
    """An index is JSON by its name: nothing in its first bytes tells it from any other JSON."""
    return path.endswith(".index.json") and head.lstrip()[:1] == b"{"


class ShardedReader(Reader):
    """All shards of an index, opened and checked against it: each tensor where the index says, none beside."""

    format = "safetensors"

    def __init__(self, path: str | os.PathLike[str]):
        self.path, self.tensors, self.metadata = os.fspath(path), {}, {}
        self.shards: dict[str, SafetensorsReader] = {}
        self._where: Mapping[str, str] = {}
        try:
            self._open(self._index())
        except BaseException:
            self.close()
            raise

    def _index(self) -> dict[str, Any]:
        file = File(self.path)
        try:
            if file.size > MAX_INDEX:
                raise FormatError(self.path, f"is an index of {file.size} bytes, over {MAX_INDEX}", REMEDY)
            index = bounded_json.loads(file.read(file.size, 0), pairs=self._unique)
        except ValueError as error:
            raise FormatError(self.path, f"cannot be read as JSON: {error}", REMEDY) from None
        finally:
            file.close()
        where = index.get("weight_map") if isinstance(index, dict) else None
        if not isinstance(where, dict) or not where or not all(isinstance(v, str) for v in where.values()):
            raise FormatError(
                self.path, "has no weight_map of tensor names to shards", "give an index of safetensors shards"
            )
        return index

    def _unique(self, pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) < len(pairs):
            raise FormatError(self.path, "names a tensor or field twice", REMEDY)
        return found

    def _open(self, index: dict[str, Any]) -> None:
        self._where = index["weight_map"]
        about = index.get("metadata", {})
        record = about.get("triptych") if isinstance(about, dict) else None
        self.metadata = {"triptych": record} if isinstance(record, str) else {}
        names = sorted(set(self._where.values()))
        if len(names) > MAX_SHARDS or len(self._where) > MAX_TENSORS:
            raise FormatError(self.path, f"lists {len(names)} shards and {len(self._where)} tensors, too many", REMEDY)
        for name in names:
            self.shards[name] = SafetensorsReader(self._inside(name))
        for name, shard in self._where.items():
            if name not in self.shards[shard].tensors:
                raise FormatError(self.path, f"{shown(name)} is not in {shown(shard)}, where the index has it", REMEDY)
            self.tensors[name] = self.shards[shard].tensors[name]
        if extra := sorted({name for shard in self.shards.values() for name in shard.tensors} - self._where.keys()):
            raise FormatError(self.path, f"a shard holds {shown(extra[0])}, which the index does not list", REMEDY)

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

    def read(self, name: str, start: int = 0, stop: int | None = None) -> bytes:
        return self.shards[self._where[name]].read(name, start, stop)

    def close(self) -> None:
        for shard in self.shards.values():
            shard.close()


def shard_name(out: str, number: int, count: int) -> str:
    """model.safetensors -> model-00001-of-00003.safetensors"""
    return re.sub(r"\.safetensors$", f"-{number:05}-of-{count:05}.safetensors", out)

"""Read sharded checkpoints: `model.safetensors.index.json` maps each tensor to one of many files in its folder.

The shards may have any format that is one file: `pytorch_model.bin.index.json` lists torch files.

Shards are named by base name and must lie, links followed, in the folder of the index: it cannot point elsewhere. Where
the index is a link too, as all files are in the cache of Hugging Face, they may lie beside what it links to.
"""

from __future__ import annotations

import contextlib
import os
import re
from functools import cached_property
from typing import Any

from convert.errors import FormatError
from specs.words import with_article

from . import INDEX, bounded_json
from .base import MAX_TENSORS, File, Reader, shown
from .folders.base import KEY

MAX_INDEX = 16 << 20  # bytes of an index; 50,000 tensors take 5 MB
MAX_SHARDS = 10_000
KEYS = (KEY, "total_size", "total_parameters")  # of an index's metadata: our record, and what transformers writes
_NUMBERS = re.compile(r"\d+")
SUFFIX = ".index.json"
REMEDY = "take the index and all of its shards from one place, as one program wrote them"
OTHER_VERSION = "compare the shards with those of the place where they come from"
MISSING = "download or copy it into the folder of the index"
PART = "triptych_part"  # in the metadata of a shard of ours: the name of the index that it was written for


def sniff(head: bytes, path: str) -> bool:
    """Recognise an index by its name: nothing in its first bytes tells it from any other JSON."""
    return INDEX.search(path) is not None and head.lstrip()[:1] == b"{"


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
            raise FormatError(path, problem, "give the index of a sharded checkpoint")
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
        self.total_size = fields.get("total_size")
        self.unknown += [f"metadata: {key}" for key in fields if key not in KEYS]

    def unlisted(self) -> list[str]:
        """Return files beside the index that are named like its shards, numbers aside, and that no index lists."""
        patterns = {_NUMBERS.sub("#", name) for name in self.shards}
        folder, own = os.path.split(os.path.abspath(self.path))
        beside = sorted(os.listdir(folder))
        alike = [name for name in beside if name not in self.shards and _NUMBERS.sub("#", name) in patterns]
        listed = set[str]()
        for other in beside if alike else ():
            if INDEX.search(other) and other != own:
                with contextlib.suppress(FormatError):  # one that is damaged lists nothing
                    listed |= Index(os.path.join(folder, other)).shards.keys()
        return [name for name in alike if name not in listed]

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
        own = (os.path.realpath(folder), os.path.dirname(os.path.realpath(self.path)))
        if os.path.dirname(os.path.realpath(path)) not in own:
            raise FormatError(
                self.path, f"the shard {shown(name)} is a link out of its folder", "copy the file itself there"
            )
        return path


class ShardedReader(Reader):
    """All shards of an index, opened and checked against it: each tensor where the index says, none beside."""

    format = "safetensors"  # or that of the shards

    def __init__(self, path: str | os.PathLike[str]):
        self.path, self.tensors = os.fspath(path), {}
        self.shards: dict[str, Reader] = {}
        index = Index(self.path)
        self.metadata, self._where, self.total_size = index.metadata, index.where, index.total_size
        try:
            self._open(index)
        except BaseException:
            self.close()
            raise

    def _open(self, index: Index) -> None:
        for name, path in index.shards.items():
            self.shards[name] = self._shard(name, path)
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
        self.remarks = (*self.remarks, *self._other_size())

    def _other_size(self) -> list[str]:
        """Report a total_size that is not that of the arrays; other formats than safetensors store tied ones twice."""
        size = sum(tensor.nbytes for tensor in self.tensors.values())
        stated = self.total_size
        if self.format != "safetensors" or not isinstance(stated, int | float) or stated == size:
            return []
        return [f"the index states a total_size of {stated:,} bytes, and its arrays have {size:,}: {OTHER_VERSION}"]

    def _shard(self, name: str, path: str) -> Reader:
        """Open a shard, whose format must be that of the others."""
        from . import open_checkpoint

        if INDEX.search(name) or os.path.isdir(path):
            raise FormatError(self.path, f"names the shard {shown(name)}: an index or a folder", REMEDY)
        if not os.path.exists(path):
            what = "which is a link to no file" if os.path.islink(path) else "which is not there"
            raise FormatError(self.path, f"lists the shard {shown(name)}, {what}", MISSING)
        shard = open_checkpoint(path)
        self.format = shard.format if not self.shards else self.format
        if shard.format != self.format:
            shard.close()
            problem = f"the shard {shown(name)} is {with_article(shard.format)} file, others are {self.format} files"
            raise FormatError(self.path, problem, REMEDY)
        return shard

    def read(self, name: str, start: int = 0, stop: int | None = None) -> bytes | bytearray | memoryview:
        return self.shards[self._where[name]].read(name, start, stop)

    def whole(self, name: str) -> memoryview | None:
        return self.shards[self._where[name]].whole(name)

    @cached_property
    def shared(self) -> frozenset[str]:
        return frozenset().union(*(shard.shared for shard in self.shards.values()))

    @cached_property
    def aliases(self) -> dict[str, str]:
        return {name: first for shard in self.shards.values() for name, first in shard.aliases.items()}

    def close(self) -> None:
        for shard in self.shards.values():
            shard.close()


def shard_name(out: str, number: int, count: int) -> str:
    """Name a shard: model.safetensors -> model-00001-of-00003.safetensors."""
    stem, suffix = os.path.splitext(out)
    return f"{stem}-{number:05}-of-{count:05}{suffix}"


def remedy(path: str) -> str:
    """Return the remedy for a file that is named as one of several shards; "" for any other."""
    match = re.fullmatch(r"(.+)-(\d{5})-of-(\d{5})(\.\w+)", os.path.basename(path))
    if not match or int(match[3]) < 2:
        return ""
    index = f"{match[1]}{match[4]}.index.json"
    beside = os.path.join(os.path.dirname(path), index)
    what = ": give that" if os.path.exists(beside) else ", which is not beside it: download it too"
    with contextlib.suppress(FormatError):  # of a damaged index, which giving it will report
        if os.path.exists(beside) and os.path.basename(path) not in Index(beside).shards:
            what = f", which does not list it: {REMEDY}"
    return f"it is shard {int(match[2])} of {int(match[3])}, which are read through {index}{what}"

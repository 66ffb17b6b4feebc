"""Read torch distributed checkpoints (DCP): a pickle, `.metadata`, says what of a tensor is where in `*.distcp`.

Replaces torch.distributed.checkpoint, which needs torch, runs what `.metadata` contains by unpickling it, and loads
into tensors that exist already. Here the pickle is interpreted, never run; each chunk is a torch file of its own at a
range of bytes. Written through torch (`dcp_writer`).
Source: torch/distributed/checkpoint/metadata.py and filesystem.py.
"""

from __future__ import annotations

import os
from typing import Any

from convert.errors import FormatError
from convert.files.base import INCOMPLETE, ITEMSIZE, MAX_TENSORS, File, Tensor, shown
from convert.files.pickled.sources import Refused
from convert.files.pickled.torch import TorchReader
from convert.files.pickled.tree import ROOT, reason

from .base import RECORD, FolderReader
from .dcp_metadata import Chunk, bands, parse
from .dcp_writer import DcpWriter

MAX_PLAIN = 1 << 20  # bytes of a pickled value that is read: torch's take 1 KB
METADATA = ".metadata"

__all__ = ["DcpReader", "DcpWriter"]


class FileRange(File):
    """A range of bytes of an open file, as a file of its own."""

    def __init__(self, file: File, offset: int, size: int):
        self.file, self.offset, self.size = file, offset, size
        self.path, self.fd = file.path, -1

    def read(self, size: int, offset: int) -> bytes:
        if offset + size > self.size:
            raise FormatError(self.path, f"has an item of {self.size} bytes that ends too early", INCOMPLETE)
        return self.file.read(size, self.offset + offset)


class Item(TorchReader):
    """The one tensor in a range of a file."""

    def __init__(self, window: FileRange):
        self.file, self.path, self.metadata = window, window.path, {}
        self.tensors, self._places, self._gathered = {}, {}, (None, memoryview(b""))
        try:
            self._open()
        except Refused as refused:
            raise self._bad(refused) from None


class PlainItem(Item):
    """The pickled value in a range of a file, which holds no tensors: numbers and texts by name, in `skipped`."""

    def _open(self) -> None:
        for _ in self._parse():
            pass


class DcpReader(FolderReader):
    """Tensors of a DCP folder, however they were sharded; nested keys are joined by "/"."""

    format = "dcp"

    def __init__(self, path: str | os.PathLike[str]):
        super().__init__(path)
        self._file: File | None = None
        self._item: tuple[Chunk | None, Item | None] = (None, None)
        self._bands: dict[str, list[list[Chunk]]] = {}
        self._band: tuple[str, int, memoryview] = ("", -1, memoryview(b""))  # the last one that was put together
        sizes: dict[str, int] = {}
        files, plain = {METADATA, RECORD}, dict[str, Chunk]()
        file = File(os.path.join(self.path, METADATA))
        try:
            for tensor, chunks in parse(file, self.skipped, files, plain):
                for chunk in chunks:
                    self._check(tensor, chunk, sizes)
                self._add(tensor, bands(tensor, chunks))
        except Refused as refused:
            raise FormatError(file.path, refused.problem, refused.remedy) from None
        finally:
            file.close()
        if not self.tensors:
            raise FormatError(self.path, "holds no tensors", "is it the right folder?")
        self.skipped.pending.append(lambda: self._plain(plain, sizes))
        for name in sorted(os.listdir(self.path)):
            if name not in files:
                self.skipped.add(name, "a file that nothing refers to")

    def _add(self, tensor: Tensor, chunks: list[list[Chunk]]) -> None:
        if len(self.tensors) >= MAX_TENSORS:
            raise Refused(f"lists over {MAX_TENSORS:,} tensors", "save only the model's state_dict")
        edges = [0]
        for band in chunks:
            edges.append(edges[-1] + sum(chunk.elements for chunk in band) * ITEMSIZE[tensor.dtype])
        self.add(tensor, edges)
        self._bands[tensor.name] = chunks

    def _check(self, tensor: Tensor, chunk: Chunk, sizes: dict[str, int]) -> None:
        """Check that a chunk's bytes lie inside a file of this folder, and suffice for it. Raises: FormatError."""
        if chunk.file not in sizes:
            path, folder = os.path.join(self.path, chunk.file), os.path.realpath(self.path)
            if os.path.basename(chunk.file) != chunk.file or os.path.dirname(os.path.realpath(path)) != folder:
                raise Refused(f"places a tensor in {shown(chunk.file)}: outside the folder", "do not trust it")
            if not os.path.isfile(path):
                raise FormatError(self.path, f"lacks its file {shown(chunk.file)}", INCOMPLETE)
            sizes[chunk.file] = os.path.getsize(path)
        if chunk.offset + chunk.length > sizes[chunk.file]:
            problem = f"{chunk.file} ends before byte {chunk.offset + chunk.length:,}, where {shown(tensor.name)} ends"
            raise FormatError(self.path, problem, f"it is truncated: {INCOMPLETE}")
        if chunk.elements * ITEMSIZE[tensor.dtype] > chunk.length:
            raise Refused(f"gives a part of {shown(tensor.name)} fewer bytes than it needs", INCOMPLETE)

    def _plain(self, plain: dict[str, Chunk], sizes: dict[str, int]) -> dict[str, Any]:
        """Read the pickled values that are numbers, texts, or lists and dicts of such. Raises: FormatError."""
        values: dict[str, Any] = {}
        for name, chunk in plain.items():
            if chunk.length > MAX_PLAIN:
                continue
            try:
                self._check(Tensor(name, (), "uint8"), chunk, sizes)
                item = PlainItem(FileRange(self._payload(chunk.file), chunk.offset, chunk.length))
            except Refused as refused:
                raise FormatError(self.path, refused.problem, refused.remedy) from None
            entries = item.skipped.values.items()
            if set(item.skipped.counts) == {reason(None)}:
                values[name] = None
            values.update((name if inner == ROOT else f"{name}/{inner}", value) for inner, value in entries)
        return values

    def read_band(self, name: str, band: int, start: int, stop: int) -> bytes | memoryview:
        chunks = self._bands[name][band]
        if len(chunks) == 1:
            return self._item_of(name, chunks[0]).read(ROOT, start, stop)
        if self._band[:2] != (name, band):
            self._band = ("", -1, memoryview(b""))  # free the old one before the new one takes memory
            self._band = (name, band, self._join(name, band))
        return self._band[2][start:stop]

    def _join(self, name: str, band: int) -> memoryview:
        """Put all chunks of a band together."""
        import numpy as np

        tensor, chunks = self.tensors[name], self._bands[name][band]
        bits = f"V{ITEMSIZE[tensor.dtype]}"
        out = np.empty((chunks[0].shape[0], *tensor.shape[1:]), bits)
        for chunk in chunks:
            place = tuple(slice(o, o + n) for o, n in zip(chunk.offsets[1:], chunk.shape[1:], strict=True))
            out[:, *place] = np.frombuffer(self._item_of(name, chunk).read(ROOT), bits).reshape(chunk.shape)
        return out.reshape(-1).view(np.uint8).data

    def _item_of(self, name: str, chunk: Chunk) -> Item:
        """Return the item that a chunk lies in, the last one again without opening it. Raises: FormatError."""
        if self._item[0] is not chunk or self._item[1] is None:
            item = Item(FileRange(self._payload(chunk.file), chunk.offset, chunk.length))
            if item.tensors != {ROOT: Tensor(ROOT, chunk.shape, self.tensors[name].dtype)}:
                problem = f"the item at byte {chunk.offset:,} is not the part of {shown(name)} that it should be"
                raise FormatError(item.path, problem, INCOMPLETE)
            self._item = chunk, item
        assert self._item[1] is not None
        return self._item[1]

    def _payload(self, name: str) -> File:
        """Open a payload file, and close the last one: there may be more of them than a process may open."""
        path = os.path.join(self.path, name)
        if self._file is None or self._file.path != path:
            self._close_file()
            self._file = File(path)
        return self._file

    def _close_file(self) -> None:
        if self._file is not None:
            self._file.close()
        self._file, self._item = None, (None, None)

    def close(self) -> None:
        self._band = ("", -1, memoryview(b""))
        self._close_file()

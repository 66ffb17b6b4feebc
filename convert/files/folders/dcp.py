"""torch distributed checkpoints (DCP): `.metadata`, a pickle, says which part of which tensor lies where in `*.distcp`.

The pickle is interpreted, never run; each chunk is a torch file of its own at a range of bytes. Read without torch.
Source: torch/distributed/checkpoint/metadata.py and filesystem.py.
"""

from __future__ import annotations

import errno
import importlib.util
import os
from collections.abc import Iterable, Sequence
from typing import IO, Any

from convert.errors import FormatError, UsageError
from convert.files.base import ITEMSIZE, MAX_TENSORS, File, Tensor, shown
from convert.files.folders.base import RECORD, FolderReader, FolderWriter
from convert.files.folders.dcp_metadata import Chunk, bands, parse
from convert.files.pickled.sources import Refused
from convert.files.pickled.torch import TorchReader
from convert.files.pickled.tree import ROOT

METADATA = ".metadata"
REMEDY = "copy the whole folder again"


class Window(File):
    """A range of bytes of an open file, as a file of its own."""

    def __init__(self, file: File, offset: int, size: int):
        self.file, self.offset, self.size = file, offset, size
        self.path, self.fd = file.path, -1

    def read(self, size: int, offset: int) -> bytes:
        if offset + size > self.size:
            raise FormatError(self.path, f"has an item of {self.size} bytes that ends too early", REMEDY)
        return self.file.read(size, self.offset + offset)


class Item(TorchReader):
    """The one tensor that a range of a file holds."""

    def __init__(self, window: Window):
        self.file, self.path, self.metadata = window, window.path, {}
        self.tensors, self._places, self._gathered = {}, {}, (None, memoryview(b""))
        try:
            self._open()
        except Refused as refused:
            raise self._bad(refused) from None


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
        files = {METADATA, RECORD}
        file = File(os.path.join(self.path, METADATA))
        try:
            for tensor, chunks in parse(file, self.skipped, files):
                for chunk in chunks:
                    self._check(tensor, chunk, sizes)
                self._add(tensor, bands(tensor, chunks))
        except Refused as refused:
            raise FormatError(file.path, refused.problem, refused.remedy) from None
        finally:
            file.close()
        if not self.tensors:
            raise FormatError(self.path, "holds no tensors", "is it the right folder?")
        for name in sorted(os.listdir(self.path)):
            if name not in files:
                self.skipped.add(name, "a file that nothing refers to")

    def _add(self, tensor: Tensor, found: list[list[Chunk]]) -> None:
        if len(self.tensors) >= MAX_TENSORS:
            raise Refused(f"lists over {MAX_TENSORS:,} tensors", "save only the model's state_dict")
        edges = [0]
        for band in found:
            edges.append(edges[-1] + sum(chunk.elements for chunk in band) * ITEMSIZE[tensor.dtype])
        self.add(tensor, edges)
        self._bands[tensor.name] = found

    def _check(self, tensor: Tensor, chunk: Chunk, sizes: dict[str, int]) -> None:
        """Raises: FormatError where a chunk's bytes are not inside a file of this folder, or cannot be all of it."""
        if chunk.file not in sizes:
            path, folder = os.path.join(self.path, chunk.file), os.path.realpath(self.path)
            if os.path.basename(chunk.file) != chunk.file or os.path.dirname(os.path.realpath(path)) != folder:
                raise Refused(f"places a tensor in {shown(chunk.file)}: outside the folder", "do not trust it")
            if not os.path.isfile(path):
                raise FormatError(self.path, f"lacks its file {shown(chunk.file)}", REMEDY)
            sizes[chunk.file] = os.path.getsize(path)
        if chunk.offset + chunk.length > sizes[chunk.file]:
            problem = f"{chunk.file} ends before byte {chunk.offset + chunk.length:,}, where {shown(tensor.name)} ends"
            raise FormatError(self.path, problem, f"it is truncated: {REMEDY}")
        if chunk.elements * ITEMSIZE[tensor.dtype] > chunk.length:
            raise Refused(f"gives a part of {shown(tensor.name)} fewer bytes than it needs", REMEDY)

    def read_band(self, name: str, band: int, start: int, stop: int) -> bytes | memoryview:
        chunks = self._bands[name][band]
        if len(chunks) == 1:
            return self._opened(name, chunks[0]).read(ROOT, start, stop)
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
            out[:, *place] = np.frombuffer(self._opened(name, chunk).read(ROOT), bits).reshape(chunk.shape)
        return out.reshape(-1).view(np.uint8).data

    def _opened(self, name: str, chunk: Chunk) -> Item:
        """The item that holds a chunk, kept: ranges of it are asked for in order. Raises: FormatError."""
        if self._item[0] is not chunk or self._item[1] is None:
            item = Item(Window(self._open(chunk.file), chunk.offset, chunk.length))
            if item.tensors != {ROOT: Tensor(ROOT, chunk.shape, self.tensors[name].dtype)}:
                problem = f"the item at byte {chunk.offset:,} is not the part of {shown(name)} that it should be"
                raise FormatError(item.path, problem, REMEDY)
            self._item = chunk, item
        assert self._item[1] is not None
        return self._item[1]

    def _open(self, name: str) -> File:
        """One payload file at a time: there may be more of them than a process may open."""
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


class DcpWriter(FolderWriter):
    """What torch.distributed.checkpoint.load restores: a flat state_dict, written by torch, a file a tensor."""

    own = (RECORD, METADATA, "*.distcp")

    def __init__(self, file: IO[bytes], tensors: Sequence[Tensor], metadata: dict[str, str]):
        super().__init__(file, tensors, metadata)
        if not importlib.util.find_spec("torch"):
            raise UsageError("torch writes DCP checkpoints and is not installed: pip install 'triptych-ports[torch]'")
        self._store = Store(self.folder, self.tensors)

    def write(self, tensor: Tensor, chunks: Iterable[bytes | bytearray | memoryview]) -> None:
        number, payload = self.written, bytearray(tensor.nbytes)
        at = 0
        for piece in self.pieces(tensor, chunks):
            payload[at : at + len(piece)] = piece
            at += len(piece)
        self._store.write(number, tensor, payload)

    def close_store(self) -> None:
        self._store.finish()


class Store:
    """torch's own writer, driven a tensor at a time: planned with tensors that have no data."""

    def __init__(self, folder: str, tensors: Sequence[Tensor]):
        import torch
        from torch.distributed.checkpoint import DefaultSavePlanner, FileSystemWriter
        from torch.distributed.checkpoint import default_planner as planner
        from torch.distributed.checkpoint.planner import SavePlan

        class Writer(FileSystemWriter):
            def storage_meta(self) -> None:
                """No random id and no path of a temporary folder: the same bytes from run to run."""

        class Planner(DefaultSavePlanner):
            tensor: Any = None

            def resolve_data(self, write_item: Any) -> Any:
                return self.tensor

        self.torch, self.planner, self.results = torch, Planner(), list[Any]()
        empty = {t.name: torch.empty(t.shape, dtype=getattr(torch, t.dtype), device="meta") for t in tensors}
        plan = planner.create_default_local_save_plan(empty, True)
        (plan,), self.metadata = planner.create_default_global_save_plan([plan])
        self.metadata.planner_data = {name: (name,) for name in empty}
        self.writer = Writer(folder, sync_files=False)  # the caller syncs once
        self.writer.set_up_storage_writer(True)
        items = {item.index.fqn: item for item in plan.items}
        plans = [self.writer.prepare_local_plan(SavePlan([items[t.name]])) for t in tensors]
        self.plans = self.writer.prepare_global_plan(plans)

    def write(self, number: int, tensor: Tensor, payload: bytearray) -> None:
        dtype = getattr(self.torch, tensor.dtype)
        flat = self.torch.frombuffer(payload, dtype=dtype) if payload else self.torch.empty(0, dtype=dtype)
        self.planner.tensor = flat.reshape(tensor.shape)
        try:
            self.results.append(self.writer.write_data(self.plans[number], self.planner).wait())
        except RuntimeError as error:  # torch's own, which hides the system's: a full disk, mostly
            raise OSError(errno.EIO, f"torch could not write {shown(tensor.name)}: is the disk full?") from error
        self.planner.tensor = None

    def finish(self) -> None:
        self.writer.finish(self.metadata, self.results)

"""Writes torch distributed checkpoints (DCP) through torch, a tensor at a time."""

from __future__ import annotations

import errno
import importlib.util
from collections.abc import Iterable, Sequence
from typing import IO, Any

from convert.errors import UsageError
from convert.files.base import Tensor, shown
from convert.files.folders.base import RECORD, FolderWriter

METADATA = ".metadata"


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
                """Return no random id and no path of a temporary folder: the same bytes from run to run."""

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

"""Write torch distributed checkpoints (DCP) through torch, a tensor at a time."""

from __future__ import annotations

import errno
import importlib.util
import io
from collections.abc import Iterable, Mapping, Sequence
from typing import IO, Any

from convert.errors import UsageError, install
from convert.files.base import Tensor, shown

from .base import RECORD, FolderWriter

METADATA = ".metadata"


class DcpWriter(FolderWriter):
    """Writes what torch.distributed.checkpoint.load restores: a state_dict, flat or nested, a file a tensor."""

    own = (RECORD, METADATA, "*.distcp")
    nests = True

    def __init__(self, file: IO[bytes], tensors: Sequence[Tensor], metadata: dict[str, str], tree: Any = None):
        super().__init__(file, tensors, metadata, tree)
        if not importlib.util.find_spec("torch"):
            raise UsageError(f"torch writes DCP checkpoints and is not installed: {install('torch')}")
        self._store = Store(self.folder, self.tensors, tree)

    def write(self, tensor: Tensor, chunks: Iterable[bytes | bytearray | memoryview]) -> None:
        number, payload = self.written, bytearray(tensor.nbytes)
        at = 0
        for piece in self.pieces(tensor, chunks):
            payload[at : at + len(piece)] = piece
            at += len(piece)
        self._store.write(number, tensor, payload)

    def close_store(self) -> None:
        self._store.finish()


def _replaced(tree: Any, leaves: Mapping[str, Any]) -> Any:
    """Return the tree with what stands for each of its tensors."""
    if isinstance(tree, Tensor):
        return leaves[tree.name]
    if isinstance(tree, dict):
        return {key: _replaced(value, leaves) for key, value in tree.items()}
    return [_replaced(value, leaves) for value in tree] if isinstance(tree, list) else tree


def _flattened(tree: Any, tensors: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, str], dict[str, Any]]:
    """Flatten a tree as torch does.

    Returns: its entries by torch's keys, {name of a tensor: its key}, and what torch stores of each key: its path.
    """
    if tree is None:
        return dict(tensors), {name: name for name in tensors}, {name: (name,) for name in tensors}
    from torch.distributed.checkpoint._nested_dict import flatten_state_dict

    entries, paths = flatten_state_dict(_replaced(tree, tensors))
    names = {id(tensor): name for name, tensor in tensors.items()}
    return entries, {names[id(value)]: key for key, value in entries.items() if id(value) in names}, paths


class Store:
    """torch's own writer, driven a tensor at a time: planned with tensors that have no data."""

    def __init__(self, folder: str, tensors: Sequence[Tensor], tree: Any = None):
        import torch
        from torch.distributed.checkpoint import DefaultSavePlanner, FileSystemWriter
        from torch.distributed.checkpoint import default_planner as planner
        from torch.distributed.checkpoint.planner import SavePlan

        class Writer(FileSystemWriter):
            def storage_meta(self) -> None:
                """Store no random id and no path of a temporary folder: the same bytes from run to run."""

        class Planner(DefaultSavePlanner):
            tensor: Any = None

            def resolve_data(self, write_item: Any) -> Any:
                return self.tensor

        self.torch, self.planner, self.results = torch, Planner(), list[Any]()
        empty = {t.name: torch.empty(t.shape, dtype=getattr(torch, t.dtype), device="meta") for t in tensors}
        entries, keys, paths = _flattened(tree, empty)
        plan = planner.create_default_local_save_plan(entries, True)
        (plan,), self.metadata = planner.create_default_global_save_plan([plan])
        self.metadata.planner_data = paths
        self.writer = Writer(folder, sync_files=False)  # the caller syncs once
        self.writer.set_up_storage_writer(True)
        items = {item.index.fqn: item for item in plan.items}
        own = set(keys.values())
        plain = {key: value for key, value in entries.items() if key not in own}
        wanted = [*(keys[t.name] for t in tensors), *plain]
        plans = [self.writer.prepare_local_plan(SavePlan([items[key]])) for key in wanted]
        self.plans = self.writer.prepare_global_plan(plans)
        for plan, value in zip(self.plans[len(tensors) :], plain.values(), strict=True):
            self.planner.tensor = io.BytesIO()
            torch.save(value, self.planner.tensor)
            self.results.append(self.writer.write_data(plan, self.planner).wait())

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

"""Write Orbax checkpoints through tensorstore: what orbax's StandardCheckpointer restores."""

from __future__ import annotations

import errno
import json
import os
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import IO, Any

from convert.errors import ConvertError
from convert.files.base import DESCR, Tensor, shown
from convert.files.msgpack import nested

from .base import RECORD, FolderWriter
from .orbax_tree import METADATA
from .tensorstore_process import reason, require

MANIFEST, HEADER = "manifest.ocdbt", ".zarray"
CHUNK = 32 << 20  # bytes of a chunk, at least one row: what restoring onto one device of many reads at least
BATCH = 32 << 20  # bytes written by one commit
PAUSE = 0.01  # seconds between two looks at a commit that goes on


class OrbaxWriter(FolderWriter):
    """Writes what StandardCheckpointer restores: numpy arrays in one OCDBT database, uncompressed, in bands of rows.

    Raises: UsageError where tensorstore is missing; ConvertError for tensors without elements, which Orbax cannot hold,
    names that it would confuse, and tensors that would hold others.
    """

    own = (RECORD, METADATA, "_CHECKPOINT_METADATA", MANIFEST, "d/*")
    nests = True

    def __init__(self, file: IO[bytes], tensors: Sequence[Tensor], metadata: dict[str, str], tree: Any = None):
        require()
        super().__init__(file, tensors, metadata, tree)
        self._entries = dict(_entries(tree, ())) if tree is not None else {str(path(t)): leaf(t) for t in self.tensors}
        if not self.tensors:
            raise ConvertError("Orbax cannot hold a checkpoint without tensors")
        arrays = Counter(tensor.name.replace("/", ".") for tensor in self.tensors)
        for tensor in self.tensors:
            twice = arrays[tensor.name.replace("/", ".")] > 1
            if not tensor.size or "" in tensor.name.split("/") or twice:
                raise ConvertError(f"{shown(tensor.name)} {list(tensor.shape)}: Orbax cannot hold this name or shape")
        if tree is None:
            nested(self.tensors)  # Orbax restores nested dicts: it would lose an array that another's path begins with
        self._database, self._block = Database(self.folder), bytearray()

    def write(self, tensor: Tensor, chunks: Iterable[bytes | bytearray | memoryview]) -> None:
        where, rest = tensor.name.replace("/", "."), ".0" * (len(tensor.shape) - 1)
        self._database.put(f"{where}/{HEADER}", zarray(tensor))
        if len(self._block) != (size := chunk_bytes(tensor)):
            self._block = bytearray(size)
        for number, chunk in enumerate(_blocks(self.pieces(tensor, chunks), self._block)):
            self._database.put(f"{where}/{number}{rest}", chunk)

    def close_store(self) -> None:
        self._database.commit()
        about = {"use_ocdbt": True, "use_zarr3": False, "store_array_data_equal_to_fill_value": True}
        self._write(METADATA, {"tree_metadata": self._entries, **about, "custom_metadata": None})
        handler = "orbax.checkpoint._src.handlers.standard_checkpoint_handler.StandardCheckpointHandler"
        self._write("_CHECKPOINT_METADATA", {"item_handlers": handler, "metrics": {}, "performance_metrics": {}})

    def _write(self, name: str, content: dict[str, Any]) -> None:
        with open(os.path.join(self.folder, name), "x", encoding="utf-8") as file:
            json.dump(content, file)


class Database:
    """A new OCDBT database, written through tensorstore, BATCH bytes a commit. Raises: OSError where it cannot be."""

    def __init__(self, folder: str):
        import tensorstore

        self._new_transaction, self._bytes = tensorstore.Transaction, 0
        base = {"driver": "file", "path": os.path.join(folder, "")}
        context = tensorstore.Context({"file_io_sync": False})  # the caller syncs once
        self._store: Any = tensorstore.KvStore.open({"driver": "ocdbt", "base": base}, context=context).result()
        self._transaction = self._new_transaction()

    def put(self, key: str, value: bytes | bytearray) -> None:
        """Add a key; the value is copied."""
        self._store.with_transaction(self._transaction).write(key, value).result()
        self._bytes += len(value)
        if self._bytes >= BATCH:
            self.commit()

    def commit(self) -> None:
        """Write what was added, to the end also on Ctrl-C: threads would write on into a folder that is removed."""
        written = self._transaction.commit_async()
        try:
            written.result()
        except ValueError as error:  # tensorstore's own: a full disk, mostly
            full = os.strerror(errno.ENOSPC) in str(error)
            raise OSError(errno.ENOSPC if full else errno.EIO, reason(str(error))) from None
        finally:
            while not written.done():
                time.sleep(PAUSE)
        self._transaction, self._bytes = self._new_transaction(), 0


def _blocks(pieces: Iterable[memoryview], block: bytearray) -> Iterator[bytearray]:
    """Fill `block` repeatedly; the last time, pad the rest with zeros."""
    at, size = 0, len(block)
    for piece in pieces:
        while piece:
            part = piece[: size - at]
            block[at : at + len(part)] = part
            at, piece = at + len(part), piece[len(part) :]
            if at == size:
                yield block
                at = 0
    if at:
        block[at:] = bytes(size - at)
        yield block


def leaf(tensor: Tensor) -> dict[str, Any]:
    """Return a tensor's entry in `_METADATA`: all containers are dicts."""
    return _entry(path(tensor), "np.ndarray", skip=False)


def path(tensor: Tensor) -> tuple[str, ...]:
    return tuple(tensor.name.split("/"))


def _entry(path: Sequence[str | int], kind: str, skip: bool) -> dict[str, Any]:
    """Return an entry of `_METADATA`; integers are places in a tuple."""
    keys = [{"key": str(key), "key_type": 1 if isinstance(key, int) else 2} for key in path]
    return {"key_metadata": keys, "value_metadata": {"value_type": kind, "skip_deserialize": skip}}


def _entries(tree: Any, path: tuple[str | int, ...]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the entries of a tree; its empty dicts, optax's states without content, are listed as None."""
    if isinstance(tree, Tensor) or not tree:
        yield str(tuple(map(str, path))), _entry(path, *(("np.ndarray", False) if tree else ("None", True)))
        return
    for key, child in tree.items() if isinstance(tree, dict) else enumerate(tree):
        yield from _entries(child, (*path, key))


def chunk_shape(tensor: Tensor) -> list[int]:
    """Return a shape of as many rows as fit CHUNK bytes, at least one."""
    if not tensor.shape:
        return []
    return [min(tensor.shape[0], max(1, CHUNK * tensor.shape[0] // tensor.nbytes)), *tensor.shape[1:]]


def chunk_bytes(tensor: Tensor) -> int:
    return Tensor(tensor.name, tuple(chunk_shape(tensor)), tensor.dtype).nbytes


def zarray(tensor: Tensor) -> bytes:
    """Return the header of a Zarr 2 array; bfloat16 and float8 as tensorstore names them."""
    about = {"chunks": chunk_shape(tensor), "compressor": None, "dimension_separator": ".", "fill_value": None}
    about |= {"dtype": DESCR.get(tensor.dtype, tensor.dtype), "filters": None, "order": "C"}
    return json.dumps({**about, "shape": list(tensor.shape), "zarr_format": 2}, sort_keys=True).encode()

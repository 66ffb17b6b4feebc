"""Orbax checkpoints: `_METADATA` lists a tree, whose leaves are Zarr arrays: in one OCDBT database, or a folder each.

Arrays are read and written through tensorstore, a band of rows at a time; neither jax nor orbax is imported.
Source: orbax/checkpoint/_src/metadata/tree.py (`_METADATA`); the Zarr 2 specification (keys and chunks).
"""

from __future__ import annotations

import importlib.util
import json
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import IO, Any

from convert.errors import ConvertError, FormatError, UsageError
from convert.formats.base import ITEMSIZE, MAX_DEPTH, MAX_NAME, MAX_TENSORS, File, Tensor, shown
from convert.formats.folder import FolderReader, FolderWriter
from convert.formats.npy import DESCR

METADATA, STEP = "_METADATA", "default"  # a CheckpointManager keeps the tree of a step in its folder "default"
MAX_METADATA = 64 << 20  # bytes
CHUNK = 32 << 20  # bytes of a chunk, at least one row: what restoring onto one device of many reads at least
BATCH = 16 << 20  # bytes of a transaction: held in memory until it is committed
ARRAYS = ("np.ndarray", "jax.Array", "scalar")  # leaves that are tensors; others are None, text and empty containers
REMEDY = "copy the whole folder again"
UNREADABLE = (ValueError, OSError, IndexError, NotImplementedError, RuntimeError)  # what tensorstore raises


def tensorstore() -> Any:
    """Raises: UsageError that names the extra to install."""
    if not importlib.util.find_spec("tensorstore"):
        raise UsageError("Orbax checkpoints need tensorstore: pip install 'triptych-ports[orbax]'")
    import tensorstore

    return tensorstore


class OrbaxReader(FolderReader):
    """The arrays of an Orbax tree; names are paths in it, joined by "/"."""

    format = "orbax"

    def __init__(self, path: str | os.PathLike[str]):
        super().__init__(path)
        self.root = os.path.join(self.path, "" if os.path.isfile(os.path.join(self.path, METADATA)) else STEP)
        if ".orbax-checkpoint-tmp" in os.path.basename(os.path.abspath(self.path)):
            raise FormatError(self.path, "was never finished", "take an earlier step")
        about = self._metadata()
        self.ocdbt = bool(about.get("use_ocdbt", os.path.isfile(os.path.join(self.root, "manifest.ocdbt"))))
        self.zarr = "zarr3" if about.get("use_zarr3") else "zarr"
        self.zeros = not about.get("store_array_data_equal_to_fill_value")  # may chunks of zeros be left out?
        self._arrays = self._open(dict(self._leaves(about["tree_metadata"])))
        for name, array in self._arrays.items():
            self._add(name, array)
        self.check_growth(sum(tensor.nbytes for tensor in self.tensors.values()), "tensors")

    def _metadata(self) -> dict[str, Any]:
        file = File(os.path.join(self.root, METADATA))
        try:
            if file.size > MAX_METADATA:
                raise FormatError(file.path, f"is {file.size:,} bytes long, over {MAX_METADATA:,}", REMEDY)
            about = json.loads(file.read(file.size, 0))
        except (ValueError, RecursionError) as error:
            raise FormatError(file.path, f"is no JSON: {error}", REMEDY) from None
        finally:
            file.close()
        if not isinstance(about, dict) or not isinstance(about.get("tree_metadata"), dict):
            raise FormatError(file.path, "lists no tree of arrays", "save it again with a current orbax")
        if len(about["tree_metadata"]) > MAX_TENSORS:
            raise FormatError(file.path, f"lists over {MAX_TENSORS:,} arrays", "save only the model's arrays")
        return about

    def _leaves(self, tree: dict[str, Any]) -> Iterator[tuple[str, str]]:
        """(name, where the array is kept). Raises: FormatError."""
        for entry, leaf in tree.items():
            match leaf:
                case {"key_metadata": [*keys], "value_metadata": {"value_type": str(kind), **rest}}:
                    path = [str(key.get("key")) if isinstance(key, dict) else "" for key in keys]
                    if kind in ARRAYS and not rest.get("skip_deserialize"):
                        yield self._named(path)
                case _:
                    raise FormatError(self.path, f"describes {shown(entry)} in an unknown way", REMEDY)

    def _named(self, path: list[str]) -> tuple[str, str]:
        """A leaf's name and its array's. Raises: FormatError for what is no name, or leads out of the folder."""
        name, kept = "/".join(path), ".".join(path)
        if not path or len(path) > MAX_DEPTH or len(name) > MAX_NAME or not name.isprintable():
            raise FormatError(self.path, f"names an array {shown(name)}", "rename it")
        if not self.ocdbt and ("/" in kept or kept in (".", "..")):
            raise FormatError(self.path, f"keeps {shown(name)} outside itself", "do not trust it")
        return name, kept

    def _open(self, kept: dict[str, str]) -> dict[str, Any]:
        """{name: tensorstore array}. Raises: FormatError where one is missing."""
        ts, context = tensorstore(), tensorstore().Context()
        opening = {name: ts.open(self._spec(where), read=True, context=context) for name, where in kept.items()}
        return {name: self._result(name, future) for name, future in opening.items()}

    def _spec(self, where: str) -> dict[str, Any]:
        base = {"driver": "file", "path": os.path.join(os.path.abspath(self.root), "")}
        database = {"driver": "ocdbt", "base": base, "path": f"{where}/"}
        store = database if self.ocdbt else {**base, "path": f"{base['path']}{where}/"}
        return {"driver": self.zarr, "kvstore": store, "fill_missing_data_reads": self.zeros}

    def _result(self, name: str, future: Any) -> Any:
        try:
            return future.result()
        except UNREADABLE as error:
            problem = f"the array {shown(name)} cannot be read: {shown(str(error))[1:-1]}"
            raise FormatError(self.path, problem, REMEDY) from None

    def _add(self, name: str, array: Any) -> None:
        dtype, shape = array.dtype.name, tuple(array.shape)
        if dtype not in ITEMSIZE:
            raise FormatError(self.path, f"the array {shown(name)} has dtype {dtype}", "save numbers only")
        tensor = Tensor(name, shape, dtype)
        self.check_growth(tensor.nbytes, f"an array {shown(name)}")
        for chunk in (array.chunk_layout.read_chunk.shape, array.chunk_layout.write_chunk.shape):
            self.check_growth(Tensor(name, tuple(chunk or ()), dtype).nbytes, f"a chunk of {shown(name)}")
        row = tensor.nbytes // shape[0] if shape and shape[0] else tensor.nbytes
        rows = (array.chunk_layout.read_chunk.shape or (1,))[0]
        self.add(tensor, [*range(0, tensor.nbytes, rows * row or 1), tensor.nbytes])

    def read_band(self, name: str, band: int, start: int, stop: int) -> memoryview:
        return self.keep(name, band)[start:stop]

    def make_band(self, name: str, band: int) -> memoryview:
        import numpy as np

        array, tensor = self._arrays[name], self.tensors[name]
        if tensor.shape:
            row = tensor.nbytes // tensor.shape[0]
            array = array[self.edges[name][band] // row : self.edges[name][band + 1] // row]
        found = np.ascontiguousarray(self._result(name, array.read()))
        return found.reshape(-1).view(np.uint8).data

    def close(self) -> None:
        super().close()
        self._arrays = {}


class OrbaxWriter(FolderWriter):
    """What StandardCheckpointer restores: a tree of numpy arrays in one OCDBT database, uncompressed, in bands of rows.

    Keys and values are the same from run to run; the database names its files at random.
    Raises: ConvertError for tensors without elements, which Orbax cannot hold, and names that it would confuse.
    """

    def __init__(self, file: IO[bytes], tensors: Sequence[Tensor], metadata: dict[str, str]):
        super().__init__(file, tensors, metadata)
        self._ts = tensorstore()
        kept = Counter(tensor.name.replace("/", ".") for tensor in self.tensors)
        for tensor in self.tensors:
            twice = kept[tensor.name.replace("/", ".")] > 1
            if not tensor.size or "" in tensor.name.split("/") or twice:
                raise ConvertError(f"{shown(tensor.name)} {list(tensor.shape)}: Orbax cannot hold this name or shape")
        base = {"driver": "file", "path": os.path.join(self.folder, "")}
        context = self._ts.Context({"file_io_sync": False})  # the caller syncs once
        self._store = self._ts.KvStore.open({"driver": "ocdbt", "base": base}, context=context).result()
        self._begin()

    def _begin(self) -> None:
        self._transaction, self._pending = self._ts.Transaction(), 0
        self._batch = self._store.with_transaction(self._transaction)

    def _put(self, key: str, value: bytes) -> None:
        self._batch.write(key, value).result()
        self._pending += len(value)
        if self._pending > BATCH:
            self._transaction.commit_sync()
            self._begin()

    def write(self, tensor: Tensor, chunks: Iterable[bytes | bytearray | memoryview]) -> None:
        where, size, number = tensor.name.replace("/", "."), chunk_bytes(tensor), 0
        rest = ".0" * (len(tensor.shape) - 1)
        self._put(f"{where}/.zarray", zarray(tensor))
        chunk = bytearray()
        for piece in self.pieces(tensor, chunks):
            chunk += piece
            while len(chunk) >= size:
                self._put(f"{where}/{number}{rest}", bytes(memoryview(chunk)[:size]))
                del chunk[:size]
                number += 1
        if chunk:  # the last one is as large as the others
            self._put(f"{where}/{number}{rest}", bytes(chunk.ljust(size, b"\0")))

    def close_store(self) -> None:
        self._transaction.commit_sync()
        tree = {str(tuple(tensor.name.split("/"))): leaf(tensor) for tensor in self.tensors}
        about = {"use_ocdbt": True, "use_zarr3": False, "store_array_data_equal_to_fill_value": True}
        self._write(METADATA, {"tree_metadata": tree, **about, "custom_metadata": None})
        handler = "orbax.checkpoint._src.handlers.standard_checkpoint_handler.StandardCheckpointHandler"
        self._write("_CHECKPOINT_METADATA", {"item_handlers": handler, "metrics": {}, "performance_metrics": {}})

    def _write(self, name: str, content: dict[str, Any]) -> None:
        with open(os.path.join(self.folder, name), "x", encoding="utf-8") as file:
            json.dump(content, file)


def leaf(tensor: Tensor) -> dict[str, Any]:
    """A tensor's entry in `_METADATA`: all containers are dicts."""
    keys = [{"key": key, "key_type": 2} for key in tensor.name.split("/")]
    return {"key_metadata": keys, "value_metadata": {"value_type": "np.ndarray", "skip_deserialize": False}}


def chunk_shape(tensor: Tensor) -> list[int]:
    """As many rows as fit CHUNK bytes, at least one."""
    if not tensor.shape:
        return []
    return [min(tensor.shape[0], max(1, CHUNK * tensor.shape[0] // tensor.nbytes)), *tensor.shape[1:]]


def chunk_bytes(tensor: Tensor) -> int:
    return Tensor(tensor.name, tuple(chunk_shape(tensor)), tensor.dtype).nbytes


def zarray(tensor: Tensor) -> bytes:
    """The header of a Zarr 2 array; bfloat16 and float8 as tensorstore names them."""
    about = {"chunks": chunk_shape(tensor), "compressor": None, "dimension_separator": ".", "fill_value": None}
    about |= {"dtype": DESCR.get(tensor.dtype, tensor.dtype), "filters": None, "order": "C"}
    return json.dumps({**about, "shape": list(tensor.shape), "zarr_format": 2}, sort_keys=True).encode()

"""Orbax checkpoints: a tree whose leaves are Zarr arrays, in one OCDBT database or a folder each, or in a msgpack file.

Read and written without jax, orbax and tensorstore; what Orbax does only when told to, like Zarr 3, the last one reads.
"""

from __future__ import annotations

import json
import math
import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from typing import IO, TYPE_CHECKING, Any

from convert.errors import ConvertError, FormatError
from convert.files.base import PIECE, Tensor, shown
from convert.files.folders import zstd
from convert.files.folders.base import FREE, MAX_GROWTH, RECORD, FolderReader, FolderWriter
from convert.files.folders.ocdbt import MANIFEST, Database
from convert.files.folders.orbax_tree import AGGREGATE, METADATA, STEP, Tree
from convert.files.folders.store import REMEDY, Store, length
from convert.files.folders.zarr import HEADER, MAX_HEADER, ZarrArray, parse
from convert.files.msgpack import MsgpackReader
from convert.files.npy import DESCR

if TYPE_CHECKING:
    from convert.files.folders.ocdbt_writer import Stored
    from convert.files.folders.orbax_foreign import ForeignArray

MAX_CHUNKS = 300_000  # of all arrays
CHUNK = 32 << 20  # bytes of a chunk, at least one row: what restoring onto one device of many reads at least
BESIDE = {
    METADATA,
    AGGREGATE,
    MANIFEST,
    RECORD,
    "_CHECKPOINT_METADATA",
    "_sharding",
    "_strings.json",  # whose entries the tree lists
    "array_metadatas",
    "d",
    "commit_success.txt",
}  # files and folders of a tree beside its arrays
BESIDE_STEP = {STEP, RECORD, "_CHECKPOINT_METADATA", "commit_success.txt"}
PROCESS = re.compile(r"ocdbt\.process_\d+")  # the database of one host


class OrbaxReader(FolderReader):
    """The arrays of an Orbax tree; names are paths in it, joined by "/"."""

    format = "orbax"

    def __init__(self, path: str | os.PathLike[str]):
        super().__init__(path)
        if ".orbax-checkpoint-tmp" in os.path.basename(os.path.abspath(self.path)):
            raise FormatError(self.path, "was never finished", "take an earlier step")
        self._tree = Tree(self.path, self.skipped)
        self.root, about = self._tree.root, self._tree.settings
        self.ocdbt = bool(about.get("use_ocdbt", os.path.isfile(os.path.join(self.root, MANIFEST))))
        self.zarr = "zarr3" if about.get("use_zarr3") else "zarr"
        self.zeros = not about.get("store_array_data_equal_to_fill_value")  # may chunks of zeros be left out?
        self._most, self._chunks = MAX_GROWTH * self.size + FREE, 0
        self._arrays: dict[str, ZarrArray | ForeignArray] = {}
        self._store = Store(self.root)
        try:
            if self.ocdbt:
                self._store = Database(self.root)
            self._open()
            self._skip_unlisted()
        except BaseException:
            self.close()
            raise

    def _open(self) -> None:
        stored: dict[str, str] = {}
        for name, where in self._tree.stored.items():
            if where is None:
                tensor = self._aggregate.tensors[name]
                self.add(tensor, [0, tensor.nbytes])
            elif not self.ocdbt and ("/" in where or where in (".", "..")):
                raise FormatError(self.path, f"keeps {shown(name)} outside itself", "do not trust it")
            else:
                stored[name] = where
        foreign = {name: where for name, where in stored.items() if not self._open_zarr(name, where)}
        if foreign:
            from convert.files.folders import orbax_foreign

            for name, array in orbax_foreign.opened(self.path, self.root, self.ocdbt, self.zarr, self.zeros, foreign):
                self._add(name, array)
        self.tensors = {name: self.tensors[name] for name in self._tree.stored}
        self.check_growth(sum(tensor.nbytes for tensor in self.tensors.values()), "tensors")

    @property
    def _aggregate(self) -> MsgpackReader:
        assert self._tree.aggregate is not None  # where the tree has arrays in it
        return self._tree.aggregate

    def _skip_unlisted(self) -> None:
        """Record whatever in the folder no array of the tree lies in."""
        stored = {where for where in self._tree.stored.values() if where is not None}
        aggregated = {name.replace("/", ".") for name, where in self._tree.stored.items() if where is None}
        if self.root != os.path.join(self.path, ""):
            self._skip_others(self.path, BESIDE_STEP)
        if isinstance(self._store, Database):
            used = {name.partition("/")[0] for name in self._store.used}
            self._skip_others(self.root, BESIDE | used | self._hosts(used))
            for where in dict.fromkeys(map(array_of, self._store.keys())):
                if where in aggregated:
                    self.skipped.add(where, f"an array that {AGGREGATE!r} has as well, which Orbax reads instead")
                elif where not in stored:
                    self.skipped.add(where, "an array that the tree does not list")
        else:
            self._skip_others(self.root, BESIDE | stored)

    def _hosts(self, used: set[str]) -> set[str]:
        """Names of the databases of single hosts, which Orbax merges into the main one; record what that lacks."""
        hosts = {entry.name for entry in os.scandir(self.root) if PROCESS.fullmatch(entry.name)} - used
        for host in sorted(hosts):
            try:
                keys = list(Database(os.path.join(self.root, host)).keys())
            except FormatError:
                self.skipped.add(host, "the database of a host, which cannot be read")
                continue
            for where in dict.fromkeys(array_of(key) for key in keys if self._store.find(key) is None):
                self.skipped.add(f"{host}/{where}", "an array of a host that the main database lacks")
        return hosts

    def _skip_others(self, folder: str, known: set[str]) -> None:
        for entry in sorted(os.scandir(folder), key=lambda entry: entry.name):
            if entry.name not in known:
                self.skipped.add(entry.name, f"a {'folder' if entry.is_dir() else 'file'} that nothing refers to")

    def _open_zarr(self, name: str, where: str) -> bool:
        """Whether the array is one that is read without tensorstore."""
        if self.zarr != "zarr":
            return False
        try:
            value = self._store.find(f"{where}/{HEADER}")
            if value is None or length(value) > MAX_HEADER:
                raise ValueError("it has no header" if value is None else "its header is too long")
            header = parse(name, self._store.read(value, 0, length(value)))
            if header is None:
                return False
            if header.compressed:
                zstd.load()
            array = ZarrArray(self._store, where, header, self.zeros)
            self._add(name, array)
            array.check()
        except ValueError as error:
            raise self._unreadable(name, error) from None
        return True

    def _add(self, name: str, array: ZarrArray | ForeignArray) -> None:
        tensor, rows = array.tensor, array.rows
        self.check_growth(tensor.nbytes, f"an array {shown(name)}")
        self.check_growth(array.chunk.nbytes, f"a chunk of {shown(name)}")
        self._chunks += math.prod(array.grid)
        if self._chunks > MAX_CHUNKS:
            raise FormatError(self.path, f"has over {MAX_CHUNKS:,} chunks", "save it in fewer or larger ones")
        band = rows * (tensor.nbytes // tensor.shape[0]) if tensor.size and tensor.shape else tensor.nbytes
        self.add(tensor, [*range(0, tensor.nbytes, band or 1), tensor.nbytes])
        self._arrays[name] = array

    def _unreadable(self, name: str, error: ValueError) -> FormatError:
        return FormatError(self.path, f"the array {shown(name)} cannot be read: {shown(str(error))[1:-1]}", REMEDY)

    def check_growth(self, claimed: int, what: str) -> None:
        if claimed > self._most:  # the folder was listed once
            super().check_growth(claimed, what)

    def read_band(self, name: str, band: int, start: int, stop: int) -> bytes | memoryview:
        if self._tree.stored[name] is None:
            return self._aggregate.read(name, start, stop)
        array = self._arrays[name]
        if not array.direct:
            return self.keep(name, band)[start:stop]
        try:
            return array.read(band, start, stop)
        except ValueError as error:
            raise self._unreadable(name, error) from None

    def make_band(self, name: str, band: int) -> memoryview:
        try:
            return self._arrays[name].band(band)
        except ValueError as error:
            raise self._unreadable(name, error) from None

    def close(self) -> None:
        super().close()
        self._tree.close()
        self._store.close()
        self._arrays = {}


def array_of(key: str) -> str:
    """The array to which a key of the store belongs: "a.b/.zarray", "a.b/0.0" and Zarr 3's "a.b/c/0/0" -> "a.b"."""
    if key.endswith((f"/{HEADER}", "/zarr.json")):
        return key.rpartition("/")[0]
    return re.sub(r"(/c)?/[\d./]+$", "", key)


class OrbaxWriter(FolderWriter):
    """What StandardCheckpointer restores: a tree of numpy arrays in one OCDBT database, uncompressed, in bands of rows.

    The same input gives the same files, byte by byte.
    Raises: ConvertError for tensors without elements, which Orbax cannot hold, and names that it would confuse.
    """

    own = (RECORD, METADATA, "_CHECKPOINT_METADATA", "manifest.ocdbt", "d/*")

    def __init__(self, file: IO[bytes], tensors: Sequence[Tensor], metadata: dict[str, str]):
        from convert.files.folders.ocdbt_writer import DatabaseWriter

        super().__init__(file, tensors, metadata)
        if not self.tensors:
            raise ConvertError("Orbax cannot hold a checkpoint without tensors")
        kept = Counter(tensor.name.replace("/", ".") for tensor in self.tensors)
        for tensor in self.tensors:
            twice = kept[tensor.name.replace("/", ".")] > 1
            if not tensor.size or "" in tensor.name.split("/") or twice:
                raise ConvertError(f"{shown(tensor.name)} {list(tensor.shape)}: Orbax cannot hold this name or shape")
        self._database, self._starts = DatabaseWriter(self.folder), dict[str, int]()

    def write(self, tensor: Tensor, chunks: Iterable[bytes | bytearray | memoryview]) -> None:
        missing = -tensor.nbytes % chunk_bytes(tensor)  # the last chunk is as large as the others
        zeros = (bytes(min(PIECE, missing - at)) for at in range(0, missing, PIECE))
        self._starts[tensor.name] = self._database.append(chain(self.pieces(tensor, chunks), zeros))

    def close_store(self) -> None:
        self._database.finish(sorted(self._values()))
        tree = {str(tuple(tensor.name.split("/"))): leaf(tensor) for tensor in self.tensors}
        about = {"use_ocdbt": True, "use_zarr3": False, "store_array_data_equal_to_fill_value": True}
        self._write(METADATA, {"tree_metadata": tree, **about, "custom_metadata": None})
        handler = "orbax.checkpoint._src.handlers.standard_checkpoint_handler.StandardCheckpointHandler"
        self._write("_CHECKPOINT_METADATA", {"item_handlers": handler, "metrics": {}, "performance_metrics": {}})

    def _values(self) -> Iterator[tuple[bytes, Stored]]:
        """Keys, and headers or where a chunk lies."""
        for tensor in self.tensors:
            where, size, start = tensor.name.replace("/", "."), chunk_bytes(tensor), self._starts[tensor.name]
            rest = ".0" * (len(tensor.shape) - 1)
            yield f"{where}/{HEADER}".encode(), zarray(tensor)
            for number in range(math.ceil(tensor.nbytes / size)):
                yield f"{where}/{number}{rest}".encode(), (start + number * size, size)

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

"""Read Orbax checkpoints: trees of Zarr arrays, in one OCDBT database or a folder each, or in a msgpack file.

tensorstore reads and writes the arrays; jax and orbax are not needed. It is asked for shapes and chunks before any
payload, which it reads in a process of its own (`tensorstore_process`).
"""

from __future__ import annotations

import math
import os
import re
from contextlib import ExitStack
from typing import Any, NamedTuple

from convert.errors import FormatError
from convert.files import bounded_json
from convert.files.base import INCOMPLETE, ITEMSIZE, MAX_DIMS, URL, Tensor, record_at, shown
from convert.files.msgpack import MsgpackReader
from specs.words import first_few

from .base import KEY, RECORD, FolderReader
from .orbax_places import Local, Remote
from .orbax_tree import AGGREGATE, METADATA, STEP, OrbaxTree
from .orbax_writer import MANIFEST, OrbaxWriter
from .tensorstore_process import Process, reason

MAX_GROWTH = 64  # times that tensors may outgrow their folder: compressed zeros grow, bombs grow more
FREE = 64 << 20  # bytes that may come out of nothing: a small checkpoint of zeros is no bomb
MAX_REMOTE = 16 << 30  # bytes of a band of an array at a URL, where the size of all files is not known
MAX_CHUNKS = 300_000  # of all arrays
MAX_HEADER = 1 << 16  # bytes
AT_ONCE = 500  # arrays that are opened by one request
NAMED = 6  # arrays that a remark names
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

__all__ = ["OrbaxReader", "OrbaxWriter"]


class OpenArray(NamedTuple):
    """An array that the process has opened."""

    number: int  # in the process
    rows: int  # of a band: as many as a chunk has


class OrbaxReader(FolderReader):
    """The arrays of an Orbax tree; names are paths in it, joined by "/".

    Args:
      path: a folder, or a URL of one that tensorstore reads (gs://, s3://, file://).
    """

    format = "orbax"

    def __init__(self, path: str | os.PathLike[str]):
        self.path = os.fspath(path)
        self.on_disk = not URL.match(self.path)
        self._closing = ExitStack()
        self._process: Process | None = None
        self._arrays: dict[str, OpenArray] = {}
        self._chunks = 0
        self._band = ("", -1)  # the one that the process has read last
        try:
            self._place: Local | Remote = Local(self.path) if self.on_disk else Remote(self.path, self._started())
            self._closing.callback(self._place.close)
            super().__init__(self.path)
            if ".orbax-checkpoint-tmp" in os.path.basename(os.path.abspath(self.path)):
                raise FormatError(self.path, "was never finished", "take an earlier step")
            size = self._place.size
            self._most = None if size is None else MAX_GROWTH * size + FREE
            self._tree = OrbaxTree(self._place, self.skipped)
            self._closing.callback(self._tree.close)
            self._open(self._tree)
        except BaseException:
            self.close()
            raise

    def _started(self) -> Process:
        if self._process is None:
            base = os.path.abspath(self.path) if self.on_disk else self.path.rstrip("/")
            self._process = Process(self.path, f"{base}/")
            self._closing.callback(self._process.close)
        return self._process

    def _reported(self, what: str, **arguments: Any) -> Any:
        """Return what tensorstore reports of the whole folder. Raises: FormatError, as of a file that is cut off."""
        try:
            return self._started().call(what, **arguments)
        except ValueError as error:
            raise FormatError(self.path, f"cannot be read: {error}", INCOMPLETE) from None

    def _record(self) -> dict[str, str]:
        text = record_at(self._place.file(RECORD)) if self._place.has(RECORD) else ""
        return {KEY: text} if text else {}

    def _open(self, tree: OrbaxTree) -> None:
        """Open every array, and record what belongs to none. Raises: FormatError."""
        manifest = self._place.has(tree.root + MANIFEST)
        ocdbt = bool(tree.settings.get("use_ocdbt", manifest))
        if ocdbt and not manifest and any(tree.stored.values()):
            merged = ", into which Orbax merges the databases of hosts" if self._hosts(tree.root) else ""
            raise FormatError(self.path, f"lacks its file {MANIFEST!r}{merged}", INCOMPLETE)
        stored = {name: where for name, where in tree.stored.items() if where is not None}
        for name, where in stored.items():
            if not ocdbt and not {"", ".", ".."}.isdisjoint(where.split("/")):
                raise FormatError(self.path, f"keeps {shown(name)} outside itself", "do not trust it")
        keyed: list[str] = []
        if stored or (ocdbt and manifest):
            driver = "zarr3" if tree.settings.get("use_zarr3") else "zarr"
            zeros = not tree.settings.get("store_array_data_equal_to_fill_value")  # may chunks of zeros be absent?
            keyed = self._reported("use", root=tree.root, ocdbt=ocdbt, driver=driver, zeros=zeros)
            names = list(stored)
            for at in range(0, len(names), AT_ONCE):
                some = {name: stored[name] for name in names[at : at + AT_ONCE]}
                self._check_headers(some)
                self._open_arrays(some, zeros)
            self._report_filled()
        for name in tree.stored.keys() - stored.keys():
            tensor = self._aggregate.tensors[name]
            self.add(tensor, [0, tensor.nbytes])
        self.tensors = {name: self.tensors[name] for name in tree.stored}
        self._check_size(sum(tensor.nbytes for tensor in self.tensors.values()), "tensors of ")
        self._skip_unlisted(tree, ocdbt, keyed)

    @property
    def _aggregate(self) -> MsgpackReader:
        assert self._tree.aggregate is not None  # where the tree has arrays in it
        return self._tree.aggregate

    def _check_headers(self, stored: dict[str, str]) -> None:
        """Check shapes and chunks before tensorstore opens anything: it would allocate whatever they claim."""
        headers = self._reported("headers", arrays=list(stored.values()), limit=MAX_HEADER)
        for name, header in zip(stored, headers, strict=True):
            try:
                if not header:
                    raise ValueError(
                        "it has no header, or an empty one" if header is None else "its header is too long"
                    )
                shape, chunks = parse(header)
            except ValueError as error:
                raise self._unreadable(name, str(error)) from None
            least = Tensor(name, shape, "uint8"), Tensor(name, chunks, "uint8")  # if an element takes one byte
            if not least[0].addressable or not least[1].addressable:
                raise self._unreadable(name, "its shape takes over 2^63 bytes")
            self._check_sizes(*least, "at least ")

    def _check_sizes(self, tensor: Tensor, chunk: Tensor, least: str = "") -> None:
        self._check_size(tensor.nbytes, f"an array {shown(tensor.name)} of {least}")
        self._check_size(chunk.nbytes, f"a chunk of {shown(tensor.name)} of {least}", MAX_REMOTE)

    def _check_size(self, claimed: int, what: str, remote: int | None = None) -> None:
        """Check that so many bytes can honestly come out of this folder. Raises: FormatError."""
        most = remote if self._most is None else self._most
        if most is not None and claimed > most:
            of = f" in a folder of {self._place.size:,}" if self._place.size is not None else ""
            raise FormatError(self.path, f"has {what}{claimed:,} bytes{of}", "it is incomplete, or do not trust it")

    def _open_arrays(self, stored: dict[str, str], zeros: bool) -> None:
        """Open arrays, and list in `filled` those of which elements may be absent.

        Earlier versions of Orbax left out chunks of zeros, and their `_METADATA` does not say that all are stored: an
        absent chunk may be one of zeros or a lost one. It is read as the fill value, as Orbax itself does, with a
        remark. Where `_METADATA` says that all chunks are stored, an absent one is refused.

        Args:
          zeros: may chunks of zeros be absent?
        Raises: FormatError.
        """
        abouts = self._reported("open", arrays=list(stored.values()))
        for name, about in zip(stored, abouts, strict=True):
            if "error" in about:
                raise self._unreadable(name, reason(about["error"]))
            if about["dtype"] not in ITEMSIZE:
                raise FormatError(self.path, f"the array {shown(name)} has dtype {about['dtype']}", "save numbers only")
            tensor = Tensor(name, tuple(about["shape"]), about["dtype"])
            chunk = max(about["read"], about["write"], key=math.prod)
            self._check_sizes(tensor, Tensor(name, tuple(chunk), tensor.dtype))
            total = math.prod(-(-n // size) for n, size in zip(tensor.shape, about["write"], strict=True))
            self._chunks += total
            if self._chunks > MAX_CHUNKS:
                raise FormatError(self.path, f"has over {MAX_CHUNKS:,} chunks", "save it in fewer or larger ones")
            if about["stored"] < total and not zeros:
                raise self._unreadable(name, f"it has {about['stored']:,} of its {total:,} chunks")
            sharded = about["read"] != about["write"]  # what is absent inside a shard does not show
            if zeros and (about["stored"] < total or sharded):
                self.filled |= {name}
            rows = (about["read"] or [1])[0]
            band = rows * (tensor.nbytes // tensor.shape[0]) if tensor.size and tensor.shape else tensor.nbytes
            self._check_size(min(band, tensor.nbytes), f"rows of {shown(name)} of ", MAX_REMOTE)
            self.add(tensor, [*range(0, tensor.nbytes, band or 1), tensor.nbytes])
            self._arrays[name] = OpenArray(len(self._arrays), rows)

    def _report_filled(self) -> None:
        """Add a remark on arrays of which chunks may be absent."""
        if self.filled:
            names = [shown(name) for name in self.tensors if name in self.filled]
            why = f"its {METADATA} does not say that all chunks are stored"
            what = "absent chunks are read as the fill value, which is 0 unless an array states another"
            self.remarks = (f"{what} ({why}): {first_few(names, NAMED)}",)

    def _skip_unlisted(self, tree: OrbaxTree, ocdbt: bool, keyed: list[str]) -> None:
        """Record whatever in the folder no array of the tree lies in.

        Args:
          keyed: every array of the database that has a key.
        """
        stored = {where for where in tree.stored.values() if where is not None}
        if tree.root:
            self._skip_others("", BESIDE_STEP)
        if not ocdbt:
            self._skip_others(tree.root, BESIDE | {where.partition("/")[0] for where in stored})
            return
        hosts = self._hosts(tree.root)
        self._skip_others(tree.root, BESIDE | hosts)
        for host in sorted(hosts):  # Orbax merges their databases into the main one
            inner = f"{tree.root}{host}/"
            try:
                if MANIFEST not in self._place.entries(inner):
                    raise ValueError("it has no manifest")
                lacking = self._started().call("lacking", host=inner)
            except ValueError:
                self.skipped.add(host, "the database of a host, which cannot be read")
                continue
            if cut := sorted(stored.intersection(lacking)):
                what = f"{host} has chunks of {shown(cut[0])} that the main database lacks"
                raise FormatError(self.path, f"{what}: Orbax has not merged the databases", "take an earlier step")
            for where in lacking:
                self.skipped.add(f"{host}/{where}", "an array of a host that the main database lacks")
        aggregated = {name.replace("/", ".") for name, where in tree.stored.items() if where is None}
        for where in keyed:
            if where in aggregated:
                self.skipped.add(where, f"an array that {AGGREGATE!r} has as well, which Orbax reads instead")
            elif where not in stored:
                self.skipped.add(where, "an array that the tree does not list")

    def _hosts(self, inner: str) -> set[str]:
        """Return the folders of the databases of hosts."""
        return {name for name in self._place.entries(inner) if PROCESS.fullmatch(name)}

    def _skip_others(self, inner: str, known: set[str]) -> None:
        for name, is_folder in self._place.entries(inner).items():
            if name not in known:
                self.skipped.add(name, f"a {'folder' if is_folder else 'file'} that nothing refers to")

    def _unreadable(self, name: str, problem: str) -> FormatError:
        return FormatError(self.path, f"the array {shown(name)} cannot be read: {problem}", INCOMPLETE)

    def read_band(self, name: str, band: int, start: int, stop: int) -> bytes | memoryview:
        if name not in self._arrays:
            return self._aggregate.read(name, start, stop)
        process = self._started()
        if self._band != (name, band):
            self._band = ("", -1)
            try:
                process.call("band", room=self.edges[name][band + 1] - self.edges[name][band], **self._rows(name, band))
            except ValueError as error:
                raise self._unreadable(name, str(error)) from None
            self._band = (name, band)
        data = process.payload(start, stop)
        if len(data) != stop - start:
            raise self._unreadable(name, f"its rows have {start + len(data):,} bytes, not {stop:,} or more")
        return data

    def _rows(self, name: str, band: int) -> dict[str, int]:
        """Return which rows of which array are a band."""
        array, shape = self._arrays[name], self.tensors[name].shape
        first = band * array.rows
        return {"array": array.number, "first": first, "last": min(first + array.rows, shape[0]) if shape else 0}

    def close(self) -> None:
        self._closing.close()


def parse(header: str) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Return the shape and the chunks' shape in the header of a Zarr 2 or 3 array. Raises: ValueError."""
    about = bounded_json.loads(header)
    match about:
        case {"shape": shape, "zarr_format": 2, "chunks": chunks}:
            pass
        case {"shape": shape, "zarr_format": 3, "chunk_grid": {"configuration": {"chunk_shape": chunks}}}:
            pass
        case _:
            raise ValueError("its header is not that of a Zarr array")
    sizes = _sizes(shape, 0), _sizes(chunks, 1)
    if len(sizes[0]) != len(sizes[1]):
        raise ValueError("its header contradicts itself")
    return sizes


def _sizes(sizes: Any, least: int) -> tuple[int, ...]:
    if not isinstance(sizes, list) or len(sizes) > MAX_DIMS:
        raise ValueError("its header gives no shape")
    if not all(type(n) is int and least <= n < 2**63 for n in sizes):
        raise ValueError(f"its header gives a size below {least} or over 2^63")
    return tuple(sizes)

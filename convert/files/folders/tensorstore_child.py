"""Serve the arrays of an Orbax checkpoint through tensorstore: the script of `tensorstore_process`, never imported.

Hostile files can make tensorstore abort, or use gigabytes and minutes: here they end this process alone, whose memory
and processor time are limited. A request is a line of JSON on stdin; the answer on stdout is a line of JSON
`{"bytes": n, "result": ...}` or `{"error": text}`, and then n bytes. Needs the standard library, numpy and tensorstore.
"""

from __future__ import annotations

import json
import os
import re
import resource
import sys
import time
from typing import Any

import numpy as np
import tensorstore as ts

MEMORY = 512 << 20  # bytes beyond what the imports use: 300,000 keys take 100 MB
SECONDS = 20  # of processor time for a request; 300,000 keys take 2
MAX_KEYS = 1_000_000  # in a folder or database
NODES = 64 << 20  # bytes of decoded nodes of a database that stay in memory
CHUNK_KEY = {"zarr": re.compile(r"/[\d./]+$"), "zarr3": re.compile(r"/c(/\d+)*$")}
HEADER = {"zarr": ".zarray", "zarr3": "zarr.json"}


class Arrays:
    """The arrays below one place.

    Args:
      base: a folder's path or a URL, with a slash at its end.
      shared: descriptor of the file in which the parent reads payloads.
    """

    def __init__(self, base: str, shared: int):
        self.base, self.shared = base, shared
        settings = {
            "cache_pool": {"total_bytes_limit": NODES},
            "data_copy_concurrency": {"limit": 2},  # each thread costs memory
            "file_io_concurrency": {"limit": 4},
        }
        self.context = ts.Context(settings)
        self.opened: list[Any] = []

    def _place(self, inner: str) -> Any:
        """Return the key-value store below `inner`, which ends with a slash or is empty."""
        if "://" in self.base:
            return self.base + inner
        return {"driver": "file", "path": self.base + inner}

    def _database(self, inner: str, path: str = "") -> dict[str, Any]:
        return {"driver": "ocdbt", "base": self._place(inner), "path": path}

    def _keys(self, place: Any) -> list[str]:
        keys = ts.KvStore.open(place, context=self.context).result().list().result()
        if len(keys) > MAX_KEYS:
            raise ValueError(f"it holds over {MAX_KEYS:,} keys")
        return [key.decode() for key in keys]

    def files(self) -> list[str]:
        """List every file."""
        return self._keys(self._place(""))

    def copy(self, key: str, path: str) -> None:
        """Copy a file to a path of this machine."""
        store = ts.KvStore.open(self._place(""), context=self.context).result()
        with open(path, "wb") as file:
            file.write(store.read(key).result().value)

    def use(self, root: str, ocdbt: bool, driver: str, zeros: bool) -> list[str]:
        """Choose where the arrays are, in `root` or the database there.

        Args:
          driver: "zarr" or "zarr3".
          zeros: does a chunk that is missing stand for zeros?
        Returns: every array that has a key.
        """
        self.root, self.ocdbt, self.driver, self.zeros = root, ocdbt, driver, zeros
        self.keys = self._keys(self._database(root) if ocdbt else self._place(root))
        self.chunks: dict[str, list[str]] = {}
        for key in self.keys:
            where, is_chunk = self._array(key)
            self.chunks.setdefault(where, []).extend([key] * is_chunk)
        return list(self.chunks)

    def _array(self, key: str) -> tuple[str, bool]:
        """Return the array to which a key belongs, and whether it is of a chunk: "a.b/.zarray", "a.b/0.0" -> "a.b"."""
        where, _, last = key.rpartition("/")
        if last in HEADER.values():
            return where, False
        return CHUNK_KEY[self.driver].subn("", key)  # type: ignore[return-value]

    def lacking(self, host: str) -> list[str]:
        """Return arrays of which the database in the folder `host` has keys that the chosen one lacks."""
        known = set(self.keys)
        return list({self._array(key)[0]: None for key in self._keys(self._database(host)) if key not in known})

    def headers(self, arrays: list[str], limit: int) -> list[str | None]:
        """Return the JSON headers; None where there is none or it is empty, "" where it is longer than `limit`."""
        store = ts.KvStore.open(
            self._database(self.root) if self.ocdbt else self._place(self.root), context=self.context
        )
        name = HEADER[self.driver]
        futures = [store.result().read(f"{array}/{name}") for array in arrays]
        values = [future.result() for future in futures]
        return [
            (read.value.decode(errors="replace") if len(read.value) <= limit else "")
            if read.state == "value" and read.value
            else None
            for read in values
        ]

    def open(self, arrays: list[str]) -> list[dict[str, Any]]:
        """Open arrays, which `band` counts in this order.

        Returns: shape, dtype, chunk shapes and how many chunks of the grid are stored; or the error.
        """
        futures = [ts.open(self._array_at(where), read=True, context=self.context) for where in arrays]
        described: list[dict[str, Any]] = []
        for where, future in zip(arrays, futures, strict=True):
            array: Any = None
            try:
                array = future.result()
            except Exception as error:  # whatever tensorstore raises of a stranger's file
                described.append({"error": str(error)})
            else:
                layout = array.chunk_layout
                read, write = (list(chunk.shape or ()) for chunk in (layout.read_chunk, layout.write_chunk))
                shape, stored = list(array.shape), self._stored(where, array.shape, write)
                about = {"shape": shape, "dtype": array.dtype.name, "read": read, "write": write, "stored": stored}
                described.append(about)
            self.opened.append(array)
        return described

    def _stored(self, where: str, shape: tuple[int, ...], chunk: list[int]) -> int:
        """Count the chunks of an array that are stored, without those outside of its grid."""
        grid = [-(-n // size) for n, size in zip(shape, chunk, strict=True)] or [1]  # Zarr 2 calls the one chunk "0"
        keys = (re.findall(r"\d+", key[len(where) :]) for key in self.chunks.get(where, ()))
        return sum(all(len(n) < 20 and int(n) < size for n, size in zip(key, grid, strict=False)) for key in keys)

    def _array_at(self, where: str) -> dict[str, Any]:
        if self.ocdbt:
            place: Any = self._database(self.root, f"{where}/")
        else:
            place = self._place(f"{self.root}{where}/")
        return {"driver": self.driver, "kvstore": place, "fill_missing_data_reads": self.zeros}

    def band(self, array: int, first: int, last: int) -> int:
        """Write the rows [first, last) of an array to the shared file. Returns: their bytes."""
        rows = self.opened[array]
        rows = rows[first:last] if rows.rank else rows
        data = np.ascontiguousarray(rows.read().result()).reshape(-1).view(np.uint8).data
        os.ftruncate(self.shared, data.nbytes)
        at = 0
        while at < data.nbytes:
            at += os.pwrite(self.shared, data[at:], at)
        return at


def main() -> None:
    out, base_memory = sys.stdout.buffer, memory()
    arrays = Arrays(sys.argv[1], int(sys.argv[2]))
    for line in sys.stdin.buffer:
        request = json.loads(line)
        limit(base_memory + MEMORY + request.pop("room"), SECONDS + request.pop("seconds"))
        try:
            answer = {"result": getattr(arrays, request.pop("call"))(**request)}
        except Exception as error:  # tensorstore's errors are of many types
            answer = {"error": str(error) or type(error).__name__}
        out.write(json.dumps(answer).encode() + b"\n")
        out.flush()


def memory() -> int:
    """Return bytes of data that this process has mapped now; 0 where the system does not tell."""
    try:
        with open("/proc/self/status", encoding="ascii") as status:
            return next(int(line.split()[1]) << 10 for line in status if line.startswith("VmData"))
    except (OSError, StopIteration):
        return 0


def limit(data: int, seconds: int) -> None:
    """Limit this process to `data` bytes, and to `seconds` of processor time from now."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if data:
        resource.setrlimit(resource.RLIMIT_DATA, (data, resource.RLIM_INFINITY))
    resource.setrlimit(resource.RLIMIT_CPU, (int(time.process_time()) + seconds + 1, resource.RLIM_INFINITY))


if __name__ == "__main__":
    main()

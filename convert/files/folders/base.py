"""Share code between readers and writers of checkpoints that are folders (Orbax, torch DCP).

A tensor is stored in chunks. Those that begin at one row of its first axis make a band: bytes that follow each other in
C order.
"""

from __future__ import annotations

import os
import stat
from abc import abstractmethod
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from typing import IO, Any

from convert.errors import FormatError
from convert.files.base import Reader, Tensor, Writer, record_at, shown, write_all

KEY = "triptych"  # of the record in a Reader's metadata, as in safetensors
RECORD = "triptych.json"  # where the record lies in the folder; the official loaders take no notice of it
MAX_FILES = 1_000_000


class FolderWriter(Writer):
    """Writes a folder: `file` is the record inside it, and the folder is where that lies."""

    keeps_metadata = True
    one_file = False

    def __init__(self, file: IO[bytes], tensors: Sequence[Tensor], metadata: dict[str, str], tree: Any = None):
        super().__init__(file, tensors, metadata, tree)
        self.folder = os.path.dirname(os.path.abspath(file.name))

    def finish(self) -> None:
        self.complete()
        self.close_store()
        if KEY in self.metadata:
            write_all(self.file, self.metadata[KEY].encode() + b"\n")

    @abstractmethod
    def close_store(self) -> None:
        """Write everything that follows the last payload, but for the record."""


class FolderReader(Reader):
    """One open folder. `edges` holds, for each tensor, where its bands begin and the last one ends, in bytes."""

    def __init__(self, path: str | os.PathLike[str]):
        self.path = os.fspath(path)
        self.tensors: dict[str, Tensor] = {}
        self.edges: dict[str, Sequence[int]] = {}
        self.metadata = self._record()

    def _record(self) -> dict[str, str]:
        text = record_at(os.path.join(self.path, RECORD))
        return {KEY: text} if text else {}

    def read(self, name: str, start: int = 0, stop: int | None = None) -> bytes | memoryview:
        nbytes, edges = self.tensors[name].nbytes, self.edges[name]
        stop = nbytes if stop is None else stop
        if not 0 <= start <= stop <= nbytes:
            raise ValueError(f"bytes {start} to {stop} of {nbytes}")
        parts = []
        while start < stop:
            band = bisect_right(edges, start) - 1
            end = min(stop, edges[band + 1])
            parts.append(self.read_band(name, band, start - edges[band], end - edges[band]))
            start = end
        return parts[0] if len(parts) == 1 else b"".join(parts)

    @abstractmethod
    def read_band(self, name: str, band: int, start: int, stop: int) -> bytes | memoryview:
        """Return bytes [start, stop) of one band of a tensor. Raises: FormatError."""

    def add(self, tensor: Tensor, edges: Sequence[int]) -> None:
        """Add a tensor with the edges of its bands. Raises: FormatError where the name is taken."""
        if tensor.name in self.tensors:
            raise FormatError(self.path, f"names two tensors {shown(tensor.name)}", "one of the two would be lost")
        self.tensors[tensor.name], self.edges[tensor.name] = tensor, edges


def files(folder: str) -> Iterator[str]:
    """Yield every regular file in a folder and its folders, sorted. Raises: FormatError where there are too many."""
    count = 0
    for inner, folders, names in os.walk(folder):
        folders.sort()
        count += len(names)
        if count > MAX_FILES:
            raise FormatError(folder, f"holds over {MAX_FILES:,} files", "is it the right folder?")
        paths = (os.path.join(inner, name) for name in sorted(names))
        yield from (path for path in paths if stat.S_ISREG(os.lstat(path).st_mode))

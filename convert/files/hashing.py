"""Hash and count payloads: XXH3 of each, which finds damage at the speed of memory, and SHA-256 of the source.

A record lies in or beside the file it describes, so who can change the one can change the other, and no hash of a
payload would show it; against that, publish the file's own SHA-256 (`inspect --hash`).
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import xxhash

from convert.errors import ConvertError, FormatError

from . import files_of, state
from .background import Task
from .base import URL, File, Reader, State, Tensor

Count = Callable[[Any, str], int]  # of a piece of payload and its dtype
BATCH = 1 << 17  # bytes of the source a read: they are still in the core's own cache when they are hashed
HASH = "xxh3_128"  # what a record calls a payload's hash
NO_HASH, NO_SHA256 = "0" * 32, "0" * 64  # what stands there until they are known
SAMPLES, SAMPLE = 16, 4096  # of a file that has its record beside it: how many, and their bytes


def identity(path: str) -> dict[str, Any]:
    """Return what ties a record beside a file to this very file: its size, and a hash of samples all over it."""
    with open(path, "rb", buffering=0) as file:
        size = os.fstat(file.fileno()).st_size
        digest = hashlib.sha256()
        for k in range(SAMPLES):
            digest.update(os.pread(file.fileno(), SAMPLE, max(size - SAMPLE, 0) * k // (SAMPLES - 1)))
    return {"bytes": size, "samples": digest.hexdigest()}


class Source:
    """A source while it is converted: not to change meanwhile, and hashed in a thread of its own if it is `hashed`.

    Args:
      path: None for arrays in memory; they and what lies at a URL are neither watched nor hashed.
    """

    def __init__(self, path: str | None, hashed: bool = True):
        path = None if path is not None and URL.match(path) else path
        self.path, self.before = path, State()
        with contextlib.suppress(OSError):  # of a file that is not there, which opening it tells
            self.before = state(path) if path is not None else self.before
        self._task = Task(lambda stop: sha256(path, stop) if hashed and path is not None else None)

    def sha256(self) -> str | None:
        """Return the hash, None if there is none. Raises: ConvertError where the source is no longer what it was."""
        if self.path is None:
            return None
        with _reported(self.path):
            sha = self._task.result()
        check_unchanged({self.path: self.before})
        return sha

    def __enter__(self) -> Source:
        return self

    def __exit__(self, *reason: object) -> None:
        self._task.__exit__(*reason)


def check_unchanged(opened: Mapping[str, State]) -> None:
    """Check that checkpoints are what they were. Raises: ConvertError.

    Args:
      opened: see Reader.
    """
    for path, before in opened.items():
        with _reported(path):
            now = state(path)
        if now != before:
            raise ConvertError(f"{path}: changed while it was read: convert it again once it is complete")


@contextlib.contextmanager
def _reported(path: str) -> Iterator[None]:
    """Raise ConvertError that names a checkpoint which is not there any more."""
    try:
        yield
    except (OSError, FormatError) as error:
        raise ConvertError(f"{path}: cannot be read any more: {error}") from None


class Digest:
    """Collects a tensor's line of the record while its payload passes by.

    Args:
      counts: name in the line -> function of a piece and its dtype that counts odd values; those of 0 are left out.
    """

    def __init__(self, tensor: Tensor, hashed: bool = True, counts: Mapping[str, Count] | None = None):
        self.tensor, self.hash = tensor, xxhash.xxh3_128() if hashed else None
        self.counts = {"not_finite": count_not_finite, **(counts or {})}
        self.odd = dict.fromkeys(self.counts, 0)

    def of(self, pieces: Iterable[Any]) -> Iterator[Any]:
        """Yield the pieces as they are; `line` is known once the last was taken."""
        for piece in pieces:
            if self.hash:
                self.hash.update(piece)
            for name, count in self.counts.items():
                self.odd[name] += count(piece, self.tensor.dtype)
            yield piece

    def line(self) -> dict[str, Any]:
        """Return shape, dtype, hash of the payload, and how many odd values of each kind it has, if any."""
        odd = {name: number for name, number in self.odd.items() if number}
        return described(self.tensor, self.hash.hexdigest() if self.hash else None) | odd


def described(tensor: Tensor, content_hash: str | None) -> dict[str, Any]:
    """Return a tensor's line of the record, with this hash if any."""
    return {"shape": list(tensor.shape), "dtype": tensor.dtype} | ({HASH: content_hash} if content_hash else {})


EXPONENT = {
    "float64": (8, 0x7FF << 52),
    "float32": (4, 0xFF << 23),
    "bfloat16": (2, 0xFF << 7),
    "float16": (2, 31 << 10),
    "float8_e5m2": (1, 31 << 2),
    "float8_e4m3fn": (1, 0x7F),  # mantissa as well: without infinities, the others are numbers
}


def count_not_finite(piece: Any, dtype: str) -> int:
    """Count NaNs and infinities in a piece of payload: elements whose exponent is all ones."""
    if dtype not in EXPONENT:
        return 0
    import numpy as np

    if dtype in ("float32", "float64"):  # several times as fast
        values = np.frombuffer(piece, dtype)
        return values.size - int(np.count_nonzero(np.isfinite(values)))
    size, mask = EXPONENT[dtype]
    bits = np.frombuffer(piece, f"u{size}")
    return int(np.count_nonzero((bits & bits.dtype.type(mask)) == mask))


def sha256(path: str, stop: threading.Event | None = None) -> str:
    """Hash a checkpoint: its file, or, if there are several, the lines "HASH NAME" of all its files.

    Stops early on `stop`; the result is then of no use. Raises: FormatError, OSError.
    """
    names = files_of(path)
    if names == [path]:
        return _file_sha256(path, stop)
    folder = path if os.path.isdir(path) else os.path.dirname(os.path.abspath(path))
    lines = (f"{_file_sha256(name, stop)} {os.path.relpath(name, folder)}\n" for name in names)
    return hashlib.sha256("".join(lines).encode(errors="surrogateescape")).hexdigest()


def _file_sha256(path: str, stop: threading.Event | None) -> str:
    digest = hashlib.sha256()
    buffer = memoryview(bytearray(BATCH))
    file, at = File(path), 0
    try:
        while (size := os.preadv(file.fd, [buffer], at)) and not (stop and stop.is_set()):
            digest.update(buffer[:size])
            at += size
    finally:
        file.close()
    return digest.hexdigest()


def digest(reader: Reader, name: str) -> str:
    """Hash of one tensor's payload, as it is on disk."""
    hasher = xxhash.xxh3_128()
    for piece in reader.pieces(name):
        hasher.update(piece)
    return hasher.hexdigest()

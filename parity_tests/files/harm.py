"""Files that are hard on readers: damaged at random, or too large for 32 bits; and a watch on how long they hold up."""

from __future__ import annotations

import contextlib
import io
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

from hypothesis import strategies as st

from convert.files.base import PIECE, Tensor, Writer

# Of processor time for one bad file. The largest bombs take 1.4 in a process of their own; here three frameworks have
# filled the memory and other work shares the cores, and what is to be caught takes minutes.
SECONDS = 20.0
MILLION = 0.1  # seconds in which the machine where that was measured counts to a million


def pace() -> float:
    """How many times slower this machine is now, at least 1: a file that hangs is told from a machine that is slow."""
    return max(1.0, min(_million() for _ in range(3)) / MILLION)


def _million() -> float:
    start, count = time.process_time(), 0
    for number in range(1_000_000):
        count += number & 3
    return time.process_time() - start


@contextlib.contextmanager
def soon(name: str, seconds: float = SECONDS) -> Iterator[None]:
    """What happens inside must not hang."""
    start = time.process_time()  # a busy machine is not our fault
    yield
    spent = time.process_time() - start
    assert spent < seconds or spent < seconds * pace(), name


def damaged(data: st.DataObject, good: bytes) -> bytes:
    """`good` with a few bytes replaced, removed, or its end cut."""
    bad = bytearray(good)
    for _ in range(data.draw(st.integers(1, 3))):
        at, width = data.draw(st.integers(0, len(bad) - 1)), data.draw(st.integers(0, 4))
        bad[at : at + width] = data.draw(st.binary(min_size=0, max_size=4))
        if not bad:
            return b""
    return bytes(bad[: data.draw(st.integers(0, len(bad)))]) if data.draw(st.booleans()) else bytes(bad)


class Sparse(io.FileIO):
    """A file that leaves holes where long runs of zeros are written."""

    def write(self, data: Any) -> int:
        view = memoryview(data)
        if view.nbytes >= PIECE and not any(view[:16]):
            self.seek(view.nbytes, io.SEEK_CUR)
            return view.nbytes
        return super().write(data) or 0


def zeros(size: int) -> Iterator[bytes | memoryview]:
    """`size` bytes: zeros, but for the last 4."""
    piece = bytes(1 << 25)
    for at in range(0, size - 4, len(piece)):
        yield memoryview(piece)[: min(len(piece), size - 4 - at)]
    yield b"last"


def write_large(path: Path, writer: Callable[[IO[bytes], list[Tensor], dict[str, str]], Writer]) -> list[Tensor]:
    """A tensor of over 4 GiB, and one beyond it."""
    items = [Tensor("large", (2**30 + 5,), "float32"), Tensor("after", (3,), "int32")]
    with Sparse(path, "w") as file:
        out = writer(file, items, {})
        out.write(items[0], zeros(items[0].nbytes))
        out.write(items[1], [b"behind the 4"])
        out.finish()
    return items

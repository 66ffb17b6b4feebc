"""Good tensors of every dtype and awkward shape, and the steps that format tests take with them."""

from __future__ import annotations

import json
import math
import random
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

import pytest

from convert.files import base, open_checkpoint, writer_for
from convert.files.base import ITEMSIZE, Reader, Tensor, Writer
from convert.files.safetensors import CODES

SHAPES = {
    "scalar": (),
    "empty": (0,),
    "empty_axis": (3, 0, 2),
    "vector": (5,),
    "one": (1, 1),
    "matrix": (7, 3),
    "kernel": (2, 3, 5, 7),
}
NAMES = ("plain", "Größe", "层/0", "a.b.c", "sp ace", 'quo"te\\', "emoji😀", "tab\tnew\nline")

SMALL = [
    Tensor("a/kernel", (3, 4), "float32"),
    Tensor("a/bias", (4,), "float16"),
    Tensor("step", (), "int64"),
]
ROOT = Path(__file__).parents[2]


def tensors(dtypes: Iterable[str] = ITEMSIZE, separator: str = "/") -> list[Tensor]:
    """Every dtype in every shape, then every name."""
    grid = [Tensor(f"{dtype}{separator}{name}", shape, dtype) for dtype in dtypes for name, shape in SHAPES.items()]
    return grid + [Tensor(f"names{separator}{name}", (3,), "float32") for name in NAMES]


def payload(tensor: Tensor) -> bytes:
    """Bytes that belong to this tensor alone: any bits, so NaNs as well, but true and false for bool."""
    data = random.Random(tensor.name).randbytes(tensor.nbytes)
    return bytes(byte & 1 for byte in data) if tensor.dtype == "bool" else data


def write(
    path: Path,
    writer: type[Writer],
    items: Sequence[Tensor],
    metadata: dict[str, str] | None = None,
    piece: int = 7,
) -> Path:
    """Write the tensors with their payloads in pieces of `piece` bytes."""

    def pieces(data: bytes) -> Iterator[memoryview]:
        return (memoryview(data)[at : at + piece] for at in range(0, len(data), piece))

    return store(path, [(tensor, pieces(payload(tensor))) for tensor in items], writer, metadata)


def store(
    path: Path,
    contents: Sequence[tuple[Tensor, Iterable[bytes | bytearray | memoryview]]],
    writer: type[Writer] | None = None,
    metadata: dict[str, str] | None = None,
) -> Path:
    """Write tensors with these payloads, in the format that the suffix names unless a writer is given."""
    with path.open("wb", buffering=0) as file:
        out = (writer or writer_for(path))(file, [tensor for tensor, _ in contents], metadata or {})
        for tensor, chunks in contents:
            out.write(tensor, chunks)
        out.finish()
    return path


def hollow(path: Path, items: Iterable[Tensor]) -> Path:
    """Write safetensors of these names and shapes, with nothing but a hole where the data would be."""
    header, end = dict[str, object](), 0
    for item in items:
        offsets = [end, end := end + item.nbytes]
        header[item.name] = {"dtype": CODES[item.dtype], "shape": item.shape, "data_offsets": offsets}
    text = json.dumps(header).encode()
    with open(path, "wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        file.truncate(8 + len(text) + end)
    return path


def check(reader: Reader, items: Sequence[Tensor], piece: int = 11) -> None:
    """The reader holds these tensors in this order, whole, in pieces, and in any range."""
    assert list(reader.tensors) == [tensor.name for tensor in items]
    for tensor in items:
        data = payload(tensor)
        assert reader.tensors[tensor.name] == tensor
        assert bytes(reader.read(tensor.name)) == data
        parts = [reader.read(tensor.name, at, min(at + piece, len(data))) for at in range(0, len(data), piece)]
        assert b"".join(parts) == data
        middle = math.ceil(len(data) / 3)
        assert bytes(reader.read(tensor.name, middle, len(data))) == data[middle:]
        assert bytes(reader.read(tensor.name, middle, middle)) == b""


def written(path: Path, name: str, items: Sequence[Tensor] = SMALL) -> Path:
    """A small file of the format with this suffix."""
    return write(path, writer_for(f"x.{name}"), items)


def read_all(path: Path, opener: Callable[[Path], Reader] = open_checkpoint) -> int:
    """Read every tensor; how many there are."""
    with opener(path) as reader:
        for tensor in reader.tensors.values():
            assert len(reader.read(tensor.name)) == tensor.nbytes
        return len(reader.tensors)


def reads(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The sizes of all reads of files from now on, in their order."""
    read, sizes = base.pread, list[int]()

    def counting(fd: int, size: int, offset: int) -> bytes:
        sizes.append(size)
        return read(fd, size, offset)

    monkeypatch.setattr(base, "pread", counting)
    return sizes


# VmHWM begins anew with the program; ru_maxrss would still hold that of the process it was forked from.
PEAK = """
peak = next(line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM"))
print(int(peak) // 1024, *sorted(sys.modules))
"""


def python(code: str, *arguments: object, timeout: float = 60) -> str:
    """Run it in a process of its own; peak megabytes and the names of its modules."""
    command = [sys.executable, "-c", code + PEAK, *map(str, arguments)]
    return subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True, timeout=timeout).stdout

"""Write torch checkpoints: a zip as torch.save makes it, streamed, byte-identical from run to run.

Replaces torch.save, which needs torch and all tensors in memory at once.
`torch.load(weights_only=True)` reads it, also with mmap=True: payloads are stored and begin at multiples of 64 bytes.
Source: torch/serialization.py, `_save`; caffe2/serialize/inline_container.cc, `getPadding`.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence
from typing import IO, Any

from convert.files.base import Tensor, Writer
from convert.files.zip_writer import ZipWriter
from convert.files.zips import LOCAL

from .emit import call, dictionary, integer, integers, nested, symbol, text
from .torch_values import STORAGES

ALIGNMENT = 64  # bytes; torch's default for storages
FOLDER = "archive"  # torch takes the file's name here: it would tie the bytes to it
STORAGE_TYPES = {dtype: name for name, dtype in STORAGES.items()}


class AlignedZipWriter(ZipWriter):
    """Pads each local header with torch's own extra field "FB", so that payloads are aligned."""

    def _local(self) -> bytes:
        header = super()._local()
        size = -(self._header + len(header) + 4) % ALIGNMENT
        extra = int.from_bytes(header[LOCAL.size - 2 : LOCAL.size], "little") + 4 + size
        padding = struct.pack("<2sH", b"FB", size) + b"Z" * size
        return header[: LOCAL.size - 2] + struct.pack("<H", extra) + header[LOCAL.size :] + padding


class TorchWriter(Writer):
    """A state_dict, or a tree of several: plain dicts of tensors, each with a storage of its own.

    Raises: ConvertError for names that are no Unicode, or too many.
    """

    nests = True

    def __init__(self, file: IO[bytes], tensors: Sequence[Tensor], metadata: dict[str, str], tree: Any = None):
        super().__init__(file, tensors, metadata, tree)
        pickle = state_dict(self.tensors) if tree is None else checkpoint(self.tensors, tree)
        records = {"data.pkl": pickle, "byteorder": b"little", "version": b"3\n"}
        payloads = [f"data/{number}" for number in range(len(self.tensors))]
        self._zip = AlignedZipWriter(file, [f"{FOLDER}/{name}" for name in (*records, *payloads)])
        for name, data in records.items():
            self._add(name, len(data), [data])

    def write(self, tensor: Tensor, chunks: Iterable[bytes | bytearray | memoryview]) -> None:
        self._add(f"data/{self.written}", tensor.nbytes, self.pieces(tensor, chunks))

    def _add(self, name: str, size: int, pieces: Iterable[bytes | memoryview]) -> None:
        self._zip.begin(f"{FOLDER}/{name}", size)
        for piece in pieces:
            self._zip.add(piece)
        self._zip.end()

    def finish(self) -> None:
        self.complete()
        self._zip.finish()


def state_dict(tensors: Sequence[Tensor]) -> bytes:
    """Return the pickle of the whole dict, protocol 2, as torch.load's weights-only reader knows it."""
    items = ((text(tensor.name), _tensor(tensor, str(number))) for number, tensor in enumerate(tensors))
    return b"\x80\x02" + dictionary(items) + b"."


def checkpoint(tensors: Sequence[Tensor], tree: Any) -> bytes:
    """Return the pickle of a tree of these tensors."""
    keys = {tensor: str(number) for number, tensor in enumerate(tensors)}
    return (
        b"\x80\x02" + nested(tree, lambda node: _tensor(node, keys[node]) if isinstance(node, Tensor) else None) + b"."
    )


def _tensor(tensor: Tensor, key: str) -> bytes:
    """Pickle a contiguous view of the storage `key`; a dtype without a storage type comes with a storage of bytes."""
    typed = tensor.dtype in STORAGE_TYPES
    kind = ("torch", STORAGE_TYPES[tensor.dtype]) if typed else ("torch.storage", "UntypedStorage")
    count = tensor.size if typed else tensor.nbytes
    storage = b"(" + text("storage") + symbol(*kind) + text(key) + text("cpu") + integer(count) + b"tQ"
    shape, strides = integers(tensor.shape), integers(_strides(tensor.shape))
    hooks = call("collections", "OrderedDict")
    arguments = (storage, integer(0), shape, strides, b"\x89", hooks)
    if typed:
        return call("torch._utils", "_rebuild_tensor_v2", *arguments)
    return call("torch._utils", "_rebuild_tensor_v3", *arguments, symbol("torch", tensor.dtype))


def _strides(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Return torch's strides of a contiguous tensor: an empty axis counts as one element."""
    strides = [1]
    for size in reversed(shape[1:]):
        strides.append(strides[-1] * max(size, 1))
    return tuple(reversed(strides)) if shape else ()

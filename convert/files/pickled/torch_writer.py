"""Write torch checkpoints: a zip as torch.save makes it, streamed, byte-identical from run to run.

Replaces torch.save, which needs torch and all tensors in memory at once.
`torch.load(weights_only=True)` reads it, also with mmap=True: payloads are stored and begin at multiples of 64 bytes.
Source: torch/serialization.py, `_save`; caffe2/serialize/inline_container.cc, `getPadding`.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Mapping, Sequence
from typing import IO, Any

from convert.files.base import Tensor, Writer
from convert.files.zip_writer import ZipWriter
from convert.files.zips import LOCAL

from .emit import call, integer, integers, nested, symbol, text
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
    """A state_dict, or a tree of several: plain dicts of tensors, each with a storage of its own but for tied ones.

    Args:
      tied: {tensor: an earlier one whose storage it shares}; only the others have a payload.
    Raises: ConvertError for names that are no Unicode, or too many.
    """

    nests = ties = True

    def __init__(
        self, file: IO[bytes], tensors: Sequence[Tensor], metadata: dict[str, str], tree: Any = None,
        tied: Mapping[str, str] | None = None,
    ):  # fmt: skip
        super().__init__(file, tensors, metadata, tree)
        same = tied or {}
        self.tensors = [tensor for tensor in tensors if tensor.name not in same]
        keys = {tensor.name: str(number) for number, tensor in enumerate(self.tensors)}
        keys |= {name: keys[first] for name, first in same.items()}
        pickle = checkpoint({t.name: t for t in tensors} if tree is None else tree, keys)
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


def checkpoint(tree: Any, keys: Mapping[str, str]) -> bytes:
    """Return the pickle of a tree of tensors, protocol 2, as torch.load's weights-only reader knows it.

    Args:
      keys: the storage of each tensor by its name.
    """

    def leaf(node: Any) -> bytes | None:
        return _tensor(node, keys[node.name]) if isinstance(node, Tensor) else None

    return b"\x80\x02" + nested(tree, leaf) + b"."


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

"""Parse the `.metadata` of a torch distributed checkpoint: which part of which tensor lies where.

It is a pickle, which is interpreted and never run.
Source: torch/distributed/checkpoint/metadata.py.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from convert.files.base import MAX_DEPTH, File, Tensor, shown
from convert.files.pickled.interpreter import Unpickler
from convert.files.pickled.numpy_values import checked_shape
from convert.files.pickled.sources import Cursor, Refused
from convert.files.pickled.torch_values import DTYPES
from convert.files.pickled.torch_values import HANDLERS as TORCH
from convert.files.pickled.tree import joined, spelt
from convert.files.pickled.values import HARMLESS, Handlers, Pairs, Symbol, ignored
from convert.files.skipped import Skipped

MAX_CHUNKS = 200_000  # of all tensors together, a second; each takes 20 opcodes or more
MAX_FIELDS = 64  # of one of torch's records, which have up to 4
GROUPS = "param_groups."  # before the names of parameters in a flattened state of an optimizer
MALFORMED = "copy it again, or save it again with torch"


class Pickled(Pairs):
    """An inert object of one of torch's metadata classes: its attributes as pairs, or its state if a tuple."""

    __slots__ = ("kind", "state")

    def __init__(self, kind: str):
        super().__init__()
        self.kind, self.state = kind, ()

    def build(self, state: Any) -> None:
        if isinstance(state, Pairs):
            self.extend(state)
            if len(self) > MAX_FIELDS:
                raise Refused(f"describes one thing by over {MAX_FIELDS} attributes", MALFORMED)
        elif isinstance(state, tuple):
            self.state = state
        else:
            raise Refused("describes its tensors in an unknown way", MALFORMED)

    def get(self, name: str) -> Any:
        return next((value for key, value in self if key == name), None)


def _maker(kind: str) -> Callable[[tuple[Any, ...]], Pickled]:
    return lambda args: Pickled(kind)


_MODULE = "torch.distributed.checkpoint.metadata."
RECORDS = {
    **{
        _MODULE + kind: _maker(kind)
        for kind in ("Metadata", "TensorStorageMetadata", "TensorProperties", "ChunkStorageMetadata",
                     "BytesStorageMetadata", "MetadataIndex", "StorageMeta")
    },
    "torch.distributed.checkpoint.filesystem._StorageInfo": _maker("StorageInfo"),
}  # fmt: skip

HANDLERS: Handlers = {
    **HARMLESS,
    **RECORDS,
    **{name: handler for name, handler in TORCH.items() if name in DTYPES or name in ("torch.Size", "torch.device")},
    f"{_MODULE}_MEM_FORMAT_ENCODING": ignored("a memory format"),
    "torch.serialization._get_layout": ignored("a memory layout"),
    "pathlib._local.PosixPath": ignored("a path"),
}


@dataclass(frozen=True, slots=True, eq=False)
class Chunk:
    """A box of a tensor: `shape` elements from `offsets` on, in [offset, offset + length) of a file in the folder."""

    offsets: tuple[int, ...]
    shape: tuple[int, ...]
    file: str
    offset: int
    length: int

    @property
    def elements(self) -> int:
        return math.prod(self.shape)


def parse(
    file: File, skipped: Skipped, files: set[str], plain: dict[str, Chunk]
) -> Iterator[tuple[Tensor, list[Chunk]]]:
    """Yield every tensor and its chunks, in the order of the file.

    Args:
      file: the metadata.
      skipped: records the entries that are no tensors.
      files: is given the name of each file that anything lies in.
      plain: is given where each pickled value lies, by its name.
    Raises: Refused, FormatError.
    """
    root = Unpickler(Cursor(file, 0, file.size), HANDLERS).load()
    if not isinstance(root, Pickled) or root.kind != "Metadata":
        raise Refused("is no metadata of a torch distributed checkpoint", "is it the right folder?")
    stored = dict(map(_stored, _pairs(root.get("storage_data"))))
    files.update(name for name, *_ in stored.values())
    listed = set[str]()
    paths = _nested({key: p for key, p in _pairs(root.get("planner_data") or Pairs()) if isinstance(key, str)})
    left = MAX_CHUNKS
    for key, entry in _pairs(root.get("state_dict_metadata")):
        if not isinstance(key, str) or not isinstance(entry, Pickled):
            raise Refused("lists its tensors in an unknown way", MALFORMED)
        listed.add(key)
        if entry.kind == "TensorStorageMetadata":
            chunks = entry.get("chunks")
            left -= len(chunks) if isinstance(chunks, list) else 0
            if left < 0:
                raise Refused(f"lists over {MAX_CHUNKS:,} parts of tensors", MALFORMED)
            yield _tensor(key, entry, paths.get(key)), list(_chunks(key, chunks, stored))
        elif entry.kind == "BytesStorageMetadata":
            name = spelt(_path(key, paths.get(key)))
            skipped.add(name, "a pickled value that is no tensor")
            if (where := stored.get((key, None))) is not None:
                plain[name] = Chunk((), (), *where)
        else:
            raise Refused(f"describes {shown(key)} as {entry.kind}, which is no tensor", MALFORMED)
    for key, _ in stored:
        if key not in listed:
            skipped.add(key, "stored data that belongs to no tensor")


def _path(key: str, path: Any) -> tuple[Any, ...]:
    """Return the levels of an entry's name: those that the planner states, or its key."""
    return path if isinstance(path, tuple) and 0 < len(path) <= MAX_DEPTH else (key,)


def _nested(paths: dict[str, Any]) -> dict[str, Any]:
    """Undo torch's flatten_optimizer_state_dict: (..., "state.fc.weight.exp_avg") is (..., "state", "fc.weight", ...).

    Only beside keys "param_groups.fc.weight.lr", which show it.
    """
    ends = {key: path for key, path in paths.items() if isinstance(path, tuple) and path and isinstance(path[-1], str)}
    flat = {path[:-1] for path in ends.values() if path[-1].startswith(GROUPS)}
    inner = {key: path for key, path in ends.items() if path[:-1] in flat and path[-1].startswith((GROUPS, "state."))}
    cut = {}
    for key, path in inner.items():
        head, _, rest = path[-1].partition(".")
        cut[key] = (*path[:-1], head, *filter(None, rest.rpartition(".")[::2]))
    return {**paths, **cut}


def _pairs(value: Any) -> Pairs:
    if not isinstance(value, Pairs) or len(value) > MAX_CHUNKS:
        raise Refused("is incomplete, or lists too much", MALFORMED)
    return value


Where = tuple[str, tuple[int, ...] | None]  # a tensor's key and the offsets of one of its chunks


def _stored(pair: tuple[Any, Any]) -> tuple[Where, tuple[str, int, int]]:
    """Return (which chunk, where it lies)."""
    index, info = pair
    if not isinstance(index, Pickled) or not isinstance(info, Pickled):
        raise Refused("says in an unknown way where its tensors are", MALFORMED)
    key, offsets = index.get("fqn"), index.get("offset")
    name, offset, length = (info.get(field) for field in ("relative_path", "offset", "length"))
    if info.get("transform_descriptors"):
        raise Refused("was written through an extension (compressed or encrypted)", "save it again without")
    sound = isinstance(name, str) and type(offset) is int and type(length) is int and offset >= 0 and length >= 0
    if not isinstance(key, str) or not sound:
        raise Refused("says in an unknown way where its tensors are", MALFORMED)
    return (key, None if offsets is None else checked_shape(offsets)), (name, offset, length)


def _tensor(key: str, entry: Pickled, path: Any) -> Tensor:
    properties = entry.get("properties")
    dtype = properties.state[0] if isinstance(properties, Pickled) and properties.state else None
    if not isinstance(dtype, Symbol) or dtype.name not in DTYPES:
        raise Refused(f"gives {shown(key)} a dtype that cannot be converted", "save it as another dtype")
    tensor = Tensor(joined(_path(key, path)), checked_shape(entry.get("size")), DTYPES[dtype.name])
    if not tensor.addressable:
        raise Refused(f"gives {shown(key)} the shape {list(tensor.shape)}, over 2^63 bytes", MALFORMED)
    return tensor


def _chunks(key: str, chunks: Any, stored: dict[Where, tuple[str, int, int]]) -> Iterator[Chunk]:
    for chunk in chunks if isinstance(chunks, list) else ():
        if not isinstance(chunk, Pickled):
            raise Refused(f"describes the parts of {shown(key)} in an unknown way", MALFORMED)
        offsets, sizes = checked_shape(chunk.get("offsets")), checked_shape(chunk.get("sizes"))
        if 0 in sizes:
            continue  # a rank that got nothing
        where = stored.get((key, offsets)) or (stored.get((key, None)) if not any(offsets) else None)
        if where is None:
            raise Refused(f"does not say where a part of {shown(key)} is", MALFORMED)
        yield Chunk(offsets, sizes, *where)


def bands(tensor: Tensor, chunks: list[Chunk]) -> list[list[Chunk]]:
    """Group chunks by rows of the first axis, in order. They must be the cells of a grid, as those of any mesh are.

    Raises: Refused where they overlap or leave something out.
    """
    if not tensor.size:
        return []
    if not chunks or any(len(c.offsets) != len(tensor.shape) or len(c.shape) != len(tensor.shape) for c in chunks):
        raise Refused(f"has no parts of {shown(tensor.name)}, or some with other axes", MALFORMED)
    starts = [sorted({chunk.offsets[axis] for chunk in chunks}) for axis in range(len(tensor.shape))]
    sizes = [
        {start: stop - start for start, stop in zip(edges, [*edges[1:], length], strict=True)}
        for edges, length in zip(starts, tensor.shape, strict=True)
    ]
    whole = all(edges[:1] == [0] for edges in starts) and len({chunk.offsets for chunk in chunks}) == len(chunks)
    cells = all(c.shape == tuple(size[o] for size, o in zip(sizes, c.offsets, strict=True)) for c in chunks)
    if not whole or not cells or len(chunks) != math.prod(map(len, starts)):
        raise Refused(f"has parts of {shown(tensor.name)} that overlap or leave something out", MALFORMED)
    rows: dict[int, list[Chunk]] = {}
    for chunk in sorted(chunks, key=lambda chunk: chunk.offsets):
        rows.setdefault(chunk.offsets[0] if chunk.offsets else 0, []).append(chunk)
    return list(rows.values())

"""Read and write paddle checkpoints (.pdparams, .pdopt, .pd) without paddle: a pickle of nested dicts of numpy arrays.

Replaces paddle.load, which unpickles and so runs what the file contains, and needs paddle and all arrays in memory.
bfloat16 is stored as uint16 and nothing says so: it is reported, and written, as uint16.
Source: paddle/framework/io.py (`_pickle_save`, `_legacy_save`), io_utils.py (`_unpack_saved_dict`).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import IO, Any

from convert.errors import ConvertError, option
from convert.files.base import ITEMSIZE, Tensor, Writer, shown, write_all
from convert.files.skipped import Skipped

from .emit import call, integer, integers, nested, symbol, text
from .interpreter import Unpickler
from .numpy_values import DTYPES, NUMPY, Array, checked_shape
from .sources import Cursor, Joined, Refused
from .torch import MAGIC_BYTES
from .tree import PickleReader, Place, c_strides, leaves, numbers, place_of
from .values import HARMLESS, Handlers, Pairs, looks_like_pickle, unexpected

NAME_TABLE = "StructuredToParameterName@@"  # paddle's own names for parameters: texts, so no tensors
SPLIT_TABLE = "UnpackBigParamInfor@@"  # protocols 2 and 3: arrays of over 2^30 bytes, cut into flat slices
TABLES = (NAME_TABLE, SPLIT_TABLE)


def sniff(head: bytes, path: str) -> bool:
    """Tell whether a file that begins with `head` is a pickle other than a legacy torch file."""
    return looks_like_pickle(head) and MAGIC_BYTES not in head[:64]


def _evaluate(args: tuple[Any, ...]) -> Array:
    """Match eval("data", {"data": array}), as paddle writes a static graph's tensor, and nothing else."""
    match args:
        case ("data", [("data", Array() as array)]):
            return array
    raise unexpected("eval")


HANDLERS: Handlers = {**HARMLESS, **NUMPY, "builtins.eval": _evaluate}
UNSUPPORTED = {
    "torch.storage._load_from_bytes": (
        "tensors of torch in a plain pickle",
        "if you trust its author: torch.save(pickle.load(open(FILE, 'rb')), 'x.pt')",
    )
}


class PdparamsReader(PickleReader):
    """A paddle checkpoint, of pickle protocols 2 to 5; also plain pickles of numpy arrays.

    Raises: FormatError for damage and for anything that is not data.
    """

    format = "pdparams"

    def _parse(self) -> Iterator[tuple[str, Place]]:
        cursor = Cursor(self.file, 0, self.file.size)
        if not looks_like_pickle(self.file.read(min(512, self.file.size), 0)):
            raise Refused("is no pickle, so no paddle checkpoint", "is it the right file?")
        root = Unpickler(cursor, HANDLERS, UNSUPPORTED, objects=True).load()
        if cursor.position != cursor.end:
            raise Refused(
                f"has {cursor.end - cursor.position:,} bytes after the end of its pickle", "copy or save it again"
            )
        return self._places_of(root)

    def _places_of(self, root: Any) -> Iterator[tuple[str, Place]]:
        slices: set[str] = set()
        if isinstance(root, Pairs):
            tables = {key: value for key, value in root if key in TABLES}
            if _is_name_table(NAME_TABLE, tables.get(NAME_TABLE)):
                self.parameter_names.update(tables[NAME_TABLE])
            root = Pairs(pair for pair in root if pair[0] != SPLIT_TABLE and not _is_name_table(*pair))
            if split := tables.get(SPLIT_TABLE):
                whole, slices = _join(split, {n: array for n, (_, array) in leaves(root, _leaf, Skipped())})
                yield from whole.items()
        arrays: Iterator[tuple[str, tuple[str, Array]]] = leaves(root, _leaf, self.skipped)
        for name, (own, array) in arrays:
            if own:
                self.parameter_names[name] = own
            if name not in slices:
                try:
                    yield name, place_of(array)
                except Refused as refused:
                    raise refused.of(name) from None


def _join(split: Any, arrays: dict[str, Array]) -> tuple[dict[str, Place], set[str]]:
    """Return the arrays that the split table puts together again, and the names of their slices. Raises: Refused."""
    whole, used = {}, set[str]()
    for name, entry in split if isinstance(split, Pairs) else [(None, None)]:
        fields = {key: value for key, value in entry if isinstance(key, str)} if isinstance(entry, Pairs) else {}
        match name, fields.get("OriginShape"), fields.get("slices"):
            case str(), tuple() as shape, list() as parts:
                names = [str(part) for part in parts]
                whole[name] = _joined(name, shape, {part: arrays.get(part) for part in names})
                used.update(names)
            case _:
                raise Refused(f"has a damaged table of split arrays ({SPLIT_TABLE})", "save it again with protocol 4")
    return whole, used


def _joined(name: str, shape: tuple[Any, ...], parts: Mapping[str, Array | None]) -> Place:
    """Return an array that is put together of flat slices. Raises: Refused, as where one of them is missing."""
    shape = checked_shape(shape)
    if missing := [part for part, array in parts.items() if array is None]:
        problem = f"lacks {shown(missing[0])}, a slice of it ({SPLIT_TABLE})"
        raise Refused(problem, "copy or save it again").of(name)
    for part, array in parts.items():
        if array is not None and array.refused:
            raise array.refused.of(part)
    arrays = [array for array in parts.values() if array is not None and len(array.shape) == 1]
    dtypes = {array.dtype for array in arrays}
    elements = sum(math.prod(array.shape) for array in arrays)
    if math.prod(shape) != elements or len(arrays) != len(parts) or len(dtypes) != 1:
        raise Refused(f"has slices that do not make it up ({SPLIT_TABLE})", "copy or save it again").of(name)
    return Place(Joined([array.source for array in arrays]), 0, shape, c_strides(shape), dtypes.pop())


def _is_name_table(key: Any, value: Any) -> bool:
    """Tell whether an entry is paddle's table of its own names of the parameters: texts, and nothing of the model."""
    return key == NAME_TABLE and isinstance(value, Pairs) and all(isinstance(name, str) for _, name in value)


def _leaf(value: Any) -> tuple[str, Array] | None:
    """Return paddle's (its own name, array), or an array, whose name is ""."""
    match value:
        case tuple() if len(value) == 2 and isinstance(value[0], str) and numbers(value[1]):
            return value
    return ("", value) if numbers(value) else None


class PdparamsWriter(Writer):
    """A dict of numpy arrays, protocol 4, streamed; paddle.load reads uint16 as bfloat16, which is written so.

    A tree of several dicts is written in its order; paddle.load takes an array in it as (its own name, array).
    Raises: ConvertError for what paddle.load cannot read: float8, uint32, uint64, and uint16, which it takes for
    bfloat16; for the names of its own tables.
    """

    nests = True

    def __init__(self, file: IO[bytes], tensors: Sequence[Tensor], metadata: dict[str, str], tree: Any = None):
        super().__init__(file, tensors, metadata, tree)
        unknown = [t for t in self.tensors if t.dtype not in CODES]
        problems = [f"{shown(t.name)} is {t.dtype}" for t in unknown]
        problems += [
            f"{name} is a name paddle keeps for itself" for name in TABLES if name in {t.name for t in tensors}
        ]
        if problems:
            casts = unknown and all(t.dtype.startswith("float8") for t in unknown)
            remedy = f"give {option('dtype', 'float32')}, or write" if casts else "save them otherwise, or write"
            raise ConvertError(f".pdparams cannot hold these: {remedy} .safetensors", problems)
        for tensor in self.tensors:
            text(tensor.name)  # a name that cannot be written is an error now, not halfway
        self._texts = _around(self.tensors, tree)
        write_all(file, b"\x80\x04")

    def write(self, tensor: Tensor, chunks: Iterable[bytes | bytearray | memoryview]) -> None:
        pieces = self.pieces(tensor, chunks)
        write_all(self.file, self._texts[self.written] + _before(tensor))
        for piece in pieces:
            write_all(self.file, piece)
        write_all(self.file, b"tb")

    def finish(self) -> None:
        self.complete()
        write_all(self.file, self._texts[-1] + b".")


def _around(tensors: Sequence[Tensor], tree: Any) -> list[bytes]:
    """Tell what stands before each array in the pickle of a tree, and after the last one."""
    if tree is None:
        first, *others = [*(text(tensor.name) for tensor in tensors), b"u"]
        return [b"}(" + first, *others]
    order: list[Tensor] = []

    def leaf(node: Any) -> bytes | None:
        if not isinstance(node, Tensor):
            return None
        order.append(node)
        return MARK

    parts = nested(tree, leaf).split(MARK)
    assert order == list(tensors), "the tensors of a tree are announced in its order"
    return parts


MARK = b"\xff<array>"  # no text has it: 0xff begins no character
# What paddle.load makes tensors of.
CODES = {dtype: code for code, dtype in DTYPES.items() if dtype not in ("uint16", "uint32", "uint64")}
CODES |= {"bfloat16": "u2"}


def _before(tensor: Tensor) -> bytes:
    """Return everything of a pickled array up to its bytes. numpy 1 and 2 both know numpy.core.multiarray."""
    empty = integers([0])
    array = call("numpy.core.multiarray", "_reconstruct", symbol("numpy", "ndarray"), empty, b"C\x01b")
    order = text("|" if ITEMSIZE[tensor.dtype] == 1 else "<")
    state = b"(K\x03" + order + b"NNN" + 2 * b"J\xff\xff\xff\xff" + b"K\x00tb"
    dtype = call("numpy", "dtype", text(CODES[tensor.dtype]), b"\x89", b"\x88") + state
    return (
        array + b"(" + integer(1) + integers(tensor.shape) + dtype + b"\x89\x8e" + tensor.nbytes.to_bytes(8, "little")
    )

"""Read torch checkpoints (.pt, .pth, .bin) without torch: the zip format of torch >= 1.6 and the two before it.

Replaces torch.load, which needs torch, and without weights_only=True runs what the file contains.
Zip: `X/data.pkl` describes tensors as views of storages, whose bytes are the members `X/data/<key>`.
Legacy: five pickles (magic number, version, system, the object, storage keys), then each storage as a count of elements
(int64) and its bytes. Source: torch/serialization.py, `_save` and `_legacy_save`.
"""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from convert.errors import FormatError
from convert.files.base import ITEMSIZE, MAX_TENSORS, File, shown
from convert.files.zips import STORED, ZipDirectory

from .interpreter import Unpickler
from .numpy_values import Array
from .sources import Checked, Cursor, Refused, Stored
from .torch_values import HANDLERS, UNSUPPORTED, Storage, View, storage_of
from .torch_writer import TorchWriter
from .tree import PickleReader, Place, leaves, numbers, place_of
from .values import Pairs, Symbol, Unreadable

__all__ = ["TorchReader", "TorchWriter", "sniff"]

MAGIC = 0x1950A86A20F9469CFC6C
MAGIC_BYTES = MAGIC.to_bytes(10, "little")
LEGACY_PROTOCOL = 1001
SUFFIXES = (".pt", ".pth", ".ckpt", ".bin", ".tar")
MEMBERS = ("data.pkl", "version", "byteorder", ".format_version", ".storage_alignment", ".data/serialization_id")
ALLOWED = re.compile(  # what torch.load takes by weights_only=True, its default; torch/_weights_only_unpickler.py
    r"torch\.(\w+|(_utils|_tensor|storage|nn\.parameter)\.\w+|serialization\._get_layout)"
    r"|collections\.(OrderedDict|Counter)|_codecs\.encode|builtins\.(set|bytearray|complex)"
)
SAVE_AGAIN = "save it again with torch.save"


def sniff(head: bytes, path: str) -> bool:
    """Tell whether `path`, which begins with `head` (512 bytes or more), is a torch checkpoint of any age."""
    if head.startswith(b"PK\3\4"):
        return _is_torch_zip(path)
    return MAGIC_BYTES in head[:64]


def _is_torch_zip(path: str) -> bool:
    file = File(path)
    try:
        return any(name.rpartition(b"/")[2] == b"data.pkl" for name in ZipDirectory(file).names)
    except FormatError:  # damaged: the reader its suffix promises explains it best
        return path.lower().endswith(SUFFIXES)
    finally:
        file.close()


class TorchReader(PickleReader):
    """A torch checkpoint: nested dicts of tensors (and numpy arrays) of any layout, views of shared storages.

    Raises: FormatError for damage, for anything that is not data, and for tensors that no other format can hold.
    """

    format = "torch"

    def _parse(self) -> Iterator[tuple[str, Place]]:
        head = self.file.read(min(512, self.file.size), 0)
        if head.startswith(b"PK"):
            return self._parse_zip()
        if MAGIC_BYTES in head[:64]:
            return self._parse_legacy()
        raise Refused("is neither a torch zip nor a legacy torch file", "is it the right file?")

    def _parse_zip(self) -> Iterator[tuple[str, Place]]:
        directory = ZipDirectory(self.file)
        prefix = _prefix(directory)
        self._check_byte_order(directory, f"{prefix}byteorder")
        pickle = self._stored(directory, f"{prefix}data.pkl")
        pickle.verify(self.file)
        cursor = Cursor(self.file, pickle.offset, pickle.offset + pickle.size)
        root = self._unpickled(cursor, storage_of)
        if cursor.position != cursor.end:
            raise Refused("has bytes after the pickle in data.pkl", SAVE_AGAIN)
        payloads: dict[str, Stored] = {}
        for name, leaf in self._tensors(root):
            if isinstance(leaf, View) and leaf.storage.key not in payloads:
                payloads[leaf.storage.key] = self._stored(directory, f"{prefix}data/{leaf.storage.key}")
            yield name, self._placed(name, leaf, payloads)
        for member in directory.members:
            inner = member.removeprefix(prefix)
            if inner.removeprefix("data/") not in payloads and inner not in MEMBERS and member[-1:] != "/":
                self.skipped.add(inner, "a member of the zip that no tensor uses")

    def _unpickled(self, cursor: Cursor, persistent: Callable[[Any], Any]) -> Any:
        """Return the pickled value, and record the classes that torch.load refuses by its default."""
        unpickler = Unpickler(cursor, HANDLERS, UNSUPPORTED, persistent, objects=True)
        root = unpickler.load()
        self.skipped.classes |= {name for name in unpickler.symbols if not ALLOWED.fullmatch(name)}
        return root

    def _tensors(self, root: Any) -> list[tuple[str, Leaf]]:
        """Return the tensors of a pickle with their names. Raises: Refused where one cannot be read."""
        entries: Iterator[tuple[str, Leaf | Unreadable]] = leaves(root, _leaf, self.skipped, self.modules)
        tensors: list[tuple[str, Leaf]] = []
        for name, leaf in itertools.islice(entries, MAX_TENSORS + 1):
            if isinstance(leaf, Unreadable):
                raise leaf.refused.of(name)
            tensors.append((name, leaf))
        return tensors

    def _placed(self, name: str, leaf: Leaf, payloads: Mapping[str, Stored]) -> Place:
        if isinstance(leaf, View) and leaf.attributes:
            self.skipped.add(name, "attributes of a tensor object")
        try:
            return _place(leaf, payloads)
        except Refused as refused:
            raise refused.of(name) from None

    def _check_byte_order(self, directory: ZipDirectory, name: str) -> None:
        if name in directory.members:
            member = self._stored(directory, name)
            if member.read(self.file, 0, min(member.size, 16)) != b"little":
                raise Refused("holds numbers in big-endian order", f"load it with torch and {SAVE_AGAIN}")

    def _stored(self, directory: ZipDirectory, name: str) -> Checked:
        """Return where a member's bytes lie. Raises: Refused where it is missing or compressed."""
        member = directory.members.get(name)
        if member is None:
            raise Refused(f"lacks its member {shown(name)}", "it is incomplete: copy or save it again")
        if member.method != STORED or member.size != member.compressed:
            raise Refused(f"has a compressed member {shown(name)}; torch stores them as they are", SAVE_AGAIN)
        return Checked(directory.local(member, 0)[0], member.size, member.crc)

    def _parse_legacy(self) -> Iterator[tuple[str, Place]]:
        cursor = Cursor(self.file, 0, self.file.size)
        magic, protocol, system = (Unpickler(cursor, {}).load() for _ in range(3))
        if magic != MAGIC or protocol != LEGACY_PROTOCOL or not isinstance(system, Pairs):
            raise Refused("is a legacy torch file of an unknown version", SAVE_AGAIN)
        if ("little_endian", True) not in system:
            raise Refused("holds numbers in big-endian order", f"load it with torch and {SAVE_AGAIN}")
        itemsizes: dict[str, int] = {}

        def persistent(identity: Any) -> Storage | Symbol:
            match identity:
                case ("module", Symbol() as kind, *_):  # the class of a module that was pickled whole, with its source
                    return kind
            storage = storage_of(identity)
            itemsizes.setdefault(storage.key, ITEMSIZE[storage.dtype])
            return storage

        root = self._unpickled(cursor, persistent)
        tensors = self._tensors(root)
        payloads = _legacy_payloads(cursor, itemsizes)
        unused = set(payloads)
        for name, leaf in tensors:
            if isinstance(leaf, View) and leaf.storage.key not in payloads:
                raise Refused(f"lacks the data of tensor {shown(name)}", "it is incomplete: copy or save it again")
            if isinstance(leaf, View):
                unused.discard(leaf.storage.key)
            yield name, self._placed(name, leaf, payloads)
        for key in sorted(unused):
            self.skipped.add(key, "a storage that no tensor uses")


def _prefix(directory: ZipDirectory) -> str:
    """Return the folder all members lie in, with its slash. Raises: Refused where this is no checkpoint."""
    prefixes = [name[: -len("data.pkl")] for name in directory.members if name.rpartition("/")[2] == "data.pkl"]
    if len(prefixes) != 1:
        raise Refused("is a zip without exactly one data.pkl: not a torch checkpoint", "is it an .npz?")
    if f"{prefixes[0]}constants.pkl" in directory.members:
        raise Refused("is a TorchScript program", "save torch.jit.load(file).state_dict() with torch.save")
    return prefixes[0]


def _legacy_payloads(cursor: Cursor, itemsizes: dict[str, int]) -> dict[str, Stored]:
    """Return the storages at the end of a legacy file, up to its last byte. Raises: Refused."""
    keys = Unpickler(cursor, {}).load()
    if not isinstance(keys, list) or not all(isinstance(key, str) and key in itemsizes for key in keys):
        raise Refused("has a damaged list of storages", "copy or save it again")
    payloads = {}
    for key in keys:
        nbytes = int.from_bytes(cursor.take(8), "little") * itemsizes[key]
        payloads[key] = Stored(cursor.skip(nbytes), nbytes)
    if cursor.position != cursor.end:
        raise Refused(f"has {cursor.end - cursor.position:,} bytes after its last storage", "copy or save it again")
    return payloads


Leaf = View | Array


def _leaf(value: Any) -> Leaf | Unreadable | None:
    return value if isinstance(value, (View, Unreadable)) else numbers(value)


def _place(leaf: Leaf, payloads: Mapping[str, Stored]) -> Place:
    """Return where a leaf's elements are. Raises: Refused where the storage has not the size it should have."""
    if isinstance(leaf, Array):
        return place_of(leaf)
    storage, payload = leaf.storage, payloads[leaf.storage.key]
    whole = storage.whole * ITEMSIZE[storage.dtype]
    if payload.size != whole:
        raise Refused(f"has a storage of {payload.size:,} bytes that should have {whole:,}", "copy or save it again")
    offset = storage.offset * ITEMSIZE[storage.dtype] + leaf.offset * ITEMSIZE[leaf.dtype]
    if isinstance(payload, Checked) and math.prod(leaf.shape) * ITEMSIZE[leaf.dtype] != payload.size:
        payload.in_order = False
    return Place(payload, offset, leaf.shape, leaf.strides, leaf.dtype)

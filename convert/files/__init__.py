"""Open checkpoint files. The format is recognised by the first bytes, never by the name.

    with open_checkpoint("model.npz") as reader:
        reader.tensors["head/kernel"]       # Tensor(name, shape, dtype)
        reader.read("head/kernel", 0, 64)   # the first 64 bytes of its payload

Adding a format is a module with `sniff`, a Reader and a Writer, and a row of FORMATS. Only the module that a
file needs is imported. base defines what all formats offer; folders/ has Orbax and torch DCP, pickled/ torch's and
paddle's formats.

    formats             safetensors, sharded, msgpack (msgpack_scan reads it within limits), npz, npy_series; foreign
                        refuses all others
    which file is meant inside, by entry_names and pointers; parts of a model
    payloads            strided, background, hashing (of records and `verify`), checksum (of zips); memory (of a model
                        in memory)
    beside arrays       skipped, modules (of torch)
    untrusted text      bounded_json, bounded_yaml; zips
    writing             atomic, atomic_folder, zip_writer
"""

import contextlib
import fnmatch
import gc
import os
import re
from collections.abc import Iterator
from importlib import import_module
from typing import NamedTuple

from convert.errors import FormatError, UsageError

from . import foreign, parts
from .base import INCOMPLETE, PDOPT, URL, File, Reader, State, Writer


class Format(NamedTuple):
    """A file format: the module defines `sniff(head, path)`, and classes of the names in `reader` and `writer`."""

    name: str
    suffixes: tuple[str, ...]
    module: str
    reader: str
    writer: str | None  # None: it is written elsewhere
    head: bytes  # pattern of what its files can begin with; `sniff` decides
    markers: tuple[str, ...] = ()  # of a folder: files inside, any of which says that it has this format
    parts: tuple[str, ...] = ()  # of a folder: files inside that no other has, and that are unreadable without a marker

    def load(self, attribute: str) -> type:
        """Import the module, and return the class of this name."""
        loaded = getattr(import_module(f"{__name__}.{self.module}"), attribute)
        assert isinstance(loaded, type)
        return loaded


def _format(name: str, suffixes: str, module: str, head: bytes) -> Format:
    stem = name.capitalize()
    return Format(name, tuple(suffixes.split()), module, f"{stem}Reader", f"{stem}Writer", head)


_PICKLE = rb"\x80[\x01-\x05]"
_MSGPACK = rb"[\x81-\x9f\xc7-\xc9\xd4-\xd8\xdc-\xdf]"
_NEVER = rb"(?!)"
FORMATS = (
    _format("safetensors", ".safetensors", "safetensors", rb".{8}\{"),
    _format("msgpack", ".msgpack .flax", "msgpack", _MSGPACK),
    _format("npz", ".npz", "npz", rb"PK[\x03\x05][\x04\x06]"),
    _format("torch", ".pt .pth .ckpt .bin", "pickled.torch", rb"PK\x03\x04|\x80[\x02-\x05](\x95.{8})?\x8a\x0a"),
    _format("pdparams", f".pdparams .pd {PDOPT}", "pickled.paddle", _PICKLE),
    Format("sharded", (".index.json",), "sharded", "ShardedReader", None, rb"\s*\{"),  # written by convert.execute
)

FOLDERS = (  # each as a whole is one checkpoint; their writers are FolderWriters
    Format(
        "orbax",
        (".orbax",),
        "folders.orbax",
        "OrbaxReader",
        "OrbaxWriter",
        _NEVER,
        ("_METADATA", "default/_METADATA", "checkpoint", "default/checkpoint"),
        ("manifest.ocdbt", "_sharding"),
    ),
    Format("dcp", (".dcp",), "folders.dcp", "DcpReader", "DcpWriter", _NEVER, (".metadata",), ("__*.distcp",)),
)


INDEX = re.compile(r"\.index(\.[\w-]{1,32})?\.json$")  # of shards; with a variant: model.safetensors.index.fp16.json


def suffixes(table: tuple[Format, ...] = (*FORMATS, *FOLDERS)) -> tuple[str, ...]:
    """Return every suffix that names one of these formats."""
    return tuple(suffix for entry in table for suffix in entry.suffixes)


def written_suffixes() -> tuple[str, ...]:
    """Return the suffixes of formats that are written, not only read."""
    return suffixes(tuple(entry for entry in (*FORMATS, *FOLDERS) if entry.writer))


def is_named_as_checkpoint(name: str) -> bool:
    """Tell whether a file has the suffix of a checkpoint, whatever its case; .pth.tar is one of torch's."""
    return name.lower().removesuffix(".tar").endswith(suffixes(FORMATS)) or INDEX.search(name) is not None


@contextlib.contextmanager
def _uncollected() -> Iterator[None]:
    """Turn the garbage collector off while many values are created, none of them garbage."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


@_uncollected()
def open_checkpoint(path: str | os.PathLike[str], step: int | None = None) -> Reader:
    """Open a checkpoint of any format, a file or a folder, or an Orbax folder at a URL.

    In a folder of several checkpoints, open the one that `inside` selects; the reader's remarks name it.

    Args:
      step: of a training run, whose folder holds several; None takes the newest.
    Raises: FormatError, saying what the file is, where it is missing, no checkpoint, damaged or unsafe; UsageError
    where there is no such step.
    """
    name = os.fsdecode(path)
    if URL.match(name) and step is None:
        remote: Reader = FOLDERS[0].load(FOLDERS[0].reader)(name)
        return remote
    if not _needs_search(name, step):
        return _whole(name)
    place = import_module(f"{__name__}.inside").look(name, step)
    if place.path == name and os.path.isdir(name) and not lacking(name):
        foreign.check_folder(name)
        problem = f"is a folder that holds no checkpoint ({' '.join(suffixes(FORMATS))})"
        raise FormatError(name, problem)
    reader = _whole(place.path)
    reader.remarks = (*place.notes, *reader.remarks)
    return reader


def _whole(name: str) -> Reader:
    """Open a checkpoint that is no part of a model; a warning is on its remarks where it may be one."""
    warnings, before = parts.check(name), State()
    with contextlib.suppress(OSError, ValueError, FormatError):  # which opening it reports
        before = state(name)
    reader = _open(name)
    reader.opened = {name: before}
    reader.remarks = (*reader.remarks, *warnings)
    return reader


def _needs_search(name: str, step: int | None) -> bool:
    """Tell whether a path may stand for another: a step's, one in a folder of several, or what a pattern matches."""
    return step is not None or not os.path.lexists(name) or (os.path.isdir(name) and not folder_format(name))


def _open(name: str) -> Reader:
    if folder := folder_format(name):
        whole: Reader = folder.load(folder.reader)(name)
        return whole
    if what := lacking(name):
        raise FormatError(name, what, INCOMPLETE)
    _check_whole(name)
    foreign.check_name(name)
    head = _head(name)
    if not head.startswith(b"PK") and not _has_header(name, head):  # either may go on with the bytes of any mark
        foreign.check(name, head)
    if re.match(rb"(\{[^\n]*\n)?\x93NUMPY", head):  # equinox's users write a line of JSON first
        from .npy_series import refusal

        raise refusal(name)
    if head == b"\x80":  # msgpack for {}, and the first byte of a pickle
        raise FormatError(name, "has one byte only", "it is cut short, or was written of a model without arrays")
    for entry in FORMATS:
        if re.match(entry.head, head, re.DOTALL) and import_module(f"{__name__}.{entry.module}").sniff(head, name):
            opened: Reader = entry.load(entry.reader)(name)
            return opened
    raise foreign.unknown(name, head, {entry.name: entry.suffixes for entry in FORMATS})


def _check_whole(name: str) -> None:
    """Check that a file is no part of a folder that as a whole is one checkpoint. Raises: FormatError."""
    folder, base = os.path.split(name)
    for entry in FOLDERS:
        is_named = base == entry.markers[0] or any(fnmatch.fnmatch(base, part) for part in entry.parts)
        if is_named and folder_format(folder or os.curdir) is entry:
            raise FormatError(
                name, f"is a part of the {entry.name} checkpoint {folder or os.curdir}", "give the folder"
            )


def folder_format(path: str | os.PathLike[str]) -> Format | None:
    """Return the format of a folder that as a whole is one checkpoint; None for other folders and for files."""
    for entry in FOLDERS:
        if any(_is_marker(os.path.join(path, marker)) for marker in entry.markers):
            return entry
    return None


def lacking(path: str | os.PathLike[str]) -> str:
    """Say what a folder lacks that holds parts of a checkpoint and is none; "" for other folders and for files."""
    if not os.path.isdir(path):
        return ""
    try:
        names = os.listdir(path)
    except OSError:  # which reading it will report
        return ""
    for entry in FOLDERS:
        if parts := sorted(name for part in entry.parts for name in fnmatch.filter(names, part)):
            return f"holds {parts[0]}, a part of {entry.name} checkpoints, and lacks {entry.markers[0]}"
    return ""


def is_msgpack(path: str) -> bool:
    """Tell whether a file begins as flax msgpack does."""
    try:
        return re.match(_MSGPACK, _head(path)) is not None
    except FormatError:
        return False


def _is_marker(path: str) -> bool:
    """Tell whether a file says what its folder is. TensorFlow's file `checkpoint` is a text, Orbax's is msgpack."""
    if not os.path.isfile(path):
        return False
    return os.path.basename(path) != "checkpoint" or is_msgpack(path)


def files_of(path: str) -> list[str]:
    """List every file of a checkpoint: all in a folder, an index and its shards, or the file. Raises: FormatError."""
    if os.path.isdir(path):
        return list(import_module(f"{__name__}.folders.base").files(path))
    if INDEX.search(path) and (sharded := import_module(f"{__name__}.sharded")).sniff(_head(path), path):
        return [path, *sharded.Index(path).shards.values()]
    return [path]


def state(path: str) -> State:
    """Return size and time of change of every file of a checkpoint. Raises: OSError, FormatError."""
    return [(found.st_size, found.st_mtime_ns) for found in map(os.stat, files_of(path))]


def _suffix(path: str | os.PathLike[str]) -> str:
    return os.path.splitext(os.fspath(path).rstrip(os.sep))[1].lower()


def _written(path: str | os.PathLike[str]) -> Format | None:
    """Return the format that the suffix of a target names; None where there is none."""
    suffix = _suffix(path)
    return next((entry for entry in (*FORMATS, *FOLDERS) if entry.writer and suffix in entry.suffixes), None)


def format_of(path: str | os.PathLike[str]) -> str:
    """Return the name of the format in which a target of this name is written: "torch" of x.bin."""
    entry = _written(path)
    return format_called(entry.name, path) if entry else "sharded"


def format_called(name: str, path: str | os.PathLike[str]) -> str:
    """Return what people call the format of a file: that of an optimizer's state in paddle is called after its suffix.

    Args:
      name: of the format.
    """
    return PDOPT.removeprefix(".") if name == "pdparams" and is_pdopt(path) else name


def is_pdopt(path: str | os.PathLike[str]) -> bool:
    """Tell whether a file contains the state of an optimizer of paddle alone, by its suffix."""
    return _suffix(path) == PDOPT


def writer_for(path: str | os.PathLike[str]) -> type[Writer]:
    """Return the writer of the format that the suffix names. Raises: UsageError where there is none."""
    if (entry := _written(path)) is not None and entry.writer:
        return entry.load(entry.writer)
    suffix = _suffix(path)
    written = " ".join(written_suffixes())
    raise UsageError(f"{os.fspath(path)}: no format has the suffix {suffix!a}: use one of {written}")


def _head(path: str) -> bytes:
    file = File(path)
    try:
        if not file.size:
            raise FormatError(path, "is empty", "download or save it again")
        return file.read(min(foreign.HEAD, file.size), 0)
    finally:
        file.close()


def _has_header(path: str, head: bytes) -> bool:
    """Tell whether it begins as safetensors does, with the length of a header: that may have the bytes of any mark."""
    length = int.from_bytes(head[:8], "little")
    return re.match(FORMATS[0].head, head, re.DOTALL) is not None and length <= os.path.getsize(path) - 8

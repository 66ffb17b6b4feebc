"""Refuse files that are no checkpoints, or of formats that are not read: say what each is, and what to do."""

import os
import re
from collections.abc import Mapping, Sequence

from convert.errors import FormatError, saved

from .base import File

HEAD = 512  # bytes looked at: a tar archive says what it is at byte 257

_TORCH_TAR = (b"sys_info", b"pickle", b"tensors", b"storages")  # members; the first names the archive
_EXPORTED = {
    "serialized_exported_program.json",
    "archive_format",
}  # members of torch.export
_OF_TORCH = "serialization_id"  # a member that torch writes also where it stops at a value that it cannot save
_COMPRESSED = "unpack it first, then convert what was inside"
FOREIGN: tuple[tuple[bytes, str, str], ...] = (  # what the file begins with, what that is, what to do
    (rb"version https://git-lfs", "is a git-LFS pointer, not the file it stands for", "run: git lfs pull"),
    (
        rb"\s*<(!doctype|!--|html|head|\?xml)",
        "is a web page, not a checkpoint",
        "download the file behind the page's link",
    ),
    (rb"\x1f\x8b|BZh\d|\xfd7zXZ|\x28\xb5\x2f\xfd|7z\xbc\xaf|Rar!", "is a compressed archive", _COMPRESSED),
    (  # a stream of tensors without names: version 0, no levels, version 0, then each one's type
        rb"\0{16}[\s\S]\0\0\0\x08",
        "is a stream of Paddle tensors without names, as of an inference program (.pdiparams) or of use_binary_format",
        f"only the model's code has the names: call {saved('paddle')} there; "
        "file-formats.md shows how a new model takes the parameters of a program",
    ),
    (rb"\x89HDF", "is an HDF5 file", "load it with its own framework and save it with np.savez"),
    (  # a header of version 1, or of 2 and 3, whose dtype is of objects
        rb"\x93NUMPY(\x01..|[\x02\x03].{4}.?.?)[^\n]{0,120}'descr': '\|O'",
        "is a .npy file of a pickled object, as np.save writes a dict",
        "if you trust its author: tree = np.load(FILE, allow_pickle=True).item(), then "
        "np.savez('x.npz', **flax.traverse_util.flatten_dict(tree, sep='/'))",
    ),
    (rb"GGUF|ggjt", "is a quantized GGML file", "convert the checkpoint it was made from"),
    (
        rb"\x89PNG|\xff\xd8\xff|GIF8|%PDF|\x7fELF",
        "is a picture, document or program",
        "give a checkpoint file",
    ),
)


def check(path: str, head: bytes) -> None:
    """Check that a file is of no format that is known and not read. Raises: FormatError with the remedy."""
    for pattern, problem, remedy in FOREIGN:
        if re.match(pattern, head, re.IGNORECASE):
            raise FormatError(path, problem, remedy)


def unknown(path: str, head: bytes, formats: Mapping[str, Sequence[str]]) -> FormatError:
    """Return why no format recognises this file.

    Args:
      formats: name -> suffixes.
    """
    if head.startswith(b"PK"):
        return _unknown_zip(path)
    if head[257:262] == b"ustar":
        if head[:100].rstrip(b"\0") in _TORCH_TAR:
            remedy = "if you trust it, open it once with torch.load(file, weights_only=False) and torch.save it again"
            return FormatError(path, "is a tar file of torch 0.1, which is not read here", remedy)
        return FormatError(path, "is a tar archive", _COMPRESSED)
    if _is_text(head):
        what = "JSON" if head.lstrip()[:1] in b"{[" else "text"
        return FormatError(path, f"is {what}, not a checkpoint", "give the file that holds the weights")
    suffix = os.path.splitext(path)[1].lower()
    claims = [name for name, suffixes in formats.items() if suffix in suffixes]
    problem = f"is no {claims[0]} file in spite of its name" if claims else "is of no known format"
    return FormatError(path, f"{problem}: it begins with {head[:8]!r}", f"known formats: {', '.join(formats)}")


def _unknown_zip(path: str) -> FormatError:
    from .zips import ZipDirectory

    file = File(path)
    try:
        members = ZipDirectory(file).members
    except FormatError as error:
        return error
    finally:
        file.close()
    if any(os.path.basename(name) in _EXPORTED for name in members):
        remedy = "save torch.export.load(file).state_dict with torch.save"
        return FormatError(path, "is a program of torch.export", remedy)
    if any(os.path.basename(name) == _OF_TORCH for name in members):
        return FormatError(
            path, "is a file that torch.save began and did not finish", "save it again, and see why it ends"
        )
    return FormatError(path, "is a zip that holds no tensors", _COMPRESSED)


def _is_text(head: bytes) -> bool:
    try:
        text = head.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        if error.start < len(head) - 3 or len(head) < HEAD:  # unless the cut went through a character
            return False
        text = head[: error.start].decode("utf-8-sig")
    return all(character.isprintable() or character in "\t\n\r\f" for character in text)

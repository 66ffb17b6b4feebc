"""Refuse files that are no checkpoints, or of formats that are not read: say what each is, and what to do."""

import glob
import os
import re
from collections.abc import Mapping, Sequence

from convert.errors import FormatError, saved

from .base import File

HEAD = 512  # bytes looked at: a tar archive says what it is at byte 257

_TORCH_TAR = (b"sys_info", b"pickle", b"tensors", b"storages")  # members; the first names the archive
_COMPRESSED = "unpack it first, then convert what was inside"
_EXPORTED = "is a program of torch.export", "save torch.export.load(file).state_dict with torch.save"
_MADE_FROM = "convert the checkpoint that it was made from"
_SAVED_MODEL = (
    "is a SavedModel of TensorFlow",
    "read its variables by tf.train.load_checkpoint(FOLDER + '/variables/variables'), and save them with np.savez",
)
_TENSORFLOW = r"\.(index|data-\d{5}-of-\d{5})$"  # after the prefix that names a checkpoint
_KERAS = "load it with keras.models.load_model, and save its weights by name with np.savez"
MEMBERS = {  # of a zip without tensors: what it is, what to do; torch writes the last also where it cannot save a value
    "serialized_exported_program.json": _EXPORTED,
    "archive_format": _EXPORTED,
    "model.weights.h5": ("is a .keras file", _KERAS),
    "serialization_id": ("is a file that torch.save began and did not finish", "save it again, and see why it ends"),
}
_SIZE = rb"[\x80-\xff]{0,4}[\0-\x7f]"  # how protobuf writes the size of a message
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
    (rb"\x89HDF", "is an HDF5 file, as Keras writes", f"with Keras, {_KERAS}"),
    (  # a header of version 1, or of 2 and 3, whose dtype is of objects
        rb"\x93NUMPY(\x01..|[\x02\x03].{4}.?.?)[^\n]{0,120}'descr': '\|O'",
        "is a .npy file of a pickled object, as np.save writes a dict",
        "if you trust its author: tree = np.load(FILE, allow_pickle=True).item(), then "
        "np.savez('x.npz', **flax.traverse_util.flatten_dict(tree, sep='/'))",
    ),
    (rb"GGUF|ggjt", "is a file of llama.cpp (GGUF, GGML), whose arrays are often quantized", _MADE_FROM),
    (rb"[\s\S]{4}TFL3", "is a program of TensorFlow Lite, which has no names of the model's own", _MADE_FROM),
    (rb"\x08\x01\x12" + _SIZE + rb"\n" + _SIZE + rb"[\x12\x1a\x22\x2a]", *_SAVED_MODEL),
    (
        rb"\n" + _SIZE + rb"\n[\0-\x7f][\w./-]+\x12[\0-\x7f](Const|Placeholder|VariableV2|VarHandleOp)",
        "is a graph of TensorFlow",
        "convert the checkpoint or SavedModel that it was frozen from",
    ),
    (
        rb"\x08[\x01-\x1f]\x12" + _SIZE + rb"\n" + _SIZE + rb"\n[\0-\x7f][\w./ -]+",
        "is a program of Core ML",
        _MADE_FROM,
    ),
    (  # the version of its form, then the name of what wrote it, its graph or its operators
        rb"\x08[\x01-\x1f]([\x12\x1a\x22\x32][\x01-\x7f][ -~]|[:B]" + _SIZE + rb"\n)",
        "is an ONNX program",
        f"{_MADE_FROM}, or save onnx.numpy_helper.to_array(t) of each t in onnx.load(file).graph.initializer by "
        "t.name with np.savez",
    ),
    (
        rb"\(*(\([dl]p\d+\n|[\]}]q\0|c[\w.]+\n[\w.]+\n(p\d+\n|q[\s\S]|\())",
        "is a pickle of protocol 0 or 1, which is not read here",
        "if you trust its author, load it with pickle.load, and write it again with pickle.dump(..., protocol=4)",
    ),
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


def check_folder(path: str) -> None:
    """Check that a folder is no SavedModel and holds no checkpoint of TensorFlow. Raises: FormatError."""
    if os.path.isfile(os.path.join(path, "saved_model.pb")):
        raise FormatError(path, *_SAVED_MODEL)
    for name in sorted(os.listdir(path)):
        if name.endswith(".index"):
            check_name(os.path.join(path, name))


def check_name(path: str) -> None:
    """Check that a path is no checkpoint of TensorFlow: a prefix, its .index or a part of its data.

    Raises: FormatError with the remedy.
    """
    prefix = re.sub(_TENSORFLOW, "", path)
    is_indexed = os.path.isfile(f"{prefix}.index") and not os.path.isfile(prefix)
    if is_indexed and glob.glob(f"{glob.escape(prefix)}.data-?????-of-?????"):
        remedy = (
            f"read it by reader = tf.train.load_checkpoint({prefix!r}), and save reader.get_tensor(name) of each "
            "name in reader.get_variable_to_shape_map() with np.savez"
        )
        raise FormatError(path, "is a checkpoint of TensorFlow", remedy)


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
    inside = set(map(os.path.basename, members))
    for member, (problem, remedy) in MEMBERS.items():
        if member in inside:
            return FormatError(path, problem, remedy)
    return FormatError(path, "is a zip that holds no tensors", _COMPRESSED)


def _is_text(head: bytes) -> bool:
    try:
        text = head.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        if error.start < len(head) - 3 or len(head) < HEAD:  # unless the cut went through a character
            return False
        text = head[: error.start].decode("utf-8-sig")
    return all(character.isprintable() or character in "\t\n\r\f" for character in text)

"""Say what a file of .npy arrays is: one array, or several behind each other, as equinox writes them."""

from __future__ import annotations

from convert.errors import FormatError

from .base import MAX_TENSORS, File
from .npz import MAX_HEADER, NpyError, header_length, parse_header

LEAF = "np.savez('x.npz', **{jax.tree_util.keystr(path, simple=True, separator='/'): leaf for path, leaf in leaves})"
REMEDY = (
    "they have no names: load them into the model (eqx.tree_deserialise_leaves), then leaves = "
    f"jax.tree_util.tree_leaves_with_path(eqx.filter(model, eqx.is_array)) and {LEAF}"
)


def refusal(path: str) -> FormatError:
    """Return why the file is no checkpoint: its arrays have no names."""
    if (count := arrays(path)) > 1:
        problem = f"is a series of {count:,} .npy arrays without names, as equinox's tree_serialise_leaves writes"
        return FormatError(path, problem, REMEDY)
    return FormatError(path, "is one .npy array without a name", "save it with np.savez(file, name=array)")


def arrays(path: str) -> int:
    """Count .npy arrays behind each other in a file, up to one of texts or one that cannot be read.

    A line of JSON may be first.
    """
    file, count = File(path), 0
    head = file.read(min(MAX_HEADER, file.size), 0)
    at = head.index(b"\n") + 1 if head.startswith(b"{") else 0
    try:
        while at < file.size and count < MAX_TENSORS:
            head = file.read(min(MAX_HEADER + 12, file.size - at), at)
            length = header_length(head)
            parsed, count = parse_header("", head[:length]), count + 1
            if parsed is None:
                break
            at += length + parsed[0].nbytes
    except NpyError:
        pass
    finally:
        file.close()
    return count

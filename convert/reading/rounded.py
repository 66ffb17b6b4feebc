"""Compare half-precision weights with the float32 masters of paddle, which is the only library that names them."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable

from convert.arrays.casting import Tally, cast
from convert.arrays.dtypes import FLOATS
from convert.errors import ConvertError
from convert.files import open_checkpoint
from convert.files.base import Reader, Tensor
from convert.folding import summarised
from convert.records.altered import WARNING

from .masters import HALF, PADDLE, inside, optimizer_file


def unlike(reader: Reader, weights: Iterable[Tensor]) -> list[str]:
    """Warn of half-precision weights that differ from paddle's float32 masters, rounded; reads the values of both."""
    own = reader.parameter_names
    halves = {own[tensor.name]: tensor for tensor in weights if tensor.dtype in HALF and tensor.name in own}
    with contextlib.ExitStack() as stack, contextlib.suppress(ConvertError):  # a damaged file is no fault of theirs
        holder = reader
        if halves and not inside(reader) and (path := optimizer_file(reader)):
            holder = stack.enter_context(open_checkpoint(path))
        names = {name.rpartition("/")[2]: name for name in holder.tensors if f"/{PADDLE}/" in f"/{name}"}
        compared = [(halves[key], holder.tensors[name]) for key, name in names.items() if key in halves]
        odd = [half.name for half, master in compared if not _is_rounded(reader, half, holder, master)]
        if odd:
            which = f"{len(odd):,} of {len(compared):,} half-precision weights differ from their float32 masters"
            cause = "these are of another step or run, or the weights are an average: do not save them as the weights"
            return [f"{WARNING}{which} of {holder.path}, as {summarised(odd)}: {cause}"]
    return []


def _is_rounded(reader: Reader, half: Tensor, holder: Reader, master: Tensor) -> bool:
    """Tell whether an array has the values of another one, rounded to its dtype."""
    if half.shape != master.shape or master.dtype not in FLOATS:
        return False
    at = 0
    for piece in holder.pieces(master.name):
        rounded = cast(piece, master.dtype, half, Tally())
        if rounded != bytes(reader.read(half.name, at, at + len(rounded))):
            return False
        at += len(rounded)
    return True

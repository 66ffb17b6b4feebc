"""Compare half-precision weights with the float32 masters of paddle, which is the only library that names them."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from convert.arrays.casting import Tally, cast
from convert.arrays.dtypes import FLOATS
from convert.errors import ConvertError
from convert.files import open_checkpoint
from convert.files.base import Reader, Tensor
from convert.folding import summarised
from convert.records.altered import WARNING

from .masters import HALF, OF_MASTER, PADDLE, beside_unified, inside, optimizer_file, unified


class _Copies(NamedTuple):
    """Half-precision weights and their masters, by what both are called. Args: path: of the file beside the weights."""

    halves: tuple[Reader, Mapping[str, Tensor]]
    masters: tuple[Reader, Mapping[str, Tensor]]
    path: str


def unlike(reader: Reader, weights: Iterable[Tensor]) -> list[str]:
    """Warn of half-precision weights that differ from paddle's float32 masters, rounded, or lack one; reads the values.

    Either may be what is converted, and the other one beside it.
    """
    with contextlib.ExitStack() as stack, contextlib.suppress(ConvertError):  # a damaged file is no fault of theirs
        if copies := _copies(reader, list(weights), stack):
            (half_reader, halves), (master_reader, masters), path = copies
            compared = [(halves[name], master) for name, master in masters.items() if name in halves]
            odd = [half.name for half, master in compared if not _is_rounded(half_reader, half, master_reader, master)]
            lines = _alone(copies) if half_reader is reader else []
            if not odd:
                return lines
            if half_reader is reader:
                differ, remedy = f"differ from their float32 masters of {path}", ": do not save them as the weights"
            else:
                differ, remedy = f"of {path} differ from their float32 masters, which are converted", ""
            which = f"{len(odd):,} of {len(compared):,} half-precision weights"
            cause = "these are of another step or run, or the weights are an average"
            return [*lines, f"{WARNING}{which} {differ}, as {summarised(odd)}: {cause}{remedy}"]
    return []


def _alone(copies: _Copies) -> list[str]:
    """Name the half-precision weights without a master: the optimizer trained those of whose masters it has moments."""
    halves, (holder, masters) = copies.halves[1], copies.masters
    lacking = {own: half.name for own, half in halves.items() if own not in masters}
    owners = {name.rpartition("/")[2].partition(OF_MASTER)[0] for name in holder.tensors if OF_MASTER in name}
    trained = [name for own, name in lacking.items() if own in owners]
    frozen = [name for own, name in lacking.items() if own not in owners] if masters and not unified(holder) else []
    which = f"of {len(halves):,} half-precision weights without a float32 master in {copies.path}, as"
    incomplete = "it has moments of masters, so the file is incomplete"
    lines = [f"{WARNING}{len(trained):,} {which} {summarised(trained)}: {incomplete}"] if trained else []
    return [*lines, *([f"{len(frozen):,} {which} {summarised(frozen)}: frozen weights have none"] if frozen else [])]


def _copies(reader: Reader, weights: Sequence[Tensor], stack: contextlib.ExitStack) -> _Copies | None:
    """Return the weights with their masters or their copies beside them; None without these. Raises: ConvertError."""
    halves = [tensor for tensor in weights if tensor.dtype in HALF]
    own = reader.parameter_names
    named = {own[tensor.name]: tensor for tensor in halves if tensor.name in own}
    if named:
        holder = reader
        if not inside(reader) and (path := optimizer_file(reader)):
            holder = stack.enter_context(open_checkpoint(path))
        names = {name.rpartition("/")[2]: name for name in holder.tensors if f"/{PADDLE}/" in f"/{name}"}
        masters = {key: holder.tensors[name] for key, name in names.items()}
        return _Copies((reader, named), (holder, masters), holder.path)
    if halves and (path := unified(reader)):
        holder = stack.enter_context(open_checkpoint(path))
        return _Copies((reader, {tensor.name: tensor for tensor in halves}), (holder, holder.tensors), path)
    if not halves and (path := beside_unified(reader)):
        other = stack.enter_context(open_checkpoint(path))
        lower = {name: tensor for name, tensor in other.tensors.items() if tensor.dtype in HALF}
        return _Copies((other, lower), (reader, {tensor.name: tensor for tensor in weights}), path)
    return None


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

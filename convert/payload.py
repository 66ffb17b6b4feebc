"""The payload of a plan's target tensors: read by ranges, permuted in strips, in memory for one tensor."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from .formats.base import ITEMSIZE, Tensor
from .notation import Move
from .planning import Constant, Plan, Step

if TYPE_CHECKING:
    import numpy as np

PIECE = 1 << 17  # bytes a write: larger ones are slower on common virtual disks
STRIP = 64  # rows of a source read and permuted at once
LINE = 64  # bytes that keep the rows of a strip off the powers of two, which share few places in a cache


def arrays(plan: Plan) -> Iterator[tuple[str, np.ndarray]]:
    """(name, array) of every target tensor; bfloat16 widened to float32, exactly."""
    import numpy as np

    for tensor, filling in plan.steps:
        wide = Tensor(tensor.name, tensor.shape, "float32" if tensor.dtype == "bfloat16" else tensor.dtype)
        data = bytearray(b"".join(chunks(plan, (wide, filling))))
        yield tensor.name, np.frombuffer(data, wide.dtype).reshape(tensor.shape)


def chunks(plan: Plan, step: Step) -> Iterator[bytes | bytearray | memoryview]:
    """The payload of a target tensor, in pieces."""
    tensor, filling = step
    if isinstance(filling, Constant):
        yield filling.value.to_bytes(8, "little", signed=True) if filling.value else bytes(tensor.nbytes)
        return
    source = plan.sources[filling[0].source]
    held = "bfloat16" if source.dtype == "uint16" else source.dtype
    pieces = _ranges(plan, source) if filling[0].copies else _sliced(_permuted(plan, tensor, filling))
    if held == tensor.dtype:
        yield from pieces
        return
    from .casting import cast

    yield from (cast(piece, held, tensor) for piece in pieces)


def _ranges(plan: Plan, source: Tensor) -> Iterator[bytes | bytearray | memoryview]:
    for start in range(0, source.nbytes, PIECE):
        yield plan.reader.read(source.name, start, min(start + PIECE, source.nbytes))


def _sliced(array: np.ndarray) -> Iterator[bytes | bytearray | memoryview]:
    flat = array.reshape(-1).view("u1").data
    for start in range(0, len(flat), PIECE):
        yield flat[start : start + PIECE]


def _permuted(plan: Plan, tensor: Tensor, parts: list[Move]) -> np.ndarray:
    """A target tensor's bits, filled from strips of its sources: memory for one tensor and one strip."""
    import numpy as np

    bits = f"V{size}" if (size := ITEMSIZE[plan.sources[parts[0].source].dtype]) > 8 else f"u{size}"
    out = np.empty(tensor.shape, bits)
    for move in parts:
        source = plan.sources[move.source]
        if source.size:
            _fill(out.reshape(move.target_atoms)[move.place], move, source, plan, bits)
    return out


def _fill(target: np.ndarray, move: Move, source: Tensor, plan: Plan, bits: str) -> None:
    """One source into its place, a strip of its leading axis at a time."""
    import numpy as np

    lead, *rest = move.source_atoms or (1,)
    row = source.nbytes // lead
    chosen = move.select[0] if move.select else slice(None)
    view = target.transpose(np.argsort(move.order))  # in the source's own order
    first, last = (chosen, chosen + 1) if isinstance(chosen, int) else (0, lead)
    for start in range(first, last, STRIP):
        stop = min(start + STRIP, last)
        data = plan.reader.read(source.name, start * row, stop * row)
        strip = np.frombuffer(data, bits).reshape(stop - start, *rest)[(slice(None), *move.select[1:])]
        if isinstance(chosen, int):
            view[...] = strip[0]
        elif strip.ndim == 2:
            view[start:stop] = _padded(strip)
        elif move.select:
            view[start:stop] = strip
        else:
            view[...] = strip.reshape(view.shape)


def _padded(strip: np.ndarray) -> np.ndarray:
    """A copy whose rows are a cache line apart: transposing it is several times as fast."""
    import numpy as np

    rows, columns = strip.shape
    copy = np.empty((rows, columns + LINE // strip.itemsize), strip.dtype)[:, :columns]
    copy[...] = strip
    return copy

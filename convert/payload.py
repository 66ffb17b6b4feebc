"""The payload of a plan's target tensors: copied by ranges, or permuted a strip at a time, in memory for one tensor.

A tensor that is permuted is held in its source's layout, as a whole, and leaves it strip by strip.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from .errors import ConvertError
from .formats.base import ITEMSIZE, Tensor
from .notation import Move
from .planning import Constant, Plan, Step

if TYPE_CHECKING:
    import numpy as np

    from .casting import Tally

STRIP = 1 << 20  # bytes permuted at once, and BLOCK elements of its rows: what stays in a core's cache meanwhile
BLOCK = 256
LINE = 128  # bytes between rows


class Scratch:
    """Memory for one tensor, used again for the next: fresh pages are cleared by the system first, all of them."""

    def __init__(self) -> None:
        self._memory: np.ndarray | None = None

    def rows(self, bits: np.dtype[Any], wanted: list[tuple[int, int]]) -> list[np.ndarray]:
        """Arrays of these numbers of rows and columns, side by side; those of the last call are overwritten.

        Long rows lie LINE bytes apart, off the powers of two, which share few places in a cache.
        """
        import numpy as np

        padding = LINE // bits.itemsize
        widths = [columns + (padding if columns > 8 * padding else 0) for _, columns in wanted]
        edges = list(itertools.accumulate((n * w for (n, _), w in zip(wanted, widths, strict=True)), initial=0))
        if self._memory is None or self._memory.nbytes < edges[-1] * bits.itemsize:
            self._memory = None  # the old one goes before the new one comes
            self._memory = np.empty(edges[-1] * bits.itemsize, "u1")
        whole = self._memory[: edges[-1] * bits.itemsize].view(bits)
        return [
            whole[start : start + n * width].reshape(n, width)[:, :columns]
            for start, (n, columns), width in zip(edges, wanted, widths, strict=False)
        ]


def arrays(plan: Plan) -> Iterator[tuple[str, np.ndarray]]:
    """(name, array) of every target tensor; bfloat16 and float8 widened to float32, exactly."""
    import numpy as np

    from .casting import NARROW

    for tensor, filling in plan.steps:
        wide = Tensor(tensor.name, tensor.shape, "float32" if tensor.dtype in NARROW else tensor.dtype)
        data = bytearray(b"".join(chunks(plan, (wide, filling))))
        yield tensor.name, np.frombuffer(data, wide.dtype).reshape(tensor.shape)


def chunks(
    plan: Plan, step: Step, scratch: Scratch | None = None, tally: Tally | None = None
) -> Iterator[bytes | bytearray | memoryview]:
    """The payload of a target tensor, in pieces that stay as they are.

    Args:
      tally: counts what is lost where the dtype changes, for the caller to judge.
    Raises: ConvertError, without a tally, once so much was lost that only --lossy accepts it.
    """
    tensor, filling = step
    if isinstance(filling, Constant):
        yield filling.value.to_bytes(8, "little", signed=True) if filling.value else bytes(tensor.nbytes)
        return
    held = held_dtype(plan.sources[filling[0].source])
    copied = filling[0].copies
    source = plan.sources[filling[0].source]
    pieces = plan.reader.pieces(source.name) if copied else _permuted(plan, filling, scratch or Scratch())
    if held == tensor.dtype:
        yield from pieces
        return
    from .casting import Tally, cast

    counted = Tally() if tally is None else tally
    yield from (cast(piece, held, tensor, counted) for piece in pieces)
    if tally is None and (problem := counted.problem(tensor.dtype)):
        raise ConvertError(f"{plan.reader.path}: {tensor.name} {problem}: keep the source's dtype")


def held_dtype(source: Tensor) -> str:
    """The dtype of a source's values: paddle spells bfloat16 as uint16."""
    return "bfloat16" if source.dtype == "uint16" else source.dtype


def _permuted(plan: Plan, parts: list[Move], scratch: Scratch) -> Iterator[memoryview]:
    """A target tensor's bits, strip by strip."""
    import numpy as np

    size = ITEMSIZE[plan.sources[parts[0].source].dtype]
    bits = np.dtype(f"V{size}" if size > 8 else f"u{size}")
    moves = [move for move in parts if plan.sources[move.source].size]
    room = scratch.rows(bits, [_rows(move) for move in moves])
    held = [(move, _held(move, plan, rows)) for move, rows in zip(moves, room, strict=True)]
    for where in _strips(parts[0].target_atoms, size) if held else ():
        strip = np.empty([at.stop - at.start for at in where], bits)
        for move, array in held:
            _fill(strip, where, move, array)
        yield strip.reshape(-1).view("u1").data


def _rows(move: Move) -> tuple[int, int]:
    """What a move needs of its source, as rows and columns: where it takes one of the leading axis, that one."""
    lead, *rest = (1 if isinstance(move.select[0], int) else move.source_atoms[0], *move.source_atoms[1:])
    return (lead * math.prod(rest[:-1]), rest[-1]) if rest else (1, lead)


def _held(move: Move, plan: Plan, rows: np.ndarray) -> np.ndarray:
    """What a move takes of its source, read into `rows`, with its axes in the target's order."""
    import numpy as np

    lead, *rest = move.source_atoms
    first, others = move.select[0], move.select[1:]
    source = plan.sources[move.source]
    at = first * (source.nbytes // lead) if isinstance(first, int) else 0
    step = max(1, STRIP // (rows.shape[1] * rows.itemsize))
    for start in range(0, len(rows), step):
        some = rows[start : start + step]
        data = plan.reader.read(source.name, at, at + some.nbytes)
        some[...] = np.frombuffer(data, rows.dtype).reshape(some.shape)
        at += some.nbytes
    array = rows.reshape(-1, *rest)
    return array[(0 if isinstance(first, int) else slice(None), *others)].transpose(move.order)


def _strips(shape: tuple[int, ...], itemsize: int) -> Iterator[tuple[slice, ...]]:
    """Boxes of an array of about STRIP bytes that follow each other in C order."""
    inner, axis = itemsize, len(shape)
    while axis and inner * shape[axis - 1] <= STRIP:
        axis -= 1
        inner *= shape[axis]
    steps = [1] * (axis - 1) + [max(1, STRIP // inner)] * (axis > 0) + [max(1, length) for length in shape[axis:]]
    edges = [[slice(k, min(k + step, n)) for k in range(0, n, step)] for n, step in zip(shape, steps, strict=True)]
    return itertools.product(*edges)


def _fill(strip: np.ndarray, where: tuple[slice, ...], move: Move, array: np.ndarray) -> None:
    """Into the strip that is this box of the target, what one move gives to it, if anything."""
    import numpy as np

    into: list[Any] = []
    taken: list[Any] = []
    for place, box in zip(move.place, where, strict=True):
        if isinstance(place, slice):
            into.append(place)
            taken.append(box)
        elif box.start <= place < box.stop:
            into.append(place - box.start)
        else:
            return
    target, source = np.atleast_1d(strip[(*into, ...)]), np.atleast_1d(array[(*taken, ...)])
    for start in range(0, target.shape[-1], BLOCK):
        target[..., start : start + BLOCK] = source[..., start : start + BLOCK]

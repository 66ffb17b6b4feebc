"""Compute the payload of a plan's target tensors: copied by ranges, or permuted a strip at a time, a tensor in memory.

A tensor that is permuted is held in its source's layout, as a whole, and leaves it strip by strip.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from convert.errors import ConvertError
from convert.files.base import ITEMSIZE, PIECE, Tensor
from specs.applied.arrays import take, unequal
from specs.applied.layout import Equal
from specs.applied.moves import Fill, Move, Select

from .dtypes import FLOATS
from .steps import Computed, ConstantFilling, Copied, Promise, Step, Steps, Sum

if TYPE_CHECKING:
    import numpy as np

    from .casting import Tally

STRIP = 1 << 20  # bytes permuted at once, and BLOCK elements of its rows: what stays in a core's cache meanwhile
BLOCK = 256
LINE = 128  # bytes between rows
COMPUTED = (
    "{} is not what {} computes of this configuration: {:,} of {:,} elements differ: if it belongs to another "
    "configuration, state that one (--set, --config); if the code differs, correct its page"
)
ROUNDED = 8  # roundings of the largest element by which libraries may compute sines and powers otherwise


class Scratch:
    """Memory for one tensor, used again for the next: fresh pages are cleared by the system first, all of them."""

    def __init__(self) -> None:
        self._memory: np.ndarray | None = None

    def rows(self, bits: np.dtype[Any], wanted: list[tuple[int, int]]) -> list[np.ndarray]:
        """Return arrays of these numbers of rows and columns, side by side; those of the last call are overwritten.

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


def arrays(plan: Steps) -> Iterator[tuple[str, np.ndarray]]:
    """Yield (name, array) of every target tensor; bfloat16 and float8 widened to float32, exactly.

    Raises: ConvertError before the first or after the last one, where the source has changed since it was planned.
    """
    import numpy as np

    from convert.files.hashing import check_unchanged

    from .casting import NARROW

    check_unchanged(plan.reader.opened)
    for tensor, filling in plan.steps:
        wide = Tensor(tensor.name, tensor.shape, "float32" if tensor.dtype in NARROW else tensor.dtype)
        data = bytearray(b"".join(chunks(plan, (wide, filling))))
        yield tensor.name, np.frombuffer(data, wide.dtype).reshape(tensor.shape)
    check_unchanged(plan.reader.opened)


def chunks(
    plan: Steps, step: Step, scratch: Scratch | None = None, tally: Tally | None = None
) -> Iterator[bytes | bytearray | memoryview]:
    """Yield the payload of a target tensor, in pieces that later calls leave as they are.

    Args:
      tally: counts what is lost where the dtype changes, for the caller to judge.
    Raises: ConvertError, without a tally, once so much was lost that only --lossy accepts it.
    """
    tensor, filling = step
    if isinstance(filling, ConstantFilling):
        yield from _constant(filling, tensor)
        return
    if isinstance(filling, Computed):
        yield filling.values.tobytes()
        return
    if isinstance(filling, Copied):
        yield from filling.reader.pieces(filling.name)
        return
    if isinstance(filling, Sum):
        yield from _added(plan, filling, tensor, tally)
        return
    source = plan.sources[next(part.source for part in filling if isinstance(part, Move))]
    first = filling[0]
    copied = isinstance(first, Move) and first.copies
    pieces = plan.reader.pieces(source.name) if copied else _permuted(plan, filling, scratch or Scratch())
    if source.dtype == tensor.dtype:
        yield from pieces
        return
    from .casting import Tally, cast

    counted = Tally() if tally is None else tally
    yield from (cast(piece, source.dtype, tensor, counted) for piece in pieces)
    if tally is None and (problem := counted.problem(tensor.dtype)):
        raise ConvertError(f"{plan.reader.path}: {tensor.name} {problem}: keep the source's dtype")


def _constant(constant: ConstantFilling, tensor: Tensor) -> Iterator[bytes]:
    """Yield a tensor whose elements all have one value."""
    if not constant.value:
        yield from (bytes(min(PIECE, tensor.nbytes - at)) for at in range(0, tensor.nbytes, PIECE))
        return
    from .casting import encoded

    element = encoded(constant.value, tensor)
    most = PIECE // len(element)
    yield from (element * min(most, tensor.size - at) for at in range(0, tensor.size, most))


def _added(plan: Steps, total: Sum, tensor: Tensor, tally: Tally | None) -> Iterator[bytes]:
    """Yield the sum of several tensors, added in float64 and rounded once."""
    from .casting import Tally, cast, decoded

    counted = Tally() if tally is None else tally
    terms = [(parts, plan.sources[parts[0].source].dtype) for parts in total.terms if isinstance(parts[0], Move)]
    strips = [_permuted(plan, parts, Scratch()) for parts, _ in terms]
    for pieces in zip(*strips, strict=True):
        wide = sum(decoded(p, dtype).astype("float64") for p, (_, dtype) in zip(pieces, terms, strict=True))
        yield cast(wide, "float64", tensor, counted)
    if tally is None and (problem := counted.problem(tensor.dtype)):
        raise ConvertError(f"{plan.reader.path}: {tensor.name} {problem}: keep the source's dtype")


def check_steps(plan: Steps) -> None:
    """Compare what a plan takes to be equal. Raises: ConvertError where it is not."""
    import numpy as np

    from .casting import decoded

    for promise in plan.checks:
        if promise.computed is not None:
            _check_computed(plan, promise)
            continue
        dtype = plan.sources[promise.name].dtype
        strips = _permuted(plan, promise.parts, Scratch())
        others: Any = _permuted(plan, promise.others, Scratch()) if promise.others else itertools.repeat(None)
        for strip, other in zip(strips, others, strict=False):
            values = decoded(strip, dtype)
            wanted = _stored(promise.value, dtype) if other is None else decoded(other, dtype)
            same = (values == wanted) | ((values != values) & (wanted != wanted))
            if not np.all(same):
                raise ConvertError(f"{plan.reader.path}: {_broken(promise)}")


def _check_computed(plan: Steps, promise: Promise) -> None:
    """Compare an array of the source with what its dialect's code computes. Raises: ConvertError where it is not."""
    import numpy as np

    from .casting import decoded

    tensor = plan.sources[promise.name]
    values = decoded(plan.reader.read(tensor.name), tensor.dtype)
    wanted = promise.computed.reshape(-1)
    differ = values != wanted
    if tensor.dtype in FLOATS:
        eps = 2.0**-7 if tensor.dtype == "bfloat16" else float(np.finfo(tensor.dtype).eps)
        differ = ~(np.abs(values - wanted) <= ROUNDED * eps * np.abs(wanted).max(initial=0))
    if differ.any():
        what = COMPUTED.format(promise.name, promise.where, differ.sum(), differ.size)
        raise ConvertError(f"{plan.reader.path}: {what}")


def _stored(value: float, dtype: str) -> float:
    """Return a constant as an array of this dtype contains it: 0.1 is another number in bfloat16."""
    from .casting import NARROW, decoded, encoded

    return float(decoded(encoded(value, Tensor("", (), dtype)), dtype)[0]) if dtype in NARROW else value


def unequal_elements(plan: Steps, stated: Equal) -> tuple[int, float]:
    """Return how many elements of the source are not the constant that a line states, and by how much at most."""
    from .casting import decoded

    dtype, number, most = plan.sources[stated.name].dtype, 0, 0.0
    for strip in _permuted(plan, stated.parts, Scratch()):
        some, largest = unequal(decoded(strip, dtype), _stored(stated.value, dtype))
        number, most = number + some, max(most, largest)
    return number, most


def _broken(promise: Promise) -> str:
    if promise.other:
        remedy = f": {promise.remedy}" if promise.remedy else ""
        return f"{promise.name} and {promise.other} differ, and {promise.where} says that they are equal{remedy}"
    remedy = f"add an array for them to the target's model, or train with them frozen at {promise.value}"
    stated = f"{promise.name} holds other values than {promise.value}, which {promise.where} says it holds"
    return f"{stated}: the target has no place for them: {remedy}"


def _permuted(plan: Steps, parts: Sequence[Move | Fill], scratch: Scratch) -> Iterator[memoryview]:
    """Yield a target tensor's bits in its source's dtype, strip by strip."""
    import numpy as np

    source = plan.sources[next(part.source for part in parts if isinstance(part, Move))]
    size = ITEMSIZE[source.dtype]
    bits = np.dtype(f"V{size}" if size > 8 else f"u{size}")
    moves = [part for part in parts if isinstance(part, Move) and plan.sources[part.source].size]
    wholes = [plan.reader.whole(plan.sources[move.source].name) for move in moves]
    stored = [move for move, whole in zip(moves, wholes, strict=True) if whole is None]
    room = iter(scratch.rows(bits, [_rows(move) for move in stored]))
    filled: list[tuple[Move | Fill, Any]] = [
        (move, _read(move, plan, next(room)) if whole is None else _taken(move, np.frombuffer(whole, bits)))
        for move, whole in zip(moves, wholes, strict=True)
    ]
    filled += [(fill, _element(fill, source, bits)) for fill in parts if isinstance(fill, Fill)]
    if filled and len({part.target_atoms for part in parts}) > 1:
        yield _merged(filled, bits).view("u1").data
        return
    for where in _strips(parts[0].target_atoms, size) if filled else ():
        strip = np.empty([along.stop - along.start for along in where], bits)
        for part, array in filled:
            _fill(strip, where, part, array)
        yield strip.reshape(-1).view("u1").data


def _merged(filled: Sequence[tuple[Move | Fill, Any]], bits: np.dtype[Any]) -> np.ndarray:
    """Return all elements of a target whose parts divide its axes differently, so that no box is one of each part."""
    import numpy as np

    whole = np.empty(math.prod(filled[0][0].target_atoms), bits)
    for part, array in filled:
        whole.reshape(part.target_atoms)[part.place] = array[0] if isinstance(part, Fill) else array
    return whole


def _element(fill: Fill, source: Tensor, bits: np.dtype[Any]) -> np.ndarray:
    """Return the bits of one element of a constant."""
    import numpy as np

    from .casting import encoded

    return np.frombuffer(encoded(fill.value, source), bits)


def _needed(move: Move) -> tuple[int, tuple[int, ...], tuple[Select, ...]]:
    """Return the contiguous part of its source that a move needs: first element, shape, and what to select from it."""
    start, shape, select = 0, list(move.source_atoms), list(move.select)
    while select and isinstance(index := select[0], int):
        start += index * math.prod(shape[1:])
        del shape[0], select[0]
    if select and isinstance(select[0], slice):
        first, last, step = select[0].indices(shape[0])
        if step == 1:
            start, shape[0], select[0] = start + first * math.prod(shape[1:]), last - first, slice(None)
    return start, tuple(shape), tuple(select)


def _rows(move: Move) -> tuple[int, int]:
    """Return the rows and columns of what a move needs of its source."""
    _, shape, _ = _needed(move)
    return (math.prod(shape[:-1]), shape[-1]) if shape else (1, 1)


def _read(move: Move, plan: Steps, rows: np.ndarray) -> np.ndarray:
    """Read what a move needs of its source into `rows`; return what it takes, with its axes in the target's order."""
    import numpy as np

    first, _, _ = _needed(move)
    source = plan.sources[move.source]
    at = first * rows.itemsize
    step = max(1, STRIP // (rows.shape[1] * rows.itemsize))
    for start in range(0, len(rows), step):
        some = rows[start : start + step]
        data = plan.reader.read(source.name, at, at + some.nbytes)
        some[...] = np.frombuffer(data, rows.dtype).reshape(some.shape)
        at += some.nbytes
    return _in_order(move, rows)


def _taken(move: Move, source: np.ndarray) -> np.ndarray:
    """Return what a move takes of the elements of its source, as `_read` does."""
    first, shape, _ = _needed(move)
    return _in_order(move, source[first : first + math.prod(shape)])


def _in_order(move: Move, rows: np.ndarray) -> np.ndarray:
    """Return what a move takes of the contiguous part that it needs, with its axes in the target's order."""
    _, shape, select = _needed(move)
    array: np.ndarray = take(rows.reshape(shape), select).transpose(move.order)
    return array


def _strips(shape: tuple[int, ...], itemsize: int) -> Iterator[tuple[slice, ...]]:
    """Yield boxes of an array of about STRIP bytes that follow each other in C order."""
    inner, axis = itemsize, len(shape)
    while axis and inner * shape[axis - 1] <= STRIP:
        axis -= 1
        inner *= shape[axis]
    steps = [1] * (axis - 1) + [max(1, STRIP // inner)] * (axis > 0) + [max(1, length) for length in shape[axis:]]
    edges = [[slice(k, min(k + step, n)) for k in range(0, n, step)] for n, step in zip(shape, steps, strict=True)]
    return itertools.product(*edges)


def _fill(strip: np.ndarray, where: tuple[slice, ...], part: Move | Fill, array: np.ndarray) -> None:
    """Write what a move or a constant gives to one box of the target into the strip that is this box."""
    import numpy as np

    into: list[Any] = []
    taken: list[Any] = []
    for place, box, size in zip(part.place, where, part.target_atoms, strict=True):
        if isinstance(place, slice):
            begin, end, _ = place.indices(size)
            start, stop = max(begin, box.start), min(end, box.stop)
            if start >= stop:
                return
            into.append(slice(start - box.start, stop - box.start))
            taken.append(slice(start - begin, stop - begin))
        elif box.start <= place < box.stop:
            into.append(place - box.start)
        else:
            return
    if isinstance(part, Fill):
        strip[(*into, ...)] = array[0]
        return
    target, source = np.atleast_1d(strip[(*into, ...)]), np.atleast_1d(array[(*taken, ...)])
    for start in range(0, target.shape[-1], BLOCK):
        target[..., start : start + BLOCK] = source[..., start : start + BLOCK]

"""Compare the arrays of two sides, block by block: memory is needed for what computing a side's array takes."""

from __future__ import annotations

import sys
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple

from convert.arrays import payload
from convert.arrays.steps import ConstantFilling, Step, Steps, sources_of
from convert.files.base import ITEMSIZE
from convert.folding import fold, summarised
from specs.applied.moves import Move
from specs.notation.dtype_kinds import kind as dtype_kind
from specs.numbers import apart
from specs.words import count

if TYPE_CHECKING:
    import numpy as np

OWN, COMMON = "A", "common"  # layouts of the shapes and the position that a difference names
COUNTERS = "batch counters, which are not in both files"  # in the verdict
BLOCK = 1 << 16  # elements compared at once: what stays in a core's cache


class Tolerance(NamedTuple):
    """The largest difference to accept: the larger one of a share of an array's largest element and a number.

    The number serves arrays that are 0 but for rounding: relative to themselves they differ by anything.
    """

    relative: float = 0.0
    absolute: float = 0.0

    def limit(self, scale: float) -> float:
        """Return the largest difference to accept in an array whose largest element is `scale`; none is infinite."""
        return min(max(self.relative * scale, self.absolute), sys.float_info.max)


EXACT = Tolerance()


class Differences(NamedTuple):
    """What a comparison of two sides' arrays shows.

    Args:
      entries: what differs, see `entry`.
      nans: how many places have NaN on both sides, which counts as equal: by the array's name in A's file.
      compared: how many arrays were compared.
      within: entries of arrays that differ by no more than was asked for.
      dtypes: (dtype in A, dtype in B) -> names in A's file of the arrays of which these differ.
      but: what was not compared, in words of the verdict.
      of: of which file the arrays are counted, in words, where a Table parts or joins them.
      layout: in which they were compared, in words.
    """

    entries: list[dict[str, Any]]
    nans: dict[str, int]
    compared: int = 0
    within: Sequence[dict[str, Any]] = ()
    dtypes: Mapping[tuple[str, str], list[str]] = MappingProxyType({})
    but: tuple[str, ...] = ()
    of: str = ""
    layout: str = "the layout of B's file"

    def joined(self, other: Differences, compared: int) -> Differences:
        """Return these differences and others, of as many arrays as `compared` says, which have other names."""
        entries, within = [*self.entries, *other.entries], [*self.within, *other.within]
        dtypes = {
            both: [*self.dtypes.get(both, ()), *other.dtypes.get(both, ())] for both in {**self.dtypes, **other.dtypes}
        }
        return self._replace(
            entries=entries, nans={**self.nans, **other.nans}, compared=self.compared + compared, within=within,
            dtypes=dtypes,
        )  # fmt: skip

    def notes(self) -> list[str]:
        """Report the places that have NaN on both sides, and dtypes that differ."""
        total = sum(self.nans.values())
        places = f"NaN at the same {total:,} places" if total > 1 else "NaN at the same place"
        nans = [f"both have {places}, which counts as equal: {summarised(self.nans)}"] if total else []
        dtypes = [
            f"dtypes differ, {a} in A and {b} in B (values were compared): {summarised(names)}"
            for (a, b), names in self.dtypes.items()
        ]
        return [*nans, *dtypes]


def differences(
    left: Steps, right: Steps, tolerance: Tolerance, skip: Callable[[str], bool] = lambda _: False
) -> Differences:
    """Compare two sides' target arrays, those aside whose names `skip` takes.

    Raises: ConvertError for a side with tied arrays that differ, or without a constant that its table states.
    """
    for side in (left, right):
        payload.check_steps(side)
    ours, theirs = (
        {tensor.name: (tensor, filling) for tensor, filling in side.steps if not skip(tensor.name)}
        for side in (left, right)
    )
    entries = [entry(n, "missing", a=own_names(left, step)) for n, step in ours.items() if n not in theirs]
    entries += [entry(n, "unexpected", b=own_names(right, step)) for n, step in theirs.items() if n not in ours]
    nans: dict[str, int] = {}
    within: list[dict[str, Any]] = []
    dtypes: dict[tuple[str, str], list[str]] = {}
    for name, step in ours.items():
        if name in theirs:
            difference, both = _arrays(left, step, right, theirs[name], tolerance)
            names = own_names(left, step)
            if difference:
                accepted = tolerance != EXACT and difference["differing"] == 0
                ours_names = [] if isinstance(step[1], ConstantFilling) else names  # which A does not store
                named = {**difference, "a": ours_names, "b": own_names(right, theirs[name])}
                (within if accepted else entries).append(named)
            if both:
                nans[" + ".join(fold(names))] = both
            if step[0].dtype != theirs[name][0].dtype:
                dtypes.setdefault((step[0].dtype, theirs[name][0].dtype), []).append(" + ".join(fold(names)))
    return Differences(entries, nans, len(ours.keys() & theirs.keys()), within, dtypes)


def uncounted_norms(path: str, names: Collection[str]) -> list[str]:
    """Say that a file stores no batch counters of these names, which are not compared; [] without any."""
    if not names:
        return []
    of = summarised(name.rpartition(".")[0] for name in names)
    return [f"{path}: it stores no batch counters of {count(len(names), 'norm')}, which are not compared: {of}"]


def own_names(side: Steps, step: Step) -> list[str]:
    """Return the names that a file itself has for what a target array is filled from; the target's if from none."""
    stored = (side.reader.stored_name(side.sources[name].name) for name in sources_of(step[1]))
    return list(dict.fromkeys(stored)) or [step[0].name]


def entry(
    tensor: str, kind: str, error: float | None = None, detail: str = "", *, differing: int | None = None,
    elements: int | None = None, largest: float | None = None, integers: bool = False, layout: str = COMMON,
    a: Iterable[str] = (), b: Iterable[str] = (),
) -> dict[str, Any]:  # fmt: skip
    """Describe one difference.

    Args:
      tensor: the array's name in the layout in which both files are compared.
      kind: missing (only in A), unexpected (only in B), shape or value.
      error: of a value, the largest difference relative to `largest`; None where a number stands against NaN or an
        infinity.
      differing: how many of its `elements` differ by more than was asked for.
      largest: of a value, the largest finite element of both arrays, so that no order of the files changes `error`.
      integers: whether one of both stores no floating-point numbers, as the key of a random generator.
      layout: of the shapes or the position in `detail`: OWN is A's, COMMON the one in which both files are compared.
      a, b: the names that the files themselves have for it; empty where a file lacks it.
    """
    counts = {"differing": differing, "elements": elements, "largest": largest, "integers": integers}
    where = {"layout": layout, "a": list(a), "b": list(b)}
    return {"tensor": tensor, "kind": kind, "error": error, "detail": detail, **counts, **where}


def _arrays(
    left: Steps, ours: Step, right: Steps, theirs: Step, tolerance: Tolerance
) -> tuple[dict[str, Any] | None, int]:
    """Compare two arrays: in shape, else by the largest difference over the largest element of both.

    Returns: what differs, None if nothing does, and how many places have NaN in both.

    Args:
      tolerance: elements that differ by no more than this are not counted.
    """
    import numpy as np

    name, shape = ours[0].name, ours[0].shape
    if shape != theirs[0].shape:
        return _shapes(left, ours, theirs), 0
    nans = 0
    for a, b in _blocks(left, ours, right, theirs):
        equal, both = _equal(a, b)
        nans += both
        if not equal:
            break
    else:
        return None, nans
    largest, scale, start, differing, nans = _largest(left, ours, right, theirs)
    error = largest.gap / (scale or 1.0)
    if limit := tolerance.limit(scale or 1.0):
        differing = 0
        if largest.gap > limit:
            differing = sum(int(np.count_nonzero(gap > limit)) for *_, gap in _gaps(left, ours, right, theirs))
    own = own_position(left, ours, largest.at)
    index = [int(k) for k in np.unravel_index(largest.at, shape)] if own is None else own
    dtypes = "" if ours[0].dtype == theirs[0].dtype else f", {ours[0].dtype} and {theirs[0].dtype}"
    where = f"at {index}: " if index else ""  # a single number has no position
    detail = f"{where}{' and '.join(apart(largest.a, largest.b))}{dtypes}"
    finite = error if np.isfinite(error) else None
    layout = COMMON if own is None else OWN
    integers = not {dtype_kind(ours[0].dtype), dtype_kind(theirs[0].dtype)} <= {"float", "complex"}
    difference = entry(
        name, "value", finite, detail, differing=differing, elements=start, largest=scale, integers=integers,
        layout=layout,
    )  # fmt: skip
    return difference, nans


def _shapes(left: Steps, ours: Step, theirs: Step) -> dict[str, Any]:
    """Describe two arrays of unlike shapes, in the order of the first file's axes where both have as many."""
    name, shape, other = ours[0].name, ours[0].shape, theirs[0].shape
    order = own_order(left, ours)
    if order is None or len(order) != len(other):
        return entry(name, "shape", None, f"{list(shape)} and {list(other)}")
    mine, others = ([of[order.index(axis)] for axis in range(len(order))] for of in (shape, other))
    return entry(name, "shape", None, f"{mine} and {others}", layout=OWN)


def _largest(left: Steps, ours: Step, right: Steps, theirs: Step) -> tuple[Largest, float, int, int, int]:
    """Return the largest difference, the largest finite element, and how many elements there are, differ, are NaN."""
    import numpy as np

    largest, scale, start, differing, nans = Largest(-1.0, 0, 0.0, 0.0), 0.0, 0, 0, 0
    for a, b, gap in _gaps(left, ours, right, theirs):
        at = int(np.argmax(gap))
        if gap[at] > largest.gap:
            largest = Largest(float(gap[at]), start + at, a[at], b[at])
        sizes = (np.abs(_split(one)[0]) for one in (a, b))
        scale = max(scale, *(float(np.max(size, initial=0.0, where=np.isfinite(size))) for size in sizes))
        start, differing = start + a.size, differing + int(np.count_nonzero(gap))
        nans += int(np.count_nonzero(np.isnan(a) & np.isnan(b)))
    return largest, scale, start, differing, nans


def own_order(side: Steps, step: Step) -> tuple[int, ...] | None:
    """Return which axis of the file's own array each axis of a target array is; None where it is no whole array."""
    moves = step[1] if isinstance(step[1], list) else []
    if len(moves) != 1 or not isinstance(moves[0], Move):
        return None
    move = moves[0]
    plain = all(isinstance(entry, slice) for entry in (*move.select, *move.place))
    same = move.source_atoms == side.sources[move.source].shape and move.target_atoms == step[0].shape
    return move.order if plain and same else None


def own_position(side: Steps, step: Step, at: int) -> list[int] | None:
    """Return where in the file's own array an element of a target array lies; None where several arrays fill it.

    Args:
      at: the number of the element, in C order.
    """
    import numpy as np

    moves = [part for part in step[1] if isinstance(part, Move)] if isinstance(step[1], list) else []
    if len({move.source for move in moves}) != 1:
        return None
    for move in moves:
        inside: list[int] = []
        position = np.unravel_index(at, move.target_atoms)
        for place, index, size in zip(move.place, map(int, position), move.target_atoms, strict=True):
            places = range(size)[place] if isinstance(place, slice) else (place,)
            if index not in places:
                break
            inside += [places.index(index)] if isinstance(place, slice) else []
        else:
            taken = iter([inside[move.order.index(axis)] for axis in range(len(move.order))])
            ranges = zip(move.select, move.source_atoms, strict=True)
            chosen = [range(size)[index] if isinstance(index, slice) else index for index, size in ranges]
            atoms = [index if isinstance(index, int) else index[next(taken)] for index in chosen]
            number = np.ravel_multi_index(atoms, move.source_atoms) if atoms else 0
            return [int(k) for k in np.unravel_index(number, side.sources[move.source].shape)]
    return None


class Largest(NamedTuple):
    """The largest difference of two arrays: where among their elements, and the two values."""

    gap: float
    at: int
    a: Any
    b: Any


def _equal(a: np.ndarray, b: np.ndarray) -> tuple[bool, int]:
    """Tell whether values are equal, NaN to NaN, and how many places have NaN in both."""
    import numpy as np

    if a.dtype != b.dtype and 8 in {one.dtype.itemsize for one in (a, b) if one.dtype.kind in "iu"}:
        return not _gap(a, b).any(), 0  # numpy would compare both as float64
    if np.array_equal(a, b):  # NaN equals nothing, so there is none
        return True, 0
    if not (a.dtype.kind in "fc" and b.dtype.kind in "fc"):
        return False, 0
    return np.array_equal(a, b, equal_nan=True), int(np.count_nonzero(np.isnan(a) & np.isnan(b)))


def _gaps(left: Steps, ours: Step, right: Steps, theirs: Step) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Yield the same elements of two arrays and their differences, infinite where NaN stands against a number."""
    for a, b in _blocks(left, ours, right, theirs):
        yield _printed(a), _printed(b), _gap(a, b)


def _gap(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Return the differences of equally many elements: 0 of equal ones and of NaN and NaN alone, exactly."""
    import numpy as np

    (high, low), (other_high, other_low) = _split(a), _split(b)
    with np.errstate(invalid="ignore", over="ignore"):  # a difference beyond float64 is infinite
        gap = np.abs((high - other_high) + (low - other_low))
        gap = np.where((np.isnan(high) & np.isnan(other_high)) | ((high == other_high) & (low == other_low)), 0.0, gap)
    gap[np.isnan(gap)] = np.inf
    return gap


def _split(values: np.ndarray) -> tuple[np.ndarray, Any]:
    """Return two arrays of float64 (or complex128) whose sum is exact: float64 alone rounds integers above 2**53.

    The second one has the lowest bits of larger integers, and is 0 elsewhere. The difference of the first ones of two
    near numbers is exact, so that the sum of both differences is 0 for equal numbers alone.
    """
    import numpy as np

    if values.dtype.kind not in "iu" or values.dtype.itemsize < 8:
        return values.astype("complex128" if values.dtype.kind == "c" else "float64", copy=False), 0.0
    large = values > 1 << 53
    if values.dtype.kind == "i":
        large |= values < -(1 << 53)
    low = np.where(large, values & 0x7FF, 0)  # 64 bits less these 11 are the 53 that float64 has
    return (values - low).astype("float64"), low.astype("float64")


def _printed(values: np.ndarray) -> np.ndarray:
    """Return values as a message shows them: integers as they are, others in float64 or complex128."""
    return values if values.dtype.kind in "iu" else _split(values)[0]


def _blocks(left: Steps, ours: Step, right: Steps, theirs: Step) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield the same elements of two arrays, block by block."""
    return zip(_values(left, ours), _values(right, theirs), strict=True)


def _values(side: Steps, step: Step) -> Iterator[np.ndarray]:
    """Yield an array's values in blocks of BLOCK elements."""
    from convert.arrays.casting import decoded

    size, waiting = BLOCK * ITEMSIZE[step[0].dtype], bytearray()
    for piece in payload.chunks(side, step):
        waiting += piece
        while len(waiting) >= size:
            yield decoded(waiting[:size], step[0].dtype)
            del waiting[:size]
    if waiting:
        yield decoded(waiting, step[0].dtype)

"""Run translations on numpy arrays in memory. numpy is imported on the first call."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from specs.notation.dtype_kinds import first_float, kind, misfit
from specs.notation.lines import TableError
from specs.numbers import exact, short
from specs.words import count, in_a_row

from .moves import Fill, Move, Select

if TYPE_CHECKING:
    from .layout import Entry, Equal, Layout


def take(array: Any, select: Iterable[Select]) -> Any:
    """Return `array[select]`, where a tuple of indices picks along its own axis alone, as numpy.take does."""
    entries = list(select)
    array = array[tuple(slice(None) if isinstance(entry, tuple) else entry for entry in entries)]
    axis = 0
    for entry in entries:
        if isinstance(entry, tuple):
            array = array.take(entry, axis)
        axis += not isinstance(entry, int)
    return array


def apply(parts: Iterable[Move | Fill], shape: tuple[int, ...], read: Callable[[str], Any], dtype: Any = None) -> Any:
    """Return a target tensor as a numpy array, from `read(source name) -> array`.

    Args:
      dtype: of the result where no source determines it (all parts are constants); sources of several give the one
        that has the values of all.
    """
    import numpy as np

    parts = list(parts)
    sources = [part.source for part in parts if isinstance(part, Move)]
    if sources:
        dtype = np.result_type(*(read(source).dtype for source in dict.fromkeys(sources)))
    out = None
    for part in parts:
        if isinstance(part, Fill):
            if out is None:
                out = np.empty(shape, dtype)
            out.reshape(part.target_atoms)[part.place] = part.value
            continue
        array = read(part.source)
        if part.copies:
            return array.reshape(shape)
        if out is None:
            out = np.empty(shape, dtype)
        moved = take(array.reshape(part.source_atoms), part.select).transpose(part.order)
        out.reshape(part.target_atoms)[part.place] = moved
    return out


def flat(tree: Any, path: str = "") -> dict[str, Any]:
    """Return {name: leaf} of nested mappings, lists and tuples: levels joined by "/", a named tuple's by its fields."""
    if isinstance(tree, Mapping):
        items = list(tree.items())
    elif isinstance(tree, (list, tuple)):
        items = list(zip(getattr(tree, "_fields", range(len(tree))), tree, strict=True))
    else:
        return {} if tree is None else {path: tree}
    leaves: dict[str, Any] = {}
    for key, item in items:
        for name, leaf in flat(item, f"{path}/{key}" if path else str(key)).items():
            if name in leaves:
                raise TableError(f"{name}: names two arrays")
            leaves[name] = leaf
    return leaves


def as_arrays(leaves: Mapping[str, Any]) -> dict[str, Any]:
    """Return leaves as numpy arrays: those of numpy as they are, and copies of tensors and numbers.

    Raises: TableError that names what is neither.
    """
    import numpy as np

    arrays = {}
    for name, leaf in leaves.items():
        try:
            array = (
                leaf if isinstance(leaf, np.ndarray) else np.asarray(leaf.detach() if hasattr(leaf, "detach") else leaf)
            )
        except (TypeError, ValueError, RuntimeError) as error:
            raise TableError(f"{name}: cannot be read as a numpy array: {error}") from None
        if array.dtype.kind in "OSU":
            kind = type(leaf).__name__
            if not name:
                raise TableError(f"give a mapping of names to arrays, as state_dict() returns: not {kind}")
            raise TableError(f"{name}: is no array of numbers, but {kind}")
        arrays[name] = array
    return arrays


def translate(layout: Layout, arrays: Mapping[str, Any]) -> dict[str, Any]:
    """Return every right array of a layout, from the left ones.

    Raises: TableError where tied arrays differ, or one that is declared constant has another value or kind of dtype.
    """
    for check in layout.checks:
        if not _holds(check, arrays):
            other = f"and {check.other} are not equal" if check.other else f"holds other values than {check.value}"
            raise TableError(f"line {check.line.number}: {check.name} {other}, as the table says they are")
    like = first_float({name: array.dtype.name for name, array in arrays.items()})
    return {entry.name: _made(entry, arrays, entry.like or like) for entry in layout.entries}


def warn_of_dropped(layout: Layout, arrays: Mapping[str, Any]) -> None:
    """Warn of arrays that lines drop, and that hold other values than these state; single integers are counters."""
    stated = (check for check in layout.unchecked if check.shape or kind(check.dtype) != "int")
    read = arrays.__getitem__
    for doubt in lost((check, *unequal(apply(check.parts, check.shape, read), check.value)) for check in stated):
        warnings.warn(doubt, stacklevel=3)


def unequal(array: Any, value: float) -> tuple[int, float]:
    """Return how many elements of an array are not a constant, and by how much at most: infinite for NaN."""
    import numpy as np

    wide = np.complex128 if array.dtype.kind == "c" else np.float64  # that of bfloat16 is "V"
    values, wanted = array.astype(wide), np.asarray(_in(array.dtype, value)).astype(wide)
    others = values[(values != wanted) & ~(np.isnan(values) & np.isnan(wanted))]
    return others.size, float(np.max(np.nan_to_num(np.abs(others - wanted), nan=np.inf), initial=0))


def lost(found: Iterable[tuple[Equal, int, float]]) -> list[str]:
    """Say of each line that drops arrays how many of their elements are not the constant that it states.

    Args:
      found: what the line states of each array, the number of those elements, and their largest difference.
    """
    lines: dict[int, tuple[Equal, int, float]] = {}
    for check, number, most in found:
        _, before, largest = lines.get(check.line.number, (check, 0, 0.0))
        lines[check.line.number] = check, before + number, max(largest, most)
    return [
        f"dropped, though line {at} states {exact(check.value)} for {check.line.left.arrays[0].label}: "
        f"{count(number, 'element')} {'has' if number == 1 else 'have'} other values (largest difference "
        f"{short(most)}), and the target computes as with {exact(check.value)}: <-> in place of drop refuses them"
        for at, (check, number, most) in lines.items()
        if number
    ]


def _holds(check: Equal, arrays: Mapping[str, Any]) -> bool:
    import numpy as np

    array = apply(check.parts, check.shape, arrays.__getitem__)
    if check.dtype and kind(check.dtype) != kind(array.dtype.name):
        what = f"{check.name} has dtype {array.dtype.name}, and the table says that it is {check.dtype}"
        raise TableError(f"line {check.line.number}: {what}")
    other = apply(check.others, check.shape, arrays.__getitem__) if check.others else _in(array.dtype, check.value)
    return bool(np.array_equal(array, np.broadcast_to(other, check.shape), equal_nan=_has_nan(array.dtype)))


def _in(dtype: Any, value: Any) -> Any:
    """Return a constant as an array of this dtype contains it: 0.1 is another number in float16."""
    import numpy as np

    return np.asarray(value).astype(dtype) if _has_nan(dtype) else value


def _made(entry: Entry, arrays: Mapping[str, Any], like: str) -> Any:
    """Build the right array of an entry; it has the dtype of the left array `like`, unless the table states one."""
    dtype = _dtype(entry, arrays, like)
    if isinstance(entry.filling, list):
        if len(entry.filling) == 1 and isinstance(part := entry.filling[0], Move):  # a view where numpy has one
            moved = take(arrays[part.source].reshape(part.source_atoms), part.select).transpose(part.order)
            if all(step >= 0 for step in moved.strides):  # torch reads no others
                return moved.reshape(entry.shape)
        return apply(entry.filling, entry.shape, arrays.__getitem__, dtype)
    return _sum(entry.name, [apply(parts, entry.shape, arrays.__getitem__) for parts in entry.filling.terms])


def _sum(name: str, terms: Sequence[Any]) -> Any:
    """Add the terms of an array. Raises: TableError where their dtype has no such sum, as integers that wrap around."""
    import numpy as np

    dtypes = list(dict.fromkeys(term.dtype for term in terms))
    if len(dtypes) > 1:
        raise TableError(f"{name}: a sum of {in_a_row(map(str, dtypes))}: convert the terms to one dtype first")
    if kind(dtypes[0].name) != "float":
        raise TableError(f"{name}: a sum of {dtypes[0]} arrays: only floating-point ones are added")
    wide = [term.astype("float64") for term in terms]
    with np.errstate(over="ignore"):
        total = sum(wide).astype(dtypes[0])
    finite = np.all([np.isfinite(term) for term in wide], axis=0)
    if lost := int((finite & ~np.isfinite(total.astype("float64"))).sum()):
        what = f"{count(lost, 'sum')} beyond the largest {dtypes[0]}"
        raise TableError(f"{name}: {what}: convert the terms to a wider dtype")
    return total


def _dtype(entry: Entry, arrays: Mapping[str, Any], like: str) -> Any:
    """Return the dtype of an array of constants. Raises: TableError where numpy lacks it, or it cannot hold them."""
    import numpy as np

    try:
        dtype = np.dtype(entry.dtype) if entry.dtype else arrays[like].dtype if like else np.dtype("float32")
    except TypeError:
        what = f"{entry.name}: numpy has {entry.dtype} only where the package ml_dtypes is imported"
        raise TableError(what) from None
    for part in entry.filling if isinstance(entry.filling, list) else ():
        if isinstance(part, Fill) and (problem := misfit(part.value, dtype.name)):
            raise TableError(f"{entry.name}: {problem}")
    return dtype


def _has_nan(dtype: Any) -> bool:
    """Tell whether a dtype is of floating-point numbers; to numpy, bfloat16 and float8 are structures."""
    return dtype.kind in "fc" or dtype.name.startswith(("bfloat", "float"))

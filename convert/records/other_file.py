"""Tell how a file differs from the one that a record describes, as far as that is checked whenever a record is read."""

from collections.abc import Mapping
from itertools import accumulate
from typing import Any

from convert.errors import FormatError
from convert.files.base import Reader, Tensor, meant

SAMPLED = 16 << 20  # bytes of arrays whose values are checked whenever a record is read, small arrays first: 5 ms


def other_bytes(path: str, content: dict[str, Any]) -> str:
    """Return how a file differs from the one that the record beside it was written for; "" if it does not."""
    from convert.files.hashing import identity

    own = identity(path)
    if content.get("bytes") != own["bytes"]:
        return f"which has {own['bytes']:,} bytes where {_number(content.get('bytes'))} were written"
    return "whose bytes are not those that were written" if content.get("samples") != own["samples"] else ""


def _number(value: Any) -> str:
    return f"{value:,}" if type(value) is int else "others"


def other_arrays(reader: Reader, content: Mapping[str, Any]) -> str:
    """Return how a file's arrays differ from a record's list, by names, shapes and dtypes; "" if they do not."""
    lines: dict[str, Any] = content.get("tensors", {})
    if not lines:
        return ""
    if lines.keys() != reader.tensors.keys():
        return "which holds other arrays than were written"

    def differs(tensor: Tensor, line: dict[str, Any]) -> bool:
        return list(tensor.shape) != line["shape"] or meant(tensor.dtype) != meant(line["dtype"])

    other = next((name for name, tensor in reader.tensors.items() if differs(tensor, lines[name])), None)
    return "" if other is None else f"whose {other} has another shape or dtype than was written"


def other_values(reader: Reader, content: Mapping[str, Any]) -> tuple[str, str]:
    """Compare small arrays of a file, up to SAMPLED bytes, with the hashes in its record.

    Training changes every array, and programs pass metadata on: a stale record shows here. A change of one large array
    does not: see verification.with_every_value.

    Returns: how the values differ, "" if they do not; and how few were compared, "" if all.
    """
    from convert.files.hashing import HASH, digest

    hashes = {name: line[HASH] for name, line in content.get("tensors", {}).items() if isinstance(line.get(HASH), str)}
    hashed = sorted((t for t in reader.tensors.values() if t.name in hashes), key=lambda tensor: tensor.nbytes)
    sizes = accumulate(tensor.nbytes for tensor in hashed)
    sample = [tensor for tensor, size in zip(hashed, sizes, strict=True) if size <= SAMPLED]
    for tensor in sample:
        try:
            same = digest(reader, tensor.name) == hashes[tensor.name]
        except FormatError:  # a damaged payload, which reading it will report
            same = False
        if not same:
            return f"whose {tensor.name} has other values than were written", ""
    if hashed:
        few = f"was compared with the {len(sample)} smallest of {len(hashed)} arrays of the file, which is quick"
        few = f"{few if sample else 'was not compared with the large arrays of the file'} (verify compares all)"
        return "", few if len(sample) < len(hashed) else ""
    return "", "has no hashes to check the file's values by, which may be others" if content.get("tensors") else ""

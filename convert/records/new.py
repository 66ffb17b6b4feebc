"""Build the record of a conversion, as long as it will be before any payload is known."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from convert.arrays.dtypes import LOSSES
from convert.files.base import Tensor


def complete(facts: dict[str, Any], lines: dict[str, Any], sha256: str | None) -> dict[str, Any]:
    """Build the record of a conversion.

    Args:
      facts: what is known before any payload: what the target is and where it comes from.
      lines: of each tensor: shape, dtype, hash and what it lost.
      sha256: of the source; None if it was not hashed.
    Returns: the record; its "lossy" lists what this and earlier conversions lost.
    """
    lossy = {name: line for name, line in lines.items() if "lossy" in line}
    earlier = facts.get("lossy", [])
    if lossy:
        counts = {kind: sum(line["lossy"].get(kind, 0) for line in lossy.values()) for kind in LOSSES}
        dtypes = sorted({line["dtype"] for line in lossy.values()})
        earlier = [*earlier, {"dtype": ", ".join(dtypes), "tensors": len(lossy), **counts}]
    source = {**facts["source"], "sha256": sha256}
    return {**facts, "source": source, **({"lossy": earlier} if earlier else {}), "tensors": lines}


def blank(facts: dict[str, Any], tensors: Iterable[Tensor], hashed: bool) -> dict[str, Any]:
    """Build the record as long as it will be, before any payload is known."""
    from convert.files.hashing import NO_HASH, NO_SHA256, described

    lines = {tensor.name: described(tensor, NO_HASH if hashed else None) for tensor in tensors}
    return complete(facts, lines, NO_SHA256 if hashed else None)

"""List the floating-point dtypes: which hold each other's values, and what a cast can lose."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from convert.errors import UsageError
from specs.kinds import DTYPES

if TYPE_CHECKING:
    from convert.files.base import Tensor

FLOATS = DTYPES  # to convert to, too
LOSSES = {  # what a cast does to values -> how reports word it
    "zeros": "became zero", "infinities": "became infinite",
    "imprecise": "lost precision (below the smallest normal number)",
}  # fmt: skip


def listed(tensors: Iterable[Tensor]) -> str:
    """List the dtypes of tensors, each once: "bfloat16, float32"."""
    return ", ".join(sorted({tensor.dtype for tensor in tensors}))


def is_exact(source: str, target: str) -> bool:
    """Tell whether the target dtype has every value of the source dtype."""
    return source == target or target in WIDER.get(source, ())


def check_target(dtype: str | None) -> None:
    """Check a dtype to convert to; None converts to none. Raises: UsageError that names the nearest one."""
    if dtype is not None and not isinstance(dtype, str):
        raise UsageError(f"dtype={dtype!r}: give its name, one of {', '.join(FLOATS)}")
    if dtype is not None and dtype not in FLOATS:
        from specs.words import FAR, hint

        raise UsageError(f"no dtype {dtype!r}{hint(dtype, FLOATS, FAR)} (one of {', '.join(FLOATS)})")


WIDER = {
    "float8_e4m3fn": ("float16", "bfloat16", "float32", "float64"),
    "float8_e5m2": ("float16", "bfloat16", "float32", "float64"),
    "float16": ("float32", "float64"),
    "bfloat16": ("float32", "float64"),
    "float32": ("float64",),
}

"""List names, dtypes and devices of the arrays of a JAX model."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from convert.errors import UsageError

from .base import complex_of
from .inputs import is_image


def slashed(path: Sequence[Any]) -> str:
    """Name a path as linen does: ("params", "blocks", 3, "norm1", "scale") -> "params/blocks_3/norm1/scale"."""
    parts: list[str] = []
    for part in map(str, path):
        if part.isdigit() and len(parts) > 1:
            parts[-1] += f"_{part}"
        else:
            parts.append(part)
    return "/".join(parts)


def distinct(named: Iterable[tuple[str, Any]]) -> dict[str, Any]:
    """Build a dict. Raises: UsageError where two arrays come to bear one name."""
    arrays: dict[str, Any] = {}
    for name, value in named:
        if name in arrays:
            raise UsageError(f"two arrays of the model are both called {name!r}: rename a module")
        arrays[name] = value
    return arrays


def floating(tree: Any) -> str:
    """Return the dtype of the first array of real or complex numbers, float32 if there is none."""
    kinds = [jnp.finfo(a.dtype).dtype.name for a in jax.tree.leaves(tree) if jnp.issubdtype(a.dtype, jnp.inexact)]
    return str(kinds[0]) if kinds else "float32"


def device_of(tree: Any) -> str:
    """Return "gpu" or "cpu", where the first array is."""
    arrays = [a for a in jax.tree.leaves(tree) if isinstance(a, jax.Array)]
    return "gpu" if arrays and next(iter(arrays[0].devices())).platform in ("gpu", "cuda", "rocm") else "cpu"


def cast(tree: Any, dtype: str) -> Any:
    """Convert the floating-point arrays of a pytree, and its complex ones to that precision."""
    if dtype == "float64":
        jax.config.update("jax_enable_x64", True)
    wide = complex_of(dtype)

    def convert(array: Any) -> Any:
        real = dtype if jnp.issubdtype(array.dtype, jnp.floating) else wide
        return array.astype(real) if jnp.issubdtype(array.dtype, jnp.inexact) else array

    return jax.tree.map(convert, tree)


def is_array(value: Any) -> bool:
    return isinstance(value, jax.Array)


def outward(array: jax.Array, axes: int = 4) -> np.ndarray:
    """Copy to numpy; images, which have so many axes, come out with channels second: (n, h, w, c) as (n, c, h, w)."""
    return np.moveaxis(to_numpy(array), -1, 1) if is_image(array, axes) else to_numpy(array)


def to_numpy(array: jax.Array) -> np.ndarray:
    """Copy to numpy; bfloat16 comes out as float32."""
    return np.asarray(array.astype(jnp.float32) if array.dtype == jnp.bfloat16 else array)

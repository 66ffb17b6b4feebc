"""Form the gradients of large dense kernels outside of JAX's program, in which each takes its memory three times.

A kernel's gradient is the product of what it multiplies and of the gradient at its result. To get the latter, zeros are
added to the result, and the gradient by these zeros is taken.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend import core

from parity.derive.limits import LARGE_GRADIENT, LARGE_MATRIX

from .jax_wide import voids
from .outer import Outer, outer
from .tape import Array


def dense_kernels(jaxpr: Any, names: Mapping[Any, str]) -> dict[str, Any]:
    """Return {name: equation} of the large matrices that one product alone reads, as its right operand.

    Args:
      names: of the variables of the equations that are parameters.
    """
    origins = dict(names)
    uses: dict[str, list[Any]] = {}
    for eqn in jaxpr.eqns:
        operands = [None if isinstance(atom, core.Literal) else origins.get(atom) for atom in eqn.invars]
        if voids(eqn) and operands[0] is not None:
            origins[eqn.outvars[0]] = operands[0]
            continue
        for place, name in enumerate(operands):
            if name is not None:
                uses.setdefault(name, []).append(eqn if place == 1 else None)
    for atom in jaxpr.outvars:
        if not isinstance(atom, core.Literal) and atom in origins:
            uses.setdefault(origins[atom], []).append(None)
    large = {
        name for variable, name in names.items() if variable.aval.ndim == 2 and variable.aval.size >= LARGE_GRADIENT
    }
    single = {name: eqns[0] for name, eqns in uses.items() if len(eqns) == 1 and name in large}
    return {name: eqn for name, eqn in single.items() if eqn is not None and _is_dense(eqn)}


def _is_dense(eqn: Any) -> bool:
    if eqn.primitive.name != "dot_general":
        return False
    contracted, batch = eqn.params["dimension_numbers"]
    return [len(axes) for axes in (*contracted, *batch)] == [1, 1, 0, 0]


def formed(eqn: Any, operand: Array, gradient: Array) -> Outer | Array:
    """Return the gradient by a kernel.

    Args:
      eqn: its product. operand: what it multiplies. gradient: by the result of the product.
    """
    (left, right), _ = eqn.params["dimension_numbers"]
    rows = np.moveaxis(operand, left[0], -1).reshape(-1, operand.shape[left[0]])
    columns = gradient.reshape(len(rows), -1)
    return outer(rows, columns) if right[0] == 0 else outer(columns, rows)


def multiplied(eqn: Any, operand: Any, kernel: Any) -> Any:
    """Return the product with a kernel in float64; one of float32 is widened piece by piece, which bounds memory.

    Args:
      eqn: the product. operand: what it multiplies.
    """
    (left, right), _ = eqn.params["dimension_numbers"]
    moved = jnp.moveaxis(operand, left[0], -1)
    rows = moved.reshape(-1, moved.shape[-1])
    product = _by_rows if right[0] == 0 else _by_columns
    return product(rows, kernel).reshape(*moved.shape[:-1], -1)


def _pieces(kernel: Any, add: Any, start: Any) -> Any:
    """Return what add(sum, first row, piece) makes of a start with each piece of a kernel's rows."""
    step = min(len(kernel), max(1, LARGE_MATRIX // kernel.shape[1]))
    whole = len(kernel) // step

    def body(k: Any, sum: Any) -> Any:
        piece = jax.lax.dynamic_slice_in_dim(kernel, k * step, step)
        return add(sum, k * step, piece.astype(np.float64))

    sum = jax.lax.fori_loop(0, whole, body, start)
    return add(sum, whole * step, kernel[whole * step :].astype(np.float64)) if whole * step < len(kernel) else sum


def _with_rows(rows: Any, kernel: Any) -> Any:
    """Return rows @ kernel."""

    def add(sum: Any, at: Any, piece: Any) -> Any:
        return sum + jax.lax.dynamic_slice_in_dim(rows, at, len(piece), 1) @ piece

    return _pieces(kernel, add, jnp.zeros((len(rows), kernel.shape[1])))


def _with_columns(rows: Any, kernel: Any) -> Any:
    """Return rows @ kernel.T."""

    def add(sum: Any, at: Any, piece: Any) -> Any:
        return jax.lax.dynamic_update_slice_in_dim(sum, rows @ piece.T, at, 1)

    return _pieces(kernel, add, jnp.zeros((len(rows), len(kernel))))


def _without_gradient(product: Any, transposed: Any) -> Any:
    """Return a product whose gradient is taken by the rows alone: that by the kernel is formed elsewhere."""
    function = jax.custom_vjp(product)
    function.defvjp(lambda rows, kernel: (product(rows, kernel), kernel), lambda w, out: (transposed(out, w), None))
    return function


_by_rows = _without_gradient(_with_rows, _with_columns)
_by_columns = _without_gradient(_with_columns, _with_rows)

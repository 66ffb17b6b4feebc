"""Form the gradients of large dense kernels outside of JAX's program, in which each takes its memory three times.

A kernel's gradient is the product of what it multiplies and of the gradient at its result. To get the latter, zeros are
added to the result, and the gradient by these zeros is taken.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from jax.extend import core

from parity.derive.limits import LARGE_GRADIENT

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

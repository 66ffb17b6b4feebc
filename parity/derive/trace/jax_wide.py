"""Run what JAX has recorded with its casts to lower precision made void.

A model of JAX that computes in float32 does so by casts in its own code. Rounding then moves values across the kinks of
its activations and poolings, which changes gradients far more than outputs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax.extend import core

from .jax_recorder import CALLS
from .jax_values import BITS, DTYPES, LOW, array_of

Seen = Callable[[Any, list[Any], list[Any]], list[Any]]
VOID = frozenset(["convert_element_type", "reduce_precision"])


def lowers(jaxpr: Any) -> frozenset[str]:
    """Return the dtypes of lower precision than float64 in which equations compute."""
    found = set[str]()
    for eqn in jaxpr.eqns:
        found |= {atom.aval.dtype.name for atom in (*eqn.invars, *eqn.outvars) if _low(atom)}
        found = found.union(*(lowers(inner) for inner, _ in _inner(eqn)))
    return frozenset(found)


def may_widen(jaxpr: Any) -> bool:
    """Tell whether `widened` can run these equations: loops and branches in lower precision have types of their own."""
    return all(
        may_widen(inner) if eqn.primitive.name in CALLS else not lowers(inner)
        for eqn in jaxpr.eqns
        for inner, _ in _inner(eqn)
    )


def voids(eqn: Any) -> bool:
    """Tell whether an equation is a cast to lower precision, which `widened` leaves out."""
    return bool(
        eqn.primitive.name in VOID and _low(eqn.outvars[0]) and jnp.issubdtype(eqn.invars[0].aval.dtype, jnp.floating)
    )


def widened(jaxpr: Any, constants: Sequence[Any], arguments: Sequence[Any], seen: Seen | None = None) -> list[Any]:
    """Return the results of equations, all in float64; functions with derivatives of their own are written out.

    Args:
      seen: returns the result to take for (equation, its operands, its results), of the outermost equations.
    """
    values = dict(zip([*jaxpr.constvars, *jaxpr.invars], [*map(array_of, constants), *arguments], strict=True))

    def read(atom: Any) -> Any:
        if not isinstance(atom, core.Literal):
            return values[atom]
        return array_of(atom.val) if _low(atom) else atom.val

    for eqn in jaxpr.eqns:
        operands = list(map(read, eqn.invars))
        results = _results(eqn, operands)
        values.update(zip(eqn.outvars, seen(eqn, operands, results) if seen else results, strict=True))
    return list(map(read, jaxpr.outvars))


def _results(eqn: Any, operands: list[Any]) -> list[Any]:
    if voids(eqn):
        return operands
    if eqn.primitive.name in CALLS and any(lowers(inner) for inner, _ in _inner(eqn)):
        return widened(*next(_inner(eqn)), operands)
    if eqn.primitive.name == BITS:
        return [_wide(eqn.primitive.bind(operands[0].astype(eqn.invars[0].aval.dtype), **eqn.params))]
    params = eqn.primitive.get_bind_params(eqn.params)
    functions, params = params if isinstance(params, tuple) else ((), params)  # before and since JAX 0.10
    wide = {key: np.dtype(np.float64) for key in DTYPES if params.get(key) is not None and _is_low(params[key])}
    found = eqn.primitive.bind(*functions, *operands, **{**params, **wide})
    return list(found) if eqn.primitive.multiple_results else [found]


def _inner(eqn: Any) -> Iterator[tuple[Any, Sequence[Any]]]:
    """Yield (jaxpr, constants) of those that an equation runs."""
    for value in eqn.params.values():
        for closed in value if isinstance(value, (list, tuple)) else (value,):
            if hasattr(closed, "jaxpr"):
                yield closed.jaxpr, closed.consts
            elif hasattr(closed, "eqns"):
                yield closed, ()


def _wide(array: Any) -> Any:
    return array.astype(np.float64) if _is_low(array.dtype) else array


def _low(atom: Any) -> bool:
    return _is_low(getattr(atom.aval, "dtype", None))


def _is_low(dtype: Any) -> bool:
    return getattr(dtype, "name", str(dtype)) in LOW

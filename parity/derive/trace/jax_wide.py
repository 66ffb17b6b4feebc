"""Run what JAX has recorded with its casts to lower precision made void.

A model of JAX that computes in float32 does so by casts in its own code. Rounding then moves values across the kinks of
its activations and poolings, which changes gradients far more than outputs.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np

from .jax_recorder import CALLS
from .jax_values import BITS, DTYPES, LOW, array_of, computed, evaluated, inner

Instead = Callable[[Any, list[Any]], list[Any] | None]
VOID = frozenset(["convert_element_type", "reduce_precision"])


def lowers(jaxpr: Any) -> frozenset[str]:
    """Return the dtypes of lower precision than float64 in which equations compute."""
    dtypes = set[str]()
    for eqn in jaxpr.eqns:
        dtypes |= {atom.aval.dtype.name for atom in (*eqn.invars, *eqn.outvars) if _low(atom)}
        dtypes = dtypes.union(*(lowers(each) for each, _ in inner(eqn)))
    return frozenset(dtypes)


def may_widen(jaxpr: Any) -> bool:
    """Tell whether `widened` can run these equations: loops and branches in lower precision have types of their own."""
    return all(
        may_widen(each) if eqn.primitive.name in CALLS else not lowers(each)
        for eqn in jaxpr.eqns
        for each, _ in inner(eqn)
    )


def voids(eqn: Any) -> bool:
    """Tell whether an equation is a cast to lower precision, which `widened` leaves out."""
    return bool(
        eqn.primitive.name in VOID and _low(eqn.outvars[0]) and jnp.issubdtype(eqn.invars[0].aval.dtype, jnp.floating)
    )


def widened(
    jaxpr: Any, constants: Sequence[Any], arguments: Sequence[Any], instead: Instead = lambda *_: None
) -> list[Any]:
    """Return the results of equations, all in float64; functions with derivatives of their own are written out.

    Args:
      instead: returns the results to take for (equation, its operands), of the outermost equations; None for its own.
    """

    def results(eqn: Any, operands: list[Any]) -> list[Any]:
        others = instead(eqn, operands)
        return _results(eqn, operands) if others is None else others

    def literal(atom: Any) -> Any:
        return array_of(atom.val) if _low(atom) else atom.val

    return evaluated(jaxpr, list(map(array_of, constants)), arguments, results, literal)


def _results(eqn: Any, operands: list[Any]) -> list[Any]:
    if voids(eqn):
        return operands
    if eqn.primitive.name in CALLS and any(lowers(each) for each, _ in inner(eqn)):
        return widened(*next(inner(eqn)), operands)
    if eqn.primitive.name == BITS:
        return [_wide(eqn.primitive.bind(operands[0].astype(eqn.invars[0].aval.dtype), **eqn.params))]
    return computed(eqn, operands, **{key: np.dtype(np.float64) for key in DTYPES if _is_low(eqn.params.get(key))})


def _wide(array: Any) -> Any:
    return array.astype(np.float64) if _is_low(array.dtype) else array


def _low(atom: Any) -> bool:
    return _is_low(getattr(atom.aval, "dtype", None))


def _is_low(dtype: Any) -> bool:
    return getattr(dtype, "name", str(dtype)) in LOW

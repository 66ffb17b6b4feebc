"""Run grouped convolutions of JAX group by group.

XLA on a CPU computes those of float64 as dense convolutions with kernels of channels x channels, most of them zeros: a
depthwise one of 1,000 channels and 5 x 5 taps takes 200 MB and many seconds.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
from jax.tree_util import tree_structure, tree_unflatten

from .jax_recorder import CALLS
from .jax_values import computed, evaluated, inner

PLAIN = frozenset(name for name in CALLS if not name.startswith("custom_"))  # without a derivative of their own
MANY = 8  # groups from which on the detour pays


def by_groups(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return the same function, with its grouped convolutions computed group by group."""

    def run(*args: Any) -> Any:
        closed, shape = jax.make_jaxpr(function, return_shape=True)(*args)
        if not _grouped(closed.jaxpr):
            return function(*args)
        results = evaluated(closed.jaxpr, closed.consts, jax.tree_util.tree_leaves(args), _results)
        return tree_unflatten(tree_structure(shape), results)

    return run


def _many(eqn: Any) -> bool:
    return bool(eqn.primitive.name == "conv_general_dilated" and eqn.params["feature_group_count"] >= MANY)


def _grouped(jaxpr: Any) -> bool:
    """Tell whether there is a convolution of many groups."""
    return any(_many(eqn) or _calls_grouped(eqn) for eqn in jaxpr.eqns)


def _calls_grouped(eqn: Any) -> bool:
    return eqn.primitive.name in PLAIN and _grouped(next(inner(eqn))[0])


def _results(eqn: Any, operands: list[Any]) -> list[Any]:
    if _many(eqn):
        return [_convolved(eqn, *operands)]
    return evaluated(*next(inner(eqn)), operands, _results) if _calls_grouped(eqn) else computed(eqn, operands)


def _convolved(eqn: Any, x: Any, w: Any) -> Any:
    """Return a convolution as one for each group, in a loop."""
    params = {**eqn.params, "feature_group_count": 1}
    groups, layout = eqn.params["feature_group_count"], eqn.params["dimension_numbers"]

    def split(array: Any, axis: int) -> Any:
        shape = (*array.shape[:axis], groups, array.shape[axis] // groups, *array.shape[axis + 1 :])
        return jax.numpy.moveaxis(array.reshape(shape), axis, 0)

    pairs = split(x, layout.lhs_spec[1]), split(w, layout.rhs_spec[0])
    parts = jax.lax.map(lambda pair: eqn.primitive.bind(*pair, **params), pairs)
    axis = layout.out_spec[1]
    return jax.numpy.moveaxis(parts, 0, axis).reshape(eqn.outvars[0].aval.shape)

"""Run grouped convolutions of JAX group by group.

XLA on a CPU computes those of float64 as dense convolutions with kernels of channels x channels, most of them zeros: a
depthwise one of 1,000 channels and 5 x 5 taps takes 200 MB and many seconds.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax
from jax.extend import core
from jax.tree_util import tree_structure, tree_unflatten

from .jax_recorder import CALLS

PLAIN = frozenset(name for name in CALLS if not name.startswith("custom_"))  # without a derivative of their own
MANY = 8  # groups from which on the detour pays


def by_groups(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return the same function, with its grouped convolutions computed group by group."""

    def run(*args: Any) -> Any:
        closed, shape = jax.make_jaxpr(function, return_shape=True)(*args)
        if not _grouped(closed.jaxpr):
            return function(*args)
        results = _evaluated(closed.jaxpr, closed.consts, jax.tree_util.tree_leaves(args))
        return tree_unflatten(tree_structure(shape), results)

    return run


def _called(eqn: Any) -> tuple[Any, Sequence[Any]] | None:
    """Return (jaxpr, constants) of a call."""
    if eqn.primitive.name not in PLAIN:
        return None
    closed = next(eqn.params[key] for key in ("jaxpr", "call_jaxpr") if key in eqn.params)
    return (closed.jaxpr, closed.consts) if hasattr(closed, "jaxpr") else (closed, ())


def _many(eqn: Any) -> bool:
    return bool(eqn.primitive.name == "conv_general_dilated" and eqn.params["feature_group_count"] >= MANY)


def _grouped(jaxpr: Any) -> bool:
    """Tell whether there is a convolution of many groups."""
    return any(_many(eqn) or ((called := _called(eqn)) and _grouped(called[0])) for eqn in jaxpr.eqns)


def _evaluated(jaxpr: Any, constants: Sequence[Any], arguments: Sequence[Any]) -> list[Any]:
    values = dict(zip([*jaxpr.constvars, *jaxpr.invars], [*constants, *arguments], strict=True))

    def read(atom: Any) -> Any:
        return atom.val if isinstance(atom, core.Literal) else values[atom]

    for eqn in jaxpr.eqns:
        operands = list(map(read, eqn.invars))
        if _many(eqn):
            results = [_convolved(eqn, *operands)]
        elif (called := _called(eqn)) and _grouped(called[0]):
            results = _evaluated(*called, operands)
        else:
            params = eqn.primitive.get_bind_params(eqn.params)
            functions, params = params if isinstance(params, tuple) else ((), params)  # before and since JAX 0.10
            out = eqn.primitive.bind(*functions, *operands, **params)
            results = out if eqn.primitive.multiple_results else [out]
        values.update(zip(eqn.outvars, results, strict=True))
    return list(map(read, jaxpr.outvars))


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

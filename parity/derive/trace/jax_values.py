"""Evaluate jaxprs: equation by equation, or one equation on numpy arrays; make arrays of JAX."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend import core

from convert.errors import UsageError
from parity.derive.limits import LARGE_DRAW

from .frames import line_of

LOW = ("float32", "bfloat16", "float16")
DTYPES = ("dtype", "new_dtype", "preferred_element_type")  # parameters of equations that name the dtype of a result
BITS = "bitcast_convert_type"  # takes the same bits as another dtype, as JAX makes random numbers of integers
_ERF = np.frompyfunc(math.erf, 1, 1)
NUMPY: dict[str, Callable[..., Any]] = {
    "exp": np.exp, "log": np.log, "tanh": np.tanh, "sqrt": np.sqrt, "sin": np.sin, "cos": np.cos, "neg": np.negative,
    "max": np.maximum, "min": np.minimum, "abs": np.abs, "sign": np.sign, "square": np.square, "floor": np.floor,
    "log1p": np.log1p, "expm1": np.expm1, "eq": np.equal, "ne": np.not_equal, "lt": np.less, "le": np.less_equal,
    "gt": np.greater, "ge": np.greater_equal,
    "rsqrt": lambda a: 1 / np.sqrt(a), "logistic": lambda a: 1 / (1 + np.exp(-a)), "exp2": np.exp2, "pow": np.power,
    "and": np.bitwise_and, "or": np.bitwise_or, "xor": np.bitwise_xor, "not": np.invert, "is_finite": np.isfinite,
    "erf": lambda a: np.asarray(_ERF(a), np.float64),
    "select_n": lambda which, *cases: np.choose(np.asarray(which, int), cases),
    "clamp": lambda low, a, high: np.clip(a, low, high),
}  # fmt: skip  # what numpy does alike; all else is run by JAX, which compiles it for each shape
BY_PARAMETERS: dict[str, Callable[[Any], Callable[..., Any]]] = {
    "reduce_sum": lambda p: lambda a: np.sum(a, p["axes"]),
    "reduce_max": lambda p: lambda a: np.max(a, p["axes"]),
    "reduce_min": lambda p: lambda a: np.min(a, p["axes"]),
    "reduce_prod": lambda p: lambda a: np.prod(a, p["axes"]),
    "reduce_and": lambda p: lambda a: np.all(a, p["axes"]),
    "reduce_or": lambda p: lambda a: np.any(a, p["axes"]),
    "argmax": lambda p: lambda a: np.argmax(a, p["axes"][0]),
    "cumsum": lambda p: (
        lambda a: np.flip(np.flip(a, p["axis"]).cumsum(p["axis"]), p["axis"]) if p["reverse"] else a.cumsum(p["axis"])
    ),
    "integer_pow": lambda p: lambda a: a ** p["y"] if p["y"] >= 0 else 1 / a ** -p["y"],
}  # the same for what has parameters


def evaluated(
    jaxpr: Any, constants: Sequence[Any], arguments: Sequence[Any], results: Callable[[Any, list[Any]], Sequence[Any]],
    literal: Callable[[Any], Any] = lambda atom: atom.val,
) -> list[Any]:  # fmt: skip
    """Return what a jaxpr returns.

    Args:
      results: returns those of an equation, from its operands. literal: returns what an operand in its text stands for.
    """
    values = dict(zip([*jaxpr.constvars, *jaxpr.invars], [*constants, *arguments], strict=True))

    def read(atom: Any) -> Any:
        return literal(atom) if isinstance(atom, core.Literal) else values[atom]

    for eqn in jaxpr.eqns:
        values.update(zip(eqn.outvars, results(eqn, list(map(read, eqn.invars))), strict=True))
    return list(map(read, jaxpr.outvars))


def computed(eqn: Any, operands: Sequence[Any], **others: Any) -> list[Any]:
    """Return the results of an equation as JAX computes them. Args: others: parameters in place of its own."""
    params = eqn.primitive.get_bind_params(eqn.params)
    functions, params = params if isinstance(params, tuple) else ((), params)  # before and since JAX 0.10
    out = eqn.primitive.bind(*functions, *operands, **{**params, **others})
    return list(out) if eqn.primitive.multiple_results else [out]


def inner(eqn: Any) -> Iterator[tuple[Any, Sequence[Any]]]:
    """Yield (jaxpr, constants) of those that an equation runs: the only one of a call."""
    for value in eqn.params.values():
        for closed in value if isinstance(value, (list, tuple)) else (value,):
            if hasattr(closed, "jaxpr"):
                yield closed.jaxpr, closed.consts
            elif hasattr(closed, "eqns"):
                yield closed, ()


def array_of(value: Any) -> Any:
    """Return a numpy array, of float64 if it is of a lower precision; keys of random numbers stay as they are."""
    if isinstance(value, jax.Array) and jnp.issubdtype(value.dtype, jax.dtypes.extended):
        return value
    array = np.asarray(value)
    return array.astype(np.float64) if array.dtype.name in LOW else array


def copied(arrays: Mapping[str, Any], name: str, dtype: Any) -> Any:
    """Return an array of JAX's own. Mappings compute what is read of them: it is freed before the second copy."""
    array = np.asarray(arrays[name], order="C")
    late = array.size >= LARGE_DRAW and array.dtype == np.float32  # such ones JAX widens in less time and memory
    array = array if late else array.astype(dtype, copy=False)
    return jax.block_until_ready(jax.device_put(array, may_alias=False))  # jnp.array makes two copies


def all_wide(copies: dict[str, Any]) -> dict[str, Any]:
    """Widen arrays in place, the largest first: each is in memory twice meanwhile, when no others are wide."""
    for name in copies:
        copies[name] = jax.block_until_ready(widest(copies[name]))
    return copies


def widest(array: Any) -> Any:
    """Return an array of real numbers in float64, or in float32 where 64 bits are off; others as they are."""
    return array.astype(jnp.result_type(float)) if jnp.issubdtype(array.dtype, jnp.floating) else array


def layout_of(name: str, p: Mapping[str, Any], eqn: Any) -> Callable[..., Any] | None:
    """Tell how an equation that only moves elements acts on numpy arrays; None for others."""
    shape = eqn.outvars[0].aval.shape
    if name == "reshape" and (order := p["dimensions"]) is not None:  # as of a convolution under vmap
        return lambda a, *_: np.reshape(np.transpose(a, order), shape)
    if name in ("reshape", "squeeze", "expand_dims"):
        return lambda a, *_: np.reshape(a, shape)
    if name == "transpose":
        return lambda a: np.transpose(a, p["permutation"])
    if name == "broadcast_in_dim":
        rank, dims = len(p["shape"]), p["broadcast_dimensions"]

        def broadcast(a: Any, *_: Any) -> Any:
            sizes = [1] * rank
            for d, n in zip(dims, np.shape(a), strict=True):
                sizes[d] = n
            return np.broadcast_to(np.reshape(a, sizes), p["shape"])

        return broadcast
    if name == "slice":
        whole, limits = eqn.invars[0].aval.shape, p["limit_indices"]
        ends = (None if end == n else end for end, n in zip(limits, whole, strict=True))  # as code that names no end
        where = tuple(map(slice, p["start_indices"], ends, p["strides"] or (1,) * len(shape)))
        return lambda a: a[where]
    if name == "rev":
        return lambda a: np.flip(a, p["dimensions"])
    if name == "tile":
        return lambda a: np.tile(a, p["reps"])
    if name == "concatenate":
        return lambda *arrays: np.concatenate(arrays, p["dimension"])
    if name == "stack":
        return lambda *arrays: np.stack(arrays, p["axis"])
    if name in ("gather", "scatter", "dynamic_slice", "dynamic_update_slice"):
        return bound(eqn, element_numbers=True)
    return None


def bound(eqn: Any, element_numbers: bool = False) -> Callable[..., Any]:
    """Run an equation by JAX, in float64; one that takes the bits of its operands in its own dtypes."""
    params = dict(eqn.params)
    closed = any(True for _ in inner(eqn)) or eqn.primitive.name == BITS
    if not closed:
        for key in DTYPES:
            if params.get(key) is not None and np.dtype(params[key]).name in LOW:
                params[key] = np.dtype(np.float64)
    if element_numbers and "fill_value" in params:
        params["fill_value"] = 0
    dtypes = [v.aval.dtype for v in eqn.invars]

    def run(*arrays: Any) -> Any:
        with jax.enable_x64(True):
            given = [
                a if isinstance(a, jax.Array) else jnp.asarray(a, d if closed or _integers(a, d) else None)
                for a, d in zip(arrays, dtypes, strict=True)
            ]
            out = eqn.primitive.bind(*given, **params)
            return tuple(map(array_of, out)) if eqn.primitive.multiple_results else array_of(out)

    return run


def _integers(array: Any, dtype: Any) -> bool:
    """Tell whether an array has integers as the equation has, which NumPy may have widened."""
    return np.asarray(array).dtype.kind in "iu" and jnp.issubdtype(dtype, jnp.integer)


def traced(function: Callable[..., Any], *arguments: Any) -> Any:
    """Return what a function returns while it is traced, which may read numbers of its own, as int(jnp.max(mask)).

    These are computed at once where the code asks for them, if they depend on no argument. Raises: UsageError.
    """
    try:
        return function(*arguments)
    except jax.errors.ConcretizationTypeError:
        try:
            with jax.ensure_compile_time_eval():
                return function(*arguments)
        except jax.errors.ConcretizationTypeError as error:
            where = ": ".join(filter(None, [line_of(error), "reads a number that depends on inputs or parameters"]))
            remedy = "derive records a model of JAX under jax.jit, where none can be read: compute with arrays there"
            raise UsageError(f"cannot be recorded: {where}: {remedy}") from error

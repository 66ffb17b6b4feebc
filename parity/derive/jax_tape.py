"""Tapes of linen and nnx modules and of any JAX function of (parameters, inputs), from their jaxprs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from operator import itemgetter
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend import core

from .call import Call, flatten, rebuild
from .tape import Tape

QUICK = {"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True}  # models run once or twice
LOW = ("float32", "bfloat16", "float16")
CALLS = frozenset(
    [
        "pjit",
        "jit",
        "closed_call",
        "core_call",
        "remat",
        "remat2",
        "checkpoint",
        "custom_jvp_call",
        "custom_vjp_call",
        "custom_vjp_call_jaxpr",
        "custom_lin",
    ]
)
SAME = frozenset(
    [
        "copy",
        "copy_p",
        "stop_gradient",
        "optimization_barrier",
        "reduce_precision",
        "sharding_constraint",
    ]
)
NUMPY: dict[str, Callable[..., Any]] = {
    "exp": np.exp, "log": np.log, "tanh": np.tanh, "sqrt": np.sqrt, "sin": np.sin, "cos": np.cos, "neg": np.negative,
    "max": np.maximum, "min": np.minimum, "abs": np.abs, "sign": np.sign, "square": np.square, "floor": np.floor,
    "log1p": np.log1p, "expm1": np.expm1, "eq": np.equal, "ne": np.not_equal, "lt": np.less, "le": np.less_equal,
    "gt": np.greater, "ge": np.greater_equal,
    "rsqrt": lambda a: 1 / np.sqrt(a), "logistic": lambda a: 1 / (1 + np.exp(-a)), "exp2": np.exp2, "pow": np.power,
    "and": np.bitwise_and, "or": np.bitwise_or, "xor": np.bitwise_xor, "not": np.invert, "is_finite": np.isfinite,
    "clamp": lambda low, a, high: np.clip(a, low, high),
}  # fmt: skip  # what numpy does alike; all else is run by JAX, which compiles it for each shape
BY_PARAMETERS: dict[str, Callable[[Any], Callable[..., Any]]] = {
    "reduce_sum": lambda p: lambda a: np.sum(a, p["axes"]),
    "reduce_max": lambda p: lambda a: np.max(a, p["axes"]),
    "reduce_min": lambda p: lambda a: np.min(a, p["axes"]),
    "reduce_prod": lambda p: lambda a: np.prod(a, p["axes"]),
    "reduce_and": lambda p: lambda a: np.all(a, p["axes"]),
    "reduce_or": lambda p: lambda a: np.any(a, p["axes"]),
    "integer_pow": lambda p: lambda a: a ** p["y"] if p["y"] >= 0 else 1 / a ** -p["y"],
}  # the same for what has parameters


class JaxSide:
    """A JAX function of a flat dictionary of parameters, in float64.

    Args:
      function: (parameters, args, kwargs) -> result, where parameters is {name: array}.
      parameters: all arrays of the model by name.
    """

    output_axis = -1

    def __init__(self, function: Callable[..., Any], parameters: Mapping[str, Any], call: Call, framework: str = "jax"):
        self.function, self.call, self.framework = function, call, framework
        self.ties: dict[str, str] = {}
        arrays = {name: np.asarray(array) for name, array in parameters.items()}
        self.parameters = {k: a.astype(np.float64) for k, a in arrays.items() if jnp.issubdtype(a.dtype, jnp.floating)}
        self.others = {k: a for k, a in arrays.items() if k not in self.parameters}

    def _outputs(self, parameters: Mapping[str, Any], inputs: Mapping[str, Any]) -> list[Any]:
        args, kwargs = self.call.bind(inputs)
        result = self.call.output(self.function({**self.others, **parameters}, args, kwargs))
        return [leaf for _, leaf in flatten(result) if hasattr(leaf, "dtype")]

    @cached_property
    def _compiled(self) -> Callable[..., Any]:
        return jax.jit(self._outputs, compiler_options=QUICK)

    @cached_property
    def _gradient(self) -> Callable[..., Any]:
        def total(parameters: Any, inputs: Any, weights: Any) -> Any:
            outputs = self._outputs(parameters, inputs)
            return sum((out * weight).sum() for out, weight in zip(outputs, weights, strict=True))

        return jax.jit(jax.grad(total), compiler_options=QUICK)

    def run(self, parameters: Mapping[str, np.ndarray], inputs: Mapping[str, np.ndarray]) -> list[np.ndarray]:
        """The outputs as the user's own code computes them."""
        with jax.enable_x64(True):
            return [np.asarray(leaf) for leaf in self._compiled(_device(parameters), _device(inputs))]

    def gradients(
        self, parameters: Mapping[str, np.ndarray], inputs: Mapping[str, np.ndarray], weights: list[np.ndarray]
    ) -> dict[str, np.ndarray]:
        """Gradients of the outputs' sum, weighted by `weights`."""
        with jax.enable_x64(True):
            grads = self._gradient(_device(parameters), _device(inputs), weights)
            return {name: np.asarray(grad) for name, grad in grads.items()}

    def record(self, parameters: Mapping[str, np.ndarray], inputs: Mapping[str, np.ndarray]) -> Tape:
        """Record the tape of one run, with casts to lower precision voided."""
        with jax.enable_x64(True):
            closed = jax.make_jaxpr(self._outputs)(_device(parameters), _device(inputs))
        tape = Tape()
        numbers = [tape.number() for _ in closed.jaxpr.invars]
        names = sorted(parameters)  # as JAX orders the leaves of a dictionary
        tape.parameters = dict(zip(names, numbers, strict=False))
        order = sorted(inputs)
        by_name = dict(zip(order, numbers[len(names) :], strict=True))
        tape.inputs = [by_name[name] for name in inputs]
        constants = [tape.constant(_array(value)) for value in closed.consts]
        tape.outputs = _Reader(tape).read(closed.jaxpr, constants, numbers)
        return tape


def linen_side(module: Any, variables: Mapping[str, Any], call: Call) -> JaxSide:
    """A linen module with its variables; names are collection/path/leaf."""
    tree = {str(k): v for k, v in variables.items()}
    flat = dict(flatten(tree))

    def function(parameters: Mapping[str, Any], args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
        method = None if call.method == "__call__" else call.method
        return module.apply(rebuild(tree, parameters), *args, **kwargs, method=method)

    return JaxSide(function, flat, call, "linen")


def nnx_side(module: Any, call: Call) -> JaxSide:
    """An nnx module in evaluation mode; names are paths joined by slashes."""
    from flax import nnx

    graph, state = nnx.split(module)
    variables = {"/".join(map(str, path)): (path, variable) for path, variable in nnx.to_flat_state(state)}
    arrays = {name: v.get_value() for name, (_, v) in variables.items() if not isinstance(v, nnx.RngState)}

    def function(parameters: Mapping[str, Any], args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
        flat = [
            (path, variable.replace(parameters[name]) if name in parameters else variable)
            for name, (path, variable) in variables.items()
        ]
        model = nnx.merge(graph, nnx.from_flat_state(flat))
        model.eval()
        method = model if call.method == "__call__" else getattr(model, call.method)
        return method(*args, **kwargs)

    return JaxSide(function, arrays, call, "nnx")


def function_side(function: Callable[..., Any], tree: Any, call: Call) -> JaxSide:
    """A function of (parameters, *inputs); names are paths of the tree joined by slashes."""
    leaves, structure = jax.tree_util.tree_flatten_with_path(tree)
    names = [path_name(path) for path, _ in leaves]

    def called(parameters: Mapping[str, Any], args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
        return function(jax.tree_util.tree_unflatten(structure, [parameters[n] for n in names]), *args, **kwargs)

    return JaxSide(called, dict(zip(names, (leaf for _, leaf in leaves), strict=True)), call)


def path_name(path: Sequence[Any]) -> str:
    """The name of a leaf of a tree: its path joined by slashes."""
    return "/".join(map(_key, path))


def _key(part: Any) -> str:
    return str(next(getattr(part, name) for name in ("key", "idx", "name") if hasattr(part, name)))


def _device(arrays: Mapping[str, Any]) -> dict[str, Any]:
    return {name: jnp.asarray(array) for name, array in arrays.items()}


def _array(value: Any) -> Any:
    """A numpy array, of float64 if it is of a lower precision; keys of random numbers stay as they are."""
    if isinstance(value, jax.Array) and jnp.issubdtype(value.dtype, jax.dtypes.extended):
        return value
    array = np.asarray(value)
    return array.astype(np.float64) if array.dtype.name in LOW else array


class _Reader:
    """Write the equations of jaxprs to a tape; calls and scans are written out."""

    def __init__(self, tape: Tape):
        self.tape = tape

    def read(self, jaxpr: Any, constants: Sequence[int], arguments: Sequence[int], site: str = "") -> list[int]:
        numbers = dict(zip([*jaxpr.constvars, *jaxpr.invars], [*constants, *arguments], strict=True))

        def number(atom: Any) -> int:
            return self.tape.constant(_array(atom.val)) if isinstance(atom, core.Literal) else numbers[atom]

        for eqn in jaxpr.eqns:
            inner = str(eqn.source_info.name_stack)
            results = self._equation(eqn, [number(v) for v in eqn.invars], "/".join(filter(None, (site, inner))))
            numbers.update(zip(eqn.outvars, results, strict=True))
        return [number(v) for v in jaxpr.outvars]

    def _equation(self, eqn: Any, inputs: list[int], site: str) -> list[int]:
        name, params = eqn.primitive.name, eqn.params
        if name in CALLS:
            closed = next(params[key] for key in ("jaxpr", "call_jaxpr", "fun_jaxpr") if key in params)
            jaxpr, constants = (closed.jaxpr, closed.consts) if hasattr(closed, "jaxpr") else (closed, ())
            return self.read(jaxpr, [self.tape.constant(_array(c)) for c in constants], inputs, site)
        if name == "scan":
            return self._scan(params, inputs, site)
        special = getattr(self, f"_{name}", None)
        if special is not None:
            return [special(eqn, inputs, site)]
        if name in SAME:
            return [self.tape.layout(inputs[0], lambda a: a, site)]
        run = _layout_of(name, params, eqn)
        if run is not None and jnp.issubdtype(eqn.outvars[0].aval.dtype, jnp.floating):
            return [self.tape.record("layout", inputs, run, site)]
        if name == "split":
            edges = np.cumsum(params["sizes"])[:-1]
            return [self.tape.layout(inputs[0], _part(edges, params["axis"], k), site) for k in range(len(edges) + 1)]
        if run is None:
            run = BY_PARAMETERS[name](params) if name in BY_PARAMETERS else NUMPY.get(name) or _bound(eqn)
        if not eqn.primitive.multiple_results:
            return [self.tape.record("other", inputs, run, site)]
        every = self.tape.record("other", inputs, run, site)
        return [
            self.tape.record("other", [every], lambda values, k=k: values[k], site) for k in range(len(eqn.outvars))
        ]

    def _scan(self, params: Any, inputs: list[int], site: str) -> list[int]:
        length, fixed, carried = params["length"], params["num_consts"], params["num_carry"]
        closed, steps = params["jaxpr"], range(params["length"])
        constants = [self.tape.constant(_array(c)) for c in closed.consts]
        carry, rows = inputs[fixed : fixed + carried], []
        for t in reversed(steps) if params["reverse"] else steps:
            xs = [self.tape.layout(value, itemgetter(t), site) for value in inputs[fixed + carried :]]
            results = self.read(closed.jaxpr, constants, [*inputs[:fixed], *carry, *xs], f"{site}[{t}]")
            carry = results[:carried]
            rows.append(results[carried:])
        if params["reverse"]:
            rows.reverse()
        stacked = [
            self.tape.record("layout", [row[k] for row in rows], lambda *a: np.stack(a), site)
            for k in range(len(rows[0]) if length else 0)
        ]
        return [*carry, *stacked]

    # Equations with a form of their own.

    def _floating(self, eqn: Any) -> bool:
        return bool(jnp.issubdtype(eqn.outvars[0].aval.dtype, jnp.floating))

    def _add(self, eqn: Any, inputs: list[int], site: str) -> int:
        if not self._floating(eqn):
            return self.tape.record("other", inputs, np.add, site)
        return self.tape.add(inputs[0], inputs[1], site)

    _add_any = _add

    def _sub(self, eqn: Any, inputs: list[int], site: str) -> int:
        if not self._floating(eqn):
            return self.tape.record("other", inputs, np.subtract, site)
        return self.tape.subtract(inputs[0], inputs[1], site)

    def _mul(self, eqn: Any, inputs: list[int], site: str) -> int:
        if not self._floating(eqn):
            return self.tape.record("other", inputs, np.multiply, site)
        return self.tape.multiply(inputs[0], inputs[1], site)

    def _div(self, eqn: Any, inputs: list[int], site: str) -> int:
        if not self._floating(eqn):
            return self.tape.record("other", inputs, _bound(eqn), site)
        return self.tape.divide(inputs[0], inputs[1], site)

    def _convert_element_type(self, eqn: Any, inputs: list[int], site: str) -> int:
        source, target = eqn.invars[0].aval.dtype, np.dtype(eqn.params["new_dtype"])
        if jnp.issubdtype(source, jnp.floating) and jnp.issubdtype(target, jnp.floating):
            return self.tape.layout(inputs[0], lambda a: a, site)
        lifted = np.dtype(np.float64) if target.name in LOW else target
        return self.tape.record("other", inputs, lambda a: np.asarray(a).astype(lifted), site)

    def _dot_general(self, eqn: Any, inputs: list[int], site: str) -> int:
        (left_k, right_k), (left_b, right_b) = eqn.params["dimension_numbers"]
        x, w = (v.aval.shape for v in eqn.invars)
        left_free = [d for d in range(len(x)) if d not in (*left_k, *left_b)]
        right_free = [d for d in range(len(w)) if d not in (*right_k, *right_b)]
        batch, k = _count(x, left_b), _count(x, left_k)
        shape = [*(x[d] for d in left_b), *(x[d] for d in left_free), *(w[d] for d in right_free)]
        left = self.tape.layout(
            inputs[0], lambda a: a.transpose(*left_b, *left_free, *left_k).reshape(batch, _count(x, left_free), k), site
        )
        right = self.tape.layout(
            inputs[1],
            lambda a: a.transpose(*right_b, *right_k, *right_free).reshape(batch, k, _count(w, right_free)),
            site,
        )
        return self.tape.layout(self.tape.product(left, right, site), lambda a: a.reshape(shape), site)

    def _conv_general_dilated(self, eqn: Any, inputs: list[int], site: str) -> int:
        p = eqn.params
        if p["batch_group_count"] != 1:
            return self.tape.record("other", inputs, _bound(eqn), site)
        lhs, rhs, out = p["dimension_numbers"]
        x = self.tape.layout(inputs[0], lambda a: a.transpose(lhs), site)
        w = self.tape.layout(inputs[1], lambda a: a.transpose(rhs), site)
        y = self.tape.convolve(
            x, w, p["window_strides"], list(map(tuple, p["padding"])), p["rhs_dilation"], p["feature_group_count"],
            p["lhs_dilation"], site,
        )  # fmt: skip
        return self.tape.layout(y, lambda a: a.transpose(np.argsort(out)), site)


def _count(shape: Sequence[int], dims: Sequence[int]) -> int:
    return int(np.prod([shape[d] for d in dims], dtype=int))


def _part(edges: Any, axis: int, k: int) -> Callable[[Any], Any]:
    return lambda a: np.split(a, edges, axis)[k]


def _layout_of(name: str, p: Mapping[str, Any], eqn: Any) -> Callable[..., Any] | None:
    """How an equation that only moves elements acts on numpy arrays; None for others."""
    shape = eqn.outvars[0].aval.shape
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
        steps = p["strides"] or (1,) * len(shape)
        where = tuple(map(slice, p["start_indices"], p["limit_indices"], steps))
        return lambda a: a[where]
    if name == "rev":
        return lambda a: np.flip(a, p["dimensions"])
    if name == "concatenate":
        return lambda *arrays: np.concatenate(arrays, p["dimension"])
    if name == "pad" and isinstance(eqn.invars[1], core.Literal) and eqn.invars[1].val == 0:
        return _bound(eqn, element_numbers=True)
    if name in ("gather", "dynamic_slice", "dynamic_update_slice"):
        return _bound(eqn, element_numbers=True)
    return None


def _bound(eqn: Any, element_numbers: bool = False) -> Callable[..., Any]:
    """Run an equation by JAX, in float64."""
    params = dict(eqn.params)
    closed = any(hasattr(v, "jaxpr") or hasattr(v, "eqns") for v in jax.tree.leaves(params, is_leaf=_is_jaxpr))
    if not closed:
        for key in ("dtype", "new_dtype", "preferred_element_type"):
            if params.get(key) is not None and np.dtype(params[key]).name in LOW:
                params[key] = np.dtype(np.float64)
    if element_numbers and "fill_value" in params:
        params["fill_value"] = 0
    dtypes = [v.aval.dtype for v in eqn.invars]

    def run(*arrays: Any) -> Any:
        with jax.enable_x64(True):
            given = [
                a if isinstance(a, jax.Array) else jnp.asarray(a, d if closed else None)
                for a, d in zip(arrays, dtypes, strict=True)
            ]
            out = eqn.primitive.bind(*given, **params)
            return tuple(map(_array, out)) if eqn.primitive.multiple_results else _array(out)

    return run


def _is_jaxpr(leaf: Any) -> bool:
    return hasattr(leaf, "jaxpr") or hasattr(leaf, "eqns")

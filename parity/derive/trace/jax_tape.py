"""Record tapes of linen and nnx modules and of any JAX function of (parameters, inputs), from their jaxprs."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import cached_property
from typing import Any
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend import core

from convert.errors import UsageError
from parity.running.ended import without_end
from specs.words import in_a_row

from .caches import trim
from .call import SHORT_WEIGHTS, WIDE, Call, flatten, rebuild
from .cotangents import GradientSink, Take, cotangents
from .jax_dense import dense_kernels, formed, multiplied
from .jax_groups import by_groups
from .jax_recorder import Reader
from .jax_values import all_wide, array_of, copied, traced, widest
from .jax_wide import lowers, may_widen, widened
from .outputs import Named, Outputs, listed
from .precision import numbers_of_float32
from .program import Program, Refused
from .tape import SHORT, Tape

QUICK = {"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True}  # models run once or twice
# At level 0, gradients of a maximum over an axis are wrong: XLA computes the values a second time with other rounding,
# and finds none of them equal to the largest. At level 1, those of an LSTM in both directions are (jaxlib 0.10.2).
QUICK_GRADIENTS = {**QUICK, "xla_backend_optimization_level": 2}
WIDE_DTYPE = re.compile(r"(float|int)64|complex128")  # what JAX says of dtypes that differ has one of 64 bits


class JaxSide:
    """A JAX function of a flat dictionary of parameters, in float64.

    Args:
      function: (parameters, args, kwargs) -> result, where parameters is {name: array}.
      parameters: all arrays of the model by name. buffers: the names of those that no optimizer trains.
      wide: whether the model's own code can run in float64.
      classes: see Side.
    """

    output_axis = -1
    voided = False
    unset: Sequence[str] = ()

    def __init__(
        self,
        function: Callable[..., Any],
        parameters: Mapping[str, Any],
        call: Call,
        framework: str = "jax",
        buffers: Collection[str] = (),
        classes: Mapping[str, str] | None = None,
    ):
        self.buffers: Collection[str] = buffers
        self.classes: Mapping[str, str] = {} if classes is None else classes  # linen's are filled by each call
        self.function, self.call, self.framework = function, call, framework
        self.ties: dict[str, str] = {}
        self.extra: Sequence[str] = ()
        self.wide, self.named = True, Named()
        self._recorded: Any = None  # the jaxpr of the last tape
        self._programs: dict[Any, Any] = {}  # gradients, compiled for arguments of some shapes
        self._kernels: dict[str, Any] = {}  # large ones, whose gradients are formed from those of these products
        arrays = {name: np.asarray(array) for name, array in parameters.items()}
        self.parameters = {
            k: a if a.dtype.kind == "f" else a.astype(np.float64)
            for k, a in arrays.items()
            if jnp.issubdtype(a.dtype, jnp.floating)
        }
        self.others = {k: a for k, a in arrays.items() if k not in self.parameters}
        self._has_short = any(arrays[name].dtype.itemsize < 4 for name in self.parameters)
        self.complex: Sequence[str] = [k for k, a in self.others.items() if a.dtype.kind == "c" and k not in buffers]
        self._of_jax = {
            k for k, a in parameters.items() if isinstance(a, jax.Array)
        }  # a function may index these alone

    def fix(self, names: Sequence[str]) -> None:
        """Take parameters as arrays that are none: they keep the model's own values."""
        kept = {name: self.parameters.pop(name).astype(np.float64) for name in names}
        self.others |= kept

    def _outputs(self, parameters: Mapping[str, Any], inputs: Mapping[str, Any], wide: bool = True) -> list[Any]:
        args, kwargs = self.call.bind(inputs)
        dtypes = WIDE if wide else {}
        others = {name: array.astype(dtypes.get(array.dtype.kind, array.dtype)) for name, array in self.others.items()}
        others = {name: jnp.asarray(array) if name in self._of_jax else array for name, array in others.items()}
        with without_end(), numbers_of_float32(jnp, self.parameters):
            result = self.call.output(traced(self.function, {**others, **parameters}, args, kwargs))
        leaves = listed(result, lambda leaf: hasattr(leaf, "dtype"))
        self.named = Named.of(leaves)
        return [leaf for _, leaf in leaves if leaf is not None]

    def _evaluated(self, parameters: Mapping[str, Any], inputs: Mapping[str, Any]) -> list[Any]:
        """Return the outputs from what was recorded, if that has these shapes: tracing the user's code takes longer."""
        leaves = [tree[name] for tree in (parameters, inputs) for name in sorted(tree)]
        wanted = self._recorded.in_avals if self._recorded is not None and self.wide else []
        if [(leaf.shape, leaf.dtype) for leaf in leaves] != [(aval.shape, aval.dtype) for aval in wanted]:
            return self._outputs(parameters, inputs)
        return core.jaxpr_as_fun(self._recorded)(*leaves)

    def _replayed(
        self, parameters: Mapping[str, np.ndarray], inputs: Mapping[str, np.ndarray]
    ) -> list[np.ndarray] | None:
        """Return the outputs for inputs of other shapes than the recorded ones, from a tape that is run once.

        That takes less time than to compile a program for them. Nothing is rounded to float32 there, which is
        within what the limits of comparisons allow for. Return None where XLA has to compute: in 16 bits, what no tape
        can run, and for the recorded shapes, for which it has a program.
        """
        if self._recorded is None or not self.wide or parameters.keys() != self.parameters.keys():
            return None
        shapes = [aval.shape for aval in self._recorded.in_avals[len(parameters) :]]
        if [np.shape(inputs[name]) for name in sorted(inputs)] == shapes:
            return None
        closed = self._traced(parameters, inputs, wide=True)
        if SHORT & lowers(closed.jaxpr):
            return None
        try:
            return Program(_tape_of(closed, parameters, inputs), parameters, list(inputs.values())).outputs
        except Refused:
            return None

    @cached_property
    def _compiled(self) -> Callable[..., Any]:
        def outputs(parameters: Mapping[str, Any], inputs: Mapping[str, Any]) -> list[Any]:
            return by_groups(self._evaluated)({name: widest(array) for name, array in parameters.items()}, inputs)

        return jax.jit(outputs, compiler_options=QUICK)

    @cached_property
    def _rounds(self) -> bool:
        """Tell whether the model casts to lower precision, and can run without that."""
        closed = self._recorded if self.wide else None
        if closed is None or not lowers(closed.jaxpr) or not may_widen(closed.jaxpr):
            return False
        try:
            made = jax.eval_shape(lambda *leaves: widened(closed.jaxpr, closed.consts, leaves), *closed.in_avals)
        except Exception:  # an equation whose dtypes are not of its operands alone
            return False
        return [out.shape for out in made] == [out.aval.shape for out in closed.jaxpr.outvars]

    @cached_property
    def _gradient(self) -> Any:
        """Return the function that computes the gradients by parameters and by zeros, and the outputs without casts.

        Its arguments are parameters, zeros at the products of kernels, these kernels, and inputs; with the outputs it
        returns what each kernel multiplies.
        """

        def evaluated(parameters: Any, zeros: Any, inputs: Any) -> Any:
            if not zeros and not (self._rounds and parameters.keys() == self.parameters.keys()):
                return self._evaluated(parameters, inputs), {}
            operands = {}

            def instead(eqn: Any, given: list[Any]) -> list[Any] | None:
                for name, zero in zeros.items():
                    if eqn is self._kernels[name]:
                        operands[name] = given[0]
                        return [multiplied(eqn, *given) + zero]
                return None

            leaves = [tree[name] for tree in (parameters, inputs) for name in sorted(tree)]
            return widened(self._recorded.jaxpr, self._recorded.consts, leaves, instead), operands

        def total(parameters: Any, zeros: Any, kernels: Any, inputs: Any) -> Any:
            exact, operands = by_groups(evaluated)({**parameters, **kernels}, zeros, inputs)
            weights = zip(exact, cotangents(exact, jnp.isfinite), strict=True)
            return sum((out * weight).sum() for out, weight in weights), (exact, operands)

        gradient = jax.grad(total, argnums=(0, 1), has_aux=True)
        # the memory of what is donated becomes that of the gradients
        return jax.jit(gradient, compiler_options=QUICK_GRADIENTS, donate_argnums=0)

    def _gradient_program(self, *arguments: Any) -> Any:
        """Compile the gradient for arguments of these shapes, once, and give back the memory that was freed before."""
        leaves, structure = jax.tree.flatten(arguments)
        key = structure, *((leaf.shape, leaf.dtype) for leaf in leaves)
        if key not in self._programs:
            self._programs[key] = self._gradient.lower(*arguments).compile()
        trim()
        return self._programs[key]

    def _copies(self, arrays: Mapping[str, Any]) -> dict[str, Any]:
        """Return arrays of JAX's own, the largest first: parameters in float64, integers as they are.

        Large ones that are drawn in float32 are left so: see all_wide.
        """
        kinds = {name: WIDE.get(array.dtype.kind, array.dtype) for name, array in self.others.items()}
        sizes = {name: array.size for name, array in self.parameters.items()}
        names = sorted(arrays, key=lambda name: -sizes.get(name, 0))
        return {name: copied(arrays, name, kinds.get(name, np.float64)) for name in names}

    def run(self, parameters: Mapping[str, np.ndarray], inputs: Mapping[str, np.ndarray]) -> list[np.ndarray]:
        """Return the outputs as the user's own code computes them."""
        if (outputs := self._replayed(parameters, inputs)) is not None:
            return outputs
        with jax.enable_x64(self.wide):
            return _arrays(self._compiled(all_wide(self._copies(parameters)), _device(inputs)))

    def run_as_given(self, parameters: Mapping[str, np.ndarray], inputs: Mapping[str, np.ndarray]) -> list[np.ndarray]:
        """Return the outputs of what the code traces for given dtypes, which takes no compiling; see Side.

        They are computed in float64: what the code asks of a dtype, it asks while it is traced.
        """
        if self._has_short:
            raise UsageError(SHORT_WEIGHTS)
        shapes = {name: jax.ShapeDtypeStruct(a.shape, a.dtype) for name, a in self.parameters.items()}
        given = {name: jnp.asarray(array) for name, array in inputs.items()}  # in their own dtypes, unlike _device
        closed = jax.make_jaxpr(lambda own, some: self._outputs(own, some, wide=False))(shapes, given)
        return Program(_tape_of(closed, parameters, inputs), parameters, list(inputs.values())).outputs

    def gradients(self, parameters: Mapping[str, np.ndarray], inputs: Mapping[str, np.ndarray], take: Take) -> Outputs:
        """Return the outputs; give `take` the gradients; see Side."""
        with jax.enable_x64(self.wide):
            copies, given = self._copies(parameters), _device(inputs)
            # in a program of their own: together with the gradients they would take twice the memory
            written = _arrays(self._compiled(copies, given)) if self._rounds else None
            products = self._kernels if parameters.keys() == self.parameters.keys() else {}
            kernels = {name: copies.pop(name) for name in products}
            copies = all_wide(copies)
            zeros = {name: jnp.zeros(eqn.outvars[0].aval.shape) for name, eqn in products.items()}
            with GradientSink(take).from_model():
                arguments = copies, zeros, kernels, given
                (grads, at), (outputs, operands) = self._gradient_program(*arguments)(*arguments)
            del copies, kernels, arguments
            for name in list(grads):
                take(name, np.asarray(grads.pop(name)))
            for name, eqn in products.items():
                take(name, formed(eqn, np.asarray(operands[name]), np.asarray(at[name])))
            exact = _arrays(outputs)
            return Outputs(exact if written is None else written, exact)

    def _traced(self, parameters: Mapping[str, np.ndarray], inputs: Mapping[str, np.ndarray], wide: bool) -> Any:
        with jax.enable_x64(wide):
            dtype = jax.dtypes.canonicalize_dtype(np.float64)
            shapes = {name: jax.ShapeDtypeStruct(self.parameters[name].shape, dtype) for name in parameters}
            return jax.make_jaxpr(self._outputs)(shapes, _device(inputs))

    def _traced_loops(self, parameters: Mapping[str, np.ndarray], inputs: Mapping[str, np.ndarray]) -> Any:
        """Trace code whose loops begin in float32: from there in float64 if that is possible, or else in float32.

        In float32 the constants that the code computes, as the root in a GELU, are rounded.
        """
        with contextlib.suppress(TypeError), mock.patch.object(jax.lax, "scan", _wide_scan):
            return self._traced(parameters, inputs, wide=True)
        return self._traced(parameters, inputs, wide=False)

    def release(self) -> None:
        """Do nothing: a function stores no arrays."""

    def record(self, parameters: Mapping[str, np.ndarray], inputs: Mapping[str, np.ndarray]) -> Tape:
        """Record the tape of one run, with casts to lower precision voided."""
        try:
            closed = self._traced(parameters, inputs, wide=True)
        except TypeError as error:
            if not WIDE_DTYPE.search(str(error)):
                raise
            self.wide = False  # a loop whose state has a fixed dtype: the tape is computed in float64 all the same
            closed = self._traced_loops(parameters, inputs)
        self._recorded = closed
        vars(self).pop("_rounds", None)  # which is computed of the last tape
        formable = self.wide and may_widen(closed.jaxpr)
        self._kernels = (
            dense_kernels(closed.jaxpr, dict(zip(closed.jaxpr.invars, sorted(parameters), strict=False)))
            if formable
            else {}
        )
        tape = _tape_of(closed, parameters, inputs)
        tape.lowers = lowers(closed.jaxpr) | (frozenset() if self.wide else {"float32"})
        return tape


def _tape_of(closed: Any, parameters: Mapping[str, Any], inputs: Mapping[str, Any]) -> Tape:
    """Read a jaxpr of (parameters, inputs) as a tape."""
    tape, names = Tape(), sorted(parameters)  # as JAX orders the leaves of a dictionary
    numbers = [tape.number() for _ in closed.jaxpr.invars]
    tape.parameters = dict(zip(names, numbers, strict=False))
    by_name = dict(zip(sorted(inputs), numbers[len(names) :], strict=True))
    tape.inputs = [by_name[name] for name in inputs]
    constants = [tape.constant(array_of(value)) for value in closed.consts]
    tape.outputs = Reader(tape).read(closed.jaxpr, constants, numbers)
    return tape


def _wide_scan(f: Any, init: Any, *args: Any, scan: Any = jax.lax.scan, **kwargs: Any) -> Any:
    """Scan from an initial state whose floating-point arrays are in float64."""

    def wide(leaf: Any) -> Any:
        return leaf.astype(np.float64) if jnp.issubdtype(jnp.result_type(leaf), jnp.floating) else leaf

    return scan(f, jax.tree.map(wide, init), *args, **kwargs)


def linen_side(module: Any, variables: Mapping[str, Any], call: Call) -> JaxSide:
    """Return the side of a linen module with its variables; names are collection/path/leaf."""
    from flax import linen
    from flax.core import meta
    from flax.errors import ApplyScopeInvalidVariablesTypeError, ScopeCollectionNotFound

    tree = {str(k): v for k, v in meta.unbox(variables).items()}
    flat = dict(flatten(tree))

    top, classes = module.name or type(module).__name__, dict[str, str]()

    def noted(method: Any, args: Sequence[Any], kwargs: Mapping[str, Any], context: Any) -> Any:
        classes["/".join((top, *context.module.path))] = type(context.module).__name__
        return method(*args, **kwargs)

    def function(parameters: Mapping[str, Any], args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
        method = None if call.method == "__call__" else call.method
        try:
            with linen.intercept_methods(noted):
                return module.apply(rebuild(tree, parameters), *args, **kwargs, method=method)
        except (ScopeCollectionNotFound, ApplyScopeInvalidVariablesTypeError) as problem:
            if "params" in tree:
                raise
            what = f"gets variables without 'params', but with {in_a_row(tree)}"
            remedy = "return (module, variables) as module.init returns them, or (module, {'params': ...})"
            raise UsageError(f"{what}: {remedy}") from problem

    buffers = [name for name in flat if not name.startswith("params/")]
    return JaxSide(function, flat, call, "linen", buffers, classes)


def nnx_side(module: Any, call: Call) -> JaxSide:
    """Return the side of an nnx module in evaluation mode; names are paths joined by slashes."""
    from flax import nnx

    from ports.runners.nnx import widen_embeddings

    graph, state = nnx.split(module)
    variables = {"/".join(map(str, path)): (path, variable) for path, variable in nnx.to_flat_state(state)}
    stored = {name: v for name, (_, v) in variables.items() if _stores(v) and not isinstance(v, nnx.RngState)}
    arrays = {name: variable.get_value() for name, variable in stored.items()}

    def function(parameters: Mapping[str, Any], args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
        flat = [  # variables of this call alone: a module may write to them, as to a count of random numbers
            (path, variable.replace(parameters.get(name, variable.get_value())) if _stores(variable) else variable)
            for name, (path, variable) in variables.items()
        ]
        model = nnx.merge(graph, nnx.from_flat_state(flat))
        widen_embeddings(model)
        model.eval()
        method = model if call.method == "__call__" else getattr(model, call.method)
        return method(*args, **kwargs)

    buffers = [name for name in arrays if not isinstance(stored[name], nnx.Param)]
    classes = {"/".join(map(str, path)): type(inner).__name__ for path, inner in nnx.iter_modules(module) if path}
    return JaxSide(function, arrays, call, "nnx", buffers, classes)


def _stores(leaf: Any) -> bool:
    """Tell whether a leaf of a state is a variable; arrays that a module has as plain attributes are constants."""
    return hasattr(leaf, "get_value")


def function_side(function: Callable[..., Any], tree: Any, call: Call) -> JaxSide:
    """Return the side of a function of (parameters, *inputs); names are paths of the tree joined by slashes.

    Leaves that are no arrays (flags, functions, words: modules of equinox have such) stay as they are.
    """
    paths, structure = jax.tree_util.tree_flatten_with_path(tree)
    leaves = {path_name(path): leaf for path, leaf in paths}
    arrays = {name: leaf for name, leaf in leaves.items() if hasattr(leaf, "shape") and hasattr(leaf, "dtype")}

    def called(parameters: Mapping[str, Any], args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
        every = [parameters.get(name, leaf) for name, leaf in leaves.items()]
        return function(jax.tree_util.tree_unflatten(structure, every), *args, **kwargs)

    return JaxSide(called, arrays, call)


def path_name(path: Sequence[Any]) -> str:
    """Return the name of a leaf of a tree: its path joined by slashes."""
    return "/".join(map(_key, path))


def _key(part: Any) -> str:
    return str(next(getattr(part, name) for name in ("key", "idx", "name") if hasattr(part, name)))


def _arrays(outputs: Sequence[Any]) -> list[np.ndarray]:
    return [np.asarray(out) for out in outputs]


def _device(arrays: Mapping[str, Any]) -> dict[str, Any]:
    wide = jnp.result_type(float)  # float32 where 64 bits are off
    return {name: jnp.asarray(array, wide if array.dtype.kind == "f" else None) for name, array in arrays.items()}

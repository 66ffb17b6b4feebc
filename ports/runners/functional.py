"""Do alike what linen and nnx do alike: run a model as a pure function of its parameters, collections and inputs."""

from __future__ import annotations

import copy
from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from convert.errors import UsageError

from ..frameworks import Unavailable, quick_forward_options
from . import base, jax_modules, trees
from .inputs import OUTPUT, Inputs, is_image, is_numpy
from .jax_trees import is_array, outward
from .modes import arguments, signed, switched
from .records import Drop, Gradients, Module, Optimizer, Tap, Taps, Training
from .tracing import Trace, name_outputs

GRADIENTS = "gradients"
OPTIMISED = frozenset([GRADIENTS])  # what XLA may compute wrongly at its lowest level
DRAWS = {"random_bits", "random_gamma", "threefry2x32", "rng_bit_generator", "rng_uniform"}  # primitives of jax


class Differentiated(NamedTuple):
    """A model's mean square and its gradients.

    Args:
      outputs: by name. rest: what else the model holds, as it is afterwards.
      gradients: of the parameters. into: of the floating-point inputs, by their places.
    """

    loss: Any
    outputs: dict[str, Any]
    rest: Any
    gradients: Any
    into: dict[int, Any]


class Runner(base.Runner):
    """Images are NHWC inside and NCHW outside."""

    framework = "flax"
    without_dropout = False

    @abstractmethod
    def called(self) -> Any:
        """Return the module that a run calls."""

    def signature(self) -> tuple[Callable[..., Any], dict[str, Any]]:
        return signed(self.called()), arguments(self.called(), switched(self.training, False))

    @abstractmethod
    def split(self) -> tuple[Any, Any]:
        """Return (parameters, everything else that the model holds), two pytrees."""

    @abstractmethod
    def run(self, params: Any, rest: Any, inputs: Inputs, training: bool, seed: Any = 0) -> tuple[Any, Any]:
        """Call the model. Returns: (what it returned, everything else as it is afterwards)."""

    @abstractmethod
    def intercepted(self, handler: Callable[..., Any]) -> Any:
        """Let handler(call, module, path, args, kwargs) take the place of every call of a module, inside a with."""

    @abstractmethod
    def flat(self, params: Any, rest: Any) -> dict[str, np.ndarray]:
        """Name the arrays of both parts of `split`, or of one beside {}, as in linen's checkpoint."""

    def settle(self) -> None:
        try:
            self.place = jax.devices(self.device)[0]
        except RuntimeError as error:
            raise Unavailable("jax", f"no {self.device.upper()} found here") from error
        if self.dtype == "float64":
            jax.config.update("jax_enable_x64", True)
        self.compiled: dict[Any, tuple[Any, Any]] = {}

    def tensor(self, array: np.ndarray) -> jax.Array:
        array = np.asarray(array)
        dtype = jnp.dtype(self.dtype) if jnp.issubdtype(array.dtype, jnp.floating) else array.dtype
        return jax.device_put(array.astype(dtype), self.place)

    def inward(self, array: np.ndarray, axes: int = 4) -> jax.Array:
        return self.tensor(np.moveaxis(array, 1, -1) if is_image(array, axes) else array)

    def compile(self, what: str, inputs: Inputs, make: Callable[[list[Any]], Any], *key: Any) -> tuple[Any, list[Any]]:
        """Compile a function once for each structure of inputs; its second part lists names, known once it has run."""
        key = (what, inputs.structure(), self.without_dropout, *key)
        if key not in self.compiled:
            names: list[Any] = []
            options = {} if what in OPTIMISED else quick_forward_options()
            self.compiled[key] = (jax.jit(make(names), compiler_options=options), names)
        return self.compiled[key]

    def arrays(self, inputs: Inputs) -> list[jax.Array]:
        """Copy the arrays of inputs to the device, in their order."""
        return [self.inward(array) for array in inputs.named(is_numpy).values()]

    @staticmethod
    def with_arrays(inputs: Inputs, arrays: Sequence[Any]) -> Inputs:
        """Replace the arrays of inputs, in their order."""
        return inputs.filled(arrays, is_numpy)

    def replace(self, model: Any) -> None:
        super().replace(model)
        self.compiled.clear()  # functions of the model before

    @contextmanager
    def _as_configured(self) -> Iterator[None]:
        """Compute products in full precision, and without dropout where that is wanted."""

        def pass_on(call: Any, module: Any, path: str, args: Any, kwargs: Any) -> Any:
            return args[0] if self.is_dropout(module) and args else call(*args, **kwargs)

        with jax.default_matmul_precision("highest"):
            if self.without_dropout:
                with self.intercepted(pass_on):
                    yield
            else:
                yield

    @abstractmethod
    def is_dropout(self, module: Any) -> bool:
        """Tell whether a module is the library's dropout."""

    def __call__(self, inputs: Inputs) -> dict[str, np.ndarray]:
        def make(names: list[Any]) -> Any:
            def call(params: Any, rest: Any, arrays: list[Any]) -> list[Any]:
                with self._as_configured():
                    out, _ = self.run(params, rest, self.with_arrays(inputs, arrays), False)
                results = self.results(out, is_array)
                names[:] = results
                return list(results.values())

            return call

        function, names = self.compile("call", inputs, make)
        out = function(*self.split(), self.arrays(inputs))
        return name_outputs(dict(zip(names, out, strict=True)), outward)

    def trace(self, inputs: Inputs, taps: Taps, feed: Mapping[str, Sequence[np.ndarray]] | None = None) -> list[Tap]:
        def make(names: list[Any]) -> Any:
            def call(params: Any, rest: Any, arrays: list[Any], fed: dict[str, list[Any]]) -> list[Any]:
                trace = Trace(fed, is_array)

                def record(call: Any, module: Any, path: str, args: Any, kwargs: Any) -> Any:
                    tap = taps.name(path)
                    if tap is None:
                        return call(*args, **kwargs)
                    args, kwargs = trace.enter(tap, trees.Call(signed(module), args, kwargs)) or (args, kwargs)
                    out = call(*args, **kwargs)
                    trace.leave(out)
                    return out

                with self._as_configured(), self.intercepted(record):
                    out, _ = self.run(params, rest, self.with_arrays(inputs, arrays), False)
                self.results(out, is_array)
                names[:] = [(tap.name, tap.keys) for tap in trace.taps]
                return [(tap.inputs, tap.outputs) for tap in trace.taps]

            return call

        function, names = self.compile("trace", inputs, make, taps)
        fed = {
            name: [self.inward(array, taps.image_axes(name.partition("#")[0])) for array in arrays]
            for name, arrays in (feed or {}).items()
        }
        try:
            pairs = function(*self.split(), self.arrays(inputs), fed)
        except jax.errors.UnexpectedTracerError:
            raise UsageError(
                "the outputs of a module inside nn.scan, nn.remat, nn.vmap or another transformation of JAX cannot be "
                "read: give the model without it"
            ) from None
        recorded = []
        for (name, keys), pair in zip(names, pairs, strict=True):
            axes = taps.image_axes(name.partition("#")[0])
            taken = 4 if name == OUTPUT else axes  # the model's own inputs were turned, see inward
            into = tuple(outward(array, taken) for array in pair[0])
            out = tuple(outward(array, axes) for array in pair[1])
            recorded.append(Tap(name, into, out, keys))
        return recorded

    def _differentiated(self, inputs: Inputs) -> tuple[Any, list[Any]]:
        """Compile (loss, (outputs, rest)) with gradients of parameters and of floating-point inputs."""

        def make(names: list[Any]) -> Any:
            def loss(params: Any, free: dict[int, Any], fixed: dict[int, Any], rest: Any) -> Any:
                arrays = {**free, **fixed}
                filled = self.with_arrays(inputs, [arrays[k] for k in sorted(arrays)])
                with self._as_configured():
                    out, changed = self.run(params, rest, filled, True)
                results = self.results(out, is_array)
                names[:] = results
                terms = [jnp.mean((x * x.conj()).real) for x in results.values() if _differentiable(x)]
                return base.sum_of(terms), (list(results.values()), changed)

            return jax.value_and_grad(loss, argnums=(0, 1), has_aux=True)

        return self.compile(GRADIENTS, inputs, make)

    def _loss_and_gradients(self, params: Any, rest: Any, inputs: Inputs) -> Differentiated:
        arrays = dict(enumerate(self.arrays(inputs)))
        free = {k: x for k, x in arrays.items() if _differentiable(x)}
        fixed = {k: x for k, x in arrays.items() if k not in free}
        function, names = self._differentiated(inputs)
        (loss, (out, changed)), gradients = function(params, free, fixed, rest)
        grads, into = jax.tree.map(_conjugated, gradients)  # of a complex array jax returns the gradient's conjugate
        return Differentiated(loss, dict(zip(names, out, strict=True)), changed, grads, into)

    def gradients(self, inputs: Inputs) -> Gradients:
        params, rest = self.split()
        result = self._loss_and_gradients(params, rest, inputs)
        named = list(inputs.named(is_numpy))
        return Gradients(
            float(result.loss),
            name_outputs(result.outputs, outward),
            self.flat(result.gradients, {}),
            {named[k]: outward(array) for k, array in result.into.items()},
            self.flat({}, result.rest),
        )

    def train(self, batches: Sequence[Inputs], optimizer: Optimizer) -> Training:
        params, rest = self.split()
        losses = []
        begin, step = self._stepping(optimizer)
        memory = jax.device_put(begin(params), self.place)  # as it is after a step: else the second compiles it again
        for inputs in batches:  # one compiled gradient for all steps, all optimizers and `gradients`
            result = self._loss_and_gradients(params, rest, inputs)
            params, memory = step(result.gradients, memory, params)
            rest = result.rest
            losses.append(float(result.loss))
        return Training(losses, self.flat(params, {}), self.flat({}, rest))

    def _stepping(self, optimizer: Optimizer) -> tuple[Callable[..., Any], Callable[..., Any]]:
        """Return optax's init, and its step: gradients, memory, parameters -> parameters, memory.

        Both are compiled: operations that run one by one are compiled for each shape, which takes longer. They round
        as those do, without excess precision in bfloat16.
        """
        if optimizer not in self.compiled:
            import optax  # imported only to train

            from .jax_optimizers import OPTIMIZERS

            update = OPTIMIZERS[optimizer.name](optimizer)

            def step(gradients: Any, memory: Any, params: Any) -> tuple[Any, Any]:
                changes, memory = update.update(gradients, memory, params)
                return optax.apply_updates(params, changes), memory

            options = {"xla_allow_excess_precision": False, **quick_forward_options()}
            self.compiled[optimizer] = tuple(jax.jit(part, compiler_options=options) for part in (update.init, step))
        return self.compiled[optimizer]

    def dropout_calls(self, inputs: Inputs, seed: int) -> list[Drop]:
        return jax_modules.dropout_calls(self, inputs, seed)

    def dropout_rates(self, inputs: Inputs) -> list[float]:
        return jax_modules.dropout_rates(self, inputs)

    @contextmanager
    def no_dropout(self) -> Iterator[None]:
        self.without_dropout = True
        try:
            yield
        finally:
            self.without_dropout = False

    def is_random(self, inputs: Inputs, training: bool) -> bool:
        """Tell whether the traced model draws random bits."""

        def run(params: Any, rest: Any, arrays: list[Any]) -> int:
            with self._as_configured():
                self.run(params, rest, self.with_arrays(inputs, arrays), training)
            return 0

        traced = jax.make_jaxpr(run)(*self.split(), self.arrays(inputs))
        return not DRAWS.isdisjoint(_primitives(traced.jaxpr))

    def modules(self, inputs: Inputs) -> dict[str, Module]:
        return jax_modules.modules(self, inputs)

    def require_training(self, inputs: Inputs) -> None:
        jax_modules.require_training(self, inputs)

    def jittered(self, share: float, seed: int) -> Runner:
        """Copy the model with each parameter moved; reuse the compiled functions, whose arguments parameters are."""
        params, rest = self.split()
        leaves, tree = jax.tree.flatten(params)
        moved = [
            _placed_as(a, np.asarray(a) * f.astype(a.dtype)) if _differentiable(a) else a
            for a, f in zip(leaves, base.factors(leaves, share, seed), strict=True)
        ]
        other = copy.copy(self)
        other.model = self.joined(jax.tree.unflatten(tree, moved), rest)
        return other

    @abstractmethod
    def joined(self, params: Any, rest: Any) -> Any:
        """Build a model of both parts of `split`, the opposite of it."""

    def state(self) -> dict[str, np.ndarray]:
        return self.flat(*self.split())


def _differentiable(array: Any) -> bool:
    return bool(jnp.issubdtype(array.dtype, jnp.inexact))


def _conjugated(array: Any) -> Any:
    """Conjugate complex numbers; leave real ones, for each shape of which XLA would compile a program."""
    return jnp.conj(array) if jnp.issubdtype(array.dtype, jnp.complexfloating) else array


def _placed_as(like: jax.Array, array: np.ndarray) -> jax.Array:
    """Put values where others lie, on devices that are chosen for them or not: else functions are compiled again."""
    return jax.device_put(array, like.sharding) if like.committed else jnp.asarray(array)


def _primitives(jaxpr: Any) -> Iterator[str]:
    """Yield the names of all primitives of a jaxpr, and of those that its equations run."""
    for equation in jaxpr.eqns:
        yield equation.primitive.name
        for value in jax.tree.leaves(list(equation.params.values())):
            inner = getattr(value, "jaxpr", value)  # of a ClosedJaxpr
            if hasattr(inner, "eqns"):
                yield from _primitives(inner)

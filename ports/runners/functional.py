"""A JAX model as a pure function of its parameters, its other collections and its inputs: linen and nnx alike."""

from __future__ import annotations

import copy
import re
from abc import abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from convert.errors import UsageError

from . import base, trees
from .modes import evaluating, signed

DRAWS = ("random_bits", "random_gamma", "threefry2x32", "rng_bit_generator", "rng_uniform")  # primitives of jax


class Runner(base.Runner):
    """Images are NHWC inside and NCHW outside."""

    framework = "flax"
    without_drops = False

    @abstractmethod
    def split(self) -> tuple[Any, Any]:
        """Return (parameters, everything else that the model holds), two pytrees."""

    @abstractmethod
    def run(self, params: Any, rest: Any, inputs: base.Inputs, training: bool, seed: Any = 0) -> tuple[Any, Any]:
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
            raise base.Unavailable(f"jax finds no {self.device} here: use device='cpu'") from error
        if self.dtype == "float64":
            jax.config.update("jax_enable_x64", True)
        self.compiled: dict[Any, tuple[Any, list[Any]]] = {}

    def tensor(self, array: np.ndarray) -> jax.Array:
        array = np.asarray(array)
        dtype = jnp.dtype(self.dtype) if jnp.issubdtype(array.dtype, jnp.floating) else array.dtype
        return jax.device_put(array.astype(dtype), self.place)

    def inward(self, array: np.ndarray, is_map: bool = True) -> jax.Array:
        return self.tensor(array.transpose(0, 2, 3, 1) if is_map and array.ndim == 4 else array)

    def _compile(
        self, what: str, inputs: base.Inputs, make: Callable[[list[Any]], Any], *key: Any
    ) -> tuple[Any, list[Any]]:
        """Compile a function once for each structure of inputs; its second part lists names, known once it has run."""
        key = (what, inputs.structure(), self.without_drops, *key)
        if key not in self.compiled:
            names: list[Any] = []
            self.compiled[key] = (jax.jit(make(names)), names)
        return self.compiled[key]

    def _arrays(self, inputs: base.Inputs) -> list[jax.Array]:
        return [self.inward(array) for array in inputs.named(base.is_numpy).values()]

    @contextmanager
    def _as_configured(self) -> Iterator[None]:
        """Compute products in full precision, and without dropout where that is wanted."""

        def pass_on(call: Any, module: Any, path: str, args: Any, kwargs: Any) -> Any:
            return args[0] if self.is_dropout(module) and args else call(*args, **kwargs)

        with jax.default_matmul_precision("highest"):
            if self.without_drops:
                with self.intercepted(pass_on):
                    yield
            else:
                yield

    @abstractmethod
    def is_dropout(self, module: Any) -> bool:
        """Tell whether a module is the library's dropout."""

    def __call__(self, inputs: base.Inputs) -> dict[str, np.ndarray]:
        def make(names: list[Any]) -> Any:
            def call(params: Any, rest: Any, arrays: list[Any]) -> list[Any]:
                with self._as_configured():
                    out, _ = self.run(params, rest, inputs.filled(arrays, base.is_numpy), False)
                found = base.visible(base.OUTPUT, out, is_array)
                names[:] = found
                return list(found.values())

            return call

        function, names = self._compile("call", inputs, make)
        out = function(*self.split(), self._arrays(inputs))
        return base.named(dict(zip(names, out, strict=True)), outward)

    def trace(
        self, inputs: base.Inputs, taps: base.Taps, feed: Mapping[str, Sequence[np.ndarray]] | None = None
    ) -> list[base.Tap]:
        def make(names: list[Any]) -> Any:
            def call(params: Any, rest: Any, arrays: list[Any], fed: dict[str, list[Any]]) -> list[Any]:
                trace = base.Trace(fed, is_array)

                def record(call: Any, module: Any, path: str, args: Any, kwargs: Any) -> Any:
                    tap = taps.name(path)
                    if tap is None:
                        return call(*args, **kwargs)
                    given = trace.enter(tap, trees.Call(signed(module), args, kwargs))
                    args, kwargs = given or (args, kwargs)
                    out = call(*args, **kwargs)
                    trace.leave(out)
                    return out

                with self._as_configured(), self.intercepted(record):
                    self.run(params, rest, inputs.filled(arrays, base.is_numpy), False)
                names[:] = [(tap.name, tap.keys) for tap in trace.taps]
                return [(tap.inputs, tap.outputs) for tap in trace.taps]

            return call

        function, names = self._compile("trace", inputs, make, taps)
        fed = {
            name: [self.inward(array, taps.is_map(name.partition("#")[0])) for array in arrays]
            for name, arrays in (feed or {}).items()
        }
        try:
            pairs = function(*self.split(), self._arrays(inputs), fed)
        except jax.errors.UnexpectedTracerError as error:
            raise UsageError(
                "a module inside nn.scan, nn.remat, nn.vmap or another transformation cannot be a tap: give names of "
                "modules outside of it (names={label: {path: tap}})"
            ) from error
        found = []
        for (name, keys), pair in zip(names, pairs, strict=True):
            is_map = taps.is_map(name.partition("#")[0])
            into, out = (tuple(outward(array, is_map) for array in arrays) for arrays in pair)
            found.append(base.Tap(name, into, out, keys))
        return found

    def _differentiated(self, inputs: base.Inputs) -> tuple[Any, list[Any]]:
        """Compile (loss, (outputs, rest)) with gradients of parameters and of floating-point inputs."""

        def make(names: list[Any]) -> Any:
            def loss(params: Any, free: dict[int, Any], fixed: dict[int, Any], rest: Any) -> Any:
                arrays = {**free, **fixed}
                given = inputs.filled([arrays[k] for k in sorted(arrays)], base.is_numpy)
                with self._as_configured():
                    out, changed = self.run(params, rest, given, True)
                found = base.visible(base.OUTPUT, out, is_array)
                names[:] = found
                terms = [jnp.mean(jnp.square(x)) for x in found.values() if jnp.issubdtype(x.dtype, jnp.floating)]
                return base.sum_of(terms), (list(found.values()), changed)

            return jax.value_and_grad(loss, argnums=(0, 1), has_aux=True)

        return self._compile("gradients", inputs, make)

    def _step(self, params: Any, rest: Any, inputs: base.Inputs) -> Any:
        arrays = dict(enumerate(self._arrays(inputs)))
        free = {k: x for k, x in arrays.items() if jnp.issubdtype(x.dtype, jnp.floating)}
        fixed = {k: x for k, x in arrays.items() if k not in free}
        function, names = self._differentiated(inputs)
        return *function(params, free, fixed, rest), names

    def gradients(self, inputs: base.Inputs) -> base.Gradients:
        params, rest = self.split()
        (loss, (out, changed)), (grads, into), names = self._step(params, rest, inputs)
        named = list(inputs.named(base.is_numpy))
        return base.Gradients(
            float(loss),
            base.named(dict(zip(names, out, strict=True)), outward),
            self.flat(grads, {}),
            {named[k]: outward(array) for k, array in into.items()},
            self.flat({}, changed),
        )

    def train(self, batches: Sequence[base.Inputs], optimizer: base.Optimizer) -> base.Training:
        import optax

        params, rest = self.split()
        losses = []
        update = optimizers()[optimizer.name](optimizer)
        memory = update.init(params)
        for inputs in batches:  # one compiled gradient for all steps, all optimizers and `gradients`
            (loss, (_, rest)), (grads, _), _ = self._step(params, rest, inputs)
            changes, memory = update.update(grads, memory, params)
            params = optax.apply_updates(params, changes)
            losses.append(float(loss))
        return base.Training(losses, self.flat(params, {}), self.flat({}, rest))

    @contextmanager
    def _dropping(self, seen: Callable[[Any, Any, Any], None]) -> Iterator[None]:
        """Call seen(module, input, output) at each call of dropout that drops something."""

        def record(call: Any, module: Any, path: str, args: Any, kwargs: Any) -> Any:
            out = call(*args, **kwargs)
            if self.is_dropout(module) and module.rate and args and out is not args[0]:
                seen(module, args[0], out)
            return out

        with self.intercepted(record):
            yield

    def drops(self, inputs: base.Inputs, seed: int) -> list[base.Drop]:
        found: list[base.Drop] = []

        def seen(module: Any, into: Any, out: Any) -> None:
            if isinstance(out, jax.core.Tracer):
                raise UsageError("masks of dropout inside nn.scan, nn.remat or another transformation cannot be judged")
            found.append(base.kept(_numpy(into), _numpy(out), module.rate, module.broadcast_dims))

        with self._dropping(seen):  # not compiled: masks are looked at as they come
            self.run(*self.split(), inputs.map(self.inward), True, seed)
        return found

    def drop_rates(self, inputs: base.Inputs) -> list[float]:
        found: list[float] = []
        with self._dropping(lambda module, into, out: found.append(module.rate)):
            self._shapes(inputs, True)
        return found

    @contextmanager
    def undropped(self) -> Iterator[None]:
        self.without_drops = True
        try:
            yield
        finally:
            self.without_drops = False

    def is_random(self, inputs: base.Inputs, training: bool) -> bool:
        """Tell whether the traced model draws random bits."""

        def run(params: Any, rest: Any, arrays: list[Any]) -> int:
            with self._as_configured():
                self.run(params, rest, inputs.filled(arrays, base.is_numpy), training)
            return 0

        traced = str(jax.make_jaxpr(run)(*self.split(), self._arrays(inputs)))
        return any(primitive in traced for primitive in DRAWS)

    def _visited(self, inputs: base.Inputs, training: bool) -> dict[str, tuple[Any, trees.Call]]:
        """Run the model on shapes alone. Returns: {path: (module, its last call)}."""
        found: dict[str, tuple[Any, trees.Call]] = {}

        def record(call: Any, module: Any, path: str, args: Any, kwargs: Any) -> Any:
            found[path] = module, trees.Call(signed(module), args, kwargs)
            return call(*args, **kwargs)

        with self.intercepted(record):
            self._shapes(inputs, training)
        return found

    def _shapes(self, inputs: base.Inputs, training: bool) -> None:
        """Run the model on shapes alone."""

        def run(params: Any, rest: Any, arrays: list[Any]) -> int:
            self.run(params, rest, inputs.filled(arrays, base.is_numpy), training)
            return 0

        jax.eval_shape(run, *self.split(), self._arrays(inputs))

    def modules(self, inputs: base.Inputs) -> dict[str, base.Module]:
        """Paths from the arrays and from a run, classes from the run."""
        kinds = {path: base.classes(module) for path, (module, _) in self._visited(inputs, False).items()}
        leaves: dict[str, dict[str, str]] = {path: {} for path in ["", *kinds]}
        trained = set()
        for name in self.state():
            collection, *parts, leaf = name.split("/")
            paths = [dotted(parts[:depth]) for depth in range(len(parts) + 1)]
            for path in paths:
                leaves.setdefault(path, {})
            leaves[paths[-1]][leaf] = name
            trained.update(paths if collection == "params" else [])
        return {path: base.Module(kinds.get(path, ()), own, path in trained) for path, own in leaves.items()}

    def require_training(self, inputs: base.Inputs) -> None:
        """Raise UsageError if a module computes in training as in evaluation, unless the user says what to switch."""
        if self.training is not None:
            return
        stuck = [
            f"{path or 'the model itself'} ({type(module).__name__}, {name}={value})"
            for path, (module, call) in self._visited(inputs, True).items()
            for name, value in evaluating(module, call)
        ]
        if not stuck and not self._learns_statistics(inputs):
            stuck = ["its running statistics (batch_stats), which a step does not change"]
        if stuck:
            more = f" and {len(stuck) - 3} more" if len(stuck) > 3 else ""
            raise UsageError(
                f"the model does not go into training mode: {', '.join(stuck[:3])}{more}. Name the argument or "
                "attribute that switches it, and its value in training: training={'inference': False}; training={} "
                "compares the model as it runs"
            )

    def _learns_statistics(self, inputs: base.Inputs) -> bool:
        before = {name: array for name, array in self.state().items() if name.startswith("batch_stats/")}
        after = self.gradients(inputs).statistics
        return not before or any((after[name] != array).any() for name, array in before.items())

    def jittered(self, share: float, seed: int) -> Runner:
        """Copy the model with each parameter moved; reuse the compiled functions, whose arguments parameters are."""
        params, rest = self.split()
        leaves, tree = jax.tree.flatten(params)
        moved = [
            a * f.astype(a.dtype) if jnp.issubdtype(a.dtype, jnp.floating) else a
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


@cache
def optimizers() -> dict[str, Any]:
    """optax's optimizers from an Optimizer; optax is imported only to train."""
    import optax

    def sgd(o: base.Optimizer) -> Any:
        return optax.chain(optax.add_decayed_weights(o.decay), optax.sgd(o.rate, o.momentum))

    def adam(o: base.Optimizer) -> Any:
        return optax.chain(optax.add_decayed_weights(o.decay), optax.adam(o.rate, o.beta1, o.beta2, o.epsilon))

    def adamw(o: base.Optimizer) -> Any:
        return optax.adamw(o.rate, o.beta1, o.beta2, o.epsilon, weight_decay=o.decay)

    return {"sgd": sgd, "adam": adam, "adamw": adamw}


def dotted(path: Iterable[Any]) -> str:
    """("blocks_3", "norm1") or ("blocks", 3, "norm1") -> "blocks.3.norm1", as the other frameworks name it."""
    return ".".join(re.sub(r"_(?=\d+(_\d+)*$)", ".", str(part)) for part in path)


def slashed(path: Sequence[Any]) -> str:
    """("params", "blocks", 3, "norm1", "scale") -> "params/blocks_3/norm1/scale", linen's name."""
    parts: list[str] = []
    for part in map(str, path):
        if part.isdigit() and len(parts) > 1:
            parts[-1] += f"_{part}"
        else:
            parts.append(part)
    return "/".join(parts)


def distinct(named: Iterable[tuple[str, Any]]) -> dict[str, Any]:
    """Build a dict. Raises: UsageError where two arrays come to bear one name."""
    found: dict[str, Any] = {}
    for name, value in named:
        if name in found:
            raise UsageError(f"two arrays of the model are both called {name!r}: rename a module")
        found[name] = value
    return found


def floating(tree: Any) -> str:
    """The dtype of the first floating-point array."""
    kinds = [a.dtype.name for a in jax.tree.leaves(tree) if jnp.issubdtype(a.dtype, jnp.floating)]
    return str(kinds[0]) if kinds else "float32"


def device_of(tree: Any) -> str:
    arrays = [a for a in jax.tree.leaves(tree) if isinstance(a, jax.Array)]
    return "gpu" if arrays and next(iter(arrays[0].devices())).platform in ("gpu", "cuda", "rocm") else "cpu"


def cast(tree: Any, dtype: str) -> Any:
    """Convert the floating-point arrays of a pytree."""
    if dtype == "float64":
        jax.config.update("jax_enable_x64", True)
    return jax.tree.map(lambda a: a.astype(dtype) if jnp.issubdtype(a.dtype, jnp.floating) else a, tree)


def is_array(value: Any) -> bool:
    return isinstance(value, jax.Array)


def outward(array: jax.Array, is_map: bool = True) -> np.ndarray:
    return _numpy(array).transpose(0, 3, 1, 2) if is_map and array.ndim == 4 else _numpy(array)


def _numpy(array: jax.Array) -> np.ndarray:
    return np.asarray(array.astype(jnp.float32) if array.dtype == jnp.bfloat16 else array)

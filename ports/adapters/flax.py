"""flax linen behind the common call: NHWC inside, NCHW outside."""

from __future__ import annotations

import copy
import re
from collections.abc import Iterable, Mapping, Sequence
from functools import cache, cached_property
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

from .. import network
from .. import port as common


class Linen(NamedTuple):
    """A linen module and its variables: Linen.module.apply(Linen.variables, images_nhwc)."""

    module: nn.Module
    variables: dict[str, Any]


class Port(common.Port):
    framework = "flax"
    model: Linen
    training: Mapping[str, Any] = {"train": True}  # what the module is called with in training mode

    def _create(self, tensors: Iterable[tuple[str, np.ndarray]]) -> Linen:
        self._settle()
        variables = unflatten_dict({tuple(name.split("/")): self._array(array) for name, array in tensors})
        return Linen(network(self.architecture, "flax")(self.config), variables)

    def _settle(self) -> None:
        try:
            self.place = jax.devices(self.device)[0]
        except RuntimeError as error:
            raise common.Unavailable(f"jax finds no {self.device} here: use device='cpu'") from error
        if self.dtype == "float64":
            jax.config.update("jax_enable_x64", True)

    def _array(self, array: np.ndarray) -> jax.Array:
        return jax.device_put(np.asarray(array).astype(jnp.dtype(self.dtype)), self.place)

    def _images(self, images: np.ndarray) -> jax.Array:
        return self._array(images.transpose(0, 2, 3, 1) if images.ndim == 4 else images)

    @cached_property
    def _apply(self) -> Any:
        def apply(variables: Any, images: jax.Array) -> jax.Array:
            with jax.default_matmul_precision("highest"):
                return self.model.module.apply(variables, images)

        return jax.jit(apply)

    def _forward(self, images: np.ndarray) -> np.ndarray:
        return _numpy(self._apply(self.model.variables, self._images(images)))

    @cached_property
    def _traced(self) -> Any:
        def run(variables: Any, images: jax.Array, feed: dict[str, list[jax.Array]]) -> list[Any]:
            trace = common.Trace(feed)

            def intercept(call: Any, args: Any, kwargs: Any, context: Any) -> Any:
                path = dotted(context.module.path)
                if context.method_name != "__call__" or not self._is_tap(path):
                    return call(*args, **kwargs)
                given = trace.enter(path, _arrays(args))
                out = call(*(args if given is None else _replaced(args, given)), **kwargs)
                trace.leave(_arrays(out))
                return out

            with jax.default_matmul_precision("highest"), nn.intercept_methods(intercept):
                self.model.module.apply(variables, images)
            self._names = [name for name, _, _ in trace.found]  # known once traced, the same at every call
            return [(into, out) for _, into, out in trace.found]

        return jax.jit(run)

    def _trace(self, images: np.ndarray, feed: Mapping[str, Sequence[np.ndarray]]) -> list[common.Tap]:
        given = {name: [self._inward(name, array) for array in arrays] for name, arrays in feed.items()}
        pairs = self._traced(self.model.variables, self._images(images), given)
        return [
            common.Tap(name, *(tuple(self._outward(name, array) for array in arrays) for arrays in pair))
            for name, pair in zip(self._names, pairs, strict=True)
        ]

    def _inward(self, name: str, array: np.ndarray) -> jax.Array:
        image = array.ndim == 4 and self._is_map(name.partition("#")[0])
        return self._array(array.transpose(0, 2, 3, 1) if image else array)

    def _outward(self, name: str, array: jax.Array) -> np.ndarray:
        image = array.ndim == 4 and self._is_map(name.partition("#")[0])
        return _numpy(array).transpose(0, 3, 1, 2) if image else _numpy(array)

    def _loss(self, params: Any, images: jax.Array, rest: Any) -> Any:
        """mean(logits ** 2) in training mode, (logits, changed collections)."""
        with jax.default_matmul_precision("highest"):
            logits, changed = self.model.module.apply(
                {"params": params, **rest},
                images,
                mutable=list(rest),
                rngs={"dropout": jax.random.key(0)},
                **self.training,
            )
        return jnp.mean(jnp.square(logits)), (logits, changed)

    @property
    def _rest(self) -> dict[str, Any]:
        return {name: tree for name, tree in self.model.variables.items() if name != "params"}

    @cached_property
    def _differentiated(self) -> Any:
        return jax.jit(jax.value_and_grad(self._loss, argnums=(0, 1), has_aux=True))

    def gradients(self, images: np.ndarray) -> common.Gradients:
        x = self._images(self._checked(images))
        (loss, (logits, changed)), (grads, dx) = self._differentiated(self.model.variables["params"], x, self._rest)
        dx = _numpy(dx).transpose(0, 3, 1, 2) if dx.ndim == 4 else _numpy(dx)
        return common.Gradients(float(loss), _numpy(logits), _flat({"params": grads}), dx, _flat(changed))

    def train(self, batches: Sequence[np.ndarray], optimizer: common.Optimizer) -> common.Training:
        import optax

        params, rest, losses = self.model.variables["params"], self._rest, []
        update = optimizers()[optimizer.name](optimizer)
        memory = update.init(params)
        for images in batches:  # one compiled gradient for all steps, all optimizers and `gradients`
            x = self._images(self._checked(images))
            (loss, (_, rest)), (grads, _) = self._differentiated(params, x, rest)
            changes, memory = update.update(grads, memory, params)
            params = optax.apply_updates(params, changes)
            losses.append(float(loss))
        return common.Training(losses, _flat({"params": params}), _flat(rest))

    def drops(self, images: np.ndarray, seed: int) -> list[common.Drop]:
        found: list[common.Drop] = []

        def intercept(call: Any, args: Any, kwargs: Any, context: Any) -> Any:
            out, drop = call(*args, **kwargs), context.module
            if isinstance(drop, nn.Dropout) and drop.rate and out is not args[0]:
                found.append(common.kept(_numpy(args[0]), _numpy(out), drop.rate, drop.broadcast_dims))
            return out

        rngs = {"dropout": jax.random.key(seed)}
        with nn.intercept_methods(intercept):  # not compiled: masks are looked at as they come
            x, rest = self._images(self._checked(images)), list(self._rest)
            self.model.module.apply(self.model.variables, x, mutable=rest, rngs=rngs, **self.training)
        return found

    def state(self) -> dict[str, np.ndarray]:
        return _flat(self.model.variables)

    def jittered(self, share: float, seed: int) -> common.Port:
        """A copy that shares what is compiled: other variables are other arguments of the same functions."""
        leaves, tree = jax.tree.flatten(self.model.variables["params"])
        factors = common.factors(leaves, share, seed)
        moved = [
            a * f.astype(a.dtype) if jnp.issubdtype(a.dtype, jnp.floating) else a
            for a, f in zip(leaves, factors, strict=True)
        ]
        port = copy.copy(self)
        params = jax.tree.unflatten(tree, moved)
        port.model = self.model._replace(variables={**self.model.variables, "params": params})
        return port


@cache
def optimizers() -> dict[str, Any]:
    """optax's optimizers from an Optimizer; optax is imported only to train."""
    import optax

    def sgd(o: common.Optimizer) -> Any:
        return optax.chain(optax.add_decayed_weights(o.decay), optax.sgd(o.rate, o.momentum))

    def adam(o: common.Optimizer) -> Any:
        return optax.chain(optax.add_decayed_weights(o.decay), optax.adam(o.rate, o.beta1, o.beta2, o.epsilon))

    def adamw(o: common.Optimizer) -> Any:
        return optax.adamw(o.rate, o.beta1, o.beta2, o.epsilon, weight_decay=o.decay)

    return {"sgd": sgd, "adam": adam, "adamw": adamw}


def dotted(path: tuple[str, ...]) -> str:
    """("blocks_3", "norm1") -> "blocks.3.norm1", as the other frameworks name it."""
    return ".".join(re.sub(r"_(?=\d+(_\d+)*$)", ".", part) for part in path)


def floating(variables: Any) -> str:
    """The dtype of the first floating-point array."""
    kinds = [a.dtype.name for a in jax.tree.leaves(variables) if jnp.issubdtype(a.dtype, jnp.floating)]
    return str(kinds[0]) if kinds else "float32"


def _arrays(values: Any) -> list[jax.Array]:
    values = values if isinstance(values, tuple | list) else (values,)
    return [value for value in values if isinstance(value, jax.Array)]


def _replaced(args: tuple[Any, ...], given: Sequence[jax.Array]) -> list[Any]:
    left = iter(given)
    return [next(left) if isinstance(a, jax.Array) else a for a in args]


def _flat(tree: Any) -> dict[str, np.ndarray]:
    return {name: _numpy(array) for name, array in flatten_dict(tree, sep="/").items()}


def _numpy(array: jax.Array) -> np.ndarray:
    return np.asarray(array.astype(jnp.float32) if array.dtype == jnp.bfloat16 else array)

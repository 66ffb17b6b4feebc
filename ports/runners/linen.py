"""Run flax linen modules with their variables behind the common call (gradients, training: functional.py)."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import numpy as np
from flax.core import unfreeze
from flax.traverse_util import flatten_dict, unflatten_dict

from convert.errors import UsageError
from specs.notation.paths import dotted
from specs.words import with_article

from ..structure import Structure, of_module
from . import functional, jax_trees, modes
from .inputs import Inputs
from .misfits import misfits


class Linen(NamedTuple):
    """A linen module and its variables: Linen.module.apply(Linen.variables, images_nhwc)."""

    module: nn.Module
    variables: dict[str, Any]


class Runner(functional.Runner):
    library = "linen"
    model: Linen

    @classmethod
    def own(cls, model: Any, training: Mapping[str, Any] | None = None) -> Runner:
        """Run a user's (module, variables). Raises: UsageError for variables that are no collections."""
        module, variables = model
        if not isinstance(variables, Mapping):
            other = with_article(type(variables).__name__)
            raise UsageError(
                f"a linen module comes with {other}: pass (module, {{'params': ...}}), the collections that "
                "module.apply takes"
            )
        variables = jax.tree.map(jax.numpy.asarray, nn.meta.unbox(unfreeze(variables)))
        if variables and not variables.keys() & {"params", "batch_stats"}:
            raise UsageError(
                f"the variables of the linen module have no collection 'params' but {', '.join(map(str, variables))}: "
                "pass (module, {'params': params}), with all other collections beside it"
            )
        dtype, device = jax_trees.floating(variables), jax_trees.device_of(variables)
        return cls(Linen(module, variables), dtype, device, modes.chosen(module, attributes(module), training))

    @classmethod
    def build(
        cls, network: Any, config: Any, tensors: Iterable[tuple[str, np.ndarray]], dtype: str, device: str
    ) -> Runner:
        runner = cls(None, dtype, device, {"train": True})
        filled = {tuple(name.split("/")): runner.tensor(array) for name, array in tensors}
        runner.model = Linen(network(config), unflatten_dict(filled))
        return runner

    def called(self) -> nn.Module:
        return self.model.module

    def switches(self) -> list[str]:
        return modes.switches_of(self.model.module, attributes(self.model.module))

    def structure(self) -> Structure:
        return dict(of_module("", self.model.module, fields(self.model.module), lambda value: value))

    def misfits(self, inputs: Inputs) -> list[str]:
        rngs = {name: jax.random.key(0) for name in ("params", "dropout")}

        def init(arrays: list[Any]) -> Any:
            filled = self.with_arrays(inputs, arrays)
            return self.model.module.init(rngs, *filled.args, **filled.kwargs)

        wanted = {path: a.shape for path, a in flatten_dict(jax.eval_shape(init, self.arrays(inputs)), sep="/").items()}
        present = {path: a.shape for path, a in flatten_dict(self.model.variables, sep="/").items()}
        return misfits(present, wanted)

    def split(self) -> tuple[Any, Any]:
        variables = self.model.variables
        return variables.get("params", {}), {name: tree for name, tree in variables.items() if name != "params"}

    def joined(self, params: Any, rest: Any) -> Linen:
        return Linen(self.model.module, {"params": params, **rest})

    def run(self, params: Any, rest: Any, inputs: Inputs, training: bool, seed: Any = 0) -> tuple[Any, Any]:
        values = modes.switched(self.training, training)
        module = with_attributes(self.model.module, values, {})
        switches = modes.arguments(module, values)
        kwargs = {**inputs.kwargs, **switches} if training else {**switches, **inputs.kwargs}
        variables = {"params": params, **rest}
        with _moded(training):
            if not training:
                return module.apply(variables, *inputs.args, **kwargs), rest
            rngs = {"dropout": jax.random.key(seed)}
            out, changed = module.apply(variables, *inputs.args, mutable=list(rest), rngs=rngs, **kwargs)
        return out, changed

    @contextmanager
    def intercepted(self, handler: Callable[..., Any]) -> Iterator[None]:
        opened: list[str] = []  # paths of the linen modules that are running

        def intercept(call: Any, args: Any, kwargs: Any, context: Any) -> Any:
            if context.method_name != "__call__":
                return call(*args, **kwargs)
            path = dotted(context.module.path)
            opened.append(path)
            try:
                return handler(call, context.module, path, args, kwargs)
            finally:
                opened.pop()

        def inside(call: Any, module: Any, path: str, args: Any, kwargs: Any) -> Any:
            """Name an nnx module that to_linen wraps by the path of its wrapper, which stands for the outermost."""
            path = ".".join(filter(None, [opened[-1] if opened else "", path])) if path else ""
            return handler(call, module, path, args, kwargs) if path else call(*args, **kwargs)

        with nn.intercept_methods(intercept), _nnx_calls(inside):
            yield

    def is_dropout(self, module: Any) -> bool:
        nnx = sys.modules.get("flax.nnx")
        return isinstance(module, nn.Dropout) or bool(nnx and isinstance(module, nnx.Dropout))

    def flat(self, params: Any, rest: Any) -> dict[str, np.ndarray]:
        arrays = flatten_dict({"params": params, **rest})
        return jax_trees.distinct(
            (jax_trees.slashed(path), jax_trees.to_numpy(array)) for path, array in arrays.items()
        )

    def cast(self, dtype: str) -> Runner:
        model = Linen(self.model.module, jax_trees.cast(self.model.variables, dtype))
        other = type(self)(model, dtype, self.device, self.training)
        other.without_dropout = self.without_dropout
        return other


def _nnx_calls(handler: Callable[..., Any]) -> Any:
    """Intercept nnx modules inside linen ones, if nnx is in use."""
    if "flax.nnx" not in sys.modules:
        return nullcontext()
    from .nnx import calls

    return calls(handler)


def _moded(training: bool) -> Any:
    """Put nnx modules that to_linen builds during a run into a mode."""
    if "flax.nnx" not in sys.modules:
        return nullcontext()
    from .nnx import moded

    return moded(training)


def submodules(value: Any) -> Iterator[nn.Module]:
    """Yield the modules that an attribute holds, in containers as well."""
    if isinstance(value, nn.Module):
        yield value
    elif isinstance(value, Mapping):
        for child in value.values():
            yield from submodules(child)
    elif isinstance(value, tuple | list):
        for child in value:
            yield from submodules(child)


def fields(module: nn.Module) -> dict[str, Any]:
    """Return the attributes that a module is built from."""
    names = [f.name for f in dataclasses.fields(module) if f.init and f.name not in ("parent", "name")]
    return {name: getattr(module, name) for name in names}


def attributes(module: nn.Module) -> set[str]:
    """Return names of the attributes of a module and of the modules that it is built from."""
    own = fields(module)
    return {*own, *(name for value in own.values() for child in submodules(value) for name in attributes(child))}


def with_attributes(value: Any, values: Mapping[str, Any], clones: dict[int, Any]) -> Any:
    """Clone a module with other values of its switches, also in the modules that it is built from.

    Args:
      clones: clones by the id of their originals: a module that stands in two places stays one.
    """
    if isinstance(value, nn.Module):
        if id(value) not in clones:
            changes = {}
            for name, old in fields(value).items():
                new = values[name] if name in values and isinstance(old, type(values[name])) else old
                new = with_attributes(new, values, clones)
                if new is not old:
                    changes[name] = new
            clones[id(value)] = value.clone(**changes) if changes else value
        return clones[id(value)]
    if isinstance(value, tuple | list):
        children = [with_attributes(child, values, clones) for child in value]
        if all(new is old for new, old in zip(children, value, strict=True)):
            return value
        return type(value)(*children) if hasattr(value, "_fields") else type(value)(children)
    if isinstance(value, Mapping) and any(True for _ in submodules(value)):
        return {key: with_attributes(child, values, clones) for key, child in value.items()}
    return value

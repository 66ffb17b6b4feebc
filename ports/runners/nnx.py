"""Run flax nnx modules behind the common call (gradients, training: functional.py)."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import jax
import numpy as np
from flax import nnx
from jax.extend.core import get_opaque_trace_state

from convert.errors import UsageError
from specs.notation.paths import dotted

from ..structure import Structure, of_module
from . import functional, jax_modules, jax_trees, modes
from .inputs import Inputs
from .records import Module, classes

ModuleHandler = Callable[..., Any]


class Runner(functional.Runner):
    library = "nnx"
    model: nnx.Module

    @classmethod
    def own(cls, model: nnx.Module, training: Mapping[str, Any] | None = None) -> Runner:
        """Run a user's module; the module itself is never changed."""
        params = nnx.state(model, nnx.Param)
        training = modes.chosen(model, attributes(model), training)
        return cls(model, jax_trees.floating(params), jax_trees.device_of(params), training)

    @classmethod
    def build(
        cls, network: Any, config: Any, tensors: Iterable[tuple[str, np.ndarray]], dtype: str, device: str
    ) -> Runner:
        raise UsageError("ports in flax are linen modules")

    def called(self) -> nnx.Module:
        return self.model

    def switches(self) -> list[str]:
        return modes.switches_of(self.model, attributes(self.model))

    def structure(self) -> Structure:
        return dict(of_module("", self.model, vars(self.model), lambda value: value))

    def split(self) -> tuple[Any, Any]:
        _, params, rest = nnx.split(self.model, nnx.Param, ...)
        return params, rest

    def joined(self, params: Any, rest: Any) -> nnx.Module:
        return nnx.merge(nnx.graphdef(self.model), params, rest, copy=True)

    def run(self, params: Any, rest: Any, inputs: Inputs, training: bool, seed: Any = 0) -> tuple[Any, Any]:
        model = self.joined(params, rest)
        values = modes.switched(self.training, training)
        set_attributes(model, values)
        key = jax.random.key(seed)  # a seed may be traced, which `reseed` takes as a key alone
        nnx.reseed(model, default=key, dropout=key)
        switches = modes.arguments(model, values)
        out = model(*inputs.args, **({**inputs.kwargs, **switches} if training else {**switches, **inputs.kwargs}))
        return out, nnx.state(model, nnx.Not(nnx.Param))

    def intercepted(self, handler: ModuleHandler) -> Any:
        return calls(handler)

    def modules(self, inputs: Inputs) -> dict[str, Module]:
        """List every module by its path; nnx.scan and the like call copies, of which the class alone is known."""
        spelled = {dotted(path): ".".join(map(str, path)) for path, _ in nnx.iter_modules(self.model)}
        by_path = {
            path: dataclasses.replace(module, own=spelled.get(path, ""))
            for path, module in super().modules(inputs).items()
        }
        uncalled = {path for path, module in by_path.items() if not module.classes}
        copied = _copied(self, inputs) if uncalled else set()
        own = {dotted(path): module for path, module in nnx.iter_modules(self.model)}
        inner = {path for path in uncalled if type(own.get(path)) in copied}
        return {
            path: dataclasses.replace(module, classes=classes(own[path]), inside=True) if path in inner else module
            for path, module in by_path.items()
        }

    def is_dropout(self, module: Any) -> bool:
        return isinstance(module, nnx.Dropout)

    def flat(self, params: Any, rest: Any) -> dict[str, np.ndarray]:
        """Return parameters and running statistics under linen's names; the state of random streams is not compared."""
        arrays = []
        for path, variable in (leaf for tree in (params, rest) if tree for leaf in nnx.to_flat_state(tree)):
            if not isinstance(variable, nnx.RngState):
                collection = {nnx.Param: "params", nnx.BatchStat: "batch_stats"}.get(type(variable))
                collection = collection or ("params" if isinstance(variable, nnx.Param) else type(variable).__name__)
                name = jax_trees.slashed((collection, *path))
                arrays.append((name, jax_trees.to_numpy(variable.get_value())))
        return jax_trees.distinct(arrays)

    def cast(self, dtype: str) -> Runner:
        model = self.joined(*(jax_trees.cast(tree, dtype) for tree in self.split()))
        widen_embeddings(model)
        other = type(self)(model, dtype, self.device, self.training)
        other.without_dropout = self.without_dropout
        return other


def _copied(runner: Runner, inputs: Inputs) -> set[type]:
    """Return the classes of modules that a run calls inside a transformation of JAX, and that are none of the model."""
    outside, copied = list[Any](), set[type]()

    def note(module: Any) -> None:
        if get_opaque_trace_state() not in outside:
            copied.add(type(module))

    with calls(lambda call, module, path, args, kwargs: call(*args, **kwargs), note):
        jax_modules.run_on_shapes(runner, inputs, False, lambda: outside.append(get_opaque_trace_state()))
    return copied


def widen_embeddings(model: nnx.Module) -> None:
    """Let embeddings compute in the dtype that their tables have now, unless they are built with another one.

    Other modules of nnx have None there; an Embed notes the dtype that its table has when it is built.
    """
    for _, module in nnx.iter_modules(model):
        if isinstance(module, nnx.Embed) and module.dtype == module.param_dtype:
            module.dtype = module.param_dtype = module.embedding.dtype


def attributes(model: nnx.Module) -> set[str]:
    """Return the names of the attributes of a module and of those below it."""
    return {name for _, module in nnx.iter_modules(model) for name in vars(module) if not name.startswith("_")}


def set_attributes(model: nnx.Module, values: Mapping[str, Any]) -> None:
    """Set switches on every module that has them."""
    for _, module in nnx.iter_modules(model):
        for name, value in values.items():
            if isinstance(getattr(module, name, None), type(value)):
                setattr(module, name, value)


def _classes(base_class: Any = nnx.Module) -> Iterator[Any]:
    """Yield every class of modules that defines a call of its own."""
    for cls in base_class.__subclasses__():
        if "__call__" in vars(cls):
            yield cls
        yield from _classes(cls)


@contextmanager
def calls(handler: ModuleHandler, stranger: Callable[[Any], None] = lambda module: None) -> Iterator[None]:
    """Let handler(call, module, path, args, kwargs) take the place of every call of a module.

    Paths are from the outermost module that is running, whose own path is "". `stranger` receives a module without one.
    """
    running: list[Any] = []
    paths: dict[int, str] = {}

    def wrap(original: Any) -> Any:
        @functools.wraps(original)
        def call(self: Any, *args: Any, **kwargs: Any) -> Any:
            if running and running[-1] is self:  # super().__call__
                return original(self, *args, **kwargs)
            if not running:
                paths.clear()
                paths.update((id(module), dotted(path)) for path, module in nnx.iter_modules(self))
            path = paths.get(id(self))
            if path is None:  # built or copied during the call: it has no place in the model
                stranger(self)
                return original(self, *args, **kwargs)
            running.append(self)
            try:
                return handler(functools.partial(original, self), self, path, args, kwargs)
            finally:
                running.pop()

        return call

    originals = [(cls, vars(cls)["__call__"]) for cls in dict.fromkeys(_classes())]
    for cls, original in originals:
        cls.__call__ = wrap(original)
    try:
        yield
    finally:
        for cls, original in originals:
            cls.__call__ = original


def moded(training: bool) -> Any:
    """Put every outermost module that is called into a mode."""

    def handler(call: Any, module: Any, path: str, args: Any, kwargs: Any) -> Any:
        if not path:
            set_attributes(module, modes.switched(None, training))
        return call(*args, **kwargs)

    return calls(handler)

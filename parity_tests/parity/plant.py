"""Ways to plant a fault in one port, and nothing but the fault."""

from __future__ import annotations

import dataclasses
import re
import types
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from ports.port import Port

Plant = Callable[[Port, pytest.MonkeyPatch], Port]


def arrays(**changes: Callable[[np.ndarray], np.ndarray]) -> Plant:
    """Change arrays of the checkpoint: names with dots as "__", the change as a function."""
    named = {name.replace("__", "."): change for name, change in changes.items()}

    def plant(port: Port, patch: pytest.MonkeyPatch) -> Port:
        state = port.state()
        for name, change in named.items():
            own = _linen(name) if port.framework == "flax" and "/" not in name else name
            state[own] = np.ascontiguousarray(change(state[own])).astype(state[own].dtype)
        return rebuilt(port, state.items())

    return plant


def swapped(one: str, other: str) -> Plant:
    """Two arrays of one shape, exchanged."""

    def plant(port: Port, patch: pytest.MonkeyPatch) -> Port:
        state = port.state()
        state[one], state[other] = state[other], state[one]
        return rebuilt(port, state.items())

    return plant


def config(**changes: Any) -> Plant:
    """The same arrays in a network of another Config."""

    def plant(port: Port, patch: pytest.MonkeyPatch) -> Port:
        other = dataclasses.replace(port.config, **changes)
        return rebuilt(port, config=other)

    return plant


def around(path: str, faulty: Callable[..., Any]) -> Plant:
    """Replace the calls of one module by faulty(call, *arguments)."""

    def plant(port: Port, patch: pytest.MonkeyPatch) -> Port:
        if port.framework == "flax":
            _intercept(port.runner, path, faulty)
            return port
        module = child(port, path)
        kind = type(module)

        def forward(self: Any, *args: Any) -> Any:
            return faulty(types.MethodType(kind.forward, self), *args)

        module.__class__ = type(kind.__name__, (kind,), {"forward": forward})  # so that copies are faulty too
        return port

    return plant


def attribute(path: str, **values: Any) -> Plant:
    """Set attributes of one module of torch or paddle."""

    def plant(port: Port, patch: pytest.MonkeyPatch) -> Port:
        for name, value in values.items():
            assert hasattr(child(port, path), name), f"{path} has no {name}: the fault would be planted nowhere"
            setattr(child(port, path), name, value)
        return port

    return plant


def patched(target: str, name: str, make: Callable[[Any], Any]) -> Plant:
    """Replace what a module or class of the code holds by make(it), before the port is built."""

    def plant(port: Port, patch: pytest.MonkeyPatch) -> Port:
        holder = _find(target)
        old = holder[name] if isinstance(holder, dict) else getattr(holder, name)
        (patch.setitem if isinstance(holder, dict) else patch.setattr)(holder, name, make(old))
        return rebuilt(port, port.state().items())

    return plant


def gradient(name: str, change: Callable[[Any], Any]) -> Plant:
    """Change one parameter's gradient on its way out, in torch or paddle."""

    def plant(port: Port, patch: pytest.MonkeyPatch) -> Port:
        dict(port.model.named_parameters())[name].register_hook(change)
        return port

    return plant


def _linen(name: str) -> str:
    return "params/" + re.sub(r"\.(?=\d)", "_", name).replace(".", "/")


def rebuilt(port: Port, tensors: Any = None, config: Any = None, dtype: str = "") -> Port:
    """Return a port of the same kind with other tensors, Config or dtype, and all that is known of it."""
    config = port.config if config is None else config
    arrays = port.state().items() if tensors is None else tensors
    other = Port(port.framework, port.architecture, config, arrays, dtype or port.dtype, port.device)
    stated = {name for name in port.suggested if getattr(config, name) != getattr(port.config, name)}
    other.suggested = {name: origin for name, origin in port.suggested.items() if name not in stated}
    other.assumed, other.preprocessing, other.supplied = port.assumed, port.preprocessing, port.supplied
    other.source = port.source if tensors is None else None
    return other


def child(port: Port, path: str) -> Any:
    """A module of a torch or paddle port."""
    if port.framework == "torch":
        return port.model.get_submodule(path)
    return dict(port.model.named_sublayers())[path]


def _find(target: str) -> Any:
    """ "ports.torch.mlp_mixer:Block" -> the class."""
    import importlib

    module, _, names = target.partition(":")
    found: Any = importlib.import_module(module)
    for name in filter(None, names.split(".")):
        found = getattr(found, name)
    return found


def _intercept(runner: Any, path: str, faulty: Callable[..., Any]) -> None:
    """Let the submodule at a path of a linen module compute something else, under everything that records."""
    import flax.linen as nn

    from specs.notation.paths import dotted

    run = runner.run

    def intercept(call: Any, arguments: Any, keywords: Any, context: Any) -> Any:
        if context.method_name == "__call__" and dotted(context.module.path) == path:
            return faulty(lambda *given: call(*given, **keywords), *arguments)
        return call(*arguments, **keywords)

    def intercepted(*args: Any, **kwargs: Any) -> Any:
        with nn.intercept_methods(intercept):
            return run(*args, **kwargs)

    runner.run = intercepted

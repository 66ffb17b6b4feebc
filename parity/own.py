"""A user's own torch module, linen module with variables or paddle layer, behind the call that ports have."""

from __future__ import annotations

import inspect
import re
import sys
from collections.abc import Collection, Mapping
from typing import Any

import numpy as np

from convert.errors import UsageError
from ports.port import OUTPUT, Port
from specs.layer import Layer, batch_norm, conv, dense, norm

from .usage import require_known

# Kind of layer by the name of its class, in all three frameworks.
KINDS = (
    (r"Linear|Dense", "dense"), (r"Conv\w*", "conv"), (r"LayerNorm", "norm"), (r"(Sync)?BatchNorm\w*", "batch_norm"),
)  # fmt: skip
LISTS = r"(Sequential|ModuleList|LayerList)$"  # hold modules in a row; one framework's list is another's loop


def wrap(model: Any, names: Mapping[str, str] | None = None, feature_maps: Collection[str] | None = None) -> Port:
    """A port around a model of no known architecture.

    Args:
      names: paths of its modules -> names of taps; without it, every module that holds parameters is a tap by its path.
      feature_maps: taps whose four-dimensional arrays are images; None: all of them.
    Raises: UsageError for what is no model, and for names of modules that it does not have.
    """
    framework, model = _recognise(model)
    import importlib

    base = importlib.import_module(f"ports.adapters.{framework}").Port
    kind = type(f"Own{base.__name__}", (_HOMES[framework], base), {})
    port: Port = kind(model, names, feature_maps)
    return port


def _recognise(model: Any) -> tuple[str, Any]:
    """(framework, model), by what is imported: a model's own framework always is."""
    torch, paddle, linen = (sys.modules.get(name) for name in ("torch", "paddle", "flax.linen"))
    if torch and isinstance(model, torch.nn.Module):
        return "torch", model
    if paddle and isinstance(model, paddle.nn.Layer):
        return "paddle", model
    if linen and isinstance(model, linen.Module) and model.scope is not None:
        module, variables = model.unbind()
        return "flax", (module, variables)
    if linen and isinstance(model, tuple) and len(model) == 2 and isinstance(model[0], linen.Module):
        return "flax", model
    raise UsageError(
        f"{type(model).__name__} is no model: give a port, a torch module, (linen module, variables), a bound linen "
        "module or a paddle layer"
    )


class _Own(Port):
    """What takes the place of a spec: modules, looked at."""

    def __init__(self, model: Any, names: Mapping[str, str] | None, feature_maps: Collection[str] | None):
        self.architecture, self.config, self.device = "own", None, "cpu"
        self.given, self.names, self.feature_maps = model, names, feature_maps
        self.spec = None
        self._adopt(model)
        self._classes = self._modules()
        self._chosen = dict(names) if names is not None else {path: _tap(path) for path in self._default()}
        for path in self._chosen:
            require_known("module", path, filter(None, self._classes))

    def _adopt(self, model: Any) -> None:
        raise NotImplementedError

    def _modules(self) -> dict[str, tuple[str, list[str]]]:
        """{path: (name of class, names of the parameters below it)}."""
        raise NotImplementedError

    def _default(self) -> list[str]:
        return [path for path, (kind, held) in self._classes.items() if path and held and not re.search(LISTS, kind)]

    def tap_names(self) -> list[str]:
        """Names of its taps, without the output of the whole model."""
        return list(self._chosen.values())

    def with_dtype(self, dtype: str) -> Port:
        return type(self)(self._cast(dtype), self.names, self.feature_maps)

    def _cast(self, dtype: str) -> Any:
        raise NotImplementedError

    def _is_tap(self, path: str) -> bool:
        return path == "" or path in self._chosen

    def _is_map(self, path: str) -> bool:
        name = self._chosen.get(path, path)
        return path in ("", OUTPUT) or self.feature_maps is None or name in self.feature_maps

    def trace(self, images: np.ndarray, feed: Any = None) -> Any:
        """As a port's, under the names of the taps."""
        own = {shared: path for path, shared in self._chosen.items()}

        def renamed(name: str, table: Mapping[str, str]) -> str:
            path, mark, call = name.partition("#")
            return table.get(path, path) + mark + call

        given = {renamed(name, own): arrays for name, arrays in (feed or {}).items()}
        return [tap._replace(name=renamed(tap.name, self._chosen)) for tap in super().trace(images, given)]

    def shared(self, name: str) -> str | None:
        """By the tap that stands nearest above; what no given name covers is not compared."""
        for path in sorted(self._chosen, key=len, reverse=True):
            if name == path or name.startswith(f"{path}."):
                return self._chosen[path] + name[len(path) :]
        return name if self.names is None else None

    def layers(self) -> list[Layer]:
        """The layers whose kind is known by their class, under the names of their taps."""
        state = self.state()
        found = [_layer(path, kind, state, self.framework) for path, (kind, _) in self._classes.items()]
        return [layer for layer in found if layer is not None]

    def _checked(self, images: np.ndarray) -> np.ndarray:
        return np.asarray(images)


def _tap(path: str) -> str:
    """Name a module's tap by its path; a module called "output" must not take the whole model's place."""
    return f"{path} (module)" if path == OUTPUT else path


def _layer(path: str, kind: str, state: Mapping[str, np.ndarray], framework: str) -> Layer | None:
    """A module as a record of the converter, whose tables then translate its arrays."""
    hub = next((hub for pattern, hub in KINDS if re.fullmatch(pattern, kind)), None)
    prefix = "params/" + re.sub(r"\.(?=\d)", "_", path).replace(".", "/") + "/" if framework == "flax" else f"{path}."
    weight = state.get(prefix + {"flax": "kernel"}.get(framework, "weight"))
    scale = state.get(prefix + {"flax": "scale"}.get(framework, "weight"))
    bias = prefix + "bias" in state
    if hub == "dense" and weight is not None and weight.ndim == 2:
        o, i = weight.shape if framework == "torch" else weight.shape[::-1]
        return dense(path, i, o, bias=bias)
    if hub == "conv" and weight is not None and weight.ndim == 4:
        h, w, i, o = weight.shape if framework == "flax" else (*weight.shape[2:], *weight.shape[1::-1])
        made = conv(path, i, o, h, w)
        return Layer(path, "conv", made.sizes, bias)
    if hub in ("norm", "batch_norm") and scale is not None and scale.ndim == 1 and bias:
        return norm(path, len(scale)) if hub == "norm" else batch_norm(path, len(scale))
    return None


class _Moded(_Own):
    """A model with a mode of its own, which may be either."""

    def _forward(self, images: np.ndarray) -> np.ndarray:
        with self._mode(False):  # type: ignore[attr-defined]  # the adapter's, which stands beside this in the made class
            return super()._forward(images)  # type: ignore[safe-super]  # the adapter's, as above


class _Torch(_Moded):
    def _adopt(self, model: Any) -> None:
        first = next((p for p in model.parameters() if p.is_floating_point()), None)
        self.model, self.dtype = model, str(first.dtype).removeprefix("torch.") if first is not None else "float32"
        self.device = "gpu" if first is not None and first.is_cuda else "cpu"

    def _modules(self) -> dict[str, tuple[str, list[str]]]:
        return {
            path: (type(m).__name__, [n for n, _ in m.named_parameters()]) for path, m in self.model.named_modules()
        }

    def _cast(self, dtype: str) -> Any:
        import copy

        import torch

        return copy.deepcopy(self.model).to(getattr(torch, dtype))


class _Paddle(_Moded):
    def _adopt(self, model: Any) -> None:
        first = next((p for p in model.parameters() if p.is_floating_point()), None)
        self.model, self.dtype = model, str(first.dtype).removeprefix("paddle.") if first is not None else "float32"
        self.device = "gpu" if first is not None and first.place.is_gpu_place() else "cpu"
        self._settle()  # type: ignore[attr-defined]  # the adapter's, as above

    def _modules(self) -> dict[str, tuple[str, list[str]]]:
        named = self.model.named_sublayers(include_self=True)
        return {path: (type(m).__name__, [n for n, _ in m.named_parameters()]) for path, m in named}

    def _cast(self, dtype: str) -> Any:
        import copy

        made = copy.deepcopy(self.model)
        made.to(dtype=dtype)
        return made


class _Flax(_Own):
    def _adopt(self, model: Any) -> None:
        from ports.adapters.flax import Linen, floating

        self.model = Linen(*model)
        self.dtype = floating(self.model.variables)
        self.training = _training(self.model.module)
        self._settle()  # type: ignore[attr-defined]  # the adapter's, as above

    def _modules(self) -> dict[str, tuple[str, list[str]]]:
        """Linen's modules exist while they run: paths from the variables, classes from the module that made them."""
        from ports.adapters.flax import dotted

        held: dict[str, tuple[str, list[str]]] = {"": (type(self.model.module).__name__, [])}
        kinds = self._kinds()
        for name in self.state():
            collection, *parts = name.split("/")
            for depth in range(1, len(parts)):
                path = dotted(tuple(parts[:depth]))
                entry = held.setdefault(path, (kinds.get(path, ""), []))
                if collection == "params":
                    entry[1].append(name)
        return held

    def _kinds(self) -> Mapping[str, str]:
        """Class names by path: told by the leaves, since linen says them only while it runs."""
        found: dict[str, str] = {}
        from ports.adapters.flax import dotted

        names = self.state()
        for name, array in names.items():
            *path, leaf = name.split("/")[1:]
            if leaf == "kernel":
                found[dotted(tuple(path))] = "Conv" if array.ndim == 4 else "Dense"
            elif leaf == "scale":
                statistics = "/".join(["batch_stats", *path, "mean"])
                found[dotted(tuple(path))] = "BatchNorm" if statistics in names else "LayerNorm"
        return found

    def _cast(self, dtype: str) -> Any:
        import jax
        import jax.numpy as jnp

        if dtype == "float64":
            jax.config.update("jax_enable_x64", True)

        def cast(array: Any) -> Any:
            return array.astype(dtype) if jnp.issubdtype(array.dtype, jnp.floating) else array

        return self.model.module, jax.tree.map(cast, self.model.variables)


def _training(module: Any) -> dict[str, bool]:
    """What puts a linen module into training mode, by the names in use."""
    known = {"train": True, "training": True, "is_training": True, "deterministic": False}
    return {name: known[name] for name in inspect.signature(type(module).__call__).parameters if name in known}


_HOMES: dict[str, Any] = {"torch": _Torch, "paddle": _Paddle, "flax": _Flax}

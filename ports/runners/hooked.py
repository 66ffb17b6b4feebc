"""Do alike what torch and paddle do alike: run a model that stores its arrays, and trace it by hooks on its modules."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any, ClassVar

import numpy as np

from ..structure import Structure, of_module
from . import base, trees
from .inputs import Inputs
from .records import Tap, Taps
from .tracing import Trace

WITHOUT_PARAMETERS = "float32", "cpu"  # the dtype and the device of such a model


class Runner(base.Runner):
    """A model whose modules have modes and take hooks.

    Args:
      is_array: whether a value is a tensor of the framework.
      numpy: copies a tensor into an array; bfloat16 comes back as float32.
    """

    shallow: ClassVar[str]  # the argument of named_buffers that leaves out submodules
    is_array: Callable[[Any], bool]
    numpy: Callable[[Any], np.ndarray]

    @abstractmethod
    def tensor(self, array: np.ndarray) -> Any:
        """Copy an array into a tensor, in the model's dtype where it is of floating-point numbers."""

    @staticmethod
    @abstractmethod
    def _bare() -> Any:
        """Build an empty module, whose attributes are the framework's bookkeeping."""

    @staticmethod
    @abstractmethod
    def where(model: Any) -> tuple[str, str] | None:
        """Return the dtype and the device of a model's first parameter; None without any."""

    def follow(self) -> None:
        self.dtype, self.device = self.where(self.model) or (self.dtype, self.device)

    def structure(self) -> Structure:
        stored = self.model.state_dict()
        values: Structure = {}
        bookkeeping = vars(self._bare())
        for path, module in self._named_modules():
            own = {name: value for name, value in vars(module).items() if name not in bookkeeping}
            own.update({name: list(value.values()) for name, value in vars(module).items() if _is_hooks(name, value)})
            buffers = module.named_buffers(**{self.shallow: False})
            own.update({name: value for name, value in buffers if f"{path}.{name}".lstrip(".") not in stored})
            values.update(of_module(path, module, own, self._plain))
        return values

    def signature(self) -> tuple[Callable[..., Any], dict[str, Any]]:
        return self.model.forward, {}

    def _plain(self, value: Any) -> Any:
        return self.numpy(value) if self.is_array(value) else value

    @abstractmethod
    def _named_modules(self) -> Iterable[tuple[str, Any]]:
        """List every module with its path; "" is the model's."""

    @staticmethod
    @abstractmethod
    def _after(module: Any, hook: Any) -> Any:
        """Register a hook that is called with (module, inputs, output) after each call of a module."""

    @staticmethod
    @abstractmethod
    def _seed(seed: int) -> None:
        """Seed the framework's random numbers."""

    @abstractmethod
    def _mode(self, training: bool) -> AbstractContextManager[Any]:
        """Put the model into training mode or not; afterwards the model and random numbers are as before."""

    @abstractmethod
    def _training(self) -> AbstractContextManager[Any]:
        """Put the model into training mode; afterwards its weights and gradients are as before, too."""

    @abstractmethod
    def _outputs(self, tensors: Inputs) -> dict[str, np.ndarray]:
        """Call the model on tensors, without gradients."""

    def __call__(self, inputs: Inputs) -> dict[str, np.ndarray]:
        tensors = inputs.map(self.tensor)
        with self._mode(False):
            return self._outputs(tensors)

    def modes(self) -> dict[str, bool]:
        return {path: module.training for path, module in self._named_modules()}

    def is_random(self, inputs: Inputs, training: bool) -> bool:
        runs = []
        for seed in (1, 2):
            with self._training() if training else self._mode(False):
                self._seed(seed)
                runs.append(self._outputs(inputs.map(self.tensor)))
        return base.differ(runs)

    def trace(self, inputs: Inputs, taps: Taps, feed: Mapping[str, Sequence[np.ndarray]] | None = None) -> list[Tap]:
        fed = {name: [self.tensor(array) for array in arrays] for name, arrays in (feed or {}).items()}
        trace = Trace(fed, self.is_array, self.numpy)

        def enter(tap: str) -> Any:
            return lambda module, args, kwargs: trace.enter(tap, trees.Call(module.forward, args, kwargs))

        def leave(module: Any, into: Any, out: Any) -> None:
            trace.leave(out)

        hooks = []
        for path, module in self._named_modules():
            if (tap := taps.name(path)) is not None:
                hooks.append(module.register_forward_pre_hook(enter(tap), with_kwargs=True))
                hooks.append(self._after(module, leave))
        try:
            self(inputs)
        finally:
            for registered in hooks:
                registered.remove()
        return trace.taps


def _is_hooks(name: str, value: Any) -> bool:
    """Tell whether an attribute of a module holds hooks."""
    return "_hooks" in name and isinstance(value, Mapping) and bool(value)

"""Do alike what torch and paddle do alike: run a model that stores its arrays, and trace it by hooks on its modules."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any

import numpy as np

from . import base, trees


class Runner(base.Runner):
    """A model whose modules have modes and take hooks.

    Args:
      is_array: whether a value is a tensor of the framework.
      numpy: copies a tensor into an array; bfloat16 comes back as float32.
    """

    is_array: Callable[[Any], bool]
    numpy: Callable[[Any], np.ndarray]

    @abstractmethod
    def tensor(self, array: np.ndarray) -> Any:
        """Copy an array into a tensor, in the model's dtype where it is of floating-point numbers."""

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
    def _outputs(self, given: base.Inputs) -> dict[str, np.ndarray]:
        """Call the model on tensors, without gradients."""

    def __call__(self, inputs: base.Inputs) -> dict[str, np.ndarray]:
        given = inputs.map(self.tensor)
        with self._mode(False):
            return self._outputs(given)

    def is_random(self, inputs: base.Inputs, training: bool) -> bool:
        runs = []
        for seed in (1, 2):
            with self._mode(training):
                self._seed(seed)
                runs.append(self._outputs(inputs.map(self.tensor)))
        return base.differ(runs)

    def trace(
        self, inputs: base.Inputs, taps: base.Taps, feed: Mapping[str, Sequence[np.ndarray]] | None = None
    ) -> list[base.Tap]:
        fed = {name: [self.tensor(array) for array in arrays] for name, arrays in (feed or {}).items()}
        trace = base.Trace(fed, self.is_array, self.numpy)

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

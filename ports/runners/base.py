"""Define what every framework does with a model, numpy in and numpy out: call, trace, gradients, training, state."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any, ClassVar

import numpy as np

from convert.errors import UsageError

from ..structure import Structure
from . import trees
from .inputs import OUTPUT, Inputs, join
from .records import Drop, Gradients, Module, Optimizer, Tap, Taps, Training
from .tracing import visible


class Runner(ABC):
    """One model in one framework, in one dtype, on one device. Nothing of the model is other after a call.

    Args:
      model: what the framework calls; inference is always computed in evaluation mode.
      training: how to put the model into training mode, {name: value}; None: by the framework's own means.
    """

    framework: ClassVar[str]
    library: ClassVar[str]  # of that framework: a column of specs.kinds.TABLE

    def __init__(self, model: Any, dtype: str, device: str = "cpu", training: Mapping[str, Any] | None = None):
        self.model, self.dtype, self.device, self.training = model, dtype, device, training
        self.notes: list[str] = []  # what runs so far computed otherwise than the framework does, and why
        self.settle()
        self.settled = device

    def settle(self) -> None:  # noqa: B027  # most frameworks' devices need nothing
        """Prepare the device. Raises: Unavailable."""

    def follow(self) -> None:  # noqa: B027  # JAX computes in the dtype of what it is called with
        """Take the dtype and the device that the model has by now: its user may have cast or moved it."""

    def ready(self) -> None:
        """Follow the model, and prepare its device if that is another one. Raises: Unavailable, UsageError."""
        self.follow()
        if self.device != self.settled:
            self.settle()
            self.settled = self.device

    def replace(self, model: Any) -> None:
        """Run another model of the same kind from now on."""
        self.model = model

    def results(self, out: Any, is_array: trees.IsArray) -> dict[str, Any]:
        """Name the arrays that the model returned, and note the plain numbers beside them. Raises: UsageError."""
        if names := [join(OUTPUT, name) for name in trees.numbers(out)]:
            note = f"numbers that are no arrays are not compared: {', '.join(map(repr, names))}"
            self.notes += [note] if note not in self.notes else []
        return visible(OUTPUT, out, is_array)

    @abstractmethod
    def signature(self) -> tuple[Callable[..., Any], dict[str, Any]]:
        """Return the function that takes the inputs, and what the runner itself passes to it by name."""

    def switches(self) -> list[str]:
        """Return the names that `training` can set."""
        return []

    @abstractmethod
    def structure(self) -> Structure:
        """Describe what the model is besides its arrays: a change of it makes another network."""

    @classmethod
    @abstractmethod
    def build(
        cls, network: Any, config: Any, tensors: Iterable[tuple[str, np.ndarray]], dtype: str, device: str
    ) -> Runner:
        """Fill a network of a Config with (name, array) of everything that its checkpoint holds."""

    def misfits(self, inputs: Inputs) -> list[str]:
        """List arrays that the model lacks, does not use or has in another shape; torch and paddle check when built."""
        return []

    @abstractmethod
    def __call__(self, inputs: Inputs) -> dict[str, np.ndarray]:
        """Run inference: "output", and "output:KEY" for each further output; bfloat16 comes back as float32."""

    @abstractmethod
    def trace(self, inputs: Inputs, taps: Taps, feed: Mapping[str, Sequence[np.ndarray]] | None = None) -> list[Tap]:
        """Record every call of a tap, in the order in which they end; the whole model's own is "output".

        Args:
          feed: inputs to run the named calls on, in place of their own (which the taps still record).
        """

    @abstractmethod
    def modules(self, inputs: Inputs) -> dict[str, Module]:
        """List every module by its path; a framework whose modules exist while they run, runs the model."""

    @abstractmethod
    def gradients(self, inputs: Inputs) -> Gradients:
        """Differentiate Gradients.loss in training mode."""

    @abstractmethod
    def train(self, batches: Sequence[Inputs], optimizer: Optimizer) -> Training:
        """Take a step a batch on Gradients.loss."""

    @abstractmethod
    def dropout_calls(self, inputs: Inputs, seed: int) -> list[Drop]:
        """Record every call of dropout with a rate above 0 in one training-mode pass, in execution order."""

    def dropout_rates(self, inputs: Inputs) -> list[float]:
        """List the rate of every call that `dropout_calls` would record."""
        return [drop.rate for drop in self.dropout_calls(inputs, 0)]

    @abstractmethod
    def no_dropout(self) -> AbstractContextManager[Any]:
        """Let dropout pass its input on, inside a with statement."""

    @abstractmethod
    def is_random(self, inputs: Inputs, training: bool) -> bool:
        """Tell whether the outputs depend on random numbers."""

    def modes(self) -> dict[str, bool]:
        """Return, by the paths of modules that have a mode of their own, whether that is training."""
        return {}

    def require_training(self, inputs: Inputs) -> None:  # noqa: B027  # torch and paddle have one switch for all
        """Raise UsageError if the model does not go into training mode."""

    @abstractmethod
    def state(self) -> dict[str, np.ndarray]:
        """Return every array of the model, named and laid out as in this framework's checkpoint."""

    def unused(self, images: tuple[int, ...]) -> list[str]:
        """List the arrays that the model holds and, called with images of this shape (n, h, w, c), does not have.

        [] where the framework itself refuses such arrays.
        """
        return []

    @abstractmethod
    def jittered(self, share: float, seed: int) -> Runner:
        """Copy the model with each parameter multiplied by 1 + share or 1 - share, at random."""

    @abstractmethod
    def cast(self, dtype: str) -> Runner:
        """Copy the model into another dtype."""


def complex_of(dtype: str) -> str:
    """Return the dtype of complex numbers that a model in a floating-point dtype computes in."""
    return "complex128" if dtype == "float64" else "complex64"


def differ(runs: Sequence[Mapping[str, np.ndarray]]) -> bool:
    """Tell whether two runs returned anything else."""
    first, second = runs
    return first.keys() != second.keys() or any(
        not np.array_equal(first[name], second[name], equal_nan=first[name].dtype.kind in "fc") for name in first
    )


def sum_of(terms: Sequence[Any]) -> Any:
    """Add up the loss. Raises: UsageError if the model has no output of real or complex numbers."""
    if not terms:
        raise UsageError("the model returns no real or complex numbers, so that there is no loss to differentiate")
    return sum(terms[1:], start=terms[0])


def require_gradient(reaches: bool) -> None:
    """Raise RuntimeError where no gradient reaches the loss."""
    if not reaches:
        raise RuntimeError("no gradient reaches the outputs: the model runs under no_grad, or detaches what it returns")


@contextmanager
def attributes_kept(modules: Iterable[Any], is_array: trees.IsArray) -> Iterator[list[Any]]:
    """Restore every module's attributes and buffers when the block ends, whatever its calls assign.

    Yields: the tensors among them, whose values the framework has to keep.
    """
    before = [(vars(module), dict(vars(module)), dict(vars(module).get("_buffers", {}))) for module in modules]
    try:
        yield [value for _, own, buffers in before for value in [*own.values(), *buffers.values()] if is_array(value)]
    finally:
        for attributes, own, buffers in before:
            for name in attributes.keys() - own.keys():
                del attributes[name]
            attributes.update(own)
            if "_buffers" in own:
                own["_buffers"].clear()
                own["_buffers"].update(buffers)


def factors(arrays: Iterable[Any], share: float, seed: int) -> list[np.ndarray]:
    """Return, for each array, an array of its shape whose elements are 1 + share or 1 - share, at random."""
    rng = np.random.default_rng(seed)
    return [1 + share * rng.choice((-1.0, 1.0), tuple(array.shape)) for array in arrays]

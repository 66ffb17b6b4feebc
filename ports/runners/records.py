"""Define what runs return, in every framework alike: taps, gradients, trained weights, calls of dropout."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from .inputs import INPUT, OUTPUT, join


@dataclass(frozen=True)
class Gradients:
    """One training-mode pass. Arrays are named and laid out as in the framework's checkpoint.

    Args:
      loss: the sum of mean(output ** 2) over all outputs of real numbers, of mean(|output| ** 2) over complex ones.
      outputs: "output", and "output:KEY" for each further one.
      parameters: d loss / d parameter.
      inputs: d loss / d input by the name of the input, images as (n, c, h, w).
      statistics: running statistics after the pass.
    """

    loss: float
    outputs: dict[str, np.ndarray]
    parameters: dict[str, np.ndarray]
    inputs: dict[str, np.ndarray]
    statistics: dict[str, np.ndarray]

    @property
    def logits(self) -> np.ndarray:
        return self.outputs[OUTPUT]

    @property
    def images(self) -> np.ndarray:
        return self.inputs[INPUT]


@dataclass(frozen=True, kw_only=True)
class Optimizer:
    """Hyperparameters, meaning the same in torch.optim, optax and paddle.optimizer.

    The defaults are sums of few powers of two: every float format holds them exactly, so that a framework that keeps
    them in float32 (paddle) computes with the same numbers in float64 as one that does not. Epsilon is so large that
    Adam does not make steps of rounding: a gradient that is zero in exact arithmetic moves its weight by rate / epsilon
    of its rounding, and by rate * decay / epsilon of the weight itself, which has to stay below 1.

    Args:
      name: "sgd" (velocity = momentum * velocity + gradient), "adam", or "adamw" (decay decoupled from the moments).
      epsilon: added to the root of the bias-corrected second moment.
      decay: times the learning rate, off the weights in AdamW; times the weights, onto the gradient in the others.
    """

    name: str
    rate: float = 2**-10
    momentum: float = 0.875
    beta1: float = 0.875
    beta2: float = 0.984375
    epsilon: float = 2**-12
    decay: float = 2**-5


@dataclass(frozen=True)
class Training:
    """The result of steps of training. Arrays are named and laid out as in the framework's checkpoint.

    Args:
      losses: before each step, see Gradients.loss.
      parameters: after the last step.
      statistics: running statistics after the last step; variances as flax and paddle define them, biased.
      notes: what was computed otherwise than the framework does, and why.
    """

    losses: list[float]
    parameters: dict[str, np.ndarray]
    statistics: dict[str, np.ndarray]
    notes: tuple[str, ...] = ()


class Drop(NamedTuple):
    """One call of dropout in training mode. A unit is what is kept or dropped as one: an element, or a whole sample.

    Args:
      rate: share of units that are dropped.
      kept: whether each unit whose input is not zero was kept, flat, in the framework's own order.
      scale: largest deviation of a kept element from input / (1 - rate), relative to the largest input.
      units: number of all units, whatever their inputs.
    """

    rate: float
    kept: np.ndarray
    scale: float
    units: int


def describe_drop(into: np.ndarray, out: np.ndarray, rate: float, whole: Sequence[int] = ()) -> Drop:
    """Describe one call of dropout by its input and output.

    Args:
      whole: axes along which units extend.
    """
    into, out = np.asarray(into, np.float64), np.asarray(out, np.float64)
    seen = np.where(into == 0, np.nan, out != 0)  # where the input is zero, the output shows no mask
    units = seen if not whole else np.nanmean(seen, axis=tuple(whole))
    scaled = into / (1 - rate)
    stray = np.where(np.isin(units, [0.0, 1.0]) | np.isnan(units), 0.0, np.inf).max(initial=0.0)  # a unit torn apart
    off = np.abs(np.where(out != 0, out - scaled, 0.0)).max(initial=0.0) / (np.abs(into).max(initial=0.0) or 1.0)
    return Drop(rate, units[~np.isnan(units)].astype(bool).ravel(), float(max(off, stray)), units.size)


@dataclass(frozen=True)
class Taps:
    """Which modules a trace records, and the layout of what goes in and out of them.

    Args:
      name: path of a module -> name of its tap, None for no tap; "" is the path of the whole model.
      image_axes: name of a tap -> how many axes its images have, as 4 in (n, c, h, w), with channels second outside
        every framework; 0 if it has none.
    """

    name: Callable[[str], str | None]
    image_axes: Callable[[str], int]


class Tap(NamedTuple):
    """One call of a module. Inputs and outputs are its array arguments and results, in order.

    `keys` names the outputs: "" for the first of a sequence or a lone one, else its place, such as "1" or "hidden".
    """

    name: str
    inputs: tuple[np.ndarray, ...]
    outputs: tuple[np.ndarray, ...]
    keys: tuple[str, ...] = ("",)

    def arrays(self) -> Iterator[tuple[str, np.ndarray]]:
        """Yield (name, array) of what a call takes, "norm <- 0", and returns, "norm"; a whole model returns alone."""
        if self.name != OUTPUT:
            yield from ((f"{self.name} <- {k}", array) for k, array in enumerate(self.inputs))
        yield from ((join(self.name, key), out) for key, out in zip(self.keys, self.outputs, strict=True))

    def of(self, arrays: Mapping[str, np.ndarray]) -> Tap:
        """Return the same call with other arrays, under the names of `arrays`; a whole model's inputs stay."""
        into = tuple(arrays.get(f"{self.name} <- {k}", array) for k, array in enumerate(self.inputs))
        return self._replace(inputs=into, outputs=tuple(arrays[join(self.name, key)] for key in self.keys))


def outputs(taps: Iterable[Tap]) -> Iterator[tuple[str, np.ndarray]]:
    """Yield (name, array) of everything that the calls returned."""
    for tap in taps:
        for key, out in zip(tap.keys, tap.outputs, strict=True):
            yield join(tap.name, key), out


@dataclass(frozen=True)
class Module:
    """One module of a model.

    Args:
      classes: names of its class and of those that it is derived from, nearest first; () if nothing shows them (a
        module of variables that the run never called).
      leaves: {name of an array of its own: name of that array in the state}.
      trained: whether it or a module below it holds parameters.
      inside: whether nn.scan, nn.remat, nn.vmap or another transformation of JAX calls it, so that its values do not
        leave the run.
      own: its path as the model spells it, "layer_0.fc1" of "layer.0.fc1"; "" where that is its path.
    """

    classes: tuple[str, ...] = ()
    leaves: Mapping[str, str] = field(default_factory=dict)
    trained: bool = False
    inside: bool = False
    own: str = ""

    @property
    def kind(self) -> str:
        """Name of its class, or ""."""
        return next(iter(self.classes), "")


def classes(module: Any) -> tuple[str, ...]:
    """Return the names of a module's class and of those that it is derived from, nearest first."""
    return tuple(cls.__name__ for cls in type(module).__mro__)

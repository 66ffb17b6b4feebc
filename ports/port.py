"""The common call of a port: numpy in, numpy out, the same in every framework."""

from __future__ import annotations

import dataclasses
import re
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np

import specs
from convert.errors import ConvertError
from specs.layer import Layer

OUTPUT = "output"  # the tap of the network itself
DTYPES = ("float64", "float32", "bfloat16", "float16")


class Unavailable(ConvertError):
    """A device that this machine, or this build of a framework, does not have."""


@dataclass(frozen=True)
class Gradients:
    """One training-mode pass. Arrays are named and laid out as in the framework's checkpoint.

    Args:
      loss: mean(logits ** 2).
      logits: (n, classes).
      parameters: d loss / d parameter.
      images: d loss / d images, (n, c, h, w).
      statistics: running statistics after the pass.
    """

    loss: float
    logits: np.ndarray
    parameters: dict[str, np.ndarray]
    images: np.ndarray
    statistics: dict[str, np.ndarray]


class Tap(NamedTuple):
    """One call of a layer or block. Inputs and outputs are its array arguments and results, in order."""

    name: str
    inputs: tuple[np.ndarray, ...]
    outputs: tuple[np.ndarray, ...]


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
    """What steps of training lead to. Arrays are named and laid out as in the framework's checkpoint.

    Args:
      losses: mean(logits ** 2) before each step.
      parameters: after the last step.
      statistics: running statistics after the last step; variances as flax and paddle keep them, biased.
    """

    losses: list[float]
    parameters: dict[str, np.ndarray]
    statistics: dict[str, np.ndarray]


class Drop(NamedTuple):
    """One call of dropout in training mode. Units are what is kept or dropped as one: elements, or whole samples.

    Args:
      rate: share of units that are dropped.
      kept: whether each unit whose input tells was kept, flat, in the framework's own order: a zero tells nothing.
      scale: largest deviation of a kept element from input / (1 - rate), relative to the largest input.
      units: all of them, whatever their inputs.
    """

    rate: float
    kept: np.ndarray
    scale: float
    units: int


class Port(ABC):
    """One architecture in one framework, with weights, in one dtype, on one device.

    Args:
      tensors: (name, array) of everything that the framework's checkpoint of this architecture holds.
    """

    framework: str

    @cached_property
    def notes(self) -> list[str]:
        """What runs so far computed otherwise than the framework does, and why: a sentence each."""
        return []

    def __init__(
        self, architecture: str, config: Any, tensors: Iterable[tuple[str, np.ndarray]], dtype: str, device: str
    ):
        if dtype not in DTYPES:
            raise ConvertError(f"dtype {dtype!r} is none of {', '.join(DTYPES)}")
        if device not in ("cpu", "gpu"):
            raise ConvertError(f"device {device!r} is neither cpu nor gpu")
        self.architecture, self.config, self.dtype, self.device = architecture, config, dtype, device
        self.spec = specs.get(architecture)
        self.model = self._create(tensors)

    @abstractmethod
    def _create(self, tensors: Iterable[tuple[str, np.ndarray]]) -> Any: ...

    def __call__(self, images: np.ndarray) -> np.ndarray:
        """Inference. images: (n, c, h, w) -> logits (n, classes); bfloat16 results come back as float32."""
        return self._forward(self._checked(images))

    @abstractmethod
    def _forward(self, images: np.ndarray) -> np.ndarray: ...

    def taps(self, images: np.ndarray) -> dict[str, np.ndarray]:
        """Outputs of every layer and block in execution order, under the names that all frameworks share.

        Feature maps come as (n, c, h, w) from every framework; a module called twice appears again as "name#1", and
        what a module returns beside its first output as "name:1".
        """
        return dict(outputs(tap for tap in self.trace(images) if tap.name != OUTPUT))

    def tap_inputs(self, images: np.ndarray) -> dict[str, np.ndarray]:
        """What went first into each layer and block of `taps`, under the same names."""
        return {tap.name: tap.inputs[0] for tap in self.trace(images) if tap.name != OUTPUT}

    def trace(self, images: np.ndarray, feed: Mapping[str, Sequence[np.ndarray]] | None = None) -> list[Tap]:
        """Every call of a layer or block, in the order in which they end; the network's own is "output".

        Args:
          feed: inputs to run the named calls on, in place of their own (which the taps still record): errors do not
            accumulate, and each layer answers for itself alone.
        """
        return self._trace(self._checked(images), feed or {})

    @abstractmethod
    def _trace(self, images: np.ndarray, feed: Mapping[str, Sequence[np.ndarray]]) -> list[Tap]: ...

    @abstractmethod
    def gradients(self, images: np.ndarray) -> Gradients:
        """Loss mean(logits ** 2) in training mode, its gradients, and the running statistics after it."""

    @abstractmethod
    def train(self, batches: Sequence[np.ndarray], optimizer: Optimizer) -> Training:
        """A step a batch (n, c, h, w) on loss mean(logits ** 2); the port itself stays as it is."""

    @abstractmethod
    def drops(self, images: np.ndarray, seed: int) -> list[Drop]:
        """Every call of dropout with a rate above 0 in one training-mode pass, in execution order."""

    def drop_rates(self) -> list[str]:
        """Config fields that make training random."""
        fields = vars(self.config) if self.config is not None else {}
        return [name for name, value in fields.items() if "drop" in name and isinstance(value, float) and value > 0]

    @contextmanager
    def undropped(self) -> Iterator[Port]:
        """The same port without its drop rates, to use inside a with statement."""
        config = dataclasses.replace(self.config, **dict.fromkeys(self.drop_rates(), 0.0))
        yield type(self)(self.architecture, config, self.state().items(), self.dtype, self.device)

    def with_dtype(self, dtype: str) -> Port:
        """The same weights, computed in another dtype."""
        return type(self)(self.architecture, self.config, self.state().items(), dtype, self.device)

    def layers(self) -> list[Layer]:
        """Every layer with its arrays."""
        return list(self.spec.layers(self.config))

    def shared(self, name: str) -> str | None:
        """The name that all frameworks have for a layer or array of `layers`; None for what is not to be compared."""
        return name

    @abstractmethod
    def jittered(self, share: float, seed: int) -> Port:
        """Return a copy each of whose parameters is multiplied by 1 + share or 1 - share, at random."""

    @abstractmethod
    def state(self) -> dict[str, np.ndarray]:
        """Every array of the model, named and laid out as in this framework's checkpoint."""

    def _checked(self, images: np.ndarray) -> np.ndarray:
        images = np.asarray(images)
        if images.ndim != 4 or images.shape[1] != self.config.channels:
            raise ValueError(f"images are (n, {self.config.channels}, height, width), not {images.shape}")
        self.spec.check_images(self.config, images.shape[2], images.shape[3])
        return images

    def _is_tap(self, path: str) -> bool:
        return path == "" or pattern(path) in self._tapped[0]

    def _is_map(self, path: str) -> bool:
        """Whether four-dimensional arrays in and out of a module are images."""
        return path in ("", OUTPUT) or pattern(path) in self._tapped[1]

    @cached_property
    def _tapped(self) -> tuple[set[str], set[str]]:
        """(names that are taps, those of them that are feature maps), as patterns with "#" for numbers."""
        layers = list(self.spec.layers(self.config))
        paths = {pattern(layer.path) for layer in layers}
        parents = {path.rsplit(".", depth)[0] for path in paths for depth in range(1, path.count(".") + 1)}
        maps = {pattern(layer.path) for layer in layers if layer.kind in ("conv", "batch_norm")}
        parents -= {parent for parent in parents if any(path.startswith(parent + ".#") for path in paths)}  # lists
        return paths | parents | set(self.spec.FEATURE_MAPS), maps | set(self.spec.FEATURE_MAPS)


def pattern(path: str) -> str:
    """ "blocks.3.norm1" -> "blocks.#.norm1"."""
    return re.sub(r"(?<=\.)\d+(?=\.|$)", "#", path)


def factors(arrays: Iterable[Any], share: float, seed: int) -> list[np.ndarray]:
    """Return, for each array, an array of its shape whose elements are 1 + share or 1 - share, at random."""
    rng = np.random.default_rng(seed)
    return [1 + share * rng.choice((-1.0, 1.0), tuple(array.shape)) for array in arrays]


def outputs(taps: Iterable[Tap]) -> Iterator[tuple[str, np.ndarray]]:
    """(name, array) of everything that the calls returned."""
    for tap in taps:
        for k, out in enumerate(tap.outputs):
            yield (f"{tap.name}:{k}" if k else tap.name), out


def kept(into: np.ndarray, out: np.ndarray, rate: float, whole: Sequence[int] = ()) -> Drop:
    """What a call of dropout did.

    Args:
      whole: axes along which units extend.
    """
    into, out = np.asarray(into, np.float64), np.asarray(out, np.float64)
    seen = np.where(into == 0, np.nan, out != 0)  # a zero tells nothing of its mask
    units = seen if not whole else np.nanmean(seen, axis=tuple(whole))
    scaled = into / (1 - rate)
    stray = np.where(np.isin(units, [0.0, 1.0]) | np.isnan(units), 0.0, np.inf).max(initial=0.0)  # a unit torn apart
    off = np.abs(np.where(out != 0, out - scaled, 0.0)).max(initial=0.0) / (np.abs(into).max(initial=0.0) or 1.0)
    return Drop(rate, units[~np.isnan(units)].astype(bool).ravel(), float(max(off, stray)), units.size)


class Trace:
    """Collects the calls of the modules that are taps, numbering repeated ones."""

    def __init__(self, feed: Mapping[str, Any]):
        self.feed = feed
        self.calls: dict[str, int] = {}
        self.open: list[tuple[str, Any]] = []
        self.found: list[tuple[str, Any, Any]] = []

    def enter(self, path: str, arrays: Any) -> Any:
        """A call begins; what to run it on instead, if anything."""
        path = path or OUTPUT
        calls = self.calls[path] = self.calls.get(path, 0) + 1
        name = path if calls == 1 else f"{path}#{calls - 1}"
        self.open.append((name, arrays))
        return self.feed.get(name)

    def leave(self, arrays: Any) -> None:
        """The call that began last ends."""
        self.found.append((*self.open.pop(), arrays))

"""What every framework does with a model, numpy in and numpy out: call, trace, gradients, training, state."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from typing import Any, ClassVar, NamedTuple

import numpy as np

from convert.errors import ConvertError, UsageError

from . import trees

OUTPUT = "output"  # the tap of the whole model
INPUT = "images"  # the name of the whole model's first input


class Unavailable(ConvertError):
    """A device that this machine, or this build of a framework, does not have."""


class Inputs:
    """What a model is called with: trees of arrays, by position and by name.

        Inputs(ids, mask=mask)

    Arrays with four axes are images (n, c, h, w) in every framework. Integers stay integers.
    """

    def __init__(self, *args: Any, **kwargs: Any):
        self.args, self.kwargs = args, kwargs

    @classmethod
    def of(cls, inputs: Any) -> Inputs:
        """Wrap an array, a tuple of positional arguments or a mapping of named ones; a list is one array."""
        if isinstance(inputs, Inputs):
            return inputs
        if isinstance(inputs, Mapping):
            return cls(**inputs)
        return cls(*inputs) if isinstance(inputs, tuple) else cls(_array(inputs))

    def arrays(self) -> Inputs:
        """Convert everything that is no setting to numpy. Raises: UsageError for what is no array."""

        def foreign(value: Any) -> bool:
            return not isinstance(value, trees.PLAIN)

        found = [value for _, value in trees.leaves((self.args, self.kwargs)) if foreign(value)]
        return self.filled(map(_array, found), foreign)

    def map(self, function: Callable[[np.ndarray], Any]) -> Inputs:
        """Apply a function to every numpy array."""
        return self.filled(map(function, self.named(is_numpy).values()), is_numpy)

    def filled(self, values: Iterable[Any], is_array: trees.IsArray) -> Inputs:
        """Put other values in the places of the arrays, in their order."""
        args, kwargs = trees.replace((self.args, self.kwargs), is_array, iter(values))
        return Inputs(*args, **kwargs)

    def structure(self) -> tuple[Any, ...]:
        """Everything but the values of the arrays, to compare."""
        found = [("args", *leaf) for leaf in trees.leaves(self.args)]
        found += [("kwargs", *leaf) for leaf in trees.leaves(self.kwargs)]
        return tuple((kind, path, None if is_numpy(value) else repr(value)) for kind, path, value in found)

    def named(self, is_array: trees.IsArray) -> dict[str, Any]:
        """Name the arrays: "images" for the first argument, then "images:1", "images:mask", ..."""
        found = [*trees.leaves(self.args), *trees.leaves(self.kwargs)]
        return {_join(INPUT, trees.label(path)): value for path, value in found if is_array(value)}


def _array(value: Any) -> np.ndarray:
    try:
        array = np.asarray(value)
    except (ValueError, TypeError, RuntimeError) as error:  # a tensor that numpy cannot read
        raise UsageError(f"inputs must be arrays of numbers: {error}") from error
    return array.astype(np.float32) if array.dtype.name == "bfloat16" else array


def is_numpy(value: Any) -> bool:
    return isinstance(value, np.ndarray | np.generic)


def _join(name: str, key: str) -> str:
    return f"{name}:{key}" if key else name


@dataclass(frozen=True)
class Gradients:
    """One training-mode pass. Arrays are named and laid out as in the framework's checkpoint.

    Args:
      loss: the sum of mean(output ** 2) over all floating-point outputs.
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


class Tap(NamedTuple):
    """One call of a module. Inputs and outputs are its array arguments and results, in order.

    `keys` names the outputs: "" for the first of a sequence or a lone one, else its place, such as "1" or "hidden".
    """

    name: str
    inputs: tuple[np.ndarray, ...]
    outputs: tuple[np.ndarray, ...]
    keys: tuple[str, ...] = ("",)


def outputs(taps: Iterable[Tap]) -> Iterator[tuple[str, np.ndarray]]:
    """Yield (name, array) of everything that the calls returned."""
    for tap in taps:
        for key, out in zip(tap.keys, tap.outputs, strict=True):
            yield _join(tap.name, key), out


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
      losses: before each step, see Gradients.loss.
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


def kept(into: np.ndarray, out: np.ndarray, rate: float, whole: Sequence[int] = ()) -> Drop:
    """Describe one call of dropout by its input and output.

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


def factors(arrays: Iterable[Any], share: float, seed: int) -> list[np.ndarray]:
    """Return, for each array, an array of its shape whose elements are 1 + share or 1 - share, at random."""
    rng = np.random.default_rng(seed)
    return [1 + share * rng.choice((-1.0, 1.0), tuple(array.shape)) for array in arrays]


@dataclass(frozen=True)
class Taps:
    """Which modules a trace records, and the layout of what goes in and out of them.

    Args:
      name: path of a module -> name of its tap, None for no tap; "" is the path of the whole model.
      is_map: name of a tap -> whether its four-dimensional arrays are images, (n, c, h, w) outside every framework.
    """

    name: Callable[[str], str | None]
    is_map: Callable[[str], bool]


@dataclass(frozen=True)
class Module:
    """One module of a model.

    Args:
      classes: names of its class and of those that it is derived from, nearest first; () if nothing says them (a
        module of variables that the run never called).
      leaves: {name of an array that it holds itself: name of that array in the state}.
      trained: whether it or a module below it holds parameters.
    """

    classes: tuple[str, ...] = ()
    leaves: Mapping[str, str] = field(default_factory=dict)
    trained: bool = False

    @property
    def kind(self) -> str:
        """Name of its class, or ""."""
        return next(iter(self.classes), "")


def classes(module: Any) -> tuple[str, ...]:
    """Names of a module's class and of those that it is derived from, nearest first."""
    return tuple(cls.__name__ for cls in type(module).__mro__)


class Trace:
    """Collects the calls of taps, numbering repeated ones.

    Args:
      feed: inputs to run the named calls on, in place of their own.
      is_array: tells the framework's arrays from everything else.
      copied: what to record of an array: a later operation in place must not change it.
    """

    def __init__(
        self, feed: Mapping[str, Sequence[Any]], is_array: trees.IsArray, copied: Callable[[Any], Any] = lambda a: a
    ):
        self.feed, self.is_array, self.copied = feed, is_array, copied
        self.calls: dict[str, int] = {}
        self.open: list[tuple[str, tuple[Any, ...]]] = []
        self.taps: list[Tap] = []

    def enter(self, tap: str, call: trees.Call) -> tuple[tuple[Any, ...], dict[str, Any]] | None:
        """Begin a call. Returns: (args, kwargs) to run it on instead, None to run it as it is.

        A feed that does not fit the call (another number of arrays, other shapes) is not used: the recorded inputs
        then differ, and show it.
        """
        calls = self.calls[tap] = self.calls.get(tap, 0) + 1
        name = tap if calls == 1 else f"{tap}#{calls - 1}"
        arrays = call.arrays(self.is_array)
        self.open.append((name, tuple(map(self.copied, arrays))))
        given = self.feed.get(name)
        if given is None or [tuple(a.shape) for a in given] != [tuple(a.shape) for a in arrays]:
            return None
        return call.replaced(self.is_array, given)

    def leave(self, out: Any) -> None:
        """End the call that began last."""
        name, arrays = self.open.pop()
        seen = visible(name, out, self.is_array)
        self.taps.append(Tap(name, arrays, tuple(map(self.copied, seen.values())), tuple(seen)))


def visible(name: str, out: Any, is_array: trees.IsArray) -> dict[str, Any]:
    """Name the arrays that a module returned. Raises: UsageError for a result whose arrays cannot be seen."""
    for stranger in trees.strangers(out, is_array):
        raise UsageError(
            f"module {name!r} returns a {type(stranger).__name__}, whose arrays cannot be compared: return arrays, "
            "sequences, mappings or dataclasses of them, or leave the module out of names"
        )
    return trees.arrays(out, is_array)


def named(found: Mapping[str, Any], convert: Callable[[Any], np.ndarray]) -> dict[str, np.ndarray]:
    """Convert the whole model's outputs: "output", and "output:KEY" for each further one."""
    return {_join(OUTPUT, key): convert(array) for key, array in found.items()}


def named_outputs(out: Any, is_array: trees.IsArray, convert: Callable[[Any], np.ndarray]) -> dict[str, np.ndarray]:
    """Convert what the whole model returned."""
    return named(visible(OUTPUT, out, is_array), convert)


def differ(runs: Sequence[Mapping[str, np.ndarray]]) -> bool:
    """Tell whether two runs returned anything else."""
    first, second = runs
    return first.keys() != second.keys() or any(
        not np.array_equal(first[name], second[name], equal_nan=first[name].dtype.kind == "f") for name in first
    )


def sum_of(terms: Sequence[Any]) -> Any:
    """Add up the loss. Raises: UsageError if the model has no floating-point output."""
    if not terms:
        raise UsageError("the model has no floating-point output, so that there is no loss to differentiate")
    return sum(terms[1:], start=terms[0])


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

    def settle(self) -> None:  # noqa: B027  # most frameworks' devices need nothing
        """Prepare the device. Raises: Unavailable."""

    @classmethod
    @abstractmethod
    def build(
        cls, network: Any, config: Any, tensors: Iterable[tuple[str, np.ndarray]], dtype: str, device: str
    ) -> Runner:
        """Fill a network of a Config with (name, array) of everything that its checkpoint holds."""

    @abstractmethod
    def __call__(self, inputs: Inputs) -> dict[str, np.ndarray]:
        """Inference: "output", and "output:KEY" for each further output; bfloat16 comes back as float32."""

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
    def drops(self, inputs: Inputs, seed: int) -> list[Drop]:
        """Record every call of dropout with a rate above 0 in one training-mode pass, in execution order."""

    def drop_rates(self, inputs: Inputs) -> list[float]:
        """List the rate of every call that `drops` would record."""
        return [drop.rate for drop in self.drops(inputs, 0)]

    @abstractmethod
    def undropped(self) -> AbstractContextManager[Any]:
        """Let dropout pass its input on, inside a with statement."""

    @abstractmethod
    def is_random(self, inputs: Inputs, training: bool) -> bool:
        """Tell whether the outputs depend on random numbers."""

    def require_training(self, inputs: Inputs) -> None:  # noqa: B027  # torch and paddle have one switch for all
        """Raise UsageError if the model does not go into training mode."""

    @abstractmethod
    def state(self) -> dict[str, np.ndarray]:
        """Every array of the model, named and laid out as in this framework's checkpoint."""

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

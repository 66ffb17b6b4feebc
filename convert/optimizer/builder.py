"""Lay out a state as another library stores it: what the writers of all libraries share."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from convert import folding
from convert.arrays.steps import ConstantFilling, Filling, Promise, Step
from convert.files.base import Tensor
from convert.reading.families import NEEDED, call
from specs.words import in_a_row

from .averages import Averages
from .settling import RECORD, options
from .state import State

AVERAGES = "model_ema"  # where torchvision's and PaddleViT's training scripts keep the copy

# Of weights without a state in the source: torch creates it later, other formats need every array.
AT_FIRST = "and none here, as before their first step"
COMPLETE = "is the file complete?"
ZEROS = "so zeros at step 0, as of a new optimizer"


@dataclass(frozen=True)
class Model:
    """The target's weights, and the moments of those that are trained and have any.

    Args:
      path: of the source, for messages.
      weights: steps, by the names that the target's framework has for them.
      trained: those of them that are parameters, in the order of the target's framework.
      moments: "first", ... -> what fills that moment of each trained weight that has a state in the source.
      steps: of each weight that has a state, where they differ; {} where they do not.
      dtypes: of the moments of all trained weights, by slot and weight.
      own: weight -> paddle's own name of it.
      averages: the copy of the weights that goes along; None without one.
      groups: of torch, where they differ: (weights, values).
      behind: parameters of the source whose moments have no place in the target, as their weights have none.
      ties: what has to hold of moments of two parameters of the source that the target has as one.
      notes: on the file of --like.
      is_supplied: (weight, what fills it, its moment or its average) -> whether that has values that no source states.
    """

    path: str
    weights: Sequence[Step]
    trained: Sequence[str]
    moments: Mapping[str, Mapping[str, Filling]]
    steps: Mapping[str, int]
    dtypes: Mapping[tuple[str, str], str]
    own: Mapping[str, str]
    averages: Averages | None = None
    groups: Sequence[tuple[Sequence[str], Mapping[str, Any]]] = ()
    behind: Sequence[str] = ()
    ties: Sequence[Promise] = ()
    notes: Sequence[str] = ()
    is_supplied: Callable[[str, Filling], bool] = lambda name, filling: isinstance(filling, ConstantFilling)

    @property
    def without(self) -> list[str]:
        """Return trained weights without a state in the source, as of a part that was frozen so far."""
        return [name for name in self.trained if not self.has_state(name)]

    def has_state(self, weight: str) -> bool:
        return weight in next(iter(self.moments.values()))


@dataclass(frozen=True)
class Written:
    """A target with its optimizer.

    Args:
      steps: in the order of the tree. tree: for the file's writer.
      notes: how the target's optimizer is to be built and loaded.
      supplied: names of its arrays with values that no source states.
      averages: where the copy of the weights lies; "" where it stays behind.
      counts: how many of the steps are "weights", "averages" of them with their count, "moments", and "numbers" of the
        state, as counts of steps.
    """

    steps: tuple[Step, ...]
    tree: Any
    notes: tuple[str, ...]
    supplied: tuple[str, ...]
    averages: str = ""
    counts: Mapping[str, int] = field(default_factory=dict)


class Builder:
    """Collects steps while a tree is built."""

    def __init__(self, model: Model):
        self.model, self.steps, self.supplied = model, list[Step](), list[str]()
        self.counts = Counter[str]()
        self._shapes = {tensor.name: tensor.shape for tensor, _ in model.weights}

    def weight(self, step: Step, name: str) -> Tensor:
        """Add a weight."""
        return self._weight(step, name, "weights")

    def _weight(self, step: Step, name: str, kind: str) -> Tensor:
        self.counts[kind] += 1
        return self._moved(step[0].name, step[0]._replace(name=name), step[1])

    def average(self, step: Step, name: str) -> Tensor:
        """Add an average of a weight; a constant in its place is supplied, also where it is known of the weight."""
        tensor = self._weight(step, name, "averages")
        if isinstance(step[1], ConstantFilling) and name not in self.supplied:
            self.supplied.append(name)
        return tensor

    def moment(self, slot: str, weight: str, name: str) -> Tensor:
        """Add a moment of a weight, of zeros where the source has none."""
        self.counts["moments"] += 1
        tensor = Tensor(name, self._shapes[weight], self.model.dtypes[slot, weight])
        return self._moved(weight, tensor, self.model.moments[slot].get(weight, ConstantFilling(0)))

    def _moved(self, weight: str, tensor: Tensor, filling: Filling) -> Tensor:
        if self.model.is_supplied(weight, filling):
            self.supplied.append(tensor.name)
        return self._add(tensor, filling)

    def number(self, name: str, value: float, dtype: str, shape: tuple[int, ...] = (), kind: str = "numbers") -> Tensor:
        """Add a number of the state, or one that counts the averages."""
        self.counts[kind] += 1
        return self._add(Tensor(name, shape, dtype), ConstantFilling(value))

    def _add(self, tensor: Tensor, filling: Filling) -> Tensor:
        self.steps.append((tensor, filling))
        return tensor

    def written(self, tree: Any, notes: Iterable[str], averages: str = "") -> Written:
        return Written(tuple(self.steps), tree, tuple(notes), tuple(self.supplied), averages, dict(self.counts))


def missing_of(state: State) -> list[str]:
    """Return hyperparameters that nobody states."""
    return [name for name in NEEDED[state.family] if name not in state.hyper]


def unknown(state: State) -> str:
    """Say which hyperparameters nobody states, with the options that do; "" where there is none."""
    missing = missing_of(state)
    record = f" ({RECORD})" if set(missing) - {"lr"} else ""
    return f"{state.library}'s state does not say {in_a_row(missing)}: {options(missing)}{record}" if missing else ""


def built(state: State, library: str) -> str:
    """Say how the target's optimizer is to be built, and what of that nobody states."""
    how = f"{library} stores no hyperparameters: build its optimizer as {call(state.kind, library, state.hyper)}"
    return "; ".join(filter(None, [how, unknown(state)]))


def stateless(model: Model, what: str) -> list[str]:
    """Say what becomes of weights without a state in the source."""
    if not model.without:
        return []
    modules = {_module(name) for name in model.trained if model.has_state(name)}
    parted = [name for name in model.without if _module(name) in modules]
    doubt = f"; the other arrays of {folding.listed(dict.fromkeys(map(_module, parted)))} have one: {COMPLETE}"
    return [f"without a state in the source, {what}: {folding.listed(model.without)}{doubt if parted else ''}"]


def _module(name: str) -> str:
    """Return the layer of an array, by its name."""
    return re.split(r"[./](?=[^./]*$)", name)[0]


def from_zero(averages: Averages | None) -> list[str]:
    """Say why a copy stays behind that is no average of weights, but a sum that has to be divided."""
    if averages is None:
        return []
    why = "optax.ema begins at 0, and its weights are ema / (1 - decay^count): a place of weights would hold others"
    remedy = "save what ema.update returns, under ema_params"
    return [f"the average of the weights under {averages.place} stays behind: {why} ({remedy})"]


def shared(averages: Averages) -> list[str]:
    """Say which arrays of the copy are the model's own, as where AveragedModel does not average buffers."""
    names = [step[0].name for step in averages.steps if step[0].name in averages.shared]
    why = f"{averages.place} lacks arrays that the target's average has: the model's own stand for them"
    return [f"{why}: {', '.join(folding.fold(names))}"] if names else []

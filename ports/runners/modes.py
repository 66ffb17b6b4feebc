"""Put a flax model into training or evaluation: by arguments of its call, or by attributes of its modules."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from . import trees

# Arguments and attributes that switch a model between training and evaluation, with their value in training.
MODES = {
    "train": True, "training": True, "is_training": True,
    "deterministic": False, "inference": False, "use_running_average": False,
}  # fmt: skip
RATES = ("rate", "dropout_rate", "drop_rate")  # a module whose rate is 0 has nothing to switch


def evaluating(module: Any, call: trees.Call) -> Iterator[tuple[str, bool]]:
    """Yield (name, value) of every switch that a call leaves in evaluation mode."""
    if any(getattr(module, name, None) == 0 for name in RATES):
        return
    for name, on in MODES.items():
        value = call.argument(name)
        value = getattr(module, name, None) if value is None else value
        if isinstance(value, bool) and value is not on:
            yield name, value


def switched(training: Mapping[str, Any] | None, on: bool) -> dict[str, Any]:
    """Return {name: value} of all switches for training or evaluation; a value that is no bool has no opposite."""
    names = MODES if training is None else training
    if on:
        return dict(names)
    return {name: not value for name, value in names.items() if isinstance(value, bool)}


def arguments(module: Any, values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the switches that are arguments of the model's call; an attribute of the same name goes before."""
    known = signed(module)
    names = inspect.signature(known).parameters
    return {
        name: v for name, v in values.items() if name in names and not isinstance(getattr(module, name, None), bool)
    }


def switches_of(module: Any, attributes: Iterable[str]) -> list[str]:
    """Return the names that `training` can set: arguments of the model's call, and attributes."""
    return sorted({*inspect.signature(signed(module)).parameters, *attributes} - {"self", "parent", "name"})


def chosen(module: Any, attributes: Iterable[str], training: Mapping[str, Any] | None) -> Mapping[str, Any] | None:
    """Return the switches of `training` that a model has; None, for those with known names, if it has none of them."""
    known = switches_of(module, attributes)
    own = {name: value for name, value in (training or {}).items() if name in known}
    return own or (None if training else training)


def signed(module: Any) -> Callable[..., Any]:
    """Return the bound call of a module, for its signature."""
    call: Callable[..., Any] = type(module).__call__.__get__(module)
    return call

"""How a flax model is put into training or evaluation: by arguments of its call, or by attributes of its modules."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from convert.errors import UsageError

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


def require_switches(module: Any, attributes: Iterable[str], training: Mapping[str, Any] | None) -> None:
    """Raise UsageError that suggests the nearest name for a switch that is neither argument nor attribute."""
    from difflib import get_close_matches

    known = sorted({*inspect.signature(signed(module)).parameters, *attributes} - {"self", "parent", "name"})
    for name in training or {}:
        if name not in known:
            near = get_close_matches(name, known, n=1, cutoff=0.4)
            hint = f", did you mean {near[0]!r}?" if near else f": it has {', '.join(known)}"
            raise UsageError(f"training: the model has no argument or attribute {name!r}{hint}")


def signed(module: Any) -> Callable[..., Any]:
    """Return the bound call of a module, for its signature."""
    call: Callable[..., Any] = type(module).__call__.__get__(module)
    return call

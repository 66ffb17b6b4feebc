"""Define State: what an optimizer stores, whichever library it is of."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from convert.errors import UsageError
from convert.files.base import Tensor
from convert.reading.families import HYPERPARAMETERS, KINDS
from specs.words import hint


class Group(NamedTuple):
    """One of torch's groups of parameters.

    Args:
      parameters: names. values: what it has otherwise than other groups, by torch's names.
    """

    parameters: tuple[str, ...]
    values: Mapping[str, Any]


@dataclass(frozen=True)
class State:
    """The state of an optimizer, by the names of the source's parameters.

    Args:
      library: that kept it: "optax", "torch" or "paddle".
      family: "adam" or "sgd".
      step: updates done so far; None where nobody counts them, as of SGD in torch and paddle.
      steps: of each parameter, where they differ, as where some were frozen at first; `step` is then the most.
      hyper: hyperparameters that are known, and "kind", one of KINDS.
      moments: "first", "second" or "momentum" -> parameter -> its array in the file.
      used: names of the file's arrays and plain entries that this State accounts for.
      assumed: what was assumed to read it; the record of the target marks it.
      notes: what the user should know of how it was read.
      scheduler: paddle's entry of its learning-rate scheduler, also as the record of a file of another library has it.
      initial: torch's initial_lr of each of its groups, which a learning-rate scheduler adds; None of one without it.
      counted: whether optax's state counts steps apart from Adam's own, as a schedule does.
      groups: torch's, where they differ, of which `hyper` is the first one's.
      buffers: arrays of the source that the file shows to be no parameters of the optimizer.
      unlisted: parameters that are in no group of torch's, and that a target of another library trains all the same.
      frozen: those of an earlier file of torch, as the record of this one says.
      unclear: arrays without a state of which it does not show whether they are parameters.
      switches: torch's options that are True in its first group and change how steps are computed: fused, capturable.
      changed: hyperparameters that the user states otherwise than the file or its record, with their values.
    """

    library: str
    family: str
    step: int | None
    hyper: Mapping[str, Any]
    moments: Mapping[str, Mapping[str, Tensor]]
    used: frozenset[str]
    notes: tuple[str, ...] = field(default=())
    assumed: tuple[str, ...] = ()
    scheduler: Mapping[str, Any] = field(default_factory=dict)
    initial: tuple[float | None, ...] = ()
    counted: bool = False
    groups: tuple[Group, ...] = ()
    steps: Mapping[str, int] = field(default_factory=dict)
    buffers: frozenset[str] = frozenset()
    unlisted: frozenset[str] = frozenset()
    frozen: frozenset[str] = frozenset()
    unclear: tuple[str, ...] = ()
    switches: tuple[str, ...] = ()
    changed: Mapping[str, Any] = field(default_factory=dict)

    @property
    def kind(self) -> str:
        """Return the optimizer, which is known of every state that was read to the end."""
        kind: str = self.hyper["kind"]
        return kind


UNLISTED = "unlisted"  # in the record: parameters that were in no group of torch's optimizer
ORDER = "order of the parameters"  # what torch's numbers mean, where the file does not name the parameters
ENTRY = "LR_Scheduler"  # what paddle calls the entry of its scheduler; in the record, where the file cannot have it
BETAS = "betas and number of steps"  # of paddle, where its powers are also those of other betas after fewer steps
KIND = "kind of the optimizer"  # where the file does not show it: others keep arrays of the same names
NO_INITIAL = "set aside, of torch's learning-rate scheduler: initial_lr of its groups of parameters"
COUNTS = ("step", "averaged")  # updates done so far, and averages of the weights
SETTABLE = (*HYPERPARAMETERS, "kind", *COUNTS)


def given(texts: list[str]) -> dict[str, Any]:
    """Parse what the user states of an optimizer: ["lr=1e-3", "kind=adamw"] -> {"lr": 0.001, "kind": "adamw"}."""
    stated: dict[str, Any] = {}
    for text in texts:
        name, _, value = text.partition("=")
        if name not in SETTABLE:
            raise UsageError(f"--hyper {text}: no hyperparameter {name!r}{_meant(name)} (one of {', '.join(SETTABLE)})")
        if stated.setdefault(name, parsed := _value(name, value, text)) != parsed:
            raise UsageError(f"--hyper {name}: given twice, as {stated[name]} and as {parsed}")
    return stated


def _meant(name: str) -> str:
    """Return ", did you mean 'beta1'?" for the name that a library has for it, as optax's b1, or for the nearest."""
    ours = [one for one, names in HYPERPARAMETERS.items() if name in names]
    return f", did you mean {' and '.join(map(repr, ours))}?" if ours else hint(name, SETTABLE)


def recorded(optimizer: Mapping[str, Any]) -> dict[str, Any]:
    """Return the kind and the hyperparameters that a record states, without what cannot be."""
    hyper = optimizer.get("hyperparameters", {})
    values = {**(hyper if isinstance(hyper, dict) else {}), "kind": optimizer.get("kind")}
    return {name: value for name, value in values.items() if name in HYPERPARAMETERS and _is_number(name, value)} | (
        {"kind": values["kind"]} if values["kind"] in KINDS else {}
    )


def lost_groups(optimizer: Mapping[str, Any]) -> dict[str, list[Any]]:
    """Return what torch's groups of parameters had each, of which a record says that one value replaced them."""
    changed = optimizer.get("changed")
    listed = changed.items() if isinstance(changed, dict) else ()
    return {
        name: value
        for name, value in listed
        if name in HYPERPARAMETERS and isinstance(value, list) and all(_is_number(name, one) for one in value)
    }


def recorded_scheduler(optimizer: Mapping[str, Any]) -> dict[str, Any]:
    """Return paddle's entry of its scheduler, where a record has one for a file of another library; else {}."""
    entry = optimizer.get(ENTRY)
    return entry if isinstance(entry, dict) and is_plain(entry) else {}


def is_plain(value: Any) -> bool:
    """Tell whether a record stores a value as it is: texts, finite numbers, and lists and dicts of these."""
    if isinstance(value, dict):
        return all(isinstance(key, str) and is_plain(inner) for key, inner in value.items())
    if isinstance(value, list):
        return all(map(is_plain, value))
    if isinstance(value, int | float):
        return math.isfinite(value) and abs(value) < 2**63
    return isinstance(value, str)


def _is_number(name: str, value: Any) -> bool:
    if name == "nesterov":
        return isinstance(value, bool)
    return type(value) in (int, float) and 0 <= value < float("inf")


def _value(name: str, value: str, text: str) -> Any:
    if name == "kind":
        if value not in KINDS:
            named = " (sgd has momentum)" if value.lower() == "momentum" else ""
            raise UsageError(f"--hyper {text}: kind is one of {', '.join(KINDS)}{named}")
        return value
    if name == "nesterov":
        if value.lower() not in ("true", "false"):  # also as Python writes it
            raise UsageError(f"--hyper {text}: nesterov is true or false")
        return value.lower() == "true"
    try:
        number = int(value) if name in COUNTS else float(value)
    except ValueError:
        number = -1
    example = {"lr": 0.001, "eps": 1e-8, "weight_decay": 0.01}.get(name, 20 if name in COUNTS else 0.9)
    limits, end = range_of(name)
    if not 0 <= number < end:
        raise UsageError(f"--hyper {text}: {name} is a number {limits}, as in {name}={example}")
    return number


def range_of(name: str) -> tuple[str, float]:
    """Return what an optimizer takes for a hyperparameter that is a number: in words, and below what it is."""
    return ("from 0 to below 1", 1.0) if name.startswith("beta") else ("from 0 on", float("inf"))

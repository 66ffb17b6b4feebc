"""Read what all libraries store alike: the family of an optimizer, its count of steps, its numbers."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

from convert import folding
from convert.arrays.counters import is_count
from convert.arrays.counters import read as read_counter
from convert.errors import ConvertError, UsageError
from convert.files.base import Reader, Tensor
from convert.reading.families import CONVERTED, FAMILIES, MOMENTS
from specs.numbers import measured

PLAIN_SGD = "plain SGD keeps no state, nor does an optimizer before its first step: convert without --with-optimizer"

ALONE = "leave --with-optimizer out, which converts the weights alone"


def family_of(reader: Reader, slots: Iterable[str], library: str, group: Mapping[str, Any]) -> str:
    """Return the family that keeps exactly these arrays.

    Args:
      group: torch's first group. RAdam of torch keeps the same arrays and has no amsgrad.
    Raises: ConvertError for another optimizer.
    """
    kept = set(slots)
    if not kept and (group.get("momentum") or "amsgrad" in group):
        what = "its optimizer has no state yet, as before its first step, so that there is none to convert"
        raise ConvertError(f"{reader.path}: {what}: leave --with-optimizer out, and build a new optimizer there")
    if not kept:
        raise ConvertError(f"{reader.path}: its optimizer keeps no arrays: {PLAIN_SGD}")
    arrays = f"it keeps {', '.join(sorted(kept))}"
    for family, moments in FAMILIES.items():
        if kept == {MOMENTS[slot].of(library) for slot in moments}:
            if "amsgrad" in group or "decoupled_weight_decay" not in group:
                return family
            arrays += ", and its param_groups have no amsgrad, as those of RAdam"
    raise ConvertError(f"{reader.path}: its optimizer is none of {CONVERTED.of(library)}: {arrays}: {ALONE}")


def one_step(reader: Reader, steps: set[float], stated: Mapping[str, Any]) -> int:
    """Return the number of steps that all counts agree on, or the one of them that is stated.

    Raises: ConvertError where they do not agree, or are no whole numbers from 0 on; UsageError where none of them is
      what is stated.
    """
    if strange := [step for step in steps if not is_count(step)]:
        what = f"its optimizer counts {_counts(strange)} steps: a count is a whole number from 0 on"
        raise ConvertError(f"{reader.path}: {what}: {ALONE}")
    counts = _counts(steps)
    if "step" in stated:
        if steps and stated["step"] not in steps:
            raise UsageError(f"{reader.path}: its state counts {counts} steps: step={stated['step']} contradicts it")
        return int(stated["step"])
    if len(steps) != 1:
        raise ConvertError(f"{reader.path}: its counts of steps do not agree ({counts}): --hyper step=... states one")
    return int(next(iter(steps)))


def _counts(steps: Iterable[float]) -> str:
    return ", ".join(measured(step, 9) for step in sorted(steps)) or "none"


def steps_of(
    reader: Reader, counts: Mapping[str, float], having: Iterable[str], stated: Mapping[str, Any]
) -> tuple[int, dict[str, int]]:
    """Return the number of steps, the most of all parameters, and that of each parameter where they differ.

    Args:
      counts: by parameter. having: parameters with a state.
      stated: may contain "step", one of them for all.
    Raises: as one_step; ConvertError also for a state without a count among those that differ.
    """
    if "step" in stated or len(set(counts.values())) < 2:
        return one_step(reader, set(counts.values()), stated), {}
    if lacking := [name for name in having if name not in counts]:
        raise ConvertError(
            f"{reader.path}: its optimizer counts no steps of {folding.listed(lacking)}: it is incomplete"
        )
    steps = {name: one_step(reader, {count}, {}) for name, count in counts.items()}
    return max(steps.values()), steps


def put(tree: dict[str, Any], name: str, leaf: Any) -> None:
    """Put a leaf into nested dictionaries, at the place that a name with slashes states."""
    *above, last = name.split("/")
    for key in above:
        tree = tree.setdefault(key, {})
    tree[last] = leaf


def plain_number(reader: Reader, name: str, value: Any) -> float:
    """Return a plain number of a file. Raises: ConvertError where it is none, or not finite."""
    if not isinstance(value, int | float) or not math.isfinite(value):
        raise ConvertError(f"{reader.path}: {name} is {value!r:.40}: no number")
    return float(value)


def scalar(reader: Reader, tensor: Tensor) -> float:
    """Return the value of an array of one element. Raises: ConvertError where it is not one number."""
    if tensor.size == 1 and tensor.dtype in ("float32", "float64"):
        import numpy as np

        return float(np.frombuffer(bytes(reader.read(tensor.name)), tensor.dtype)[0])
    value = read_counter(reader, tensor).value if tensor.size == 1 else None
    if value is None:
        raise ConvertError(f"{reader.path}: {tensor.name} {tensor.dtype} {list(tensor.shape)}: no number")
    return float(value)

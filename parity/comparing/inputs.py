"""Read the inputs that a user gives to `parity.compare`: the same for all models, or each its own."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any

import numpy as np

from convert.errors import UsageError
from parity.running.recording import ACTIVATIONS
from ports.runners.inputs import Inputs, is_numpy
from specs.words import in_a_row


def _call_class() -> Any:
    """Return the class `parity.Call`; None where nobody has imported it, so that there is no such object."""
    return getattr(sys.modules.get("parity.derive.trace.call"), "Call", None)


def _of_call(images: Any) -> Any:
    """Return the arguments of a `parity.Call`, which `derive` takes; anything else as it is. Raises: UsageError."""
    call = _call_class()
    if call is None or not isinstance(images, call):
        return images
    plain = call()
    if (images.method, images.output) != (plain.method, plain.output):
        raise UsageError("compare runs a model as a whole: it takes a parity.Call without method and output")
    return Inputs(*images.args, **images.kwargs)


def every_input(images: Any, models: Mapping[str, Any], check: str) -> dict[str, Inputs]:
    """Return the inputs of each model: its own if they are given by label, else the same. Raises: UsageError."""
    if not _by_label(images, models):
        return dict.fromkeys(models, _inputs(images))
    from parity.derive.trace.inputs import check_inputs

    every = {}
    for label in models:
        try:
            every[label] = _inputs(images[label])
        except UsageError as error:
            raise UsageError(f"{label}: {error.message}") from None
    first, *others = every
    for label in others:
        try:
            check_inputs(every[first].named(is_numpy), every[label].named(is_numpy))
        except UsageError:
            shapes = " and ".join(f"{listed(every[name])} for {name}" for name in (first, label))
            raise UsageError(f"models are compared on the same values: {shapes} have other ones") from None
        if check not in ACTIVATIONS:
            _require_pairs(every[first], every[label], f"{first} and {label}", check)
    return every


def _require_pairs(one: Inputs, other: Inputs, models: str, check: str) -> None:
    """Raise UsageError where the n-th arrays of two models are not the same."""
    ones, others = ([*side.named(is_numpy).values()] for side in (one, other))
    pairs = enumerate(zip(ones, others, strict=False), 1)
    unlike = [(k, a, b) for k, (a, b) in pairs if not np.array_equal(a, b)]
    if len(ones) != len(others) or any(a.size != b.size or a.shape == b.shape for _, a, b in unlike):
        raise UsageError(f"{check} pairs the arrays of inputs by their order, which differs for {models}")
    for k, a, b in unlike[:1]:
        what = f"{check} takes arrays with one order of axes: that of array {k} of the inputs differs for {models}"
        shapes = f"{list(a.shape)} and {list(b.shape)}"
        raise UsageError(f"{what}, {shapes}: wrap one of them in a model that exchanges these axes")


def _by_label(images: Any, models: Mapping[str, Any]) -> bool:
    """Tell whether inputs are given by the labels of models. Raises: UsageError where a model has none."""
    kinds = (Inputs, _call_class() or Inputs)
    if not isinstance(images, Mapping) or not any(isinstance(value, kinds) for value in images.values()):
        return False
    if images.keys() != models.keys() or not all(isinstance(value, kinds) for value in images.values()):
        raise UsageError(f"inputs by label: give a parity.Inputs for each of {in_a_row(models)}")
    return True


def listed(inputs: Inputs) -> str:
    """List arrays: "images [2, 3, 8, 8] float32, images:mask [2, 5] bool"."""
    return ", ".join(f"{name} {list(a.shape)} {a.dtype}" for name, a in inputs.named(is_numpy).items())


def _inputs(images: Any) -> Inputs:
    """Convert the inputs to arrays. Raises: UsageError for an empty batch and for what is no array of numbers."""
    inputs = Inputs.of(_of_call(images)).arrays()
    named = inputs.named(is_numpy)
    if not named:
        raise UsageError("the inputs hold no array: there is nothing to run the models on")
    for name, array in named.items():
        if array.dtype.kind not in "fiub":
            other = "" if array.dtype.kind != "O" else ": pass an array, a tuple of them, a dict or parity.Inputs(...)"
            raise UsageError(f"{name} must be an array of numbers, not of {array.dtype}{other}")
        if not array.size:
            raise UsageError(f"{name} of shape {list(array.shape)} are empty: nothing would be compared")
    return inputs

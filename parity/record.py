"""What one model does, as plain arrays: everything that a comparison needs, with no framework left in it."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ports.port import Port
from ports.runners.base import OUTPUT, Inputs, Optimizer, Tap, outputs

from .hub import to_hub
from .numbers import by_feature, double, feature_axis
from .own import Own

CHECKS = ("forward", "layers", "single-step", "gradients", "train")
OPTIMIZERS = ("sgd", "adam", "adamw")
SEEDS = 64  # of dropout: each call's masks are looked at together
# Shares by which weights are moved to measure how a run amplifies rounding: eight roundoffs, as much as rounding
# gathers over some layers. In float32 once each way: what crosses the kink of a ReLU one way stays put the other.
JITTER = {"float64": (2.0**-50,), "float32": (2.0**-21, -(2.0**-21))}
ACTIVATIONS = ("forward", "layers", "single-step")  # checks of activations: cheap, so that truths are jittered too
WEIGHTS = 64 << 20  # bytes of weights that a recording may carry along for its guesses


@dataclass
class Recording:
    """One model under one check.

    Args:
      arrays: what is compared, in the order in which a fault would show first.
      taps: inputs and outputs of each call, for single steps and guesses.
      weights: the model's arrays in the shared names and layout, for guesses.
      kinds: kind of layer at each path.
      truth: the same recorded in float64, where this is in a lower dtype.
      cause: why there is nothing, where there is nothing.
      unable: whether that is the framework's limit, and not a failure.
      masks: beside the arrays of training, which then has no drop rates: what `_masks` tells of each call of dropout.
      spread: how far each array moves, feature by feature, when every weight moves by JITTER; empty if not measured.
      random: whether its outputs are known to depend on random numbers, other than those of dropout.
      notes: what was computed otherwise than the framework does, or not measured, and why.
    """

    label: str
    framework: str
    dtype: str
    device: str
    arrays: dict[str, np.ndarray] = field(default_factory=dict)
    taps: list[Tap] = field(default_factory=list)
    weights: dict[str, np.ndarray] = field(default_factory=dict)
    kinds: dict[str, str] = field(default_factory=dict)
    truth: Recording | None = None
    cause: str = ""
    unable: bool = False
    masks: list[list[float]] | None = None
    spread: dict[str, np.ndarray] = field(default_factory=dict)
    random: bool = False
    notes: list[str] = field(default_factory=list)


def record(
    port: Port | Own,
    images: Any,
    check: str,
    label: str = "",
    feed: Recording | None = None,
    steps: int = 10,
) -> Recording:
    """Run a check on a port, and on its float64 twin where its dtype is lower.

    Args:
      images: (n, c, h, w).
      feed: for single-step, the reference whose inputs each layer gets.
      steps: of training, each on other images.
    """
    random = check in ("gradients", "train") and bool(port.drop_rates())
    with port.undropped() if random else nullcontext(port) as settled:
        made = _record(settled, images, check, label, feed, steps)
    if random and check == "train":
        made.masks = _masks(port, images)
    return made


def _record(port: Port | Own, images: Any, check: str, label: str, feed: Recording | None, steps: int) -> Recording:
    """Without random drops."""
    made = _run(port, images, check, label, feed, steps)
    made.spread = _spread(made, port, images, check, feed, steps)
    if port.dtype != "float64":
        feed = feed.truth if feed is not None and feed.truth is not None else feed
        twin = port.with_dtype("float64")
        made.truth = _run(twin, images, check, label, feed, steps)
        if check in ACTIVATIONS:
            made.truth.spread = _spread(made.truth, twin, images, check, feed, steps)
    return made


def _run(port: Port | Own, images: Any, check: str, label: str, feed: Recording | None, steps: int) -> Recording:
    made = Recording(label or port.framework, port.framework, port.dtype, port.device)
    _RECORDERS[check](made, port, images, feed, steps)
    made.notes += port.notes
    if port.dtype == "float64" and OUTPUT in made.arrays and made.arrays[OUTPUT].dtype in (np.float32, np.float16):
        made.unable, made.cause = True, f"computes in {made.arrays[OUTPUT].dtype}, although its weights are float64"
    return made


def _spread(
    made: Recording, port: Port | Own, images: Any, check: str, feed: Recording | None, steps: int
) -> dict[str, np.ndarray]:
    """Measure how far the arrays of `made` move with the weights; {} and a note where the model cannot be copied."""
    spread: dict[str, np.ndarray] = {}
    for share in JITTER.get(port.dtype, ()):
        moved = Recording(made.label, made.framework, made.dtype, made.device)
        try:
            _RECORDERS[check](moved, port.jittered(share, seed=0), images, feed, steps)
        except Exception as error:  # whatever a model raises when it is copied; the comparison itself does not need it
            made.notes.append(
                f"{made.label}: how it amplifies rounding was not measured: {type(error).__name__}: {error}"
            )
            return {}
        for name, array in made.arrays.items():
            if name in moved.arrays and moved.arrays[name].shape == array.shape:
                gap = np.nan_to_num(np.abs(double(array) - double(moved.arrays[name])), nan=0.0, posinf=0.0)
                found = by_feature(gap, feature_axis(check, name, array))
                spread[name] = np.maximum(spread.get(name, 0.0), found)
    return spread


def _forward(made: Recording, port: Port | Own, images: Any, *_: Any) -> None:
    made.arrays = port.outputs(images)


def _layers(made: Recording, port: Port | Own, images: Any, *_: Any) -> None:
    made.taps = port.trace(images)
    made.arrays = dict(outputs(made.taps))
    _furnish(made, port)


def _single_step(made: Recording, port: Port | Own, images: Any, feed: Recording | None, *_: Any) -> None:
    """Run each layer on the reference's recorded input, and record the input that it would have had as well."""
    made.taps = port.trace(images, {tap.name: tap.inputs for tap in feed.taps if tap.name != OUTPUT} if feed else None)
    for tap in made.taps:
        made.arrays.update({f"{tap.name} <- {k}": array for k, array in enumerate(tap.inputs)})
        made.arrays.update(outputs([tap]))
    _furnish(made, port)


def _furnish(made: Recording, port: Port | Own) -> None:
    """What guesses are made from."""
    state = port.state()
    if sum(array.nbytes for array in state.values()) <= WEIGHTS:
        made.weights = _shared(port, state)
    made.kinds = {port.shared(layer.path) or "": layer.kind for layer in port.layers()}


def _shared(port: Port | Own, arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Arrays under the names and in the layout that all frameworks share."""
    named = to_hub(port.layers(), port.framework, arrays)
    return {name: array for own, array in named.items() if (name := port.shared(own)) is not None}


def _gradients(made: Recording, port: Port | Own, images: Any, *_: Any) -> None:
    """In the order of the backward pass: a wrong gradient spoils only what comes after it here."""
    found = port.gradients(images)
    named = _shared(port, found.parameters)
    made.arrays = {"loss": np.asarray(found.loss), **found.outputs}
    made.arrays.update({name: named[name] for name in reversed(named)})
    made.arrays.update(found.inputs)


def _train(made: Recording, port: Port | Own, images: Any, feed: Any, steps: int) -> None:
    for name in OPTIMIZERS:
        found = port.train(batches(images, steps), Optimizer(name=name))
        named = _shared(port, {**found.parameters, **found.statistics})
        made.arrays[f"{name}: losses"] = np.asarray(found.losses)
        made.arrays.update({f"{name}: {key}": array for key, array in named.items()})


def _masks(port: Port | Own, images: Any) -> list[list[float]]:
    """Return [rate, units, units with nonzero input, kept among these, worst deviation of scale] for every call of
    dropout, over all seeds. Which inputs are 0 depends on the masks before, and so differs between frameworks.
    """
    runs = [port.drops(images, seed) for seed in range(SEEDS)]
    calls = zip(*runs, strict=True)
    return [
        [
            call[0].rate,
            sum(d.units for d in call),
            sum(d.kept.size for d in call),
            sum(int(d.kept.sum()) for d in call),
            max(d.scale for d in call),
        ]
        for call in calls
    ]


def batches(images: Any, steps: int) -> Sequence[Inputs]:
    """As many batches as steps, each with other noise on what is no integer: the same for all frameworks."""
    rng = np.random.default_rng(1)

    def noisy(array: np.ndarray) -> np.ndarray:
        floating = np.issubdtype(array.dtype, np.floating)
        return array + 0.5 * rng.standard_normal(array.shape) if floating else array

    return [Inputs.of(images).map(noisy) for _ in range(steps)]


_RECORDERS: Mapping[str, Callable[..., None]] = {
    "forward": _forward, "layers": _layers, "single-step": _single_step, "gradients": _gradients, "train": _train,
}  # fmt: skip


def save(made: Recording, path: str) -> None:
    """Write a recording as .npz: arrays and one JSON text, no pickles."""
    arrays: dict[str, np.ndarray] = {}
    about = json.dumps(_pack(made, arrays))
    with open(path, "wb") as file:
        np.savez(file, allow_pickle=False, about=np.array(about), **arrays)


def load(path: str) -> Recording:
    """Read what `save` wrote."""
    with np.load(path, allow_pickle=False) as file:
        return _unpack(json.loads(str(file["about"])), file)


def _pack(made: Recording, arrays: dict[str, np.ndarray]) -> dict[str, Any]:
    def keep(array: np.ndarray) -> str:
        key = f"a{len(arrays)}"
        arrays[key] = array
        return key

    plain = {name: getattr(made, name) for name in _PLAIN}
    taps = [[t.name, [keep(a) for a in t.inputs], [keep(a) for a in t.outputs], list(t.keys)] for t in made.taps]
    return {
        **plain,
        "arrays": {name: keep(array) for name, array in made.arrays.items()},
        "weights": {name: keep(array) for name, array in made.weights.items()},
        "spread": {name: keep(array) for name, array in made.spread.items()},
        "taps": taps,
        "truth": _pack(made.truth, arrays) if made.truth else None,
    }


_PLAIN = ("label", "framework", "dtype", "device", "kinds", "cause", "unable", "masks", "notes")


def _unpack(about: dict[str, Any], file: Mapping[str, np.ndarray]) -> Recording:
    return Recording(
        **{name: about[name] for name in _PLAIN},
        arrays={name: file[key] for name, key in about["arrays"].items()},
        weights={name: file[key] for name, key in about["weights"].items()},
        spread={name: file[key] for name, key in about["spread"].items()},
        taps=[
            Tap(name, tuple(file[k] for k in i), tuple(file[k] for k in o), tuple(keys))
            for name, i, o, keys in about["taps"]
        ],
        truth=_unpack(about["truth"], file) if about["truth"] else None,
    )

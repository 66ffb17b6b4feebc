"""parity.compare: two or three models on the same input."""

from __future__ import annotations

import sys
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np

from convert.errors import UsageError
from ports.port import OUTPUT, Port

from .judge import Subject, judge
from .record import CHECKS, Recording, record
from .report import Report
from .usage import require_count, require_feature_maps, require_known, require_models, require_names


def compare(
    models: Mapping[str, Any],
    images: np.ndarray,
    check: str = "forward",
    *,
    names: Mapping[str, Mapping[str, str]] | None = None,
    feature_maps: Collection[str] | None = None,
    steps: int = 10,
    dtype: str | None = None,
) -> Report:
    """Compare models, the first of which is the reference.

        report = parity.compare({"torch": a, "flax": b}, images, check="layers")

    Args:
      models: ports, torch modules, (linen module, variables), bound linen modules or paddle layers, by a label each.
      images: (n, c, h, w) for all of them, or any array that their models take; linen gets four axes as NHWC.
      check: forward, layers, single-step, gradients or train.
      names: for models that are no ports, {label: {path of a module: name of its tap}}; what is left out is not
        compared. By default, every module that holds parameters is a tap under its own path.
      feature_maps: taps (of models that are no ports) whose four-dimensional arrays are images; default: all of them.
      steps: of training.
      dtype: what to compute in: cast copies of the models run in it. By default the models' own dtype; `layers` then
        compares float64 copies first, and the models' own dtype in rows of its own.

    Nothing of the models, the images or the frameworks' settings and random numbers is other afterwards.
    Raises: UsageError for fewer than two models, an empty batch, an object that is no model, and a name (of a check,
      a label, a module, a tap) that matches nothing.
    """
    require_models(models)
    require_known("check", check, CHECKS)
    require_count("steps", steps)
    images = _nonempty(images)
    own = [label for label, model in models.items() if not isinstance(model, Port)]
    require_names(names or {}, own, [label for label in models if label not in own], OUTPUT)
    with _precision_kept():
        ports: dict[str, Any] = {
            label: _port(label, model, (names or {}).get(label), feature_maps) for label, model in models.items()
        }
        if feature_maps is not None:
            require_feature_maps(feature_maps, {tap for label in own for tap in ports[label].tap_names()})
        subject = _subject(ports, check)
        recordings: list[Recording] = []
        for label, port in ports.items():
            reference = recordings[0] if recordings and check == "single-step" else None
            recordings.append(record(port, images, check, label, reference, steps))
    return Report(judge(subject, recordings), {label: _about(port) for label, port in ports.items()})


@contextmanager
def _precision_kept() -> Iterator[None]:
    """The float64 twin of a float32 linen model turns jax's float64 on: off again where it was off."""
    jax = sys.modules.get("jax")
    before = jax.config.jax_enable_x64 if jax else None
    try:
        yield
    finally:
        if jax:
            jax.config.update("jax_enable_x64", before)


def _nonempty(images: Any) -> np.ndarray:
    """Convert the images to an array. Raises: UsageError for an empty batch and for what is no array of numbers."""
    try:
        images = np.asarray(images)
    except (ValueError, TypeError, RuntimeError) as error:  # several shapes; a tensor that numpy cannot read
        raise UsageError(f"images must be one array of numbers: {error}") from error
    if images.dtype.kind not in "fiub":
        raise UsageError(f"images must be an array of numbers, not of {images.dtype}")
    if not images.size:
        raise UsageError(f"images of shape {images.shape} are empty: nothing would be compared")
    return images


def _port(label: str, model: Any, names: Mapping[str, str] | None, feature_maps: Collection[str] | None) -> Port:
    if isinstance(model, Port):
        return model
    from .own import wrap

    try:
        return wrap(model, names, feature_maps)
    except UsageError as error:
        raise UsageError(f"{label}: {error.message}") from None


def _subject(ports: Mapping[str, Port], check: str) -> Subject:
    first = next(iter(ports.values()))
    kinds = {p.dtype for p in ports.values()}
    if len(kinds) > 1:
        told = ", ".join(f"{label} {p.dtype}" for label, p in ports.items())
        raise UsageError(f"the models compute in different dtypes ({told}): bring them to one")
    return Subject(first.architecture, variant(first), check, first.dtype, first.device)


def variant(port: Port) -> str:
    """The official variant or tiny twin that a port is, or "own"."""
    spec = getattr(port, "spec", None)
    if spec is None:
        return "own"
    known = {**spec.VARIANTS, **{f"tiny {name}": c for name, c in spec.TINY.items()}}
    return next((name for name, config in known.items() if config == port.config), "own")


def _about(port: Port) -> str:
    from .versions import version

    return f"{port.framework} {version(port.framework)}, {port.dtype}, {port.device}"

"""parity.compare: two or three models on the same input."""

from __future__ import annotations

import sys
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import numpy as np

from convert.errors import UsageError
from ports.port import DTYPES, Port

from .judge import Subject, judge
from .record import CHECKS, Recording, record
from .report import Report


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
    Raises: UsageError for fewer than two models, an unknown check or an object that is no model.
    """
    if len(models) < 2:
        raise UsageError(
            f"a comparison needs two models, not {len(models)}: compare({{'torch': a, 'flax': b}}, images)"
        )
    if check not in CHECKS:
        raise UsageError(f"no check {check!r}: one of {', '.join(CHECKS)}")
    if dtype is not None and dtype not in DTYPES:
        raise UsageError(f"no dtype {dtype!r}: one of {', '.join(DTYPES)}")
    given = names or {}
    with _precision_kept():
        ports = {label: _port(model, given.get(label), feature_maps) for label, model in models.items()}
        if dtype is not None:
            ports = {label: port if port.dtype == dtype else port.with_dtype(dtype) for label, port in ports.items()}
        subject = _subject(ports, check)
        recordings: list[Recording] = []
        for label, port in ports.items():
            reference = recordings[0] if recordings and check == "single-step" else None
            recordings.append(record(port, np.asarray(images), check, label, reference, steps))
    results = judge(subject, recordings)
    twins = [recording.truth for recording in recordings if recording.truth is not None]
    if check == "layers" and dtype is None and len(twins) == len(ports):
        results = judge(replace(subject, dtype="float64"), twins) + results
    return Report(results, {label: _about(port) for label, port in ports.items()})


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


def _port(model: Any, names: Mapping[str, str] | None, feature_maps: Collection[str] | None) -> Port:
    if isinstance(model, Port):
        return model
    from .own import wrap

    return wrap(model, names, feature_maps)


def _subject(ports: Mapping[str, Port], check: str) -> Subject:
    first = next(iter(ports.values()))
    kinds = {p.dtype for p in ports.values()}
    if len(kinds) > 1:
        told = ", ".join(f"{label} {p.dtype}" for label, p in ports.items())
        raise UsageError(f"the models compute in different dtypes ({told}): bring them to one, or pass dtype='float64'")
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

"""Check what a page's functions return, by its tiny twins: a fault is reported before any checkpoint is read."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from typing import Any

from . import config as configs
from .init import INITS
from .kinds import ANY, GATES, KINDS
from .layer import Layer, Sizes, count, parameters
from .spec import Spec

PATH = re.compile(r"[A-Za-z_]\w*(\.(\d+|[A-Za-z_]\w*))*")


def faults(spec: Spec) -> list[str]:
    """List everything that is wrong with a Spec whose fields have the right types."""
    found = []
    for what, configurations in (("tiny", spec.tiny), ("variants", spec.variants)):
        for name, config in configurations.items():
            try:
                found += [f"{what} {name!r}: {fault}" for fault in _of_config(spec, config)]
            except Exception as error:  # of the page's own code
                found.append(f"{what} {name!r}: {_raised(error)}")
    for name, published in spec.published.items():
        counted = _counted(spec, spec.variants[name])
        if counted is not None and counted != published:
            found.append(f"published: variant {name!r} has {counted:,} trained parameters, not {published:,}")
    return found


def _raised(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"


def _counted(spec: Spec, config: Any) -> int | None:
    """Count the trained parameters of a Config; None if its layers are at fault, which is reported elsewhere."""
    try:
        return count(list(spec.layers(config)))
    except Exception:
        return None


def _of_config(spec: Spec, config: Any) -> Iterator[str]:
    layers = list(spec.layers(config))
    wrong = [fault for layer in layers for fault in _of_layer(layer)]
    yield from _alike(wrong)
    if wrong:
        return
    paths = Counter(layer.path for layer in layers)
    yield from (f"layers: {path!r} is the path of {number} layers" for path, number in paths.items() if number > 1)
    yield from _of_infer(spec, config, layers)
    yield from _of_images(spec, config)
    fields = configs.types_of(spec.config)
    strange = [name for name in spec.immaterial(config) if name not in fields]
    yield from (f"immaterial: {configs.unknown(name, fields)}" for name in strange)


def _alike(faults: list[str]) -> Iterator[str]:
    """Yield one of those that differ in numbers alone, as of every block, and how many there are."""
    counts = Counter(re.sub(r"\d+", "#", fault) for fault in dict.fromkeys(faults))
    firsts: dict[str, str] = {}
    for fault in faults:
        firsts.setdefault(re.sub(r"\d+", "#", fault), fault)
    for form, fault in firsts.items():
        yield f"{fault} (and {counts[form] - 1} like it)" if counts[form] > 1 else fault


def _of_layer(layer: Any) -> Iterator[str]:
    if not isinstance(layer, Layer):
        yield f"layers: yields {layer!r}, not a Layer"
        return
    where = f"layers: {layer.path!r}"
    if not isinstance(layer.path, str) or not PATH.fullmatch(layer.path):
        yield f"{where}: a path is names and numbers joined by dots"
    if layer.kind not in KINDS:
        yield f"{where}: kind: {configs.unknown(layer.kind, KINDS)} (one of {', '.join(KINDS)})"
        return
    leaves = KINDS[layer.kind].axes
    needed = {
        axis for leaf, axes in leaves.items() if leaf not in layer.without and axes != ANY for axis in axes.split()
    }
    if missing := sorted(needed - layer.sizes.keys()):
        yield f"{where}: sizes lack {', '.join(missing)}"
    yield from (
        f"{where}: size of {axis} is {size!r}"
        for axis, size in layer.sizes.items()
        if type(size) is not int or size < 1
    )
    if layer.sizes.get("g", 0) != GATES.get(layer.kind, layer.sizes.get("g", 0)):
        yield f"{where}: size of g is {layer.sizes['g']}, a {layer.kind} has {GATES[layer.kind]} gates"
    yield from (f"{where}: without: {configs.unknown(leaf, leaves)}" for leaf in layer.without if leaf not in leaves)
    if layer.init not in INITS:
        yield f"{where}: init: {configs.unknown(layer.init, INITS)} (one of {', '.join(INITS)})"


def _of_infer(spec: Spec, config: Any, layers: list[Layer]) -> Iterator[str]:
    """What `infer` reads off a Config's own arrays must make the same arrays."""
    expected = {p.name: dict(zip(p.axes, p.shape, strict=True)) for p in parameters(layers)}
    for layer in layers:  # and factors of axes, as dialects state them
        for parameter in layer.parameters():
            expected[parameter.name].update(layer.sizes)
    try:
        inferred = spec.infer(Sizes(expected))
    except Exception as error:
        yield f"infer: {_raised(error)}"
        return
    if problems := configs.misfits(spec.config, inferred):
        yield from (f"infer: {problem}" for problem in problems)
        return
    again = configs.build(spec.config, {**configs.as_dict(config), **inferred})
    arrays = {p.name: p.shape for p in parameters(list(spec.layers(again)))}
    if arrays != {p.name: p.shape for p in parameters(layers)}:
        wrong = [k for k, v in inferred.items() if configs.tuples(v) != getattr(config, k)]
        told = ", ".join(f"{name}={inferred[name]!r}" for name in wrong)
        yield f"infer: {told} makes other arrays than those that it was read off"


def _of_images(spec: Spec, config: Any) -> Iterator[str]:
    shape = spec.input_shape(config)
    if not (isinstance(shape, tuple) and len(shape) == 3 and all(type(side) is int and side > 0 for side in shape)):
        yield f"input_shape: is {shape!r}, not (channels, height, width)"
        return
    channels, height, width = shape
    if channels != config.channels:
        yield f"input_shape: has {channels} channels, the Config {config.channels}"
    try:
        spec.check_images(config, height, width)
    except ValueError as error:
        yield f"check_images: refuses images of input_shape: {error}"

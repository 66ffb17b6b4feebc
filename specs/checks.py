"""Check what a page's functions return, by its tiny twins: a fault is reported before any checkpoint is read."""

from __future__ import annotations

import contextlib
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import MISSING, fields, replace
from typing import Any

from . import config as configs
from .dialects import PORTS, shapes
from .init import INITS
from .kinds import ANY, GATES, KINDS
from .layer import Layer, Sizes, count, parameters
from .spec import Spec
from .words import unknown, with_article

PATH = re.compile(r"[A-Za-z_]\w*(\.(\d+|[A-Za-z_]\w*))*")
UNKNOWN_KIND = "layers: kind: "  # begins a fault that is the same in every Config


def faults(spec: Spec) -> list[str]:
    """List everything that is wrong with a Spec whose fields have the right types."""
    found: list[str] = []
    sound: dict[str, Any] = {}  # twins without a fault
    for what, configurations in (("tiny", spec.tiny), ("variants", spec.variants)):
        for name, config in configurations.items():
            try:
                some = [f"{what} {name!r}: {fault}" for fault in _of_config(spec, config)]
            except Exception as error:  # of the page's own code
                some = [f"{what} {name!r}: {_raised(error)}"]
            reported = {fault.partition(UNKNOWN_KIND)[2] for fault in found} - {""}
            found += [fault for fault in some if fault.partition(UNKNOWN_KIND)[2] not in reported]
            if what == "tiny" and not some:
                sound[name] = config
    found += dict.fromkeys(fault for config in sound.values() for fault in _undeclared(spec, config))
    found += _of_sign(spec, sound)
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
    kinds = {layer.kind: layer.path for layer in reversed(layers) if isinstance(layer, Layer) and _is_strange(layer)}
    yield from _alike(wrong)
    yield from (_of_kind(kind, path) for kind, path in kinds.items())
    if wrong or kinds:
        return
    paths = Counter(layer.path for layer in layers)
    yield from (f"layers: {path!r} is the path of {number} layers" for path, number in paths.items() if number > 1)
    yield from _of_infer(spec, config, layers)
    yield from _of_images(spec, config)
    fields = configs.types_of(spec.config)
    strange = [name for name in spec.immaterial(config) if name not in fields]
    yield from (f"immaterial: {unknown(name, fields)}" for name in strange)


def _alike(faults: list[str]) -> Iterator[str]:
    """Yield one of those that differ in numbers alone, as of every block, and how many there are."""
    counts = Counter(re.sub(r"\d+", "#", fault) for fault in dict.fromkeys(faults))
    firsts: dict[str, str] = {}
    for fault in faults:
        firsts.setdefault(re.sub(r"\d+", "#", fault), fault)
    for form, fault in firsts.items():
        yield f"{fault} (and {counts[form] - 1} like it)" if counts[form] > 1 else fault


def _is_strange(layer: Layer) -> bool:
    return layer.kind not in KINDS


def _of_kind(kind: str, path: str) -> str:
    """Describe a kind that does not exist, with the kind of a library's class of that name, or the nearest name."""
    word = str(kind).replace("_", "")
    near = [name for name, row in KINDS.items() if any(_is_class(word, form) for form in row.classes.values())]
    what = f"unknown name {kind!r}, did you mean {near[0]!r}?" if near else unknown(str(kind), KINDS)
    return f"{UNKNOWN_KIND}{what} (first at {path!r}; the kinds are {', '.join(KINDS)})"


def _is_class(word: str, pattern: str) -> bool:
    return bool(pattern and re.fullmatch(pattern, word, re.IGNORECASE))


def _of_layer(layer: Any) -> Iterator[str]:
    if not isinstance(layer, Layer):
        yield f"layers: yields {layer!r}, not a Layer"
        return
    where = f"layers: {layer.path!r}"
    if not isinstance(layer.path, str) or not PATH.fullmatch(layer.path):
        yield f"{where}: a path is names and numbers joined by dots"
    if _is_strange(layer):
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
        yield f"{where}: size of g is {layer.sizes['g']}, {with_article(layer.kind)} has {GATES[layer.kind]} gates"
    yield from (f"{where}: without: {unknown(leaf, leaves)}" for leaf in layer.without if leaf not in leaves)
    if layer.init not in INITS:
        yield f"{where}: init: {unknown(layer.init, INITS)} (one of {', '.join(INITS)})"


def _of_infer(spec: Spec, config: Any, layers: list[Layer]) -> Iterator[str]:
    """Check that what `infer` reads off a Config's own arrays makes the same arrays."""
    try:
        inferred = _inferred(spec, layers)
    except Exception as error:
        yield f"infer: {_raised(error)}"
        return
    if problems := configs.misfits(spec.config, inferred):
        yield from (f"infer: {problem}" for problem in problems)
        return
    again = configs.build(spec.config, {**configs.as_dict(config), **inferred})
    if _arrays(spec, again) != _arrays(spec, config):
        for name, value in inferred.items():
            if configs.tuples(value) != getattr(config, name):
                yield f"infer returned {name}={value!r}, the Config has {getattr(config, name)!r}"


def _inferred(spec: Spec, layers: list[Layer]) -> dict[str, Any]:
    """Return what `infer` reads off the arrays of these layers."""
    sizes = {p.name: dict(zip(p.axes, p.shape, strict=True)) for p in parameters(layers)}
    for layer in layers:  # and factors of axes, as dialects state them
        for parameter in layer.parameters():
            sizes[parameter.name].update(layer.sizes)
    return spec.infer(Sizes(sizes))


def _arrays(spec: Spec, config: Any) -> dict[str, tuple[int, ...]]:
    return {p.name: p.shape for p in parameters(list(spec.layers(config)))}


def _undeclared(spec: Spec, config: Any) -> Iterator[str]:
    """Describe the fields whose default a conversion would take without a mark: a file has it, and nobody states it.

    A field without a default is always asked for, and a rate of dropout changes nothing in evaluation.
    """
    inferred = _inferred(spec, list(spec.layers(config)))
    again = configs.build(spec.config, {**configs.as_dict(config), **inferred})
    every = [f for f in fields(spec.config) if f.name not in {*inferred, *spec.immaterial(again)}]
    left_open = [f.name for f in every if f.default is MISSING and f.default_factory is MISSING]
    fixed = {name for dialect in spec.dialects.values() for name in dialect.conventions}
    for name in [f.name for f in every if f.name not in (*left_open, *fixed, *spec.unshown) and "drop" not in f.name]:
        if not _is_shown(spec, again, name):
            yield f"{name}: infer does not return it, {_no_dialect(spec)}, and it is not in unshown, nor immaterial"
        elif not any(_is_shown(spec, again, other) for other in left_open):  # else arrays may show a product of both
            yield f"infer returns no {name}, which these arrays show"


def _no_dialect(spec: Spec) -> str:
    if len(spec.dialects) == 1:
        return f"dialect {next(iter(spec.dialects))!r} does not fix it"
    names = f" of {', '.join(map(repr, spec.dialects))}" if spec.dialects else ""
    return f"no dialect{names} fixes it"


def _is_shown(spec: Spec, config: Any, name: str) -> bool:
    """Tell whether a Config with another value of a field has other arrays, or cannot be with these arrays."""
    own = getattr(config, name)
    values = [getattr(other, name) for other in (*spec.tiny.values(), *spec.variants.values())]
    values += [f.default for f in fields(spec.config) if f.name == name and f.default is not MISSING]
    values += [2 * own] if type(own) is int else []
    for value in values:
        with contextlib.suppress(Exception):  # of the page's own code: the value does not fit the other fields
            if value != own and _arrays(spec, replace(config, **{name: value})) != _arrays(spec, config):
                return True
    return False


def _of_sign(spec: Spec, twins: Mapping[str, Any]) -> Iterator[str]:
    """Describe the dialects in which `sign` matches no array's name of some twin."""
    dialects = {**PORTS, **spec.dialects} if spec.sign else {}
    for dialect, lines in dialects.items():
        for name, config in twins.items():
            with contextlib.suppress(ValueError, LookupError, AttributeError):  # of a line, which is reported as such
                names = list(shapes(spec.layers(config), lines, config))
                if not any(re.search(spec.sign, each) for each in names):
                    where = f"dialect {dialect!r}, as {names[0]!r} of tiny {name!r}"
                    yield f"sign: {spec.sign!r} matches no name of {where}"
                    break


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

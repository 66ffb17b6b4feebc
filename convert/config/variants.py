"""Find the official variant of a checkpoint, what a dialect's own code cannot hold, and records that fit."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping
from dataclasses import replace
from itertools import zip_longest
from typing import Any

import specs
from convert.documents import document
from convert.errors import command_or_call, is_saving, subject
from convert.reading.recognise import dialects
from specs import config as configs
from specs.layer import Layer, Sizes
from specs.numbers import exact
from specs.spec import ADAPTED, Spec

from .conventions import computing, same
from .settings import ASKED, spelled


def variant_of(architecture: str, config: Any) -> str | None:
    """Return the name of the official variant with these arrays, classes and input channels aside."""
    spec = specs.get(architecture)
    for name, variant in spec.variants.items():
        with contextlib.suppress(ValueError):
            if alike(spec, config, _adapted(variant, config)):
                return str(name)
    return None


def from_variant(spec: Spec, stated: Mapping[str, Any], shown: Sizes) -> tuple[str, dict[str, Any]]:
    """Return the official variant that has the arrays of this file, and its fields that nothing else determines.

    Equal sizes make these fields likely; they state nothing. Variants may differ in such fields alone. The one whose
    arrays all have the file's sizes goes before the others.
    """
    likely: list[tuple[str, dict[str, Any]]] = []
    for name, variant in spec.variants.items():
        with contextlib.suppress(ValueError, TypeError):
            candidate = replace(variant, **{k: configs.tuples(v) for k, v in stated.items()})
            if alike(spec, candidate, _adapted(variant, candidate)):
                missing = {k: v for k, v in configs.as_dict(variant).items() if k not in stated and v is not None}
                if _has_sizes(spec, candidate, shown):
                    return name, missing
                likely.append((name, missing))
    return likely[0] if likely else ("", {})


def _has_sizes(spec: Spec, config: Any, shown: Sizes) -> bool:
    """Tell whether a file has every trained array of a Config, in its sizes."""
    for layer in spec.layers(config):
        for parameter in layer.parameters():
            if parameter.trained and parameter.name not in shown:
                return False
            for axis, size in zip(parameter.axes, parameter.shape, strict=True) if parameter.trained else ():
                with contextlib.suppress(KeyError):  # an axis whose length names and shapes do not determine
                    if shown[parameter.name, axis] != size:
                        return False
    return True


def _adapted(variant: Any, config: Any) -> Any:
    """Return a variant with another Config's fields that may differ within a variant."""
    return replace(variant, **{name: getattr(config, name) for name in ADAPTED})


def alike(spec: Spec, one: Any, other: Any) -> bool:
    """Tell whether two Configs make the same arrays; those of different networks mostly differ in the first layer."""

    def arrays(layer: Layer | None) -> list[tuple[str, tuple[int, ...]]]:
        return [(p.name, p.shape) for p in layer.parameters()] if layer else []

    if one == other:
        return True
    return all(arrays(a) == arrays(b) for a, b in zip_longest(spec.layers(one), spec.layers(other)))


def restrictions(architecture: str, config: Any, dialect: str) -> dict[str, tuple[Any, Any]]:
    """Return {field: (what a dialect's own code hard-codes, what this Config has)} where the two differ."""
    spec, unfit = specs.get(architecture), {}
    for name, value in dialects(architecture)[dialect].requires.items():
        fits = same(getattr(config, name), value)
        if not fits and name not in computing(spec):
            with contextlib.suppress(ValueError):  # a size may be stated in another way, as tokens are by an image
                fits = alike(spec, config, replace(config, **{name: value}))
        if not fits:
            unfit[name] = (value, getattr(config, name))
    return unfit


def clashes(
    spec: Spec, config: Any, stated: Mapping[str, Any], shown: Mapping[str, Any], how: Callable[[str], str]
) -> list[str]:
    """List the fields in which a Config that was stated is of other arrays than the file's.

    Args:
      how: field -> how it was stated, as in "was asked for".
    """
    other = {k: shown[k] for k in stated if k in shown and configs.tuples(stated[k]) != configs.tuples(shown[k])}
    if not other:
        return []
    with contextlib.suppress(ValueError):  # a token grid says more than the token count that shapes show
        if alike(spec, replace(config, **{k: configs.tuples(v) for k, v in shown.items()}), config):
            return []

    def write(name: str, value: Any) -> str:
        return exact(configs.as_hxw(spec.config, name, value))

    from_file = [k for k in other if "--config" in how(k) or "config=" in how(k)]
    is_another = len(from_file) > 1 and any(k not in ADAPTED for k in from_file)
    lines = [
        f"{k}={write(k, stated[k])} {how(k)}, but the {subject()} has {k}={write(k, value)}"
        f"{'' if is_another and k in from_file else _remedy(how(k), k, value)}"
        for k, value in other.items()
    ]
    return [*lines, *["this configuration is of another model"] * is_another]


def _remedy(how: str, name: str, value: Any) -> str:
    """Name the option that goes above a configuration file, or how to give a model another head; "" for neither."""
    if how == ASKED and name == "classes" and not is_saving():
        return f": {document('quick-start')}, Another number of classes, shows how to give a model another head"
    return (
        command_or_call(f": add {spelled(name, value)}, which goes above the file that --config names", "")
        if "--config" in how
        else ""
    )


def misfit(spec: Spec, recorded: Mapping[str, Any], shown: Mapping[str, Any]) -> str:
    """Return how a recorded Config has other arrays than a file, classes and input channels aside; "" if it fits."""
    own = {name: value for name, value in recorded.items() if name not in ADAPTED}
    try:
        config = configs.build(spec.config, {**shown, **own})
    except ValueError as error:
        return str(error)
    return "; ".join(clashes(spec, config, own, dict(shown), recorded_so))


def recorded_so(_: str) -> str:
    """Say how a record states a field."""
    return "is recorded"

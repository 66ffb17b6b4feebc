"""Describe conventions: Config fields that change what a network computes and that no array shows.

A dialect's own code fixes some of them, a record all. A bare state dict of one of the ports states none.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Mapping
from dataclasses import MISSING, fields, replace
from typing import Any

from specs import config as configs
from specs.spec import Spec


def computing(spec: Spec) -> set[str]:
    """Return the Config fields that change the outputs and that no array shows: fixed by dialects or left open."""
    return fixed(spec) | spec.unshown


def fixed(spec: Spec) -> set[str]:
    """Return the Config fields that any dialect of a page fixes."""
    return {name for dialect in spec.dialects.values() for name in dialect.conventions}


def disputed(spec: Spec) -> set[str]:
    """Return the Config fields at which dialects of a page fix different values, as both forms of GELU."""
    stated: dict[str, set[Any]] = {name: set() for name in fixed(spec)}
    for dialect in spec.dialects.values():
        for name, value in dialect.conventions.items():
            stated[name].add(rounded(value))
    return {name for name, values in stated.items() if len(values) > 1}


def required(spec: Spec) -> set[str]:
    """Return Config fields without a default."""
    return {f.name for f in fields(spec.config) if f.default is MISSING}


def unshown_from(spec: Spec, config: Any, origins: Mapping[str, str], origin: str) -> list[str]:
    """Return fields of that origin that change what this network computes and that arrays do not show."""
    return [name for name in in_effect(spec, config, ()) if origins.get(name, "default") == origin]


def in_effect(spec: Spec, config: Any, shown: Iterable[str]) -> list[str]:
    """Return fields that change the outputs of this model and that its arrays do not show.

    Args:
      shown: fields that the arrays of its file show.
    """
    names = (computing(spec) | required(spec)) - spec.immaterial(config) - set(shown)
    return [f.name for f in fields(spec.config) if f.name in names]


def without_effect(spec: Spec, config: Any) -> list[str]:
    """Return fields that no array shows, that change outputs of other models and change none of this one."""
    names = computing(spec) & spec.immaterial(config)
    return [f.name for f in fields(spec.config) if f.name in names]


def no_effect(spec: Spec, config: Any, name: str) -> str:
    """Say that a field that `immaterial` lists changes nothing: in this model, or at the size of its images alone.

    The padding of a stem, for one, changes nothing where patches tile the images.
    """
    _, height, width = spec.input_shape(config)
    for image in (height + 1, height - 1, (height + 1, width + 1), (height - 1, width - 1)):
        with contextlib.suppress(TypeError, ValueError):  # no Config has that image
            if name not in spec.immaterial(replace(config, image=image)):
                return "no effect at the model's own image size"
    return "no effect on this model"


def same(one: Any, other: Any) -> bool:
    """Tell whether two values of a field mean the same; those of one float32 do, as paddle stores float32."""
    return bool(rounded(one) == rounded(other))


def rounded(value: Any) -> Any:
    """Return a value with its floats as float32 has them, so that equal ones mean the same; see `same`."""
    if isinstance(value, list | tuple):
        return tuple(map(rounded, value))
    return configs.single(value) if isinstance(value, float) and abs(value) < configs.MAX_FLOAT else value


def differing(spec: Spec, config: Any, other: Mapping[str, Any], names: Iterable[str]) -> dict[str, tuple[Any, Any]]:
    """Return {field: (other, own)} for the named fields that differ and change what this network computes."""
    material = set(names) - spec.immaterial(config)
    own = configs.as_dict(config)
    return {name: (other[name], own[name]) for name in own if name in material and not same(own[name], other[name])}

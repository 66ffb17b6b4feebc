"""The configuration of a checkpoint: what its shapes tell, its record, its dialect, its variant, and the user."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Mapping
from dataclasses import MISSING, fields, replace
from itertools import zip_longest
from typing import Any

import specs
from specs import config as configs
from specs.layer import Layer

from . import report
from .errors import ConvertError, UsageError
from .inference import in_their_terms, sizes
from .recognise import Match, dialects, normal, spellings


def configure(
    path: str, match: Match, record: Mapping[str, Any], settings: Mapping[str, Any]
) -> tuple[Any, dict[str, str]]:
    """A file's Config, and where each field comes from: user, record, shapes, dialect, variant or default.

    Raises: UsageError that names every field left open or set to what cannot be; ConvertError where arrays that would
    tell are missing, or where the record is of other arrays.
    """
    spec, asked = match.spec, _in_our_terms(path, match, dict(settings))
    ours = record.get("config", {}) if record.get("architecture") == match.architecture else {}
    try:
        held = spec.infer(sizes(match))
    except (KeyError, IndexError) as error:
        held = _only_told(path, match, error, {**ours, **asked})
    conventions = dict(dialects(match.architecture)[match.dialect].conventions)
    sources = {"dialect": conventions, "shapes": held, "record": ours, "user": asked}  # each above those before it
    told = {name: value for source in sources.values() for name, value in source.items()}
    try:
        if problems := configs.misfits(spec.Config, told):
            raise ValueError("; ".join(problems))
        sources = {"variant": _from_variant(spec, told), **sources}
        config = configs.build(spec.Config, {**sources["variant"], **told})
    except ValueError as error:
        remedy = ["set it with --set NAME=VALUE or in a --config FILE"] if "is open" in str(error) else []
        remedy += ["part of it is its record's, which can be removed"] if ours.keys() - asked.keys() else []
        raise UsageError(f"{path}: {match.architecture}: {error}", remedy) from None
    if clashes := _clashes(spec, config, asked, held, "was asked for"):
        raise UsageError(f"{path}: the configuration that was asked for does not fit the file", clashes)
    if clashes := _clashes(spec, config, {k: v for k, v in ours.items() if k not in asked}, held, "is recorded"):
        raise ConvertError(f"{path}: its record is of other arrays: remove the record", clashes)
    return config, {name: origin for origin, source in sources.items() for name in source}


def _in_our_terms(path: str, match: Match, asked: dict[str, Any]) -> dict[str, Any]:
    """Config fields, also where a dialect's own configuration file tells them, whose sections are in capitals."""
    foreign = {name: value for name, value in asked.items() if name.isupper()}
    if not foreign:
        return asked
    reader = getattr(match.spec, "READERS", {}).get(match.dialect)
    if reader is None:
        problem = f"no configuration files of {match.dialect} are known for {match.architecture}"
        names = ", ".join(field.name for field in fields(match.spec.Config))
        raise UsageError(f"{path}: {problem}: give Config fields ({names})")
    try:
        return {**reader(foreign), **{name: value for name, value in asked.items() if name not in foreign}}
    except ValueError as error:
        raise UsageError(f"{path}: {match.architecture}, its configuration file: {error}") from None


def questionable(spec: Any, origins: Mapping[str, str], origin: str) -> list[str]:
    """Fields of that origin that change what is computed and that arrays do not show."""
    names = computing(spec) | _open(spec)
    return [f.name for f in fields(spec.Config) if f.name in names and origins.get(f.name, "default") == origin]


def computing(spec: Any) -> set[str]:
    """Config fields that change what is computed and that no array shows: fixed by dialects, or left open."""
    fixed = {name for dialect in spec.DIALECTS.values() for name in dialect.conventions}
    return fixed | getattr(spec, "UNSHOWN", set())


def unshown(match: Match) -> set[str]:
    """Config fields that change what is computed and that this file's arrays do not show."""
    return computing(match.spec) | (_open(match.spec) - match.spec.infer(sizes(match)).keys())


def _open(spec: Any) -> set[str]:
    """Config fields without a default."""
    return {f.name for f in fields(spec.Config) if f.default is MISSING}


def differing(spec: Any, config: Any, other: Mapping[str, Any], names: Iterable[str]) -> dict[str, tuple[Any, Any]]:
    """{field: (other, own)} of those of these fields that differ and change what this network computes.

    Numbers that round to the same float32 are the same: paddle stores them so.
    """

    def rounded(value: Any) -> Any:
        if isinstance(value, list):
            return list(map(rounded, value))
        return configs.single(value) if isinstance(value, float) else value

    material = set(names) - getattr(spec, "immaterial", lambda _: set())(config)
    own = configs.as_dict(config)
    return {
        name: (other[name], own[name])
        for name in own
        if name in material and rounded(own[name]) != rounded(other[name])
    }


def _clashes(spec: Any, config: Any, told: dict[str, Any], held: dict[str, Any], how: str) -> list[str]:
    """Where a Config that was told in some way is of other arrays than the file's."""
    other = {k: held[k] for k in told if k in held and configs.tuples(told[k]) != configs.tuples(held[k])}
    if not other:
        return []
    with contextlib.suppress(ValueError):  # a token grid says more than the token count that shapes show
        if alike(spec, replace(config, **{k: configs.tuples(v) for k, v in held.items()}), config):
            return []
    return [f"{k}={told[k]!r} {how}, the file holds {k}={value!r}" for k, value in other.items()]


def _only_told(path: str, match: Match, error: Exception, told: dict[str, Any]) -> dict[str, Any]:
    """Where an array that `infer` needs is missing: nothing, if user and record told a whole Config."""
    try:
        configs.build(match.spec.Config, told)
        return {}
    except ValueError:
        name = error.args[0] if error.args else error
        spelt = spellings(match.architecture, match.dialect)
        unknown = [n for n in match.tensors if normal(n) not in spelt]
        theirs = in_their_terms(match, str(name)) or f"{name} (in our terms)"
        problem = f"missing {theirs}, from which the configuration would follow"
        what = f"{path}: no complete {match.dialect} checkpoint of {match.architecture}"
        raise ConvertError(what, [problem, *report.unexpected(unknown)]) from None


def _from_variant(spec: Any, told: Mapping[str, Any]) -> dict[str, Any]:
    """Fields of the official variant that has these very arrays: what only its name would tell."""
    for variant in spec.VARIANTS.values():
        with contextlib.suppress(ValueError, TypeError):
            candidate = replace(variant, **{k: configs.tuples(v) for k, v in told.items()})
            if alike(spec, candidate, _adapted(variant, candidate)):
                return {k: v for k, v in configs.as_dict(variant).items() if k not in told and v is not None}
    return {}


def _adapted(variant: Any, config: Any) -> Any:
    """A variant with another's classes and input channels, which may differ within a variant."""
    return replace(variant, classes=config.classes, channels=config.channels)


def alike(spec: Any, one: Any, other: Any) -> bool:
    """Whether two Configs make the same arrays; those of different networks mostly differ in the first layer."""

    def arrays(layer: Layer | None) -> list[tuple[str, tuple[int, ...]]]:
        return [(p.name, p.shape) for p in layer.parameters()] if layer else []

    if one == other:
        return True
    return all(arrays(a) == arrays(b) for a, b in zip_longest(spec.layers(one), spec.layers(other)))


def variant_of(architecture: str, config: Any) -> str | None:
    """The name of the official variant with these arrays, classes and input channels aside."""
    spec = specs.get(architecture)
    for name, variant in spec.VARIANTS.items():
        with contextlib.suppress(ValueError):
            if alike(spec, config, _adapted(variant, config)):
                return str(name)
    return None

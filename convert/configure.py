"""The configuration of a checkpoint: what its shapes tell, its record, its dialect, its variant, and the user."""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Iterable, Mapping
from dataclasses import fields, replace
from itertools import zip_longest
from typing import Any, NamedTuple

import specs
from specs import config as configs
from specs.layer import Layer, Sizes
from specs.spec import Spec

from . import report
from .configuration import Settings
from .errors import ConvertError, UsageError
from .inference import in_their_terms, sizes
from .kinds import PORTS
from .manifest import Record
from .parts import normal
from .recognise import Match, dialects, spellings
from .unstated import computing, misfit, open_error, questionable, required, same, unsettled


class Configuration(NamedTuple):
    """A file's Config and how it came about.

    Args:
      origins: field -> user, record, shapes, dialect, variant, assumed or default.
      assumed: fields that change the outputs and that nobody knows: a record marks them so, or they are a default.
      marked: those of them that a record marks so.
      unstated: fields of which nobody may assume the value without being asked to; see unstated.open_error.
      remarks: what the user should know of how records and settings go together.
      held: fields that the file's arrays show.
    """

    config: Any
    origins: Mapping[str, str]
    assumed: tuple[str, ...]
    marked: tuple[str, ...]
    unstated: tuple[str, ...]
    remarks: tuple[str, ...]
    held: Mapping[str, Any]


def configure(path: str, match: Match, record: Record, settings: Settings) -> Configuration:
    """Derive a file's Config from its arrays, its dialect, its record and the user.

    Raises: UsageError that names every field left open or set to what cannot be; ConvertError where arrays that would
    tell are missing, or where the record is of other arrays.
    """
    spec, asked = match.spec, _in_our_terms(path, match, dict(settings.values))
    if settings.architecture not in ("", match.architecture):
        raise UsageError(
            f"{path}: holds a {match.architecture}, the configuration given is of a {settings.architecture}"
        )
    known = record.content.get("architecture") == match.architecture
    ours: dict[str, Any] = record.content.get("config", {}) if known else {}
    try:
        held = spec.infer(sizes(match))
    except (KeyError, IndexError) as error:
        held = _only_told(path, match, error, {**ours, **asked})
    strange = "architecture" in record.content and not known
    remarks = [
        *settings.notes,
        *([f"{record.place} is of another architecture: it is ignored"] if strange else record.notes()),
    ]
    if record.change and ours:
        ours, remarks = _of_changed(spec, record, held, remarks)
    conventions = dict(dialects(match.architecture)[match.dialect].conventions)
    sources = {"dialect": conventions, "shapes": held, "record": ours, "user": asked}  # each above those before it
    told = {name: value for source in sources.values() for name, value in source.items()}
    if problems := configs.misfits(spec.config, told):
        raise _impossible(path, match, "; ".join(problems), ours.keys() - asked.keys())
    sources = {"variant": _from_variant(spec, told, sizes(match)), **sources}
    values = {**sources["variant"], **told}
    if lacking := [f.name for f in fields(spec.config) if f.name in required(spec) and f.name not in values]:
        default = {f.name for f in fields(spec.config) if f.name in computing(spec) and f.name not in values}
        names = _in_order(spec, {*lacking, *_asked_for(match, default)})
        raise open_error(path, match.architecture, spec, names, {}, held, remarks)
    try:
        config = configs.build(spec.config, values)
    except ValueError as error:
        raise _impossible(path, match, str(error), ours.keys() - asked.keys()) from None
    if problems := clashes(spec, config, asked, held, "was asked for"):
        raise UsageError(f"{path}: the configuration that was asked for does not fit the file", problems)
    if problems := clashes(spec, config, {k: v for k, v in ours.items() if k not in asked}, held, "is recorded"):
        raise ConvertError(f"{path}: its record is of other arrays: remove the record", problems)
    remarks += _contradictions(asked, ours, record.assumed, match.dialect, conventions)
    origins = {name: origin for origin, source in sources.items() for name in source}
    variant = variant_of(match.architecture, config)
    doubtful = questionable(spec, config, origins, "default")
    doubtful += unsettled(spec, variant, config, questionable(spec, config, origins, "variant"))
    marked = ((record.assumed & ours.keys()) - asked.keys()) | (settings.assumed & asked.keys())
    refused = _asked_for(match, doubtful)
    assumed = {*marked, *doubtful} - set(refused)
    return Configuration(
        config=config,
        origins={**origins, **dict.fromkeys(assumed, "assumed")},
        assumed=_in_order(spec, assumed),
        marked=_in_order(spec, marked),
        unstated=_in_order(spec, refused),
        remarks=tuple(remarks),
        held=held,
    )


def _in_order(spec: Spec, names: Iterable[str]) -> tuple[str, ...]:
    """Fields in the order of the Config."""
    chosen = set(names)
    return tuple(f.name for f in fields(spec.config) if f.name in chosen)


def _asked_for(match: Match, names: Iterable[str]) -> list[str]:
    """Fields that are not assumed unless the user says so: those of the ports' own dialects, which any may have."""
    return list(names) if match.dialect in PORTS else []


def _impossible(path: str, match: Match, problem: str, recorded: Collection[str]) -> UsageError:
    remedy = ["part of it is its record's, which can be removed"] if recorded else []
    return UsageError(f"{path}: {match.architecture}: {problem}", remedy)


def _of_changed(
    spec: Spec, record: Record, held: Mapping[str, Any], remarks: list[str]
) -> tuple[dict[str, Any], list[str]]:
    """What the record of other bytes states of this file, whose classes may be others, and the remarks on it."""
    recorded = record.content["config"]
    if problem := misfit(spec, recorded, held):
        return {}, [f"{record.place} is of another model ({problem}): it is not used"]
    return {k: v for k, v in recorded.items() if k not in ("classes", "channels") or k not in held}, remarks


def _contradictions(
    asked: Mapping[str, Any], ours: Mapping[str, Any], assumed: Collection[str], dialect: str, fixed: Mapping[str, Any]
) -> list[str]:
    """A line for every field in which the user contradicts the record, or the dialect's own code."""
    found = []
    for name, value in asked.items():
        if name in ours and not same(ours[name], value):
            recorded = f"{name}={ours[name]}, which its record {'only assumes' if name in assumed else 'states'}"
            found.append(f"{name}={value} was asked for and is used in place of {recorded}")
        elif name in fixed and name not in ours and not same(fixed[name], value):
            found.append(f"{name}={value} was asked for, though {dialect}'s own code computes {name}={fixed[name]}")
    return found


def check_names(sides: Iterable[tuple[str, Match]], settings: Settings) -> None:
    """Check settings that files may not need. Raises: UsageError where none of these (path, reading) can take them."""
    errors = []
    for path, match in sides:
        try:
            if not (problems := configs.misfits(match.spec.config, _in_our_terms(path, match, dict(settings.values)))):
                return
            errors.append(UsageError(f"{path}: {match.architecture}: {'; '.join(problems)}"))
        except UsageError as error:
            errors.append(error)
    raise errors[0]


def _in_our_terms(path: str, match: Match, asked: dict[str, Any]) -> dict[str, Any]:
    """Config fields, also where a dialect's own configuration file tells them, whose sections are in capitals."""
    foreign = {name: value for name, value in asked.items() if name.isupper()}
    if not foreign:
        return asked
    reader = match.spec.readers.get(match.dialect)
    if reader is None:
        problem = f"no configuration files of {match.dialect} are known for {match.architecture}"
        names = ", ".join(field.name for field in fields(match.spec.config))
        raise UsageError(f"{path}: {problem}: give Config fields ({names})")
    try:
        return {**reader(foreign), **{name: value for name, value in asked.items() if name not in foreign}}
    except ValueError as error:
        raise UsageError(f"{path}: {match.architecture}, its configuration file: {error}") from None


def unshown(match: Match) -> set[str]:
    """Config fields that change what is computed and that this file's arrays do not show."""
    return computing(match.spec) | (required(match.spec) - match.spec.infer(sizes(match)).keys())


def differing(spec: Spec, config: Any, other: Mapping[str, Any], names: Iterable[str]) -> dict[str, tuple[Any, Any]]:
    """{field: (other, own)} of those of these fields that differ and change what this network computes."""
    material = set(names) - spec.immaterial(config)
    own = configs.as_dict(config)
    return {name: (other[name], own[name]) for name in own if name in material and not same(own[name], other[name])}


def clashes(spec: Spec, config: Any, told: Mapping[str, Any], held: Mapping[str, Any], how: str) -> list[str]:
    """List the fields in which a Config that was stated in some way is of other arrays than the file's."""
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
        configs.build(match.spec.config, told)
        return {}
    except ValueError:
        name = error.args[0] if error.args else error
        spelt = spellings(match.architecture, match.dialect)
        unknown = [n for n in match.tensors if normal(n) not in spelt]
        theirs = in_their_terms(match, str(name)) or f"{name} (in our terms)"
        problem = f"missing {theirs}, from which the configuration would follow"
        if theirs in match.tensors:
            problem = f"{theirs} has shape {list(match.tensors[theirs].shape)}, from which no configuration follows"
        what = f"{path}: no complete {match.dialect} checkpoint of {match.architecture}"
        raise ConvertError(what, [problem, *report.unexpected(unknown)]) from None


def _from_variant(spec: Spec, told: Mapping[str, Any], held: Sizes) -> dict[str, Any]:
    """Return the fields of the official variant that has the arrays of this file and that nothing else determines.

    Variants may differ in such fields alone. The one whose arrays all have the file's sizes goes before the others.
    """
    likely: list[dict[str, Any]] = []
    for variant in spec.variants.values():
        with contextlib.suppress(ValueError, TypeError):
            candidate = replace(variant, **{k: configs.tuples(v) for k, v in told.items()})
            if alike(spec, candidate, _adapted(variant, candidate)):
                missing = {k: v for k, v in configs.as_dict(variant).items() if k not in told and v is not None}
                if _has_sizes(spec, candidate, held):
                    return missing
                likely.append(missing)
    return likely[0] if likely else {}


def _has_sizes(spec: Spec, config: Any, held: Sizes) -> bool:
    """Whether a file has every trained array of a Config, in its sizes."""
    for layer in spec.layers(config):
        for parameter in layer.parameters():
            if parameter.trained and parameter.name not in held:
                return False
            for axis, size in zip(parameter.axes, parameter.shape, strict=True) if parameter.trained else ():
                with contextlib.suppress(KeyError):  # an axis whose length names and shapes do not determine
                    if held[parameter.name, axis] != size:
                        return False
    return True


def _adapted(variant: Any, config: Any) -> Any:
    """A variant with another's classes and input channels, which may differ within a variant."""
    return replace(variant, classes=config.classes, channels=config.channels)


def alike(spec: Spec, one: Any, other: Any) -> bool:
    """Whether two Configs make the same arrays; those of different networks mostly differ in the first layer."""

    def arrays(layer: Layer | None) -> list[tuple[str, tuple[int, ...]]]:
        return [(p.name, p.shape) for p in layer.parameters()] if layer else []

    if one == other:
        return True
    return all(arrays(a) == arrays(b) for a, b in zip_longest(spec.layers(one), spec.layers(other)))


def variant_of(architecture: str, config: Any) -> str | None:
    """The name of the official variant with these arrays, classes and input channels aside."""
    spec = specs.get(architecture)
    for name, variant in spec.variants.items():
        with contextlib.suppress(ValueError):
            if alike(spec, config, _adapted(variant, config)):
                return str(name)
    return None


def restrictions(architecture: str, config: Any, dialect: str) -> dict[str, tuple[Any, Any]]:
    """{field: (what a dialect's own code hard-codes, what this Config has)} where the code cannot hold this model."""
    spec, found = specs.get(architecture), {}
    for name, value in dialects(architecture)[dialect].requires.items():
        fits = same(getattr(config, name), value)
        if not fits and name not in computing(spec):
            with contextlib.suppress(ValueError):  # a size may be stated in another way, as tokens are by an image
                fits = alike(spec, config, replace(config, **{name: value}))
        if not fits:
            found[name] = (value, getattr(config, name))
    return found

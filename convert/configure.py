"""Determine the configuration of a checkpoint from its shapes, its record, its dialect, its variant and the user."""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import fields
from typing import Any, NamedTuple

from specs import config as configs
from specs.dialects import PORTS
from specs.numerals import exact
from specs.preprocessing import UNKNOWN, Known
from specs.spec import Spec
from specs.words import with_article

from .conventions import computing, questionable, required, same
from .errors import ConvertError, UsageError, option
from .inference import inferred, sizes, whole_config
from .pixels import known as known_preprocessing
from .readings import Reading
from .recognise import dialects
from .record import DEFAULT, DIALECT, OFFICIAL, Record
from .settings import Settings, in_our_terms
from .variants import clashes, from_variant, misfit, recorded_so, variant_of


class Configuration(NamedTuple):
    """A file's Config and how it came about.

    Args:
      origins: field -> user, record, shapes, dialect, variant, assumed or default.
      unread: field that neither the file's arrays nor anybody states -> what suggests its value: see record.UNREAD.
      assumed: fields that change the outputs and that nobody knows: a record marks them so, or they are a default.
      marked: the assumed fields that a record marks as assumed.
      unstated: fields of which nobody may assume the value without being asked to; see unstated.open_error.
      remarks: what the user should know of how records and settings go together.
      shown: fields that the file's arrays show.
      preprocessing: of images, as far as it is known.
    """

    config: Any
    origins: Mapping[str, str]
    unread: Mapping[str, str]
    assumed: tuple[str, ...]
    marked: tuple[str, ...]
    unstated: tuple[str, ...]
    remarks: tuple[str, ...]
    shown: Mapping[str, Any]
    preprocessing: Known = UNKNOWN


def configure(path: str, reading: Reading, record: Record, settings: Settings) -> Configuration:
    """Derive a file's Config from its arrays, its dialect, its record and the user.

    Raises: UsageError that names every field left open or set to what cannot be; ConvertError where arrays that would
    tell are missing, or where the record is of other arrays.
    """
    spec, asked = reading.spec, _in_our_terms(path, reading, dict(settings.values))
    if settings.architecture not in ("", reading.architecture):
        other = with_article(settings.architecture)
        raise UsageError(f"{path}: is {with_article(reading.architecture)}, the configuration is of {other}")
    shown, ours, remarks = _evidence(path, reading, record, settings, asked)
    conventions = dict(dialects(reading.architecture)[reading.dialect].conventions)
    sources = {"dialect": conventions, "shapes": shown, "record": ours, "user": asked}  # each above those before it
    stated = {name: value for source in sources.values() for name, value in source.items()}
    _check_stated(path, reading, settings, stated, asked, ours)
    likely, fields_of_variant = from_variant(spec, stated, sizes(reading))
    sources = {"variant": fields_of_variant, **sources}
    values = {**fields_of_variant, **stated}
    if names := _lacking(reading, values):
        from .unstated import open_error  # which most files do not need

        raise open_error(path, reading.architecture, spec, names, {}, shown, remarks)
    try:
        config = configs.build(spec.config, values)
    except ValueError as error:
        raise _impossible(path, reading, str(error), ours.keys() - asked.keys()) from None
    if problems := clashes(spec, config, asked, shown, settings.how):
        raise UsageError(f"{path}: the configuration that was asked for does not fit the file", problems)
    if problems := clashes(spec, config, {k: v for k, v in ours.items() if k not in asked}, shown, recorded_so):
        raise ConvertError(f"{path}: its record is of other arrays: remove the record", problems)
    remarks += _contradictions(asked, settings, ours, record, reading.dialect, conventions)
    origins = {name: origin for origin, source in sources.items() for name in source}
    variant = variant_of(reading.architecture, config)
    doubtful = [name for origin in ("default", "variant") for name in questionable(spec, config, origins, origin)]
    dialect = dialects(reading.architecture)[reading.dialect]
    whole = record if _is_of(record, reading) else Record()  # of another architecture: it says nothing of this model
    suggested = {"default": DEFAULT, "variant": f"{OFFICIAL}{likely}", "dialect": f"{DIALECT}{reading.dialect}"}
    earlier = {"record": whole.unread, "user": settings.unread}
    unread = _unread(spec, origins, suggested, earlier, shown)
    pixels, doubts = known_preprocessing(path, spec, dialect, variant, config, whole, settings.preprocessing)
    remarks += doubts
    marked = ((record.assumed & ours.keys()) - asked.keys()) | (settings.assumed & asked.keys())
    refused = _asked_for(reading, doubtful)
    assumed = {*marked, *doubtful} - set(refused)
    return Configuration(
        config=config,
        origins={**origins, **dict.fromkeys(assumed, "assumed")},
        unread=unread,
        assumed=_in_order(spec, assumed),
        marked=_in_order(spec, marked),
        unstated=_in_order(spec, refused),
        remarks=tuple(remarks),
        shown=shown,
        preprocessing=pixels,
    )


def _is_of(record: Record, reading: Reading) -> bool:
    """Tell whether a record is of the architecture that its file is read as."""
    return bool(record.content.get("architecture") == reading.architecture)


def _evidence(
    path: str, reading: Reading, record: Record, settings: Settings, asked: Mapping[str, Any]
) -> tuple[dict[str, Any], dict[str, Any], list[str]]:
    """Return the fields that the arrays show, those that the record states, and remarks on both.

    Args:
      asked: what the user states.
    """
    ours: dict[str, Any] = record.content.get("config", {}) if _is_of(record, reading) else {}
    try:
        shown = inferred(path, reading)
    except (KeyError, IndexError) as error:
        shown = whole_config(path, reading, error, {**ours, **asked})
    strange = "architecture" in record.content and not _is_of(record, reading)
    ignored = f"{record.place} is of another architecture: it is ignored"
    remarks = [*settings.notes, *([ignored] if strange else record.notes())]
    if record.change and ours:
        ours, remarks = _of_changed(reading.spec, record, shown, remarks)
    return shown, ours, remarks


def _check_stated(
    path: str,
    reading: Reading,
    settings: Settings,
    stated: Mapping[str, Any],
    asked: Mapping[str, Any],
    ours: Mapping[str, Any],
) -> None:
    """Check the values that somebody states, each by itself. Raises: UsageError that names those that cannot be.

    Args:
      stated: by anybody. asked: by the user. ours: by the record.
    """
    config = reading.spec.config
    if problems := configs.misfits(config, stated):
        wrong = {name for name, value in stated.items() if configs.misfits(config, {name: value})}
        if wrong & asked.keys() and settings.file and wrong.isdisjoint(settings.chosen):
            problems.append(f"stated by {option('config', settings.file)}")
        raise _impossible(path, reading, "; ".join(problems), wrong & ours.keys() - asked.keys())


def _lacking(reading: Reading, values: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the fields to ask for; () where each field without a default has a value.

    Where the user is asked at all, fields that change the outputs are asked for too, even if they have a default.
    """
    spec = reading.spec
    unknown = {f.name for f in fields(spec.config) if f.name not in values}
    lacking = unknown & required(spec)
    return _in_order(spec, {*lacking, *_asked_for(reading, unknown & computing(spec))}) if lacking else ()


def _unread(
    spec: Spec,
    origins: Mapping[str, str],
    suggested: Mapping[str, str],
    earlier: Mapping[str, Mapping[str, str]],
    shown: Mapping[str, Any],
) -> dict[str, str]:
    """Return what suggests the value of each field that neither the arrays nor anybody states.

    Args:
      suggested: origin -> what it is called. earlier: origin -> the fields of which it says this itself.
    """
    unread = {}
    for field in fields(spec.config):
        origin = origins.get(field.name, "default")
        reason = suggested.get(origin) or earlier.get(origin, {}).get(field.name)
        if reason and (origin in suggested or field.name not in shown):
            unread[field.name] = reason
    return unread


def _in_order(spec: Spec, names: Iterable[str]) -> tuple[str, ...]:
    """Return fields in the order of the Config."""
    chosen = set(names)
    return tuple(f.name for f in fields(spec.config) if f.name in chosen)


def _asked_for(reading: Reading, names: Iterable[str]) -> list[str]:
    """Return the fields that the user must state: all of them for the ports' own dialects, none for others."""
    return list(names) if reading.dialect in PORTS else []


def _impossible(path: str, reading: Reading, problem: str, recorded: Collection[str]) -> UsageError:
    remedy = ["part of it is its record's, which can be removed"] if recorded else []
    return UsageError(f"{path}: {reading.architecture}: {problem}", remedy)


def _of_changed(
    spec: Spec, record: Record, shown: Mapping[str, Any], remarks: list[str]
) -> tuple[dict[str, Any], list[str]]:
    """Return what the record of other bytes states of this file, whose classes may be others, and the remarks on it."""
    recorded = record.content["config"]
    if problem := misfit(spec, recorded, shown):
        return {}, [f"{record.place} is of another model ({problem}): it is not used"]
    return {k: v for k, v in recorded.items() if k not in ("classes", "channels") or k not in shown}, remarks


def _contradictions(
    asked: Mapping[str, Any],
    settings: Settings,
    ours: Mapping[str, Any],
    record: Record,
    dialect: str,
    fixed: Mapping[str, Any],
) -> list[str]:
    """Return a line for every field in which the user contradicts the record, or the dialect's own code.

    Args:
      asked: fields that `settings` states. ours: those of `record`. fixed: those of the dialect's own code.
    """
    lines = []
    for name, value in asked.items():
        stated = f"{name}={exact(value)} {settings.how(name)}"
        if name in ours and not same(ours[name], value):
            origin = record.unread.get(name)
            had = f"has {'by' if origin == DEFAULT else 'from the'} {origin}" if origin else "states"
            recorded = (
                f"{name}={exact(ours[name])}, which its record {'only assumes' if name in record.assumed else had}"
            )
            lines.append(f"{stated} and is used in place of {recorded}")
        elif name in fixed and name not in ours and not same(fixed[name], value):
            lines.append(f"{stated}, though {dialect}'s own code computes {name}={exact(fixed[name])}")
    return lines


def check_names(sides: Iterable[tuple[str, Reading]], settings: Settings) -> None:
    """Check settings that files may not need. Raises: UsageError where none of these (path, reading) can take them."""
    errors = []
    for path, reading in sides:
        try:
            if not (
                problems := configs.misfits(reading.spec.config, _in_our_terms(path, reading, dict(settings.values)))
            ):
                return
            errors.append(UsageError(f"{path}: {reading.architecture}: {'; '.join(problems)}"))
        except UsageError as error:
            errors.append(error)
    raise errors[0]


def _in_our_terms(path: str, reading: Reading, asked: dict[str, Any]) -> dict[str, Any]:
    """Return Config fields, also where a dialect's own configuration file states them, in capitals."""
    try:
        return in_our_terms(reading.spec, asked, "" if reading.dialect in PORTS else reading.dialect)
    except LookupError as error:
        what = str(error.args[0]).replace("are known:", f"are known for {reading.architecture}:")
        raise UsageError(f"{path}: {what}") from None
    except ValueError as error:
        raise UsageError(f"{path}: {reading.architecture}, its configuration file: {error}") from None

"""Determine the configuration of a checkpoint from its shapes, its record, its dialect, its variant and the user.

What is known of a Config field, in the words of this file:

    shown        the file's arrays determine it (`Spec.infer`); `unshown` fields change the outputs, and no array does
    stated       shown, or stated by the dialect's own code, the modules of a pickled model, the record or the user
    suggested    neither shown nor stated: a default or an official variant suggests it, and the record names which
    assumed      suggested and unshown: reported by a note, and marked as assumed in the record
    marked       those of the assumed fields that the source's record marks so
    must_state   suggested and unshown, in a dialect of the ports, or by a default alone: the user has to state it, or
                 to accept the default; messages call it open, and OpenFields lists it
"""

import os
from collections.abc import Collection, Iterable, Mapping
from dataclasses import fields
from typing import Any, NamedTuple

import specs
from convert.errors import ConvertError, UsageError, option, subject
from convert.files.modules import Module
from convert.reading.readings import Reading
from convert.reading.recognise import dialects
from convert.records.record import DEFAULT, DIALECT, OFFICIAL, Record
from specs import config as configs
from specs.dialects import PORTS
from specs.numbers import exact
from specs.preprocessing import UNKNOWN, Known
from specs.spec import ADAPTED, Spec
from specs.words import with_article

from . import module_settings
from .conventions import computing, required, same, unshown_from
from .inference import inferred, outvoted, sizes, whole_config
from .pixels import known as known_preprocessing
from .pixels import with_size
from .settings import IGNORED, Settings, in_our_terms
from .variants import clashes, from_variant, misfit, variant_of

# Origins of values, each above those before it.
PRECEDENCE = ("variant", "dialect", "modules", "shapes", "record", "user")


class Configuration(NamedTuple):
    """A file's Config and how it came about; for the terms see above.

    Args:
      origins: field -> one of PRECEDENCE, assumed or default.
      suggested: suggested field -> what suggests its value: see record.SUGGESTED.
      remarks: what the user should know of how records and settings go together.
      shown: fields that the file's arrays show, with their values.
      stating: field -> the number of modules of a pickled model that state it.
      preprocessing: of images, as far as it is known.
      record: of the file; an empty one where that is of another model.
    """

    config: Any
    origins: Mapping[str, str]
    suggested: Mapping[str, str]
    assumed: tuple[str, ...]
    marked: tuple[str, ...]
    must_state: tuple[str, ...]
    remarks: tuple[str, ...]
    shown: Mapping[str, Any]
    stating: Mapping[str, int]
    preprocessing: Known = UNKNOWN
    record: Record = Record()


class Evidence(NamedTuple):
    """What is known of a file's Config before the Config is built.

    Args:
      says: origin, one of PRECEDENCE -> {field: value}.
      variant: the official one that says["variant"] is of.
      remarks: what the user should know of records and settings.
      record: of the file; an empty one where that is of another model.
      stating: field of says["modules"] -> the number of modules that state it.
    """

    says: Mapping[str, Mapping[str, Any]]
    variant: str
    remarks: list[str]
    record: Record
    stating: Mapping[str, int]

    @property
    def values(self) -> dict[str, Any]:
        """Return the value of each field that anything says something of."""
        return {name: value for origin in PRECEDENCE for name, value in self.says[origin].items()}

    @property
    def origins(self) -> dict[str, str]:
        """Return where each of these values comes from."""
        return {name: origin for origin in PRECEDENCE for name in self.says[origin]}


def configure(
    path: str, reading: Reading, record: Record, settings: Settings, modules: Iterable[Module] = (),
    none: Collection[str] = (),
) -> Configuration:  # fmt: skip
    """Derive a file's Config from its arrays, its dialect, its record and the user.

    Args:
      modules: those of a model that was pickled whole whose settings were read.
      none: names under which the file has None in place of an array: they are not called missing.
    Raises: UsageError that names every field left open or set to what cannot be; ConvertError where arrays that would
    tell are missing, where the record is of other arrays, or where the modules are of another network.
    """
    evidence = _gather(path, reading, record, settings, modules, none)
    config = _build(path, reading, settings, evidence)
    return _classify(path, reading, settings, evidence, config)


def _gather(
    path: str, reading: Reading, record: Record, settings: Settings, modules: Iterable[Module], none: Collection[str]
) -> Evidence:
    """Collect what each origin says of the Config, and check each value by itself. Raises: ConvertError."""
    asked = _parse_settings(path, reading, settings)
    if settings.architecture not in ("", reading.architecture):
        its, other = with_article(reading.architecture), with_article(settings.architecture)
        stated = option("config", settings.file) if settings.file else "its configuration"
        raise UsageError(f"{path}: is {its}, and {stated} is of {other}: give that of {its}, or none")
    shown = _shown(path, reading, record, asked, none)
    is_named = bool(settings.file) and _is_file(settings.file, path, record.file(path))
    own, remarks = _admitted(record, reading, shown, is_named)
    repeated = {settings.of_record.get(remark) for remark in remarks if is_named}
    notes = [note for note in settings.notes if note not in repeated]
    recorded = _recorded(own, reading, shown)
    conventions = dict(dialects(reading.architecture)[reading.dialect].conventions)
    pickled = module_settings.stated(path, reading, modules)
    says = {"variant": {}, "dialect": conventions, "shapes": shown, "record": recorded, "user": asked,
            "modules": {name: one.value for name, one in pickled.items()}}  # fmt: skip
    stating = {name: len(one.paths) for name, one in pickled.items()}
    evidence = Evidence(says, "", [*notes, *remarks], own, stating)
    _check_values(path, reading, settings, evidence)
    module_settings.check(path, reading, pickled, says, settings)
    variant, suggested = from_variant(reading.spec, evidence.values, sizes(reading))
    return evidence._replace(says={**says, "variant": suggested}, variant=variant)


def _build(path: str, reading: Reading, settings: Settings, evidence: Evidence) -> Any:
    """Build the Config, and check that the arrays are its own.

    Raises: OpenFields where fields have no value; UsageError, or ConvertError for a record, where values do not fit.
    """
    spec, says = reading.spec, evidence.says
    shown, recorded, asked = says["shapes"], says["record"], says["user"]
    if names := _to_ask_for(reading, evidence.values):
        from .open_fields import open_error  # which most files do not need

        foreign = _of_foreign_file(settings, asked)  # which speaks of all of its other keys
        remarks = [*(line for line in evidence.remarks if not foreign or IGNORED not in line), *foreign]
        raise open_error(path, reading.architecture, spec, names, {}, shown, remarks)
    try:
        config = configs.build(spec.config, evidence.values)
    except ValueError as error:
        raise _impossible(path, reading, str(error), recorded.keys() - asked.keys()) from None
    if problems := clashes(spec, config, asked, shown, settings, reading):
        raise UsageError(f"{path}: the configuration that was asked for does not fit the {subject()}", problems)
    if problems := clashes(spec, config, {k: v for k, v in recorded.items() if k not in asked}, shown):
        raise ConvertError(f"{path}: its record is of other arrays: remove the record", problems)
    return config


def _of_foreign_file(settings: Settings, asked: Mapping[str, Any]) -> list[str]:
    """Say what was read off a configuration file of a dialect's users, whose other keys are not used."""
    if not any(name.isupper() for name in settings.values):
        return []
    values = ", ".join(f"{name}={exact(value)}" for name, value in asked.items() if name not in settings.chosen)
    others = "its other keys state no field of this model"
    return [f"{option('config', settings.file)} states {values or 'no field of this model'}; {others}"]


def _classify(path: str, reading: Reading, settings: Settings, evidence: Evidence, config: Any) -> Configuration:
    """Say of each field of a Config how it is known, and of the preprocessing too."""
    spec, origins, record = reading.spec, evidence.origins, evidence.record
    recorded, asked = evidence.says["record"], evidence.says["user"]
    dialect = dialects(reading.architecture)[reading.dialect]
    pixels, doubts = known_preprocessing(
        path, spec, dialect, variant_of(reading.architecture, config), config, record, settings.preprocessing,
        "image" in evidence.says["shapes"],
    )  # fmt: skip
    suggests = _suggested(reading, evidence, settings)
    if (sized := with_size(config, pixels)) is not config:
        config, origins = sized, {**origins, "image": "user" if "image" in settings.preprocessing.values else "record"}
        suggests.pop("image", None)
    suggested = [name for origin in ("default", "variant") for name in unshown_from(spec, config, origins, origin)]
    must_state = _must_state(reading, suggested, origins)
    marked = ((record.assumed & recorded.keys()) - asked.keys()) | (settings.assumed & asked.keys())
    assumed = {*marked, *suggested} - set(must_state)
    contradictions = _contradictions(settings, evidence, reading.dialect, spec.immaterial(config))
    return Configuration(
        config=config,
        origins={**origins, **dict.fromkeys(assumed, "assumed")},
        suggested=suggests,
        assumed=_in_order(spec, assumed),
        marked=_in_order(spec, marked),
        must_state=_in_order(spec, must_state),
        remarks=(*evidence.remarks, *contradictions, *doubts),
        shown=evidence.says["shapes"],
        stating=evidence.stating,
        preprocessing=pixels,
        record=record,
    )


def _shown(
    path: str, reading: Reading, record: Record, asked: Mapping[str, Any], none: Collection[str]
) -> dict[str, Any]:
    """Return the fields that the arrays show; those of missing or damaged arrays come from the record and the user."""
    is_recorded = _is_of(record, reading)
    stated = {**(record.content.get("config", {}) if is_recorded else {}), **asked}
    try:
        return outvoted(reading, inferred(path, reading), stated)
    except (KeyError, IndexError) as error:
        is_guess = not is_recorded and specs.folder(reading.architecture) is None  # a page is named by the user
        return whole_config(path, reading, error, stated, is_guess, none)


def _is_of(record: Record, reading: Reading) -> bool:
    """Tell whether a record is of the architecture that its file is read as."""
    return bool(record.content.get("architecture") == reading.architecture)


def _is_file(path: str, *others: str) -> bool:
    """Tell whether a path leads to one of some files."""
    return os.path.realpath(path) in map(os.path.realpath, others)


def _admitted(record: Record, reading: Reading, shown: Mapping[str, Any], is_named: bool) -> tuple[Record, list[str]]:
    """Return a file's record, an empty one in place of one that is of another model; and remarks on it.

    A record of another model states nothing of this one: no Config, no preprocessing, no counter.

    Args:
      is_named: whether --config names it, and so takes what it says of an optimizer too.
    """
    if "architecture" in record.content and not _is_of(record, reading):
        return Record(), [f"{record.place} is of another architecture: it is ignored"]
    compared = record.change and _is_of(record, reading)
    if problem := misfit(reading.spec, record.content["config"], shown) if compared else "":
        return Record(), [f"{record.place} is of another model ({problem}): it is not used"]
    return record, record.notes(is_named)


def _recorded(record: Record, reading: Reading, shown: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields that a record states; of a file that was changed, without those that may be adapted."""
    if not _is_of(record, reading):
        return {}
    stated: dict[str, Any] = record.content["config"]
    return {k: v for k, v in stated.items() if not record.change or k not in ADAPTED or k not in shown}


def _check_values(path: str, reading: Reading, settings: Settings, evidence: Evidence) -> None:
    """Check the values that somebody states, each by itself. Raises: UsageError that names those that cannot be."""
    config, values, asked = reading.spec.config, evidence.values, evidence.says["user"]
    if problems := configs.misfits(config, values):
        wrong = {name for name, value in values.items() if configs.misfits(config, {name: value})}
        if wrong & asked.keys() and settings.file and wrong.isdisjoint(settings.chosen):
            others = _having(settings.values.keys() - settings.chosen)
            if others and reading.architecture not in others:
                what = f"{option('config', settings.file)} has fields of {', '.join(others)}"
                raise UsageError(f"{path}: {what}; the file is {reading.architecture}")
            problems.append(f"stated by {option('config', settings.file)}")
        error = _impossible(path, reading, "; ".join(problems), wrong & evidence.says["record"].keys() - asked.keys())
        error.unknown = configs.unknown_fields(config, asked)
        raise error


def _having(names: Collection[str]) -> list[str]:
    """Return the architectures whose Configs have all of these fields."""
    return [one for one in specs.names() if {f.name for f in fields(specs.get(one).config)}.issuperset(names)]


def _to_ask_for(reading: Reading, values: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the fields to ask for; () where each field without a default has a value.

    Where the user is asked at all, fields that change the outputs are asked for too, even if they have a default.
    """
    spec = reading.spec
    without = {f.name for f in fields(spec.config) if f.name not in values}
    needed = without & required(spec)
    return _in_order(spec, {*needed, *_must_state(reading, without & computing(spec), values)}) if needed else ()


def _suggested(reading: Reading, evidence: Evidence, settings: Settings) -> dict[str, str]:
    """Return what suggests the value of each field that is neither shown nor stated."""
    origins, shown = evidence.origins, evidence.says["shapes"]
    suggests = {"default": DEFAULT, "variant": OFFICIAL + evidence.variant, "dialect": DIALECT + reading.dialect}
    # which pass on what suggested their values
    earlier = {"record": evidence.record.suggested, "user": settings.suggested}
    suggested = {}
    for field in fields(reading.spec.config):
        origin = origins.get(field.name, "default")
        reason = suggests.get(origin) or earlier.get(origin, {}).get(field.name)
        if reason and (origin in suggests or field.name not in shown):
            suggested[field.name] = reason
    return suggested


def _in_order(spec: Spec, names: Iterable[str]) -> tuple[str, ...]:
    """Return fields in the order of the Config."""
    chosen = set(names)
    return tuple(f.name for f in fields(spec.config) if f.name in chosen)


def _must_state(reading: Reading, names: Iterable[str], known: Collection[str]) -> list[str]:
    """Return those of these fields that the user must state.

    In the ports' own dialects these are all. In another dialect they are the fields of which nothing but a default
    says a value: no other sign tells them from a convention that was forgotten.
    """
    return [name for name in names if reading.dialect in PORTS or name not in known]


def _impossible(path: str, reading: Reading, problem: str, recorded: Collection[str]) -> UsageError:
    remedy = ["part of it is its record's, which can be removed"] if recorded else []
    return UsageError(f"{path}: {problem} ({reading.architecture})", remedy)


def _contradictions(settings: Settings, evidence: Evidence, dialect: str, idle: Collection[str]) -> list[str]:
    """Return a line for every field in which the user contradicts the record, or the dialect's own code.

    Args:
      idle: fields that change nothing here: where a file states them, nobody needs a line.
    """
    recorded, fixed, modules = (evidence.says[origin] for origin in ("record", "dialect", "modules"))
    record, lines = evidence.record, []
    for name, value in evidence.says["user"].items():
        stated = f"{name}={exact(value)} {settings.how(name)}"
        if name in recorded and not same(recorded[name], value):
            origin = record.suggested.get(name)
            had = f"has {'by' if origin == DEFAULT else 'from the'} {origin}" if origin else "states"
            what = "only assumes" if name in record.assumed else had
            lines.append(f"{stated} and is used in place of {name}={exact(recorded[name])}, which its record {what}")
        elif name in idle and settings.of_file(name):
            continue
        elif name in fixed and name not in recorded and not same(fixed[name], value):
            agree = name in modules and same(modules[name], value)
            also = ", as the modules of the pickled model state too" if agree else ""
            lines.append(f"{stated}{also}, though {dialect}'s own code computes {name}={exact(fixed[name])}")
    return lines


def check_names(sides: Iterable[tuple[str, Reading]], settings: Settings) -> None:
    """Check settings that files may not need. Raises: UsageError where none of these (path, reading) can take them."""
    errors = []
    for path, reading in sides:
        try:
            values = _parse_settings(path, reading, settings)
            problems = configs.misfits(reading.spec.config, values)
            if not problems:
                return
            errors.append(UsageError(f"{path}: {'; '.join(problems)} ({reading.architecture})"))
        except UsageError as error:
            errors.append(error)
    raise errors[0]


def _parse_settings(path: str, reading: Reading, settings: Settings) -> dict[str, Any]:
    """Parse what the user states into Config fields: also sections of a dialect's configuration file, in capitals."""
    try:
        return in_our_terms(reading.spec, settings.values, "" if reading.dialect in PORTS else reading.dialect)
    except LookupError as error:
        what = str(error.args[0]).replace("are known:", f"are known for {reading.architecture}:")
        raise UsageError(f"{path}: {what}") from None
    except ValueError as error:
        file = option("config", settings.file) if settings.file else "its configuration file"
        raise UsageError(f"{path}: {reading.architecture}, {file}: {error}") from None

"""Determine the configuration of a checkpoint from its shapes, its record, its dialect, its variant and the user."""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Iterable, Mapping
from dataclasses import fields
from functools import lru_cache
from itertools import chain
from typing import Any, NamedTuple

from specs import config as configs
from specs.dialects import PORTS
from specs.kinds import BUFFERS
from specs.layer import Sizes
from specs.paths import fill, match, normal
from specs.preprocessing import UNKNOWN, Known
from specs.spec import Spec

from . import folding
from .conventions import computing, questionable, required, same
from .errors import ConvertError, UsageError, option
from .pixels import known as known_preprocessing
from .readings import Reading
from .recognise import Line, dialects, lines, spellings
from .record import DEFAULT, DIALECT, OFFICIAL, Record
from .settings import Settings, in_our_terms
from .unstated import open_error
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
        raise UsageError(
            f"{path}: holds a {reading.architecture}, the configuration given is of a {settings.architecture}"
        )
    known = record.content.get("architecture") == reading.architecture
    ours: dict[str, Any] = record.content.get("config", {}) if known else {}
    try:
        shown = inferred(path, reading)
    except (KeyError, IndexError) as error:
        shown = _whole_config(path, reading, error, {**ours, **asked})
    strange = "architecture" in record.content and not known
    remarks = [
        *settings.notes,
        *([f"{record.place} is of another architecture: it is ignored"] if strange else record.notes()),
    ]
    if record.change and ours:
        ours, remarks = _of_changed(spec, record, shown, remarks)
    conventions = dict(dialects(reading.architecture)[reading.dialect].conventions)
    sources = {"dialect": conventions, "shapes": shown, "record": ours, "user": asked}  # each above those before it
    stated = {name: value for source in sources.values() for name, value in source.items()}
    if problems := configs.misfits(spec.config, stated):
        wrong = {name for name, value in stated.items() if configs.misfits(spec.config, {name: value})}
        if wrong & asked.keys() and settings.file and wrong.isdisjoint(settings.chosen):
            problems.append(f"stated by {option('config', settings.file)}")
        raise _impossible(path, reading, "; ".join(problems), wrong & ours.keys() - asked.keys())
    likely, fields_of_variant = from_variant(spec, stated, sizes(reading))
    sources = {"variant": fields_of_variant, **sources}
    values = {**fields_of_variant, **stated}
    if lacking := [f.name for f in fields(spec.config) if f.name in required(spec) and f.name not in values]:
        default = {f.name for f in fields(spec.config) if f.name in computing(spec) and f.name not in values}
        names = _in_order(spec, {*lacking, *_asked_for(reading, default)})
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
    whole = record if known else Record()  # of another architecture: it says nothing of this model
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
        stated = f"{name}={value} {settings.how(name)}"
        if name in ours and not same(ours[name], value):
            origin = record.unread.get(name)
            had = f"has {'by' if origin == DEFAULT else 'from the'} {origin}" if origin else "states"
            recorded = f"{name}={ours[name]}, which its record {'only assumes' if name in record.assumed else had}"
            lines.append(f"{stated} and is used in place of {recorded}")
        elif name in fixed and name not in ours and not same(fixed[name], value):
            lines.append(f"{stated}, though {dialect}'s own code computes {name}={fixed[name]}")
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


def unshown(reading: Reading) -> set[str]:
    """Return Config fields that change what is computed and that this file's arrays do not show."""
    return computing(reading.spec) | (required(reading.spec) - inferred("", reading).keys())


def inferred(path: str, reading: Reading) -> dict[str, Any]:
    """Return the Config fields that a file's arrays determine, by the architecture's `infer`.

    Raises: KeyError, IndexError for arrays that are missing; ConvertError for any other fault, which is the page's.
    """
    try:
        return dict(_inferred(reading))
    except (KeyError, IndexError):
        raise
    except Exception as error:
        page = reading.spec.infer.__code__.co_filename if hasattr(reading.spec.infer, "__code__") else "its page"
        what = f"{page}: `infer` of {reading.architecture} cannot read these arrays"
        raise ConvertError(f"{path}: {what}: {type(error).__name__}: {error}") from None


@lru_cache(maxsize=8)  # a reading is configured many times over where it leaves fields open
def _inferred(reading: Reading) -> Mapping[str, Any]:
    return reading.spec.infer(sizes(reading))


def _whole_config(path: str, reading: Reading, error: Exception, stated: dict[str, Any]) -> dict[str, Any]:
    """Return {} if user and record state a whole Config, where an array that `infer` needs is missing.

    Raises: ConvertError that names the array.
    """
    try:
        configs.build(reading.spec.config, stated)
        return {}
    except ValueError:
        name = error.args[0] if error.args else error
        spelt = spellings(reading.architecture, reading.dialect)
        unknown = [n for n in reading.tensors if normal(n) not in spelt]
        theirs = in_their_terms(reading, str(name)) or f"{name} (in our terms)"
        problem = f"missing {theirs}, from which the configuration would follow"
        if theirs in reading.tensors:
            problem = f"{theirs} has shape {list(reading.tensors[theirs].shape)}, from which no configuration follows"
        what = f"{path}: no complete {reading.dialect} checkpoint of {reading.architecture}"
        raise ConvertError(what, [problem, *folding.unexpected(unknown)]) from None


@lru_cache(maxsize=8)
def sizes(reading: Reading) -> Sizes:
    """Return sizes of a file's arrays in the hub's terms, read off names and shapes, for the spec's `infer`."""
    read = [
        (line, found[0], tensor.shape)
        for name, tensor in reading.tensors.items()
        for line in lines(reading.architecture, reading.dialect).get(normal(name), ())
        if (found := match(line.theirs.path, name)) and len(line.axes[1]) == len(tensor.shape)
    ]
    ranks = _ranks(numbers for _, numbers, _ in read)
    axes: dict[str, dict[str, int]] = {}
    for line, numbers, shape in read:
        own = {w: n for w, n in numbers.items() if "[" not in w}
        own |= {w[w.index("[") + 1 : -1]: ranks[w].index(n) for w, n in numbers.items() if "[" in w}
        known = axes.setdefault(fill(line.ours.path, own), {})
        for axis in set(chain.from_iterable(line.axes[0])) & own.keys():
            known[axis] = max(known.get(axis, 0), own[axis] + 1)  # stacked: as many as there are names
        known.update(_lengths(line, shape, known))
    return Sizes(axes)


def _ranks(readings: Iterable[Mapping[str, int]]) -> dict[str, list[int]]:
    """Return, for each hole that indexes a list of the Config ("at[s]"), the sorted numbers in the names."""
    numbers_of: dict[str, set[int]] = {}
    for numbers in readings:
        for word, number in numbers.items():
            if "[" in word:
                numbers_of.setdefault(word, set()).add(number)
    return {word: sorted(positions) for word, positions in numbers_of.items()}


def _lengths(line: Line, shape: tuple[int, ...], known: Mapping[str, int]) -> dict[str, int]:
    """Return lengths of one array's axes: those that stand alone, and of compositions that both sides share."""
    groups = {frozenset(group): length for group, length in zip(line.axes[1], shape, strict=True)}
    alone = {**known, **{next(iter(g)): length for g, length in groups.items() if len(g) == 1}}
    for axis, group in zip(line.hub, line.axes[0], strict=True):
        if frozenset(group) in groups:
            alone[axis] = groups[frozenset(group)]
        elif len(group) == 1 and group[0] in alone:
            alone[axis] = alone[group[0]]
    return alone


def in_their_terms(reading: Reading, name: str) -> str | None:
    """Return one of our names as a file's dialect has it; None where that depends on the Config."""
    for line in chain.from_iterable(lines(reading.architecture, reading.dialect).values()):
        if found := match(line.ours.path, name):
            with contextlib.suppress(AttributeError):  # the Config's, which is not known
                return fill(line.theirs.path, found[0])
    return None


def trained(reading: Reading) -> int:
    """Count trained parameters in a file by name: running statistics and what has no known name aside."""
    known = {
        name: line.ours.label.rpartition(".")[2]
        for name in reading.tensors
        for line in lines(reading.architecture, reading.dialect).get(normal(name), ())
        if match(line.theirs.path, name)
    }
    return sum(reading.tensors[name].size for name, leaf in known.items() if leaf not in BUFFERS)

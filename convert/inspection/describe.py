"""Implement `inspect`: state what a checkpoint is, as far as its arrays show."""

from __future__ import annotations

import contextlib
import itertools
import os
import re
from argparse import Namespace
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import MISSING, fields, replace
from typing import Any, Literal, get_origin

from convert import folding
from convert.arrays import dtypes
from convert.config import module_settings
from convert.config.conventions import computing, same
from convert.config.inference import inferred, trained, unshown
from convert.config.pixels import sized
from convert.config.settings import Settings, stated_settings
from convert.config.variants import variant_names
from convert.errors import ConvertError, OpenFields, PlanError, UsageError, option, printable
from convert.files import is_pdopt, open_checkpoint
from convert.files.base import Reader
from convert.files.inside import look
from convert.plans.choosing import Request, attempt, choose
from convert.plans.plan import Plan
from convert.plans.planning import Asked, left_open, plan_read
from convert.reading.aside import as_json, by_name
from convert.reading.masters import left_beside
from convert.reading.nesting import label, training
from convert.reading.readings import Ambiguous, Names, Reading
from convert.reading.recognise import NEAR, USUAL, candidates, dialects, far, known_misfit, nearest, unknown_page
from convert.reading.spelling import out_of_modules, respelled
from convert.records.altered import WARNING
from convert.records.record import DEFAULT, DIALECT, INSIDE, Record
from convert.records.record import read as read_record
from convert.running import dumps
from convert.terminal import say, say_note
from specs import config as configs
from specs.dialects import HUB
from specs.numbers import exact
from specs.words import in_a_row

from .text import BY_TABLE, HEADS, lines, summarised_state

CHOICES = 64  # values of open fields that are tried: each is a plan
LOOK = {WARNING.strip(): "bad", "open:": "doubt", "note:": "doubt", "nearest:": "doubt"}  # labels, by their colour


def inspect(arguments: Namespace) -> int:
    """Print what a file is. Exit status 0 where it could be read, also where its architecture is unknown."""
    location = look(arguments.file, arguments.step)
    if arguments.table is not None:
        from .table_fit import inspect_by_table

        if arguments.config:
            raise UsageError(
                "--config is of an architecture known here, and --table of any other: leave one of them out"
            )
        return inspect_by_table(location.path, arguments)
    if arguments.reverse:
        raise UsageError("--reverse is of a Table: give it too, by --table FILE")
    settings = stated_settings(arguments)
    about = describe(location.path, arguments.weights, settings)
    unused = [f"--{name}" for name in ("config", "set") if getattr(arguments, name)] * (about["architecture"] is None)
    ignored = [f"{' and '.join(unused)} not used, as the file fits no architecture"] if unused else []
    about["notes"] = [*location.notes, *settings.notes, *ignored, *about["notes"]]
    if arguments.hash:
        from convert.files.hashing import sha256

        about["sha256"] = sha256(location.path)
    if arguments.json:
        print(dumps({**about, "open": str(about["open"] or "")}))
    elif arguments.quiet:
        for note in about["notes"]:
            say_note(note)
    else:
        for line in lines(about, location.path):
            _say(printable(line))
    return 0


def _say(line: str) -> None:
    """Print a line with its label in bold, or in the colour of what its user has to look at or to state."""
    label = re.match(r"[a-z][a-z0-9 ]*:", line)
    if label is None:
        heads = "soft" if line.split() == list(HEADS) else ""
        say(line, kind=heads)
    else:
        say(line, kind=LOOK.get(label[0], "head"), words=label[0], indent=14)  # below what stands beside the label


def describe(path: str, weights: str | None, settings: Settings) -> dict[str, Any]:
    """Return what a file is, as `inspect --json` does; "open" is the error for what its user has to state, or None.

    Args:
      settings: what the user states.
    Raises: ConvertError where it cannot be read, or does not fit what the user states.
    """
    with open_checkpoint(path) as opened:
        stored, record = out_of_modules(opened), read_record(opened)
        if weights and (state := _of_state(stored, weights)):
            return _whole(stored, {**state, "optimizer": record.optimizer})
        reader = respelled(stored)
        known = _known(reader, record, weights, settings)
        known["optimizer"] = record.optimizer
        known["record"] = _recorded(record) or _used(record, bool(known.get("architecture")) or is_pdopt(path))
        if known.get("architecture") or known.get("open"):
            return _whole(reader, {**known, "notes": [*known["notes"], *_optimizer_beside(stored, record, weights)]})
        known |= _of_optimizer(path, record)
        remarks = [note for note in reader.remarks if note not in stored.remarks]
        return _whole(
            stored, {**known, "notes": list(dict.fromkeys([*known.get("notes", []), *remarks]))}
        )  # names as a Table needs them


def _of_state(reader: Reader, weights: str) -> dict[str, Any]:
    """Describe the part of a file that `weights` names, if that is training state; {} for any other part."""
    from .of_state import of_state  # which imports what few files need

    return of_state(reader, weights)


def _optimizer_beside(reader: Reader, record: Record, weights: str | None) -> list[str]:
    """Say which optimizer's state lies beside the weights of a file, if its record does not say so."""
    if record.optimizer or weights or not any(map(training, reader.tensors)):
        return []
    from convert.reading import optimizers  # which few files need

    location = optimizers.find_any(reader)
    part = label(location.top) if location else ""
    state = _of_state(reader, part).get("state", {}) if part else {}
    if not state or not state["keeps"]:
        return []
    return [f"{part}: {summarised_state(state)} ({option('weights', part)} describes it)"]


def _of_optimizer(path: str, record: Record) -> dict[str, Any]:
    """Return what the record of an optimizer's own file says of its model; {} for any other file."""
    import specs

    architecture, variant = record.hints.get("architecture"), record.content.get("variant")
    if not is_pdopt(path) or record.change or architecture not in specs.names():
        return {}
    return {"architecture": architecture, "variant": variant, "dialect": record.hints.get("dialect"), "part": "/"}


def _recorded(record: Record) -> list[str]:
    """State what a record says of a file that no architecture here can: the page that it needs, or its Table."""
    if page := unknown_page(record.hints):
        return [page]
    table, source = (record.content.get(key) for key in ("table", "source"))
    if record.change or not isinstance(table, dict) or not isinstance(source, dict):
        return []
    from convert.table.file import doubts

    left, right, file = (str(table.get(key, "unknown"))[:80] for key in ("from", "to", "file"))
    line = f"{BY_TABLE} ({left} to {right}, {file}), from {str(source.get('file', 'unknown'))[:80]}"
    return [line, *doubts(record.content)]


def _used(record: Record, known: bool) -> list[str]:
    """Name the record of a file of a known architecture, or of an optimizer alone, and the file that was converted."""
    if not known or not record.content or record.change:
        return []
    source = record.content.get("source")
    file = source.get("file") if isinstance(source, dict) else None
    place = "in the file" if record.place == INSIDE else os.path.basename(record.place)
    return [f"{place}{f', written from {str(file)[:80]}' if file else ''}"]


def _known(reader: Reader, record: Record, weights: str | None, settings: Settings) -> dict[str, Any]:
    """Return what can be said of a file: its model, if every array fits one, or why none fits.

    Args:
      reader: of the file, under the names by which arrays are recognised.
    """
    request = Request(reader, record, settings, HUB, None)
    try:
        plan = plan_read(reader, Asked(settings=settings, weights=weights, assume=True), record)
    except Ambiguous as error:
        if _recorded(record):  # which says what the file is as a whole
            return _unknown(request, error, weights)
        return {"open": error, "notes": list(reader.remarks), **_beside(reader)}
    except UsageError as error:
        if settings.values and not isinstance(error, OpenFields):
            raise
        return _open(request, error, weights)
    except ConvertError as error:
        if weights is not None and not Names(reader.tensors, weights).forms:
            raise  # nothing lies there
        return _unknown(request, error, weights)
    still_open = left_open(plan)
    return _fitting(replace(plan, accepted=())) | ({"open": still_open} if still_open else {})


def _whole(reader: Reader, known: dict[str, Any]) -> dict[str, Any]:
    """Return everything about a file in the order of printing, with what every file shows."""
    tensors = {t.name: {"shape": list(t.shape), "dtype": t.dtype} for t in reader.tensors.values()}
    about: dict[str, Any] = {
        "record": [], "format": reader.format, "dialect": None, "architecture": None, "variant": None, "part": None,
        "nearest": None, "config": {}, "origins": {}, "preprocessing": {}, "open": None, "assumed": [], "notes": [],
        "aside": [], "state": {}, "optimizer": {}, "statistics": 0, "masks": 0, "buffers": 0, "named": True,
    }  # fmt: skip
    about["skipped"] = folding.skipped(reader.skipped)
    every = reader.tensors.values()
    about |= {"parameters": sum(t.size for t in every), "dtype": dtypes.listed(every)} | known
    about["notes"] = [*about["notes"], *left_beside(reader)]
    return {**about, "tensors": tensors}


def _fitting(plan: Plan) -> dict[str, Any]:
    """Return what is known of a file whose arrays fit completely."""
    must_state, shown = plan.configuration.must_state, plan.configuration.shown
    config = {name: value for name, value in configs.as_dict(plan.config).items() if name not in must_state}
    config |= {name: shown[name] for name, value in config.items() if value is None and name in shown}  # as tokens
    about: dict[str, Any] = {"dialect": plan.src, "architecture": plan.architecture}
    about["variant"] = variant_names(plan.architecture, plan.config, must_state)
    about |= {"part": plan.reading.prefix or "/", "config": config, "assumed": list(plan.assumed)}
    about |= {"origins": {name: origin for name, origin in plan.suggested.items() if name in config}}
    known = shown.keys() | (computing(plan.reading.spec) - plan.suggested.keys())
    about["origins"] |= {name: DEFAULT for name, value in config.items() if value is None and name not in known}
    about["preprocessing"] = sized(plan.preprocessing, plan.config, plan.suggested).as_json()
    notes = [*plan.part(), *plan.of_modules(), *plan.doubts(), *plan.unlike_its_code()]
    return about | {
        "parameters": plan.parameters,
        "dtype": dtypes.listed(plan.sources.values()),
        "notes": notes,
        "aside": as_json(plan.aside),
        "skipped": plan.skipped(),
    }


def _open(request: Request, error: UsageError, weights: str | None) -> dict[str, Any]:
    """Describe a file of which the user has to say more: Config fields, or its dialect.

    Its architecture is stated only if some Config of that architecture makes every array fit.
    """
    fitting: list[tuple[Reading, Plan]] = []
    for group in candidates(request.reader, None, request.record.hints, weights):
        readings = group if isinstance(group, list) else []
        fitting = [(reading, plan) for reading in readings if (plan := _completed(request, reading))]
        if fitting:
            break
    if len({reading.architecture for reading, _ in fitting}) != 1:
        if isinstance(error, OpenFields) and (unfit := _unfit(request, error, weights)):
            return _unknown(request, unfit, weights)
        return {**_unknown(request, error, weights), "open": error}
    reading, plan = fitting[0]
    modules = _of_modules(request, reading)
    says = {reading.dialect: _inferred(reading, modules) for reading, _ in fitting}
    agreed = {name: value for name, value in says[reading.dialect].items() if _agree(name, says.values())}
    about: dict[str, Any] = {"architecture": reading.architecture, "part": reading.prefix or "/", "open": error}
    about |= {"dialect": reading.dialect if len(says) == 1 else None, "config": agreed}
    fixed = dialects(reading.architecture)[reading.dialect].conventions
    by = f"{DIALECT if len(says) == 1 else 'dialects '}{in_a_row(says)}"
    about["origins"] = {name: by for name in fixed if name in agreed and name not in modules}
    defaults = _defaults(plan, says.values())
    values = agreed | defaults
    about["config"] = {f.name: configs.lists(values[f.name]) for f in fields(plan.config) if f.name in values}
    about["origins"] |= dict.fromkeys(defaults, DEFAULT)
    notes = [*plan.part(), *_apart(says, agreed)]
    return about | {"parameters": trained(reading), "notes": notes, "aside": as_json(plan.aside)}


def _defaults(plan: Plan, says: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the defaults of fields of which no dialect says anything and that change no outputs, as dropout."""
    spec = plan.reading.spec
    named = {name for config in says for name in config} | (computing(spec) - spec.immaterial(plan.config))
    config = configs.as_dict(plan.config)
    return {f.name: config[f.name] for f in fields(spec.config) if f.name not in named and f.default is not MISSING}


def _agree(name: str, says: Collection[Mapping[str, Any]]) -> bool:
    """Tell whether all of several Configs state the same of a field."""
    values = [config[name] for config in says if name in config]
    return len(values) == len(says) and all(same(value, values[0]) for value in values)


def _apart(says: Mapping[str, Mapping[str, Any]], agreed: Mapping[str, Any]) -> Iterator[str]:
    """Name the values of each field of which the dialects in question state different things."""
    for name in dict.fromkeys(name for config in says.values() for name in config if name not in agreed):
        values = [
            f"{exact(c[name])} as {dialect}" if name in c else f"open as {dialect}" for dialect, c in says.items()
        ]
        yield f"{name} depends on the dialect: {in_a_row(values)}"


def _completed(request: Request, reading: Reading) -> Plan | None:
    """Plan a reading with whatever it leaves open taken from an official variant or a tiny twin; None if none fits."""
    with contextlib.suppress(KeyError, IndexError, ConvertError):  # of arrays that are missing
        names, own = unshown(reading), _of_modules(request, reading)
        examples = [*reading.spec.variants.values(), *reading.spec.tiny.values()]
        choices = [{}, *({n: getattr(example, n) for n in sorted(names)} for example in examples)]
        for choice in choices:
            trial = attempt(
                request._replace(settings=Settings.of({**choice, **own, **request.settings.values})), reading
            )
            if isinstance(trial, Plan):
                return trial
    return None


def _unfit(request: Request, error: OpenFields, weights: str | None) -> PlanError | None:
    """Return what does not fit whichever values the open fields have; None if one fits, or has no list of values."""
    group = next(candidates(request.reader, None, request.record.hints, weights))
    if not isinstance(group, list) or group[0].architecture != error.architecture:
        return None
    hints = configs.types_of(group[0].spec.config)
    if any(get_origin(hints[name]) is not Literal for name in error.fields):
        return None
    errors = list[PlanError]()
    for values in itertools.product(*(error.choices[name] for name in error.fields)):
        choice = {**dict(zip(error.fields, values, strict=True)), **request.settings.values}
        trial = attempt(request._replace(settings=Settings.of(choice)), group[0])
        if isinstance(trial, Plan) or not isinstance(trial.error, PlanError) or len(errors) == CHOICES:
            return None
        errors.append(trial.error)
    common = [p for p in errors[0].problems if all(p in one.problems for one in errors)]
    return PlanError(errors[0].message, common) if common else None


def _of_modules(request: Request, reading: Reading) -> dict[str, Any]:
    """Return Config fields that the modules of a model that was pickled whole state. Raises: ConvertError."""
    stated = module_settings.stated(request.reader.path, reading, request.reader.modules)
    return {name: one.value for name, one in stated.items()}


def _inferred(reading: Reading, modules: Mapping[str, Any]) -> dict[str, Any]:
    """Return Config fields that the arrays, the dialect or the modules of a pickled model determine."""
    config = dict(dialects(reading.architecture)[reading.dialect].conventions)
    with contextlib.suppress(KeyError, IndexError, ConvertError):  # of arrays that are missing
        config = inferred("", reading) | config
    return {**config, **modules}


def _unknown(request: Request, error: ConvertError, weights: str | None) -> dict[str, Any]:
    """Describe a file that fits no architecture: which comes nearest, and why it does not fit.

    None is near where the record says what the file is.
    """
    reader, record = request.reader, request.record
    if _recorded(record):
        number = record.content.get("parameters")
        alone = is_pdopt(reader.path)  # the optimizer: its record counts the parameters of the model
        known = isinstance(number, int) and not alone
        counted = {"parameters": number} if known else {}  # those that are tied once
        return {
            "notes": [*reader.remarks, *record.notes(), *record.earlier(reader.tensors)],
            **_beside(reader),
        } | counted
    from convert.files.sharded import remedy
    from convert.reading.parametrized import parametrized

    if part := remedy(reader.path):
        return {"notes": [*reader.remarks, part], **_beside(reader)}
    asked = isinstance(error, OpenFields)
    message = error.message.removeprefix(f"{reader.path}: ")
    reasons = error.problems if isinstance(error, PlanError) else [message, *error.problems]
    if isinstance(error, OpenFields):
        reasons = [f"that depends on {in_a_row(error.fields)}: no official variant has these arrays"]
    group = next(candidates(reader, None, record.hints, weights))
    if isinstance(group, list):
        rejected = choose(request, candidates(reader, None, record.hints, weights)).rejected
        reading: Reading | None = rejected[0].reading if rejected and isinstance(error, PlanError) else group[0]
    else:
        reading, asked = nearest(reader, weights), False
        parts = parametrized(reader.tensors, USUAL.get(reader.format))
        why = [*filter(None, [parts]), *([message] if known_misfit(reader) is not None else [])]
        if reading and reading.score < NEAR:
            return {"notes": [*reader.remarks, *why, far(reader, weights)], **_beside(reader)}
        if reading:
            size = len(reading.tensors)
            share = f"{reading.architecture} has {round(reading.score * size)} of the file's {size} names"
            reasons = [f"{share}{f' under {reading.prefix!r}' if reading.prefix else ''}", *why]
    if reading is None:
        return {"notes": [*reader.remarks, reasons[0]], **_beside(reader)}
    near = {"architecture": reading.architecture, "dialect": reading.dialect, "part": reading.prefix or "/"}
    return {"nearest": {**near, "open": asked, "reasons": reasons}, "notes": [*reader.remarks], **_beside(reader)}


def _beside(reader: Reader) -> dict[str, Any]:
    """Describe what a file contains beside a model, as far as names alone show; the rest is its parameters."""
    from convert.reading.counting import counted

    own = {name: tensor for name, tensor in reader.tensors.items() if name not in reader.shared}
    return {"aside": as_json(by_name(reader.tensors)), **counted(own)}

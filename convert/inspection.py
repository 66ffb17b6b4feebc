"""Implement `inspect`: state what a checkpoint is, as far as its arrays show."""

from __future__ import annotations

import contextlib
from argparse import Namespace
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from specs import config as configs
from specs.dialects import HUB

from . import folding
from .aside import as_json, by_name
from .choosing import Request, attempt
from .configure import inferred, trained, unshown
from .errors import ConvertError, OpenFields, UsageError, printable
from .files import open_checkpoint
from .files.base import Reader
from .files.inside import look
from .folding import fold
from .parametrized import parametrized
from .planning import plan_read
from .plans import Plan
from .program import dumps
from .readings import Ambiguous, Names, Reading, normal
from .recognise import USUAL, candidates, dialects, nearest
from .record import read as read_record
from .settings import Settings
from .spelling import respelled
from .terminal import say

REASONS = 5  # printed of why the nearest architecture does not fit


def inspect(arguments: Namespace) -> int:
    """Print what a file is. Exit status 0 where it could be read, also where its architecture is unknown."""
    found = look(arguments.file, arguments.step)
    about = describe(found.path, arguments.weights)
    about["notes"] = [*found.notes, *about["notes"]]
    if arguments.hash:
        from .files.hashing import sha256

        about["sha256"] = sha256(found.path)
    if arguments.json:
        print(dumps(about))
    else:
        for line in _lines(about):
            say(printable(line), indent=2 if line.startswith(" ") else 14)  # below what stands beside the label
    return 0


def _lines(about: dict[str, Any]) -> Iterator[str]:
    """The description as text: names with numbers folded."""
    for key in ("format", "dialect", "architecture", "variant", "part", "parameters", "dtype", "sha256"):
        if key in about:
            yield f"{key + ':':14}{about[key] if about[key] is not None else 'unknown'}"
    if near := about["nearest"]:
        yield f"{'':14}a {about['format']} file of an unknown architecture"
        yield f"{'nearest:':14}{near['architecture']} ({near['dialect']}), which does not fit:"
        yield from (f"  - {reason}" for reason in near["reasons"][:REASONS])
        if more := len(near["reasons"][REASONS:]):
            yield f"  - and {more} more reasons"
    if about["config"]:
        yield f"{'config:':14}{' '.join(f'{k}={v}' for k, v in about['config'].items())}"
    if known := dict(about["preprocessing"]):
        assumed = known.pop("assumed")
        yield f"{'pixels:':14}{' '.join(f'{k}={v}' for k, v in known.items())}"
        yield from ([f"{'':14}assumed: {' '.join(assumed)}"] if assumed else [])
    if about["open"]:
        yield from f"{'open:':14}{about['open']}".split("\n")
    yield from (f"{'note:':14}{note}" for note in about["notes"])
    groups: dict[tuple[str, str], list[str]] = {}
    for name, tensor in about["tensors"].items():
        groups.setdefault((normal(name), f"{tensor['dtype']} {tensor['shape']}"), []).append(name)
    yield f"{'tensors:':14}{len(about['tensors'])}"
    yield from (f"  {name}  {what}" for (_, what), names in groups.items() for name in fold(names))
    if about["aside"]:
        yield f"{'set aside:':14}{sum(entry['arrays'] for entry in about['aside'])} of these"
    for entry in about["aside"]:
        yield f"  {entry['name']}  {entry['detail'] or entry['arrays']}  ({entry['reason']})"
    yield from (f"{'set aside:':14}{line}" for line in about["skipped"])


def describe(path: str, weights: str | None = None) -> dict[str, Any]:
    """What a file is; see `inspect --json`. Raises: ConvertError where it cannot be read."""
    with open_checkpoint(path) as stored:
        reader = respelled(stored)
        known = _known(reader, weights)
        if known.get("architecture") or known.get("open"):
            return _whole(reader, known)
        remarks = [note for note in reader.remarks if note not in stored.remarks]
        return _whole(stored, {**known, "notes": [*known.get("notes", []), *remarks]})  # names as a Table needs them


def _known(reader: Reader, weights: str | None) -> dict[str, Any]:
    """What can be said of a file: its model, if every array fits one, or why none fits.

    Args:
      reader: of the file, under the names by which arrays are recognised.
    """
    try:
        return _fitting(plan_read(reader, weights=weights))
    except Ambiguous as error:
        return {"open": str(error), "notes": list(reader.remarks), **_beside(reader)}
    except OpenFields as error:
        with contextlib.suppress(ConvertError):
            plan = replace(plan_read(reader, weights=weights, assume=True), accepted=())
            return {**_fitting(plan), "open": str(error)}
        return _open(reader, error, weights)
    except UsageError as error:
        return _open(reader, error, weights)
    except ConvertError as error:
        if weights is not None and not Names(reader.tensors, weights).forms:
            raise  # nothing lies there
        return _unknown(reader, error, weights)


def _whole(reader: Reader, known: dict[str, Any]) -> dict[str, Any]:
    """Everything about a file in the order of printing, with what every file shows."""
    tensors = {t.name: {"shape": list(t.shape), "dtype": t.dtype} for t in reader.tensors.values()}
    about: dict[str, Any] = {"format": reader.format, "dialect": None, "architecture": None, "variant": None}
    about |= {
        "part": None,
        "nearest": None,
        "config": {},
        "preprocessing": {},
        "open": "",
        "assumed": [],
        "notes": [],
        "aside": [],
    }
    about["skipped"] = folding.skipped(reader.skipped)
    about |= {"parameters": sum(t.size for t in reader.tensors.values())} | known
    return {**about, "dtype": ", ".join(sorted({t.dtype for t in reader.tensors.values()})), "tensors": tensors}


def _fitting(plan: Plan) -> dict[str, Any]:
    """What is known of a file whose arrays fit completely."""
    unstated = plan.configuration.unstated
    config = {name: value for name, value in configs.as_dict(plan.config).items() if name not in unstated}
    about: dict[str, Any] = {"dialect": plan.src, "architecture": plan.architecture, "variant": plan.variant}
    about |= {"part": plan.reading.prefix or "/", "config": config, "preprocessing": plan.preprocessing.as_json()}
    about |= {"assumed": list(plan.assumed)}
    notes = [*plan.part(), *plan.doubts()]
    return about | {
        "parameters": plan.parameters,
        "notes": notes,
        "aside": as_json(plan.aside),
        "skipped": plan.skipped(),
    }


def _open(reader: Reader, error: UsageError, weights: str | None) -> dict[str, Any]:
    """Describe a file of which the user has to say more: Config fields, or its dialect.

    Its architecture is stated only if some Config of that architecture makes every array fit.
    """
    fitting: list[tuple[Reading, Plan]] = []
    request = Request(reader, read_record(reader), Settings.of(None), HUB, None)
    for group in candidates(reader, None, request.record.hints, weights):
        readings = group if isinstance(group, list) else []
        fitting = [(reading, plan) for reading in readings if (plan := _completed(request, reading))]
        if fitting:
            break
    if len({reading.architecture for reading, _ in fitting}) != 1:
        return {**_unknown(reader, error, weights), "open": str(error)}
    reading, plan = fitting[0]
    about: dict[str, Any] = {"architecture": reading.architecture, "part": reading.prefix or "/", "open": str(error)}
    about |= {"dialect": reading.dialect if len(fitting) == 1 else None, "config": _inferred(reading)}
    return about | {"parameters": trained(reading), "notes": plan.part(), "aside": as_json(plan.aside)}


def _completed(request: Request, reading: Reading) -> Plan | None:
    """Plan a reading with whatever it leaves open taken from an official variant or a tiny twin; None if none fits."""
    with contextlib.suppress(KeyError, IndexError, ConvertError):  # of arrays that are missing
        names = unshown(reading)
        examples = [*reading.spec.variants.values(), *reading.spec.tiny.values()]
        choices = [{}, *({n: getattr(example, n) for n in sorted(names)} for example in examples)]
        for choice in choices:
            trial = attempt(request._replace(settings=Settings.of(choice)), reading)
            if isinstance(trial, Plan):
                return trial
    return None


def _inferred(reading: Reading) -> dict[str, Any]:
    """Config fields that the arrays or the dialect determine."""
    config = dict(dialects(reading.architecture)[reading.dialect].conventions)
    with contextlib.suppress(KeyError, IndexError, ConvertError):  # of arrays that are missing
        config = inferred("", reading) | config
    return config


def _unknown(reader: Reader, error: ConvertError, weights: str | None) -> dict[str, Any]:
    """Of a file that fits no architecture: which comes nearest, and why it does not fit."""
    reasons = [error.message.removeprefix(f"{reader.path}: "), *error.problems]
    group = next(candidates(reader, None, read_record(reader).hints, weights))
    if isinstance(group, list):
        reading: Reading | None = group[0]
    else:
        reading = nearest(reader, weights)
        if reading:
            share = f"it knows {round(reading.score * len(reading.tensors))} of {len(reading.tensors)} names"
            parts = parametrized(reader.tensors, USUAL.get(reader.format))
            reasons = [f"{share}{f' under {reading.prefix!r}' if reading.prefix else ''}", *filter(None, [parts])]
    if reading is None:
        return {"notes": [*reader.remarks, reasons[0]], **_beside(reader)}
    near = {"architecture": reading.architecture, "dialect": reading.dialect, "part": reading.prefix or "/"}
    return {"nearest": {**near, "reasons": reasons}, "notes": [*reader.remarks], **_beside(reader)}


def _beside(reader: Reader) -> dict[str, Any]:
    """Describe what a file contains beside a model, as far as names alone show; the rest is its parameters."""
    aside = by_name(reader.tensors)
    every = sum(tensor.size for tensor in reader.tensors.values())
    return {"aside": as_json(aside), "parameters": every - sum(entry.elements for entry in aside)}

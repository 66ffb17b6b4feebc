"""`inspect`: what a checkpoint is, as far as it tells."""

from __future__ import annotations

import contextlib
import json
from argparse import Namespace
from dataclasses import replace
from typing import Any

from specs import config as configs

from . import report
from .errors import ConvertError, OpenFields, printable
from .formats import open_checkpoint
from .formats.base import Reader
from .inference import sizes, trained
from .manifest import read as read_record
from .planning import plan_read
from .recognise import dialects, normal, recognise
from .report import fold


def inspect(arguments: Namespace) -> int:
    """Print what a file is."""
    about = describe(arguments.file)
    if arguments.hash:
        from .hashing import sha256

        about["sha256"] = sha256(arguments.file)
    if arguments.json:
        print(json.dumps(about, indent=1))
        return 0
    tensors = about.pop("tensors")
    config, opened, notes = about.pop("config"), about.pop("open"), about.pop("notes")
    skipped = about.pop("skipped")
    about.pop("assumed")  # a note says so
    for key, value in about.items():
        print(printable(f"{key + ':':14}{value if value is not None else 'unknown'}"))
    print(printable(f"{'config:':14}{' '.join(f'{k}={v}' for k, v in config.items())}"))
    if opened:
        print(f"{'open:':14}{opened}")
    for note in [*notes, *(f"set aside, {line}" for line in skipped)]:
        print(printable(f"{'note:':14}{note}"))
    groups: dict[tuple[str, str], list[str]] = {}
    for name, tensor in tensors.items():
        groups.setdefault((normal(name), f"{tensor['dtype']} {tensor['shape']}"), []).append(name)
    print(f"{'tensors:':14}{len(tensors)}")
    for (_, what), names in groups.items():
        for name in fold(names):
            print(printable(f"  {name}  {what}"))
    return 0


def describe(path: str) -> dict[str, Any]:
    """What a file is, as far as it tells; see `inspect --json`."""
    with open_checkpoint(path) as reader:
        opened = ""
        try:
            made = plan_read(reader)
        except OpenFields as error:
            try:
                made, opened = replace(plan_read(reader, assume=True), accepted=()), str(error)
            except ConvertError:
                return _whole(reader, _partly(reader, error))
        except ConvertError as error:
            return _whole(reader, _partly(reader, error))
        config = configs.as_dict(made.config)
        stated = {name: value for name, value in config.items() if name not in made.configuration.unstated}
        known: dict[str, Any] = {"dialect": made.src, "architecture": made.architecture, "variant": made.variant}
        known |= {"config": stated, "open": opened, "assumed": list(made.assumed)}
        return _whole(reader, known | {"parameters": made.parameters, "notes": made.notes(), "skipped": made.skipped()})


def _whole(reader: Reader, known: dict[str, Any]) -> dict[str, Any]:
    """What is known of a file in the order it is told, with what every file tells."""
    tensors = {t.name: {"shape": list(t.shape), "dtype": t.dtype} for t in reader.tensors.values()}
    about: dict[str, Any] = {"format": reader.format, "dialect": None, "architecture": None, "variant": None}
    about |= {
        "config": {},
        "open": "",
        "assumed": [],
        "notes": [],
        "skipped": report.skipped(reader.skipped),
        "parameters": sum(t.size for t in reader.tensors.values()),
    } | known
    return {**about, "dtype": ", ".join(sorted({t.dtype for t in reader.tensors.values()})), "tensors": tensors}


def _partly(reader: Reader, error: ConvertError) -> dict[str, Any]:
    """Of a file that makes no whole plan: what it is, and why not."""
    try:
        match = next(recognise(reader, None, read_record(reader).hints))[0]
    except (ConvertError, IndexError):
        return {"open": str(error)}
    config = dict(dialects(match.architecture)[match.dialect].conventions)
    with contextlib.suppress(KeyError, IndexError):  # of arrays that are missing
        config = match.spec.infer(sizes(match)) | config
    about = {"dialect": match.dialect, "architecture": match.architecture, "config": config, "open": str(error)}
    return {**about, "parameters": trained(match)}

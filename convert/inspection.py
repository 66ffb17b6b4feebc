"""`inspect`: what a checkpoint is, as far as it tells."""

from __future__ import annotations

import json
from argparse import Namespace
from typing import Any

from specs import config as configs

from .errors import ConvertError
from .formats import open_checkpoint
from .inference import sizes, trained
from .manifest import read as read_hints
from .manifest import sha256
from .planning import plan
from .recognise import dialects, normal, recognise


def inspect(arguments: Namespace) -> int:
    """Print what a file is."""
    about = describe(arguments.file)
    if arguments.hash:
        about["sha256"] = sha256(arguments.file)
    if arguments.json:
        print(json.dumps(about, indent=1))
        return 0
    tensors = about.pop("tensors")
    config, opened = about.pop("config"), about.pop("open")
    for key, value in about.items():
        print(f"{key + ':':14}{value if value is not None else 'unknown'}")
    print(f"{'config:':14}{' '.join(f'{k}={v}' for k, v in config.items())}")
    if opened:
        print(f"{'open:':14}{opened}")
    groups: dict[tuple[str, str], list[str]] = {}
    for name, tensor in tensors.items():
        groups.setdefault((normal(name), f"{tensor['dtype']} {tensor['shape']}"), []).append(name)
    print(f"{'tensors:':14}{len(tensors)}")
    for (_, what), names in groups.items():
        print(f"  {names[0]}  {what}" + (f"  x{len(names)}" if len(names) > 1 else ""))
    return 0


def describe(path: str) -> dict[str, Any]:
    """What a file is, as far as it tells; see `inspect --json`."""
    with open_checkpoint(path) as reader:
        tensors = {t.name: {"shape": list(t.shape), "dtype": t.dtype} for t in reader.tensors.values()}
        size = sum(t.size for t in reader.tensors.values())
        about: dict[str, Any] = {"format": reader.format, "dialect": None, "architecture": None, "variant": None}
    about |= {"config": {}, "open": "", "parameters": size}
    try:
        with plan(path) as made:
            about |= {"dialect": made.src, "architecture": made.architecture, "variant": made.variant}
            about |= {"config": configs.as_dict(made.config), "parameters": made.parameters}
    except ConvertError as error:
        about |= _partly(path, error)
    about["dtype"] = ", ".join(sorted({str(t["dtype"]) for t in tensors.values()}))
    return {**about, "tensors": tensors}


def _partly(path: str, error: ConvertError) -> dict[str, Any]:
    """Of a file that makes no whole plan: what it is, and why not."""
    with open_checkpoint(path) as reader:
        try:
            match = recognise(reader, None, read_hints(reader))
            config = match.spec.infer(sizes(match)) | dict(dialects(match.architecture)[match.dialect].conventions)
        except (ConvertError, KeyError, IndexError):
            return {"open": str(error)}
        about = {"dialect": match.dialect, "architecture": match.architecture, "config": config, "open": str(error)}
        return {**about, "parameters": trained(match)}

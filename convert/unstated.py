"""Config fields that change what a network computes and that no array shows: who states them, and what to do if nobody.

A dialect's own code fixes some of them, a record all. A bare state dict of one of the ports states none.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import MISSING, fields
from typing import Any

from specs import config as configs
from specs.spec import Spec

from . import manifest
from .errors import ConvertError, OpenFields
from .files import folder_format

CANDIDATES = 50  # entries of a folder that are looked into for a record
SUGGESTED = 3  # records that an error names


def computing(spec: Spec) -> set[str]:
    """Config fields that change what is computed and that no array shows: fixed by dialects, or left open."""
    fixed = {name for dialect in spec.dialects.values() for name in dialect.conventions}
    return fixed | spec.unshown


def required(spec: Spec) -> set[str]:
    """Config fields without a default."""
    return {f.name for f in fields(spec.config) if f.default is MISSING}


def questionable(spec: Spec, config: Any, origins: Mapping[str, str], origin: str) -> list[str]:
    """Fields of that origin that change what this network computes and that arrays do not show."""
    names = (computing(spec) | required(spec)) - spec.immaterial(config)
    return [f.name for f in fields(spec.config) if f.name in names and origins.get(f.name, "default") == origin]


def unsettled(spec: Spec, variant: str | None, config: Any, names: Iterable[str]) -> list[str]:
    """Those of these fields in which files of an official variant differ, by the dialect that they come from."""
    tables = [d.conventions for d in spec.dialects.values() if d.variants is None or variant in d.variants]
    return [name for name in names if not all(same(t.get(name, v := getattr(config, name)), v) for t in tables)]


def same(one: Any, other: Any) -> bool:
    """Whether two values of a field mean the same; numbers that round to the same float32 do: paddle stores them so."""

    def rounded(value: Any) -> Any:
        if isinstance(value, list | tuple):
            return tuple(map(rounded, value))
        return configs.single(value) if isinstance(value, float) and abs(value) < configs.MAX_FLOAT else value

    return bool(rounded(one) == rounded(other))


def open_error(
    path: str,
    architecture: str,
    spec: Spec,
    names: Iterable[str],
    defaults: Mapping[str, Any],
    held: Mapping[str, Any],
    remarks: Iterable[str],
) -> OpenFields:
    """The error for fields that nobody states, with every remedy.

    Args:
      defaults: what --assume would take, of those that have a default.
      held: Config fields that the file's arrays show.
      remarks: why a record that is there does not help.
    """
    names = list(names)
    hints = configs.types_of(spec.config)
    stated = "; ".join(f"{name} is open: set it ({configs.describe(hints[name])})" for name in names)
    settings = " ".join(f"--set {name}=..." for name in names)
    problems = [f"set it with --set NAME=VALUE or in a --config FILE: {settings}"]
    if near := records_near(path, architecture, spec, held):
        problems.append(f"or take it from the record of a checkpoint: {' or '.join(f'--config {p}' for p in near)}")
    if defaults.keys() >= set(names):
        chosen = ", ".join(f"{name}={defaults[name]}" for name in names)
        problems.append(f"or accept, as a guess that the record marks as one, {chosen}: --assume")
    what = f"{path}: {architecture}: {stated}: neither the file nor a record says so, and the outputs depend on it"
    return OpenFields(what, names, [*remarks, *problems])


def records_near(path: str, architecture: str, spec: Spec, held: Mapping[str, Any]) -> list[str]:
    """Checkpoints and .json files in the folder of a file whose record fits its arrays; guesses come last."""
    folder = os.path.dirname(path.rstrip(os.sep))
    try:
        entries = sorted(os.listdir(folder or "."))
    except OSError:
        return []
    fitting: dict[str, bool] = {}
    candidates = [e for e in entries if e.endswith((".json", ".safetensors")) or folder_format(os.path.join(folder, e))]
    for name in (os.path.join(folder, entry) for entry in candidates[:CANDIDATES]):
        try:
            record = manifest.at(name) if name != path else manifest.Record()
        except ConvertError:
            continue
        if record.content.get("architecture") == architecture and not misfit(spec, record.content["config"], held):
            fitting[name] = bool(record.assumed or record.damage)
    return sorted(fitting, key=fitting.__getitem__)[:SUGGESTED]


def misfit(spec: Spec, recorded: Mapping[str, Any], held: Mapping[str, Any]) -> str:
    """How a recorded Config is of other arrays than a file's, classes and input channels aside; "" if it fits."""
    from .configure import clashes

    own = {name: value for name, value in recorded.items() if name not in ("classes", "channels")}
    try:
        config = configs.build(spec.config, {**held, **own})
    except ValueError as error:
        return str(error)
    return "; ".join(clashes(spec, config, own, dict(held), "is recorded"))

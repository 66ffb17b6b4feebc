"""The record that travels with a converted file: what it is, where it came from, and a hash of every tensor."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from specs.config import as_dict

from . import __version__
from .formats import bounded_json
from .formats.base import MAX_RECORD, Reader, Tensor, record_at

if TYPE_CHECKING:
    from .planning import Plan

KEY = "triptych"  # of the record in safetensors metadata; beside other formats it is FILE.json


def describe(plan: Plan) -> dict[str, Any]:
    """The record, but for what is known only once the tensors are written."""
    counts = {name: plan.sources[held] for name, held in plan.carried.items()}
    return {
        "architecture": plan.architecture,
        "variant": plan.variant,
        "dialect": plan.dst,
        "config": as_dict(plan.config),
        "parameters": plan.parameters,
        "source": {
            "file": os.path.basename(os.path.abspath(plan.reader.path)),
            "sha256": None,  # see hashing.Source
            "dialect": plan.src,
            "format": plan.reader.format,
        },
        "carried": {
            name: int.from_bytes(plan.reader.read(held.name), "little", signed=True)
            for name, held in counts.items()
            if held.dtype in ("int64", "int32")
        },
        "tool": f"triptych-ports {__version__}",
    }


def read(reader: Reader) -> dict[str, Any]:
    """A file's record, inside it or in the .json beside it; {} where there is none or it is not this file's."""
    if text := reader.metadata.get(KEY, ""):
        return _parsed(text) if len(text) <= MAX_RECORD else {}
    beside = reader.path + ".json"
    if os.path.isdir(reader.path) or not (text := record_at(beside)):
        return {}
    from .hashing import identity

    found = _parsed(text)
    same = found and all(found.get(key) == value for key, value in identity(reader.path).items())
    return found if same else {}


def _parsed(text: str) -> dict[str, Any]:
    try:
        found = bounded_json.loads(text)
    except ValueError:
        return {}
    kinds = {"architecture": str, "dialect": str, "config": dict, "carried": dict, "tensors": dict}
    fits = isinstance(found, dict) and all(isinstance(found.get(key, kind()), kind) for key, kind in kinds.items())
    return found if fits and all(map(_is_line, found.get("tensors", {}).values())) else {}


def _is_line(line: Any) -> bool:
    return isinstance(line, dict) and isinstance(line.get("shape"), list) and isinstance(line.get("dtype"), str)


def blank(about: dict[str, Any], tensors: list[Tensor], hashed: bool) -> dict[str, Any]:
    """The record as long as it will be, before any payload is known."""
    from .hashing import NO_HASH, NO_SHA256, described

    lines = {tensor.name: described(tensor, NO_HASH if hashed else None) for tensor in tensors}
    return {**about, "source": {**about["source"], "sha256": NO_SHA256 if hashed else None}, "tensors": lines}

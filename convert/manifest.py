"""The record that travels with a converted file: what it is, where it came from, and a hash of every tensor."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

from specs.config import as_dict

from .errors import ConvertError
from .formats import open_checkpoint
from .formats.base import Reader, Tensor

if TYPE_CHECKING:
    from .planning import Plan

PIECE = 1 << 17  # bytes a read
KEY = "triptych"  # of the record in safetensors metadata; beside other formats it is FILE.json
MAX_RECORD = 1 << 26  # bytes of a .json beside a checkpoint


def describe(plan: Plan) -> dict[str, Any]:
    """The record, but for what is known only once the tensors are written."""
    counts = {name: plan.reader.read(plan.sources[held].name) for name, held in plan.carried.items()}
    return {
        "architecture": plan.architecture,
        "variant": plan.variant,
        "dialect": plan.dst,
        "config": as_dict(plan.config),
        "parameters": plan.parameters,
        "source": {
            "file": os.path.basename(plan.reader.path),
            "sha256": sha256(plan.reader.path),
            "dialect": plan.src,
            "format": plan.reader.format,
        },
        "carried": {name: int.from_bytes(data, "little", signed=True) for name, data in counts.items()},
        "tool": f"triptych-ports {version()}",
    }


def read(reader: Reader) -> dict[str, Any]:
    """A file's record, inside it or in the .json beside it; {} where there is none or it is not this file's."""
    text = reader.metadata.get(KEY, "")
    beside = reader.path + ".json"
    if not text and os.path.isfile(beside) and os.path.getsize(beside) < MAX_RECORD:
        with open(beside, encoding="utf-8", errors="replace") as file:
            text = file.read()
    try:
        found = json.loads(text) if text else {}
    except (ValueError, RecursionError):
        return {}
    if not isinstance(found, dict) or not all(
        isinstance(found.get(k, {}), dict) for k in ("config", "carried", "tensors")
    ):
        return {}
    return found if found.get("bytes") in (None, os.path.getsize(reader.path)) else {}


def blank(about: dict[str, Any], tensors: list[Tensor]) -> dict[str, Any]:
    """The record as long as it will be, before any payload is known."""
    return {**about, "tensors": {tensor.name: Digest(tensor).line() for tensor in tensors}}


class Digest:
    """Collects a tensor's line of the record while its payload passes by."""

    def __init__(self, tensor: Tensor):
        self.tensor, self.hash, self.not_finite = tensor, hashlib.sha256(), 0

    def of(self, pieces: Iterable[Any]) -> Iterator[Any]:
        for piece in pieces:
            self.hash.update(piece)
            self.not_finite += count_not_finite(piece, self.tensor.dtype)
            yield piece

    def line(self) -> dict[str, Any]:
        """Shape, dtype, sha256 of the payload, and how many NaNs and infinities it holds, if any."""
        odd = {"not_finite": self.not_finite} if self.not_finite else {}
        return {"shape": list(self.tensor.shape), "dtype": self.tensor.dtype, "sha256": self.hash.hexdigest(), **odd}


EXPONENT = {
    "float64": (8, 0x7FF << 52),
    "float32": (4, 0xFF << 23),
    "bfloat16": (2, 0xFF << 7),
    "float16": (2, 31 << 10),
}


def count_not_finite(piece: Any, dtype: str) -> int:
    """NaNs and infinities in a piece of payload: elements whose exponent is all ones."""
    if dtype not in EXPONENT:
        return 0
    import numpy as np

    size, mask = EXPONENT[dtype]
    bits = np.frombuffer(piece, f"u{size}")
    return int(np.count_nonzero((bits & bits.dtype.type(mask)) == mask))


def version() -> str:
    """The installed version, or what stands for it in a checkout that is not installed."""
    from importlib.metadata import PackageNotFoundError
    from importlib.metadata import version as installed

    try:
        return installed("triptych-ports")
    except PackageNotFoundError:
        return "(a checkout)"


def sha256(path: str) -> str:
    """Of a whole file."""
    digest = hashlib.sha256()
    with open(path, "rb", buffering=0) as file:
        while piece := file.read(PIECE):
            digest.update(piece)
    return digest.hexdigest()


def check(path: str) -> list[str]:
    """What in a file is not as its record says; [] for an intact file.

    Raises: ConvertError where the file has no record.
    """
    with open_checkpoint(path) as reader:
        lines = read(reader).get("tensors")
        if not lines:
            raise ConvertError(f"{path}: has no record of its tensors: only files written by this converter have one")
        return differences(reader, lines)


def differences(reader: Reader, lines: dict[str, Any]) -> list[str]:
    """What in an open file is not as the record's lines say."""
    problems = [f"missing {name}" for name in lines if name not in reader.tensors]
    for name, tensor in reader.tensors.items():
        if name not in lines:
            problems.append(f"unexpected {name}")
        elif list(tensor.shape) != lines[name].get("shape"):
            problems.append(f"{name} has shape {list(tensor.shape)}, recorded was {lines[name].get('shape')}")
        elif digest(reader, tensor) != lines[name].get("sha256"):
            problems.append(f"{name} has other values than were written")
    return problems


def digest(reader: Reader, tensor: Tensor) -> str:
    """sha256 of one tensor's payload, as it is on disk."""
    found = hashlib.sha256()
    for start in range(0, tensor.nbytes, PIECE):
        found.update(reader.read(tensor.name, start, min(start + PIECE, tensor.nbytes)))
    return found.hexdigest()

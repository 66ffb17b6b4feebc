"""Read golden cases: a checkpoint of an original implementation, and that code's outputs for some images.

A case is a folder with the checkpoint in its own format (weights.*), io.safetensors, which has the arrays "input_nchw"
and "eval/logits.f64", and case.json.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

import ports
import specs
from convert.errors import called
from convert.files import open_checkpoint, writer_for
from convert.files.base import Tensor
from specs.config import tuples
from specs.numerals import limit, short

from .elements import relative_error
from .tolerance import FLOAT64

LIMIT = FLOAT64["forward"]  # of errors of logits
IO, ABOUT = "io.safetensors", "case.json"
IMAGES, LOGITS = "input_nchw", "eval/logits.f64"  # arrays in IO


def write(
    folder: str | os.PathLike[str],
    *,
    architecture: str,
    images: np.ndarray,
    logits: np.ndarray,
    settings: Mapping[str, Any],
    param_count: int,
    upstream: Mapping[str, str],
    **arrays: np.ndarray,
) -> None:
    """Write io.safetensors and case.json beside the checkpoints that lie in a folder.

    Args:
      images: (n, c, h, w), float64.
      logits: what the original computes of them in inference, in float64.
      settings: Config fields that the checkpoint leaves open.
      param_count: the original's own count of its trained parameters.
      upstream: whose code ran: {"repo": ..., "commit": ...}.
      arrays: anything else that it recorded.
    """
    folder = os.fspath(folder)
    stored = {IMAGES: images, LOGITS: logits, **arrays}
    stored = {name: np.ascontiguousarray(array) for name, array in stored.items()}
    tensors = {name: Tensor(name, array.shape, array.dtype.name) for name, array in stored.items()}
    path = os.path.join(folder, IO)
    with open(path, "w+b", buffering=0) as file:
        writer = writer_for(path)(file, list(tensors.values()), {})
        for name, tensor in tensors.items():
            writer.write(tensor, [stored[name].tobytes()])
        writer.finish()
    names = sorted(name for name in os.listdir(folder) if name != ABOUT)
    about = {
        "case": os.path.basename(folder), "architecture": architecture, "upstream": dict(upstream),
        "settings": dict(settings), "input_layout": "NCHW", "param_count": param_count,
        "files": {name: _sha256(os.path.join(folder, name)) for name in names},
    }  # fmt: skip
    with open(os.path.join(folder, ABOUT), "w", encoding="utf-8") as text:
        text.write(json.dumps(about, indent=1) + "\n")


class Golden(NamedTuple):
    """A case as read: `weights` is the path of its checkpoint, for the rest see `write`."""

    weights: str
    settings: Mapping[str, Any]
    images: np.ndarray
    logits: np.ndarray
    about: Mapping[str, Any]


def read(folder: str | os.PathLike[str]) -> Golden:
    """Read a case; of several checkpoints of one model take the last by name."""
    folder = os.fspath(folder)
    with open(os.path.join(folder, ABOUT), encoding="utf-8") as text:
        about = json.load(text)
    with open_checkpoint(os.path.join(folder, IO)) as reader:
        images, logits = (
            np.frombuffer(bytes(reader.read(name)), reader.tensors[name].dtype).reshape(reader.tensors[name].shape)
            for name in (IMAGES, LOGITS)
        )
    weights = max(name for name in about["files"] if name != IO)
    settings = {name: tuples(value) for name, value in about.get("settings", {}).items()}
    return Golden(os.path.join(folder, weights), settings, images, logits, about)


def errors(folder: str | os.PathLike[str]) -> dict[str, float]:
    """Run a case's checkpoint in float64, in every framework that is installed and has a port of its architecture.

    Returns: {framework: largest difference of the logits, relative to the largest logit}.
    """
    case, differences = read(folder), {}
    for framework in ports.ported(case.about["architecture"]):
        port = ports.load(case.weights, framework, dtype="float64", **case.settings)
        differences[framework] = relative_error(case.logits, port(case.images))
    return differences


def check(folder: str | os.PathLike[str], page: str) -> int:
    """Run a case in every framework, and print each error with what to do about one that is too large.

    Args:
      page: the file of the case's architecture.
    Returns: the exit status: 1 if an error is more than LIMIT.
    """
    specs.add(page)
    command = f"{called('parity')} {read(folder).about['architecture']} --spec {page} --check layers"
    found = errors(folder)
    for framework, error in found.items():
        remedy = "" if error <= LIMIT else f", more than {limit(LIMIT)}: run {command} to find where"
        print(f"{framework}: error relative to the largest logit: {short(error)}{remedy}")
    return int(not all(error <= LIMIT for error in found.values()))


def _sha256(path: str) -> str:
    with open(path, "rb") as file:
        return hashlib.sha256(file.read()).hexdigest()

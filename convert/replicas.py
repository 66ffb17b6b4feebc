"""Recognise arrays that are stored once for each device, as pmap leaves them."""

from __future__ import annotations

from dataclasses import replace

from .errors import ConvertError
from .parts import Reading


def without_replicas(reading: Reading) -> Reading | None:
    """Remove a leading axis that has the same length on every array; None where there is none."""
    lengths = {tensor.shape[:1] for tensor in reading.tensors.values()}
    if len(lengths) > 1 or () in lengths:
        return None
    tensors = {name: tensor._replace(shape=tensor.shape[1:]) for name, tensor in reading.tensors.items()}
    return replace(reading, tensors=tensors)


def replicated(path: str, reading: Reading) -> ConvertError:
    """The error for a file whose arrays fit once that axis is removed."""
    count = next(iter(reading.tensors.values())).shape[0]
    problem = f"every array has a leading axis of {count}, as pmap adds for {count} devices"
    rest = f"behind it they are those of {reading.architecture} ({reading.dialect})"
    return ConvertError(f"{path}: {problem}; {rest}: save one replica, e.g. flax.jax_utils.unreplicate(state)")

"""Count the parameters of a model of no known architecture, as far as names and dtypes tell them from other arrays."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from convert.files.base import Tensor
from specs.kinds import KINDS, STATISTICS

from .aside import training_and_copies

OWN = {"running_mean", "running_var", "num_batches_tracked", "_mean", "_variance"}  # nothing else is called so
COLLECTION = "batch_stats"  # of linen
WHOLE = ("int32", "int64", "uint32", "bool")  # dtypes of counters, masks and positions, never of parameters
LEAVES = {
    stored.name for kind in KINDS.values() for leaves in kind.leaves.values() for stored in leaves.values() if stored
} - STATISTICS


def counted(tensors: Mapping[str, Tensor]) -> dict[str, int | bool]:
    """Return {"parameters", "statistics", "masks", "named", "buffers"} of a file's arrays, without those of no model.

    "masks": elements of bool. "statistics": of running statistics, counters and other whole numbers. "buffers": of the
    last ones alone, as of positions.
    "parameters": all others.
    "named": whether most of these have names of parameters, so that they may be called so.
    """
    gone = training_and_copies(tensors)
    model = {name: tensor for name, tensor in tensors.items() if name not in gone}
    others = no_parameters(model)
    rest = [name for name in model if name not in others]
    return {
        "parameters": sum(model[name].size for name in rest),
        "statistics": sum(model[name].size for name in others if model[name].dtype != "bool"),
        "buffers": sum(model[name].size for name in others if _is_buffer(model[name])),
        "masks": sum(model[name].size for name in others if model[name].dtype == "bool"),
        "named": 2 * sum(_leaf(name)[1] in LEAVES for name in rest) >= len(rest),
    }


def no_parameters(tensors: Mapping[str, Tensor]) -> set[str]:
    """Return the names of arrays of a model that are no parameters: running statistics, counters, whole numbers."""
    return set(_others(tensors))


def _others(tensors: Mapping[str, Tensor]) -> Iterator[str]:
    for name, tensor in tensors.items():
        module, leaf = _leaf(name)
        pair = {f"{module}mean", f"{module}var"} <= tensors.keys() and leaf in STATISTICS
        if leaf in OWN or pair or COLLECTION in name.split("/") or tensor.dtype in WHOLE:
            yield name


def _is_buffer(tensor: Tensor) -> bool:
    """Tell whether an array of whole numbers is no counter."""
    return tensor.dtype in WHOLE and tensor.dtype != "bool" and tensor.size > 1 and _leaf(tensor.name)[1] not in OWN


def _leaf(name: str) -> tuple[str, str]:
    """Split a name behind its last dot or slash."""
    at = max(name.rfind("."), name.rfind("/")) + 1
    return name[:at], name[at:]

"""Describe the state of an optimizer, or other training state, that --weights names."""

from __future__ import annotations

from typing import Any

from convert import folding
from convert.arrays import dtypes
from convert.arrays.counters import read
from convert.errors import option
from convert.files.base import Reader
from convert.reading import optimizers
from convert.reading.aside import Aside, as_json
from convert.reading.families import FAMILIES, KEEPS, MOMENTS
from convert.reading.nesting import chosen, label, training
from specs.words import in_a_row

OUTSIDE = "outside of this part"
COUNTS = ("step", "count")  # of torch and optax: the last level of the names of what counts steps


def of_state(reader: Reader, weights: str) -> dict[str, Any]:
    """Describe the part of a file that `weights` names, if that is training state; {} for any other part."""
    place, *others = chosen(reader.tensors, weights)
    inside = {name: tensor for name, tensor in reader.tensors.items() if name.startswith(place)}
    if others or not (inside and training(place)):
        return {}
    values = {name: value for name, value in reader.skipped.load().items() if name.startswith(place)}
    part = label(place)
    compares = f"{option('weights', part)} of diff compares it with another file's"
    location = optimizers.find_any(reader)
    keeps = _keeps(reader, location) if location and location.top.startswith(place) else ""
    moves = "; a conversion with --with-optimizer takes it along with the weights" if keeps else ""
    return {
        "part": part,
        "state": {"keeps": keeps, "steps": _steps(reader, [*inside], values), "values": values},
        "parameters": sum(tensor.size for tensor in inside.values()),
        "named": False,
        "dtype": dtypes.listed(inside.values()),
        "notes": [*reader.remarks, f"training state: {compares}{moves}"],
        "aside": as_json(_outside(reader, place)),
        "skipped": folding.skipped(reader.skipped.without(values.keys())),
    }


def _keeps(reader: Reader, location: optimizers.Found) -> str:
    """Say which arrays of an optimizer a file has: "Adam's two moments, as torch stores them"; "" of others."""
    names = [f"/{name}" for name in reader.tensors if name.startswith(location.root)]
    own = {slot: its.of(location.library) for slot, its in MOMENTS.items()}
    slots = {slot for slot, word in own.items() if any(f"/{word}" in name or f"_{word}_" in name for name in names)}
    kept = [KEEPS[family].of(location.library) for family, its in FAMILIES.items() if set(its) <= slots]
    states = (name.rpartition("/")[2] for name in names if location.library == "torch" and "/state/" in name)
    others = sorted({*states} - {word.torch for word in MOMENTS.values()} - {*COUNTS})
    return f"{in_a_row([*kept[:1], *others])}, as {location.library} stores them" if kept else ""


def _steps(reader: Reader, names: list[str], values: dict[str, Any]) -> list[int]:
    """Return the counts of steps in a part, each once."""
    ends = {name: name.removesuffix(optimizers.VALUE).rpartition("/")[2] for name in [*names, *values]}
    counts = [name for name, last in ends.items() if last in COUNTS]
    arrays = [reader.tensors[name] for name in counts if name in reader.tensors]
    counted = [read(reader, tensor).value for tensor in arrays if tensor.size == 1]
    counted += [values[name] for name in counts if type(values.get(name)) is int]
    return sorted({step for step in counted if step is not None})


def _outside(reader: Reader, place: str) -> list[Aside]:
    """List the other arrays of a file, by the top level of their names."""
    groups: dict[str, list[int]] = {}
    for name, tensor in reader.tensors.items():
        if not name.startswith(place):
            top, slash, _ = name.partition("/")
            groups.setdefault(top + slash, []).append(tensor.size)
    return [Aside(name, len(sizes), sum(sizes), "", OUTSIDE) for name, sizes in groups.items()]

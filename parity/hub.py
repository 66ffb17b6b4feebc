"""A framework's arrays under the names and in the layout that all share, through the converter's own tables."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np

from convert.kinds import PORTS, hub_axes, place
from specs.arrays import apply
from specs.layer import Layer, parameters
from specs.notation import View, moves


def to_hub(layers: Iterable[Layer], framework: str, arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """{"blocks.0.norm1.scale": array} of what `arrays` holds, in the network's order.

    What no layer places keeps its name and layout, so that it cannot vanish from a comparison.
    """
    shared: dict[str, np.ndarray] = {}
    used: set[str] = set()
    for parameter in parameters(list(layers)):
        theirs = place(parameter, PORTS[framework], None, port=True)
        if theirs is None:
            continue
        used.update(theirs.names.values())
        if parameter.leaf == "count" or not set(theirs.names.values()) <= arrays.keys():
            continue  # only torch counts batches
        axes = hub_axes(parameter)
        ours = View(axes, {(): parameter.name}, (), axes, parameter.layer.sizes)
        for name, shape, parts in moves(theirs, ours):
            shared[name] = apply(parts, shape, arrays.__getitem__)
    rest = {name: array for name, array in arrays.items() if name not in used}
    return {**shared, **{_plain(name): array for name, array in rest.items()}}


def _plain(name: str) -> str:
    return name.removeprefix("params/").removeprefix("batch_stats/").replace("/", ".")

"""Rename and lay out a framework's arrays as all share them, by the converter's own tables."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

import numpy as np

from specs.applied.arrays import translate
from specs.covering.filling import Filling
from specs.dialects import PORTS, UNUSED, bind, place
from specs.kinds import without_collection
from specs.layer import Layer, parameters
from specs.notation.lines import Lines
from specs.solving.env import Env


def to_hub(layers: Iterable[Layer], framework: str, arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Return arrays by our names, as "blocks.0.norm1.scale", in our layout and in the network's order.

    Arrays of no layer keep their name and layout, so that they cannot vanish from a comparison.
    """
    envs, used = list[Env](), set[str]()
    for parameter in parameters(list(layers)):
        theirs = place(parameter, PORTS[framework])
        if theirs is None:
            continue
        used.add(theirs.name)
        if parameter.leaf != "count" and theirs.name in arrays:  # only torch counts batches
            envs += filter(None, [bind(theirs, place(parameter, None), UNUSED, len(envs) + 1)])
    shapes = {name: array.shape for name, array in arrays.items()}
    layout = Filling(Lines(tuple(env.line for env in envs)), envs, shapes).layout()
    rest = {without_collection(name).replace("/", "."): array for name, array in arrays.items() if name not in used}
    return {**translate(layout, arrays), **rest}


def own_leaves(layers: Iterable[Layer], framework: str) -> dict[str, str]:
    """Return what a framework calls the arrays of layers that have another name in ours: {"fc.kernel": "weight"}."""
    theirs = {parameter.name: place(parameter, PORTS[framework]) for parameter in parameters(list(layers))}
    leaves = {name: re.split("[./]", own.name)[-1] for name, own in theirs.items() if own is not None}
    return {name: leaf for name, leaf in leaves.items() if leaf != name.rpartition(".")[2]}

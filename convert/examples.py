"""Give examples of every array of an architecture: those of its tiny twins, which use every option."""

from functools import cache
from typing import Any, NamedTuple

import specs
from specs.layer import Parameter
from specs.notation.paths import pattern


class Example(NamedTuple):
    """One array of a tiny twin, with the twin's Config."""

    parameter: Parameter
    config: Any


@cache
def examples(architecture: str) -> tuple[Example, ...]:
    """Return one array for each name and kind, numbers aside."""
    arrays = {}
    for config in specs.get(architecture).tiny.values():
        layers = {
            (pattern(layer.path), layer.kind, layer.without): layer for layer in specs.get(architecture).layers(config)
        }
        for (path, kind, _), layer in layers.items():
            arrays.update({(path, kind, p.leaf): Example(p, config) for p in layer.parameters()})
    return tuple(arrays.values())

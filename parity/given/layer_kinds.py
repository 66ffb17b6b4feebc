"""Tell of which kind a layer of a user's own model is, by its class and its arrays."""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Collection, Mapping

import numpy as np

from ports.runners.records import Module
from specs.kinds import GATES, KINDS, Leaf
from specs.layer import Layer
from specs.notation.axes import names as names_of
from specs.notation.axes import parse_axes


def layer_of(path: str, module: Module, state: Mapping[str, np.ndarray], library: str) -> Layer | None:
    """Describe a module as a layer of the kind that its class, or one that it is derived from, and its arrays show.

    None if they show none. A library may have one class for several kinds (linen's Conv), which differ in the number
    of axes.
    """
    shapes = {leaf: state[name].shape for leaf, name in module.leaves.items() if name in state}
    for name, (kind, about) in itertools.product(module.classes, KINDS.items()):
        if shapes and about.classes[library] and re.fullmatch(about.classes[library], name):
            stored = {leaf: place for leaf, place in about.leaves[library].items() if place is not None}
            sizes = _sizes(kind, stored.values(), shapes)
            if sizes is not None:
                return Layer(
                    path, kind, sizes, tuple(leaf for leaf, place in stored.items() if place.name not in shapes)
                )
    return None


def _sizes(kind: str, stored: Collection[Leaf], shapes: Mapping[str, tuple[int, ...]]) -> dict[str, int] | None:
    """Read the lengths of a layer's axes off the shapes of its arrays; None if these are not such a layer's arrays."""
    axes = {leaf.name: parse_axes(leaf.axes) for leaf in stored}
    sizes = {"g": GATES[kind]} if kind in GATES else {}
    for name, shape in shapes.items():
        if name not in axes or len(axes[name]) != len(shape):
            return None
        for dim, length in zip(axes[name], shape, strict=True):
            *factors, last = names_of((dim,))
            known = math.prod(sizes[axis] for axis in factors)
            if length % known or sizes.setdefault(last, length // known) != length // known:
                return None
    return sizes

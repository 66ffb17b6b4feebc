"""The records that specs are written in: layers with their arrays, and the dialects that other people's files speak.

A spec lists its network once, as `layers(config)`. Everything else follows from that list: parameter counts, the
names and shapes each framework expects, and the proof that a translation is complete.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

# Arrays of each kind of layer with their axes, in the hub's own layout. Sizes of the axes come from the layer.
KINDS: dict[str, dict[str, str]] = {
    "dense": {"kernel": "i o", "bias": "o"},
    "conv": {"kernel": "o i h w", "bias": "o"},  # i: inputs per group
    "heads": {"kernel": "h i o", "bias": "h o"},  # one dense layer a head, stacked
    "norm": {"scale": "c", "bias": "c"},  # LayerNorm
    "batch_norm": {"scale": "c", "bias": "c", "mean": "c", "var": "c", "count": ""},
    "tokens": {"": "m d"},  # a learned array; its name is its path
}
BUFFERS = {"mean", "var", "count"}  # running statistics: saved, but not trained


class Layer(NamedTuple):
    """One layer of a network.

    Args:
      path: where it stands in every port, e.g. "blocks.0.token_mix.fc1".
      kind: a row of KINDS; it alone decides layout, never a shape.
      sizes: length of each axis; further names may split an axis for dialects that store it otherwise.
      bias: False where the layer has none.
      init: how upstream initialises the kernel: a name in specs.init.
    """

    path: str
    kind: str
    sizes: Mapping[str, int]
    bias: bool = True
    init: str = "lecun_normal"

    def parameters(self) -> Iterator[Parameter]:
        for leaf, axes in KINDS[self.kind].items():
            if leaf != "bias" or self.bias:
                yield Parameter(self, leaf, tuple(self.sizes[axis] for axis in axes.split()))


class Parameter(NamedTuple):
    """One array of a layer, trained or not, in the hub's layout."""

    layer: Layer
    leaf: str
    shape: tuple[int, ...]

    @property
    def name(self) -> str:
        return f"{self.layer.path}.{self.leaf}" if self.leaf else self.layer.path

    @property
    def trained(self) -> bool:
        return self.leaf not in BUFFERS

    @property
    def size(self) -> int:
        return math.prod(self.shape)


def dense(path: str, i: int, o: int, *, bias: bool = True, init: str = "lecun_normal") -> Layer:
    """A linear layer from `i` to `o` features."""
    return Layer(path, "dense", {"i": i, "o": o}, bias, init)


def conv(path: str, i: int, o: int, h: int, w: int, *, groups: int = 1, init: str = "lecun_normal") -> Layer:
    """A convolution with bias from `i` to `o` channels, kernel (h, w)."""
    return Layer(path, "conv", {"i": i // groups, "o": o, "h": h, "w": w}, True, init)


def norm(path: str, c: int, **splits: int) -> Layer:
    """A LayerNorm over `c` channels; `splits` name factors of c for dialects that order it otherwise."""
    return Layer(path, "norm", {"c": c, **splits})


def batch_norm(path: str, c: int) -> Layer:
    """A BatchNorm over `c` channels."""
    return Layer(path, "batch_norm", {"c": c})


class Dialect(NamedTuple):
    """How one code base names and lays out an architecture's arrays, and what its code computes.

    Args:
      framework: whose names and layouts its layers have: flax, torch or paddle.
      table: lines "ours   theirs", two or more spaces between. Without axes a line renames a layer (or all below it);
        with axes it places one array. What no line names keeps our name.
      conventions: Config fields that its files do not hold but its code fixes.
      requires: Config fields whose values its code hard-codes: a model with other values cannot be written in it.
      variants: official variants of which files exist in it; None stands for all of them.
      extras: layers that its files hold and the network never uses: written as zeros, unless the source holds them.
      suffix: the file format that its users expect, where it is not their framework's usual one.
      about: one line for `routes`.
    """

    framework: str
    table: str = ""
    conventions: Mapping[str, Any] = MappingProxyType({})
    requires: Mapping[str, Any] = MappingProxyType({})
    variants: tuple[str, ...] | None = None
    extras: tuple[Layer, ...] = ()
    suffix: str = ""
    about: str = ""


def parameters(layers: list[Layer]) -> list[Parameter]:
    """All arrays of a network, in its order."""
    return [parameter for layer in layers for parameter in layer.parameters()]


def count(layers: list[Layer]) -> int:
    """Trained parameters of a network."""
    return sum(p.size for p in parameters(layers) if p.trained)


class Sizes:
    """Sizes of a checkpoint's arrays in the hub's terms, for `infer`: sizes["stem.kernel", "o"], sizes.count("blocks").

    For an array that is not there stands the same one of another block: that it is missing is told where all arrays are
    looked for. Where there is none, KeyError is raised with its name, which the caller reports as missing.
    """

    def __init__(self, axes: Mapping[str, Mapping[str, int]]):
        self._axes = axes

    def __iter__(self) -> Iterator[str]:
        return iter(self._axes)

    def __contains__(self, name: str) -> bool:
        return name in self._axes

    def __getitem__(self, key: tuple[str, str]) -> int:
        name, axis = key
        held = self._axes.get(name) or next(self._alike(name), None)
        if held is None:
            raise KeyError(name)
        return held[axis]

    def _alike(self, name: str) -> Iterator[Mapping[str, int]]:
        """Of arrays whose names differ in the last number alone."""
        parts = re.split(r"\.(\d+)(?=\.)", name)
        if len(parts) > 1:
            *before, _, after = map(re.escape, parts)
            pattern = re.compile(r"\.".join(before) + r"\.\d+" + after)
            yield from (axes for other, axes in self._axes.items() if pattern.fullmatch(other))

    def count(self, prefix: str) -> int:
        """How many children with consecutive numbers from 0 stand under a path."""
        numbers = {int(m[1]) for name in self._axes if (m := re.match(rf"{re.escape(prefix)}\.(\d+)\.", name))}
        return next(n for n in range(len(numbers) + 1) if n not in numbers)

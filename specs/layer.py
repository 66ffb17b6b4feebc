"""Define layers and their arrays: what a page lists its network in.

A page lists its network once, as `layers(config)`. Everything else follows from that list: parameter counts, the
names and shapes each framework expects, and the proof that a translation is complete.
"""

import math
import re
from collections.abc import Iterator, Mapping
from typing import NamedTuple

from .kinds import ANY, BUFFERS, GATES, KINDS

Init = str | float | tuple[str, float]  # see Layer


class Layer(NamedTuple):
    """One layer of a network.

    Args:
      path: where it stands in every port, e.g. "blocks.0.token_mix.fc1".
      kind: a row of specs.kinds.KINDS; it alone decides layout, never a shape.
      sizes: length of each axis; further names may split an axis for dialects that store it otherwise.
      without: leaves of the kind that this layer lacks, e.g. ("bias",).
      init: how upstream initialises the kernel, table or array: a name in specs.init.INITS, the number that fills it,
        or ("normal", standard deviation) or ("uniform", bound). A number fills the scale of a norm as well, which
        begins at 1 otherwise.
      bias_init: the number that fills the bias; None: 0, or what init="torch" draws.
    """

    path: str
    kind: str
    sizes: Mapping[str, int]
    without: tuple[str, ...] = ()
    init: Init = "lecun_normal"
    bias_init: float | None = None

    def parameters(self) -> Iterator["Parameter"]:
        """Yield every array that the layer has."""
        for leaf in KINDS[self.kind].axes:
            if leaf not in self.without:
                axes = axes_of(self, leaf)
                yield Parameter(self, leaf, tuple(self.sizes[axis] for axis in axes))


def axes_of(layer: Layer, leaf: str) -> tuple[str, ...]:
    """Name the axes of one array of a layer, in the hub's order."""
    axes = KINDS[layer.kind].axes[leaf]
    return tuple(layer.sizes) if axes == ANY else tuple(axes.split())


class Parameter(NamedTuple):
    """One array of a layer, trained or not, in the hub's layout."""

    layer: Layer
    leaf: str
    shape: tuple[int, ...]

    @property
    def axes(self) -> tuple[str, ...]:
        """Return the names of its dimensions."""
        return axes_of(self.layer, self.leaf)

    @property
    def name(self) -> str:
        return ".".join(filter(None, (self.layer.path, self.leaf)))  # a layer that is the whole model has no path

    @property
    def trained(self) -> bool:
        return self.leaf not in BUFFERS

    @property
    def size(self) -> int:
        return math.prod(self.shape)


def _without(bias: bool) -> tuple[str, ...]:
    return () if bias else ("bias",)


def dense(
    path: str, i: int, o: int, *, bias: bool = True, init: Init = "lecun_normal", bias_init: float | None = None
) -> Layer:
    """Build a linear layer from `i` to `o` features."""
    return Layer(path, "dense", {"i": i, "o": o}, _without(bias), init, bias_init)


def conv(
    path: str, i: int, o: int, h: int, w: int, *, groups: int = 1, bias: bool = True, init: Init = "lecun_normal",
    bias_init: float | None = None,
) -> Layer:  # fmt: skip
    """Build a convolution from `i` to `o` channels, kernel (h, w); of kind "conv1d" or "conv3d" use Layer."""
    return Layer(path, "conv", {"i": i // groups, "o": o, "h": h, "w": w}, _without(bias), init, bias_init)


def norm(path: str, c: int, *, bias: bool = True, init: Init = "lecun_normal", **splits: int) -> Layer:
    """Build a LayerNorm over `c` channels; `splits` are all factors of c, for dialects that order it otherwise.

    Raises: ValueError for splits that do not multiply to c, as of an argument that does not exist.
    """
    if splits and math.prod(splits.values()) != c:
        factors = ", ".join(f"{name}={size}" for name, size in splits.items())
        raise ValueError(f"norm({path!r}, {c}, {factors}): these are no factors of {c}, which multiply to it")
    return Layer(path, "norm", {"c": c, **splits}, _without(bias), init)


def batch_norm(path: str, c: int, *, init: Init = "lecun_normal") -> Layer:
    """Build a BatchNorm over `c` channels."""
    return Layer(path, "batch_norm", {"c": c}, init=init)


def embedding(path: str, v: int, d: int, init: Init = "normal") -> Layer:
    """Build a table of `v` vectors of `d` numbers, looked up by number."""
    return Layer(path, "embedding", {"v": v, "d": d}, init=init)


def lstm_cell(path: str, i: int, h: int, *, bias: bool = True) -> Layer:
    """Build an LSTM cell of `i` inputs and `h` hidden numbers; its gates are i, f, g, o."""
    return _cell(path, "lstm_cell", i, h, bias)


def gru_cell(path: str, i: int, h: int, *, bias: bool = True) -> Layer:
    """Build a GRU cell of `i` inputs and `h` hidden numbers; its gates are r, z, n."""
    return _cell(path, "gru_cell", i, h, bias)


def _cell(path: str, kind: str, i: int, h: int, bias: bool) -> Layer:
    without = () if bias else ("input_bias", "hidden_bias")
    return Layer(path, kind, {"g": GATES[kind], "h": h, "i": i, "k": h}, without, init="torch")


def array(path: str, *, init: Init = "normal", **sizes: int) -> Layer:
    """Build a learned array that is no library's layer; `sizes` are its axes, e.g. array("tokens", m=6, d=192)."""
    return Layer(path, "array", sizes, init=init)


def parameters(layers: list[Layer]) -> list[Parameter]:
    """Return all arrays of a network, in its order."""
    return [parameter for layer in layers for parameter in layer.parameters()]


def count(layers: list[Layer]) -> int:
    """Count trained parameters of a network."""
    return sum(p.size for p in parameters(layers) if p.trained)


class Sizes:
    """Sizes of a checkpoint's arrays in the hub's terms, for `infer`: sizes["stem.kernel", "o"], sizes.count("blocks").

    If an array is missing, the same array of another block stands in for it: what is missing is reported where all
    arrays are matched. If no block has it, KeyError is raised with its name, which the caller reports as missing.
    """

    def __init__(self, axes: Mapping[str, Mapping[str, int]]):
        self._axes = axes

    def __iter__(self) -> Iterator[str]:
        return iter(self._axes)

    def __contains__(self, name: str) -> bool:
        return name in self._axes

    def __getitem__(self, key: tuple[str, str]) -> int:
        name, axis = key
        axes = self.axes(name)
        if axis not in axes:
            raise KeyError(f"axis {axis} of {name}, whose length no shape shows")
        return axes[axis]

    def axes(self, name: str) -> Mapping[str, int]:
        """Return {axis: length} of an array. Raises: KeyError with its name."""
        held = self._axes.get(name) or next(self._alike(name), None)
        if held is None:
            raise KeyError(name)
        return held

    def _alike(self, name: str) -> Iterator[Mapping[str, int]]:
        """Choose arrays whose names differ in the last number alone."""
        parts = re.split(r"\.(\d+)(?=\.)", name)
        if len(parts) > 1:
            *before, _, after = map(re.escape, parts)
            pattern = re.compile(r"\.".join(before) + r"\.\d+" + after)
            yield from (axes for other, axes in self._axes.items() if pattern.fullmatch(other))

    def count(self, prefix: str) -> int:
        """Return how many numbered children a path has, those included that are missing below the largest number.

        A missing block is then reported as missing. Where more are missing than are there, a number is no block's: only
        consecutive numbers from 0 are counted.
        """
        inner = (name[len(prefix) + 1 :] for name in self._axes if name.startswith(f"{prefix}."))
        numbers = {int(word) for word, dot, _ in (name.partition(".") for name in inner) if dot and word.isdecimal()}
        whole = max(numbers, default=-1) + 1
        return whole if whole <= 2 * len(numbers) else next(n for n in range(whole) if n not in numbers)

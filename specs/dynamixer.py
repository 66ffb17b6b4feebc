"""DynaMixer: rows and columns of tokens, mixed by matrices that they themselves generate.

Sources: arXiv:2201.12083; ziyuwwang/DynaMixer `models/dynamixer.py`, `models/vision_model.py`.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import accumulate, islice
from typing import Any, NamedTuple

from .config import Size, check_numbers, pair
from .layer import Layer, Sizes, conv, dense, norm
from .preprocessing import IMAGENET_MEAN, IMAGENET_STD, normalised
from .spec import Dialect, Spec


@dataclass(frozen=True, kw_only=True)
class Config:
    """A DynaMixer: stages of blocks on a fixed grid of tokens, halved where a transition follows a stage."""

    depths: tuple[int, ...]  # blocks of each stage
    widths: tuple[int, ...]  # channels of a token
    hidden: tuple[int, ...]  # of the channel MLP
    segments: tuple[int, ...]  # of the channels; each has mixing matrices of its own
    reduced: tuple[int, ...]  # numbers that a token gives to the matrices of its row, a segment
    transitions: tuple[bool, ...]  # whether the grid is halved after each stage but the last
    grid: Size  # tokens of the first stage (rows, columns)
    patch: Size = 7  # pixels
    channels: int = 3  # of the image
    classes: int = 1000  # 0: pooled features instead of logits
    norm_eps: float = 1e-5
    drop_path: float = 0.0  # of the last block, per sample, on both branches; rises linearly from 0
    qkv_bias: bool = False  # upstream's name: whether `mix.channels` has a bias
    skip_lam: float = 1.0  # upstream's name: divides each branch before it is added
    overlap: bool = False  # patches overlap by half, in the stem and where the grid is halved

    def __post_init__(self) -> None:
        stages = len(self.depths)
        lengths = {"widths": stages, "hidden": stages, "segments": stages, "reduced": stages, "transitions": stages - 1}
        wrong = [f"{name} has {len(getattr(self, name))} entries, not {n}"
                 for name, n in lengths.items() if len(getattr(self, name)) != n]  # fmt: skip
        if wrong:
            raise ValueError(f"depths has {stages} stages, but {', '.join(wrong)}")
        check_numbers(self, sum(self.depths), "depths", "grid", "patch", "channels")
        if not self.skip_lam > 0:
            raise ValueError(f"skip_lam={self.skip_lam}: must be positive")
        for stage in self.stages:
            stage.check()

    @property
    def stages(self) -> "tuple[StageConfig, ...]":
        """Return what each stage is built from."""
        blocks = sum(self.depths)
        ramp = iter([self.drop_path * b / max(blocks - 1, 1) for b in range(blocks)])
        levels, (rows, columns) = [], pair(self.grid)
        for s, depth in enumerate(self.depths):
            stage = StageConfig(
                depth=depth,
                width=self.widths[s],
                hidden=self.hidden[s],
                segments=self.segments[s],
                reduced=self.reduced[s],
                grid=(rows, columns),
                drop_paths=tuple(islice(ramp, depth)),
                downsample=self._downsample(s),
                qkv_bias=self.qkv_bias,
                skip_lam=self.skip_lam,
            )
            levels.append(stage)
            if stage.downsample:
                rows, columns = (stage.downsample.window.count(side) for side in (rows, columns))
        return tuple(levels)

    def _downsample(self, s: int) -> "Downsample | None":
        """Return the convolution after stage s, which only widens if no transition follows the stage."""
        if s + 1 == len(self.depths):
            return None
        width = self.widths[s + 1]
        if self.transitions[s]:
            return Downsample(width, Window(3, 2, 1) if self.overlap else Window(2, 2, 0))
        if width == self.widths[s]:
            return None
        if self.overlap:
            raise ValueError(
                f"overlap: stage {s} widens to {width} without a transition, which has no overlapping form"
            )
        return Downsample(width, Window(1, 1, 0))

    @property
    def stem(self) -> "tuple[Window, Window]":
        """Return the stem's convolution along rows and along columns."""
        rows, columns = pair(self.patch)
        return self._stem(rows), self._stem(columns)

    def _stem(self, patch: int) -> "Window":
        return Window(patch, (patch + 1) // 2, (patch - 1) // 2) if self.overlap else Window(patch, patch, 0)

    @property
    def stage_positions(self) -> tuple[int, ...]:
        """Return where each stage stands in upstream's `network`, which lists stages and downsamples in one row."""
        before = accumulate((self._downsample(s) is not None for s in range(len(self.depths) - 1)), initial=0)
        return tuple(s + downsamples for s, downsamples in enumerate(before))

    @property
    def downsample_positions(self) -> tuple[int, ...]:
        """Return where the downsample after each stage stands there, if it has one."""
        return tuple(position + 1 for position in self.stage_positions)


class Window(NamedTuple):
    """A convolution along one side of its input: kernel, stride and zeros added at both ends, in pixels or tokens."""

    kernel: int
    stride: int
    padding: int

    def count(self, length: int) -> int:
        """Return how many outputs an input of this length has."""
        return (length + 2 * self.padding - self.kernel) // self.stride + 1

    def length(self, count: int) -> int:
        """Return the usual input length for that many outputs: `count` strides, or more if the kernel needs more."""
        return max(count * self.stride, (count - 1) * self.stride + self.kernel - 2 * self.padding)


class Downsample(NamedTuple):
    """The convolution between two stages: its output channels, and its window along either side."""

    width: int
    window: Window


@dataclass(frozen=True, kw_only=True)
class StageConfig:
    """One stage of a Config.

    Args:
      grid: rows and columns of tokens.
      drop_paths: rate of each block.
      downsample: the convolution that follows; None without one.
      qkv_bias: whether `mix.channels` has a bias.
      skip_lam: divides each branch before it is added.
    """

    depth: int
    width: int
    hidden: int
    segments: int
    reduced: int
    grid: tuple[int, int]
    drop_paths: tuple[float, ...]
    downsample: Downsample | None
    qkv_bias: bool
    skip_lam: float

    def check(self) -> None:
        """Check that the stage can be. Raises: ValueError."""
        if min(self.hidden, self.segments, self.reduced, self.width // 4) < 1:
            sizes = f"hidden={self.hidden}, segments={self.segments}, reduced={self.reduced}, width={self.width}"
            raise ValueError(f"a stage of {sizes}: each is at least 1, and width at least 4")
        if self.width % self.segments:
            raise ValueError(f"{self.width} channels do not split into {self.segments} segments")
        if min(self.grid) < 1:
            raise ValueError(f"nothing is left of the grid: {self.grid[0]}x{self.grid[1]} after the transitions")


def _variant(depths: tuple[int, ...], widths: tuple[int, ...], halved: int, reduced: int) -> Config:
    """Return a variant whose grid is halved once, after stage `halved`; segments grow from 8 to 16 with it."""
    stages = range(len(depths))
    return Config(
        depths=depths,
        widths=widths,
        hidden=tuple(3 * width for width in widths),
        segments=tuple(8 if s <= halved else 16 for s in stages),
        reduced=(reduced,) * len(depths),
        transitions=tuple(s == halved for s in stages[:-1]),
        grid=32,
    )


VARIANTS = {  # arXiv:2201.12083, table 1; trained with drop_path .1 (S, M) and .3 (L)
    "S": _variant((4, 3, 8, 3), (192, 384, 384, 384), 0, 2),
    "M": _variant((4, 3, 14, 3), (256, 256, 512, 512), 1, 2),
    "L": _variant((8, 8, 16, 4), (256, 512, 512, 512), 0, 8),
}

PUBLISHED = {  # trained parameters as the original implementation counts them
    "S": 26_265_960, "M": 57_128_264, "L": 97_818_088,
}  # fmt: skip

TINY = {  # small twins; grids of two primes, so that rows, columns and channels cannot be confused
    "S": Config(depths=(2, 1, 1), widths=(6, 10, 10), hidden=(13, 17, 17), segments=(2, 5, 5), reduced=(2, 2, 2),
                transitions=(True, False), grid=(7, 11), patch=3, classes=11),
    "M": Config(depths=(1, 1, 2), widths=(6, 6, 10), hidden=(11, 13, 13), segments=(3, 2, 5), reduced=(2, 3, 1),
                transitions=(False, True), grid=(5, 7), patch=(2, 3), classes=3),
    "two halvings": Config(depths=(1, 1, 1), widths=(6, 6, 4), hidden=(7, 5, 7), segments=(1, 6, 2), reduced=(5, 2, 3),
                           transitions=(True, True), grid=(13, 7), patch=2, classes=5, norm_eps=1e-6),
    "bias, overlap": Config(depths=(1, 2), widths=(6, 10), hidden=(7, 11), segments=(3, 5), reduced=(2, 3),
                            transitions=(True,), grid=(7, 5), patch=(3, 4), classes=7, qkv_bias=True, skip_lam=1.5,
                            overlap=True),
    "wider, headless": Config(depths=(1, 2), widths=(8, 9), hidden=(5, 11), segments=(2, 3), reduced=(3, 2),
                              transitions=(False,), grid=(3, 5), patch=2, channels=1, classes=0),
}  # fmt: skip


def layers(c: Config) -> Iterator[Layer]:
    """Yield the layers, in the order they run."""
    yield conv("stem", c.channels, c.widths[0], *pair(c.patch), init="torch")
    for s, stage in enumerate(c.stages):
        for b in range(stage.depth):
            yield from _block(f"stages.{s}.blocks.{b}", stage)
        if stage.downsample:
            width, window = stage.downsample
            yield conv(f"stages.{s}.downsample", stage.width, width, window.kernel, window.kernel, init="torch")
    yield norm("norm", c.widths[-1])
    if c.classes:
        yield dense("head", c.widths[-1], c.classes, init="trunc_normal_02")


def _block(path: str, stage: StageConfig) -> Iterator[Layer]:
    width, numbers, (rows, columns) = stage.width, stage.segments * stage.reduced, stage.grid

    def linear(name: str, i: int, o: int, bias: bool = True) -> Layer:
        return dense(f"{path}.{name}", i, o, bias=bias, init="trunc_normal_02")

    yield norm(f"{path}.norm1", width)
    for name, length in (("mix.columns", rows), ("mix.rows", columns)):  # a column is as long as there are rows
        yield linear(f"{name}.compress", width, numbers)
        yield linear(f"{name}.generate", length * stage.reduced, length * length)
        yield linear(f"{name}.out", width, width)
    yield linear("mix.channels", width, width, bias=stage.qkv_bias)
    yield linear("mix.reweight.fc1", width, width // 4)
    yield linear("mix.reweight.fc2", width // 4, 3 * width)
    yield linear("mix.proj", width, width)
    yield norm(f"{path}.norm2", width)
    yield linear("mlp.fc1", width, stage.hidden)
    yield linear("mlp.fc2", stage.hidden, width)


def infer(sizes: Sizes) -> dict[str, Any]:
    """Return the Config fields that names and shapes determine: all but the conventions.

    `overlap` shows in the kernel of a downsample alone. The matrices of a stage show its grid, and the grids of two
    stages differ exactly if a transition stands between them: the numbers of downsamples, which files may count
    otherwise, are not needed.
    """
    stages = range(sizes.count("stages"))

    def first(s: int, name: str, axis: str) -> int:
        return sizes[f"stages.{s}.blocks.0.{name}.kernel", axis]

    grids = [tuple(math.isqrt(first(s, f"mix.{name}.generate", "o")) for name in ("columns", "rows")) for s in stages]
    reduced = [first(s, "mix.columns.generate", "i") // max(grids[s][0], 1) for s in stages]
    h, w = sizes["stem.kernel", "h"], sizes["stem.kernel", "w"]
    kernels = {sizes[name, "h"] for s in stages if (name := f"stages.{s}.downsample.kernel") in sizes}
    return {
        "depths": tuple(sizes.count(f"stages.{s}.blocks") for s in stages),
        "widths": tuple(first(s, "mix.proj", "o") for s in stages),
        "hidden": tuple(first(s, "mlp.fc1", "o") for s in stages),
        "segments": tuple(first(s, "mix.columns.compress", "o") // max(reduced[s], 1) for s in stages),
        "reduced": tuple(reduced),
        "transitions": tuple(grids[s] != grids[s + 1] for s in stages[:-1]),
        "grid": grids[0][0] if len(set(grids[0])) == 1 else grids[0],
        "patch": h if h == w else (h, w),
        "channels": sizes["stem.kernel", "i"],
        "classes": sizes["head.kernel", "o"] if "head.kernel" in sizes else 0,
        "qkv_bias": "stages.0.blocks.0.mix.channels.bias" in sizes,
        **({"overlap": 3 in kernels} if kernels else {}),
    }


def input_shape(c: Config) -> tuple[int, int, int]:
    """Return (channels, height, width) of an image that the network takes."""
    height, width = (window.length(side) for window, side in zip(c.stem, pair(c.grid), strict=True))
    return c.channels, height, width


def check_images(c: Config, height: int, width: int) -> None:
    """Check that the network can take images of this size. Raises: ValueError."""
    (rows, columns), (ph, pw) = pair(c.grid), pair(c.patch)
    tokens = tuple(window.count(side) for window, side in zip(c.stem, (height, width), strict=True))
    if tokens != (rows, columns):
        made = f"{tokens[0]}x{tokens[1]} tokens of {ph}x{pw}"
        known = f"the network's grid is {rows}x{columns}: its mixing layers have weights for that grid alone"
        raise ValueError(f"images of {height}x{width} make {made}, {known}")


_PIXELS = {
    "": (normalised(IMAGENET_MEAN, IMAGENET_STD, 0.9),), "L": (normalised(IMAGENET_MEAN, IMAGENET_STD, 0.875),),
}  # fmt: skip

DIALECTS = {
    "official": Dialect("torch", """
        stem                                <-> patch_embed.proj
        stages.{s}.blocks.{b}               <-> network.{stage_positions[s]}.{b}
        stages.{s}.blocks.{b}.mix           <-> network.{stage_positions[s]}.{b}.attn
        stages.{s}.blocks.{b}.mix.columns   <-> network.{stage_positions[s]}.{b}.attn.mix_h
        stages.{s}.blocks.{b}.mix.rows      <-> network.{stage_positions[s]}.{b}.attn.mix_w
        stages.{s}.blocks.{b}.mix.channels  <-> network.{stage_positions[s]}.{b}.attn.mlp_c
        stages.{s}.downsample               <-> network.{downsample_positions[s]}.proj
        """, {"norm_eps": 1e-5, "skip_lam": 1.0}, about="ziyuwwang/DynaMixer, timm training files",
        preprocessing=_PIXELS),
}  # fmt: skip

SIGN = r"reweight"

SPEC = Spec(
    config=Config,
    variants=VARIANTS,
    tiny=TINY,
    published=PUBLISHED,
    layers=layers,
    infer=infer,
    input_shape=input_shape,
    check_images=check_images,
    network="DynaMixer",
    unshown=frozenset({"overlap"}),  # shown by a downsample, which not every network has
    meanings={
        "norm_eps": "what norms add to the variance: 1e-5 in upstream's code",
        "skip_lam": "what each branch is divided by before it is added: 1.0 in all published models",
        "overlap": "whether patches overlap by half, also where the grid is halved: False in all published models",
    },
    dialects=DIALECTS,
    norms={"eps": "norm_eps"},
    activations={"GELU": {}},
    sign=SIGN,
)

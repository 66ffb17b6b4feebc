"""RaftMLP: levels that mix columns, then rows, then channels; a raft of channel groups rides along each column and row.

A level without rafts mixes all its tokens at once instead, as MLP-Mixer does (upstream's `original_tm`).

Sources: arXiv:2108.04384; okojoalg/raft-mlp `libs/models.py`, `libs/modules.py`, `configs/settings`.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

from .config import Size, check_numbers, pair
from .layer import Layer, Sizes, dense, norm
from .preprocessing import IMAGENET_MEAN, IMAGENET_STD, normalised
from .spec import Dialect, Spec


@dataclass(frozen=True, kw_only=True)
class Config:
    """A RaftMLP. It takes images of any size: its tokens are mixed on the grid of `image`, to which others are resized.

    A checkpoint's shapes hold products alone: sum(k * k) of a level's kernels, and raft times rows or columns of its
    grid. So `patches`, `kernels`, `rafts` and `image` have to be set unless an official variant determines them.
    """

    depths: tuple[int, ...]  # blocks of each level
    widths: tuple[int, ...]  # channels
    patches: tuple[int, ...]  # side of a patch of the level below, or of the image: pixels
    rafts: tuple[int, ...]  # groups of channels mixed along with a column's or row's tokens; 0 mixes all tokens at once
    kernels: tuple[tuple[int, ...], ...]  # of the multi-scale embedding, the patch first; () embeds plain patches
    image: Size  # pixels, of the images trained on
    token_expansion: int = 2
    channel_expansion: int = 4
    shortcut: bool = False  # every level's pooled map scales and shifts what the classifier sees
    channels: int = 3  # of the image
    classes: int = 1000  # 0: pooled features instead of logits
    norm_eps: float = 1e-5
    dropout: float = 0.0  # after GELU and after the second dense layer
    drop_path: float = 0.0  # per sample, on the three branches of every block; the paper trains with .1

    def __post_init__(self) -> None:
        count = len(self.depths)
        given = {name: len(getattr(self, name)) for name in ("widths", "patches", "rafts", "kernels")}
        wrong = [f"{name} has {entries} entries, not {count}" for name, entries in given.items() if entries != count]
        if not count or wrong:
            raise ValueError(f"depths has {count} levels, but " + (", ".join(wrong) or "a network has at least one"))
        check_numbers(self, sum(self.depths), "depths", "patches", "channels", "token_expansion", "channel_expansion")
        for level in self.levels:
            level.check()

    @property
    def levels(self) -> "tuple[LevelConfig, ...]":
        """Return what each level is built from."""
        configs, channels, (rows, columns) = [], self.channels, pair(self.image)
        each = zip(self.depths, self.widths, self.patches, self.rafts, self.kernels, strict=True)
        for depth, width, patch, raft, kernels in each:
            rows, columns = -(-rows // patch), -(-columns // patch)
            configs.append(LevelConfig(channels=channels, width=width, depth=depth, patch=patch, raft=raft,
                                     kernels=kernels, grid=(rows, columns)))  # fmt: skip
            channels = width
        return tuple(configs)


@dataclass(frozen=True, kw_only=True)
class LevelConfig:
    """One level of a Config.

    The multi-scale embedding sees each patch in windows of several sizes k, all centred on it: they move by one
    patch s and the map is padded by (k - s) / 2, so that there are (H + (k - s) - k) / s + 1 = H / s of them in a
    column, whatever k. (Moved by 1 and padded by k // 2, as some descriptions have it, even windows stand on the
    H + 1 corners of pixels, and what comes out is no smaller than what went in.)

    Args:
      channels: of the map that it takes.
      raft: groups of channels mixed along with the tokens of a column or row; 0 mixes all tokens of the grid at once.
      grid: rows and columns of tokens that its token mixing is made for.
    """

    channels: int
    width: int
    depth: int
    patch: int
    raft: int
    kernels: tuple[int, ...]
    grid: tuple[int, int]

    @property
    def mixings(self) -> dict[str, int]:
        """Return how many tokens each token mixing of a block mixes, by the name of its module."""
        rows, columns = self.grid
        return {"vertical": rows, "horizontal": columns} if self.raft else {"token_mix": rows * columns}

    @property
    def groups(self) -> int:
        """Return how many groups of channels are mixed along with the tokens: 1 without rafts."""
        return self.raft or 1

    @property
    def axes(self) -> dict[str, int]:
        """Return sizes by which a map on the native grid is split: h rows, g groups of o channels."""
        return {"h": self.grid[0], "g": self.groups, "o": self.width // self.groups}

    @property
    def features(self) -> int:
        """Return how many numbers the embedding makes one token of."""
        return self.channels * sum(k * k for k in self.kernels or (self.patch,))

    def whole_patches(self, rows: int, columns: int) -> tuple[int, int]:
        """Return the size to which a map of this one is resized, so that patches tile it."""
        return -(-rows // self.patch) * self.patch, -(-columns // self.patch) * self.patch

    @property
    def windows(self) -> tuple[tuple[slice, int, int], ...]:
        """Return (features, k, margin to the largest on each side) of every window of the multi-scale embedding."""
        spans, start = [], 0
        for k in self.kernels:
            features = slice(start, start + self.channels * k * k)
            spans.append((features, k, (max(self.kernels) - k) // 2))
            start = features.stop
        return tuple(spans)

    @property
    def padding(self) -> int:
        """Return the zeros around the map under the largest window."""
        return (max(self.kernels) - self.patch) // 2

    def check(self) -> None:
        """Check that the level can be. Raises: ValueError."""
        if min(self.depth, self.width, self.patch, *self.grid) < 1:
            sizes = f"depth={self.depth}, width={self.width}, patch={self.patch}, grid={self.grid}"
            raise ValueError(f"a level of {sizes}: each is at least 1")
        if self.raft < 0:
            raise ValueError(f"a raft of {self.raft} groups: at least 1, or 0 for no rafts")
        if self.width % self.groups:
            raise ValueError(f"{self.width} channels do not split into a raft of {self.raft}")
        if self.kernels and not self.patch == self.kernels[0] == min(self.kernels):
            raise ValueError(f"kernels {self.kernels}: the first is the smallest and is the patch, {self.patch}")
        for k in self.kernels:
            if k % self.patch or (k - self.patch) % 2:
                raise ValueError(
                    f"a kernel of {k} is no whole number of patches of {self.patch}, or not centred on one"
                )


def _variant(*widths: int, kernels: tuple[tuple[int, ...], ...] = ((4, 8), (2, 4), (2, 4), (2,))) -> Config:
    """Return the Config of a network of four levels, 4, 8, 16 and 32 pixels a token."""
    return Config(
        depths=(2, 2, 6, 2), widths=widths, patches=(4, 2, 2, 2), rafts=(2, 2, 2, 2), kernels=kernels, image=224
    )


def _one_level(raft: int, depth: int = 12, width: int = 768, patch: int = 16, kernels: tuple[int, ...] = ()) -> Config:
    return Config(depths=(depth,), widths=(width,), patches=(patch,), rafts=(raft,), kernels=(kernels,), image=224)


VARIANTS = {  # S, M, L: arXiv:2108.04384, table 1; all: upstream's configs/settings, whose images are of 224 pixels
    "S": _variant(64, 128, 256, 512),  # imagenet-raft-mlp-cross-mlp-emb-s
    "M": _variant(96, 192, 384, 768),  # imagenet-raft-mlp-cross-mlp-emb-m
    "L": _variant(128, 192, 512, 1024),  # imagenet-raft-mlp-cross-mlp-emb-l
    "hierarchy-m": _variant(96, 192, 384, 768, kernels=((), (), (), ())),  # imagenet-raft-mlp-hierarchy-m
    "r-4": _one_level(4),  # imagenet-raft-mlp, default
    "r-2": _one_level(2),  # imagenet-raft-mlp-r-2
    "r-2-cross": _one_level(2, kernels=(16, 32)),  # imagenet-raft-mlp-r-2-cross-mlp-emb
    "r-1": _one_level(1),  # imagenet-raft-mlp-r-1
    "deep": _one_level(2, depth=36, width=384),  # imagenet-raft-mlp-deep
    "mixer": _one_level(0),  # imagenet-org-mixer
    "cifar10-mixer": replace(_one_level(0, depth=4, width=256, patch=4), classes=10),  # cifar10-org-mixer
    "cifar10": Config(depths=(2, 2), widths=(128, 256), patches=(2, 2), rafts=(4, 4), kernels=((2, 4, 8), (2, 4)),
                      image=224, classes=10),  # cifar10-raft-mlp
}  # fmt: skip

PUBLISHED = {  # trained parameters as the original implementation counts them
    "S": 9_868_768, "M": 21_413_632, "L": 36_184_672, "hierarchy-m": 19_920_640, "r-4": 58_390_696,
    "r-2": 58_162_888, "r-2-cross": 60_522_184, "r-1": 58_105_432, "deep": 43_532_296, "mixer": 59_918_200,
    "cifar10-mixer": 159_511_562, "cifar10": 6_032_394,
}  # fmt: skip

TINY = {  # small twins; grids of unlike rows and columns, and primes, so that no two axes can be confused
    "S": Config(depths=(1, 1, 2, 1), widths=(6, 10, 14, 22), patches=(4, 2, 2, 2), rafts=(2, 2, 2, 2),
                kernels=((4, 8), (2, 4), (2, 4), (2,)), image=(44, 28), classes=11),
    "M": Config(depths=(2, 1), widths=(14, 22), patches=(4, 2), rafts=(2, 2), kernels=((4, 8), (2,)),
                image=(24, 40), classes=7, norm_eps=1e-6),
    "L": Config(depths=(1, 2), widths=(10, 26), patches=(2, 2), rafts=(2, 2), kernels=((2, 4), (2, 4)),
                image=(10, 14), classes=5, channels=1),
    "rafts": Config(depths=(1, 1, 1), widths=(15, 14, 5), patches=(3, 2, 1), rafts=(3, 7, 1),
                    kernels=((3, 15, 9), (2, 2, 6), (1, 3)), image=(20, 31), token_expansion=3, channel_expansion=2,
                    classes=3),
    "plain patches, shortcut": Config(depths=(1, 1, 1), widths=(10, 14, 6), patches=(3, 2, 2), rafts=(1, 7, 2),
                                      kernels=((), (), ()), image=(29, 22), shortcut=True, channels=5, classes=7),
    "all tokens": Config(depths=(2,), widths=(10,), patches=(4,), rafts=(0,), kernels=((),), image=(12, 20), classes=7),
    "all tokens, shortcut": Config(depths=(1, 2), widths=(6, 10), patches=(2, 3), rafts=(0, 0), kernels=((2, 6), ()),
                                   image=(10, 27), token_expansion=3, channel_expansion=2, shortcut=True, classes=3),
    "shortcut, headless": Config(depths=(1, 1), widths=(6, 10), patches=(2, 3), rafts=(3, 5), kernels=((2, 6), ()),
                                 image=(14, 9), shortcut=True, classes=0),
}  # fmt: skip


def layers(c: Config) -> Iterator[Layer]:
    """Yield the layers, in the order they run."""
    for n, level in enumerate(c.levels):
        embed = "multi_scale_embed" if level.kernels else "patch_embed"
        yield _linear(f"levels.{n}.{embed}", level.features, level.width)
        for b in range(level.depth):
            yield from _block(f"levels.{n}.blocks.{b}", level, c)
    widths, last = c.widths if c.shortcut else c.widths[-1:], c.widths[-1]
    for n, width in enumerate(widths):
        yield norm(f"heads.{n}.norm", width)
        if n + 1 < len(widths):
            yield _linear(f"heads.{n}.fc", width, 2 * last)  # scale and shift of the next level's
    if c.classes:
        yield _linear("classifier", last, c.classes)


def _block(path: str, level: LevelConfig, c: Config) -> Iterator[Layer]:
    for name, length in level.mixings.items():
        tokens = level.groups * length
        yield norm(f"{path}.{name}.norm", level.width, g=level.groups, o=level.width // level.groups)
        yield _linear(f"{path}.{name}.fc1", tokens, c.token_expansion * tokens)
        yield _linear(f"{path}.{name}.fc2", c.token_expansion * tokens, tokens)
    channel = "channel" if level.raft else "channel_mix"
    yield norm(f"{path}.{channel}.norm", level.width)
    yield _linear(f"{path}.{channel}.fc1", level.width, c.channel_expansion * level.width)
    yield _linear(f"{path}.{channel}.fc2", c.channel_expansion * level.width, level.width)


def _linear(path: str, i: int, o: int) -> Layer:
    return dense(path, i, o, init="torch")


def infer(sizes: Sizes) -> dict[str, Any]:
    """Return the Config fields that names and shapes determine.

    They determine neither `patches` nor `image`, `kernels` only where no level has any, `rafts` only where there are
    none. Upstream numbers the modules of a block, so that the names of its dense layers alone do not tell a raft's
    mixing from that of all tokens: the norms' names do.
    """
    plain = [f"levels.{n}.patch_embed.kernel" for n in range(sizes.count("levels"))]
    embeds = [name if name in sizes else name.replace("patch", "multi_scale") for name in plain]
    rafts = "levels.0.blocks.0.channel_mix.norm.scale" not in sizes
    token, channel = (
        f"levels.0.blocks.0.{mixing}.fc1.kernel"
        for mixing in (("vertical", "channel") if rafts else ("token_mix", "channel_mix"))
    )
    return {
        "depths": tuple(sizes.count(f"levels.{n}.blocks") for n in range(len(embeds))),
        "widths": tuple(sizes[name, "o"] for name in embeds),
        **({} if rafts else {"rafts": (0,) * len(plain)}),
        **({"kernels": ((),) * len(plain)} if embeds == plain else {}),
        "token_expansion": sizes[token, "o"] // sizes[token, "i"],
        "channel_expansion": sizes[channel, "o"] // sizes[channel, "i"],
        "shortcut": "heads.0.fc.kernel" in sizes,
        "classes": sizes["classifier.kernel", "o"] if "classifier.kernel" in sizes else 0,
    }


def input_shape(c: Config) -> tuple[int, int, int]:
    """Return (channels, height, width) of an image that the network takes."""
    return c.channels, *pair(c.image)


# Upstream's libs/datasets.py; it has a mean and std for each data set that it trains on.
_CIFAR10 = (normalised((0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010), 1.0, "bilinear"),)
_PIXELS = {
    "": (normalised(IMAGENET_MEAN, IMAGENET_STD, 0.875, "bilinear"),), "cifar10": _CIFAR10, "cifar10-mixer": _CIFAR10,
}  # fmt: skip

# Upstream normalises with the channels of a raft interleaved, (o g), where everything else has them group by group.
DIALECTS = {
    "official": Dialect("torch", """
        levels.{l}.multi_scale_embed                           <-> levels.{l}.fn.0.fc
        levels.{l}.patch_embed                                 <-> levels.{l}.fn.1
        levels.{l}.blocks.{b}.vertical.norm.scale: (g o)       <-> levels.{l}.fn.{b+2}.1.norm.1.weight: (o g)
        levels.{l}.blocks.{b}.vertical.norm.bias: (g o)        <-> levels.{l}.fn.{b+2}.1.norm.1.bias: (o g)
        levels.{l}.blocks.{b}.vertical.fc1                     <-> levels.{l}.fn.{b+2}.1.fn.0
        levels.{l}.blocks.{b}.vertical.fc2                     <-> levels.{l}.fn.{b+2}.1.fn.3
        levels.{l}.blocks.{b}.horizontal.norm.scale: (g o)     <-> levels.{l}.fn.{b+2}.3.norm.1.weight: (o g)
        levels.{l}.blocks.{b}.horizontal.norm.bias: (g o)      <-> levels.{l}.fn.{b+2}.3.norm.1.bias: (o g)
        levels.{l}.blocks.{b}.horizontal.fc1                   <-> levels.{l}.fn.{b+2}.3.fn.0
        levels.{l}.blocks.{b}.horizontal.fc2                   <-> levels.{l}.fn.{b+2}.3.fn.3
        levels.{l}.blocks.{b}.channel.norm                     <-> levels.{l}.fn.{b+2}.5.norm
        levels.{l}.blocks.{b}.channel.fc1                      <-> levels.{l}.fn.{b+2}.5.fn.0
        levels.{l}.blocks.{b}.channel.fc2                      <-> levels.{l}.fn.{b+2}.5.fn.3
        levels.{l}.blocks.{b}.token_mix.norm                   <-> levels.{l}.fn.{b+2}.1.norm.1
        levels.{l}.blocks.{b}.token_mix.fc1                    <-> levels.{l}.fn.{b+2}.1.fn.0
        levels.{l}.blocks.{b}.token_mix.fc2                    <-> levels.{l}.fn.{b+2}.1.fn.3
        levels.{l}.blocks.{b}.channel_mix.norm                 <-> levels.{l}.fn.{b+2}.3.norm
        levels.{l}.blocks.{b}.channel_mix.fc1                  <-> levels.{l}.fn.{b+2}.3.fn.0
        levels.{l}.blocks.{b}.channel_mix.fc2                  <-> levels.{l}.fn.{b+2}.3.fn.3
        heads.{n}.norm                                         <-> heads.{n}.1
        heads.{n}.fc                                           <-> heads.{n}.4
        """, {"norm_eps": 1e-5}, about="okojoalg/raft-mlp", preprocessing=_PIXELS),
}  # fmt: skip

SIGN = r"levels[._/]\d"

SPEC = Spec(
    config=Config,
    variants=VARIANTS,
    tiny=TINY,
    published=PUBLISHED,
    layers=layers,
    infer=infer,
    input_shape=input_shape,
    network="RaftMlp",
    meanings={
        "patches": "side of each level's patch of the level below, of the image first: 4,2,2,2 in S, M and L",
        "rafts": "groups of channels that are mixed along with a column's or row's tokens, of each level: "
        "2,2,2,2 in S, M and L; 0 mixes all tokens at once",
        "kernels": "sides of the convolutions of each level's embedding, the patch first; [] embeds plain patches: "
        "[4,8],[2,4],[2,4],[2] in S, M and L",
        "image": "pixels of the images that the model was trained on: 224 for ImageNet",
        "norm_eps": "what norms add to the variance: 1e-5 in upstream's code",
    },
    dialects=DIALECTS,
    norms={"eps": "norm_eps"},
    activations={"GELU": {}},
    sign=SIGN,
)

"""MLP-Mixer: blocks that mix tokens, then channels, with nothing but dense layers.

Sources: arXiv:2105.01601; google-research/vision_transformer `models_mixer.py`; timm `mlp_mixer.py`; PASSL; PaddleViT.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

from .config import Size, check_numbers, pair
from .layer import Layer, Sizes, conv, dense, norm
from .paddlevit_mlp_mixer import from_yaml
from .preprocessing import IMAGENET_MEAN, IMAGENET_STD, Preprocessing, normalised
from .spec import Dialect, Spec


@dataclass(frozen=True, kw_only=True)
class Config:
    """A Mixer. The network needs its token count: from `image` (default 224) or, instead, from `tokens`."""

    patch: Size  # pixels
    depth: int  # blocks
    width: int  # channels of a token
    token_hidden: int
    channel_hidden: int
    image: Size | None = None  # pixels
    tokens: Size | None = None  # their number, or the grid (rows, columns)
    channels: int = 3  # of the image
    classes: int = 1000  # 0: pooled features instead of logits
    gelu: Literal["erf", "tanh"] = "erf"  # "tanh" reproduces Google's checkpoints
    norm_eps: float = 1e-6
    padding: Literal["VALID", "SAME"] = "VALID"  # of a stem whose patches do not tile the image
    dropout: float = 0.0  # after GELU and after the second dense layer
    drop_path: float = 0.0  # per sample, on both branches of every block

    def __post_init__(self) -> None:
        check_numbers(
            self, self.depth, "patch", "width", "token_hidden", "channel_hidden", "image", "tokens", "channels"
        )
        if self.token_count < 1:
            raise ValueError(f"image={self.image} is smaller than one patch of {self.patch}")
        if self.image is not None and self.tokens is not None:
            made = self.grid if isinstance(self.tokens, tuple) else math.prod(self.grid)
            if made != self.tokens:
                raise ValueError(f"image={self.image} makes {made} tokens, not tokens={self.tokens}")

    @property
    def grid(self) -> tuple[int, int]:
        """Return rows and columns of tokens; one row where only their number is known and is no square."""
        if self.image is not None or self.tokens is None:
            return self.grid_of(*pair(224 if self.image is None else self.image))
        if isinstance(self.tokens, tuple):
            return self.tokens
        side = math.isqrt(self.tokens)
        return (side, side) if side * side == self.tokens else (1, self.tokens)

    def grid_of(self, height: int, width: int) -> tuple[int, int]:
        """Return rows and columns of the tokens that an image of this size makes."""
        ph, pw = pair(self.patch)
        return (-(-height // ph), -(-width // pw)) if self.padding == "SAME" else (height // ph, width // pw)

    @property
    def token_count(self) -> int:
        return self.tokens if isinstance(self.tokens, int) else math.prod(self.tokens or self.grid)


def _variant(patch: int, depth: int, width: int) -> Config:
    return Config(patch=patch, depth=depth, width=width, token_hidden=width // 2, channel_hidden=4 * width)


VARIANTS = {  # arXiv:2105.01601, table 1
    "S/32": _variant(32, 8, 512),
    "S/16": _variant(16, 8, 512),
    "B/32": _variant(32, 12, 768),
    "B/16": _variant(16, 12, 768),
    "L/32": _variant(32, 24, 1024),
    "L/16": _variant(16, 24, 1024),
    "H/14": _variant(14, 32, 1280),
}

PUBLISHED = {  # trained parameters as the original implementation counts them
    "S/32": 19_104_624, "S/16": 18_528_264, "B/32": 60_293_428, "B/16": 59_880_472, "L/32": 206_939_264,
    "L/16": 208_196_168, "H/14": 432_350_952,
}  # fmt: skip

TINY = {  # small twins; primes, so that no two axes can be confused
    **{name: Config(patch=2, depth=1 + c.depth // 16, width=c.width // 64 + 3, token_hidden=5 + c.depth // 8,
                    channel_hidden=13, image=(pair(c.patch)[0] // 4, 10), classes=11) for name, c in VARIANTS.items()},
    "tanh, ragged": Config(patch=(3, 5), depth=2, width=7, token_hidden=5, channel_hidden=11, image=(11, 13),
                           classes=3, gelu="tanh", padding="SAME"),
    "headless": Config(patch=(4, 2), depth=1, width=7, token_hidden=3, channel_hidden=5, tokens=(2, 3), classes=0,
                       channels=1, norm_eps=1e-5),
}  # fmt: skip


def layers(c: Config) -> Iterator[Layer]:
    """Yield the layers, in the order they run."""
    yield conv("stem", c.channels, c.width, *pair(c.patch))
    for b in range(c.depth):
        yield norm(f"blocks.{b}.norm1", c.width)
        yield dense(f"blocks.{b}.token_mix.fc1", c.token_count, c.token_hidden)
        yield dense(f"blocks.{b}.token_mix.fc2", c.token_hidden, c.token_count)
        yield norm(f"blocks.{b}.norm2", c.width)
        yield dense(f"blocks.{b}.channel_mix.fc1", c.width, c.channel_hidden)
        yield dense(f"blocks.{b}.channel_mix.fc2", c.channel_hidden, c.width)
    yield norm("norm", c.width)
    if c.classes:
        yield dense("head", c.width, c.classes, init="zeros")


def infer(sizes: Sizes) -> dict[str, Any]:
    """Return what a checkpoint's names and shapes say of its Config: all but the conventions."""
    h, w = sizes["stem.kernel", "h"], sizes["stem.kernel", "w"]
    return {
        "patch": h if h == w else (h, w),
        "depth": sizes.count("blocks"),
        "width": sizes["stem.kernel", "o"],
        "channels": sizes["stem.kernel", "i"],
        "tokens": sizes["blocks.0.token_mix.fc1.kernel", "i"],
        "token_hidden": sizes["blocks.0.token_mix.fc1.kernel", "o"],
        "channel_hidden": sizes["blocks.0.channel_mix.fc1.kernel", "o"],
        "classes": sizes["head.kernel", "o"] if "head.kernel" in sizes else 0,
    }


def input_shape(c: Config) -> tuple[int, int, int]:
    """Return (channels, height, width) of an image that the network takes."""
    (rows, columns), (ph, pw) = c.grid, pair(c.patch)
    height, width = pair(c.image) if c.image is not None else (rows * ph, columns * pw)
    return c.channels, height, width


def check_images(c: Config, height: int, width: int) -> None:
    """Check that the network can take images of this size. Raises: ValueError.

    Where `image` or `tokens` states the grid, another grid of as many tokens would give each weight another place.
    """
    (rows, columns), (ph, pw) = c.grid_of(height, width), pair(c.patch)
    if rows * columns != c.token_count:
        what = f"images of {height}x{width} make {rows * columns} tokens of {ph}x{pw}, the network has {c.token_count}"
        raise ValueError(f"{what}: its token-mixing layers have weights for that number alone")
    if (rows, columns) != c.grid and (c.image is not None or not isinstance(c.tokens, int)):
        what = f"images of {height}x{width} make {rows}x{columns} tokens of {ph}x{pw}"
        raise ValueError(f"{what}, the network's grid is {c.grid[0]}x{c.grid[1]}: its weights are for that grid alone")


def immaterial(c: Config) -> set[str]:
    """Return fields that change nothing here: padding where patches tile the image, `image` beside `tokens`."""
    (rows, columns), (ph, pw) = c.grid, pair(c.patch)
    tiled = c.image is None or pair(c.image) == (rows * ph, columns * pw)
    return {name for name, is_so in (("padding", tiled), ("image", c.tokens is not None)) if is_so}


_TIMM = """
stem                       <-> {p}stem.proj
blocks.{i}.norm1           <-> {p}blocks.{i}.norm1
blocks.{i}.token_mix.fc1   <-> {p}blocks.{i}.mlp_tokens.fc1
blocks.{i}.token_mix.fc2   <-> {p}blocks.{i}.mlp_tokens.fc2
blocks.{i}.norm2           <-> {p}blocks.{i}.norm2
blocks.{i}.channel_mix.fc1 <-> {p}blocks.{i}.mlp_channels.fc1
blocks.{i}.channel_mix.fc2 <-> {p}blocks.{i}.mlp_channels.fc2
norm                       <-> {p}norm
"""

_BIG_VISION = """
stem                                   <-> embedding
blocks.{i}.norm1                       <-> Mixer/encoderblock_{i}/LayerNorm_0
blocks.{i}.token_mix.fc1.kernel: i o   <-> Mixer/encoderblock_{i}/token_mixing_phase_0/kernel1: {1}i o
blocks.{i}.token_mix.fc1.bias: o       <-> Mixer/encoderblock_{i}/token_mixing_phase_0/bias1: {1}o
blocks.{i}.token_mix.fc2.kernel: i o   <-> Mixer/encoderblock_{i}/token_mixing_phase_0/kernel2: {1}i o
blocks.{i}.token_mix.fc2.bias: o       <-> Mixer/encoderblock_{i}/token_mixing_phase_0/bias2: {1}o
blocks.{i}.norm2                       <-> Mixer/encoderblock_{i}/LayerNorm_1
blocks.{i}.channel_mix.fc1.kernel: i o <-> Mixer/encoderblock_{i}/channel_mixing_phase_0/kernel1: {1}i o
blocks.{i}.channel_mix.fc1.bias: o     <-> Mixer/encoderblock_{i}/channel_mixing_phase_0/bias1: {1}o
blocks.{i}.channel_mix.fc2.kernel: i o <-> Mixer/encoderblock_{i}/channel_mixing_phase_0/kernel2: {1}i o
blocks.{i}.channel_mix.fc2.bias: o     <-> Mixer/encoderblock_{i}/channel_mixing_phase_0/bias2: {1}o
norm                                   <-> Mixer/encoder_norm
"""

_GOOGLE = {"gelu": "tanh", "norm_eps": 1e-6, "padding": "SAME"}
_ERF = {"gelu": "erf", "norm_eps": 1e-6, "padding": "VALID"}

# vit_jax resizes to the crop's size, big_vision to 256 of 224 pixels; both with kernels of TensorFlow's that are not
# antialiased. timm evaluates the same weights with a bicubic kernel.
_SYMMETRIC = {"": (
    Preprocessing(mean=0.0, std=1.0, range=(-1.0, 1.0), crop=0.875, interpolation="bicubic"),
    Preprocessing(mean=0.0, std=1.0, range=(-1.0, 1.0), crop=1.0, interpolation="bilinear"),
)}  # fmt: skip
_HALF = normalised(0.5, 0.5, 0.875)
_HALF_OR_UNIT = {"": (_HALF, normalised(0.0, 1.0, 0.875, "bilinear"))}  # Google's weights; miil's
_HALF_OR_IMAGENET = {"": (_HALF, normalised(IMAGENET_MEAN, IMAGENET_STD, 0.875))}  # timm's weights; PASSL's own config

DIALECTS = {
    "google": Dialect("flax", """
        stem                       <-> stem
        blocks.{i}.norm1           <-> MixerBlock_{i}/LayerNorm_0
        blocks.{i}.token_mix.fc1   <-> MixerBlock_{i}/token_mixing/Dense_0
        blocks.{i}.token_mix.fc2   <-> MixerBlock_{i}/token_mixing/Dense_1
        blocks.{i}.norm2           <-> MixerBlock_{i}/LayerNorm_1
        blocks.{i}.channel_mix.fc1 <-> MixerBlock_{i}/channel_mixing/Dense_0
        blocks.{i}.channel_mix.fc2 <-> MixerBlock_{i}/channel_mixing/Dense_1
        norm                       <-> pre_head_layer_norm
        """, _GOOGLE, suffix=".npz", about="google-research/vision_transformer and big_vision",
        preprocessing=_SYMMETRIC),
    "big_vision": Dialect("flax", _BIG_VISION.replace("{1}", "1 "), _GOOGLE, suffix=".npz",
                          about="google-research/big_vision, its legacy names", preprocessing=_SYMMETRIC),
    "big_vision_squeezed": Dialect("flax", _BIG_VISION.replace("{1}", ""), _GOOGLE, suffix=".npz",
                                   about="the same without the leading axes of 1, which big_vision squeezes",
                                   preprocessing=_SYMMETRIC),
    "timm": Dialect("torch", _TIMM.replace("{p}", ""), _ERF, about="huggingface/pytorch-image-models",
                    preprocessing=_HALF_OR_UNIT),
    "passl": Dialect("paddle", _TIMM.replace("{p}", "backbone.") + "head <-> head.fc_cls", _ERF,
                     about="PaddlePaddle/PASSL", preprocessing=_HALF_OR_IMAGENET),
    "passl_backbone": Dialect("paddle", _TIMM.replace("{p}", ""), _ERF,
                              about="PASSL's backbone saved alone, and tutorials: timm's names, Paddle's layout",
                              preprocessing=_HALF_OR_IMAGENET),
    "paddlevit": Dialect("paddle", _TIMM.replace("{p}", "").replace("stem.proj", "patch_embed.patch_embed")
                         .replace("> blocks.", "> mixer_layers."), _ERF, about="BR-IDL/PaddleViT",
                         preprocessing={"": (_HALF,)}),
    "seed": Dialect("torch", """
        blocks.{i}.norm1           <-> mixer_blocks.{i}.norm1
        blocks.{i}.token_mix.fc1   <-> mixer_blocks.{i}.token_Mixing.dense1
        blocks.{i}.token_mix.fc2   <-> mixer_blocks.{i}.token_Mixing.dense2
        blocks.{i}.norm2           <-> mixer_blocks.{i}.norm2
        blocks.{i}.channel_mix.fc1 <-> mixer_blocks.{i}.channel_mixing.dense1
        blocks.{i}.channel_mix.fc2 <-> mixer_blocks.{i}.channel_mixing.dense2
        norm                       <-> pre_head_norm
        """, {"gelu": "erf", "norm_eps": 1e-5, "padding": "VALID"},
        requires={"width": 512, "tokens": 196, "channels": 3},
        extras=(  # a block that the code builds with its default sizes and never calls
            norm("mixer_block_1.norm1", 512),
            dense("mixer_block_1.token_Mixing.dense1", 196, 256),
            dense("mixer_block_1.token_Mixing.dense2", 256, 196),
            norm("mixer_block_1.norm2", 512),
            dense("mixer_block_1.channel_mixing.dense1", 512, 2048),
            dense("mixer_block_1.channel_mixing.dense2", 2048, 512),
        ), about="the PyTorch port of a tutorial, width 512 and 196 tokens hard-coded in its blocks"),
}  # fmt: skip

SIGN = r"(?i)token_?mix|mlp_tokens"

SPEC = Spec(
    config=Config,
    variants=VARIANTS,
    tiny=TINY,
    published=PUBLISHED,
    layers=layers,
    infer=infer,
    input_shape=input_shape,
    check_images=check_images,
    network="MlpMixer",
    immaterial=immaterial,
    meanings={
        "gelu": "tanh in code of Google's (flax), erf in timm's, PASSL's and PaddleViT's",
        "norm_eps": "what LayerNorm adds to the variance: 1e-6, but 1e-5 in code of dialect seed",
        "padding": "of a stem whose patches do not tile the image: SAME in code of Google's, VALID in all other",
    },
    dialects=DIALECTS,
    readers={"paddlevit": from_yaml},
    norms={"eps": "norm_eps"},
    activations={"GELU": {"gelu": "erf"}, "GELU tanh": {"gelu": "tanh"}},
    sign=SIGN,
)

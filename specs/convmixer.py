"""ConvMixer: blocks of a depthwise convolution with a residual, then a pointwise one, at one resolution.

Sources: arXiv:2201.09792; locuslab/convmixer; timm `convmixer.py`; PaddleViT; labml `conv_mixer`.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

from .config import Size, check_numbers, pair
from .layer import Layer, Sizes, batch_norm, conv, dense
from .paddlevit_convmixer import from_yaml
from .preprocessing import IMAGENET_MEAN, IMAGENET_STD, normalised
from .spec import Dialect, Spec


@dataclass(frozen=True, kw_only=True)
class Config:
    """A ConvMixer. It takes images of any size; `image` is the one it was trained on."""

    patch: Size  # pixels; a ragged edge of the image is cut off
    kernel: Size  # of the depthwise convolutions; padding keeps the size, an even kernel's odd pixel on the high side
    depth: int  # blocks
    width: int  # channels
    act: Literal["gelu", "relu"]  # GELU by the error function
    image: Size = 224  # pixels
    channels: int = 3  # of the image
    classes: int = 1000  # 0: pooled features instead of logits
    norm_eps: float = 1e-5
    norm_momentum: float = 0.9  # share of the running statistics that a step of training keeps
    dropout: float = 0.0  # before the head

    def __post_init__(self) -> None:
        check_numbers(self, self.depth, "patch", "kernel", "width", "image", "channels")


VARIANTS = {  # arXiv:2201.09792, table 1, and the official releases
    "1536/20": Config(patch=7, kernel=9, depth=20, width=1536, act="gelu"),
    "1024/20": Config(patch=14, kernel=9, depth=20, width=1024, act="gelu"),
    "768/32": Config(patch=7, kernel=7, depth=32, width=768, act="relu"),
}

PUBLISHED = {  # trained parameters as the original implementation counts them
    "1536/20": 51_625_960, "1024/20": 24_383_464, "768/32": 21_110_248,
}  # fmt: skip

TINY = {  # small twins; primes, so that no two axes can be confused
    "1536/20": Config(patch=3, kernel=9, depth=2, width=13, act="gelu", image=(15, 21), classes=11),
    "1024/20": Config(patch=5, kernel=9, depth=3, width=11, act="gelu", image=(37, 29), classes=7),
    "768/32": Config(patch=3, kernel=7, depth=2, width=7, act="relu", image=(22, 17), classes=5),
    "even": Config(patch=(2, 3), kernel=(4, 5), depth=2, width=7, act="relu", image=(13, 17), classes=3, channels=1),
    "headless": Config(patch=2, kernel=2, depth=1, width=5, act="gelu", image=(14, 6), classes=0, norm_eps=1e-3,
                       norm_momentum=0.7),
}  # fmt: skip


def layers(c: Config) -> Iterator[Layer]:
    """Yield the layers, in the order they run."""
    yield conv("stem", c.channels, c.width, *pair(c.patch), init="torch")
    yield batch_norm("norm", c.width)
    for b in range(c.depth):
        yield conv(f"blocks.{b}.depthwise", c.width, c.width, *pair(c.kernel), groups=c.width, init="torch")
        yield batch_norm(f"blocks.{b}.norm1", c.width)
        yield conv(f"blocks.{b}.pointwise", c.width, c.width, 1, 1, init="torch")
        yield batch_norm(f"blocks.{b}.norm2", c.width)
    if c.classes:
        yield dense("head", c.width, c.classes, init="torch")


def infer(sizes: Sizes) -> dict[str, Any]:
    """Return what a checkpoint's names and shapes say of its Config: all but the activation and the conventions."""
    return {
        "patch": _size(sizes, "stem.kernel"),
        "kernel": _size(sizes, "blocks.0.depthwise.kernel"),
        "depth": sizes.count("blocks"),
        "width": sizes["stem.kernel", "o"],
        "channels": sizes["stem.kernel", "i"],
        "classes": sizes["head.kernel", "o"] if "head.kernel" in sizes else 0,
    }


def _size(sizes: Sizes, name: str) -> Size:
    h, w = sizes[name, "h"], sizes[name, "w"]
    return h if h == w else (h, w)


def input_shape(c: Config) -> tuple[int, int, int]:
    """Return (channels, height, width) of an image that the network takes."""
    return c.channels, *pair(c.image)


def check_images(c: Config, height: int, width: int) -> None:
    """Check that the network can take images of this size. Raises: ValueError."""
    ph, pw = pair(c.patch)
    if height < ph or width < pw:
        raise ValueError(f"images of {height}x{width} are smaller than one patch of {ph}x{pw}")


def immaterial(c: Config) -> set[str]:
    """Return fields that change nothing: the network takes images of any size."""
    return {"image"}


_OFFICIAL = """
stem                 <-> 0
norm                 <-> 2
blocks.{i}.depthwise <-> {i+3}.0.fn.0
blocks.{i}.norm1     <-> {i+3}.0.fn.2
blocks.{i}.pointwise <-> {i+3}.1
blocks.{i}.norm2     <-> {i+3}.3
head                 <-> {depth+5}
"""

_NORM = {"norm_eps": 1e-5, "norm_momentum": 0.9}
_PADDLE_NORM = {  # paddle's kernels round both to float32, whatever the dtype of the arrays
    "norm_eps": 9.999999747378752e-06,
    "norm_momentum": 0.8999999761581421,
}

_PIXELS = {"": (normalised(IMAGENET_MEAN, IMAGENET_STD, 0.96),)}
_NOT_RESIZED = {"": (normalised(0.5, 0.5, 1.0), normalised(0.5, 0.5, 1.0, "bilinear"))}  # CIFAR's 32 pixels as they are

DIALECTS = {
    "official": Dialect("torch", _OFFICIAL, _NORM, about="locuslab/convmixer", preprocessing=_PIXELS),
    "timm": Dialect("torch", """
        stem                 <-> stem.0
        norm                 <-> stem.2
        blocks.{i}.depthwise <-> blocks.{i}.0.fn.0
        blocks.{i}.norm1     <-> blocks.{i}.0.fn.2
        blocks.{i}.pointwise <-> blocks.{i}.1
        blocks.{i}.norm2     <-> blocks.{i}.3
        """, _NORM, about="huggingface/pytorch-image-models", preprocessing=_PIXELS),
    "labml": Dialect("torch", """
        stem                 <-> patch_emb.conv
        norm                 <-> patch_emb.norm
        blocks.{i}.depthwise <-> conv_mixer_layers.{i}.depth_wise_conv
        blocks.{i}.norm1     <-> conv_mixer_layers.{i}.norm1
        blocks.{i}.pointwise <-> conv_mixer_layers.{i}.point_wise_conv
        blocks.{i}.norm2     <-> conv_mixer_layers.{i}.norm2
        head                 <-> classification.linear
        """, {"act": "gelu", **_NORM}, about="labml.ai's annotated ConvMixer", preprocessing=_NOT_RESIZED),
    "paddlevit": Dialect("paddle", _OFFICIAL, _PADDLE_NORM, about="BR-IDL/PaddleViT", preprocessing=_PIXELS),
}  # fmt: skip

SIGN = r"(?i)depth_?wise|(?<!fn\.)\b\d+\.\d\.fn\.\d"

SPEC = Spec(
    config=Config,
    variants=VARIANTS,
    tiny=TINY,
    published=PUBLISHED,
    layers=layers,
    infer=infer,
    input_shape=input_shape,
    check_images=check_images,
    network="ConvMixer",
    feature_maps=("blocks.#",),
    immaterial=immaterial,
    meanings={
        "act": "activation: gelu (by the error function) in the published 1536/20 and 1024/20, relu in 768/32",
        "norm_eps": "what BatchNorm adds to the variance: 1e-5 in all code known here",
        "norm_momentum": "share of the running statistics that a step of training keeps: 0.9 in all code known here",
    },
    dialects=DIALECTS,
    readers={"paddlevit": from_yaml},
    norms={"eps": "norm_eps", "momentum": "norm_momentum"},
    activations={"GELU": {"act": "gelu"}, "ReLU": {"act": "relu"}},
    sign=SIGN,
)

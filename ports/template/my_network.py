"""MyNetwork: patches of an image, mixed by blocks of two dense layers. Replace this network by yours.

Sources: the paper, and the code whose checkpoints are to be read.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

from specs.config import check_numbers
from specs.layer import Layer, Sizes, conv, dense, norm
from specs.spec import Dialect, Spec


@dataclass(frozen=True, kw_only=True)
class Config:
    """Sizes and conventions. Every Config has `channels` and `classes`; a field without a default has to be known."""

    patch: int  # pixels
    depth: int  # blocks
    width: int  # channels of a token
    hidden: int  # of a block's first dense layer
    act: Literal["gelu", "relu"] = "gelu"  # GELU by the error function
    image: int = 224  # pixels of either side
    channels: int = 3  # of the image
    classes: int = 1000  # 0: pooled features instead of logits
    norm_eps: float = 1e-6

    def __post_init__(self) -> None:
        check_numbers(self, self.depth, "patch", "width", "hidden", "image", "channels")


VARIANTS = {"S": Config(patch=16, depth=8, width=256, hidden=512)}

TINY = {  # small twins that use every option; unlike sizes, so that no two axes can be confused, and an epsilon
    # that is no framework's default, so that a port which forgets it is found
    "S": Config(patch=2, depth=2, width=7, hidden=11, image=6, classes=5),
    "relu, headless": Config(
        patch=3, depth=1, width=5, hidden=13, act="relu", image=9, channels=1, classes=0, norm_eps=1e-4
    ),
}


def layers(c: Config) -> Iterator[Layer]:
    """Yield the layers, in the order they run; every port names its modules by these paths."""
    yield conv("stem", c.channels, c.width, c.patch, c.patch)
    for b in range(c.depth):
        yield norm(f"blocks.{b}.norm", c.width)
        yield dense(f"blocks.{b}.fc1", c.width, c.hidden)
        yield dense(f"blocks.{b}.fc2", c.hidden, c.width)
    if c.classes:
        yield dense("head", c.width, c.classes)


def infer(sizes: Sizes) -> dict[str, Any]:
    """Return what a checkpoint's names and shapes say of its Config."""
    return {
        "patch": sizes["stem.kernel", "h"],
        "depth": sizes.count("blocks"),
        "width": sizes["stem.kernel", "o"],
        "hidden": sizes["blocks.0.fc1.kernel", "o"],
        "channels": sizes["stem.kernel", "i"],
        "classes": sizes["head.kernel", "o"] if "head.kernel" in sizes else 0,
    }


def input_shape(c: Config) -> tuple[int, int, int]:
    """Return (channels, height, width) of an image that the network takes."""
    return c.channels, c.image, c.image


def immaterial(c: Config) -> set[str]:
    """Return fields that change nothing for this Config: the network takes images of any size."""
    return {"image"}


DIALECTS = {
    "original": Dialect("torch", """
        stem            <-> embed.proj
        blocks.{i}.norm <-> layers.{i}.0
        blocks.{i}.fc1  <-> layers.{i}.1
        blocks.{i}.fc2  <-> layers.{i}.3
        head            <-> classifier
        """, {"act": "gelu", "norm_eps": 1e-6}, about="the code that this network comes from"),
}  # fmt: skip

SPEC = Spec(
    config=Config,
    layers=layers,
    infer=infer,
    variants=VARIANTS,
    tiny=TINY,
    input_shape=input_shape,
    immaterial=immaterial,
    norms={"eps": "norm_eps"},
    activations={"GELU": {"act": "gelu"}, "ReLU": {"act": "relu"}},
    network="MyNetwork",
    ports={"flax": "my_network_flax.py", "torch": "my_network_torch.py", "paddle": "my_network_paddle.py"},
    dialects=DIALECTS,
)

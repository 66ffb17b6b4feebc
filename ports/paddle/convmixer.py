"""ConvMixer in PaddlePaddle. Images and feature maps are (b c h w)."""

from paddle import Tensor, nn

from specs.config import pair
from specs.convmixer import Config

from .layers import PointwiseConv2D

ACT = {"gelu": nn.GELU, "relu": nn.ReLU}


class Block(nn.Layer):
    def __init__(self, c: Config):
        super().__init__()
        self.act = ACT[c.act]()
        self.depthwise = nn.Conv2D(c.width, c.width, pair(c.kernel), padding="SAME", groups=c.width)
        self.norm1 = batch_norm(c)
        self.pointwise = PointwiseConv2D(c.width, c.width)
        self.norm2 = batch_norm(c)

    def forward(self, x: Tensor) -> Tensor:  # (b c h w) -> (b c h w)
        x = x + self.norm1(self.act(self.depthwise(x)))
        return self.norm2(self.act(self.pointwise(x)))


class ConvMixer(nn.Layer):
    """images (b c h w) -> logits (b classes), or pooled features (b width) with 0 classes."""

    def __init__(self, c: Config):
        super().__init__()
        self.act = ACT[c.act]()
        self.stem = nn.Conv2D(c.channels, c.width, pair(c.patch), pair(c.patch))
        self.norm = batch_norm(c)
        self.blocks = nn.Sequential(*(Block(c) for _ in range(c.depth)))
        self.drop = nn.Dropout(c.dropout)
        self.head = nn.Linear(c.width, c.classes) if c.classes else nn.Identity()

    def forward(self, images: Tensor) -> Tensor:
        x = self.norm(self.act(self.stem(images)))
        x = self.blocks(x).mean((2, 3))  # (b c h w) -> (b c)
        return self.head(self.drop(x))


def batch_norm(c: Config) -> nn.BatchNorm2D:
    """Build a norm with the Config's momentum and epsilon."""
    return nn.BatchNorm2D(c.width, c.norm_momentum, c.norm_eps)

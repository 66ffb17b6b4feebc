"""ConvMixer in PyTorch. Images and feature maps are (b c h w)."""

from torch import Tensor, nn

from specs.config import pair
from specs.convmixer import Config

ACT = {"gelu": nn.GELU, "relu": nn.ReLU}


class Block(nn.Module):
    def __init__(self, c: Config):
        super().__init__()
        self.act = ACT[c.act]()
        self.depthwise = nn.Conv2d(c.width, c.width, pair(c.kernel), padding="same", groups=c.width)
        self.norm1 = batch_norm(c)
        self.pointwise = nn.Conv2d(c.width, c.width, 1)
        self.norm2 = batch_norm(c)

    def forward(self, x: Tensor) -> Tensor:  # (b c h w) -> (b c h w)
        x = x + self.norm1(self.act(self.depthwise(x)))
        return self.norm2(self.act(self.pointwise(x)))


class ConvMixer(nn.Module):
    """images (b c h w) -> logits (b classes), or pooled features (b width) with 0 classes."""

    def __init__(self, c: Config):
        super().__init__()
        self.act = ACT[c.act]()
        self.stem = nn.Conv2d(c.channels, c.width, pair(c.patch), pair(c.patch))
        self.norm = batch_norm(c)
        self.blocks = nn.Sequential(*(Block(c) for _ in range(c.depth)))
        self.drop = nn.Dropout(c.dropout)
        self.head = nn.Linear(c.width, c.classes) if c.classes else nn.Identity()

    def forward(self, images: Tensor) -> Tensor:
        x = self.norm(self.act(self.stem(images)))
        x = self.blocks(x).mean((2, 3))  # (b c h w) -> (b c)
        return self.head(self.drop(x))


def batch_norm(c: Config) -> nn.BatchNorm2d:
    """Build a norm; the Config's momentum is the share of the old statistics, torch's that of the new ones."""
    return nn.BatchNorm2d(c.width, eps=c.norm_eps, momentum=1 - c.norm_momentum)

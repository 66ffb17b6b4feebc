"""ConvMixer in flax linen. Images and feature maps are (b h w c)."""

from functools import partial

import flax.linen as nn

from specs.config import pair
from specs.convmixer import Config

from .depthwise import depthwise_conv
from .layers import pointwise_conv

ACT = {"gelu": partial(nn.gelu, approximate=False), "relu": nn.relu}


class Block(nn.Module):
    config: Config

    @nn.compact
    def __call__(self, x, train=False):  # (b h w c) -> (b h w c)
        c, act = self.config, ACT[self.config.act]
        depthwise = {"feature_group_count": c.width, "conv_general_dilated": depthwise_conv}
        y = nn.Conv(c.width, pair(c.kernel), padding="SAME", name="depthwise", **depthwise)(x)
        x = x + batch_norm(c, train, name="norm1")(act(y))
        y = nn.Conv(c.width, (1, 1), conv_general_dilated=pointwise_conv, name="pointwise")(x)
        return batch_norm(c, train, name="norm2")(act(y))


class ConvMixer(nn.Module):
    """images (b h w c) -> logits (b classes), or pooled features (b width) with 0 classes."""

    config: Config

    @nn.compact
    def __call__(self, images, train=False):
        c, act = self.config, ACT[self.config.act]
        x = nn.Conv(c.width, pair(c.patch), pair(c.patch), padding="VALID", name="stem")(images)
        x = batch_norm(c, train, name="norm")(act(x))
        for i in range(c.depth):
            x = Block(c, name=f"blocks_{i}")(x, train)
        x = nn.Dropout(c.dropout, deterministic=not train)(x.mean((1, 2)))  # (b h w c) -> (b c)
        return nn.Dense(c.classes, name="head")(x) if c.classes else x


def batch_norm(c: Config, train: bool, name: str) -> nn.BatchNorm:
    """Build a norm that computes its variance as the other frameworks do, from differences to the mean."""
    return nn.BatchNorm(not train, momentum=c.norm_momentum, epsilon=c.norm_eps, use_fast_variance=False, name=name)

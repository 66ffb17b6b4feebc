"""MLP-Mixer in flax linen. Images are (b h w c), tokens (b t c)."""

import flax.linen as nn
import jax.numpy as jnp
from einops import rearrange

from specs.config import pair
from specs.mlp_mixer import Config

from .layers import DropPath, gelu


class Mlp(nn.Module):
    hidden: int
    gelu: str
    dropout: float

    @nn.compact
    def __call__(self, x, train=False):  # (... i) -> (... i)
        drop = nn.Dropout(self.dropout, deterministic=not train)
        y = drop(gelu(nn.Dense(self.hidden, name="fc1")(x), self.gelu))
        return drop(nn.Dense(x.shape[-1], name="fc2")(y))


class Block(nn.Module):
    config: Config

    @nn.compact
    def __call__(self, x, train=False):  # (b t c) -> (b t c)
        c = self.config
        drop_path = DropPath(c.drop_path, deterministic=not train)
        y = LayerNorm(c, name="norm1")(x).swapaxes(1, 2)
        y = Mlp(c.token_hidden, c.gelu, c.dropout, name="token_mix")(y, train).swapaxes(1, 2)
        x = x + drop_path(y)
        y = LayerNorm(c, name="norm2")(x)
        return x + drop_path(Mlp(c.channel_hidden, c.gelu, c.dropout, name="channel_mix")(y, train))


class MlpMixer(nn.Module):
    """images (b h w c) -> logits (b classes), or pooled features (b width) with 0 classes."""

    config: Config

    @nn.compact
    def __call__(self, images, train=False):
        c = self.config
        patch = pair(c.patch)
        x = nn.Conv(c.width, patch, patch, padding=c.padding, name="stem")(images)
        x = rearrange(x, "b h w c -> b (h w) c")
        for i in range(c.depth):
            x = Block(c, name=f"blocks_{i}")(x, train)
        x = jnp.mean(LayerNorm(c, name="norm")(x), axis=1)
        return nn.Dense(c.classes, name="head")(x) if c.classes else x


def LayerNorm(c: Config, name: str) -> nn.LayerNorm:
    return nn.LayerNorm(epsilon=c.norm_eps, use_fast_variance=False, name=name)

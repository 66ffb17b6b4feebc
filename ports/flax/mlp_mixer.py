"""MLP-Mixer in flax linen. Images are (b h w c), tokens (b t c)."""

from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from einops import rearrange

from specs.config import pair
from specs.mlp_mixer import Config, check_images

from .layers import DropPath, LinearOverRows, gelu


class Mlp(nn.Module):
    """Two dense layers over the channels, or over the tokens by LinearOverRows, which transposes nothing."""

    width: int
    hidden: int
    config: Config
    dense: Any = nn.Dense

    @nn.compact
    def __call__(self, x, train=False):  # (b t c) -> (b t c)
        c = self.config
        drop = nn.Dropout(c.dropout, deterministic=not train)
        y = drop(gelu(self.dense(self.hidden, name="fc1")(x), c.gelu))
        return drop(self.dense(self.width, name="fc2")(y))


class Block(nn.Module):
    config: Config

    @nn.compact
    def __call__(self, x, train=False):  # (b t c) -> (b t c)
        c = self.config
        drop_path = DropPath(c.drop_path, deterministic=not train)
        token_mix = Mlp(c.token_count, c.token_hidden, c, LinearOverRows, name="token_mix")
        x = x + drop_path(token_mix(layer_norm(c, name="norm1")(x), train))
        channel_mix = Mlp(c.width, c.channel_hidden, c, name="channel_mix")
        return x + drop_path(channel_mix(layer_norm(c, name="norm2")(x), train))


class MlpMixer(nn.Module):
    """images (b h w c) -> logits (b classes), or pooled features (b width) with 0 classes."""

    config: Config

    @nn.compact
    def __call__(self, images, train=False):
        c = self.config
        check_images(c, *images.shape[1:3])
        patch = pair(c.patch)
        x = nn.Conv(c.width, patch, patch, padding=c.padding, name="stem")(images)
        x = rearrange(x, "b h w c -> b (h w) c")
        for i in range(c.depth):
            x = Block(c, name=f"blocks_{i}")(x, train)
        x = jnp.mean(layer_norm(c, name="norm")(x), axis=1)
        return nn.Dense(c.classes, name="head")(x) if c.classes else x


def layer_norm(c: Config, name: str) -> nn.LayerNorm:
    """Build a norm that computes its variance as the other frameworks do, from differences to the mean."""
    return nn.LayerNorm(epsilon=c.norm_eps, use_fast_variance=False, name=name)

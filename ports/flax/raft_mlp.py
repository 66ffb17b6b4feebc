"""RaftMLP in flax linen. Images and maps of tokens are (b h w c), their channels g groups of o: c = (g o)."""

import flax.linen as nn
import jax.numpy as jnp
from einops import rearrange
from flax.linen.dtypes import promote_dtype
from jax import lax

from specs.raft_mlp import Config, LevelConfig

from .layers import DropPath, LinearOverRows, gelu, resize

# How each token mixing sees a map: what it mixes, and what rides along.
RAFTS = {"vertical": "b (g h) (w o)", "horizontal": "b (g w) (h o)", "token_mix": "b (g h w) (1 o)"}


class MultiScalePatchEmbedding(nn.Module):
    """Embeds each patch from windows of several sizes around it, by one dense layer over all their pixels.

    That is a convolution: all windows move alike and lie within the largest, so its kernel is the sum of the dense
    layer's slices, each padded to the largest. Nothing is unfolded.
    """

    level: LevelConfig

    @nn.compact
    def __call__(self, x):  # (b h w c) -> (b h/s w/s o)
        level = self.level
        weight = self.param("kernel", nn.initializers.lecun_normal(), (level.features, level.width), jnp.float32)
        bias = self.param("bias", nn.initializers.zeros, (level.width,), jnp.float32)
        x, weight, bias = promote_dtype(x, weight, bias)
        kernel = sum(
            jnp.pad(rearrange(weight[features], "(c h w) o -> h w c o", h=k, w=k), [[margin] * 2] * 2 + [[0, 0]] * 2)
            for features, k, margin in level.windows
        )
        stride, padding = [level.patch] * 2, [[level.padding] * 2] * 2
        return lax.conv_general_dilated(x, kernel, stride, padding, dimension_numbers=("NHWC", "HWIO", "NHWC")) + bias


class TokenMixing(nn.Module):
    """Mixes the tokens of each column (vertical) or row (horizontal) over a raft of g groups of channels at a time.

    Named "token_mix" it mixes all tokens of a map; g is 1.
    """

    level: LevelConfig
    config: Config

    @nn.compact
    def __call__(self, x, train=False):  # (b h w c) -> (b h w c)
        c, level = self.config, self.level
        rafts, axes, length = RAFTS[self.name], level.axes, level.mixings[self.name]
        drop = nn.Dropout(c.dropout, deterministic=not train)
        drop_path = DropPath(c.drop_path, deterministic=not train)
        y = rearrange(layer_norm(c, name="norm")(x), f"b h w (g o) -> {rafts}", **axes)
        y = LinearOverRows(c.token_expansion * level.groups * length, name="fc1")(y)
        y = drop(LinearOverRows(level.groups * length, name="fc2")(drop(gelu(y, "erf"))))
        y = rearrange(y, f"{rafts} -> b h w (g o)", **axes)
        return x + drop_path(y)


class ChannelMixing(nn.Module):
    level: LevelConfig
    config: Config

    @nn.compact
    def __call__(self, x, train=False):  # (b h w c) -> (b h w c)
        c, level = self.config, self.level
        drop = nn.Dropout(c.dropout, deterministic=not train)
        drop_path = DropPath(c.drop_path, deterministic=not train)
        y = nn.Dense(c.channel_expansion * level.width, name="fc1")(layer_norm(c, name="norm")(x))
        y = drop(nn.Dense(level.width, name="fc2")(drop(gelu(y, "erf"))))
        return x + drop_path(y)


class Block(nn.Module):
    """Raft-token mixing on the grid that it was made for, to which other maps are resized, then channel mixing."""

    level: LevelConfig
    config: Config

    @nn.compact
    def __call__(self, x, train=False):  # (b h w c) -> (b h w c)
        c, level = self.config, self.level
        y = TokenMixing(level, c, name="vertical")(resize(x, level.grid), train)
        y = TokenMixing(level, c, name="horizontal")(y, train)
        return ChannelMixing(level, c, name="channel")(resize(y, x.shape[1:3]), train)


class MixerBlock(nn.Module):
    """Mixing of all tokens on the grid that it was made for, to which other maps are resized, then channel mixing."""

    level: LevelConfig
    config: Config

    @nn.compact
    def __call__(self, x, train=False):  # (b h w c) -> (b h w c)
        c, level = self.config, self.level
        y = TokenMixing(level, c, name="token_mix")(resize(x, level.grid), train)
        return ChannelMixing(level, c, name="channel_mix")(resize(y, x.shape[1:3]), train)


class Level(nn.Module):
    """Patches of the map below, embedded, then blocks. Ragged edges are resized away."""

    level: LevelConfig
    config: Config

    @nn.compact
    def __call__(self, x, train=False):  # (b h w c) -> (b h/p w/p o)
        level = self.level
        x = resize(x, level.whole_patches(*x.shape[1:3]))
        if level.kernels:
            x = MultiScalePatchEmbedding(level, name="multi_scale_embed")(x)
        else:
            x = rearrange(x, "b (h p) (w q) c -> b h w (p q c)", p=level.patch, q=level.patch)
            x = nn.Dense(level.width, name="patch_embed")(x)
        block = Block if level.raft else MixerBlock
        for b in range(level.depth):
            x = block(level, self.config, name=f"blocks_{b}")(x, train)
        return x


class Head(nn.Module):
    """A level's map, pooled; for a shortcut, as scale and shift of what the level above it pools."""

    shortcut: int
    config: Config

    @nn.compact
    def __call__(self, x):  # (b h w c) -> (b c), or (b shortcut)
        x = layer_norm(self.config, name="norm")(x).mean((1, 2))
        return nn.Dense(self.shortcut, name="fc")(x) if self.shortcut else x


class RaftMlp(nn.Module):
    """images (b h w c) -> logits (b classes), or pooled features (b width) with 0 classes."""

    config: Config

    @nn.compact
    def __call__(self, images, train=False):
        c = self.config
        maps = [images]
        for n, level in enumerate(c.levels):
            maps.append(Level(level, c, name=f"levels_{n}")(maps[-1], train))
        shortcuts = [2 * c.widths[-1]] * (len(c.levels) - 1) if c.shortcut else []
        heads = [Head(shortcut, c, name=f"heads_{n}") for n, shortcut in enumerate([*shortcuts, 0])]
        *shortcuts, x = [head(x) for head, x in zip(heads, maps[-len(heads) :], strict=True)]
        for scale_and_shift in reversed(shortcuts):
            scale, shift = jnp.split(scale_and_shift, 2, axis=1)
            x = scale * x + shift
        return nn.Dense(c.classes, name="classifier")(x) if c.classes else x


def layer_norm(c: Config, name: str) -> nn.LayerNorm:
    """Build a norm that computes its variance as the other frameworks do, from differences to the mean."""
    return nn.LayerNorm(epsilon=c.norm_eps, use_fast_variance=False, name=name)

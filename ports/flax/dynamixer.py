"""DynaMixer in flax linen. Images and tokens are (b h w c)."""

import flax.linen as nn
import jax.numpy as jnp
from einops import rearrange

from specs.dynamixer import Config, StageConfig

from .layers import DropPath, gelu

# How tokens of a line are gathered, and mixed: h and w place the line, i and o are its inputs and outputs.
ROWS = "b h w (s d) -> b h s (w d)", "bhsio, bhisk -> bhosk"
COLUMNS = "b h w (s d) -> b w s (h d)", "bwsio, biwsk -> bowsk"


class DynaMixerOp(nn.Module):
    """Mixes the tokens of each line by matrices that the line generates, one for each segment of the channels.

    A line is a row or a column. All lines of all images are one batched product.
    """

    stage: StageConfig
    length: int
    gather: str
    mix: str

    @nn.compact
    def __call__(self, x):  # (b h w c) -> (b h w c)
        s = self.stage.segments
        y = rearrange(nn.Dense(s * self.stage.reduced, name="compress")(x), self.gather, s=s)
        weights = nn.Dense(self.length**2, name="generate")(y)
        weights = rearrange(weights, "b n s (i o) -> b n s i o", i=self.length)
        weights = nn.softmax(weights, axis=-2)  # each output's weights over its inputs
        y = jnp.einsum(self.mix, weights, rearrange(x, "b h w (s k) -> b h w s k", s=s))
        return nn.Dense(self.stage.width, name="out")(rearrange(y, "b h w s k -> b h w (s k)"))


class DynaMixing(nn.Module):
    """Columns, rows and channels mixed side by side, then weighed against each other, channel by channel."""

    stage: StageConfig

    @nn.compact
    def __call__(self, x):  # (b h w c) -> (b h w c)
        width, (rows, columns) = self.stage.width, self.stage.grid
        h = DynaMixerOp(self.stage, rows, *COLUMNS, name="columns")(x)  # a column is as long as there are rows
        w = DynaMixerOp(self.stage, columns, *ROWS, name="rows")(x)
        c = nn.Dense(width, use_bias=self.stage.qkv_bias, name="channels")(x)
        weights = Mlp(width // 4, 3 * width, name="reweight")((h + w + c).mean((1, 2)))
        weights = nn.softmax(rearrange(weights, "b (c k) -> k b 1 1 c", k=3), axis=0)
        return nn.Dense(width, name="proj")(weights[0] * h + weights[1] * w + weights[2] * c)


class Mlp(nn.Module):
    hidden: int
    out: int

    @nn.compact
    def __call__(self, x):  # (... i) -> (... o)
        return nn.Dense(self.out, name="fc2")(gelu(nn.Dense(self.hidden, name="fc1")(x), "erf"))


class Block(nn.Module):
    stage: StageConfig
    drop_path: float
    norm_eps: float

    @nn.compact
    def __call__(self, x, train=False):  # (b h w c) -> (b h w c)
        drop_path = DropPath(self.drop_path, deterministic=not train)
        y = layer_norm(self.norm_eps, name="norm1")(x)
        x = x + drop_path(DynaMixing(self.stage, name="mix")(y)) / self.stage.skip_lam
        y = layer_norm(self.norm_eps, name="norm2")(x)
        return x + drop_path(Mlp(self.stage.hidden, self.stage.width, name="mlp")(y)) / self.stage.skip_lam


class Stage(nn.Module):
    """Blocks of one width on one grid, then a convolution to the next stage's, where that differs."""

    stage: StageConfig
    norm_eps: float

    @nn.compact
    def __call__(self, x, train=False):  # (b h w c) -> (b h' w' c')
        for b, rate in enumerate(self.stage.drop_paths):
            x = Block(self.stage, rate, self.norm_eps, name=f"blocks_{b}")(x, train)
        if self.stage.downsample is None:
            return x
        width, (kernel, stride, padding) = self.stage.downsample
        return nn.Conv(width, (kernel, kernel), stride, padding, name="downsample")(x)


class DynaMixer(nn.Module):
    """images (b h w c) -> logits (b classes), or pooled features (b width) with 0 classes."""

    config: Config

    @nn.compact
    def __call__(self, images, train=False):
        c = self.config
        kernel, stride, padding = zip(*c.stem, strict=True)
        x = nn.Conv(c.widths[0], kernel, stride, [(side, side) for side in padding], name="stem")(images)
        for s, stage in enumerate(c.stages):
            x = Stage(stage, c.norm_eps, name=f"stages_{s}")(x, train)
        x = layer_norm(c.norm_eps, name="norm")(x).mean((1, 2))
        return nn.Dense(c.classes, name="head")(x) if c.classes else x


def layer_norm(eps: float, name: str) -> nn.LayerNorm:
    """Build a norm that computes its variance as the other frameworks do, from differences to the mean."""
    return nn.LayerNorm(epsilon=eps, use_fast_variance=False, name=name)

"""MyNetwork in flax linen. Images are (b h w c), tokens (b t c)."""

from typing import Any

import flax.linen as nn
import jax

ACTIVATIONS = {"gelu": lambda x: jax.nn.gelu(x, approximate=False), "relu": jax.nn.relu}


class Block(nn.Module):
    config: Any

    @nn.compact
    def __call__(self, x):  # (b t c) -> (b t c)
        c = self.config
        y = nn.LayerNorm(epsilon=c.norm_eps, use_fast_variance=False, name="norm")(x)
        y = ACTIVATIONS[c.act](nn.Dense(c.hidden, name="fc1")(y))
        return x + nn.Dense(c.width, name="fc2")(y)


class MyNetwork(nn.Module):
    """images (b h w c) -> logits (b classes), or pooled features (b width) with 0 classes."""

    config: Any

    @nn.compact
    def __call__(self, images, train=False):
        c = self.config
        patch = (c.patch, c.patch)
        x = nn.Conv(c.width, patch, patch, padding="VALID", name="stem")(images)
        x = x.reshape(len(x), -1, c.width)
        for b in range(c.depth):
            x = Block(c, name=f"blocks_{b}")(x)
        x = x.mean(1)
        return nn.Dense(c.classes, name="head")(x) if c.classes else x

"""Read the momentum of a model's batch norms, which training uses alone."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from typing import Any

from specs.numerals import exact
from specs.words import in_a_row


def momenta(model: Any) -> list[str]:
    """List the shares of the old statistics that steps of training keep, each once: 0.9 for torch's momentum of 0.1.

    [] for models whose norms do not state them: those of linen exist while the model runs.
    """
    return sorted({exact(round(share, 12)) for share in _shares(model)})


def _shares(model: Any) -> Iterator[float]:
    torch, paddle, nnx = (sys.modules.get(name) for name in ("torch", "paddle", "flax.nnx"))
    if torch and isinstance(model, torch.nn.Module):
        for module in model.modules():
            if isinstance(module, torch.nn.modules.batchnorm._BatchNorm) and module.momentum is not None:
                yield 1 - module.momentum
    elif paddle and isinstance(model, paddle.nn.Layer):
        for layer in model.sublayers(include_self=True):
            if isinstance(layer, paddle.nn.layer.norm._BatchNormBase):
                yield layer._momentum
    elif nnx and isinstance(model, nnx.Module):
        for _, module in nnx.iter_modules(model):
            if isinstance(module, nnx.BatchNorm):
                yield module.momentum


def unlike(left: Sequence[str], right: Sequence[str], places: Sequence[str] = ("on the left", "on the right")) -> str:
    """Say which momenta two models have: "0.9 on the left, 0.99 on the right"; "" where they are alike or not known."""
    if not left or not right or left == right:
        return ""
    return ", ".join(f"{in_a_row(some)} {place}" for some, place in zip((left, right), places, strict=True))

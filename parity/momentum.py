"""Read the momentum of a model's batch norms, which training uses alone."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any

from specs.numerals import exact


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


def unlike(left: Any, right: Any) -> str:
    """Say which momentum each of two models has: "0.9 on the left, 0.99 on the right"; "" where both have the same."""
    one, other = momenta(left), momenta(right)
    if not one or not other or one == other:
        return ""
    return f"{' and '.join(one)} on the left, {' and '.join(other)} on the right"

"""Read the momentum of a model's batch norms, and its rates of dropout: training alone uses them."""

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


def dropouts(model: Any) -> list[str] | None:
    """List the rates of dropout that a model's modules state, each once, above 0; None where no modules can be read.

    Those of linen exist while the model runs. Dropout by a function, as torch's F.dropout, is not seen.
    """
    torch, paddle, nnx = (sys.modules.get(name) for name in ("torch", "paddle", "flax.nnx"))
    kinds: dict[type, str]  # the attribute with the rate
    if torch and isinstance(model, torch.nn.Module):
        kinds = {torch.nn.modules.dropout._DropoutNd: "p", torch.nn.MultiheadAttention: "dropout"}
        modules = list(model.modules())
    elif paddle and isinstance(model, paddle.nn.Layer):
        own = (paddle.nn.Dropout, paddle.nn.Dropout2D, paddle.nn.Dropout3D, paddle.nn.AlphaDropout)
        kinds = {**dict.fromkeys(own, "p"), paddle.nn.MultiHeadAttention: "dropout"}
        modules = model.sublayers(include_self=True)
    elif nnx and isinstance(model, nnx.Module):
        kinds = {nnx.Dropout: "rate", nnx.MultiHeadAttention: "dropout_rate"}
        modules = [module for _, module in nnx.iter_modules(model)]
    else:
        return None
    rates = {getattr(one, name) for one in modules for kind, name in kinds.items() if isinstance(one, kind)}
    return sorted(exact(rate) for rate in rates if isinstance(rate, int | float) and rate > 0)


def unlike_dropouts(left: Sequence[str] | None, right: Sequence[str] | None) -> str:
    """Say which rates of dropout two models have; "" where they are alike or not known."""
    if left is None or right is None or left == right:
        return ""
    sides = ((left, "on the left"), (right, "on the right"))
    return ", ".join(f"{in_a_row(some) if some else 'none in the modules'} {place}" for some, place in sides)


def unlike(left: Sequence[str], right: Sequence[str], places: Sequence[str] = ("on the left", "on the right")) -> str:
    """Say which momenta two models have: "0.9 on the left, 0.99 on the right"; "" where they are alike or not known."""
    if not left or not right or left == right:
        return ""
    return ", ".join(f"{in_a_row(some)} {place}" for some, place in zip((left, right), places, strict=True))

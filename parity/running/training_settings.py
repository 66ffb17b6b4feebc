"""Read the momentum of a model's batch norms, and its rates of dropout: training alone uses them."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from typing import Any

from specs.numbers import exact
from specs.words import in_a_row

NO_DROPOUT = ["none in the modules"]


def momenta(model: Any) -> list[str]:
    """List the shares of the old statistics that steps of training keep, each once: 0.9 for torch's momentum of 0.1.

    [] for models whose norms do not state them: those of linen exist while the model runs.
    """
    return sorted({exact(round(share, 12)) for share in _shares(model)})


def _modules(model: Any) -> tuple[str, list[Any]]:
    """Return the framework of a model and its modules; ("", []) of one whose modules cannot be read."""
    torch, paddle, nnx = (sys.modules.get(name) for name in ("torch", "paddle", "flax.nnx"))
    if torch and isinstance(model, torch.nn.Module):
        return "torch", list(model.modules())
    if paddle and isinstance(model, paddle.nn.Layer):
        return "paddle", model.sublayers(include_self=True)
    if nnx and isinstance(model, nnx.Module):
        return "flax.nnx", [module for _, module in nnx.iter_modules(model)]
    return "", []


def _shares(model: Any) -> Iterator[float]:
    framework, modules = _modules(model)
    library: Any = sys.modules.get(framework)
    for module in modules:
        if framework == "torch":
            if isinstance(module, library.nn.modules.batchnorm._BatchNorm) and module.momentum is not None:
                yield 1 - module.momentum
        elif framework == "paddle":
            if isinstance(module, library.nn.layer.norm._BatchNormBase):
                yield module._momentum
        elif isinstance(module, library.BatchNorm):
            yield module.momentum


def dropouts(model: Any) -> list[str] | None:
    """List the rates of dropout that a model's modules state, each once, above 0; None where no modules can be read.

    Those of linen exist while the model runs. Dropout by a function, as torch's F.dropout, is not seen.
    """
    framework, modules = _modules(model)
    if not framework:
        return None
    library: Any = sys.modules[framework]
    kinds: dict[type, str]  # the attribute with the rate
    if framework == "torch":
        kinds = {library.nn.modules.dropout._DropoutNd: "p", library.nn.MultiheadAttention: "dropout"}
    elif framework == "paddle":
        own = (library.nn.Dropout, library.nn.Dropout2D, library.nn.Dropout3D, library.nn.AlphaDropout)
        kinds = {**dict.fromkeys(own, "p"), library.nn.MultiHeadAttention: "dropout"}
    else:
        kinds = {library.Dropout: "rate", library.MultiHeadAttention: "dropout_rate"}
    rates = {getattr(module, name) for module in modules for kind, name in kinds.items() if isinstance(module, kind)}
    return sorted(exact(rate) for rate in rates if isinstance(rate, int | float) and rate > 0)


def unlike_dropouts(left: Sequence[str] | None, right: Sequence[str] | None) -> str:
    """Say which rates of dropout two models have; "" where they are alike or not known."""
    return "" if left is None or right is None else unlike(left or NO_DROPOUT, right or NO_DROPOUT)


def unlike(left: Sequence[str], right: Sequence[str], places: Sequence[str] = ("on the left", "on the right")) -> str:
    """Say which settings two models have: "0.9 on the left, 0.99 on the right"; "" if they are alike or not known."""
    if not left or not right or left == right:
        return ""
    return ", ".join(f"{in_a_row(some)} {place}" for some, place in zip((left, right), places, strict=True))

"""Compute Paddle's normalisation in float64 with the epsilon and momentum of its layers.

Paddle's kernels take both as float32: a momentum of 0.9 acts as 0.8999999762 on float64 tensors, which moves running
statistics by 1e-7 within ten steps, and an epsilon of 1e-5 is off by 2.5e-13, which shows wherever variances are small.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import paddle
from paddle import _C_ops

SETTINGS = {  # what paddle's norms round, and what that does to a training in paddle
    "epsilon": "",
    "momentum": ", which moves running statistics that paddle trains by about 1e-7",
}


@contextmanager
def exact(dtype: str, notes: list[str]) -> Iterator[None]:
    """Compute norms on float64 tensors in float64 throughout, wherever float32 cannot hold epsilon or momentum.

    Args:
      dtype: of the model; nothing is replaced unless it is float64.
      notes: receives a sentence on each of the two that float32 rounds in a norm of the block.
    """
    if dtype != "float64":
        yield
        return
    rounded = set[str]()
    originals = {name: getattr(_C_ops, name) for name in _REPLACEMENTS}
    for name, original in originals.items():
        setattr(_C_ops, name, _REPLACEMENTS[name](original, rounded))
    try:
        yield
    finally:
        for name, original in originals.items():
            setattr(_C_ops, name, original)
        for name in (name for name in SETTINGS if name in rounded):
            what = f"paddle's norms round {name} to float32{SETTINGS[name]}"
            note = f"{what}; here they compute in float64 without this rounding"
            notes += [note] if note not in notes else []


def _batch_norm(original: Any, rounded: set[str]) -> Callable[..., Any]:
    def batch_norm(
        x: Any, mean: Any, var: Any, weight: Any, bias: Any, test: bool, momentum: float, epsilon: float,
        layout: str, use_global: bool, *more: Any,
    ) -> Any:  # fmt: skip
        train = not (test or use_global)
        if not _rounds({"epsilon": epsilon} | ({"momentum": momentum} if train else {}), x, rounded):
            return original(x, mean, var, weight, bias, test, momentum, epsilon, layout, use_global, *more)
        channel = 1 if layout == "NCHW" else x.ndim - 1
        shape = [-1 if k == channel else 1 for k in range(x.ndim)]
        axes = [k for k in range(x.ndim) if k != channel]
        centre, spread = mean, var
        if train:
            centre = x.mean(axes)
            spread = (x - centre.reshape(shape)).square().mean(axes)
            mean.set_value(momentum * mean + (1 - momentum) * centre.detach())
            var.set_value(momentum * var + (1 - momentum) * spread.detach())
        out = (x - centre.reshape(shape)) * paddle.rsqrt(spread + epsilon).reshape(shape)
        return (_affine(out, weight, bias, shape), *[None] * 5)

    return batch_norm


def _layer_norm(original: Any, rounded: set[str]) -> Callable[..., Any]:
    def layer_norm(x: Any, weight: Any, bias: Any, epsilon: float, begin: int, *more: Any) -> Any:
        if not _rounds({"epsilon": epsilon}, x, rounded):
            return original(x, weight, bias, epsilon, begin, *more)
        return _affine(_normed(x, range(begin, x.ndim), epsilon), weight, bias, [1] * begin + list(x.shape[begin:]))

    return layer_norm


def _group_norm(original: Any, rounded: set[str]) -> Callable[..., Any]:
    def group_norm(x: Any, weight: Any, bias: Any, epsilon: float, groups: int, layout: str, *more: Any) -> Any:
        if layout != "NCHW" or not _rounds({"epsilon": epsilon}, x, rounded):
            return original(x, weight, bias, epsilon, groups, layout, *more)
        split = x.reshape([x.shape[0], groups, -1])
        shape = [1, -1] + [1] * (x.ndim - 2)
        return _affine(_normed(split, [2], epsilon).reshape(x.shape), weight, bias, shape)

    return group_norm


_REPLACEMENTS: dict[str, Any] = {"batch_norm": _batch_norm, "layer_norm": _layer_norm, "group_norm": _group_norm}


def _normed(x: Any, axes: Sequence[int], epsilon: float) -> Any:
    centred = x - x.mean(list(axes), keepdim=True)
    return centred * paddle.rsqrt(centred.square().mean(list(axes), keepdim=True) + epsilon)


def _affine(x: Any, weight: Any, bias: Any, shape: list[int]) -> Any:
    x = x if weight is None else x * weight.reshape(shape)
    return x if bias is None else x + bias.reshape(shape)


def _rounds(settings: Mapping[str, float], x: Any, rounded: set[str]) -> bool:
    """Tell whether float32 rounds any of the settings, and add the names of those to `rounded`."""
    if x.dtype != paddle.float64:
        return False
    off = {name for name, value in settings.items() if float(np.float32(value)) != value}
    rounded |= off
    return bool(off)

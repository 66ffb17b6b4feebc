"""Write out fused operations of torch, so that what they are made of is recorded instead.

Attention gets one scale, as other code has it: torch scales queries and keys by its root each.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch.overrides import TorchFunctionMode

FUSED = torch.nn.functional.scaled_dot_product_attention


def _layer_norm(x: Any, shape: Any, weight: Any, bias: Any, eps: float) -> Any:
    dims = tuple(range(x.dim() - len(shape), x.dim()))
    mean = x.mean(dims, keepdim=True)
    rstd = torch.rsqrt(x.var(dims, correction=0, keepdim=True) + eps)
    return _affine((x - mean) * rstd, weight, bias), mean, rstd


def _affine(x: Any, weight: Any, bias: Any) -> Any:
    x = x if weight is None else x * weight
    return x if bias is None else x + bias


def _group_norm(x: Any, weight: Any, bias: Any, n: int, c: int, size: int, groups: int, eps: float) -> Any:
    y = x.reshape(n, groups, -1)
    mean = y.mean(2, keepdim=True)
    rstd = torch.rsqrt(y.var(2, correction=0, keepdim=True) + eps)
    shape = (1, c, *(1,) * (x.dim() - 2))
    weight, bias = (v if v is None else v.reshape(shape) for v in (weight, bias))
    return _affine(((y - mean) * rstd).reshape(x.shape), weight, bias), mean.reshape(n, groups), rstd.reshape(n, groups)


def _batch_norm(x: Any, weight: Any, bias: Any, mean: Any, var: Any, *rest: Any) -> Any:
    """Normalise in evaluation mode; the last of `rest` is epsilon."""
    shape = (1, -1, *(1,) * (x.dim() - 2))
    weight, bias = (v if v is None else v.reshape(shape) for v in (weight, bias))
    y = (x - mean.reshape(shape)) * torch.rsqrt(var + rest[-1]).reshape(shape)
    return _affine(y, weight, bias), x.new_empty(0), x.new_empty(0)


def _training_batch_norm(x: Any, weight: Any, bias: Any, mean: Any, var: Any, training: bool, *rest: Any) -> Any:
    if not training:
        return _batch_norm(x, weight, bias, mean, var, *rest)
    dims = [d for d in range(x.dim()) if d != 1]
    return _batch_norm(x, weight, bias, x.mean(dims), x.var(dims, correction=0), *rest)


def _addmm(bias: Any, a: Any, b: Any, *, beta: float = 1, alpha: float = 1) -> Any:
    y = a @ b if alpha == 1 else (a @ b) * alpha
    return y + bias if beta == 1 else y if beta == 0 else y + bias * beta


def _rsub(a: Any, b: Any, alpha: float = 1) -> Any:
    a = a.to(torch.result_type(a, b))  # first: integers without a sign have no negative
    return (-a if alpha == 1 else a * -alpha) + b


def _glu(x: Any, dim: int = -1) -> Any:
    value, gate = x.chunk(2, dim)
    return value * gate.sigmoid()


def _rms_norm(x: Any, shape: Any, weight: Any, eps: float | None) -> Any:
    dims = tuple(range(x.dim() - len(shape), x.dim()))
    rstd = torch.rsqrt(x.square().mean(dims, keepdim=True) + (torch.finfo(x.dtype).eps if eps is None else eps))
    return _affine(x * rstd, weight, None), rstd


def _gelu(x: Any, *, approximate: str = "none") -> Any:
    """Write out the numbers, which other frameworks round where they compute in lower precision."""
    if approximate == "none":
        return 0.5 * x * (1 + torch.erf(x * math.sqrt(0.5)))
    return 0.5 * x * (1 + torch.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x * x * x)))


def _embedding_bag(
    table: Any, tokens: Any, offsets: Any, scaled: bool = False, mode: int = 0, sparse: bool = False,
    weights: Any = None, last: bool = False, padding: int = -1,
) -> Any:  # fmt: skip
    """Add up, average or take the maximum of the rows of each bag of tokens."""
    rows = torch.nn.functional.embedding(tokens, table)
    rows = rows if weights is None else rows * weights[:, None]
    starts = offsets.tolist()[: -1 if last else None]
    sizes = [end - first for first, end in zip(starts, [*starts[1:], len(tokens)], strict=True)]
    kept = tokens != padding
    if len(set(sizes)) == 1 and sizes[0] and bool(kept.all()):
        return BAGS[mode](rows.reshape(len(sizes), sizes[0], -1)), offsets, offsets, offsets
    bags = [part[None, keep] for part, keep in zip(rows.split(sizes), kept.split(sizes), strict=True)]
    return torch.cat([BAGS[mode](bag) if bag.numel() else bag.sum(1) for bag in bags]), offsets, offsets, offsets


BAGS: list[Callable[..., Any]] = [lambda x: x.sum(1), lambda x: x.mean(1), lambda x: x.amax(1)]


def _bilinear(a: Any, weight: Any, b: Any, *_: Any) -> Any:
    """Multiply the outer products of two arrays' rows with a matrix: the one use of this operation."""
    return (a[:, :, None] * b[:, None, :]).flatten(1) @ weight.flatten(1).T


COMPOSED: dict[str, Callable[..., Any]] = {
    "native_layer_norm": _layer_norm,
    "native_group_norm": _group_norm,
    "native_batch_norm": _training_batch_norm,
    "_native_batch_norm_legit_no_training": _batch_norm,
    "_fused_rms_norm": _rms_norm,
    "addmm": _addmm,
    "addmv": _addmm,
    "baddbmm": _addmm,
    "polar": lambda size, angle: torch.complex(size * angle.cos(), size * angle.sin()),
    "rsub": _rsub,
    "addcmul": lambda x, a, b, *, value=1: x + (a * b if value == 1 else a * b * value),
    "addcdiv": lambda x, a, b, *, value=1: x + (a / b if value == 1 else a / b * value),
    "_embedding_bag": _embedding_bag,
    "_embedding_bag_forward_only": _embedding_bag,
    "_trilinear": _bilinear,
    "gelu": _gelu,
    "glu": _glu,
    "hardswish": lambda x: x * torch.clamp(x + 3, 0, 6) * (1 / 6),
    "hardsigmoid": lambda x: torch.clamp(x * (1 / 6) + 0.5, 0, 1),
    "_prelu_kernel": lambda x, weight: torch.where(x > 0, x, x * weight),
    "lerp": lambda a, b, weight: a + (b - a) * weight,
}


@contextlib.contextmanager
def written_attention() -> Iterator[None]:
    """Replace scaled_dot_product_attention by what it computes.

    The mode finds it under any name; nn.MultiheadAttention calls it by torch's own name, inside a function that torch
    runs without modes.
    """
    functional: Any = torch.nn.functional
    functional.scaled_dot_product_attention = _attention
    try:
        with _Mode():
            yield
    finally:
        functional.scaled_dot_product_attention = FUSED


class _Mode(TorchFunctionMode):
    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return (_attention if func is FUSED else func)(*args, **(kwargs or {}))


def _attention(
    query: Any, key: Any, value: Any, attn_mask: Any = None, dropout_p: float = 0.0, is_causal: bool = False,
    scale: float | None = None, enable_gqa: bool = False,
) -> Any:  # fmt: skip
    if dropout_p > 0:
        return FUSED(query, key, value, attn_mask, dropout_p, is_causal, scale=scale, enable_gqa=enable_gqa)
    if enable_gqa:
        key, value = (x.repeat_interleave(query.shape[-3] // x.shape[-3], -3) for x in (key, value))
    scores = query @ key.transpose(-2, -1) * (1 / math.sqrt(query.shape[-1]) if scale is None else scale)
    if is_causal:
        attn_mask = torch.ones(scores.shape[-2:], dtype=torch.bool, device=query.device).tril()
    if attn_mask is not None:
        scores = scores + (torch.where(attn_mask, 0.0, -math.inf) if attn_mask.dtype == torch.bool else attn_mask)
    return torch._safe_softmax(scores, -1) @ value

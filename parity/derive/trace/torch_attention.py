"""Write out torch's attention with one scale, as other code does: torch scales queries and keys by its root each."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator
from typing import Any

import torch
from torch.overrides import TorchFunctionMode

__all__ = ["written_attention"]

FUSED = torch.nn.functional.scaled_dot_product_attention


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

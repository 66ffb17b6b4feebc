"""Define self-attention whose query, key and value are one layer or three, with equal outputs."""

from __future__ import annotations

from typing import Any

import torch


class Attention(torch.nn.Module):
    """Self-attention over tokens (..., t, width), its query, key and value fused or split.

    Args:
      factor: of the split layers' weights: 1 computes what the fused layer does.
    """

    def __init__(self, fused: bool, width: int = 16, factor: float = 1.0) -> None:
        super().__init__()
        torch.manual_seed(0)
        qkv, self.fused = torch.nn.Linear(width, 3 * width), fused
        if fused:
            self.qkv = qkv
        else:
            for k, name in enumerate("qkv"):
                part, rows = torch.nn.Linear(width, width), slice(width * k, width * (k + 1))
                part.load_state_dict({n: factor * t[rows] for n, t in qkv.state_dict().items()})
                self.add_module(name, part)
        torch.manual_seed(1)
        self.proj = torch.nn.Linear(width, width)

    def forward(self, x: Any) -> Any:
        q, k, v = self.qkv(x).chunk(3, -1) if self.fused else (self.q(x), self.k(x), self.v(x))
        return self.proj(torch.softmax(q @ k.mT / q.shape[-1] ** 0.5, -1) @ v)

"""Define what PyTorch lacks, or spells differently from its twins."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def gelu(kind: str) -> nn.GELU:
    """Apply GELU by the error function ("erf") or its tanh approximation ("tanh")."""
    return nn.GELU(approximate="tanh" if kind == "tanh" else "none")


class Conv2d(nn.Conv2d):
    """Convolution with padding "VALID", or "SAME" as XLA means it: with any stride, the odd pixel on the high side."""

    def __init__(self, i: int, o: int, kernel: tuple[int, int], stride: tuple[int, int], padding: str, groups: int = 1):
        super().__init__(i, o, kernel, stride, groups=groups)
        self.same = padding == "SAME"

    def forward(self, x: Tensor) -> Tensor:  # (b i h w) -> (b o h' w')
        if self.same:
            short = [
                max((-(-n // s) - 1) * s + k - n, 0)
                for n, k, s in zip(x.shape[2:], self.kernel_size, self.stride, strict=True)
            ]
            x = F.pad(x, [pad for n in reversed(short) for pad in (n // 2, n - n // 2)])
        return super().forward(x)


class DropPath(nn.Module):
    """Drops whole samples of a branch with probability `rate`, and rescales the rest by 1 / (1 - rate)."""

    def __init__(self, rate: float):
        super().__init__()
        self.rate = rate

    def forward(self, x: Tensor) -> Tensor:  # (b ...) -> (b ...)
        if not self.training or self.rate == 0:
            return x
        samples = x.new_ones(x.shape[:1] + (1,) * (x.ndim - 1))
        return x * F.dropout(samples, self.rate)


class Hardswish(nn.Hardswish):
    """Computes x · relu6(x + 3) / 6. On a GPU, torch's kernel takes 1/6 in float32, also for float64."""

    def forward(self, x: Tensor) -> Tensor:
        return x * F.relu6(x + 3) / 6 if x.is_cuda and x.dtype == torch.float64 else super().forward(x)


class HeadLinear(nn.Module):
    """One linear layer a head: the input's channels are split among the heads, and each part has its own weights."""

    def __init__(self, heads: int, i: int, o: int):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(heads, i // heads, o // heads) * (2 * heads / i) ** 0.5)  # Kaiming's
        self.bias = nn.Parameter(torch.zeros(heads, o // heads))

    def forward(self, x: Tensor) -> Tensor:  # (b m (heads i)) -> (b heads m o)
        x = x.unflatten(2, (len(self.weight), -1)).transpose(1, 2)
        return x @ self.weight + self.bias[:, None]


class LinearOverRows(nn.Linear):
    """A dense layer over the last axis but one, so that what it mixes need not be transposed."""

    def forward(self, x: Tensor) -> Tensor:  # (b i n) -> (b o n)
        return torch.baddbmm(self.bias[:, None], self.weight.expand(len(x), -1, -1), x)


def resize(x: Tensor, size: tuple[int, int]) -> Tensor:  # (b h w c) -> (b size[0] size[1] c)
    """Resize bicubically by torch itself; its twins multiply by the matrices of `ports.resize`."""
    if tuple(x.shape[1:3]) == tuple(size):
        return x
    x = F.interpolate(x.permute(0, 3, 1, 2), size, mode="bicubic", align_corners=False)
    return x.permute(0, 2, 3, 1).contiguous()

"""What PaddlePaddle lacks, or spells differently from its twins."""

import paddle
import paddle.nn.functional as F
from paddle import Tensor, nn

from specs.resize import bicubic_matrix


def gelu(kind: str) -> nn.GELU:
    """GELU by the error function ("erf") or its tanh approximation ("tanh")."""
    return nn.GELU(approximate=kind == "tanh")


class DropPath(nn.Layer):
    """Drops whole samples of a branch with probability `rate`, and rescales the rest by 1 / (1 - rate)."""

    def __init__(self, rate: float):
        super().__init__()
        self.rate = rate

    def forward(self, x: Tensor) -> Tensor:  # (b ...) -> (b ...)
        if not self.training or self.rate == 0:
            return x
        samples = paddle.ones([x.shape[0]] + [1] * (x.ndim - 1), x.dtype)
        return x * F.dropout(samples, self.rate)


class BatchNorm2D(nn.BatchNorm2D):
    """BatchNorm that keeps its word in float64 too: paddle's kernels round epsilon and momentum to float32."""

    def forward(self, x: Tensor) -> Tensor:  # (b c h w) -> (b c h w)
        if x.dtype != paddle.float64:
            return super().forward(x)
        mean, var, old = self._mean, self._variance, self._momentum
        if self.training:
            mean = x.mean((0, 2, 3))
            var = (x - mean[:, None, None]).square().mean((0, 2, 3))
            self._mean.set_value(old * self._mean + (1 - old) * mean.detach())
            self._variance.set_value(old * self._variance + (1 - old) * var.detach())
        scale = self.weight * paddle.rsqrt(var + self._epsilon)
        return x * scale[:, None, None] + (self.bias - mean * scale)[:, None, None]


class HeadLinear(nn.Layer):
    """One linear layer a head: the input's channels are split among the heads, and each part has its own weights."""

    def __init__(self, heads: int, i: int, o: int):
        super().__init__()
        self.weight = self.create_parameter([heads, i // heads, o // heads])
        self.bias = self.create_parameter([heads, o // heads], is_bias=True)

    def forward(self, x: Tensor) -> Tensor:  # [b, m, (heads i)] -> [b, heads, m, o]
        heads = self.weight.shape[0]
        x = x.reshape([x.shape[0], x.shape[1], heads, -1]).transpose([0, 2, 1, 3])
        weight = self.weight.unsqueeze(0)  # paddle's gradient of a product fails where ranks differ
        return paddle.matmul(x, weight) + self.bias.unsqueeze(1)


class LinearOverRows(nn.Linear):
    """A dense layer over the last axis but one, so that what it mixes need not be transposed."""

    def forward(self, x: Tensor) -> Tensor:  # (b i n) -> (b o n)
        return paddle.matmul(self.weight, x, transpose_x=True) + self.bias.unsqueeze(1)


def resize(x: Tensor, size: tuple[int, int]) -> Tensor:  # (b h w c) -> (b size[0] size[1] c)
    """Bicubic as torch means it: rows @ x @ columns.T."""
    b, h, w, c = x.shape
    if (h, w) == tuple(size):
        return x
    rows, columns = (
        paddle.to_tensor(bicubic_matrix(*sides), x.dtype) for sides in zip(size, (h, w), strict=True)
    )
    x = paddle.matmul(rows, paddle.matmul(columns, x).reshape([b, h, -1]))
    return x.reshape([b, *size, c])

"""Define what PaddlePaddle lacks, or spells differently from its twins."""

import math
import re

import numpy as np
import paddle
import paddle.nn.functional as F
from einops import rearrange
from paddle import Tensor, nn

from ports.resize import bicubic_matrix


def gelu(kind: str) -> nn.GELU:
    """Apply GELU by the error function ("erf") or its tanh approximation ("tanh")."""
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


class HeadLinear(nn.Layer):
    """One linear layer a head: the input's channels are split among the heads, and each part has its own weights."""

    def __init__(self, heads: int, i: int, o: int):
        super().__init__()
        self.weight = self.create_parameter([heads, i // heads, o // heads])
        self.bias = self.create_parameter([heads, o // heads], is_bias=True)

    def forward(self, x: Tensor) -> Tensor:  # (b m (heads i)) -> (b heads m o)
        heads = self.weight.shape[0]
        x = x.reshape([x.shape[0], x.shape[1], heads, -1]).transpose([0, 2, 1, 3])
        weight = self.weight.unsqueeze(0)  # paddle's gradient of a product fails where ranks differ
        return paddle.matmul(x, weight) + self.bias.unsqueeze(1)


class LinearOverRows(nn.Linear):
    """A dense layer over the last axis but one, so that what it mixes need not be transposed."""

    def forward(self, x: Tensor) -> Tensor:  # (b i n) -> (b o n)
        return paddle.matmul(self.weight, x, transpose_x=True) + self.bias.unsqueeze(1)


def rearrange_rows(x: Tensor, pattern: str, *, o: int, **sizes: int) -> Tensor:
    """Rearrange as einops does, where the last axis is `o` on both sides: each row of o numbers moves as a whole.

    Rows are gathered by number, at the speed of memory: paddle's own copy of a transposed tensor takes 10 to 90 times
    as long on the CPU.
    """
    left, right = (re.sub(r"\bo\b", "", side) for side in pattern.split("->"))
    axes = [*x.shape[:-1], x.shape[-1] // o]
    numbers = rearrange(np.arange(math.prod(axes)).reshape(axes), f"{left}->{right}", **sizes)
    rows = paddle.gather(x.reshape([-1, o]), paddle.to_tensor(numbers.ravel()))
    return rows.reshape([*numbers.shape[:-1], numbers.shape[-1] * o])


def resize(x: Tensor, size: tuple[int, int]) -> Tensor:  # (b h w c) -> (b size[0] size[1] c)
    """Resize bicubically as torch does: rows @ x @ columns.T."""
    b, h, w, c = x.shape
    if (h, w) == tuple(size):
        return x
    rows, columns = (paddle.to_tensor(bicubic_matrix(*sides), x.dtype) for sides in ((size[0], h), (size[1], w)))
    x = paddle.matmul(rows, paddle.matmul(columns, x).reshape([b, h, -1]))
    return x.reshape([b, *size, c])


def affine(x: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
    """Compute scale * x + shift by image and channel, (b c h w), (b c), (b c) -> (b c h w), in one pass over x.

    It is BatchNorm's kernel with the statistics of a norm that changes nothing; a product and a sum take three times
    as long.
    """
    one, zero = paddle.ones([scale.size], x.dtype), paddle.zeros([scale.size], x.dtype)
    rows = x.reshape([1, scale.size, *x.shape[2:]])
    y = F.batch_norm(rows, zero, one, scale.flatten(), shift.flatten(), epsilon=0.0, use_global_stats=True)
    return y.reshape(x.shape)


class PointwiseConv2D(nn.Conv2D):
    """A 1x1 convolution as the matrix product that it is: on a CPU paddle's convolution takes twice as long."""

    def __init__(self, i: int, o: int, groups: int = 1):
        super().__init__(i, o, 1, groups=groups)

    def forward(self, x: Tensor) -> Tensor:  # (b i h w) -> (b o h w)
        b, i, h, w = x.shape
        g = self._groups
        weight = self.weight.reshape([1, g, -1, i // g])
        y = paddle.matmul(weight, x.reshape([b, g, i // g, h * w]))
        return y.reshape([b, -1, h, w]) + self.bias[:, None, None]

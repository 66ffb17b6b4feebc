"""Define what linen lacks, or spells differently from its twins."""

import flax.linen as nn
import jax.numpy as jnp

from ports.resize import bicubic_matrix


def gelu(x, kind):
    """Apply GELU by the error function ("erf") or its tanh approximation ("tanh"); linen's own default is tanh."""
    return nn.gelu(x, approximate=kind == "tanh")


class DropPath(nn.Module):
    """Drops whole samples of a branch with probability `rate`, and rescales the rest by 1 / (1 - rate)."""

    rate: float
    deterministic: bool

    @nn.compact
    def __call__(self, x):  # (b ...) -> (b ...)
        everything_but_samples = tuple(range(1, x.ndim))
        return nn.Dropout(self.rate, everything_but_samples, deterministic=self.deterministic)(x)


class HeadDense(nn.Module):
    """One dense layer a head: the input's channels are split among the heads, and each part has its own weights."""

    heads: int
    features: int  # of all heads together

    @nn.compact
    def __call__(self, x):  # (b m (heads i)) -> (b heads m o)
        i, o = x.shape[-1] // self.heads, self.features // self.heads
        kernel = self.param("kernel", nn.initializers.lecun_normal(batch_axis=0), (self.heads, i, o))
        bias = self.param("bias", nn.initializers.zeros, (self.heads, o))
        x = x.reshape(*x.shape[:2], self.heads, i).swapaxes(1, 2)
        return x @ kernel + bias[:, None]


class LinearOverRows(nn.Module):
    """A dense layer over the last axis but one, so that what it mixes need not be transposed."""

    features: int

    @nn.compact
    def __call__(self, x):  # (b i n) -> (b o n)
        kernel = self.param("kernel", nn.initializers.lecun_normal(), (x.shape[1], self.features), jnp.float32)
        bias = self.param("bias", nn.initializers.zeros, (self.features,), jnp.float32)
        return jnp.einsum("io,bin->bon", kernel, x) + bias[:, None]


def pointwise_conv(x, kernel, strides, padding, *, feature_group_count=1, precision=None, **options):
    """Compute `lax.conv_general_dilated` of a 1x1 kernel with stride 1, as `nn.Conv` calls it, by a matrix product.

    XLA's own convolution takes 1.4 times as long on a CPU, and the gradient of one of several groups five times.

    Args:
      x: (b h w i).
      kernel: (1 1 i/groups o).
    Returns: (b h w o).
    """
    g = feature_group_count
    x, kernel = x.reshape(*x.shape[:3], g, -1), kernel.reshape(kernel.shape[2], g, -1)
    return jnp.einsum("bhwgi,igo->bhwgo", x, kernel, precision=precision).reshape(*x.shape[:3], -1)


def resize(x, size):  # (b h w c) -> (b size[0] size[1] c)
    """Resize bicubically as torch does, which `jax.image.resize` does not: rows @ x @ columns.T."""
    if x.shape[1:3] == tuple(size):
        return x
    rows, columns = (jnp.asarray(bicubic_matrix(*sides), x.dtype) for sides in zip(size, x.shape[1:3], strict=True))
    b, h, _, c = x.shape
    x = rows @ (columns @ x).reshape(b, h, -1)
    return x.reshape(b, *size, c)

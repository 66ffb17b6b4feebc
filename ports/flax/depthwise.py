"""Compute depthwise convolutions at a useful speed on CPUs, where XLA's own runs at 1 to 2 GFLOP/s.

    nn.Conv(width, (7, 7), feature_group_count=width, conv_general_dilated=depthwise_conv)

On a CPU it is a sum of shifted products; on accelerators XLA's convolution. Which of the two is compiled follows from
the platform that the program is lowered for. The results are the same but for rounding.
"""

from functools import partial, reduce

import jax
import jax.numpy as jnp
from jax import lax

CACHE = 1 << 16  # bytes: larger kernels are read from the second-level cache at each position
CHANNELS = 32  # of such a kernel that are computed at a time


def depthwise_conv(x, kernel, strides, padding, **options):
    """Compute `lax.conv_general_dilated` for one filter a channel, without dilation, as `nn.Conv` calls it.

    Args:
      x: (b h w c).
      kernel: (kh kw 1 c).
      strides: (2 numbers).
      padding: "SAME", "VALID" or ((low, high), (low, high)).
      options: what only XLA's own needs, e.g. dimension_numbers.
    Returns: (b h' w' c). On CPUs it can be differentiated in reverse mode only.
    """
    if isinstance(padding, str):
        padding = lax.padtype_to_pads(x.shape[1:3], kernel.shape[:2], strides, padding)
    pads = tuple((int(low), int(high)) for low, high in padding)
    return lax.platform_dependent(
        x,
        kernel,
        cpu=partial(_shifted_products, strides=tuple(strides), pads=pads),
        default=partial(lax.conv_general_dilated, window_strides=strides, padding=pads, **options),
    )


def _shifted_products(x, kernel, strides, pads):
    wide = jnp.promote_types(x.dtype, jnp.float32)  # 16 bits are too few to sum in
    return _correlate(x.astype(wide), kernel.astype(wide), strides, pads).astype(x.dtype)


@partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def _correlate(x, kernel, strides, pads):
    if kernel.nbytes <= CACHE or x.shape[3] % CHANNELS:
        return _sum_of_taps(_pad(x, *pads), kernel, strides)

    def block(n, y):
        part, taps = (lax.dynamic_slice_in_dim(a, n * CHANNELS, CHANNELS, axis=3) for a in (x, kernel))
        part = lax.optimization_barrier(_pad(part, *pads))  # once, not for each tap
        return lax.dynamic_update_slice_in_dim(y, _sum_of_taps(part, taps, strides), n * CHANNELS, axis=3)

    y = jax.eval_shape(lambda x, kernel: _sum_of_taps(_pad(x, *pads), kernel, strides), x, kernel)
    return lax.fori_loop(0, x.shape[3] // CHANNELS, block, jnp.zeros(y.shape, y.dtype))


def _sum_of_taps(x, kernel, strides):
    kh, kw = kernel.shape[:2]
    h, w = ((n - k) // s + 1 for n, k, s in zip(x.shape[1:3], (kh, kw), strides, strict=True))

    def product(i, j):  # one tap of the kernel, for all positions at once
        rows, columns = (slice(a, a + s * (n - 1) + 1, s) for a, s, n in zip((i, j), strides, (h, w), strict=True))
        return x[:, rows, columns] * kernel[i, j, 0]

    return _sum(product(i, j) for i in range(kh) for j in range(kw))


def _forward(x, kernel, strides, pads):
    return _correlate(x, kernel, strides, pads), (x, kernel)


def _backward(strides, pads, saved, g):
    """Return gradients of x and kernel: what autodiff would build from the sum above takes ten times as long."""
    x, kernel = saved
    sides = [n + sum(pad) - k + 1 for n, k, pad in zip(x.shape[1:3], kernel.shape[:2], pads, strict=True)]
    g = _pad(g, *((0, m - ((n - 1) * s + 1), s - 1) for m, n, s in zip(sides, g.shape[1:3], strides, strict=True)))
    back = tuple((k - 1 - low, k - 1 - high) for k, (low, high) in zip(kernel.shape[:2], pads, strict=True))
    return _correlate(g, kernel[::-1, ::-1], (1, 1), back), _kernel_gradient(_pad(x, *pads), g, kernel.shape)


def _kernel_gradient(x, g, shape):
    """Sum over all positions of window times gradient, one row of one image at a time, which fits into the cache."""
    (kh, kw, _, c), (b, h, w, _) = shape, g.shape

    def row(t, total):
        windows = lax.dynamic_slice(x, (t // h, t % h, 0, 0), (1, kh, w + kw - 1, c))[0]
        weights = lax.dynamic_slice(g, (t // h, t % h, 0, 0), (1, 1, w, c))[0, 0]
        return total + _sum(windows[:, j : j + kw] * weights[j] for j in range(w))

    return lax.fori_loop(0, b * h, row, jnp.zeros((kh, kw, c), x.dtype))[:, :, None]


_correlate.defvjp(_forward, _backward)


def _pad(x, rows, columns):
    """Return zeros around an image and, with a third number each, between its pixels."""
    widths = [(*side, 0)[:3] for side in (rows, columns)]
    return lax.pad(x, jnp.zeros((), x.dtype), [(0, 0, 0), *widths, (0, 0, 0)])


def _sum(terms):
    return reduce(jnp.add, terms)

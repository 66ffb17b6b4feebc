"""Compute products in numpy: of matrices, and convolutions as sums over taps."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from parity.derive.limits import LARGE_MATRIX

Array = Any  # numpy.ndarray


class Window(NamedTuple):
    """How a convolution of x (n, c, *space), already padded, with w (o, c / groups, *taps) moves."""

    stride: tuple[int, ...]
    dilation: tuple[int, ...]
    groups: int


def spread_out(x: Array, spread: Sequence[int]) -> Array:
    """Put zeros between the elements of x (n, c, *space), which are then this far apart; return x itself for 1."""
    if max(spread, default=1) == 1:
        return x
    space = [(n - 1) * s + 1 for n, s in zip(x.shape[2:], spread, strict=True)]
    out: Array = np.zeros((*x.shape[:2], *space), x.dtype)
    out[(..., *(slice(None, None, s) for s in spread))] = x
    return out


def padded(x: Array, padding: Sequence[tuple[int, int]]) -> Array:
    """Pad the last dimensions with zeros; negative padding crops."""
    x = np.pad(x, [(0, 0), (0, 0), *((max(a, 0), max(b, 0)) for a, b in padding)])
    crop = (slice(max(-a, 0), n - max(-b, 0)) for n, (a, b) in zip(x.shape[2:], padding, strict=True))
    return x[(..., *crop)]


def patches(x: Array, taps: Sequence[int], window: Window) -> Array:
    """Return a view (groups, c / groups, *taps, n, *positions) of what a convolution of these taps reads from x."""
    extent = tuple((t - 1) * d + 1 for t, d in zip(taps, window.dilation, strict=True))
    space = tuple(range(2, x.ndim))
    if any(x.shape[axis] < length for axis, length in zip(space, extent, strict=True)):  # as JAX allows
        axes = zip(x.shape[2:], extent, window.stride, strict=True)
        counts = [max(0, (n - length) // stride + 1) for n, length, stride in axes]
        return np.zeros((window.groups, x.shape[1] // window.groups, *taps, len(x), *counts), x.dtype)
    view = np.lib.stride_tricks.sliding_window_view(x, extent, axis=space)
    steps = [slice(None, None, s) for s in (*window.stride, *window.dilation)]
    view = view[(slice(None), slice(None), *steps)]
    n, c, *rest = view.shape
    view = view.reshape(n, window.groups, c // window.groups, *rest)
    rank = len(space)
    return view.transpose(1, 2, *range(3 + rank, 3 + 2 * rank), 0, *range(3, 3 + rank))


def multiply_matrices(x: Array, w: Array) -> Array:
    """Multiply x[b, rows, k] @ w[b, k, o]; of a large matrix of float32, some rows at a time become float64."""
    step = max(1, LARGE_MATRIX * w.shape[1] // max(x.size, w.size, 1))
    if x.dtype == w.dtype or step >= w.shape[1]:
        return np.matmul(x, w)
    starts = range(0, w.shape[1], step)
    return sum(np.matmul(x[:, :, at : at + step], w[:, at : at + step]) for at in starts)


def convolution(window: Window) -> Callable[[Array, Array], Array]:
    """Return the convolution of x (n, c, *space) with w (o, c / groups, *taps)."""
    return lambda x, w: _convolve(x, w, window)


def _convolve(x: Array, w: Array, window: Window) -> Array:
    """Sum over taps, so that no patches are copied."""
    n, o, groups = x.shape[0], w.shape[0], window.groups
    taps = w.shape[2:]
    view = patches(x, taps, window)
    space = view.shape[3 + len(taps) :]
    out: Array = 0.0
    for tap in np.ndindex(*taps):
        part = view[(slice(None), slice(None), *tap)].reshape(groups, w.shape[1], n * int(np.prod(space)))
        factor = w[(slice(None), slice(None), *tap)].reshape(groups, o // groups, -1)
        out += factor * part if w.shape[1] == 1 else factor @ part
    return np.moveaxis(out.reshape(o, n, *space), 1, 0)

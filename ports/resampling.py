"""Resize uint8 images with antialiasing, to the last bit as Pillow does, in numpy alone.

Pillow is what torchvision, timm and PaddleViT resize pictures with before they evaluate a model. It computes in
integers: weights are rounded to 22 bits, and each of its two passes to 0..255. So a result does not depend on the
order in which products are added, on the machine, or on the framework. Here the same integers are float64, which
represents every one of them exactly, so that BLAS can multiply them.

Source: Pillow `src/libImaging/Resample.c`; R. Keys, "Cubic convolution interpolation for digital image processing",
1981, with a = -0.5.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache, partial
from typing import NamedTuple

import numpy as np

from .resize import keys

BITS = 22  # of the weights after the binary point, as in Pillow: a sum of weighted pixels fits into 32 bits
BLOCK = 16  # outputs that are computed by one product: more multiply with more zeros, fewer take more calls
ROWS = 1 << 20  # numbers of float64 that a pass converts at once: bounds memory at 8 MB


def _triangle(x: np.ndarray) -> np.ndarray:
    x = np.abs(x)
    return np.where(x < 1, 1 - x, 0.0)


KERNELS: dict[str, tuple[Callable[[np.ndarray], np.ndarray], float]] = {  # name: (function, where it becomes zero)
    "bilinear": (_triangle, 1.0), "bicubic": (partial(keys, a=-0.5), 2.0)
}  # fmt: skip


class _Block(NamedTuple):
    """Weights of BLOCK neighbouring outputs: (outputs, inputs) from `first` on, integers as float64."""

    first: int
    weights: np.ndarray


def resize(images: np.ndarray, height: int, width: int, interpolation: str) -> np.ndarray:
    """Resize images. A side that keeps its length is left as it is.

    Args:
      images: uint8, (n, h, w, c).
      interpolation: "bilinear" or "bicubic". Where images shrink, the kernel is as much wider (antialiasing).
    Returns: uint8, (n, height, width, c).
    """
    n, h, w, c = images.shape
    if w != width:  # columns first, as Pillow up to version 12; 13 takes rows first where h - height > 2 * (w - width)
        rows = images.reshape(n * h, w, c).transpose(0, 2, 1)
        images = _pass(rows, w, width, interpolation).transpose(0, 2, 1).reshape(n, h, width, c)
    if h != height:
        columns = images.transpose(0, 2, 3, 1).reshape(n * width, c, h)
        images = _pass(columns, h, height, interpolation).reshape(n, width, c, height).transpose(0, 3, 1, 2)
    return np.ascontiguousarray(images)


def _pass(lines: np.ndarray, size: int, out: int, interpolation: str) -> np.ndarray:
    """Resample the last axis of (m, c, size) uint8 to `out`."""
    result = np.empty((*lines.shape[:2], out), np.uint8)
    step = max(1, ROWS // (lines.shape[1] * size))
    blocks = _blocks(size, out, interpolation)
    for start in range(0, len(lines), step):
        some = lines[start : start + step].astype(np.float64)
        for k, (first, weights) in enumerate(blocks):
            sums = some[..., first : first + weights.shape[1]] @ weights.T
            rounded = np.floor((sums + 2 ** (BITS - 1)) * 2.0**-BITS)
            result[start : start + step, :, BLOCK * k : BLOCK * k + len(weights)] = np.clip(rounded, 0, 255)
    return result


@lru_cache(maxsize=16)
def _blocks(size: int, out: int, interpolation: str) -> tuple[_Block, ...]:
    """Compute the weights of every output: normalised in float64, then rounded to BITS bits."""
    kernel, reach = KERNELS[interpolation]
    scale = size / out
    wider = max(scale, 1.0)
    centres = (np.arange(out) + 0.5) * scale
    first = np.maximum((centres - reach * wider + 0.5).astype(int), 0)
    last = np.minimum((centres + reach * wider + 0.5).astype(int), size)
    taps = first[:, None] + np.arange((last - first).max())
    weights = kernel((taps - centres[:, None] + 0.5) * (1 / wider))
    weights[taps >= last[:, None]] = 0
    weights /= np.cumsum(weights, axis=1)[:, -1:]  # one after the other, as Pillow adds them
    weights = np.trunc(weights * 2**BITS + np.where(weights < 0, -0.5, 0.5))
    blocks = []
    for start in range(0, out, BLOCK):
        some = slice(start, min(start + BLOCK, out))
        begin, end = first[some].min(), last[some].max()
        dense = np.zeros((some.stop - some.start, end - begin))
        for row, taken, place, stop in zip(dense, weights[some], first[some], last[some], strict=True):
            row[place - begin : stop - begin] = taken[: stop - place]
        blocks.append(_Block(int(begin), dense))
    return tuple(blocks)

"""Compare the windows of two convolutions that read the same image: their padding, strides and dilations."""

from __future__ import annotations

import numpy as np

from parity.derive.trace.tape import Array, Window

SAME = 1e-10  # relative difference of values of the same image


def differing(images: tuple[Array, Array], windows: tuple[Window | None, Window | None]) -> str:
    """Return frames of zeros, strides and dilations in which convolutions of the same image differ."""
    if windows[0] is None or windows[1] is None:
        return ""
    inner = [np.sort(x[x != 0]) for x in map(np.ravel, images)]
    if len(inner[0]) != len(inner[1]):
        return ""
    if np.abs(inner[0] - inner[1]).max(initial=0) > SAME * np.abs(inner[0]).max(initial=1e-300):
        return ""
    frames = [_spelt(_frame(x)) for x in images]
    facts = {
        "padding": frames,
        "stride": [str(window.stride) for window in windows if window],
        "dilation": [str(window.dilation) for window in windows if window],
    }
    odd = [f"{what} {a} on the left, {b} on the right" for what, (a, b) in facts.items() if a != b]
    return f"{'; '.join(odd)}, of the same image" if odd else ""


def _frame(x: Array) -> tuple[tuple[int, int], ...]:
    """Tell how many positions before and after the image are zero along each axis of space."""
    widths = []
    for axis in range(2, x.ndim):
        there = np.flatnonzero((x != 0).any(tuple(d for d in range(x.ndim) if d != axis)))
        widths.append((int(there[0]), x.shape[axis] - 1 - int(there[-1])) if len(there) else (0, 0))
    return tuple(widths)


def _spelt(frame: tuple[tuple[int, int], ...]) -> str:
    return " ".join(f"({before}, {after})" for before, after in frame)

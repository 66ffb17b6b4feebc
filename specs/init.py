"""Draw upstream's initialisations once for all frameworks: the same seed gives the same weights in each."""

from __future__ import annotations

import math
import zlib
from typing import Any

import numpy as np

from .kinds import GATES
from .layer import Parameter

# How an array's values are drawn: (distribution, standard deviation or bound) from fan-in and fan-out.
INITS = {
    "lecun_normal": lambda i, o: ("truncated", math.sqrt(1 / i) / 0.87962566103423978),  # flax's default
    "kaiming_normal": lambda i, o: ("normal", math.sqrt(2 / i)),  # paddle's KaimingNormal()
    "xavier_uniform": lambda i, o: ("uniform", math.sqrt(6 / (i + o))),
    "torch": lambda i, o: ("uniform", math.sqrt(1 / i)),  # nn.Linear's and nn.Conv2d's default, kernel and bias
    "trunc_normal_02": lambda i, o: ("truncated_at_2", 0.02),  # std .02, cut at +-2 (not at two deviations)
    "normal": lambda i, o: ("normal", 1.0),  # nn.Embedding's default in torch
    "zeros": lambda i, o: ("constant", 0.0),
    "ones": lambda i, o: ("constant", 1.0),
}


SPREADS = ("normal", "uniform")  # distributions whose standard deviation or bound a layer may state


def draw(parameter: Parameter, seed: int) -> np.ndarray:
    """Draw a parameter's initial float32 values in the hub's layout; they depend on seed, name and shape alone."""
    layer, leaf, shape = parameter.layer, parameter.leaf, parameter.shape
    if leaf == "count":
        return np.zeros((), np.int64)
    if leaf == "bias" and layer.bias_init is not None:
        return np.full(shape, layer.bias_init, np.float32)
    kind, scale = _distribution(parameter)
    if leaf == "var" or (leaf == "scale" and kind != "constant"):
        return np.ones(shape, np.float32)
    if leaf == "mean" or (leaf == "bias" and (layer.init != "torch" or layer.kind.endswith("norm"))):
        return np.zeros(shape, np.float32)
    rng = np.random.default_rng([seed, zlib.crc32(parameter.name.encode())])
    return _DISTRIBUTIONS[kind](rng, shape, scale).astype(np.float32, copy=False)


def _distribution(parameter: Parameter) -> tuple[str, float]:
    """Return a key of _DISTRIBUTIONS, and its standard deviation, bound or value."""
    init = parameter.layer.init
    if isinstance(init, str):
        kind, scale = INITS[init](*fans(parameter))
        return kind, scale
    return init if isinstance(init, tuple) else ("constant", init)


def sample(parameter: Parameter, seed: int) -> np.ndarray:
    """Draw random float32 values for tests: no array is zero, one or like another, so that no fault hides."""
    rng = np.random.default_rng([seed, zlib.crc32(parameter.name.encode())])
    if parameter.leaf == "count":
        return np.asarray(1 + rng.integers(1000))
    if parameter.leaf in ("scale", "var"):
        return rng.uniform(0.6, 1.6, parameter.shape).astype(np.float32)
    if parameter.leaf.endswith("kernel"):
        return (rng.standard_normal(parameter.shape) * (1.3 / math.sqrt(fans(parameter)[0]))).astype(np.float32)
    return (rng.standard_normal(parameter.shape) * 0.3).astype(np.float32)


def fans(parameter: Parameter) -> tuple[int, int]:
    """Return (fan-in, fan-out) of the layer a parameter belongs to; a bias counts its kernel's."""
    layer, s = parameter.layer, parameter.layer.sizes
    if layer.kind in GATES:
        return s["h"], s["h"]
    if "i" not in s or "o" not in s:  # an array or a table: all of it, and its last axis: xavier as paddle reads it
        return math.prod(parameter.shape), parameter.shape[-1] if parameter.shape else 1
    area = math.prod(s.get(axis, 1) for axis in "dhw") if layer.kind.startswith("conv") else 1
    return s["i"] * area, s["o"] * area


def _truncated(rng: Any, shape: tuple[int, ...], scale: float, cut: float = 2.0) -> np.ndarray:
    values = rng.standard_normal(shape, np.float32)
    while (outside := np.abs(values) > cut).any():
        values[outside] = rng.standard_normal(int(outside.sum()), np.float32)
    return values * np.float32(scale)


_DISTRIBUTIONS = {
    "normal": lambda rng, shape, s: rng.standard_normal(shape, np.float32) * np.float32(s),
    "uniform": lambda rng, shape, s: rng.uniform(-s, s, shape),
    "truncated": _truncated,
    "truncated_at_2": lambda rng, shape, s: _truncated(rng, shape, s, 2 / s),
    "constant": lambda rng, shape, s: np.full(shape, s, np.float32),
}

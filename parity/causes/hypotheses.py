"""Compute in numpy what layers are known to compute where implementations differ: each variant of a kind, by name.

Hypotheses map a layer's input, its arrays (the reference's, in the shared layout) and its recorded output to outputs.
Those of another shape may be left out, and are where they cost much. What was recorded is used for its shape, and to
solve it for an epsilon.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Mapping

import numpy as np

from specs.numbers import measured
from specs.words import count

Weights = Mapping[str, np.ndarray]
Hypotheses = Iterator[tuple[str, np.ndarray]]
Shape = tuple[int, ...]

WORK = 1 << 31  # multiplications that all hypotheses about one output may take: seconds, where a guess is worth no more

EPSILONS = {1e-3: "1e-3", 1e-5: "1e-5", float(np.float32(1e-5)): "float32(1e-5)", 1e-6: "1e-6",
            float(np.float32(1e-6)): "float32(1e-6)", 1e-8: "1e-8", 1e-12: "1e-12", 0.0: "0"}  # fmt: skip

SAME = "SAME padding"
CENTRED = "its input centred"
LOW = f"{SAME} with its odd pixel on the low side"

SOLVED = 100  # roundings of a variance below which an epsilon that was solved for would be noise

_erf = np.vectorize(math.erf, otypes=[np.float64])

NONE = "no activation"
ACTIVATIONS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    NONE: lambda x: x,
    "GELU by the error function": lambda x: 0.5 * x * (1 + _erf(x / math.sqrt(2))),
    "GELU by tanh": lambda x: 0.5 * x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))),
    "GELU by a sigmoid": lambda x: x / (1 + np.exp(-1.702 * x)),
    "ReLU": lambda x: np.maximum(x, 0),
    "SiLU": lambda x: x / (1 + np.exp(-x)),
    "hard swish": lambda x: x * np.clip(x + 3, 0, 6) / 6,
    "hard sigmoid": lambda x: np.clip(x + 3, 0, 6) / 6,
    "Mish": lambda x: x * np.tanh(np.log1p(np.exp(x))),
    "ELU": lambda x: np.where(x > 0, x, np.expm1(np.minimum(x, 0))),
    "ReLU6": lambda x: np.clip(x, 0, 6),
    "leaky ReLU of slope 0.01": lambda x: np.where(x > 0, x, 0.01 * x),
    "softplus": lambda x: np.log1p(np.exp(x)),
    "tanh": np.tanh,
    "sigmoid": lambda x: 1 / (1 + np.exp(-x)),
}


def softmax(x: np.ndarray) -> np.ndarray:
    """Compute a softmax over the last axis, which is no activation of single numbers, as ACTIVATIONS are."""
    powers = np.exp(x - x.max(-1, keepdims=True))
    return powers / powers.sum(-1, keepdims=True)


def dense(x: np.ndarray, w: Weights, recorded: np.ndarray) -> Hypotheses:
    """Multiply over the last axis, or over the rows of a matrix."""
    kernel, bias = w["kernel"], w.get("bias")
    if x.shape[-1] == len(kernel):
        yield from _dense(x, kernel, bias, lambda y: y)
    if x.ndim == 3 and x.shape[1] == len(kernel):
        yield from _dense(x.swapaxes(1, 2), kernel, bias, lambda y: y.swapaxes(1, 2))


def _dense(
    x: np.ndarray, kernel: np.ndarray, bias: np.ndarray | None, turn: Callable[[np.ndarray], np.ndarray]
) -> Hypotheses:
    """Multiply with a kernel (in, out) and add a bias, in several wrong ways too; None: the layer has no bias."""
    shift, beside = (0.0, "") if bias is None else (bias, " and the bias")
    yield f"the kernel as (in, out){beside}", turn(x @ kernel + shift)
    if kernel.shape[0] == kernel.shape[1]:
        yield f"the kernel transposed{beside}", turn(x @ kernel.T + shift)
    if bias is not None:
        yield "the kernel as (in, out) and no bias", turn(x @ kernel)
    yield f"reversed input features{beside}", turn(x[..., ::-1] @ kernel + shift)
    yield f"reversed output features{beside}", turn((x @ kernel + shift)[..., ::-1])


def epsilons(
    centred: np.ndarray, variance: np.ndarray, scale: np.ndarray, bias: np.ndarray, recorded: np.ndarray
) -> dict[float, str]:
    """Return the usual epsilons, and the one, to two digits, with which a norm would return what was recorded."""
    if recorded.shape != centred.shape or recorded.dtype.name not in ("float32", "float64"):
        return EPSILONS
    with np.errstate(all="ignore"):
        normed = (recorded.astype(np.float64) - bias) / scale
        estimates = np.square(centred / normed) - variance
    estimates = estimates[np.isfinite(estimates)]
    epsilon = float(measured(float(np.median(estimates)), 2)) if estimates.size else 0.0
    noise = SOLVED * float(np.finfo(recorded.dtype).eps) * float(np.median(variance))
    if not noise < epsilon < 1:
        return EPSILONS
    name = measured(epsilon, 2)
    return {epsilon: name, float(np.float32(epsilon)): f"float32({name})", **EPSILONS}


def norm(x: np.ndarray, w: Weights, recorded: np.ndarray) -> Hypotheses:
    """Normalize over the last axes, as many as the scale has, or over the channels of images (n, c, h, w)."""
    scale, bias = w.get("scale", np.ones(1)), w.get("bias", np.zeros(1))
    if scale.ndim > 1:
        if x.shape != recorded.shape or x.shape[-scale.ndim :] != scale.shape:
            return
        flat, shift = (-1, scale.size), np.broadcast_to(bias, scale.shape)
        for name, out in _norm(x.reshape(flat), scale.ravel(), shift.ravel(), recorded.reshape(flat)):
            yield name, out.reshape(x.shape)
        return
    features = max(len(scale), len(bias))
    if x.shape[-1] == features:
        yield from _norm(x, scale, bias, recorded)
    if x.ndim == recorded.ndim == 4 and x.shape[1] == features:
        for name, out in _norm(np.moveaxis(x, 1, -1), scale, bias, np.moveaxis(recorded, 1, -1)):
            yield name, np.moveaxis(out, -1, 1)


def _norm(x: np.ndarray, scale: np.ndarray, bias: np.ndarray, recorded: np.ndarray) -> Hypotheses:
    centred = x - x.mean(-1, keepdims=True)
    solved = epsilons(centred, x.var(-1, keepdims=True), scale, bias, recorded)
    for (epsilon, name), ddof in itertools.product(solved.items(), (0, 1)):
        normed = centred / np.sqrt(x.var(-1, ddof=ddof, keepdims=True) + epsilon)
        variance = "an unbiased variance" if ddof else "a biased variance"
        yield f"epsilon {name} and {variance}", normed * scale + bias
        yield f"epsilon {name} and {variance}, without the bias", normed * scale
    yield "no normalisation", x


def group_norm(x: np.ndarray, w: Weights, recorded: np.ndarray) -> Hypotheses:
    """Normalize groups of channels (n, c, ...) with the other axes, for each number of groups that divides them.

    Groups of one channel are an instance norm.
    """
    scale, bias = w.get("scale", np.ones(1)), w.get("bias", np.zeros(1))
    channels = max(scale.size, bias.size)
    if x.ndim < 2 or x.shape != recorded.shape or x.shape[1] != channels or scale.ndim != 1:
        return
    wide = (slice(None), *[None] * (x.ndim - 2))
    for groups in (n for n in range(1, channels + 1) if channels % n == 0):
        split = x.reshape(len(x), groups, -1)
        centred = (split - split.mean(-1, keepdims=True)).reshape(x.shape)
        variance = np.broadcast_to(split.var(-1, keepdims=True), split.shape).reshape(x.shape)
        for epsilon, name in epsilons(centred, variance, scale[wide], bias[wide], recorded).items():
            out = centred / np.sqrt(variance + epsilon) * scale[wide] + bias[wide]
            yield f"epsilon {name} and {count(groups, 'group')}", out


def any_norm(x: np.ndarray, w: Weights, recorded: np.ndarray) -> Hypotheses:
    """Normalize as a layer of no known kind with a scale, and maybe a bias: an instance norm, one of the user's.

    Without a bias it may be an RMSNorm, which divides by a mean of squares.
    """
    named = {{"weight": "scale"}.get(name, name): array for name, array in w.items()}
    shapes = {array.shape for array in named.values()}
    if {"scale"} <= {*named} <= {"scale", "bias"} and len(shapes) == 1 and shapes != {()}:
        yield from norm(x, named, recorded)
        yield from group_norm(x, named, recorded)
        for name, out in rms_norm(x, named, recorded) if named.keys() == {"scale"} else ():
            if "epsilon" in name and CENTRED not in name:  # which `norm` yields
                epsilon, comma, rest = name.partition(",")
                yield f"{epsilon} and the mean of squares{comma}{rest}", out


def rms_norm(x: np.ndarray, w: Weights, recorded: np.ndarray) -> Hypotheses:
    if w["scale"].shape != x.shape[-1:]:
        return
    square = (x * x).mean(-1, keepdims=True)
    solved = [epsilons(x, square, scale, np.zeros(1), recorded) for scale in (w["scale"], 1 + w["scale"])]
    for epsilon, name in (solved[0] | solved[1]).items():
        normed = x / np.sqrt(square + epsilon)
        yield f"epsilon {name}", normed * w["scale"]
        yield f"epsilon {name}, its scale as what is added to 1", normed * (1 + w["scale"])
        centred = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + epsilon)
        yield f"epsilon {name}, {CENTRED}", centred * w["scale"]
    yield "no normalisation", x


def batch_norm(x: np.ndarray, w: Weights, recorded: np.ndarray) -> Hypotheses:
    if x.ndim < 2 or "mean" not in w or "var" not in w or x.shape[1] != len(w["mean"]):
        return
    scale, bias = w.get("scale", np.ones_like(w["mean"])), w.get("bias", np.zeros_like(w["mean"]))
    wide = (slice(None), *[None] * (x.ndim - 2))
    n = x.size // x.shape[1]
    axes = (0, *range(2, x.ndim))
    statistics = {
        "": (w["mean"], w["var"]),
        ", its running variance unbiased": (w["mean"], w["var"] * n / max(n - 1, 1)),
        ", its statistics never copied (0 and 1)": (np.zeros_like(w["mean"]), np.ones_like(w["var"])),
        ", this batch's statistics": (x.mean(axes), x.var(axes)),
        ", mean and variance swapped": (w["var"], np.abs(w["mean"])),
    }
    solved = epsilons(x - w["mean"][wide], w["var"][wide], scale[wide], bias[wide], recorded)
    for (epsilon, name), (suffix, (mean, var)) in itertools.product(solved.items(), statistics.items()):
        normed = (x - mean[wide]) / np.sqrt(var[wide] + epsilon)
        yield f"epsilon {name}{suffix}", normed * scale[wide] + bias[wide]


def conv(x: np.ndarray, w: Weights, recorded: np.ndarray) -> Hypotheses:
    kernel, bias, shape = w["kernel"], w.get("bias"), recorded.shape
    if x.ndim != 4 or x.shape[1] % kernel.shape[1] or not math.prod(shape):
        return
    shift = 0.0 if bias is None else bias[:, None, None]
    kernels = {"": kernel, ", the kernel flipped": kernel[:, :, ::-1, ::-1]}
    if kernel.shape[2] == kernel.shape[3]:
        kernels[", the kernel's height and width swapped"] = kernel.swapaxes(2, 3)
    if kernel.shape[0] == kernel.shape[1]:
        kernels[", the kernel's inputs and outputs swapped"] = kernel.swapaxes(0, 1)
    cost, left = math.prod(shape) * math.prod(kernel.shape[1:]), WORK
    tried = [(stride, *padded) for stride in _strides(kernel) for padded in _paddings(kernel, x, stride)]
    for stride, pads, padding in tried:
        if _convolved(x, kernel, stride, pads) != shape:
            continue
        for suffix, array in kernels.items():
            left -= cost
            if left < 0:
                return
            out = convolve(x, array, stride, pads)
            yield f"stride {stride[0]}x{stride[1]}, {padding}{suffix}", out + shift
            if bias is not None:
                yield f"stride {stride[0]}x{stride[1]}, {padding}{suffix}, no bias", out


def _strides(kernel: np.ndarray) -> list[tuple[int, int]]:
    h, w = kernel.shape[2:]
    return list(dict.fromkeys([(1, 1), (h, w), (2, 2), (2, 1), (1, 2), (4, 4)]))


Pads = tuple[int, int, int, int]  # top, bottom, left, right


def _paddings(kernel: np.ndarray, x: np.ndarray, stride: Shape) -> list[tuple[Pads, str]]:
    """Return (pads, name), each pads once: by its plainest name, and by each other one that pads so at this size alone.

    Half the kernel and SAME come first, as they are the commonest.
    """
    sizes, sides = x.shape[2:], kernel.shape[2:]
    phases = list(itertools.product(*(range(n, n + s) for n, s in zip(sizes, stride, strict=True))))
    found: dict[Pads, dict[str, list[Pads]]] = {}  # what is read of pads, at this size -> by name, at each size
    for name, rule in _rules(sides, stride).items():
        read, at_each = (
            _read(rule(sizes), sizes, sides, stride),
            [_read(rule(other), other, sides, stride) for other in phases],
        )
        alike = found.setdefault(read, {})
        if at_each not in alike.values() and not (name == LOW and SAME in alike):  # without an odd pixel they are one
            alike[name] = at_each
    return [(pads, " or ".join(names)) for pads, names in found.items()]


def _rules(kernel: Shape, stride: Shape) -> dict[str, Callable[[Shape], Pads]]:
    """Return what pads by a rule an input of a size gets, by its name."""
    h, w = kernel

    def equally(top: int, left: int) -> Callable[[Shape], Pads]:
        return lambda sizes: (top, top, left, left)

    def same(sizes: Shape) -> Pads:
        """Pad so that as many outputs come out as strides begin in the input, with the odd pixel on the high side."""
        totals = [max((-(-n // s) - 1) * s + k - n, 0) for n, k, s in zip(sizes, kernel, stride, strict=True)]
        (top, bottom), (left, right) = ((total // 2, total - total // 2) for total in totals)
        return top, bottom, left, right

    def low(sizes: Shape) -> Pads:
        top, bottom, left, right = same(sizes)
        return bottom, top, right, left

    rules = {"no padding": equally(0, 0)}
    rules |= {f"padding {h // 2}" if h == w else "padding of half the kernel": equally(h // 2, w // 2)}
    rules |= {SAME: same, LOW: low}
    return rules | {f"padding {p}": equally(p, p) for p in range(1, min(max(h, w), 4))}


def _read(pads: Pads, sizes: Shape, kernel: Shape, stride: Shape) -> Pads:
    """Leave out of pads what no stride of the kernel reaches: pads that read the same compute the same."""
    read = []
    for low, high, n, k, s in zip(pads[::2], pads[1::2], sizes, kernel, stride, strict=True):
        last = (n + low + high - k) // s * s + k  # what the last stride reaches, with the low pad
        read += [low, max(last - low - n, 0)]
    return read[0], read[1], read[2], read[3]


def _convolved(x: np.ndarray, kernel: np.ndarray, stride: tuple[int, int], pads: Pads) -> Shape:
    """Return the shape of `convolve`; with a side below 1 where the kernel does not fit."""
    y = (x.shape[2] + sum(pads[:2]) - kernel.shape[2]) // stride[0] + 1
    return len(x), len(kernel), y, (x.shape[3] + sum(pads[2:]) - kernel.shape[3]) // stride[1] + 1


def convolve(x: np.ndarray, kernel: np.ndarray, stride: tuple[int, int], pads: Pads) -> np.ndarray:
    """Compute a grouped convolution, x (n c h w), kernel (o i h w), in little more memory than its result."""
    shape = _convolved(x, kernel, stride, pads)
    x = np.pad(x, ((0, 0), (0, 0), pads[:2], pads[2:]))
    o, i, h, w = kernel.shape
    groups = x.shape[1] // i
    split = kernel.reshape(groups, o // groups, i, h, w)
    out = np.zeros((len(x), groups, o // groups, shape[2] * shape[3]))
    for v, u in itertools.product(range(h), range(w)):
        seen = x[:, :, v :: stride[0], u :: stride[1]][:, :, : shape[2], : shape[3]]
        out += split[..., v, u] @ seen.reshape(len(x), groups, i, -1)
    return out.reshape(shape)


def heads(x: np.ndarray, w: Weights, recorded: np.ndarray) -> Hypotheses:
    kernel = w["kernel"]
    bias = w.get("bias", np.zeros_like(kernel[:, 0]))
    h, i, o = kernel.shape
    if x.ndim != 3 or x.shape[2] != h * i:
        return
    split = x.reshape(*x.shape[:2], h, i).swapaxes(1, 2)
    yield "a head's own part of the features", split @ kernel + bias[:, None]
    yield "no bias", split @ kernel
    if i == o:
        yield "transposed kernels", split @ kernel.swapaxes(1, 2) + bias[:, None]
    strided = x.reshape(*x.shape[:2], i, h).transpose(0, 3, 1, 2)
    yield "features dealt out to the heads in turn", strided @ kernel + bias[:, None]


HYPOTHESES: dict[str, Callable[[np.ndarray, Weights, np.ndarray], Hypotheses]] = {
    "dense": dense, "norm": norm, "rms_norm": rms_norm, "batch_norm": batch_norm, "conv": conv, "heads": heads,
    "group_norm": group_norm, "": any_norm,
}  # fmt: skip


def orders(x: np.ndarray) -> Iterator[tuple[str, np.ndarray]]:
    """Yield ways in which the same numbers come in another order, in the same shape."""
    for axis in range(1, x.ndim):
        yield f"reversed along axis {axis}", np.flip(x, axis)
    for order in itertools.permutations(range(1, x.ndim)):
        if list(order) != sorted(order):
            moved = x.transpose(0, *order)
            axes = ", ".join(map(str, (0, *order)))
            how = "with axes in the order" if moved.shape == x.shape else "flattened in the order of axes"
            yield f"{how} {axes}", moved.reshape(x.shape)
    if x.ndim > 1:
        for factor in range(2, x.shape[-1]):
            if x.shape[-1] % factor == 0:
                split = x.reshape(*x.shape[:-1], factor, -1).swapaxes(-1, -2).reshape(x.shape)
                other = x.shape[-1] // factor
                yield f"with the last axis read as {other} by {factor} in place of {factor} by {other}", split

"""Write out fused operations of paddle, so that what they are made of is recorded instead."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any

import paddle
from paddle import _C_ops as ops


def _affine(x: Any, weight: Any, bias: Any) -> Any:
    x = x if weight is None else x * weight
    return x if bias is None else x + bias


def _centred(x: Any, axes: list[int], epsilon: float) -> Any:
    y = x - ops.mean(x, axes, True)
    return y * ops.rsqrt(ops.mean(y * y, axes, True) + epsilon)


def _layer_norm(x: Any, scale: Any, bias: Any, epsilon: float, begin: int) -> Any:
    shape = list(x.shape[begin:])
    scale, bias = (v if v is None else ops.reshape(v, shape) for v in (scale, bias))
    return _affine(_centred(x, list(range(begin, len(x.shape))), epsilon), scale, bias)


def _batch_norm(
    x: Any, mean: Any, var: Any, scale: Any, bias: Any, test: bool, momentum: float, epsilon: float, form: str, *_: Any
) -> Any:
    shape = [1] * (len(x.shape) - 1) + [-1] if form[-1] == "C" else [1, -1] + [1] * (len(x.shape) - 2)
    scale, bias, mean = (v if v is None else ops.reshape(v, shape) for v in (scale, bias, mean))
    y = (x - mean) * ops.reshape(ops.rsqrt(var + epsilon), shape)
    return _affine(y, scale, bias), mean, var, mean, var, mean


def _group_norm(x: Any, scale: Any, bias: Any, epsilon: float, groups: int, form: str = "NCHW") -> Any:
    if form[-1] == "C":
        order = [0, len(x.shape) - 1, *range(1, len(x.shape) - 1)]
        y = _group_norm(ops.transpose(x, order), scale, bias, epsilon, groups)
        return ops.transpose(y, [0, *range(2, len(x.shape)), 1])
    y = _centred(ops.reshape(x, [x.shape[0], groups, -1]), [2], epsilon)
    shape = [1, -1] + [1] * (len(x.shape) - 2)
    scale, bias = (v if v is None else ops.reshape(v, shape) for v in (scale, bias))
    return _affine(ops.reshape(y, list(x.shape)), scale, bias)


def _linear(x: Any, weight: Any, bias: Any = None, transposed: bool = False) -> Any:
    y = ops.matmul(x, weight, False, transposed)
    return y if bias is None else y + bias


def _addmm(bias: Any, x: Any, y: Any, beta: float = 1, alpha: float = 1) -> Any:
    product = ops.matmul(x, y, False, False)
    product = product if alpha == 1 else product * alpha
    return product if beta == 0 else product + (bias if beta == 1 else bias * beta)


def _bilinear(x: Any, y: Any, weight: Any, bias: Any = None) -> Any:
    """Multiply the outer products of two arrays' rows with a matrix."""
    products = ops.reshape(ops.unsqueeze(x, [2]) * ops.unsqueeze(y, [1]), [x.shape[0], -1])
    return _linear(products, ops.reshape(weight, [weight.shape[0], -1]), bias, True)


def _rnn(
    x: Any, states: Any, weights: Any, length: Any, seed: Any, p: float, both: bool, inner: int, hidden: int,
    layers: int, mode: str, *_: Any,
) -> Any:  # fmt: skip
    """Run a recurrent network (time, batch, input) step by step, up to the end of each sequence."""
    beyond = 0
    if length is not None:
        longest = int(length.max())
        beyond, x = x.shape[0] - longest, x[:longest]
        length = None if bool((length == longest).all()) else length
    cell = {"LSTM": _lstm_cell, "GRU": _gru_cell, "RNN_TANH": _cell(ops.tanh), "RNN_RELU": _cell(ops.relu)}[mode]
    directions, half = 2 if both else 1, len(weights) // 2
    finals: list[Any] = []
    for layer in range(layers):
        ways = []
        for way in range(directions):
            k = layer * directions + way
            matrices, biases = weights[2 * k : 2 * k + 2], weights[half + 2 * k : half + 2 * k + 2]
            read = ops.matmul(x, matrices[0], False, True) + biases[0]
            state = [s[k] for s in states]
            outs: list[Any] = [None] * x.shape[0]
            for t in range(x.shape[0]) if way == 0 else reversed(range(x.shape[0])):
                new = cell([read[t], ops.matmul(state[0], matrices[1], False, True) + biases[1]], state)
                outs[t], state = (new[0], new) if length is None else _within(length > t, new, state)
            ways.append(ops.stack(outs, 0))
            finals.append(state)
        x = ways[0] if directions == 1 else ops.concat(ways, 2)
    if beyond:
        x = ops.concat([x, paddle.zeros([beyond, *x.shape[1:]], x.dtype)], 0)
    return x, seed, [ops.stack(list(part), 0) for part in zip(*finals, strict=True)]


def _within(runs: Any, new: list[Any], old: list[Any]) -> tuple[Any, list[Any]]:
    """Return a step's output and states: 0, and the old ones, of sequences that have ended."""
    runs = ops.expand(ops.unsqueeze(runs, [1]), new[0].shape)
    kept = [ops.where(runs, *states) for states in zip(new, old, strict=True)]
    return ops.where(runs, new[0], paddle.zeros_like(new[0])), kept


def _gelu(x: Any, approximate: bool | str = False, *_: Any, **name: Any) -> Any:
    """Write out the numbers, which other frameworks round where they compute in lower precision."""
    if approximate in (False, "none"):
        return 0.5 * x * (1 + ops.erf(x * math.sqrt(0.5)))
    return 0.5 * x * (1 + ops.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x * x * x)))


def _prelu(x: Any, slope: Any, form: str, mode: str) -> Any:
    """Multiply what is below zero with one slope, or one of each channel or element."""
    if mode == "channel":
        shape = [1] * (len(x.shape) - 1) + [-1] if form[-1] == "C" else [1, -1] + [1] * (len(x.shape) - 2)
        slope = ops.reshape(slope, shape)
    return ops.where(x > 0, x, x * slope)


def _cell(activation: Callable[[Any], Any]) -> Callable[..., Any]:
    return lambda gates, state: [activation(gates[0] + gates[1])]


def _lstm_cell(gates: Any, state: Any) -> Any:
    i, f, g, o = ops.split_with_num(gates[0] + gates[1], 4, 1)
    c = ops.sigmoid(f) * state[1] + ops.sigmoid(i) * ops.tanh(g)
    return [ops.sigmoid(o) * ops.tanh(c), c]


def _gru_cell(gates: Any, state: Any) -> Any:
    (xr, xz, xn), (hr, hz, hn) = (ops.split_with_num(gate, 3, 1) for gate in gates)
    z = ops.sigmoid(xz + hz)
    n = ops.tanh(xn + ops.sigmoid(xr + hr) * hn)
    return [(state[0] - n) * z + n]


COMPOSED: dict[str, Callable[..., Any]] = {
    "dropout": lambda x, seed, p, test, mode, *rest: x if mode == "upscale_in_train" else x * (1 - p),
    "gelu": _gelu,
    "hardswish": lambda x: x * ops.clip(x + 3, 0.0, 6.0) * (1 / 6),
    "hardsigmoid": lambda x, slope, offset: ops.clip(x * slope + offset, 0.0, 1.0),
    "addmm": _addmm,
    "baddbmm": _addmm,
    "bilinear": _bilinear,
    "lerp": lambda x, y, weight: x + (y - x) * weight,
    "multi_dot": lambda factors: functools.reduce(lambda x, y: ops.matmul(x, y, False, False), factors),
    "mv": lambda x, y: ops.matmul(x, y, False, False),
    "prelu": _prelu,
    "rnn": _rnn,
    "layer_norm": _layer_norm,
    "batch_norm": _batch_norm,
    "batch_norm_": _batch_norm,
    "group_norm": _group_norm,
    "instance_norm": lambda x, scale, bias, epsilon: _group_norm(x, scale, bias, epsilon, x.shape[1]),
    "linear": _linear,
    "linear_v2": _linear,
}

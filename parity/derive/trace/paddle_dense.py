"""Find the gradients of large linear layers of paddle without forming them: all take as much memory as the weights."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from typing import Any
from unittest import mock

import numpy as np
import paddle
from paddle import _C_ops as ops

from .outer import Outer, outer
from .tape import Array

LINEAR = ops.linear


class LinearGradients:
    """Record what linear layers multiply weights by, and the gradients at their results.

    Autograd computes what other operations that read a weight add to its gradient.

    Args:
      weights: large ones, by name.
    """

    def __init__(self, weights: Mapping[str, Any]):
        self._names = {id(tensor): name for name, tensor in weights.items()}
        self._factors: dict[str, list[tuple[Array, Array]]] = {name: [] for name in weights}

    @contextlib.contextmanager
    def installed(self) -> Iterator[None]:
        """Let linear layers record."""
        with mock.patch.object(ops, "linear", self._linear):
            yield

    def _linear(self, x: Any, weight: Any, bias: Any) -> Any:
        name = self._names.get(id(weight))
        if name is None or x.stop_gradient or not paddle.is_grad_enabled():
            return LINEAR(x, weight, bias)
        return _Linear.apply(x, bias, weight.detach(), self._factors[name])

    def gradient(self, name: str, rest: Array | None) -> Array | Outer | None:
        """Return the gradient of a weight once; None if no output depends on it.

        Args:
          rest: what autograd has computed of it, if anything.
        """
        products = [outer(*factors) for factors in self._factors.pop(name, [])]
        if rest is None and len(products) < 2:
            return products[0] if products else None
        return sum(map(np.asarray, products), start=0.0 if rest is None else rest)


class _Linear(paddle.autograd.PyLayer):
    @staticmethod
    def forward(ctx: Any, x: Any, bias: Any, weight: Any, factors: list[tuple[Array, Array]]) -> Any:
        ctx.save_for_backward(x, weight)
        ctx.has_bias, ctx.factors = bias is not None, factors
        return LINEAR(x, weight, bias)

    @staticmethod
    def backward(ctx: Any, gradient: Any) -> Any:
        x, weight = ctx.saved_tensor()
        gradient = gradient.astype(weight.dtype)
        flat = gradient.reshape([-1, weight.shape[1]])
        ctx.factors.append((x.reshape([-1, weight.shape[0]]).numpy(), flat.numpy()))
        by_x = paddle.matmul(gradient, weight, transpose_y=True)
        return (by_x, flat.sum(0)) if ctx.has_bias else by_x

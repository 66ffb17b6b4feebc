"""Give operations of torch the neutral forms of a tape: layout, product, add, mul."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from ports.runners.torch import is_inexact

from .tape import Tape, identity
from .torch_values import length_of, places_of, results_of, tensors_of

LAYOUT = frozenset([
    "t", "transpose", "permute", "view", "_unsafe_view", "reshape", "expand", "unsqueeze", "squeeze",
    "slice", "select", "detach", "alias", "split", "split_with_sizes", "unsafe_split", "unsafe_chunk",
    "chunk", "unbind", "clone", "contiguous", "cat", "stack", "flip", "roll", "repeat", "index",
    "index_select", "gather", "embedding", "unfold", "narrow", "diagonal", "_reshape_alias", "lift_fresh",
    "im2col", "upsample_nearest1d", "upsample_nearest2d", "reflection_pad1d", "reflection_pad2d",
    "replication_pad2d", "pixel_shuffle", "lift", "movedim", "expand_copy", "tril", "triu",
])  # fmt: skip  # what they do to floats, they do to element numbers
LOW = (torch.float32, torch.float16, torch.bfloat16)


def lifted(kwargs: dict[str, Any]) -> dict[str, Any]:
    """Make casts to lower precision void, and constants as exact as they can be."""
    dtype = kwargs.get("dtype")
    wide = torch.float64 if dtype in LOW else torch.complex128 if dtype == torch.complex64 else dtype
    return {**kwargs, "dtype": wide} if wide != dtype else kwargs


def is_layout(name: str, args: Any, kwargs: Any, out: Any) -> bool:
    floating = [t for t in tensors_of(args, kwargs) if is_inexact(t)]
    if not floating or not all(is_inexact(t) for t in results_of(out)):
        return False
    if name == "constant_pad_nd":
        return (args[2] if len(args) > 2 else kwargs.get("value", 0)) == 0
    return name in LAYOUT or (name == "_to_copy" and {t.is_complex() for t in (*floating, out)} in ({True}, {False}))


def _number(value: Any) -> Any:
    return np.complex128(value) if isinstance(value, complex) else np.float64(value)


def _arithmetic(operation: str) -> Callable[..., int | None]:
    """Return the form of arithmetic of two operands, of which `alpha` scales the second one."""

    def form(self: Forms, args: Any, kwargs: Any, inputs: list[int], out: Any) -> int | None:
        pair = None if kwargs.get("rounding_mode") else self._pair(args, inputs)
        return getattr(self.tape, operation)(*self._scaled(pair, kwargs), self.path[-1]) if pair else None

    return form


def _product(x_at: Any, w_at: Any, result_at: Any) -> Callable[..., int]:
    """Return the form of a product: indices by which vectors and matrices get axes, and the result loses these."""

    def form(self: Forms, args: Any, kwargs: Any, inputs: list[int], out: Any) -> int:
        tape, site = self.tape, self.path[-1]
        x, w = tape.layout(inputs[0], lambda a: a[x_at], site), tape.layout(inputs[1], lambda a: a[w_at], site)
        return tape.layout(tape.product(x, w, site), lambda a: a[result_at], site)

    return form


class Forms:
    """What has a form of its own: each method returns a value's number, or None where the general rule holds.

    Args:
      path: ends with the name of the module that runs.
    """

    tape: Tape
    path: list[str]

    def _pair(self, args: Any, inputs: list[int]) -> list[int] | None:
        """Return numbers of two operands, of which one may be a Python number; None unless they are floats."""
        if not any(isinstance(a, torch.Tensor) and is_inexact(a) for a in args[:2]):
            return None
        numbers = iter(inputs)
        return [next(numbers) if isinstance(a, torch.Tensor) else self.tape.constant(_number(a)) for a in args[:2]]

    def _as_strided(self, args: Any, kwargs: Any, inputs: list[int], out: Any) -> int | None:
        """Read places of a storage as elements of the tensor that lies there, if it has all of them."""
        own = places_of(args[0])
        order = np.full(length_of(args[0]), -1)
        order[own] = np.arange(own.size).reshape(own.shape)
        places = order[places_of(out)]
        if (places < 0).any():
            return None
        kind = "layout" if is_inexact(out) else "other"
        return self.tape.record(kind, inputs, lambda a: a.ravel()[places], self.path[-1])

    def _scaled(self, pair: list[int], kwargs: Any) -> list[int]:
        if kwargs.get("alpha", 1) != 1:
            alpha = self.tape.constant(_number(kwargs["alpha"]))
            pair = [pair[0], self.tape.multiply(pair[1], alpha, self.path[-1])]
        return pair

    _add, _sub, _mul, _div = map(_arithmetic, ("add", "subtract", "multiply", "divide"))

    def _upsample_bilinear2d(self, args: Any, kwargs: Any, inputs: list[int], out: Any) -> int | None:
        """Treat interpolation to the size at hand, as of position tables, as moving nothing."""
        return self.tape.layout(inputs[0], identity, self.path[-1]) if out.shape == args[0].shape else None

    _upsample_linear1d = _upsample_bicubic2d = _upsample_trilinear3d = _upsample_bilinear2d

    def _bmm(self, args: Any, kwargs: Any, inputs: list[int], out: Any) -> int:
        return self.tape.product(inputs[0], inputs[1], self.path[-1])

    _mm = _product(np.s_[None], np.s_[None], np.s_[0])
    _mv = _product(np.s_[None], np.s_[None, :, None], np.s_[0, :, 0])
    _dot = _product(np.s_[None, None], np.s_[None, :, None], np.s_[0, 0, 0])

    def _convolution(self, args: Any, kwargs: Any, inputs: list[int], out: Any) -> int | None:
        tape, site = self.tape, self.path[-1]
        w = args[1]
        rank = w.dim() - 2
        stride, padding, dilation = (list(v) * (rank if len(v) == 1 else 1) for v in args[3:6])
        transposed, extra, groups, edges = args[6], list(args[7]), args[8], [(p, p) for p in padding]
        if transposed:
            value = tape.convolve_transposed(
                inputs[0], inputs[1], w.shape[2:], stride, edges, extra, dilation, groups, site
            )
        else:
            value = tape.convolve(inputs[0], inputs[1], stride, edges, dilation, groups, (), site)
        if args[2] is not None:
            shape = (1, -1, *(1,) * rank)
            value = tape.add(value, tape.layout(inputs[2], lambda a: a.reshape(shape), site), site)
        return value

    def _cdist_forward(self, args: Any, kwargs: Any, inputs: list[int], out: Any) -> int | None:
        """Write distances from vectors of a parameter as squares and a product; None for those of activations alone.

        There, distances of equal points have to be zero to the last digit.
        """
        tape, site = self.tape, self.path[-1]
        p = args[2] if len(args) > 2 else 2  # `_euclidean_dist` has none
        if p != 2 or all(tape.depends([value], tape.inputs) for value in inputs):
            return None
        x, y = (tape.record("other", [value], lambda a: (a * a).sum(-1), site) for value in inputs)
        rows, count = out.shape[-2:]
        batch = tuple(out.shape[:-2])

        def flat(value: int, columns: bool) -> int:
            def run(a: np.ndarray) -> np.ndarray:
                a = np.broadcast_to(a, (*batch, *a.shape[-2:])).reshape(-1, *a.shape[-2:])
                return a.swapaxes(1, 2) if columns else a

            return tape.layout(value, run, site)

        product = tape.product(flat(inputs[0], False), flat(inputs[1], True), site)
        product = tape.layout(product, lambda a: a.reshape(*batch, rows, count), site)
        product = tape.multiply(product, tape.constant(np.float64(-2)), site)
        x, y = tape.layout(x, lambda a: a[..., None], site), tape.layout(y, lambda a: a[..., None, :], site)
        squares = tape.add(tape.add(x, product, site), y, site)
        return tape.record("other", [squares], lambda a: np.sqrt(np.maximum(a, 0)), site)

    _euclidean_dist = _cdist_forward

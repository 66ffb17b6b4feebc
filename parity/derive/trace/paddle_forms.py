"""Give operations of paddle the neutral forms of a tape: layout, product, add, mul; of an einsum, all of them."""

from __future__ import annotations

import math
import string
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import paddle

from ports.runners.paddle import is_inexact

from .call import flatten
from .paddle_resize import Resize
from .paddle_values import LOW
from .tape import Operation, Tape, identity

LAYOUT = frozenset([
    "reshape", "transpose", "squeeze", "unsqueeze", "concat", "stack", "split", "split_with_num", "slice",
    "strided_slice", "expand", "tile", "flip", "roll", "gather", "gather_nd", "embedding", "index_select",
    "assign", "flatten", "unbind", "unstack", "repeat_interleave", "take_along_axis", "unfold",
    "nearest_interp", "expand_as", "view_shape", "view_slice", "tril", "triu", "trans_layout", "share_data",
    "index_sample", "pixel_shuffle", "_getitem_dygraph", "_getitem_from_offset", "clone", "detach",
    "contiguous", "_tensor_use_gpudnn", "T", "mT",
])  # fmt: skip  # what they do to floats, they do to element numbers

PADDING = ("constant", "reflect", "replicate", "circular")


def positional(args: Any, kwargs: Any) -> tuple[Any, Any]:
    """Return the first two operands as positional arguments, in place of keywords."""
    kwargs = dict(kwargs)
    for place, names in enumerate((("x", "input"), ("y", "other"))):
        for name in names:
            if len(args) == place and name in kwargs:
                args = (*args, kwargs.pop(name))
    return args, kwargs


def lifted(args: Any, kwargs: Any) -> tuple[Any, Any]:
    """Make casts to lower precision void."""

    def lift(value: Any) -> Any:
        low = isinstance(value, paddle.dtype) and str(value).split(".")[-1] in LOW
        return paddle.float64 if low else value

    return tuple(map(lift, args)), {key: lift(value) for key, value in kwargs.items()}


def is_layout(name: str, args: Any, results: Sequence[Any]) -> bool:
    first = next(leaf for _, leaf in flatten(list(args)) if isinstance(leaf, paddle.Tensor))
    if not all(map(is_inexact, results)) or ("int" in str(first.dtype) and name != "embedding"):
        return False
    if name in ("pad", "pad3d"):
        numbers = [a for a in args[2:] if isinstance(a, (int, float))]
        modes = [a for a in args if isinstance(a, str) and a in PADDING]
        return modes in ([], ["constant"]) and not any(numbers)
    if name == "_setitem_dygraph":
        return isinstance(args[-1], paddle.Tensor) and is_inexact(args[-1])
    return name in LAYOUT or (name == "cast" and first.is_complex() == results[0].is_complex())


def _edges(
    algorithm: str, padding: list[int], space: list[int], taps: list[int], stride: list[int], dilation: list[int]
) -> list[tuple[int, int]]:
    """Return the zeros before and behind each axis of a convolution."""
    if algorithm == "EXPLICIT" and len(padding) == 2 * len(space):
        return list(zip(padding[::2], padding[1::2], strict=True))
    if algorithm == "EXPLICIT":
        return [(p, p) for p in padding]
    edges = []
    for n, t, s, d in zip(space, taps, stride, dilation, strict=True):
        missing = max((-(-n // s) - 1) * s + d * (t - 1) + 1 - n, 0) if algorithm == "SAME" else 0
        edges.append((missing // 2, missing - missing // 2))
    return edges


def _arithmetic(operation: str, step: int = 1) -> Callable[..., int]:
    """Return the form of arithmetic of two operands. Args: step: -1 where they come in reverse order."""

    def form(self: Forms, args: Any, kwargs: Any, inputs: list[int]) -> int:
        x, y = self._pair(args, inputs)[::step]
        return getattr(self.tape, operation)(x, y, self.path[-1])

    return form


class Forms:
    """What has a form of its own: each method returns a value's number, or None where the general rule holds.

    Args:
      path: ends with the name of the layer that runs.
    """

    tape: Tape
    path: list[str]

    def _pair(self, args: Any, inputs: list[int]) -> list[int]:
        numbers = iter(inputs)
        return [
            next(numbers) if isinstance(a, paddle.Tensor) else self.tape.constant(np.asarray(a, np.float64))
            for a in args[:2]
        ]

    _add, _subtract, _multiply, _divide = map(_arithmetic, ("add", "subtract", "multiply", "divide"))
    _reversed_subtract, _reversed_divide = _arithmetic("subtract", -1), _arithmetic("divide", -1)

    def _scale(self, args: Any, kwargs: Any, inputs: list[int]) -> int | None:
        _, scale, bias, after = args[:4]
        if isinstance(scale, paddle.Tensor) or not after:
            return None
        factor = self.tape.constant(np.float64(scale))
        value = self.tape.multiply(inputs[0], factor, self.path[-1])
        return self.tape.add(value, self.tape.constant(np.float64(bias)), self.path[-1]) if bias else value

    def _matmul(self, args: Any, kwargs: Any, inputs: list[int]) -> int | None:
        x, w, *turn = args
        turned = [*turn[:2], *(kwargs.get(k, False) for k in ("transpose_x", "transpose_y")[len(turn) :])]
        tape, site, values = self.tape, self.path[-1], list(inputs)
        shapes = [list(t.shape) for t in (x, w)]
        vectors = [len(shape) == 1 for shape in shapes]
        if vectors[0]:
            values[0], shapes[0] = tape.layout(values[0], lambda a: a[None], site), [1, *shapes[0]]
        if vectors[1]:
            values[1], shapes[1] = tape.layout(values[1], lambda a: a[:, None], site), [*shapes[1], 1]
        for k in (0, 1):
            if turned[k] and not vectors[k]:
                values[k] = tape.layout(values[k], lambda a: a.swapaxes(-1, -2), site)
                shapes[k][-2:] = shapes[k][:-3:-1]
        batch = np.broadcast_shapes(*(tuple(s[:-2]) for s in shapes))
        if len(shapes[1]) == 2:
            x3 = tape.layout(values[0], lambda a: a.reshape(1, -1, a.shape[-1]), site)
            w3 = tape.layout(values[1], lambda a: a[None], site)
        else:
            x3, w3 = (
                tape.layout(v, lambda a: np.broadcast_to(a, (*batch, *a.shape[-2:])).reshape(-1, *a.shape[-2:]), site)
                for v in values
            )
        shape = (*batch, *shapes[0][-2:-1] * (not vectors[0]), *shapes[1][-1:] * (not vectors[1]))
        return tape.layout(tape.product(x3, w3, site), lambda a: a.reshape(shape), site)

    _bmm = _matmul

    def _embedding(self, args: Any, kwargs: Any, inputs: list[int]) -> int | None:
        """Record a mask that hides the rows of padding, which paddle reads as zeros."""
        tokens, _, padding = args[:3]
        if padding < 0 or not (tokens.numpy() == padding).any():
            return None
        site = self.path[-1]
        rows = self.tape.record("layout", inputs, lambda at, table: table[at.astype(np.int64)], site)
        return self.tape.record(
            "other", [inputs[0], rows], lambda at, x: np.where((at == padding)[..., None], 0.0, x), site,
            call=Operation("embedding", {"padding_idx": padding}),
        )  # fmt: skip

    def _bilinear_interp(self, args: Any, kwargs: Any, inputs: list[int]) -> int | None:
        """Record interpolation in float64; one to the size at hand, as of position tables, moves nothing."""
        if len(inputs) > 1 or len(args) < 12:
            return None
        shape, site = list(args[0].shape), self.path[-1]
        resize = Resize.of(shape, args)
        if [shape[axis] for axis in resize.axes] == [*resize.sizes]:
            return self.tape.layout(inputs[0], identity, site)
        if not resize.is_exact:
            self.tape.lower(frozenset(["float32"]), site)
            self.tape.low_gradients = True
        names = ("interp_method", "align_corners", "align_mode")
        call = Operation(f"{args[9]}_interp", dict(zip(names, args[9:12], strict=True)))
        return self.tape.record("other", inputs, resize.apply, site, call=call)

    _linear_interp = _bicubic_interp = _trilinear_interp = _bilinear_interp

    def _einsum(self, args: Any, kwargs: Any, inputs: list[int]) -> int | None:
        operands, equation = args[:2]
        contraction = read_einsum(equation, [list(t.shape) for t in operands])
        return contraction and contraction.record(self.tape, inputs, self.path[-1])

    def _convolution(self, args: Any, kwargs: Any, inputs: list[int], transposed: bool) -> int | None:
        names = "x filter strides paddings"
        names += " output_padding output_size" if transposed else ""
        p = dict(zip(names.split(), args, strict=False))
        rest = args[len(p) :]
        p |= dict(zip(["algorithm", "a", "b", "form"], rest, strict=False))
        pair = (p.pop("a"), p.pop("b"))  # dilations and groups stand in either order
        groups, dilation = pair if isinstance(pair[0], int) else pair[::-1]
        last = p.get("form", "NCHW")[-1] == "C"
        if (transposed and p["algorithm"] != "EXPLICIT") or kwargs:
            return None
        tape, site, x = self.tape, self.path[-1], inputs[0]
        space = list(args[0].shape[1:-1] if last else args[0].shape[2:])
        taps, stride, dilation = list(args[1].shape[2:]), list(p["strides"]), list(dilation)
        edges = _edges(p["algorithm"], list(p["paddings"]), space, taps, stride, dilation)
        if last:
            x = tape.layout(x, lambda a: np.moveaxis(a, -1, 1), site)
        if transposed:
            extra = list(p["output_padding"]) or [0] * len(space)
            y = tape.convolve_transposed(x, inputs[1], taps, stride, edges, extra, dilation, groups, site)
        else:
            y = tape.convolve(x, inputs[1], stride, edges, dilation, groups, (), site)
        return tape.layout(y, lambda a: np.moveaxis(a, 1, -1), site) if last else y

    def _conv2d(self, args: Any, kwargs: Any, inputs: list[int]) -> int | None:
        return self._convolution(args, kwargs, inputs, False)

    _conv3d = _depthwise_conv2d = _conv2d

    def _conv2d_transpose(self, args: Any, kwargs: Any, inputs: list[int]) -> int | None:
        return self._convolution(args, kwargs, inputs, True)

    _conv3d_transpose = _depthwise_conv2d_transpose = _conv2d_transpose


class Contraction(NamedTuple):
    """An einsum of two operands none of which has a label of its own that is summed.

    Args:
      terms, result: labels of the axes of the operands and of the result.
      sizes: of each label.
    """

    terms: tuple[str, str]
    result: str
    sizes: dict[str, int]

    def record(self, tape: Tape, inputs: Sequence[int], site: str) -> int:
        """Append the einsum's operations and return its value's number."""
        a, b = self.terms
        batch = "".join(k for k in a if k in b and k in self.result)
        summed = "".join(k for k in a if k in b and k not in self.result)
        free = ["".join(k for k in term if k not in other) for term, other in ((a, b), (b, a))]
        matrices = (batch, free[0], summed), (batch, summed, free[1])
        x, w = (self._moved(tape, *use, site) for use in zip(inputs, self.terms, matrices, strict=True))
        order, shape = batch + free[0] + free[1], self._shape
        axes = [order.index(k) for k in self.result]
        y = tape.product(x, w, site) if summed else tape.multiply(x, w, site)
        return tape.layout(y, lambda v: v.reshape(shape(order)).transpose(axes), site)

    def _moved(self, tape: Tape, value: int, term: str, groups: Sequence[str], site: str) -> int:
        """Bring an operand into three axes, each of which joins those of some labels."""
        axes, shape = [term.index(k) for k in "".join(groups)], [math.prod(self._shape(part)) for part in groups]
        return tape.layout(value, lambda v: v.transpose(axes).reshape(shape), site)

    def _shape(self, labels: str) -> list[int]:
        return [self.sizes[k] for k in labels]


def read_einsum(equation: str, shapes: Sequence[Sequence[int]]) -> Contraction | None:
    """Read the equation of an einsum; None for one that is no product of two operands: diagonals, sums of one alone."""
    left, arrow, result = equation.replace(" ", "").partition("->")
    terms = left.split(",")
    unused = [letter for letter in string.ascii_letters if letter not in equation]
    hidden = [len(shape) - len(term.replace("...", "")) for term, shape in zip(terms, shapes, strict=True)]
    spread = "".join(unused[: max(hidden)])
    terms = [term.replace("...", spread[len(spread) - n :]) for term, n in zip(terms, hidden, strict=True)]
    if len(terms) != 2 or any(len(set(term)) < len(term) for term in terms):
        return None
    if not arrow:
        result = "..." + "".join(sorted(k for k in set(left) if left.count(k) == 1 and k.isalpha()))
    result = result.replace("...", spread)
    sizes: dict[str, int] = {}
    for term, shape in zip(terms, shapes, strict=True):
        if any(sizes.setdefault(k, n) != n for k, n in zip(term, shape, strict=True)):
            return None
    alone = set(terms[0]) ^ set(terms[1])
    return Contraction((terms[0], terms[1]), result, sizes) if alone <= set(result) else None

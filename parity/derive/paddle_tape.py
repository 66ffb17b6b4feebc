"""Tapes of paddle layers, by wrapping every primitive operation where it is bound."""

from __future__ import annotations

import contextlib
import copy
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import paddle
from paddle import _C_ops as ops

from .call import Call, flatten
from .tape import Tape

LAYOUT = frozenset(
    [
        "reshape",
        "transpose",
        "squeeze",
        "unsqueeze",
        "concat",
        "stack",
        "split",
        "split_with_num",
        "slice",
        "strided_slice",
        "expand",
        "tile",
        "flip",
        "roll",
        "gather",
        "gather_nd",
        "embedding",
        "index_select",
        "assign",
        "flatten",
        "unbind",
        "unstack",
        "repeat_interleave",
        "take_along_axis",
        "unfold",
        "nearest_interp",
        "expand_as",
        "view_shape",
        "view_slice",
        "tril",
        "triu",
        "trans_layout",
        "share_data",
        "index_sample",
        "pixel_shuffle",
        "_getitem_dygraph",
        "_getitem_from_offset",
        "clone",
        "detach",
        "contiguous",
        "_tensor_use_gpudnn",
        "T",
        "mT",
    ]
)  # what they do to floats, they do to element numbers
OPERATORS = {
    "__add__": "add", "__radd__": "add", "__sub__": "subtract", "__rsub__": "reversed_subtract", "__mul__": "multiply",
    "__rmul__": "multiply", "__truediv__": "divide", "__div__": "divide", "__rtruediv__": "reversed_divide",
    "__rdiv__": "reversed_divide", "__matmul__": "matmul",
}  # fmt: skip
METHODS = [
    "__pow__",
    "__rpow__",
    "__floordiv__",
    "__mod__",
    "__eq__",
    "__ne__",
    "__lt__",
    "__le__",
    "__gt__",
    "__ge__",
    "_getitem_dygraph",
    "_getitem_from_offset",
    "_setitem_dygraph",
    "clone",
    "detach",
    "contiguous",
    "copy_",
    "_inplace_assign",
    "_tensor_use_gpudnn",
]
LOW = ("float32", "float16", "bfloat16")
FUNCTIONAL = frozenset(
    [
        "batch_norm_",
        "full_",
        "fused_batch_norm_act_",
    ]
)  # not in place, though named so


class PaddleSide:
    """A paddle layer, called in evaluation mode and float64."""

    framework = "paddle"
    output_axis = -1

    def __init__(self, model: paddle.nn.Layer, call: Call):
        self.call = call
        self.model = copy.deepcopy(model)
        self.model._to_impl(dtype="float64", floating_only=True)  # to() would cast tables of indices as well
        self.model.eval()
        self.ties: dict[str, str] = {}
        self.parameters: dict[str, np.ndarray] = {}
        self.others: dict[str, np.ndarray] = {}
        first: dict[int, str] = {}
        for name, tensor in self.model.state_dict().items():
            if id(tensor) in first:
                self.ties[name] = first[id(tensor)]
            elif "float" in str(tensor.dtype):
                self.parameters[name] = tensor.numpy().astype(np.float64)
            else:
                self.others[name] = tensor.numpy()
            first.setdefault(id(tensor), name)

    def _load(self, parameters: Mapping[str, np.ndarray]) -> None:
        state = self.model.state_dict()
        for name, array in parameters.items():
            state[name].set_value(paddle.to_tensor(np.array(array), dtype=state[name].dtype))

    def _run(self, inputs: Mapping[str, Any]) -> list[Any]:
        args, kwargs = self.call.bind(inputs)
        method = self.model if self.call.method == "__call__" else getattr(self.model, self.call.method)
        result = self.call.output(method(*args, **kwargs))
        return [leaf for _, leaf in flatten(result) if isinstance(leaf, paddle.Tensor)]

    def run(self, parameters: Mapping[str, np.ndarray], inputs: Mapping[str, np.ndarray]) -> list[np.ndarray]:
        """The outputs as the user's own code computes them."""
        self._load(parameters)
        with paddle.no_grad(), _double():
            return [tensor.numpy() for tensor in self._run(_tensors_of(inputs))]

    def gradients(
        self, parameters: Mapping[str, np.ndarray], inputs: Mapping[str, np.ndarray], weights: list[np.ndarray]
    ) -> dict[str, np.ndarray]:
        """Gradients of the outputs' sum, weighted by `weights`, for the parameters that have one."""
        self._load(parameters)
        with _double():
            outputs = self._run(_tensors_of(inputs))
            total = sum((t * paddle.to_tensor(w)).sum() for t, w in zip(outputs, weights, strict=True))
        state = self.model.state_dict()
        wanted = {name: state[name] for name in parameters if not state[name].stop_gradient}
        grads = paddle.grad(total, list(wanted.values()), allow_unused=True)
        return {
            name: np.zeros(tensor.shape) if grad is None else grad.numpy()
            for (name, tensor), grad in zip(wanted.items(), grads, strict=True)
        }

    def record(self, parameters: Mapping[str, np.ndarray], inputs: Mapping[str, np.ndarray]) -> Tape:
        """Record the tape of one run, with casts to lower precision voided."""
        self._load(parameters)
        recorder = _Recorder(Tape())
        tape, state = recorder.tape, self.model.state_dict()
        for name in self.parameters:
            tape.parameters[name] = recorder.adopt(state[name], tape.number())
        tensors = _tensors_of(inputs)
        tape.inputs = [recorder.adopt(tensor, tape.number()) for tensor in tensors.values()]
        with paddle.no_grad(), _double(), _sites(self.model, recorder.path), recorder.installed():
            outputs = self._run(tensors)
        tape.outputs = [recorder.value(tensor) for tensor in outputs]
        return tape


def _tensors_of(inputs: Mapping[str, np.ndarray]) -> dict[str, Any]:
    return {name: paddle.to_tensor(np.array(array)) for name, array in inputs.items()}


@contextlib.contextmanager
def _double() -> Iterator[None]:
    before = paddle.get_default_dtype()
    paddle.set_default_dtype("float64")
    try:
        yield
    finally:
        paddle.set_default_dtype(before)


@contextlib.contextmanager
def _sites(model: paddle.nn.Layer, path: list[str]) -> Iterator[None]:
    """Have `path` end with the name of the layer that runs."""
    handles = []
    for name, layer in model.named_sublayers(include_self=True):
        handles.append(layer.register_forward_pre_hook(lambda *_, name=name: path.append(name)))
        handles.append(layer.register_forward_post_hook(lambda *_: (path.pop(), None)[1]))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


class _Recorder:
    """Record each operation on its tensors' values."""

    def __init__(self, tape: Tape):
        self.tape, self.path = tape, [""]
        self.values: dict[int, int] = {}
        self.alive: list[Any] = []  # identities must not be used again
        self.inside = False

    def adopt(self, tensor: Any, value: int) -> int:
        self.alive.append(tensor)
        self.values[id(tensor)] = value
        return value

    def value(self, tensor: Any) -> int:
        """The number of a tensor's present value; one of unknown origin is a constant."""
        if id(tensor) not in self.values:
            self.adopt(tensor, self.tape.constant(_numpy(tensor)))
        return self.values[id(tensor)]

    @contextlib.contextmanager
    def installed(self) -> Iterator[None]:
        """Put recording wrappers wherever the primitive operations are bound."""
        wrapped = {}
        for name in dir(ops):
            original = getattr(ops, name)
            if callable(original) and not name.startswith("__") and not name.endswith("_grad"):
                wrapped[id(original)] = (original, self._wrapper(name, original))
        undo: list[tuple[Any, str, Any]] = []
        for path, module in list(sys.modules.items()):
            if not path.startswith("paddle.") or "libpaddle" in path or "pir" in path or module is None:
                continue
            for name, original in list(vars(module).items()):
                if id(original) in wrapped and original is wrapped[id(original)][0]:
                    undo.append((module, name, original))
                    setattr(module, name, wrapped[id(original)][1])
        for name in (*OPERATORS, *METHODS):
            if original := getattr(paddle.Tensor, name, None):
                undo.append((paddle.Tensor, name, original))
                setattr(paddle.Tensor, name, self._method(OPERATORS.get(name, name), original))
        for name in ("T", "mT"):
            original = getattr(paddle.Tensor, name)
            undo.append((paddle.Tensor, name, original))
            setattr(paddle.Tensor, name, property(self._method(name, original.__get__)))
        try:
            yield
        finally:
            for owner, name, original in reversed(undo):
                setattr(owner, name, original)

    def _method(self, name: str, original: Any) -> Any:
        wrapper = self._wrapper(name, original)
        return lambda *args, **kwargs: wrapper(*args, **kwargs)

    def _wrapper(self, name: str, original: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            if self.inside:
                return original(*args, **kwargs)
            if name in COMPOSED:
                return COMPOSED[name](*args, **kwargs)
            self.inside = True
            try:
                return self._record(name, original, args, kwargs)
            finally:
                self.inside = False

        return call

    def _record(self, name: str, original: Callable[..., Any], args: Any, kwargs: Any) -> Any:
        args, kwargs = _lifted(name, *_positional(args, kwargs))
        tensors = [leaf for _, leaf in flatten((list(args), kwargs)) if isinstance(leaf, paddle.Tensor)]
        inputs = [self.value(tensor) for tensor in tensors]
        in_place = name.endswith("_") and not name.endswith("__") and name not in FUNCTIONAL
        in_place = in_place or name == "_setitem_dygraph"
        out = original(*args, **kwargs)
        if out is NotImplemented:
            return out
        results = [args[0]] if in_place else [t for _, t in flatten(out) if isinstance(t, paddle.Tensor)]
        if not tensors:
            for tensor in results:
                self.adopt(tensor, self.tape.constant(_numpy(tensor)))
            return out
        floats = any("float" in str(t.dtype) for t in tensors)
        special = getattr(self, f"_{name.rstrip('_') if in_place else name}", None) if floats else None
        value = special(args, kwargs, inputs) if special else None
        if value is not None:
            self.adopt(results[0], value)
            return out
        kind = "layout" if _is_layout(name, args, kwargs, results) else "other"
        for k, tensor in enumerate(results):
            run = _runner(original, args, kwargs, k, in_place)
            self.adopt(tensor, self.tape.record(kind, inputs, run, self.path[-1]))
        return out

    # What has a form of its own: each returns a value's number, or None where the general rule holds.

    def _pair(self, args: Any, inputs: list[int]) -> list[int]:
        numbers = iter(inputs)
        return [
            next(numbers) if isinstance(a, paddle.Tensor) else self.tape.constant(np.asarray(a, np.float64))
            for a in args[:2]
        ]

    def _join(self, operation: Callable[[int, int, str], int], pair: list[int]) -> int:
        return operation(pair[0], pair[1], self.path[-1])

    def _add(self, args: Any, kwargs: Any, inputs: list[int]) -> int:
        return self._join(self.tape.add, self._pair(args, inputs))

    def _subtract(self, args: Any, kwargs: Any, inputs: list[int]) -> int:
        return self._join(self.tape.subtract, self._pair(args, inputs))

    def _reversed_subtract(self, args: Any, kwargs: Any, inputs: list[int]) -> int:
        return self._join(self.tape.subtract, self._pair(args, inputs)[::-1])

    def _multiply(self, args: Any, kwargs: Any, inputs: list[int]) -> int:
        return self._join(self.tape.multiply, self._pair(args, inputs))

    def _divide(self, args: Any, kwargs: Any, inputs: list[int]) -> int:
        return self._join(self.tape.divide, self._pair(args, inputs))

    def _reversed_divide(self, args: Any, kwargs: Any, inputs: list[int]) -> int:
        return self._join(self.tape.divide, self._pair(args, inputs)[::-1])

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
        shapes = [list(t.shape) for t in (x, w)]
        if min(map(len, shapes)) < 2:
            return None
        tape, site, values = self.tape, self.path[-1], list(inputs)
        for k in (0, 1):
            if turned[k]:
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
        shape = (*batch, shapes[0][-2], shapes[1][-1])
        return tape.layout(tape.product(x3, w3, site), lambda a: a.reshape(shape), site)

    _bmm = _matmul

    def _convolution(self, args: Any, kwargs: Any, inputs: list[int], transposed: bool) -> int | None:
        names = "x filter strides paddings"
        names += " output_padding output_size" if transposed else ""
        p = dict(zip(names.split(), args, strict=False))
        rest = args[len(p) :]
        p |= dict(zip(["padding_algorithm", "a", "b", "data_format"], rest, strict=False))
        pair = (p.pop("a"), p.pop("b"))  # dilations and groups stand in either order
        p["groups"], p["dilations"] = pair if isinstance(pair[0], int) else pair[::-1]
        rank = len(args[0].shape) - 2
        if p["padding_algorithm"] != "EXPLICIT" or p.get("data_format", "NCHW") not in ("NCHW", "AnyLayout", "NCDHW"):
            return None
        stride, dilation, groups = list(p["strides"]), list(p["dilations"]), p["groups"]
        padding = list(p["paddings"])
        pairs = (
            list(zip(padding[::2], padding[1::2], strict=True))
            if len(padding) == 2 * rank
            else [(v, v) for v in padding]
        )
        if not transposed:
            return self.tape.convolve(inputs[0], inputs[1], stride, pairs, dilation, groups, (), self.path[-1])
        taps = args[1].shape[2:]
        extra = list(p["output_padding"]) or [0] * rank

        def turned(a: np.ndarray) -> np.ndarray:  # (c, o / groups, *taps) -> (o, c / groups, *taps)
            c, o = a.shape[:2]
            a = a.reshape(groups, c // groups, o, *taps).swapaxes(1, 2).reshape(groups * o, c // groups, *taps)
            return np.flip(a, tuple(range(2, a.ndim)))

        reach = [d * (t - 1) for d, t in zip(dilation, taps, strict=True)]
        edges = [(r - a, r - b + e) for r, (a, b), e in zip(reach, pairs, extra, strict=True)]
        weight = self.tape.layout(inputs[1], turned, self.path[-1])
        return self.tape.convolve(inputs[0], weight, [1] * rank, edges, dilation, groups, stride, self.path[-1])

    def _conv2d(self, args: Any, kwargs: Any, inputs: list[int]) -> int | None:
        return self._convolution(args, kwargs, inputs, False)

    _conv3d = _depthwise_conv2d = _conv2d

    def _conv2d_transpose(self, args: Any, kwargs: Any, inputs: list[int]) -> int | None:
        return self._convolution(args, kwargs, inputs, True)

    _conv3d_transpose = _depthwise_conv2d_transpose = _conv2d_transpose


def _positional(args: Any, kwargs: Any) -> tuple[Any, Any]:
    """The first two operands as positional arguments, in place of keywords."""
    kwargs = dict(kwargs)
    for place, names in enumerate((("x", "input"), ("y", "other"))):
        for name in names:
            if len(args) == place and name in kwargs:
                args = (*args, kwargs.pop(name))
    return args, kwargs


def _lifted(name: str, args: Any, kwargs: Any) -> tuple[Any, Any]:
    """Make casts to lower precision void."""

    def lift(value: Any) -> Any:
        low = isinstance(value, paddle.dtype) and str(value).split(".")[-1] in LOW
        return paddle.float64 if low else value

    return tuple(map(lift, args)), {key: lift(value) for key, value in kwargs.items()}


def _is_layout(name: str, args: Any, kwargs: Any, results: Sequence[Any]) -> bool:
    first = next(leaf for _, leaf in flatten(list(args)) if isinstance(leaf, paddle.Tensor))
    if not all("float" in str(t.dtype) for t in results) or ("int" in str(first.dtype) and name != "embedding"):
        return False
    if name in ("pad", "pad3d"):
        numbers = [a for a in args[2:] if isinstance(a, (int, float))]
        return "constant" in (*args, "constant") and not any(numbers)
    return name in LAYOUT or name == "cast"


class _Slot:
    """The place of a tensor in the arguments of an operation."""


def _runner(original: Any, args: Any, kwargs: Any, k: int, in_place: bool) -> Callable[..., np.ndarray]:
    """Call the operation again with other tensors in place of those it had."""
    template = _template((list(args), kwargs))

    def run(*arrays: np.ndarray) -> np.ndarray:
        numbers = iter(arrays)
        again, named = _filled(template, numbers)
        with paddle.no_grad():
            out = original(*again, **named)
        if in_place:
            return _numpy(again[0])
        return _numpy([t for _, t in flatten(out) if isinstance(t, paddle.Tensor)][k])

    return run


def _template(tree: Any) -> Any:
    if isinstance(tree, paddle.Tensor):
        return _Slot()
    if isinstance(tree, (list, tuple)):
        return type(tree)(_template(item) for item in tree)
    if isinstance(tree, dict):
        return {key: _template(item) for key, item in tree.items()}
    return tree


def _filled(tree: Any, arrays: Iterator[np.ndarray]) -> Any:
    if isinstance(tree, _Slot):
        return paddle.to_tensor(np.asarray(next(arrays), order="C"))
    if isinstance(tree, (list, tuple)):
        return type(tree)(_filled(item, arrays) for item in tree)
    if isinstance(tree, dict):
        return {key: _filled(item, arrays) for key, item in tree.items()}
    return tree


def _numpy(tensor: Any) -> np.ndarray:
    array = tensor.numpy()
    return array.astype(np.float64) if str(tensor.dtype).split(".")[-1] in LOW else array


# Fused operations, written out.


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


def _instance_norm(x: Any, scale: Any, bias: Any, epsilon: float) -> Any:
    return _group_norm(x, scale, bias, epsilon, x.shape[1])


def _linear(x: Any, weight: Any, bias: Any = None, transposed: bool = False) -> Any:
    y = ops.matmul(x, weight, False, transposed)
    return y if bias is None else y + bias


def _rnn(
    x: Any, states: Any, weights: Any, length: Any, seed: Any, p: float, both: bool, inner: int, hidden: int,
    layers: int, mode: str, *_: Any,
) -> Any:  # fmt: skip
    """A recurrent network (time, batch, input), step by step."""
    if length is not None:
        raise NotImplementedError("sequences of unequal lengths")
    cell = {"LSTM": _lstm_cell, "GRU": _gru_cell}[mode]
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
                state = cell([read[t], ops.matmul(state[0], matrices[1], False, True) + biases[1]], state)
                outs[t] = state[0]
            ways.append(ops.stack(outs, 0))
            finals.append(state)
        x = ways[0] if directions == 1 else ops.concat(ways, 2)
    return x, seed, [ops.stack(list(part), 0) for part in zip(*finals, strict=True)]


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
    "rnn": _rnn,
    "layer_norm": _layer_norm,
    "batch_norm": _batch_norm,
    "batch_norm_": _batch_norm,
    "group_norm": _group_norm,
    "instance_norm": _instance_norm,
    "linear": _linear,
    "linear_v2": _linear,
}

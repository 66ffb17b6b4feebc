"""Tapes of torch modules, by a dispatch mode that sees every ATen operation."""

from __future__ import annotations

import contextlib
import copy
import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from .call import Call, flatten
from .tape import Tape

LAYOUT = frozenset(
    [
        "t",
        "transpose",
        "permute",
        "view",
        "_unsafe_view",
        "reshape",
        "expand",
        "unsqueeze",
        "squeeze",
        "slice",
        "select",
        "detach",
        "alias",
        "split",
        "split_with_sizes",
        "unsafe_split",
        "unsafe_chunk",
        "chunk",
        "unbind",
        "clone",
        "contiguous",
        "cat",
        "stack",
        "flip",
        "roll",
        "repeat",
        "index",
        "index_select",
        "gather",
        "embedding",
        "unfold",
        "narrow",
        "diagonal",
        "_reshape_alias",
        "lift_fresh",
        "im2col",
        "upsample_nearest1d",
        "upsample_nearest2d",
        "reflection_pad1d",
        "reflection_pad2d",
        "replication_pad2d",
        "pixel_shuffle",
        "lift",
        "movedim",
        "expand_copy",
        "tril",
        "triu",
    ]
)  # what they do to floats, they do to element numbers
LOW = (torch.float32, torch.float16, torch.bfloat16)


class TorchSide:
    """A torch module, called in evaluation mode and float64."""

    framework = "torch"
    output_axis = 0

    def __init__(self, model: torch.nn.Module, call: Call):
        self.call = call
        self.model = copy.deepcopy(model).to(torch.float64).eval()
        first: dict[int, str] = {}
        self.ties: dict[str, str] = {}
        self.parameters: dict[str, np.ndarray] = {}
        self.others: dict[str, np.ndarray] = {}
        for name, tensor in self.model.state_dict(keep_vars=True).items():
            if id(tensor) in first:
                self.ties[name] = first[id(tensor)]
            elif tensor.is_floating_point():
                self.parameters[name] = tensor.detach().numpy().copy()
            else:
                self.others[name] = tensor.numpy().copy()
            first.setdefault(id(tensor), name)

    def _load(self, parameters: Mapping[str, np.ndarray]) -> None:
        state = self.model.state_dict(keep_vars=True)
        with torch.no_grad():
            for name, array in parameters.items():
                state[name].copy_(torch.from_numpy(np.array(array)).reshape(state[name].shape))

    def _run(self, inputs: Mapping[str, Any]) -> list[torch.Tensor]:
        args, kwargs = self.call.bind({k: torch.from_numpy(np.array(v)) for k, v in inputs.items()})
        method = self.model if self.call.method == "__call__" else getattr(self.model, self.call.method)
        return [t for _, t in flatten(self.call.output(method(*args, **kwargs))) if isinstance(t, torch.Tensor)]

    def run(self, parameters: Mapping[str, np.ndarray], inputs: Mapping[str, np.ndarray]) -> list[np.ndarray]:
        """The outputs as the user's own code computes them."""
        self._load(parameters)
        with torch.no_grad(), _double():
            return [t.numpy() for t in self._run(inputs)]

    def gradients(
        self, parameters: Mapping[str, np.ndarray], inputs: Mapping[str, np.ndarray], weights: list[np.ndarray]
    ) -> dict[str, np.ndarray]:
        """Gradients of the outputs' sum, weighted by `weights`, for the parameters that have one."""
        self._load(parameters)
        with _double():
            outputs = self._run(inputs)
            total = sum((t * torch.from_numpy(w)).sum() for t, w in zip(outputs, weights, strict=True))
        state = self.model.state_dict(keep_vars=True)
        wanted = {name: state[name] for name in parameters if state[name].requires_grad}
        found = torch.autograd.grad(total, list(wanted.values()), allow_unused=True)
        return {
            name: np.zeros(tensor.shape) if grad is None else grad.numpy()
            for (name, tensor), grad in zip(wanted.items(), found, strict=True)
        }

    def record(self, parameters: Mapping[str, np.ndarray], inputs: Mapping[str, np.ndarray]) -> Tape:
        """Record the tape of one run, with casts to lower precision voided."""
        self._load(parameters)
        tape = Tape()
        mode = _Recorder(tape)
        state = self.model.state_dict(keep_vars=True)
        for name in self.parameters:
            tape.parameters[name] = mode.adopt(state[name], tape.number())
        tensors = {k: torch.from_numpy(np.array(v)) for k, v in inputs.items()}
        tape.inputs = [mode.adopt(tensor, tape.number()) for tensor in tensors.values()]
        args, kwargs = self.call.bind(tensors)
        method = self.model if self.call.method == "__call__" else getattr(self.model, self.call.method)
        with torch.no_grad(), _double(), _sites(self.model, mode.path), mode:
            results = method(*args, **kwargs)
            outputs = [t for _, t in flatten(self.call.output(results)) if isinstance(t, torch.Tensor)]
        tape.outputs = [mode.value(tensor) for tensor in outputs]
        return tape


@contextlib.contextmanager
def _double() -> Iterator[None]:
    """Make float64 the default, and turn fused attention off, whose inside no tape shows."""
    before, fast = torch.get_default_dtype(), torch.backends.mha.get_fastpath_enabled()
    torch.set_default_dtype(torch.float64)
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH):
            yield
    finally:
        torch.set_default_dtype(before)
        torch.backends.mha.set_fastpath_enabled(fast)


@contextlib.contextmanager
def _sites(model: torch.nn.Module, path: list[str]) -> Iterator[None]:
    """Have `path` end with the name of the module that runs."""
    handles = []
    for name, module in model.named_modules():
        handles.append(module.register_forward_pre_hook(lambda *_, name=name: path.append(name)))
        handles.append(module.register_forward_hook(lambda *_: (path.pop(), None)[1], always_call=True))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


class _Recorder(TorchDispatchMode):
    """Record each operation on its tensors' values.

    Operations in place make a new value of their whole storage; a tensor that is read after its storage changed is read
    from there.
    """

    def __init__(self, tape: Tape):
        super().__init__()
        self.tape, self.path = tape, [""]
        self.values: dict[int, tuple[int, int]] = {}  # tensor -> (value, epoch of its storage then)
        self.storages: dict[int, tuple[int, int]] = {}  # storage that was written to -> (value, epoch)
        self.writes: dict[int, list[np.ndarray]] = {}  # storage -> the places of each write, by epoch
        self.owners: dict[int, torch.Tensor] = {}  # storage -> the first tensor in it
        self.alive: list[Any] = []  # identities must not be used again

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        """Nothing is compiled under this mode: importing the compiler would take seconds."""
        return False

    def adopt(self, tensor: torch.Tensor, value: int) -> int:
        self.alive.append(tensor)
        self.owners.setdefault(_storage(tensor), tensor)
        self.values[id(tensor)] = (value, self.storages.get(_storage(tensor), (0, 0))[1])
        return value

    def value(self, tensor: torch.Tensor) -> int:
        """The number of a tensor's present value; one of unknown origin is a constant."""
        if id(tensor) not in self.values:
            return self.adopt(tensor, self.tape.constant(_numpy(tensor)))
        value, epoch = self.values[id(tensor)]
        flat, now = self.storages.get(_storage(tensor), (0, 0))
        places = _places(tensor) if now != epoch else None
        if places is None or not any(
            np.isin(places, there).any() for there in self.writes[_storage(tensor)][epoch:now]
        ):
            return value
        return self.adopt(tensor, self.tape.layout(flat, lambda a: a[places], self.path[-1]))

    def _open(self, tensor: torch.Tensor) -> None:
        """Give the storage of a tensor a value of its own before it changes for the first time."""
        key = _storage(tensor)
        if key not in self.storages:
            flat = self.tape.constant(_numpy(torch.as_strided(tensor, (_length(tensor),), (1,), 0)))
            owner = self.owners.get(key)
            if owner is not None:
                flat = self._put(flat, self.value(owner), _places(owner))
            self.storages[key] = (flat, 0)

    def _write(self, tensor: torch.Tensor, value: int) -> None:
        """Give a tensor a new value, for all that share its storage."""
        flat, epoch = self.storages[_storage(tensor)]
        places = _places(tensor)
        self.storages[_storage(tensor)] = (self._put(flat, value, places), epoch + 1)
        self.writes.setdefault(_storage(tensor), []).append(places)
        self.adopt(tensor, value)

    def _put(self, flat: int, value: int, places: np.ndarray) -> int:
        def put(old: np.ndarray, new: np.ndarray) -> np.ndarray:
            out = old.astype(np.result_type(old, new))
            out[places] = new
            return out

        return self.tape.record("layout", [flat, value], put, self.path[-1])

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func._schema.name.split("::")[1]
        kwargs = _lifted(name, dict(kwargs or {}))
        with self:
            if name in COMPOSED:
                return COMPOSED[name](*args, **kwargs)
            if name not in LAYOUT and (out := func.decompose(*args, **kwargs)) is not NotImplemented:
                return out
        tensors = _tensors(args, kwargs)
        if func._schema.is_mutable:
            return self._mutate(func, name, args, kwargs, tensors)
        inputs = [self.value(tensor) for tensor in tensors]
        out = func(*args, **kwargs)
        if not tensors:
            for tensor in _results(out):
                self.adopt(tensor, self.tape.constant(_numpy(tensor)))
            return out
        special = getattr(self, f"_{name}", None)
        if special is not None and (value := special(args, kwargs, inputs, out)) is not None:
            self.adopt(out, value)
            return out
        kind = "layout" if _is_layout(name, args, kwargs, out) else "other"
        results = _results(out)
        for k, tensor in enumerate(results):
            single = isinstance(out, torch.Tensor)
            self.adopt(tensor, self.tape.record(kind, inputs, _runner(func, args, kwargs, k, single), self.path[-1]))
        return out

    def _mutate(self, func: Any, name: str, args: Any, kwargs: Any, tensors: list[torch.Tensor]) -> Any:
        target = args[0] if not kwargs.get("out") is not None else kwargs["out"]
        inputs = [self.value(tensor) for tensor in tensors]
        site, tape = self.path[-1], self.tape
        shape = tuple(target.shape)
        if name == "copy_" and args[0].is_floating_point() and args[1].is_floating_point():
            value = tape.layout(inputs[1], lambda a: np.broadcast_to(a, shape), site)
        elif name in ("add_", "sub_", "mul_", "div_") and getattr(self, f"_{name[:-1]}", None):
            special = getattr(self, f"_{name[:-1]}")
            value = special(args, kwargs, inputs, None)
        else:
            value = None
        if value is None:
            value = tape.record("other", inputs, _runner(func, args, kwargs, 0, True, clone=True), site)
        self._open(target)
        out = func(*args, **kwargs)
        self._write(target, value)
        if isinstance(out, torch.Tensor) and out is not target:
            self.adopt(out, value)
        return out

    # What has a form of its own: each returns a value's number, or None where the general rule holds.

    def _pair(self, args: Any, inputs: list[int]) -> list[int] | None:
        """Numbers of two operands, of which one may be a Python number; None unless they are floats."""
        if not any(isinstance(a, torch.Tensor) and a.is_floating_point() for a in args[:2]):
            return None
        numbers = iter(inputs)
        return [next(numbers) if isinstance(a, torch.Tensor) else self.tape.constant(np.float64(a)) for a in args[:2]]

    def _scaled(self, pair: list[int], kwargs: Any) -> list[int]:
        if kwargs.get("alpha", 1) != 1:
            alpha = self.tape.constant(np.float64(kwargs["alpha"]))
            pair = [pair[0], self.tape.multiply(pair[1], alpha, self.path[-1])]
        return pair

    def _join(self, operation: Callable[[int, int, str], int], pair: list[int]) -> int:
        return operation(pair[0], pair[1], self.path[-1])

    def _add(self, args: Any, kwargs: Any, inputs: list[int], out: Any) -> int | None:
        pair = self._pair(args, inputs)
        return self._join(self.tape.add, self._scaled(pair, kwargs)) if pair else None

    def _sub(self, args: Any, kwargs: Any, inputs: list[int], out: Any) -> int | None:
        pair = self._pair(args, inputs)
        return self._join(self.tape.subtract, self._scaled(pair, kwargs)) if pair else None

    def _mul(self, args: Any, kwargs: Any, inputs: list[int], out: Any) -> int | None:
        pair = self._pair(args, inputs)
        return self._join(self.tape.multiply, pair) if pair else None

    def _div(self, args: Any, kwargs: Any, inputs: list[int], out: Any) -> int | None:
        pair = None if kwargs.get("rounding_mode") else self._pair(args, inputs)
        return self._join(self.tape.divide, pair) if pair else None

    def _bmm(self, args: Any, kwargs: Any, inputs: list[int], out: Any) -> int | None:
        return self._join(self.tape.product, inputs)

    def _mm(self, args: Any, kwargs: Any, inputs: list[int], out: Any) -> int | None:
        tape, site = self.tape, self.path[-1]
        x, w = (tape.layout(value, lambda a: a[None], site) for value in inputs)
        return tape.layout(tape.product(x, w, site), lambda a: a[0], site)

    def _mv(self, args: Any, kwargs: Any, inputs: list[int], out: Any) -> int | None:
        tape, site = self.tape, self.path[-1]
        x = tape.layout(inputs[0], lambda a: a[None], site)
        w = tape.layout(inputs[1], lambda a: a[None, :, None], site)
        return tape.layout(tape.product(x, w, site), lambda a: a[0, :, 0], site)

    def _dot(self, args: Any, kwargs: Any, inputs: list[int], out: Any) -> int | None:
        tape, site = self.tape, self.path[-1]
        x = tape.layout(inputs[0], lambda a: a[None, None], site)
        w = tape.layout(inputs[1], lambda a: a[None, :, None], site)
        return tape.layout(tape.product(x, w, site), lambda a: a[0, 0, 0], site)

    def _convolution(self, args: Any, kwargs: Any, inputs: list[int], out: Any) -> int | None:
        tape, site = self.tape, self.path[-1]
        x, w = args[0], args[1]
        rank = x.dim() - 2
        stride, padding, dilation = (list(v) * (rank if len(v) == 1 else 1) for v in args[3:6])
        transposed, extra, groups = args[6], list(args[7]), args[8]
        if transposed:  # a convolution of x, spread by its stride, with reversed taps
            taps = w.shape[2:]

            def turned(a: np.ndarray) -> np.ndarray:  # (c, o / groups, *taps) -> (o, c / groups, *taps)
                c, o = a.shape[:2]
                a = a.reshape(groups, c // groups, o, *taps).swapaxes(1, 2).reshape(groups * o, c // groups, *taps)
                return np.flip(a, tuple(range(2, a.ndim)))

            reach = [d * (t - 1) for d, t in zip(dilation, taps, strict=True)]
            edges = [(r - p, r - p + e) for r, p, e in zip(reach, padding, extra, strict=True)]
            weight = tape.layout(inputs[1], turned, site)
            value = tape.convolve(inputs[0], weight, [1] * rank, edges, dilation, groups, stride, site)
        else:
            edges = [(p, p) for p in padding]
            value = tape.convolve(inputs[0], inputs[1], stride, edges, dilation, groups, (), site)
        if args[2] is not None:
            shape = (1, -1, *(1,) * rank)
            value = tape.add(value, tape.layout(inputs[2], lambda a: a.reshape(shape), site), site)
        return value


def _lifted(name: str, kwargs: dict[str, Any]) -> dict[str, Any]:
    """Make casts to lower precision void, and constants as exact as they can be."""
    if kwargs.get("dtype") in LOW:
        kwargs["dtype"] = torch.float64
    return kwargs


def _is_layout(name: str, args: Any, kwargs: Any, out: Any) -> bool:
    floating = [t for t in _tensors(args, kwargs) if t.is_floating_point()]
    if not floating or not all(t.is_floating_point() for t in _results(out)):
        return False
    if name == "constant_pad_nd":
        return (args[2] if len(args) > 2 else kwargs.get("value", 0)) == 0
    return name in LAYOUT or name == "_to_copy"


def _tensors(args: Any, kwargs: Any) -> list[torch.Tensor]:
    return _results((list(args), kwargs))


def _results(out: Any) -> list[torch.Tensor]:
    return [leaf for _, leaf in flatten(out) if isinstance(leaf, torch.Tensor)]


def _runner(func: Any, args: Any, kwargs: Any, k: int, single: bool, clone: bool = False) -> Callable[..., np.ndarray]:
    """Call `func` again with other tensors in place of those it had."""
    template = _template((list(args), kwargs))

    def run(*arrays: np.ndarray) -> np.ndarray:
        numbers = iter(arrays)
        again, named = _filled(template, numbers)
        if clone:
            again[0] = again[0].clone()
        with torch.no_grad():
            out = func(*again, **named)
        return _numpy(out if single else _results(out)[k], copied=False)

    return run


class _Slot:
    """The place of a tensor in the arguments of an operation."""


def _template(tree: Any) -> Any:
    """Replace tensors of the tree by slots, so that none is referenced or changed later."""
    if isinstance(tree, torch.Tensor):
        return _Slot()
    if isinstance(tree, (list, tuple)):
        return [_template(item) for item in tree]
    if isinstance(tree, dict):
        return {key: _template(item) for key, item in tree.items()}
    return tree


def _filled(tree: Any, arrays: Iterator[np.ndarray]) -> Any:
    if isinstance(tree, _Slot):
        array = np.asarray(next(arrays), order="C")
        return torch.from_numpy(array if array.flags.writeable else array.copy())
    if isinstance(tree, list):
        return [_filled(item, arrays) for item in tree]
    if isinstance(tree, dict):
        return {key: _filled(item, arrays) for key, item in tree.items()}
    return tree


def _numpy(tensor: torch.Tensor, copied: bool = True) -> np.ndarray:
    tensor = tensor.detach()
    if tensor.dtype in (torch.bfloat16, torch.float16, torch.float32):
        tensor = tensor.double()
    array = tensor.resolve_conj().resolve_neg().numpy()
    return array.copy() if copied else array


def _storage(tensor: torch.Tensor) -> int:
    return int(tensor.untyped_storage()._cdata)


def _length(tensor: torch.Tensor) -> int:
    return math.ceil(tensor.untyped_storage().nbytes() / tensor.element_size())


def _places(tensor: torch.Tensor) -> np.ndarray:
    """Where in its storage each element of a tensor lies."""
    numbers = torch.arange(_length(tensor))
    return torch.as_strided(numbers, tensor.shape, tensor.stride(), tensor.storage_offset()).numpy()


# Fused operations, written out.


def _layer_norm(x: Any, shape: Any, weight: Any, bias: Any, eps: float) -> Any:
    dims = tuple(range(x.dim() - len(shape), x.dim()))
    mean = x.mean(dims, keepdim=True)
    rstd = torch.rsqrt(x.var(dims, correction=0, keepdim=True) + eps)
    return _affine((x - mean) * rstd, weight, bias), mean, rstd


def _affine(x: Any, weight: Any, bias: Any) -> Any:
    x = x if weight is None else x * weight
    return x if bias is None else x + bias


def _group_norm(x: Any, weight: Any, bias: Any, n: int, c: int, size: int, groups: int, eps: float) -> Any:
    y = x.reshape(n, groups, -1)
    mean = y.mean(2, keepdim=True)
    rstd = torch.rsqrt(y.var(2, correction=0, keepdim=True) + eps)
    shape = (1, c, *(1,) * (x.dim() - 2))
    weight, bias = (v if v is None else v.reshape(shape) for v in (weight, bias))
    return _affine(((y - mean) * rstd).reshape(x.shape), weight, bias), mean.reshape(n, groups), rstd.reshape(n, groups)


def _batch_norm(x: Any, weight: Any, bias: Any, mean: Any, var: Any, *rest: Any) -> Any:
    """Evaluation mode; the last of `rest` is epsilon."""
    shape = (1, -1, *(1,) * (x.dim() - 2))
    weight, bias = (v if v is None else v.reshape(shape) for v in (weight, bias))
    y = (x - mean.reshape(shape)) * torch.rsqrt(var + rest[-1]).reshape(shape)
    return _affine(y, weight, bias), x.new_empty(0), x.new_empty(0)


def _training_batch_norm(x: Any, weight: Any, bias: Any, mean: Any, var: Any, training: bool, *rest: Any) -> Any:
    if not training:
        return _batch_norm(x, weight, bias, mean, var, *rest)
    dims = [d for d in range(x.dim()) if d != 1]
    return _batch_norm(x, weight, bias, x.mean(dims), x.var(dims, correction=0), *rest)


def _addmm(bias: Any, a: Any, b: Any, *, beta: float = 1, alpha: float = 1) -> Any:
    y = a @ b if alpha == 1 else (a @ b) * alpha
    return y + bias if beta == 1 else y if beta == 0 else y + bias * beta


def _rms_norm(x: Any, shape: Any, weight: Any, eps: float | None) -> Any:
    dims = tuple(range(x.dim() - len(shape), x.dim()))
    rstd = torch.rsqrt(x.square().mean(dims, keepdim=True) + (torch.finfo(x.dtype).eps if eps is None else eps))
    return _affine(x * rstd, weight, None), rstd


COMPOSED: dict[str, Callable[..., Any]] = {
    "native_layer_norm": _layer_norm,
    "native_group_norm": _group_norm,
    "native_batch_norm": _training_batch_norm,
    "_native_batch_norm_legit_no_training": _batch_norm,
    "_fused_rms_norm": _rms_norm,
    "addmm": _addmm,
    "addmv": _addmm,
    "baddbmm": _addmm,
    "rsub": lambda a, b, alpha=1: (-a if alpha == 1 else a * -alpha) + b,
    "addcmul": lambda x, a, b, *, value=1: x + (a * b if value == 1 else a * b * value),
    "addcdiv": lambda x, a, b, *, value=1: x + (a / b if value == 1 else a / b * value),
    "lerp": lambda a, b, weight: a + (b - a) * weight,
}

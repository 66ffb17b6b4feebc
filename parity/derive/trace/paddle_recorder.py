"""Wrap paddle's primitive operations, wherever they are bound, so that each is recorded on a tape."""

from __future__ import annotations

import contextlib
import functools
import inspect
import itertools
import os
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import paddle
from paddle import _C_ops as ops
from paddle import _legacy_C_ops as old_ops

from ports.runners.paddle import is_inexact

from .call import flatten
from .paddle_decompositions import COMPOSED
from .paddle_forms import Forms, is_layout, lifted, positional
from .paddle_values import numpy_of, runner
from .tape import Operation, Tape

OPERATORS = {
    "__add__": "add", "__radd__": "add", "__sub__": "subtract", "__rsub__": "reversed_subtract", "__mul__": "multiply",
    "__rmul__": "multiply", "__truediv__": "divide", "__div__": "divide", "__rtruediv__": "reversed_divide",
    "__rdiv__": "reversed_divide", "__matmul__": "matmul",
}  # fmt: skip
METHODS = [
    "__pow__", "__rpow__", "__floordiv__", "__mod__", "__eq__", "__ne__", "__lt__", "__le__", "__gt__",
    "__ge__", "_getitem_dygraph", "_getitem_from_offset", "_setitem_dygraph", "clone", "detach", "contiguous",
    "copy_", "_inplace_assign", "_tensor_use_gpudnn",
]  # fmt: skip
LOWER = frozenset([paddle.float32, paddle.float16, paddle.bfloat16, paddle.complex64])
NUMBERS = ["item", "__bool__", "__float__", "__int__"]  # take a number out of a tensor
PROPERTIES = ["T", "mT"]
SHAPED = frozenset([  # read the shape of a tensor, and no value
    "full_like", "ones_like", "zeros_like", "shape", "shape64", "numel",
])  # fmt: skip
FUNCTIONAL = frozenset(["batch_norm_", "full_", "fused_batch_norm_act_"])  # not in place, though named so

SAMPLED = frozenset([  # operations that draw random numbers, without the underscore of those in place
    "uniform", "uniform_inplace", "gaussian", "gaussian_inplace", "truncated_gaussian_random", "bernoulli", "randint",
    "randperm", "multinomial", "poisson", "exponential", "binomial", "standard_gamma", "dirichlet", "dropout",
])  # fmt: skip
LEGACY = "old "  # how the names of operations begin that take their settings as pairs of name and value
HEADER = os.path.join("include", "paddle", "phi", "api", "include", "api.h")
STUB = os.path.join("_typing", "libs", "libpaddle", "pir", "ops.pyi")
ARGUMENT = re.compile(r"(\w+)\s*(?:=\s*(?:\{[^}]*\}|[^,{]*))?(?:,|$)")  # of C++, with its default


def _dtypes(args: Any, kwargs: Any) -> list[Any]:
    """Return the dtypes among arguments, which may be those of casts."""
    return [value for value in (*args, *kwargs.values()) if isinstance(value, paddle.dtype)]


def _lower(dtypes: Iterable[Any]) -> frozenset[str]:
    """Return the names of the dtypes of lower precision."""
    return frozenset(str(dtype).split(".")[-1] for dtype in dtypes if dtype in LOWER)


class Recorder(Forms):
    """Record each operation on its tensors' values."""

    def __init__(self, tape: Tape):
        self.tape, self.path = tape, [""]
        self.values: dict[int, int] = {}
        self.alive: list[Any] = []  # identities must not be used again
        self.inside = False
        self.numbers: list[int] = []  # values that the model's code took out as numbers

    def adopt(self, tensor: Any, value: int, random: bool = False) -> int:
        """Take a tensor as that of a value. Args: random: whether the value is drawn."""
        self.alive.append(tensor)
        self.tape.lower(_lower([tensor.dtype]), self.path[-1])
        self.tape.complex |= tensor.is_complex()
        if random:
            self.tape.random.add(value)
        self.values[id(tensor)] = value
        return value

    def value(self, tensor: Any) -> int:
        """Return the number of a tensor's present value; one of unknown origin is a constant."""
        if id(tensor) not in self.values:
            self.adopt(tensor, self.tape.constant(numpy_of(tensor)))
        return self.values[id(tensor)]

    @contextlib.contextmanager
    def installed(self) -> Iterator[None]:
        """Put recording wrappers wherever the primitive operations are bound, and compute without gradients."""
        wrapped = {}
        for prefix, own in (("", ops), (LEGACY, old_ops)):  # attributes of old ones are pairs: they have no own form
            for name in dir(own):
                original = getattr(own, name)
                if callable(original) and not name.startswith("__") and not name.endswith("_grad"):
                    wrapped[id(original)] = (original, self._wrapper(prefix + name, original))
        undo: list[tuple[Any, str, Any]] = []
        for path, module in list(sys.modules.items()):
            if not path.startswith("paddle.") or "libpaddle" in path or "pir" in path or module is None:
                continue
            for name, original in list(vars(module).items()):
                if id(original) in wrapped and original is wrapped[id(original)][0]:
                    undo.append((module, name, original))
                    setattr(module, name, wrapped[id(original)][1])
        for name in (*OPERATORS, *METHODS, *NUMBERS, *PROPERTIES):
            if original := getattr(paddle.Tensor, name, None):
                undo.append((paddle.Tensor, name, original))
                setattr(paddle.Tensor, name, self._method(name, original))
        try:
            with paddle.no_grad():
                yield
        finally:
            for owner, name, original in reversed(undo):
                setattr(owner, name, original)

    def _method(self, name: str, original: Any) -> Any:
        """Return what stands for an attribute of tensors while operations are recorded."""
        if name in NUMBERS:
            return self._reader(original)
        if name in PROPERTIES:
            return property(self._wrapper(name, original.__get__))
        return self._wrapper(OPERATORS.get(name, name), original)

    def _reader(self, original: Callable[..., Any]) -> Callable[..., Any]:
        def read(tensor: Any, *args: Any) -> Any:
            if not self.inside:
                self.numbers.append(self.value(tensor))
            return original(tensor, *args)

        return read

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
        given = positional(args, kwargs)
        args, kwargs = lifted(*given)
        if _dtypes(args, kwargs) != _dtypes(*given):
            self.tape.lower(_lower(_dtypes(*given)), self.path[-1])
        tensors = [leaf for _, leaf in flatten((list(args), kwargs)) if isinstance(leaf, paddle.Tensor)]
        inputs = [self.value(tensor) for tensor in tensors]
        in_place = name.endswith("_") and not name.endswith("__") and name not in FUNCTIONAL
        plain = name.rstrip("_") if in_place else name
        in_place = in_place or name == "_setitem_dygraph"
        out = original(*args, **kwargs)
        if out is NotImplemented:
            return out
        results = [args[0]] if in_place else [t for _, t in flatten(out) if isinstance(t, paddle.Tensor)]
        call = Operation.of(name, settings(name, original, args, kwargs))
        random = plain in SAMPLED and not call.settings.get("is_test")
        self.tape.low_gradients |= call.settings.get("pooling_type") == "avg"  # by a factor of float32
        if not tensors or name in SHAPED:
            for tensor in results:
                self.adopt(tensor, self.tape.constant(numpy_of(tensor)), random)
            return out
        floats = any(map(is_inexact, tensors))
        special = getattr(self, f"_{plain}", None) if floats else None
        value = special(args, kwargs, inputs) if special else None
        if value is not None:
            self.adopt(results[0], value)
            return out
        kind = "layout" if is_layout(plain, args, results) else "other"
        for k, tensor in enumerate(results):
            run = runner(original, args, kwargs, k, in_place)
            self.adopt(tensor, self.tape.record(kind, inputs, run, self.path[-1], call=call), random)
        return out


def settings(name: str, function: Callable[..., Any], args: Sequence[Any], kwargs: dict[str, Any]) -> dict[str, Any]:
    """Return the arguments of a call by name; by their place where no name is known."""
    if name.startswith(LEGACY):
        pairs = list(itertools.dropwhile(lambda value: not isinstance(value, str), args))
        return {**dict(zip(pairs[::2], pairs[1::2], strict=False)), **kwargs}
    known = _names(name.rstrip("_") or name, function)
    places = [f"argument {k}" for k in range(1, len(args) + 1)]
    return {**dict(zip(known if len(known) >= len(args) else places, args, strict=False)), **kwargs}


@functools.cache
def _names(name: str, function: Callable[..., Any]) -> list[str]:
    """Return the names of an operation's arguments in order; [] if they are not known.

    The interface of C++ has all of them. The stub for Python lacks some, but is right for public functions, which
    take a `name`.
    """
    if name.startswith("__"):  # an operator of tensors
        return ["x", "y"]
    try:
        return list(inspect.signature(function).parameters)
    except (TypeError, ValueError):  # a function of C++
        pass
    stub = _signature(STUB, rf"^def {re.escape(name)}\((.*)\)(?: ->.*)?:$")
    public = re.findall(r"(\w+): ", stub)
    if public[-1:] == ["name"]:
        return public[:-1]
    header = _signature(HEADER, rf"^PADDLE_API .* {re.escape(name)}\((.*)\);$")
    return [argument for argument in ARGUMENT.findall(header) if argument != "predefined_out"] or public


def _signature(path: str, pattern: str) -> str:
    """Return the arguments in the line of a file of paddle that declares an operation; "" if there is none."""
    match = re.search(pattern, _text(path), re.MULTILINE)
    return match[1] if match else ""


@functools.cache
def _text(path: str) -> str:
    try:
        with open(os.path.join(os.path.dirname(paddle.__file__), path), encoding="utf-8") as file:
            return file.read()
    except OSError:  # a version of paddle without it
        return ""

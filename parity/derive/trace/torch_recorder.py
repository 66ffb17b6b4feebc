"""Record every ATen operation on a tape, by a dispatch mode of torch."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from ports.runners.torch import is_inexact

from .tape import Tape
from .torch_decompositions import COMPOSED, written_attention
from .torch_forms import LAYOUT, LOW, Forms, is_layout, lifted
from .torch_values import length_of, numpy_of, operation, places_of, results_of, runner, storage_of, tensors_of

LOWER = (*LOW, torch.complex64)
CASTS = frozenset(["_to_copy", "detach", "alias"])  # operations that a cast may be, or be without
SHAPED = frozenset([  # operations that read the shape of a tensor, and no value
    "new_zeros", "new_ones", "new_full", "new_empty", "new_empty_strided", "zeros_like", "ones_like", "full_like",
    "empty_like",
])  # fmt: skip

SAMPLED = frozenset([  # operations that draw random numbers, without the underscore of those in place
    "rand", "rand_like", "randn", "randn_like", "randint", "randint_like", "randperm", "bernoulli", "normal", "uniform",
    "exponential", "random", "cauchy", "geometric", "log_normal", "multinomial", "poisson", "native_dropout",
    "rrelu_with_noise", "binomial", "_standard_gamma", "_sample_dirichlet",
])  # fmt: skip


def _lower(dtype: torch.dtype | None) -> frozenset[str]:
    """Return the name of a dtype of lower precision."""
    return frozenset([str(dtype).removeprefix("torch.")]) if dtype in LOWER else frozenset()


class Uncompiled(TorchDispatchMode):
    """A mode under which TorchSide compiles nothing: torch need not import its compiler, which takes a second."""

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        """Tell whether torch wraps the mode to exclude it from what is compiled; the wrapper imports the compiler."""
        return False


class Lifted(Uncompiled):
    """Make casts to lower precision void, and list the names of all other operations.

    Args:
      void: False to leave casts as they are.
    """

    def __init__(self, void: bool = True):
        super().__init__()
        self.void, self.names = void, list[str]()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name, kwargs = func._schema.name.split("::")[1], dict(kwargs or {})
        if name not in CASTS:
            self.names.append(name)
        return func(*args, **(lifted(kwargs) if self.void else kwargs))


class Recorder(Forms, Uncompiled):
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
        self.numbers: list[int] = []  # values that the model's code took out as numbers

    def adopt(self, tensor: torch.Tensor, value: int, random: bool = False) -> int:
        """Take a tensor as that of a value. Args: random: whether the value is drawn."""
        self.alive.append(tensor)
        self.tape.lower(_lower(tensor.dtype), self.path[-1])
        self.tape.complex |= tensor.is_complex()
        if random:
            self.tape.random.add(value)
        self.owners.setdefault(storage_of(tensor), tensor)
        self.values[id(tensor)] = (value, self.storages.get(storage_of(tensor), (0, 0))[1])
        return value

    @contextlib.contextmanager
    def installed(self) -> Iterator[None]:
        """Record what torch computes without gradients."""
        with torch.no_grad(), written_attention(), self:
            yield

    def value(self, tensor: torch.Tensor) -> int:
        """Return the number of a tensor's present value; one of unknown origin is a constant."""
        if id(tensor) not in self.values:
            return self.adopt(tensor, self.tape.constant(numpy_of(tensor)))
        value, epoch = self.values[id(tensor)]
        flat, now = self.storages.get(storage_of(tensor), (0, 0))
        places = places_of(tensor) if now != epoch else None
        if places is None or not any(
            np.isin(places, there).any() for there in self.writes[storage_of(tensor)][epoch:now]
        ):
            return value
        return self.adopt(tensor, self.tape.layout(flat, lambda a: a[places], self.path[-1]))

    def _open(self, tensor: torch.Tensor) -> None:
        """Give the storage of a tensor a value of its own before it changes for the first time."""
        key = storage_of(tensor)
        if key not in self.storages:
            owner = self.owners.get(key)
            if owner is not None and _fills(owner):
                self.storages[key] = (self.tape.layout(self.value(owner), np.ravel, self.path[-1]), 0)
                return
            flat = self.tape.constant(numpy_of(torch.as_strided(tensor, (length_of(tensor),), (1,), 0)))
            if owner is not None:
                flat = self._put(flat, self.value(owner), places_of(owner))
            self.storages[key] = (flat, 0)

    def _write(self, tensor: torch.Tensor, value: int) -> None:
        """Give a tensor a new value, for all that share its storage."""
        flat, epoch = self.storages[storage_of(tensor)]
        places = places_of(tensor)
        whole = _fills(tensor)
        flat = self.tape.layout(value, np.ravel, self.path[-1]) if whole else self._put(flat, value, places)
        self.storages[storage_of(tensor)] = (flat, epoch + 1)
        self.writes.setdefault(storage_of(tensor), []).append(places)
        self.adopt(tensor, value)

    def _put(self, flat: int, value: int, places: np.ndarray) -> int:
        def put(old: np.ndarray, new: np.ndarray) -> np.ndarray:
            out = old.astype(np.result_type(old, new))
            out[places] = new
            return out

        return self.tape.record("layout", [flat, value], put, self.path[-1])

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func._schema.name.split("::")[1]
        given = dict(kwargs or {})
        kwargs = lifted(given)
        self.tape.lower(_lower(given.get("dtype")), self.path[-1])
        with self:
            if name in COMPOSED and not func._schema.is_mutable:  # with out=, its result lies elsewhere
                return COMPOSED[name](*args, **kwargs)
            if name not in LAYOUT and (out := func.decompose(*args, **kwargs)) is not NotImplemented:
                return out
        tensors = tensors_of(args, kwargs)
        random = _samples(name, args)
        if func._schema.is_mutable:
            return self._mutate(func, name, args, kwargs, tensors, random)
        inputs = [self.value(tensor) for tensor in tensors]
        out = func(*args, **kwargs)
        if name == "_local_scalar_dense":
            self.numbers += inputs
        if not tensors or name in SHAPED:
            for tensor in results_of(out):
                self.adopt(tensor, self.tape.constant(numpy_of(tensor)), random)
            return out
        special = getattr(self, f"_{name.lstrip('_')}", None)
        if special is not None and (value := special(args, kwargs, inputs, out)) is not None:
            self.adopt(out, value)
            return out
        kind = "layout" if is_layout(name, args, kwargs, out) else "other"
        results = results_of(out)
        for k, tensor in enumerate(results):
            single = isinstance(out, torch.Tensor)
            run, call = runner(func, args, kwargs, k, single), operation(func, name, args, kwargs)
            self.adopt(tensor, self.tape.record(kind, inputs, run, self.path[-1], call=call), random)
        return out

    def _mutate(self, func: Any, name: str, args: Any, kwargs: Any, tensors: list[torch.Tensor], random: bool) -> Any:
        target = args[0] if not kwargs.get("out") is not None else kwargs["out"]
        inputs = [self.value(tensor) for tensor in tensors]
        site, tape = self.path[-1], self.tape
        shape = tuple(target.shape)
        copied = name in ("copy_", "fill_") and isinstance(args[1], torch.Tensor)  # x[:2] = 0 fills with a tensor
        if copied and args[0].is_complex() == args[1].is_complex() and all(map(is_inexact, args[:2])):
            value = tape.layout(inputs[1], lambda a: np.broadcast_to(a, shape), site)
        elif name in ("add_", "sub_", "mul_", "div_") and getattr(self, f"_{name[:-1]}", None):
            special = getattr(self, f"_{name[:-1]}")
            value = special(args, kwargs, inputs, None)
        elif name == "zero_" or (name == "fill_" and len(tensors) == 1):
            value = tape.constant(np.full(shape, 0.0 if name == "zero_" else args[1], numpy_of(target).dtype))
        else:
            value = None
        if value is None:
            run, call = runner(func, args, kwargs, 0, True, clone=True), operation(func, name[:-1], args, kwargs)
            value = tape.record("other", inputs, run, site, call=call)
        if random:
            self.tape.random.add(value)
        self._open(target)
        out = func(*args, **kwargs)
        self._write(target, value)
        if isinstance(out, torch.Tensor) and out is not target:
            self.adopt(out, value)
        return out


def _samples(name: str, args: Any) -> bool:
    """Tell whether an operation draws random numbers, and not with a chance of 0 or 1, as if there were no dropout."""
    sure = name in ("native_dropout", "bernoulli_") and any(arg in (0, 1) for arg in args if isinstance(arg, float))
    return name.removesuffix("_") in SAMPLED and not sure


def _fills(tensor: torch.Tensor) -> bool:
    """Tell whether a tensor is all of its storage, in order."""
    return tensor.is_contiguous() and tensor.storage_offset() == 0 and tensor.numel() == length_of(tensor)

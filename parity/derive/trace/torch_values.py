"""Convert tensors of torch to numpy arrays, and run operations of torch on these."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch

from .call import flatten, without
from .tape import Operation

SIZES = ("size", "sizes", "shape")  # names of arguments that state the shape of a result


def tensors_of(args: Any, kwargs: Any) -> list[torch.Tensor]:
    return results_of((list(args), kwargs))


def results_of(out: Any) -> list[torch.Tensor]:
    return [leaf for _, leaf in flatten(out) if isinstance(leaf, torch.Tensor)]


def runner(func: Any, args: Any, kwargs: Any, k: int, single: bool, clone: bool = False) -> Callable[..., np.ndarray]:
    """Build a function that calls `func` on other tensors; a shape that states the number of rows follows.

    Code states that number, as in `x.view(len(x), 2, 8)`, and a router that reads other values chooses more or fewer.
    """
    arguments = [*zip(func._schema.arguments, args, strict=False)]
    shapes = [k for k, (one, given) in enumerate(arguments) if one.name in SIZES and isinstance(given, (list, tuple))]
    given, rows = without((list(args), kwargs), torch.Tensor), [len(tensor) for tensor in _arrays((args, kwargs))]

    def run(*arrays: np.ndarray) -> np.ndarray:
        tensors = [_tensor(array) for array in arrays]
        again, named = given(tensors)
        if clone:
            again[0] = again[0].clone()
        if shapes and (others := [array.shape[0] for array in arrays if array.ndim]) != rows:
            changed = {a: b for a, b in zip(rows, others, strict=False) if a != b}
            again = [_with_rows(value, changed) if at in shapes else value for at, value in enumerate(again)]
        out = func(*again, **named)  # of tensors that need no gradients
        wide = all(array.dtype != np.float32 for array in arrays)  # weights of large models, moved before their use
        return numpy_of(out if single else results_of(out)[k], copied=False, wide=wide)

    return run


def operation(func: Any, name: str, args: Any, kwargs: Any) -> Operation:
    """Return an operation's name, and what its arguments are that are no tensors, defaults too."""
    given = {argument.name: kwargs.get(argument.name, argument.default_value) for argument in func._schema.arguments}
    given |= {argument.name: value for argument, value in zip(func._schema.arguments, args, strict=False)}
    return Operation.of(name, given)


def _tensor(array: np.ndarray) -> torch.Tensor:
    array = np.asarray(array, order="C")
    return torch.from_numpy(array if array.flags.writeable else array.copy())


def _arrays(tree: Any) -> list[torch.Tensor]:
    """Return the tensors of a tree that have an axis."""
    return [tensor for tensor in results_of(tree) if tensor.ndim]


def _with_rows(shape: Sequence[int], rows: Mapping[int, int]) -> list[int]:
    """Return a shape with the number of rows, the first of its entries that is one, in place of the old one."""
    at = next((k for k, size in enumerate(shape) if size in rows), None)
    return [rows[size] if k == at else size for k, size in enumerate(shape)]


def numpy_of(tensor: torch.Tensor, copied: bool = True, wide: bool = True) -> np.ndarray:
    """Return a tensor's values; those of a precision below float32, or of float32 if `wide`, in float64."""
    tensor, dtype = tensor.detach(), tensor.dtype
    if dtype != torch.float64 and (
        (dtype.is_floating_point and dtype.itemsize < 4) or (wide and dtype == torch.float32)
    ):
        tensor = tensor.double()
    array = tensor.resolve_conj().resolve_neg().numpy()
    return array.copy() if copied else array


def storage_of(tensor: torch.Tensor) -> int:
    return int(tensor.untyped_storage()._cdata)


def length_of(tensor: torch.Tensor) -> int:
    return math.ceil(tensor.untyped_storage().nbytes() / tensor.element_size())


def places_of(tensor: torch.Tensor) -> np.ndarray:
    """Tell where in its storage each element of a tensor lies."""
    numbers = torch.arange(length_of(tensor))
    return torch.as_strided(numbers, tensor.shape, tensor.stride(), tensor.storage_offset()).numpy()

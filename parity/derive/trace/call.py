"""Describe how a model is called: its inputs, the method, and which part of the result counts."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from convert.errors import UsageError

from .tape import identity

WIDE = {"f": np.float64, "c": np.complex128}  # what arrays are computed in, by the kind of their dtype
SHORT_WEIGHTS = "has weights of 16 bits, which round too much"
KEY = "key<"  # how the dtypes of JAX's keys for random numbers begin: these stay as they are given


@dataclass(frozen=True, init=False)
class Call:
    """Positional and keyword arguments of a model, as trees of numpy arrays and Python values.

    Args:
      method: the method to call instead of the model itself.
      output: picks what is compared from the result.
    """

    args: tuple[Any, ...] = ()
    kwargs: Mapping[str, Any] = field(default_factory=dict)
    method: str = "__call__"
    output: Callable[[Any], Any] = identity

    def __init__(
        self, *args: Any, method: str = "__call__", output: Callable[[Any], Any] = identity, **kwargs: Any
    ) -> None:
        for name, value in (("args", args), ("kwargs", kwargs), ("method", method), ("output", output)):
            object.__setattr__(self, name, value)

    def arrays(self) -> dict[str, np.ndarray]:
        """Return the arrays of numbers among the arguments by path; floats as float64, complex ones as complex128."""
        arrays = {}
        for path, leaf in self._leaves():
            if hasattr(leaf, "shape") and hasattr(leaf, "dtype") and not str(leaf.dtype).startswith(KEY):
                array = as_array(leaf)
                arrays[path] = array.astype(WIDE.get(array.dtype.kind, array.dtype))
        return arrays

    def numbers(self) -> list[str]:
        """Return the arguments that are plain numbers, such as a temperature; flags are none."""
        return [label(path) for path, leaf in self._leaves() if type(leaf) in (int, float)]

    def settings(self) -> list[str]:
        """Return the arguments that are flags, texts or None, with their values: "causal=True"."""
        found = ((path, leaf) for path, leaf in self._leaves() if leaf is None or isinstance(leaf, (bool, str)))
        return [f"{label(path)}={leaf}" for path, leaf in found]

    def _leaves(self) -> Iterator[tuple[str, Any]]:
        return flatten((list(self.args), dict(self.kwargs)))

    def bind(self, arrays: Mapping[str, Any]) -> tuple[list[Any], dict[str, Any]]:
        """Return the arguments with these arrays in place of their own."""
        args, kwargs = rebuild((list(self.args), dict(self.kwargs)), arrays)
        return args, kwargs


def as_float32(arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Return arrays with floats of 32 bits, and complex numbers of twice as many; others as they are."""
    dtypes = {"f": np.float32, "c": np.complex64}
    return {name: array.astype(dtypes.get(array.dtype.kind, array.dtype)) for name, array in arrays.items()}


def as_array(leaf: Any) -> np.ndarray:
    """Return an array of any framework as one of numpy, also a tensor that requires a gradient."""
    return np.asarray(leaf.detach() if hasattr(leaf, "detach") else leaf)


def label(path: str) -> str:
    """Name an array of the arguments by its path: "input 1" is the first, keyword arguments have their names."""
    kind, _, rest = path.partition("/")
    number, _, inner = rest.partition("/")
    return rest if kind == "1" else f"input {int(number) + 1}{f' ({inner})' if inner else ''}"


def flatten(tree: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Yield each leaf of nested lists, tuples, mappings and records with its path."""
    if isinstance(tree, Mapping):
        items = list(tree.items())
    elif isinstance(tree, (list, tuple)):
        items = list(enumerate(tree))
    else:
        yield path, tree
        return
    for key, item in items:
        yield from flatten(item, f"{path}/{key}" if path else str(key))


def rebuild(tree: Any, leaves: Mapping[str, Any], path: str = "") -> Any:
    """Return the tree with the leaves of these paths replaced."""
    if isinstance(tree, Mapping):
        return {key: rebuild(item, leaves, f"{path}/{key}" if path else str(key)) for key, item in tree.items()}
    if isinstance(tree, (list, tuple)):
        items = [rebuild(item, leaves, f"{path}/{key}" if path else str(key)) for key, item in enumerate(tree)]
        if hasattr(tree, "_fields"):
            return type(tree)(*items)
        return items if isinstance(tree, list) else tuple(items)
    return leaves.get(path, tree)


def without(tree: Any, tensor: type) -> Callable[[Iterable[Any]], Any]:
    """Return what builds the tree with others in place of its tensors, of which it keeps none."""
    build, size = _builder(tree, tensor), sum(isinstance(leaf, tensor) for _, leaf in flatten(tree))
    kept = tree if build is None else None

    def given(tensors: Iterable[Any]) -> Any:
        tensors = list(tensors)
        if len(tensors) != size:
            raise ValueError(f"{len(tensors)} tensors in place of {size}")
        return build(iter(tensors)) if build else kept

    return given


def _builder(tree: Any, tensor: type) -> Callable[[Iterator[Any]], Any] | None:
    """Return what builds a tree and takes its tensors in the order of `flatten`; None for a tree without tensors.

    Operations run again thousands of times: nothing but the way to their tensors is walked then.
    """
    if isinstance(tree, tensor):
        return next
    if isinstance(tree, Mapping):
        keys, items = list(tree), list(tree.values())
        make: Callable[[list[Any]], Any] = lambda values: dict(zip(keys, values, strict=True))  # noqa: E731
    elif isinstance(tree, (list, tuple)):
        items = list(tree)
        make = getattr(tree, "_make", list if isinstance(tree, list) else tuple)
    else:
        return None
    builders = [_builder(item, tensor) for item in items]
    if not any(builders):
        return None
    parts = [(build, None if build else item) for build, item in zip(builders, items, strict=True)]
    return lambda tensors: make([build(tensors) if build else item for build, item in parts])


def call_of(inputs: Any) -> Call:
    """Return a Call of a tuple of arguments, or of one. Raises: UsageError for a Call among them."""
    if isinstance(inputs, Call):
        return inputs
    if any(isinstance(leaf, Call) for _, leaf in flatten(inputs)):
        raise UsageError("a parity.Call has all inputs of a model: give it alone, not in a tuple or another tree")
    return Call(*inputs) if isinstance(inputs, tuple) else Call(inputs)

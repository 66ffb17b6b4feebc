"""Describe what a model is called with: trees of arrays, by position and by name."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np

from convert.errors import UsageError

from . import trees

OUTPUT = "output"  # the tap of the whole model
INPUT = "images"  # the name of the whole model's first input


class Inputs:
    """The arguments of one call of a model.

        Inputs(ids, mask=mask)

    Arrays with four axes, but for masks of bools, are images (n, c, h, w) in every framework. Integers stay integers.
    """

    def __init__(self, *args: Any, **kwargs: Any):
        self.args, self.kwargs = args, kwargs

    @classmethod
    def of(cls, inputs: Any) -> Inputs:
        """Wrap an array, a tuple of positional arguments or a mapping of named ones; a list is one array."""
        if isinstance(inputs, Inputs):
            return inputs
        if isinstance(inputs, Mapping):
            return cls(**inputs)
        return cls(*inputs) if isinstance(inputs, tuple) else cls(to_numpy(inputs))

    def arrays(self) -> Inputs:
        """Convert everything that is no setting to numpy. Raises: UsageError for what is no array."""

        def foreign(value: Any) -> bool:
            return not isinstance(value, trees.PLAIN)

        values = [value for _, value in trees.leaves((self.args, self.kwargs)) if foreign(value)]
        return self.filled(map(to_numpy, values), foreign)

    def map(self, function: Callable[[np.ndarray], Any]) -> Inputs:
        """Apply a function to every numpy array."""
        return self.filled(map(function, self.named(is_numpy).values()), is_numpy)

    def filled(self, values: Iterable[Any], is_array: trees.IsArray) -> Inputs:
        """Replace the arrays by other values, in their order."""
        args, kwargs = trees.replace((self.args, self.kwargs), is_array, iter(values))
        return Inputs(*args, **kwargs)

    def structure(self) -> tuple[Any, ...]:
        """Return everything but the values of the arrays, to compare."""
        leaves = [("args", *leaf) for leaf in trees.leaves(self.args)]
        leaves += [("kwargs", *leaf) for leaf in trees.leaves(self.kwargs)]
        return tuple((kind, path, None if is_numpy(value) else repr(value)) for kind, path, value in leaves)

    def named(self, is_array: trees.IsArray) -> dict[str, Any]:
        """Name the arrays: "images" for the first argument, then "images:1", "images:mask", ..."""
        leaves = [*trees.leaves(self.args), *trees.leaves(self.kwargs)]
        return {join(INPUT, trees.label(path)): value for path, value in leaves if is_array(value)}


def to_numpy(value: Any) -> np.ndarray:
    """Convert an array, or nested lists of numbers, bfloat16 to float32. Raises: UsageError for what is no array."""
    value = value.detach() if hasattr(value, "detach") else value  # a tensor whose gradient is recorded
    try:
        array = np.asarray(value)
    except (ValueError, TypeError, RuntimeError) as error:  # a tensor that numpy cannot read
        raise UsageError(f"inputs must be arrays of numbers: {error}") from error
    return array.astype(np.float32) if array.dtype.name == "bfloat16" else array


def is_image(array: Any, axes: int = 4) -> bool:
    """Tell whether an array with images' number of axes may be one: a mask of bools is none."""
    return bool(array.ndim == axes > 0 and array.dtype != bool)


def is_numpy(value: Any) -> bool:
    return isinstance(value, np.ndarray | np.generic)


def join(name: str, key: str) -> str:
    """Name one of several arrays: "output" and "1" -> "output:1"."""
    return f"{name}:{key}" if key else name

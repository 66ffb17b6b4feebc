"""Convert tensors of paddle to numpy arrays, and run operations of paddle on these."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import paddle

from .call import flatten

LOW = ("float32", "float16", "bfloat16")


class _Slot:
    """The place of a tensor in the arguments of an operation."""


def runner(original: Any, args: Any, kwargs: Any, k: int, in_place: bool) -> Callable[..., np.ndarray]:
    """Call the operation again with other tensors in place of those it had."""
    template = _template((list(args), kwargs))

    def run(*arrays: np.ndarray) -> np.ndarray:
        numbers = iter(arrays)
        again, named = _filled(template, numbers)
        with paddle.no_grad():
            out = original(*again, **named)
        if in_place:
            return numpy_of(again[0])
        return numpy_of([t for _, t in flatten(out) if isinstance(t, paddle.Tensor)][k])

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


def numpy_of(tensor: Any) -> np.ndarray:
    array = tensor.numpy()
    return array.astype(np.float64) if str(tensor.dtype).split(".")[-1] in LOW else array

"""Describe what a model is besides its arrays: classes, attributes, functions and hooks of its modules."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Iterator, Mapping
from types import MethodType
from typing import Any

import numpy as np

Structure = dict[str, Any]  # "blocks.0.norm1.eps" -> value
Convert = Callable[[Any], Any]

# What may change without another network: the mode, the dtype, and the number of classes, which the arrays show.
FREE = ("training", "out_features", "classes")
PLAIN = (type(None), bool, int, float, complex, str, bytes)


def of_module(path: str, module: Any, own: Mapping[str, Any], convert: Convert) -> Iterator[tuple[str, Any]]:
    """Yield (name, value) of a module's class, of its forward function and of everything in its attributes.

    Args:
      own: its attributes, without its arrays and submodules.
      convert: turns a value that is an array of the framework into numpy, and returns any other value as it is.
    """
    yield f"{path or 'the model'}: class", type(module)
    yield f"{path or 'the model'}: {type(module).__name__}.forward", getattr(type(module), "forward", None)
    for name, value in own.items():
        yield from _leaves(f"{path}.{name}".lstrip("."), name, value, convert, ())


def _leaves(path: str, name: str, value: Any, convert: Convert, above: tuple[int, ...]) -> Iterator[tuple[str, Any]]:
    """Yield (path, value) of everything below an attribute that is no container."""
    if name in FREE or "dtype" in name or id(value) in above:
        return
    value, above = convert(value), (*above, id(value))
    if isinstance(value, (*PLAIN, np.ndarray, type)):
        yield path, value
    elif isinstance(value, MethodType):
        yield path, value.__func__  # a copied model has methods of its own
    elif isinstance(value, functools.partial):
        parts = {"func": value.func, "args": value.args, "keywords": value.keywords}
        yield from _children(path, parts, convert, above)
    elif isinstance(value, Mapping):
        yield from _children(path, value, convert, above)
    elif isinstance(value, tuple | list):
        yield f"{path}: length", len(value)
        yield from _children(path, dict(enumerate(value)), convert, above)
    elif isinstance(value, set | frozenset):
        yield path, sorted(map(repr, value))
    elif dataclasses.is_dataclass(value):
        yield f"{path}: class", type(value)
        fields = {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
        yield from _children(path, fields, convert, above)
    elif callable(value) and not hasattr(type(value), "forward"):
        yield path, value
    else:
        yield f"{path}: class", type(value)
        yield from _children(path, getattr(value, "__dict__", {}), convert, above)


def _children(
    path: str, values: Mapping[Any, Any], convert: Convert, above: tuple[int, ...]
) -> Iterator[tuple[str, Any]]:
    for key, value in values.items():
        yield from _leaves(f"{path}.{key}", str(key), value, convert, above)


def first_change(before: Structure, after: Structure) -> str:
    """Describe the first difference of two structures, "" if there is none."""
    for name, value in after.items():
        if name not in before:
            return f"{name} is new"
        if not _same(before[name], value):
            return f"{name} was {_shown(before[name])} and is {_shown(value)}"
    return next((f"{name} is gone" for name in before if name not in after), "")


def _same(old: Any, new: Any) -> bool:
    if isinstance(old, np.ndarray) and isinstance(new, np.ndarray):
        same = old.dtype == new.dtype  # a copy in another dtype is rounded
        return old.shape == new.shape and bool(np.allclose(old, new, 0 if same else 2**-7, 0, equal_nan=True))
    if isinstance(old, (*PLAIN, list)):
        return type(old) is type(new) and bool(old == new or (old != old and new != new))
    return old is new


def _shown(value: Any) -> str:
    if isinstance(value, np.ndarray):
        return f"another array {value.dtype} {list(value.shape)}"
    return getattr(value, "__qualname__", None) or repr(value)

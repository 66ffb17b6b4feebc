"""Flatten nested arguments and results into lists of arrays with names, the same in every framework."""

from __future__ import annotations

import copy
import dataclasses
import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

Path = tuple[str | int, ...]
IsArray = Callable[[Any], bool]
PLAIN = (type(None), bool, int, float, complex, str, bytes)  # results that are settings, not activations


def children(tree: Any) -> list[tuple[str | int, Any]] | None:
    """List (key, child) of a mapping (sorted by key), a sequence or a dataclass; None for anything else."""
    if isinstance(tree, Mapping):
        return sorted(tree.items(), key=lambda item: str(item[0]))
    if isinstance(tree, tuple | list):
        return list(enumerate(tree))
    if dataclasses.is_dataclass(tree) and not isinstance(tree, type):
        return [(field.name, getattr(tree, field.name)) for field in dataclasses.fields(tree)]
    return None


def leaves(tree: Any, path: Path = ()) -> Iterator[tuple[Path, Any]]:
    """Yield (path, value) of everything in a tree that is no container."""
    below = children(tree)
    if below is None:
        yield path, tree
    else:
        for key, child in below:
            yield from leaves(child, (*path, key))


def arrays(tree: Any, is_array: IsArray) -> dict[str, Any]:
    """Name the arrays of a tree: "" for the first of a sequence or for a lone array, else "1", "mask", "1.0", ..."""
    return {label(path): value for path, value in leaves(tree) if is_array(value)}


def strangers(tree: Any, is_array: IsArray) -> list[Any]:
    """List what is neither an array, nor a container, nor a plain setting: arrays inside it cannot be seen."""
    return [value for _, value in leaves(tree) if not is_array(value) and not isinstance(value, PLAIN)]


def numbers(tree: Any) -> list[str]:
    """Name the plain numbers of a tree, as `arrays` names arrays: like `loss.item()`, they may be results as well."""
    return [label(path) for path, x in leaves(tree) if isinstance(x, int | float | complex) and not isinstance(x, bool)]


def label(path: Path) -> str:
    return "" if path in ((), (0,)) else ".".join(map(str, path))


def replace(tree: Any, is_array: IsArray, values: Iterator[Any]) -> Any:
    """Build the same tree with its arrays taken from `values`, in the order of `leaves`."""
    below = children(tree)
    if below is None:
        return next(values) if is_array(tree) else tree
    replaced = {key: replace(child, is_array, values) for key, child in below}
    if all(replaced[key] is child for key, child in below):
        return tree
    if isinstance(tree, Mapping):
        other = copy.copy(tree) if hasattr(tree, "__setitem__") else dict(tree)
        for key, child in replaced.items():
            other[key] = child
        return other
    if isinstance(tree, tuple | list):
        return type(tree)(*replaced.values()) if hasattr(tree, "_fields") else type(tree)(list(replaced.values()))
    return dataclasses.replace(tree, **{str(name): child for name, child in replaced.items()})


class Call:
    """The arguments of one call, in the order of the function's signature, whether passed by position or by name."""

    def __init__(self, function: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any]):
        try:
            self.bound = inspect.signature(function).bind(*args, **kwargs)
        except (TypeError, ValueError):  # no signature, or a call that is about to fail by itself
            self.bound = inspect.signature(lambda *args, **kwargs: None).bind(*args, **kwargs)

    def argument(self, name: str) -> Any:
        """Return an argument's value, its default if it was not passed, None if there is no such argument."""
        parameter = self.bound.signature.parameters.get(name)
        if name in self.bound.arguments or parameter is None:
            return self.bound.arguments.get(name)
        return None if parameter.default is parameter.empty else parameter.default

    def arrays(self, is_array: IsArray) -> list[Any]:
        return [value for _, value in leaves(list(self.bound.arguments.values())) if is_array(value)]

    def replaced(self, is_array: IsArray, values: Sequence[Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Return (args, kwargs) with other arrays."""
        left = iter(values)
        for name, value in self.bound.arguments.items():
            self.bound.arguments[name] = replace(value, is_array, left)
        return self.bound.args, self.bound.kwargs

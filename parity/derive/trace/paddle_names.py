"""Name the arguments of paddle's primitive operations, which have no signatures that Python can read."""

from __future__ import annotations

import functools
import inspect
import itertools
import os
import re
from collections.abc import Callable, Sequence
from typing import Any

import paddle

LEGACY = "old "  # how the names of operations begin that take their settings as pairs of name and value
HEADER = os.path.join("include", "paddle", "phi", "api", "include", "api.h")
STUB = os.path.join("_typing", "libs", "libpaddle", "pir", "ops.pyi")
ARGUMENT = re.compile(r"(\w+)\s*(?:=\s*(?:\{[^}]*\}|[^,{]*))?(?:,|$)")  # of C++, with its default


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

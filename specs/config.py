"""Configurations from the outside: names checked, values checked, the nearest name offered."""

from __future__ import annotations

import dataclasses
import json
import re
import types
import typing
from collections.abc import Mapping
from typing import Any

Size = int | tuple[int, int]  # one number for a square, (height, width) otherwise


def pair(size: Size) -> tuple[int, int]:
    """(height, width)."""
    return (size, size) if isinstance(size, int) else size


def build(config: type, values: Mapping[str, Any]) -> Any:
    """A Config from named values (JSON types welcome).

    Raises: ValueError that lists every unknown name (with the nearest), missing name and misfit value at once.
    """
    fields = {f.name: f for f in dataclasses.fields(config)}
    hints = typing.get_type_hints(config)
    problems = [unknown(name, fields) for name in values if name not in fields]
    kept = {name: tuples(value) for name, value in values.items() if name in fields}
    problems += [
        f"{name}={value!r} does not fit: {name} is {describe(hints[name])}"
        for name, value in kept.items()
        if not _fits(value, hints[name])
    ]
    problems += [
        f"{name} is open: set it ({describe(hints[name])})"
        for name, f in fields.items()
        if name not in kept and f.default is dataclasses.MISSING and f.default_factory is dataclasses.MISSING
    ]
    if problems:
        raise ValueError("; ".join(problems))
    return config(**kept)


def unknown(name: str, known: typing.Iterable[str]) -> str:
    from difflib import get_close_matches

    near = get_close_matches(name, list(known), n=1, cutoff=0.4)
    return f"unknown name {name!r}" + (f", did you mean {near[0]!r}?" if near else "")


def parse(text: str) -> Any:
    """The value of `--set name=text`: JSON, HxW, a comma list, or the text itself."""
    if re.fullmatch(r"\d+x\d+", text):
        return tuple(int(side) for side in text.split("x"))
    for candidate in (text, f"[{text}]"):
        try:
            return tuples(json.loads(candidate))
        except ValueError:
            pass
    return {"True": True, "False": False, "None": None}.get(text, text)


def as_dict(config: Any) -> dict[str, Any]:
    """Plain values, as JSON holds them."""
    return {f.name: _lists(getattr(config, f.name)) for f in dataclasses.fields(config)}


def describe(hint: Any) -> str:
    if typing.get_origin(hint) is typing.Literal:
        return " or ".join(str(choice) for choice in typing.get_args(hint))
    if isinstance(hint, types.UnionType):
        return " or ".join(describe(part) for part in typing.get_args(hint))
    if dataclasses.is_dataclass(hint):
        return "a mapping of " + ", ".join(f.name for f in dataclasses.fields(hint))
    return (
        "none"
        if hint is type(None)
        else getattr(hint, "__name__", str(hint))
        if not typing.get_args(hint)
        else str(hint)
    )


def _fits(value: Any, hint: Any) -> bool:
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin is typing.Literal:
        return value in args
    if isinstance(hint, types.UnionType):
        return any(_fits(value, part) for part in args)
    if origin is tuple:
        if not isinstance(value, tuple):
            return False
        each = [args[0]] * len(value) if args[1:] == (...,) else list(args)
        return len(value) == len(each) and all(map(_fits, value, each))
    if hint is float:
        return isinstance(value, int | float) and not isinstance(value, bool)
    if hint is int:
        return isinstance(value, int) and not isinstance(value, bool)
    return isinstance(value, hint)


def tuples(value: Any) -> Any:
    """Lists within lists as tuples, so that a Config can be hashed."""
    return tuple(tuples(v) for v in value) if isinstance(value, list | tuple) else value


def _lists(value: Any) -> Any:
    return [_lists(v) for v in value] if isinstance(value, tuple) else value

"""Parse, check and describe values of Configs."""

from __future__ import annotations

import dataclasses
import json
import re
import struct
import sys
import types
import typing
from collections.abc import Callable, Iterable, Mapping
from functools import cache
from typing import Any

from .numbers import exact
from .raised import line_of
from .words import hint

Size = int | tuple[int, int]  # one number for a square, (height, width) otherwise
HXW = re.compile("([0-9]{1,20})[x,]([0-9]{1,20})")  # as people write the latter: "4x8" or "4,8"

MAX_BLOCKS = 10_000  # of a network: more is a mistake, or an attack
MAX_INT, MAX_FLOAT = 2**31 - 1, 3e38  # of any number in a Config: what every framework can hold


def pair(size: Size) -> tuple[int, int]:
    """Return (height, width)."""
    return (size, size) if isinstance(size, int) else size


def single(value: float) -> float:
    """Return a number as float32 holds it."""
    rounded: float = struct.unpack("<f", struct.pack("<f", value))[0]
    return rounded


def check_numbers(config: Any, blocks: int, *names: str) -> None:
    """Check what holds for every architecture's Config.

    Args:
      blocks: how many the network has in all, as in sum(self.depths).
      names: fields that hold nothing below 1, also in a tuple.
    Raises: ValueError for no blocks or too many, sizes below 1, and whatever BOUNDS forbids; TypeError where `blocks`
    is no number.
    """
    if type(blocks) is not int:
        stated = "" if isinstance(blocks, str) else f" {blocks!r}:"
        how = "check_numbers(self, self.depth, 'width'), or sum(self.depths) for several stages"
        raise TypeError(f"check_numbers:{stated} the number of all blocks comes after self, as in {how}")
    if not 1 <= blocks <= MAX_BLOCKS:
        raise ValueError(f"a network has at least 1 block and at most {MAX_BLOCKS:,}, not {blocks:,}")
    for name in names:
        value = getattr(config, name)
        if value is not None and min(value if isinstance(value, tuple) else (value,), default=0) < 1:
            raise ValueError(f"{name}={value}: at least 1")
    for name, fits, bounds in _bounds(typing.cast(typing.Hashable, type(config))):
        if not all(map(fits, _numbers(getattr(config, name)))):
            raise ValueError(f"{name}={exact(getattr(config, name))}: {bounds}")


# What every Config's numbers have to be: (pattern of a field's name, type of its numbers, test, what it asks for).
BOUNDS: list[tuple[str, type, Callable[[float], bool], str]] = [
    ("", int, lambda n: n >= 0, "at least 0"),  # counts and sizes
    (r"(^|_)eps(ilon)?$", float, lambda n: n >= 0, "at least 0"),
    (r"(^|_)momentum$", float, lambda n: 0 <= n <= 1, "from 0 to 1"),
    ("drop", float, lambda n: 0 <= n < 1, "from 0 to below 1"),
]


@cache
def _bounds(config: type) -> list[tuple[str, Callable[[float], bool], str]]:
    """Return (field, test of its numbers, what it asks for) for each of BOUNDS that applies to a field."""
    kinds = {name: float if "float" in str(of) else int for name, of in types_of(config).items()}
    return [
        (name, test, bounds)
        for name, kind in kinds.items()
        for pattern, of, test, bounds in BOUNDS
        if kind is of and re.search(pattern, name)
    ]


def _numbers(value: Any) -> list[float]:
    """Return the numbers in a field, of tuples within tuples too; bool and str are none."""
    if isinstance(value, tuple):
        return [number for part in value for number in _numbers(part)]
    return [value] if type(value) in (int, float) else []


def build(config: type, values: Mapping[str, Any]) -> Any:
    """Build a Config from named values (JSON types welcome).

    Raises: ValueError that lists every unknown name (with the nearest), missing name and misfit value at once, and for
    whatever the Config's own code raises, with its line.
    """
    hints = types_of(config)
    problems = misfits(config, values)
    problems += [
        f"{f.name} is open: set it ({describe(hints[f.name])})"
        for f in dataclasses.fields(config)
        if f.name not in values and f.default is dataclasses.MISSING and f.default_factory is dataclasses.MISSING
    ]
    if problems:
        raise ValueError("; ".join(problems))
    try:
        return config(**{name: tuples(value) for name, value in values.items()})
    except ValueError:
        raise
    except Exception as error:  # of a page's own code, as a division by a field that is 0
        file = sys.modules[config.__module__].__file__ or config.__module__
        line = line_of(error, [file])
        where = f"{file}, line {line}" if line else file
        raise ValueError(f"no Config has these values: {type(error).__name__}: {error} ({where})") from None


def misfits(config: type, values: Mapping[str, Any]) -> list[str]:
    """Return which of these values no Config has: unknown names, wrong types, numbers beyond all bounds."""
    hints = types_of(config)
    names = [f.name for f in dataclasses.fields(config)]
    return _no_fields([name for name in values if name not in names], names) + [
        f"{name}={_short(value)} does not fit: {name} is {describe(hints[name])}"
        for name, value in values.items()
        if name in names and not fits(tuples(value), hints[name])
    ]


def unknown_fields(config: type, names: Iterable[str]) -> tuple[str, ...]:
    """Return the names that no field of a Config has."""
    known = {f.name for f in dataclasses.fields(config)}
    return tuple(name for name in names if name not in known)


def _is_union(hint: Any) -> bool:
    return typing.get_origin(hint) in (types.UnionType, typing.Union)


def is_type(hint: Any) -> bool:
    """Tell whether a field of a Config may have this type: values of it are checked, and written as JSON."""
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin is typing.Literal:
        return True
    if _is_union(hint):
        return all(map(is_type, args))
    if origin is tuple:
        return bool(args) and all(is_type(part) for part in args if part is not ...)
    return hint in (int, float, bool, type(None))


types_of = cache(typing.get_type_hints)  # of a Config: {field: type}


def as_hxw(config: type, name: str, value: Any) -> Any:
    """Return "4x8" in place of two numbers where the field takes HxW, as people write it; else the value."""
    is_pair = isinstance(value, list | tuple) and len(value) == 2
    return "x".join(map(str, value)) if is_pair and "HxW" in describe(types_of(config)[name]) else value


def _short(value: Any) -> str:
    text = repr(value) if isinstance(value, str) else exact(value)
    return text if len(text) <= 80 else text[:77] + "..."


def _no_fields(unknown: Iterable[str], names: typing.Collection[str]) -> list[str]:
    """Name the nearest field for each unknown name, and all fields once where none is near."""
    hints = {name: hint(name, names) for name in unknown}
    far = [repr(name) for name, near in hints.items() if not near]
    what = f"unknown name{'s' if far[1:] else ''} {', '.join(far)}: the fields are {', '.join(names)}"
    what += "; a variant is no field: set those in which it differs" if "'variant'" in far else ""
    return [f"unknown name {name!r}{near}" for name, near in hints.items() if near] + ([what] if far else [])


def parse(text: str) -> Any:
    """Parse the value of `--set name=text`: JSON or Python's way of writing it, HxW, a comma list, or plain text."""
    if isinstance(sides := tuples(text), tuple):
        return sides
    for candidate in (text, f"[{text}]"):
        try:
            return tuples(json.loads(candidate))
        except (ValueError, RecursionError):
            pass
    import ast  # which takes longer to load than most files to inspect

    try:
        return tuples(ast.literal_eval(text))
    except (ValueError, TypeError, SyntaxError, RecursionError, MemoryError):
        return text


def as_dict(config: Any) -> dict[str, Any]:
    """Return plain values, as JSON holds them."""
    return {f.name: lists(getattr(config, f.name)) for f in dataclasses.fields(config)}


def written(config: Any) -> dict[str, str]:
    """Write every field that is set, by its name: {"gelu": "gelu=erf"}."""
    fields = {name: as_hxw(type(config), name, value) for name, value in as_dict(config).items()}
    return {name: f"{name}={exact(value)}" for name, value in fields.items() if value is not None}


def describe(hint: Any) -> str:
    """Return what a field holds, as `--set` takes it: "gelu or relu", "int or HxW", "[int,int,int],..."."""
    args = typing.get_args(hint)
    if typing.get_origin(hint) is typing.Literal:
        return " or ".join(str(choice) for choice in args)
    if _is_union(hint):
        return " or ".join(map(describe, args))
    if args == (int, int) and typing.get_origin(hint) is tuple:
        return "HxW"  # as --image takes it
    if typing.get_origin(hint) is tuple:
        one = " (of one: 4,)" if args == (int, ...) else ""  # 4 alone would be a number
        return ",".join("..." if part is ... else _item(part) for part in args) + one
    return "none" if hint is type(None) else str(getattr(hint, "__name__", hint))


def _item(hint: Any) -> str:
    return f"[{describe(hint)}]" if typing.get_origin(hint) is tuple else describe(hint)


def fits(value: Any, hint: Any) -> bool:
    """Tell whether a value (tuples, not lists) has the type that a Config field asks for, within bounds."""
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin is typing.Literal:
        return value in args
    if _is_union(hint):
        return any(fits(value, part) for part in args)
    if origin is tuple:
        if not isinstance(value, tuple):
            return False
        each = [args[0]] * len(value) if args[1:] == (...,) else list(args)
        return len(value) == len(each) and all(map(fits, value, each))
    if hint is float:
        return isinstance(value, int | float) and not isinstance(value, bool) and -MAX_FLOAT <= value <= MAX_FLOAT
    if hint is int:
        return isinstance(value, int) and not isinstance(value, bool) and -MAX_INT <= value <= MAX_INT
    return isinstance(value, hint)


def tuples(value: Any) -> Any:
    """Return lists within lists as tuples, so that a Config can be hashed, and a text such as "4x8" as two numbers."""
    if isinstance(value, str) and (sides := HXW.fullmatch(value)):
        return tuple(map(int, sides.groups()))
    return tuple(tuples(v) for v in value) if isinstance(value, list | tuple) else value


def lists(value: Any) -> Any:
    """Return tuples within tuples as lists, as JSON has them."""
    return [lists(v) for v in value] if isinstance(value, tuple) else value

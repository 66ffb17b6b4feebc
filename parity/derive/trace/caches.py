"""Undo what a run of a model leaves: tables that it computes from parameters once and keeps, and freed memory."""

from __future__ import annotations

import contextlib
import ctypes
from collections.abc import Iterable, Iterator
from typing import Any


@contextlib.contextmanager
def forgotten(modules: Iterable[Any]) -> Iterator[None]:
    """Restore the attributes of modules, and the entries of their dictionaries and lists, at the end."""
    before = [(module, {name: (value, _entries(value)) for name, value in vars(module).items()}) for module in modules]
    try:
        yield
    finally:
        for module, attributes in before:
            for name in vars(module).keys() - attributes.keys():
                del vars(module)[name]
            for name, (value, entries) in attributes.items():
                vars(module)[name] = value
                if isinstance(value, dict) and not _same(value, entries):  # one that refuses changes has none
                    value.clear()
                    value.update(entries)
                elif isinstance(value, list):
                    value[:] = entries


def _entries(value: Any) -> Any:
    return value.copy() if isinstance(value, (dict, list)) else None


def _same(now: dict[Any, Any], before: dict[Any, Any]) -> bool:
    return now.keys() == before.keys() and all(now[key] is value for key, value in before.items())


def trim() -> None:
    """Return freed memory to the system, where the C library has a function for that."""
    with contextlib.suppress(OSError, AttributeError, TypeError):
        ctypes.CDLL(None).malloc_trim(0)

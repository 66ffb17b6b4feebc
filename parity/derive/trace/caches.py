"""Undo what a run of a model leaves: tables that it computes from parameters once and keeps, and freed memory."""

from __future__ import annotations

import contextlib
import ctypes
import math
import mmap
from collections.abc import Iterable, Iterator
from typing import Any

GROWN = 1 << 26  # bytes: to walk the heap takes milliseconds, a quarter of the time of deriving from small models

_least: float = math.inf  # bytes that the process occupied when it was trimmed, or fewer that it occupied since


@contextlib.contextmanager
def forgotten(modules: Iterable[Any]) -> Iterator[None]:
    """Restore the attributes of modules, and the entries of their dictionaries and lists, at the end."""
    before = [(vars(module), vars(module).copy(), _entries(vars(module))) for module in modules]
    try:
        yield
    finally:
        for own, attributes, entries in before:
            for name in own.keys() - attributes.keys():
                del own[name]
            own.update(attributes)
            for name, copied in entries.items():
                _refill(attributes[name], copied)


def _entries(attributes: dict[str, Any]) -> dict[str, Any]:
    """Return copies of the dictionaries and lists among attributes, most of which are empty in a module."""
    return {name: value.copy() for name, value in attributes.items() if isinstance(value, (dict, list))}


def _refill(value: Any, entries: Any) -> None:
    if isinstance(value, list):
        value[:] = entries
    elif (value or entries) and not _same_objects(value, entries):  # one that refuses changes has none
        value.clear()
        value.update(entries)


def _same_objects(now: dict[Any, Any], before: dict[Any, Any]) -> bool:
    return now.keys() == before.keys() and all(now[key] is value for key, value in before.items())


def trim() -> None:
    """Give freed memory back to the system if the process has grown by GROWN, where the C library has a function."""
    global _least
    if (resident := _resident()) <= _least + GROWN:
        _least = min(_least, resident)
        return
    with contextlib.suppress(OSError, AttributeError, TypeError):
        ctypes.CDLL(None).malloc_trim(0)
    _least = _resident()


def _resident() -> int:
    """Return how many bytes of memory this process occupies; 0 where the system does not say."""
    try:
        with open("/proc/self/statm", "rb", buffering=0) as file:
            return int(file.read().split()[1]) * mmap.PAGESIZE
    except OSError:
        return 0

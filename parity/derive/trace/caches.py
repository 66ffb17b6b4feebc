"""Undo what a run of a model leaves: tables that it computes from parameters once and keeps, and freed memory."""

from __future__ import annotations

import contextlib
import ctypes
import math
import time
from collections.abc import Iterable, Iterator
from typing import Any

SPACED = 50  # times what it takes to trim the heap pass before it is trimmed again: in a large process 50 ms

_next: float = -math.inf  # when the heap may be trimmed again, by time.process_time


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


def trim(now: bool = False) -> None:
    """Give freed memory back to the system, which the C library keeps; at most a fiftieth of the time is spent on it.

    Args:
      now: whether to do it however short ago it was done.
    """
    global _next
    began = time.process_time()
    if began < _next and not now:
        return
    with contextlib.suppress(OSError, AttributeError, TypeError):  # libraries that have no such function
        ctypes.CDLL(None).malloc_trim(0)
    _next = began + (time.process_time() - began) * SPACED

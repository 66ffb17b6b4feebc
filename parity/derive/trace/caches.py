"""Undo what a run of a model leaves: tables that it computes from parameters once and keeps, and freed memory."""

from __future__ import annotations

import contextlib
import ctypes
import math
import mmap
import time
from collections.abc import Iterable, Iterator
from typing import Any, ClassVar

GROWN = 1 << 24  # bytes
SPACED = 50  # times what it takes to walk the heap pass before it is walked again: in a large process 20 ms, thus 2%

_least: float = -math.inf  # unused bytes when the heap was trimmed, or fewer since
_next: float = -math.inf  # when the heap may be walked again, by time.perf_counter


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
    """Give freed memory back to the system if GROWN more of it than at the last time is kept by the C library."""
    global _least, _next
    if (began := time.perf_counter()) < _next:
        return
    unused = _unused()
    _next = began + (time.perf_counter() - began) * SPACED
    if unused <= _least + GROWN:
        _least = min(_least, unused)
        return
    with contextlib.suppress(OSError, AttributeError, TypeError):  # libraries that have no such function
        ctypes.CDLL(None).malloc_trim(0)
    _least = _unused()


FIELDS = (
    "arena", "ordblks", "smblks", "hblks", "hblkhd", "usmblks", "fsmblks", "uordblks", "fordblks", "keepcost",
)  # fmt: skip


class _Heap(ctypes.Structure):
    """What glibc's mallinfo2 returns, in bytes."""

    _fields_: ClassVar = [(name, ctypes.c_size_t) for name in FIELDS]


def _unused() -> int:
    """Return how many bytes this process occupies beyond those that its heap has in use: code, and freed memory."""
    heap = _Heap()
    with contextlib.suppress(OSError, AttributeError, TypeError):
        measure = ctypes.CDLL(None).mallinfo2
        measure.restype = _Heap
        heap = measure()
    return _resident() - heap.uordblks - heap.hblkhd


def _resident() -> int:
    """Return how many bytes of memory this process occupies; 0 where the system does not say."""
    try:
        with open("/proc/self/statm", "rb", buffering=0) as file:
            return int(file.read().split()[1]) * mmap.PAGESIZE
    except OSError:
        return 0

"""Record calls of modules as taps, and name the arrays that a model returns."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from convert.errors import UsageError
from specs.words import with_article

from . import trees
from .inputs import OUTPUT, join
from .records import Tap

_watchers: list[Callable[[str], None]] = []


@contextmanager
def watched(watch: Callable[[str], None]) -> Iterator[None]:
    """Call watch(name) wherever a trace in this block enters a tap, or comes back to one; "" outside of every tap.

    Where a library compiles the model, that is while it is traced, and not while it runs.
    """
    _watchers.append(watch)
    try:
        yield
    finally:
        _watchers.remove(watch)


class Trace:
    """Collects the calls of taps, numbering repeated ones.

    Args:
      feed: inputs to run the named calls on, in place of their own.
      is_array: tells the framework's arrays from everything else.
      copied: what to record of an array: a later operation in place must not change it.
    """

    def __init__(
        self, feed: Mapping[str, Sequence[Any]], is_array: trees.IsArray, copied: Callable[[Any], Any] = lambda a: a
    ):
        self.feed, self.is_array, self.copied = feed, is_array, copied
        self.calls: dict[str, int] = {}
        self.open: list[tuple[str, tuple[Any, ...]]] = []
        self.taps: list[Tap] = []

    def enter(self, tap: str, call: trees.Call) -> tuple[tuple[Any, ...], dict[str, Any]] | None:
        """Begin a call. Returns: (args, kwargs) to run it on instead, None to run it as it is.

        A feed that does not fit the call (another number of arrays, other shapes) is not used: the recorded inputs
        then differ, and show it.
        """
        calls = self.calls[tap] = self.calls.get(tap, 0) + 1
        name = tap if calls == 1 else f"{tap}#{calls - 1}"
        arrays = call.arrays(self.is_array)
        self.open.append((name, tuple(map(self.copied, arrays))))
        self._tell()
        feed = self.feed.get(name)
        if feed is None or [tuple(a.shape) for a in feed] != [tuple(a.shape) for a in arrays]:
            return None
        return call.replaced(self.is_array, feed)

    def leave(self, out: Any) -> None:
        """End the call that began last."""
        name, arrays = self.open.pop()
        results = visible(name, out, self.is_array)
        self.taps.append(Tap(name, arrays, tuple(map(self.copied, results.values())), tuple(results)))
        self._tell()

    def _tell(self) -> None:
        for watch in _watchers:
            watch(self.open[-1][0] if self.open else "")


def visible(name: str, out: Any, is_array: trees.IsArray) -> dict[str, Any]:
    """Name the arrays that a module returned. Raises: UsageError for a result whose arrays cannot be seen."""
    for stranger in trees.strangers(out, is_array):
        other = with_article(type(stranger).__name__)
        raise UsageError(
            f"module {name!r} returns {other}, whose arrays cannot be compared: return arrays, "
            "sequences, mappings or dataclasses of them, or leave the module out of names"
        )
    return trees.arrays(out, is_array)


def name_outputs(results: Mapping[str, Any], convert: Callable[[Any], np.ndarray]) -> dict[str, np.ndarray]:
    """Convert the whole model's outputs: "output", and "output:KEY" for each further one."""
    return {join(OUTPUT, key): convert(array) for key, array in results.items()}

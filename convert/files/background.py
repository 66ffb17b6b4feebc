"""Run work beside the main thread. Hashing, reading and writing release the interpreter's lock, so both cores work."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")


class Task(Generic[T]):
    """A call in a thread of its own. As a context manager it ends with its block, however that ends.

    Args:
      call: is given an Event that is set once nobody waits for the result any more.
    """

    def __init__(self, call: Callable[[threading.Event], T]):
        self._stop = threading.Event()
        self._results: list[T] = []
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, args=(call,), daemon=True)
        self._thread.start()

    def _run(self, call: Callable[[threading.Event], T]) -> None:
        try:
            self._results.append(call(self._stop))
        except BaseException as error:  # not handled here: raised again where the result is asked for
            self._error = error

    def result(self) -> T:
        """Return what the call returned, once it has. Raises: what the call raised."""
        self._thread.join()
        if self._error is not None:
            raise self._error
        return self._results[0]

    def __enter__(self) -> Task[T]:
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

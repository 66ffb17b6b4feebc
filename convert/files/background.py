"""Run work beside the main thread. Hashing, reading and writing release the interpreter's lock, so both cores work."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Generator, Iterable
from typing import Any, Generic, TypeVar

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

    def stop(self) -> None:
        """Tell the call that nobody waits for its result."""
        self._stop.set()

    def __enter__(self) -> Task[T]:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
        self._thread.join()


def ahead(items: Iterable[T], most: int) -> Generator[T, None, None]:
    """Yield items that a thread computes: `most` of them are in use or wait to be, while it computes the next.

    Close it where it is not used up: that ends the thread. Raises: what computing an item raised, in its place.
    """
    computed: queue.SimpleQueue[Any] = queue.SimpleQueue()
    room, end = threading.Semaphore(most), object()

    def compute(stop: threading.Event) -> None:
        try:
            for item in items:
                room.acquire()
                if stop.is_set():
                    return
                computed.put(item)
        finally:
            computed.put(end)

    with Task(compute) as task:
        try:
            while (item := computed.get()) is not end:
                yield item
                room.release()
            task.result()
        finally:
            task.stop()
            room.release()

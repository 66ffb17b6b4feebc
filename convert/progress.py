"""Show a line of progress on a terminal, and nothing anywhere else."""

from __future__ import annotations

import shutil
import sys
import time
from collections.abc import Iterable, Iterator
from typing import Any

EVERY = 0.1  # seconds between updates
QUIET = 1.0  # seconds before the first: what takes less needs none
CLEAR = "\r\x1b[K"  # what a terminal erases a line on
_NO_DIGITS = str.maketrans("", "", "0123456789")


class Progress:
    """Share, rate and remaining time of `total` bytes, redrawn on one line of standard error."""

    def __init__(self, total: int, what: str):
        self.total, self.what, self.done = total, what, 0
        self.shown = sys.stderr.isatty() and total > 0
        self.start = self.last = time.monotonic()
        self.last += QUIET - EVERY

    def of(self, pieces: Iterable[Any]) -> Iterator[Any]:
        for piece in pieces:
            yield piece
            self.done += len(piece)
            if self.shown and time.monotonic() - self.last > EVERY:
                self.draw()

    def draw(self) -> None:
        self.last = time.monotonic()
        rate = self.done / max(self.last - self.start, 1e-9)
        left = (self.total - self.done) / max(rate, 1)
        line = f"{self.what}: {100 * self.done // self.total}% of {self.total / 1e6:,.0f} MB, {rate / 1e6:,.0f} MB/s"
        sys.stderr.write(f"{CLEAR}{line}, {left:.0f} s left")
        sys.stderr.flush()

    def close(self) -> None:
        if self.shown:
            sys.stderr.write(CLEAR)
            sys.stderr.flush()


class Status:
    """Show what is done at present on one line of standard error. A context manager that clears the line at its end."""

    def __init__(self) -> None:
        self.shown, self.what, self.last = sys.stderr.isatty(), "", 0.0

    def show(self, what: str) -> None:
        """Replace the line; of one kind of step, show one every tenth of a second.

        Steps are of one kind if they differ in numbers alone, or behind a second colon: "proving: source: stem".
        """
        kind = ": ".join(what.translate(_NO_DIGITS).split(": ")[:2])
        if not self.shown or (kind == self.what and time.monotonic() - self.last < EVERY):
            return
        self.what, self.last = kind, time.monotonic()
        sys.stderr.write(f"{CLEAR}{what[: shutil.get_terminal_size().columns - 1]}")
        sys.stderr.flush()

    def __enter__(self) -> Status:
        return self

    def __exit__(self, *_: object) -> None:
        if self.shown and self.what:
            sys.stderr.write(CLEAR)
            sys.stderr.flush()

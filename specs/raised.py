"""Find where a page's own code raised an exception."""

from __future__ import annotations

from collections.abc import Collection


def line_of(error: BaseException, files: Collection[str]) -> int | None:
    """Return the last line in one of these files that an exception passed; None where it passed none."""
    line, step = None, error.__traceback__
    while step is not None:
        if step.tb_frame.f_code.co_filename in files:
            line = step.tb_lineno
        step = step.tb_next
    return line

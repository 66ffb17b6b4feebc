"""Find where a page's own code raised an exception."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from types import CodeType


def line_of(error: BaseException, files: Collection[str]) -> int | None:
    """Return the last line in one of these files that an exception passed; None where it passed none."""
    line, step = None, error.__traceback__
    while step is not None:
        if step.tb_frame.f_code.co_filename in files:
            line = step.tb_lineno
        step = step.tb_next
    return line


def first_of(error: BaseException, functions: Mapping[CodeType, str]) -> str:
    """Return the name of the first of these functions that an exception passed; "" where it passed none."""
    step = error.__traceback__
    while step is not None and step.tb_frame.f_code not in functions:
        step = step.tb_next
    return functions[step.tb_frame.f_code] if step is not None else ""

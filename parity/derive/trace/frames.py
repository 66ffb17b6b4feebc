"""Find the line of the user's own code from which an error comes."""

from __future__ import annotations

import inspect
import os
import sysconfig
import traceback
from typing import Any

import convert
from convert.version import PACKAGES
from parity.running.ended import Ended

OURS = os.path.dirname(os.path.dirname(os.path.abspath(convert.__file__)))
FLOORS = tuple(os.path.join(OURS, floor, "") for floor in PACKAGES)
INSTALLED = tuple(os.path.join(path, "") for path in {*sysconfig.get_paths().values()} if path)


def line_of(error: BaseException) -> str:
    """Return FILE:LINE of the innermost frame of the user's own files, which are not installed; "" if there is none."""
    if isinstance(error, SyntaxError) and error.filename:
        return f"{shown(error.filename)}:{error.lineno}"
    frames = [(os.path.abspath(f.filename), f.lineno) for f in traceback.extract_tb(error.__traceback__)]
    own = [(file, line) for file, line in frames if is_own(file)]
    return f"{shown(own[-1][0])}:{own[-1][1]}" if own else ""


def is_own(file: str) -> bool:
    """Tell whether a file is the user's."""
    packages = f"{os.sep}site-packages{os.sep}", f"{os.sep}dist-packages{os.sep}"
    return os.path.isfile(file) and not file.startswith((*FLOORS, *INSTALLED)) and not any(p in file for p in packages)


def line_of_definition(function: Any) -> str:
    """Return ":LINE" where a function is defined; "" for what is no function of Python."""
    code = getattr(inspect.unwrap(function), "__code__", None)
    return f":{code.co_firstlineno}" if code else ""


def shown(file: str) -> str:
    """Return a path as the user writes it: from the folder where the command runs, if it lies below."""
    relative = os.path.relpath(file)
    return file if relative.startswith(os.pardir) else relative


def message(error: BaseException) -> str:
    """Return an error's type and the first paragraph of its text; of a SyntaxError without the line, see line_of."""
    words = (isinstance(error, SyntaxError) and error.msg) or str(error)
    text = " ".join(words.strip().split("\n\n")[0].split())
    if isinstance(error, Ended):  # whose text has the type of what was raised
        return text
    return f"{type(error).__name__}: {text}" if text else type(error).__name__

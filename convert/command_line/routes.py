"""Read a route, such as google2torch: the dialect of the source and that of the target."""

from __future__ import annotations

import contextlib
import os
import re

import specs
from convert.errors import UsageError, called
from convert.reading.recognise import all_dialects, known_dialect
from convert.running import OPTIONS
from specs.dialects import PORTS
from specs.words import hint

from .parsers import COMMANDS, is_route

PROGRAMS = ("parity", "ports")  # beside convert


def route(text: str) -> tuple[str, str]:
    """Parse "google2torch" into ("google", "torch"). Raises: UsageError with the nearest route."""
    halves = [(text[:k], text[k + 1 :]) for k, letter in enumerate(text) if letter == "2" and is_route(text)]
    for src, dst in halves:
        with contextlib.suppress(UsageError):
            return known_dialect(src), known_dialect(dst)
    if text in PROGRAMS:
        raise UsageError(f"{text!r} is no command of convert, but a program of its own: {called(text)}")
    if os.path.lexists(text):
        examples = f"google2torch {text}, inspect {text} or diff {text} OTHER"
        raise UsageError(f"{text}: the command comes first, as in {examples}")
    for name in (text, *(half for each in halves for half in each)):
        if name in specs.names():
            raise UsageError(f"{name} is an architecture; a route is DIALECT2DIALECT, e.g. flax2torch")
    if not halves:
        raise UsageError(f"{text!r} is neither a command nor a route{_meant(text)} ({_lists()})")
    for name in halves[0]:
        known_dialect(name)
    raise UsageError(f"no route {text!r} ({called('convert routes')} lists them)")


def _lists() -> str:
    return f"{called('convert')} --help lists the commands, {called('convert routes')} the routes"


def _meant(text: str) -> str:
    """Name what may have been meant: an option, a route but for its 2, as torchtotimm or torch-timm, or a command."""
    if text == "compare":
        return f", did you mean {called('convert diff')}, which compares two files?"
    if text in OPTIONS:
        return f", did you mean the option --{OPTIONS[text]}, as in google2torch CKPT --{OPTIONS[text]}?"
    known = {*PORTS, *all_dialects()}
    separators = (r"(?i)[-_>=]*to[-_]*", "[-_>=]+")  # each by itself: of google-torch, "-to" is none
    for match in (m for separator in separators for m in re.finditer(separator, text)):
        src, dst = text[: match.start()].lower(), text[match.end() :].lower()
        if src in known and dst in known:
            return f", did you mean {f'{src}2{dst}'!r}?"
    return hint(text, filter(str.isalpha, COMMANDS))

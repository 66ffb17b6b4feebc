"""Report files that were damaged or changed since they were converted; pass that on to the records of targets."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

ALTERED = "altered"  # of a record: how files that its file comes from differed from their own records
SINCE = "the file was damaged, or changed as by training, since it was converted"
WARNING = "warning: "  # begins a note on what may make the result wrong
MOST, LONGEST = 20, 400  # lines that a record passes on, and characters of each


def facts(file: str, content: Mapping[str, Any], change: str) -> dict[str, list[str]]:
    """Return what the record of a target passes on.

    Args:
      file: the source. content: of its record. change: how the source differs from that; "" if it does not.
    """
    lines = [*earlier(content), *([f"{file}, {change}"] if change else [])]
    return {ALTERED: lines} if lines else {}


def notes(place: str, content: Mapping[str, Any]) -> list[str]:
    """Return what a record says of the files that its file comes from."""
    return [f"{WARNING}{place} says of {line}: {SINCE}" for line in earlier(content)]


def earlier(content: Mapping[str, Any]) -> list[str]:
    lines = content.get(ALTERED)
    return [line[:LONGEST] for line in lines[:MOST] if isinstance(line, str)] if isinstance(lines, list) else []

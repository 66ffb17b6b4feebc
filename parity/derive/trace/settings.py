"""Say how two calls of operations differ in their settings."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from specs.numerals import exact, measured

from .tape import Operation

PLAIN = bool, int, float, str


def plain(given: Mapping[str, Any]) -> dict[str, Any]:
    """Return the arguments that are numbers, words, or lists of these."""
    return {name: value for name, value in given.items() if _is_plain(value)}


def _is_plain(value: Any) -> bool:
    return all(map(_is_plain, value)) if isinstance(value, (list, tuple)) else isinstance(value, PLAIN)


def unlike(left: Operation, right: Operation) -> list[str]:
    """List the settings in which calls of one operation differ: "ceil_mode True on the left, False on the right"."""
    if left.name != right.name:
        return []
    names = dict.fromkeys([*left.settings, *right.settings])
    pairs = [(name, left.settings.get(name), right.settings.get(name)) for name in names]
    return [f"{name} {_text(a)} on the left, {_text(b)} on the right" for name, a, b in pairs if a != b]


def _text(value: Any) -> str:
    return measured(value, 6) if isinstance(value, float) else exact(value)

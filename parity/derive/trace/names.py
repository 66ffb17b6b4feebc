"""Take names of parameters apart, and measure how alike two of them are."""

from __future__ import annotations

import difflib
import re


def split(name: str) -> tuple[str, str]:
    """Return the path and the leaf of a name."""
    at = max(name.rfind("."), name.rfind("/"))
    return name[: max(at, 0)], name[at + 1 :]


class Similarity:
    """How alike two names are, from 0 to 1: only ever decides between partners of equal evidence."""

    def __init__(self) -> None:
        self._seen: dict[tuple[str, str], float] = {}

    def __call__(self, left: str, right: str) -> float:
        if (left, right) not in self._seen:
            words = difflib.SequenceMatcher(None, _words(left), _words(right), autojunk=False).ratio()
            letters = difflib.SequenceMatcher(None, left.lower(), right.lower(), autojunk=False).ratio()
            self._seen[left, right] = 0.75 * words + 0.25 * letters
        return self._seen[left, right]


def _words(name: str) -> list[str]:
    spaced = re.sub(r"(?<=[a-z])(?=[A-Z])|(?<=[A-Za-z])(?=\d)", "_", name)
    return [word for word in re.split(r"[^a-z0-9]+", spaced.lower()) if word]

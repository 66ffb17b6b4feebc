"""Parse untrusted JSON: values are counted first, because three characters of it can cost a hundred bytes."""

from __future__ import annotations

import json
import re
from collections import Counter
from typing import Any

MAX_VALUES = 250_000  # a record of 10,000 tensors has some 100,000
STRING = r'"(?:[^"\\]++|\\.)*+"'


def loads(text: str | bytes, most: int = MAX_VALUES) -> Any:
    """Parse as json.loads does, but no key may occur twice in an object: one of its values would be lost.

    Args:
      most: values that it may hold, counted by what separates them outside strings.
    Raises: ValueError where it is no JSON, repeats a key, holds more or is nested too deeply.
    """
    text = text if isinstance(text, str) else text.decode("utf-8-sig")
    if _separators(text) > most and _exceeds(text, most):
        raise ValueError(f"it holds over {most:,} values")
    try:
        return json.loads(text, object_pairs_hook=_unique)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def _separators(text: str) -> int:
    return sum(map(text.count, ",[{"))


def _exceeds(text: str, most: int) -> bool:
    """Tell whether more than `most` separators stand outside strings, such as that of a record."""
    count = at = 0
    for string in re.finditer(STRING, text):
        count, at = count + _separators(text[at : string.start()]), string.end()
        if count > most:
            return True
    return count + _separators(text[at:]) > most


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    content = dict(pairs)
    if len(content) < len(pairs):
        ((key, _),) = Counter(key for key, _ in pairs).most_common(1)
        raise ValueError(f"it contains the key {key[:80]!a} twice")
    return content

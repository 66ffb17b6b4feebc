"""JSON out of a stranger's file. Three characters of it make an object of a hundred bytes: values are counted first."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

MAX_VALUES = 250_000  # a record of 10,000 tensors has some 100,000


def loads(
    text: str | bytes, most: int = MAX_VALUES, pairs: Callable[[list[tuple[str, Any]]], dict[str, Any]] | None = None
) -> Any:
    """Like json.loads.

    Args:
      most: values that it may hold, counted by what separates them, also where that stands in a string.
      pairs: makes each object of its keys and values.
    Raises: ValueError where it is no JSON, holds more or is nested too deeply.
    """
    text = text if isinstance(text, str) else text.decode("utf-8-sig")
    if sum(map(text.count, ",[{")) > most:
        raise ValueError(f"it holds over {most:,} values")
    try:
        return json.loads(text, object_pairs_hook=pairs)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None

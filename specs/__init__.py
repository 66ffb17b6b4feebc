"""One page an architecture, free of any framework: Config, VARIANTS, TINY, layers, infer, input_shape, DIALECTS."""

from __future__ import annotations

import importlib
import pkgutil
from functools import cache
from typing import Any

_RECORDS = {"layer", "config", "init", "resize"}  # what specs are written in; every other module is an architecture


@cache
def _names() -> tuple[str, ...]:
    return tuple(sorted(m.name for m in pkgutil.iter_modules(__path__) if m.name not in _RECORDS))


def names() -> list[str]:
    """Every architecture."""
    return list(_names())


def get(name: str) -> Any:
    """The spec of an architecture. Raises: ValueError with the nearest name."""
    if name not in names():
        from .config import unknown

        raise ValueError(f"{unknown(name, names())} (architectures: {', '.join(names())})")
    return importlib.import_module(f"{__name__}.{name}")

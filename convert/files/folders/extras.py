"""Packages that only some formats need: imported when one does, and named with their extra where they are missing."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from typing import Any

from convert.errors import UsageError

ZSTD = "compression.zstd" if sys.version_info >= (3, 14) else "backports.zstd"


def orbax_needs(name: str) -> Any:
    """A package of the extra "orbax". Raises: UsageError that names the extra to install."""
    try:
        if importlib.util.find_spec(name):
            return importlib.import_module(name)
    except ImportError:
        pass  # its parent is missing
    raise UsageError(f"this Orbax checkpoint needs {name}: pip install 'triptych-ports[orbax]'")

"""Translate checkpoints between frameworks and dialects: `python -m convert`, or `convert.plan(...)` in Python."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .planning import Plan, plan

__all__ = ["Plan", "plan"]
__version__ = "0.1.0"  # asking the installation for it would take longer than reading a checkpoint's directory


def __getattr__(name: str) -> Any:
    """`plan` and `Plan`, imported when first asked for: the command line starts without them."""
    if name in __all__:
        import importlib

        return getattr(importlib.import_module(f"{__name__}.planning"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

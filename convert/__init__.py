"""Translate checkpoints between frameworks and dialects: `python -m convert`, or in Python

plan = convert.plan("weights.npz", src="google", dst="torch")
convert.write(plan, "out.safetensors")
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .version import __version__

if TYPE_CHECKING:
    from .execute import write
    from .planning import plan
    from .plans import Plan

__all__ = ["Plan", "__version__", "plan", "write"]
_HOMES = {"Plan": "plans", "plan": "planning", "write": "execute"}


def __getattr__(name: str) -> Any:
    """Import a public name when it is first asked for: the command line starts without numpy and hashing."""
    if name in _HOMES:
        import importlib

        return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

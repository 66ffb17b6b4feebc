"""Derive the Table between two models from evidence, and prove it.

    d = parity.derive(torch_module, nnx_module, (images,))
    d.table.save("my.table"); d.proven, d.error, d.missing

A tape of each side's primitive operations is recorded (tape), parameters are matched by the values that meet them
(match), the map of their elements is written as lines (fold), and both models are run on other weights (prove).
"""

import sys
from types import ModuleType
from typing import Any

from .derivation import Derivation, Divergence, derive
from .trace.call import Call

__all__ = ["Call", "Derivation", "Divergence", "derive"]


class _Callable(ModuleType):
    """This package under the name of its function: `parity.derive(...)` works whichever of the two was imported."""

    def __call__(self, *args: Any, **kwargs: Any) -> Derivation:
        return derive(*args, **kwargs)


sys.modules[__name__].__class__ = _Callable

"""Lay out a state as another library stores it: the tree of a checkpoint, with the weights in it."""

from __future__ import annotations

from convert.files.base import PDOPT
from convert.reading.families import BUFFER

from .builder import Model, Written
from .state import State
from .to_optax import write_optax
from .to_paddle import write_paddle
from .to_torch import write_torch

__all__ = ["Model", "is_buffer", "write"]


def write(library: str, state: State, model: Model, suffix: str) -> Written:
    """Lay out a target. Raises: UsageError for what has to be stated, ConvertError for what it cannot hold."""
    if library == "optax":
        return write_optax(state, model)
    if library == "torch":
        return write_torch(state, model, distributed=suffix == ".dcp")
    return write_paddle(state, model, alone=suffix == PDOPT)


def is_buffer(name: str) -> bool:
    """Tell whether an array of a module is no parameter, by its name in torch or paddle."""
    return BUFFER.search(name) is not None

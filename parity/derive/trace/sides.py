"""Hide the framework of a model behind one interface."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Collection, Mapping, Sequence
from typing import Any, Protocol

from convert.errors import UsageError

from .call import Call
from .cotangents import Take
from .inputs import check_numbers
from .outputs import Named, Outputs
from .tape import Array, Tape


class Side(Protocol):
    """A model and how it is called.

    Args:
      framework: torch, linen, nnx, jax or paddle.
      output_axis: the axis of a matrix that usually is the output.
      parameters: the model's own arrays of floats by name; others: the rest of a checkpoint; ties: {name: name it
        shares}.
      extra: what is stored beside arrays, which no Table translates: torch's extra states.
      named: the paths of its outputs, once it was run.
      buffers: names of parameters that the framework knows as buffers, which no optimizer trains: statistics, tables.
      complex: names of trained arrays of complex numbers, which are among the others.
      classes: of its modules, by the paths that places in it have; of linen, once it was recorded.
      voided: whether casts to lower precision are void in every run, as its code takes no float64 beside them.
      unset: names of arguments that the call leaves at None, such as a mask.
    """

    framework: str
    output_axis: int
    call: Call
    parameters: dict[str, Array]
    others: dict[str, Array]
    ties: dict[str, str]
    extra: Sequence[str]
    buffers: Collection[str]
    complex: Sequence[str]
    named: Named
    classes: Mapping[str, str]
    voided: bool
    unset: Sequence[str]

    def fix(self, names: Sequence[str]) -> None:
        """Take parameters as arrays that are none: they keep the model's own values."""

    def release(self) -> None:
        """Drop the large arrays that the last run left in the model."""

    def run(self, parameters: Mapping[str, Array], inputs: Mapping[str, Array]) -> list[Array]:
        """Return the outputs as the user's own code computes them."""

    def run_as_given(self, parameters: Mapping[str, Array], inputs: Mapping[str, Array]) -> list[Array]:
        """Return the outputs of the user's own code for weights of their given dtypes, of which some is float32.

        Raises: UsageError for weights of 16 bits, which round too much; whatever the code raises.
        """

    def gradients(self, parameters: Mapping[str, Array], inputs: Mapping[str, Array], take: Take) -> Outputs:
        """Return the outputs; give `take` the gradient of their sum, weighted by `cotangents`, by each parameter.

        Casts to lower precision are void where the framework can do that. Parameters that have no gradient are left
        out. Each gradient may be freed before the next one is computed.
        """

    def record(self, parameters: Mapping[str, Array], inputs: Mapping[str, Array]) -> Tape:
        """Return the tape of one run, with casts to lower precision voided."""


MODELS = (
    "a torch module, a paddle layer, an nnx module, a bound linen module, (linen module, variables) or (function of "
    "parameters and inputs, parameters)"
)
CLASSES = {"torch.nn": "Module", "paddle.nn": "Layer", "flax.nnx": "Module", "flax.linen": "Module"}


def library_of(model: Any) -> str:
    """Return the library of a module: a key of CLASSES, or "" for any other object."""
    classes = {name: getattr(sys.modules.get(name), base, None) for name, base in CLASSES.items()}
    return next((name for name, cls in classes.items() if cls is not None and isinstance(model, cls)), "")


def without_variables(model: Any) -> bool:
    """Tell whether this is a linen module alone, which has no parameters until it is bound to its variables."""
    return library_of(model) == "flax.linen" and model.scope is None


def is_model(model: Any) -> bool:
    """Tell whether `side` takes this as a model."""
    if isinstance(model, tuple) and len(model) == 2:
        first, second = model
        if without_variables(first):
            return isinstance(second, Mapping)
        return callable(first) and not library_of(first)
    return bool(library_of(model)) and not without_variables(model)


def class_of(model: Any) -> str:
    """Return the name of a model's class, or of its function."""
    module = model[0] if isinstance(model, tuple) else model
    return getattr(module, "__qualname__", type(module).__name__)


def side(model: Any, call: Call) -> Side:
    """Return the side of a torch module, paddle layer, nnx module, (linen module, variables) or (function, parameters).

    Raises: UsageError for anything else, for a parameter without elements, of which no value tells anything, and for
      inputs with NaN.
    """
    check_numbers(call.arrays())
    recorded = _side(model, call)
    if empty := [name for name, array in recorded.parameters.items() if not array.size]:
        raise UsageError(f"{', '.join(empty)}: no elements: build the {recorded.framework} model with lengths above 0")
    recorded.unset = _unset(model, call)
    return recorded


def _unset(model: Any, call: Call) -> list[str]:
    """List the arguments that are None, as the call does not give them; [] of code that does not list its arguments."""
    first = model[0] if isinstance(model, tuple) else model
    library = library_of(first)
    method = "forward" if library in ("torch.nn", "paddle.nn") and call.method == "__call__" else call.method
    try:
        signature = inspect.signature(getattr(first, method) if library else first)
        given = signature.bind(*([] if library else [None]), *call.args, **call.kwargs).arguments
    except (TypeError, ValueError):  # of a builtin, or of a call that the model itself refuses
        return []
    return [name for name, own in signature.parameters.items() if own.default is None and name not in given]


def by_every_name(side: Side) -> dict[str, Array]:
    """Return a side's parameters under all of their names: blocks that share their arrays are blocks too."""
    own = side.parameters
    return {**own, **{name: own[first] for name, first in side.ties.items() if first in own}}


def arrays_of(side: Side) -> dict[str, Array]:
    """Return all arrays of a model, under each of their names."""
    return {**by_every_name(side), **side.others}


def _side(model: Any, call: Call) -> Side:
    if without_variables(model):
        name = type(model).__name__
        raise UsageError(f"{name} is a linen module without its variables: give (module, variables)")
    if not is_model(model):
        swapped = isinstance(model, tuple) and not library_of(model) and not any(map(callable, model))
        remedy = "; inputs come after both models" if swapped else ""
        raise UsageError(f"{type(model).__name__} is no model: give {MODELS}{remedy}")
    library = library_of(model)
    if library == "torch.nn":
        from .torch_tape import TorchSide

        return TorchSide(model, call)
    if library == "paddle.nn":
        from .paddle_tape import PaddleSide

        return PaddleSide(model, call)
    from .jax_tape import function_side, linen_side, nnx_side

    if library == "flax.nnx":
        return nnx_side(model, call)
    first, second = model.unbind() if library == "flax.linen" else model
    return linen_side(first, second, call) if library_of(first) == "flax.linen" else function_side(first, second, call)

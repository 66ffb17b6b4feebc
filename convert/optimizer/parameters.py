"""Tell which arrays of a model are parameters, which its optimizer trains: torch counts them, and them alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from convert.arrays.dtypes import FLOATS
from convert.arrays.steps import Computed, Copied, Filling, sources_of
from convert.errors import ConvertError
from convert.files.base import Tensor
from convert.plans.plan import Plan
from convert.reading.families import COLLECTION, TENSOR
from convert.reading.recognise import dialects
from specs.dialects import place
from specs.layer import parameters
from specs.notation.dtype_kinds import kind

from . import like, ties, writing
from .state import State

if TYPE_CHECKING:
    from convert.table.plan import TablePlan

NUMBERS = ("float", "complex")  # kinds of dtypes that an optimizer trains
SHOWN = {  # by the source's library: what shows that an array is no parameter
    "optax": "as optax keeps no moments of them",
    "torch": "as the source's optimizer lists them in no group (buffers, or weights that it does not train)",
    "paddle": "by paddle's own names of them (generated_tensor_0, eager_tmp_0)",
}


def trained_arrays(plan: Plan | TablePlan) -> dict[str, Tensor]:
    """Return the arrays of the source that are trained, by the names that steps use, in the order of its file."""
    known = _known(plan) if isinstance(plan, Plan) else {}
    return {
        name: tensor
        for name, tensor in plan.sources.items()
        if known.get(
            name, kind(tensor.dtype) in NUMBERS and not writing.is_buffer(name) and not COLLECTION.search(name)
        )
    }


def in_order(plan: Plan | TablePlan, trained: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], str]:
    """Return the trained arrays in the order in which torch counts parameters, and what shows that order.

    A file of torch.save keeps it. safetensors sorts names, but the code of our own ports is known.
    Returns: the arrays as they are and "" where nothing shows their order.
    """
    if like.keeps_order(plan.reader):
        return dict(trained), "the state_dict"
    if isinstance(plan, Plan) and plan.src == "torch" and like.is_port_of_ours(plan, plan.src):
        return {name: trained[name] for name in _known(plan) if name in trained}, "the code of our port"
    return dict(trained), ""


def _known(plan: Plan) -> dict[str, bool]:
    """Tell whether each array of the architecture is trained, by its name in the source."""
    dialect = dialects(plan.architecture)[plan.src]
    every = [(p, place(p, dialect, plan.config)) for p in parameters(list(plan.reading.spec.layers(plan.config)))]
    each = [(p, one) for p, stored in every if stored is not None for one in stored.alternatives]
    return {name: p.trained for p, one in each for name in one.names.values()}


def is_trained(tensor: Tensor, filling: Filling, trained: Mapping[str, Tensor], path: str, by_dialect: bool) -> bool:
    """Tell whether a target tensor is a parameter; a float constant of a dialect is one that its network never uses.

    What --like supplies is taken to be a buffer, and so is what the code of a dialect computes.

    Raises: ConvertError where that is not known.
    """
    names = sources_of(filling)
    if isinstance(filling, Copied | Computed):
        return False
    if names:
        kinds = {name in trained for name in names}
        if len(kinds) > 1:
            what = "joins arrays of which the optimizer trains some and others not: leave --with-optimizer out"
            raise ConvertError(f"{path}: {tensor.name} {what}")
        return kinds.pop()
    if tensor.dtype not in FLOATS or writing.is_buffer(tensor.name) or COLLECTION.search(tensor.name):
        return False
    if by_dialect:
        return True
    raise ConvertError(f"{path}: {tensor.name} is a constant of the table: whether it is trained is not known")


def shown(library: str, names: Sequence[str], own: Mapping[str, str]) -> dict[str, bool]:
    """Tell whether arrays of the target are parameters, of those whose names there show it.

    linen's optimizers have moments of all that is in its collection of parameters. paddle names other tensors in its
    own way.
    """
    if library == "optax" and any(name.startswith("params/") for name in names):
        return {name: name.startswith("params/") for name in names}
    return {name: False for name, second in own.items() if TENSOR.fullmatch(second)}


def with_ties(plan: Plan | TablePlan, state: State, library: str) -> State:
    """Give the state of a parameter to all names of it, where the optimizer stores it under one of them alone.

    None of a parameter's names is that of a buffer; and what an architecture trains, no file shows to be one. From
    torch to torch parameters that are in no group stay out of the target's groups, too, as frozen ones, also by way of
    another library, which keeps a state of all parameters.

    Args:
      library: of the target.
    """
    tied = ties.tied_names(plan)
    buffers = frozenset(name for name in state.buffers if tied.get(name, frozenset({name})) <= state.buffers)
    unlisted = frozenset() if library == "torch" else buffers if state.library == "torch" else state.frozen
    state = replace(state, buffers=buffers, unlisted=unlisted)
    if isinstance(plan, Plan) and not (library == state.library == "torch"):
        state = replace(state, buffers=frozenset(), unclear=())
    if library == "torch" and state.frozen:
        state = _without_frozen(state)
    if not tied:
        return state
    moments = {
        slot: {other: tensor for name, tensor in arrays.items() for other in tied.get(name, ())} | dict(arrays)
        for slot, arrays in state.moments.items()
    }
    steps = {other: count for name, count in state.steps.items() for other in tied.get(name, ())} | dict(state.steps)
    grouped = {name for group in state.groups for name in group.parameters}
    others = [{other for name in group.parameters for other in tied.get(name, ())} for group in state.groups]
    groups = tuple(
        group._replace(parameters=(*group.parameters, *sorted(names - grouped)))
        for group, names in zip(state.groups, others, strict=True)
    )
    return replace(state, moments=moments, steps=steps, groups=groups)


def _without_frozen(state: State) -> State:
    """Return a state without the parameters that were in no group of torch's: another library has zeros of them."""
    moments = {
        slot: {name: tensor for name, tensor in arrays.items() if name not in state.frozen}
        for slot, arrays in state.moments.items()
    }
    steps = {name: count for name, count in state.steps.items() if name not in state.frozen}
    return replace(state, moments=moments, steps=steps, buffers=state.buffers | state.frozen)

"""List the tensors of torch modules, refuse what no tape can be recorded of, and copy modules."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch.nn.parameter import is_lazy

from convert.errors import UsageError
from parity.derive.limits import LARGE_COPY
from ports.runners.torch_ties import computed, copied

from .module_side import copying

EXTRA = "_extra_state"  # how torch names what get_extra_state returns


def tensors_of(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    """Return the tensors of a module's state_dict, as they are."""
    return {name: value for name, value in model.state_dict(keep_vars=True).items() if isinstance(value, torch.Tensor)}


def extra_states(model: torch.nn.Module) -> list[str]:
    """Name what get_extra_state returns, unless it is a tensor."""
    state = model.state_dict(keep_vars=True)
    return [name for name, value in state.items() if name.endswith(EXTRA) and not isinstance(value, torch.Tensor)]


def check(model: torch.nn.Module) -> None:
    """Raise UsageError for a module that cannot be recorded, or whose parameters have no values that can be read."""
    own = f"the torch model {type(model).__name__}"
    if any(isinstance(module, torch.jit.ScriptModule) for module in model.modules()):
        raise UsageError("a ScriptModule runs no code of Python that could be recorded: give it before scripting")
    if not isinstance(state := model.state_dict(keep_vars=True), Mapping):
        raise UsageError(f"{own}: its state_dict is no mapping, but of type {type(state).__name__}: mend its hooks")
    extra = extra_states(model)
    for name, value in state.items():
        if isinstance(value, torch.Tensor):
            if problem := _problem(value):
                raise UsageError(f"{own}: {name} {problem}")
        elif name not in extra:
            kind = type(value).__name__
            raise UsageError(f"{own}: {name} is no tensor, but of type {kind}: give the model before it was quantized")


def _problem(tensor: torch.Tensor) -> str:
    """Say what is wrong with a tensor of a module, and what to do; "" if nothing is."""
    if is_lazy(tensor):
        return "has no values before the first call: call the model once on the inputs"
    if tensor.device.type != "cpu":
        remedy = "build it without that device" if tensor.device.type == "meta" else "give model.cpu()"
        return f"is on device {tensor.device.type}, where derive reads no values: {remedy}"
    if tensor.layout is not torch.strided:
        kind = str(tensor.layout).removeprefix("torch.")
        return f"has the layout {kind}, which derive does not read: store it dense, as by to_dense()"
    return "is quantized, which derive does not read: give the model before that" if tensor.is_quantized else ""


def hollow(model: torch.nn.Module) -> torch.nn.Module:
    """Copy a module, with memory for its large parameters that is not used before they get values.

    Raises: UsageError for a module that cannot be copied.
    """
    memo = computed(model, hooked=False)
    for tensor in tensors_of(model).values():
        if tensor.is_floating_point() and tensor.numel() >= LARGE_COPY:
            empty = torch.empty(tensor.shape, dtype=torch.float64)
            leaf = isinstance(tensor, torch.nn.Parameter)
            memo[id(tensor)] = torch.nn.Parameter(empty, tensor.requires_grad) if leaf else empty
    with copying("torch", model):
        return copied(model, memo)

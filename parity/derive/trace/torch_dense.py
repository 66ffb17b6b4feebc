"""Find the gradients of large linear layers of torch without forming them: each takes as much memory as its weight."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

import torch
from torch.overrides import TorchFunctionMode

from .cotangents import Take
from .outer import Outer, outer
from .torch_values import tensors_of


class LinearGradients(TorchFunctionMode):
    """Compute the gradient of each weight that a single linear layer reads, and pass it to `take`.

    Autograd computes those of other weights.

    Args:
      weights: large ones, by name.
    """

    def __init__(self, weights: Mapping[str, torch.Tensor], take: Take):
        super().__init__()
        self.names = {id(tensor): name for name, tensor in weights.items()}
        self.take = take
        self.reads = Counter[str]()

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        self.reads.update(self.names[id(t)] for t in tensors_of(args, kwargs) if id(t) in self.names)
        if func is torch.nn.functional.linear and len(args) > 1 and id(args[1]) in self.names and not _checkpointed():
            return _Linear.apply(self, self.names[id(args[1])], *args[:2], *args[2:], *kwargs.values())
        return func(*args, **kwargs)


def _checkpointed() -> bool:
    """Tell whether a checkpoint takes what layers save, and runs these again, where this mode does not reach."""
    return torch._C._autograd._top_saved_tensors_default_hooks(False) is not None


class _Linear(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, gradients: LinearGradients, name: str, x: Any, weight: Any, bias: Any = None) -> Any:
        ctx.found, ctx.name = gradients, name
        ctx.save_for_backward(x, weight)
        return torch.nn.functional.linear(x, weight, bias).clone()  # no view: operations in place may follow

    @staticmethod
    def backward(ctx: Any, gradient: Any) -> Any:
        x, weight = ctx.saved_tensors
        *_, by_x, _, by_bias = (*ctx.needs_input_grad, False)[:5]
        flat, rows = gradient.reshape(-1, len(weight)), x.detach().reshape(-1, weight.shape[1])
        by_input, own = gradient @ weight if by_x else None, None
        if ctx.found.reads[ctx.name] == 1 and isinstance(product := outer(flat.numpy(), rows.numpy()), Outer):
            ctx.found.take(ctx.name, product)
            weight.data = torch.empty_like(weight)  # nothing reads it again: convolutions before it need the memory
        else:
            own = flat.T @ rows
        return None, None, by_input, own, flat.sum(0) if by_bias else None

"""Copy torch modules as they compute: with parameters that share their memory, and with weights that hooks compute."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import torch

from convert.errors import UsageError

Memory = tuple[Any, ...]  # where a tensor's elements lie
Named = tuple[str, torch.Tensor]


def memory(tensor: torch.Tensor) -> Memory | int:
    """Return where a tensor's elements lie: the same for tensors that share all of them, in one order.

    Tensors without elements or memory, such as those on the device meta, share none.
    """
    plain = tensor.layout is torch.strided and tensor.device.type != "meta" and not tensor.is_quantized
    if not plain or not tensor.numel():
        return id(tensor)
    begin = tensor.untyped_storage().data_ptr()
    return begin, tensor.storage_offset(), tensor.shape, tensor.stride(), tensor.dtype


def copied(model: torch.nn.Module, memo: dict[int, Any] | None = None) -> torch.nn.Module:
    """Copy a module; parameters that share all their memory become one, as `b.data = a.data` makes them in effect.

    Args:
      memo: of copy.deepcopy: what stands for some tensors in the copy.
    Raises: UsageError for tensors that share a part of their memory, or a parameter's with a buffer.
    """
    memo = {**computed(model, hooked=True), **(memo or {})}
    for (name, tensor), (other_name, other) in shared(model):
        if type(other) is not type(tensor):
            raise _shares(name, other_name)
        if id(other) not in memo:
            memo[id(other)] = copy.deepcopy(other, memo)
        memo[id(tensor)] = memo[id(other)]
    _check_parts(_tensors(model))
    return copy.deepcopy(model, memo)


def computed(model: torch.nn.Module, hooked: bool) -> dict[int, Any]:
    """Return, for each attribute that is a tensor with a gradient's graph, which torch does not copy, its values.

    Args:
      hooked: those alone of modules with hooks, as of weight_norm and pruning, which compute it anew in every call.
    """
    some = [module for module in model.modules() if module._forward_pre_hooks or not hooked]
    values: Mapping[int, Any] = {id(v): v for module in some for v in vars(module).values()}
    return {at: v.detach().clone() for at, v in values.items() if isinstance(v, torch.Tensor) and not v.is_leaf}


def shared(model: torch.nn.Module) -> Iterator[tuple[Named, Named]]:
    """Yield each tensor that shares all its memory with an earlier one, which is another tensor, and that one."""
    first: dict[Memory | int, Named] = {}
    for name, tensor in _tensors(model):
        other = first.setdefault(memory(tensor), (name, tensor))
        if other[1] is not tensor:
            yield (name, tensor), other


def _tensors(model: torch.nn.Module) -> Iterator[Named]:
    yield from model.named_parameters(remove_duplicate=False)
    yield from model.named_buffers(remove_duplicate=False)


def _check_parts(tensors: Iterable[Named]) -> None:
    """Refuse tensors of which some elements are one. Raises: UsageError."""
    seen: dict[int, list[Named]] = {}
    known = set[Memory | int]()
    for name, tensor in tensors:
        place = memory(tensor)
        if isinstance(place, int) or place in known:
            continue
        known.add(place)
        beside = seen.setdefault(tensor.untyped_storage().data_ptr(), [])
        for other_name, other in beside:
            if other.dtype != tensor.dtype or _overlap(other, tensor):
                raise _shares(name, other_name)
        beside.append((name, tensor))


def _overlap(one: torch.Tensor, other: torch.Tensor) -> bool:
    """Tell whether two tensors of one storage have an element in common."""
    marks = torch.zeros(one.untyped_storage().nbytes() // one.element_size(), dtype=torch.bool)
    marks.as_strided(one.shape, one.stride(), one.storage_offset()).fill_(True)
    return bool(marks.as_strided(other.shape, other.stride(), other.storage_offset()).any())


def _shares(name: str, other: str) -> UsageError:
    how = "give each its own, as by .clone(), or let the model compute one from the other"
    return UsageError(f"{other} and {name} of the torch model share a part of their memory: {how}")

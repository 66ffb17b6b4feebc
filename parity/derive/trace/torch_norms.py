"""State the epsilon of torch's RMSNorm, which by default is that of the dtype."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest import mock

import torch


@contextmanager
def norms_of_own_epsilon() -> Iterator[None]:
    """Let `rms_norm` take the epsilon of `torch.finfo`, which stands for that of float32, where code states none."""
    with ExitStack() as stack:
        for module in (torch, torch.nn.functional):
            stack.enter_context(mock.patch.object(module, "rms_norm", _with_epsilon(module.rms_norm)))
        yield


def _with_epsilon(run: Callable[..., Any]) -> Callable[..., Any]:
    def rms_norm(input: Any, normalized_shape: Any, weight: Any = None, eps: float | None = None) -> Any:  # as torch's
        return run(input, normalized_shape, weight, torch.finfo(input.dtype).eps if eps is None else eps)

    return rms_norm

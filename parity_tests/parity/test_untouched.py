"""Nothing of a user's model, nor of a framework's random numbers, is other after a comparison."""

from __future__ import annotations

import copy
import importlib
from typing import Any

import numpy as np
import pytest

import parity
from parity.results.tolerance import CHECKS

X = np.random.default_rng(0).standard_normal((4, 6))


def counting(framework: str) -> Any:
    """A model that counts its calls in buffers, saved and not, in attributes, and draws random numbers."""
    module = pytest.importorskip(framework, reason=f"{framework} is not installed")
    nn = module.nn

    class Model(nn.Module if framework == "torch" else nn.Layer):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.dense = nn.Linear(6, 6)
            self.norm = nn.BatchNorm1d(6) if framework == "torch" else nn.BatchNorm1D(6)
            self.register_buffer("saved", module.zeros([1]))
            self.register_buffer("unsaved", module.zeros([1]), **{_UNSAVED[framework]: False})
            self.calls: int = 0
            self.last: Any = None

        def forward(self, x: Any) -> Any:
            self.saved += 1
            self.unsaved = self.unsaved + 1
            self.calls, self.last, self.new = self.calls + 1, x, x
            return self.norm(self.dense(x)) + 0 * module.randn(x.shape, dtype=x.dtype)

    return Model()


_UNSAVED = {"torch": "persistent", "paddle": "persistable"}


def standing(framework: str, model: Any) -> list[Any]:
    """All that a comparison could change; draws random numbers."""
    modules = model.modules() if framework == "torch" else model.sublayers(include_self=True)
    arrays = [*model.parameters(), *model.buffers()]
    drawn = importlib.import_module(framework).randn([3])
    return [
        [sorted(vars(m)) for m in modules], [m.training for m in modules], model.calls, model.last,
        [a.detach().numpy().tolist() for a in arrays], [None if a.grad is None else 1 for a in model.parameters()],
        drawn.numpy().tolist(),
    ]  # fmt: skip


@pytest.mark.parametrize("check", CHECKS)
@pytest.mark.parametrize("framework", ["torch", "paddle"])
def test_nothing_of_a_model_is_other_afterwards(framework: str, check: str) -> None:
    model = counting(framework)
    model.norm.eval()
    twin = copy.deepcopy(model)
    module = importlib.import_module(framework)
    seed = module.manual_seed if framework == "torch" else module.seed
    seed(3)
    before = standing(framework, model)
    seed(3)
    report = parity.compare({"a": model, "b": twin}, X.astype("float32"), check, steps=2)
    assert report.passed, str(report)
    assert standing(framework, model) == before

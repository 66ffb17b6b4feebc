"""WaveNet's conditioned gates and skips in torch, against functions of JAX with a matrix for each gate."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import parity

from ..conftest import needs
from .pairs import images

torch = pytest.importorskip("torch", reason="one side is a torch module")

BLOCKS, WIDTH = 2, 8


class Conditioned(torch.nn.Module):
    """Gated layers of 1x1 convolutions: one convolution makes the condition of all gates, another one skips."""

    def __init__(self, mean: bool = False) -> None:
        super().__init__()
        self.mean = mean
        self.into, self.cond = torch.nn.Conv1d(4, WIDTH, 1), torch.nn.Conv1d(5, 2 * WIDTH * BLOCKS, 1)
        self.gates = torch.nn.ModuleList(torch.nn.Conv1d(WIDTH, 2 * WIDTH, 1) for _ in range(BLOCKS))
        self.skips = torch.nn.ModuleList(torch.nn.Conv1d(WIDTH, 2 * WIDTH, 1) for _ in range(BLOCKS))
        self.out = torch.nn.Conv1d(WIDTH, 3, 1)

    def forward(self, x: Any, c: Any) -> Any:
        x, conditions, skips = self.into(x), self.cond(c).chunk(BLOCKS, 1), []
        for gate, skip, condition in zip(self.gates, self.skips, conditions, strict=True):
            a, b = (gate(x) + condition).chunk(2, 1)
            y, z = skip(a.tanh() * b.sigmoid()).chunk(2, 1)
            x = x + y
            skips.append(z)
        stacked = torch.stack(skips)
        return self.out((stacked.mean(0) if self.mean else stacked.sum(0)).relu())


def conditioned(mean: bool = False) -> tuple[Any, Any]:
    """Return the same in JAX, with a running total of skips."""
    import jax

    random = np.random.default_rng(0)

    def dense(i: int, o: int) -> dict[str, Any]:
        return {"w": random.normal(0, 0.3, (i, o)), "b": random.normal(0, 0.3, o)}

    def run(p: Any, x: Any, c: Any) -> Any:
        def layer(q: Any, x: Any) -> Any:
            return x @ q["w"] + q["b"]

        x, c, total = layer(p["into"], x.swapaxes(1, 2)), c.swapaxes(1, 2), 0.0
        for q in p["blocks"]:
            a = jax.numpy.tanh(layer(q["a"], x) + layer(q["ca"], c))
            y = a * jax.nn.sigmoid(layer(q["b"], x) + layer(q["cb"], c))
            total = total + layer(q["skip"], y)
            x = x + layer(q["on"], y)
        total = total / len(p["blocks"]) if mean else total
        return layer(p["out"], jax.nn.relu(total)).swapaxes(1, 2)

    names = {"a": WIDTH, "b": WIDTH, "ca": 5, "cb": 5, "skip": WIDTH, "on": WIDTH}
    blocks = [{name: dense(i, WIDTH) for name, i in names.items()} for _ in range(BLOCKS)]
    return run, {"into": dense(4, WIDTH), "blocks": blocks, "out": dense(WIDTH, 3)}


@pytest.mark.parametrize("mean", [False, True])
@pytest.mark.parametrize("turned", [False, True])
def test_one_condition_of_all_gates_and_stacked_skips_against_parts_and_a_total(mean: bool, turned: bool):
    needs("flax")
    sides = (Conditioned(mean), conditioned(mean))
    found = parity.derive(*(sides[::-1] if turned else sides), (images(2, 4, 6), images(2, 5, 6)))
    last = {"blocks/1/on/w", "blocks/1/on/b", "skips.1.weight", "skips.1.bias"}  # no output depends on these halves
    assert found.proven and set(found.inferred) <= last, str(found)

"""State spaces whose channels are heads by width in torch, and width by heads in JAX: parameters of heads tell them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import parity

from ..conftest import needs
from .pairs import images

torch = pytest.importorskip("torch", reason="one side is a torch module")

HEADS, WIDTH, STATE, IN = 4, 3, 5, 8
INNER = HEADS * WIDTH


class Space(torch.nn.Module):
    """A convolution of single channels, SiLU, a state for each head, and a skip."""

    def __init__(self) -> None:
        super().__init__()
        self.x, self.dt = torch.nn.Linear(IN, INNER, bias=False), torch.nn.Linear(IN, HEADS)
        self.b, self.c = torch.nn.Linear(IN, STATE), torch.nn.Linear(IN, STATE)
        self.conv = torch.nn.Conv1d(INNER, INNER, 2, groups=INNER, padding=1)
        self.a, self.d = torch.nn.Parameter(torch.randn(HEADS)), torch.nn.Parameter(torch.randn(HEADS))
        self.out = torch.nn.Linear(INNER, IN, bias=False)

    def forward(self, u: Any) -> Any:
        length = u.shape[1]
        x = torch.nn.functional.silu(self.conv(self.x(u).mT)[..., :length].mT).unflatten(-1, (HEADS, WIDTH))
        dt, b, c = torch.nn.functional.softplus(self.dt(u)), self.b(u), self.c(u)
        state, every = 0.0, []
        for t in range(length):
            kept = torch.exp(-dt[:, t] * self.a.exp())[..., None, None]
            state = state * kept + (dt[:, t, :, None] * x[:, t])[..., None] * b[:, t, None, None]
            every.append((state * c[:, t, None, None]).sum(-1) + self.d[:, None] * x[:, t])
        return self.out(torch.stack(every, 1).flatten(2))


def space() -> tuple[Any, Any]:
    """Return the same in JAX as a scan."""
    import jax
    from jax import numpy as jnp

    random = np.random.default_rng(0)
    shapes = {
        "x": (IN, INNER), "dt": (IN, HEADS), "bias": (HEADS,), "b": (IN, STATE), "b0": (STATE,), "c": (IN, STATE),
        "c0": (STATE,), "conv": (2, INNER), "conv0": (INNER,), "a": (HEADS,), "d": (HEADS,), "out": (INNER, IN),
    }  # fmt: skip

    def run(p: Any, u: Any) -> Any:
        x = jnp.pad(u @ p["x"], ((0, 0), (1, 0), (0, 0)))
        x = jax.nn.silu(x[:, :-1] * p["conv"][0] + x[:, 1:] * p["conv"][1] + p["conv0"])
        x = x.reshape(*u.shape[:2], WIDTH, HEADS).swapaxes(2, 3)
        dt, b, c = jax.nn.softplus(u @ p["dt"] + p["bias"]), u @ p["b"] + p["b0"], u @ p["c"] + p["c0"]

        def step(state: Any, now: Any) -> Any:
            x, dt, b, c = now
            kept = jnp.exp(-dt * jnp.exp(p["a"]))[..., None, None]
            state = state * kept + (dt[..., None] * x)[..., None] * b[:, None, None]
            return state, (state * c[:, None, None]).sum(-1) + p["d"][:, None] * x

        steps = [value.swapaxes(0, 1) for value in (x, dt, b, c)]
        every = jax.lax.scan(step, jnp.zeros((len(u), HEADS, WIDTH, STATE), u.dtype), tuple(steps))[1]
        return every.transpose(1, 0, 3, 2).reshape(*u.shape[:2], INNER) @ p["out"]

    return run, {name: random.normal(0, 0.5, shape) for name, shape in shapes.items()}


@pytest.mark.parametrize("turned", [False, True])
def test_channels_of_heads_are_ordered_past_a_convolution_of_single_channels_and_a_scan(turned: bool):
    needs("flax")
    found = parity.derive(*((Space(), space())[:: -1 if turned else 1]), (images(2, 4, IN),))
    assert found.proven and not found.chosen, str(found)
    assert len(found.reordered) == 4, str(found)  # of the projections, and of the kernel and bias of the convolution

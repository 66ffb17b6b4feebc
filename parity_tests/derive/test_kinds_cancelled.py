"""Running maxima that exponentials subtract, and masks of experts' rows, which do not show in outputs."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

import parity
from parity.derive.forms.cancelled import cancelled
from parity.derive.trace.program import Program
from parity.derive.trace.sides import side
from parity_tests.conftest import needs

from .pairs import images
from .test_kinds_matching import Net, linear

C, EXPERTS = 8, 4


def wkv() -> Any:
    """Return RWKV's recurrence as its formula has it."""

    def run(m: Any, x: Any) -> Any:
        k, v, above, below, out = m.key(x), m.value(x), torch.zeros(len(x), C), torch.zeros(len(x), C), []
        decay = torch.exp(-torch.exp(m.decay))
        for t in range(x.shape[1]):
            first, here = torch.exp(m.first + k[:, t]), torch.exp(k[:, t])
            out.append((above + first * v[:, t]) / (below + first))
            above, below = decay * above + here * v[:, t], decay * below + here
        return m.output(torch.sigmoid(m.receptance(x)) * torch.stack(out, 1))

    layers = {name: linear(C, C, False) for name in ("key", "value", "receptance", "output")}
    return Net(run, decay=torch.nn.Parameter(torch.randn(C)), first=torch.nn.Parameter(torch.randn(C)), **layers)


def stable_wkv() -> Any:
    """Return the same in JAX as a scan that subtracts a running maximum before each exponential."""
    import jax
    import jax.numpy as jnp

    def run(p: Any, x: Any) -> Any:
        def step(state: Any, kv: Any) -> Any:
            (above, below, m), (k, v) = state, kv
            top = jnp.maximum(m, p["u"] + k)
            old, new = jnp.exp(m - top), jnp.exp(p["u"] + k - top)
            y = (old * above + new * v) / (old * below + new)
            top = jnp.maximum(m - jnp.exp(p["w"]), k)
            old, new = jnp.exp(m - jnp.exp(p["w"]) - top), jnp.exp(k - top)
            return (old * above + new * v, old * below + new, top), y

        zeros = jnp.zeros((len(x), C))
        kv = (x @ p["k"]).swapaxes(0, 1), (x @ p["v"]).swapaxes(0, 1)
        y = jax.lax.scan(step, (zeros, zeros, zeros - 1e38), kv)[1].swapaxes(0, 1)
        return (jax.nn.sigmoid(x @ p["r"]) * y) @ p["o"]

    return run, {**{name: np.ones((C, C)) for name in "rkvo"}, "w": np.ones(C), "u": np.ones(C)}


@pytest.mark.parametrize("first", [False, True])
def test_a_running_maximum_is_left_out_of_a_recurrence(first: bool):
    needs("flax")
    torch.manual_seed(0)
    sides = wkv(), stable_wkv()
    found = parity.derive(*(sides if first else sides[::-1]), (images(2, 5, C),))
    assert found.proven and not found.missing, found
    lines = ("first: c <-> u: c", "decay: c <-> w: c") if first else ("u: c <-> first: c", "w: c <-> decay: c")
    assert all(line in found.table.print() for line in lines)


def experts(masked: bool) -> Any:
    """Return experts with biases: each reads all rows, those of others masked or not, and its results are masked."""

    def run(m: Any, x: Any) -> Any:
        shares = m.router(x).softmax(-1)
        chosen = torch.nn.functional.one_hot(shares.argmax(-1), EXPERTS).to(x.dtype)
        rows = [x * mask if masked else x for mask in chosen[..., None].unbind(-2)]
        results = torch.stack([one(row) for one, row in zip(m.experts, rows, strict=True)], -1)
        return (results * (chosen * shares)[..., None, :]).sum(-1)

    one = [torch.nn.Sequential(linear(C, 12), torch.nn.SiLU(), linear(12, C)) for _ in range(EXPERTS)]
    return Net(run, router=linear(C, EXPERTS, False), experts=torch.nn.ModuleList(one))


def stacked_experts(masked: bool) -> Any:
    """Return the same in JAX, with the experts' arrays stacked."""
    import jax
    import jax.numpy as jnp

    def run(p: Any, x: Any) -> Any:
        shares = jax.nn.softmax(x @ p["gate"])
        chosen = jax.nn.one_hot(shares.argmax(-1), EXPERTS, dtype=x.dtype)
        if masked:
            y = jnp.einsum("btec,ech->bteh", jnp.einsum("bte,btc->btec", chosen, x), p["up"]) + p["up_bias"]
        else:
            y = jnp.einsum("btc,ech->bteh", x, p["up"]) + p["up_bias"]
        y = jnp.einsum("bteh,ehc->btec", jax.nn.silu(y), p["down"]) + p["down_bias"]
        return jnp.einsum("btec,bte->btc", y, chosen * shares)

    arrays = {"up": (EXPERTS, C, 12), "up_bias": (EXPERTS, 12), "down": (EXPERTS, 12, C), "down_bias": (EXPERTS, C)}
    return run, {name: np.ones(shape) for name, shape in arrays.items()} | {"gate": np.ones((C, EXPERTS))}


@pytest.mark.parametrize("first", [False, True])
@pytest.mark.parametrize("masked", [False, True])
def test_experts_with_biases_read_masked_rows_on_one_side_alone(masked: bool, first: bool):
    needs("flax")
    torch.manual_seed(0)
    left = experts(masked)
    sides = left, stacked_experts(not masked)
    found = parity.derive(*(sides if first else sides[::-1]), (images(2, 9, C),))
    assert found.proven and not found.missing, found
    if first:
        moved = found.table.apply({name: value.numpy() for name, value in left.state_dict().items()})
        assert np.array_equal(moved["down_bias"], torch.stack([one[2].bias for one in left.experts]).detach().numpy())


def test_a_mask_and_a_maximum_that_show_stay():
    model = Net(lambda m, x: m.out(torch.maximum(m.up(x), m.down(x)) * (m.up(x) > 0).to(x.dtype)),
                up=linear(C, C), down=linear(C, C), out=linear(C, C))  # fmt: skip
    recorded = side(model, parity.Call(images(3, C)))
    inputs = recorded.call.arrays()
    program = Program(recorded.record(recorded.parameters, inputs), recorded.parameters, [*inputs.values()])
    assert cancelled(program, recorded.parameters) is program.tape


def test_float32_parameters_meet_constants_of_float64():
    """JAX pads a diagonal with a constant of the operand's dtype, and refuses another one."""
    needs("flax")
    import jax.numpy as jnp

    parameters = {"s": np.ones(C, np.float32), "out": np.ones((C, C), np.float32)}
    recorded = side((lambda p, x: x @ jnp.diag(jnp.exp(p["s"])) @ p["out"], parameters), parity.Call(images(3, C)))
    inputs = recorded.call.arrays()
    program = Program(recorded.record(recorded.parameters, inputs), parameters, [*inputs.values()])
    assert cancelled(program, parameters) is program.tape

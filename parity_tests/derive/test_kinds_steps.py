"""Recurrent and conditional models: steps that one side takes at once, and functions of several parameters."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import parity

from .pairs import images

torch = pytest.importorskip("torch", reason="both sides are torch modules")
from .test_kinds_matching import Net, linear, numbers  # noqa: E402


def derived(left: Any, right: Any, *inputs: np.ndarray) -> dict[str, np.ndarray]:
    """Derive a Table that is proven, and return the left element number of each right one."""
    found = parity.derive(left, right, inputs)
    assert found.proven, found.failure
    return found.table.apply(numbers(left, *inputs))


def test_a_function_of_one_number_is_followed():
    def energy(m: Any, x: Any) -> Any:
        return (m.weight @ torch.tanh(m.hidden(x))).sigmoid() * 2

    def parts() -> dict[str, Any]:
        return {"weight": torch.nn.Parameter(torch.randn(6)), "hidden": linear()}

    derived(Net(energy, **parts()), Net(energy, **parts()), images(6))


def test_columns_of_tokens_stay_within_their_tables():
    def towers(m: Any, x: Any) -> Any:
        return m.out(torch.cat([table(x[:, k]) for k, table in enumerate(m.tables)], 1))

    def parts() -> dict[str, Any]:
        return {"tables": torch.nn.ModuleList([torch.nn.Embedding(n, 4) for n in (9, 3, 2)]), "out": linear(12)}

    rows = np.stack([np.random.default_rng(0).permutation(18) % n for n in (9, 3, 2)], 1)
    derived(Net(towers, **parts()), Net(towers, **parts()), rows)


def test_columns_come_apart_behind_an_activation_that_is_applied_to_all():
    def apart(m: Any, x: Any) -> Any:
        return m.value(m.v(x).relu()) + m.policy(m.p(x).relu()).tanh()

    def fused(m: Any, x: Any) -> Any:
        v, p = m.hidden(x).relu().chunk(2, -1)
        return m.value(v) + m.policy(p).tanh()

    left = Net(apart, p=linear(6, 8), v=linear(6, 8), policy=linear(8), value=linear(8))
    right = Net(fused, hidden=linear(6, 16), policy=linear(8), value=linear(8))
    moved, given = derived(left, right, images(5, 6)), numbers(left, images(5, 6))
    assert np.array_equal(moved["hidden.weight"], np.concatenate([given["v.weight"], given["p.weight"]]))
    derived(right, left, images(5, 6))


def test_a_matrix_is_a_function_of_several_parameters():
    def run(m: Any, x: Any, direction_first: bool) -> Any:
        for v, g in ((m.v0, m.g0), (m.v1, m.g1)):
            length = v.square().sum(1, keepdim=True).sqrt()
            x = torch.tanh(x @ (v * (g / length) if direction_first else g * v / length).T)
        return x

    def side(direction_first: bool) -> Any:
        parts = {"v1": (6, 6), "v0": (6, 6), "g1": (6, 1), "g0": (6, 1)}
        parameters = {name: torch.nn.Parameter(torch.rand(shape) + 0.5) for name, shape in parts.items()}
        return Net(lambda m, x: run(m, x, direction_first), **parameters)

    left = side(True)
    moved, given = derived(left, side(False), images(5, 6)), numbers(left, images(5, 6))
    assert all(np.array_equal(moved[name], given[name]) for name in given)


def test_a_buffer_of_ones_that_hides_later_tokens_keeps_its_values():
    def attention(m: Any, x: Any, mask: Any) -> Any:
        q, k, v = m.q(x), m.k(x), m.v(x)
        return (q @ k.mT).masked_fill(mask, float("-inf")).softmax(-1) @ v

    def parts() -> dict[str, Any]:
        return {name: linear() for name in "qkv"}

    left = Net(lambda m, x: attention(m, x, m.tril[:4, :4] == 0), **parts())
    left.register_buffer("tril", torch.tril(torch.ones(5, 5)))
    right = Net(lambda m, x: attention(m, x, torch.ones(4, 4, dtype=torch.bool).triu(1)), **parts())
    assert set(derived(left, right, images(2, 4, 6))) == set(numbers(right, images(2, 4, 6)))
    masked = Net(lambda m, x: attention(m, x, m.tril[:4, :4] == 0), **parts())
    masked.register_buffer("tril", torch.tril(torch.ones(5, 5)))
    derived(left, masked, images(2, 4, 6))  # both have such a buffer


def test_numbers_may_be_imaginary():
    def run(m: Any, x: Any) -> Any:
        return m.out((m.read(x) * 1j).imag.tanh())

    derived(*(Net(run, read=linear(), out=linear()) for _ in range(2)), images(5, 6))

"""Complex numbers, as of filters in the frequency domain: made of real arrays in several ways, multiplied by parts."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

import parity
from parity_tests.conftest import needs

from .pairs import images
from .test_kinds_matching import Net, linear, numbers
from .test_kinds_products import both_ways, weight


def filtered(of: Callable[[Any, Any], Any]) -> Callable[[Any, Any], Any]:
    """Return the run of a network that filters the lower 3 frequencies between two dense layers."""

    def run(m: Any, x: Any) -> Any:
        x = m.up(x)
        lower = of(m, torch.fft.rfft(x, dim=1)[:, :3])
        return m.down(torch.tanh(torch.fft.irfft(lower, n=x.shape[1], dim=1) + m.skip(x)))

    return run


def parts(**filters: Any) -> dict[str, Any]:
    return dict(up=linear(2, 4), skip=linear(4, 4), down=linear(4, 3), **filters)


def by_parts(m: Any, z: Any) -> Any:
    def product(part: Any, of: Any) -> Any:
        return torch.einsum("bki,kio->bko", part, of)

    real = product(z.real, m.real) - product(z.imag, m.imag)
    return torch.complex(real, product(z.imag, m.real) + product(z.real, m.imag))


@pytest.mark.parametrize("stacked", [False, True])
def test_a_filter_of_complex_numbers_is_made_of_two_arrays_or_of_one(stacked: bool):
    def of(m: Any, z: Any) -> Any:
        return torch.einsum("bki,iok->bko", z, torch.view_as_complex(m.both) if stacked else torch.complex(m.r, m.i))

    filters = dict(both=weight(4, 4, 3, 2)) if stacked else dict(r=weight(4, 4, 3), i=weight(4, 4, 3))
    left = Net(filtered(of), **parts(**filters))
    right = Net(filtered(by_parts), **parts(real=weight(3, 4, 4), imag=weight(3, 4, 4)))
    found = both_ways(left, right, 3, 8, 2)
    given = numbers(left, images(3, 8, 2))
    given_imaginary = given["both"][..., 1] if stacked else given["i"]
    assert np.array_equal(found.table.apply(given)["imag"], given_imaginary.transpose(2, 0, 1))


def test_the_conjugate_of_a_filter_multiplies_each_element():
    left = Net(filtered(lambda m, z: z * torch.view_as_complex(m.filter).conj()), **parts(filter=weight(3, 4, 2)))
    right = Net(filtered(lambda m, z: z * (m.real - 1j * m.imag)), **parts(real=weight(3, 4), imag=weight(3, 4)))
    moved = both_ways(left, right, 3, 8, 2).table.apply(given := numbers(left, images(3, 8, 2)))
    assert np.array_equal(moved["imag"], given["filter"][..., 1])


def test_a_diagonal_state_of_complex_numbers_in_a_loop_against_a_scan_of_pairs():
    """A linear recurrent unit: its state turns, and its matrices are stored as two parts."""
    needs("flax")
    import jax
    import jax.numpy as jnp

    class Left(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.size, self.angle = weight(5), weight(5)
            self.into, self.out = (torch.nn.ParameterList([weight(*s), weight(*s)]) for s in ((5, 4), (4, 5)))

        def forward(self, x: Any) -> Any:
            turn = torch.polar(torch.exp(-torch.exp(self.size)), torch.exp(self.angle))
            into, out = torch.complex(*self.into), torch.complex(*self.out)
            state, outs = torch.zeros(len(x), 5, dtype=turn.dtype), []
            for t in range(x.shape[1]):
                state = turn * state + x[:, t].to(turn.dtype) @ into.T
                outs.append((state @ out.T).real)
            return torch.stack(outs, 1)

    def right(p: Any, x: Any) -> Any:
        turn = jnp.exp(-jnp.exp(p["nu"]) + 1j * jnp.exp(p["theta"]))
        steps = jnp.einsum("btd,nd->btn", x, p["b_real"] + 1j * p["b_imag"])

        def joined(a: Any, b: Any) -> Any:
            return a[0] * b[0], b[0] * a[1] + b[1]

        _, states = jax.lax.associative_scan(joined, (jnp.broadcast_to(turn, steps.shape), steps), axis=1)
        return jnp.einsum("btn,dn->btd", states, p["c_real"] + 1j * p["c_imag"]).real

    shapes = {"nu": (5,), "theta": (5,), "b_real": (5, 4), "b_imag": (5, 4), "c_real": (4, 5), "c_imag": (4, 5)}
    found = parity.derive(Left(), (right, {name: np.ones(shape) for name, shape in shapes.items()}), (images(2, 4, 4),))
    assert found.proven and not found.missing, str(found)


def test_complex_numbers_of_paddle_are_pairs_too():
    needs("paddle")
    import paddle

    class Right(paddle.nn.Layer):
        def __init__(self) -> None:
            super().__init__()
            self.up, self.skip, self.down = (paddle.nn.Linear(i, o) for i, o in ((2, 4), (4, 4), (4, 3)))
            self.filter = self.create_parameter([3, 4, 2])

        def forward(self, x: Any) -> Any:
            x = self.up(x)
            lower = paddle.fft.rfft(x, axis=1)[:, :3] * paddle.as_complex(self.filter)
            return self.down(paddle.tanh(paddle.fft.irfft(lower, n=8, axis=1) + self.skip(x)))

    left = Net(filtered(lambda m, z: z * torch.complex(m.r, m.i)), **parts(r=weight(3, 4), i=weight(3, 4)))
    found = parity.derive(left, Right(), (images(3, 8, 2),))
    assert found.proven and not found.missing, str(found)


def test_a_product_without_a_sum_is_a_multiplication():
    """Outer products written as an einsum of JAX, whose parameters meet values behind other operations."""
    needs("flax")
    import jax.numpy as jnp

    def right(p: Any, x: Any) -> Any:
        y = jnp.tanh(x @ p["up"])
        return jnp.exp(jnp.einsum("bld,dn->bldn", y, -jnp.exp(p["rates"]))).sum(2) @ p["down"]

    left = Net(
        lambda m, x: m.down(torch.exp(torch.tanh(m.up(x))[..., None] * -torch.exp(m.log)).sum(2)),
        up=linear(5, 6, False), down=linear(3, 2, False), log=weight(6, 3),
    )  # fmt: skip
    parameters = {"up": np.ones((5, 6)), "rates": np.ones((6, 3)), "down": np.ones((3, 2))}
    found = parity.derive(left, (right, parameters), (images(2, 4, 5),))
    assert found.proven and not found.missing, str(found)


@pytest.mark.parametrize("both", [True, False])
def test_arrays_of_complex_numbers_are_named_with_the_remedy(both: bool):
    def filters() -> Net:
        stored = torch.nn.Parameter(torch.randn(3, 4, dtype=torch.cfloat))
        return Net(filtered(lambda m, z: z * m.filter), **parts(filter=stored))

    pairs = Net(filtered(lambda m, z: z * torch.view_as_complex(m.filter)), **parts(filter=weight(3, 4, 2)))
    found = parity.derive(filters(), filters() if both else pairs, (images(3, 8, 2),))
    assert not found.proven
    assert found.complex_arrays == "filter on the left" + " and filter on the right" * both
    assert f"stored as complex numbers: {found.complex_arrays}: each model keeps" in str(found)
    assert found.following.startswith("store real numbers in both models")


@pytest.mark.parametrize(
    ("used", "is_equal"),
    [(lambda c: c, True), (lambda c: 1 / c.conj(), True), (lambda c: c[1] ** torch.arange(5.0)[:, None], False)],
)
def test_other_values_of_stored_complex_numbers_are_tried(used: Any, is_equal: bool):
    """Rotations by steps: their inverse is their conjugate, and a power of the first one is the step alone."""

    def rotated(use: Any) -> Net:
        steps = torch.arange(5.0)[:, None] * torch.tensor([1.0, 0.1])

        def run(m: Any, x: Any) -> Any:
            turned = torch.view_as_complex(m.f(x).unflatten(-1, (2, 2))) * use(m.steps)
            return m.g(torch.view_as_real(turned).flatten(-2).tanh())

        net = Net(run, f=linear(3, 4), g=linear(4, 2))
        net.register_buffer("steps", torch.polar(torch.ones_like(steps), steps))
        return net

    found = parity.derive(rotated(lambda c: c), rotated(used), (images(2, 5, 3),))
    assert found.proven == is_equal, str(found)
    assert ("equal only with these values of steps: with others, outputs differ by " in str(found)) != is_equal


def test_tables_of_complex_numbers_are_no_cause():
    table = torch.randn(3, 4, dtype=torch.cfloat)

    def turned(activation: Any) -> Net:
        net = Net(lambda m, x: activation(filtered(lambda m, z: z * m.table)(m, x)), **parts())
        net.register_buffer("table", table)
        return net

    found = parity.derive(turned(torch.sin), turned(torch.tanh), (images(3, 8, 2),))
    assert not found.proven and not found.complex_arrays, found

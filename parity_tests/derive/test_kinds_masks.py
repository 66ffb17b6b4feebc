"""Masks that one side adds and the other chooses by, or that hide half of a matrix."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

import parity

from .pairs import images
from .test_kinds_matching import Net, linear


def masked(buffer: bool) -> Net:
    """Attention with a learned bias to which a mask of 0 and -100 is added, as Swin's."""
    mask = torch.triu(torch.full((5, 5), -100.0), 1)

    def run(m: Any, x: Any) -> Any:
        q, k, v = m.qkv(x).chunk(3, -1)
        weights = q @ k.mT / 8**0.5 + m.bias + (m.mask if buffer else mask.to(x.dtype))
        return m.out(weights.softmax(-1) @ v)

    net = Net(run, qkv=linear(8, 24), out=linear(8, 8), bias=torch.nn.Parameter(torch.randn(5, 5)))
    if buffer:
        net.register_buffer("mask", mask)
    return net


def chosen(parameters: Any, x: Any) -> Any:
    """The same in JAX, where a weight or the weight less 100 is chosen."""
    q, k, v = jnp.split(x @ parameters["qkv"] + parameters["qkv_bias"], 3, -1)
    weights = q @ k.mT / 8**0.5 + parameters["bias"]
    weights = jnp.where(np.tri(5, dtype=bool), weights, weights - 100)
    return jax.nn.softmax(weights, -1) @ v @ parameters["out"] + parameters["out_bias"]


@pytest.mark.parametrize("buffer", [True, False])
@pytest.mark.parametrize("turned", [True, False])
def test_a_choice_between_a_value_and_that_value_less_a_number_is_an_added_mask(buffer: bool, turned: bool):
    shapes = {"qkv": (8, 24), "qkv_bias": (24,), "out": (8, 8), "out_bias": (8,), "bias": (5, 5)}
    sides: tuple[Any, Any] = masked(buffer), (chosen, {name: jnp.ones(shape) for name, shape in shapes.items()})
    found = parity.derive(*(sides[::-1] if turned else sides), (images(2, 5, 8),))
    assert found.proven, str(found)
    axes = "i o" if turned else "o i"
    assert f"\nbias: {axes} <-> bias: {axes}\n" in found.table.print(), found.table.print()


def shifted(fill: float, depth: int = 4) -> Net:
    """Blocks of attention in windows of 4 positions, as Swin's, of which every second one shifts these.

    Args:
      fill: put in the places that a shifted window hides; -100 is added.
    """
    parts = torch.tensor([0] * 12 + [1] * 2 + [2] * 2).view(4, 4)
    hidden = parts[:, None, :, None] != parts[:, None, None, :]
    places = torch.arange(4)[:, None] - torch.arange(4) + 3

    def attend(m: Any, x: Any, shift: int) -> Any:
        y = m.norm(x).roll(-shift, 1).view(-1, 4, 8)
        q, k, v = (z.unflatten(-1, (2, 4)).transpose(1, 2) for z in m.qkv(y).chunk(3, -1))
        scores = q / 2 @ k.mT + m.table[:, places]
        if shift and fill == -100:
            scores = (scores.view(-1, 4, 2, 4, 4) + torch.where(hidden, fill, 0.0).to(x.dtype)).view(-1, 2, 4, 4)
        elif shift:
            scores = scores.masked_fill(hidden.repeat(len(x), 1, 1, 1), fill)
        y = (scores.softmax(-1) @ v).transpose(1, 2).flatten(2)
        return x + m.out(y).view(x.shape).roll(shift, 1)

    def block(shift: int) -> Net:
        table = torch.nn.Parameter(torch.randn(2, 7))
        layers = {"qkv": linear(8, 24), "out": linear(8, 8), "norm": torch.nn.LayerNorm(8)}
        return Net(lambda m, x: attend(m, x, shift), **layers, table=table)

    return Net(lambda m, x: m.blocks(x), blocks=torch.nn.Sequential(*(block(k % 2 * 2) for k in range(depth))))


@pytest.mark.parametrize("fills", [(-100, -np.inf), (-1e9, -100)])
def test_masks_of_shifted_windows_are_added_on_one_side_and_filled_on_the_other(fills: tuple[float, float]):
    found = parity.derive(*map(shifted, fills), (images(2, 16, 8),))
    assert found.proven and not found.inferred and found.fills, str(found)
    assert all(use["difference"] < 1e-9 for use in found.to_dict()["uses"]), str(found)


@pytest.mark.parametrize("kept", [True, False])
def test_a_sum_that_is_divided_by_a_count_of_integers(kept: bool):
    def run(m: Any, x: Any, mask: Any) -> Any:
        count = mask.sum(1, keepdim=True) if kept else mask.sum(1)[:, None]
        return m.out((m.inner(x) * mask[..., None]).sum(1) / count)

    def average(p: Any, x: Any, mask: Any) -> Any:
        sums = ((x @ p["inner"] + p["inner_bias"]) * mask[..., None]).sum(1)
        return sums / mask.sum(1, keepdims=True) @ p["out"] + p["out_bias"]

    shapes = {"inner": (8, 6), "inner_bias": (6,), "out": (6, 3), "out_bias": (3,)}
    mask = np.array([[0, 0, 1, 1, 1], [0, 1, 1, 1, 1]])
    pair = Net(run, inner=linear(8, 6), out=linear(6, 3)), (average, {k: jnp.ones(v) for k, v in shapes.items()})
    found = parity.derive(*pair, (images(2, 5, 8), mask))
    assert found.proven and not found.missing, str(found)


@pytest.mark.parametrize("turned", [False, True])
def test_integers_without_a_sign_that_are_subtracted_or_subtracted_from(turned: bool):
    def less(h: Any, mask: Any) -> Any:
        return h * (1.0 - mask) if turned else h - mask

    def right(p: Any, x: Any, mask: Any) -> Any:
        return jnp.tanh(less(x @ p["inner"] + p["inner_bias"], mask[..., None])) @ p["out"] + p["out_bias"]

    left = Net(lambda m, x, mask: m.out(less(m.inner(x), mask[..., None]).tanh()), inner=linear(8, 6), out=linear(6, 3))
    shapes = {"inner": (8, 6), "inner_bias": (6,), "out": (6, 3), "out_bias": (3,)}
    mask = np.array([[0, 0, 1, 1, 1], [0, 1, 1, 1, 1]], np.uint8)
    found = parity.derive(left, (right, {k: jnp.ones(v) for k, v in shapes.items()}), (images(2, 5, 8), mask))
    assert found.proven and "reads numbers" not in str(found), str(found)


@pytest.mark.parametrize("turned", [False, True])
def test_the_half_of_a_triangular_matrix_that_nothing_reads_follows_the_other_half(turned: bool):
    def net(name: str, turned: bool) -> Net:
        def run(m: Any, x: Any) -> Any:
            matrix = getattr(m, name).T if turned else getattr(m, name)
            return m.out((m.stem(x) @ matrix.triu()).tanh())

        return Net(run, stem=linear(3, 4), out=linear(4, 2), **{name: torch.nn.Parameter(torch.ones(4, 4))})

    found = parity.derive(net("u", False), net("upper", turned), (images(6, 3),))
    assert found.proven and not found.missing, str(found)
    assert "inferred, as no matched use reads all of it: upper" in str(found)
    assert f"u: o i <-> upper: {'i o' if turned else 'o i'}\n" in found.table.print()

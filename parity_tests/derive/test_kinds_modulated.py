"""Matrices that are scaled for each example, as styles of StyleGAN, and experts whose results a router chooses."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional as f

import parity
from parity.derive.forms.modulated import modulated
from parity.derive.trace.call import call_of
from parity.derive.trace.program import Program
from parity.derive.trace.sides import side

from ..conftest import needs
from .pairs import images
from .test_kinds_matching import Net, linear
from .test_kinds_products import weight

EPSILON = 1e-8
EXPERTS = WIDTH = 4  # so that the router has a matrix of the experts' shape


def grouped(m: Any, z: Any) -> Any:
    """Generate images: the kernel of each is scaled and normalized, and convolves a group of its own."""
    x, style = m.const.repeat(len(z), 1, 1, 1), m.style(z)
    kernels = m.kernel * style[:, None, :, None, None]
    kernels = kernels * torch.rsqrt(kernels.square().sum((2, 3, 4), keepdim=True) + EPSILON)
    x = f.conv2d(x.reshape(1, -1, 4, 5), kernels.flatten(0, 1), padding=1, groups=len(z)).reshape(len(z), -1, 4, 5)
    return m.head(torch.relu(x + m.bias[:, None, None]).flatten(1))


def generator(run: Any = grouped) -> Net:
    parts = dict(const=weight(1, 3, 4, 5), kernel=weight(6, 3, 3, 3), bias=weight(6))
    return Net(run, style=linear(4, 3), head=linear(120, 2), **parts)


def of_images(form: str) -> Any:
    """Return the same in JAX.

    Args:
      form: scaled (images, and what is convolved of them), or mapped (a convolution for each image).
    """
    import jax
    import jax.numpy as jnp

    def convolved(x: Any, kernel: Any) -> Any:
        return jax.lax.conv_general_dilated(x, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))

    def run(p: Any, z: Any) -> Any:
        x, style = jnp.tile(p["const"], (len(z), 1, 1, 1)), z @ p["style"]["w"] + p["style"]["b"]
        kernels = p["kernel"] * style[:, None, None, :, None]
        norm = jax.lax.rsqrt((kernels**2).sum((1, 2, 3), keepdims=True) + EPSILON)
        if form == "scaled":
            y = convolved(x * style[:, None, None], p["kernel"]) * norm[:, 0]
        else:
            y = jax.vmap(lambda image, kernel: convolved(image[None], kernel)[0])(x, kernels * norm)
        y = jax.nn.relu(y + p["bias"]).transpose(0, 3, 1, 2).reshape(len(z), -1)
        return y @ p["head"]["w"] + p["head"]["b"]

    dense = {
        name: {"w": np.ones(size), "b": np.ones(size[1])} for name, size in (("style", (4, 3)), ("head", (120, 2)))
    }
    return run, {"const": np.ones((1, 4, 5, 3)), "kernel": np.ones((3, 3, 3, 6)), "bias": np.ones(6), **dense}


@pytest.mark.parametrize("form", ["scaled", "mapped"])
@pytest.mark.parametrize("first", [True, False])
def test_kernels_that_are_scaled_for_each_image_are_those_of_scaled_images(form: str, first: bool):
    needs("flax")
    sides = (generator(), of_images(form))
    found = parity.derive(*(sides if first else sides[::-1]), (images(2, 4),))
    assert found.proven, found
    lines = ["kernel: o i h w", "kernel: h w i o"]
    assert " <-> ".join(lines if first else lines[::-1]) in found.table.print()


def recorded(model: Any) -> tuple[Program, Any]:
    """Return the program of a model of rows and styles, and its parameters."""
    own = side(model, call_of((images(2, 5, 3), images(2, 4))))
    arrays = own.call.arrays()
    return Program(own.record(own.parameters, arrays), own.parameters, [*arrays.values()]), own.parameters


@pytest.mark.parametrize("form", ["rows", "both", "mean"])
def test_factors_of_inputs_and_outputs_leave_a_product(form: str):
    def run(m: Any, x: Any, z: Any) -> Any:
        style = m.style(z)
        scaled = m.matrix * style[:, :, None] * (style.mean(1)[:, None, None] if form == "mean" else 1)
        return x @ (scaled * torch.tanh(m.out(z))[:, None, :] if form == "both" else scaled)

    model = Net(run, style=linear(4, 3), out=linear(4, 6), matrix=weight(3, 6))
    program, parameters = recorded(model)
    tape = modulated(program)
    new = Program(tape, parameters, [*program.inputs.values()])
    assert tape is not program.tape and not any(
        new.shapes[node.inputs[1]][0] > 1 for node in tape.nodes if node.kind == "product"
    )
    assert np.allclose(new.outputs[0], program.outputs[0], 1e-12)  # factors in another order


def test_factors_of_single_elements_stay_at_their_matrix():
    model = Net(lambda m, x, z: x @ (m.matrix * m.style(z).reshape(-1, 3, 6)), style=linear(4, 18), matrix=weight(3, 6))
    program, _ = recorded(model)
    assert modulated(program) is program.tape


class Chosen(torch.nn.Module):
    def __init__(self, take: Any, order: list[int]) -> None:
        super().__init__()
        self.router, self.experts = linear(WIDTH, EXPERTS), torch.nn.ModuleList(linear(WIDTH) for _ in range(EXPERTS))
        self.take, self.order = take, order

    def forward(self, x: Any) -> Any:
        return self.take(torch.stack([self.experts[k](x) for k in self.order], 1), self.router(x).softmax(-1))


def by_index(y: Any, shares: Any) -> Any:
    return y[torch.arange(len(y)), shares.argmax(-1)]


def two(y: Any, shares: Any) -> Any:
    weights, places = shares.topk(2, -1)
    return (y.gather(1, places[..., None].expand(-1, -1, WIDTH)) * weights[..., None]).sum(1)


@pytest.mark.parametrize("order", [[0, 1, 2, 3], [3, 2, 1, 0]])
@pytest.mark.parametrize("rows", [2, 9])
@pytest.mark.parametrize("take", [by_index, two])
def test_each_expert_is_the_one_at_its_place_among_those_that_a_router_chooses_from(
    take: Any, rows: int, order: list[int]
):
    """Which experts the right side reads before its router has a partner depends on weights of its own."""
    left, right = Chosen(take, [*range(EXPERTS)]), Chosen(take, order)
    found = parity.derive(left, right, (images(rows, WIDTH),))
    assert found.proven, found
    own = {name: value.numpy() for name, value in left.state_dict().items()}
    moved = found.table.apply(own)
    for k, other in enumerate(order):
        assert np.array_equal(moved[f"experts.{other}.weight"], own[f"experts.{k}.weight"])
        assert np.array_equal(moved[f"experts.{other}.bias"], own[f"experts.{k}.bias"])

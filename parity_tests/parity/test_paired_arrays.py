"""parity.compare pairs gradients and updated weights by a Table's lines, and never blames what it cannot compare."""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

import numpy as np
import pytest

import parity
from convert.errors import UsageError
from parity_tests.conftest import needs
from specs.table import Table

TOKENS = np.random.default_rng(0).integers(0, 9, (3, 5))
SCANNED = Table.parse("""table 1: linen <-> torch
params/embed/embedding: v c <-> embed.weight: v c = head.weight: v c
params/bias/table: i o <-> bias.weight: o i
params/blocks/norm/scale: l c <-> blocks.{l}.norm.weight: c
params/blocks/norm/bias: l c <-> blocks.{l}.norm.bias: c
params/blocks/fc/kernel: l i o <-> blocks.{l}.fc.weight: o i
params/blocks/fc/bias: l o <-> blocks.{l}.fc.bias: o
params/last/scale: c <-> last.weight: c
params/last/bias: c <-> last.bias: c
""")


def torch_net() -> Any:
    import torch

    class Block(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norm, self.fc = torch.nn.LayerNorm(8), torch.nn.Linear(8, 8)

        def forward(self, x: Any) -> Any:
            return x + self.fc(self.norm(x)).tanh()

    class Net(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embed, self.bias = torch.nn.Embedding(9, 8), torch.nn.Embedding(5, 8)
            self.blocks = torch.nn.ModuleList(Block() for _ in range(3))
            self.last, self.head = torch.nn.LayerNorm(8), torch.nn.Linear(8, 9, bias=False)
            self.head.weight = self.embed.weight

        def forward(self, x: Any) -> Any:
            y = self.embed(x) + self.bias(torch.arange(5))
            for block in self.blocks:
                y = block(y)
            return self.head(self.last(y))

    return Net()


def linen_net(model: Any) -> Any:
    """Return the same model with stacked blocks, a bias that is returned with another shape, and its variables."""
    import flax.linen as nn
    import jax.numpy as jnp

    class Bias(nn.Module):
        @nn.compact
        def __call__(self) -> Any:
            return self.param("table", nn.initializers.zeros, (8, 5)).T[None]

    class Block(nn.Module):
        @nn.compact
        def __call__(self, x: Any) -> Any:
            y = nn.LayerNorm(epsilon=1e-5, use_fast_variance=False, name="norm")(x)
            return x + jnp.tanh(nn.Dense(8, name="fc")(y)), None

    class Net(nn.Module):
        @nn.compact
        def __call__(self, x: Any) -> Any:
            embed = nn.Embed(9, 8, name="embed")
            y = embed(x) + Bias(name="bias")()
            stack = nn.scan(Block, variable_axes={"params": 0}, split_rngs={"params": True}, length=3)
            y, _ = stack(name="blocks")(y)
            return embed.attend(nn.LayerNorm(epsilon=1e-5, use_fast_variance=False, name="last")(y))

    arrays = SCANNED.reverse().apply(model.state_dict())
    variables: dict[str, Any] = {}
    for name, array in arrays.items():
        *path, leaf = name.split("/")
        at = variables
        for part in path:
            at = at.setdefault(part, {})
        at[leaf] = array
    return Net(), variables


def compared(left: Any, right: Any, check: str, table: Table = SCANNED, x: Any = TOKENS) -> Any:
    return parity.compare({"flax": left, "torch": right}, x, dtype="float64", check=check, names=table, steps=2)


def doubled(layer: Any) -> None:
    """Let a Linear take twice the gradient of its weight, at the same output."""
    import torch

    class Doubled(torch.nn.Linear):
        def forward(self, x: Any) -> Any:
            return torch.nn.functional.linear(x, 2 * self.weight - self.weight.detach(), self.bias)

    layer.__class__ = Doubled


@pytest.mark.parametrize("check", ["gradients", "train"])
def test_arrays_are_paired_line_by_line_also_stacked_and_tied_ones(check: str):
    needs("flax")
    right = torch_net()
    left = linen_net(right)
    report = compared(left, right, check)
    names = {name.partition(": ")[2] or name for name, *_ in report.results[0].curve}
    assert report.passed and "not compared" not in str(report), str(report)
    assert {"embed.weight", "bias.weight", "blocks.2.fc.weight", "last.bias"} <= names and "head.weight" not in names
    doubled(right.blocks[1].fc)
    wrong = compared(left, right, check)
    assert not wrong.passed
    if check == "gradients":
        assert wrong.first_divergence == "blocks.1.fc.weight" and "2 times that of flax" in " ".join(str(wrong).split())


def test_stacked_modules_are_counted_and_never_the_first_divergence():
    needs("flax")
    right = torch_net()
    left = linen_net(right)
    report = compared(left, right, "layers")
    said = " ".join(str(report).split())
    assert report.passed and "compared with flax's order of axes: 'bias'" in said, said
    assert (
        "torch: 6 modules not compared, as one model stacks arrays that the other has apart, as under nn.scan: " in said
    )
    look = "next look at what is done to the output of bias; layers that a note names were not compared: parity.derive"
    right.last.eps = 1e-3
    wrong = compared(left, right, "layers")
    assert wrong.first_divergence == "last" and look not in " ".join(str(wrong).split()), str(wrong)
    right.last.eps, right.blocks[1].norm.eps = 1e-5, 1e-3
    wrong = compared(left, right, "layers")
    assert wrong.first_divergence == "last" and look in " ".join(str(wrong).split()), str(wrong)


def test_modules_with_axes_of_heads_are_compared_and_stacked_ones_counted():
    needs("flax")
    import flax.linen as nn
    import torch

    class Layer(nn.Module):
        @nn.compact
        def __call__(self, x: Any, _: Any) -> Any:
            return nn.Dense(8, name="fc")(x), None

    class Net(nn.Module):
        @nn.compact
        def __call__(self, x: Any) -> Any:
            every = nn.scan(Layer, variable_axes={"params": 0}, split_rngs={"params": True}, length=3)
            x, _ = every(name="layers")(nn.Dense(8, name="stem")(x), None)
            return nn.DenseGeneral((2, 4), name="query")(x).reshape(x.shape)

    layers = torch.nn.Sequential(*(torch.nn.Linear(8, 8) for _ in range(3)))
    named = OrderedDict(stem=torch.nn.Linear(8, 8), layers=layers, query=torch.nn.Linear(8, 8))
    right = torch.nn.Sequential(named)
    x = np.random.default_rng(0).standard_normal((2, 5, 8))
    found = parity.derive(right, (Net(), Net().init(jax_key(), x)), (x,))
    left = parity.transfer(right, (Net(), Net().init(jax_key(), x)), (x,))
    report = parity.compare({"torch": right, "flax": left}, x, dtype="float64", check="layers", names=found)
    said = " ".join(str(report).split())
    assert report.passed, said
    stacked = "one model stacks arrays that the other has apart"
    for label, names, number in (("torch", "'layers.0', 'layers.1', 'layers.2'", "3 modules"),
                                  ("flax", "'layers.fc'", "1 module")):  # fmt: skip
        assert f"{label}: {number} not compared, as {stacked}, as under nn.scan: {names}" in said
    assert "flax: compared with torch's order of axes: 'query'" in said


def jax_key() -> Any:
    import jax

    return jax.random.key(0)


def function_and_module() -> tuple[Any, Any]:
    import jax.numpy as jnp
    import torch

    class Net(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc, self.extra = torch.nn.Linear(4, 3), torch.nn.Parameter(torch.zeros(3))

        def forward(self, x: Any) -> Any:
            return self.fc(x) + self.extra

    def forward(params: Any, x: Any) -> Any:
        return jnp.asarray(x) @ params["fc"]["w"] + params["fc"]["b"]

    net = Net()
    state = {name: array.numpy() for name, array in net.state_dict().items()}
    return (forward, {"fc": {"w": state["fc.weight"].T, "b": state["fc.bias"] + state["extra"]}}), net


def test_a_function_is_compared_by_a_table_and_sums_are_named_as_not_judged():
    needs("flax")
    left, right = function_and_module()
    table = Table.parse("table 1\nfc/w: i o <-> fc.weight: o i\nfc/b: o <- fc.bias: o + extra: o")
    x = np.random.default_rng(0).standard_normal((5, 4))
    for check in ("forward", "gradients"):
        report = compared(left, right, check, table, x)
        said = " ".join(str(report).split())
        assert report.passed, said
        if check != "forward":
            assert "flax: not judged, as the Table's lines do not only lay them out anew" in said and "'fc/b'" in said
            assert "'extra', 'fc.bias'" in said
    with pytest.raises(UsageError, match=r"a JAX function has no modules.*'gradients' and 'train' its arrays"):
        compared(left, right, "layers", table, x)


def test_a_length_that_no_shape_shows_is_refused_where_arrays_are_laid_out():
    needs("flax")
    left, right = function_and_module()
    table = Table.parse("table 1\nfc/w: (p c) o <-> fc.weight: o (c p)\nfc/b: o <- fc.bias: o + extra: o")
    x = np.random.default_rng(0).standard_normal((5, 4))
    assert compared(left, right, "forward", table, x).passed
    with pytest.raises(UsageError, match=r"leaves lengths open .*, as in (\(p=4 c\)|\(p c=4\))"):
        compared(left, right, "gradients", table, x)


def test_arrays_tied_in_one_model_alone_are_not_judged():
    """The gradient of a tied array is the sum of those of both uses, which the other model stores apart."""
    needs("flax")
    import torch

    right = torch_net()
    left = linen_net(right)
    right.head.weight = torch.nn.Parameter(right.embed.weight.detach().clone())
    report = compared(left, right, "gradients")
    said = " ".join(str(report).split())
    assert report.passed and "'params/embed/embedding'" in said and "'embed.weight', 'head.weight'" in said, said

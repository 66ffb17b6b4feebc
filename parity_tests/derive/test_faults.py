"""Faults planted into one of two equal models: derive says where they part, and why if recomputing confirms it."""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import numpy as np
import pytest

import parity

from ..conftest import needs
from .pairs import images, initial


class Fault(NamedTuple):
    """A fault: what is changed in the right model's options, and what the report has to say.

    Args:
      where: the module at which values part, or a parameter that is missing.
      cause: words of the cause; "" where none can be confirmed by recomputing.
    """

    change: dict[str, Any]
    where: str
    cause: str = ""


RIGHT = {
    "epsilon": 1e-5, "rms epsilon": 1e-6, "batch epsilon": 1e-5, "gelu": "none", "activation": "silu", "scale": 4**-0.5,
    "plus one": 0.0, "padding": (1, 1, 1, 1), "limit": 6.0, "embedding": 1.0, "residual": 1.0,
    "slope": 0.1,
}  # fmt: skip  # the options of the right model, as they are right

FAULTS = {
    "another epsilon of a layer norm": Fault({"epsilon": 1e-6}, "norm", "epsilon 1e-5 on the left, 1e-6 on the right"),
    "another epsilon of a root-mean-square norm": Fault(
        {"rms epsilon": 1e-5}, "the model's own function", "epsilon 1e-6 on the left, 1e-5 on the right"
    ),
    "another epsilon of a batch norm": Fault({"batch epsilon": 1e-3}, "bn", "epsilon 1e-5 on the left, 1e-3 on"),
    "GELU by tanh": Fault({"gelu": "tanh"}, "second", "GELU by the error function on the left, GELU by tanh on the"),
    "ReLU for SiLU": Fault({"activation": "relu"}, "head", "SiLU on the left, ReLU on the right"),
    "a missing attention scale": Fault(
        {"scale": 1.0}, "out", "the scores before the softmax have a factor of 0.5 on the left, 1 on the right"
    ),
    "another attention scale": Fault(
        {"scale": 0.25}, "out", "the scores before the softmax have a factor of 0.5 on the left, 0.25 on the"
    ),
    "a norm whose weight is added to 1": Fault({"plus one": 1.0}, "first", "a term of 0 on the left, 1 on the right"),
    "a limit": Fault({"limit": 1.0}, "head", "the number 1 on the right"),
    "an embedding that is scaled": Fault({"embedding": 8**0.5}, "norm", "a factor of 1 on the left, 2.83 on the"),
    "a residual of half weight": Fault({"residual": 0.5}, "out", "a factor of 1 on the left, 0.5 on the right"),
    "no residual": Fault({"residual": 0.0}, "out", "a factor of 1 on the left, 0 on the right"),
    "another slope": Fault({"slope": 0.2}, "head", "leaky_relu: negative_slope 0.1 on the left, 0.2 on"),
}


def build(options: dict[str, Any]) -> Any:
    """A small model that has every operation which the faults change."""
    import torch

    class Model(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.bn = torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4, eps=options["batch epsilon"])
            self.words = torch.nn.Linear(4, 8)
            self.norm = torch.nn.LayerNorm(8, eps=options["epsilon"])
            self.key, self.query, self.value, self.out = (torch.nn.Linear(8, 8) for _ in range(4))
            self.rms = torch.nn.Parameter(torch.ones(8))
            self.first, self.second, self.head = torch.nn.Linear(8, 12), torch.nn.Linear(12, 8), torch.nn.Linear(8, 5)

        def forward(self, x: Any) -> Any:
            f = torch.nn.functional
            x = self.conv(f.pad(x, options["padding"]))
            x = self.bn(x)
            x = x[..., 1:]
            x = self.words(x.flatten(2).mT) * options["embedding"]
            y = self.norm(x)
            q, k, v = (layer(y).unflatten(-1, (2, 4)).transpose(1, 2) for layer in (self.query, self.key, self.value))
            y = ((q @ k.mT) * options["scale"]).softmax(-1) @ v
            x = x * options["residual"] + self.out(y.transpose(1, 2).flatten(2))
            y = x * torch.rsqrt(x.square().mean(-1, True) + options["rms epsilon"]) * (self.rms + options["plus one"])
            x = x + self.second(f.gelu(self.first(y), approximate=options["gelu"]))
            x = torch.minimum(x, torch.tensor(options["limit"], dtype=x.dtype)) if options["limit"] < 6 else x
            x = f.leaky_relu(x, options["slope"]) if options["slope"] != 0.1 else f.leaky_relu(x, 0.1)
            return self.head(f.silu(x) if options["activation"] == "silu" else f.relu(x))

    return Model()


def derived(change: dict[str, Any]) -> parity.Derivation:
    return parity.derive(build(RIGHT), build({**RIGHT, **change}), (images(2, 3, 4, 5),), seconds=10)


def test_without_a_fault_the_models_are_proven_equal():
    needs("torch")
    found = derived({})
    assert found.proven and not found.divergences


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_is_located_and_explained(name: str):
    needs("torch")
    fault = FAULTS[name]
    found = derived(fault.change)
    assert not found.proven and not found.missing, (found.failure, found.missing)
    place = found.divergences[0]
    assert place.right == fault.where and place.size > 1e-8, found.divergences
    assert fault.cause in place.cause and bool(fault.cause) == bool(place.cause), found.divergences
    assert "recomputed so" in place.cause or not place.cause
    assert bool(place.kind) == bool(place.cause) and place.whole == ("(recomputed so, they " in place.cause)
    assert bool(place.advice) != bool(place.cause) and (place.advice in found.following or not place.advice)


def test_the_epsilon_of_the_last_of_many_norms_is_named():
    needs("torch")
    import torch

    def norms(last: float) -> Any:
        layers = [(torch.nn.LayerNorm(4, last if k == 7 else 1e-5), torch.nn.Linear(4, 4)) for k in range(8)]
        return torch.nn.Sequential(*(part for layer in layers for part in layer))

    found = parity.derive(norms(1e-3), norms(1e-5), (images(4, 4),), seconds=5)
    assert [place.kind for place in found.divergences] == ["epsilon"], found.divergences
    assert found.divergences[0].cause.startswith("epsilon 1e-3 on the left, 1e-5 on the right (recomputed so")


def test_where_no_value_agrees_any_more_the_table_is_complete_and_the_first_use_is_named():
    needs("torch")
    found = derived({"padding": (0, 2, 0, 2)})
    assert not found.proven and not found.missing, found.failure
    assert found.divergences[0].right in ("conv", "bn"), found.divergences


def test_causes_fit_the_kind_of_operation_whose_values_differ():
    needs("torch")
    import torch

    convolutions = (torch.nn.Conv2d(3, 4, 3, padding=1), torch.nn.Conv2d(3, 4, 3, padding=2, dilation=2))
    found = parity.derive(*convolutions, (images(2, 3, 6, 6),), seconds=2)
    assert not found.missing and found.confirmed and not found.doubtful and not found.proven, found
    assert "; dilation (1, 1) on the left, (2, 2) on the right, of the same image" in found.divergences[0].cause
    convolutions = (torch.nn.Conv2d(3, 4, 1), torch.nn.Conv2d(3, 4, 1, stride=2))
    found = parity.derive(*convolutions, (images(2, 3, 6, 6),), seconds=2)
    (place,) = found.divergences
    assert place.what == "stride (1, 1) on the left, (2, 2) on the right, of the same image"
    assert place.kind == "convolution window" and place.whole, place
    heads = parity.derive(_sequence(), _sequence(heads=3), (images(2, 5, 6),), seconds=5)
    assert not heads.missing and heads.divergences[0].cause == "2 heads on the left, 3 on the right", heads.divergences


# Faults after which no translation exists: the first parameter that cannot correspond is named.


def _sequence(
    width: int = 6, swapped: bool = False, norm_first: bool = True, heads: int = 2, tied: bool = False
) -> Any:
    import torch

    class Net(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norm, self.end = torch.nn.LayerNorm(6), torch.nn.LayerNorm(6)
            self.qkv, self.out = torch.nn.Linear(6, 18), torch.nn.Linear(6, 6)
            self.up, self.down = torch.nn.Linear(6, width), torch.nn.Linear(width, 6)

        def forward(self, x: Any) -> Any:
            y = self.norm(x) if norm_first else x
            q, k, v = self.qkv(y).unflatten(-1, (3, heads, -1)).permute(2, 0, 3, 1, 4)
            y = (q @ k.mT).softmax(-1) @ v
            x = x + self.out(y.transpose(1, 2).flatten(2))
            x = x if norm_first else self.norm(x)
            up = self.up.weight.mT if tied else self.up.weight
            y = torch.nn.functional.linear(x, up, self.up.bias).tanh()
            y = torch.nn.functional.linear(y, self.up.weight, self.down.bias) if tied else self.down(y)
            return self.end(x + y)

    return Net()


IMPOSSIBLE = {
    "a layer whose weights cannot fit": ({"width": 7}, ("up.weight", "down.weight")),
    "one kernel in place of two": ({"tied": True}, ("down.weight", "down.bias")),
}


@pytest.mark.parametrize("name", IMPOSSIBLE)
def test_what_cannot_be_translated_is_named(name: str):
    needs("torch")
    change, names = IMPOSSIBLE[name]
    found = parity.derive(_sequence(), _sequence(**change), (images(2, 5, 6),), seconds=6)
    assert not found.proven and found.missing
    assert found.failure.split(":")[0] in names, found.failure


def test_a_norm_after_a_sum_instead_of_before_it_is_named():
    needs("torch")
    found = parity.derive(_sequence(), _sequence(norm_first=False), (images(2, 5, 6),), seconds=6)
    assert not found.proven and not found.missing, str(found)
    assert found.divergences[0].cause.startswith("the left normalizes before the sum, the right after it, with norm (")


def test_another_number_of_heads_is_located_and_the_table_is_complete():
    needs("torch")
    found = parity.derive(_sequence(), _sequence(heads=3), (images(2, 5, 6),), seconds=6)
    assert not found.proven and not found.missing, found.failure
    assert found.divergences[0].right == "out" and "out.weight" in found.inferred


def test_norms_that_run_in_the_other_order_are_crossed_in_the_table():
    """Two norms that one side exchanges are no difference of the models: the Table says so."""
    needs("torch")
    import torch

    class Net(torch.nn.Module):
        def __init__(self, crossed: bool) -> None:
            super().__init__()
            self.crossed = crossed
            self.norm1, self.norm2, self.fc = torch.nn.LayerNorm(6), torch.nn.LayerNorm(6), torch.nn.Linear(6, 6)

        def forward(self, x: Any) -> Any:
            first, second = (self.norm2, self.norm1) if self.crossed else (self.norm1, self.norm2)
            return second(x + self.fc(first(x)).tanh())

    found = parity.derive(Net(False), Net(True), (images(5, 6),))
    assert found.proven and "norm1.weight: c <-> norm2.weight: c" in found.table.print()


def test_a_square_kernel_that_one_side_transposes_is_transposed_in_the_table():
    needs("torch")
    import torch

    class Net(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc = torch.nn.Linear(6, 6)

        def forward(self, x: Any) -> Any:
            return torch.tanh(x @ self.fc.weight + self.fc.bias)

    left = torch.nn.Sequential(torch.nn.Linear(6, 6), torch.nn.Tanh())
    found = parity.derive(left, Net(), (images(5, 6),))
    assert found.proven and "0.weight: o i <-> fc.weight: i o" in found.table.print()
    kernel = np.arange(36.0).reshape(6, 6)
    assert np.array_equal(found.table.apply({"0.weight": kernel, "0.bias": np.zeros(6)})["fc.weight"], kernel.T)


def test_a_fused_use_that_cannot_be_compared_is_no_cause():
    """Two biases of one product beside one fused bias: the epsilon behind them is named, and nothing before."""
    needs("torch")
    import torch

    class Gated(torch.nn.Module):
        def __init__(self, fused: bool, epsilon: float) -> None:
            super().__init__()
            self.fused, self.norm = fused, torch.nn.LayerNorm(4, epsilon)
            sizes = {"both": 8} if fused else {"value": 4, "gate": 4}
            for name, size in sizes.items():
                setattr(self, name, torch.nn.Linear(4, size))

        def forward(self, x: Any) -> Any:
            value, gate = self.both(x).chunk(2, -1) if self.fused else (self.value(x), self.gate(x))
            return self.norm(value * gate.sigmoid())

    found = parity.derive(Gated(False, 1e-5), Gated(True, 1e-3), (images(2, 3, 4),))
    assert [place.cause.partition(" (")[0] for place in found.divergences] == [
        "epsilon 1e-5 on the left, 1e-3 on the right"
    ]


def test_a_pooling_with_other_settings_is_named_in_any_layout():
    """The left side's, as torch computes it, makes the right side equal; flax has its channels last."""
    needs("torch")
    needs("flax")
    import flax.linen as nn
    import jax
    import torch

    class Pooled(torch.nn.Module):
        def __init__(self, pool: torch.nn.Module) -> None:
            super().__init__()
            self.stem, self.head, self.pool = torch.nn.Conv2d(3, 4, 1), torch.nn.Linear(4, 5), pool

        def forward(self, x: Any) -> Any:
            return self.head(self.pool(self.stem(x).tanh()).tanh().mean((2, 3)))

    class Linen(nn.Module):
        @nn.compact
        def __call__(self, x: Any) -> Any:
            x = jax.numpy.tanh(nn.Conv(4, (1, 1))(x))
            return nn.Dense(5)(jax.numpy.tanh(nn.max_pool(x, (2, 2), (2, 2))).mean((1, 2)))

    x = images(2, 3, 8, 6)
    turned = x.transpose(0, 2, 3, 1)
    linen = Linen(), initial(Linen(), turned.astype("f4"))
    mean, largest = functools.partial(torch.nn.AvgPool2d, 3, 2, 1), torch.nn.MaxPool2d(3, 2, 1)
    other = "pool (avg_pool2d): count_include_pad True on the left, False on the right (recomputed so"
    both = "window 3 and (1, 0) places beyond the edges on the left, window 2 and (0, 0) places beyond the edges on the"
    unlike = f"max pooling with {both} right (recomputed so"
    cases = (mean(), Pooled(mean(count_include_pad=False)), x, other), (largest, linen, turned, unlike)
    for pool, right, inputs, cause in cases:
        found = parity.derive(Pooled(pool), right, (x,), (inputs,))
        assert not found.proven and not found.missing
        (place,) = found.divergences
        assert place.cause.startswith(cause), place.cause
        assert found.explained == "one operation"


def test_a_limit_that_few_values_reach_is_found_in_every_block():
    """What the matching's weights do not show, those of the proof do: ReLU6 cuts off what is above 6."""
    needs("torch")
    import torch

    class Limited(torch.nn.Module):
        def __init__(self, limited: bool) -> None:
            super().__init__()
            act = torch.nn.ReLU6 if limited else torch.nn.ReLU
            self.blocks = torch.nn.ModuleList(torch.nn.Linear(32, 32) for _ in range(3))
            self.acts = torch.nn.ModuleList(act() for _ in range(3))

        def forward(self, x: Any) -> Any:
            for block, act in zip(self.blocks, self.acts, strict=True):
                x = act(4 * block(x))
            return x

    found = parity.derive(Limited(True), Limited(False), (images(8, 32),))
    assert not found.proven and found.explained == "three activations"
    (place,) = found.divergences
    assert ", and so in 2 more places (recomputed so" in place.cause

"""parity.compare takes the pairs of modules from a Table that was derived."""

from __future__ import annotations

import functools
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import parity
from convert.errors import UsageError
from convert.table.file import load
from parity.comparing.paired_names import _rows, paired
from parity.given.views import View
from parity_tests.conftest import needs
from parity_tests.derive.pairs import initial
from specs.solving.sizes import SizeError
from specs.table import Table

X = np.random.default_rng(0).standard_normal((2, 3, 8, 8))


def torch_net() -> Any:
    import torch

    class Block(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norm, self.fc1, self.fc2 = torch.nn.LayerNorm(8), torch.nn.Linear(8, 16), torch.nn.Linear(16, 8)
            self.qkv = torch.nn.Linear(8, 24)

        def forward(self, x: Any) -> Any:
            x = self.norm(x)
            q, k, v = self.qkv(x).chunk(3, -1)
            x = x + (0.1 * q @ k.mT).softmax(-1) @ v
            return x + self.fc2(self.fc1(x).tanh())

    class Net(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem, self.head = torch.nn.Conv2d(3, 8, 4, 4), torch.nn.Linear(8, 5)
            self.blocks = torch.nn.ModuleList(Block() for _ in range(2))

        def forward(self, x: Any) -> Any:
            x = self.stem(x).flatten(2).mT
            for block in self.blocks:
                x = block(x)
            return self.head(x.mean(1))

    return Net()


def linen_net() -> Any:
    import flax.linen as nn
    import jax
    import jax.numpy as jnp

    class Net(nn.Module):
        @nn.compact
        def __call__(self, x: Any) -> Any:
            x = nn.Conv(8, (4, 4), strides=4, name="patches")(x).reshape(len(x), -1, 8)
            for i in range(2):
                x = nn.LayerNorm(epsilon=1e-5, name=f"ln_{i}")(x)
                q, k, v = (nn.Dense(8, name=f"{part}_{i}")(x) for part in "qkv")
                x = x + jax.nn.softmax(0.1 * q @ k.swapaxes(1, 2)) @ v
                x = x + nn.Dense(8, name=f"down_{i}")(jnp.tanh(nn.Dense(16, name=f"up_{i}")(x)))
            return nn.Dense(5, name="classes")(x.mean(1))

    return Net(), initial(Net(), X.transpose(0, 2, 3, 1))


@functools.cache
def derived() -> Any:
    """Derive the Table of both nets once; it is the same whatever their values are."""
    needs("flax")
    return parity.derive(torch_net(), linen_net(), (X,))


def test_what_was_derived_names_the_modules_of_both_models(tmp_path: Path):
    found, left, right = derived(), torch_net(), linen_net()
    assert found.proven
    right = parity.transfer(left, right, (X,))
    found.table.save(str(tmp_path / "my.table"))
    for names in (found, found.table, load(str(tmp_path / "my.table"))):
        report = parity.compare({"a": left, "b": right}, X, check="layers", names=names, dtype="float64")
        assert report.passed, str(report)
        (result,) = report.results
        taps = [name for name, *_ in result.curve]
        pairs = [f"blocks.{k}.{name}" for k in range(2) for name in ("norm", "fc1", "fc2")]
        assert taps == ["stem", *pairs, "head", "output"]  # and no part of qkv, which is one module on the left alone
        said, why = " ".join(str(report).split()), "not compared, as the Table of names pairs them with no module"
        assert f"a: 2 modules {why}: 'blocks.0.qkv', 'blocks.1.qkv' note:" in said
        assert f"b: 6 modules {why}: 'q.0', 'k.0', 'v.0', 'q.1' and 2 more" in said
        listed = {label: {one.path: one for one in tree} for label, tree in report.modules.items()}
        assert listed["b"]["up_0"].name == listed["a"]["blocks.0.fc1"].name == "blocks.0.fc1"
        assert listed["b"]["up_0"].reason == "" and listed["b"]["q_0"].reason == listed["a"]["blocks.0.qkv"].reason
        assert listed["b"]["q_0"].reason == "the models split modules otherwise"
        assert listed["a"]["blocks.0"].reason.startswith("it has no arrays of its own, so that no line ")
    changed = parity.transfer(left, right, (X,))
    changed[1]["params"]["down_1"]["bias"] = changed[1]["params"]["down_1"]["bias"] + 1e-3
    report = parity.compare({"a": left, "b": changed}, X, check="layers", names=found, dtype="float64")
    assert not report.passed and report.first_divergence == "blocks.1.fc2"


def test_training_without_names_says_that_losses_alone_were_compared():
    needs("torch")
    import torch

    layers = torch.nn.Linear(4, 3), torch.nn.Tanh(), torch.nn.Linear(3, 2)
    models = {"a": torch.nn.Sequential(*layers), "b": torch.nn.Sequential(OrderedDict(zip("xyz", layers, strict=True)))}
    said, x = (
        "a and b agree in the only comparison, but check train compared losses alone, and no parameter.",
        X[:, 0, :2, :4],
    )
    names = {"a": {"0": "x", "2": "z"}}
    for given, alone in ((None, True), (names, False)):
        report = parity.compare(models, x, check="train", dtype="float64", steps=2, names=given)
        assert report.passed and (said in " ".join(str(report).split())) is alone, str(report)


def test_modules_around_the_same_modules_are_listed_beside_each_other():
    """A split module and the module around its parts alone are none."""
    inner = [("fc1", "up"), ("qkv", "attention.q"), ("qkv", "attention.k"), ("proj", "attention.out")]
    shared = [(f"blocks.{k}.{one}", f"layer.{k}.{other}") for k in range(2) for one, other in inner]
    rows = _rows([*shared, ("seq.0", "head")])
    blocks = {"layer": "blocks", **{f"layer.{k}": f"blocks.{k}" for k in range(2)}}
    leaves = {f"layer.{k}.{other}": f"blocks.{k}.{one}" for k in range(2) for one, other in (inner[0], inner[3])}
    assert rows == {**blocks, **leaves, "head": "seq.0"}


@pytest.mark.parametrize("labels", ["ba", "abc"])
def test_a_table_of_other_models_is_refused(labels: str):
    found, left, right = derived(), torch_net(), linen_net()
    models = dict(zip(labels, [right, left, left] if labels == "ba" else [left, right, left], strict=False))
    why = "the Table's left side is a, and b is given first: exchange" if labels == "ba" else "two models, not of 3"
    with pytest.raises(UsageError, match=why) as caught:
        parity.compare(models, X, names=found)
    assert not caught.value.problems


def test_a_module_whose_bias_is_one_term_of_a_sum_is_no_pair():
    """Its output differs by what the other terms add outside of it."""
    import torch

    class Net(torch.nn.Module):
        def __init__(self, bias: float) -> None:
            super().__init__()
            self.fc, self.head = torch.nn.Linear(4, 6), torch.nn.Linear(6, 3)
            if bias:
                self.added = torch.nn.Parameter(torch.full((6,), bias))

        def forward(self, x: Any) -> Any:
            return self.head(self.fc(x) + (self.added if hasattr(self, "added") else 0))

    left, right = Net(0.0), Net(0.5)
    right.load_state_dict({**left.state_dict(), "added": right.added, "fc.bias": left.fc.bias - 0.5})
    same = {"fc.weight": "o i", "head.weight": "o i", "head.bias": "o"}
    lines = [f"{name}: {axes} <-> {name}: {axes}" for name, axes in same.items()]
    table = Table.parse("\n".join(["table 1", *lines, "fc.bias: o <- fc.bias: o + added: o"]))
    report = parity.compare({"a": left, "b": right}, X[:, 0, 0, :4], check="layers", names=table, dtype="float64")
    assert report.passed and [name for name, *_ in report.results[0].curve] == ["head", "output"], str(report)
    assert "1 module not compared" in " ".join(str(report).split())


def attention_net(fused: bool) -> Any:
    import torch

    class Net(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norms = torch.nn.ModuleList(torch.nn.LayerNorm(8) for _ in range(2))
            if fused:
                self.attention = torch.nn.MultiheadAttention(8, 2, batch_first=True)
            else:
                self.qkv, self.proj = torch.nn.Linear(8, 24), torch.nn.Linear(8, 8)

        def forward(self, x: Any) -> Any:
            y = self.norms[0](x)
            if fused:
                return self.norms[1](x + self.attention(y, y, y, need_weights=False)[0])
            q, k, v = (part.unflatten(-1, (2, 4)).transpose(1, 2) for part in self.qkv(y).chunk(3, -1))
            return self.norms[1](x + self.proj(((q @ k.mT / 2).softmax(-1) @ v).transpose(1, 2).flatten(2)))

    return Net()


def test_a_linear_of_queries_keys_and_values_is_no_pair_of_a_whole_attention():
    """in_proj_weight is an array of nn.MultiheadAttention itself, which computes with its out_proj as a function."""
    left, right = attention_net(False), attention_net(True)
    x = np.random.default_rng(1).standard_normal((3, 5, 8))
    found = parity.derive(left, right, (x,))
    assert found.proven
    right = parity.transfer(left, right, (x,))
    report = parity.compare({"a": left, "b": right}, x, check="layers", names=found, dtype="float64")
    assert report.passed and "never called" not in str(report), str(report)
    assert [name for name, *_ in report.results[0].curve] == ["norms.0", "norms.1", "output"]
    right.norms[1].eps = 1e-3
    report = parity.compare({"a": left, "b": right}, x, check="layers", names=found, dtype="float64")
    assert report.first_divergence == "norms.1", str(report)
    assert "epsilon is 1e-5 in a, 1e-3 in b" in " ".join(str(report).split())


def two(first: str, second: str) -> Any:
    import torch

    layers = {first: torch.nn.Linear(8, 8), second: torch.nn.Linear(8, 3)}
    return torch.nn.Sequential(OrderedDict(layers))


def test_gradients_of_arrays_that_a_table_pairs_with_no_module_have_to_agree_too():
    """A projection of queries, keys and values against three: the Table's line pairs them, part by part."""
    needs("torch")
    needs("flax")
    import torch

    class Doubled(torch.nn.Linear):
        def forward(self, x: Any) -> Any:
            weight = 2 * self.weight - self.weight.detach()  # the same value, twice the gradient
            return torch.nn.functional.linear(x, weight, self.bias)

    found, left = derived(), torch_net()
    other = parity.transfer(left, linen_net(), (X,))

    def compared() -> Any:
        return parity.compare({"a": left, "b": other}, X, dtype="float64", check="gradients", names=found)

    right = compared()
    assert right.passed and "not compared" not in str(right), str(right)
    left.blocks[1].qkv.__class__ = Doubled
    wrong = compared()
    assert not wrong.passed and wrong.first_divergence == "params/v_1/kernel"


def test_lengths_that_no_shape_shows_are_not_needed_to_name_modules():
    """Which array becomes which is the same whatever the lengths."""
    needs("torch")
    lines = "a.weight: (h d) i <-> x.weight: (d h) i", "b.weight: o i <-> y.weight: o i"
    table = Table.parse("\n".join(["table 1: torch <-> torch", *lines, "{m=a|b}.bias: c <-> {m=x|y}.bias: c"]))
    one, other = two("a", "b"), two("x", "y")
    with pytest.raises(SizeError):
        table.layout(*({name: tuple(array.shape) for name, array in net.state_dict().items()} for net in (one, other)))
    assert set(paired(table, {"one": one, "other": other}, "layers")["other"]) == {"x", "y"}


def test_each_problem_of_a_table_of_other_models_has_a_line():
    needs("torch")
    table = Table.parse("table 1: torch <-> torch\na.weight: o i <-> x.weight: o i")
    with pytest.raises(UsageError, match="names: the Table does not fit one and other") as caught:
        paired(table, {"one": two("a", "b"), "other": two("x", "y")}, "layers")
    assert "\n" not in caught.value.message and len(caught.value.problems) > 2


@pytest.mark.parametrize("check", ["forward", "layers", "gradients", "train"])
def test_the_order_of_axes_that_derive_found_is_that_of_the_input(check: str):
    """Noise of training is drawn before axes are exchanged, and gradients of inputs are exchanged back."""
    needs("torch")
    import torch

    class Net(torch.nn.Module):
        def __init__(self, last: bool):
            super().__init__()
            self.last, self.conv, self.head = last, torch.nn.Conv2d(3, 4, 3), torch.nn.Linear(4, 5)

        def forward(self, x: Any) -> Any:
            return self.head(self.conv(x.permute(0, 3, 1, 2) if self.last else x).tanh().mean((2, 3)))

    for order, (left, right) in (((0, 2, 3, 1), (Net(False), Net(True))), ((0, 3, 1, 2), (Net(True), Net(False)))):
        x = X[:, :, :6] if order[1] == 2 else X[:, :, :6].transpose(0, 2, 3, 1)
        found = parity.derive(left, right, (x,))
        assert found.proven and found.input_order == order
        other = parity.transfer(left, right, (x,))
        report = parity.compare({"a": left, "b": other}, x, check, names=found, dtype="float64", steps=2)
        said = " ".join(str(report).split())
        assert report.passed and f"note: b: gets the input with its axes in the order {order}" in said, said


def test_channels_last_are_given_to_flax_once():
    """Derive finds channels last for a flax model, and `compare` gives them to it already."""
    needs("torch")
    found, left, right = derived(), torch_net(), linen_net()
    assert found.input_order == (0, 2, 3, 1)
    assert not paired(found, {"a": left, "b": right}, "layers")["b"].order


def gated(turned: bool, eps: float = 1e-5) -> Any:
    """A gate whose halves one matrix makes, in either order."""
    import torch

    class Net(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.up, self.norm, self.out = torch.nn.Linear(5, 12), torch.nn.LayerNorm(6, eps), torch.nn.Linear(6, 3)

        def forward(self, x: Any) -> Any:
            halves = self.up(x).chunk(2, -1)
            value, gate = halves[::-1] if turned else halves
            return self.out(self.norm(value.tanh() * gate.sigmoid()))

    return Net().eval()


@pytest.mark.parametrize("eps", [1e-5, 1e-2])
def test_a_module_is_compared_with_its_parts_in_the_order_of_the_table(eps: float):
    """Its output holds the same values in another order, of which the line of the weight says which."""
    needs("torch")
    left, right, x = gated(False), gated(True), np.random.default_rng(0).standard_normal((4, 5))
    found = parity.derive(left, right, (x,))
    assert found.proven and "(-p=2 o)" in found.table.print()
    right = parity.transfer(left, gated(True, eps), (x,), table=found)
    report = parity.compare({"one": left, "two": right}, x, dtype="float64", check="layers", names=found)
    if eps == 1e-5:
        assert report.passed, str(report)
    else:
        assert report.first_divergence == "norm" and "epsilon is 1e-5 in one" in str(report.first_divergence.guess)


def test_a_view_takes_parts_in_another_order_and_puts_them_back():
    view = View((2, 6, 4), (2, 3, 2, 4), (0, 3, 2, 1), (2, 4, 6), ((), (2, 0, 1), (1, 0), ()))
    x = np.arange(48.0).reshape(view.own)
    seen = view.seen(x)
    assert not view.is_plain and seen.shape == view.shape
    np.testing.assert_array_equal(view.back(seen), x)
    assert all(seen[index] == x[view.place(index)] for index in np.ndindex(view.shape))
    flipped = View((6,), (2, 3), (0, 1), (6,), ((1, 0), ()))
    np.testing.assert_array_equal(flipped.seen(np.arange(6)), [3, 4, 5, 0, 1, 2])
    assert not View((6,), (6,), (0,), (6,), ((5, 4, 3, 2, 1, 0),)).is_plain

"""Paired modules that return other shapes: the first divergence where they compute something else."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import parity
from parity.causes.guessing import _best as best
from parity.causes.hypotheses import HYPOTHESES
from parity_tests.conftest import needs
from specs.table import Table

X = np.random.default_rng(0).standard_normal((2, 3, 8, 8))


def convs(names: tuple[str, ...], strides: tuple[int, ...]) -> Any:
    """Return three convolutions; the numbers of channels are the same whatever their strides."""
    import torch

    layers = [torch.nn.Conv2d(i, 4, 3, s, 1) for i, s in zip((3, 4, 4), strides, strict=True)]
    net = torch.nn.Sequential()
    for name, layer in zip(names, layers, strict=True):
        net.add_module(name, layer)
    return net


def test_a_stride_at_another_layer_is_named_where_it_is():
    """The middle layers' outputs have other shapes, and the last ones' have one shape again."""
    needs("torch")
    import torch

    torch.manual_seed(0)
    left, right = convs(("a", "b", "c"), (1, 2, 1)), convs(("x", "y", "z"), (1, 1, 2))
    pairs = ("ax", "by", "cz")
    lines = [f"{one}.{axes} <-> {other}.{axes}" for one, other in pairs for axes in ("weight: o i h w", "bias: c")]
    table = Table.parse("\n".join(["table 1: torch <-> torch", *lines]))
    right.load_state_dict(dict(zip(right.state_dict(), left.state_dict().values(), strict=True)))
    report = parity.compare({"mine": left, "theirs": right}, X, check="layers", names=table, dtype="float64")
    said = " ".join(str(report).split())
    assert report.first_divergence == "b", said
    assert "looks like stride 2x2, padding 1 in mine, stride 1x1, padding 1 in theirs" in said
    assert "shapes differ: [2, 4, 4, 4] in mine, [2, 4, 8, 8] in theirs" in said
    assert "layer before a, error" in said and "whose shapes differ" not in said  # 'b' was compared: it differs


def test_a_dense_layer_is_compared_with_a_convolution_of_one_pixel():
    needs("torch")
    import torch

    class Net(torch.nn.Module):
        def __init__(self, dense: bool):
            super().__init__()
            self.dense, self.last = dense, torch.nn.Conv1d(4, 2, 1)
            self.first = torch.nn.Linear(3, 4) if dense else torch.nn.Conv1d(3, 4, 1)

        def forward(self, x: Any) -> Any:
            return self.last(self.first(x.mT).mT if self.dense else self.first(x))

    left, right = Net(True), Net(False)
    right.load_state_dict({**left.state_dict(), "first.weight": left.first.weight[..., None]})
    lines = "first.weight: o i <-> first.weight: o i 1", "last.weight: o i k <-> last.weight: o i k"
    table = Table.parse(
        "\n".join(["table 1: torch <-> torch", *lines, "{m=first|last}.bias: c <-> {m=first|last}.bias: c"])
    )
    report = parity.compare({"a": left, "b": right}, X[:, :, 0], check="layers", names=table, dtype="float64")
    said = " ".join(str(report).split())
    assert report.passed and [name for name, *_ in report.results[0].curve] == ["first", "last", "output"], said
    assert "b: compared with a's order of axes: 'first'" in said and "not compared" not in said


def test_the_cause_lies_behind_a_module_that_was_compared():
    """A norm returns a grid in one model and a row of tokens in the other."""
    needs("torch")
    import torch

    class Net(torch.nn.Module):
        def __init__(self, factor: float):
            super().__init__()
            self.factor = factor
            self.stem, self.norm, self.head = torch.nn.Linear(8, 8), torch.nn.LayerNorm(8), torch.nn.Linear(8, 5)

        def forward(self, x: Any) -> Any:
            x = self.stem(x)
            x = self.norm(x) if self.factor == 1 else self.norm(x.unflatten(1, (2, -1))).flatten(1, 2)
            return self.head(self.factor * x)

    left, right = Net(1), Net(2)
    right.load_state_dict(left.state_dict())
    table = Table.parse(
        "table 1: torch <-> torch\n{m=stem|head}.weight: o i <-> {m=stem|head}.weight: o i\n"
        "{m=stem|norm|head}.bias: c <-> {m=stem|norm|head}.bias: c\nnorm.weight: c <-> norm.weight: c"
    )
    x = np.random.default_rng(0).standard_normal((2, 4, 8))
    report = parity.compare({"mine": left, "theirs": right}, x, check="layers", names=table, dtype="float64")
    said = " ".join(str(report).split())
    assert report.first_divergence == "head", said
    assert "cause lies after norm and ahead of head, whose input differs already" in said


def test_another_momentum_is_named_where_running_statistics_alone_differ():
    needs("torch")
    import torch

    def net(momentum: float, name: str) -> Any:
        torch.manual_seed(0)
        model = torch.nn.Sequential()
        model.add_module(name, torch.nn.BatchNorm1d(4, momentum=momentum))
        return model

    leaves = "weight", "bias", "running_mean", "running_var"
    lines = [*(f"a.{leaf}: c <-> x.{leaf}: c" for leaf in leaves), "drop <- x.num_batches_tracked: = 0 int64"]
    table = Table.parse("\n".join(["table 1: torch <-> torch", *lines, "a.num_batches_tracked -> drop"]))
    x = np.random.default_rng(0).standard_normal((6, 4))
    for momentum in (0.1, 0.01):
        models = {"mine": net(0.1, "a"), "theirs": net(momentum, "x")}
        report = parity.compare(models, x, check="train", names=table, dtype="float64", steps=2)
        said = " ".join(str(report).split())
        assert report.passed == (momentum == 0.1) and "num_batches_tracked" not in said, said
        named = (
            "set the same momentum of BatchNorm in both models, which keep other shares of the old: 0.9 in mine, 0.99"
        )
        assert (named in said) == (momentum == 0.01), said


def test_a_note_on_both_models_of_the_one_pair_is_written_once():
    needs("torch")
    import torch

    def net(name: str) -> Any:
        model = torch.nn.Sequential()
        model.add_module(name, torch.nn.BatchNorm1d(4))
        return model

    lines = [f"a.{leaf}: c <-> x.{leaf}: c" for leaf in ("weight", "bias", "running_mean", "running_var")]
    lines += ["drop <- x.num_batches_tracked: = 0 int64", "a.num_batches_tracked -> drop"]
    table = Table.parse("\n".join(["table 1: torch <-> torch", *lines]))
    x = np.random.default_rng(0).standard_normal((6, 4))
    models = {"mine": net("a"), "theirs": net("x")}
    report = parity.compare(models, x, check="layers", names=table, dtype="float64")
    said = " ".join(str(report).split())
    assert "were in training mode: 'a' 2 pairs of arrays; error" in said and said.count("'a'") == 1
    models["theirs"].x.eps = 1e-3
    wrong = " ".join(str(parity.compare(models, x, check="layers", names=table, dtype="float64")).split())
    assert "own models" in wrong and "own model " not in wrong and "own model," not in wrong


def test_a_hypothesis_that_divides_by_zero_warns_of_nothing(recwarn: pytest.WarningsRecorder):
    x, zeros = np.random.default_rng(0).standard_normal((6, 4)), np.zeros(4)
    tried = HYPOTHESES["batch_norm"](x, {"mean": zeros, "var": zeros}, x)
    assert best(tried, x / np.sqrt(1e-5), 1e-11)[0] == ("epsilon 1e-5",)
    assert not list(recwarn)


def test_another_order_of_axes_is_no_divergence_where_what_follows_agrees():
    """A norm before a permutation or behind it: on a grid of 4x4 with 4 channels, both outputs have one shape."""
    needs("torch")
    import torch

    class ImageNorm(torch.nn.LayerNorm):
        def forward(self, x: Any) -> Any:
            return super().forward(x.movedim(1, -1)).movedim(-1, 1)

    class Net(torch.nn.Module):
        def __init__(self, norm: Any):
            super().__init__()
            self.first, self.norm, self.last = torch.nn.Conv2d(3, 4, 2, 2), norm(4), torch.nn.Linear(4, 2)

        def forward(self, x: Any) -> Any:
            y = self.first(x)
            of_images = isinstance(self.norm, ImageNorm)
            return self.last(self.norm(y).movedim(1, -1) if of_images else self.norm(y.movedim(1, -1)))

    left, right = Net(ImageNorm), Net(torch.nn.LayerNorm)
    right.load_state_dict(left.state_dict())
    report = parity.compare({"a": left, "b": right}, X, check="layers", dtype="float64")
    said = " ".join(str(report).split())
    assert report.passed and "not compared" in said, said
    assert "'norm' with the same values in another order of axes" in said
    right.last.weight.data[0, 0] += 1  # what follows differs: the order of axes may be the cause
    report = parity.compare({"a": left, "b": right}, X, check="layers", dtype="float64")
    assert report.first_divergence == "norm"


@pytest.mark.parametrize("fault", ["", "scale", "bias of what reads it", "input of what reads it"])
@pytest.mark.parametrize("pooled", [False, True])
def test_a_norm_with_its_activation_inside_is_no_divergence_where_what_reads_it_agrees(pooled: bool, fault: str):
    needs("torch")
    import torch

    class Active(torch.nn.BatchNorm2d):
        def forward(self, x: Any) -> Any:
            return super().forward(x).relu()

    class Net(torch.nn.Module):
        def __init__(self, norm: Any):
            super().__init__()
            self.first, self.norm, self.last = torch.nn.Conv2d(3, 5, 2), norm(5), torch.nn.Conv2d(5, 2, 1)

        def forward(self, x: Any) -> Any:
            y = self.norm(self.first(x)) if isinstance(self.norm, Active) else self.norm(self.first(x)).relu()
            y = y.mean((2, 3), keepdim=True) if pooled else y
            return self.last(y if fault != "input of what reads it" or isinstance(self.norm, Active) else y.flip(1))

    left, right = Net(torch.nn.BatchNorm2d), Net(Active)
    right.load_state_dict(left.state_dict())
    if fault == "scale":
        right.norm.weight.data[1] += 1
    if fault == "bias of what reads it":
        right.last.bias.data += 1
    report = parity.compare({"a": left.eval(), "b": right.eval()}, X, check="layers", dtype="float64")
    said = " ".join(str(report).split())
    assert ("not compared, as what runs next agrees: 'norm' with other values" in said) is report.passed is (not fault)
    assert report.first_divergence == ("norm" if fault else None), said
    assert "The outputs agree." not in said


@pytest.mark.parametrize("inverse", [True, False])
def test_what_runs_next_and_reads_something_else_excuses_nothing(inverse: bool):
    """A query and a key that are scaled. If the scores stay, so do the outputs, which is said first."""
    needs("torch")
    import torch

    class Net(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.query, self.key, self.head = (torch.nn.Linear(4, 4) for _ in range(3))

        def forward(self, x: Any) -> Any:
            return self.head((self.query(x) @ self.key(x).mT).softmax(-1) @ x)

    left, right = Net(), Net()
    right.load_state_dict(left.state_dict())
    for module, factor in ((right.query, 2), (right.key, 0.5 if inverse else 1)):
        module.weight.data *= factor
        module.bias.data *= factor
    x = np.random.default_rng(0).standard_normal((2, 3, 4))
    report = parity.compare({"a": left, "b": right}, x, check="layers", dtype="float64")
    assert report.first_divergence == "query"
    assert str(report).startswith("The outputs agree. a and b differ, first at query" if inverse else "a and b differ")


def sound(last: bool) -> Any:
    """Return two convolutions over time. Args: last: whether they take and return channels last, not second."""
    import torch

    class Last(torch.nn.Conv1d):
        def forward(self, x: Any) -> Any:
            return super().forward(x.swapaxes(1, 2)).swapaxes(1, 2)

    class Net(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            kind = Last if last else torch.nn.Conv1d
            self.one, self.two = kind(3, 8, 3, padding=1), kind(8, 6, 3, stride=2)  # of 8 steps, then 3
            self.head, self.act = torch.nn.Linear(6, 4), torch.tanh

        def forward(self, x: Any) -> Any:
            y = self.two(self.act(self.one(x.swapaxes(1, 2) if last else x)))
            return self.head(y.mean(1 if last else 2))

    return Net().double()


@pytest.mark.parametrize("check", ["layers", "single-step"])
@pytest.mark.parametrize("last", ["right", "left"])
def test_convolutions_are_compared_with_channels_second_and_last(last: str, check: str):
    """The shapes of one show the layout of another one, which would fit both ways."""
    import torch

    one, other = sound(last == "left"), sound(last == "right")
    other.load_state_dict(one.state_dict())
    axes = {f"{name}.weight": "o i w" for name in ("one", "two")} | {"head.weight": "o i"}
    axes |= {f"{name}.bias": "c" for name in ("one", "two", "head")}
    table = Table.parse("table 1\n" + "".join(f"{name}: {axes[name]} <-> {name}: {axes[name]}\n" for name in axes))
    x = np.random.default_rng(0).standard_normal((2, 3, 8))
    report = parity.compare({"a": one, "b": other}, x, check=check, names=table)
    (result,) = report.results
    taps = [name for name, *_ in result.curve if " <- " not in name]
    assert report.passed and taps == ["one", "two", "head", "output"], str(report)
    assert "compared with a's order of axes: 'one', 'two'" in result.cause
    other.act = torch.relu
    report = parity.compare({"a": one, "b": other}, x, check=check, names=table)
    assert report.first_divergence == ("two" if check == "layers" else "two <- 0"), str(report)
    other.act = torch.tanh
    with torch.no_grad():
        other.one.weight *= 1.001
    report = parity.compare({"a": one, "b": other}, x, check=check, names=table)
    errors = {name: error for name, error, _ in report.results[0].curve}
    assert report.first_divergence == "one" and 5e-4 < errors["one"] < 2e-3, str(report)


def test_the_same_values_in_another_order_of_tokens_are_not_compared():
    """Windows of 2x2 tokens each hold what lies in two rows of a grid."""
    needs("torch")
    import torch

    class Net(torch.nn.Module):
        def __init__(self, windows: bool):
            super().__init__()
            self.windows, self.norm, self.head = windows, torch.nn.LayerNorm(8), torch.nn.Linear(8, 5)

        def forward(self, x: Any) -> Any:
            grid = x.unflatten(1, (4, 4))
            if self.windows:
                y = self.norm(grid.unflatten(1, (2, 2)).unflatten(3, (2, 2)).transpose(2, 3).reshape(-1, 4, 4, 8))
            else:
                y = self.norm(x)
            return self.head(y.reshape(len(x), -1, 8).mean(1))

    left, right = Net(False), Net(True)
    right.load_state_dict(left.state_dict())
    table = Table.parse("table 1\nhead.weight: o i <-> head.weight: o i\nnorm.weight: c <-> norm.weight: c\n"
                        "{m=norm|head}.bias: c <-> {m=norm|head}.bias: c")  # fmt: skip
    x = np.random.default_rng(0).standard_normal((2, 16, 8))
    report = parity.compare({"a": left, "b": right}, x, check="layers", names=table, dtype="float64")
    said = " ".join(str(report).split())
    assert report.passed and "'norm', whose shapes differ" in said and "order of axes" not in said, said

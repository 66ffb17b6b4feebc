"""Users' models that take and return more than one array: positions, names, dictionaries, token ids."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import pytest

import parity
from convert.errors import UsageError

torch = pytest.importorskip("torch", reason="torch is not installed")
nn = pytest.importorskip("flax.linen", reason="flax is not installed")

import jax  # noqa: E402  # after flax is known to be there

RNG = np.random.default_rng(0)
KERNEL, TABLE = RNG.standard_normal((4, 4)), RNG.standard_normal((5, 4))
X, Y = RNG.standard_normal((2, 3, 4)), RNG.standard_normal((2, 3, 4))
IDS = RNG.integers(0, 5, (2, 3))
CHECKS = ["forward", "layers", "single-step", "gradients", "train"]
pytestmark = pytest.mark.usefixtures("float64")


class Pair(NamedTuple):
    hidden: Any
    rest: Any


class Mix(torch.nn.Module):
    """Takes two arrays; returns a dictionary with a tuple in it."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.from_numpy(KERNEL.copy()))

    def forward(self, x: Any, other: Any) -> Any:
        return {"out": x @ self.weight + other, "parts": Pair(x * 2, [other * 3, None])}


class Torch(torch.nn.Module):
    def __init__(self, by_name: bool, factor: float = 3.0) -> None:
        super().__init__()
        self.mix, self.embed, self.by_name, self.factor = Mix(), torch.nn.Embedding(5, 4), by_name, factor
        self.embed.weight.data = torch.from_numpy(TABLE.copy())

    def forward(self, x: Any, ids: Any = None, *, other: Any) -> Any:
        x = x if ids is None else x + self.embed(ids)
        mixed = self.mix(x, other=other) if self.by_name else self.mix(x, other)
        return mixed["out"] * mixed["parts"].hidden, {"tail": mixed["parts"].rest[0] * self.factor / 3}


class LinenMix(nn.Module):
    @nn.compact
    def __call__(self, x: Any, other: Any) -> Any:
        weight = self.param("weight", nn.initializers.ones, (4, 4))
        return {"parts": (x * 2, [other * 3, None]), "out": x @ weight + other}


class Linen(nn.Module):
    @nn.compact
    def __call__(self, x: Any, ids: Any = None, *, other: Any) -> Any:
        x = x if ids is None else x + nn.Embed(5, 4, name="embed")(ids)
        mixed = LinenMix(name="mix")(x, other)
        return mixed["out"] * mixed["parts"][0], {"tail": mixed["parts"][1][0]}


def linen() -> Any:
    return Linen(), {
        "params": {"mix": {"weight": jax.numpy.asarray(KERNEL)}, "embed": {"embedding": jax.numpy.asarray(TABLE)}}
    }


NAMES = {"torch": {"mix": "mix"}, "linen": {"mix": "mix"}}


@pytest.mark.parametrize("check", CHECKS)
@pytest.mark.parametrize("by_name", [False, True])
def test_several_arrays_go_in_and_come_out(check: str, by_name: bool) -> None:
    """One side calls its module by position, the other by name."""
    inputs = parity.Inputs(X, other=Y)
    models = {"torch": Torch(by_name), "linen": linen()}
    report = parity.compare(models, inputs, check, names=NAMES, steps=2)
    assert report.passed, str(report)
    names = [name for name, _, _ in report.results[0].curve]
    if check == "layers":
        assert names == ["mix:out", "mix:parts.0", "mix:parts.1.0", "output", "output:1.tail"]
    if check == "single-step":
        assert names[:3] == ["mix <- 0", "mix <- 1", "mix:out"]
    if check == "gradients":
        assert names[-2:] == ["images", "images:other"]


@pytest.mark.parametrize("check", CHECKS)
def test_token_ids_stay_integers(check: str) -> None:
    models = {"torch": Torch(True), "linen": linen()}
    inputs = parity.Inputs(X, IDS, other=Y)
    names = {"torch": {"mix": "mix"}, "linen": {"mix": "mix"}}
    report = parity.compare(models, inputs, check, names=names, steps=2)
    assert report.passed, str(report)
    if check == "gradients":
        assert "images:1" not in [name for name, _, _ in report.results[0].curve]


def test_a_fault_in_a_further_output_is_named() -> None:
    models = {"torch": Torch(True, factor=3.5), "linen": linen()}
    for check in ("forward", "layers", "single-step"):
        report = parity.compare(models, parity.Inputs(X, other=Y), check, names=NAMES)
        assert report.first_divergence == "output:1.tail"


def test_a_dict_names_arguments_and_a_tuple_places_them() -> None:
    model = torch.nn.Bilinear(4, 4, 2).double()
    for inputs in ((X, Y), {"input1": X, "input2": Y}):
        assert parity.compare({"a": model, "b": model}, inputs, "single-step").passed


class One(torch.nn.Module):
    """A module of two arrays in one model, of one in the other."""

    def __init__(self, two: bool) -> None:
        super().__init__()
        self.two = two
        self.mix = Two() if two else Alone()

    def forward(self, x: Any) -> Any:
        return self.mix(x, x) if self.two else self.mix(x)


class Alone(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.from_numpy(KERNEL.copy()))

    def forward(self, x: Any) -> Any:
        return x @ self.weight


class Two(Alone):
    def forward(self, x: Any, other: Any) -> Any:
        return x @ self.weight + 0 * other


def test_inputs_that_do_not_correspond_are_named() -> None:
    report = parity.compare({"a": One(False), "b": One(True)}, X, "single-step")
    assert report.passed  # the outputs agree
    assert "in b: 'mix <- 1'" in report.results[0].cause


class Opaque:
    def __init__(self, array: Any) -> None:
        self.array = array


class Hiding(Alone):
    def forward(self, x: Any) -> Any:
        return Opaque(super().forward(x))


class Holder(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.mix = Hiding()

    def forward(self, x: Any) -> Any:
        return self.mix(x).array


def test_a_result_whose_arrays_cannot_be_seen_is_refused() -> None:
    model = Holder()
    with pytest.raises(UsageError, match="module 'mix' returns an Opaque, whose arrays cannot be compared"):
        parity.compare({"a": model, "b": model}, X, "layers")
    assert parity.compare({"a": model, "b": model}, X, "forward").passed


class Output(torch.nn.Module):
    """A module whose path is the name of the whole model's output."""

    def __init__(self) -> None:
        super().__init__()
        self.output = Alone()

    def forward(self, x: Any) -> Any:
        return self.output(x) + 1


def test_a_module_called_output_does_not_take_the_place_of_the_models_output() -> None:
    report = parity.compare({"a": Output(), "b": Output()}, X, "layers")
    assert [name for name, _, _ in report.results[0].curve] == ["output (module)", "output"]


class Unreached(Alone):
    def __init__(self) -> None:
        super().__init__()
        self.spare = Alone()


def test_a_named_module_that_never_runs_is_refused() -> None:
    names = {"a": {"spare": "spare"}, "b": {"spare": "spare"}}
    with pytest.raises(UsageError, match="module 'spare' is not called in this run"):
        parity.compare({"a": Unreached(), "b": Unreached()}, X, "layers", names=names)


def test_a_model_without_numbers_in_or_out_is_refused() -> None:
    model = Alone()
    with pytest.raises(UsageError, match="the inputs hold no array"):
        parity.compare({"a": model, "b": model}, parity.Inputs(mask=None))


class Counted(torch.nn.Module):
    """Returns a product with a number that is no array, and a flag."""

    def __init__(self, factor: float = 1.0) -> None:
        super().__init__()
        self.weight, self.factor = torch.nn.Parameter(torch.from_numpy(KERNEL.copy())), factor

    def forward(self, x: Any) -> Any:
        y = x @ self.weight
        return {"y": y, "loss": self.factor * y.sum().item(), "flag": True}


class CountedLinen(nn.Module):
    @nn.compact
    def __call__(self, x: Any) -> Any:
        y = x @ self.param("weight", lambda _: jax.numpy.asarray(KERNEL))
        return {"y": y, "loss": 3.0}


@pytest.mark.parametrize("check", ["forward", "layers", "gradients", "train"])
def test_numbers_that_are_no_arrays_are_named_as_not_compared(check: str) -> None:
    models = {"a": Counted(), "b": Counted(-7.0), "c": (CountedLinen(), {"params": {"weight": KERNEL}})}
    report = parity.compare(models, X, check, steps=1)
    note = "numbers that are no arrays are not compared: 'output:loss'"
    assert [note in result.cause for result in report] == [True] * 3
    assert "flag" not in str(report)
    alone = parity.compare({"a": models["a"], "b": Mixed()}, X, check, steps=1)
    assert f"a: {note}" in alone.results[0].cause


class Mixed(Counted):
    def forward(self, x: Any) -> Any:
        return {"y": x @ self.weight}

"""Test what of a model's result is compared: arrays and numbers in any container, or nothing without a word."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

import parity
from convert.errors import UsageError

from ..conftest import needs

X = np.random.default_rng(0).standard_normal((3, 4))


@dataclass
class Result:
    """A result as models return it."""

    first: Any
    second: Any


FORMS: dict[str, Callable[[Any, Any], Any]] = {
    "dataclass": Result,
    "dataclass in a mapping": lambda a, b: {"a": a, "rest": Result(b, None)},
    "number": lambda a, b: (a, b.sum().item()),
    "short floats": lambda a, b: (a, b.astype("bfloat16") if hasattr(b, "astype") else b.bfloat16()),
    "NumPy array": lambda a, b: (a, b.detach().numpy()),
    "truth values": lambda a, b: [a, (b > 0).tolist()],
}


def model(framework: str, form: Callable[[Any, Any], Any], factor: int) -> Any:
    """Return a model of two dense layers; the second one's values are multiplied by a factor."""
    needs(framework)
    if framework == "torch":
        from torch import nn

        base: Any = nn.Module
    else:
        from paddle import nn

        base = nn.Layer

    class Net(base):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.one, self.two = nn.Linear(4, 5), nn.Linear(4, 3)

        def forward(self, x: Any) -> Any:
            return form(self.one(x), self.two(x) * factor)

    return Net()


@pytest.mark.parametrize("framework", ["torch", "paddle"])
@pytest.mark.parametrize("form", FORMS, ids=lambda name: name.replace(" ", "-"))
def test_everything_in_a_result_is_compared(form: str, framework: str):
    left, equal, unlike = (model(framework, FORMS[form], factor) for factor in (1, 1, -3))
    same, found = parity.derive(left, equal, (X,)), parity.derive(left, unlike, (X,))
    assert same.proven and not same.unobservable
    assert not found.proven


class Opaque:
    """A result that no tool can look into."""

    def __init__(self, value: Any):
        self.value = value


@pytest.mark.parametrize(
    "form",
    [lambda a, b: (a, Opaque(b)), lambda a, b: {"a": a, "b": "name"}, lambda a, b: (a, np.array(["name"]))],
    ids=["own", "text", "texts"],
)
def test_what_cannot_be_compared_is_refused_with_the_remedy(form: Callable[[Any, Any], Any]):
    plain, hidden = model("torch", lambda a, b: (a, b), 1), model("torch", form, 1)
    remedy = r"returns an? (Opaque|str|ndarray), which cannot be compared: .* parity.Call\(\.\.\., output=\.\.\.\)"
    for side, pair in (("left", (hidden, plain)), ("right", (plain, hidden))):
        with pytest.raises(UsageError, match=f"the {side} model {remedy}" if side == "left" else remedy):
            parity.derive(*pair, (X,))


def test_other_numbers_of_outputs_are_named_with_the_remedy():
    found = parity.derive(model("torch", lambda a, b: a, 1), model("torch", lambda a, b: (a, 1), 1), (X,))
    assert not found.proven and found.incomparable == "1 on the left, 2 on the right"
    assert "parity.Call(..., output=...) picks" in found.following


def test_numbers_and_dataclasses_of_jax_are_compared():
    needs("flax")

    def net(number: float) -> Any:
        return lambda p, x: {"a": Result(x @ p["w"], None), "scale": number}

    p = {"w": np.eye(4)}
    assert parity.derive((net(2), p), (net(2), p), (X,)).proven
    assert not parity.derive((net(2), p), (net(3), p), (X,)).proven
    with pytest.raises(UsageError, match="the left model returns a str, which cannot be compared"):
        parity.derive((lambda p, x: (x @ p["w"], "name"), p), (net(2), p), (X,))


def test_outputs_of_mappings_are_compared_by_their_keys():
    """JAX sorts keys under jit: by position, the heads would be exchanged in a Table that is called proven."""
    needs("torch")
    needs("flax")
    import jax
    import jax.numpy as jnp
    import torch

    class Net(torch.nn.Module):
        def __init__(self, names: tuple[str, str] = ("mean", "logvar")) -> None:
            super().__init__()
            self.names, self.trunk = names, torch.nn.Linear(6, 8, bias=False)
            self.mean, self.logvar = (torch.nn.Linear(8, 5, bias=False) for _ in range(2))

        def forward(self, x: Any) -> Any:
            h = torch.tanh(self.trunk(x))
            return dict(zip(self.names, (self.mean(h), self.logvar(h)), strict=True))

    @jax.jit
    def net(p: Any, x: Any) -> Any:
        h = jnp.tanh(x @ p["trunk"])
        return {"mean": h @ p["mean"], "logvar": h @ p["logvar"]}

    rng = np.random.default_rng(0)
    weights = {"trunk": rng.standard_normal((6, 8)), **{n: rng.standard_normal((8, 5)) for n in ("mean", "logvar")}}
    x = rng.standard_normal((4, 6))
    found = parity.derive(Net(), (net, weights), (x,))
    assert found.proven and "mean.weight: o i <-> mean: i o" in found.table.print(), found.table.print()
    found = parity.derive(Net(), Net(("logvar", "mean")), (x,))
    assert found.proven and "mean.weight: o i <-> logvar.weight: o i" in found.table.print(), found.table.print()


def heads(*names: str, none: str = "") -> Any:
    """Return a torch model with two heads whose outputs have these names; of `none`, the output is None."""
    import torch

    class Net(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.trunk = torch.nn.Linear(4, 6, bias=False)
            self.first, self.second = (torch.nn.Linear(6, 5, bias=False) for _ in range(2))

        def forward(self, x: Any) -> Any:
            h = torch.tanh(self.trunk(x))
            out = dict(zip(names, (self.first(h), self.second(h)), strict=False))
            return {**out, none: None} if none else out

    return Net()


def test_outputs_of_one_name_go_together_and_other_pairs_are_named():
    needs("torch")
    found = parity.derive(heads("a", "logits"), heads("logits", "z"), (X,))
    assert found.proven and "second.weight: o i <-> first.weight: o i" in found.table.print()
    assert found.correspondence == ("output a of the left model is compared with z of the right one",)
    assert found.correspondence[0] in str(found) and found.correspondence[0] in found.table.print()
    assert not parity.derive(heads("a", "logits"), heads("logits", "a"), (X,)).correspondence
    found = parity.derive(heads("a", "b"), heads("c", "d"), (X,))
    assert found.proven and "first.weight: o i <-> first.weight: o i" in found.table.print()
    assert len(found.correspondence) == 2


def test_outputs_whose_paths_are_written_alike_are_all_compared():
    needs("torch")
    import torch

    class Net(torch.nn.Module):
        def __init__(self, act: Any) -> None:
            super().__init__()
            self.one, self.two, self.act = torch.nn.Linear(4, 3), torch.nn.Linear(4, 3), act

        def forward(self, x: Any) -> Any:
            return {"a": {"b": self.act(self.one(x))}, "a/b": self.two(x)}

    same, other = (parity.derive(Net(torch.tanh), Net(act), (X,)) for act in (torch.tanh, torch.relu))
    assert same.proven and not same.unobservable and not other.proven


def test_none_is_no_array_where_outputs_are_turned_or_in_another_order():
    needs("torch")
    import torch

    class Net(torch.nn.Module):
        def __init__(self, form: Any) -> None:
            super().__init__()
            self.one, self.form = torch.nn.Linear(4, 5), form

        def forward(self, x: Any) -> Any:
            return self.form(self.one(x))

    for left, right in (
        (lambda y: {"a": y, "b": None}, lambda y: {"a": None, "b": y.T}),
        (lambda y: {"a": y, "b": y * 2, "c": None}, lambda y: {"a": None, "b": y * 2, "c": y}),
    ):
        found = parity.derive(Net(left), Net(right), (X,))
        assert not found.proven and "a is None on the right" in found.incomparable


def test_an_output_that_one_model_lacks_is_no_equal_one():
    needs("torch")
    found = parity.derive(heads("mean", none="scale"), heads("scale", none="mean"), (X,))
    assert not found.proven
    assert found.incomparable == (
        "mean is None on the right and an array on the left; scale is None on the left and an array on the right"
    )
    assert "not proven: outputs not comparable, mean is None on the right" in str(found)
    assert parity.derive(heads("mean", none="scale"), heads("mean", none="scale"), (X,)).proven


def test_outputs_that_are_all_zero_are_called_so():
    """They are whole numbers too, but are chosen from no values."""
    needs("torch")
    import torch

    class Zero(torch.nn.Linear):
        def forward(self, x: Any) -> Any:
            return super().forward(x) * 0

    found = parity.derive(Zero(4, 2), Zero(4, 2), (X,))
    assert not found.proven and "outputs are all zero, which shows nothing" in str(found), str(found)
    assert "next: let both models return outputs that depend on their weights" in str(found)

"""Causes of differences that recomputing confirms: one for all places where it holds, and the true one."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional as f

import parity
from parity.derive import Divergence
from parity.derive.conclude import partings
from parity.derive.report import page
from parity_tests.conftest import needs
from parity_tests.derive.pairs import images
from parity_tests.derive.test_kinds_matching import Net, linear


def gated(act: Callable[[Any], Any], fused: bool) -> Net:
    """A gated layer, its gate and its values from one matrix or from two."""
    if fused:
        return Net(lambda m, x: m.out(torch.mul(act(m.both(x)[..., :5]), m.both(x)[..., 5:])), both=linear(6, 10),
                   out=linear(5, 4))  # fmt: skip
    return Net(lambda m, x: m.out(act(m.gate(x)) * m.up(x)), gate=linear(6, 5), up=linear(6, 5), out=linear(5, 4))


@pytest.mark.parametrize("fused", [False, True])
def test_an_activation_that_is_one_factor_of_a_product_is_named(fused: bool):
    left, right = gated(f.gelu, False), gated(lambda x: f.gelu(x, approximate="tanh"), fused)
    found = parity.derive(left, right, (images(4, 6),))
    assert not found.missing and found.explained == "one activation"
    assert "GELU by the error function on the left, GELU by tanh on the right (recomputed so" in str(found)


@pytest.mark.parametrize(("left", "right", "names"), [
    (f.mish, f.gelu, ("Mish", "GELU by the error function")),
    (f.hardsigmoid, torch.sigmoid, ("hard sigmoid", "sigmoid")),
    (f.elu, lambda x: x, ("ELU", "no activation")),
    (lambda x: x * torch.sigmoid(x), f.silu, None),
])  # fmt: skip
def test_activations_are_named_in_whatever_operations_they_are_written(left: Any, right: Any, names: Any):
    left, right = (Net(lambda m, x, act=act: m.out(act(m.fc(x))), fc=linear(), out=linear()) for act in (left, right))
    found = parity.derive(left, right, (images(4, 6),))
    assert found.proven == (names is None)
    if names:
        cause = f"{names[0]} on the left, {names[1]} on the right (recomputed so"
        assert found.divergences[0].cause.startswith(cause)


@pytest.mark.parametrize(("function", "text"), [
    (torch.sin, "sin"),
    (lambda x: torch.sin(9 * x), "sin(9 * x)"),
    (lambda x: 30 * torch.tanh(x / 30), "30 * tanh(x / 30)"),
    (lambda x: x * torch.sigmoid(1.7 * x), "x * sigmoid(1.7 * x)"),
    (lambda x: torch.exp(x - 1) * 3, "3 * exp(x - 1)"),
    (lambda x: 3 * (2 * x).clamp(-0.3, 0.5), "3 * clamp(2 * x, min=-0.3, max=0.5)"),
    (lambda x: x / (1 + x**2), "x / (pow(x, exponent=2) + 1)"),
])  # fmt: skip
def test_a_function_that_one_side_applies_is_written_out(function: Any, text: str):
    functions = function, lambda x: x
    left, right = (Net(lambda m, x, of=of: m.out(of(m.fc(x))), fc=linear(), out=linear()) for of in functions)
    (place,) = parity.derive(left, right, (images(4, 6),)).divergences
    assert place.what == f"the left applies {text}, the right does not" and place.rest < 1e-12  # as it is left out


def test_an_activation_before_a_sum_is_named_and_no_product_in_place_of_the_sum():
    def net(function: Any) -> Net:
        def run(m: Any, x: Any) -> Any:
            x = m.stem(x)
            return m.out(m.norm(x + function(m.conv(x.mT)[:, :, :-1]).mT))

        conv, norm = torch.nn.Conv1d(6, 6, 4, padding=2), torch.nn.LayerNorm(6)
        return Net(run, stem=linear(), conv=conv, norm=norm, out=linear())

    (place,) = parity.derive(net(f.gelu), net(lambda x: x), (images(2, 7, 6),)).divergences
    assert place.what == "the left applies GELU by the error function, the right does not"


def test_slopes_of_a_leaky_relu_are_named():
    functions = lambda x: f.leaky_relu(x, 0.1), lambda x: torch.where(x > 0, x, 0.01 * x)
    left, right = (Net(lambda m, x, of=of: m.out(of(m.fc(x))), fc=linear(), out=linear()) for of in functions)
    (place,) = parity.derive(left, right, (images(4, 6),)).divergences
    assert place.what == "leaky_relu(x, negative_slope=0.1) on the left, leaky ReLU of slope 0.01 on the right"


def test_functions_of_other_numbers_are_causes_of_their_own():
    def net(first: float, second: float) -> Net:
        return Net(
            lambda m, x: m.out(torch.sin(second * m.up(torch.sin(first * m.fc(x)))) if first else m.up(m.fc(x))),
            fc=linear(), up=linear(), out=linear(),
        )  # fmt: skip

    places = parity.derive(net(9, 5), net(0, 0), (images(4, 6),)).divergences
    assert [place.what for place in places] == [f"the left applies sin({n} * x), the right does not" for n in (9, 5)]


def test_more_differences_than_are_explained_are_at_least_those():
    def blocks(acts: list[Any]) -> Net:
        parts = {f"fc{k}": linear() for k in range(len(acts) + 1)}

        def run(m: Any, x: Any) -> Any:
            for k, act in enumerate(acts):
                x = x + act(getattr(m, f"fc{k}")(x))
            return getattr(m, f"fc{len(acts)}")(x)

        return Net(run, **parts)

    slopes = [lambda x, k=k: f.leaky_relu(x, 0.1 + 0.05 * k) for k in range(10)]
    found = parity.derive(blocks([lambda x: f.leaky_relu(x, 0.02)] * 10), blocks(slopes), (images(8, 6),))
    assert not found.missing and not found.confirmed and found.explained.startswith("at least ")


def test_one_fault_at_places_that_are_not_alike_is_one_cause_with_the_number_of_all():
    """Half of the activations of one side are others, so that no replacement of all of them is right."""
    names = ["stem", "body", "neck", "tail", "left", "right", "up", "down", "first", "last"]

    def net(other: Any) -> Net:
        def run(m: Any, x: Any) -> Any:
            for name in names:
                y = getattr(m, f"{name}_in")(other(getattr(m, f"{name}_norm")(x)))
                x = x + getattr(m, f"{name}_out")(f.silu(y))
            return m.head(x)

        layers = {f"{name}_{side}": linear() for name in names for side in ("in", "out")}
        return Net(run, head=linear(), **layers, **{f"{name}_norm": torch.nn.LayerNorm(6) for name in names})

    found = parity.derive(net(f.silu), net(lambda x: x), (images(40, 6),))
    (place,) = found.divergences
    assert place.cause.startswith("SiLU on the left, no activation on the right, and so in 9 more places (recomputed ")
    assert found.explained == "ten activations" and found.confirmed and len(place.places) == place.times == 10


def test_partners_are_marked_where_a_window_differs_before_them():
    """What follows other padding is not compared: which of two layers of one input is which, no outputs confirm."""

    def net(padding: int, turned: bool) -> Net:
        def run(m: Any, x: Any) -> Any:
            y = torch.relu(m.a(x)).mean((2, 3))
            one, two = (m.two, m.one) if turned else (m.one, m.two)
            return m.out(torch.relu(one(y)) * (1 + torch.relu(two(y))))

        conv = torch.nn.Conv2d(3, 4, 3, padding=padding)
        return Net(run, a=conv, one=linear(4, 4), two=linear(4, 4), out=linear(4, 5))

    found = parity.derive(net(1, False), net(0, True), (images(2, 3, 9, 9),))
    assert not found.missing and not found.confirmed
    chosen = "one of several left parameters or row orders that fit was chosen, and no outputs confirm the choice: "
    names = "two.weight, two.bias, one.weight, one.bias"  # a bias follows its weight
    assert all(f"{chosen}{names}" in text for text in (found.table.print(), str(found)))
    assert found.to_dict()["chosen"] == names.split(", ")
    assert "the Table holds" not in str(found)


def test_a_parameter_that_the_right_model_lacks_is_named():
    left = Net(
        lambda m, x: m.out(m.fc(x) * m.scale), fc=linear(), scale=torch.nn.Parameter(torch.randn(6)), out=linear()
    )
    right = Net(lambda m, x: m.out(m.fc(x)), fc=linear(), out=linear(6, 6, False))
    found = parity.derive(left, right, (images(4, 6),))
    assert not found.proven and found.explained == "two missing parameters"
    assert found.divergences[0].cause.startswith(
        "the left adds out.bias and multiplies by scale, the right does not (recomputed so"
    )
    assert "dropped: scale, out.bias on the left, with which that model computes: like=" in str(found)


def test_places_of_one_cause_join_but_not_one_of_which_the_next_cause_explains_the_rest():
    one = Divergence("a", "b", 0.1, "GELU (in a)", kind="activation", places=("b",), rest=1e-9, fault="GELU", more=1)
    other = one._replace(what="GELU (in c)", left="c", places=("d",), more=0)
    assert (
        one.is_like(other)
        and not one.is_like(other._replace(partial=True))
        and not one.is_like(other._replace(kind="norm"))
    )
    joined = one.joined(other)
    assert joined.cause == "GELU (in a), and so in 2 more places (recomputed so, they agree to 1.0e-9)"
    assert joined.places == ("b", "d") and joined.times == 2
    partial = "GELU (in c) (recomputed so, they differ by 0.50, for the next cause)"
    assert other._replace(rest=0.5, partial=True).cause == partial


def normed(*epsilons: float) -> Net:
    parts: dict[str, Any] = {f"n{k}": torch.nn.LayerNorm(6, eps) for k, eps in enumerate(epsilons)}
    parts |= {f"fc{k}": linear() for k in range(len(epsilons))}

    def run(m: Any, x: Any) -> Any:
        for k in range(len(epsilons)):
            x = x + getattr(m, f"fc{k}")(getattr(m, f"n{k}")(x))
        return x

    return Net(run, **parts)


@pytest.mark.parametrize("swapped", [False, True])
def test_epsilons_that_differ_in_some_norms_are_one_cause_whichever_side_has_them(swapped: bool):
    sides = normed(1e-6, 1e-6, 1e-6, 1e-5), normed(1e-5, 1e-5, 1e-5, 1e-5)
    found = parity.derive(*(sides[::-1] if swapped else sides), (images(4, 6),))
    assert not found.missing and found.explained == "three epsilons"
    assert len(found.divergences) == 1 and "and so in 2 more places" in found.divergences[0].cause
    assert f"\nplaces on the {found.divergences[0].changed}: n{{0..2}}\n" in str(found)
    assert "remove all three differences and derive again" in found.following


def test_places_in_code_that_is_called_several_times_are_counted():
    def net(epsilon: float) -> Net:
        def run(m: Any, x: Any) -> Any:
            for _ in range(3):
                x = x + m.fc(m.norm(x))
            return x

        return Net(run, fc=linear(6, 6), norm=torch.nn.LayerNorm(6, epsilon))

    found = parity.derive(net(1e-5), net(1e-3), (images(4, 6),))
    assert found.explained == "three epsilons" and "\nplaces on the right: norm (together 3 uses)\n" in str(found)
    assert "norm (together " in page(found, {})


def test_no_residual_is_missed_where_both_models_have_it():
    """One side scales its branches by parameters and adds a table of positions, so that causes are asked for again."""

    def net(own: bool) -> Net:
        parts: dict[str, Any] = {f"fc{k}": linear() for k in range(2)} | {
            "norm": torch.nn.LayerNorm(6),
            "out": linear(),
        }
        if own:
            parts |= {f"gamma{k}": torch.nn.Parameter(torch.rand(6) + 0.5) for k in range(2)}
            parts |= {"pos": torch.nn.Parameter(torch.randn(5, 6))}

        def run(m: Any, x: Any) -> Any:
            x = x + m.pos if own else x
            for k in range(2):
                branch = torch.tanh(getattr(m, f"fc{k}")(m.norm(x)))
                x = x + (branch * getattr(m, f"gamma{k}") if own else branch)
            return m.out(x)

        return Net(run, **parts)

    found = parity.derive(net(True), net(False), (images(2, 5, 6),))
    assert not found.proven
    assert not any("adds the input" in place.cause or "another term" in place.cause for place in found.divergences)


def test_an_epsilon_of_the_norms_of_all_blocks_is_one_cause_beside_others_that_agree():
    """Some norms have the same epsilon on both sides, so that it is not that of the whole model."""

    def net(blocks: float) -> Net:
        every = [torch.nn.ModuleDict({"norm": torch.nn.LayerNorm(6, eps=blocks), "fc": linear()}) for _ in range(4)]

        def forward(m: Any, x: Any) -> Any:
            x = m.stem(m.first(x))
            for block in m.blocks:
                x = x + block["fc"](block["norm"](x))
            return m.last(x)

        norms = {name: torch.nn.LayerNorm(6, eps=1e-3) for name in ("first", "last")}
        return Net(forward, stem=linear(), blocks=torch.nn.ModuleList(every), **norms)

    found = parity.derive(net(1e-4), net(1e-3), (images(4, 6),))
    (place,) = found.divergences
    assert found.confirmed and place.times == 4, found.divergences
    assert place.cause.startswith("epsilon 1e-4 on the left, 1e-3 on the right, and so in 3 more places (recomputed so")


class Selecting(torch.nn.Module):
    """Two branches, of whose tokens the first alone reaches the head: selected before the last norm or after it."""

    def __init__(self, epsilon: float = 1e-6, early: bool = False) -> None:
        super().__init__()
        self.early, self.mix, self.fc = early, torch.nn.Linear(5, 5), torch.nn.Linear(16, 16)
        self.first, self.last, self.head = torch.nn.LayerNorm(16, epsilon), torch.nn.LayerNorm(16), linear(16, 3)

    def forward(self, x: Any) -> Any:
        x = self.first(x)
        x = x + self.mix(x.mT).mT
        x = x + self.fc(x)
        return self.head(self.last(x[:, 0]) if self.early else self.last(x)[:, 0])


def test_tokens_that_one_side_selects_earlier_are_no_difference():
    found = parity.derive(Selecting(), Selecting(1e-5, early=True), (images(2, 5, 16),))
    (place,) = found.divergences
    assert (
        found.confirmed and place.right == "first" and place.cause.startswith("epsilon 1e-6 on the left, 1e-5 on the")
    )
    assert parity.derive(Selecting(), Selecting(early=True), (images(2, 5, 16),)).proven


def test_an_activation_that_differs_in_some_of_several_places_is_named_for_these_alone():
    """Of all that are ReLU on the left one stays so: the edit of the right side goes further than that of the left."""

    def net(act: Any) -> torch.nn.Module:
        return Net(lambda m, x: m.d(torch.relu(m.c(act(m.b(act(m.a(x))))))), **{k: linear(6, 6) for k in "abcd"})

    found = parity.derive(net(torch.relu), net(torch.nn.functional.elu), (images(16, 6),))
    (place,) = found.divergences
    assert place.cause.startswith("ReLU on the left, ELU on the right, and so in 1 more place (recomputed so")
    assert found.confirmed


def test_causes_are_confirmed_only_with_other_weights_and_inputs(monkeypatch: pytest.MonkeyPatch):
    """With equal outputs on those of the search alone the Table may be wrong where they show nothing."""

    def net(epsilon: float) -> torch.nn.Module:
        return Net(lambda m, x: m.b(m.n(m.a(x))), a=linear(6, 6), b=linear(6, 6), n=torch.nn.LayerNorm(6, eps=epsilon))

    found = parity.derive(net(1e-5), net(1e-3), (images(5, 6),))
    assert found.confirmed and "the Table holds as it is" in str(found)
    monkeypatch.setattr(partings, "_equal", lambda *_: False)
    found = parity.derive(net(1e-5), net(1e-3), (images(5, 6),))
    assert found.explained and not found.confirmed and "the Table holds as it is" not in str(found)


def test_every_place_of_a_cause_is_listed():
    found = parity.derive(normed(1e-5, 1e-5, 1e-5, 1e-5), normed(1e-6, 1e-6, 1e-6, 1e-5), (images(4, 6),))
    (place,) = found.divergences
    assert ", and so in 2 more places" in place.cause and (place.changed, place.places) == ("right", ("n0", "n1", "n2"))
    (shown,) = found.to_dict()["divergences"]
    assert shown["changed"] == "right" and shown["places"] == ["n0", "n1", "n2"]
    about = {"left": "a.py:build", "right": "b.py:build", "command": "derive"}
    text = re.sub(r"<[^>]*>", "", page(found, about, None, ("a.py:build", "b.py:build")))
    assert "places on the rightn{0..2}" in text.replace("\u200b", "")
    assert "n1" not in str(found)


def test_places_outside_of_modules_are_named_by_the_parameters_that_follow():
    needs("flax")
    import jax

    def in_jax(act: Any) -> Any:
        def run(params: Any, x: Any) -> Any:
            for layer in params["layers"]:
                x = act(x @ layer["w"])
            return x @ params["head"]

        return run, {"layers": [{"w": np.ones((6, 6))} for _ in range(3)], "head": np.ones((6, 2))}

    found = parity.derive(in_jax(jax.nn.relu), in_jax(jax.nn.elu), (images(16, 6),))
    (place,) = found.divergences
    assert ", and so in 2 more places" in place.cause
    assert place.places == ("layers/1", "layers/2", "the model's own function"), place


def attention(scale: float | str | tuple[float, ...]) -> Net:
    """Two heads of four channels; "roots" scales queries and keys each by the root of the scale, as Whisper does.

    Three numbers scale queries, keys and scores.
    """

    def run(m: Any, x: Any) -> Any:
        q, k, v = (layer(x).unflatten(-1, (2, -1)).transpose(1, 2) for layer in (m.q, m.k, m.v))
        if scale == "roots":
            y = ((q * 4**-0.25) @ (k * 4**-0.25).mT).softmax(-1) @ v
        elif isinstance(scale, tuple):
            y = ((q * scale[0]) @ (k * scale[1]).mT * scale[2]).softmax(-1) @ v
        elif scale == "fused":
            y = torch.nn.functional.scaled_dot_product_attention(q, k, v)
        else:
            y = (q @ k.mT * scale).softmax(-1) @ v
        return m.o(y.transpose(1, 2).flatten(2))

    return Net(run, **{name: linear(8, 8) for name in "qkvo"})


@pytest.mark.parametrize(
    ("left", "right", "text"),
    [
        ("roots", 1.0, "a factor of 0.5 (1/sqrt(4)) on the left, 1 on the right (recomputed"),
        ("fused", 0.25, "a factor of 0.5 on the left, 0.25 on the right (recomputed"),
        (0.25, "fused", "a factor of 0.25 on the left, 0.5 on the right (recomputed"),
        (8**-0.5, "fused", "a factor of 0.354 (1/sqrt(8)) on the left, 0.5 (1/sqrt(4)) on the right (recomputed"),
        (0.5, 8**-0.5, "a factor of 0.5 (1/sqrt(4)) on the left, 0.354 (1/sqrt(8)) on the right (recomputed"),
        (0.5, 0.25, "a factor of 0.5 on the left, 0.25 on the right (recomputed"),
        ((0.9, 0.8, 0.6), 0.25, "a factor of 0.432 on the left, 0.25 on the right (recomputed"),
        (0.25, (0.9, 0.8, 0.6), "a factor of 0.25 on the left, 0.432 on the right (recomputed"),
        ((0.9, 0.8, 0.6), (0.7, 0.8, 0.5), "a factor of 0.432 on the left, 0.28 on the right (recomputed"),
    ],
)
def test_the_scale_of_attention_is_said_as_each_side_uses_it(left: Any, right: Any, text: str):
    found = parity.derive(attention(left), attention(right), (images(2, 5, 8),))
    assert [place.cause.startswith(f"the scores before the softmax have {text}") for place in found.divergences] == [
        True
    ]


@pytest.mark.parametrize("swapped", [False, True])
def test_one_epsilon_in_place_of_two_is_told_at_each_norm_as_that_side_has_it(swapped: bool):
    sides = [normed(1e-5, 1e-3), normed(1e-6, 1e-6)]
    found = parity.derive(*(sides[::-1] if swapped else sides), (images(4, 6),))
    assert found.confirmed and found.explained == "two epsilons"
    for place, own in zip(found.divergences, ("1e-5", "1e-3"), strict=True):
        one, other = ("1e-6", own) if swapped else (own, "1e-6")
        assert place.cause.startswith(f"epsilon {one} on the left, {other} on the right (recomputed"), found


@pytest.mark.parametrize(("left", "right", "values"), [
    (torch.nn.LayerNorm(6, eps=1e-5), torch.nn.LayerNorm(6, eps=1e-3), ("1e-5", "1e-3")),
    (torch.nn.Sequential(torch.nn.ReLU()), torch.nn.Sequential(torch.nn.SiLU()), ("ReLU", "SiLU")),
    (torch.nn.Softmax(1), torch.nn.Softmax(2), ("axis -2", "axis -1")),
    (torch.nn.AvgPool1d(3, 1, 1), torch.nn.AvgPool1d(3, 1, 1, count_include_pad=False),
     ("count_include_pad True", "count_include_pad False")),
])  # fmt: skip
def test_a_cause_of_one_value_on_each_side_has_both(left: Any, right: Any, values: tuple[str, str]):
    left, right = (
        Net(lambda m, x: m.out(m.part(m.fc(x))), fc=linear(), part=part, out=linear()) for part in (left, right)
    )
    (place,) = parity.derive(left, right, (images(4, 5, 6),)).divergences
    assert place.both == values == tuple(place.to_dict()["values"])


def test_a_cause_that_says_more_than_two_values_has_none():
    left = Net(lambda m, x: m.out(m.fc(x) + x), fc=linear(), out=linear())
    right = Net(lambda m, x: m.out(m.fc(x)), fc=linear(), out=linear())
    (place,) = parity.derive(left, right, (images(4, 6),)).divergences
    assert place.cause.startswith("the left adds") and place.to_dict()["values"] == []


def test_choices_that_equal_outputs_or_scales_confirm_are_not_marked():
    """Both models are equal until a limit that one side alone has: they are not proven, but their lines are right."""

    def branches(act: Callable[[Any], Any], turned: bool) -> Net:
        parts = {name: linear() for name in ("ab", "ba")[turned]}
        return Net(lambda m, x: act(m.a(x)) - act(m.b(x)).flip(-1), **parts)

    found = parity.derive(branches(f.relu6, False), branches(f.relu, True), (images(5, 6),))
    assert not found.proven and not found.missing and found.chosen == found.doubtful == []

    def last(limit: float) -> Net:
        conv, norm = torch.nn.Conv2d(3, 3, 3, bias=False), torch.nn.BatchNorm2d(3)
        return Net(lambda m, x: torch.log(m.norm(m.conv(x)) - limit), conv=conv, norm=norm)

    found = parity.derive(last(0), last(0), (images(2, 3, 8, 8),))
    assert found.incomparable and not found.missing and found.chosen == []

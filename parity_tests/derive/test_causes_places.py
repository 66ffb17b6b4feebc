"""Causes in where something stands: residuals around norms, activations by sums, windows of poolings, strides."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional as f

import parity
from parity.derive.edits.resampling import pools
from parity.derive.search import edited

from ..conftest import needs
from .pairs import images, initial
from .test_kinds_matching import Net, linear, tokens


def blocks(run: Any, *names: str) -> Net:
    """Two blocks of linear layers and a norm, of which `run` returns (block, input) -> output."""

    def forward(m: Any, x: Any) -> Any:
        x = m.stem(x)
        for block in m.blocks:
            x = run(block, x)
        return m.head(x)

    every = [
        torch.nn.ModuleDict({name: linear(8, 8) for name in names} | {"norm": torch.nn.LayerNorm(8)}) for _ in "ab"
    ]
    return Net(forward, stem=linear(8, 8), blocks=torch.nn.ModuleList(every), head=linear(8, 5))


def behind_norm(m: Any, x: Any) -> Any:
    y = m["norm"](x)
    return y + m["fc"](torch.tanh(m["up"](y)))


def around_norm(m: Any, x: Any) -> Any:
    return x + m["fc"](torch.tanh(m["up"](m["norm"](x))))


@pytest.mark.parametrize("swapped", [False, True])
def test_a_residual_that_is_taken_behind_a_norm_is_named(swapped: bool):
    sides = [blocks(run, "up", "fc") for run in (around_norm, behind_norm)][:: -1 if swapped else 1]
    found = parity.derive(*sides, (images(4, 8),))
    (place,) = found.divergences
    terms = ("output", "input") if swapped else ("input", "output")
    does = f"the left adds the {terms[0]} of a norm to the branch behind it, the right its {terms[1]}"
    assert place.what == f"{does}, with blocks.{{0..1}}.norm" and place.times == 2
    assert found.confirmed and found.explained == "two residuals"


@pytest.mark.parametrize("swapped", [False, True])
def test_the_scale_of_a_branch_is_named_though_its_terms_are_compared_in_another_order(swapped: bool):
    """Rows of a table and the bias of a branch are terms of one sum: without the scale, the bias comes last."""

    def net(scale: float) -> Net:
        def run(m: Any, tokens: Any) -> Any:
            x = m.embed(tokens) + m.positions
            branch = m.fc(torch.tanh(m.up(m.norm(x))))
            return m.head(m.last(x + (scale * branch if scale != 1 else branch)))

        norms = {name: torch.nn.LayerNorm(8) for name in ("norm", "last")}
        tables = {"embed": torch.nn.Embedding(11, 8), "positions": torch.nn.Parameter(torch.randn(6, 8))}
        return Net(run, **tables, up=linear(8, 8), fc=linear(8, 8), head=linear(8, 5), **norms)

    sides = [net(1), net(0.5)][:: -1 if swapped else 1]
    found = parity.derive(*sides, (tokens(4, 6),))
    (place,) = found.divergences
    which = ("left", "right") if swapped else ("right", "left")
    assert place.what == f"a factor of 0.5 on the {which[0]}, which the {which[1]} does not have"
    assert found.confirmed


def test_a_place_outside_of_modules_is_that_of_the_first_use_that_reads_it():
    """`beside` is read next, and computes nothing of the activation."""

    def net(function: Any) -> Net:
        def forward(m: Any, x: Any) -> Any:
            first = function(m.first(x))
            return m.out(torch.cat([first, m.beside(x)], -1))

        return Net(forward, first=linear(6, 8), beside=linear(6, 4), out=linear(12, 3))

    (place,) = parity.derive(net(torch.tanh), net(torch.relu), (images(5, 6),)).divergences
    assert place.what == "tanh on the left, ReLU on the right" and place.places == ("out",)


@pytest.mark.parametrize("swapped", [False, True])
def test_a_factor_before_a_norm_has_the_size_of_what_the_norm_reads(swapped: bool):
    """Behind the norm it shows by the epsilon alone: 2 and 1 differ by 1, or by a half, of the left model's values."""

    def net(scale: float) -> Net:
        return Net(
            lambda m, x: (y := scale * m.stem(x)) + m.up(m.norm(y)).tanh(),
            stem=linear(6, 8, False), norm=torch.nn.LayerNorm(8), up=linear(8, 8),
        )  # fmt: skip

    found = parity.derive(*([net(1), net(2)][:: -1 if swapped else 1]), (images(5, 6),))
    (place,) = found.divergences
    assert place.right == "norm" and place.what.startswith("a factor of") and found.confirmed
    assert abs(place.size - (0.5 if swapped else 1)) < 1e-9  # rounding


@pytest.mark.parametrize("swapped", [False, True])
def test_a_bias_before_or_behind_a_scale_is_named(swapped: bool):
    def net(before: bool) -> Net:
        def run(m: Any, x: Any) -> Any:
            scores = m.q(x) @ m.k(x).mT
            scores = 0.5 * (scores + m.bias) if before else 0.5 * scores + m.bias
            return m.head(scores.softmax(-1) @ x)

        return Net(run, q=linear(8, 4), k=linear(8, 4), bias=torch.nn.Parameter(torch.randn(6, 6)), head=linear(8, 3))

    found = parity.derive(*map(net, (not swapped, swapped)), (images(2, 6, 8),))
    (place,) = found.divergences
    does = ("adds bias before it multiplies by 0.5", "multiplies by 0.5 before it adds bias")[swapped]
    assert place.what == f"the left {does}, the right after that" and found.confirmed


def sums(before: int | None) -> Net:
    """Blocks with a sum of two branches: ReLU of one of them, or of the sum."""

    def run(m: Any, x: Any) -> Any:
        terms = [m["fc"](torch.tanh(m["up"](m["norm"](x)))), m["skip"](x)]
        if before is None:
            return (terms[0] + terms[1]).relu()
        return terms[before].relu() + terms[1 - before]

    return blocks(run, "up", "fc", "skip")


@pytest.mark.parametrize("term", [0, 1])
@pytest.mark.parametrize("swapped", [False, True])
def test_an_activation_before_or_behind_a_sum_is_named(term: int, swapped: bool):
    sides = (sums(None), sums(term))[:: -1 if swapped else 1]
    found = parity.derive(*sides, (images(4, 8),))
    (place,) = found.divergences
    where = ("before the sum, the right after it", "after the sum, the right before it")[not swapped]
    assert place.what == f"the left applies ReLU {where}"
    assert found.confirmed and found.explained == "two activations in another place"


@pytest.mark.parametrize("swapped", [False, True])
def test_the_padding_of_several_convolutions_is_one_cause(swapped: bool):
    def net(edges: tuple[int, int]) -> Net:
        def run(m: Any, x: Any) -> Any:
            for layer in m.layers:
                x = layer(torch.nn.functional.pad(x, edges * 2)).tanh()
            return m.head(x.mean((2, 3)))

        layers = [torch.nn.Conv2d(channels, 6, 3, 2) for channels in (3, 6, 6)]
        return Net(run, layers=torch.nn.ModuleList(layers), head=linear(6, 4))

    edges = [(1, 1), (0, 1)][:: -1 if swapped else 1]  # of torch, and of JAX's SAME
    found = parity.derive(*map(net, edges), (images(2, 3, 16, 16),))
    (place,) = found.divergences
    texts = [f"{pair} {pair}" for pair in edges]
    assert place.what == f"padding {texts[0]} on the left, {texts[1]} on the right, of the same image"
    assert place.times == 3 and found.confirmed and found.explained == "three convolution windows"


def strided(first: int, second: int, dense: bool = True) -> Net:
    """A bottleneck of a ResNet: its first or its second convolution has the stride; its head may be a convolution."""
    layers = {
        "stem": torch.nn.Conv2d(3, 8, 3), "one": torch.nn.Conv2d(8, 4, 1, first), "three": torch.nn.Conv2d(4, 8, 1),
        "two": torch.nn.Conv2d(4, 4, 3, second, 1), "down": torch.nn.Conv2d(8, 8, 1, 2),
        "head": linear(8, 5) if dense else torch.nn.Conv2d(8, 5, 1),
    }  # fmt: skip

    def forward(m: Any, x: Any) -> Any:
        x = m.stem(x).tanh()
        x = (m.three(m.two(m.one(x).relu()).relu()) + m.down(x)).relu()
        return m.head(x.mean((2, 3), keepdim=not dense)).flatten(1)

    return Net(forward, **layers)


def test_strides_of_a_bottleneck_are_told_and_no_sizes():
    found = parity.derive(strided(1, 2), strided(2, 1), (images(2, 3, 11, 11),))
    assert not found.proven and not found.sizes
    one, other = (f"convolutions with taps {taps} and stride 2 x 2" for taps in ("1 x 1", "3 x 3"))
    texts = {f"the left model has 1 {one}, the right one 2", f"the left model has 1 {other}, the right one 0"}
    assert set(found.strides.split("; ")) == texts
    assert "strides differ: the left model has" in str(found)


def test_strides_are_told_though_a_dense_layer_is_a_convolution_on_the_other_side():
    found = parity.derive(strided(1, 2), strided(2, 1, dense=False), (images(2, 3, 11, 11),))
    what = "convolutions with taps 3 x 3 and stride 2 x 2"
    assert not found.proven and found.strides == f"the left model has 1 {what}, the right one 0"


def test_models_that_are_equal_have_no_strides_to_tell():
    assert parity.derive(strided(1, 2), strided(1, 2), (images(2, 3, 11, 11),)).strides == ""


def torched(function: Any, *values: Any, **settings: Any) -> Any:
    return lambda x: function(torch.tensor(x), *values, **settings).numpy()


def nearest(x: np.ndarray) -> np.ndarray:
    return x.repeat(2, 2).repeat(2, 3)


POOLS = {
    "what a mean counts": (
        torched(f.avg_pool2d, 3, 2, 1), torched(f.avg_pool2d, 3, 2, 1, count_include_pad=False),
        "average pooling with padding counted on the left, padding not counted on the right"),
    "a maximum and a mean": (
        torched(f.max_pool2d, 2), torched(f.avg_pool2d, 2), "max pooling on the left, average pooling on the right"),
    "windows": (
        torched(f.max_pool2d, 2, 2), torched(f.max_pool2d, (2, 3), 2, (0, 1)),
        "max pooling with window 2 and (0, 0) places beyond the edges on the left, window 2 x 3 and (0, 0) x (1, 0) "
        "places beyond the edges on the right"),
    "padding at the end": (
        torched(lambda x: f.max_pool2d(f.pad(x, (0, 1, 0, 1), value=-torch.inf), 3, 2)), torched(f.max_pool2d, 3, 2, 1),
        "max pooling with (0, 1) places beyond the edges on the left, (1, 0) places beyond the edges on the right"),
    "zeros around the input": (
        torched(lambda x: f.max_pool2d(f.pad(x, (1, 1, 1, 1)), 3, 2)), torched(f.max_pool2d, 3, 2, 1),
        "max pooling with padding counted on the left, padding not counted on the right"),
    "strides": (
        torched(f.avg_pool2d, 2, 2), torched(f.avg_pool2d, 2, 1),
        "average pooling with stride 2 on the left, stride 1 on the right"),
}  # fmt: skip


@pytest.mark.parametrize(("left", "right", "words"), POOLS.values(), ids=POOLS)
def test_poolings_are_named_by_their_windows(left: Any, right: Any, words: str):
    found = pools(left, right, [(2, 3, 8, 8)] * 2)
    assert found and found.what == words


@pytest.mark.parametrize("last", [False, True])
def test_a_pooling_of_many_channels_is_named_too(last: bool):
    """The pools of SqueezeNet cover the edge in torch, and not in paddle."""

    def pooling(ceil_mode: bool) -> Any:
        run = torched(f.max_pool2d, 3, 2, ceil_mode=ceil_mode)
        return (lambda x: np.moveaxis(run(np.moveaxis(x, -1, 1)), 1, -1)) if last else run

    shape = (2, 12, 12, 96) if last else (2, 96, 12, 12)
    found = pools(pooling(True), pooling(False), [shape] * 2)
    edges = "(0, 1) places beyond the edges on the left, (0, 0) places beyond the edges on the right"
    assert found and found.what == f"max pooling with {edges}"


@pytest.mark.parametrize("other", [nearest, torched(torch.tanh), torched(lambda x: x.cumsum(3)), torched(torch.abs)])
def test_what_is_no_pooling_is_not_named_so(other: Any):
    assert pools(torched(f.max_pool2d, 2), other, [(2, 3, 8, 8)] * 2) is None


def test_poolings_of_two_orders_of_axes_are_compared():
    last = torched(lambda x: f.max_pool2d(x.movedim(3, 1), 2).movedim(1, 3))
    shapes = [(2, 3, 8, 8), (2, 8, 8, 3)]
    assert pools(torched(f.max_pool2d, 2), last, shapes) is None
    found = pools(torched(f.avg_pool2d, 2), last, shapes)
    assert found and found.what == "average pooling on the left, max pooling on the right"


def test_a_pooling_to_another_size_is_the_last_cause_that_is_told():
    """What JAX divides a sum by was recorded of the other size: a difference behind it tells nothing."""
    needs("flax")
    import flax.linen as nn
    import jax

    class Linen(nn.Module):
        @nn.compact
        def __call__(self, x: Any) -> Any:
            x = nn.max_pool(jax.numpy.tanh(nn.Conv(4, (3, 3), padding="VALID", name="stem")(x)), (2, 2), (2, 2), "SAME")
            return nn.Dense(5, name="head")(jax.numpy.tanh(nn.Conv(4, (1, 1), name="next")(x)).mean((1, 2)))

    left = Net(lambda m, x: m.head(m.next(f.max_pool2d(m.stem(x).tanh(), 2)).tanh().mean((2, 3))), head=linear(4, 5),
               stem=torch.nn.Conv2d(3, 4, 3), next=torch.nn.Conv2d(4, 4, 1))  # fmt: skip
    x = images(2, 3, 9, 7)
    turned = x.transpose(0, 2, 3, 1)
    found = parity.derive(left, (Linen(), initial(Linen(), turned)), (x,), (turned,))
    (place,) = found.divergences
    edges = "(0, 0) places beyond the edges on the left, (0, 1) places beyond the edges on the right"
    assert place.what == f"max pooling with {edges}"
    assert not found.confirmed and found.explained == "at least one operation"


def gated(function: Any) -> Net:
    return Net(lambda m, x: m.out(function(m.first(x))), first=linear(5, 8), out=linear(8, 3))


def test_a_term_with_which_a_function_begins_is_no_cause_of_its_own():
    """What a bias is added to seems equal without this term, but the function behind it still differs."""
    hard = gated(lambda x: (x + 3).clamp(0, 6) * (1 / 6))
    (place,) = parity.derive(gated(torch.sigmoid), hard, (images(6, 5),)).divergences
    assert place.what == "sigmoid on the left, hard sigmoid on the right"
    unknown = gated(lambda x: (x + 2).clamp(0, 5) * (1 / 7))
    found = parity.derive(gated(torch.sigmoid), unknown, (images(6, 5),))
    assert not any(place.kind == "term" for place in found.divergences), found


@pytest.mark.parametrize("joined", [False, True])
def test_a_bias_of_the_forget_gate_is_one_cause_at_every_step(joined: bool):
    """Also where one matrix multiplies inputs and states, as haiku has it."""

    def stepped(m: Any, x: Any) -> Any:
        h = c = torch.zeros(len(x), 4, dtype=x.dtype)
        for step in x.unbind(1):
            i, forget, g, o = (m.w(torch.cat([step, h], -1)) if joined else m.wi(step) + m.wh(h)).chunk(4, -1)
            c = (forget + 1).sigmoid() * c + i.sigmoid() * g.tanh()
            h = o.sigmoid() * c.tanh()
        return m.out(h)

    kernels = {"w": linear(9, 16)} if joined else {"wi": linear(5, 16), "wh": linear(4, 16)}
    right = Net(stepped, **kernels, out=linear(4, 3))
    left = Net(lambda m, x: m.out(m.lstm(x)[0][:, -1]), lstm=torch.nn.LSTM(5, 4, batch_first=True), out=linear(4, 3))
    found = parity.derive(left, right, (images(3, 3, 5),))
    (place,) = found.divergences
    assert place.what == "a term of 1 on the right, which the left does not have" and place.times == 3
    assert found.confirmed and not found.missing


def test_a_gate_before_a_product_or_behind_it_is_one_cause_at_every_step():
    """A GRU applies its reset gate to the state, or to what a matrix makes of the state, as torch does."""

    def stepped(before: bool) -> Net:
        def forward(m: Any, x: Any) -> Any:
            h = torch.zeros(len(x), 8, dtype=x.dtype)
            for step in x.unbind(1):
                xr, xz, xn = m.wi(step).chunk(3, -1)
                r, z = (xr + m.wr(h)).sigmoid(), (xz + m.wz(h)).sigmoid()
                n = (xn + (m.wn(r * h) if before else r * m.wn(h))).tanh()
                h = (1 - z) * n + z * h
            return m.out(h)

        states = {name: linear(8, 8, False) for name in ("wr", "wz", "wn")}
        return Net(forward, wi=linear(6, 24), **states, out=linear(8, 3))

    found = parity.derive(stepped(False), stepped(True), (images(2, 4, 6),))
    (place,) = found.divergences
    assert place.what == "the right multiplies by a gate before the product with wn.weight, the left behind it"
    assert place.times == 3 and not found.missing and found.confirmed


def test_relative_biases_that_one_side_does_not_read_are_a_missing_parameter():
    """Both models have the parameter, which the right one does not use."""

    def attention(biased: bool) -> Net:
        def forward(m: Any, x: Any) -> Any:
            scores = m.q(x) @ m.k(x).mT
            return m.out((scores + m.bias if biased else scores).softmax(-1) @ m.v(x))

        layers = {name: torch.nn.Linear(8, 8, bias=False) for name in ("q", "k", "v", "out")}
        return Net(forward, **layers, bias=torch.nn.Parameter(torch.zeros(6, 6)))

    for swapped in (False, True):
        sides = (attention(True), attention(False))[:: -1 if swapped else 1]
        found = parity.derive(*sides, (images(2, 6, 8),))
        has, lacks = ("right", "left") if swapped else ("left", "right")
        causes = [place.what for place in found.divergences] + [*found.reasons.values()]
        assert f"the {has} adds bias, the {lacks} does not" in causes, found


def test_rotations_of_halves_by_a_table_of_pairs_are_named():
    def turned(pairs: bool) -> Any:
        angles = torch.arange(6)[:, None] * 100.0 ** -torch.tensor([0.0, 0.25, 0.5, 0.75])
        tables = [table(angles).double() for table in (torch.cos, torch.sin)]
        tables = [t.repeat_interleave(2, -1) if pairs else torch.cat([t, t], -1) for t in tables]

        def turn(x: Any) -> Any:
            return x * tables[0] + torch.cat([-x[..., 4:], x[..., :4]], -1) * tables[1]

        layers = {name: torch.nn.Linear(8, 8, bias=False) for name in ("q", "k", "v", "out")}
        return Net(lambda m, x: m.out((turn(m.q(x)) @ turn(m.k(x)).mT).softmax(-1) @ m.v(x)), **layers)

    found = parity.derive(turned(False), turned(True), (images(2, 6, 8),))
    (place,) = found.divergences
    assert place.what == "the values of a table are repeated as halves on the left, as pairs on the right"
    assert found.confirmed


@pytest.mark.parametrize("first", [False, True])
def test_numbers_that_cannot_let_the_match_go_further_are_not_tried(first: bool, monkeypatch: pytest.MonkeyPatch):
    """Before layers that read equal values, a limit is no cause; a factor behind the end of the match is none."""
    tried = list[str]()

    def recorded(edit: Any, *rest: Any) -> Any:
        tried.append(edit.what)
        return attempted(edit, *rest)

    attempted = edited._tried
    monkeypatch.setattr(edited, "_tried", recorded)
    plain = Net(lambda m, x: m.b(m.a(x).cumsum(-1)), a=linear(), b=linear())
    other = Net(lambda m, x: 7 * m.b(m.a(x.clamp(max=50)).sort(-1).values * 0.7), a=linear(), b=linear())
    found = parity.derive(*((other, plain) if first else (plain, other)), (images(4, 5, 6),))
    assert not found.proven, found
    assert any("0.7" in what for what in tried), tried
    assert not any("50" in what or (not first and "of 7" in what) for what in tried), tried


@pytest.mark.parametrize(("kind", "turned", "count"), [("GRU", "x", 1), ("GRU", "xy", 2), ("LSTM", "x", 1)])
def test_a_recurrent_layer_that_reads_its_input_backwards_is_named(kind: str, turned: str, count: int):
    """The product of all steps agrees in any order: gates that meet other steps have no partners before the edit."""

    def net(turned: str) -> Net:
        def forward(m: Any, x: Any) -> Any:
            y = m.rnn(x.flip(1) if "x" in turned else x)[0]
            return m.out(y.flip(1) if "y" in turned else y)

        return Net(forward, rnn=getattr(torch.nn, kind)(6, 5, batch_first=True), out=linear(5, 4))

    found = parity.derive(net(""), net(turned), (images(3, 4, 6),))
    (place,) = found.divergences
    assert found.confirmed and not found.missing and not found.doubtful
    assert place.what == "the right reverses axis 1, the left does not" and place.times == count


@pytest.mark.parametrize("first", [False, True])
def test_steps_that_one_side_joins_in_reverse_order_are_named(first: bool):
    def net(turned: bool) -> Net:
        def forward(m: Any, x: Any) -> Any:
            found = [x.new_zeros(len(x), 5)]
            for step in x.flip(1).unbind(1):
                found.append((m.read(step) + m.state(found[-1])).tanh())
            return m.out(torch.cat([m.plain(x), torch.stack(found[:0:-1] if turned else found[1:], 1)], -1))

        return Net(forward, read=linear(6, 5), state=linear(5, 5, False), plain=linear(6, 5), out=linear(10, 4))

    found = parity.derive(net(first), net(not first), (images(3, 4, 6),))
    (place,) = found.divergences
    turned, other = ("left", "right") if first else ("right", "left")
    what = f"the {turned} joins what it computes in reverse order, the {other} does not"
    assert found.confirmed and place.what == what


def test_one_image_as_high_as_a_kernel_reads_values_is_compared():
    """The columns of its patches, 2 x 3 x 3, are as many as its rows: they are still those of a convolution."""

    def net(eps: float) -> Net:
        norm = torch.nn.BatchNorm2d(4, eps=eps)
        return Net(lambda m, x: m.norm(m.conv(x)).tanh().mean((2, 3)), conv=torch.nn.Conv2d(2, 4, 3), norm=norm)

    found = parity.derive(net(1e-5), net(1e-3), (images(1, 2, 18, 10),))
    assert found.explained == "one epsilon", str(found)


def test_an_image_as_wide_as_its_channels_are_many_is_no_state_that_is_joined():
    """Where models part, a product of one group is looked up by its inputs: those of a convolution are images."""

    def net(slope: float) -> Net:
        def run(m: Any, x: Any) -> Any:
            return m.head(f.leaky_relu(m.two(m.one(x).tanh()), slope).mean((2, 3)))

        return Net(run, one=torch.nn.Conv2d(3, 8, 1), two=torch.nn.Conv2d(8, 8, 3), head=linear(8, 4))

    found = parity.derive(net(0.1), net(0.2), (images(1, 3, 8, 8),))
    assert found.confirmed and found.divergences[0].what.startswith("leaky_relu: negative_slope 0.1")


@pytest.mark.parametrize("joined", [False, True])
def test_zeros_around_the_input_of_a_maximum_are_named_in_a_branch_too(joined: bool):
    def net(zeros: bool) -> Net:
        def forward(m: Any, x: Any) -> Any:
            x = torch.tanh(m.stem(x))
            around = f.pad(x, (1, 1, 1, 1))
            pooled = f.max_pool2d(around, 3, 1) if zeros else f.max_pool2d(x, 3, 1, 1)
            branches = pooled, m.side(around)
            return m.head(torch.cat(branches, 1) if joined else sum(branches)).mean((2, 3))

        stem, side = torch.nn.Conv2d(3, 6, 3), torch.nn.Conv2d(6, 6, 3)
        return Net(forward, stem=stem, side=side, head=torch.nn.Conv2d(12 if joined else 6, 5, 1))

    found = parity.derive(net(True), net(False), (images(2, 3, 9, 8),))
    (place,) = found.divergences
    assert place.what == "max pooling with padding counted on the left, padding not counted on the right", found
    assert found.confirmed and not found.missing, found


@pytest.mark.parametrize("transformed", [False, True])
def test_a_norm_is_no_cause_where_only_branches_of_one_value_agree(transformed: bool):
    """Parts of an MLP of twice the width fit queries and keys, which read the value before its norm."""

    def run(m: Any, x: Any) -> Any:
        x = m.stem(x)
        if hasattr(m, "q"):
            x = x + m.o(torch.softmax(m.q(x) @ m.k(x).mT, -1) @ m.v(x))
            x = torch.fft.fft(x, dim=1).real if transformed else x
        for block in m.blocks:
            x = x + block["down"](torch.relu(block["up"](block["norm"](x))))
        return m.head(x)

    def model(*names: str) -> Net:
        layers = ({"norm": torch.nn.LayerNorm(8), "up": linear(8, 16), "down": linear(16, 8)} for _ in "ab")
        blocks = torch.nn.ModuleList(map(torch.nn.ModuleDict, layers))
        return Net(run, stem=linear(8, 8), blocks=blocks, head=linear(8, 5), **{n: linear(8, 8) for n in names})

    found = parity.derive(model(), model(*"qkvo"), (images(2, 5, 8),))
    assert not any("normalizes" in place.cause for place in found.divergences)
    if not transformed:
        assert not found.divergences and {*found.missing} == {f"{n}.{of}" for n in "qkvo" for of in ("weight", "bias")}
        assert {*found.reasons.values()} == {"the right adds the output of o, the left does not"}

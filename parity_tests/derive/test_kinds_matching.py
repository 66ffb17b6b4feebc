"""What matching has to see through, one small pair for each difficulty; some names of the right sides mislead."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

import parity
from parity.derive.match import attempt, choices
from parity.derive.match.stepped import Stepped
from parity.derive.match.stepped import stepped as by_steps
from parity.derive.trace.sides import side
from parity_tests.derive.pairs import images


class Net(torch.nn.Module):
    """A module from its parts and a function of (module, input)."""

    def __init__(self, forward: Callable[[Any, Any], Any], **parts: Any):
        super().__init__()
        self.run = forward
        for name, part in parts.items():
            setattr(self, name, part)

    def forward(self, *inputs: Any) -> Any:
        return self.run(self, *inputs)


def numbers(model: Any, inputs: Any) -> dict[str, np.ndarray]:
    """Element numbers of each parameter: what a table does to them tells where every element goes."""
    arrays, start = {}, 1
    for name, array in side(model, parity.Call(inputs)).parameters.items():
        arrays[name] = np.arange(start, start + array.size, dtype=float).reshape(array.shape)
        start += array.size
    return arrays


def tokens(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 11, shape)


def linear(i: int = 6, o: int = 6, bias: bool = True) -> torch.nn.Linear:
    return torch.nn.Linear(i, o, bias)


def stepped(m: Any, x: Any) -> Any:
    """A recurrent network whose gates have kernels of their own, one bias each, and another order."""
    h = c = torch.zeros(len(x), 4)
    outs = []
    for t in range(x.shape[1]):
        o, i, g, f = (getattr(m, f"x{gate}")(x[:, t]) + getattr(m, f"h{gate}")(h) for gate in "oigf")
        c = f.sigmoid() * c + i.sigmoid() * g.tanh()
        h = o.sigmoid() * c.tanh()
        outs.append(h)
    return torch.stack(outs, 1)


def test_a_sum_of_two_biases_and_steps_that_one_side_takes_one_at_a_time():
    left = Net(lambda m, x: m.lstm(x)[0], lstm=torch.nn.LSTM(5, 4, batch_first=True))
    gates = {f"x{gate}": linear(5, 4, False) for gate in "oigf"} | {f"h{gate}": linear(4, 4) for gate in "oigf"}
    found = parity.derive(left, Net(stepped, **gates), (images(3, 4, 5),))
    assert found.proven, found.failure
    given = numbers(left, images(3, 4, 5))
    moved = found.table.apply(given)
    both = given["lstm.bias_ih_l0"] + given["lstm.bias_hh_l0"]
    for k, gate in enumerate("ifgo"):
        assert np.array_equal(moved[f"h{gate}.bias"], np.split(both, 4)[k])
        assert np.array_equal(moved[f"x{gate}.weight"], np.split(given["lstm.weight_ih_l0"], 4)[k])
    assert "lstm.bias_ih_l0: (s c) + lstm.bias_hh_l0: (s c) -> {s=hi|hf|hg|ho}.bias: c" in found.table.print()
    names = ", ".join(f"h{gate}.bias" for gate in "oigf")
    assert f"lstm.bias_ih_l0 (right: {names}) and" in str(found), str(found)


def test_gates_of_their_own_that_the_other_side_fuses_and_gives_two_biases():
    right = Net(lambda m, x: m.lstm(x)[0], lstm=torch.nn.LSTM(5, 4, batch_first=True))
    gates = {f"x{gate}": linear(5, 4, False) for gate in "oigf"} | {f"h{gate}": linear(4, 4) for gate in "oigf"}
    left = Net(stepped, **gates)
    found = parity.derive(left, right, (images(3, 4, 5),))
    assert found.proven, found.failure
    given = numbers(left, images(3, 4, 5))
    kernels = [given[f"h{gate}.weight"] for gate in "ifgo"]
    assert np.array_equal(found.table.apply(given)["lstm.weight_hh_l0"], np.concatenate(kernels))


def turned(m: Any, x: Any) -> Any:
    """A recurrent network with one bias, whose last two gates are in another order."""
    h = c = torch.zeros(len(x), 4)
    outs = []
    for t in range(x.shape[1]):
        i, f, o, g = (m.x(x[:, t]) + m.h(h)).chunk(4, -1)
        c = f.sigmoid() * c + i.sigmoid() * g.tanh()
        h = o.sigmoid() * c.tanh()
        outs.append(h)
    return torch.stack(outs, 1)


@pytest.mark.parametrize("back", [False, True])
def test_a_sum_of_two_biases_of_gates_in_another_order(back: bool):
    one = Net(lambda m, x: m.lstm(x)[0], lstm=torch.nn.LSTM(5, 4, batch_first=True))
    other = Net(turned, x=linear(5, 16), h=linear(4, 16, False))
    left, right = (other, one) if back else (one, other)
    found = parity.derive(left, right, (images(3, 4, 5),))
    assert found.proven, str(found)
    given = numbers(left, images(3, 4, 5))
    moved = found.table.apply(given)
    order = [*range(8), *range(12, 16), *range(8, 12)]
    if back:
        assert np.array_equal(moved["lstm.bias_ih_l0"], given["x.bias"][order]) and not moved["lstm.bias_hh_l0"].any()
    else:
        assert np.array_equal(moved["x.bias"], (given["lstm.bias_ih_l0"] + given["lstm.bias_hh_l0"])[order])


def test_a_second_bias_that_the_left_side_does_not_have_is_zero():
    left = Net(lambda m, x: torch.tanh(m.read(x) + m.turn(torch.tanh(x))), read=linear(), turn=linear(bias=False))
    right = Net(lambda m, x: torch.tanh(m.turn(x) + m.read(torch.tanh(x))), read=linear(), turn=linear())
    found = parity.derive(left, right, (images(5, 6),))
    assert found.proven, found.failure
    moved = found.table.apply(numbers(left, images(5, 6)))
    assert sorted(int(np.count_nonzero(moved[name])) for name in ("read.bias", "turn.bias")) == [0, 6]


def test_terms_of_one_sum_are_told_apart_by_what_they_were_first_added_to():
    left = Net(lambda m, x: m.main(x) + m.shortcut(x.tanh()), main=linear(), shortcut=linear())
    right = Net(lambda m, x: m.shortcut(x) + m.main(x.tanh()), main=linear(), shortcut=linear())
    found = parity.derive(left, right, (images(5, 6),))
    given = numbers(left, images(5, 6))
    moved = found.table.apply(given)
    assert found.proven
    assert np.array_equal(moved["shortcut.bias"], given["main.bias"])
    assert np.array_equal(moved["main.bias"], given["shortcut.bias"])


def test_a_choice_by_name_that_proves_wrong_is_taken_back():
    def gated(first: str, second: str) -> Callable[[Any, Any], Any]:
        return lambda m, x: m.out(getattr(m, first)(x).tanh() * getattr(m, second)(x).exp())

    left = Net(gated("gate", "up"), gate=linear(), up=linear(), out=linear())
    right = Net(gated("up", "gate"), gate=linear(), up=linear(), out=linear())
    found = parity.derive(left, right, (images(5, 6),))
    given = numbers(left, images(5, 6))
    moved = found.table.apply(given)
    assert found.proven
    assert np.array_equal(moved["up.weight"], given["gate.weight"])


def test_several_choices_of_one_block_are_taken_back_together():
    def block(names: str) -> Callable[[Any, Any], Any]:
        def run(m: Any, x: Any) -> Any:
            for layer in range(2):
                a, b, c = (getattr(m, f"{name}{layer}")(x) for name in names)
                x = x + a.tanh() * b.sigmoid() + c.sin()
            return x

        return run

    def parts() -> dict[str, Any]:
        return {f"{name}{layer}": linear(bias=False) for layer in range(2) for name in "abc"}

    left, right = Net(block("abc"), **parts()), Net(block("cab"), **parts())
    found = parity.derive(left, right, (images(7, 6),))
    given = numbers(left, images(7, 6))
    assert found.proven, found.failure
    assert np.array_equal(found.table.apply(given)["c1.weight"], given["a1.weight"])


def test_an_operation_on_which_no_output_depends_needs_no_partner():
    left = Net(lambda m, x: m.head(x.tanh().mean(1)), head=linear())

    def right(m: Any, x: Any) -> Any:
        m.head(x.tanh())
        return m.head(x.tanh().mean(1))

    found = parity.derive(left, Net(right, head=linear()), (images(4, 3, 6),))
    assert found.proven, found.failure


def test_one_side_computes_some_rows_alone():
    left = Net(lambda m, x: m.head(m.body(x).tanh())[:, 0], body=linear(), head=linear())
    right = Net(lambda m, x: m.head(m.body(x).tanh()[:, 0]), body=linear(), head=linear())
    found = parity.derive(left, right, (images(4, 3, 6),))
    assert found.proven, found.failure


@pytest.mark.parametrize("value", [-1e4, -1e9, float(np.finfo(np.float64).min)])
def test_masks_with_other_values_hide_no_evidence(value: float):
    def attention(value: float) -> Callable[[Any, Any], Any]:
        def run(m: Any, x: Any) -> Any:
            places = torch.arange(4)
            bias = m.near(places[None] - places[:, None] + 3)[..., 0]
            hidden = torch.triu(torch.ones(4, 4), 1) * value
            scores = m.q(x) @ m.k(x).mT + bias + hidden
            return m.o(scores.softmax(-1) @ m.v(x))

        return run

    def parts() -> dict[str, Any]:
        return {name: linear(bias=False) for name in "qkvo"} | {"near": torch.nn.Embedding(7, 1)}

    found = parity.derive(Net(attention(-1e30), **parts()), Net(attention(value), **parts()), (images(3, 4, 6),))
    assert found.proven, found.failure


def test_a_table_is_read_in_another_order_of_steps():
    def right(m: Any, x: Any) -> Any:
        rows = m.embed(x.T)
        return torch.stack([m.head(rows[t].tanh()) for t in range(4)], 1)

    def parts() -> dict[str, Any]:
        return {"embed": torch.nn.Embedding(11, 6), "head": linear()}

    left = Net(lambda m, x: m.head(m.embed(x).tanh()), **parts())
    found = parity.derive(left, Net(right, **parts()), (tokens(3, 4),))
    assert found.proven, found.failure


def test_values_are_told_from_keys_of_other_layers_in_any_order_of_operands():
    """All keys and values read the memory; one side multiplies values by weights, the other weights by values."""

    def layers(mix: Callable[[Any, Any], Any], names: str) -> Callable[..., Any]:
        def run(m: Any, both: Any) -> Any:
            x, memory = both[:, :4], both[:, 4:]
            for q, k, v in (names[:3], names[3:]):
                weights = (getattr(m, q)(x) @ getattr(m, k)(memory).mT).softmax(-1)
                x = x + mix(weights, getattr(m, v)(memory)).tanh()
            return x

        return run

    left = Net(layers(lambda w, v: (v.mT @ w.mT).mT, "abcdef"), **{name: linear() for name in "abcdef"})
    right = Net(layers(torch.matmul, "ghijkl"), **{name: linear() for name in "ghijkl"})
    found = parity.derive(left, right, (images(2, 9, 6),))
    assert found.proven, found.failure
    assert {step.choice for step in found.uses if step.kind == "product"} == {0}


def test_a_missing_bias_tells_keys_from_queries():
    """Both are normalized, and the fused projection adds a constant zero to its keys: the first choice is right."""
    normal = torch.nn.functional.normalize

    def attend(q: Any, k: Any, v: Any) -> Any:
        return (normal(q, dim=-1) @ normal(k, dim=-1).mT).softmax(-1) @ v

    def fused(m: Any, x: Any) -> Any:
        bias = torch.cat([m.a, torch.zeros(6), m.b])
        return attend(*torch.nn.functional.linear(x, m.w, bias).chunk(3, -1))

    def split(m: Any, x: Any) -> Any:
        k, q, v = m.one(x), m.two(x), m.three(x)
        return attend(q, k, v)

    left = Net(split, one=torch.nn.Linear(6, 6, bias=False), two=linear(), three=linear())
    right = Net(
        fused, **{name: torch.nn.Parameter(torch.randn(*n)) for name, n in (("w", (18, 6)), ("a", (6,)), ("b", (6,)))}
    )
    found = parity.derive(left, right, (images(2, 5, 6),))
    assert found.proven, found.failure
    assert {step.choice for step in found.uses} == {0}


def test_models_that_part_give_a_whole_table_and_the_place():
    def mlp(kind: str) -> Callable[[Any, Any], Any]:
        return lambda m, x: m.c(torch.nn.functional.gelu(m.b(m.a(x).tanh()), approximate=kind))

    def parts() -> dict[str, Any]:
        return {name: linear() for name in "abc"}

    found = parity.derive(Net(mlp("none"), **parts()), Net(mlp("tanh"), **parts()), (images(9, 6),))
    assert not found.proven and not found.missing
    assert [place.right for place in found.divergences] == ["c"]


def test_tables_of_indices_stay_integers_in_paddle():
    paddle = pytest.importorskip("paddle", reason="paddle is not installed")

    class Right(paddle.nn.Layer):
        def __init__(self) -> None:
            super().__init__()
            self.rows = self.create_parameter([7, 6])
            self.register_buffer("index", paddle.to_tensor([2, 0, 1]))

        def forward(self, x: Any) -> Any:
            return x * paddle.index_select(self.rows, self.index)

    left = Net(lambda m, x: x * m.rows[:3], rows=torch.nn.Parameter(torch.randn(7, 6)))
    found = parity.derive(left, Right(), (images(3, 6),))
    assert not found.failure


def test_features_that_one_side_scales_have_the_same_partner():
    def mlp(factor: float) -> Callable[[Any, Any], Any]:
        return lambda m, x: m.c((factor * m.b(m.a(x).tanh())).relu() * factor)

    def parts() -> dict[str, Any]:
        return {name: linear() for name in "abc"}

    found = parity.derive(Net(mlp(1.0), **parts()), Net(mlp(0.5), **parts()), (images(9, 6),))
    given = numbers(Net(mlp(1.0), **parts()), images(9, 6))
    assert not found.proven and not found.missing
    assert all(np.array_equal(array, given[name]) for name, array in found.table.apply(given).items())


def test_small_differences_of_every_layer_do_not_add_up():
    def norms(epsilon: float) -> Net:
        def run(m: Any, x: Any) -> Any:
            for layer in range(6):
                x = getattr(m, f"norm{layer}")(getattr(m, f"conv{layer}")(x)).relu()
            return x

        parts: dict[str, Any] = {f"norm{k}": torch.nn.BatchNorm2d(6, eps=epsilon) for k in range(6)}
        return Net(run, **parts, **{f"conv{k}": torch.nn.Conv2d(6, 6, 3, padding=1) for k in range(6)})

    found = parity.derive(norms(1e-5), norms(5e-3), (images(2, 6, 5, 4),))
    given = numbers(norms(1e-5), images(2, 6, 5, 4))
    assert not found.proven and not found.missing
    moved = found.table.apply(given)
    assert all(np.array_equal(moved[name], given[name]) for name in given)


def test_small_differences_keep_the_channels_and_taps_of_wide_kernels_in_order():
    """Values of one column of an image are read by many taps alike, and differ by more than the taps do."""
    kernels = ((1, 7), (7, 1), (3, 3)) * 4

    def norms(epsilon: float) -> Net:
        def run(m: Any, x: Any) -> Any:
            for layer in range(12):
                x = getattr(m, f"norm{layer}")(getattr(m, f"conv{layer}")(x)).relu()
            return x

        torch.manual_seed(0)
        parts: dict[str, Any] = {f"norm{k}": torch.nn.BatchNorm2d(48, eps=epsilon) for k in range(12)}
        convs = {f"conv{k}": torch.nn.Conv2d(48, 48, size, padding="same") for k, size in enumerate(kernels)}
        return Net(run, **parts, **convs)

    found = parity.derive(norms(1e-5), norms(1e-2), (images(2, 48, 3, 3),))
    given = numbers(norms(1e-5), images(2, 48, 3, 3))
    assert not found.proven and not found.missing
    moved = found.table.apply(given)
    assert all(np.array_equal(moved[name], given[name]) for name in given)


def test_a_bias_joins_a_sum_behind_an_index():
    """A residual that is added after rows were indexed, by numbers on one side: biases meet the whole sum on both."""
    left = Net(lambda m, x: m.end((x + m.fc(x).flip(1)).tanh()), fc=linear(), end=linear())
    rows = torch.tensor([3, 2, 1, 0])
    right = Net(lambda m, x: m.end((x + m.fc(x).index_select(1, rows)).tanh()), fc=linear(), end=linear())
    assert parity.derive(left, right, (images(2, 4, 6),)).proven


def test_a_state_that_nothing_reads_and_only_the_right_side_has_is_a_constant():
    """Running means of haiku store sums that only training reads: such arrays of one value are written and marked."""
    left = Net(lambda m, x: m.fc(x).tanh(), fc=linear())
    right = Net(lambda m, x: m.fc(x).tanh(), fc=linear())
    right.register_buffer("hidden", torch.zeros(2, 3))
    found = parity.derive(left, right, (images(4, 6),))
    assert found.proven and not found.inferred and "drop <- hidden: a b = 0" in found.table.print()
    assert "only on the right, where nothing reads it: hidden" in found.table.print()
    back = found.table.reverse().apply({name: array.numpy() + 1 for name, array in right.state_dict().items()})
    assert sorted(back) == ["fc.bias", "fc.weight"]  # what training left in it has no place on the left
    right.hidden[0, 0] = 1  # of several values: no line could write them
    assert "drop <- hidden" in parity.derive(left, right, (images(4, 6),)).table.print()
    right.hidden.zero_()
    left.register_buffer("total", torch.ones(6))  # may be its partner: nothing shows it
    assert parity.derive(left, right, (images(4, 6),)).missing == ["hidden"]


def test_grouped_queries_whose_rotated_halves_are_as_wide_as_values_and_whose_products_exchange_sides():
    angles = torch.arange(5.0, dtype=torch.float64)[:, None] * torch.tensor([1.0, 0.1], dtype=torch.float64)
    cos, sin = angles.cos(), angles.sin()

    def heads(x: Any) -> Any:
        return x.unflatten(-1, (-1, 4)).transpose(1, 2)

    def turned(x: Any) -> Any:  # as one array of which a rotated copy is made
        half = torch.cat([-x[..., 2:], x[..., :2]], -1)
        return x * torch.cat([cos, cos], -1) + half * torch.cat([sin, sin], -1)

    def halves(x: Any) -> Any:  # as two arrays
        a, b = x.chunk(2, -1)
        return torch.cat([a * cos - b * sin, b * cos + a * sin], -1)

    def left(m: Any, x: Any) -> Any:
        q, k, v = turned(heads(m.query(x))), turned(heads(m.key(x))), heads(m.value(x))
        return m.out(((q @ k.mT).softmax(-1) @ v).transpose(1, 2).flatten(2)).tanh()

    def right(m: Any, x: Any) -> Any:
        k, v = heads(m.kv(x)).chunk(2, 1)
        weights = (halves(k) @ halves(heads(m.q(x))).mT).softmax(-2)
        return m.o((v.mT @ weights).mT.transpose(1, 2).flatten(2)).tanh()

    sizes = {"query": 8, "key": 4, "value": 4, "out": 8}
    ours = Net(left, **{name: linear(8, size, False) for name, size in sizes.items()})
    theirs = Net(right, q=linear(8, 8, False), kv=linear(8, 8, False), o=linear(8, 8, False))
    found = parity.derive(ours, theirs, (images(2, 5, 8),))
    assert found.proven, found.failure
    given = numbers(ours, images(2, 5, 8))
    moved = found.table.apply(given)
    assert np.array_equal(moved["q.weight"], given["query.weight"])
    assert np.array_equal(moved["kv.weight"], np.concatenate([given["key.weight"], given["value.weight"]]))


def test_windows_of_other_widths_give_a_complete_table_that_is_not_proven():
    def attending(window: int) -> Callable[[Any, Any], Any]:
        def run(m: Any, x: Any) -> Any:
            places = torch.arange(x.shape[1])
            apart = places[:, None] - places
            mask = torch.where((apart >= 0) & (apart < window), 0.0, -1e9)
            for k in range(2):
                q, key, v = (getattr(m, f"{name}{k}")(x) for name in ("q", "k", "v"))
                x = x + getattr(m, f"o{k}")((q @ key.mT + mask).softmax(-1) @ v)
            return x

        return run

    parts = [f"{name}{k}" for k in range(2) for name in ("q", "k", "v", "o")]
    left, right = (Net(attending(n), **{name: linear(8, 8, False) for name in parts}) for n in (4, 3))
    found = parity.derive(left, right, (images(2, 9, 8),))
    assert not found.failure and not found.missing and not found.proven
    assert found.divergences[0][:2] == ("o0", "o0")
    given = numbers(left, images(2, 9, 8))
    moved = found.table.apply(given)
    assert all(np.array_equal(moved[name], given[name]) for name in given)


@pytest.mark.parametrize(("factor", "copies"), [(1.0, 5), (0.5, 10)])
def test_memory_is_that_of_a_few_copies_of_the_weights(factor: float, copies: int):
    def run(size: int) -> parity.Derivation:
        left = Net(lambda m, x: m.b(m.a(x).tanh()), a=linear(size, size), b=linear(size, size))
        right = Net(lambda m, x: m.b(factor * m.a(x).tanh()), a=linear(size, size), b=linear(size, size))
        return parity.derive(left, right, (images(3, size),))

    run(4)  # imports what it needs
    tracemalloc.start()
    try:
        found, peak = run(512), tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < copies * 2 * 512 * 512 * 8  # bytes: copies of both kernels in float64
    assert found.proven == (factor == 1), found.failure
    causes = [divergence.cause for divergence in found.divergences]  # no kernel is tried as an activation's input
    assert all(cause.startswith("a factor of 0.5 on the right") for cause in causes)


def test_a_scalar_that_is_read_through_a_function():
    """A temperature, as CLIP's: its exponential scales the outputs."""

    def scaled(m: Any, x: Any) -> Any:
        return m.scale.exp() * m.fc(x)

    left, right = (Net(scaled, fc=linear(), scale=torch.nn.Parameter(torch.tensor(value))) for value in (2.6, 1.0))
    assert parity.derive(left, right, (images(2, 4, 6),)).proven


@pytest.mark.parametrize(
    ("move", "whole"),
    [
        (lambda a: a.reshape(2, 3, 4).transpose(2, 0, 1).reshape(1, 4, 6), True),
        (lambda a: a.reshape(1, 4, 6)[:, ::-1], True),
        (lambda a: a.reshape(1, 4, 6)[:, 1:, ::2], False),
        (lambda a: np.broadcast_to(a, (1, 3, 24)), False),
    ],
)
def test_numbers_stored_by_their_steps_are_the_numbers(move: Callable[[np.ndarray], np.ndarray], whole: bool):
    numbers = move(np.arange(7, 31, dtype=np.int32))
    short = by_steps(numbers)
    assert isinstance(short, Stepped) and short.whole == whole and short.shape == numbers.shape
    assert short.single == (len(np.unique(numbers)) == numbers.size)
    assert np.array_equal(np.asarray(short), numbers) and (short.min(), short.max()) == (numbers.min(), numbers.max())
    for key in ((0, slice(None), 1), (0, 0, np.array([1, 0])), (slice(None), slice(None), np.array([0, 1])), (0, 0)):
        assert np.array_equal(short[key], numbers[key])


def test_numbers_without_steps_stay_an_array():
    numbers = np.array([[[1, 2, 3], [4, 6, 5]]])
    assert np.array_equal(by_steps(numbers), numbers) and not isinstance(by_steps(numbers), Stepped)


@pytest.mark.parametrize("listed", [0, 1000])
def test_elements_of_choices_that_are_undone_have_no_partner(monkeypatch: pytest.MonkeyPatch, listed: int):
    """Those of large choices are not listed, but follow from the map that is left."""
    run, same = attempt.Attempt.run, list[bool]()

    def halved(self: attempt.Attempt) -> list[np.ndarray]:
        outputs = run(self)
        every = self.owned.sum()
        self._restore(choices.State(self.walk.state(), 0, len(self._entries) // 2), [])
        left = np.unique(self.map[self.map > 0])
        same.append(np.array_equal(np.flatnonzero(self.owned), left) and 0 < len(left) < every)
        return outputs

    monkeypatch.setattr(choices, "LISTED", listed)
    monkeypatch.setattr(attempt.Attempt, "run", halved)
    left, right = (torch.nn.Sequential(linear(6, 8), torch.nn.Tanh(), linear(8, 6)) for _ in range(2))
    parity.derive(left, right, (images(5, 6),))
    assert same and all(same)

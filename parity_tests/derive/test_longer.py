"""An axis with one value, and inputs of one example: the proof runs both models on more of either, if they take it."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import parity
from parity.derive.prove import longer
from parity.derive.report import page
from parity.derive.trace.call import call_of
from parity.derive.trace.program import Program
from parity.derive.trace.sides import side

from .pairs import images
from .test_kinds_matching import Net, linear

torch = pytest.importorskip("torch")

Function = Callable[[Any], Any]


def steps(function: Function) -> Net:
    return Net(lambda m, x: m.b(function(m.a(x).tanh())), a=linear(), b=linear(6, 3))


def maps(function: Function, side: int = 8) -> Net:
    def run(m: Any, x: Any) -> Any:
        assert side is None or x.shape[-1] == side
        return m.b(function(m.a(x).relu()))

    return Net(run, a=torch.nn.Conv2d(3, 6, 8, 8), b=linear(6, 3))


@pytest.mark.parametrize(
    ("other", "said"),
    [
        (lambda x: x.amax(1), "mean on the left and maximum on the right"),
        (lambda x: x.sum(1), "mean on the left and sum on the right"),
        (lambda x: x.max(1)[0], "mean on the left and maximum on the right"),
        (lambda x: x[:, -1], "mean on the left"),
        (lambda x: x[:, 0], "mean on the left"),
    ],
    ids=["amax", "sum", "max", "last", "first"],
)
def test_one_step_that_models_reduce_in_other_ways_proves_nothing(other: Function, said: str):
    found = parity.derive(steps(lambda x: x.mean(1)), steps(other), (images(2, 1, 6),))
    assert not found.proven and not found.missing and found.error < 1e-12
    assert "equal only for inputs of these lengths: for shape [2, 2, 6] they differ by" in str(found)
    assert str(found.incomparable).endswith(f"and models reduce one value by {said}")
    assert found.following == "give inputs of this shape, or make both models equal; then derive again"


def test_the_first_and_the_last_step_are_told_apart_though_there_is_one():
    found = parity.derive(steps(lambda x: x[:, 0]), steps(lambda x: x[:, -1]), (images(2, 1, 6),))
    assert not found.proven and "for shape [2, 2, 6] they differ by" in str(found)


@pytest.mark.parametrize("other", [lambda x: x.amax((2, 3)), lambda x: x[:, :, 0, 0]], ids=["amax", "first"])
def test_a_map_of_one_place_is_tried_with_larger_images(other: Function):
    mean = maps(lambda x: x.mean((2, 3)), None)
    found = parity.derive(mean, maps(other, None), (images(2, 3, 8, 8),))
    assert not found.proven and "for shape [2, 3, 16, 16] they differ by" in str(found)


def test_models_that_refuse_larger_inputs_are_proven_with_a_remark():
    left, right = maps(lambda x: x.mean((2, 3))), maps(lambda x: x.amax((2, 3)))
    found = parity.derive(left, right, (images(2, 3, 8, 8),))
    assert found.proven
    said = "mean on the left and maximum on the right, and a model refuses longer inputs"
    assert found.to_dict()["over_one"] == said
    said = f"equal only for one value along an axis: {said}"
    assert said in str(found) and said in found.table.print()


def test_a_mean_of_jax_is_that_of_torch_and_a_sum_is_not():
    jnp = pytest.importorskip("jax.numpy")
    names = {"a": (6, 6), "b": (6,), "c": (6, 3), "d": (3,)}
    tree = {name: jnp.zeros(shape) for name, shape in names.items()}

    def right(reduced: Function) -> Any:
        return lambda p, x: reduced(jnp.tanh(x @ p["a"] + p["b"])) @ p["c"] + p["d"]

    left = steps(lambda x: x.mean(1))
    same = parity.derive(left, (right(lambda x: x.mean(1)), tree), (images(2, 1, 6),))
    assert same.proven and not same.over_one
    other = parity.derive(left, (right(lambda x: x.sum(1)), tree), (images(2, 1, 6),))
    assert not other.proven and "mean on the left and sum on the right" in other.incomparable


@pytest.mark.parametrize(
    ("left", "right", "shape"),
    [
        (lambda x: x.mean(1), lambda x: x.sum(1) / x.shape[1], (2, 1, 6)),
        (lambda x: x.logsumexp(1), lambda x: x.exp().sum(1).log(), (2, 1, 6)),
        (lambda x: x.mean(1), lambda x: x.mean(1), (2, 1, 6)),
    ],
    ids=["divided", "written out", "same"],
)
def test_what_is_equal_at_other_lengths_too_is_proven(left: Function, right: Function, shape: Any):
    found = parity.derive(steps(left), steps(right), (images(*shape),))
    assert found.proven and not found.over_one, found


@pytest.mark.parametrize(
    ("left", "right", "shapes"),
    [
        (lambda x: x.mean(1), lambda x: x.squeeze(1), "[2, 3] on the left, [2, 2, 3] on the right"),
        (lambda x: x.cumsum(1), lambda x: x.sum(1, keepdim=True), "[2, 2, 3] on the left, [2, 1, 3] on the right"),
    ],
    ids=["squeezed", "summed up"],
)
def test_outputs_of_other_shapes_for_longer_inputs_are_a_remark(left: Function, right: Function, shapes: str):
    """No outputs can be compared there: the Table is proven for one step alone."""
    found = parity.derive(steps(left), steps(right), (images(2, 1, 6),))
    said = f"equal only for one value along an axis: for inputs of shape [2, 2, 6], outputs have shape {shapes}"
    assert found.proven and said in str(found) and said in found.table.print(), found


def of_length(function: Callable[[Any, int], Any]) -> Net:
    return steps(lambda x: function(x, x.shape[1]))


@pytest.mark.parametrize(
    ("left", "right", "equal"),
    [
        (lambda x, n: 2 * x if n > 8 else x, lambda x, n: x, False),
        (lambda x, n: x / n, lambda x, n: x / 5, False),
        (lambda x, n: x / n, lambda x, n: x * n**-1.0, True),
        (lambda x, n: x[:, : min(n, 6)], lambda x, n: x[:, :5], True),  # outputs have other shapes then
    ],
    ids=["branch", "number", "same", "shapes"],
)
def test_lengths_that_code_reads_are_a_remark(left: Any, right: Any, equal: bool):
    for pair in ((left, right), (right, left)):
        found = parity.derive(*map(of_length, pair), (images(3, 5, 6),))
        said = "not equal for inputs with other lengths of axes, such as those of shape [3, 10, 6]: with these, outputs"
        assert found.proven and (said in str(found)) == (not equal), str(found)
        assert (said in str(found.table)) == (not equal)
        assert equal or str(found).splitlines()[1].startswith(said)
        totals = page(found, {}).partition('class="totals">')[2].partition("</p>")[0]
        assert ("Not equal for inputs with other lengths" in re.sub("<[^>]*>", "", totals)) == (not equal)


def test_masks_are_lengthened_as_those_of_longer_texts():
    """Each value stands twice: the first places stay those that the mask shows."""
    left = Net(lambda m, x, mask: m.b(m.a(x).tanh() * mask[..., None]), a=linear(), b=linear(6, 3))
    right = Net(
        lambda m, x, mask: m.b(m.a(x).tanh() * (torch.arange(x.shape[1]) < mask.sum(1)[:, None])[..., None]),
        a=linear(), b=linear(6, 3),
    )  # fmt: skip
    found = parity.derive(left, right, (images(2, 4, 6), np.array([[1, 1, 1, 0], [1, 1, 0, 0]])))
    assert found.proven and not found.absent, str(found)


STEMS = {
    "none": (1, lambda x: x),
    "convolution": (2, lambda x: x),
    "pooling": (1, lambda x: torch.nn.functional.avg_pool2d(x, 2, ceil_mode=True)),
    "slice": (1, lambda x: x[:, :, ::2, ::2]),
}


@pytest.mark.parametrize(("stem", "length"), [("none", 15), ("convolution", 14), ("pooling", 14), ("slice", 14)])
def test_what_is_left_over_at_an_odd_length_is_a_remark(stem: str, length: int):
    """Behind a stride of 2, maps of 8 and 16 places have even lengths, and one of 14 an odd one."""
    stride, shorter = STEMS[stem]

    def pooled(ceil_mode: bool) -> Net:
        def run(m: Any, x: Any) -> Any:
            x = shorter(m.conv(x).tanh())
            return m.head(torch.nn.functional.max_pool2d(x, 2, ceil_mode=ceil_mode).mean((2, 3)))

        return Net(run, conv=torch.nn.Conv2d(3, 4, 1, stride), head=linear(4, 3))

    found = parity.derive(pooled(True), pooled(False), (images(2, 3, 8, 8),))
    said = f"lengths of axes, such as those of shape [2, 3, {length}, {length}]: with these, outputs"
    assert found.proven and said in str(found), str(found)
    assert "of their largest element: the weights are translated all the same; compare paddings" in found.absent


def net(function: Any) -> Net:
    return Net(lambda m, x: m.b(function(m.a(x).tanh())), a=linear(), b=linear(6, 3))


@pytest.mark.parametrize(
    "mixed",
    [
        lambda x: x.mean(0, keepdim=True).expand_as(x),
        lambda x: x.cumsum(0),
        lambda x: x[-1:].expand_as(x),
        lambda x: x * x.norm(dim=0).sum() / x.norm(dim=1).sum() * x.norm() / x.norm(dim=0).sum(),
    ],
    ids=["mean", "sum so far", "last", "norms"],
)
def test_what_mixes_examples_is_found_with_one(mixed: Any):
    found = parity.derive(net(lambda x: x), net(mixed), (images(1, 6),))
    assert not found.proven and not found.missing and found.error < 1e-12
    assert "equal only for one example alone" in str(found)
    assert found.following == "give inputs of two examples or more; then derive again"


def test_two_examples_are_said_to_be_tested():
    found = parity.derive(net(lambda x: x), net(lambda x: x), (images(1, 6),))
    assert found.proven and found.tested == [(1, 6), (2, 6)]
    assert "tested with: inputs of shape [1, 6] and [2, 6]" in str(found) and "what mixes examples" not in str(found)


def test_models_that_take_one_example_alone_are_proven_with_a_remark():
    def one(x: Any) -> Any:
        assert len(x) == 1
        return x

    found = parity.derive(net(one), net(lambda x: x), (images(1, 6),))
    assert found.proven and found.tested == [(1, 6)]
    assert "nor what mixes examples of a batch, as this is one and the models were not run on two" in str(found)
    first = parity.derive(net(lambda x: x[:1]), net(lambda x: x), (images(1, 6),))
    assert first.proven and first.tested == [(1, 6)]


def test_models_of_many_operations_are_proven_with_one_example_and_a_remark(monkeypatch: pytest.MonkeyPatch):
    from parity.derive.conclude import verdict

    monkeypatch.setattr(verdict, "affordable", lambda program: verdict.FURTHER_RUNS - 1)
    found = parity.derive(net(lambda x: x), net(lambda x: x), (images(1, 6),))
    assert found.proven and found.tested == [(1, 6)] and "the models were not run on two" in str(found)


@pytest.mark.parametrize("examples", [1, 3])
@pytest.mark.parametrize("turned", [False, True])
def test_the_number_of_examples_is_no_constant(examples: int, turned: bool):
    pair = net(lambda x: x / len(x)), net(lambda x: x / examples)
    found = parity.derive(*(pair[::-1] if turned else pair), (images(examples, 6),))
    said = "equal only for one example alone" if examples == 1 else "equal only for this number of examples: for 6 in"
    assert not found.proven and said in str(found), str(found)
    assert parity.derive(pair[0], net(lambda x: x / x.shape[0]), (images(examples, 6),)).proven


def test_models_that_state_the_number_of_their_examples_are_proven():
    found = parity.derive(net(lambda x: x.view(3, 6)), net(lambda x: x), (images(3, 6),))
    assert found.proven and found.tested == [(3, 6)]


def test_a_root_that_more_examples_make_nan_is_no_matter_of_their_number():
    """The numbers that the proof draws for these inputs are positive, and one of those of more examples is not."""

    def model(read: Any) -> Net:
        return Net(lambda m, x: m.b(m.a(read(x)).tanh()), a=linear(8, 6), b=linear(6, 3))

    torch.manual_seed(7)
    x = 0.1 + torch.rand(3, 8).double().numpy()
    found = parity.derive(model(torch.sqrt), model(lambda x: x.clamp(min=0.0).sqrt()), (x,))
    assert not found.proven and "only for some inputs: for others, outputs of one model alone are" in str(found)


def test_lengths_behind_strides_are_found_in_every_framework():
    """The strides 2, 2 and 4: a cut by 2 x 2 leaves one place less to the last one, by 4 x 3 three of them."""
    lax, layers = map(pytest.importorskip, ("jax.lax", "paddle.nn"))
    x = images(1, 3, 32, 32)

    def strided(p: Any, x: Any) -> Any:
        y = lax.conv(x, p["kernel"], (2, 2), "SAME")[:, :, ::2, ::2]
        return lax.reduce_window(y, 0.0, lax.add, (1, 1, 4, 4), (1, 1, 4, 4), "SAME")

    paddle = layers.Sequential(layers.Conv2D(3, 4, 3, 2, 1), layers.MaxPool2D(2, 2), layers.AvgPool2D(4, 4))
    for model in (strided, {"kernel": np.ones((4, 3, 3, 3))}), paddle:
        one = side(model, call_of(x))
        program = Program(one.record(one.parameters, one.call.arrays()), one.parameters, [x])
        assert longer._cuts([program]) == [1, 2, 4, 8, 12]


@pytest.mark.parametrize(
    ("function", "said"),
    [
        (lambda x: x * (2 if len(x) == 1 else 1), "one example alone: with it, outputs differ by"),
        (lambda x: x[0] if len(x) == 1 else x, "one example alone: with it, outputs have shape [1, 4, 3] on the left,"),
        (lambda x: x * (2 if x.shape[1] == 1 else 1), "other lengths of axes, such as those of shape [2, 1, 6]: with"),
        (lambda x: x, ""),
    ],
)
def test_one_example_and_one_place_are_tried(function: Any, said: str):
    found = parity.derive(net(lambda x: x), net(function), (images(2, 4, 6),))
    assert found.proven and found.absent.startswith(said) and bool(found.absent) == bool(said), found.absent


@pytest.mark.parametrize(("runs", "sides"), [(100, [16, 15, 1]), (8, [16, 1])])
def test_longer_images_are_tried_as_often_as_the_arithmetic_of_a_model_allows(
    runs: int, sides: list[int], monkeypatch: pytest.MonkeyPatch
):
    run = list[int]()
    monkeypatch.setattr(longer, "affordable", lambda program: runs)
    monkeypatch.setattr(longer.Trial, "unlike", lambda trial, inputs, *_, **__: run.append(*_sides(inputs[0])) or "")
    net = Net(lambda m, x: m.a(x).mean((2, 3)), a=torch.nn.Conv2d(3, 6, 3, 2, 1))
    assert parity.derive(net, net, (images(1, 3, 8, 8),)).proven
    assert [side for side in run if side != 8] == sides


def _sides(inputs: Any) -> set[int]:
    return {length for array in inputs.values() for length in array.shape[2:]}

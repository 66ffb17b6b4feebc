"""Inputs of one example: the proof runs both models on two, where they take them."""

from __future__ import annotations

from typing import Any

import pytest

import parity

from .pairs import images
from .test_kinds_matching import Net, linear

torch = pytest.importorskip("torch")


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

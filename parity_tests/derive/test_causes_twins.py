"""Small twins of published pairs that differ in two things, or in where an epsilon stands."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional as f

import parity
from parity import Call
from parity.derive.explain import recomputation
from parity.derive.explain.excerpts import excerpt
from parity.derive.prove.pairs import Mapped, Pair, run
from parity.derive.trace.sides import side
from parity_tests.conftest import needs
from parity_tests.derive.pairs import images
from parity_tests.derive.test_kinds_matching import Net, linear

STAGES = 3


def scaled(epsilon: float) -> Net:
    """Classify as Inception v3 and AlexNet do together: batch norms, and two layers."""

    def forward(m: Any, x: Any) -> Any:
        for k in range(STAGES):
            x = getattr(m, f"norm{k}")(getattr(m, f"conv{k}")(x)).relu()
        return m.head(m.fc(x.mean((2, 3))).relu())

    parts = {f"conv{k}": torch.nn.Conv2d(6 if k else 3, 6, 3, bias=False) for k in range(STAGES)}
    norms = {f"norm{k}": torch.nn.BatchNorm2d(6, epsilon) for k in range(STAGES)}
    return Net(forward, **parts, **norms, fc=linear(6, 6), head=linear(6, 5))


def in_paddle(epsilon: float, rate: float) -> Any:
    """Do the same with dropout of the old style, which scales features by 1 - rate in evaluation."""
    import paddle

    class Classifier(paddle.nn.Layer):
        def __init__(self) -> None:
            super().__init__()
            for k in range(STAGES):
                setattr(self, f"conv{k}", paddle.nn.Conv2D(6 if k else 3, 6, 3, bias_attr=False))
                setattr(self, f"norm{k}", paddle.nn.BatchNorm2D(6, epsilon=epsilon))
            self.first, self.second = (paddle.nn.Dropout(rate, mode="downscale_in_infer") for _ in range(2))
            self.fc, self.head = paddle.nn.Linear(6, 6), paddle.nn.Linear(6, 5)

        def forward(self, x: Any) -> Any:
            relu = paddle.nn.functional.relu
            for k in range(STAGES):
                x = relu(getattr(self, f"norm{k}")(getattr(self, f"conv{k}")(x)))
            return self.head(self.second(relu(self.fc(self.first(x.mean([2, 3]))))))

    return Classifier()


def causes(left: Any, right: Any) -> list[str]:
    """Return the causes of a pair, all of which recomputing confirms, without the numbers that it gives."""
    found = parity.derive(left, right, (images(2, 3, 9, 9),))
    assert not found.missing and found.confirmed, found.divergences
    return [place.cause.partition(" (recomputed so, ")[0] for place in found.divergences]


def test_epsilons_of_batch_norms_and_factors_of_old_style_dropout_are_both_confirmed():
    needs("paddle")
    more = ", and so in 2 more places"
    assert causes(scaled(1e-3), in_paddle(1e-5, 0.5)) == [
        f"epsilon 1e-3 on the left, 1e-5 on the right{more}",
        "a factor of 0.5 on the right, which the left does not have, and so in 1 more place",
    ]
    assert causes(in_paddle(1e-5, 0.5), scaled(1e-3)) == [
        f"epsilon 1e-5 on the left, 1e-3 on the right{more}",
        "a factor of 0.5 on the left, which the right does not have, and so in 1 more place",
    ]


def standardized(of: Callable[[torch.Tensor], torch.Tensor], epsilon: float = 1e-5) -> Net:
    """Convolve with standardized kernels, as BiT does."""

    def forward(m: Any, x: Any) -> Any:
        for k in range(STAGES):
            x = getattr(m, f"norm{k}")(f.conv2d(x, of(getattr(m, f"conv{k}").weight))).relu()
        return m.head(x.mean((2, 3)))

    parts = {f"conv{k}": torch.nn.Conv2d(6 if k else 3, 6, 3, bias=False) for k in range(STAGES)}
    norms = {f"norm{k}": torch.nn.GroupNorm(2, 6, epsilon) for k in range(STAGES)}
    return Net(forward, **parts, **norms, head=linear(6, 5))


def under_the_root(w: torch.Tensor) -> torch.Tensor:
    """Standardize as timm does: by a batch norm in training mode."""
    return f.batch_norm(w.reshape(1, len(w), -1), None, None, training=True, momentum=0.0, eps=1e-6).reshape_as(w)


def behind_the_root(w: torch.Tensor) -> torch.Tensor:
    """Standardize as big_vision does."""
    return (w - w.mean((1, 2, 3), keepdim=True)) / (w.std((1, 2, 3), keepdim=True, unbiased=False) + 1e-3)


MOVED = (
    "epsilon 1e-6 under the root on the left, epsilon 1e-3 added to the root on the right, and so in 2 more places",
    "epsilon 1e-3 added to the root on the left, epsilon 1e-6 under the root on the right, and so in 2 more places",
)


def test_an_epsilon_under_the_root_is_told_from_one_that_is_added_to_it():
    left, right = standardized(under_the_root), standardized(behind_the_root)
    assert causes(left, right) == [MOVED[0]]
    assert causes(right, left) == [MOVED[1]]


def test_layer_norms_that_divide_by_the_deviation_plus_epsilon_are_told_from_others():
    def norm(x: Any) -> Any:
        return (x - x.mean(-1, keepdim=True)) / (x.std(-1, keepdim=True, unbiased=False) + 1e-2)

    def net(function: Any) -> Net:
        return Net(lambda m, x: m.head(function(m.stem(x)) * m.scale), stem=linear(), head=linear(6, 3),
                   scale=torch.nn.Parameter(torch.rand(6)))  # fmt: skip

    found = parity.derive(net(lambda x: f.layer_norm(x, (6,), eps=1e-3)), net(norm), (images(4, 6),))
    (place,) = found.divergences
    assert found.confirmed and place.cause.startswith(
        "epsilon 1e-3 under the root on the left, epsilon 0.01 added to the root on the right (recomputed so"
    )


def test_two_causes_that_act_before_the_same_use_are_found_together():
    """The scale of a norm is the first use behind both the kernel and the norm: neither epsilon alone explains it."""
    found = parity.derive(
        standardized(under_the_root), standardized(behind_the_root, 1e-4), (images(2, 3, 9, 9),)
    )  # fmt: skip
    assert found.confirmed and found.explained == "six epsilons"
    one, other = sorted(found.divergences, key=lambda place: "root" in place.cause)
    assert one.cause.startswith("epsilon 1e-5 on the left, 1e-4 on the right, and so in 2 more places (recomputed so")
    assert other.cause.startswith(MOVED[0]) and one.left == other.left == "norm0"
    assert found.divergences[0].size > found.divergences[1].size and "for the next cause)" in found.divergences[0].cause


@pytest.mark.parametrize("epsilon", [1e-5, 1e-2])
def test_an_activation_and_an_epsilon_at_one_place_are_two_causes(epsilon: float):
    """One edit of all operations in a row would make both sides equal too, and say neither."""

    def net(epsilon: float, kind: str) -> Net:
        norm = torch.nn.LayerNorm(6, epsilon)
        return Net(
            lambda m, x: m.out(m.norm(f.gelu(m.fc(x), approximate=kind))), fc=linear(), norm=norm, out=linear(6, 4)
        )

    found = parity.derive(net(1e-6, "none"), net(epsilon, "tanh"), (images(7, 6),))
    assert found.confirmed and not found.missing
    assert {place.kind: place.both[0] for place in found.divergences} == {
        "activation": "GELU by the error function", "epsilon": "1e-6"
    }  # fmt: skip


def test_edits_late_in_a_deep_model_are_tried_on_a_few_of_its_operations(monkeypatch: pytest.MonkeyPatch):
    def deep(factor: float) -> Net:
        def forward(m: Any, x: Any) -> Any:
            for k in range(20):
                x = x + getattr(m, f"fc{k}")(x).tanh()
            return m.head(x.relu() if factor == 1 else factor * x.relu())

        return Net(forward, **{f"fc{k}": linear() for k in range(20)}, head=linear(6, 3))

    lengths, run = [], recomputation.run
    monkeypatch.setattr(recomputation, "run", lambda tape, *rest: lengths.append(len(tape.nodes)) or run(tape, *rest))
    found = parity.derive(deep(1), deep(0.75), (images(4, 6),))
    assert found.confirmed and found.divergences[0].cause.startswith("a factor of 0.75 on the right, which the left")
    assert len(lengths) > 3 and sum(length > max(lengths) / 2 for length in lengths) == 1, lengths


def residuals(names: Sequence[str], behind: Collection[str] = ()) -> Net:
    """Blocks whose residual is the input of a norm; of some, its output."""

    def forward(m: Any, x: Any) -> Any:
        x = m.stem(x)
        for name in names:
            block = getattr(m, name)
            y = block["norm"](x)
            x = (y if name in behind else x) + block["fc"](block["up"](y).tanh())
        return m.head(x)

    parts = {
        name: torch.nn.ModuleDict({"norm": torch.nn.LayerNorm(6), "up": linear(), "fc": linear()}) for name in names
    }
    return Net(forward, stem=linear(), **parts, head=linear(6, 3))


def test_edits_of_a_sum_are_tried_on_a_few_operations_of_a_deep_model(monkeypatch: pytest.MonkeyPatch):
    """A term is compared where its sum is read: what is cut there includes that use."""
    names = [f"{letter}_block" for letter in "abcdefgh"]
    lengths, run = [], recomputation.run
    monkeypatch.setattr(recomputation, "run", lambda tape, *rest: lengths.append(len(tape.nodes)) or run(tape, *rest))
    found = parity.derive(residuals(names), residuals(names, names[-2:-1]), (images(4, 6),))
    assert found.confirmed and found.explained == "one residual"
    assert sum(length > max(lengths) / 2 for length in lengths) < len(lengths) / 2, lengths


def test_a_cause_that_was_confirmed_is_tried_first_at_later_places(monkeypatch: pytest.MonkeyPatch):
    tried: dict[int, list[Any]] = {}
    early = recomputation.Recomputation._early

    def logged(trial: Any, edit: Any) -> float:
        tried.setdefault(trial.at, []).append(edit.same)
        return early(trial, edit)

    monkeypatch.setattr(recomputation.Recomputation, "_early", logged)
    found = parity.derive(residuals("ab"), residuals("ab", "ab"), (images(4, 6),))
    (place,) = found.divergences
    first, second = tried.values()
    assert found.explained == "two residuals" and second[0] == place.same != first[0]


def test_standardized_kernels_of_jax_are_compared_with_those_of_torch():
    """jnp.std drops the axes, so that its results are laid out anew before they divide."""
    needs("flax")
    import jax
    import jax.numpy as jnp
    import numpy as np

    def in_jax(params: Any, x: Any) -> Any:
        for w, scale, bias in zip(params["kernels"], params["scales"], params["biases"], strict=True):
            w = w - jnp.mean(w, axis=(0, 1, 2))
            w = w / (jnp.std(w, axis=(0, 1, 2)) + 1e-3)
            x = jax.lax.conv_general_dilated(x, w, (1, 1), "VALID", dimension_numbers=("NHWC", "HWIO", "NHWC"))
            x = jax.nn.relu(jax.nn.standardize(x.reshape(len(x), -1, 2, 3), (1, 3), epsilon=1e-5).reshape(x.shape)
                            * scale + bias)  # fmt: skip
        return x.mean((1, 2)) @ params["head"]

    rng = np.random.default_rng(0)
    kernels = [rng.standard_normal((3, 3, 6 if k else 3, 6)) for k in range(STAGES)]
    params = {"kernels": kernels, "scales": list(rng.random((STAGES, 6)) + 0.5), "head": rng.standard_normal((6, 5)),
              "biases": list(rng.standard_normal((STAGES, 6)))}  # fmt: skip
    left = standardized(under_the_root)
    left.head = torch.nn.Linear(6, 5, bias=False)
    assert causes(left, (in_jax, params)) == [MOVED[0]]


def test_a_side_that_computes_the_use_at_which_models_part_before_others_has_no_excerpt():
    """As one direction of a recurrence: the use that parts comes before those that agree."""
    model = Net(lambda m, x: m.b(m.a(x).tanh()), a=linear(), b=linear(6, 3))
    weights = {name: array.detach().double().numpy() for name, array in model.named_parameters()}
    of = side(model, Call(images(4, 6)))
    tape = of.record(weights, of.call.arrays())
    left, right = (run(tape, weights, list(of.call.arrays().values()), k) for k in (0, 1))
    early, *_, late = sorted(left.uses, key=lambda use: use.node)
    mapped = Mapped(np.arange(len(left.elements)))
    assert excerpt((left, right), [late.node, late.node], mapped, *[Pair(early, early, 0.5)] * 2) is None

"""Verdicts on pairs that are nearly equal, equal but ill-conditioned, and equal but split differently."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import parity
import ports
import specs
from convert.errors import UsageError

torch = pytest.importorskip("torch", reason="torch is not installed")
from .attention import Attention  # noqa: E402 (needs torch)

RNG = np.random.default_rng(0)
X = RNG.standard_normal((4, 16))


class Mlp(torch.nn.Module):
    def __init__(self, approximate: str = "none", eps: float = 1e-6) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.norm = torch.nn.LayerNorm(16, eps=eps)
        self.fc1, self.fc2 = torch.nn.Linear(16, 32), torch.nn.Linear(32, 8)
        self.act = torch.nn.GELU(approximate)

    def forward(self, x: Any) -> Any:
        return self.fc2(self.act(self.fc1(self.norm(x))))


@pytest.mark.parametrize("check", ["forward", "layers", "gradients", "train"])
def test_an_epsilon_is_caught_in_float32_models(check: str) -> None:
    pair = {"a": Mlp(eps=1e-6), "b": Mlp(eps=1e-5)}
    assert parity.compare({"a": Mlp(), "b": Mlp()}, X, check, steps=3).passed
    report = parity.compare(pair, X, check, steps=3)
    assert not report.passed
    if check == "layers":
        assert [r.dtype for r in report] == ["float64", "float32"]
        assert report.first_divergence == "norm"
        assert "epsilon is 1e-6 in a, 1e-5 in b" in report.results[0].first_divergence.guess


def test_models_run_as_copies_in_the_dtype_that_is_asked_for() -> None:
    model = Mlp()
    (result,) = parity.compare({"a": model, "b": Mlp(eps=1e-5)}, X, "layers", dtype="float64")
    assert (result.dtype, result.passed) == ("float64", False)
    assert {p.dtype for p in model.parameters()} == {torch.float32}
    (result,) = parity.compare({"a": model, "b": Mlp().double()}, X, "layers", dtype="float32")
    assert (result.dtype, result.passed) == ("float32", True)
    with pytest.raises(UsageError, match="no dtype 'float8'"):
        parity.compare({"a": model, "b": model}, X, dtype="float8")


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_erf_and_tanh_gelu_differ_in_training(dtype: str) -> None:
    pair = {"erf": Mlp(), "tanh": Mlp("tanh")}
    assert parity.compare(pair, X, "train", dtype=dtype).first_divergence == "sgd: losses"


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("size", [1e9, 1e12])
def test_a_large_output_hides_no_other(dtype: str, size: float) -> None:
    def model(shift: float = 0.0) -> Any:
        torch.manual_seed(0)
        made = torch.nn.Linear(16, 3)
        with torch.no_grad():
            made.weight[0] *= size
            made.bias[1] += shift
        return made

    assert parity.compare({"a": model(), "b": model()}, X, dtype=dtype).passed
    first = parity.compare({"a": model(), "b": model(0.05)}, X, dtype=dtype).first_divergence
    assert first == "output"
    assert first.worst.index[1] == 1
    assert "feature 1" in first.sentence()


@pytest.mark.parametrize("check", ["gradients", "train"])
def test_fused_projections_are_listed_and_the_rest_is_compared(check: str) -> None:
    tokens = RNG.standard_normal((2, 5, 16))
    (result,) = parity.compare({"one": Attention(True), "two": Attention(False)}, tokens, check, dtype="float64")
    assert result.passed, str(result)
    assert "in one: 'qkv." in result.cause
    assert "in two: 'q." in result.cause or "in two: 'v." in result.cause
    assert any("proj.kernel" in name for name, *_ in result.curve)
    assert np.isfinite([error for _, error, _ in result.curve]).all()
    other = Attention(False)
    with torch.no_grad():
        other.k.weight *= 1.01
    assert not parity.compare({"one": Attention(True), "two": other}, tokens, check, dtype="float64").passed


def deep(framework: str) -> Any:
    """Twelve convolutions, each with a BatchNorm of momentum 0.9 in paddle's terms."""
    paddle = pytest.importorskip("paddle", reason="paddle is not installed")
    rng, depth, width = np.random.default_rng(1), 12, 8
    nn = torch.nn if framework == "torch" else paddle.nn
    conv, norm = (nn.Conv2d, nn.BatchNorm2d) if framework == "torch" else (nn.Conv2D, nn.BatchNorm2D)
    modules: list[Any] = []
    for k in range(depth):
        modules += [conv(3 if k == 0 else width, width, 3, padding=1), norm(width), nn.ReLU()]
    model = nn.Sequential(*modules, nn.Flatten())
    for name, p in model.named_parameters():
        if name.endswith(("_mean", "_variance")):  # parameters in paddle, buffers in torch
            continue
        kernel = rng.standard_normal(p.shape) / np.sqrt(9 * width)
        value = (kernel if len(p.shape) == 4 else rng.uniform(0.5, 1.5, p.shape)).astype("float32")
        if framework == "torch":
            p.data.copy_(torch.from_numpy(value))
        else:
            p.set_value(value)
    return model


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(("check", "size"), [("train", 4), ("train", 1), ("gradients", 1)])
def test_equal_deep_batch_norms_are_no_false_alarm(dtype: str, check: str, size: int) -> None:
    """At 1x1 each BatchNorm normalises two values, which amplifies rounding to the size of the arrays."""
    images = np.random.default_rng(0).standard_normal((2, 3, size, size))
    models = {"torch": deep("torch"), "paddle": deep("paddle")}
    (result,) = parity.compare(models, images, check, steps=6, dtype=dtype)
    assert result.passed is not False, str(result)
    if size == 4:
        assert result.passed
        assert {"sgd: 1.mean", "adam: 4.var"} <= {name for name, *_ in result.curve}
    if dtype == "float64":
        assert "paddle's norms round momentum to float32, which moves running statistics" in result.cause


@pytest.mark.parametrize(("norm", "training", "named"), [
    ("LayerNorm", True, "epsilon"), ("BatchNorm1D", False, "epsilon"), ("BatchNorm1D", True, "epsilon, momentum"),
])  # fmt: skip
def test_the_note_names_the_settings_that_were_rounded(norm: str, training: bool, named: str) -> None:
    paddle = pytest.importorskip("paddle")
    from ports.runners.paddle_norms import exact

    layer, notes = getattr(paddle.nn, norm)(3).to(dtype="float64"), list[str]()
    layer.train() if training else layer.eval()
    with exact("float64", notes):
        layer(paddle.ones([2, 3], "float64"))
    begun = [note.removeprefix("paddle's norms round ").partition(" to float32")[0] for note in notes]
    assert ", ".join(begun) == named, notes


def test_another_momentum_is_caught_in_a_deep_batch_norm() -> None:
    images = np.random.default_rng(0).standard_normal((2, 3, 4, 4))
    models = {"torch": deep("torch"), "paddle": deep("paddle")}
    models["torch"][1].momentum = 0.11
    assert parity.compare(models, images, "train", steps=3).first_divergence == "sgd: 1.mean"


def test_a_model_that_computes_in_float32_is_not_judged_in_float64() -> None:
    class Single(Mlp):
        def forward(self, x: Any) -> Any:
            return super().forward(x).float()

    double, single = parity.compare({"a": Mlp(), "b": Single()}, X, "layers")
    assert (double.passed, single.passed) == (None, True), f"{double}\n{single}"
    assert "computes in float32, although its weights are float64" in double.cause


def test_what_passes_below_float64_by_a_hair_is_reported() -> None:
    class Coarse(Mlp):
        """Adds some 80 roundoffs of its largest output, in float32 alone."""

        def forward(self, x: Any) -> Any:
            out = super().forward(x)
            return out + (3e-6 if out.dtype == torch.float32 else 0.0)

    report = parity.compare({"a": Mlp(), "b": Coarse()}, X, dtype="float32")
    assert report.passed and "passes close to its limit" in str(report)


@pytest.mark.parametrize("framework", ["torch", "paddle"])
def test_a_port_is_compared_as_its_user_changed_it(framework: str) -> None:
    """The float64 copy of a float32 port is a copy of its model, not one built anew from its Config."""
    pytest.importorskip(framework, reason=f"{framework} is not installed")
    config = specs.get("mlp_mixer").tiny["S/16"]
    made = [ports.build("mlp_mixer", config, framework, init="random") for _ in range(2)]
    changed = made[1].model.blocks[0].norm1
    setattr(changed, "eps" if framework == "torch" else "_epsilon", 1e-5)
    images = np.random.default_rng(0).standard_normal((2, *made[0].spec.input_shape(made[0].config)))
    report = parity.compare({"a": made[0], "b": made[1]}, images, "layers")
    assert [(r.dtype, r.first_divergence) for r in report] == [(d, "blocks.0.norm1") for d in ("float64", "float32")]


class Float32Norm(torch.nn.LayerNorm):
    """A norm that computes in float32, as language models have it."""

    def forward(self, x: Any) -> Any:
        given = x.float(), self.normalized_shape, self.weight.float(), self.bias.float(), self.eps
        return torch.nn.functional.layer_norm(*given).to(x.dtype)


@pytest.mark.parametrize("check", ["forward", "layers", "single-step", "gradients", "train"])
def test_a_norm_in_float32_is_no_false_alarm_in_float32(check: str) -> None:
    """In float32 both models compute the very same; one norm's float64 copy rounds to float32."""

    def model(norm: Any, eps: float = 1e-5) -> Any:
        torch.manual_seed(0)
        made = torch.nn.Sequential(torch.nn.Linear(16, 16), norm(16, eps), torch.nn.Linear(16, 4), norm(4, eps))
        for k in (1, 3):
            torch.nn.init.normal_(made[k].weight)
        return made

    exact = model(torch.nn.LayerNorm)
    report = parity.compare({"a": exact, "b": model(Float32Norm)}, X, check, steps=2, dtype="float32")
    assert report.passed, str(report)
    assert not parity.compare({"a": exact, "b": model(Float32Norm, 1e-6)}, X, check, steps=2, dtype="float32").passed

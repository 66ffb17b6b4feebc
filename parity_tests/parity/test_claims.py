"""A verdict claims what was seen and nothing else: NaN, infinities, modules without partners, modes, dropout."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest

import parity
import ports
from convert.errors import UsageError
from parity.summaries.findings import facts, find

torch = pytest.importorskip("torch", reason="torch is not installed")
from .attention import Attention  # noqa: E402 (needs torch)

X = np.random.default_rng(0).standard_normal((4, 6))
NONE = {"a": {"stem": "a", "fc": "c"}, "b": {"stem": "b", "head": "d"}}  # common names of no module


class Net(torch.nn.Module):
    """Two linear layers, the second under a name that a test chooses."""

    def __init__(self, second: str = "fc", spare: bool = False) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.stem, self.second = torch.nn.Linear(6, 6), second
        self.add_module(second, torch.nn.Linear(6, 3))
        if spare:
            self.spare = torch.nn.Sequential(torch.nn.Linear(6, 2))

    def forward(self, x: Any) -> Any:
        return self.get_submodule(self.second)(torch.tanh(self.stem(x)))


def spoiled() -> Any:
    model = Net().double()
    with torch.no_grad():
        model.stem.weight[1, 2] = float("nan")
    return model


@pytest.mark.parametrize("check", ["forward", "layers", "gradients"])
def test_nan_in_both_models_is_one_verdict_that_names_its_origin(check: str) -> None:
    report = parity.compare({"a": spoiled(), "b": spoiled()}, X, check)
    (result,) = report
    assert not report.passed
    assert (result.passed, result.grade, report.first_divergence) == (None, "not judged", None)
    assert "; NaN starts in 'stem', whose inputs are finite: stem.weight holds NaN" in result.cause
    first = {"forward": "output", "layers": "stem", "gradients": "loss"}[check]
    places, size = {"forward": (12, 12), "layers": (4, 24), "gradients": (1, 1)}[check]
    assert result.cause.startswith(f"both have NaN at {places} of {size} places of {first!r}")
    assert "nothing is proven there" in result.cause


def test_nan_that_the_own_code_of_a_model_makes_is_placed_behind_its_last_module_and_has_no_limit() -> None:
    class Log(Net):
        def forward(self, x: Any) -> Any:
            return torch.log(super().forward(x))

    report = parity.compare({"a": Net(), "b": Log()}, X.astype(np.float32))
    text = " ".join(str(report).split())
    assert "in b, NaN starts in the model's own code, behind 'fc', which returns finite values" in text, text
    assert re.search(r"forward +- +NaN", str(report)), str(report)


@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_values_beside_nans_of_both_models_are_still_compared(dtype: str) -> None:
    other = spoiled()
    with torch.no_grad():
        other.stem.bias[0] += 1e-3
    (result,) = parity.compare({"a": spoiled(), "b": other}, X, "layers", dtype=dtype)
    assert (result.grade, result.first_divergence) == ("differs", "stem")
    assert "both have NaN at" in result.cause
    (alike,) = parity.compare({"a": spoiled(), "b": spoiled()}, X, "layers", dtype=dtype)
    assert alike.grade == "not judged"


def test_nan_in_one_model_is_a_difference_of_that_model() -> None:
    report = parity.compare({"a": Net().double(), "b": spoiled()}, X, "layers")
    assert report.first_divergence == "stem"
    assert "in a, NaN in b" in report.first_divergence.sentence()
    assert report.results[0].cause.startswith("in b, NaN starts in 'stem'") and report.results[0].shown == "NaN"
    known = dict(facts(find(report.results)[0]))
    assert re.fullmatch(r"-?[\d.]{1,6} in a, NaN in b at \[.*\]", known["values"]), known["values"]
    assert "own models, float64 on cpu\n" in str(report)
    assert str(report).startswith("a and b differ, first at stem: stem.weight holds NaN in b (own models")
    assert "weights" in known and known["weights"].endswith("differs, with NaN or infinities in one model alone")
    assert known["looks like"] == "stem.weight holds NaN in b" and "where this array gets its values" in known["next"]


def test_nan_of_code_is_followed_to_where_it_begins() -> None:
    """The next step names the model, the module and the last output ahead of it that is finite."""

    class Root(Net):
        def forward(self, x: Any) -> Any:
            return self.get_submodule(self.second)(self.stem(x).sqrt())

    models = {"a": Net().double(), "b": Root().double()}
    begins = "in b, NaN starts in 'fc', whose inputs are not finite either, though what 'stem' returned before"
    for check in ("forward", "layers"):
        known = dict(facts(find(parity.compare(models, X, check).results)[0]))
        assert known["next"] == f"look where it begins: {begins} is finite"
    known = dict(facts(find(parity.compare(models, X, "single-step").results)[0]))
    assert known["next"] == "look at what is done to the output of stem"


def test_the_parameter_that_holds_nan_is_named_in_both_dtypes() -> None:
    """Models in float32 are compared in float64 first, which the card is of."""
    report = parity.compare({"a": Net(), "b": spoiled().float()}, X, "layers")
    assert [r.dtype for r in report] == ["float64", "float32"]
    assert {r.first_divergence.holds for r in report if r.first_divergence} == {"stem.weight holds NaN in b"}
    assert dict(facts(find(report.results)[0]))["looks like"] == "stem.weight holds NaN in b"


@pytest.mark.parametrize("check", ["layers", "single-step"])
def test_layers_without_a_partner_are_listed_where_the_outputs_agree(check: str) -> None:
    tokens = np.random.default_rng(0).standard_normal((2, 5, 6))
    report = parity.compare({"one": Attention(True, 6), "two": Attention(False, 6)}, tokens, check, dtype="float64")
    assert report.passed, str(report)
    assert "in one: 'qkv" in report.results[0].cause
    assert "in two: 'q" in report.results[0].cause
    assert {"proj", "output"} <= {name for name, *_ in report.results[0].curve}
    other = parity.compare(
        {"one": Attention(True, 6), "two": Attention(False, 6, 1.01)}, tokens, check, dtype="float64"
    )
    assert other.first_divergence is not None
    assert other.first_divergence.startswith("proj" if check == "layers" else "proj <- 0")


def test_layers_without_any_partner_are_no_proof_of_layers() -> None:
    class Wrapped(torch.nn.Module):
        def __init__(self, name: str) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.name = name
            self.add_module(name, torch.nn.Linear(6, 3))

        def forward(self, x: Any) -> Any:
            return self.get_submodule(self.name)(x)

    report = parity.compare({"a": Wrapped("fc"), "b": Wrapped("dense")}, X, "layers", dtype="float64")
    assert report.results[0].passed is None
    assert "the outputs agree, and no layer was compared" in report.results[0].cause


def test_a_tap_of_another_shape_is_where_unequal_models_part() -> None:
    class Reshaped(Net):
        def __init__(self, turn: bool, factor: float = 1.0) -> None:
            super().__init__()
            self.turn, self.factor = turn, factor
            self.stem = Turned(turn)

        def forward(self, x: Any) -> Any:
            y = self.stem(x)
            return self.get_submodule(self.second)(self.factor * (y.mT if self.turn else y))

    equal = parity.compare({"a": Reshaped(False), "b": Reshaped(True)}, X, "layers", dtype="float64")
    assert equal.passed, str(equal)
    assert "'stem', whose shapes differ" in equal.results[0].cause
    pair = {"a": Reshaped(False), "b": Reshaped(True, 2.0)}
    assert parity.compare(pair, X, "layers", dtype="float64").first_divergence == "stem"


class Turned(torch.nn.Module):
    def __init__(self, turn: bool) -> None:
        super().__init__()
        torch.manual_seed(2)
        self.weight, self.turn = torch.nn.Parameter(torch.randn(6, 6)), turn

    def forward(self, x: Any) -> Any:
        return (x @ self.weight).mT if self.turn else x @ self.weight


def test_modules_that_never_ran_are_listed() -> None:
    report = parity.compare({"a": Net(spare=True), "b": Net()}, X, "layers", dtype="float64")
    assert report.passed
    assert "a: modules with parameters that were never called: 'spare.0'" in report.results[0].cause


class Functional(torch.nn.Module):
    """Computes with the parameters of a module that it does not call."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(3)
        self.used, self.unused = torch.nn.Linear(6, 6), torch.nn.Linear(6, 6)

    def forward(self, x: Any) -> Any:
        return torch.nn.functional.linear(x, self.used.weight, self.used.bias)


def test_modules_whose_parameters_were_used_are_not_listed() -> None:
    report = parity.compare({"a": Functional(), "b": Functional()}, X, "layers", dtype="float64")
    assert report.results[0].cause == "modules with parameters that were never called: 'unused'"
    assert "fc" not in report.results[0].cause


class Dropping(torch.nn.Module):
    def __init__(self, rate: float) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.fc, self.norm, self.drop = torch.nn.Linear(6, 6), torch.nn.BatchNorm1d(6), torch.nn.Dropout(rate)

    def forward(self, x: Any) -> Any:
        return self.drop(self.norm(self.fc(x)))


def test_every_check_states_its_mode_and_dropout() -> None:
    models = {"a": Dropping(0.25).train(), "b": Dropping(0.25).train()}
    forward = parity.compare(models, X, dtype="float64")
    assert (
        "ran in evaluation mode; these modules, which depend on it, were in training mode: 'norm', 'drop'"
        in forward.results[0].cause
    )
    assert forward.about["a"].endswith("evaluation mode")
    layers = parity.compare(models, X, "layers")  # the copies in float64 were in training mode, too
    assert {r.dtype: "were in training mode: 'norm'" in r.cause for r in layers} == {"float64": True, "float32": True}
    gradients = parity.compare(models, X, "gradients", dtype="float64")
    assert gradients.results[0].cause == "dropout was off (dropout 0.25): train judges its masks by themselves"
    assert "evaluation mode" not in gradients.results[0].cause
    assert gradients.about["a"].endswith("training mode")
    models["b"].norm.eval()
    frozen = parity.compare(models, X, "gradients", dtype="float64")
    assert (
        "b: ran in training mode; these modules, which depend on it, were in evaluation mode: 'norm'"
        in frozen.results[0].cause
    )


@pytest.mark.parametrize(
    ("inputs", "options", "message"),
    [
        (parity.Inputs(X, msk=X), {}, r"a: no argument 'msk', did you mean 'mask'\?"),
        (parity.Inputs(X, X, X), {}, r"a: the model takes \(x: .*too many positional arguments"),
        (parity.Inputs(mask=X), {}, "a: the model takes .*missing a required argument: 'x'"),
        (X, {"training": {"train": True}}, "training is for flax models that are no ports, and there is none"),
    ],
)
def test_inputs_and_switches_that_match_nothing_are_refused(inputs: Any, options: Any, message: str) -> None:
    class Takes(Net):
        def forward(self, x: Any, mask: Any = None) -> Any:
            return super().forward(x)

    with pytest.raises(UsageError, match=message):
        parity.compare({"a": Takes(), "b": Takes()}, inputs, "train", **options)


def test_complex_outputs_are_compared_in_both_parts() -> None:
    class Complex(Net):
        def __init__(self, imaginary: float) -> None:
            super().__init__()
            self.imaginary = imaginary

        def forward(self, x: Any) -> Any:
            y = super().forward(x)
            return torch.complex(y, self.imaginary * y)

    assert parity.compare({"a": Complex(1.0), "b": Complex(1.0)}, X, dtype="float64").passed
    assert not parity.compare({"a": Complex(1.0), "b": Complex(2.0)}, X, dtype="float64").passed


def detached(second: str) -> Any:
    """A model whose head takes no gradient, although it is a parameter."""

    class Detached(Net):
        def forward(self, x: Any) -> Any:
            head = self.get_submodule(self.second)
            return torch.nn.functional.linear(torch.tanh(self.stem(x)), head.weight.detach(), head.bias)

    return Detached(second)


@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_gradients_that_were_not_compared_are_not_judged(dtype: str) -> None:
    def compare(a: Any, b: Any, **options: Any) -> Any:
        return parity.compare({"a": a, "b": b}, X, "gradients", dtype=dtype, **options).results[0]

    for names in (None, NONE):
        result = compare(Net(), detached("head"), names=names)
        assert result.passed is None and "parameters without a partner are not the same values" in result.cause
        assert compare(Net(), Net("head"), names=names).passed  # by the sorted values of these
    assert compare(Net(), detached("fc")).passed is False
    both = {"a": {"stem": "stem", "fc": "head"}, "b": {"stem": "stem", "head": "head"}}
    assert compare(Net(), Net("head"), names=both).passed
    assert compare(Net(), detached("head"), names=both).passed is False
    assert compare(Net(), detached("head"), names={side: {"stem": "stem"} for side in "ab"}).passed is None
    assert compare(Net(), Net(spare=True)).passed  # whose gradients are zero, as it is not called


@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_parameters_that_no_code_reads_are_named(dtype: str) -> None:
    class Unread(Net):
        def __init__(self) -> None:
            super().__init__()
            self.start = torch.nn.Parameter(torch.ones(3))

    (result,) = parity.compare({"a": Unread(), "b": Unread()}, X, "gradients", dtype=dtype).results
    said = "1 parameter has a gradient of 0 as a whole, which says that no code reads it, or it has no effect"
    assert result.passed and f"{said}, as in a softmax over one value: 'start'" in result.cause
    (result,) = parity.compare({"a": Net(), "b": Unread()}, X, "gradients", dtype=dtype).results
    assert f"b: {said}" in result.cause
    assert said not in parity.compare({"a": Net(), "b": Net()}, X, "gradients", dtype=dtype).results[0].cause


@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_a_parameter_that_is_frozen_on_one_side_differs(dtype: str) -> None:
    frozen = Net()
    frozen.fc.weight.requires_grad_(False)
    result = parity.compare({"a": Net(), "b": frozen}, X, "gradients", dtype=dtype).results[0]
    assert result.passed is False and result.first_divergence == "fc.kernel"
    assert "b's 'fc.kernel': no gradient is taken" in result.cause
    assert parity.compare({"a": frozen, "b": Net()}, X, "gradients", dtype=dtype).passed is False
    assert parity.compare({"a": frozen, "b": frozen}, X, "gradients", dtype=dtype).passed


def test_one_step_of_training_compares_trained_arrays_or_nothing() -> None:
    def compare(steps: int) -> Any:
        return parity.compare({"a": Net(), "b": Net("head")}, X, "train", dtype="float64", names=NONE, steps=steps)

    assert "no trained array was compared" in compare(1).results[0].cause
    assert compare(1).results[0].passed is None and compare(2).passed


@pytest.mark.parametrize("check", ["forward", "single-step", "train"])
@pytest.mark.parametrize(
    ("error", "said"),
    [(ValueError("boom"), "ValueError: boom"), (SystemExit(0), "SystemExit: 0 (the code ends the program: let it")],
)
def test_what_a_model_raises_is_its_own_failure(check: str, error: BaseException, said: str) -> None:
    class Broken(Net):
        def forward(self, x: Any) -> Any:
            raise error

    report = parity.compare({"a": Net(), "b": Broken(), "c": Net()}, X, check, dtype="float64", steps=1)
    assert [(r.pair, r.grade) for r in report] == [("a-b", "failed"), ("a-c", "agrees"), ("b-c", "failed")]
    assert report.results[0].cause.startswith(f"b: {said}") and __file__ in report.results[0].cause
    assert parity.compare({"b": Broken(), "a": Net()}, X, check, steps=1).results[0].grade == "failed"


def test_a_linen_model_that_raises_when_it_is_listed_is_named() -> None:
    nn = pytest.importorskip("flax.linen", reason="flax is not installed")

    class Broken(nn.Module):  # type: ignore[misc]
        @nn.compact
        def __call__(self, x: Any) -> Any:
            raise ValueError("boom")

    with pytest.raises(UsageError, match="b: ValueError: boom"):
        parity.compare({"a": Net(), "b": (Broken(), {"params": {}})}, X)


@pytest.mark.parametrize("check", ["gradients", "train"])
def test_a_model_without_gradients_is_told_from_one_that_is_broken(check: str) -> None:
    class Still(Net):
        @torch.no_grad()  # type: ignore[untyped-decorator]
        def forward(self, x: Any) -> Any:
            return super().forward(x)

    (result,) = parity.compare({"a": Net(), "b": Still()}, X, check, dtype="float64", steps=1)
    assert result.grade == "failed"
    assert "b: RuntimeError: no gradient reaches the outputs: the model runs under no_grad" in result.cause


@pytest.mark.parametrize("dtype", [torch.float16, np.float16, np.dtype("float16")])
def test_dtypes_are_names(dtype: Any) -> None:
    with pytest.raises(UsageError, match=r"dtype must be a name .float64, float32, bfloat16, float16., not "):
        ports.build("mlp_mixer", "tiny S/16", "torch", dtype=dtype)
    with pytest.raises(UsageError, match=r"no dtype .*did you mean 'float16'"):
        parity.compare({"a": Net(), "b": Net()}, X, dtype=dtype)


class Filter(torch.nn.Module):
    """Multiply the spectrum of its input by a complex parameter and a complex buffer."""

    def __init__(self, which: str = "") -> None:
        super().__init__()
        rng = np.random.default_rng(0)
        for name, kind in (("w", torch.nn.Parameter), ("phase", torch.nn.Buffer)):
            array = rng.standard_normal(4) + 1j * rng.standard_normal(4) * (2 if which == name else 1)
            setattr(self, name, kind(torch.tensor(array, dtype=torch.complex64)))
        self.bias = torch.nn.Parameter(torch.ones(6))

    def forward(self, x: Any) -> Any:
        return torch.fft.irfft(torch.fft.rfft(x) * self.w * self.phase, n=6) + self.bias


@pytest.mark.parametrize("check", ["forward", "layers", "gradients"])
@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("which", ["", "w", "phase"])
def test_imaginary_parts_of_parameters_and_buffers_are_compared(check: str, dtype: str, which: str) -> None:
    assert parity.compare({"a": Filter(), "b": Filter(which)}, X, check, dtype=dtype).passed is (not which)


def test_complex_models_of_double_precision_are_run_in_it() -> None:
    class Only(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.w = torch.nn.Parameter(torch.ones(6, dtype=torch.complex128))

        def forward(self, x: Any) -> Any:
            return x * self.w

    (result,) = parity.compare({"a": Only(), "b": Only()}, X, "gradients")
    assert (result.dtype, result.passed) == ("float64", True)


def test_outputs_of_zeros_prove_nothing() -> None:
    """A head that was never trained hides whatever comes before it."""

    def model(seed: int) -> Any:
        torch.manual_seed(seed)
        made = torch.nn.Sequential(torch.nn.Linear(6, 6), torch.nn.Linear(6, 3))
        torch.nn.init.zeros_(made[1].weight)
        torch.nn.init.zeros_(made[1].bias)
        return made

    for check in ("forward", "gradients", "train"):
        report = parity.compare({"a": model(0), "b": model(1)}, X, check, dtype="float64", steps=1)
        assert report.results[0].passed is not True, check
    assert "is zero in both" in parity.compare({"a": model(0), "b": model(0)}, X, dtype="float64").results[0].cause
    assert parity.compare({"a": model(0), "b": model(0)}, X, "layers", dtype="float64").passed


def test_a_wide_tolerance_of_an_ill_conditioned_run_is_reported() -> None:
    class Chaotic(Net):
        def forward(self, x: Any) -> Any:
            return torch.sin(1e9 * super().forward(x))

    (result,) = parity.compare({"a": Chaotic(), "b": Chaotic()}, X, dtype="float64")
    assert result.passed
    assert "these runs amplify rounding: 'output' judged at tolerances of up to" in result.cause


def test_a_model_that_cannot_be_copied_is_one_error() -> None:
    class Uncopied(Net):
        def __init__(self) -> None:
            super().__init__()
            self.cached = self.stem.weight * 2

    with pytest.raises(
        UsageError, match=r"copying the torch model into float64 fails: it has .*: detach that tensor, or"
    ):
        parity.compare({"a": Uncopied(), "b": Uncopied()}, X)


def test_modules_named_as_arrays_of_other_checks_are_taps() -> None:
    class Loss(Net):
        def __init__(self, name: str) -> None:
            super().__init__(name)

    report = parity.compare({"a": Loss("images"), "b": Loss("loss")}, X, "layers", dtype="float64")
    assert report.passed, str(report)
    assert "in a: 'images'; in b: 'loss'" in report.results[0].cause


def test_a_mask_of_bools_with_four_axes_is_no_image() -> None:
    nn = pytest.importorskip("flax.linen", reason="flax is not installed")
    import jax

    class Jax(nn.Module):
        @nn.compact
        def __call__(self, x: Any, mask: Any) -> Any:
            return jax.numpy.where(mask, x[:, None, None], 0.0).sum((1, 2))

    class Torch(torch.nn.Module):
        def forward(self, x: Any, mask: Any) -> Any:
            return torch.where(mask, x[:, None, None], 0.0).sum((1, 2))

    mask = np.random.default_rng(1).random((4, 2, 5, 6)) < 0.5
    models = {"torch": Torch(), "jax": (Jax(), {})}
    assert parity.compare(models, parity.Inputs(X.astype("float32"), mask=mask)).passed

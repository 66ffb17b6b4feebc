"""A report's names of arrays are one for all frameworks; it says what they are called in each."""

from __future__ import annotations

import re
from dataclasses import replace
from html import unescape
from types import SimpleNamespace

import numpy as np
import pytest

import parity
import specs
from parity.causes.unequal_layers import unequal_weights
from parity.report import Report
from parity.results.elements import Worst
from parity.results.naming import elsewhere, of_gradients, own_name, whose, with_own
from parity.results.result import Divergence
from parity.running.recording import Recording
from parity.summaries import findings
from specs.layer import array, norm

from .pages import first, row

ARRAYS = ("adam: norm.scale", "sgd: head.kernel", "sgd: norm.var", "sgd: head.bias")


def test_an_array_is_named_in_the_frameworks_where_it_has_another_name() -> None:
    assert elsewhere("kernel", ["flax", "torch", "paddle"]) == "weight in torch and paddle"
    assert elsewhere("var", ["torch", "paddle"]) == "running_var in torch and _variance in paddle"
    assert elsewhere("bias", ["flax", "torch", "paddle"]) == elsewhere("kernel", ["flax"]) == ""


def test_the_page_says_what_gradients_of_gradients_are_called() -> None:
    gradients = replace(row(("loss", "images", "fc.kernel")), check="gradients")
    text = (
        "In gradients, loss is a value and no gradient, and images is the gradient with respect to the model's input."
    )
    assert of_gradients([gradients]) == text and text in re.sub("<[^>]*>", "", unescape(Report([gradients]).to_html()))
    several = replace(row(("loss", "output", "images", "images:mask", "images_of.fc")), check="gradients")
    text = (
        "In gradients, loss and output are values and no gradients, and images and images:mask are the gradients with"
    )
    assert of_gradients([several]).startswith(text)
    assert of_gradients([replace(gradients, check="layers"), replace(row(("fc",)), check="gradients")]) == ""


def test_the_page_says_which_input_of_a_layer_a_single_step_measures() -> None:
    said = "NAME <- 0 is what its own model computed for its first input, before the reference's replaced it."
    for curve, is_said in ((("fc <- 0", "fc"), True), (("fc", "act"), False)):
        page = unescape(re.sub("<[^>]*>", "", Report([replace(row(curve), check="single-step")]).to_html()))
        assert (said in page) == is_said


def test_the_page_says_whose_names_its_arrays_bear() -> None:
    train = replace(row(ARRAYS), check="train", sides=("flax", "torch"), pair="flax-torch")
    text = "Arrays bear one name for all frameworks: scale and kernel are called weight in torch; var is called"
    assert whose([train]) == f"{text} running_var in torch."
    assert text in re.sub("<[^>]*>", "", Report([train]).to_html())
    assert whose([replace(train, architecture="own")]) == ""  # each name has the others beside it
    assert whose([replace(train, check="layers")]) == ""  # compares what modules return


def test_an_array_that_differs_first_has_the_name_of_its_framework_beside_it() -> None:
    train = replace(row(ARRAYS), check="train", sides=("flax", "torch"))
    assert with_own(ARRAYS[0], train) == "adam: norm.scale (weight in torch)"
    assert with_own(ARRAYS[0], replace(train, architecture="own")) == ARRAYS[0]  # may be any parameter of that name
    assert with_own(ARRAYS[0], replace(train, check="layers")) == ARRAYS[0]
    off = replace(train, passed=False, first_divergence=Divergence.at(ARRAYS[1], Worst(1e-3, (0,), 1.0, 1.001), 1e-9))
    assert dict(findings.facts(findings.find([off])[0]))["array"] == "sgd: head.kernel (weight in torch)"


def test_arrays_of_own_models_have_the_names_that_both_have_or_those_of_each_beside_them() -> None:
    torch, linen = {"norm.scale": "weight", "head.kernel": "weight", "norm.var": "running_var"}, {"norm.var": "var_"}
    about = {"architecture": "own", "variant": "own", "check": "train", "sides": ("a", "my b"), "pair": "a-b"}
    alike = replace(row(ARRAYS), **about, spelled={"a": torch, "my b": torch})
    unlike = replace(alike, spelled={"a": torch, "my b": linen})
    assert [own_name(name, alike) for name in (*ARRAYS, "scale")] == [
        "adam: norm.weight", "sgd: head.weight", "sgd: norm.running_var", "sgd: head.bias", "scale",
    ]  # fmt: skip
    assert [own_name(name, unlike) for name in ARRAYS] == list(ARRAYS)
    assert with_own(ARRAYS[0], unlike) == "adam: norm.scale (weight in a)"
    assert with_own(ARRAYS[2], unlike) == "sgd: norm.var (running_var in a and var_ in 'my b')"
    for made, shown in ((alike, "norm.weight"), (unlike, "norm.scale (weight in a)")):
        off = replace(made, passed=False, error=1e-3, first_divergence=first(ARRAYS[0]))
        page, known = Report([off]).to_html(), f"adam: {shown.partition(' ')[0]}"
        text = re.sub("<(?!/?(title|text|tr|dd))[^>]*>", "", unescape(page))
        assert f">adam: {shown}</dd>" in text and f"<tr>adam: {shown}" in text  # of the card, and of the values
        assert re.search(f"<tr>a-b✗ .*adam: {re.escape(shown)}</tr>", text)
        assert f"first at {known}.</title>" in text and f">first: {known}</text>" in text


def test_own_models_record_what_they_call_their_arrays() -> None:
    torch = pytest.importorskip("torch")
    models = {label: torch.nn.Sequential(torch.nn.Linear(3, 3), torch.nn.LayerNorm(3)) for label in "ab"}
    models["b"].load_state_dict(models["a"].state_dict())
    made = parity.compare(models, np.ones((2, 3), np.float32), "gradients")
    page = made.to_html()
    assert "<code>1.weight</code>" in page and "<code>0.weight</code>" in page
    assert "1.scale" not in page and "kernel" not in page
    assert [name for name, *_ in made.results[0].curve][2:] == ["1.bias", "1.scale", "0.bias", "0.kernel", "images"]


def test_weights_that_differ_have_the_name_of_their_framework_beside_them() -> None:
    sides = [Recording(f, f, "float64", "cpu", architecture="x", weights={"norm.scale": np.ones(3) * k})
             for k, f in enumerate(("flax", "torch"))]  # fmt: skip
    assert (
        unequal_weights("norm", *sides)
        == "norm.scale (weight in torch): 3 of 3 elements differ, by up to 1.0 of the largest"
    )


def test_elements_that_only_round_are_counted_apart_from_those_that_differ() -> None:
    """As of two trainings that go alike, of which one has a fault in one element of one array."""
    kernel = np.linspace(0.5, 1, 8)
    off = kernel * (1 + 2.0**-50)
    off[3] += 2.0**-10
    weights = ({"fc.kernel": kernel, "fc.bias": kernel}, {"fc.kernel": off, "fc.bias": kernel * (1 + 2.0**-50)})
    sides = [Recording(f, f, "float64", "cpu", architecture="x", weights=its)
             for f, its in zip(("torch", "paddle"), weights, strict=True)]  # fmt: skip
    first, second = unequal_weights("fc", *sides).split("; ")
    assert first.endswith("8 of 8 elements differ, by up to 9.8e-4 of the largest, 1 of them by more than 1e-9"), first
    assert second.startswith("fc.bias: 8 of 8 elements differ, by up to 8.9e-16 of the largest, none of them by"), (
        second
    )
    weights[0]["fc.kernel"][0] = weights[1]["fc.kernel"][0] = np.nan
    assert "fc.kernel (weight in torch and paddle): 7 of 8 elements differ" in unequal_weights("fc", *sides)


def test_a_bias_that_is_rounding_beside_its_kernel_is_no_other_weight() -> None:
    """As of a bias ahead of a norm, which begins at zero and is trained by rounding alone."""
    for moved, text in ((2.0**-55, "5.6e-17 of the largest of the layer, none of them by more than 1e-9"),
                        (2.0**-10, "2.0e-3 of the largest of the layer")):  # fmt: skip
        pair = [{"fc.kernel": np.full((3, 3), 0.5), "fc.bias": np.full(3, bias), "fc.var": np.full(3, 1e9)}
                for bias in (0.0, moved)]  # fmt: skip
        sides = [Recording(f, f, "float64", "cpu", architecture="x", weights=its)
                 for f, its in zip(("torch", "paddle"), pair, strict=True)]  # fmt: skip
        assert unequal_weights("fc", *sides).startswith(f"fc.bias: 3 of 3 elements differ, by up to {text}")
        assert bool(unequal_weights("fc", *sides, known=True)) is (moved > 1e-9)


def test_an_array_that_is_no_leaf_of_a_layer_has_one_name(monkeypatch: pytest.MonkeyPatch) -> None:
    """Though a page calls it as a leaf of layers is called: `array("grn.scale", ...)`."""
    layers = [array("blocks.0.grn.scale", d=3), norm("norm", 3)]
    spec = SimpleNamespace(tiny={"S": None}, layers=lambda config: layers)
    monkeypatch.setattr(specs, "names", lambda: ["x"])
    monkeypatch.setattr(specs, "get", lambda name: spec)
    sides = [Recording(f, f, "float64", "cpu", architecture="x",
                       weights={name: np.ones(3) * k for name in ("blocks.0.grn.scale", "norm.scale")})
             for k, f in enumerate(("flax", "torch"))]  # fmt: skip
    assert (
        unequal_weights("blocks.0.grn", *sides)
        == "blocks.0.grn.scale: 3 of 3 elements differ, by up to 1.0 of the largest"
    )
    assert unequal_weights("norm", *sides).startswith("norm.scale (weight in torch): ")
    train = replace(row(("adam: blocks.1.grn.scale",)), check="train", sides=("flax", "torch"), architecture="x")
    assert with_own("adam: blocks.1.grn.scale", train) == "adam: blocks.1.grn.scale" and whose([train]) == ""
    assert with_own("adam: norm.scale", train) == "adam: norm.scale (weight in torch)"

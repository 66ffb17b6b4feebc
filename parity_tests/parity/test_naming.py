"""A report's names of arrays are one for all frameworks; it says what they are called in each."""

from __future__ import annotations

import re
from dataclasses import replace
from html import unescape

import numpy as np
import pytest

import specs
from parity import findings
from parity.causes import unequal_weights
from parity.elements import Worst
from parity.naming import elsewhere, of_inputs, whose, with_own
from parity.recording import Recording
from parity.report import Report
from parity.result import Divergence
from specs.layer import parameters

from .pages import row

ARRAYS = ("adam: norm.scale", "sgd: head.kernel", "sgd: norm.var", "sgd: head.bias")


def test_an_array_is_named_in_the_frameworks_where_it_has_another_name() -> None:
    assert elsewhere("kernel", ["flax", "torch", "paddle"]) == "weight in torch and paddle"
    assert elsewhere("var", ["torch", "paddle"]) == "running_var in torch and _variance in paddle"
    assert elsewhere("bias", ["flax", "torch", "paddle"]) == elsewhere("kernel", ["flax"]) == ""


def test_the_page_says_what_gradients_of_inputs_are_called() -> None:
    gradients = replace(row(("loss", "images", "fc.kernel")), check="gradients")
    text = "In gradients, images is the gradient with respect to the model's input."
    assert of_inputs([gradients]) == text and text in re.sub("<[^>]*>", "", unescape(Report([gradients]).to_html()))
    several = replace(row(("images", "images:mask", "images_of.fc")), check="gradients")
    assert of_inputs([several]).startswith("In gradients, images and images:mask are the gradients with respect to")
    assert of_inputs([replace(gradients, check="layers"), replace(row(("fc",)), check="gradients")]) == ""


def test_the_page_says_whose_names_its_arrays_bear() -> None:
    train = replace(row(ARRAYS), check="train", sides=("flax", "torch"), pair="flax-torch")
    text = "Arrays bear one name for all frameworks: scale and kernel are called weight in torch; var is called"
    assert whose([train]) == f"{text} running_var in torch."
    assert text in re.sub("<[^>]*>", "", Report([train]).to_html())
    own = replace(train, architecture="own", sides=("mine", "theirs"))
    assert whose([own]).startswith(
        "Arrays of layers of known kinds bear common names: scale and kernel are called weight"
    )
    assert whose([own]).endswith("in torch and _variance in paddle.")  # of which frameworks they are is not known
    assert whose([replace(train, check="layers")]) == ""  # compares what modules return


def test_an_array_that_differs_first_has_the_name_of_its_framework_beside_it() -> None:
    train = replace(row(ARRAYS), check="train", sides=("flax", "torch"))
    assert with_own(ARRAYS[0], train) == "adam: norm.scale (weight in torch)"
    assert with_own(ARRAYS[0], replace(train, architecture="own")) == ARRAYS[0]  # may be any parameter of that name
    assert with_own(ARRAYS[0], replace(train, check="layers")) == ARRAYS[0]
    off = replace(train, passed=False, first_divergence=Divergence.at(ARRAYS[1], Worst(1e-3, (0,), 1.0, 1.001), 1e-9))
    assert dict(findings.facts(findings.find([off])[0]))["array"] == "sgd: head.kernel (weight in torch)"


def test_weights_that_differ_have_the_name_of_their_framework_beside_them() -> None:
    sides = [Recording(f, f, "float64", "cpu", architecture="x", weights={"norm.scale": np.ones(3) * k})
             for k, f in enumerate(("flax", "torch"))]  # fmt: skip
    assert unequal_weights("norm", *sides) == "norm.scale (weight in torch): 3 of 3 elements differ"


@pytest.mark.parametrize("architecture", specs.names())
def test_no_parameter_outside_of_layers_is_named_like_an_array_of_one(architecture: str) -> None:
    """Such a name would be translated wrongly."""
    for config in specs.get(architecture).tiny.values():
        for parameter in parameters(list(specs.get(architecture).layers(config))):
            leaf = parameter.name.rpartition(".")[2]
            assert parameter.leaf or not elsewhere(leaf, ["torch", "paddle"]), parameter.name

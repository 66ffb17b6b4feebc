"""The page says what its comparisons do not show."""

from __future__ import annotations

import re
from dataclasses import replace

from parity.report import Report
from parity.results.result import Result

from .pages import row


def stated(results: list[Result], **about: str) -> list[str]:
    """The sentences of the section."""
    page = Report(results, about).to_html().partition("<h2>What this does not show</h2>")[2].partition("</section>")[0]
    return [re.sub("<[^>]*>", "", item) for item in re.findall("<li>.*?</li>", page)]


def test_the_page_states_what_was_compared_on_which_inputs_and_what_that_leaves_open() -> None:
    made = [row(("a",)), replace(row(("a",), "float32"), check="train")]
    skipped = replace(row(("a",)), check="gradients", passed=None, error=None, tolerance=None, curve=())
    assert stated([*made, skipped], batch="2 images", seed="7 (images and random weights)") == [
        "Only this was compared: layers in float64; train in float32, on cpu.",
        "The weights are random: no checkpoint was run.",
        "The inputs were 2 images of seed 7: code that they do not reach is not tested.",
        "A parameter that changes nothing, such as a head of zeros, is not tested.",
        "Equal models may all be wrong. The tests of Triptych compare its own architectures with recorded outputs of "
        "the original code.",
    ]


def test_small_models_are_told_from_published_ones_and_random_weights_from_checkpoints() -> None:
    (_, small, random, *_) = stated([replace(row(("a",)), variant="tiny S/32")], seed="0 (images and random weights)")
    assert small == "The models named tiny are small: the published sizes were not run."
    assert random == "The weights are random: no checkpoint was run."
    files = replace(row(("a",)), files=("a.npz",))
    assert stated([files])[1].startswith("The inputs ")
    assert stated([files, row(("a",))])[1].startswith("Where no file is named, the weights are those of the models")


def test_where_nothing_agrees_equal_models_are_no_subject() -> None:
    assert not any("Equal models" in text for text in stated([replace(row(("a",)), passed=False, error=1.0)]))


def test_nothing_is_said_of_original_code_where_the_models_are_the_users() -> None:
    own = stated([replace(row(("a",)), architecture="own")], inputs="[4, 16] float32")
    assert own[-1] == "Equal models may all be wrong."
    assert own[1].startswith("layers compares outputs of modules: what a model computes between two of them")
    assert own[2].startswith("The inputs were [4, 16] float32: ")


def test_limits_that_are_large_are_said_to_hide_differences() -> None:
    coarse = [replace(row(("a",), "bfloat16"), error=1e-3, tolerance=bound) for bound in (0.25, 0.51)]
    coarse = [replace(r, curve=(("norm", 1e-3, 0.59), ("head", 1e-3, 0.02))) for r in coarse]
    assert "In bfloat16, differences below 2% to 59% of the largest value of an array do not show." in stated(coarse)
    assert not any("do not show." in text for text in stated([row(("a",))]))


def test_what_the_code_of_a_dialect_alone_states_is_not_shown_and_is_in_json() -> None:
    made = replace(row(("a",)), suggested=("gelu=tanh (official's own code)",))
    assert "No file states gelu=tanh (official&#x27;s own code). All models compute with it, right or wrong." in stated(
        [made]
    )
    assert made.as_dict()["suggested"] == ["gelu=tanh (official's own code)"] and made.as_dict()["assumed"] == []
    assert not any("No file states" in text for text in stated([row(("a",))]))


def test_what_is_assumed_is_no_finding() -> None:
    (*_, last) = stated([replace(row(("a",)), assumed=("gelu=erf", "norm_eps=1e-6"))])
    assert last == "Assumed, not known: gelu=erf, norm_eps=1e-6. All models compute with it, right or wrong."


def test_a_page_without_a_comparison_has_no_such_section() -> None:
    assert (
        stated([replace(row(("a",)), passed=None, error=None, tolerance=None, curve=(), missing=(("b", "b"),))]) == []
    )

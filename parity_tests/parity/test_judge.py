"""The verdict itself: nothing passes by accident, and the worst element is named."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from parity.given.own import OWN
from parity.judging.judge import Subject, judge
from parity.report import Report
from parity.results import tolerance
from parity.results.elements import aligned, relative_error, worst
from parity.results.result import Result
from parity.running.archive import load, save
from parity.running.recording import Recording
from ports.runners.records import Tap

SUBJECT = Subject("a", "v", "layers", "float64", "cpu")


def recording(label: str, dtype: str = "float64", **arrays: object) -> Recording:
    return Recording(label, "torch", dtype, "cpu", {name: np.asarray(a) for name, a in arrays.items()})


def verdict(a: Recording, b: Recording, subject: Subject = SUBJECT) -> Result:
    (result,) = judge(subject, [a, b])
    return result


def test_the_worst_element_is_named_with_both_values() -> None:
    a = np.arange(12.0).reshape(3, 4)
    b = a.copy()
    b[1, 2] += 0.5
    b[2, 0] += 0.25
    found = worst(a, b)
    assert (found.error, found.index, found.left, found.right) == (0.5 / 11, (1, 2), 6.0, 6.5)


@pytest.mark.parametrize(
    ("values", "texts"),
    [
        ((-1.0397965, -0.9843948), ("-1.03980", "-0.98439")),
        ((10.3979, 9.84394), ("10.3979", "9.8439")),
        ((1.0397965, 0.98), ("1.0398", "0.9800")),
        ((5.0, 5.005), ("5.000", "5.005")),
        ((12.0, 13.0), ("12", "13")),
        ((1.5e-3, 1.25e-4), ("1.5e-3", "1.25e-4")),
    ],
)
def test_two_values_have_as_many_decimals_and_no_digits_but_their_own(
    values: tuple[float, float], texts: tuple[str, str]
) -> None:
    assert aligned(*values) == texts


@pytest.mark.parametrize(
    ("a", "b", "cause"),
    [
        (np.ones(3), np.ones(4), "shapes differ"),
        (np.ones((1, 3)), np.ones(3), "shapes differ"),
        (np.array([1.0, np.nan]), np.array([1.0, np.nan]), "not finite at [1]"),
        (np.array([np.inf]), np.array([np.inf]), "not finite"),
        (np.empty((0, 3)), np.empty((0, 3)), "empty"),
    ],
)
def test_what_cannot_be_compared_is_infinitely_wrong(a: np.ndarray, b: np.ndarray, cause: str) -> None:
    assert math.isinf(relative_error(a, b))
    assert cause in worst(a, b).cause


def test_all_zeros_compare_absolutely() -> None:
    assert relative_error(np.zeros(3), np.zeros(3)) == 0.0
    assert relative_error(np.zeros(3), np.full(3, 1e-3)) == 1e-3


def test_the_first_divergent_tap_is_named_with_the_one_before() -> None:
    a = recording("one", x=[1.0], y=[2.0], z=[4.0])
    b = recording("two", x=[1.0 + 1e-12], y=[2.0 + 1e-6], z=[5.0])
    result = verdict(a, b)
    first = result.first_divergence
    assert first == "y"
    assert first is not None
    assert first.previous is not None
    assert first.previous[0] == "x"
    assert first.error == pytest.approx(5e-7)
    assert "[0]: 2.000000 and 2.000001" in first.sentence()
    assert result.error == pytest.approx(0.25)  # the worst of all, and not the first


def test_what_one_side_alone_calls_before_the_first_divergent_tap_is_named() -> None:
    """The model's output decides where taps have no partner; "y" is one of the side that has it alone."""
    a = replace(recording("one", x=[1.0], y=[3.0], output=[2.0]), architecture=OWN)
    b = replace(recording("two", x=[1.0], output=[5.0]), architecture=OWN)
    first = verdict(a, b).first_divergence
    assert first == "output" and first is not None and first.between == (("one", ("y",)),)


def test_a_missing_tap_fails_and_is_named() -> None:
    result = verdict(recording("one", x=[1.0], y=[1.0]), recording("two", x=[1.0]))
    assert result.passed is False
    assert result.first_divergence == "y"
    assert result.cause == "only one has 'y'"  # models of one's own may have other modules
    assert result.first_divergence.previous == ("x", 0.0)


def test_an_empty_comparison_fails() -> None:
    assert verdict(recording("one"), recording("two")).passed is False
    assert not Report([]).passed


def test_arrays_without_elements_are_not_judged() -> None:
    """As the boxes of a detector that finds none: other arrays decide, and without any nothing is proven."""
    none = np.empty((0, 3))
    subject = Subject("own", "own", "forward", "float64", "cpu")
    one = recording("one", output=[1.0], **{"output:1": none})
    result = verdict(one, recording("two", output=[1.0], **{"output:1": none}), subject)
    assert result.passed and "'output:1' without elements in both: nothing to compare" in result.cause
    assert verdict(one, recording("two", output=[2.0], **{"output:1": none}), subject).first_divergence == "output"
    other = verdict(one, recording("two", output=[1.0], **{"output:1": np.empty((0, 4))}), subject)
    assert other.passed is False and other.first_divergence == "output:1"
    alone = verdict(recording("one", output=none), recording("two", output=none), subject)
    assert alone.passed is None and "'output' without elements" in alone.cause
    assert not Report([alone]).passed


def test_nothing_run_is_neither_passed_nor_failed_but_makes_no_proof() -> None:
    unable = Recording("two", "paddle", "float16", "cpu", cause="no kernel", unable=True)
    result = verdict(recording("one", x=[1.0]), unable)
    assert result.passed is None
    assert not Report([result]).passed
    row = result.as_dict()
    assert (row["status"], row["reason"], row["first_divergence"]) == ("not run", "two: no kernel", None)


def test_a_crash_fails() -> None:
    crashed = Recording("two", "paddle", "float64", "cpu", cause="its process died (SIGSEGV)")
    assert verdict(recording("one", x=[1.0]), crashed).passed is False


def test_a_gradient_that_cancels_is_measured_by_the_others() -> None:
    """Rounding of a gradient that is zero in exact arithmetic passes; the same share of an own gradient does not."""
    subject = Subject("a", "v", "gradients", "float64", "cpu")
    a = recording("one", loss=1.0, output=[1.0], big=[1.0], none=[1e-17])
    assert verdict(a, recording("two", loss=1.0, output=[1.0], big=[1.0], none=[-1e-17]), subject).passed
    result = verdict(a, recording("two", loss=1.0, output=[1.0], big=[1.0], none=[1e-10]), subject)
    assert result.first_divergence == "none"


def low(label: str, value: float, truth: float = 1.0) -> Recording:
    made = recording(label, "float32", x=[value])
    made.truth = recording(label, x=[truth])
    return made


def test_below_float64_the_least_noise_of_any_framework_is_the_measure() -> None:
    subject = Subject("a", "v", "layers", "float32", "cpu")
    good, fair, bad = low("one", 1 + 3e-7), low("two", 1 + 1e-6), low("three", 1 + 1e-4)
    results = {r.pair: r for r in judge(subject, [good, fair, bad])}
    assert results["one-two"].passed
    assert results["one-three"].passed is False
    assert results["one-two"].tolerance == pytest.approx(tolerance.NOISE_FACTOR["float32"] * 3e-7, rel=1e-3)
    assert results["one-two"].noise["two"] == pytest.approx((1e-6,), rel=1e-3)


def test_a_wrong_truth_is_no_excuse() -> None:
    """A port that is off in float64 too has no noise of its own, and is caught by the reference's truth."""
    subject = Subject("a", "v", "layers", "float32", "cpu")
    assert verdict(low("one", 1.0), low("two", 1.01, truth=1.01), subject).passed is False


def test_what_every_framework_drowns_in_rounding_is_not_judged() -> None:
    subject = Subject("a", "v", "train", "float16", "cpu")
    result = verdict(low("one", 2.0), low("two", 0.1), subject)
    assert result.passed is None
    assert "rounding errors are as large as the values of" in result.cause
    sides = low("one", 2.0), low("two", 0.1)
    for side in (s for low_side in sides for s in (low_side, low_side.truth) if s):
        side.arrays |= {"y": np.ones(1), "z": np.ones(1)}
    some = verdict(*sides, Subject("a", "v", "layers", "float16", "cpu"))
    assert some.passed and some.unjudged == ("x",)


def test_masks_answer_to_their_rate() -> None:
    def masks(label: str, kept: int, rate: float = 0.25, off: float = 0.0, seen: int = 10_000) -> Recording:
        made = recording(label, **{"sgd: losses": 1.0})
        made.masks = [[rate, 20_000, seen, kept, off]]
        return made

    subject = Subject("a", "v", "train", "float64", "cpu")
    assert verdict(masks("one", 7_500), masks("two", 7_430), subject).passed
    assert verdict(masks("one", 7_500), masks("two", 7_430 - 750, seen=9_000), subject).passed  # more zeros went in
    assert verdict(masks("one", 7_500), masks("two", 7_000), subject).passed is False
    assert verdict(masks("one", 7_500), masks("two", 7_500, off=0.3), subject).passed is False
    assert verdict(masks("one", 7_500), masks("two", 5_000, rate=0.5), subject).passed is False
    few = verdict(masks("one", 7_500), masks("two", 7_000), subject).first_divergence
    assert few and "standard deviations off, above 5" in few.sentence()
    other = verdict(masks("one", 7_500), masks("two", 5_000, rate=0.5), subject)
    assert (other.error, other.tolerance) == (math.inf, 1e-9) and other.cause == ""
    calls = "rate 0.25 on 312 units in one; rate 0.5 on 312 units in two"
    assert other.first_divergence and other.first_divergence.worst.cause == f"calls of dropout differ: {calls}"
    assert (other.shown, other.first_divergence.guess) == (
        "other calls", "dropout of rate 0.5 in two, for rate 0.25 in one"
    )  # fmt: skip
    without = masks("two", 0)
    without.masks = []
    alone = verdict(masks("one", 7_500), without, subject).first_divergence
    assert alone and alone.guess == "dropout in one alone"
    assert alone.worst.cause == "calls of dropout differ: rate 0.25 on 312 units in one; none in two"
    twice, larger = masks("two", 7_500), masks("two", 7_500)
    twice.masks, larger.masks = [*(twice.masks or []) * 2], [[0.25, 40_000, 10_000, 7_500, 0.0]]
    for made, told in (
        (twice, "1 call of dropout in one, 2 calls in two"),
        (larger, "dropout of other arrays, as call 1 on 312 units in one and 625 units in two"),
    ):
        first = verdict(masks("one", 7_500), made, subject).first_divergence
        assert first and first.guess == told
    slipped = masks("two", 7_500)
    slipped.arrays["sgd: losses"] = np.asarray(1.1)
    assert verdict(masks("one", 7_500), slipped, subject).first_divergence == "sgd: losses"
    slipped.masks = []
    both = verdict(masks("one", 7_500), slipped, subject)
    assert both.first_divergence == "sgd: losses" and "none in two" in both.cause


def test_what_training_moves_by_rounding_alone_is_measured_by_the_largest_parameter() -> None:
    """A bias of zeros ahead of a norm: Adam's steps on rounding pass, an own error of that size does not."""
    subject = Subject("a", "v", "train", "float64", "cpu")

    def trained(label: str, bias: float, var: float = 100.0) -> Recording:
        arrays = {"losses": 50.0, "kernel": [0.5], "bias": [bias], "norm.var": [var]}
        return recording(label, **{f"adam: {name}": array for name, array in arrays.items()})

    assert verdict(trained("one", 1e-14), trained("two", -1e-14), subject).passed
    # 1e-10 is beyond 1e-9 of a sixteenth of the kernel's 0.5, and within that of the variance or the loss
    assert verdict(trained("one", 1e-14), trained("two", 1e-10), subject).first_divergence == "adam: bias"


def test_a_recording_survives_its_file(tmp_path: object) -> None:
    made = recording("one", x=[1.0, 2.0], y=3.0)
    made.taps, made.kinds = [Tap("t", (np.ones(2),), (np.zeros(3), np.ones(1)))], {"t": "dense"}
    made.truth = recording("one", x=[1.5])
    save(made, f"{tmp_path}/r.npz")
    back = load(f"{tmp_path}/r.npz")
    assert back.truth is not None
    assert back.truth.arrays["x"] == [1.5]
    assert list(back.arrays) == ["x", "y"]
    assert (back.kinds, back.taps[0].name, [o.shape for o in back.taps[0].outputs]) == (made.kinds, "t", [(3,), (1,)])


def test_json_has_what_was_not_compared() -> None:
    row = Result(
        "m", "own", "gradients", "float64", "cpu", "a-b", 0.0, 1e-10, True, None, "not compared: a's 'fc.bias'"
    )
    assert (row.as_dict()["first_divergence"], row.as_dict()["note"]) == (None, "not compared: a's 'fc.bias'")


def test_a_rate_of_dropout_that_no_layer_has_leaves_no_masks_to_judge() -> None:
    """The rate of a drop path that rises from 0 is 0 in a network of one block."""
    sides = [replace(recording(label, x=[1.0]), masks=[]) for label in ("a", "b")]
    result = verdict(*sides)
    assert result.passed and not result.cause
    assert verdict(sides[0], replace(sides[1], masks=[[0.1, 640, 640, 576, 0.0]])).passed is False

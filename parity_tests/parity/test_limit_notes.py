"""Every limit of a report states the reason for its size, and the reason's own numbers give the limit."""

from __future__ import annotations

import re
from dataclasses import replace
from html import unescape

import numpy as np
import pytest

from parity.judging.judge import Subject, judge
from parity.page.limit_notes import LimitNotes, definition
from parity.report import Report
from parity.results.result import Result
from parity.results.tolerance import FIXED, MASKS, STEP, TWINS, amplified, below
from parity.running.recording import Recording
from parity.summaries import findings

from .pages import report, row

ROUNDOFF = {"float32": 2.0**-24, "bfloat16": 2.0**-8}


@pytest.mark.parametrize(
    ("check", "dtype", "units", "factor"),
    [
        ("layers", "float32", 4, 24), ("train", "float32", 1024, 24), ("layers", "bfloat16", 1, 64),
        ("train", "bfloat16", 4, 4),
    ],
)  # fmt: skip
def test_the_least_limit_below_float64_is_the_product_that_its_reason_states(
    check: str, dtype: str, units: int, factor: int
) -> None:
    value, reason = below(0.0, 0.0, dtype, check)
    stated = re.match(rf"(\d+) times (\d+) {dtype} roundoffs? of (\S+), the least that is granted as rounding", reason)
    assert stated
    assert [float(n) for n in stated.groups()] == pytest.approx([factor, units, ROUNDOFF[dtype]], rel=0.03)
    assert value == factor * units * ROUNDOFF[dtype]
    assert reason.endswith("in training, which feeds it back") == (check == "train")


def test_measured_rounding_beyond_the_least_is_the_reason_of_a_limit() -> None:
    assert below(1e-5, 0.0, "float32", "layers").reason == "24 times this array's rounding in the most exact framework"
    assert below(0.0, 1e-5, "float32", "layers").reason.startswith("24 times the median array's rounding in ")
    assert (
        below(0.0, 0.5, "float16", "train").reason == "4 times the largest array's rounding in the most exact framework"
    )


@pytest.mark.parametrize("name, step", [
    ("adamw: stem.kernel", 0.25), ("sgd: stem.kernel", 0.0), ("adam: norm.mean", 0.0), ("adam: losses", 0.0),
])  # fmt: skip
def test_what_adam_trains_in_half_precision_may_differ_by_whole_steps(name: str, step: float) -> None:
    """In float16 a second moment underflows, and a small array is a few steps off in a framework that had no luck."""
    exact, sides = np.full(3, 2.0**-6), list[Recording]()
    for label, off in (("a", 0.0), ("b", 3 * 2.0**-10)):
        sides.append(Recording(label, label, "float16", "cpu", {name: exact + off, "sgd: losses": exact}))
        sides[-1].truth = Recording(label, label, "float64", "cpu", {name: exact, "sgd: losses": exact})
    (result,) = judge(Subject("x", "v", "train", "float16", "cpu"), sides)
    assert result.tolerance == (step or 4 * 16 * 2.0**-11) and result.passed is bool(step)
    assert (result.basis == f"4 times {STEP}") is bool(step)
    reason = f"{result.reason}" if result.reason else ""
    assert bool(step) or "0.01562 in 'a in float64' and 0.01855 in b (a difference of " in reason, reason
    (found,) = findings.find([result]) if not step else [None]
    assert found is None or dict(findings.facts(found))["rounding"].startswith("0 in a and 0.19 in b: the difference")


def judged(check: str, dtype: str, moves: float = 0.0, slip: float = 0.0, small: float = 1.0) -> Result:
    """A pair whose arrays move by `moves` with the weights, and whose second side, and its copy, is off by `slip`."""
    sides = []
    for label, off in (("a", 0.0), ("b", slip)):
        values = np.array([[1.0, small], [0.5, small]]) * (1 + off)
        arrays = {"output": values, "sgd: losses": np.ones(3)}
        made = Recording(label, label, dtype, "cpu", arrays)
        made.truth = Recording(label, label, "float64", "cpu", dict(arrays)) if dtype != "float64" else None
        for one in filter(None, (made, made.truth)):
            one.spread = {name: np.full(1, moves) for name in arrays}
        sides.append(made)
    return judge(Subject("x", "v", check, dtype, "cpu"), sides)[0]


def test_limits_of_float64_are_fixed_or_what_moved_weights_do() -> None:
    assert (judged("layers", "float64").tolerance, judged("layers", "float64").basis) == (1e-10, FIXED["layers"])
    assert (judged("train", "float64").tolerance, judged("train", "float64").basis) == (1e-9, FIXED["train"])
    wide = judged("train", "float64", moves=1e-8)
    assert (wide.tolerance, wide.basis) == (16e-8, amplified("float64")) and wide.basis.startswith("16 times ")
    assert judged("layers", "float64", small=1e-6, slip=1e-12).basis == FIXED["layers"]
    small = 0.6369616873214543  # 1e-10 * small / small is not 1e-10 in float64
    sides = [Recording(label, label, "float64", "cpu", {"output": np.array([[1.0, x]])}) for label, x in
             (("a", small), ("b", 1.001 * small))]  # fmt: skip
    assert judge(Subject("x", "v", "layers", "float64", "cpu"), sides)[0].tolerance == 1e-10


@pytest.mark.parametrize("small", [2.0**-3, 2.0**-10])
def test_the_page_states_the_least_that_the_error_of_a_gradient_is_relative_to(small: float) -> None:
    off = 2.0**-20
    sides = [
        Recording(label, label, "float64", "cpu", {"large": np.ones(1), "small": np.full(1, small + moved)})
        for label, moved in (("a", 0.0), ("b", off))
    ]
    result = judge(Subject("x", "v", "gradients", "float64", "cpu"), sides)[0]
    assert result.error == pytest.approx(off / max(small, 1 / 16), rel=1e-6)  # the digits of a float64 sum
    stated = "divided by the largest value of the whole array, but by no less than 1/16 of that of all gradients"
    assert stated in definition([result])
    assert "gradient" not in definition([replace(result, check="layers")])


def test_the_error_of_an_array_is_that_of_the_feature_furthest_beyond_its_own_limit() -> None:
    """The copies of feature 1 differ by more, and may: it is rounded a thousand times as much."""
    noise, sides = np.array([0.0, 1e-3]), list[Recording]()
    for label, values in (("a", [1.0, 1.0]), ("b", [1.5, 1.875])):
        truth = Recording(label, label, "float64", "cpu", {"output": np.array([values, values])})
        sides.append(Recording(label, label, "float32", "cpu", {"output": np.array([values, values]) + noise}))
        sides[-1].truth = truth
    (result,) = judge(Subject("x", "v", "layers", "float32", "cpu"), sides)
    assert (result.error, result.tolerance) == (0.5, pytest.approx(4 * 2.0**-24)) and result.copies == ("output",)
    assert "it is that of the feature nearest to its limit, or furthest beyond it. Below float64 it is the larger" in (
        definition([result])
    )
    assert "its difference between both models in float64, divided" in definition([result])
    assert "its difference between both models, divided" in definition([replace(result, dtype="float64")])
    assert "below a plot" not in definition([result])  # of one array there is none


def test_copies_in_float64_that_differ_are_judged_by_what_float32_rounds() -> None:
    off = judged("layers", "float32", slip=1e-3)
    assert off.passed is False and off.basis == TWINS and off.first_divergence is not None
    assert off.tolerance == pytest.approx(4 * 2.0**-24) and off.first_divergence.basis == TWINS


def test_each_limit_of_the_page_leads_to_its_reason() -> None:
    made = [row(("a",)), replace(row(("a",)), check="train", tolerance=1e-9), row(("a",), "float32")]
    bases = FIXED["layers"], FIXED["train"], amplified("float32")
    page = Report([replace(r, basis=basis) for r, basis in zip(made, bases, strict=True)]).to_html()
    (notes,) = re.findall('<section class="limits" id="limits">.*?</section>', page)
    rows = [re.sub("<[^>]*>", "", item) for item in re.findall("<li .*?</li>", notes)]
    assert rows == [
        f"[a]limit 1e-10 layers in float64: {FIXED['layers']}.", f"[b]limit 1e-9 train in float64: {FIXED['train']}.",
        f"[c]limit 1e-10 layers in float32: {amplified('float32')}.",
    ]  # fmt: skip
    letter = r'<td class="number">(1e-\d+)<a href="#(limits-\w)" class="note"> \[(\w)\]</a></td>'
    marked = {limit: (address, letter) for limit, address, letter in re.findall(letter, page)}
    assert marked == {"1e-10": ("limits-c", "c"), "1e-9": ("limits-b", "b")}  # of layers, the last one
    assert re.findall(r'id="(limits-\w)"><span class="letter">\[(\w)\]', notes) == [(f"limits-{c}", c) for c in "abc"]


def test_a_limit_of_the_only_reason_bears_no_letter() -> None:
    page = Report([replace(row(("a",)), basis=FIXED["layers"])]).to_html()
    notes = page.partition('id="limits">')[2].partition("</section>")[0]
    assert 'class="note"' not in page and "<ul><li>" in notes and "lettered" not in notes


def test_the_limit_of_a_row_has_its_letter() -> None:
    made = [replace(row(("a",)), basis=FIXED["layers"]), replace(row(("a",)), check="train", basis=FIXED["train"])]
    table = Report(made).to_html().partition('<table class="matrix by-pair">')[2].partition("</table>")[0]
    assert re.findall(r'class="note"> \[(\w)\]<', table) == ["a", "b"]


def test_a_limit_has_the_digits_of_the_product_that_its_reason_states_wherever_it_stands() -> None:
    value, reason = below(0.0, 0.0, "float32", "layers")
    assert reason.startswith("24 times 4 float32 roundoffs of 5.96e-8,")
    made = [replace(row(("a", "b")), basis=reason, tolerance=value, error=1e-12)]
    made.append(replace(made[0], pair="a-c"))
    page = Report(made).to_html()
    assert "<b>limit 5.7e-6</b>" in page and page.count(">5.7e-6<") == 3 and "6e-6" not in page.replace("5.7e-6", "")


def test_limits_of_one_reason_are_stated_as_a_range() -> None:
    results = [replace(row(("a",)), basis="why", tolerance=t) for t in (6e-6, 1e-5)]
    assert "<b>limit 6e-6 to 1e-5</b>" in LimitNotes(results).notes()


def test_every_limit_of_a_real_page_has_a_reason() -> None:
    judged = [r for r in report() if r.passed is not None]
    assert all(r.basis and len(r.reasons) == len(r.curve) and all(r.reasons) for r in judged)


def test_the_list_has_the_reason_and_the_range_of_the_limits_of_all_arrays() -> None:
    sides = []
    for label, noise in (("a", (0.0, 1e-6, 3e-6, 5e-6)), ("b", (1e-5, 1e-5, 1e-5, 1e-5))):
        exact = {name: np.ones(2) for name in "pqrs"}
        rounded = {name: array + off for (name, array), off in zip(exact.items(), noise, strict=True)}
        truth = Recording(label, label, "float64", "cpu", exact)
        sides.append(Recording(label, label, "float32", "cpu", rounded, truth=truth))
    (result,) = judge(Subject("x", "v", "layers", "float32", "cpu"), sides)
    page = Report([result]).to_html()
    notes = re.sub("<[^>]*>", "", page.partition('id="limits">')[2].partition("</section>")[0])
    notes = unescape(notes)
    assert "limit 7.2e-5 layers in float32: 24 times the median array's rounding in the most exact" in notes
    assert "limit 1.2e-4 layers in float32: 24 times this array's rounding in the most exact framework" in notes
    values = page.partition("<summary>Values</summary>")[2].partition("</table>")[0]
    assert values.count('<td class="number">7.2e-5</td>') == 3  # of the table's one limit: the usual reason
    assert values.count('<td class="number">1.2e-4<a href="#limits-a" class="note"> [a]</a></td>') == 1


@pytest.mark.parametrize("kept", [576, 300])
def test_the_limits_of_dropout_masks_have_a_reason(kept: int) -> None:
    sides = [
        Recording(k, k, "float64", "cpu", {"sgd: losses": np.ones(3)}, masks=[[0.1, 640, 640, units, 0.0]])
        for k, units in (("a", 576), ("b", kept))
    ]
    (result,) = judge(Subject("x", "v", "train", "float64", "cpu"), sides)
    reasons = dict(zip([name for name, *_ in result.curve], result.reasons, strict=True))
    assert result.passed == (kept == 576) and reasons["dropout 0 (rate 0.1)"] == MASKS


def test_float64_copies_have_one_scale_in_each_dtype() -> None:
    """The rounding of the feature that differs is the largest of all: beside it, the whole array is as far off."""
    values = np.array([[1.0, 0.5], [0.5, 0.4]])
    rounded = values + np.array([0.0, 1e-6])
    sides = {"a": np.zeros(2), "b": np.array([0.0, 0.6])}
    truth = {k: Recording(k, k, "float64", "cpu", {"output": values + off}) for k, off in sides.items()}
    below64 = [Recording(k, k, "float32", "cpu", {"output": rounded + off}, truth=truth[k]) for k, off in sides.items()]
    (exact,) = judge(Subject("x", "v", "layers", "float64", "cpu"), list(truth.values()))
    (single,) = judge(Subject("x", "v", "layers", "float32", "cpu"), below64)
    assert (exact.error, exact.basis, single.basis) == (pytest.approx(1.2), FIXED["layers"], TWINS)
    assert single.error == exact.error and single.first_divergence is not None
    assert single.first_divergence.worst.remark.startswith(
        "relative to 0.5, the largest value of feature 1 alone in the first model"
    )


def test_the_reason_of_most_limits_stands_once_above_the_table_and_their_rows_bear_no_letter() -> None:
    checks = "forward", "layers", "gradients", "train"
    made = [replace(row(("a",)), check=check, basis=FIXED[check]) for check in checks]
    page = re.sub(r"<(?!a |td)[^>]*>", "", Report(made).to_html().partition("<main")[2])
    above, table = page.partition("Each number is")[2].split('<td data-label="limit">', 1)
    assert f"Limits without a letter have one reason: {FIXED['layers']}." in above
    assert "A letter leads to the reason of its limit. " in above
    assert re.findall(r'class="note"> (\[\w\])', table.partition("Error of every array")[0]) == ["[a]"]  # of training
    other = replace(made[0], pair="a-c", basis="another reason")  # in the row of one with the usual reason
    assert "Limits without a letter" not in Report([*made, other]).to_html()
    notes = page.partition("How errors are measured")[2]
    assert notes.index("forward, layers and gradients in float64:") < notes.index("[a]limit 1e-10 train in float64:")

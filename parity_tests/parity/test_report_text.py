"""What a report prints: the verdict first, a table, what differs and what did not run, the summary last."""

from __future__ import annotations

import io
import re
from dataclasses import replace

import pytest

from convert import terminal
from parity.given.quoting import marked, pair_of, unmarked
from parity.judging.judge import Subject, judge
from parity.report import Report
from parity.results.guesses import Guess
from parity.results.result import Result
from parity.running.recording import Recording
from parity.summaries import notes, report_text, summary
from specs.numbers import short

from .slipped import LABELS, recording, results, without


def test_the_verdict_is_first_and_the_summary_last() -> None:
    lines = report_text.render(results(), report="parity.html").splitlines()
    assert lines[0] == "flax, torch and paddle agree on each of 2 models, in all 24 comparisons."
    assert lines[-2:] == [
        "96 pairs of arrays; error nearest to its limit: 0 in float64 (limit 1e-10)",
        "report: parity.html",
    ]
    narrow = report_text.render(results(), report="parity.html", width=40).splitlines()
    assert narrow[-3:] == [
        "96 pairs of arrays; error nearest to its",
        "  limit: 0 in float64 (limit 1e-10)",
        "report: parity.html",
    ]


def test_a_row_a_model_and_check_has_a_column_a_pair() -> None:
    lines = report_text.render(results()).splitlines()
    assert lines[2] == "mlp_mixer, float64 on cpu: error nearest to its limit"
    assert lines[3].split() == ["model", "check", "limit", "flax-torch", "flax-paddle", "torch-paddle"]
    assert lines[4].split() == ["tiny", "S/16", "forward", "1e-10", "0", "0", "0"]
    assert [line.split()[0] for line in lines[5:8]] == ["layers", "gradients", "train"]  # the model stands once
    assert lines[8].split()[:3] == ["tiny", "B/16", "forward"]
    assert len({len(line) for line in lines[3:12]}) == 1  # aligned
    short = report_text.render(results(variants=("v",))).splitlines()[3:8]
    assert len({len(line) for line in short}) == 1


def test_what_differs_is_marked_and_told_once_a_model() -> None:
    text = report_text.render(results(1e-3))
    assert text.startswith("torch differs from flax and paddle in 16 of 24 comparisons, first at\nblocks.1.norm1 (")
    assert text.count("1.0e-3 X") == 16
    assert "X: beyond its limit" in text
    assert text.count("  layer         blocks.1.norm1\n") == 1
    for line in (
        "  values        5.000 in flax, 5.005 in torch at [4]",
        "  error         1.0e-3: a difference of 5e-3, relative to 5, the largest element",
        "                in the first model",
        "  limit         1e-10, fixed, as rounding of equal models stays at least a",
        "  layer before  blocks.0.norm1, error 0",
        "  agrees        flax-paddle",
        "  also differs  forward, gradients and train in float64",
        "  also in       'tiny B/16': error 1.0e-3",
    ):
        assert line in text.splitlines()


def test_values_are_told_apart_by_as_many_digits_as_it_takes() -> None:
    a, b = recording("flax"), recording("torch")
    b.arrays = {name: array * (1 + 1e-9) for name, array in a.arrays.items()}
    (result,) = judge(Subject("x", "v", "layers", "float64", "cpu"), [a, b])
    assert "5.000000000 in flax, 5.000000005 in torch at [4]" in report_text.render([result])


def test_a_missing_framework_takes_one_line() -> None:
    text = report_text.render(without("paddle"))
    line = "paddle is not installed, so 8 comparisons did not run (flax-paddle and torch-paddle): pip install "
    assert line in " ".join(text.split())
    assert text.count("paddle") == 4  # its name, the remedy and both pairs
    assert text.startswith("flax and torch agree in all 4 comparisons.\n") and text.count("did not run") == 1
    assert text.endswith("\n16 pairs of arrays; error nearest to its limit: 0 in float64 (limit 1e-10)")


def test_a_reason_that_dtypes_and_sides_share_takes_one_line() -> None:
    made: list[Result] = []
    for dtype in ("float16", "bfloat16"):
        sides = [recording("flax"), *(Recording(f, f, dtype, "cpu", unable=True) for f in ("torch", "paddle"))]
        sides[1].cause = sides[2].cause = f"no pad in {dtype}"
        made += judge(Subject("x", "v", "forward", dtype, "cpu"), sides)
    (cause,) = notes.causes(made)
    which = "6 comparisons: flax-torch, flax-paddle and torch-paddle"
    assert cause == notes.Cause("torch and paddle", "not run", "no pad in float16 and bfloat16", which)
    assert str(cause) == f"torch and paddle not run: no pad in float16 and bfloat16 ({which})"
    (lone, *_) = notes.causes([replace(made[0], variant="v w"), *results(variants=("u",))])
    assert lone.which.endswith("`x:v w`; forward in float16") and "'x:v w'" in str(lone)  # as code on the page


def test_a_model_whose_name_has_a_comma_is_quoted_among_others() -> None:
    made = [replace(r, assumed=("gelu=erf",)) for r in results(variants=("a", "b, c"))]
    text = unmarked(summary.assumptions([*made, *results(variants=("d",))]))
    assert text == "Assumed: gelu=erf in mlp_mixer:a and 'mlp_mixer:b, c'"


def test_a_crash_is_no_agreement() -> None:
    crashed = Recording("torch", "torch", "float64", "cpu", cause="its process died (SIGSEGV)")
    made = judge(Subject("x", "v", "layers", "float64", "cpu"), [recording("flax"), crashed, recording("paddle")])
    text = report_text.render(made)
    assert " ".join(text.split()).startswith(
        "Not proven: 2 comparisons failed to run, as torch failed: its process died (SIGSEGV); 1 agrees."
    )
    line = "torch failed: its process died (SIGSEGV) (2 comparisons: flax-torch and torch-paddle)"
    assert line in " ".join(text.split())
    assert text.endswith("\n4 pairs of arrays; error nearest to its limit: 0 in float64 (limit 1e-10)")


def test_nothing_compared_is_said() -> None:
    unable = Recording("torch", "torch", "float64", "cpu", cause="torch finds no GPU here", unable=True)
    made = judge(Subject("x", "v", "layers", "float64", "cpu"), [recording("flax"), unable])
    assert report_text.render(made).splitlines()[0] == (
        "Nothing was compared. One comparison did not run: torch finds no GPU here."
    )
    assert report_text.render([]).splitlines()[0] == "Nothing was compared."


@pytest.mark.parametrize("width", [60, 80])
@pytest.mark.parametrize(
    "labels", [LABELS, ("my first model", "another-implementation", "the third one", "and the last")]
)
def test_nothing_is_wider_than_the_terminal(labels: tuple[str, ...], width: int) -> None:
    made: list[Result] = []
    for variant in ("tiny S/16", "a checkpoint with a very long name.safetensors S/16"):
        sides = [recording(label, 1e-3 * (k == 1)) for k, label in enumerate(labels)]
        sides[0].notes = ["word " * 30 + "1.2345e-10 " * 9]
        made += judge(Subject("mlp_mixer", variant, "single-step", "float64", "cpu"), sides)
    text = report_text.render(made, report="a/rather/long/path/to/a/report.html", width=width)
    assert max(map(len, text.splitlines())) <= width
    assert text.count("1.2345e-10") == 9  # no number is broken
    assert all(pair_of(a, b) in " ".join(text.split()) for k, a in enumerate(labels) for b in labels[k + 1 :])


def test_limits_of_their_own_stand_with_the_error() -> None:
    made = results(variants=("tiny S/16",))[:3]
    made[1] = replace(made[1], error=3.1e-8, tolerance=2e-6)
    lines = report_text.render(made).splitlines()
    assert lines[4].split() == ["tiny", "S/16", "forward", "1e-10", "0", "3.1e-8", "of", "2e-6", "0"]
    assert "a of b: the error is a, and b is its own limit" in lines


def test_a_row_states_the_limit_of_most_of_its_errors_and_the_others_state_their_own() -> None:
    made = results(variants=("tiny S/16",))[:3]
    for k, tolerance in enumerate((7e-6, 6e-6, 7e-6)):
        made[k] = replace(made[k], error=1e-6 * (k + 1), tolerance=tolerance)
    lines = report_text.render(made).splitlines()
    assert lines[4].split() == ["tiny", "S/16", "forward", "7e-6", "1.0e-6", "2.0e-6", "of", "6e-6", "3.0e-6"]
    assert any("a of b" in line for line in lines)
    made[2] = replace(made[2], error=6.5e-6)
    lines = report_text.render(made).splitlines()
    assert lines[4].split() == ["tiny", "S/16", "forward", "7e-6", "1.0e-6", "2.0e-6", "of", "6e-6", "6.5e-6", "!"]


def test_digits_stand_below_each_other_whatever_marks_follow_them() -> None:
    (made, *_) = results(variants=("v",))
    off = replace(made, check="layers", passed=False, error=3.8e-5, copies=(made.curve[0][0],))
    lines = report_text.render([replace(made, error=1.2e-12), off]).splitlines()
    (agrees,) = (line.index("1.2e-12") + len("1.2e-12") for line in lines if line.startswith("  v"))
    (differs,) = (line.index("3.8e-5") + len("3.8e-5") for line in lines if line.endswith("3.8e-5 X*"))
    assert agrees == differs


def test_a_long_name_of_a_model_stands_in_its_row_where_all_fits() -> None:
    made = [replace(r, variant="mixer.npz / mixer_alt.npz") for r in results(variants=("v",))]
    one = [r for r in made if r.pair == "flax-torch"]
    assert any(line.startswith("  mixer.npz / mixer_alt.npz  forward") for line in report_text.render(one).splitlines())
    assert "  mixer.npz / mixer_alt.npz" in report_text.render(made).splitlines()


def test_colour_is_for_terminals_that_want_it(monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    assert not terminal.wants_colour(io.StringIO())
    assert terminal.wants_colour(Terminal())
    monkeypatch.setenv("NO_COLOR", "1")
    assert not terminal.wants_colour(Terminal())
    painted = report_text.render(results(1e-3), colour=True)
    assert "\x1b[31;1m" in painted
    assert re.sub("\x1b\\[[0-9;]*m", "", painted) == report_text.render(results(1e-3))


def test_a_report_prints_as_text() -> None:
    assert str(Report(results())) == report_text.render(results())


@pytest.mark.parametrize(
    ("value", "text"),
    [(None, "-"), (0.0, "0"), (1.94e-14, "1.9e-14"), (2e-6, "2.0e-6"), (0.18, "0.18"), (59.7, "60"), (1234.5, "1.2e3"),
     (float("inf"), "infinite")],
)  # fmt: skip
def test_errors_are_short(value: float | None, text: str) -> None:
    assert short(value) == text


def test_what_cannot_be_judged_is_no_agreement() -> None:
    made = results(variants=("tiny S/16",))[:3]
    made[1] = replace(made[1], error=None, tolerance=None, passed=None, cause="float16 drowns all 2 arrays")
    text = report_text.render(made)
    assert text.startswith("flax, torch and paddle agree in both comparisons. One comparison could not be\njudged.")
    assert text.splitlines()[5].split()[-3:] == ["0", "?", "0"]
    assert "?: not judged, see below why" in text.splitlines()
    assert text.splitlines()[-3] == "not judged: float16 drowns all 2 arrays (flax-paddle)"
    assert text.endswith("\n8 pairs of arrays; error nearest to its limit: 0 in float64 (limit 1e-10)")


def test_a_cause_that_models_share_but_for_numbers_is_stated_once() -> None:
    made: list[Result] = []
    for variant, cause in (("tiny A", "torch: no blocks.{0..1}.fc of 7"), ("tiny B", "torch: no blocks.0.fc of 5")):
        failed = Recording("torch", "torch", "float64", "cpu", cause=cause)
        made += judge(Subject("x", variant, "layers", "float64", "cpu"), [recording("flax"), failed])
    assert list(map(str, notes.causes(made))) == [
        "torch failed: no blocks.{0..1}.fc of 7 (2 comparisons: flax-torch; in 'tiny B' with other numbers)"
    ]
    assert len(notes.causes([made[0], replace(made[1], architecture="y")])) == 2


def test_a_strangers_text_cannot_steer_the_terminal() -> None:
    unable = Recording("torch", "torch", "float64", "cpu", cause="no kernel\x1b[2J\rfor it", unable=True)
    made = judge(Subject("x", "v", "layers", "float64", "cpu"), [recording("flax"), unable])
    assert "no kernel\\x1b[2J\\rfor it" in report_text.render(made)


def test_a_note_of_both_sides_of_several_comparisons_and_checks_is_one() -> None:
    sides = [recording(label) for label in LABELS]
    for side in sides:
        side.notes = ["dropout was off"]
    sides[2].notes = ["dropout was off", "ran slowly"]
    results = [judge(Subject("x", "v", check, "float64", "cpu"), sides) for check in ("layers", "forward")]
    text = report_text.render([*results[0], *results[1]]).replace("\n  ", " ")
    assert re.findall("note: .*", text) == [
        "note: dropout was off (6 comparisons: flax-torch, flax-paddle and torch-paddle)",
        "note: paddle: ran slowly (4 comparisons: flax-paddle and torch-paddle)",
    ]


def test_a_note_of_some_sides_names_them_together_and_stands_once() -> None:
    sides = [recording(label) for label in LABELS]
    sides[1].notes = sides[2].notes = ["never called: 'unused'"]
    text = report_text.render(judge(Subject("x", "v", "layers", "float64", "cpu"), sides)).replace("\n  ", " ")
    pairs = "flax-torch, flax-paddle and torch-paddle"
    assert re.findall("note: .*", text) == [f"note: torch and paddle: never called: 'unused' (3 comparisons: {pairs})"]


def test_a_note_says_of_how_many_comparisons_it_is_and_names_its_side_once() -> None:
    sides = [recording(label) for label in LABELS]
    sides[2].notes = ["paddle's LayerNorm rounds epsilon 1e-6 to float32", "ran slowly"]
    text = report_text.render(judge(Subject("x", "v", "layers", "float64", "cpu"), sides)).replace("\n  ", " ")
    for note in ("paddle's LayerNorm rounds epsilon 1e-6 to float32", "paddle: ran slowly"):
        assert f"note: {note} (2 comparisons: flax-paddle and torch-paddle)" in text


def test_the_verdict_names_the_models_whose_settings_are_assumed() -> None:
    made = [replace(r, assumed=("gelu=erf",) if r.variant == "tiny B/16" else ()) for r in results()]
    assert summary.verdict(made).endswith("in all 24 comparisons. Assumed: gelu=erf in `mlp_mixer:tiny B/16`.")
    differing = [replace(r, assumed=("gelu=erf",)) for r in results(1e-3)]
    assert summary.verdict(differing).endswith(" Assumed: gelu=erf.")
    assert "Assumed" not in summary.verdict(results())


def test_a_model_that_cannot_be_judged_is_not_carried_by_others() -> None:
    good, bad = results(variants=("tiny S/16",)), results(variants=("tiny B/16",))
    bad = [replace(r, error=None, passed=None, cause="NaN in both") for r in bad]
    assert {r.grade for r in bad} == {"not judged"}
    report = Report([*good, *bad])
    assert Report(good).passed and not report.passed
    verdict = str(report).splitlines()[0]
    assert verdict.startswith("Nothing is proven of mlp_mixer:tiny B/16; of others, 12 comparisons agree.")


def test_names_do_not_run_into_their_sentence() -> None:
    assert unmarked(f"{marked('x:a, b')} and {marked('x:c')}") == "'x:a, b' and x:c"
    assert [pair_of(*labels) for labels in (("a", "b"), ("a", "my own"), ("a-1", "b"))] == [
        "a-b",
        "a / my own",
        "a-1 / b",
    ]
    sides = [recording("a"), recording("a longer name"), recording("flax", 1e-3)]
    made = judge(Subject("own", "own", "layers", "float64", "cpu"), sides)
    assert [r.pair for r in made] == ["a / a longer name", "a / flax", "a longer name / flax"]  # all alike
    assert report_text.render(made).startswith(
        "flax differs from a and 'a longer name' in 2 of 3 comparisons, first at"
    )
    assert (
        '"bad">flax differs from a and <span class="whole"><code>a longer name</code></span> in'
        in Report(made, {"models": "A"}).to_html()
    )
    assert repr(Report(made)).startswith("<Report: flax differs from a and 'a longer name' in 2 of 3 comparisons")


def test_a_word_in_the_place_of_an_error_has_no_limit() -> None:
    """Each model of one architecture has to call every module."""
    sides = [replace(recording(label), architecture="convmixer") for label in ("a", "b")]
    del sides[1].arrays["blocks.1.norm1"]
    made = judge(Subject("convmixer", "v", "layers", "float64", "cpu"), sides)
    assert summary.extremes(made) == "not called in float64"
    page = Report(made).to_html()
    assert re.sub("<.*?>", "", page.partition('class="totals">')[2].partition("</p>")[0]).startswith(
        "Not called in float64"
    )
    assert "limit 0" not in page and '<td class="number">-</td>' in page
    assert "limit 0" not in report_text.render(made)


def test_the_verdict_states_the_cause_of_what_differs_first_as_the_page_does() -> None:
    (off,) = [r for r in results(1e-3, ("v",)) if (r.check, r.pair) == ("layers", "flax-torch")]
    assert off.first_divergence is not None
    off.first_divergence.guess = Guess.of({"flax": "epsilon 1e-5", "torch": "epsilon 1e-3"}, 1e-16)
    said = "flax and torch differ, first at blocks.1.norm1: epsilon is 1e-5 in flax, 1e-3 in torch"
    where = "(mlp_mixer:v, check layers in float64)"
    assert " ".join(report_text.render([off]).split()).startswith(f"{said} {where}. ")
    assert repr(Report([off])) == f"<Report: {said} {where}.>"
    assert f": {said}.</title>" in Report([off]).to_html()


def test_a_model_that_agrees_is_named_apart_from_those_that_differ() -> None:
    made = [*results(1e-3, ("v",)), *results(1e-15, ("w",))]
    said = "torch differs from flax and paddle in 8 of 12 comparisons on one model, first at `blocks.1.norm1`."
    assert summary.verdict(made, alone=True) == f"{said} `mlp_mixer:w` agrees."
    title = Report(made).to_html().partition("<title>")[2].partition("</title>")[0]
    assert title.startswith("mlp_mixer:v: torch differs from flax")


def test_architectures_that_differ_stand_first() -> None:
    agree = [replace(r, architecture="convmixer") for r in results(1e-15, ("w",))]
    made = [*agree, *results(1e-3, ("v",))]
    text, page = report_text.render(made), Report(made).to_html()
    assert text.index("\nmlp_mixer, float64") < text.index("\nconvmixer, float64")
    assert page.index("Errors of mlp_mixer") < page.index("Errors of convmixer")


def test_the_verdict_counts_the_elements_of_an_array_that_is_another_one() -> None:
    (off,) = [r for r in results(1e-3, ("v",)) if (r.check, r.pair) == ("layers", "flax-torch")]
    assert off.first_divergence is not None
    off.first_divergence.weights = "blocks.1.fc.kernel (fc.weight): 1 of 1,288 elements differs, by up to 0.1"
    said = "first at `blocks.1.norm1`: 1 of 1,288 elements of its kernel differs."
    assert summary.verdict([off], alone=True).endswith(said)


def test_what_did_not_run_is_no_part_of_all() -> None:
    (off,) = [r for r in results(1e-3, ("v",)) if (r.check, r.pair) == ("layers", "flax-torch")]
    skipped = replace(off, pair="flax-paddle", passed=None, error=None, missing=(("paddle", "no GPU here"),))
    made = [off, replace(off, check="forward"), replace(off, check="train"), skipped]
    assert summary.verdict(made, alone=True) == (
        "flax and torch differ in all 3 comparisons that ran, first at `blocks.1.norm1`. One comparison did not run: "
        "paddle: no GPU here."
    )
    assert summary.verdict(made[1:3], alone=True).startswith("flax and torch differ in both comparisons, first at")


def test_a_checkpoint_is_named_by_its_file_only_where_its_variant_is() -> None:
    (one, *_) = results()
    of_file = replace(one, variant="a.npz S/16", files=("x/a.npz",))
    for shown in ([of_file], [of_file, replace(of_file, files=(), passed=None)]):  # what did not run has no file
        assert summary.compared(shown, "") == "`a.npz S/16`"
    assert summary.compared([replace(one, files=("x/a.npz", "x/b.npz"))], "") == "`mlp_mixer:tiny S/16`"


def test_a_limit_a_range_and_a_shape_are_not_broken_into_lines() -> None:
    text = "worst error: float64 1.6 (limit 1e-10), for i = 0..1 and inputs of shape [2, 3, 8, 8]; end"
    for width in range(30, 90):
        lines = terminal.wrapped(text, width, rest="  ")
        assert " ".join(line.strip() for line in lines) == text and max(map(len, lines)) <= width
        assert all(any(whole in line for line in lines) for whole in ("(limit 1e-10),", "i = 0..1", "[2, 3, 8, 8];"))


def test_an_error_between_float64_copies_is_marked_in_the_table() -> None:
    off = replace(judge(Subject("x", "v", "layers", "bfloat16", "cpu"), [recording("a"), recording("b", 1e-3)])[0])
    text = report_text.render([replace(off, copies=tuple(name for name, _, _ in off.curve))])
    assert " X*\n" in text and "*: between the float64 copies of both models, which differ" in text
    assert "*" not in report_text.render([off])


def test_pairs_that_do_not_fit_beside_each_other_have_rows() -> None:
    """No table is split, so that no model, check or limit is repeated."""
    made = judge(Subject("x", "tiny S/16", "layers", "float64", "cpu"), [recording(label) for label in LABELS])
    made = [replace(r, tolerance=r.tolerance * (k + 1)) for k, r in enumerate(made) if r.tolerance]
    lines = report_text.render(made, width=50).splitlines()
    table = lines[lines.index("  model      check   pair          error  limit") + 1 :]
    assert table[:3] == [
        "  tiny S/16  layers  flax-torch        0  1e-10",
        "                     flax-paddle       0  2e-10",
        "                     torch-paddle      0  3e-10",
    ]


def test_pairs_of_a_side_that_lacks_the_dtype_are_listed_as_not_run() -> None:
    """They ran in no comparison, as those of a framework that is not installed do, but may in another dtype."""
    sides = [recording("flax"), recording("torch")]
    unable = Recording("paddle", "paddle", "float16", "cpu", cause="paddle has no conv2d in float16", unable=True)
    made = judge(Subject("x", "v", "forward", "float64", "cpu"), [*sides, unable])
    assert summary.absent(made) == [] and summary.absences(made) == []
    page = Report(made).to_html()
    rows = " ".join(re.findall('<table class="pairs[^"]*">.*?</table>', page))
    assert "flax-paddle" in rows and "torch-paddle" in rows and "paddle has no conv2d in float16" in page
    verdict = (
        "flax and torch agree in the only comparison. Two comparisons did not run: paddle has no conv2d in float16."
    )
    assert " ".join(report_text.render(made).split()).startswith(verdict)


def test_a_dtype_in_which_nothing_ran_is_named_by_the_verdict_and_takes_no_rows() -> None:
    (made, *_) = results()
    skipped = [
        replace(made, dtype=dtype, check=check, passed=None, error=None, missing=(("torch", f"no {check} in {dtype}"),))
        for dtype in ("bfloat16", "float16")
        for check in ("forward", "layers")
    ]
    for every, said in (
        ([made, *skipped], "did not run; none ran in bfloat16 and float16."),
        ([made, skipped[0], skipped[2]], "did not run: torch: no forward in bfloat16 and float16."),
    ):
        page = Report(every).to_html()
        assert summary.verdict(every).endswith(said) and '<h1 class="part">' in page
        assert page.count('<td class="none">') == 0 and "not run</b>" in page.partition("Remarks</h2>")[2]
    assert '<h1 class="good">' in Report([made]).to_html()


def test_a_side_without_a_port_is_absent() -> None:
    unable = Recording("paddle", "paddle", "float64", "cpu", cause="my has no port in paddle", unable=True)
    made = judge(Subject("my", "v", "forward", "float64", "cpu"), [recording("flax"), recording("torch"), unable])
    assert summary.absences(made) == [
        "my has no port in paddle, so 2 comparisons did not run (flax-paddle and torch-paddle)"
    ]

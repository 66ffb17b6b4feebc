"""The report's page, as text."""

from __future__ import annotations

import itertools
import math
import re
from dataclasses import replace
from html import unescape
from pathlib import Path

import numpy as np
import pytest

from parity.report import Report
from parity.results.elements import Worst
from parity.results.guesses import Guess
from parity.results.result import Divergence, Result
from parity.summaries import summary

from .pages import Text, first, report, row, unbound


def test_the_page_is_whole_and_fetches_nothing() -> None:
    page = report().to_html()
    text = Text(page)
    assert text.open == []
    assert text.fetched == []
    assert not re.search(r"https?://|url\(|@import|<script|\$[a-z]", page)


def test_the_verdict_stands_first_then_what_was_run_then_what_differs_then_errors() -> None:
    made = report()
    made.about |= {"date": "2026-11-27", "command": "parity x"}
    page = made.to_html()
    head = re.findall("<h1.*?</h1>|<p class=.*?</p>", page)
    assert "(" not in head[1] and re.sub("<.*?>", "", head[1]).startswith("mlp_mixer:B/16: torch differs ")
    extremes = re.sub("<.*?>", "", head[2])
    assert extremes.startswith("Error furthest beyond its limit: 1.0e-3 in float64 (limit 1e-10; ")
    assert "`" not in head[2]
    assert 'layers at <span class="whole"><code>blocks.15.norm1</code>)' in head[2]
    (brief,) = re.findall(
        '<span class="brief">(.*?)</summary>', re.sub('<span class="whole">(.*?)</span>', r"\1", page)
    )
    assert re.findall("<span>(.*?)</span>", brief) == ["2026-11-27", "cpu", "parity x"]
    marks = [
        "differs from", "What was run", "2026-11-27", "sha256 abab", "Where the models first differ",
        "<h2>Errors of mlp_mixer</h2>", "<h2>Remarks</h2>", "<h2>Error of every array</h2>",
        "How errors are measured", "What this does not show",
    ]  # fmt: skip
    body = page[page.index("<body>") :]
    assert [body.index(mark) for mark in marks] == sorted(body.index(mark) for mark in marks)


@pytest.mark.parametrize(
    ("results", "subject"),
    [
        ([replace(row(("a",)), variant="mixer.npz S/16", files=("x/mixer.npz",))], "mixer.npz S/16"),
        ([row(("a",))], "x:v"),
        ([row(("a",), variant=v) for v in "vwyz"], "x"),
        ([replace(row(("a",)), architecture="own", variant="own")], ""),
        ([], ""),
    ],
)
def test_headline_and_tab_name_what_was_compared(results: list[Result], subject: str) -> None:
    page = Report(results, {"models": "Mine (a) and Yours (b)"}).to_html()
    title, head = (re.findall(f"<{tag}[^>]*>(.*?)</{tag}>", page)[0] for tag in ("title", "h1"))
    verdict = summary.verdict(results).replace("`", "")
    assert title == re.sub("<.*?>", "", head) == (f"{subject}: {verdict}" if subject else verdict)


def test_the_headline_ends_with_the_cause_of_what_differs_first() -> None:
    off = replace(row(("a",)), passed=False, error=1e-3, curve=(("a", 1e-3, 1e-10),), sides=("a", "my own"))
    guess = Guess.of({"a": "epsilon 1e-5", "my own": "epsilon 1e-3"}, 1e-16)
    known = replace(off, first_divergence=Divergence.at("a", Worst(1e-3, (0,), 1.0, 1.1), 1e-10, guess=guess))
    nan = replace(off, error=math.inf, first_divergence=first("a", math.inf), nans=("a",))
    for result, cause in ((known, "a: epsilon is 1e-5 in a, 1e-3 in my own."), (nan, "a: NaN.")):
        page = Report([result]).to_html()
        assert f"differ, first at {cause}</title>" in page
    assert "<code>my own</code>" in Report([known]).to_html().partition("</h1>")[0].rpartition("1e-3 in")[2]


def test_a_sentence_goes_on_behind_the_name_of_what_was_compared() -> None:
    crashed = replace(row(()), passed=False, error=float("inf"), missing=(("b", "its process died"),))
    page = Report([crashed]).to_html()
    assert "<title>x:v: not proven: 1 comparison failed to run, as b failed: its process died.</title>" in page
    assert "How errors are measured" not in page and "Only this was compared" not in page  # nothing was
    other = replace(crashed, missing=(("a", "Error: " + 80 * "x"),))
    assert summary.verdict([other]) == "Not proven: 1 comparison failed to run, as a failed."
    assert summary.verdict([crashed, other]) == "Not proven: 2 comparisons failed to run."


def test_parts_of_the_page_have_headings_and_tables_titles() -> None:
    made = Report(list(report()), modules={"m": [("a", "Conv")], "n": [("a", "Conv"), ("b", "GELU")]})
    page = made.to_html()
    heads = [re.sub("<.*?>", "", head) for head in re.findall("<h2>(.*?)</h2>", page)]
    assert heads == [
        "What was run", "Where the models first differ", "Errors of mlp_mixer", "Remarks", "Error of every array",
        "Modules side by side", "How errors are measured, and why each limit", "What this does not show",
    ]  # fmt: skip
    assert page.count("<main ") == 1 and page.count("<table") == page.count("<caption") > 3
    table = page.partition('class="modules"')[2].partition("</table>")[0]
    assert re.findall('<th (?:class="absent" )?data-label="m" scope="row">(?:<code>a|-)', table) == [
        '<th data-label="m" scope="row"><code>a', '<th class="absent" data-label="m" scope="row">-'
    ]  # fmt: skip


def test_headings_skip_no_level() -> None:
    """A reader who goes from heading to heading meets h1, then h2, and h3 within it."""
    forward = [replace(row(("output",), dtype), check="forward") for dtype in ("float64", "float32")]
    for made in (report(), Report([row(("a", "b"))]), Report(forward)):
        levels = [*map(int, re.findall(r"<h(\d)", made.to_html()))]
        assert levels[0] == 1 and levels.count(1) == 1 and len(levels) > 3
        assert all(after <= before + 1 for before, after in itertools.pairwise(levels))


def test_a_divergence_is_listed_by_facts() -> None:
    page = report().to_html()
    (card,) = re.findall(r"<article.*?</article>", page)
    facts = dict(re.findall(r"<dt[^>]*>(.*?)</dt><dd[^>]*>(.*?)</dd>", re.sub("</?span[^>]*>", "", card)))
    assert list(facts) == [
        "layer", "values", "error", "limit", "layer before", "agrees", "also differs", "next",
    ]  # fmt: skip
    assert facts["layer"] == "<code>blocks.0.norm1</code>"
    values = re.fullmatch(r"(\S+) in flax, (\S+) in torch at \[2\]", facts["values"])
    error = re.fullmatch(
        r"1.0e-3: a difference of (\S+), relative to (\S+), the largest element in the first model",
        facts["error"],
    )
    assert values and error
    left, right, gap, scale = map(float, (*values.groups(), *error.groups()))
    assert abs(right - left) == pytest.approx(gap, rel=0.01) and gap / scale == pytest.approx(1e-3, rel=0.01)
    assert facts["limit"] == '1e-10<a href="#limits-a" class="note"> [a]</a>'  # the reason stands in that list alone
    assert page.count("rounding of equal models stays at least a hundred times below it") == 1
    assert facts["layer before"] == "none: it is the first"
    assert facts["agrees"] == "flax-paddle"
    assert facts["also differs"] == '<a href="#m1-layers-float32-cpu">layers</a> in float32'


def test_a_check_close_to_its_limit_is_in_the_headline_with_its_pairs_and_what_it_means() -> None:
    near = [replace(row(("a",)), check="train", pair=p, error=4e-10, tolerance=1e-9) for p in ("a-b", "a-c")]
    page = Report([row(("a",)), *near]).to_html()
    assert re.search(
        r'<h1 class="good">.* agree in all 3 comparisons, <span class="look">1 check close to its limit', unbound(page)
    )
    (card,) = re.findall('<article class="card near">.*?</article>', page)
    text = re.sub("<[^>]*>", "", card)
    assert "a-b4.0e-10 (limit 1e-9), at a" in text and "a-c4.0e-10 (limit" in text
    assert "training amplifies rounding" in text
    assert '<td data-label="a-c" class="close"><a href="#m0-train-float64-cpu">! 4.0e-10</a></td>' in unbound(page)
    assert '<b class="close">!</b>agrees, close to its limit: above 10% of it in float64' in page


def test_what_float64_tells_of_a_close_call_is_said_once_and_not_advised() -> None:
    near = replace(row(("fc", "norm"), "float32"), error=4e-7, tolerance=6e-7, curve=(("fc", 4e-7, 6e-7),))
    alone, both = Report([near]), Report([row(("fc", "norm")), near])
    for made, said in ((alone, "compare in float64"), (both, "in float64 as well, with an error of 1.0e-12")):
        text = re.sub("<[^>]*>", "", made.to_html().partition("<body>")[2])
        assert said in text and text.count("compare in float64") == (made is alone) and "passes close" not in text
    said = " ".join(str(both).split())
    assert (
        "note: fc passes close to its limit in float32, at 67% of it: it agrees in float64 (1.0e-12), so this" in said
    )
    assert "at 67% of it: compare in float64 to be sure" in " ".join(str(alone).split())


def test_a_page_without_a_comparison_claims_none() -> None:
    lone = replace(row(("a",)), error=None, tolerance=None, passed=None, curve=(), cause="b", missing=(("b", "b"),))
    text = re.sub("<[^>]*>", " ", Report([lone, replace(lone, check="train")]).to_html().partition("<body>")[2])
    assert "Nothing was compared: each cell" in text
    assert not re.search("no pair|worst element|agrees", text)


def test_a_page_of_which_nothing_could_be_judged_says_so() -> None:
    nothing = replace(row(("a",)), passed=None, cause="both have NaN")
    page = re.sub("<[^>]*>", "", Report([nothing, replace(nothing, pair="a-c")]).to_html())
    assert (
        "Two comparisons ran, and none could be judged. Remarks say why." in page and "Nothing was compared" not in page
    )
    assert page.count("both have NaN (") == 1


def test_the_head_leaves_what_was_counted_to_its_verdict() -> None:
    off = replace(row(("a",)), passed=False, error=1e-3, first_divergence=first("a"))
    every = [row(("a",)), replace(off, check="train")]
    alike, mixed = (unbound(Report(results).to_html()) for results in (every[:1], every))
    assert ">Error nearest to its limit: " in alike and ">Error furthest beyond its limit: " in mixed
    assert "in 1 of 2 comparisons" in mixed and "2 compared" not in mixed


def test_what_was_run_is_a_table_with_what_is_long_at_its_end() -> None:
    made = Report([row(("a",))], {"command": "x " * 40, "date": "today", "hash": "y " * 40, "seed": "0"})
    (table,) = re.findall('<table class="run">.*?</table>', made.to_html())
    rows = re.findall('<th scope="row">(.*?)</th>', table)
    assert rows == ["date", "seed", "command", "hash"]


def test_what_models_state_stands_beside_their_names() -> None:
    about = {"models": "x:a; x:b", "settings": "x:a: width=7, depth={'b': 2}; x:b: width=9", "images": "x:a: [1, 2]"}
    page = Report([row(("a",))], about).to_html()
    (pairs,) = re.findall('<dl class="by-model">(.*?)</dl>', page)
    assert re.findall("<dt>(.*?)</dt><dd>(.*?)</dd>", unescape(pairs)) == [
        ("x:a", "width=7, depth={'b': 2}"), ("x:b", "width=9"),
    ]  # fmt: skip
    assert "<div>x:a</div><div>x:b</div>" in page


def test_one_comparison_is_singular() -> None:
    page = Report([row(("a", "b"))]).to_html()
    assert "a and b agree in the only comparison." in re.sub("<[^>]*>", "", page)
    assert "1 comparisons" not in page


def test_a_report_of_own_models_states_what_was_run_and_their_modules() -> None:
    torch = pytest.importorskip("torch", reason="torch is not installed")
    import parity

    class Named(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.fc, self.act = torch.nn.Linear(4, 3).double(), torch.nn.GELU()

        def forward(self, x: object) -> object:
            return self.act(self.fc(x))

    class Other(Named):
        def __init__(self) -> None:
            super().__init__()
            self.renamed = self.__dict__["_modules"].pop("fc")

        def forward(self, x: object) -> object:
            return self.act(self.renamed(x))

    names = {"other": {"renamed": "fc"}}
    made = parity.compare({"one": Named(), "other": Other()}, np.ones((2, 4)), "layers", names=names)
    assert {label: [one[:2] for one in tree] for label, tree in made.modules.items()} == {
        "one": [("fc", "Linear"), ("act", "GELU")],
        "other": [("act", "GELU"), ("fc", "Linear")],
    }
    labels = [label for label in made.about if label != "script"]  # which tests may have or not
    assert labels[:6] == ["check", "inputs", "models", "date", "triptych", "python"]
    assert (made.about["inputs"], made.about["models"]) == ("[2, 4] float64", "Named (one) and Other (other)")
    plain = re.sub("</?code>", "", unbound(made.to_html()))
    sides = dict(re.findall("<dt[^>]*>(.*?)</dt><dd[^>]*>(.*?)</dd>", plain.partition('"sides"')[2]))
    assert sides["one"].startswith("Named in test_page.py; torch 2") and sides["other"].startswith("Other in test_page")
    cast = parity.compare({"one": Named(), "other": Other()}, np.ones((2, 4)), names=names, dtype="float32")
    assert cast.about["one"].startswith("Named in test_page.py; torch 2")
    title = "<h2>Errors of each comparison</h2>"  # of several: a plot has the number of one
    assert title not in made.to_html() and title in Report([*made.results, *made.results]).to_html()
    assert "Named (one) and Other (other)" not in unbound(
        made.to_html()
    )  # the verdict names both, the head their classes
    assert "<dt>one</dt>" not in made.to_html().partition("What was run")[2]  # which the head states
    assert re.fullmatch(r"\d{4}-\d\d-\d\d \d\d:\d\d UTC", made.about["date"])
    text = re.sub("<[^>]*>", " ", unbound(made.to_html()))
    assert "[2, 4] float64" in text and "images" not in text
    assert "one and other agree in the only comparison." in text
    assert '<table class="modules">' in made.to_html()


def test_a_long_cause_stands_in_the_remarks_alone() -> None:
    why = "a report of paddle " * 5
    undecided = replace(row(("a",)), error=None, tolerance=None, passed=None, cause=why.strip())
    page = Report([row(("a",)), replace(undecided, pair="a-c"), replace(undecided, pair="b-c")]).to_html()
    seen = re.sub(r' title="[^"]*"', "", page)
    assert seen.count(why.strip()) == 1 and page.count('not judged: see <a href="#remarks">') >= 2


def test_a_remark_begins_with_the_side_that_failed_ahead_of_one_colon() -> None:
    crashed = replace(row(("a",)), passed=False, error=float("inf"), missing=(("b", "its process died"),))
    page = Report([crashed]).to_html().partition("<h2>Remarks</h2>")[2]
    assert page.startswith("<ul><li>b <b>failed</b>: its process died ")


def test_a_remark_begins_in_upper_case_where_it_begins_with_no_name() -> None:
    """A side may even be named like its grade."""
    nan = replace(row(("a",)), passed=None, cause="both have NaN")
    crashed = replace(row(("a",)), passed=False, error=float("inf"), missing=(("failed", "its process died"),))
    noted = [
        replace(row(("fc",), variant=v), cause=text) for v, text in (("w", "fc passes"), ("y", "these runs amplify"))
    ]
    page = unbound(Report([crashed, nan, *noted]).to_html()).partition("<h2>Remarks</h2>")[2].partition("</ul>")[0]
    assert re.findall("<li>(.*?) ?[(].*?</li>", page) == [
        "failed <b>failed</b>: its process died", "<b>Not judged</b>: both have NaN", "fc passes", "These runs amplify",
    ]  # fmt: skip


def test_outcomes_are_counted_by_name_where_there_are_several() -> None:
    off, skipped = replace(row(("a",)), error=1.0, passed=False), replace(row(("a",)), passed=None, error=None)
    assert summary.totals([row(("a",)), row(("b",))]) == "2 comparisons agree"
    assert summary.totals([row(("a",))]) == "1 comparison agrees"
    assert summary.totals([row(("a",)), off, off, skipped]) == "4 comparisons: 1 agrees, 2 differ, 1 not judged"


def test_a_page_whose_errors_are_all_words_promises_no_number_and_names_their_place_once() -> None:
    shapes = Divergence.at("a", Worst(np.inf, None, 0, 0, cause="shapes differ", word="other shape"), 1e-10)
    off = replace(row(("a",)), passed=False, error=np.inf, curve=(("a", np.inf, 1e-10),), first_divergence=shapes,
                  shapes=("a",))  # fmt: skip
    text = re.sub("<[^>]*>", "", Report([off, replace(off, dtype="float32")]).to_html().partition("<body>")[2])
    assert "Other shape in float64 and float32 (a-b, layers at a)." in text
    assert "Each number" not in text and "Each cell leads to the error of every array." in text
    assert "✗the shapes of both sides differ" in text


def test_a_row_that_passed_has_no_first_divergence() -> None:
    assert row(("a",), cause="bfloat16 drowns 'b'").as_dict()["first_divergence"] is None


def test_a_side_that_never_ran_is_named_once_below_the_verdict() -> None:
    missing = (("c", "is not installed"),)
    lacking = replace(row(("a",)), pair="a-c", error=None, tolerance=None, passed=None, curve=(), missing=missing)
    page = Report([row(("a",)), lacking]).to_html()
    rows = re.findall('<table class="pairs[^"]*">.*?</table>', page)
    assert len(rows) == 1 and "a-b" in rows[0] and "a-c" not in rows[0]
    (line,) = re.findall('<p class="totals absent">(.*?)</p>', page)
    assert re.sub("<.*?>", "", line) == "c is not installed, so one comparison did not run (a-c)."
    assert page.count("a-c") == 1 and page.count("did not run") == 1 and 'id="remarks"' not in page
    assert "a-c" in "".join(re.findall('<table class="pairs[^"]*">.*?</table>', Report([lacking]).to_html()))


def test_the_section_of_the_documentation_that_a_page_names_is_there() -> None:
    page = re.sub("<[^>]*>", "", Report([replace(row(("a",)), dtype="float32")]).to_html())
    sections = re.findall(r"section (\d), “(.*?)”", page)
    assert "docs/parity.md of Triptych, section 3" in page  # a page is sent to people without the repository
    text = (Path(__file__).parents[2] / "docs" / "parity.md").read_text()
    assert len(sections) == 2 and all(f"**{number}. {title}.**" in text for number, title in sections)


def test_a_remark_names_its_model_as_other_parts_of_the_page_do() -> None:
    some = Report([row(("a",), variant="tiny A", cause="it ran slowly"), row(("a",), variant="tiny B")])
    remarks = unbound(some.to_html()).partition("<h2>Remarks</h2>")[2].partition("</section>")[0]
    assert re.findall("<li>(.*?)</li>", remarks) == ["It ran slowly (a-b; <code>x:tiny A</code>)."]
    assert "note: it ran slowly (a-b; 'x:tiny A')" in str(some)

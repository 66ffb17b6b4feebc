"""The tables of errors of the report's page: rows, columns, cells, marks, and the legend that explains them."""

from __future__ import annotations

import re
from dataclasses import replace

import numpy as np
import pytest

from parity.report import Report
from parity.results.elements import Worst
from parity.results.result import Divergence, Result
from parity.summaries import summary

from .pages import Text, first, report, row, unbound


def test_a_box_of_several_states_its_largest_error() -> None:
    errors = [replace(row(("a",), variant=v), error=e, curve=(("a", e, 1e-10),)) for v, e in (("u", 2e-12), ("v", 0.0))]
    errors.append(replace(errors[0], dtype="float32", error=1e-7, tolerance=1e-6, curve=(("a", 1e-7, 1e-6),)))
    page = unbound(Report(errors).to_html())
    boxes = [re.sub("<.*?>", "", head) for head in re.findall("<summary>(.*?)</summary>", page)[1:]]
    assert boxes == [
        "x:u 2 comparisons agree 2.0e-12 in float64 (limit 1e-10), 1.0e-7 in float32 (limit 1e-6)",
        "x:v 1 comparison agrees 0 in float64 (limit 1e-10)",
    ]
    assert "Each box states the error nearest to its limit." in page


def test_every_cell_leads_to_its_plot() -> None:
    text = Text(report().to_html())
    plots = [f"{model}-layers-{dtype}-cpu" for model in ("m0", "m1") for dtype in ("float64", "float32")]
    reasons = {f"limits-{letter}" for letter in "abc"}
    assert set(text.links) - reasons == {*plots, "main"}
    assert set(text.links) <= set(text.ids)
    assert len(text.ids) == len(set(text.ids))


def test_a_table_has_rows_for_the_checks_of_each_model_a_limit_for_each_row_and_a_column_for_each_pair() -> None:
    page = unbound(report().to_html())
    (table,) = re.findall(r'<table class="matrix by-pair">.*?</table>', page, re.S)
    heads = [re.sub("<.*?>", "", cell) for cell in re.findall('<th scope="col">(.*?)</th>', table)]
    assert heads == ["model", "check", "limit", "flax-torch", "flax-paddle", "torch-paddle"]
    titles = re.findall(r'<th scope="(row[^"]*)"[^>]*>(.*?)</th>', table)
    layers = [("row", f"layers {dtype}") for dtype in ("float64", "float32")]
    assert [(kind, re.sub("<.*?>", "", text)) for kind, text in titles] == [
        ("rowgroup", "S/16"), *layers, ("rowgroup", "B/16"), *layers,
    ]  # fmt: skip
    labels = re.findall(r'data-label="([^"]*)"', table)
    assert labels[:4] == heads[2:]  # on narrow screens, a cell states its column
    assert not re.search(r"✗ (\S+).*\1", re.sub("<.*?>", " ", table.partition("</tr>")[2].partition("</tr>")[0]))


def graded(error: float, tolerance: float, dtype: str = "float64") -> str:
    return Result("x", "v", "layers", dtype, "cpu", "a-b", error, tolerance, error <= tolerance).grade


def test_only_what_somebody_should_look_at_is_amber() -> None:
    assert [graded(e, 1e-10) for e in (1e-15, 9e-12, 2e-11, 2e-10)] == ["agrees", "agrees", "close", "differs"]
    assert graded(2e-7, 1e-6) == "agrees"  # a limit that measured amplification of rounding widens
    shares = (0.2, 13 / 24, 0.61, 1.1)  # 13 / 24: the largest of equal models
    assert [graded(s * 1e-6, 1e-6, "float32") for s in shares] == ["agrees", "agrees", "close", "differs"]


def test_no_difference_is_shown_by_its_colour_alone() -> None:
    several, one = report(), Report([r for r in report() if r.variant == "B/16"])
    for made, least in ((several, 2 + 4), (one, 4 + 4)):  # table cells, and rows under the plots
        page = made.to_html()
        cells = re.findall(r'<td[^>]*class="[^"]*differs"[^>]*>(.*?)</td>', page)
        assert len(cells) >= least and all(re.sub("<[^>]*>", "", cell).startswith("✗ ") for cell in cells)
        assert '<b class="differs">✗</b>beyond its limit' in page
        assert page.index('"legend soft"') < page.index('<table class="matrix')


def test_one_model_has_a_row_a_check_and_a_column_a_pair() -> None:
    wide, skipped = replace(row(("a",)), pair="a-c", tolerance=1e-9), replace(row(("a",)), check="train", passed=None)
    page = Report([row(("a",)), wide, skipped]).to_html()
    (table,) = re.findall('<table class="matrix by-pair">.*?</table>', page)
    assert (
        "<h2>Errors of x:v</h2><p" in page and ">Each number is the error nearest to its limit, of all arrays." in page
    )
    rows = [[re.sub("<[^>]*>", "", cell) for cell in re.findall("<t[hd].*?</t[hd]>", line)]
            for line in re.findall("<tr>.*?</tr>", table)]  # fmt: skip
    assert rows == [
        ["check", "limit", "a-b", "a-c"], ["layers float64", "1e-10", "1.0e-12", "1.0e-12 (limit 1e-9)"],
        ["train float64", "1e-10", "not judged", "not asked"],
    ]  # fmt: skip


def test_tables_of_several_architectures_have_one_introduction() -> None:
    off = replace(row(("a",)), architecture="y", error=1e-3, passed=False)
    assert Report([row(("a",)), off]).to_html().count("Follow it to the error of every array.") == 1


def test_each_row_has_the_letter_of_its_limit_where_there_are_several_reasons() -> None:
    made = [replace(row(("a",), variant=v), basis=basis) for v, basis in (("v", "one"), ("w", "other"))]
    body = Report(made).to_html().partition('<table class="matrix by-pair">')[2].partition("</table>")[0]
    assert re.findall(r'data-label="limit">1e-10<a [^>]*class="note"> \[(\w)\]</a>', body) == ["a", "b"]


def test_the_pairs_of_several_models_have_rows_where_their_columns_are_wider_than_a_page() -> None:
    pairs = [f"a rather long name / another quite long name {k}" for k in range(3)]
    made = [replace(row(("a",), variant=v), pair=pair) for v in "vw" for pair in pairs]
    table = unbound(Report(made).to_html()).partition('class="matrix by-pair in-rows"')[2].partition("</table>")[0]
    assert re.findall("<th scope=.col.>(.*?)</th>", table) == ["model", "check", "pair", "error", "limit"]
    assert re.findall('rowspan="3" class="of-rows model">(.*?)</th>', table) == ["v", "w"]
    assert table.count('<td class="pair">') == 6


def test_the_legend_leads_from_what_did_not_run_to_the_remarks() -> None:
    off = replace(row(("a",)), passed=False, error=1e-3, first_divergence=first("a"))
    skipped = replace(row(("a",)), pair="b-c", passed=None, error=None, tolerance=None, missing=(("c", "why"),))
    page = unbound(Report([off, skipped, row(("a",), variant="w")]).to_html())
    legend = re.findall('<p class="legend soft">.*?</p>', page)[0]
    assert '<b class="word">not run</b>: see <a href="#remarks">' in legend


def test_a_cell_counts_the_arrays_of_which_nothing_is_left_to_judge() -> None:
    lost = replace(row(("a",)), unjudged=("b",))
    for results in ([lost, row(("a",), variant="w")], [lost, replace(lost, pair="a-c")]):
        assert ">1 array not judged<" in unbound(Report(results).to_html())
    assert "array not judged" not in unbound(Report([row(("a",))]).to_html())


def test_the_title_of_plots_names_up_to_three_pairs_and_counts_more() -> None:
    own = replace(row(("a", "b")), architecture="own", variant="own")
    for pairs, title in ((("a-b", "a-c"), "a-b, a-c"), (("a-b", "a-c", "a-d", "b-c"), "4 pairs")):
        made = Report([replace(own, pair=pair) for pair in pairs], {"models": "A and B"})
        assert f"<summary><h3>{title}</h3></summary>" in made.to_html()


def test_pairs_whose_columns_are_wider_than_a_page_have_rows() -> None:
    names = ("reference", "variant with a long name", "another long name", "copy")
    pairs = [f"{a} / {b}" for k, a in enumerate(names) for b in names[k + 1 :]]
    results = [replace(row(("a",)), pair=pair, basis="fixed") for pair in pairs]
    page = unbound(Report(results).to_html())
    table = page.partition('class="matrix by-pair in-rows"')[2].partition("</table>")[0]
    assert re.findall("<th scope=.col.>(.*?)</th>", table) == ["check", "pair", "error", "limit"]
    assert [re.sub("<[^>]*>", "", pair) for pair in re.findall('<td class="pair">(.*?)</td>', table)] == pairs
    assert table.count("rowspan=") == 1 and table.count('data-label="limit">1e-10') == len(pairs)
    assert "in-rows" not in Report(results[:2]).to_html().partition("</style>")[2]


def test_the_legend_says_what_a_cross_means_and_no_limit_is_explained_that_no_cell_has() -> None:
    nan = Divergence.at("a", Worst(np.inf, (0,), 1.0, np.nan, cause="NaN", word="NaN"), 1e-10)
    off = replace(row(("a",)), passed=False, error=np.inf, curve=(("a", np.inf, 1e-10),), first_divergence=nan,
                  nans=("a",), basis="fixed")  # fmt: skip
    text = re.sub("<[^>]*>", "", Report([off]).to_html().partition("</header>")[2])
    assert (
        "✗NaN on one side" in text and "beyond its limit" not in text.partition("What this")[0].partition("✗NaN on")[2]
    )
    assert "fixed" not in text
    number = replace(off, error=1e-3, curve=(("a", 1e-3, 1e-10),), first_divergence=first("a"), nans=())
    text = re.sub("<[^>]*>", "", Report([number]).to_html().partition("</header>")[2])
    assert "✗beyond its limit" in text and "fixed" in text


def test_each_dtype_of_own_models_has_a_column_of_its_own() -> None:
    page = Report([row(("a",)), replace(row(("a",), "float32"), curve=(("a", 1e-7, 6e-6),))],
                  modules={"m": [("a", "Conv"), ("b", "GELU")]}).to_html()  # fmt: skip
    (table,) = re.findall(
        r'<table class="modules">.*?</table>', re.sub('<span class="whole">(.*?)</span>', r"\1", page)
    )
    assert "error, float64</th>" in table and "error, float32</th>" in table
    numbers = re.findall(r'<td class="number(?: bound)?"[^>]*>([^<]*?) ?<', table)
    assert numbers == ["1.0e-12", "1e-10", "1.0e-7", "6e-6"]


@pytest.mark.parametrize(("dtypes", "rows"), [(("float64", "float32", "float16"), 1), (("float64", "float32"), 0)])
def test_no_two_of_three_dtypes_stand_side_by_side(dtypes: tuple[str, ...], rows: int) -> None:
    page = Report([row(("a", "b"), dtype) for dtype in dtypes]).to_html()
    assert page.count('<div class="panels rows">') == rows and page.count('<div class="panels">') == 1 - rows


def test_several_models_are_compared_each_with_itself() -> None:
    report = Report([row(("a",)), row(("a",), variant="w")])
    assert summary.verdict(report.results) == "a and b agree on each of 2 models, in both comparisons."
    assert "A model is compared across frameworks, not with the other models." in report.to_html()


def test_an_error_that_is_not_the_largest_is_called_what_it_is() -> None:
    """A larger error may have a smaller share of its limit: what stands for many is the largest share."""
    large, near = (replace(row(("a",), "float32"), error=e, tolerance=t) for e, t in ((9e-7, 1e-3), (6.8e-7, 2e-6)))
    results = [large, near, replace(row(("a",)), error=1e-12)]
    assert summary.extremes(results) == (
        "error nearest to its limit: 1.0e-12 in float64 (limit 1e-10), 6.8e-7 in float32 (limit 2e-6)"
    )
    assert summary.extremes(results, places=True).endswith(
        "1.0e-12 in float64 (limit 1e-10; a-b, layers at `a`), 6.8e-7 in float32 (limit 2e-6; a-b, layers at `a`)"
    )
    beyond = replace(row(("a",), "float32"), error=4e-6, tolerance=2e-6, passed=False)
    assert summary.extremes([beyond, results[2]]) == (
        "error furthest beyond its limit: 4.0e-6 in float32 (limit 2e-6); error nearest to its limit: 1.0e-12 in "
        "float64 (limit 1e-10)"
    )
    (totals,) = re.findall('<p class="totals">(.*?)</p>', Report([beyond, results[2]]).to_html())
    red, _, others = totals.partition("</span>; ")
    assert red.startswith('<span class="mark differs">Error furthest') and "float64" not in red and "float64" in others
    models = [row(("a",)), replace(row(("b",)), variant="w")]
    assert summary.extremes(models, places=True).endswith("(limit 1e-10; `x:v`, a-b, layers at `a`)")
    off = replace(row(("a",)), error=1e-3, passed=False)
    named = "error nearest to its limit", "error furthest beyond its limit"
    for some, called in (([near], named[0]), ([off], named[1]), ([off, near], f"{named[0]}, or furthest beyond it")):
        assert f"Each number is the {called}, of" in re.sub("<[^>]*>", "", Report(some).to_html())
        assert f"on cpu: {named[off in some]}\n" in str(Report(some))


def test_results_of_one_name_are_all_in_the_matrix() -> None:
    page = Report([row(("a",)), row(("a",)), row(("a",), variant="w")]).to_html()
    assert page.count("<td data-label") == 2 * 3  # a limit and an error each

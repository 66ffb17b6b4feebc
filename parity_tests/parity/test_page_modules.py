"""The table of modules of the report's page: what differs first has one name and one number everywhere."""

from __future__ import annotations

import re
from dataclasses import replace

import numpy as np

from parity.given.module_names import Listed
from parity.judging.judge import Subject, judge
from parity.report import Report
from parity.results.unequal_weights import UnequalWeights
from parity.running.recording import Recording
from parity.summaries import findings

from .pages import charts, first, row, unbound


def test_a_module_of_another_shape_is_the_first_wherever_the_page_names_it() -> None:
    rng = np.random.default_rng(0)
    left = {name: rng.standard_normal((2, 3)) for name in ("fc", "head", "output")}
    right = {**left, **{name: rng.standard_normal((2, 4)) for name in ("head", "output")}}
    sides = [Recording(label, "torch", "float64", "cpu", arrays) for label, arrays in (("a", left), ("b", right))]
    (result,) = judge(Subject("own", "own", "layers", "float64", "cpu"), sides)
    assert result.first_divergence == "head" and findings.worst_array(result) == "head" and result.error == np.inf
    assert not any("head" in remark for remark in result.remarks)  # no remark says that it is not compared
    page = unbound(Report([result], modules={"a": [("fc", "Linear"), ("head", "Linear")]}).to_html())
    (of_head,) = re.findall(r'<tr class="differs">.*?</tr>', page.partition('class="modules"')[2])
    assert re.sub("<[^>]*>", " ", of_head).split() == ["head", "Linear", "✗", "other", "shape", "first", "-"]
    (chart,) = charts(page)
    assert ">other shape</text>" in chart and "first: head</text>" in chart and "∞" not in chart
    assert chart.count('class="ring"') == 1 and ">head</text>" in chart
    assert "the shapes of both sides differ" in page and "NaN: a side" not in page


def test_the_first_module_has_the_number_of_the_pair_of_which_it_is_the_first() -> None:
    early = replace(
        row(("a", "b")), curve=(("a", 1e-3, 1e-10), ("b", 2e-3, 1e-10)), passed=False,
        first_divergence=first("a"), pair="a-c",
    )  # fmt: skip
    late = replace(
        row(("a", "b")), curve=(("a", 0.0, 1e-10), ("b", 1e-5, 1e-10)), passed=False, first_divergence=first("b", 1e-5)
    )
    page = unbound(Report([early, late], modules={"m": [("a", "Linear"), ("b", "Linear")]}).to_html())
    cells = re.findall('<td class="number first"[^>]*>(.*?)</td>', page)
    assert [re.sub("<[^>]*>", "", text) for text in cells] == [
        "✗ 1.0e-3 in a-c first (limit 1e-10)", "✗ 1.0e-5 in a-b first (limit 1e-10)",
    ]  # fmt: skip
    assert re.findall("h1.*?first at (.*?)</h1>", page) == ["<code>a</code> (a-c); at <code>b</code> (a-b)."]


def test_what_a_model_returns_is_a_row_where_it_differs_first_and_a_narrow_row_names_every_model() -> None:
    points = (("fc", 0.0, 1e-10), ("output", 1.0, 1e-10))
    off = replace(row(()), passed=False, curve=points, first_divergence=first("output", 1.0), check="layers")
    trees = {"a": [("fc", "Linear")], "b": [("fc", "Linear")], "c": [("fc", "Dense")]}
    table = Report([off], modules=trees).to_html().partition('class="modules"')[2].partition("</table>")[0]
    assert re.findall('<th data-label="(.*?)" scope="row">', table) == ["a, b", "a"]
    assert table.count('output</code> <span class="class">(returned)') == 3
    agrees = replace(off, passed=True, first_divergence=None, curve=(points[0], ("output", 0.0, 1e-10)))
    assert "(returned)" not in Report([agrees], modules=trees).to_html()


def test_a_list_that_one_model_alone_has_is_a_container_and_nothing_to_look_at() -> None:
    trees = {"a": [("l", "ModuleList"), ("fc", "Linear")], "b": [("fc", "Dense")]}
    page = Report([row(("fc",))], modules=trees).to_html()
    assert 'class="container alone"' in page and "no partner" not in page


def test_a_card_states_the_class_of_the_layer_behind_its_name() -> None:
    off = replace(row(("a",)), passed=False, curve=(("a", 1e-3, 1e-10),), first_divergence=first("a"), sides=("m", "n"))
    off = replace(off, weights=UnequalWeights((("a.weight", 1.0),), 1))
    card = Report([off], modules={label: [("a", "Linear")] for label in "mn"}).to_html().partition('class="card"')[2]
    assert re.findall("<dt>(.*?)</dt>", card)[:3] == ["weights", "layer", "class"]


def test_a_module_is_not_compared_as_a_model_failed() -> None:
    crashed = replace(row(("a",)), curve=(), passed=False, error=np.inf, missing=(("b", "its process died"),))
    trees = {"a": [("fc", "Linear"), ("l", "ModuleList")], "b": [("fc", "Linear"), ("l", "ModuleList")]}
    table = Report([crashed], modules=trees).to_html().partition("side by side</h2>")[2]
    assert ">not compared: b failed</td>" in table and ">container</td>" in table
    assert "it has no parameters" not in table


def test_modules_are_indented_below_those_they_are_in_and_the_first_models_own_stand_first() -> None:
    trees = {
        label: [(name, "Linear") for name in ("b", "b.norm", lone, "b.norm.x", "c")]
        for label, lone in (("l", "b.fc1"), ("r", "b.up"))
    }
    table = Report([row(("b.norm",))], modules=trees).to_html().partition('class="modules"')[2]
    names = list(dict.fromkeys(re.findall("<code>(.*?)</code>", table.partition("</table>")[0])))
    assert names == ["b", "b.norm", "b.fc1", "b.up", "b.norm.x", "c"]
    depths = re.findall(r"<tr[^>]*><th([^>]*)>", table.partition("<tbody>")[2])
    assert [re.sub(r"\D", "", text) for text in depths] == ["", "1", "1", "1", "2", ""]


def test_modules_without_errors_are_folded() -> None:
    trees = {"m": [("a", "Linear")]}
    named, judged = (
        Report([replace(row(("a",)), check=check)], modules=trees).to_html().partition("side by side</h2>")[2]
        for check in ("gradients", "layers")
    )
    said = "<details><summary>Module by module (this check compares no outputs of modules)</summary>"
    assert named.startswith(said) and not judged.startswith("<details")


def test_on_narrow_screens_a_cell_names_its_column_and_alike_modules_stand_once() -> None:
    trees = {"a": [("fc", "Linear"), ("n", "LayerNorm")], "b": [("fc", "Linear"), ("n", "RMSNorm")]}
    page = Report([row(("fc", "n"))], modules=trees).to_html()
    table = page.partition('class="modules"')[2].partition("</table>")[0]
    assert re.findall('<td (?:class="same" )?data-label="b"', table) == [
        '<td class="same" data-label="b"', '<td data-label="b"',
    ]  # fmt: skip
    assert table.count('data-label="float64"') == 2


def test_the_first_module_that_differs_stands_out_and_those_after_it_are_said_to_follow() -> None:
    points = tuple((tap, error, 1e-10) for tap, error in (("s", 1e-12), ("a.fc", 1e-3), ("a", 1e-3), ("b", 2e-3)))
    tree = [("s", "Stem"), ("a", "Block"), ("a.fc", "Linear"), ("b", "Linear")]
    off = replace(row(("a",)), curve=points, passed=False, first_divergence=first("a.fc"))
    page = unbound(Report([off], modules={"m": tree}).to_html())
    assert [re.findall("<code>(.*?)</code>", line) for line in re.findall(r'<tr class="differs">.*?</tr>', page)] == [
        ["a.fc"]
    ]
    table = page.partition('class="modules"')[2].partition("</table>")[0]
    cells = re.findall('<td class="number ?((?!bound)[a-z]*)"[^>]*>(.*?)</td>', table)
    assert [(state, re.sub("<[^>]*>", " ", text).split()) for state, text in cells] == [
        ("", ["1.0e-12", "(limit", "1e-10)"]), ("follows", ["1.0e-3", "follows", "(limit", "1e-10)"]),
        ("first", ["✗", "1.0e-3", "first", "(limit", "1e-10)"]), ("follows", ["2.0e-3", "follows", "(limit", "1e-10)"]),
    ]  # fmt: skip
    legend = re.findall(r'<dt><span class="(\w+)">(.*?)</span></dt>', page.partition("<h2>Modules side")[2])
    assert legend == [("first", "✗ first"), ("follows", "follows")]
    assert not re.search(
        "var[(]--bad[^)]*[)]", "".join(re.findall("[^}]*follows[^}]*}", page.partition("</style>")[0]))
    )


def test_a_layer_whose_error_is_far_above_all_before_it_may_have_a_cause_of_its_own() -> None:
    points = tuple((tap, error, 1e-10) for tap, error in (("a", 1e-6), ("b", 9e-4), ("c", 0.95), ("d", 0.96)))
    off = replace(row(("a",)), passed=False, curve=points, first_divergence=first("a", 1e-6), check="layers")
    page = unbound(Report([off], modules={"m": [(tap, "Linear") for tap in "abcd"]}).to_html())
    states = re.findall('<td class="number (first|rises|follows)"[^>]*>(.*?)</td>', page)
    assert [(kind, re.sub("<[^>]*>", "", text).partition(" (")[0]) for kind, text in states] == [
        ("first", "✗ 1.0e-6 first"), ("follows", "9.0e-4 follows"), ("rises", "! 0.95 rises"),
        ("follows", "0.96 follows"),
    ]  # fmt: skip
    rows = dict(findings.facts(findings.find([off])[0]))
    assert rows["rises at"] == "c: 0.95, 1.1e3 times the largest error before it, so that a second cause may lie there"
    flat = replace(off, curve=points[:2])
    assert "rises at" not in dict(findings.facts(findings.find([flat])[0]))


def test_a_module_in_which_both_sides_have_nan_has_no_number() -> None:
    both = replace(row(("a", "b")), curve=(("a", 1e-12, 1e-10), ("b", 0.0, 1e-10)), passed=None, nans=("b",))
    page = unbound(Report([both], modules={"m": [("a", "Conv"), ("b", "Log")]}).to_html())
    assert re.findall('<td class="number nan"[^>]*><b class="mark">(.)</b> (NaN) <', page) == [("!", "NaN")]
    assert "both sides have NaN here" in page


def test_the_module_in_which_nan_starts_is_marked_and_what_follows_it_is_not() -> None:
    points = tuple((tap, error, 1e-10) for tap, error in (("a", 1e-3), ("b", np.inf), ("c", np.inf)))
    off = replace(row(("a",)), error=np.inf, curve=points, passed=False, first_divergence=first("a"), nans=("b", "c"))
    page = unbound(Report([off], modules={"m": [(tap, "Linear") for tap in "abc"]}).to_html())
    cells = re.findall('<td class="number (first|starts|follows)"[^>]*>(.*?)</td>', page)
    assert [(kind, re.sub("<[^>]*>", "", text)) for kind, text in cells] == [
        ("first", "✗ 1.0e-3 first (limit 1e-10)"), ("starts", "! NaN starts here (limit 1e-10)"),
        ("follows", "NaN follows (limit 1e-10)"),
    ]  # fmt: skip
    legend = re.findall(r'<dt><span class="(\w+)">', page.partition("<h2>Modules side")[2])
    assert legend == ["first", "starts", "follows"] or legend == ["first", "follows", "starts"]
    assert off.shown == "NaN" and "infinite" not in page.partition("<body>")[2]


def test_modules_that_were_not_compared_say_why_and_the_legend_explains_only_these() -> None:
    both = [("blocks", "ModuleList"), ("act", "GELU"), ("fc", "Linear")]
    page = Report([row(("fc",))], modules={"a": both, "b": [*both, ("extra", "Linear")]}).to_html()
    table = page.partition('class="modules"')[2].partition("</table>")[0]
    cells = re.findall('<td class="(container|absent|only) alone"[^>]*>(.*?)</td>', table)
    assert cells == [("container", "container"), ("absent", "-"), ("only", "no partner")]
    legend = re.findall(r'<dt><span class="(\w+)">', page.partition("<h2>Modules side")[2])
    assert legend == ["only", "absent", "container"]
    lacking = Report([row(("fc",))], modules={"a": [*both[2:], ("extra", "Linear")], "b": both[2:]}).to_html()
    assert '<span class="absent">' not in lacking  # "-" in the column of a model: it has no such module


def test_each_column_has_the_names_of_its_own_model_and_says_once_why_a_module_is_not_compared() -> None:
    why = "the models split modules otherwise"
    trees = {
        "a": [Listed("up", "Linear", "0"), Listed("qkv", "Linear", "qkv", why)],
        "b": [Listed("up", "Dense", "layer_0.up"), Listed("layer.0.q", "Dense", "layer_0.q", why)],
    }
    off = replace(row(("up",)), passed=False, error=1e-3, curve=(("up", 1e-3, 1e-10),), first_divergence=first("up"))
    page = unbound(Report([off, replace(row(("up",)), dtype="float32")], modules=trees).to_html())
    table = page.partition('class="modules"')[2].partition("</table>")[0]
    lines = [" ".join(re.sub("<[^>]*>", " ", line).split()) for line in table.split("<tr")[2:]]
    assert lines[0].partition(">")[2].strip().startswith("0 Linear, named up layer_0.up Dense ✗ 1.0e-3 first")
    assert [line.partition(">")[2].strip() for line in lines[1:]] == [
        f"qkv Linear - not compared: {why}", f"- layer_0.q Dense not compared: {why}",
    ]  # fmt: skip
    assert "<dt>class</dt><dd>Linear (0) in a, Dense (<code>layer_0.up</code>) in b</dd>" in page


def test_modules_of_own_models_stand_side_by_side() -> None:
    trees = {
        "mine": [("conv", "Conv2d"), ("act", "GELU"), ("head", "Linear")],
        "theirs": [("conv", "Conv"), ("head", "Dense")],
    }
    page = Report([row(("conv", "head"))], modules=trees).to_html()
    (table,) = re.findall(
        r'<table class="modules">.*?</table>', re.sub('<span class="whole">(.*?)</span>', r"\1", page)
    )
    rows = [re.sub("<[^>]*>", "|", line) for line in re.findall("<tr>.*?</tr>", table)]
    cells = [[cell.strip() for cell in line.split("|") if cell.strip()] for line in rows]
    assert cells == [
        ["mine", "theirs", "error, float64", "limit"],
        ["conv", "Conv2d", "conv", "Conv", "1.0e-12", "(limit 1e-10)", "1e-10"],
        ["act", "GELU", "-", "no partner"],
        ["head", "Linear", "head", "Dense", "1.0e-12", "(limit 1e-10)", "1e-10"],
    ]


def test_a_card_names_the_classes_of_the_first_module_that_differs() -> None:
    off = replace(row(("a",)), passed=False, error=1e-3, curve=(("a", 1e-3, 1e-10),), first_divergence=first("a"))
    for theirs, words in (("Dense", "Linear in a, Dense in b"), ("Linear", "Linear")):
        page = unbound(Report([off], modules={"a": [("a", "Linear")], "b": [("a", theirs)]}).to_html())
        (card,) = re.findall("<article.*?</article>", page)
        assert f"<dt>class</dt><dd>{words}</dd>" in card
    called = replace(off, curve=(("a#1", 1e-3, 1e-10),), first_divergence=first("a#1"))
    assert "<dt>class</dt><dd>Linear</dd>" in Report([called], modules={"a": [("a", "Linear")]}).to_html()
    assert "<dt>class</dt>" not in Report([off]).to_html()

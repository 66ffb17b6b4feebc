"""The table of modules of the report's page: what differs first has one name and one number everywhere."""

from __future__ import annotations

import re
from dataclasses import replace

import numpy as np

from parity import findings
from parity.elements import Worst
from parity.judge import Subject, judge
from parity.recording import Recording
from parity.report import Report
from parity.result import Divergence

from .pages import charts, row, unbound


def first(tap: str, error: float = 1e-3) -> Divergence:
    return Divergence.at(tap, Worst(error, (0,), 1.0, 1.001), 1e-10)


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
    assert re.sub("<[^>]*>", " ", of_head).split() == ["head", "Linear", "✗", "other", "shape,", "first", "-"]
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
        "✗ 1.0e-3 first (limit 1e-10)", "✗ 1.0e-5 first (limit 1e-10)",
    ]  # fmt: skip


def test_a_list_that_one_model_alone_has_is_a_container_and_nothing_to_look_at() -> None:
    trees = {"a": [("l", "ModuleList"), ("fc", "Linear")], "b": [("fc", "Dense")]}
    page = Report([row(("fc",))], modules=trees).to_html()
    assert 'class="number container"' in page and "only in" not in page


def test_modules_without_errors_are_folded() -> None:
    trees = {"m": [("a", "Linear")]}
    named, judged = (
        Report([replace(row(("a",)), check=check)], modules=trees).to_html().partition("side by side</h2>")[2]
        for check in ("gradients", "layers")
    )
    assert named.startswith("<details><summary>") and not judged.startswith("<details")


def test_on_narrow_screens_a_cell_names_its_column_and_alike_modules_stand_once() -> None:
    trees = {"a": [("fc", "Linear"), ("n", "LayerNorm")], "b": [("fc", "Linear"), ("n", "RMSNorm")]}
    page = Report([row(("fc", "n"))], modules=trees).to_html()
    table = page.partition('class="modules"')[2].partition("</table>")[0]
    assert re.findall('<td (?:class="same" )?data-label="b"', table) == [
        '<td class="same" data-label="b"', '<td data-label="b"',
    ]  # fmt: skip
    assert table.count('data-label="float64"') == 2

"""The plots of the report's page."""

from __future__ import annotations

import re
from dataclasses import replace

from parity.elements import Worst
from parity.report import Report
from parity.result import Divergence, Result

from .pages import charts, report, row


def test_a_plot_has_a_line_a_pair_of_its_own_colour_dash_and_marker() -> None:
    drawn = charts(report().to_html())
    assert len(drawn) == 4  # two models in two dtypes
    for chart in drawn:
        groups = re.findall(r'<g class="s(\d)"><polyline[^>]*class="line"([^>]*)/>(.*?)</g></g>', chart)
        assert [colour for colour, _, _ in groups] == ["0", "1", "2"]
        assert len({dash for _, dash, _ in groups}) == 3
        assert len({re.findall(r'<path d="([^"]*)"', marks)[0] for _, _, marks in groups}) == 3
    assert sum('class="noise"' in chart for chart in drawn) == 2  # of float32


def decades(chart: str) -> list[int]:
    return [int(d) for d in re.findall(r">1e(-?\d+)</text>", chart)]


def test_no_plot_has_empty_decades() -> None:
    """Errors of 1e-15 fill the plot, and a sentence says where the limit is; below 1e-12 of it the limit is drawn."""
    low, near = (
        Result(
            "x",
            "v",
            "layers",
            "float64",
            "cpu",
            "a-b",
            e,
            1e-10,
            True,
            None,
            "",
            (("a", e, 1e-10), ("b", e / 3, 1e-10)),
        )
        for e in (5e-16, 5e-13)
    )
    (chart,) = charts(Report([low]).to_html())
    assert decades(chart) == [-16, -15]
    assert "limit 1e-10: 5 decades above this plot" in chart
    assert 'class="limit"' not in chart
    (chart,) = charts(Report([near]).to_html())
    assert decades(chart) == [-13, -12, -11, -10]
    assert 'class="limit"' in chart
    far = replace(low, curve=(("a", 1e-3, 1e-10), ("b", 1e-2, 1e-10)), passed=False)
    (chart,) = charts(Report([far]).to_html())
    assert "limit 1e-10: 7 decades below this plot" in chart and 'class="limit"' not in chart
    heights = [float(y) for y in re.findall(r'<text x="[^"]*" y="([^"]*)" [^>]*>(?=1e-|limit)', chart)]
    assert abs(heights[-1] - heights[0]) < 12  # it stands at the lowest decade, which comes first
    beyond = replace(low, curve=(("a", 1e-9, 1e-10), ("b", 1e-9, 1e-10)), passed=False)
    (chart,) = charts(Report([beyond]).to_html())
    assert decades(chart)[0] == -10 and 'class="limit"' in chart


def test_a_plot_ends_where_its_names_end() -> None:
    (chart,) = charts(Report([row(("a", "b"))]).to_html())
    height = float(re.findall(r'viewBox="0 0 640 (\d+)"', chart)[0])
    lowest = max(float(y) for y in re.findall(r'<text [^>]*y="([\d.]+)"', chart))
    assert 0 < height - lowest < 12


def test_an_infinite_error_and_an_odd_name_are_drawn() -> None:
    first = Divergence.at("<q>", Worst(float("inf"), cause="not finite"), 1e-10)
    odd = Result("x", "<v>", "layers", "float64", "cpu", "a-b", float("inf"), 1e-10, False, first, "",
                 (("<q>", float("inf"), 1e-10), ("zero", 0.0, 1e-10)))  # fmt: skip
    page = Report([odd], {"<i>$title": "<i>"}, {"<u>": [("<q>", "<s>")]}).to_html()
    assert not re.search("<[qiusv]>", page)
    for name in ("&lt;v&gt;", "&lt;q&gt;", "&lt;i&gt;$title", "&lt;u&gt;", "&lt;s&gt;"):
        assert name in page
    assert "inf" not in re.findall(r'points="[^"]*"', page)[0]
    assert ">∞<" in page


def test_what_is_drowned_leaves_the_others_at_their_names() -> None:
    """Of two pairs of one plot one has no 'b': its line goes from 'a' to 'c', which stay where they are."""
    whole, part = row(("a", "b", "c")), row(("a", "c", "d"), cause="float64 drowns 'b': not judged")
    part = replace(part, pair="a-c", sides=("a", "c"))
    for results in ([whole, part], [part, whole]):
        (chart,) = charts(Report(results).to_html())
        ticks = {name: float(x) for x, name in re.findall(r'<text x="([\d.]+)" [^>]*>([a-d])<', chart)}
        assert sorted(ticks, key=ticks.__getitem__) == ["a", "b", "c", "d"]
        lines = re.findall(r'points="([^"]*)" class="line"', chart)
        places = [[float(point.split(",")[0]) for point in points.split()] for points in lines]
        assert sorted(places) == sorted([[ticks[n] for n in names] for names in ("abc", "acd")])

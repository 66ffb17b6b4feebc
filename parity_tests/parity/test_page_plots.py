"""The plots of the report's page."""

from __future__ import annotations

import math
import re
from dataclasses import replace

from parity.report import Report
from parity.results.elements import Worst
from parity.results.result import Divergence, Result

from .pages import charts, report, row


def test_a_plot_has_a_line_a_pair_of_its_own_colour_dash_and_marker() -> None:
    apart = [replace(row(("a", "b")), curve=(("a", error, 1e-10), ("b", error, 1e-10)), pair=pair)
             for pair, error in (("a-b", 1e-12), ("a-c", 1e-13), ("b-c", 1e-14))]  # fmt: skip
    assert len(charts(report().to_html())) == 4  # two models in two dtypes
    for chart in charts(Report(apart).to_html()):
        groups = re.findall(r'<g class="s(\d)"><polyline[^>]*class="line"([^>]*)/>(.*?)</g>', chart)
        assert [colour for colour, _, _ in groups] == ["0", "1", "2"]
        assert len({dash for _, dash, _ in groups}) == 3
        assert len({re.findall(r'<path d="([^"]*)"', marks)[0] for _, _, marks in groups}) == 3
    assert sum('class="noise"' in chart for chart in charts(report().to_html())) == 2  # of float32


def test_pairs_with_equal_errors_share_a_line_that_names_them() -> None:
    """Of three models of which one differs, two pairs have equal errors: the later line would cover the earlier one."""
    curves = {"a-b": 1e-3, "b-c": 1.02e-3, "a-c": 0.0}
    results = [
        replace(row(("x", "y")), curve=tuple((name, error, 1e-10) for name in "xy"), pair=pair, passed=not error)
        for pair, error in curves.items()
    ]
    page = Report(results).to_html()
    (chart,) = charts(page)
    assert re.findall('class="line"', chart) == ['class="line"'] * 2
    (values,) = re.findall('<details class="values">.*?</details>', page)
    assert [[re.sub("<[^>]*>", "", cell) for cell in re.findall("<t[hd].*?</t[hd]>", line)]
            for line in re.findall("<tr>.*?</tr>", values)] == [
        ["array", "a-b and b-c", "a-c", "limit"], ["x", "✗ 1.0e-3", "0", "1e-10"], ["y", "✗ 1.0e-3", "0", "1e-10"],
    ]  # fmt: skip
    assert re.findall(r'class="swatch s(\d)"', page) == ["0", "0", "2"]
    assert "pairs whose errors coincide share a line" in page
    assert "share a line" not in Report(results[:1]).to_html()
    results[1] = replace(results[1], curve=tuple((name, 1.06e-3, 1e-10) for name in "xy"))
    page = Report(results).to_html()
    assert len(re.findall('class="line"', charts(page)[0])) == 2  # to the eye equal, but written otherwise
    (values,) = re.findall('<details class="values">.*?</details>', page)
    assert "✗ 1.0e-3" in values and "✗ 1.1e-3" in values and "a-b and" not in re.sub("<[^>]*>", "", values)


def test_a_pair_has_one_colour_on_the_whole_page_whatever_lines_it_shares() -> None:
    def results(check: str, *errors: float) -> list[Result]:
        return [
            replace(row(("x", "y")), curve=(("x", error, 1e-10), ("y", error, 1e-10)), pair=pair, check=check)
            for pair, error in zip(("a-b", "a-c", "b-c"), errors, strict=True)
        ]

    page = Report([*results("layers", 1e-13, 1e-13, 1e-11), *results("gradients", 1e-13, 1e-12, 1e-11)]).to_html()
    styles = re.findall(r'<svg class="swatch s(\d)".*?</svg>(.*?)</th>', page.replace('<span class="whole">', ""))
    assert [(pair[:3], n) for n, pair in styles] == [
        ("a-b", "0"), ("a-c", "0"), ("b-c", "2"), ("a-b", "0"), ("a-c", "1"), ("b-c", "2"),
    ]  # fmt: skip
    assert [re.findall(r'<g class="s(\d)">', chart) for chart in charts(page)] == [["0", "2"], ["0", "1", "2"]]


def test_a_line_with_a_limit_of_its_own_has_that_limit_in_its_colour() -> None:
    """An error above the lowest limit of several, and within its own, is no fault."""
    low = replace(row(("x", "y")), curve=(("x", 1e-8, 2e-7), ("y", 1e-8, 2e-7)), dtype="float32")
    high = replace(row(("x", "y")), curve=(("x", 4e-7, 6e-6), ("y", 4e-7, 6e-6)), dtype="float32", pair="a-c")
    page = Report([low, high]).to_html()
    (chart,) = charts(page)
    (own,) = re.findall('points="([^"]*)" class="own-bound s1"', chart)
    assert max(heights(chart, "worst")[1:]) > max(float(point.split(",")[1]) for point in own.split())
    assert "the limit, the lowest of several; in the colour of a line: its own" in page
    assert re.findall(r'class="limit-text beyond own-name s(\d)">(.*?)<', chart) == [("1", "limit of a-c")]
    assert "a line: its own" not in Report([low]).to_html()


def test_the_name_of_a_limit_covers_no_line_where_an_end_has_room() -> None:
    names = tuple("abcdefghijkl")
    low = replace(row(names), curve=tuple((name, 1e-8, 2e-7) for name in names), dtype="float32")
    texts = []
    for error in (1e-7, 4.5e-6, 7.5e-6):  # far below the limit of 6e-6, just below it, just above it
        high = replace(low, curve=tuple((name, error, 6e-6) for name in names), pair="a-c", passed=error < 6e-6)
        (chart,) = charts(Report([low, high]).to_html())
        (text,) = (float(y) for y in re.findall(r'y="([\d.]+)" text-anchor="end" class="limit-text beyond own', chart))
        (bound,) = re.findall('points="[^,]*,([^ ]*)[^"]*" class="own-bound', chart)
        texts.append("above" if text < float(bound) else "below")
    assert texts == ["above", "above", "below"]


def test_limits_of_trained_parameters_are_bars_that_nothing_joins() -> None:
    points = tuple((name, 1e-8, bound) for name, bound in (("a", 1e-5), ("b", 1e-5), ("c", 1e-7), ("d", 1e-5)))
    for check, lines in (("layers", 1), ("train", 3)):
        trained = replace(row(("a",)), curve=points, check=check, dtype="float32")
        (chart,) = charts(Report([trained]).to_html())
        assert len(re.findall('class="limit"', chart)) == lines


def test_the_array_that_differs_first_is_named_at_its_line_and_below_the_axis() -> None:
    names = tuple(f"blocks.{k // 3}.n{k}" for k in range(30))
    (chart,) = charts(Report([off(*((name, 1e-3) for name in ("loss", *names)), first="loss")]).to_html())
    (text,) = re.findall('<text [^>]*class="first-text"[^>]*>', chart)
    x, at = (float(re.findall(rf'{key}="([^"]*)"', chart_part)[0]) for key, chart_part in
             (("x", text), ("x1", re.findall('<line [^>]*class="first"/>', chart)[0])))  # fmt: skip
    assert x == at - 4 and 'text-anchor="start"' in text
    assert re.findall(r'<text x="[^"]*" y="[^"]*"[^>]*>(loss)<', chart) == ["loss"]
    (chart,) = charts(Report([off(*((name, 1e-3) for name in ("loss", *names)), first="blocks.5.n16")]).to_html())
    (text,) = re.findall('<text [^>]*class="first-text"[^>]*>', chart)
    assert 'text-anchor="end"' in text  # seen on narrow screens before they are scrolled


def test_a_long_name_is_whole_at_the_line_of_what_differs_first_and_cut_between_words_below_the_axis() -> None:
    long = "encoder.0.normalisation_before_attention"
    for names in ((long, "head"), ("stem", long)):
        (chart,) = charts(Report([off(*((name, 1e-3) for name in names), first=long)]).to_html())
        assert re.findall("<text [^>]*>([^<]*attention)", chart) == ["…before_attention", f"first: {long}"]
    very = "encoder." + "with_relative_positions_" * 5 + "end"
    (chart,) = charts(Report([off((very, 1e-3), ("head", 1e-3), first=very)]).to_html())
    (text,) = re.findall("first: ([^<]*)", chart)
    assert text.startswith(("…with_", "…relative_", "…positions_")) and very.endswith(text[1:]) and len(text) > 30


def test_a_key_explains_no_mark_that_is_not_drawn() -> None:
    """Copies of which each has NaN have no hollow marker, and a band below the plot is not seen."""
    nan = replace(off(("a", 1e-3), ("b", 1e-3), first="a"), nans=("a", "b"), copies=("a", "b"), dtype="float32")
    low = replace(off(("a", 1e-3), ("b", 1e-3), first="a"), noise={"a": (1e-30, 1e-30)}, dtype="float32")
    behind = replace(
        off(("a", 1e-7), ("b", 1e-3), first="b"), noise={"a": (1e-7, 1e-3)}, dtype="float32", copies=("b",)
    )
    assert 'class="noise"' not in charts(Report([behind]).to_html())[0]  # a marker covers it
    for result in (nan, low):
        legend = Report([result]).to_html().partition("Error of every array")[2]
        assert not re.search('class="sample (?:copy|noise)-key"', legend)


def test_a_plot_of_zeros_is_flat_and_no_decade_or_half_of_one_is_empty_at_the_top() -> None:
    (zeros,) = charts(Report([replace(row(("a", "b")), curve=(("a", 0.0, 1e-10), ("b", 0.0, 1e-10)))]).to_html())
    full = charts(Report([row(("a", "b"))]).to_html())[0]
    flat, high = (float(re.findall(r'viewBox="0 \S+ 640 (\d+)"', chart)[0]) for chart in (zeros, full))
    assert flat <= high - 100  # which is half of a frame
    (chart,) = charts(Report([replace(row(("a", "b")), curve=(("a", 1e-8, 1.1e-5), ("b", 1e-7, 1.1e-5)))]).to_html())
    assert decades(chart)[-1] == -5 and 'class="limit"' in chart


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
    (axis, *_) = re.findall(r'<line x1="([\d.]+)"', chart)
    assert (
        re.findall(r'<text x="([\d.]+)"[^>]*>(?:limit 1e-10|arrays, in)', chart) == [axis] * 2
    )  # narrow screens show it
    assert 'class="limit"' not in chart
    (chart,) = charts(Report([near]).to_html())
    assert decades(chart) == [-13, -12, -11, -10]
    assert 'class="limit"' in chart
    wide = replace(low, curve=(("a", 1e-3, 1e-10), ("b", 1e-2, 1e-10)))
    (chart,) = charts(Report([wide]).to_html())
    assert "limit 1e-10: 7 decades below this plot" in chart and 'class="limit"' not in chart
    heights = [float(y) for y in re.findall(r'<text x="[^"]*" y="([^"]*)" [^>]*>(?=1e-|limit)', chart)]
    assert abs(heights[-1] - heights[0]) < 12  # it stands at the lowest decade, which comes first
    (chart,) = charts(Report([replace(wide, passed=False)]).to_html())  # what differs is seen beside its limit
    assert decades(chart)[0] == -10 and 'class="limit"' in chart and "below this plot" not in chart
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


def test_errors_of_trained_parameters_are_dots_that_no_line_joins() -> None:
    """Neighbours among them have nothing to do with each other: a line from one to the next would zigzag."""
    many = tuple(f"sgd: p{k}" for k in range(50))
    page = Report([replace(row(many), check="train", noise={"a": (1e-13,) * 50, "b": (3e-13,) * 50})]).to_html()
    (chart,) = charts(page)
    assert 'class="line"' not in chart
    assert len(re.findall(r'<path [^>]*class="marker" transform="[^"]*"/>', chart)) == 50
    for kind, lines in ("limit", 1), ("noise", 2):  # a step for each: the upper and the lower edge of the noise
        (corners,) = re.findall(rf'points="([^"]*)" class="{kind}"/>', chart)
        assert len(corners.split()) == 2 * 50 * lines
    assert 'class="line"' in Report([row(many)]).to_html().partition("chart")[2]
    (swatch,) = re.findall(r'<svg class="swatch.*?</svg>', page)
    assert "<line" not in swatch
    flat = Report([replace(row(many), check="train", noise={"a": (1e-13,) * 50})]).to_html()
    assert "own rounding: its" in page and "own rounding: its" not in flat  # no key without a mark


def test_decades_have_equal_steps_and_the_largest_errors_have_one_beside_them() -> None:
    (chart,) = charts(Report([off(("a", 1e-15), ("b", 3e-4), first="b")]).to_html())
    assert decades(chart) == [-13, -10, -7, -4]


def test_errors_below_rounding_stand_on_one_line() -> None:
    """In float64, 1e-19 tells nothing that 1e-17 does not."""
    points = (("a", 3e-15, 1e-10), ("b", 1e-19, 1e-10), ("c", 3e-17, 1e-10))
    (chart,) = charts(Report([replace(row(("a",)), curve=points)]).to_html())
    assert decades(chart) == [-15, -14] and ">less</text>" in chart and 'class="break"' in chart
    (line,) = re.findall(r'points="([^"]*)" class="line"', chart)
    heights = [point.split(",")[1] for point in line.split()]
    assert heights[1] == heights[2] != heights[0]
    tiny = replace(row(("a",)), curve=(("a", 1e-19, 1e-10), ("b", 2e-19, 1e-10)))
    assert decades(charts(Report([tiny]).to_html())[0]) == [-16, -15]


def test_the_values_of_a_plot_have_limits_of_their_own_where_pairs_have_and_say_what_is_no_number() -> None:
    low = replace(row(("x", "y")), curve=(("x", 1e-8, 2e-7), ("y", 0.0, 2e-7)), copies=("x",))
    high = replace(row(("x", "y")), curve=(("x", 4e-7, 6e-6), ("y", math.inf, 6e-6)), pair="a-c", nans=("y",))
    (values,) = re.findall('<details class="values">.*?</details>', Report([low, high]).to_html())
    assert [[re.sub("<[^>]*>", "", cell) for cell in re.findall("<t[hd].*?</t[hd]>", line)]
            for line in re.findall("<tr>.*?</tr>", values)] == [
        ["array", "a-b", "limit", "a-c", "limit"], ["x", "1.0e-8 (copies)", "2e-7", "4.0e-7", "6e-6"],
        ["y", "0", "2e-7", "✗ NaN", "-"],
    ]  # fmt: skip


def heights(chart: str, kind: str) -> list[float]:
    return [float(y) for y in re.findall(rf'<path [^>]*class="{kind}" transform="translate\(\S+ ([\d.]+)\)', chart)]


def test_what_differs_between_float64_copies_is_seen_beside_its_limit_and_is_hollow() -> None:
    """In bfloat16, whose roundoff is 4e-3, copies that differ by 1e-5 are not drawn as the best agreement."""
    result = off(("a", 5e-3), ("b", 1e-5), ("c", 2e-5), first="b")
    bounds = [0.3, 2e-7, 2.4e-7]
    curve = tuple((name, error, bound) for (name, error, _), bound in zip(result.curve, bounds, strict=True))
    result = replace(
        result,
        dtype="bfloat16",
        curve=curve,
        copies=("b", "c"),
        noise={"a": (4e-3, 5e-3, 6e-3), "b": (1e-3, 5e-3, 6e-3)},
    )
    page = Report([result]).to_html()
    (chart,) = charts(page)
    assert decades(chart)[0] == -7 and ">less</text>" not in chart
    (corners,) = re.findall(r'points="([^"]*)" class="limit"', chart)
    lowest = max(float(point.split(",")[1]) for point in corners.split())
    assert max(heights(chart, "ring") + heights(chart, "worst")) < lowest < 232  # the floor
    assert places(chart, "marker") == ["a"] and places(chart, "marker copy") == ["b", "c"]
    assert page.count("(copies)</td>") == 2
    (band,) = re.findall('<polygon points="([^"]*)" class="noise"', chart)  # none below hollow marks
    at = dict(zip("abc", re.findall(r"translate\(([\d.]+)", chart), strict=False))
    assert float(at["a"]) < max(float(point.partition(",")[0]) for point in band.split()) < float(at["b"])
    lines = re.findall('<polyline points="([^"]*)" class="line"', chart)
    assert [len(points.split()) for points in lines] == [1, 2]  # filled and hollow marks are not joined
    assert "hollow: the float64 copies of both models are compared, as these" in re.sub("<[^>]*>", "", page)


def test_texts_above_the_frame_are_clear_of_the_marks_at_its_top() -> None:
    tall = [
        off(("a", 1e-15), ("b", 1.0), first="b"),
        replace(row(("a", "b")), curve=(("a", 1e-15, 1e-9), ("b", 1e-14, 1e-9))),
    ]
    for result in tall:
        (chart,) = charts(Report([result]).to_html())
        (text,) = re.findall(r'y="([\d.]+)"[^>]*>(?:first: b|limit 1e-9: 5 decades above this plot)<', chart)
        assert float(text) + 3 < min(heights(chart, "worst")) - 10.5 + 0.1  # what hangs below the letters; the diamond


def test_the_name_of_the_limit_stands_beside_its_line() -> None:
    (chart,) = charts(Report([row(("a", "b"))]).to_html())
    (corners,) = re.findall(r'points="([^"]*)" class="limit"', chart)
    ((x, y),) = re.findall(r'x="([\d.]+)" y="([\d.]+)" class="limit-text">limit<', chart)
    end, height = map(float, corners.split()[-1].split(","))
    assert float(x) > end and abs(float(y) - height) < 6


def test_the_limit_is_one_line_though_its_values_are_a_roundoff_apart() -> None:
    curve = [(name, 1e-13, bound) for name, bound in zip("abc", (1e-10, 1e-10 * (1 + 2**-52), 1e-10), strict=True)]
    (chart,) = charts(Report([replace(row(("a",)), curve=tuple(curve))]).to_html())
    assert chart.count('class="limit"') == 1


def test_groups_of_arrays_keep_their_names_where_there_is_no_room_for_all() -> None:
    names = [
        "stem <- 0",
        "stem",
        *(f"blocks.{b}.{part}" for b in range(2) for part in ("norm", "norm <- 0", "fc", "act")),
    ]
    names += ["blocks.1 <- 0", "blocks.1", *(f"{name}{k}" for name in "xyz" for k in range(3)), "head"]
    (chart,) = charts(Report([row(tuple(names))]).to_html())
    labels = re.findall("<text ([^>]*transform[^>]*)>([^<]*)<", chart)
    shown = {name for _, name in labels}
    assert {"stem", "blocks.0", "blocks.1"} <= shown and "blocks" not in shown
    assert not {f"{name}{k}" for name in "xyz" for k in range(3)} <= shown  # single arrays


def test_a_line_of_zeros_is_called_zero() -> None:
    for least, word in ((0.0, "0"), (1e-18, "less")):
        made = replace(row(("a",)), curve=(("a", 1e-3, 1e-10), ("b", least, 1e-10)))
        assert re.findall(">(less|0)</text>", charts(Report([made]).to_html())[0]) == [word]


def test_a_plot_says_in_words_what_it_shows() -> None:
    agreeing, differing = charts(report().to_html())[0], charts(report().to_html())[2]
    (first,), (second,) = (re.findall('aria-label="([^"]*)"', chart) for chart in (agreeing, differing))
    assert first == "layers, float64: all errors within their limits"
    assert second == "layers, float64: flax-torch and torch-paddle first beyond their limits at blocks.0.norm1"
    assert ">relative error (log scale)</text>" in agreeing
    assert ">arrays, in the order of computation</text>" in agreeing
    trained = replace(row(("a", "b")), check="train", curve=(("sgd: a", 1e-12, 1e-9), ("sgd: b", 1e-12, 1e-9)))
    assert ">arrays, of each optimizer, its losses first</text>" in charts(Report([trained]).to_html())[0]


def test_keys_are_of_what_the_plots_have() -> None:
    def keys(results: list[Result]) -> list[str]:
        return re.findall(r'class="sample (\w+)-key"', Report(results).to_html().partition("Error of every array")[2])

    every = list(report())
    assert keys(every) == ["limit", "noise", "ring", "worst", "break"]
    assert keys([r for r in every if r.dtype == "float64" and r.passed]) == ["limit", "worst", "break"]
    assert keys([replace(row(("a", "b")), nans=("b",))]) == ["limit", "worst", "break", "cross"]
    assert keys([row(("a",))]) == []  # one array is no plot
    far = replace(row(("a", "b")), curve=(("a", 1e-16, 1e-10), ("b", 1e-15, 1e-10)))
    assert keys([far]) == ["worst"]  # no line of the limit is drawn
    assert keys([replace(r, copies=("blocks.0.norm1",)) for r in every])[4:] == ["copy", "break"]


def test_limit_and_rounding_are_told_apart_by_their_keys_and_colours() -> None:
    page = report().to_html()
    text = re.sub("<[^>]*>", "", page.partition("Error of every array")[2].partition("<details")[0])
    assert (
        "the limit" in text
        and "the lowest of several" not in text
        and "own rounding: its error against its float64 run" in text
    )
    two = [row(("a", "b")), replace(row(("a", "b")), pair="a-c", curve=(("a", 1e-12, 1e-9), ("b", 1e-12, 1e-10)))]
    assert "the limit, the lowest of several" in Report(two).to_html()
    edges = dict(re.findall(r"[ }]\.(limit|noise) \{[^}]*stroke: var\((--[\w-]+)\)", page.replace("\n", " ")))
    assert edges == {"limit": "--ink", "noise": "--noise-edge"}


def contrast(one: str, other: str) -> float:
    """The ratio that WCAG 2 defines of two colours, as "#rrggbb"."""

    def luminance(colour: str) -> float:
        parts = [int(colour[k : k + 2], 16) / 255 for k in (1, 3, 5)]
        linear = [part / 12.92 if part <= 0.03928 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


def test_lines_are_seen_over_the_band_of_rounding() -> None:
    light, dark = re.findall(r":root \{(.*?)\}", report().to_html(), re.S)
    for sheet in (light, dark):
        colours = dict(re.findall(r"--([\w-]+): (#\w{6})", sheet))
        on_band = [contrast(colours[f"s{k}"], colours["noise"]) for k in range(6)]
        assert min(on_band) >= 3  # what WCAG asks of graphics
        assert contrast(colours["noise-edge"], colours["paper"]) >= 3


def off(*points: tuple[str, float], first: str, nans: tuple[str, ...] = ()) -> Result:
    at = Divergence.at(first, Worst(1e-3, (0,), 1.0, 1.001), 1e-10)
    curve = tuple((name, error, 1e-10) for name, error in points)
    return replace(row(("a",)), curve=curve, error=1e-3, passed=False, first_divergence=at, nans=nans)


def places(chart: str, kind: str) -> list[str]:
    every = sorted(
        {float(x) for x in re.findall(r'class="(?:marker|marker copy|cross)" transform="translate\(([\d.]+)', chart)}
    )
    found = re.findall(rf'class="{kind}" transform="translate\(([\d.]+)', chart)
    return ["abcdef"[every.index(float(x))] for x in found]


def test_a_plot_marks_the_worst_error_and_names_what_differs_first() -> None:
    result = off(("a", 1e-15), ("b", 1e-4), ("c", 1e-3), ("d", 1e-5), first="b")
    (chart,) = charts(Report([result]).to_html())
    assert (places(chart, "ring"), places(chart, "worst")) == (["b"], ["c"])
    assert re.findall('class="first-text"[^>]*>(.*?)<', chart) == ["first: b"]
    other = replace(result, pair="a-c", first_divergence=off(("a", 1.0), first="c").first_divergence)
    (chart,) = charts(Report([result, other]).to_html())
    assert places(chart, "ring") == ["b", "c"] and chart.count('class="first"') == 2
    assert re.findall('class="first-text"[^>]*>(.*?)<', chart) == ["first: c", "first: b"]
    heights = [float(y) for y in re.findall(r'<text y="([-\d.]+)" class="first-text"', chart)]
    assert len(set(heights)) == 2  # no name covers another
    assert float(re.findall(r'viewBox="0 ([-\d.]+)', chart)[0]) + 15 < min(heights)  # and none is cut off


def test_plots_of_one_model_have_one_frame_so_that_they_align() -> None:
    """The names of one plot are long and slanted, and only one of them shows its limit."""
    long = tuple((f"a_long_name_{k}.of_a_layer", 1e-15, 1e-10) for k in range(9))
    results = [
        replace(row(("a", "b")), check="layers", curve=long),
        replace(row(("a", "b")), check="gradients", curve=(("a", 1e-11, 1e-10), ("b", 1e-12, 1e-10))),
    ]
    rule = r'<line x1="([\d.]+)" x2="([\d.]+)"[^>]*class="grid"'
    frames = [set(re.findall(rule, chart)) for chart in charts(Report(results).to_html())]
    wide = [{frame for frame in some if frame[0] != frame[1]} for some in frames]
    assert len(wide) == 2 and wide[0] == wide[1] and len(wide[0]) == 1


def test_a_check_of_one_array_has_one_table_for_all_dtypes() -> None:
    results = [replace(row(("output",)), check="forward", dtype=dtype) for dtype in ("float64", "float32")]
    plain = Report(results).to_html()  # of forward alone that agrees, tables have all
    assert "<h2>Error of every array</h2>" not in plain and "<h2>Errors of x:v</h2>" in plain
    assert "Follow it" not in plain and not re.search('<a href="#(?!limits|main)', plain)
    page = Report([*results, replace(results[0], pair="a-c", error=1.0, passed=False)]).to_html()
    (table,) = re.findall('<table class="pairs by-dtype">(.*?)</table>', page)
    assert re.findall('class="dtype" id="[^"]*">(.*?)<', table) == ["float64", "float32"]
    assert '<a href="#m0-forward-float32-cpu">' in page
    (chart,) = charts(Report([replace(row(("a", "b")), curve=(("a", 0.0, 1.0), ("b", 0.0, 1.0)))]).to_html())
    assert places(chart, "worst") == []  # none of equal arrays is the worst


def test_what_is_not_a_number_is_a_cross_at_the_top_that_no_line_leads_to() -> None:
    inf = float("inf")
    for nan in (inf, 0.0, float("nan")):  # on one side; on both, beside which nothing differs; whatever else
        points = ("a", 1e-12), ("b", 2e-12), ("c", nan), ("d", 3e-12), ("e", 1e-12)
        (chart,) = charts(Report([off(*points, first="c", nans=("c",))]).to_html())
        assert places(chart, "cross") == ["c"]
        assert ">NaN</text>" in chart and ">0</text>" not in chart
        assert [len(line.split()) for line in re.findall(r'points="([^"]*)" class="line"', chart)] == [2, 2]
        heights = re.findall(r'y="([\d.]+)"[^>]*>(?:NaN|1e-\d+)</text>', chart)
        assert float(heights[-1]) == min(map(float, heights))  # above all decades
    (chart,) = charts(Report([off(("a", inf), ("b", inf), first="a", nans=("b",))]).to_html())
    assert ">NaN, ∞</text>" in chart and places(chart, "cross") == ["b"]


def test_no_limit_is_drawn_where_an_array_has_no_number() -> None:
    """An array of another shape has no error, and so none that a limit would be for."""
    curve = (("a", 1e-12, 1e-10), ("b", 1e-12, 1e-10), ("c", math.inf, 1e-13))
    off = replace(row(("a",)), passed=False, error=math.inf, curve=curve, shapes=("c",))
    for result, arrays in ((off, 2), (replace(off, shapes=(), curve=(*curve[:2], ("c", 1e-12, 1e-13))), 3)):
        (plot,) = charts(Report([result]).to_html())
        (points,) = re.findall('<polyline points="([^"]*)" class="limit"', plot)
        assert len(points.split()) == 2 * arrays  # a step for each
    assert ">1e-13<" not in charts(Report([off]).to_html())[0]


def test_the_name_of_a_limit_that_ends_early_is_clear_of_the_decades() -> None:
    names = [f"layer{k}" for k in range(30)]
    curve = ((names[0], 1e-12, 1e-10), *((name, math.inf, 1e-10) for name in names[1:]))
    off = replace(row(("a",)), passed=False, error=math.inf, curve=curve, nans=tuple(names[1:]))
    (plot,) = charts(Report([off]).to_html())
    (x,) = re.findall('<text x="([^"]*)"[^>]*class="limit-text beyond">limit<', plot)
    (line,) = re.findall('<polyline points="([^",]*),[^"]*" class="limit"', plot)
    assert float(x) >= float(line) + 20  # its half, from the frame at which the line begins

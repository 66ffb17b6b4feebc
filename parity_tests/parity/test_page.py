"""The report's page, as text and in a real headless Chromium: light and dark, wide and narrow."""

from __future__ import annotations

import html.parser
import re
import shutil
import struct
import subprocess
import zlib
from dataclasses import replace
from html import escape

import numpy as np
import pytest

from parity import summary
from parity.elements import Worst
from parity.judge import Subject, judge
from parity.markup import prose
from parity.recording import Recording
from parity.report import Report
from parity.result import Divergence, Result

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
FLAGS = ["--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--force-device-scale-factor=1",
         "--no-first-run", "--disable-extensions", "--disable-background-networking"]  # fmt: skip


def recording(label: str, slip: float, dtype: str = "float64") -> Recording:
    rng = np.random.default_rng(0)
    arrays = {f"blocks.{k}.norm1": rng.standard_normal(5) for k in range(30)}
    made = Recording(label, label, dtype, "cpu", {name: a * (1 + slip) for name, a in arrays.items()})
    made.truth = Recording(label, label, "float64", "cpu", arrays) if dtype != "float64" else None
    return made


def report() -> Report:
    results: list[Result] = []
    for variant, slip in (("S/16", 1e-15), ("B/16", 1e-3)):
        for dtype, noise in (("float64", 1e-16), ("float32", 1e-7)):
            subject = Subject("mlp_mixer", variant, "layers", dtype, "cpu")
            made = [
                recording("flax", 0, dtype),
                recording("torch", noise + slip, dtype),
                recording("paddle", noise, dtype),
            ]
            results += judge(subject, made)
    skipped = Result(
        "mlp_mixer",
        "S/16",
        "forward",
        "float16",
        "cpu",
        "flax-paddle",
        None,
        None,
        None,
        None,
        "no <kernel>",
        missing=(("flax", "no <kernel>"),),
    )
    return Report([*results, skipped], {"torch": "2.13", "device": "cpu", "mixer.npz": "sha256 " + "ab" * 32})


class Text(html.parser.HTMLParser):
    """Checks that tags close, and collects addresses inside the page and attributes that would fetch something."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.fetched: list[str] = []
        self.links: list[str] = []
        self.ids: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        for name, value in attrs:
            if name == "href" and (value or "").startswith("#"):
                self.links.append(str(value)[1:])
            elif name in ("src", "href", "srcset", "data"):
                self.fetched.append(f"{tag} {name}")
            elif name == "id":
                self.ids.append(str(value))
        if tag not in ("meta", "wbr"):
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        pass

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_the_page_is_whole_and_fetches_nothing() -> None:
    page = report().to_html()
    text = Text(page)
    assert text.open == []
    assert text.fetched == []
    assert not re.search(r"https?://|url\(|@import|<script|\$[a-z]", page)


def test_the_verdict_stands_first_then_what_differs_then_what_was_run() -> None:
    made = report()
    made.about |= {"date": "2026-11-27", "command": "parity x"}
    page = made.to_html()
    head = re.findall("<h1.*?</h1>|<p class=.*?</p>", page)
    assert "(" not in head[1] and "First in mlp_mixer:B/16, check layers in float64." in re.sub("<.*?>", "", head[2])
    brief = re.sub('<span class="whole">(.*?)</span>', r"\1", head[3])
    assert re.findall("<span>(.*?)</span>", brief) == ["2026-11-27", "cpu", "parity x"]
    marks = [
        "differs from", "2026-11-27", "First divergence", "sha256 abab", "<h2>mlp_mixer</h2>", "Errors, array by array",
        "<h2>Remarks</h2>",
    ]  # fmt: skip
    body = page[page.index("<body>") :]
    assert [body.index(mark) for mark in marks] == sorted(body.index(mark) for mark in marks)


def test_every_cell_leads_to_its_plot() -> None:
    text = Text(report().to_html())
    assert set(text.links) == {"m0-layers", "m0-forward", "m1-layers", "remarks"}
    assert set(text.links) <= set(text.ids)
    assert len(text.ids) == len(set(text.ids))


def test_a_row_a_model_has_its_dtypes_side_by_side() -> None:
    page = report().to_html()
    (head,) = re.findall(r"<thead>(?:(?!</thead>).)*model.*?</thead>", page)
    assert re.findall(r"<th[^>]*>([^<]*)</th>", head) == [
        "model", "layers", "forward", "float64", "float32", "float16",
    ]  # fmt: skip
    (body,) = re.findall(r'<table class="matrix">.*?<tbody>(.*?)</tbody>', page, re.S)
    assert re.findall(r'<th scope="row">([^<]*)', body) == ["S/16", "B/16"]
    labels = re.findall(r'data-label="([^"]*)"', body)
    assert labels == ["layers, float64", "layers, float32", "forward, float16"] * 2


def test_a_divergence_is_listed_by_facts() -> None:
    page = report().to_html()
    (card,) = re.findall(r"<article.*?</article>", page)
    facts = dict(re.findall(r"<dt[^>]*>(.*?)</dt><dd[^>]*>(.*?)</dd>", re.sub("</?span[^>]*>", "", card)))
    assert list(facts) == [
        "layer", "values", "error", "limit", "worst later", "layer before", "agrees", "also differs", "next",
    ]  # fmt: skip
    assert facts["layer"] == "blocks.0.norm1"
    assert facts["values"] == "0.64 in flax, 0.641 in torch at [2]"
    assert re.fullmatch(r"here 1.0e-3, relative to \S+, the largest element", facts["error"])
    assert facts["limit"] == "1e-10"
    assert facts["layer before"] == "none: it is the first"
    assert facts["agrees"] == "flax-paddle"
    assert facts["also differs"] == "layers in float32"


def graded(error: float, tolerance: float, dtype: str = "float64") -> str:
    return Result("x", "v", "layers", dtype, "cpu", "a-b", error, tolerance, error <= tolerance).grade


def test_only_what_somebody_should_look_at_is_amber() -> None:
    assert [graded(e, 1e-10) for e in (1e-15, 9e-12, 2e-11, 2e-10)] == ["agrees", "agrees", "close", "differs"]
    assert graded(2e-7, 1e-6) == "agrees"  # a limit that measured amplification of rounding widens
    shares = (0.2, 13 / 24, 0.61, 1.1)  # 13 / 24: the largest of equal models
    assert [graded(s * 1e-6, 1e-6, "float32") for s in shares] == ["agrees", "agrees", "close", "differs"]


def test_a_check_close_to_its_limit_is_in_the_headline_with_its_pairs_and_what_it_means() -> None:
    near = [replace(row(("a",)), check="train", pair=p, error=4e-10, tolerance=1e-9) for p in ("a-b", "a-c")]
    page = Report([row(("a",)), *near]).to_html()
    assert re.search(
        r'<h1 class="good">.* agree in all 3 comparisons, <span class="look">1 check close to its limit', page
    )
    (card,) = re.findall('<article class="card near">.*?</article>', page)
    text = re.sub("<[^>]*>", "", card)
    assert "a-b4.0e-10 of 1e-9, at a" in text and "a-c4.0e-10 of 1e-9" in text and "training amplifies rounding" in text
    assert '<td data-label="a-c" class="close"><a href="#m0-train">4.0e-10</a></td>' in page
    assert '<b class="close"></b>agrees, close to its limit: above 10% of it in float64' in page


def test_one_model_has_a_row_a_check_and_a_column_a_pair() -> None:
    wide, skipped = replace(row(("a",)), pair="a-c", tolerance=1e-9), replace(row(("a",)), check="train", passed=None)
    page = Report([row(("a",)), wide, skipped]).to_html()
    (table,) = re.findall('<table class="matrix by-pair">.*?</table>', page)
    rows = [[re.sub("<[^>]*>", "", cell) for cell in re.findall("<t[hd].*?</t[hd]>", line)]
            for line in re.findall("<tr>.*?</tr>", table)]  # fmt: skip
    assert rows == [
        ["check", "limit", "a-b", "a-c"], ["layers float64", "1e-10", "1.0e-12", "1.0e-12 of 1e-9"],
        ["train float64", "1e-10", "not judged", "not asked"],
    ]  # fmt: skip


def charts(page: str) -> list[str]:
    return re.findall(r'<svg class="chart".*?</svg>', page)


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


def test_a_page_without_a_comparison_claims_none() -> None:
    lone = replace(row(("a",)), error=None, tolerance=None, passed=None, curve=(), cause="b", missing=(("b", "b"),))
    text = re.sub("<[^>]*>", " ", Report([lone, replace(lone, check="train")]).to_html().partition("<body>")[2])
    assert "Nothing was compared: each cell" in text
    assert not re.search("no pair|worst element|agrees", text)


def test_a_module_is_not_red_for_what_is_within_it() -> None:
    points = tuple((tap, error, 1e-10) for tap, error in (("a", 1e-3), ("a.fc", 1e-3), ("b", 1e-12)))
    tree = [("a", "Block"), ("a.fc", "Linear"), ("b", "Linear")]
    page = Report([replace(row(("a",)), curve=points, passed=False)], modules={"m": tree}).to_html()
    assert [re.findall("<code>(.*?)</code>", line) for line in re.findall(r'<tr class="differs">.*?</tr>', page)] == [
        ["a.fc"]
    ]


def test_what_stands_side_by_side_comes_before_what_is_long() -> None:
    made = Report([row(("a",))], {"command": "x " * 40, "date": "today", "hash": "y " * 40, "seed": "0"})
    rows = re.findall('<dt(?: class="wide")?>(.*?)</dt>', made.to_html().partition("What was run")[2])
    assert rows == ["date", "seed", "command", "hash"]


def test_words_with_a_hyphen_are_not_broken() -> None:
    assert prose("x <- y, python --table 1e-10") == (
        'x <span class="whole">&lt;-</span> y, python <span class="whole">--table</span> '
        '<span class="whole">1e-10</span>'
    )


def test_one_comparison_is_singular() -> None:
    page = Report([row(("a", "b"))]).to_html()
    assert "a and b agree in 1 comparison." in re.sub("<[^>]*>", "", page)
    assert "1 comparisons" not in page


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
        ["conv", "Conv2d", "conv", "Conv", "1.0e-12", "1e-10"],
        ["act", "GELU", "-", "-", "-"],
        ["head", "Linear", "head", "Dense", "1.0e-12", "1e-10"],
    ]


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
    assert made.modules == {
        "one": [("fc", "Linear"), ("act", "GELU")],
        "other": [("act", "GELU"), ("fc", "Linear")],
    }
    assert list(made.about)[:7] == ["check", "inputs", "models", "date", "triptych", "python", "device"]
    assert (made.about["inputs"], made.about["models"]) == ("[2, 4] float64", "Named (one) and Other (other)")
    assert re.fullmatch(r"\d{4}-\d\d-\d\d \d\d:\d\d UTC", made.about["date"])
    text = re.sub("<[^>]*>", " ", made.to_html())
    assert "[2, 4] float64" in text and "images" not in text
    assert "one and other agree in 1 comparison." in text
    assert '<table class="modules">' in made.to_html()


def row(curve: tuple[str, ...], dtype: str = "float64", variant: str = "v", cause: str = "") -> Result:
    points = tuple((name, 1e-12, 1e-10) for name in curve)
    about = ("x", variant, "layers", dtype, "cpu", "a-b")
    return Result(*about, 1e-12, 1e-10, True, None, cause, points, sides=("a", "b"))


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


def test_each_dtype_of_own_models_has_a_column_of_its_own() -> None:
    page = Report([row(("a",)), replace(row(("a",), "float32"), curve=(("a", 1e-7, 6e-6),))],
                  modules={"m": [("a", "Conv"), ("b", "GELU")]}).to_html()  # fmt: skip
    (table,) = re.findall(
        r'<table class="modules">.*?</table>', re.sub('<span class="whole">(.*?)</span>', r"\1", page)
    )
    assert "error, float64</th>" in table and "error, float32</th>" in table
    numbers = re.findall(r'<td class="number">([^<]*)</td>', table)
    assert numbers == ["1.0e-12", "1e-10", "1.0e-7", "6e-6"]


@pytest.mark.parametrize(("dtypes", "rows"), [(("float64", "float32", "float16"), 1), (("float64", "float32"), 0)])
def test_no_two_of_three_dtypes_stand_side_by_side(dtypes: tuple[str, ...], rows: int) -> None:
    page = Report([row(("a", "b"), dtype) for dtype in dtypes]).to_html()
    assert page.count('<div class="panels rows">') == rows and page.count('<div class="panels">') == 1 - rows


def test_a_long_cause_stands_in_the_remarks_alone() -> None:
    why = "a report of paddle " * 5
    undecided = replace(row(("a",)), error=None, tolerance=None, passed=None, cause=why.strip())
    page = Report([row(("a",)), replace(undecided, pair="a-c"), replace(undecided, pair="b-c")]).to_html()
    seen = re.sub(r' title="[^"]*"', "", page)
    assert seen.count(why.strip()) == 1 and page.count('not judged: see <a href="#remarks">') >= 2


def test_several_models_are_compared_each_with_itself() -> None:
    report = Report([row(("a",)), row(("a",), variant="w")])
    assert summary.verdict(report.results) == "a and b agree on each of 2 models, in both comparisons."
    assert "A model is compared across frameworks, not with the other models." in report.to_html()


def test_the_summary_states_the_worst_error_of_each_dtype_and_says_what_it_is() -> None:
    """In one dtype a larger error may have a smaller share of its limit: the worst error is not the largest number."""
    large, near = (replace(row(("a",), "float32"), error=e, tolerance=t) for e, t in ((9e-7, 1e-3), (6.8e-7, 2e-6)))
    results = [large, near, row(("a",))]
    assert summary.totals(results).endswith("; worst error: float64 1.0e-12 of 1e-10, float32 6.8e-7 of 2e-6")
    defined = "the one with the largest share of its limit, not the largest number"
    assert defined in re.sub("<[^>]*>", "", Report(results).to_html()) and defined in str(Report(results))
    assert "largest error" not in Report(results).to_html() + str(Report(results))


def test_a_row_that_passed_has_no_first_divergence() -> None:
    assert row(("a",), cause="bfloat16 drowns 'b'").as_dict()["first_divergence"] is None


def test_results_of_one_name_are_all_in_the_matrix() -> None:
    page = Report([row(("a",)), row(("a",)), row(("a",), variant="w")]).to_html()
    assert page.count("<td data-label") == 3


@pytest.fixture(scope="module")
def chromium() -> str:
    if CHROMIUM is None:
        pytest.skip("no chromium here: apt-get install chromium")
    return CHROMIUM


def shot(chromium: str, folder: object, width: int, *flags: str) -> np.ndarray:
    """A screenshot as (h, w, 3)."""
    page, out = f"{folder}/page.html", f"{folder}/shot.png"
    with open(page, "w", encoding="utf-8") as file:
        file.write(report().to_html())
    command = [chromium, *FLAGS, *flags, f"--user-data-dir={folder}/profile", f"--window-size={width},600"]
    done = subprocess.run(
        [*command, f"--screenshot={out}", f"file://{page}"], capture_output=True, text=True, timeout=90, check=False
    )
    assert done.returncode == 0, done.stderr[-500:]
    with open(out, "rb") as file:
        return pixels(file.read())


def pixels(png: bytes) -> np.ndarray:
    """An 8-bit PNG without interlacing, decoded."""
    width, height, depth, colour = struct.unpack(">IIBB", png[16:26])
    assert depth == 8
    channels, data, at = {2: 3, 6: 4}[colour], b"", 8
    while at < len(png):
        (length,) = struct.unpack(">I", png[at : at + 4])
        data += png[at + 8 : at + 8 + length] if png[at + 4 : at + 8] == b"IDAT" else b""
        at += 12 + length
    rows = np.frombuffer(zlib.decompress(data), np.uint8).reshape(height, 1 + width * channels)
    out = np.zeros((height, width * channels), np.int64)
    for y, row in enumerate(rows):
        above = out[y - 1] if y else np.zeros_like(out[0])
        out[y] = unfiltered(int(row[0]), row[1:].astype(np.int64), above, channels)
    return out.reshape(height, width, channels)[:, :, :3]


def unfiltered(kind: int, row: np.ndarray, above: np.ndarray, channels: int) -> np.ndarray:
    """One row of a PNG, filters undone."""
    if kind in (0, 2):
        return (row + (above if kind else 0)) % 256
    if kind == 1:
        return row.reshape(-1, channels).cumsum(0).ravel() % 256
    out = row.tolist()
    up, n = above.tolist(), channels
    for k in range(len(out)):
        left, corner = (out[k - n], up[k - n]) if k >= n else (0, 0)
        if kind == 3:
            out[k] = (out[k] + (left + up[k]) // 2) % 256
        else:
            guess = left + up[k] - corner
            near = min((abs(guess - left), 0, left), (abs(guess - up[k]), 1, up[k]), (abs(guess - corner), 2, corner))
            out[k] = (out[k] + near[2]) % 256
    return np.array(out)


def test_chromium_renders_it_light_and_dark(chromium: str, tmp_path: object) -> None:
    light = shot(chromium, tmp_path, 600)
    dark = shot(chromium, tmp_path, 600, "--blink-settings=preferredColorScheme=0")
    for picture, bright in ((light, True), (dark, False)):
        assert (picture[2, 2].mean() > 200) == bright
        assert len(np.unique(picture.reshape(-1, 3), axis=0)) > 50  # something is drawn
    red, green, blue = (light[..., k] for k in range(3))
    assert ((red > 140) & (green < 60) & (blue < 60)).sum() > 500  # the verdict, and what differs


def dom(chromium: str, folder: object, page: str, address: str = "") -> str:
    """A page as Chromium has it after its scripts."""
    with open(f"{folder}/page.html", "w", encoding="utf-8") as file:
        file.write(page)
    command = [chromium, *FLAGS, f"--user-data-dir={folder}/profile", "--dump-dom"]
    done = subprocess.run(
        [*command, f"file://{folder}/page.html{address}"], capture_output=True, text=True, timeout=90, check=False
    )
    assert done.returncode == 0, done.stderr[-500:]
    return done.stdout


def test_chromium_unfolds_the_plot_that_a_cell_leads_to(chromium: str, tmp_path: object) -> None:
    page = report().to_html()
    unfolded = dom(chromium, tmp_path, page, "#m0-layers")
    kinds = '<details class="provenance">', "<details>", '<details open="">'
    assert re.findall("<details[^>]*>", page) == [*kinds]
    assert re.findall("<details[^>]*>", unfolded) == [kinds[0], *kinds[2:] * 2]


def test_chromium_lays_it_out_wide_and_narrow(chromium: str, tmp_path: object) -> None:
    """Nothing is wider than its frame: wide tables and charts scroll inside their own boxes."""
    widths = (400, 1600)
    frames = "".join(f'<iframe width={w} height=900 srcdoc="{escape(report().to_html())}"></iframe>' for w in widths)
    probe = """<script>onload = () => document.title = Array.from(frames).map(frame => [
      frame.innerWidth, frame.document.documentElement.scrollWidth,
      getComputedStyle(frame.document.querySelector("td"), "::before").content].join()).join(";")</script>"""
    text = dom(chromium, tmp_path, f"<!doctype html><title></title><style>iframe{{border:0}}</style>{frames}{probe}")
    found = re.search("<title>(.*?)</title>", text)
    assert found
    narrow, wide = found[1].split(";")
    assert narrow == '400,400,"layers, float64"'  # each cell states its column
    assert wide == "1600,1600,none"

"""The report's page, as text and in a real headless Chromium: light and dark, wide and narrow."""

from __future__ import annotations

import html.parser
import re
import shutil
import struct
import subprocess
import zlib

import numpy as np
import pytest

from parity.judge import Subject, judge
from parity.numbers import Worst
from parity.record import Recording
from parity.report import Report
from parity.result import Divergence, Result

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
FLAGS = ["--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--force-device-scale-factor=1"]


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
        "mlp_mixer", "S/16", "forward", "float16", "cpu", "flax-paddle", None, None, None, None, "no <kernel>"
    )
    return Report([*results, skipped], {"torch": "2.13", "device": "cpu", "mixer.npz": "sha256 " + "ab" * 32})


class Text(html.parser.HTMLParser):
    """Checks that tags close, and collects attributes that would fetch something."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.fetched: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.fetched += [f"{tag} {name}" for name, _ in attrs if name in ("src", "href", "srcset", "data")]
        if tag not in ("meta", "br", "line", "polyline", "polygon"):
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        pass

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_the_page_is_whole_and_fetches_nothing() -> None:
    page = report().to_html()
    text = Text()
    text.feed(page)
    assert text.open == []
    assert text.fetched == []
    assert not re.search(r"https?://|url\(|@import|<script", page)


def test_the_page_tells_what_was_found() -> None:
    page = report().to_html()
    found = (
        "not proven the same",
        "blocks.0.norm1 differs",
        "flax-torch",
        "float32",
        "sha256 abab",
        "no &lt;kernel&gt;",
    )
    for told in (*found, "3 decades or more below", "Band: the frameworks"):
        assert told in page, told
    assert page.count("<svg") == 2
    assert page.count("<polygon") == 6  # noise bands of the float32 results


def test_an_infinite_error_and_an_odd_name_are_drawn() -> None:
    first = Divergence.at("<b>", Worst(float("inf"), cause="not finite"), 1e-10)
    row = Result("x", "<v>", "layers", "float64", "cpu", "a-b", float("inf"), 1e-10, False, first, "",
                 (("<b>", float("inf"), 1e-10), ("zero", 0.0, 1e-10)))  # fmt: skip
    page = Report([row]).to_html()
    assert "<b></b>" not in page
    assert "&lt;v&gt;" in page
    assert "inf" not in re.findall(r'points="[^"]*"', page)[0]


def row(curve: tuple[str, ...], dtype: str = "float64", variant: str = "v", cause: str = "") -> Result:
    points = tuple((name, 1e-12, 1e-10) for name in curve)
    return Result("x", variant, "layers", dtype, "cpu", "a-b", 1e-12, 1e-10, True, None, cause, points)


def test_what_is_drowned_leaves_the_others_at_their_names() -> None:
    low = row(("a", "c", "d"), "bfloat16", cause="bfloat16 drowns 'b' in the rounding of every framework: not judged")
    for results in ([row(("a", "b", "c")), low], [low, row(("a", "b", "c"))]):
        page = Report(results).to_html()
        ticks = {name: float(x) for x, name in re.findall(r'<text x="([\d.]+)" y="242"[^>]*>(\w)<', page)}
        assert sorted(ticks, key=ticks.__getitem__) == ["a", "b", "c", "d"]
        lines = [
            [float(point.split(",")[0]) for point in points.split()] for points in re.findall(r'points="([^"]*)"', page)
        ]
        assert sorted(lines) == sorted([[ticks[n] for n in names] for names in ("abc", "abc", "acd", "acd")])


def test_a_row_that_passed_has_no_first_divergence() -> None:
    assert row(("a",), cause="bfloat16 drowns 'b'").as_dict()["first_divergence"] is None


def test_results_of_one_name_are_all_in_the_matrix() -> None:
    page = Report([row(("a",)), row(("a",)), row(("a",), variant="w")]).to_html()
    assert page.count('<td class="cell') == 3


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
    command = [chromium, *FLAGS, *flags, f"--user-data-dir={folder}/profile", f"--window-size={width},1400"]
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
    light = shot(chromium, tmp_path, 1280)
    dark = shot(chromium, tmp_path, 1280, "--blink-settings=preferredColorScheme=0")
    for picture, bright in ((light, True), (dark, False)):
        assert (picture[2, 2].mean() > 200) == bright
        assert len(np.unique(picture.reshape(-1, 3), axis=0)) > 50  # something is drawn
    red = (light[..., 0] > 240) & (light[..., 1] < 225) & (light[..., 2] < 225) & (light[..., 0] - light[..., 1] > 30)
    green = (light[..., 1] - light[..., 0] > 20) & (light[..., 1] > 230)
    assert red.sum() > 500
    assert green.sum() > 500


def test_chromium_lays_it_out_wide_and_narrow(chromium: str, tmp_path: object) -> None:
    """Nothing is wider than the window: wide tables and charts scroll inside their own boxes."""
    for width in (500, 1600):
        probe = "<script>document.title=[innerWidth,document.documentElement.scrollWidth].join()</script></body>"
        with open(f"{tmp_path}/probe.html", "w", encoding="utf-8") as file:
            file.write(report().to_html().replace("</body>", probe))
        command = [chromium, *FLAGS, f"--user-data-dir={tmp_path}/profile", f"--window-size={width},900", "--dump-dom"]
        done = subprocess.run(
            [*command, f"file://{tmp_path}/probe.html"], capture_output=True, text=True, timeout=90, check=False
        )
        assert done.returncode == 0, done.stderr[-500:]
        found = re.search(r"<title>(\d+),(\d+)</title>", done.stdout)
        assert found, done.stdout[:300]
        assert int(found[1]) == width
        assert int(found[2]) <= width

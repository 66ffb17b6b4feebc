"""The report's page in a real headless Chromium: light and dark, wide and narrow."""

from __future__ import annotations

import re
import shutil
import struct
import subprocess
import zlib
from dataclasses import replace
from html import escape

import numpy as np
import pytest

from parity.derive.missing.unmatched import Unmatched
from parity.derive.report import page as page_of
from parity.page.document import fill
from parity.page.markup import prose, tag
from parity.page.module_table import key_list
from parity.report import Report
from parity.results.elements import Worst
from parity.results.result import Divergence

from ..derive.test_report import DERIVED
from .pages import first, report, row

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
FLAGS = ["--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--force-device-scale-factor=1",
         "--no-first-run", "--disable-extensions", "--disable-background-networking"]  # fmt: skip


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
    for y, line in enumerate(rows):
        above = out[y - 1] if y else np.zeros_like(out[0])
        out[y] = unfiltered(int(line[0]), line[1:].astype(np.int64), above, channels)
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
    unfolded = dom(chromium, tmp_path, page, "#m0-layers-float32-cpu")
    kinds = '<details class="provenance">', '<details class="agreeing">', '<details open="">'
    details = '<details(?! class="values")[^>]*>'
    assert re.findall(details, page) == [*kinds]
    assert re.findall(details, unfolded) == [kinds[0], kinds[1].replace(">", ' open="">'), kinds[2]]


def probed(chromium: str, folder: object, page: str, widths: tuple[int, ...], *values: str) -> list[str]:
    """The values of JavaScript expressions in a page of each width, joined by commas; `page` is its document."""
    frames = "".join(f'<iframe width={w} height=900 srcdoc="{escape(page)}"></iframe>' for w in widths)
    values = ("page.documentElement.scrollWidth", *values)
    probe = f"""<script>onload = () => document.title = Array.from(frames).map(frame => {{
      const page = frame.document; return [{", ".join(values)}].join() }}).join(";")</script>"""
    text = dom(chromium, folder, f"<!doctype html><title></title><style>iframe{{border:0}}</style>{frames}{probe}")
    found = re.search("<title>(.*?)</title>", text)
    assert found
    return found[1].split(";")


def cut(selector: str) -> str:
    """JavaScript: how many elements are narrower than what they hold."""
    return f'[...page.querySelectorAll("{selector}")].filter(e => e.scrollWidth > e.clientWidth).length'


def test_chromium_lays_it_out_wide_and_narrow(chromium: str, tmp_path: object) -> None:
    """Nothing is wider than its frame: wide tables and charts scroll inside their own boxes."""
    label = 'getComputedStyle(page.querySelector(".matrix td"), "::before").content'
    narrow, wide = probed(chromium, tmp_path, report().to_html(), (400, 1600), label)
    assert narrow == '400,"limit "'  # each cell states its column
    assert wide == "1600,none"


@pytest.mark.parametrize("several", [True, False])
def test_chromium_breaks_long_labels_and_names_into_lines(several: bool, chromium: str, tmp_path: object) -> None:
    """Users' labels and module names may be long: no cell of a narrow page is cut, no table of a wide one runs over."""
    long, sides = f"encoder.layers.{'attention.' * 6}kernel", ("my_reimplementation_in_flax", "transformers_torch")
    point = (long, 1e-3, 1e-10)
    off = replace(row((long,)), pair="-".join(sides), sides=sides, curve=(point, point), error=1e-3, passed=False)
    off = replace(off, first_divergence=Divergence.at(long, Worst(1e-3, (0,), 1.0, 1.001), 1e-10))
    also = replace(off, pair="my_reimplementation_in_flax-ours")
    variants = ("v", "w") if several else ("AVeryLongNameOfACheckpoint" * 3,)  # in a heading
    checks = "layers", "forward", "gradients", "train"
    results = [replace(r, variant=v, check=check) for v in variants for check in checks for r in (off, also)]
    trees = {side: [(long, "AttentionWithRelativePositions")] for side in sides}
    page = Report(results, {"weights": "/data/" * 30}, trees).to_html()
    assert probed(chromium, tmp_path, page, (400, 900), cut("h2, p, li, dd, td, tbody th, figure, .scroll")) == [
        "400,0",
        "900,0",
    ]


def test_chromium_explains_uses_only_where_their_column_is_shown(chromium: str, tmp_path: object) -> None:
    cells = tag("tr", *(tag("td", text) for text in ("scale", "scale", "factor", "0")))
    body = tag("div", key_list([("soft use", "factor", "the meaning")]), tag("table", cells, class_="modules trees"))
    page = fill(kicker="", title="", state="", verdict="", totals="", provenance="", results=body)
    hidden = '[...page.querySelectorAll("td:nth-child(3), .meanings *")].filter(e => !e.getClientRects().length).length'
    assert probed(chromium, tmp_path, page, (400, 1200), hidden) == ["400,4", "1200,0"]


def test_chromium_breaks_long_lines_of_a_table_of_any_page(chromium: str, tmp_path: object) -> None:
    line = "# free to permute: " + "outputs of blocks.{i}.fc1.weight (right: params/layer_{i}/up/kernel) " * 4
    page = fill(kicker="", title="", state="", verdict="", totals="", provenance="",
                results=tag("pre", tag("span", prose(line)), class_="lines"))  # fmt: skip
    assert probed(chromium, tmp_path, page, (400, 1200), cut("pre")) == ["400,0", "1200,0"]


BROKEN = """[...page.querySelectorAll(".whole, .command > span")].filter(e =>
  e.getClientRects().length > 1 && e.className != "long" ||
  e.getBoundingClientRect().right > page.documentElement.clientWidth).length"""
LIMITS = """[...page.querySelectorAll(".of, .own-limit")].filter(
  e => e.getBoundingClientRect().height > 1 && e.getBoundingClientRect().width > 1).length"""


def test_chromium_breaks_no_number_from_its_label_and_no_argument_and_shows_limits(
    chromium: str, tmp_path: object
) -> None:
    command = f"python -m parity 'a file with spaces.npz' {'long/' * 30}x.npz --check layers --report {'y' * 30}.html"
    made = report()
    made.results[0] = replace(made.results[0], tolerance=1e-9)
    page = Report(made.results, {"command": command, "date": "today"}, {"m": [("blocks.0.norm1", "LayerNorm")]})
    opened = page.to_html().replace("<details", "<details open")
    narrow, wide = probed(chromium, tmp_path, opened, (400, 1200), BROKEN, LIMITS)
    assert narrow == "400,0,3" and wide == "1200,0,1"  # of modules, on narrow screens; beside what a row does not state


def test_chromium_hides_what_the_open_list_of_what_was_run_repeats(chromium: str, tmp_path: object) -> None:
    page = Report([row(("a",))], {"date": "today", "command": "python -m parity x"}).to_html()
    shown = 'getComputedStyle(page.querySelector(".brief")).display'
    opened = page.replace('<details class="provenance"', '<details open class="provenance"')
    assert opened != page
    assert probed(chromium, tmp_path, page, (1200,), shown) == ["1200,inline"]
    assert probed(chromium, tmp_path, opened, (1200,), shown) == ["1200,none"]


def test_chromium_shows_modules_compactly_on_a_narrow_screen(chromium: str, tmp_path: object) -> None:
    """Each row of modules is a card within the page."""
    tree = [("blocks.0.token_mix.fc1", "Linear"), ("norm", "LayerNorm")]
    made = [row(tuple(name for name, _ in tree), dtype) for dtype in ("float64", "float32")]
    page = Report(made, modules=dict.fromkeys("abcd", tree)).to_html()
    wide = 'page.querySelector(".modules").scrollWidth <= page.body.clientWidth'
    same = '[...page.querySelectorAll(".modules td.same")].every(e => getComputedStyle(e).display === "none")'
    (narrow,) = probed(chromium, tmp_path, page, (400,), wide, same)
    assert narrow == "400,true,true"


def test_chromium_ends_a_merged_first_column_without_a_second_rule(chromium: str, tmp_path: object) -> None:
    rules = '[...page.querySelectorAll("tbody .of-rows")].map(e => getComputedStyle(e).borderBottomWidth).join("|")'
    (found,) = probed(chromium, tmp_path, report().to_html(), (1200,), rules)
    assert found == "1200,1px|0px"  # two models


def test_chromium_shows_that_a_table_goes_on_as_of_a_plot(chromium: str, tmp_path: object) -> None:
    """The shadow is a background of the frame: no cell but the names of the models hides it."""
    opaque = """[...page.querySelectorAll(".scroll td, .scroll thead th:not(:first-child)")].filter(e =>
      !/rgba|\\/ 0|transparent/.test(getComputedStyle(e).backgroundColor)).length"""
    shadows = 'getComputedStyle(page.querySelector(".scroll")).backgroundImage.split("linear-gradient").length - 1'
    narrow, wide = probed(chromium, tmp_path, report().to_html(), (400, 1200), shadows, opaque)
    assert wide == "1200,6,0" and narrow.startswith("400,6,")  # a long name may still be wider


def test_chromium_aligns_tables_of_one_model_each_and_shows_thirty_values(chromium: str, tmp_path: object) -> None:
    r = row(("a",), dtype="float32")
    own = [replace(r, pair=pair, tolerance=bound) for pair, bound in (("a-b", 5.7e-6), ("a-c", 6e-6))]
    made = [*own, *(replace(r, architecture="y", tolerance=5.7e-6) for r in own)]
    lefts = """[...page.querySelectorAll(".matrix")].map(e => e.querySelectorAll("thead th")[3]
      .getBoundingClientRect().left.toFixed()).join("|")"""
    (found,) = probed(chromium, tmp_path, Report(made).to_html(), (1280,), lefts)
    (one, other) = found.partition(",")[2].split("|")
    assert one == other
    opened = Report([row(tuple(f"a{k}" for k in range(30)))]).to_html().replace("<details", "<details open")
    scrolls = '[".values .scroll"].map(e => page.querySelector(e)).every(e => e.scrollHeight > e.clientHeight)'
    assert probed(chromium, tmp_path, opened, (1280,), scrolls) == ["1280,false"]


def test_chromium_names_an_array_that_is_alone_in_the_title_of_its_table_alone(chromium: str, tmp_path: object) -> None:
    seen = """[...page.querySelectorAll(".by-dtype th, .by-dtype td")].filter(
      e => /^(array|output)$/.test(e.textContent) && e.checkVisibility()).length"""
    title = 'page.querySelector(".by-dtype").closest("figure").querySelector("h4").textContent'
    forward, off = replace(row(("output",)), check="forward"), {"pair": "a-c", "error": 1.0, "passed": False}
    page = Report([forward, replace(forward, **off)]).to_html()
    assert probed(chromium, tmp_path, page, (400, 1200), seen, title) == [
        "400,0,forward output",
        "1200,0,forward output",
    ]
    several = Report([forward, replace(row(("logits",)), check="forward", **off)]).to_html()
    assert probed(chromium, tmp_path, several, (1200,), seen, title) == ["1200,2,forward"]


def test_chromium_ends_a_narrow_table_of_pairs_without_a_second_rule(chromium: str, tmp_path: object) -> None:
    rules = """[...page.querySelectorAll(".pairs tbody tr:last-child")].map(
      e => getComputedStyle(e).borderBottomWidth).join()"""
    page = Report([row(("a", "b")), replace(row(("a", "b")), check="train")]).to_html()
    assert probed(chromium, tmp_path, page, (400,), rules) == ["400,0px,0px"]


def test_chromium_colours_the_mark_of_a_verdict_and_not_its_words(chromium: str, tmp_path: object) -> None:
    seen = [
        f'getComputedStyle(page.querySelector("{selector}"){part}).color == getComputedStyle(page.body).color'
        for selector, part in (("h1", ""), ("h1", ', "::before"'), (".key ~ .key, .key ~ dd", ""), (".key", ""))
    ]
    assert probed(chromium, tmp_path, report().to_html(), (1200,), *seen) == ["1200,true,false,true,false"]


def test_chromium_puts_a_limit_beside_its_check_and_three_pairs_below_on_a_narrow_screen(
    chromium: str, tmp_path: object
) -> None:
    lefts = 'new Set([...page.querySelectorAll(".matrix td:not([data-label=limit])")].map(left)).size'
    rows = '[...page.querySelectorAll(".matrix td[data-label=limit]")]'
    beside = f"{rows}.every(e => top(e) === top(e.previousElementSibling) && top(e) < top(e.nextElementSibling))"
    of = "((left, top) => [{}])(e => e.getBoundingClientRect().left, e => Math.round(e.getBoundingClientRect().top))"
    three = [replace(row(("a",)), pair=pair) for pair in ("flax-torch", "flax-paddle", "torch-paddle")]
    for results, columns in (([row(("a",))], 1), (three, 3)):
        page = Report(results).to_html()
        expected = [f"{width},{columns},true" for width in (400, 600)]
        assert probed(chromium, tmp_path, page, (400, 600), of.format(f"{lefts}, {beside}")) == expected


def test_chromium_breaks_a_line_of_a_table_before_its_arrow(chromium: str, tmp_path: object) -> None:
    sides = [
        tag("span", text, class_="side") for text in ("blocks.{i}.qkv.weight: o i", "<-> layer_{i}/qkv/kernel: i o")
    ]
    page = fill(kicker="", title="", state="", verdict="", totals="", provenance="",
                results=tag("pre", tag("span", *sides), class_="lines"))  # fmt: skip
    lines = 'new Set([...page.querySelectorAll(".side")].map(e => e.getBoundingClientRect().top)).size'
    height = '[...page.querySelectorAll(".side")].every(e => e.getBoundingClientRect().height < 30)'
    assert probed(chromium, tmp_path, page, (400, 1200), lines, height) == ["400,2,true", "1200,1,true"]


def test_chromium_keeps_an_error_and_its_limit_on_one_line_of_a_narrow_module(chromium: str, tmp_path: object) -> None:
    tree = [("blocks.0.token_mix.fc1", "Linear")]
    made = [row((tree[0][0],), dtype) for dtype in ("float64", "float32")]
    page = Report(made, modules={"a": tree, "b": tree}).to_html()
    lines = """[...page.querySelectorAll(".modules td.number:not(.bound)")].map(
      e => e.getBoundingClientRect().height < 30 && e.querySelector(".of").getBoundingClientRect().width > 1).join()"""
    assert probed(chromium, tmp_path, page, (400,), lines) == ["400,true,true"]


def test_chromium_sets_the_letter_of_a_limit_as_large_as_the_limit(chromium: str, tmp_path: object) -> None:
    """A raised letter reads as a power of the number."""
    size = """[...page.querySelectorAll(".pairs .note")].map(e => {
      const [mine, its] = [e, e.parentElement].map(e => getComputedStyle(e)); return (
      mine.fontSize == its.fontSize && mine.verticalAlign == "baseline" && /^ \\[[a-z]\\]$/.test(e.textContent)) })
      .every(Boolean)"""
    assert probed(chromium, tmp_path, report().to_html(), (400, 1200), size) == ["400,true", "1200,true"]


def test_chromium_gives_long_names_of_a_derivation_room_on_a_narrow_screen(chromium: str, tmp_path: object) -> None:
    """The right name of a row has the whole width, below the left one; a card's two sides have a half of it each."""
    long = "transformer_encoder_with_relative_positions"
    uses = [u._replace(left=(f"{long}.{u.left[0]}",), right=(f"{long}/{u.right[0]}",)) for u in DERIVED.uses]
    places = [DERIVED.divergences[0]._replace(both=("1e-5", "1e-3"), rest=0.0)]
    page = page_of(
        replace(DERIVED, uses=uses, divergences=places, unmatched=[Unmatched("left", "add", ("x",), "")]), {}
    )
    box = "e => e.getBoundingClientRect()"
    rows = f"""[...page.querySelectorAll(".trees tbody tr")].map(e => [...e.children].map({box})).every(
      ([left, right, use, error]) => right.top >= left.bottom && right.left == left.left && right.right == error.right
      && error.right > left.right && use.width == 0)"""
    sides = f"""[...page.querySelectorAll(".both tbody tr")].map(e => [...e.children].map({box})).every(
      ([what, left, right]) => left.top >= what.bottom && right.top == left.top && left.width == right.width)"""
    labels = """[...page.querySelectorAll(".card dt")].every(e => e.getBoundingClientRect().height < 50)"""
    edges = """[".first", ".lone"].every(kind => [`tr${kind}`, `tr${kind} > td`].map(e => getComputedStyle(
      page.querySelector(`.trees ${e}`)).boxShadow == "none").join() == "false,true")"""  # of a row, once
    narrow, wide = probed(chromium, tmp_path, page, (400, 1200), cut(".scroll, td, dt"), rows, sides, labels, edges)
    assert narrow == "400,0,true,true,true,true"
    assert wide.startswith("1200,0,false,false")


def test_chromium_breaks_the_names_of_a_pair_ahead_of_its_error_on_a_narrow_screen(
    chromium: str, tmp_path: object
) -> None:
    made = [replace(row(("a", "b")), pair="ours-my_reimplementation")]
    assert probed(chromium, tmp_path, Report(made).to_html(), (400,), cut(".pairs tbody th")) == ["400,0"]


def test_chromium_shows_a_short_pair_beside_its_line_on_a_narrow_screen(chromium: str, tmp_path: object) -> None:
    page = Report([replace(row(("a", "b")), pair="torch-paddle")]).to_html()
    lines = '[...page.querySelectorAll(".pairs tbody th")].map(e => e.getBoundingClientRect().height < 36)'
    assert probed(chromium, tmp_path, page, (400,), lines) == ["400,true"]


def test_chromium_outlines_what_the_keyboard_reaches(chromium: str, tmp_path: object) -> None:
    outline = """["td a", "summary"].map(kind => { const e = page.querySelector(kind); e.focus();
      const own = getComputedStyle(e); return own.outlineStyle + own.outlineWidth }).join("|")"""
    assert probed(chromium, tmp_path, report().to_html(), (1200,), outline) == ["1200,solid2px|solid2px"]


def test_chromium_does_not_break_the_name_of_a_file_that_was_run_on_a_wide_screen(
    chromium: str, tmp_path: object
) -> None:
    page = Report([row(("a",))], {"incomplete.py": "sha256 " + "ab" * 32, "command": "x " * 200}).to_html()
    height = '[...page.querySelectorAll(".run th")][0].getClientRects()[0].height < 40'
    opened = page.replace("<details", "<details open")
    assert probed(chromium, tmp_path, opened, (1200,), height) == ["1200,true"]


def test_chromium_shows_the_type_of_plots_at_12_to_16_px_and_within_them(chromium: str, tmp_path: object) -> None:
    names = ("patch_embedding", *(f"encoder_layers.{k // 4}.n{k}" for k in range(16)), "head")
    others = ("stem", *(f"{k}.norm_before_projection" for k in range(12)))
    results = [row(names), row(names, "float32"), replace(row(others), check="gradients")]
    type = """[...page.querySelectorAll(".chart text")].map(e => parseFloat(getComputedStyle(e).fontSize)
      * e.ownerSVGElement.getBoundingClientRect().width / 640).every(size => 12 <= size && size <= 16)"""
    out = """[...page.querySelectorAll(".chart text")].filter(e => e.getClientRects().length).filter(e => {
      const [mine, its] = [e, e.ownerSVGElement].map(e => e.getBoundingClientRect());
      return mine.left < its.left || mine.right > its.right || mine.bottom > its.bottom }).length"""
    assert probed(chromium, tmp_path, Report(results).to_html(), (400, 800, 1000, 1280), type, out) == [
        "400,true,0", "800,true,0", "1000,true,0", "1280,true,0",
    ]  # fmt: skip


def test_chromium_shows_values_within_a_narrow_page_and_prints_them_folded(chromium: str, tmp_path: object) -> None:
    pairs = [replace(row(("encoder.0.norm_before_projection", "head")), pair=f"my_original-copy_{k}") for k in range(3)]
    wide = [
        replace(r, curve=tuple((name, 10.0 ** -(11 + k), 1e-10) for name, *_ in r.curve)) for k, r in enumerate(pairs)
    ]
    page = Report(wide).to_html()
    opened = page.replace("<details", "<details open")
    assert probed(chromium, tmp_path, opened, (400, 1280), cut(".values, .check, figure")) == ["400,0", "1280,0"]
    seen = 'page.querySelector(".values > div").checkVisibility()'
    assert probed(chromium, tmp_path, on_paper(page), (1280,), seen) == ["1280,false"]


def on_paper(page: str) -> str:
    """A page whose rules for paper hold on the screen."""
    return page.replace("@media print", "@media all")


def test_chromium_prints_what_differs_and_leaves_models_that_agree_closed(chromium: str, tmp_path: object) -> None:
    off = replace(row(("a", "b"), variant="w"), passed=False, error=1e-3, first_divergence=first("a"))
    page = Report([row(("a", "b"), variant=v) for v in "uv"] + [off]).to_html()
    seen = '[...page.querySelectorAll("main details:not(.values) > div")].map(e => e.checkVisibility()).join("|")'
    said = '[...page.querySelectorAll(".printed, .skip")].map(e => e.checkVisibility()).join("|")'
    assert probed(chromium, tmp_path, page, (1200,), seen, said) == ["1200,false|false|true,true|false"]
    shown = on_paper(page)
    assert probed(chromium, tmp_path, shown, (1200,), seen, said) == ["1200,false|false|true,false|true"]
    opened = shown.replace('<details class="agreeing"', '<details open class="agreeing"', 1)
    assert probed(chromium, tmp_path, opened, (1200,), seen, said) == ["1200,true|false|true,false|true"]
    what = 'page.querySelector(".provenance > div").checkVisibility()'
    for settings, is_seen in (("c=1", "true"), ("x:u: c=1; x:v: c=2", "false")):  # a list of models may be long
        made = Report([row(("a",))], {"settings": settings}).to_html()
        assert probed(chromium, tmp_path, on_paper(made), (1200,), what) == [f"1200,{is_seen}"]
    agreeing = Report([row(("a", "b"))]).to_html()  # alone, and open on the screen
    assert probed(chromium, tmp_path, on_paper(agreeing), (1200,), seen) == ["1200,true"]


def test_chromium_shows_the_link_to_the_results_once_the_keyboard_reaches_it(chromium: str, tmp_path: object) -> None:
    """It is the first that the keyboard reaches."""
    link = 'page.querySelector("a, summary, button, input")'
    clip = f"getComputedStyle({link}).clipPath"
    seen = f'({link}.focus(), {clip}) + " " + {link}.getAttribute("href")'
    assert probed(chromium, tmp_path, report().to_html(), (400,), clip, seen) == ["400,inset(50%),none #main"]

"""The page of what was derived: the verdict, both module trees with every use, the Table; it fetches nothing."""

from __future__ import annotations

import os
import re
import sys
from dataclasses import replace
from html import escape, unescape
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

import parity
from convert.__main__ import main
from convert.errors import ConvertError
from convert.files.hashing import sha256
from convert.versions import version
from parity.derive import Derivation, Divergence
from parity.derive.command import COMMAND, _about, _print, _say, _summary
from parity.derive.command import run as derive_command
from parity.derive.derivation import Line, converting
from parity.derive.fold.rows import DerivedTable
from parity.derive.match.advice import Stop, compare
from parity.derive.match.choices import Step
from parity.derive.remarks import KINDS
from parity.derive.report import page as page_of
from parity.derive.report.addresses import where
from parity.derive.report.rating import Rated
from parity.derive.trace.outputs import incomparable
from parity.derive.trace.reason import OneSided
from parity.derive.trace.sites import OWN, module_of
from parity.derive.unmatched import Unmatched
from parity.derive.user_modules import Imports
from specs.table import Table

from ..conftest import needs
from ..parity.pages import Text, unbound

TABLE = Table.parse("table 1\nblocks.{i}.fc.weight: o i <-> layer_{i}/w: i o\n")
SITES = ("Net/layer_0", "Net/layer_1")
USES = [
    Step("product", (f"blocks.{k}.fc.weight",), (f"layer_{k}/w",), f"blocks.{k}.fc", site, gap, 0, 1)
    for k, (site, gap) in enumerate(zip(SITES, (1e-16, 3e-5), strict=True))
]
DERIVED = Derivation(
    DerivedTable(TABLE.lines, TABLE.sides, TABLE.orders), proven=False, error=3e-5,
    divergences=[Divergence("blocks.1.fc", "Net/layer_1", 3e-5, "epsilon <1> & 2")], unobservable=["blocks.0.dead"],
    gradient=None, exact=np.nan, reasons={}, stop=None, seconds=1.0, inferred=[], freedom=[], uses=USES, fixed=[],
)  # fmt: skip


def rows(page: str) -> list[list[str]]:
    """The texts of the cells of the table of modules."""
    body = page[page.index("modules trees") :].partition("</table>")[0]
    cells = [re.findall(r"<td[^>]*>(.*?)</td>", row) for row in re.findall(r"<tr.*?</tr>", body)[1:]]
    return [[unescape(re.sub("<.*?>", "", cell)) for cell in row] for row in cells]


def test_the_page_is_whole_and_fetches_nothing():
    text = Text(page_of(DERIVED, {"left": "a.py:build"}))
    assert text.open == text.fetched == []
    assert not re.search(r"https?://|url\(|@import|<script|\$[a-z]", page_of(DERIVED, {}))


def test_a_proof_is_accompanied_by_what_it_does_not_show():
    proven, other = (page_of(replace(DERIVED, proven=proven), {}) for proven in (True, False))
    assert "in evaluation mode" in proven.partition("<h2>What this does not show</h2>")[2]
    assert "It is not shown that the Table is right." in other and "It is not shown" not in proven
    cause = Divergence("blocks.1.fc", "Net/layer_1", 3e-5, "epsilon 1", kind="epsilon", whole=True)
    confirmed = page_of(replace(DERIVED, divergences=[cause]), {})
    far, _, caveats = confirmed.partition("<h2>What this does not show</h2>")
    far = re.sub("<.*?>", "", far.partition("<h2>Measured differences</h2>")[2])
    assert "✗ 3.0e-5 for the models as written (limit 1e-9); equal once the differences above are removed" in far
    assert "It is not shown" not in caveats and "equal with" not in other


def test_both_trees_stand_side_by_side_with_the_difference_of_every_use():
    assert rows(page_of(DERIVED, {})) == [
        ["blocks", "Net", "", "✗ 3.0e-5"],
        ["0", "Net/layer_0", "", "1.0e-16"],
        ["fc", "Net/layer_0", "", "1.0e-16"],
        ["weight", "layer_0/w", "matrix or kernel", "1.0e-16"],
        ["1", "Net/layer_1", "", "✗ 3.0e-5"],
        ["fc", "Net/layer_1", "", "✗ 3.0e-5"],
        ["weight", "layer_1/w", "matrix or kernel", "✗ 3.0e-5"],
    ]
    marked = re.findall(r'<tr class="([^"]*)"', page_of(DERIVED, {}))
    assert marked == ["module first", "module", "module", "module first", "module first", "first"]


def test_modules_have_a_heading_and_each_row_a_cell_that_names_it():
    page = page_of(DERIVED, {})
    body = (
        page.partition("<h2>Modules and parameters side by side</h2>")[2]
        .partition("<tbody>")[2]
        .partition("</tbody>")[0]
    )
    assert body.count('<td role="rowheader"') == body.count("<tr") == len(rows(page))


def test_the_verdict_causes_the_table_and_remarks_are_on_the_page():
    page = unescape(re.sub("</?span[^>]*>", "", page_of(DERIVED, {})))
    for text in ("Complete, but not proven", "epsilon <1> & 2", TABLE.print(), "blocks.0.dead"):
        assert text in page
    assert "Proven" in page_of(replace(DERIVED, proven=True), {})
    page = unbound(
        page_of(replace(DERIVED, reasons={"head/w": "no evidence"}, stop=Stop(("head/w",), "no partner")), {})
    )
    assert (
        "Incomplete: 1 parameter of the right model has no partner in the left model" in page and "No partner." in page
    )


@pytest.mark.parametrize(("causes", "explained"), [
    ([("epsilon 1e-5 on the left, 1e-6 on the right (recomputed so, they are equal)", "epsilon", True)], "one epsilon"),
    ([("a factor of 2 on the left, 1 on the right (recomputed so, they agree)", "factor", True)] * 2, "two factors"),
    ([("ReLU on the left, SiLU on the right (recomputed so)", "activation", False)], "at least one activation"),
    ([("padding (1, 1) on the left, (2, 2) on the right, of the same image", "convolution window", False)],
     "at least one convolution window"),
    ([("one side computes partly in lower precision", "", False)], ""),
    ([("epsilon 1 (recomputed so, they are equal)", "epsilon", True), ("", "", False)], ""), ([], ""),
])  # fmt: skip
def test_the_headline_names_what_confirmed_causes_are_of(causes: list[tuple[str, str, bool]], explained: str):
    places = [Divergence("a", "b", 1e-4, cause, kind=kind, whole=whole) for cause, kind, whole in causes]
    found = replace(DERIVED, divergences=places, arrays=(4, 4))
    page = page_of(found, {})
    assert found.explained == explained
    assert ('<h1 class="apart">Complete, but not proven: the left model and the right model differ in' in page) == bool(
        explained
    )
    assert ('<h1 class="bad">Complete, but not ' in page) != bool(explained)
    assert str(found).startswith("complete, but not proven, as" if explained else "complete, but not proven:")


@pytest.mark.parametrize("whole", [True, False])
def test_a_table_is_said_to_hold_where_recomputing_confirms_it(whole: bool):
    places = [Divergence("a", "b", 0.1, "padding 1 on the left", kind="convolution window", whole=whole)]
    found = replace(DERIVED, divergences=places, arrays=(4, 4))
    assert found.confirmed == whole and ("the Table holds as it is" in found.following) == whole


@pytest.mark.parametrize(
    ("error", "first"), [(0.0, "both models compute the same: write a line"), (np.nan, "write a line")]
)
def test_what_is_missing_without_a_place_asks_for_lines(error: float, first: str):
    found = replace(DERIVED, divergences=[], reasons={"head/w": "no line can say how"}, error=error)
    assert not found.places and found.following.startswith(first)


def test_what_to_do_next_ends_the_output_and_reasons_are_stated_once():
    why = dict.fromkeys(["a.0.w", "a.1.w", "b"], "no use of it was matched") | {"c": "no use of it was matched: zeros"}
    found = replace(
        DERIVED, reasons=why, doubtful=["b"], stop=Stop(("a.0.w",), "no values", compare("mul")), arrays=(9, 9)
    )
    for lines in (found.summary, found.judgement):
        assert lines[-1].text.startswith("next: make both models") and "next:" not in str(lines[:-1])
    assert [line.text for line in found.judgement if line.text.startswith("missing")] == [
        "missing: a.{0..1}.w, b: no use of them was matched", "missing: c: no use of it was matched: zeros",
    ]  # fmt: skip
    assert [line.text for line in found.places[1:]] == [
        "stopped at a.0.w: no values",
        "compare before it: the norm that it belongs to: its axes, groups, epsilon, running statistics, and whether it "
        "comes before or after a residual sum; and the inputs",
    ]  # fmt: skip
    page = page_of(found, {})
    assert "<dt>reason</dt><dd>no use of them was matched</dd>" in page
    assert re.search("No values.</p><dl><dt[^>]*>compare before it</dt><dd[^>]*>the norm", page)


def test_outputs_of_two_shapes_are_asked_for_in_one():
    found = replace(DERIVED, incomparable=incomparable([np.zeros((4, 5))], [np.zeros((4, 4))]))
    assert found.following.startswith("let both models return outputs of one shape")


def test_the_page_names_what_keeps_a_table_from_a_proof_as_the_terminal_does():
    found = replace(DERIVED, unshown=["a.0.q", "a.1.q"], weight_norms="up.weight_g on the left alone")
    words = " ".join(re.sub("<[^>]*>", " ", unescape(page_of(found, {}))).split())
    assert "weight normalization: up.weight_g on the left alone: it computes a weight" in str(found)
    assert "Weight normalization: up.weight_g on the left alone It computes a weight" in words
    shown = "oth models read arrays that keep their own values, which no proof exchanges: a.{0..1}.q"
    assert f"not shown: b{shown}" in str(found) and f"Not shown B{shown}" in words


def test_what_was_taken_where_values_differ_is_told_from_what_nothing_reads():
    found = replace(DERIVED, inferred=["a.weight", "b.weight"], doubtful=["b.weight"])
    said = {kind.key: kind.before for kind in KINDS}
    for text in (str(found), page_of(found, {}).replace("Inferred", "inferred").replace("A partner", "a partner")):
        assert f"{said['only_inferred']}: a.weight" in text
        assert f"{said['doubtful']}: b.weight" in text


def test_uses_that_all_agree_though_the_models_part_were_compared_with_what_differs_removed():
    """A factor that all values have leaves no use a partner: it is removed first."""
    for found, removed in ((replace(DERIVED, uses=USES[:1]), True), (DERIVED, False)):
        assert found.removed is removed
        assert ("1 of 1 use of parameters agrees to 1e-8 with what differs removed" in str(found)) is removed
        page = " ".join(re.sub("<[^>]*>", " ", page_of(found, {})).split())
        assert ("compared with the differences removed" in page) is removed


def test_a_line_is_coloured_by_its_kind_and_not_by_its_words():
    found = replace(DERIVED, reasons={"head/w": "no evidence"}, stop=Stop(("head/w",), "no partner"))
    lines = _summary(found, "proven")
    assert [line.kind for line in lines if line.text.startswith(("proven: ", "incomplete: ", "stopped at "))] == [
        "bad", "", "head",
    ]  # fmt: skip
    assert [line.kind for line in lines if line.text.startswith("next: make both models")] == ["head"]
    assert [line.kind for line in replace(DERIVED, proven=True, divergences=[]).judgement] == ["good"]
    assert [line.text.partition(": ")[0] for line in lines[:4]] == [
        "incomplete", "proven", "parts at blocks.1.fc <-> Net/layer_1 by 3.0e-5 of the largest value",
        "stopped at head/w",
    ]  # fmt: skip
    assert (
        found.first
        == found.to_dict()["first"]
        == ("parts at blocks.1.fc <-> Net/layer_1 by 3.0e-5 of the largest value: epsilon <1> & 2")
    )
    assert replace(found, divergences=[]).first == "stopped at head/w: no partner"


def test_an_incomplete_page_shows_places_in_the_order_of_execution_and_lists_what_has_no_partner_on_both_sides():
    unmatched = [
        Unmatched("left", "add", ("blocks.1.out.bias",), ""),
        Unmatched("right", "add", ("head/bias",), "Net/head"),
    ]
    found = replace(
        DERIVED, reasons={"head/bias": "no evidence"}, stop=Stop(("head/bias",), "no operation meets it"),
        error=float("nan"), incomparable="1 parameter is missing", unmatched=unmatched,
    )  # fmt: skip
    page = unbound(page_of(found, {}))
    cards = [unescape(head) for head in re.findall(r"<h3>(.*?)</h3>", re.sub(" <a .*?</a>", "", page))]
    assert cards[:2] == ["Values part", "Stopped at head/bias"] and cards[-2:] == [
        "Right parameters without a partner", "Left parameters without a partner",
    ]  # fmt: skip
    assert "not comparable, as 1 parameter is missing" in page and "make both models compute the same" in page
    for claim in ("(limit 1e-9)", "Both models run in float64", "deeper and wider"):
        assert claim not in page and claim in page_of(DERIVED, {}), claim
    depths = page_of(replace(found, depths="the left model has 2 blocks"), {})
    assert "Depths differ" in depths and "The left model has 2 blocks." in depths and "Depths differ" not in page
    assert "2 of 3 matched, 1 of these differs" in page
    assert rows(page)[-3:] == [
        ["out", "-", "", "-"], ["bias", "-", "term", "-"], ["-", "head/bias", "term", "-"],
    ]  # fmt: skip


def test_the_page_states_versions_and_hashes_and_defines_its_measures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    side, helper = tmp_path / "side.py", tmp_path / "helper_of_side.py"
    side.write_text("import helper_of_side\n")
    helper.write_text("")
    monkeypatch.setitem(sys.modules, "torch", ModuleType("torch"))
    with Imports() as imports, imports.of(str(side)):
        __import__("helper_of_side")
    about = _about(f"{side}:a", f"{side}:b", None, None, imports)
    assert about["left"] == f"{side}:a"
    assert about["torch"] == version("torch")
    assert about[str(side)] == f"sha256 {sha256(str(side))}"
    assert about[os.path.relpath(helper)] == f"sha256 {sha256(str(helper))}"
    page = unescape(re.sub("</?span[^>]*>|<wbr>", "", page_of(DERIVED, about)))
    for text in (
        "the largest difference of an element over the largest element of its output",
        "<b>✗ 1 of 2 differs</b> (limit 1e-8)",
    ):
        assert text in page


def test_modules_that_are_alike_share_a_row_and_one_that_differs_has_its_own():
    def use(k: int, gap: float) -> Step:
        return Step(
            "product", (f"blocks.{k}.fc.weight",), (f"layer_{k}/w",), f"blocks.{k}.fc", f"Net/layer_{k}", gap, 0, 1
        )

    gaps = [1e-16, 3e-16, 2e-16, 1e-5, 0.0, 0.0]
    unmatched = [Unmatched("right", "add", (f"head_{k}/bias",), "") for k in range(9)]
    found = replace(
        DERIVED, uses=[use(k, gap) for k, gap in enumerate(gaps)], unmatched=unmatched,
        divergences=[Divergence("blocks.3.fc", "Net/layer_3", 1e-5)], stop=Stop(("head_2/bias",), "no values"),
    )  # fmt: skip
    page = page_of(found, {})
    assert rows(page) == [
        ["blocks", "Net", "", "✗ 1.0e-5"],
        ["{0..2}", "Net/layer_{0..2}", "", "3.0e-16"],
        ["fc", "Net/layer_{0..2}", "", "3.0e-16"],
        ["weight", "layer_{0..2}/w", "matrix or kernel", "3.0e-16"],
        *(
            row
            for k, gap in ((3, "✗ 1.0e-5"), (4, "0"), (5, "0"))
            for row in (
                [str(k), f"Net/layer_{k}", "", gap],
                ["fc", f"Net/layer_{k}", "", gap],
                ["weight", f"layer_{k}/w", "matrix or kernel", gap],
            )
        ),
        ["-", "head_{0..8}/bias", "term", "-"],
    ]
    assert "{0..3}</span></dt>" in page and "{0..3}</span></dt>" not in page_of(DERIVED, {})
    for head, address, row in (
        ("Values part", "place-0", '<tr class="first" id="place-0">'),
        ("Stopped at head_2/bias", "stopped", '<tr class="lone" id="stopped">'),
    ):
        assert (
            f'<h3>{escape(head)} <a href="#{address}" class="leads">→ its row</a></h3>' in page and page.count(row) == 1
        )


@pytest.mark.parametrize("site, names, module", [
    ("blocks.0.fc", ("x.weight",), ("blocks", "0", "fc")), ("", ("layers/0/kernel",), ("layers", "0")),
    ("", ("a.q.weight", "a.k.weight"), ("a", "q")), ("", ("scale",), ()),
])  # fmt: skip
def test_a_use_without_a_module_stands_at_its_parameters_place(
    site: str, names: tuple[str, ...], module: tuple[str, ...]
):
    assert module_of(site, names) == module


def test_a_place_with_a_card_shows_its_number_in_the_table_as_well():
    found = replace(DERIVED, divergences=[Divergence("blocks.1.fc", "Net/layer_1", 4e-4)])
    assert [row[-1] for row in rows(page_of(found, {}))[-3:]] == ["✗ 4.0e-4"] * 3


def test_the_page_states_coverage_gradients_and_the_next_step():
    page = unbound(page_of(replace(DERIVED, gradient=2e-15, arrays=(2, 2)), {}, "my.table"))
    assert "The Table has 1 line and fills 2 of 2 parameters of the right model" in page
    assert "error of the gradients</dt><dd><b>2.0e-15</b> (limit 1e-7)" in page
    text, command = re.sub("<[^>]*>", "", page), "python -m convert --table my.table CKPT -o OUT"
    assert f"To convert a checkpoint of the left model: {command}To convert" in text
    assert f"To convert a checkpoint of the right model: {command} --reverse" in text


HEADS = Table.parse("table 1\nqkv.weight: (h d) i <-> qkv/kernel: i h d\n")


def test_the_command_that_converts_states_the_lengths_that_either_direction_asks_for():
    shapes = {"qkv.weight": (6, 4)}, {"qkv/kernel": (4, 2, 3)}
    there = DerivedTable(HEADS.lines, known=shapes[0], like=shapes[1], sizes={"h": 2, "d": 3})
    command, heads = "python -m convert --table 'my t.table' CKPT -o OUT", " --set h=..."

    def commands(table: DerivedTable) -> list[str]:
        return [line.removeprefix(command) for _, line in converting(table, "my t.table")]

    assert commands(there) == [heads, " --reverse"]
    assert commands(there.reverse()) == ["", f" --reverse{heads}"]
    flat = DerivedTable(TABLE.lines, known={"blocks.0.fc.weight": (2, 3)}, like={"layer_0/w": (2, 3)})
    assert commands(flat) == ["", " --reverse"]
    fused = Table.parse("table 1\na: (h s d) i <-> b: (s h d) i\nc: (h d) <-> e: (h d)\n")
    shapes = {"a": (24, 4), "c": (8,)}, {"b": (24, 4), "e": (8,)}
    both = DerivedTable(fused.lines, known=shapes[0], like=shapes[1], sizes={"h": 2, "s": 3, "d": 4})
    assert commands(both) == [f"{heads} --set s=...", f" --reverse --set s=...{heads}"]
    found = replace(DERIVED, proven=True, table=there)
    lines = _summary(found, "my t.table", "my t.html")
    assert [line.text for line in lines[1:6]] == [
        "my t.table: 1 line", "to convert a checkpoint of the left model:", f"  {command}{heads}",
        "to convert a checkpoint of the right model:", f"  {command} --reverse",
    ]  # fmt: skip
    assert lines[-1].text == "report: my t.html"


def test_a_command_is_printed_whole_on_a_narrow_terminal(capsys: Any, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("convert.terminal.columns", lambda stream: 40)
    text = "  python -m convert --table my.table CKPT -o OUT --set h=..."
    _say([Line("a " * 30), Line(text, COMMAND)])
    first, _, command = capsys.readouterr().out.rstrip("\n").rpartition("\n")
    assert command == text and "\n" in first


def test_the_legend_of_the_table_explains_what_occurs_in_it():
    def legend(*lines: str) -> str:
        table = Table.parse("\n".join(["table 1", *lines]))
        page = page_of(replace(DERIVED, table=DerivedTable(table.lines, table.sides, table.orders)), {})
        return re.sub(
            "<[^>]*>", "", page.partition("<h2>Table: which array becomes which</h2>")[2].partition("</p>")[0]
        )

    plain = "A line names an array of either model and its axes, by letters that both sides share"
    assert legend("a: o i <-> b: i o") == f"{plain}."
    assert (
        legend("x.{k}.a: (g d) <-> b{k}: g d")
        == f"{plain}; (g d) stands for axes joined into one, {{k}} for the number of a block."
    )
    assert legend("a: (s d) <-> {s=q|k}: d").endswith("one, {s=q|k} for names in place of an axis.")


def test_the_page_lists_what_is_dropped_and_the_time_where_it_says_what_was_run():
    table = Table.parse("table 1\na: c <-> b: c\ncount -> drop\n")
    found = replace(DERIVED, table=DerivedTable(table.lines, table.sides, table.orders))
    page = page_of(found, {"time": "1.0 s of CPU"})
    remarks = page.partition('<section id="remarks"><h2>Remarks</h2>')[2].partition("</section>")[0]
    assert "Dropped: count on the left: " in re.sub("<[^>]*>", "", remarks)
    head, _, run = page.partition("What was run")
    assert " of CPU" not in head.partition("<body>")[2] and "1.0 s of CPU" in re.sub("<[^>]*>", "", run)


def test_the_title_and_the_headline_name_both_sides():
    def heads(found: Derivation, *sides: str) -> list[str]:
        page = unescape(re.sub("</?span[^>]*>|<wbr>", "", page_of(found, {}, None, sides or None)))
        return [re.findall(f"<{tag}[^>]*>(.*?)</{tag}>", page)[0] for tag in ("title", "h1")]

    left, right = "left.py:build (torch)", "right.py:build (linen)"
    places = [Divergence("a", "b", 1e-4, "c", kind="epsilon", whole=True)]
    for found, title, headline in (
        (replace(DERIVED, proven=True, gradient=1e-16), "Proven", f"Proven: the Table translates {left} into {right}."),
        (DERIVED, "Complete, but not proven",
         f"Complete, but not proven: outputs of {left} and {right} differ by 3.0e-5 of their largest element."),
        (replace(DERIVED, divergences=places), "Complete, but not proven",
         f"Complete, but not proven: {left} and {right} differ in one epsilon."),
        (replace(DERIVED, reasons={"x": "y", "z": "y"}), "Incomplete",
         f"Incomplete: 2 parameters of {right} have no partner in {left}."),
    ):  # fmt: skip
        assert heads(found, left, right) == [f"{title}: {left} <-> {right}", headline]
    assert heads(DERIVED)[1].startswith("Complete, but not proven: outputs of the left model and the right model ")


SIDE = """
import numpy as np, torch
def build():
    return torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.Tanh(), torch.nn.Linear(4, 2)), (np.ones((2, 3)),)
"""


def test_the_command_writes_the_page(tmp_path: Path, capsys: Any):
    needs("torch")
    (tmp_path / "a.py").write_text(SIDE)
    side = f"{tmp_path}/a.py:build"
    assert derive_command(side, side, None, False, report=str(tmp_path / "out.html"), quiet=True) == 0
    assert capsys.readouterr().out == ""
    assert derive_command(side, side, None, False, quiet=True) == 0
    assert capsys.readouterr().out.startswith("table 1: torch <-> torch\n")  # which is nowhere else
    (tmp_path / "b.py").write_text(SIDE)
    sides = [side, f"{tmp_path}/b.py:build"]
    assert derive_command(*sides, str(tmp_path / "my.table"), False, report=str(tmp_path / "two.html"), force=True) == 0
    assert (tmp_path / "my.table").read_text().startswith("table 1: a.py:build <-> b.py:build\n")  # one framework
    page = unescape(re.sub("<[^>]*>", "", (tmp_path / "two.html").read_text()))
    assert "Proven: the Table translates a.py:build (torch) into b.py:build (torch)." in page
    assert "table 1: a.py:build <-> b.py:build\n" in page
    capsys.readouterr()
    assert main(["derive", "--help"]) == 0
    assert "the Table if neither -o nor --report has it" in " ".join(capsys.readouterr().out.split())
    page = (tmp_path / "out.html").read_text().replace("<wbr>", "")
    assert side in page and "Proven" in page
    text = unescape(re.sub("<.*?>", "", page))
    for stated in (
        "Sequential (torch), 4 arrays, 26 elements",
        "inputs(2, 3)",
        f"to repeatpython -m convert derive {side} {side} --report {tmp_path}/out.html --quiet --force",
        "seed7 for the search, 2 others for the proof",
    ):
        assert stated in text, stated
    command = f"commandpython -m convert derive {side} {side} --report {tmp_path}/out.html --quiet"
    assert command in text and f"{command} --force" not in text  # as it was typed
    assert [row[:2] for row in rows(page)] == [
        ["0", "0"], ["weight", "0.weight"], ["bias", "0.bias"], ["2", "2"], ["weight", "2.weight"], ["bias", "2.bias"],
    ]  # fmt: skip
    (tmp_path / "a.py").write_text("raise SystemExit('was run')")
    for place in ({"report": str(tmp_path / "none" / "out.html")}, {"out": str(tmp_path / "none" / "x.table")}):
        with pytest.raises(ConvertError, match="there is no folder"):  # before any model is run
            derive_command(side, side, place.pop("out", None), True, **place)


def test_a_card_states_the_limit_and_what_agrees_before_it():
    uses = [
        Step("product", (f"l{k}.w",), (f"r{k}.w",), f"l{k}", f"r{k}", gap, 0, 1) for k, gap in enumerate((0.0, 1e-3))
    ]
    found = replace(DERIVED, uses=uses, divergences=[Divergence("l1", "r1", 1e-3)])
    first = replace(found, divergences=[Divergence("l0", "r0", 1e-3)])
    text, other = (unescape(re.sub("<.*?>", " ", page_of(of, {}).replace("<wbr>", ""))) for of in (found, first))
    assert re.search(r"left\s+right\s+module\s+l1\s+r1\s+last that agrees\s+l0\s+r0\s+difference", text), text
    assert re.search(r"[(]limit 1e-8[)]\s+cause\s+none was confirmed", text), text
    assert re.search(r"last that agrees\s+none\s+none", other)
    read = [
        Step("place", ("words",), ("tok",), "l0", "r0", 0.0, 0, 1),
        Step("add", ("l0.b",), ("r0.b",), "l0", "r0", 1e-3, 0, 1),
    ]
    tables = page_of(replace(found, uses=read, divergences=[Divergence("l0", "r0", 1e-3)]), {})
    text = unescape(re.sub("<.*?>", " ", tables.replace("<wbr>", "")))
    assert re.search(rf"last that agrees\s+{OWN}\s+{OWN}", text), text
    assert re.search(r"uses of parameters\s+✗ 1 of 2\s+differs\s+\(limit 1e-8\)", text), text


def test_the_page_says_what_the_proof_took_for_granted():
    found = replace(DERIVED, proven=True, gradient=1e-16, kept=("the given values of mask",), branches=["left"],
                    correspondence=("output a of the left model is compared with b of the right one",))  # fmt: skip
    text = unescape(re.sub("<.*?>", "", page_of(found, {}).replace("<wbr>", "")))
    assert "Kept in the proof: the given values of mask" in text
    assert "Output a of the left model is compared with b" in text
    assert "Code of the left model reads numbers of values" in text


def test_uses_after_the_place_where_the_models_part_are_said_to_follow():
    gaps = 1e-16, 1e-3, 2e-5, 0.0
    uses = [Step("product", (f"l{k}.w",), (f"r{k}.w",), f"l{k}", f"r{k}", gap, 0, 1) for k, gap in enumerate(gaps)]
    found = replace(DERIVED, uses=uses, divergences=[Divergence("l1", "r1", 1e-3)])
    page = page_of(found, {})
    assert [row[-1] for row in rows(page)[1::2]] == ["1.0e-16", "✗ 1.0e-3", "2.0e-5follows", "0"]
    assert re.findall('<dt><span class="([a-z]+)">', page) == ["first", "follows", "soft"]
    assert [row[-1] for row in rows(page_of(replace(found, divergences=[]), {}))[3::2]] == [
        "✗ 1.0e-3",
        "✗ 2.0e-5",
        "0",
    ]  # without a place that parts the models, nothing is known to follow


def two_blocks(*gaps: tuple[str, str, float]) -> list[Step]:
    """Uses in two blocks that are alike: (kind, module, difference)."""
    return [
        Step(kind, (f"b.{k}.{at}.{kind}",), (f"r{k}/{at}/{kind}",), f"b.{k}.{at}", f"r{k}/{at}", gap, 0, 1)
        for k in range(2)
        for kind, at, gap in gaps
    ]


def marked(page: str) -> list[str]:
    """The parameters on the left of whose rows the difference has the mark of a place that parts the models."""
    body = page[page.index("modules trees") :].partition("</table>")[0]
    return re.findall(r'<tr class="first"[^>]*><td[^>]*title="([^"]*)"', body)


@pytest.mark.parametrize(("side", "places"), [("left", ("b.0", "b.1")), ("right", ("r0/down", "r1/down"))])
def test_every_place_that_a_card_lists_is_marked(side: str, places: tuple[str, str]):
    uses = two_blocks(("product", "up", 0.0), ("product", "down", 1e-4), ("add", "down", 0.0))
    first = Divergence("b.0.down", "r0/down", 1e-4, "GELU", changed=side, places=places, times=2)
    page = page_of(replace(DERIVED, uses=uses, divergences=[first]), {})
    assert marked(page) == ["b.0.down.product", "b.1.down.product"] and ">follows<" not in page
    alone = page_of(replace(DERIVED, uses=uses, divergences=[first._replace(places=places[:1])]), {})
    assert marked(alone) == ["b.0.down.product"] and ">follows<" in alone


def test_a_use_that_one_before_it_explains_is_no_place_of_a_card():
    uses = two_blocks(("product", "up", 1e-4), ("product", "down", 1e-4))
    first = Divergence("b.0.up", "r0/up", 1e-4, "GELU", changed="left", places=("b.0", "b.1"), times=2)
    page = page_of(replace(DERIVED, uses=uses, divergences=[first]), {})
    assert marked(page) == ["b.0.up.product", "b.1.up.product"] and page.count(">follows<") >= 2


def test_a_counted_place_is_marked_though_the_use_before_it_differs_too():
    """An epsilon ahead of an activation in each of two blocks: both causes have all of their places marked."""
    uses = two_blocks(("mul", "norm", 1e-6), ("product", "up", 1e-6), ("product", "down", 1e-4))
    norm = Divergence("b.0.norm", "r0/norm", 1e-6, "epsilon", changed="left", places=("b.0.norm", "b.1.norm"), times=2)
    gelu = Divergence("b.0.down", "r0/down", 1e-4, "GELU", changed="left", places=("b.0", "b.1"), times=2)
    page = page_of(replace(DERIVED, uses=uses, divergences=[norm, gelu]), {})
    assert marked(page) == [f"b.{k}.{use}" for k in range(2) for use in ("norm.mul", "down.product")]


def test_a_module_has_the_largest_number_of_its_rows_that_part_the_models():
    uses = two_blocks(("mul", "norm", 0.2), ("product", "up", 0.9))
    found = replace(DERIVED, uses=uses, divergences=[Divergence("b.0.norm", "r0/norm", 0.2)])
    assert {row[-1] for row in rows(page_of(found, {})) if row[-1].startswith("✗")} == {"✗ 0.20"}


def test_what_the_right_model_multiplies_by_alone_is_red_and_its_card_leads_to_it():
    reasons: dict[str, str] = {"gate": OneSided("the right multiplies by gate, the left does not", "mul")}
    found = replace(DERIVED, reasons=reasons, unmatched=[Unmatched("right", "", ("gate",), "")], proven=False)
    page = page_of(found, {})
    (row,) = re.findall('<tr class="first">.*?</tr>', page)
    assert 'id="alone-0"' in row
    assert re.findall("<td[^>]*>(.*?)</td>", re.sub("</?(?:code|b)[^>]*>", "", row)) == [
        "-",
        "gate",
        "factor",
        "✗ one side",
    ]
    assert re.search(r'a partner <a href="#alone-0"[^>]*>→ its row</a>', page)


@pytest.mark.parametrize(
    ("extra", "uses"),
    [
        ("branch", {"side.weight": "matrix or kernel", "side.bias": "term"}),
        ("affine", {"scale": "factor", "shift": "term"}),
        ("function", {"angle": "operand"}),
    ],
)
def test_a_row_says_how_the_right_model_uses_what_it_alone_has(extra: str, uses: dict[str, str]):
    """The use is that of each parameter: one reason speaks of all that an edit leaves out, as of a whole branch."""
    needs("torch")
    import torch

    class Net(torch.nn.Module):
        def __init__(self, extra: str) -> None:
            super().__init__()
            self.down, self.up, self.extra = torch.nn.Linear(6, 6), torch.nn.Linear(6, 5), extra
            if extra == "branch":
                self.side = torch.nn.Linear(6, 6)
            for name in uses if extra in ("affine", "function") else ():
                self.register_parameter(name, torch.nn.Parameter(torch.rand(6)))

        def forward(self, x: Any) -> Any:
            y = self.down(x.tanh())
            if self.extra == "branch":
                y = y + self.side(x.tanh())
            if self.extra == "affine":
                y = y * self.scale + self.shift
            if self.extra == "function":
                y = y + torch.atan2(x, self.angle)
            return self.up(y.tanh())

    found = parity.derive(Net(""), Net(extra), (np.random.default_rng(0).standard_normal((4, 6)),))
    shown = [row for row in rows(page_of(found, {})) if row[0] == "-"]
    assert {name: (use, difference) for _, name, use, difference in shown} == {
        name: (use, "✗ one side") for name, use in uses.items()
    }


def test_what_somebody_should_check_is_a_remark_and_its_lines_are_marked():
    note = "a partner was taken though values differ there, check the line: b{0..1}/w"
    table = Table.parse(f"table 1\n# {note}\nl.{{i}}.w: c <-> b{{i}}/w: c\nl.{{i}}.b: c <-> b{{i}}/b: c\n")
    found = replace(
        DERIVED, table=DerivedTable(table.lines, table.sides, table.orders), doubtful=["b0/w", "b1/w"], proven=False
    )
    page = page_of(found, {})
    assert "A partner was taken though values differ there" in page[page.index('id="remarks"') :]
    lines = re.findall('<span class="[a-z ]*doubted">(.*)', page)
    assert [unescape(re.sub("<.*?>", "", line)) for line in lines] == ["l.{i}.w: c <-> b{i}/w: c"]


def test_a_place_without_a_cause_names_the_parameters_of_one_side():
    found = replace(
        DERIVED,
        uses=[Step("mul", ("norm.weight",), ("after/scale",), "norm", "after", 0.2, 0, 1)],
        divergences=[Divergence("norm", "after", 0.2)],
        unmatched=[Unmatched("left", "add", ("norm.bias",), "norm")],
        proven=False,
    )
    assert "only the left hasbias" in unescape(re.sub("<.*?>", "", page_of(found, {})))
    table = Table.parse("table 1\nl.{i}.norm.weight: c <-> params/l{i}/after/scale: c\nl.{i}.norm.bias -> drop\n")
    found = replace(
        found, table=DerivedTable(table.lines, table.sides, table.orders), unmatched=[],
        divergences=[Divergence("l.0.norm", "Net/l0/after", 0.2)],
    )  # fmt: skip
    text = unescape(re.sub("<.*?>", "", page_of(found, {})))
    assert "only the left hasbias" in text and "only the right has" not in text


def test_a_card_leads_to_the_row_of_its_place_that_differs():
    uses = [
        Step(kind, (f"l.{kind}",), (f"r/{kind}",), "l", "r", gap, 0, 1)
        for kind, gap in (("product", 0.0), ("add", 1e-3))
    ]
    page = page_of(replace(DERIVED, uses=uses, divergences=[Divergence("l", "r", 1e-3)]), {})
    assert re.findall(r'id="place-0"><td[^>]*title="([^"]*)"', page) == ["l.add"] and 'href="#place-0"' in page


def test_the_legend_explains_the_uses_that_occur():
    legend = page_of(DERIVED, {}).partition("<h2>Modules and parameters side by side</h2>")[2].partition("<table")[0]
    assert "multiplied with it as a matrix" in legend and "the values are added to it" not in legend


def test_a_line_of_the_table_is_broken_before_its_arrow():
    page = page_of(DERIVED, {}).replace("<wbr>", "")
    assert (
        '<span class="side">blocks.{i}.fc.weight: o i</span> <span class="side">&lt;-&gt; layer_{i}/w: i o'
        in re.sub('<span class="whole">([^<]*)</span>', r"\1", page)
    )


def test_red_is_only_what_exceeds_its_limit_and_nothing_of_a_proof():
    within, beyond = Divergence(OWN, OWN, 5e-10, "lower precision"), Divergence("blocks.1.fc", "Net/layer_1", 3e-5)
    for found, kinds in (
        (replace(DERIVED, divergences=[within, beyond]), ["card within", "card"]),
        (replace(DERIVED, divergences=[within, beyond], proven=True), ["card within", "card near"]),
        (replace(DERIVED, divergences=[within._replace(size=5e-9)]), ["card"]),  # outputs have a limit of their own
    ):
        assert re.findall('<article class="(.*?)">', page_of(found, {})) == kinds
    proven = page_of(replace(DERIVED, divergences=[beyond], proven=True), {})
    assert [row[-1] for row in rows(proven)][-3:] == ["! 3.0e-5"] * 3 and 'class="module noted"' in proven


def test_what_is_read_as_it_is_stands_at_its_own_name_and_not_where_it_shows():
    table = Step("place", ("embed.weight",), ("tokens/w",), "blocks.0.norm", "Net/layer_0", 0.0, 0, 1)
    assert rows(page_of(replace(DERIVED, uses=[table, *USES]), {}))[:3] == [
        ["embed", "tokens", "", "0"], ["weight", "tokens/w", "read as it is", "0"], ["blocks", "Net", "", "✗ 3.0e-5"],
    ]  # fmt: skip


def test_the_lines_of_a_table_stand_by_block_and_comments_apart():
    table = Table.parse("table 1\n# why\nstem: c <-> a: c\nl.{i}.w: c <-> b{i}/w: c\nl.{i}.b: c <-> b{i}/b: c\n")
    page = page_of(replace(DERIVED, table=DerivedTable(table.lines, table.sides, table.orders)), {})
    (lines,) = re.findall('<pre class="lines">(.*?)</pre>', page, re.DOTALL)
    assert re.findall('^<span(?: class="([a-z ]*)")?>', lines, re.MULTILINE)[:1] == ["comment"]
    assert [lines.count(f'class="{kind}"') for kind in ("comment", "block", "comment block")] == [2, 2, 0]


def test_each_line_that_fills_a_doubtful_parameter_is_marked():
    """Of several arrays of a line any may be doubtful, one of a list of names too, and one with a sign in its name."""
    lines = ["a.w: c <-> x/w: c = y/w: c", "b.{s=q|k}: c <-> z/{s}/w: c", "c.w: c <-> v\\:1/w: c", "d.w: c <-> u/w: c"]
    table = Table.parse("\n".join(["table 1", *lines]))
    doubtful = ["y/w", "z/k/w", "v:1/w"]
    page = page_of(replace(DERIVED, table=DerivedTable(table.lines, table.sides), doubtful=doubtful), {})
    marked = re.findall(r'<span class="[a-z ]*doubted">(.*?)\n', page)
    assert [re.sub("<.*?>", "", line)[0] for line in marked] == ["a", "b", "c"]


def test_what_to_make_equal_counts_places_as_the_verdict_does():
    found = replace(DERIVED, divergences=[Divergence("l", "r", 1e-3, "epsilon", kind="epsilon", whole=True, times=3)])
    assert found.explained == "three epsilons" and found.following.startswith(
        "make both models equal at all three places"
    )


def test_totals_count_lines_and_errors_stand_once():
    about = {"left": "a.py:build, Net (torch)", "right": "b.py:build, Net (linen)"}
    text = re.sub("<[^>]*>", " ", unbound(page_of(DERIVED, about)).partition("<h1")[2].partition("What was run")[0])
    assert "The Table has " in text and "Error of the outputs" not in text and "uses of parameters" not in text
    assert "error of the outputs" in page_of(DERIVED, about)
    assert all(value in text for value in about.values())


def test_every_place_of_a_cause_is_marked():
    """One epsilon in three blocks: the card lists three places, and none of them only follows."""
    needs("torch")
    import torch

    class Block(torch.nn.Module):
        def __init__(self, epsilon: float) -> None:
            super().__init__()
            self.norm, self.fc = torch.nn.LayerNorm(6, eps=epsilon), torch.nn.Linear(6, 6)

        def forward(self, x: Any) -> Any:
            return x + self.fc(self.norm(x)).tanh()

    left, right = (torch.nn.Sequential(*(Block(epsilon) for _ in range(3))) for epsilon in (1e-5, 1e-3))
    found = parity.derive(left, right, (np.random.default_rng(0).standard_normal((4, 6)),))
    assert found.divergences[0].places == ("0.norm", "1.norm", "2.norm")
    rated = Rated(found)
    norms = [use for use in found.compared if "norm" in use.left[0] and use.gap > 1e-8]  # the limit of uses
    assert len(norms) >= 3 and {rated.rate([use]) for use in norms} == {"first"}
    assert "follows" in {rated.rate([use]) for use in found.compared}


def test_a_card_names_the_classes_of_both_modules():
    torch, linen = pytest.importorskip("torch"), pytest.importorskip("flax.linen")
    jax = pytest.importorskip("jax")

    class Net(linen.Module):
        @linen.compact
        def __call__(self, x: Any) -> Any:
            return linen.Dense(3, name="head")(linen.relu(linen.Dense(5, name="up")(x)))

    x = np.random.default_rng(0).standard_normal((4, 6)).astype("float32")
    left = torch.nn.Sequential(torch.nn.Linear(6, 5), torch.nn.GELU(), torch.nn.Linear(5, 3))
    found = parity.derive(left, (Net(), Net().init(jax.random.key(0), x)), (x,))
    text = re.sub("<[^>]*>", " ", page_of(found, {}).replace("<wbr>", ""))
    assert re.search(r"module\s+2\s+Net/head\s+class\s+Linear\s+Dense\s+last that agrees", text), found
    assert found.classes[0]["0"] == "Linear" and found.classes[1]["Net"] == "Net"


@pytest.mark.parametrize(("framework", "path"), [("flax.nnx", "layers/0"), ("paddle", "0")])
def test_classes_are_known_by_the_paths_of_modules(framework: str, path: str):
    module, torch = pytest.importorskip(framework), pytest.importorskip("torch")
    if framework == "paddle":
        model: Any = module.nn.Sequential(module.nn.Linear(6, 5), module.nn.ReLU())
    else:
        model = module.Sequential(module.Linear(6, 5, rngs=module.Rngs(0)), module.relu)
    x = np.random.default_rng(0).standard_normal((4, 6)).astype("float32")
    found = parity.derive(torch.nn.Sequential(torch.nn.Linear(6, 5), torch.nn.ReLU()), model, (x,))
    assert found.proven and found.classes[1][path] == "Linear"
    assert {where(use)[1] for use in found.compared} == {path}


def test_a_card_shows_the_value_of_either_side_in_a_column():
    what = "epsilon 1e-5 on the left, 1e-6 on the right"
    place = Divergence("encoder.blocks.0.norm", "Net/layer_0/norm", 1e-3, what, kind="epsilon", more=1, rest=1e-16)
    place = place._replace(both=("1e-5", "1e-6"))
    page = page_of(replace(DERIVED, divergences=[place]), {})
    assert "<h3>Epsilon</h3>" in page
    (both,) = re.findall(r"<table class=.both.>.*?</table>", page)
    cells = re.sub("</?span[^>]*>|<wbr>", "", re.sub("</?t[hd][^>]*>", "|", both))
    assert re.findall("<tr>(.*?)</tr>", cells)[1:3] == [
        "|epsilon||1e-5||1e-6|", "|module||encoder.blocks.0.norm||Net/layer_0/norm|",
    ]  # fmt: skip
    text = unescape(re.sub("<.*?>", "", page))
    assert "recomputedwith the same epsilon on both sides, they agree to 1.0e-16, and so in 1 more place" in text
    several = place._replace(what="the left adds a, the right does not", both=())
    page = page_of(replace(DERIVED, divergences=[several]), {})
    assert "causethe left adds a, the right does not, and so in 1 more place" in unescape(re.sub("<.*?>", "", page))


def test_what_the_comments_of_the_table_say_stands_nowhere_else(capsys):
    note = "output a of the left model is compared with b of the right one"
    table = Table.parse(f"table 1\n# {note}\nstem: c <-> a: c\n")
    found = replace(DERIVED, table=DerivedTable(table.lines, table.sides), correspondence=(note, "another note"))
    page = unescape(re.sub("<.*?>", "", page_of(found, {})))
    assert page.lower().count(note) == 1 and "Another note" in page
    _print(found, None, quiet=False, table=True, report=None)
    printed = capsys.readouterr().out
    assert printed.count(note) == 1 and "another note\n" in printed
    _print(found, "x.table", quiet=False, table=False, report=None)
    assert capsys.readouterr().out.count(note) == 1

"""The page of what was derived: the verdict, both module trees with every use, the Table; it fetches nothing."""

from __future__ import annotations

import os
import re
import sys
from dataclasses import replace
from html import unescape
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from convert.__main__ import main
from convert.errors import ConvertError
from convert.files.hashing import sha256
from convert.installed import version
from parity.derive import Derivation, Divergence
from parity.derive.command import _about, _summary
from parity.derive.command import run as derive_command
from parity.derive.findings.remarks import KINDS
from parity.derive.fold.rows import DerivedTable
from parity.derive.match.advice import Stop, compare
from parity.derive.match.choices import Step
from parity.derive.missing.unmatched import Unmatched
from parity.derive.report import page as page_of
from parity.derive.trace.outputs import incomparable
from parity.derive.trace.sites import OWN
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
    table=DerivedTable(TABLE.lines, TABLE.sides, TABLE.orders), proven=False, error=3e-5,
    divergences=[Divergence("blocks.1.fc", "Net/layer_1", 3e-5, "epsilon <1> & 2")], unobservable=["blocks.0.dead"],
    gradient=None, exact=np.nan, reasons={}, stop=None, seconds=1.0, inferred=[], freedom=[], uses=USES,
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


def test_the_verdict_causes_the_table_and_remarks_are_on_the_page():
    page = unescape(re.sub("</?span[^>]*>|<wbr>", "", page_of(DERIVED, {})))
    for text in ("Complete, but not proven", "epsilon <1> & 2", TABLE.print(), "blocks.0.dead"):
        assert text in page
    assert "Proven" in page_of(replace(DERIVED, proven=True), {})
    page = unbound(
        page_of(replace(DERIVED, reasons={"head/w": "no evidence"}, stop=Stop(("head/w",), "no partner")), {})
    )
    assert (
        "Incomplete: 1 array of the right model is not matched to the left model, as matching stopped at head/w" in page
        and "No partner." in page
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
    holds = "the Table holds as it is: it translates the weights, and the outputs go on to differ"
    assert found.confirmed == whole and (holds in found.following) == whole


def test_the_reason_in_one_line_names_the_first_place_and_a_few_others_or_the_largest_of_them():
    epsilon = Divergence("a", "b", 1e-5, "epsilon 1", kind="epsilon", whole=True)
    pools = [Divergence(f"c{k}", f"d{k}", 0.1 * k, "mean, max", kind="operation") for k in (1, 9, 2, 3)]
    whys = [replace(DERIVED, divergences=[epsilon, *pools[:number]]).why for number in (0, 1, 3, 4)]
    assert whys == [
        "the models part at a <-> b by 1.0e-5 of the largest value: epsilon 1",
        f"{whys[0]}; and at c1 <-> d1 by 0.10: mean, max",
        f"{whys[1]}; and at c9 <-> d9 by 0.90: mean, max; and at c2 <-> d2 by 0.20: mean, max",
        f"{whys[0]}; and at c9 <-> d9 by 0.90, the largest of 4 more differences: mean, max",
    ]


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
        "comes before or after a residual sum, and which terms that has; and the inputs; what differs may also "
        "be ahead of b, whose partners meet other values",
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
        assert f"{said['inferred_apart']}: a.weight" in text
        assert f"{said['doubtful']}: b.weight" in text


def test_uses_that_all_agree_though_the_models_part_were_compared_with_what_differs_removed():
    """A factor that all values have leaves no use a partner: it is removed first."""
    unknown = [place._replace(what="", kind="") for place in DERIVED.divergences]
    apart = replace(DERIVED, uses=USES[:1], divergences=unknown)  # nothing was removed
    placed = [USES[0], USES[1]._replace(by_place=True)]
    for found, removed in ((replace(DERIVED, uses=USES[:1]), True), (DERIVED, False), (apart, False)):
        assert found.removed is removed
        assert ("1 of 1 use of parameters agrees to 1e-8; compared with what differs removed" in str(found)) is removed
        assert ("1e-8; as the right model goes on with the left one's values" in str(found)) is (found is apart)
        page = " ".join(re.sub("<[^>]*>", " ", page_of(found, {})).split())
        assert ("compared with what differs removed" in page) is removed
        assert "a row has the difference of its card" not in page
    for found in (replace(DERIVED, uses=placed), replace(apart, uses=placed)):
        removed = found.divergences == DERIVED.divergences
        why = "and agrees with what differs removed" if removed else "behind which the right one goes on with the left"
        why = f"the other one is where the models part, {why}"
        assert f"1 of 2 uses of parameters agrees to 1e-8; {why}" in str(found), str(found)
        page = " ".join(re.sub("<[^>]*>", " ", page_of(found, {})).split())
        assert "a row has the difference of its card" in page
        assert f"; {why}" in page


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
        error=float("nan"), incomparable="1 array is missing", unmatched=unmatched,
    )  # fmt: skip
    page = unbound(page_of(found, {}))
    cards = [unescape(head) for head in re.findall(r"<h3>(.*?)</h3>", re.sub(" <a .*?</a>", "", page))]
    assert cards[:2] == ["Values part", "Stopped at head/bias"] and cards[-2:] == [
        "Right parameter without a partner", "Left parameter without a partner",
    ]  # fmt: skip
    assert "not comparable, as 1 array is missing" in page and "make both models compute the same" in page
    for claim in ("(limit 1e-9)", "Both models run in float64", "deeper and wider"):
        assert claim not in page and claim in page_of(DERIVED, {}), claim
    depths = page_of(replace(found, depths="the left model has 2 blocks"), {})
    assert "Depths differ" in depths and "The left model has 2 blocks." in depths and "Depths differ" not in page
    assert "2 of 3 matched, 1 of these agrees" in page
    assert rows(page)[-3:] == [
        ["out", "none", "", "-"], ["bias", "none", "term", "-"], ["none", "head/bias", "term", "-"],
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
        "<b>✗ 1 of 2 agrees</b> (limit 1e-8)",
    ):
        assert text in page


def test_the_page_states_coverage_gradients_and_the_next_step():
    page = unbound(page_of(replace(DERIVED, gradient=2e-15, arrays=(2, 2)), {}, "my.table"))
    assert "The Table has 1 line and fills 2 of 2 arrays of the right model" in page
    assert "error of the gradients</dt><dd><b>2.0e-15</b> (limit 1e-7)" in page
    some = replace(DERIVED, arrays=(2, 5), dropped=["extra_0/w", "extra_1/w"], reasons={"gate": "unused"})
    assert "The Table has 1 line, fills 2 of 5 arrays of the right model and drops 2." in unbound(page_of(some, {}))
    text, command = re.sub("<[^>]*>", "", page), "python -m convert --table my.table CKPT -o OUT"
    assert f"To convert a checkpoint of the left model: {command}To convert" in text
    assert f"To convert a checkpoint of the right model: {command} --reverse" in text


def test_the_page_lists_what_is_dropped_and_the_time_where_it_says_what_was_run():
    table = Table.parse("table 1\na: c <-> b: c\ncount -> drop\n")
    found = replace(DERIVED, table=DerivedTable(table.lines, table.sides, table.orders))
    page = page_of(found, {"time": "1.0 s of CPU"})
    remarks = page.partition('<section id="remarks"><h2>Remarks</h2>')[2].partition("</section>")[0]
    assert "Dropped: count on the left: " in re.sub("<[^>]*>", "", remarks)
    head, _, run = page.partition("What was run")
    assert " of CPU" not in head.partition("<body>")[2] and "1.0 s of CPU" in re.sub("<[^>]*>", "", run)


def test_what_no_proof_covers_is_a_remark_and_marked_in_its_row():
    """Also where a comment of the Table says it: such a comment is overlooked."""
    text = "unobservable, outside any proof, as no output depends on this with these inputs: blocks.0.fc.weight"
    lines = [replace(TABLE.lines[0], above=(f"# {text}",))]
    found = replace(
        DERIVED, table=DerivedTable(tuple(lines), TABLE.sides, TABLE.orders), proven=True, gradient=1e-16,
        unobservable=["blocks.0.fc.weight"], uses=[use._replace(gap=1e-16) for use in USES],
    )  # fmt: skip
    page = page_of(found, {})
    shown = re.sub(
        "<[^>]*>", "", page.partition('<section id="remarks"><h2>Remarks</h2>')[2].partition("</section>")[0]
    )
    assert text.capitalize() in shown
    assert [row[-1] for row in rows(page) if row[0] == "weight"] == ["unobservable 1.0e-16", "1.0e-16"]
    assert "outside the proof: with these inputs no output depends on this parameter" in page
    parts = page_of(replace(found, unobservable=[], idle_parts={"layer_1/w": "blocks.1.fc.weight"}), {})
    assert [row[-1] for row in rows(parts) if row[0] == "weight"] == ["1.0e-16", "unobservable 1.0e-16"]
    assert "but for 1 array on which no output depends" in re.sub("<[^>]*>", "", parts)
    printed = str(replace(DERIVED, proven=True, gradient=0.0, error=0.0))
    said = "proven, but for 1 array on which no output depends: outputs are equal, gradients are equal; 1 of 2"
    assert printed.startswith(said)
    assert "unobservable 1" not in re.sub("<[^>]*>", "", page_of(replace(found, unobservable=[]), {}))


def test_gradients_that_are_not_compared_say_why():
    for found, why in (
        (DERIVED, "as outputs are not equal"),
        (replace(DERIVED, reasons={"x": "y"}), "as arrays are"),
    ):
        assert f"error of the gradients not compared, {why}" in re.sub("(<[^>]*>)+", " ", page_of(found, {})).replace(
            " ,", ","
        )


def test_the_title_and_the_headline_name_both_sides():
    def heads(found: Derivation, *sides: str) -> list[str]:
        page = unescape(re.sub("</?span[^>]*>|<wbr>", "", page_of(found, {}, None, sides or None)))
        return [re.findall(f"<{tag}[^>]*>(.*?)</{tag}>", page)[0] for tag in ("title", "h1")]

    left, right = "left.py:build (torch)", "right.py:build (linen)"
    places = [Divergence("a", "b", 1e-4, "c", kind="epsilon", whole=True)]
    for found, title, headline in (
        (replace(DERIVED, proven=True, gradient=1e-16, unobservable=[]), "Proven",
         f"Proven in float64: the Table translates {left} into {right}."),
        (replace(DERIVED, proven=True, gradient=1e-16, error=1e-16), "Proven",
         f"Proven, but for 1 array on which no output depends: the Table translates {left} into {right}."),
        (DERIVED, "Complete, but not proven",
         f"Complete, but not proven: outputs of {left} and {right} differ by 3.0e-5 of their largest element."),
        (replace(DERIVED, divergences=places), "Complete, but not proven",
         f"Complete, but not proven: {left} and {right} differ in one epsilon."),
        (replace(DERIVED, reasons={"x": "y", "z": "y"}), "Incomplete",
         f"Incomplete: 2 arrays of {right} are not matched to {left}."),
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
    assert capsys.readouterr().out.startswith("proven: ")  # with -o, the verdict is the first line
    assert main(["derive", "--help"]) == 0
    assert "the Table if neither -o nor --report has it" in " ".join(capsys.readouterr().out.split())
    page = (tmp_path / "out.html").read_text().replace("<wbr>", "")
    assert side in page and "Proven" in page
    text = unescape(re.sub("<.*?>", "", page))
    for stated in (
        "Sequential (torch), 4 arrays, 26 elements",
        "inputs[2, 3]",
        f"to repeatpython -m convert derive {side} {side} --report {tmp_path}/out.html --quiet --force",
        "seed7 and those after it for the search, two other seeds for the proof",
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
    assert re.search(r"left\s+right\s+module\s+l1\s+r1\s+last that agrees\s+l0\s+r0\s+worst difference", text), text
    assert re.search(r"[(]limit 1e-8[)]\s+cause\s+none was confirmed", text), text
    assert " of the largest value (limit 1e-8)" in " ".join(text.split())
    several = Divergence("l1", "r1", 1e-3, "epsilon", changed="right", more=1, places=("r1", "r2"))
    text = re.sub("<.*?>", "", page_of(replace(found, divergences=[several]), {}))
    assert "1.0e-3 of the largest value at l1 (limit 1e-8)" in text  # r2 may differ by more
    late = page_of(replace(found, divergences=[Divergence("l1", "r1", 1e-3, late=True)]), {})
    assert "not all was tried" in late and "none was confirmed" not in late
    assert re.search(r"last that agrees\s+none\s+none", other)
    read = [
        Step("place", ("words",), ("tok",), "l0", "r0", 0.0, 0, 1),
        Step("add", ("l0.b",), ("r0.b",), "l0", "r0", 1e-3, 0, 1),
    ]
    tables = page_of(replace(found, uses=read, divergences=[Divergence("l0", "r0", 1e-3)]), {})
    text = unescape(re.sub("<.*?>", " ", tables.replace("<wbr>", "")))
    assert re.search(rf"last that agrees\s+{OWN}\s+{OWN}", text), text
    assert re.search(r"uses of parameters\s+✗ 1 of 2\s+agrees\s+\(limit 1e-8\)", text), text


def test_the_page_says_what_the_proof_took_for_granted():
    found = replace(DERIVED, proven=True, gradient=1e-16, kept=("the given values of mask",), branches=["left"],
                    correspondence=("output a of the left model is compared with b of the right one",))  # fmt: skip
    text = unescape(re.sub("<.*?>", "", page_of(found, {}).replace("<wbr>", "")))
    assert "Kept in the proof: the given values of mask" in text
    assert "Output a of the left model is compared with b" in text
    assert "Code of the left model reads numbers of values" in text


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


def test_what_has_a_cause_is_a_next_step_beside_what_has_none():
    places = [
        Divergence("a", "b", 1.0, "the right applies sin", kind="activation"),
        Divergence("c", "d", 1.2, advice="x"),
    ]
    found = replace(DERIVED, divergences=places)
    assert found.following.startswith("make both models equal where a cause is named, and compare what both models")
    assert {line.kind for line in found.places} == {"head"}


def test_a_table_without_a_number_of_blocks_converts_no_deeper_models():
    line = Table.parse("table 1\nfc.weight: o i <-> w: i o\n")
    page = page_of(replace(DERIVED, proven=True, table=DerivedTable(line.lines, line.sides, line.orders)), {})
    assert "converts wider models" in page and "converts deeper and wider models" in page_of(DERIVED, {})


def test_what_to_make_equal_counts_places_as_the_verdict_does():
    found = replace(DERIVED, divergences=[Divergence("l", "r", 1e-3, "epsilon", kind="epsilon", whole=True, times=3)])
    assert found.explained == "three epsilons" and found.following.startswith("remove all three differences")


def test_totals_count_lines_and_errors_stand_once():
    about = {"left": "a.py:build, Net (torch)", "right": "b.py:build, Net (linen)"}
    text = re.sub("<[^>]*>", " ", unbound(page_of(DERIVED, about)).partition("<h1")[2].partition("What was run")[0])
    assert "The Table has " in text and "Error of the outputs" not in text and "uses of parameters" not in text
    assert "error of the outputs" in page_of(DERIVED, about)
    assert all(value.replace(",", " ,") in text for value in about.values())  # the name of a function is code


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
    places = ("Net/layer_0/norm", "Net/layer_1/norm")
    for known in (place, several):
        page = page_of(replace(DERIVED, divergences=[known._replace(places=places, changed="right")]), {})
        card = unescape(re.sub("<.*?>", "", page.partition("<article")[2].partition("</article>")[0]))
        assert "and so in" not in card and "places on the right" in card
        assert "worst difference in the first place" in card

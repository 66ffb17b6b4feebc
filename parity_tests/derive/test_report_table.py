"""The lines of the Table on the page of a derivation, and the commands that convert by it."""

from __future__ import annotations

import re
from dataclasses import replace
from html import unescape
from typing import Any

import pytest

from parity.derive.command import COMMAND, _print, _say, _summary
from parity.derive.explain.divergence import Divergence
from parity.derive.findings.comments import _lengths
from parity.derive.findings.converting import converting
from parity.derive.findings.derivation import Line
from parity.derive.findings.orders import reordered
from parity.derive.fold.rows import DerivedTable
from parity.derive.report import page as page_of
from parity.derive.report.table import _with_axes
from specs.table import Table

from .test_report import DERIVED, TABLE

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
        "my t.table: 1 line", "to convert a checkpoint of the left model, where h (2 here) is an axis of qkv/kernel:",
        f"  {command}{heads}",
        "to convert a checkpoint of the right model:", f"  {command} --reverse",
    ]  # fmt: skip
    assert lines[-1].text == "report: my t.html"


def test_axes_of_a_line_of_the_page_are_not_broken():
    text = "table 1\na.w: (s / o) i + b.w: o i <-> c.w: o i\n"
    parts = ["a.w: ", "(s / o) i", " + b.w: ", "o i"]
    assert _with_axes(text.splitlines()[1].partition(" <-> ")[0]) == [
        f'<span class="whole">{part}</span>' if k % 2 else part for k, part in enumerate(parts)
    ]


def test_the_command_names_an_array_that_has_each_axis():
    text = "q: i h2 d, k: i h d <-> qk: (h2+h d) i\nv: i h d <-> v.weight: (h d) i\n"
    shapes = {"q": (6, 4, 3), "k": (6, 2, 3), "v": (6, 2, 3)}, {"qk": (18, 6), "v.weight": (6, 6)}
    table = DerivedTable(
        Table.parse(f"table 1\n{text}").lines, known=shapes[0], like=shapes[1], sizes={"h": 2, "h2": 4}
    )
    (left, _), (right, command) = converting(table, "t.table")
    assert left.endswith("the left model") and command.endswith("--set h2=... --set h=...")
    axes = "h2 (4 here) is an axis of q and h (2 here) is an axis of k"
    assert right == f"to convert a checkpoint of the right model, where {axes}"
    assert table.open_lines()["h2"] == ["q"] and table.open_lines()["h"] == ["k", "v"]


def test_the_command_takes_lengths_of_arrays_that_the_source_lacks_from_a_new_model():
    """A mask of the right model alone: a large model may have a larger one than the small model."""
    lines = Table.parse("table 1\na: (h d) i <-> b: h d i\n<-> mask: a b = 1 int64\n<-> n: 1 = 0 int64\n").lines
    table = DerivedTable(lines, known={"a": (6, 4)}, like={"b": (2, 3, 4), "mask": (5, 5), "n": (1,)})
    command = "python -m convert --table t.table CKPT -o OUT"
    assert converting(table, "t.table") == [
        ("to convert a checkpoint of the left model, where NEW is a file of a new right model, for the size of mask",
         f"{command} --like NEW"),
        ("to convert a checkpoint of the right model", f"{command} --reverse"),
    ]  # fmt: skip
    back = converting(table.reverse(), "t.table")
    assert [line.removeprefix(command) for _, line in back] == ["", " --reverse --like NEW"]


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


def test_what_somebody_should_check_is_a_remark_and_its_lines_are_marked():
    note = "a partner was taken though values differ there, check the line: b{0..1}/w"
    table = Table.parse(f"table 1\n# {note}\nl.{{i}}.w: c <-> b{{i}}/w: c\nl.{{i}}.b: c <-> b{{i}}/b: c\n")
    found = replace(
        DERIVED, table=DerivedTable(table.lines, table.sides, table.orders), doubtful=["b0/w", "b1/w"], proven=False
    )
    page = page_of(found, {})
    assert "A partner was taken though values differ there" in page[page.index('id="remarks"') :]
    assert "! marks lines to check" in page and "marks lines to check" not in page_of(DERIVED, {})
    lines = re.findall('<span class="[a-z ]*doubted">(.*)', page)
    assert [unescape(re.sub("<.*?>", "", line)) for line in lines] == ["l.{i}.w: c <-> b{i}/w: c"]
    left = len("l.{i}.w: c")  # behind which arrows stand below each other, further to the right beside a mark
    assert f'style="--left: {left + 2}ch"' in page
    assert f'style="--left: {left}ch"' in page_of(replace(found, doubtful=[]), {})


def test_right_arrays_that_one_left_array_fills_are_a_remark():
    table = Table.parse("table 1\na.{i}: c <-> side/{i}: c = up/{i}: c\nb: c = d: c <-> b: c = d: c\n")
    found = replace(DERIVED, table=DerivedTable(table.lines, table.sides, table.orders))
    said = "filled from one left array: side/{i} = up/{i}: --reverse converts these only while they are equal"
    page, proven = page_of(found, {}), page_of(replace(found, proven=True), {})
    assert said in str(found) and said[1:] in unescape(re.sub("<.*?>", "", page))
    assert (page.count('doubted">'), proven.count('doubted">')) == (1, 0)


def test_a_line_of_the_table_is_broken_before_its_arrow():
    page = page_of(DERIVED, {}).replace("<wbr>", "")
    assert (
        '<span class="side">blocks.{i}.fc.weight: o i</span> <span class="side">&lt;-&gt; layer_{i}/w: i o'
        in re.sub('<span class="whole">([^<]*)</span>', r"\1", page)
    )


def test_commands_of_a_table_that_is_not_proven_stand_behind_a_caveat():
    caveat, command = "The Table is not proven: check its lines before you convert by it.", "To convert a checkpoint of"
    part = Divergence("a", "b", 1e-5, "epsilon 1", kind="epsilon", whole=True)
    founds = replace(DERIVED, proven=True), DERIVED, replace(DERIVED, divergences=[part])
    proven, doubtful, meant = (page_of(found, {}) for found in founds)
    assert command in proven and "The Table is not proven" not in proven
    assert command in doubtful.partition(caveat)[2] and command not in doubtful.partition(caveat)[0]
    assert caveat not in meant and command in meant
    assert meant.count("f the difference is meant, the Table holds as it is: ") == 1  # at the next step


def test_the_lines_of_a_table_stand_by_block_and_comments_apart():
    table = Table.parse("table 1\n# why\nstem: c <-> a: c\nl.{i}.w: c <-> b{i}/w: c\nl.{i}.b: c <-> b{i}/b: c\n")
    page = page_of(replace(DERIVED, table=DerivedTable(table.lines, table.sides, table.orders)), {})
    (lines,) = re.findall('<pre class="lines"[^>]*>(.*?)</pre>', page, re.DOTALL)
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


def test_what_is_dangerous_is_a_remark_too_and_what_is_free_to_permute_is_one_alone():
    """A Table may have a dozen lines of what is free: on the page they do not stand above its first line."""
    free, unchecked = "free to permute: outputs of a with inputs of b", "not checked: h: no shape"
    text = f"table 1\n# {free}\n# {unchecked}\na: (h d) i <-> b: (d h) i\n"
    table = DerivedTable(Table.parse(text).lines, known={"a": (6, 4)}, like={"b": (6, 4)}, sizes={"h": 2, "d": 3})
    found = replace(DERIVED, table=table, freedom=[free.partition(": ")[2]], inferred=["b"])
    page = page_of(found, {})
    listing, _, remarks = (unescape(re.sub("<[^>]*>", "", part)) for part in page.partition('id="remarks"'))
    assert free not in listing and free[1:] in remarks and free in found.table.print()
    assert unchecked in listing and unchecked[1:] in remarks
    assert "nferred, as values differ" in remarks and 'doubted">' in page


def test_lengths_of_an_incomplete_table_are_those_that_a_conversion_asks_for():
    def lengths(line: str, left: dict[str, Any], right: dict[str, Any]) -> str:
        table = DerivedTable(Table.parse(f"table 1\n{line}\n").lines, known=left, like=right, sizes={"o": 2, "h": 2})
        return _lengths(replace(table, whole=table))

    assert lengths("{s=k|v}: o i <-> kv: (s o) i", {"k": (2, 3), "v": (2, 3)}, {"kv": (4, 3)}) == ""
    assert lengths("qkv: (h d) i <-> q: i h d", {"qkv": (6, 4)}, {"q": (4, 2, 3)}) == "h=2 (qkv)"


def test_axes_of_parts_that_one_side_joins_are_in_another_order_too():
    lines = "{s=k|v}.w: (h d) i <-> kv: (s d h) i\nqkv: (g s d) <-> {s=q|k|x}: (g d)\nq: (h d) <-> q: (d h)\n"
    assert list(reordered(Table.parse(f"table 1\n{lines}"))) == ["kv", "q"]

"""Texts that are no Table, and arrays that do not fit one, are refused with what to do."""

from __future__ import annotations

import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from specs.table import Table, TableError

from .test_table_command import run, save

MISFITS = {
    "a hole in the numbers": ("b.{i}.w: o <-> c.{i}: o", {"b.0.w": (2,), "b.2.w": (2,)}, "missing b.1.w"),
    "a block that another line counts": (
        "b.{i}.w: o <-> c.{i}: o\nb.{i}.v: o <-> d.{i}: o", {"b.0.w": (2,), "b.1.w": (2,), "b.0.v": (2,)},
        "missing b.1.v",
    ),
    "a line without arrays": ("a: o <-> b: o\nc: o <-> d: o", {"a": (2,)}, "missing c"),
    "an array without a line": ("a: o <-> b: o", {"a": (2,), "x.3.y": (2,)}, "unexpected x.3.y"),
    "rank": ("a: o i <-> b: i o", {"a": (2,)}, r"a has shape \[2\], line 2 gives it axes o i"),
    "a number beyond all": ("b.{i}: o <-> c.{i}: o", {"b.0": (2,), "b.999999999": (2,)}, "numbered far beyond"),
    "listed and not there": ("{s=q|k}: o <-> x.{s}: o", {"q": (2,)}, "missing k"),
    "two lines take one array": ("a: o <-> b: o\na: o <-> c: o", {"a": (2,)}, "a is used twice.*line 2 and line 3"),
    "two lines fill one array": ("a: o <-> b: o\nc: o <-> b: o", {"a": (2,), "c": (2,)}, "b is filled twice"),
    "windows that leave a gap": ("a: p[2:] <-> b: p", {"a": (5,)}, "a is used only in part, by line 2: 2 of 5"),
    "windows that overlap": (
        "a: p[:3] <-> b: p\na: q[2:] <-> c: q", {"a": (5,)}, "a is used twice in places, by line 2 and line 3"
    ),
    "windows of axes that are not divided alike": (
        "a: (h=2 1[:-1] p) <-> b: h p\na: (h=3 1[1:] p) <-> c: h p", {"a": (12,)},
        "divided by line 2 and line 3 in ways that do not match",
    ),
    "blocks of which one is used twice": (
        "a: (1[:-2] h=2 d) <-> b: d h\na: (1[:-2] c) <-> c: c\na: (1[2:] c) <-> e: c",
        {"a": (24,)}, "a is used twice in places, by line 2 and line 3 and line 4",
    ),
    "a window beyond the end": ("a: p[:7] <-> b: p", {"a": (5,)}, r"5 is too short for the window of p\[:7\]"),
    "a part that nobody gets": ("a: (q+k+v) <-> q: q, k: k", {"a": (5,)}, "a is used only in part"),
    "stacks that do not agree": (
        "a/w: i o <-> l.{i}.w: o\na/b: i o <-> l.{i}.b: o", {"a/w": (3, 2), "a/b": (2, 2)}, "l.2.b would be missing"
    ),
    "a repeated number": ("b.{i}.c.{i}: o <-> d.{i}: o", {"b.0.c.1": (2,)}, "unexpected b.0.c.1"),
    "leading zeros": ("b.{i}: o <-> d.{i}: o", {"b.00": (2,)}, "unexpected b.00"),
}  # fmt: skip


@pytest.mark.parametrize("name", MISFITS)
def test_arrays_that_do_not_fit_are_refused(name):
    lines, shapes, message = MISFITS[name]
    table = Table.parse(f"table 1\n{lines}")
    with pytest.raises(TableError, match=message):
        table.layout(shapes, sizes={"q": 2, "k": 2} if "q+k" in lines else None)


HOSTILE = {
    "": "begins with the line: table 1",
    "a: o <-> b: o": "begins with the line: table 1",
    "table 2\na: o <-> b: o": "version 2: this program reads version 1",
    "table 1: a <-> b <-> c": "begins with",
    "table 1\na: o": "one arrow",
    "table 1\na: o <-> b: o <-> c: o": "one arrow",
    "table 1\na: o i <-> b: o": "different axes: i is on its side only",
    "table 1\na.{i}: o <-> b: o": "i",
    "table 1\na: o o <-> b: o": "twice",
    "table 1\na: (o (h d)) <-> b: o h d": "nest",
    "table 1\na: o[-2:-3] <-> b: o": "the window [-2:-3] is empty",
    "table 1\na: o[-3:0] <-> b: o": "the window [-3:0] is empty",
    "table 1\na: (o <-> b: o": "parentheses",
    "table 1\na: q+k <-> b: q": "parentheses",
    "table 1\na: 2 o <-> b: o": "an axis is a name",
    "table 1\na o <-> b: o": "no colon: write a: o",
    "table 1\na <-> b": "write its axes",
    "table 1\na{: o <-> b: o": "{ without }",
    "table 1\na}: o <-> b: o": "} without {",
    "table 1\na{}: o <-> b: o": "no hole",
    "table 1\na{i}{j}: o <-> b.{i}.{j}: o": "nothing parts",
    "table 1\na{s=q|q}: o <-> b.{s}: o": "distinct",
    "table 1\na{s=0..999999999}: o <-> b.{s}: o": "over 10,000",
    "table 1\n{s=a|b}: o <-> {s=a|b|c}: o": "lists",
    "table 1\n{s=a|b}.{s}: o <-> {s=c|d}: o": "two",
    "table 1\na\\q: o <-> b: o": "backslash",
    "table 1\na: o[2:2] <-> b: o": "empty",
    "table 1\na: (h d)[2:] <-> b: h d": "window stands at a single axis",
    "table 1\na: o[@nowhere] <-> b: o": "numbers of this order are not given",
    "table 1\na: o = 0 <-> b: o": "a constant has no array on the other side",
    "table 1\n<-> b: o = zero": "no constant",
    "table 1\n<-> b: o = 0 string": "no constant",
    "table 1\n<-> b: o": "write path -> drop",
    "table 1\na: o -> b: o": "one direction is for",
    "table 1\na: o <-> b: o + c: o": "one direction",
    "table 1\na: o <- b: o + c: o = d: o": "one way",
    "table 1\na: o <-> b: o, ": "missing after",
    "table 1\na: " + "(a+b) ".replace("a", "a1") + " ".join(f"(x{k}+y{k})" for k in range(12)) + " <-> b: a1": "1,000",
}  # fmt: skip


@pytest.mark.parametrize("text", HOSTILE, ids=range(len(HOSTILE)))
def test_texts_without_meaning_are_refused(text):
    with pytest.raises(TableError) as caught:
        Table.parse(text, name="my.table")
    assert HOSTILE[text] in str(caught.value)
    assert "my.table" in str(caught.value)


def test_a_table_file_that_cannot_be_read_is_refused(tmp_path):
    with pytest.raises(TableError, match="no such file"):
        Table.load(tmp_path / "none")
    for name, content in (("a.npz.json", b'{"table": {"text": "table 1"}}'), ("b.safetensors", b"\xff\xfe")):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(TableError, match=r"convert\.table\.file\.load\(PATH\) reads the Table in a record"):
            Table.load(tmp_path / name)
    with pytest.raises(TableError, match="is a folder"):
        Table.load(tmp_path)
    (tmp_path / "bytes").write_bytes(b"\xff\xfe table")
    with pytest.raises(TableError, match="no text in UTF-8"):
        Table.load(tmp_path / "bytes")
    (tmp_path / "t").write_text("table 1\na: o[@order.txt] <-> b: o\n")
    with pytest.raises(TableError, match=r"order.txt: there is no such file"):
        Table.load(tmp_path / "t")
    for text, message in (("0\n0\n1", "0 stands twice"), ("0\n3", "3 is not between 0 and 1"), ("0 x", "no order")):
        (tmp_path / "order.txt").write_text(text)
        with pytest.raises(TableError, match=message):
            Table.load(tmp_path / "t")
    for numbers, message in (([1.5, 0], "1.5 is no integer"), ([True, False], "True is no integer")):
        with pytest.raises(TableError, match=message):
            Table.parse("table 1\na: o[@order.txt] <-> b: o\n", {"order.txt": numbers})


@given(st.text(alphabet="table1 :<->=+,(){}[]|@.#\\abio0\n-", max_size=60))
@settings(max_examples=300, deadline=None, derandomize=True)
def test_any_text_is_a_table_or_refused(text):
    try:
        table = Table.parse(f"table 1\na: o <-> b: o\n{text}", name="my.table")
    except TableError as error:
        assert str(error).startswith("my.table")
        return
    assert Table.parse(str(table)) == table
    assert Table.parse(str(table.reverse())).reverse() == table
    try:
        table.layout({"a": (2,)})
    except TableError as error:
        assert str(error)


@pytest.mark.parametrize("stated", ["0.5 int64", "300 uint8", "-1 uint8", "128 int8", "2 bool", "7e4 float16"])
def test_a_constant_that_its_dtype_cannot_hold_is_refused_where_it_is_read(stated):
    with pytest.raises(TableError, match=rf"line 3: .*{stated.split()[1]}"):
        Table.parse(f"table 1\na: o <-> b: o\n<-> n: = {stated}")


@pytest.mark.parametrize(
    ("lines", "why"),
    [
        ("a: o <-> b: o[1:]\n<-> b: p=1[:1] = 0 float32", "leave out float32 (line 3)"),
        ("a: o <-> c: o\n<-> b: o[1:] = 1 int64\n<-> b: p=1[:1] = 0 int32", "several dtypes (lines 3 and 4)"),
    ],
)
def test_a_dtype_is_stated_of_a_whole_array(lines, why):
    with pytest.raises(TableError, match=re.escape(why)):
        Table.parse("table 1\n" + lines).apply({"a": np.ones(3, "f2")}, **({"o": 3} if "c: o" in lines else {}))


def test_a_constant_that_the_arrays_dtype_cannot_hold_is_refused():
    table = Table.parse("table 1\na: o <-> b: o\n<-> n: = 7e4")
    assert table.apply({"a": np.ones(2, "f4")})["n"] == 7e4
    with pytest.raises(TableError, match=r"n: 70000.0 is too large for float16"):
        table.apply({"a": np.ones(2, "f2")})


def test_an_error_of_many_arrays_folds_their_numbers():
    table = Table.parse("table 1: a <-> b\nh.{i}.w: o i <-> x.{i}.w: o i\ne: v <-> e: v")
    with pytest.raises(TableError) as error:
        table.apply({f"blocks.{k}.w": np.zeros((2, 2)) for k in range(300)})
    assert error.value.problems == ["missing h.{i}.w", "missing e", "unexpected blocks.{0..299}.w"]


@pytest.mark.parametrize(("place", "remedy"), [
    (lambda state: {"model": state, "epoch": {"n": np.zeros(1)}},
     "lie under 'model/': give state['model']"),
    (lambda state: {f"module.{name}": array for name, array in state.items()},
     "give {name.removeprefix('module.'): array for name, array in state.items()}"),
    (lambda state: {"a": {"b": {f"_orig_mod.{name}": array for name, array in state.items()}}},
     "give {name.removeprefix('_orig_mod.'): array for name, array in state['a']['b'].items()}"),
])  # fmt: skip
def test_arrays_within_a_dict_or_a_wrapper_are_found(place, remedy):
    table = Table.parse("table 1: a <-> b\nh.{i}.w: o i <-> x.{i}.w: o i\ne: v <-> e: v")
    state = {"e": np.zeros(3), **{f"h.{k}.w": np.zeros((2, 2)) for k in range(3)}}
    with pytest.raises(TableError) as error:
        table.apply(place(state))
    assert len(error.value.problems) == 1 and error.value.problems[0].endswith(remedy)
    assert "e" in table.apply(state)


@pytest.mark.parametrize(("depth", "width"), [(5, 3), (2, 3), (3, 4), (2, 4)])
def test_a_model_to_be_like_of_another_size_takes_a_line_for_all_blocks(tmp_path, capsys, depth, width):
    """Also where lengths of axes are open in the blocks that it lacks."""
    table, like = tmp_path / "x.table", tmp_path / "b.npz"
    lines = [f"b.{{i}}.{name}: o <-> l{{i}}.0/{name}: o" for name in "wvut"]
    table.write_text("\n".join(["table 1", "b.{i}.q: (h d) <-> l{i}.0/q: h d", *lines, ""]))

    def left(blocks, size):
        return {f"b.{i}.{name}": np.zeros(2 * size, "f4") for i in range(blocks) for name in "qwvut"}

    a, other = save(tmp_path / "a.npz", left(3, 3)), save(tmp_path / "c.npz", left(depth, width))
    assert run(capsys, "--table", table, other, "-o", like, "--set", "h=2")[0] == 0
    code, _, error = run(capsys, "--table", table, a, "--like", like, "-o", tmp_path / "d.npz")
    what = f"{a}: {table} makes other arrays of it than {like} has: give a file of a model as deep and as wide as the"
    assert code == 1 and what in error
    found = error.splitlines()[1:]
    if width == 3:
        names = "l{3..4}.0 (5 arrays each, as q)" if depth > 3 else "l2.0 (5 arrays, as q)"
        rest = f"is in {like}, and is not made here" if depth > 3 else f"is made here, and is not in {like}"
        assert found == [f"  - {names}: each {rest}"]
    else:
        assert sum("has shape [8]" in line and "(and 3 more arrays of each block)" in line for line in found) == 1
        assert len(found) == 1 + (depth < 3)


def test_lengths_that_come_from_like_are_said_to(tmp_path, capsys):
    """As of stacked layers: without --like they fit, so that its file is the cause."""
    table, like, there = tmp_path / "x.table", tmp_path / "b.npz", tmp_path / "there.npz"
    table.write_text("table 1\ns: l o <-> b.{l}.w: o\n")
    source, other = (save(tmp_path / f"{depth}.npz", {"s": np.zeros((depth, 4), "f4")}) for depth in (3, 2))
    assert run(capsys, "--table", table, other, "-o", like)[0] == 0
    assert run(capsys, "--table", table, source, "-o", there)[0] == 0
    code, _, error = run(capsys, "--table", table, source, "--like", like, "-o", tmp_path / "d.npz")
    what = f"{source}: fits {table}, but not with the lengths that {like} has: give a file of a model as deep and as"
    assert code == 1 and what in error and "s has shape [3, 4], and l is 2, not 3 (line 2)" in error, error


@pytest.mark.parametrize("places", [("", "target/"), ("teacher/", "student/")])
def test_a_file_to_be_like_with_two_copies_is_refused_with_a_remedy(places, run, tmp_path):
    np.savez(tmp_path / "x.npz", w=np.ones((2, 3), "f4"))
    np.savez(tmp_path / "new.npz", **{f"{place}params/kernel": np.ones((3, 2), "f4") for place in places})
    (tmp_path / "x.table").write_text("table 1: torch <-> flax\nw: o i <-> params/kernel: i o\n")
    words = ["--table", tmp_path / "x.table", tmp_path / "x.npz", "--like", tmp_path / "new.npz"]
    code, _, err = run(*words, "-o", tmp_path / "y.npz")
    where = " and ".join(f"under {place!r}" if place else "at its root" for place in places)
    remedy = "give a file with one of these copies alone\n"
    assert code == 1 and f"new.npz: all names that {tmp_path / 'x.table'} makes lie {where}: {remedy}" in err, err

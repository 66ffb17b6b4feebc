"""Tables: each feature of the notation against numpy, in both directions, and the lengths that a table leaves open."""

from __future__ import annotations

import cProfile
import itertools
from collections.abc import Callable
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import pytest

from parity.derive.fold.rows import DerivedTable
from specs.applied.moves import Move
from specs.notation.claims import derived_lengths
from specs.notation.lines import Misfit
from specs.solving.sizes import SizeError
from specs.table import Table, TableError

Arrays = dict[str, np.ndarray]


def numbers(**shapes: tuple[int, ...]) -> Arrays:
    """Arrays of these shapes whose elements all differ; in names, __ stands for a dot."""
    edges = itertools.accumulate((int(np.prod(shape)) for shape in shapes.values()), initial=1)
    return {
        name.replace("__", "."): np.arange(start, start + int(np.prod(shape)), dtype="f4").reshape(shape)
        for start, (name, shape) in zip(edges, shapes.items(), strict=False)
    }


class Case(NamedTuple):
    """A table's lines, arrays of its left side, and the right side as numpy makes it."""

    lines: str
    left: Arrays
    right: Callable[[Arrays], Arrays]
    sizes: dict[str, int] = {}  # noqa: RUF012
    orders: dict[str, tuple[int, ...]] = {}  # noqa: RUF012


ORDER = (2, 0, 3, 1)
CASES = {
    "transpose": Case("a.w: o i <-> a/k: i o", numbers(a__w=(2, 3)), lambda x: {"a/k": x["a.w"].T}),
    "scalar": Case("a: <-> b:", numbers(a=()), lambda x: {"b": x["a"]}),
    "numbers": Case(
        "b.{i}.w: o <-> n{i+2}/k: o", numbers(b__0__w=(2,), b__1__w=(3,)),
        lambda x: {"n2/k": x["b.0.w"], "n3/k": x["b.1.w"]},
    ),
    "computed numbers": Case(
        "{2*i+1}.w: o <-> conv_{i}: o", {"1.w": np.ones(2), "3.w": np.zeros(2)},
        lambda x: {"conv_0": x["1.w"], "conv_1": x["3.w"]},
    ),
    "a number and an axis of one name": Case(
        "b.{i}.w: h i o <-> c.{i}.{h}.w: i o", numbers(b__0__w=(2, 3, 4), b__1__w=(2, 3, 4)),
        lambda x: {f"c.{i}.{h}.w": x[f"b.{i}.w"][h] for i in range(2) for h in range(2)},
    ),
    "listed words": Case(
        "{s=query|key}.w: o <-> {s=q|k}: o", numbers(query__w=(2,), key__w=(3,)),
        lambda x: {"q": x["query.w"], "k": x["key.w"]},
    ),
    "a bare hole repeats the word listed": Case(
        "{s=q|k}.w: o <-> x/{s}: o", numbers(q__w=(2,), k__w=(3,)), lambda x: {"x/q": x["q.w"], "x/k": x["k.w"]}
    ),
    "listed numbers": Case(
        "a.{i=3..1}: o <-> b.{i=0..2}: o", numbers(a__1=(2,), a__2=(2,), a__3=(2,)),
        lambda x: {f"b.{k}": x[f"a.{3 - k}"] for k in range(3)},
    ),
    "stacked layers": Case(
        "l.{i}.w: o c <-> scan: i c o", numbers(l__0__w=(2, 3), l__1__w=(2, 3)),
        lambda x: {"scan": np.stack([x["l.0.w"].T, x["l.1.w"].T])},
    ),
    "stacked inside": Case(
        "l.{i}.w: o c <-> scan: o i c", numbers(l__0__w=(2, 3), l__1__w=(2, 3)),
        lambda x: {"scan": np.stack([x["l.0.w"], x["l.1.w"]], 1)},
    ),
    "fused by named holes": Case(
        "p.{s=q|k|v}: i h d <-> qkv: (s h d) i", numbers(p__q=(5, 2, 3), p__k=(5, 2, 3), p__v=(5, 2, 3)),
        lambda x: {"qkv": np.concatenate([x[f"p.{s}"].reshape(5, 6).T for s in "qkv"])},
    ),
    "interleaved by head": Case(
        "p.{s=q|k|v}: i h d <-> qkv: (h s d) i", numbers(p__q=(5, 2, 3), p__k=(5, 2, 3), p__v=(5, 2, 3)),
        lambda x: {"qkv": np.stack([x[f"p.{s}"] for s in "qkv"], 2).transpose(1, 2, 3, 0).reshape(18, 5)},
    ),
    "fused and stacked": Case(
        "l.{i}.qkv: (s h d) c <-> scan/{s=q|k}: i c h d", numbers(l__0__qkv=(12, 5), l__1__qkv=(12, 5)),
        lambda x: {
            f"scan/{s}": np.stack([x[f"l.{i}.qkv"].reshape(2, 2, 3, 5)[k].transpose(2, 0, 1) for i in range(2)])
            for k, s in enumerate("qk")
        }, {"h": 2},
    ),
    "unequal parts in one line": Case(
        "qkv: (q+k+v) i <-> q: q i, k: i k, v: v i", numbers(qkv=(9, 2)),
        lambda x: {"q": x["qkv"][:4], "k": x["qkv"][4:6].T, "v": x["qkv"][6:]}, {"q": 4, "k": 2},
    ),
    "unequal parts, a line each": Case(
        "q: q i <-> qkv: (q+k+v) i\nk: i k <-> qkv: (q+k+v) i\nv: v i <-> qkv: (q+k+v) i",
        numbers(q=(4, 2), k=(2, 3), v=(1, 2)),
        lambda x: {"qkv": np.concatenate([x["q"], x["k"].T, x["v"]])},
    ),
    "parts within groups": Case(
        "qkv: (g r+1+1 d) i <-> q: i (g r d), k: i (g d), v: i (g d)", numbers(qkv=(30, 2)),
        lambda x: {
            "q": x["qkv"].reshape(2, 5, 3, 2)[:, :3].reshape(18, 2).T,
            "k": x["qkv"].reshape(2, 5, 3, 2)[:, 3].reshape(6, 2).T,
            "v": x["qkv"].reshape(2, 5, 3, 2)[:, 4].reshape(6, 2).T,
        }, {"g": 2, "d": 3, "r": 3},
    ),
    "parts on both sides": Case(
        "qkv: (q+k+v) i <-> q: q i, kv: i (k+v)", numbers(qkv=(9, 2)),
        lambda x: {"q": x["qkv"][:4], "kv": x["qkv"][4:].T}, {"q": 4, "k": 2},
    ),
    "window and constant": Case(
        "pos: p[2:] d <-> pos/e: p d\npos: x[:2] d = 0 <->", {"pos": np.array([[0, 0], [0, 0], [1, 2], [3, 4]], "f4")},
        lambda x: {"pos/e": x["pos"][2:]},
    ),
    "windows that tile": Case(
        "a: p[:2] d <-> first: d p\na: q[2:-1] d <-> middle: q d\na: r[-1:] d <-> last: r d", numbers(a=(6, 2)),
        lambda x: {"first": x["a"][:2].T, "middle": x["a"][2:5], "last": x["a"][5:]},
    ),
    "reversal": Case("a: o i -h -w <-> b: h w i o", numbers(a=(2, 3, 4, 5)),
                     lambda x: {"b": x["a"][:, :, ::-1, ::-1].transpose(2, 3, 1, 0)}),
    "reversal on both sides": Case("a: -h c <-> b: c -h", numbers(a=(3, 2)), lambda x: {"b": x["a"].T}),
    "reversal in a composition": Case(
        "a: (h -d) <-> b: h d", numbers(a=(6,)), lambda x: {"b": x["a"].reshape(2, 3)[:, ::-1]}, {"h": 2}
    ),
    "order": Case("a: o[@f] i <-> b: i o", numbers(a=(4, 2)), lambda x: {"b": x["a"][list(ORDER)].T}, {}, {"f": ORDER}),
    "order of the target": Case(
        "a: i o <-> b: o[@f] i", numbers(a=(2, 4)),
        lambda x: {"b": np.stack([x["a"][:, ORDER.index(k)] for k in range(4)])}, {}, {"f": ORDER},
    ),
    "order and reversal": Case(
        "a: o[@f] <-> b: -o", numbers(a=(4,)), lambda x: {"b": x["a"][list(ORDER)][::-1]}, {}, {"f": ORDER}
    ),
    "tie": Case("e: v d <-> wte: v d = head: d v", numbers(e=(3, 2)), lambda x: {"wte": x["e"], "head": x["e"].T}),
    "constant": Case(
        "a: V d <-> b: d V\n<-> offset: 1 V = 0\n<-> n: = 3 int64", numbers(a=(3, 2)),
        lambda x: {"b": x["a"].T, "offset": np.zeros((1, 3), "f4"), "n": np.array(3)},
    ),
    "constants of each block": Case(
        "b.{i}.w: o <-> c.{i}.w: o\n<-> c.{i}.n: = 0 int64", numbers(b__0__w=(2,), b__1__w=(2,)),
        lambda x: {"c.0.w": x["b.0.w"], "c.0.n": np.array(0), "c.1.w": x["b.1.w"], "c.1.n": np.array(0)},
    ),
    "axes of length 1": Case("a: 1 n d <-> b: n 1 (1 d) 1", numbers(a=(1, 2, 3)),
                             lambda x: {"b": x["a"].reshape(2, 1, 3, 1)}),
    "names with separators": Case(
        r"a\u0020b\{x\}/c:0: o i <-> d\:: (i o)", {"a b{x}/c:0": np.arange(6.0).reshape(2, 3)},
        lambda x: {"d:": x["a b{x}/c:0"].T.ravel()},
    ),
    "an empty array": Case("a: o i <-> b: i o", numbers(a=(0, 3)), lambda x: {"b": x["a"].T}),
}  # fmt: skip


def same(found: Arrays, wanted: Arrays) -> None:
    assert set(found) == set(wanted)
    for name, array in wanted.items():
        assert found[name].shape == array.shape, name
        assert np.array_equal(found[name], array), name


@pytest.mark.parametrize("name", CASES)
def test_each_feature_is_what_numpy_does_and_leads_back(name):
    case = CASES[name]
    table = Table.parse(f"table 1\n{case.lines}", case.orders)
    assert Table.parse(table.print(), case.orders) == table
    assert table.reverse().reverse() == table
    wanted = case.right(case.left)
    same(table.apply(case.left, **case.sizes), wanted)
    same(table.reverse().apply(wanted, like=case.left, **case.sizes), case.left)
    same(table.apply(case.left, like=wanted, **case.sizes), wanted)
    layout = table.prove({key: array.shape for key, array in case.left.items()}, sizes=case.sizes)
    assert layout.shapes == {key: array.shape for key, array in wanted.items()}


def test_the_repr_of_a_table_is_short():
    table = Table.parse("table 1: torch <-> flax\na: i o <-> b: o i\nc: o <-> d: o\n")
    assert repr(table) == "<Table: torch <-> flax, 2 lines>"
    derived = DerivedTable(table.lines[:1], table.sides, known={"a": (2, 3)})
    assert repr(derived) == "<DerivedTable: torch <-> flax, 1 line>"


def test_a_sum_has_one_direction():
    table = Table.parse("table 1\nb: o <- ih: o + hh: o\n{g=i|f}: o <- x: (g o) + y: (g o)")
    right = {"ih": np.array([1.0, 2]), "hh": np.array([3.0, 5]), "x": np.arange(4.0), "y": np.full(4, 10.0)}
    left = table.reverse().apply(right)
    same(left, {"b": np.array([4.0, 7]), "i": np.array([10.0, 11]), "f": np.array([12.0, 13])})
    back = table.apply(left)
    same(back, {"ih": left["b"], "hh": np.zeros(2), "x": np.arange(10.0, 14), "y": np.zeros(4)})
    same(table.reverse().apply(back), left)
    assert table.layout({"b": (2,), "i": (2,), "f": (2,)}).zeroed == ("hh", "y")


def test_a_drop_is_reported_and_does_not_come_back():
    table = Table.parse("table 1\na: o <-> b: o\nmask.{i} -> drop\ndrop <- ids")
    left = {"a": np.ones(2), "mask.0": np.ones(3), "mask.1": np.ones((2, 2))}
    assert table.layout({name: array.shape for name, array in left.items()}).dropped == ("mask.0", "mask.1")
    right = table.apply(left)
    same(right, {"b": np.ones(2)})
    same(table.reverse().apply({**right, "ids": np.arange(3)}), {"a": np.ones(2)})


def test_a_dropped_window_is_reported_and_comes_back_as_zeros():
    table = Table.parse("table 1\nemb: v[:-2] d <-> wte: v d\nemb: pad[-2:] d -> drop")
    left = numbers(emb=(5, 2))
    right = {"wte": left["emb"][:3]}
    same(table.apply(left), right)
    layout = table.layout({"emb": (5, 2)})
    assert (layout.cut, layout.dropped) == ({"emb": "2 of 5 rows"}, ())
    back = {"emb": np.concatenate([left["emb"][:3], np.zeros((2, 2), "f4")])}
    same(table.reverse().apply(right), back)
    same(table.apply(back), right)
    there = table.reverse().layout({"wte": (3, 2)})
    assert (there.blank, there.zeroed) == (("emb",), ())
    whole = Table.parse("table 1\nemb: v[:-2] d <-> wte: v d")
    with pytest.raises(TableError, match=r"emb is used only in part, by line 2: 4 of 10 elements"):
        whole.apply(left)


def test_ties_of_the_source_must_be_equal_and_may_be_left_out():
    table = Table.parse("table 1\nwte: v d = head: d v <-> e: v d")
    e = np.arange(6.0).reshape(3, 2)
    same(table.apply({"wte": e, "head": e.T}), {"e": e})
    same(table.apply({"head": e.T}), {"e": e})
    assert table.layout({"head": (2, 3)}).absent == ("wte",)
    with pytest.raises(TableError, match=r"line 2: wte and head are not equal"):
        table.apply({"wte": e, "head": e.T + 1})
    with pytest.raises(Misfit, match="missing wte"):
        table.apply({})


def test_a_declared_constant_is_checked():
    table = Table.parse("table 1\na: o <-> b: o\nz: o = 0 <->")
    same(table.apply({"a": np.ones(2), "z": np.zeros(3)}), {"b": np.ones(2)})
    with pytest.raises(TableError, match="line 3: z holds other values than 0"):
        table.apply({"a": np.ones(2), "z": np.ones(3)})


def test_a_constant_is_compared_as_its_array_contains_it():
    """0.1 is another number in float16; what a Table writes, it reads."""
    table = Table.parse("table 1\na: c <-> b: c\ns: = 0.1 <->")
    for dtype in ("f2", "f4", "f8"):
        assert table.apply(table.reverse().apply({"b": np.ones(3, dtype)})).keys() == {"b"}
    with pytest.raises(TableError, match="holds other values than"):
        table.apply({"a": np.ones(3, "f4"), "s": np.array(0.1001, "f4")})


def test_joined_arrays_get_a_dtype_that_has_the_values_of_all():
    table = Table.parse("table 1\na: x c, b: y c <-> ab: (x+y) c")
    for small in ("f4", "i8"):
        made = table.apply({"a": np.ones((1, 2), small), "b": np.full((1, 2), 1e300)})["ab"]
        assert np.array_equal(made, [[1, 1], [1e300, 1e300]])


def test_two_arrays_of_one_name_are_refused():
    with pytest.raises(TableError, match="a/b: names two arrays"):
        Table.parse("table 1\na/b: c <-> b: c").apply({"a/b": np.ones(2), "a": {"b": np.zeros(2)}})


def test_only_whole_forward_slices_copy():
    whole = Move("a", (4, 2), (slice(None), slice(None)), (0, 1), (4, 2), (slice(None), slice(None)))
    assert whole.copies
    assert whole._replace(select=(slice(0, 4), slice(None))).copies
    for other in (slice(1, None), slice(None, 3), slice(None, None, -1), slice(3, None, -1), (0, 1, 2, 3), 0):
        assert not whole._replace(select=(other, slice(None))).copies
        if not isinstance(other, tuple):
            assert not whole._replace(place=(other, slice(None))).copies
    assert not whole._replace(order=(1, 0)).copies


# Sizes.


def test_open_axes_name_the_remedies():
    table = Table.parse("table 1\na: (h d) i <-> b: h d i")
    with pytest.raises(SizeError, match=r"--like FILE.*--set h=(.|\n)*line 2: h and d in \(h d\) of a") as open_axes:
        table.layout({"a": (6, 2)})
    assert open_axes.value.problems == ["line 2: h and d in (h d) of a"]  # without h of b and d of b
    assert table.layout({"a": (6, 2)}, sizes={"h": 2}).shapes == {"b": (2, 3, 2)}
    assert table.layout({"a": (6, 2)}, like={"b": (3, 2, 2)}).shapes == {"b": (3, 2, 2)}
    with pytest.raises(SizeError, match="no axis is called 'heads': its axes are d, h, i"):
        table.layout({"a": (6, 2)}, sizes={"heads": 2})
    with pytest.raises(Misfit, match="6 is no multiple of 4"):
        table.layout({"a": (6, 2)}, sizes={"h": 4})
    with pytest.raises(SizeError, match=r"i=5 was given, but a of shape \[6, 2\] has i=2 \(line 2\)"):
        table.layout({"a": (6, 2)}, sizes={"h": 2, "i": 5})
    with pytest.raises(Misfit, match=r"\(h d\) is 4 x 2, not 6"):
        table.layout({"a": (6, 2)}, like={"b": (4, 2, 2)})
    with pytest.raises(Misfit, match=r"a has shape \[3, 2\], and an axis is 3, not 1 \(line 2\)"):
        Table.parse("table 1\na: 1 i <-> b.0: i").layout({"a": (3, 2)})
    with pytest.raises(Misfit, match=r"c is in the file to be like, and no line makes it"):
        table.layout({"a": (6, 2)}, like={"b": (3, 2, 2), "c": (1,)})
    blocks, like = Table.parse("table 1\na.{i}: c <-> b.{i}.w: c"), {f"b.{i}.w": (2,) for i in range(5)}
    with pytest.raises(Misfit) as error:  # one line, whatever the number of arrays
        blocks.layout({f"a.{i}": (2,) for i in range(3)}, like=like)
    assert error.value.problems == ["b.{3..4}.w is in the file to be like, and is not made here"]
    split = Table.parse("table 1\na: (h d) <-> b.{h}: d")
    assert split.layout({"a": (6,)}, like={"b.0": (2,), "b.1": (2,), "b.2": (2,)}).sizes == {2: {"h": 3, "d": 2}}


def test_a_constant_that_no_other_line_counts_has_the_numbers_of_the_other_side():
    table = Table.parse("table 1: x <-> y\na: c <-> b: c\ndrop <- b.{i}.gate: c = 1")
    made = table.apply({"a": np.zeros(2)}, like={"b": np.zeros(2), "b.0.gate": np.zeros(3), "b.2.gate": np.zeros(4)})
    same(made, {"b": np.zeros(2), "b.0.gate": np.ones(3), "b.2.gate": np.ones(4)})
    for like in (None, {"b": (2,)}):
        with pytest.raises(TableError, match="counts what no other line counts"):
            table.layout({"a": (2,)}, like=like)


def test_open_axes_ask_for_the_fewest_lengths():
    """A grid is flattened, on the second line with its channels: two of its three lengths suffice."""
    flat = Table.parse("table 1\npos: (h w) c <-> pos: c h w\nhead: (h w c) o <-> head: o (c h w)")
    shapes, like = {"pos": (12, 5), "head": (60, 2)}, {"pos": (5, 4, 3), "head": (2, 60)}
    with pytest.raises(SizeError, match=r"--like FILE\) or lengths \(--set h=... --set w=..., from which c follows\)"):
        flat.layout(shapes)
    with pytest.raises(SizeError) as error:
        flat.layout(shapes, like)
    assert "neither the shapes at hand nor those of the file to be like show h, w and c on line 3, as both sides " in (
        error.value.message
    )
    assert "--like" not in error.value.message
    assert flat.layout(shapes, sizes={"h": 4, "w": 3}).shapes == like


def test_open_axes_of_moves_and_of_constants_are_asked_for_at_once():
    """Constants are as many as other names count."""
    text = "table 1\nl.{i}.a: (h d) i <-> l.{i}.b: h d i\n<-> l.{i}.mask: p q = 1 int64\n"
    table, shapes = Table.parse(text), {f"l.{i}.a": (6, 4) for i in range(2)}
    with pytest.raises(SizeError, match=r"\(--set h=... --set p=... --set q=..., from which d follows\)") as error:
        table.layout(shapes)
    assert "line 3: p in p of l.{i}.mask" in error.value.problems
    assert table.layout(shapes, sizes={"h": 2, "p": 3, "q": 4}).shapes["l.1.mask"] == (3, 4)
    with pytest.raises(SizeError, match=r"\(--set q=\.\.\.\)"):
        table.layout(shapes, sizes={"h": 2, "p": 3})


def test_a_question_for_lengths_names_those_of_the_derivation_and_is_spelt_for_its_user():
    note = "# lengths in the models that it was derived from: h=4 d=8 (a{s=q|k}, z and 2 more) g=2 (b)"
    table = Table.parse(f"table 1\n{note}\na: (h d) <-> b: h d\nc: (x y z) <-> e: x y z\n")
    assert derived_lengths(table) == {"h": "4", "d": "8", "g": "2"}
    shapes = {"a": (6,), "c": (8,)}
    with pytest.raises(SizeError, match=r"\(--like FILE\) or lengths \(--set h=... --set x=... --set y=...,") as error:
        table.layout(shapes)
    assert error.value.problems[-1].startswith("h=4 in the models that the Table was derived from")
    with pytest.raises(SizeError, match=r"\(like=ARRAYS\) or lengths \(h=\.\.\., x=\.\.\., y=\.\.\., from which d"):
        table.apply({name: np.ones(shape) for name, shape in shapes.items()})


def test_lines_of_no_file_have_the_numbers_of_their_text():
    line = Table.parse("table 1\na: c <-> b: c\nd: c <-> e: c").lines
    above = tuple(replace(one, number=0, above=("# one", "# two")[: 2 - k]) for k, one in enumerate(line))
    table = Table(above)
    assert [one.number for one in table.lines] == [4, 6]
    assert [one.number for one in Table.parse(table.print()).lines] == [4, 6]


def test_parts_of_one_length_have_one_name_in_a_sum():
    """So heads of keys and of values are as many; an axis of a product has a name of its own."""
    table = Table.parse("table 1\nqkv: (h+k+k d) <-> q: h d, k: k d, v: k d")
    qkv = np.arange(24)
    for given in ({"h": 4, "k": 2}, {"d": 3, "h": 4}, {"d": 3, "k": 2}):
        made = table.apply({"qkv": qkv}, **given)
        assert np.array_equal(np.concatenate([made[name].ravel() for name in "qkv"]), qkv)
        assert [made[name].shape for name in "qkv"] == [(4, 3), (2, 3), (2, 3)]
    with pytest.raises(Misfit, match=r"5 is no multiple of 2, as \(h\+k\+k d\) needs"):
        table.apply({"qkv": qkv}, d=3, h=3)
    with pytest.raises(Misfit, match="3 of 6 elements are left over"):
        Table.parse("table 1\nx: h <-> y: (h+h)").reverse().apply({"y": np.arange(6)})
    for line in ("x: h h <-> y: (h+h)", "x: (h h) <-> y: h", "x: (h+k h) <-> y: h k"):
        with pytest.raises(TableError, match="h stands in it twice"):
            Table.parse(f"table 1\n{line}")


def test_a_letter_of_two_lengths_is_named():
    """The letter h counts heads on two lines, and rows of a grid on another."""
    table = Table.parse("table 1\nq: (h d) <-> q: h d\no: (h d) <-> o: h d\nhead: (h w) <-> head: h w")
    shapes = {"q": (8,), "o": (8,), "head": (15,)}
    with pytest.raises(SizeError) as error:
        table.layout(shapes)
    assert error.value.problems[-1] == (
        "h has one length on lines 2 and 4: if that is wrong, give it another letter on one of them in the Table"
    )
    with pytest.raises(
        Misfit, match="h=5 was given, and fits line 4 but not 2 and 3: if h stands for two lengths, ren"
    ):
        table.layout(shapes, sizes={"h": 5})
    assert table.layout({**shapes, "head": (16,)}, sizes={"h": 4}).sizes[4] == {"h": 4, "w": 4}


def test_nested_parentheses_are_answered_with_the_spelling():
    with pytest.raises(TableError, match=r"parentheses do not nest, .*: h, k and v blocks of d are \(h\+k\+v d\)"):
        Table.parse("table 1\nqkv: ((h+k+v) d) <-> q: h d, k: k d, v: v d")


def test_axes_with_a_capital_have_one_length_in_the_whole_table():
    table = Table.parse("table 1\na: (H d) <-> b: H d\nc: H <-> e: H")
    assert table.layout({"a": (6,), "c": (3,)}).shapes == {"b": (3, 2), "e": (3,)}
    small = Table.parse("table 1\na: (h d) <-> b: h d\nc: h <-> e: h")
    with pytest.raises(SizeError, match="h and d"):
        small.layout({"a": (6,), "c": (3,)})


def test_a_length_that_the_last_line_shows_reaches_the_first_through_all_between():
    lines = [f"{a}{b}: ({a} {b}) <-> {a}{b}: {a} {b}" for a, b in itertools.pairwise("ABCDEFGHIJK")]
    shapes = {line[:2]: (6,) for line in lines} | {"last": (3,)}
    layout = Table.parse("\n".join(["table 1", *lines, "last: K -> drop"])).layout(shapes)
    assert layout.shapes == {line[:2]: (2, 3) if n % 2 else (3, 2) for n, line in enumerate(lines)}


def test_sizes_differ_between_blocks_and_not_within_a_stack():
    lines = Table.parse("table 1\nb.{i}.w: o <-> c.{i}: o")
    assert lines.layout({"b.0.w": (2,), "b.1.w": (5,)}).shapes == {"c.0": (2,), "c.1": (5,)}
    stacked = Table.parse("table 1\nb.{i}.w: o <-> c: i o")
    with pytest.raises(Misfit, match=r"shape \[5\], and o is 2, not 5"):
        stacked.layout({"b.0.w": (2,), "b.1.w": (5,)})


def test_an_axis_is_not_split_into_names_without_end():
    table = Table.parse("table 1\na: n <-> b.{n}:")
    assert table.layout({"a": (2,)}).shapes == {"b.0": (), "b.1": ()}
    with pytest.raises(TableError, match=r"line 2: b.\{n\} would stand for over 100,000 arrays"):
        table.layout({"a": (10**9,)})


# What does not fit.


def test_a_table_is_saved_with_its_orders_and_comments(tmp_path):
    text = "table 1: torch <-> flax\n# the head\na: o[@f.txt] <-> b: o  # by ImageNet's order\n# end\n"
    table = Table.parse(text, {"f.txt": (1, 0)})
    table.save(tmp_path / "t")
    assert (tmp_path / "t").read_text() == text
    loaded = Table.load(tmp_path / "t")
    assert loaded == table and loaded.orders == {"f.txt": (1, 0)}
    with pytest.raises(TableError, match="exists with other numbers"):
        Table.parse(text, {"f.txt": (0, 1)}).save(tmp_path / "u")


# Composition.


# Random tables against a loop over elements.


def test_bfloat16_is_of_floating_point():
    """To numpy it is a structure: constants take it as their dtype, and tied NaNs are equal."""
    ml_dtypes = pytest.importorskip("ml_dtypes", reason="ml_dtypes is not installed: numpy has no bfloat16")
    one = np.array([1.0, np.nan], ml_dtypes.bfloat16)
    made = Table.parse("table 1\na: n = b: n <-> c: n\n<-> zeros: n = 0\n").apply({"a": one, "b": one}, n=2)
    assert {array.dtype for array in made.values()} == {one.dtype}


def test_lengths_that_a_dropped_part_leaves_open_are_asked_for():
    table = Table.parse("table 1\na: (p[2:] c) <-> x: p c\na: (q[:2] d) -> drop")
    with pytest.raises(TableError, match=r"leave open.*\(d=\.\.\., from which q follows\)"):
        table.apply({"a": np.arange(18)}, c=3)
    assert table.apply({"a": np.arange(18)}, c=3, d=3)["x"].shape == (4, 3)


@pytest.mark.parametrize(
    "text",
    [
        "blocks.{i}.w: o i <-> b{i}/w: i o\nblocks.{i}.b: o <-> b{i}/b: o",  # lines of many arrays
        "{each}",  # a line for each array
        "blocks.{l}.w: o i <-> w.{l}: o i\nblocks.{l}.b: o <-> b: l o",  # stacked on one side
    ],
)
def test_planning_takes_twice_the_work_for_twice_the_arrays(text):
    """Counted in calls of functions of specs/, not in time."""

    def calls(blocks):
        each = "\n".join(f"blocks.{k}.w: o i <-> b{k}/w: i o\nblocks.{k}.b: o <-> b{k}/b: o" for k in range(blocks))
        table = Table.parse("table 1\n" + (each if text == "{each}" else text))
        shapes = {f"blocks.{k}.w": (3, 2) for k in range(blocks)} | {f"blocks.{k}.b": (3,) for k in range(blocks)}
        profile = cProfile.Profile()
        profile.runcall(table.layout, shapes)
        return sum(one.callcount for one in profile.getstats())

    assert calls(80) < 2.2 * calls(40)

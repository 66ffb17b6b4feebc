"""Tables that are composed, and tables drawn at random: what they do is what a loop over elements does."""

from __future__ import annotations

import itertools
from typing import Any, NamedTuple

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from specs.table import Table, TableError

from .test_table import ORDER, Arrays, numbers, same

COMPOSED = {
    "axes split further": (
        "b.{i}.w: o i <-> b.{i}/k: i o", "b.{j}/k: i (h d) <-> c/{j}: h d i",
        numbers(b__0__w=(6, 2), b__1__w=(6, 2)), {"h": 2},
    ),
    "stacked on the way": (
        "l.{i}.w: o c <-> s: i c o", "s: n c o <-> k.{n=0..1}: o c", numbers(l__0__w=(2, 3), l__1__w=(2, 3)), {}
    ),
    "fused apart": (
        "qkv: (q+k+v) i <-> q: q i, k: k i, v: v i", "q: o i <-> c.q: i o\nk: o i <-> c.k: i o\nv: o i <-> c.v: i o",
        numbers(qkv=(6, 2)), {"q": 3, "k": 2, "o": 3},
    ),
    "parts move on as a whole": (
        "q: q i, k: k i <-> qk: (q+k) i", "qk: o i <-> c: i o", numbers(q=(2, 3), k=(1, 3)), {"q": 2, "k": 1}
    ),
    "windows": (
        "p: p[2:] d <-> q: p d\np: x[:2] d = 0 <->", "q: r s <-> t: s r", {"p": np.diag([0.0, 0, 1, 2])}, {}
    ),
    "reversals": ("a: o <-> b: -o", "b: -p <-> c: p", numbers(a=(3,)), {}),
    "an order and a reversal": ("a: o[@f] <-> b: o", "b: p <-> c: -p", numbers(a=(4,)), {}),
    "a tie splits": ("e: v d <-> w: v d = h: d v", "w: v d <-> x: v d\nh: d v <-> y: d v", numbers(e=(2, 3)), {}),
    "a tie meets": ("x: v d <-> w: v d\ny: d v <-> h: d v", "w: v d = h: d v <-> e: v d",
                    {"x": np.eye(2, 3), "y": np.eye(3, 2)}, {}),
    "ties of one side": (
        "a: o <-> b: o\n<-> b = d\na = aa <->", "b: o <-> c: o\nb = d <->\n<-> c = cc",
        dict.fromkeys(("a", "aa"), np.arange(3)), {},
    ),
    "a tie of one side, in one line in the first": (
        "a: o <-> b: o = d: o", "b: o <-> c: o\nb = d <->", numbers(a=(3,)), {}
    ),
    "a sum": ("b: o <- i: o + h: o", "i: p <-> x: p\nh: p <-> y: p", numbers(b=(3,)), {}),
    "named holes": ("p.{s=q|k}: i h d <-> qk: (s h d) i", "qk: (s h d) i <-> r.{s=a|b}: h d i",
                    numbers(p__q=(2, 3, 4), p__k=(2, 3, 4)), {"h": 3, "d": 4}),
    "lists written out": ("{s=q|k}: i o <-> z.{s=q|k}: o i", "z.q: o i <-> x: i o\nz.k: o i <-> y: o i",
                          numbers(q=(2, 3), k=(2, 3)), {}),
    "names that count": ("q: (s h d) c <-> {s=a|b|c}.k: c h d", "{n=a|b|c}.k: c h d <-> w: (h n d) c",
                         numbers(q=(24, 2)), {"h": 2}),
    "constants and drops": (
        "a: o <-> b: o\n<-> n: = 0\nm -> drop\ndrop <- k", "b: o <-> c: o\nn: <-> nn:\nk: o <-> kk: o\n<-> z: = 1",
        numbers(a=(2,), m=(2,)), {},
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", COMPOSED)
def test_a_composed_table_does_what_two_do_in_turn(name):
    one, two, left, sizes = COMPOSED[name]
    first, second = (Table.parse(f"table 1\n{lines}", {"f": ORDER}) for lines in (one, two))
    if "drops" in name:
        second = Table.parse(f"table 1\n{two}".replace("k: o <-> kk: o\n", ""))
        first = Table.parse(f"table 1\n{one}".replace("\ndrop <- k", ""))

    def apply(table, arrays):
        known = {
            part.name for line in table.lines for a in (*line.left.arrays, *line.right.arrays) for part in a.parts()
        }
        return table.apply(arrays, **{axis: size for axis, size in sizes.items() if axis in known})

    composed = first.compose(second)
    assert Table.parse(str(composed), composed.orders) == composed
    wanted = apply(second, apply(first, left))
    same(apply(composed, left), wanted)
    back = apply(first.reverse(), apply(second.reverse(), wanted))
    same(apply(composed.reverse(), wanted), back)


IN_SUM = "o, a part of a sum, is composed of several axes in the other table"
NOT_COMPOSED = {
    "no second line": (
        "a: o <-> b: o\ne: o <-> e: o", "b: o <-> d: o", "1:3: e: o: no line of 2 speaks of it: add one"
    ),
    "no first line": ("a: o <-> b: o", "b: o <-> d: o\ne: o <-> f: o", "2:3: e: o: no line of 1 speaks of it: add one"),
    "no first line, joined in the second": (
        "a: o <-> b: o\nd: o <-> c: o", "b: o = c: o <-> z: o\ne: o <-> f: o",
        "2:3: e: o: no line of 1 speaks of it: add one",
    ),
    "no second line, joined in the second": (
        "a: o <-> b: o\nd: o <-> c: o\ne: o <-> e: o", "b: o = c: o <-> z: o",
        "1:4: e: o: no line of 2 speaks of it: add one",
    ),
    "no elements": (
        "a: p <-> b: (p+q)", "b: (p+q) <-> c: q", "1:2: b: (p+q): no line of 2 speaks of its elements: add one"
    ),
    "a sum of a sum": (
        "t: o <- p: o + q: o", "p: o <- r: o + s: o\nq: o <-> q: o", "1:2: p: o: a sum of a sum has no line (2:2)"
    ),
    "a sum of a sum, joined in the second": (
        "p: o + q: o -> t: o\nu: o <-> u: o", "t: o + u: o -> z: o", "2:2: t: o: a sum of a sum has no line (1:2)"
    ),
    "joined in both": (
        "x: o <-> b: o = c: o", "b: o = c: o <-> z: o",
        "1:2: b: o: what = joins there comes apart here: only one of the tables may join arrays (2:2)",
    ),
    "a tie comes apart": (
        "x: o <-> b: o = c: o", "b: (p+q) <-> y: p, z: q\nc: o <-> w: o", "1:2: what its = joins is apart in 2"
    ),
    "a tie of one side comes apart": (
        "x: o <-> b: o\n<-> b = c", "b: o <-> y: o\nc: o <-> z: o", "1:3: <-> b = c: 2 does not tie the same"
    ),
    "a tie of one side meets two": (
        "x: o <-> b: o\ny: o <-> c: o\n<-> b = d", "b: o <-> z: o\nb = c <->\nd -> drop",
        "1:3: c: o: no line of 2 speaks of its elements: add one",
    ),
    "two constants": (
        "a: o <-> b: o\n<-> n: o = 0", "b: o <-> c: o\nn: o = 1 <->", "1:3: n: o: is 0 here and 1 there (2:3)"
    ),
    "a part of a sum": (
        "p: o + q: o -> t: o", "t: (a+b) <-> x: a, y: b",
        "1:2: what it becomes is no line of a table: an arrow in one direction is for sums, total: o <- first: o + "
        "second: o, and for drop",
    ),
    "divided in two ways": (
        "a: h d <-> b: (h d)", "b: (g e) <-> c: g e",
        "1:2: b: (h d): (h d) and (g e) divide one axis in two ways: give equal axes one name in both tables (2:2)",
    ),
    "ranks": ("a: h d <-> b: h d", "b: o <-> c: o", "1:2: b: h d: has 2 axes here and 1 there (2:2)"),
    "windows": (
        "a: p <-> b: p[2:]\n<-> b: x[:2] = 0", "b: p[:3] <-> c: p\nb: q[3:] <-> d: q",
        "1:2: b: p[2:]: the windows of p[2:] and p[:3] do not match (2:2)",
    ),
    "windows of factors": (
        "a: (o h) <-> b: (o h)", "b: (o[2:] h) <-> c: (o h)\nb: (x[:2] h) = 0 <->",
        "1:2: b: (o h): the windows of o and o[2:] do not match (2:2)",
    ),
    "a window of a window": (
        "a: o[1:] <-> b: o\na: x[:1] = 0 <->", "b: p[2:] <-> c: p\nb: x[:2] = 0 <->",
        "1:2: b: o: a window of the window o[1:] (2:2)",
    ),
    "a window of a window of a factor": (
        "a: o h <-> b: (o[1:] h)\n<-> b: (x[:1] h) = 0", "b: (x h) <-> c: (x[2:] h)\n<-> c: (y[:2] h) = 0",
        "1:2: b: (o[1:] h): a window of the window o[1:] (2:2)",
    ),
    "a window in a composition": (
        "a: (p h) <-> b: p h", "b: p[2:] h <-> c: p h\nb: x[:2] h = 0 <->",
        "1:2: b: p h: a window of p, which does not stand alone (2:2)",
    ),
    "two orders": (
        "a: o[@f] <-> b: -o", "b: o[@f] <-> c: o", "1:2: b: -o: the orders of -o and o[@f] do not combine (2:2)"
    ),
    "two orders through one axis": (
        "a: -o <-> b: o", "b: p[@f] <-> c: p", "1:2: b: o: the orders of -o and p[@f] do not combine (2:2)"
    ),
    "a number of two axes": (
        "y.{i}: j o <-> s: (i j) o", "s: n o <-> a.{n}: o", "1:2: s: (i j) o: the number {n} becomes i j (2:2)"
    ),
    "a reversal of two axes": (
        "a: -o <-> b: o", "b: (h d) <-> c: h d", "1:2: b: o: -o is composed of several axes in the other table (2:2)"
    ),
    "names that count otherwise": (
        "p.{s=q|k}: i d <-> qk: (s d) i", "qk: (s d) i <-> r.{s=a|b|c}: d i",
        "1:2: qk: (s d) i: s is 2 in one of the tables and 3 in the other (2:2)",
    ),
    "a summand of two axes": (
        "a: (o+p) <-> b: o, c: p", "b: (h d) <-> x: h d\nc: o <-> y: o", f"1:2: b: o: {IN_SUM} (2:2)"
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", NOT_COMPOSED)
def test_what_has_no_line_is_not_composed(name):
    one, two, problem = NOT_COMPOSED[name]
    first, second = (Table.parse(f"table 1\n{lines}", {"f": ORDER}, str(k)) for k, lines in ((1, one), (2, two)))
    with pytest.raises(TableError) as caught:
        first.compose(second)
    assert caught.value.message == "1 and 2 cannot be composed: mend these lines, or apply both tables in turn"
    assert problem in caught.value.problems


def test_a_composed_table_states_how_many_names_the_middle_has():
    """Another number would give another order, though the shapes of both sides fit it."""
    first = Table.parse("table 1\nq: (s h d) c <-> {s=a|b|c}.k: c h d")
    for second in (first.reverse(), Table.parse("table 1\n{s=a|b|c}.k: c h d <-> w: (h s d) c")):
        composed = first.compose(second)
        assert str(composed.lines[0]).startswith("q: (s=3 h d) c <-> "), str(composed)
        with pytest.raises(TableError, match=r"s=2 was given, but q of shape .* has s=3"):
            composed.apply(numbers(q=(24, 2)), h=2, s=2)


def test_an_array_of_b_alone_has_no_line():
    first = Table.parse("table 1\na: o <-> b: o\n<-> n: = 0\n<-> m: = 1\ndrop <- k")
    second = Table.parse("table 1\nb: o <-> c: o\nn -> drop\nm: = 1 <->\nk -> drop")
    assert str(first.compose(second)) == "table 1\na: o <-> c: o\n"


def test_tables_of_one_name_are_told_apart():
    first, second = (Table.parse(f"table 1\n{name}: o <-> b: o") for name in "ac")
    with pytest.raises(TableError, match="the second table:2: c: o: no line of the first table speaks of it"):
        first.compose(second)


def test_one_order_has_one_meaning():
    first, second = (
        Table.parse("table 1\na: o[@f] <-> a: o", {"f": f}, name) for f, name in (((1, 0), "1"), ((0, 1), "2"))
    )
    with pytest.raises(TableError, match=r"^\[@f\] has other numbers in 2 than in 1: rename one of the two$"):
        first.compose(second)


AXES = "abcd"


class Drawn(NamedTuple):
    """One side of a random line: which axes stand in its path, the order of the others, where compositions end."""

    path: list[str]
    order: list[str]
    cuts: set[int]
    backwards: set[str]

    def text(self, name: str) -> str:
        inner = [("-" if axis in self.backwards else "") + axis for axis in self.order]
        return f"{name}{''.join(f'.{{{axis}}}' for axis in self.path)}: {' '.join(map(_group, self.split(inner)))}"

    def split(self, items: list[Any]) -> list[list[Any]]:
        edges = sorted({0, *(cut for cut in self.cuts if cut < len(items)), len(items)})
        return [items[start:stop] for start, stop in itertools.pairwise(edges)]

    def position(self, at: dict[str, int], sizes: dict[str, int]) -> tuple[int, ...]:
        """Where an element stands, dimension by dimension."""
        found = []
        for group in self.split(self.order):
            index = 0
            for axis in group:
                index = index * sizes[axis] + (sizes[axis] - 1 - at[axis] if axis in self.backwards else at[axis])
            found.append(index)
        return tuple(found)

    def shape(self, sizes: dict[str, int]) -> tuple[int, ...]:
        return tuple(int(np.prod([sizes[axis] for axis in group])) for group in self.split(self.order))


def _group(items: list[str]) -> str:
    return items[0] if len(items) == 1 else f"({' '.join(items)})"


@st.composite
def sides(draw):
    path = draw(st.lists(st.sampled_from(AXES), unique=True, max_size=2))
    order = draw(st.permutations([axis for axis in AXES if axis not in path]))
    return Drawn(path, order, draw(st.sets(st.integers(1, 3))), draw(st.sets(st.sampled_from(AXES))))


@given(sides(), sides(), st.lists(st.integers(1, 4), min_size=4, max_size=4))
@settings(max_examples=150, deadline=None, derandomize=True)
def test_random_lines_are_what_a_loop_over_elements_does(left, right, lengths):
    sizes = dict(zip(AXES, lengths, strict=True))
    table = Table.parse(f"table 1\n{left.text('x')} <-> {right.text('y')}")
    assert Table.parse(str(table)) == table
    wanted: list[Arrays] = [{}, {}]
    for number, index in enumerate(itertools.product(*map(range, lengths))):
        at = dict(zip(AXES, index, strict=True))
        for name, side, arrays in (("x", left, wanted[0]), ("y", right, wanted[1])):
            full = name + "".join(f".{at[axis]}" for axis in side.path)
            arrays.setdefault(full, np.full(side.shape(sizes), -1))[side.position(at, sizes)] = number
    given = {axis: size for axis, size in sizes.items() if any(axis in side.order for side in (left, right))}
    same(table.apply(wanted[0], **given), wanted[1])
    same(table.reverse().apply(wanted[1], like=wanted[0], **given), wanted[0])


@given(sides(), sides(), sides(), st.lists(st.integers(1, 3), min_size=4, max_size=4))
@settings(max_examples=100, deadline=None, derandomize=True)
def test_random_tables_compose(left, middle, right, lengths):
    sizes = dict(zip(AXES, lengths, strict=True))
    middle = middle._replace(cuts={1, 2, 3}, backwards=set())
    first = Table.parse(f"table 1\n{left.text('x')} <-> {middle.text('y')}")
    second = Table.parse(f"table 1\n{middle.text('y')} <-> {right.text('z')}")
    composed = first.compose(second)
    arrays: Arrays = {}
    for number, index in enumerate(itertools.product(*map(range, lengths))):
        at = dict(zip(AXES, index, strict=True))
        full = "x" + "".join(f".{at[axis]}" for axis in left.path)
        arrays.setdefault(full, np.full(left.shape(sizes), -1))[left.position(at, sizes)] = number

    def given_of(*sides: Drawn) -> dict[str, int]:
        return {axis: size for axis, size in sizes.items() if any(axis in side.order for side in sides)}

    between = first.apply(arrays, **given_of(left, middle))
    wanted = second.apply(between, **given_of(middle, right))
    same(composed.apply(arrays, **given_of(left, right)), wanted)

"""The notation reads the same in both directions, by construction and by these tests."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from convert.kinds import rules
from specs.arrays import apply
from specs.notation import Path, View, align, moves, parse_axes, shape_of, view


def test_axes():
    assert parse_axes("(g o) h 1") == (("g", "o"), ("h",), ())
    assert parse_axes("") == ()
    assert shape_of(parse_axes("(g o) h 1"), {"g": 2, "o": 3, "h": 5}) == (6, 5, 1)
    with pytest.raises(ValueError, match="axes"):
        parse_axes("(a (b c))")


def test_paths_fill_and_match():
    path = Path("levels.{l}.fn.{b+2}.1")
    assert path.fill({"l": 3, "b": 0}) == "levels.3.fn.2.1"
    assert path.match("levels.3.fn.2.1") == ({"l": 3, "b": 0}, "")
    assert path.match("levels.3.fn.1.1") is None  # b would be -1
    assert path.match("levels.3.fn.2.1.weight") is None
    assert path.match("levels.3.fn.2.1.weight", whole=False) == ({"l": 3, "b": 0}, ".weight")
    assert path.match("levels.3.fn.2.10", whole=False) is None  # a number ends where it ends
    assert path.match("levels.03.fn.2.1") is None
    assert Path("{i}.{i}").match("1.2") is None


def test_paths_look_numbers_up_in_the_config():
    class Config:
        depth = 7
        at = (0, 2, 3)

    assert Path("{depth+5}").fill({}, Config) == "12"
    assert Path("network.{at[s]}.{b}").fill({"s": 1, "b": 4}, Config) == "network.2.4"


def heads(count, i, o):
    sizes = {"h": count, "i": i, "o": o}
    hub = parse_axes("h i o")
    stacked = View(hub, {(): "kernel"}, (), hub, sizes)
    split = view(hub, Path("q.{h}.weight"), parse_axes("o i"), sizes, {}, None)
    return stacked, split


def run(source, target, tensors):
    return {name: apply(parts, shape, tensors.__getitem__) for name, shape, parts in moves(source, target)}


def test_an_axis_in_a_path_stacks_and_splits():
    stacked, split = heads(3, 4, 5)
    kernel = np.arange(60).reshape(3, 4, 5)
    parts = run(stacked, split, {"kernel": kernel})
    assert list(parts) == ["q.0.weight", "q.1.weight", "q.2.weight"]
    assert np.array_equal(parts["q.1.weight"], kernel[1].T)
    assert np.array_equal(run(split, stacked, parts)["kernel"], kernel)


def test_two_split_sides_meet_name_by_name():
    _, split = heads(3, 4, 5)
    other = view(parse_axes("h i o"), Path("k.{h}"), parse_axes("i o"), split.sizes, {}, None)
    for name, _, parts in moves(split, other):
        assert [p.source for p in parts] == [f"q.{name[-1]}.weight"]


def test_compositions_reorder():
    sizes = {"g": 2, "o": 3}
    ours = View(parse_axes("(g o)"), {(): "a"}, (), parse_axes("(g o)"), sizes)
    theirs = View(parse_axes("(g o)"), {(): "b"}, (), parse_axes("(o g)"), sizes)
    assert run(ours, theirs, {"a": np.arange(6)})["b"].tolist() == [0, 3, 1, 4, 2, 5]
    assert run(theirs, ours, {"b": np.array([0, 3, 1, 4, 2, 5])})["a"].tolist() == [0, 1, 2, 3, 4, 5]


def test_a_whole_axis_meets_its_factors():
    sizes = {"g": 2, "o": 3, "c": 6}
    plain = View(parse_axes("c"), {(): "a"}, (), parse_axes("c"), sizes)
    split = View(parse_axes("(g o)"), {(): "b"}, (), parse_axes("(o g)"), sizes)
    assert run(plain, split, {"a": np.arange(6)})["b"].tolist() == [0, 3, 1, 4, 2, 5]
    with pytest.raises(ValueError, match="two ways"):
        align(View(parse_axes("(a b)"), {(): "a"}, (), parse_axes("(a b)"), {"a": 2, "b": 3}), split)


def test_a_line_that_loses_an_axis_is_refused():
    with pytest.raises(ValueError, match="different axes"):
        view(parse_axes("i o"), Path("x"), parse_axes("i"), {"i": 2, "o": 3}, {}, None)


AXES = st.permutations("abcd").flatmap(
    lambda order: st.tuples(
        st.just(order), st.lists(st.integers(0, 3), max_size=3), st.sets(st.sampled_from("abcd"), max_size=2)
    )
)


def grouped(order, cuts):
    edges = sorted({0, *cuts, len(order)})
    return tuple(tuple(order[a:b]) for a, b in itertools.pairwise(edges))


@given(AXES, AXES, st.lists(st.integers(1, 4), min_size=4, max_size=4))
@settings(max_examples=300, deadline=None, derandomize=True)
def test_any_two_views_translate_there_and_back(left, right, lengths):
    sizes = dict(zip("abcd", lengths, strict=True))
    hub = (("a",), ("b",), ("c",), ("d",))

    def side(name, drawn):
        order, cuts, stacked = drawn
        inner = [axis for axis in order if axis not in stacked]
        path = Path(name + "".join(f".{{{axis}}}" for axis in sorted(stacked)))
        return view(hub, path, grouped(inner, cuts) if inner else (), sizes, {}, None)

    source, target = side("x", left), side("y", right)
    count = int(np.prod(lengths))
    whole = View(hub, {(): "hub"}, (), hub, sizes)
    numbers = np.arange(count).reshape(lengths)
    held = run(whole, source, {"hub": numbers})
    there = run(source, target, held)
    assert sorted(np.concatenate([v.ravel() for v in there.values()])) == list(range(count))  # each element once
    back = run(target, source, there)
    assert all(np.array_equal(held[name], back[name]) for name in held)
    assert np.array_equal(run(target, whole, there)["hub"], numbers)


def test_the_most_specific_line_applies():
    found = rules("a.{i}  x.{i}\na.{i}.b  y.{i}")
    assert [rule.ours.text for rule in found] == ["a.{i}.b", "a.{i}"]

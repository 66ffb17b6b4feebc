"""Paths and axes, in Tables and in dialects: what is read is what is written, and every array goes there and back."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import specs
from specs.dialects import PORTS, UNUSED, Stored, bind, rules, shapes, table
from specs.layer import parameters
from specs.notation.axes import Dim, Part, names, parse_axes, shape_of
from specs.notation.paths import Hole, fill, match, parse_path
from specs.notation.signature import Signature
from specs.table import Table


def test_axes():
    axes = parse_axes("(g=2 o) h 1")
    assert axes == (Dim(((Part("g", length=2),), (Part("o"),))), Dim(((Part("h"),),)), Dim(()))
    assert " ".join(map(str, axes)) == "(g=2 o) h 1"
    assert parse_axes("") == ()
    assert names(axes) == ["g", "o", "h"]
    assert shape_of(axes, {"g": 2, "o": 3, "h": 5}) == (6, 5, 1)
    with pytest.raises(ValueError, match="axes"):
        parse_axes("(a (b c))")


def test_paths_fill_and_match():
    path = parse_path("levels.{l}.fn.{b+2}.1")
    assert fill(path, {"l": 3, "b": 0}) == "levels.3.fn.2.1"
    assert match(path, "levels.3.fn.2.1") == ({"l": 3, "b": 0}, "")
    assert match(path, "levels.3.fn.1.1") is None  # b would be -1
    assert match(path, "levels.3.fn.2.1.weight") is None
    assert match(path, "levels.3.fn.2.1.weight", whole=False) == ({"l": 3, "b": 0}, ".weight")
    assert match(path, "levels.3.fn.2.10", whole=False) is None  # a number ends where it ends
    assert match(path, "levels.03.fn.2.1") is None
    assert match(parse_path("{i}.{i}"), "1.2") is None
    assert match(parse_path("a{i}0.{2*k+1}"), "a1200.5") == ({"i": 120, "k": 2}, "")
    assert match(parse_path("a{i}0"), "a12") is None
    with pytest.raises(ValueError, match="nothing parts the numbers"):
        parse_path("a{i}0{k}")


def test_paths_look_numbers_up_in_the_config():
    class Config:
        depth = 7
        at = (0, 2, 3)

    assert fill(parse_path("{depth+5}"), {}, Config) == "12"
    assert fill(parse_path("network.{at[s]}.{b}"), {"s": 1, "b": 4}, Config) == "network.2.4"
    assert match(parse_path("network.{at[s]}.{b}"), "network.2.4") == ({"at[s]": 2, "b": 4}, "")
    with pytest.raises(ValueError, match="reads a list of a Config"):
        Table.parse("table 1\na.{at[s]}: o <-> b.{at[s]}: o").layout({})


def run(source, target, arrays):
    return Table((bind(source, target, UNUSED, 1).line,)).apply(arrays)


def test_a_whole_axis_meets_its_factors():
    sizes = {"g": 2, "o": 3, "c": 6}
    plain = Stored(parse_axes("c"), Signature(("a",), parse_axes("c")), sizes)
    split = Stored(parse_axes("(g=2 o)"), Signature(("b",), parse_axes("(o=3 g)")), sizes)
    assert run(plain, split, {"a": np.arange(6)})["b"].tolist() == [0, 3, 1, 4, 2, 5]
    assert run(split, plain, {"b": np.array([0, 3, 1, 4, 2, 5])})["a"].tolist() == [0, 1, 2, 3, 4, 5]
    other = Stored(parse_axes("(a b)"), Signature(("a",), parse_axes("(a b)")), {"a": 2, "b": 3})
    with pytest.raises(ValueError, match="two ways"):
        bind(other, split, UNUSED, 1)


def test_lengths_that_a_line_states_settle_its_axes():
    line = "a: (g=2 o) <-> b: (o g)"
    lines = Table.parse(f"table 1\n{line}\n")
    assert str(lines.lines[0]) == line
    assert lines.apply({"a": np.arange(6)})["b"].tolist() == [0, 3, 1, 4, 2, 5]
    for wrong, why in (("a: (g=2 o) <-> b: (o g=3)", "g has two lengths"), ("a: (g=0 o) <-> b: o g", "axes")):
        with pytest.raises(ValueError, match=why):
            Table.parse(f"table 1\n{wrong}")
    with pytest.raises(ValueError, match="g"):
        Table.parse("table 1\na: (g=4 o) <-> b: (o g)").apply({"a": np.arange(6)})
    onwards = Table.parse("table 1\nb: h <-> c: h\n")
    assert lines.compose(onwards).apply({"a": np.arange(6)})["c"].tolist() == [0, 3, 1, 4, 2, 5]
    assert str(Table.parse("table 1\na: i <-> b: i=3").compose(Table.parse("table 1\nb: k <-> c: k")).lines[0])


def test_constants_of_a_stated_length_need_no_other_array():
    made = Table.parse("table 1\n<-> unused: a=2 b=3 = 0\n").apply({})
    assert made["unused"].tolist() == [[0, 0, 0], [0, 0, 0]]


AXES = st.permutations("abcd").flatmap(
    lambda order: st.tuples(
        st.just(order), st.lists(st.integers(0, 3), max_size=3), st.sets(st.sampled_from("abcd"), max_size=2)
    )
)


def grouped(order, cuts, sizes):
    edges = sorted({0, *cuts, len(order)}) if order else [0]
    return tuple(
        Dim(tuple((Part(axis, length=sizes[axis]),) for axis in order[a:b])) for a, b in itertools.pairwise(edges)
    )


@given(AXES, AXES, st.lists(st.integers(1, 4), min_size=4, max_size=4))
@settings(max_examples=100, deadline=None, derandomize=True)
def test_any_two_ways_to_store_an_array_translate_there_and_back(left, right, lengths):
    sizes = dict(zip("abcd", lengths, strict=True))
    hub = parse_axes("a b c d")

    def side(name, drawn):
        order, cuts, stacked = drawn
        inner = [axis for axis in order if axis not in stacked]
        path = [name]
        for axis in sorted(stacked):
            path += [".", Hole(axis, values=tuple(map(str, range(sizes[axis]))))]
        return Stored(hub, Signature(tuple(path), grouped(inner, cuts, sizes)), sizes)

    source, target = side("x", left), side("y", right)
    count = int(np.prod(lengths))
    whole = Stored(hub, Signature(("hub",), hub), sizes)
    numbers = np.arange(count).reshape(lengths)
    stored = run(whole, source, {"hub": numbers})
    assert {name: array.shape for name, array in stored.items()} == dict.fromkeys(source.names.values(), source.shape)
    there = run(source, target, stored)
    assert sorted(np.concatenate([v.ravel() for v in there.values()])) == list(range(count))  # each element once
    back = run(target, source, there)
    assert all(np.array_equal(stored[name], back[name]) for name in stored)
    assert np.array_equal(run(target, whole, there)["hub"], numbers)


def test_the_most_specific_line_applies():
    found = rules("a.{i} <-> x.{i}\na.{i}.b <-> y.{i}")
    assert [rule.ours.label for rule in found] == ["a.{i}.b", "a.{i}"]


DIALECTS = [(name, dialect) for name in specs.names() for dialect in ("hub", *PORTS, *specs.get(name).dialects)]


@pytest.mark.parametrize(("architecture", "dialect"), DIALECTS)
def test_a_dialect_is_a_table(architecture, dialect):
    """Its text alone, without the Config, says where each array goes, and leads back."""
    spec = specs.get(architecture)
    for k, config in enumerate(spec.tiny.values()):
        written = table(spec, "hub", dialect, config)
        read = Table.parse(written.print())
        assert read == written
        ours = {p.name: p.shape for p in parameters(list(spec.layers(config)))}
        layout = read.layout(ours) if k else read.prove(ours)
        theirs = ours if dialect == "hub" else shapes(spec.layers(config), {**PORTS, **spec.dialects}[dialect], config)
        assert {name: shape for name, shape in layout.shapes.items() if name not in layout.constants} == theirs
        if not k:
            through = table(spec, "torch", "hub", config).compose(written)
            assert through.layout(shapes(spec.layers(config), PORTS["torch"])).shapes == layout.shapes

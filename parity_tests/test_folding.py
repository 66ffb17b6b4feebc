"""Names told in few lines."""

from __future__ import annotations

import pytest

from convert.files.skipped import Skipped
from convert.folding import by_reason, equations, fold, listed, nearest, skipped, summarised
from convert.terminal import shortened
from parity_tests.files.harm import soon
from specs.notation.folding import FOLDED, misfits


def test_numbers_are_folded() -> None:
    assert fold(f"blocks.{k}.norm.bias" for k in (2, 0, 1, 1)) == ["blocks.{0..2}.norm.bias"]
    assert fold(f"blocks.{k}.w" for k in (0, 2)) == ["blocks.{0,2}.w"]
    assert fold(f"{k}.fc{n}" for k in range(3) for n in (1, 2)) == ["{0..2}.fc{1..2}"]
    assert fold(["a.1", "a.2.b", "x", "#.3", "#.4"]) == ["a.1", "a.2.b", "x", "#.{3..4}"]
    assert fold(["1234567890", "1234567891"]) == ["1234567890", "1234567891"]
    assert fold(["a.01", "b.00", "b.01", "b.02"]) == ["a.01", "b.{00..02}"]  # as the file spells them
    assert fold(f"a.{k}" for k in (0, 3, 4, 5, 8, 9)) == ["a.{0,3..5,8,9}"]
    assert fold(["a.1", "a.01", "a.2", "a.\u0661"]) == ["a.{01,1,2}", "a.\u0661"]


def test_reasons_are_joined_that_differ_in_their_own_name_alone() -> None:
    unused = "no use of it was matched"  # which has the letters of the names
    assert by_reason({"a": unused, "w": unused}) == {unused: ["a", "w"]}
    own = {f"gate.{k}": f"the right multiplies by gate.{k}, the left does not" for k in (0, 1)}
    assert by_reason(own) == {"the right multiplies by gate.{0..1}, the left does not": [*own]}
    apart = {"a": "a reads it as a.b", "w": "w reads it as a.b"}
    assert by_reason(apart) == {"a and w reads it as a.b": ["a", "w"]}


def test_long_lists_of_numbers_are_shortened_on_a_terminal() -> None:
    even = ",".join(str(k) for k in range(0, 48, 2))
    assert shortened(f"a.{{{even}}}.b, [{even.replace(',', ', ')}]") == "a.{0,2,4,6,...,46}.b, [0, 2, 4, 6, ..., 46]"
    assert shortened("a.{0,2,4}.b of [1, 2, 3, 4]") == "a.{0,2,4}.b of [1, 2, 3, 4]"


def test_of_many_runs_of_numbers_the_first_ones_and_the_last_one_are_listed() -> None:
    """Up to twelve are listed: a Table that lacks every third of thousands of blocks says so in one line."""
    assert fold(f"l.{3 * k}.w" for k in range(1000)) == ["l.{0,3,6,9,12,15,...,2997}.w"]
    assert fold(f"l.{3 * k}.w" for k in range(12)) == ["l.{0,3,6,9,12,15,18,21,24,27,30,33}.w"]


def test_only_the_first_numbers_of_a_name_are_folded() -> None:
    assert fold("0." * FOLDED + f"{k}" for k in range(2)) == ["0." * FOLDED + f"{k}" for k in range(2)]
    with soon("fold"):
        assert len(fold("0.1.2.3." * 475 + f"{k}" for k in range(2000))) == 2000


def test_a_summary_counts_the_names_that_it_leaves_out():
    assert summarised(f"blocks.{k}.{leaf}" for leaf in "ab" for k in range(3)) == "blocks.{0..2}.a and 3 more"
    assert summarised(["a.1"]) == "a.1" and summarised(["a.1", "a.2"]) == "a.{1..2}"


def test_a_cut_list_counts_what_it_leaves_out():
    assert listed(["a.0", "a.1", "b"]) == "a.{0..1}, b"
    assert listed("abcdefgh") == "a, b, c, d, e, f and 2 more"


def test_blocks_of_many_arrays_that_do_not_fit_take_one_line() -> None:
    arrays = [f"blocks.{k}.{leaf}" for k in (8, 9) for leaf in "abcd"]
    assert misfits([("stem", "is wrong"), *((name, "is wrong") for name in arrays)]) == [
        "stem is wrong",
        "blocks.{8..9} (4 arrays each, as a): each is wrong",
    ]
    shapes = [(name, f"has shape [{ord(name[-1])}]") for name in arrays]
    assert misfits(shapes) == ["blocks.{8..9}.a has shape [97] (and 3 more arrays of each block)"]
    assert misfits(shapes[:4]) == ["blocks.8.a has shape [97] (and 3 more arrays of this block)"]
    assert misfits(shapes[:3]) == [f"blocks.8.{leaf} has shape [{97 + k}]" for k, leaf in enumerate("abc")]
    unlike = [*shapes, ("blocks.10.a", "is wrong"), ("layer1.w", "is wrong")]  # layer1 is a word, and no block
    assert misfits(unlike)[:2] == ["blocks.10.a is wrong", "layer1.w is wrong"]


@pytest.mark.parametrize(("rows", "lines"), [
    ([("l0.w", "0.c"), ("l1.w", "1.c"), ("l10.w", "10.c"), ("e", "h")], ["l{0,1,10}.w = {0,1,10}.c", "e = h"]),
    ([("l1", "b.6"), ("l0", "b.5")], ["l{0..1} = b.{5..6}"]),
    ([("l0", "b.1"), ("l1", "b.0")], ["l0 = b.1", "l1 = b.0"]),  # crossed
    ([("l0", "b.0"), ("l1", "b.0")], ["l0 = b.0", "l1 = b.0"]),  # of one
    ([("l0.0", "b.0"), ("l1.1", "b.1")], ["l0.0 = b.0", "l1.1 = b.1"]),  # {0..1}.{0..1} would be four
    ([("a.0", "b.0", "c.0"), ("a.1", "b.1", "c.1")], ["a.{0..1} = b.{0..1} = c.{0..1}"]),
])  # fmt: skip
def test_equations_fold_where_their_numbers_go_together(rows: list[tuple[str, ...]], lines: list[str]) -> None:
    assert equations(rows) == lines


def test_a_name_that_is_a_number_is_quoted():
    """As the third entry of a tuple, which would read as how many there are."""
    entries = Skipped()
    entries.add("2", "plain numbers", 7)
    assert skipped(entries) == skipped(entries, "0") == ["'2' (plain numbers)"]


@pytest.mark.parametrize(("name", "others", "meant"), [
    ("steem.weight", ["head.weight", "stem.weight"], "stem.weight"),
    ("stem.weight", ["head.weight", "norm.weight", "stem.bias"], ""),  # these share a level, and nothing else
    ("blocks.0.MLP.fc.weight", ["blocks.0.mlp.fc.weight", "blocks.0.mlp.fd.weight"], "blocks.0.mlp.fc.weight"),
    ("stem.conv.weight", ["stem.weight"], "stem.weight"),
    ("conv.weight", ["weight"], ""),
    ("blocks.{0..3}.attn.qkv.weight", ["blocks.{0..3}.mlp.fc1.weight", "blocks.{0..3}.attn.proj.weight"], ""),
])  # fmt: skip
def test_a_name_is_offered_only_where_it_may_be_meant(name: str, others: list[str], meant: str) -> None:
    assert nearest([name], others) == ({name: meant} if meant else {})


@pytest.mark.parametrize("part", ["", "model"])
def test_many_entries_are_listed_by_their_containers(part: str) -> None:
    """Whether a part of the file is known to be the model or not."""
    entries = Skipped()
    for name in ("epoch", *(f"scheduler/{key}" for key in "abcdefg")):
        entries.add(name, "a number", 1)
    assert skipped(entries, part) == ["epoch, scheduler/... (7) (a number)"]


def test_a_single_entry_of_a_container_is_listed_by_its_own_name() -> None:
    entries = Skipped()
    for name in ("optimizer/groups/0/lr", *(f"scheduler/{letter}" for letter in "abcdefghijkl")):
        entries.add(name, "a number")
    assert skipped(entries) == ["optimizer/groups/0/lr, scheduler/... (12) (a number)"]

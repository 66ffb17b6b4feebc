"""Rows of blocks become one line, whatever the lengths of their lists, unless that says more than the models show."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import pytest

import parity
from convert.errors import ConvertError
from convert.files.base import Tensor
from convert.table.laying_out import lay_out
from parity.derive.findings.blocks import lone, uncounted_blocks, unlike_orders
from parity.derive.fold.blocks import folded
from parity.derive.fold.facts import Facts
from parity.derive.fold.fold import fold
from parity.derive.fold.rows import Row
from parity.derive.match.symbols import Elements
from parity.derive.trace.sites import OWN, place
from specs.notation.paths import Hole
from specs.table import Table, TableError

from ..conftest import needs
from .pairs import images, initial

Pairs = list[tuple[str, str]]


def stages(counts: Sequence[int], leaf: str = "g") -> Pairs:
    """Return the names of blocks in stages on both sides."""
    places = [(i, j) for i, count in enumerate(counts) for j in range(count)]
    return [(f"stages.{i}.{j}.{leaf}", f"levels/{i}/units_{j}/{leaf}") for i, j in places]


def lines(pairs: Iterable[tuple[str, str]]) -> list[str]:
    rows = [Row(((left, "c"),), ((right, "c"),)) for left, right in pairs]
    return [str(row).replace(": c", "") for row in folded(rows)]


NESTED = "stages.{i}.{j}.g <-> levels/{i}/units_{j}/g"


@pytest.mark.parametrize("counts", [(1, 2, 1), (2, 3, 2), (3, 1), (1, 4), (2, 2, 2)], ids=str)
def test_stages_fold_whatever_the_number_of_their_blocks(counts: tuple[int, ...]):
    assert lines(stages(counts)) == [NESTED]


def test_three_levels_fold():
    places = [(a, b, c) for a, n in enumerate([(1, 2), (2, 1, 3)]) for b, k in enumerate(n) for c in range(k)]
    assert lines((f"m.{a}.{b}.{c}.w", f"n_{a}/{b}/x_{c}/w") for a, b, c in places) == [
        "m.{i}.{j}.{k}.w <-> n_{i}/{j}/x_{k}/w"
    ]


def test_numbers_behind_a_word_for_blocks_count_and_those_of_layers_in_a_block_do_not():
    pairs = [(f"blocks.{i}.{leaf}.w", f"b{i}_{leaf}/w") for i in range(2) for leaf in ("conv1_bn", "conv2_bn")]
    expected = ["blocks.{i}.conv1_bn.w <-> b{i}_conv1_bn/w", "blocks.{i}.conv2_bn.w <-> b{i}_conv2_bn/w"]
    assert lines(pairs) == expected


def test_blocks_that_one_side_counts_through_all_stages_stay_apart():
    pairs = [(left, f"unit_{k}/g") for k, (left, _) in enumerate(stages((2, 3)))]
    assert lines(pairs) == ["stages.0.{i}.g <-> unit_{i}/g", "stages.1.{i}.g <-> unit_{i+2}/g"]


def test_a_stage_that_differs_stays_apart_and_the_others_fold():
    assert lines(stages((3, 2, 3))[1:]) == [
        "stages.0.{i+1}.g <-> levels/0/units_{i+1}/g", "stages.{i+1}.{j}.g <-> levels/{i+1}/units_{j}/g",
    ]  # fmt: skip


def test_a_gap_in_a_list_is_no_list():
    first, _, last = stages((3,))
    assert NESTED not in lines([first, last, *((a.replace("s.0", "s.1"), b.replace("/0/", "/1/")) for a, b in [first])])


def test_one_block_becomes_a_list_only_where_the_same_array_counts_elsewhere():
    layers = [(f"encoder.layers.{i}.n", f"enc/layers_{i}/n") for i in range(2)]
    alone = [("decoder.layers.0.n", "dec/layers_0/n"), ("decoder.layers.0.cross", "dec/layers_0/cross")]
    assert lines([*layers, *alone])[1:] == [
        "decoder.layers.{i}.n <-> dec/layers_{i}/n", "decoder.layers.0.cross <-> dec/layers_0/cross",
    ]  # fmt: skip
    assert lines(alone) == [f"{left} <-> {right}" for left, right in alone]
    moved = [("decoder.layers.1.n", "dec/layers_1/n")]  # its list does not begin as the other does
    assert lines([*layers, *moved])[1:] == ["decoder.layers.1.n <-> dec/layers_1/n"]


def test_a_fold_that_asks_for_arrays_which_some_blocks_lack_is_given_up():
    """Only the first block of each stage has a shortcut, and only some stages have a scale: no line may say more."""
    pairs = [*stages((2, 3, 2)), *stages((1, 1, 1), "shortcut"), *stages((2, 3), "scale")]
    lefts, rights = ({name: np.zeros(2) for name in side} for side in zip(*pairs, strict=True))
    a, b = Elements(lefts, known=True), Elements(rights, known=False)
    found = np.zeros(len(b), np.int64)
    for left, right in pairs:
        found[b.numbers(right).astype(int)] = a.numbers(left)
    table, missing = fold(Facts(a, b, found, np.zeros_like(found), ("torch", "flax")))
    assert not missing and [str(line).replace(": c", "") for line in table.lines] == [
        NESTED,
        "stages.{i}.0.shortcut <-> levels/{i}/units_0/shortcut",
        "stages.0.{i}.scale <-> levels/0/units_{i}/scale",
        "stages.1.{i}.scale <-> levels/1/units_{i}/scale",
    ]


def test_blocks_that_stand_alone_are_named():
    def alone(pairs: Pairs) -> list[str]:
        texts = (text.replace(" <->", ": c <->") for text in lines(pairs))
        table = Table.parse("table 1\n" + "".join(f"{text}: c\n" for text in texts))
        return lone(table, *map(list, zip(*pairs, strict=True)))

    assert alone([*stages((1, 1)), ("head.0.w", "head/w")]) == ["stages.{i}.0"]  # the right head has no number
    assert alone([*stages((2, 1)), *stages((1, 1), "shortcut"), ("stem.0.w", "stem/0/w"), ("stem.1.w", "s/w")]) == []
    assert alone([("rnn.weight_l0", "lstm.0.w"), ("rnn.weight_l0_reverse", "lstm.0.back")]) == ["rnn.weight_l0"]


def test_one_block_that_a_side_stacks_stands_alone():
    lines = "layers/scale: 1 c", "h.0.scale: c", "embed/cls: 1 1 c", "embed.0.cls: 1 c", "head/w: i o", "head.w: o i"
    names = [line.split(":")[0] for line in lines]
    for left, right in ((0, 1), (1, 0)):  # a class token has an axis of length 1 on both sides
        table = Table.parse("\n".join(["table 1", *(f"{lines[k + left]} <-> {lines[k + right]}" for k in (0, 2, 4))]))
        assert lone(table, names[left::2], names[right::2]) == ["h.0"]
        deeper = ["layers/scale", "h.0.scale", "h.1.scale"]
        assert lone(table, deeper, deeper) == []


def test_what_one_block_of_a_list_alone_has_is_named():
    pairs = [*stages((2, 2)), *(place for place in stages((1, 1), "short.w") if "stages.1" in place[0])]
    text = "table 1\n" + "".join(f"{line.replace(' <->', ': c <->')}: c\n" for line in lines(pairs))
    assert "stages.1.0.short.w: c <->" in text
    assert lone(Table.parse(text), *map(list, zip(*pairs, strict=True))) == ["stages.1.0.short"]


def test_what_is_dropped_of_one_block_alone_is_named():
    """As masks of every second block, of which a list of two has one."""
    texts = "table 1", "l.{i}.b.{j}.w: c <-> l.{i}.b.{j}.w: c", "l.{i}.b.1.mask -> drop", "drop <- l.{i}.b.0.shift"
    rest = "l.{i}.norm: c <-> l.{i}.norm: c", "l.{i}.b.{j}.ids -> drop", "l.{i}.k.1.ids -> drop"
    names = [f"l.{i}.b.{j}.w" for i in (0, 1) for j in (0, 1)]
    assert lone(Table.parse("\n".join((*texts, *rest))), names, names) == ["l.{i}.b.1.mask", "l.{i}.b.0.shift"]


@pytest.mark.parametrize("suffix", ["", "_reverse"])
def test_numbers_of_recurrent_layers_in_the_names_of_arrays_count(suffix: str):
    def layer(k: int) -> Row:
        names = f"rnn.weight_l{k}{suffix}", f"rnn.{k}.cell.weight", f"lstm.weight_l{k}{suffix}"
        left, tied, right = ((name, "o i") for name in names)
        return Row((left, tied), (right,), joins=(" = ", ""))

    wanted = f"rnn.weight_l{{i}}{suffix}: o i = rnn.{{i}}.cell.weight: o i <-> lstm.weight_l{{i}}{suffix}: o i"
    assert [str(row) for row in folded([layer(0), layer(1)])] == [wanted]
    assert lines((f"mlp.fc{k}.w", f"up.fc{k}.w") for k in (1, 2)) == [f"mlp.fc{k}.w <-> up.fc{k}.w" for k in (1, 2)]


def test_deeper_checkpoints_are_refused_with_advice_where_numbers_alone_differ():
    table = Table.parse("table 1\nstages.0.0.g: c <-> levels/0/g: c\nhead.w: c <-> head/w: c\n")
    sources = {name: Tensor(name, (2,), "float32") for name in ("stages.0.0.g", "stages.0.1.g", "head.w", "tail.w")}
    with pytest.raises(ConvertError) as error:
        lay_out(table, "x", sources, None, {})
    assert "stages.0.1.g: no line speaks of it (line 2, stages.0.0.g, has other numbers)" in error.value.problems
    assert "derive the table from models with two of everything" in error.value.problems[-1]
    del sources["stages.0.1.g"]
    with pytest.raises(ConvertError) as error:
        lay_out(table, "x", sources, None, {})
    assert "two of everything" not in str(error.value)


def test_a_table_of_short_stages_translates_deeper_ones():
    needs("torch")
    found = parity.derive(staged((1, 2, 1)), staged((1, 2, 1)), (images(2, 3),))
    assert found.proven and found.fixed == []
    deep = {name: array.numpy() for name, array in staged((3, 1, 2, 2)).state_dict().items()}
    assert {**found.table.apply(deep)}.keys() == deep.keys()


def staged(counts: Sequence[int]) -> Any:
    import torch

    class Staged(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            layers = torch.nn.ModuleList
            self.stages = layers(layers(torch.nn.Linear(3, 3) for _ in range(count)) for count in counts)

        def forward(self, x: Any) -> Any:
            for stage in self.stages:
                for layer in stage:  # type: ignore[attr-defined]
                    x = torch.tanh(layer(x))
            return x

    return Staged()


def test_a_place_without_a_module_has_the_name_of_its_parameter():
    assert place("blocks.0", ("a.weight",)) == "blocks.0"
    assert place("", ("levels/0/contract/kernel", "levels/1/k")) == "levels/0/contract"
    assert place("", ("w0",)) == OWN == "the model's own function"


def in_lists(flat: bool) -> Any:
    """Two lists of blocks, or all of them in one list, each stage behind a layer of its own."""
    import torch

    class Lists(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            (linear, blocks), (a, b) = (torch.nn.Linear, []), (torch.nn.Linear(4, 4, bias=False) for _ in range(2))
            for _ in range(6):
                blocks.append(torch.nn.ModuleDict({"up": linear(4, 4), "down": linear(4, 4)}))
            if flat:
                self.blocks = torch.nn.ModuleList([a, *blocks[:3], b, *blocks[3:]])
            else:
                self.between = torch.nn.ModuleList([a, b])
                self.stages = torch.nn.ModuleList(map(torch.nn.ModuleList, (blocks[:3], blocks[3:])))

        def forward(self, x: Any) -> Any:
            parts = self.blocks if flat else [part for k in (0, 1) for part in (self.between[k], *self.stages[k])]
            for part in parts:
                x = x + part.down(part.up(x).tanh()) if isinstance(part, torch.nn.ModuleDict) else part(x).tanh()
            return x

    return Lists()


def test_stages_in_one_list_state_their_ranges_and_the_table_reads_back():
    needs("torch")
    left, right = in_lists(False), in_lists(True)
    found = parity.derive(left, right, (images(2, 4),))
    assert found.proven, str(found)
    text = found.table.print()
    assert "stages.0.{i=0..2}.up.weight: o i <-> blocks.{i+1}.up.weight: o i" in text
    assert "stages.1.{i=0..2}.up.weight: o i <-> blocks.{i+5}.up.weight: o i" in text
    arrays = {name: value.detach().numpy() for name, value in left.state_dict().items()}
    back = found.table.reverse().apply(found.table.apply(arrays))
    assert back.keys() == arrays.keys() and all(np.array_equal(back[name], arrays[name]) for name in arrays)


def in_stages(nested: bool, stages: int, depth: int) -> Any:
    """Return a model of residual blocks in one list, or in a list of stages, with a scale behind each stage."""
    import torch

    class Stages(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            every = [[torch.nn.Linear(4, 4) for _ in range(depth)] for _ in range(stages)]
            lists = map(torch.nn.ModuleList, every) if nested else [block for stage in every for block in stage]
            self.blocks = torch.nn.ModuleList(lists)

        def forward(self, x: Any) -> Any:
            for i in range(stages):
                for j in range(depth):
                    x = x + (self.blocks[i][j] if nested else self.blocks[depth * i + j])(x).tanh()
                x = x * 0.5
            return x

    return Stages()


@pytest.mark.parametrize("nested", [False, True])
def test_blocks_that_one_side_counts_through_its_stages_are_refused_at_other_depths(nested: bool):
    needs("torch")
    found = parity.derive(in_stages(nested, 3, 2), in_stages(not nested, 3, 2), (images(2, 4),))
    assert found.proven and found.this_depth, str(found)
    for table, side in ((found.table, nested), (found.table.reverse(), not nested)):
        for stages, depth in ((3, 3), (2, 3), (2, 2), (4, 2), (1, 3)):
            arrays = {name: value.detach().numpy() for name, value in in_stages(side, stages, depth).named_parameters()}
            if side or stages * depth != 6:  # names of one list do not show how its blocks are divided
                with pytest.raises(TableError):
                    table.apply(arrays)


def test_numbers_of_two_lists_in_one_name_fold():
    assert lines([(f"stages.{i}.{j}.w", f"stage{i}_block{j}/w") for i in range(3) for j in range(2)]) == [
        "stages.{i}.{j}.w <-> stage{i}_block{j}/w"
    ]
    assert lines([(f"stages.{i}.{j}.w", f"layer{i + 1}_{j}/w") for i in range(3) for j in range(2)]) == [
        "stages.{i}.{j}.w <-> layer{i+1}_{j}/w"
    ]
    assert len(lines([("up.w", "fc1/w"), ("down.w", "fc2/w")])) == 2


def test_a_list_inside_of_blocks_is_written_for_each_of_its_numbers_and_folded_over_the_blocks():
    """A Sequential of a norm, a layer, a function and a layer: 0, 1 and 3 grow by no one step."""
    pairs = [(f"layers.{i}.mlp.{j}.bias", f"mlps/{i}/layers/{j}/bias") for i in range(2) for j in (0, 1, 3)]
    assert lines(pairs) == [
        "layers.{i}.mlp.0.bias <-> mlps/{i}/layers/0/bias",
        "layers.{i}.mlp.1.bias <-> mlps/{i}/layers/1/bias",
        "layers.{i}.mlp.3.bias <-> mlps/{i}/layers/3/bias",
    ]


@pytest.mark.parametrize("sizes", [(4, 8), (4, 8, 16), (4, 8, 16, 32), (1, 2, 4), (0, 3, 5, 8)], ids=str)
def test_numbers_that_grow_by_no_one_step_are_listed(sizes: tuple[int, ...]):
    listed = Hole("i", values=tuple(map(str, sizes)))
    counted = Hole("i", values=tuple(map(str, range(len(sizes)))))
    assert lines((f"blocks.{i}.f.w", f"b{n}.f.w") for i, n in enumerate(sizes)) == [
        f"blocks.{counted}.f.w <-> b{listed}.f.w"
    ]
    assert lines((f"b{n}.f.w", f"blocks.{i}.f.w") for i, n in enumerate(sizes)) == [
        f"b{listed}.f.w <-> blocks.{counted}.f.w"
    ]
    nested = [(f"blocks.{i}.{j}.w", f"b{n}.{j}.w") for i, n in enumerate(sizes) for j in range(2)]
    assert lines(nested) == [f"blocks.{i}.{{i}}.w <-> b{n}.{{i}}.w" for i, n in enumerate(sizes)]


def test_blocks_around_one_with_another_line_are_listed():
    """{2*i} would take a checkpoint of two blocks."""
    first, one, last = (
        Row(((f"a.{i}.w", "o i"),), ((f"b.{i}.w", axes),)) for i, axes in enumerate(("o i", "i o", "o i"))
    )
    assert [str(row) for row in folded([first, one, last])] == [
        "a.{i=0|2}.w: o i <-> b.{i=0|2}.w: o i",
        "a.1.w: o i <-> b.1.w: i o",
    ]
    norm = Row((("a.1.w", "c"),), (("b.1.w", "c"),))  # of another layer
    assert [str(row) for row in folded([first, norm, last])][:1] == ["a.{2*i}.w: o i <-> b.{2*i}.w: o i"]


def test_numbers_in_two_orders_are_listed_wherever_they_stand():
    """{i} beside {i=0|1|2} and {i=1|0|2} would be ambiguous, and no Table."""
    rows = [Row(((f"r.{i}.w", "(a+b)"),), ((f"res_{i}/w", "a"), (f"skip_{n}/w", "b"))) for i, n in enumerate((1, 0, 2))]
    (row,) = folded(rows)
    assert [path for path, _ in row.right] == ["res_{i=0..2}/w", "skip_{i=1|0|2}/w"]
    assert Table.parse(f"table 1\n{row}\n").lines


def test_blocks_of_one_list_that_are_stages_on_the_right_list_their_numbers():
    flat = [(f"blocks.{3 * i + j}.w", f"stages.{i}.{j}.w") for i in range(2) for j in range(3)]
    assert lines(flat) == [
        "blocks.{i=0..2}.w <-> stages.0.{i}.w",
        "blocks.{i=3..5}.w <-> stages.1.{i=0..2}.w",
    ]


def test_lines_of_one_depth_alone_are_named():
    def fixed(*texts: str) -> list[str]:
        return uncounted_blocks(Table.parse("table 1\n" + "\n".join(texts) + "\n"))

    first, other = "points.0.w: o i <-> trunk/0/w: i o", "points.1.w: o (a+b) <-> trunk/1/w: (b+a) o"
    assert fixed(first, "points.{i}.b: c <-> trunk/{i}/b: c", other) == ["points.0", "points.1"]
    assert fixed("points.{i}.b: c <-> trunk/{i}/b: c", "a.0.w: c <-> b/0/w: c") == []
    assert fixed("layer1.{i=0|1}.w: c <-> RB_{i}/w: c") == ["layer1.0", "layer1.1"]
    assert fixed("{s=enc.0|enc.1|dec.0|end}.w: o i <-> w: s i o") == ["enc.0", "enc.1"]
    assert fixed("a.0.{s=k|v}.w: o <-> b.0.w: (s o)", "a.1.{s=v|k}.w: o <-> b.1.w: (s o)") == ["a.0", "a.1"]
    assert fixed("w: s i o <-> {s=enc.0|enc.1|dec}.w: o i") == ["enc.0", "enc.1"]
    assert fixed("down.0.0.w: c <-> down0_conv/w: c", "down.1.1.w: c <-> down1_conv/w: c") == ["down.0.0", "down.1.1"]
    assert fixed("a.conv1.w: c <-> b.conv1.w: c", "a.conv2.w: c <-> b.conv2.w: c") == []
    assert fixed("a.{i=0|2|3}.w: o i <-> b.{i=0|2|3}.w: o i", "a.1.w: o i <-> b.1.w: i o")[3:] == ["a.1"]
    assert fixed("a.{2*i}.w: o i <-> b.{2*i}.w: o i", "a.{2*i+1}.w: o i <-> b.{2*i+1}.w: i o") == []
    assert fixed("a.0.w: o i <-> b.0.w: i o", "a.{i+1}.w: o i <-> b.{i+1}.w: o i") == []
    assert fixed("seq.0.w: c <-> up.w: c", "seq.2.w: c <-> down.w: c", "qkv.w: (s o) i <-> {s=1|2|3}.w: o i") == []


def test_blocks_with_parts_in_another_order_are_named():
    def said(*texts: str) -> str:
        return unlike_orders(Table.parse("table 1\n" + "\n".join(texts) + "\n")).partition("; they differ")[2]

    lines = [f"a.{k}.{{s={parts}}}.w: o <-> b.{k}.w: (s o)" for k, parts in enumerate(("k|v", "v|k", "k|v"))]
    assert said(*lines) == " in the order of parts: a.{0,2} as k|v and a.1 as v|k"
    pairs = [f"a.{k}.{one}: o, a.{k}.{two}: o <-> b.{k}.w: (o+o)" for k, (one, two) in enumerate(("xy", "yx"))]
    assert said(*pairs) == " in the order of parts: a.0 as x, y and a.1 as y, x"
    turned = said("p.0.w: o i <-> t/0/w: i o", "p.1.w: o (a+b) <-> t/1/w: (b+a) o")
    assert turned == " in the order of parts: p.0 as w: o i <-> w: i o and p.1 as w: o (a+b) <-> w: (b+a) o"
    halves = [
        f"a.{k}.up.{of}: c <-> b.{k}.{right}.{of}: c" for k, right in (("{i=0|2}", "up"), (1, "gate")) for of in "wb"
    ]
    assert said(*halves) == " in the order of parts: a.{0,2} as up.w: c <-> up.w: c and a.1 as up.w: c <-> gate.w: c"
    fused = [f"a.{k}.qk.w: (1[{at}] c) <-> b.{k}.{q}.w: c" for k in (0, 2) for q, at in (("q", ":-1"), ("k", "1:"))]
    assert said(*fused) == ""


def test_layers_of_different_kinds_under_numbers_are_no_blocks():
    """A layer and its norm, whose biases alone have like lines; a block that has more layers than another is one."""
    layer = ("down.0.w: o i <-> a.0.w: i o", "down.0.b: c <-> a.0.b: c")
    norm = ("down.1.w: c <-> a.1.w: c", "down.1.b: c <-> a.1.b: c")
    blocks = ("c.0.x.w: c <-> d.0.x.w: c", "c.1.x.w: c <-> d.1.x.w: c", "c.1.y.w: c <-> d.1.y.w: c")
    found = [uncounted_blocks(Table.parse("\n".join(["table 1", *lines, ""]))) for lines in ((*layer, *norm), blocks)]
    assert found == [[], ["c.0", "c.1"]]


def test_parts_of_sums_have_the_lengths_of_the_arrays_that_make_them():
    """Their lengths agree in the small models alone: 8 + 4 and 7 + 4 in larger ones, where these are 6 + 4 twice."""
    needs("torch")
    import torch

    def dense(first: bool, stem: int, middle: int) -> Any:
        class Net(torch.nn.Module):
            def __init__(self) -> None:
                super().__init__()
                linear = torch.nn.Linear
                self.stem, self.a, self.norm = linear(3, stem), linear(stem, 4), torch.nn.LayerNorm(stem + 4)
                self.middle, self.b, self.out = linear(stem + 4, middle), linear(middle, 4), linear(middle + 4, 5)

            def forward(self, x: Any) -> Any:
                x = self.stem(x)
                x = self.middle(self.norm(self.joined(x, self.a(x).tanh())))
                return self.out(self.joined(x, self.b(x).tanh()))

            def joined(self, x: Any, y: Any) -> Any:
                return torch.cat([y, x] if first else [x, y], 1)

        return Net()

    x = np.random.default_rng(0).standard_normal((4, 3))
    found = parity.derive(dense(False, 6, 6), dense(True, 6, 6), (x,))
    assert found.proven
    texts = found.table.print()
    assert "norm.weight: (A+B) <->" in texts and "norm.bias: (A+B) <->" in texts  # of the same parts
    assert "middle.weight: E (A+B) <->" in texts and "out.weight: o (E+F) <->" in texts
    left, right = dense(False, 8, 7), dense(True, 8, 7)
    arrays = found.table.apply({name: a.numpy() for name, a in left.state_dict().items()})
    right.load_state_dict({name: torch.from_numpy(np.array(array)) for name, array in arrays.items()})
    given = torch.from_numpy(x.astype("float32"))
    torch.testing.assert_close(left(given), right(given))


def test_a_derived_table_fits_a_deeper_model_of_the_same_width():
    needs("torch")
    found = parity.derive(staged((2,)), staged((2,)), (images(2, 3),))
    deep = {name: array.numpy() for name, array in staged((3,)).state_dict().items()}
    assert {**found.table.apply(deep)}.keys() == deep.keys()


def test_both_biases_of_all_layers_are_added_in_one_order():
    """Which of the two is found first differs from layer to layer."""
    for package in ("torch", "flax"):
        needs(package)
    import flax.linen as nn
    import torch

    class Left(torch.nn.Module):
        def __init__(self, depth: int) -> None:
            super().__init__()
            self.rnn = torch.nn.LSTM(6, 8, depth, batch_first=True)

        def forward(self, x: Any) -> Any:
            return self.rnn(x)[0]

    class Right(nn.Module):
        @nn.compact
        def __call__(self, x: Any) -> Any:
            for _ in range(2):
                x = nn.RNN(nn.OptimizedLSTMCell(8))(x)
            return x

    x = images(2, 4, 6).astype("float32")  # of the dtype with which the cell begins, where JAX has float64, too
    found = parity.derive(Left(2), (Right(), initial(Right(), x)), (x,))
    cell = "params/OptimizedLSTMCell_{i}"
    line = f"rnn.bias_ih_l{{i}}: (s c) + rnn.bias_hh_l{{i}}: (s c) -> {cell}/{{s=hi|hf|hg|ho}}/bias: c"
    assert found.proven and line in found.table.print(), found.table.print()
    own = {name: array.numpy() for name, array in Left(3).state_dict().items()}
    moved = found.table.apply(own)["params/OptimizedLSTMCell_2/hg/bias"]
    assert np.array_equal(moved, (own["rnn.bias_ih_l2"] + own["rnn.bias_hh_l2"])[16:24])


def test_where_uses_agree_the_reason_is_that_of_the_lines():
    """Four layers of a list stand in a stack of two by two, which no line counts."""
    needs("torch")
    import torch

    jnp = pytest.importorskip("jax").numpy
    blocks = torch.nn.Sequential(*(torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.Tanh()) for _ in range(4)))

    def grid(p: Any, x: Any) -> Any:
        for i, j in np.ndindex(2, 2):
            x = jnp.tanh(x @ p["w"][i, j] + p["b"][i, j])
        return x

    given = {"w": np.ones((2, 2, 4, 4), np.float32), "b": np.ones((2, 2, 4), np.float32)}
    found = parity.derive(blocks, (grid, given), (images(3, 4),))
    assert "none has a partner" not in str(found)
    missing = "missing: b: no line was found, though all its values were matched, to 0.0.bias and "
    assert missing in str(found), str(found)


def test_arrays_that_were_matched_to_the_same_values_are_named_as_the_reason():
    """A kernel of 1 x 1 on a shortcut met values of the kernel of 3 x 3 beside it."""
    a = Elements({"conv": np.zeros((2, 2, 3, 3))}, known=True)
    b = Elements({"main": np.zeros((2, 2, 3, 3)), "side": np.zeros((2, 2))}, known=False)
    numbers = a.numbers("conv").astype(int)
    found = np.zeros(len(b), np.int64)
    found[b.numbers("main").astype(int)] = numbers
    found[b.numbers("side").astype(int)] = np.random.default_rng(0).permutation(numbers.ravel())[:4].reshape(2, 2)
    _, missing = fold(Facts(a, b, found, np.zeros_like(found), ("torch", "paddle")))
    said = "no line was found: main and side were matched to the same values, of conv"
    assert missing == {"main": said, "side": said}

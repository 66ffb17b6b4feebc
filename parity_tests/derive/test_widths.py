"""Models of another width, vocabulary or number of classes: the sizes are named, and no line takes a part."""

from __future__ import annotations

import contextlib
import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import parity
from parity.derive.command import run
from parity.derive.fold.facts import Facts
from parity.derive.fold.fold import fold
from parity.derive.match.symbols import Elements
from parity.derive.missing.built import differing
from parity_tests.derive.pairs import images
from parity_tests.derive.test_kinds_matching import Net, linear, tokens
from specs.table import Table


def dense(width: int, classes: int = 3) -> torch.nn.Module:
    norm = torch.nn.LayerNorm(width)
    return Net(lambda m, x: m.head(m.norm(m.stem(x)).tanh()), stem=linear(5, width), norm=norm,
               head=linear(width, classes))  # fmt: skip


def words(vocabulary: int) -> torch.nn.Module:
    parts = {"table": torch.nn.Embedding(vocabulary, 4), "mix": linear(4, 4), "head": linear(4, vocabulary)}
    return Net(lambda m, x: m.head(m.mix(m.table(x)).tanh()), **parts)


def sentences(width: int) -> torch.nn.Module:
    """An embedding, hidden units of the doubled width, and a head of the embedding's shape."""
    parts = {"mix": linear(width, 2 * width), "out": linear(2 * width, width), "head": linear(width, 12, False)}
    return Net(lambda m, x: m.head(m.out(m.mix(m.table(x)).tanh())), table=torch.nn.Embedding(12, width), **parts)


PATCHES = """
import torch

class Left(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.patch, self.norm, self.head = torch.nn.Conv2d(3, 4, 2, 2), torch.nn.LayerNorm(4), torch.nn.Linear(4, 3)

    def forward(self, x):
        return self.head(self.norm(self.patch(x).flatten(2).mT))

class Right(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.embed, self.norm, self.head = torch.nn.Linear(12, 8), torch.nn.LayerNorm(8), torch.nn.Linear(8, 3)

    def forward(self, x):
        n = x.shape[2] // 2
        x = x.reshape(-1, 3, n, 2, n, 2).permute(0, 2, 4, 1, 3, 5).reshape(len(x), n * n, 12)
        return self.head(self.norm(self.embed(x)))

def left():
    return Left(), (torch.randn(2, 3, 4, 4),)

def right():
    return Right()
"""


def squeezed(width: int, convolution: bool) -> torch.nn.Module:
    """A stem, and a gate by what all places have in common, of a 1x1 convolution or a dense layer."""
    squeeze = torch.nn.Conv2d(4, width, 1) if convolution else linear(4, width)
    parts = {"stem": torch.nn.Conv2d(3, 4, 3), "squeeze": squeeze, "excite": linear(width, 4)}

    def forward(m: Any, x: Any) -> Any:
        x = m.stem(x).relu()
        mean = x.mean((2, 3), keepdim=convolution)
        return x * m.excite(m.squeeze(mean).reshape(len(x), -1).relu()).sigmoid()[..., None, None]

    return Net(forward, **parts)


def normed(width: int) -> torch.nn.Module:
    """A convolution behind a batch norm whose statistics and weights could go together in other ways."""

    def convolution(i: int, o: int) -> torch.nn.Module:
        return torch.nn.Conv2d(i, o, 1, bias=False)

    parts = {"stem": convolution(3, 8), "stem_norm": torch.nn.BatchNorm2d(8), "up": convolution(8, 8),
             "norm": torch.nn.BatchNorm2d(8), "last": convolution(8, width), "head": linear(width, 3)}  # fmt: skip

    def forward(m: Any, x: Any) -> Any:
        x = m.norm(m.up(m.stem_norm(m.stem(x)).relu()))
        return m.head(m.last(x).relu().mean((2, 3)))

    return Net(forward, **parts)


WIDTH = "the left model has {} where the right one has {}, in stem.weight [{}, 5] and stem.weight [{}, 5]"
WORDS = "the left model has {} where the right one has {}, in {name}.weight [{}, 4] and {name}.weight [{}, 4]"
CASES = {
    "a narrower right model": (dense(8), dense(6), images(3, 5), WIDTH.format(8, 6, 8, 6)),
    "a wider right model": (dense(6), dense(8), images(3, 5), WIDTH.format(6, 8, 6, 8)),
    "a convolution of another width than a dense layer": (
        squeezed(6, True),
        squeezed(5, False),
        images(2, 3, 6, 6),
        "the left model has 6 where the right one has 5, in squeeze.weight [6, 4, 1, 1] and squeeze.weight [5, 4]",
    ),
    "a narrower convolution behind a batch norm": (
        normed(10),
        normed(7),
        images(2, 3, 4, 4),
        "the left model has 10 where the right one has 7, in last.weight [10, 8, 1, 1] and last.weight [7, 8, 1, 1]",
    ),
    "a smaller vocabulary": (words(14), words(12), tokens(2, 5), WORDS.format(14, 12, 14, 12, name="head")),
    "a doubled width behind an embedding": (
        sentences(4),
        sentences(8),
        tokens(2, 5),
        "the left model has 4 where the right one has 8, in table.weight [12, 4] and table.weight [12, 8]",
    ),
    "a larger vocabulary": (words(12), words(14), tokens(2, 5), WORDS.format(12, 14, 12, 14, name="table")),
}


@pytest.mark.parametrize("name", CASES)
def test_sizes_that_differ_are_named(name: str):
    left, right, given, text = CASES[name]
    found = parity.derive(left, right, (given,), seconds=5)
    assert found.verdict == "incomplete" and found.sizes.startswith(text), str(found)
    assert (
        f"sizes differ: {text}" in str(found) and found.following == "build both models of one size, and derive again"
    )
    lines = [line for line in found.table.print().splitlines() if not line.startswith("#")]
    assert not any("[" in line for line in lines), lines


@pytest.mark.parametrize(("width", "classes"), [(8, 3), (5, 4)])
def test_sizes_are_named_behind_another_difference(width: int, classes: int):
    """What reads the same values on both sides shows only without the cause."""

    def net(epsilon: float, width: int, classes: int) -> Net:
        def run(m: Any, x: Any) -> Any:
            return m.head(m.down(m.up(m.norm(m.stem(x))).tanh()))

        parts = {"stem": linear(6, 7), "up": linear(7, width), "down": linear(width, 6), "head": linear(6, classes)}
        return Net(run, norm=torch.nn.LayerNorm(7, epsilon), **parts)

    found = parity.derive(net(1e-5, 8, 4), net(1e-2, width, classes), (images(5, 6),))
    lengths = "4 where the right one has 3" if width == 8 else "8 where the right one has 5"
    assert found.sizes.startswith(f"the left model has {lengths}"), str(found)
    assert found.divergences[0].what == "epsilon 1e-5 on the left, 0.01 on the right" and "sizes differ" in str(found)


def test_a_size_is_named_though_another_array_has_taken_the_larger_one():
    """The larger squeeze has the shape of the convolution behind it, which reads other values."""

    class Squeezed(torch.nn.Module):
        def __init__(self, width: int) -> None:
            super().__init__()
            self.stem, self.conv = torch.nn.Conv2d(3, 12, 3), torch.nn.Conv2d(12, 5, 1)
            self.squeeze, self.excite = torch.nn.Conv2d(12, width, 1), torch.nn.Conv2d(width, 12, 1)

        def forward(self, x: Any) -> Any:
            x = self.stem(x).relu()
            gate = self.excite(self.squeeze(x.mean((2, 3), keepdim=True)).relu()).sigmoid()
            return self.conv(x * gate).relu().mean((2, 3))

    given = Table.parse("table 1: torch <-> torch\nsqueeze.weight: o i y x <-> conv.weight: o i y x")
    found = parity.derive(Squeezed(5), Squeezed(4), (images(1, 3, 9, 8),), table=given)
    assert found.reasons["squeeze.weight"] == "it has 4 where squeeze.weight has 5", str(found)
    assert found.sizes.startswith("the left model has 5 where the right one has 4") and "stopped at" not in str(found)


def test_a_part_that_one_model_really_reads_keeps_its_window():
    left = Net(lambda m, x: m.a(x).tanh()[..., :4], a=linear(5, 6))
    right = Net(lambda m, x: m.a(x).tanh(), a=linear(5, 4))
    found = parity.derive(left, right, (images(3, 5),))
    assert found.proven and not found.sizes and "o[:4] i" in found.table.print(), str(found)


class Stacked(torch.nn.Module):
    """Layers whose kernels are one array."""

    def __init__(self, depth: int, classes: int):
        super().__init__()
        self.layers, self.head = torch.nn.Parameter(torch.zeros(depth, 6, 6)), linear(6, classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for kernel in self.layers:
            x = (x @ kernel).sin()
        return self.head(x)


class Listed(torch.nn.Module):
    """The same with an array for each layer."""

    def __init__(self, depth: int):
        super().__init__()
        self.blocks, self.head = torch.nn.ModuleList(linear(6, 6, False) for _ in range(depth)), linear(6, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for block in self.blocks:
            x = block(x).sin()
        return self.head(x)


def test_a_line_for_stacked_layers_lists_those_of_a_longer_list():
    """A line for {l} would take the third block too, which no layer of the other side is."""
    found = parity.derive(Listed(3), Stacked(2, 3), (images(3, 6),), seconds=5)
    assert "blocks.{l=0|1}.weight: o i <-> layers: l i o\n" in found.table.print(), found.table.print()
    assert not found.proven and "dropped: blocks.2.weight on the left" in str(found), str(found)
    assert "fixed to lists of this length: blocks.2 follows the list blocks.{l=0|1}" in str(found)


def test_an_array_of_which_nothing_shows_a_part_is_not_said_to_be_in_an_order_that_no_line_writes():
    a = Elements({"a": np.zeros(2), "b": np.zeros(4)}, known=True)
    b = Elements({"layers": np.zeros((3, 2)), "rest": np.zeros(2)}, known=False)
    found = np.array([0, 1, 2, 0, 0, 3, 4, 5, 6])
    _, missing = fold(Facts(a, b, found, np.zeros_like(found), ("torch", "flax")))
    assert missing["layers"] == "only a part of it was matched, to a and b"
    assert missing["rest"] == "beside parameters of which only a part was matched, it was matched to a and b"


def test_gates_in_one_matrix_are_no_other_size():
    """What follows the gates differs, so that nothing confirms their partners."""

    def gates(m: torch.nn.Module, x: torch.Tensor) -> torch.Tensor:
        return m.head(torch.sigmoid(m.mix(x)) * torch.tanh(m.new(x) + torch.sigmoid(m.reset(x)) * m.own))

    def in_one(m: torch.nn.Module, x: torch.Tensor) -> torch.Tensor:
        reset, new, mix = m.gates(x).chunk(3, -1)
        return m.head(mix.sin() * new.exp() * reset.cos().flip(-1))

    own = torch.nn.Parameter(torch.randn(4))
    left = Net(gates, reset=linear(4, 4), new=linear(4, 4), mix=linear(4, 4), own=own, head=linear(4, 3))
    found = parity.derive(left, Net(in_one, gates=linear(4, 12), head=linear(4, 3)), images(5, 4))
    assert not found.proven and not found.sizes and (found.missing or found.chosen == ["gates.weight", "gates.bias"])


def test_layers_that_only_one_side_has_are_not_dropped():
    found = parity.derive(Stacked(3, 3), Stacked(2, 4), (images(3, 6),), seconds=5)
    lines = [line for line in found.table.print().splitlines() if not line.startswith("#")]
    assert found.verdict == "incomplete" and "head.weight" in found.missing, str(found)
    assert "layers" in found.left_over and not any("drop" in line for line in lines), lines


def test_widths_that_differ_are_named_where_nothing_has_a_partner_and_no_table_is_written(tmp_path: Path):
    """One side has a convolution of patches, whose kernel differs in more than one length."""
    (tmp_path / "sides.py").write_text(PATCHES)
    left, right, out = (str(tmp_path / name) for name in ("sides.py:left", "sides.py:right", "my.table"))
    said = io.StringIO()
    with contextlib.redirect_stdout(said):
        assert run(left, right, out, as_json=False) == 1
    assert "sizes differ: most vectors of the left model have length 4, most of the right one 8" in said.getvalue()
    assert f"{out}: no lines, nothing written" in said.getvalue() and not Path(out).exists()


def test_one_block_against_two_is_named():
    def blocks(count: int, of: str) -> dict[str, torch.Tensor]:
        return {f"{of}.{k}.{leaf}": torch.zeros(4, 4) for k in range(count) for leaf in ("a", "b", "c")}

    left, right = blocks(1, "layers") | {"head.0.weight": torch.zeros(2), "head.0.bias": torch.zeros(2)}, blocks(2, "x")
    assert differing(left, right).startswith("the left model has 1 block in layers, the right one 2 in x")
    assert differing(right, left).startswith("the left model has 2 blocks in x, the right one 1 in layers")
    assert not differing(left, left)
    stem = {f"stem.{k}.{leaf}": torch.zeros(2) for k in (0, 2) for leaf in ("weight", "bias")}  # layers, no blocks
    one, two = blocks(2, "a") | blocks(1, "b") | stem, blocks(2, "x") | blocks(2, "y")
    assert differing(one, two).startswith("the left model has 2 blocks in a and 1 in b, the right one 2 in x and 2 in")
    stem = {f"stem.0.{leaf}": torch.zeros(1) for leaf in ("weight", "bias", "mean")}  # no list of one block
    assert not differing(blocks(2, "x"), stem) and not differing(stem, blocks(2, "x"))
    head = {f"head.{k}.{leaf}": torch.zeros(2) for k in (0, 1) for leaf in ("weight", "bias")}  # a norm, a dense layer
    two, three = blocks(2, "body") | head, blocks(3, "x") | {"norm.weight": torch.zeros(2)}
    assert differing(two, three).startswith("the left model has 2 blocks in body, the right one 3 in x")
    assert differing(three, two).startswith("the left model has 3 blocks in x, the right one 2 in body")


def test_layers_of_a_stem_are_no_blocks_where_those_of_the_other_model_are_larger():
    """A shortcut in the first block alone makes blocks unlike, so that the stem is the one list of alike parts."""
    stem = {f"stem.{k}.{leaf}": torch.zeros(2, 2) for k in range(3) for leaf in ("conv", "scale", "shift")}
    stage = {f"stage.{k}.{leaf}": torch.zeros(6, 6) for k in range(2) for leaf in ("conv", "scale", "shift")}
    unlike = {f"blocks.{name}": array for name, array in stage.items()} | {"blocks.stage.0.short": torch.zeros(6, 6)}
    assert not differing(stage, stem | unlike) and not differing(stem | unlike, stage)


def test_fused_parameters_have_no_other_size():
    """One side has in three parameters what the other has in one: a GRU, of which one side lacks a bias."""

    def steps(gates, x):
        h = torch.zeros(len(x), 5, dtype=x.dtype)
        for t in range(2):
            (a, b, c), (d, e, f) = gates(x[:, t], h)
            z = (b + e).sigmoid()
            h = (1 - z) * (c + (a + d).sigmoid() * f).tanh() + z * h
        return h

    def apart(m, x):
        return steps(lambda x, h: ([m.a(x), m.b(x), m.c(x)], [m.d(h), m.e(h), m.f(h)]), x)

    def fused(m, x):
        return steps(lambda x, h: (m.x(x).chunk(3, -1), m.h(h).chunk(3, -1)), x)

    left = Net(apart, **{name: torch.nn.Linear(4 if name in "abc" else 5, 5, name in "abcf") for name in "abcdef"})
    right = Net(fused, x=torch.nn.Linear(4, 15), h=torch.nn.Linear(5, 15, bias=False))
    found = parity.derive(left, right, (images(2, 3, 4),), seconds=0.5)
    assert found.missing and not found.sizes, found.sizes


def test_tables_of_the_same_tokens_that_are_joined_are_no_other_size():
    """What both sides compute of them differs, so that nothing matches the one table that the right model has."""
    rows = {name: torch.nn.Embedding(12, 4) for name in "ab"}
    left = Net(lambda m, x: m.mix(m.a(x) * m.b(x)).tanh(), mix=linear(4, 3), **rows)
    right = Net(lambda m, x: m.mix(m.both(x).sin()).tanh(), both=torch.nn.Embedding(12, 8), mix=linear(8, 3))
    found = parity.derive(left, right, (tokens(2, 5),), seconds=1)
    assert not found.proven and not found.sizes, str(found)


def test_fused_vectors_are_no_other_width():
    """The models part before any parameter."""
    left = Net(lambda m, x: m.a(x.sin()) * m.b(x.sin()) + m.c(x.sin()), **{name: linear(6, 5) for name in "abc"})
    right = Net(lambda m, x: (lambda a, b, c: a * b + c)(*m.all(x.cos()).chunk(3, -1)), all=linear(6, 15))
    found = parity.derive(left, right, (images(4, 6),), seconds=1)
    assert found.missing and not found.sizes, found.sizes


def test_a_part_that_nothing_reads_makes_no_other_size():
    """The last block of a WaveNet has a residual that no output depends on, which one side fuses with the rest."""
    left = Net(lambda m, x: m.head(m.both(m.stem(x).tanh())[..., 4:]), stem=linear(5, 4), both=linear(4, 7),
               head=linear(3, 2))  # fmt: skip
    right = Net(lambda m, x: m.head((y := m.skip(m.stem(x).tanh())) * y.roll(1, -1)), stem=linear(5, 4),
                rest=linear(4, 4), skip=linear(4, 3), head=linear(3, 2))  # fmt: skip
    found = parity.derive(left, right, (images(8, 5),))
    assert found.missing and not found.sizes and "size" not in str(found), found
    assert found.reasons["rest.weight"] == "unused in the right model", found.reasons


def test_one_of_the_values_that_a_product_joins_is_no_other_size():
    """Nothing on the left reads the sine to which the other bias is added."""
    left = Net(lambda m, x: m.head(m.both(torch.cat([x, x.exp()], -1)).tanh()), both=linear(8, 6), head=linear(6, 3))
    right = Net(lambda m, x: m.head((m.x(x) + m.y(x.sin())).tanh()), x=linear(4, 6), y=linear(4, 6), head=linear(6, 3))
    found = parity.derive(left, right, (images(5, 4),), seconds=1)
    assert found.missing and not found.sizes, str(found)


def test_a_matrix_is_of_no_other_size_than_a_free_one_of_its_shape():
    """The first right matrix reads what a square one reads on the left, and partners of its shape are free there."""

    def deep(m: Any, x: Any) -> Any:
        return m.c(m.b(m.a(x).sin()).relu() + m.d(x.cos()))

    left = Net(deep, a=linear(5, 5), b=linear(5, 8), c=linear(8, 3), d=linear(5, 8))
    right = Net(lambda m, x: m.z(m.x(x).relu() + m.y(x.tanh())), x=linear(5, 8), y=linear(5, 8), z=linear(8, 3))
    found = parity.derive(left, right, (images(3, 5),), seconds=1)
    assert found.missing and not found.sizes, found.sizes


def test_a_free_matrix_of_its_shape_that_nothing_reads_hides_no_other_size():
    def deep(m: Any, x: Any) -> Any:
        return m.b(m.a(x).relu())

    left = Net(deep, a=linear(5, 9), b=linear(9, 3), unread=linear(5, 8))
    right = Net(deep, a=linear(5, 8), b=linear(8, 3), unread=linear(5, 8))
    found = parity.derive(left, right, (images(3, 5),), seconds=1)
    assert "the left model has 9 where the right one has 8, in a.weight [9, 5]" in str(found), str(found)


def test_two_vectors_that_the_other_side_has_in_one_are_no_other_size(monkeypatch: pytest.MonkeyPatch):
    """Scores of a graph attention: one side has vectors of sources and of targets, the other one both in one array.

    The first layer shows how the second one goes; without that it lacks a line.
    """
    torch.manual_seed(4)  # weights and edges with which the second of two layers is not matched
    rng = np.random.default_rng(4)
    edges = torch.tensor((rng.random((7, 7)) < 0.5) | np.eye(7, dtype=bool))[None, :, :, None]

    class Graph(torch.nn.Module):
        def __init__(self, joined: bool) -> None:
            super().__init__()
            self.lin, self.joined = torch.nn.Linear(8, 8, bias=False), joined
            self.bias = torch.nn.Parameter(torch.zeros(8))
            vectors = {"both": (2, 8)} if joined else {"source": (2, 4), "target": (2, 4)}
            for name, shape in vectors.items():
                setattr(self, name, torch.nn.Parameter(torch.randn(shape)))

        def forward(self, x: Any) -> Any:
            z = self.lin(x).unflatten(-1, (2, 4))
            a, b = self.both.chunk(2, -1) if self.joined else (self.target, self.source)
            scores = torch.nn.functional.leaky_relu((z * a).sum(-1)[:, :, None] + (z * b).sum(-1)[:, None], 0.2)
            scores = scores.masked_fill(~edges, -9e15 if self.joined else -np.inf)
            return torch.nn.functional.elu(torch.einsum("bijh,bjhd->bihd", scores.softmax(2), z).flatten(2) + self.bias)

    def net(joined: bool) -> Any:
        return torch.nn.Sequential(Graph(joined), Graph(joined), torch.nn.Linear(8, 3))

    models, inputs = (net(False), net(True)), (rng.standard_normal((1, 7, 8)),)
    found = parity.derive(*models, inputs)
    assert found.proven and found.inferred == ["1.both"], str(found)
    for name in ("as_counterpart", "as_sibling"):
        monkeypatch.setattr(f"parity.derive.match.complete.{name}", lambda *args: None)
    found = parity.derive(*models, inputs)
    assert not found.sizes and found.missing == ["1.both"], str(found)
    assert found.reasons["1.both"].startswith("it has as many elements as 1.source and others of that shape together")

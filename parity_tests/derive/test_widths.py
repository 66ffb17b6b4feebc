"""Models of another width, vocabulary or number of classes: the sizes are named, and no line takes a part."""

from __future__ import annotations

import pytest
import torch

import parity
from parity_tests.derive.pairs import images
from parity_tests.derive.test_kinds_matching import Net, linear, tokens


def dense(width: int, classes: int = 3) -> torch.nn.Module:
    norm = torch.nn.LayerNorm(width)
    return Net(lambda m, x: m.head(m.norm(m.stem(x)).tanh()), stem=linear(5, width), norm=norm,
               head=linear(width, classes))  # fmt: skip


def words(vocabulary: int) -> torch.nn.Module:
    parts = {"table": torch.nn.Embedding(vocabulary, 4), "mix": linear(4, 4), "head": linear(4, vocabulary)}
    return Net(lambda m, x: m.head(m.mix(m.table(x)).tanh()), **parts)


WIDTH = "the left model has {} where the right one has {}, in stem.weight ({}, 5) and stem.weight ({}, 5)"
WORDS = "the left model has {} where the right one has {}, in {name}.weight ({}, 4) and {name}.weight ({}, 4)"
CASES = {
    "a narrower right model": (dense(8), dense(6), images(3, 5), WIDTH.format(8, 6, 8, 6)),
    "a wider right model": (dense(6), dense(8), images(3, 5), WIDTH.format(6, 8, 6, 8)),
    "a smaller vocabulary": (words(14), words(12), tokens(2, 5), WORDS.format(14, 12, 14, 12, name="head")),
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


def test_layers_that_only_one_side_has_are_not_dropped():
    found = parity.derive(Stacked(3, 3), Stacked(2, 4), (images(3, 6),), seconds=5)
    lines = [line for line in found.table.print().splitlines() if not line.startswith("#")]
    assert found.verdict == "incomplete" and "head.weight" in found.missing, str(found)
    assert "layers" in found.left_over and not any("drop" in line for line in lines), lines

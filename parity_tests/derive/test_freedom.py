"""What may be permuted without effect is listed, tried where it can be so, and nothing else is."""

from __future__ import annotations

import re
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import parity
from parity.derive.prove import freedom
from parity.derive.prove.freedom import numbered, spacing
from parity.derive.report import page

from .test_proof import models

torch = pytest.importorskip("torch", reason="both sides are torch modules")


def test_channels_around_a_depthwise_convolution_are_free_to_change_places():
    """The kernel between the two matrices has one filter for each channel, which changes its place with them."""

    class Blocks(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            conv = torch.nn.Conv2d
            self.blocks = torch.nn.ModuleList(
                torch.nn.ModuleDict({
                    "up": torch.nn.Sequential(conv(3, 6, 1)), "deep": conv(6, 6, 3, groups=6), "down": conv(6, 3, 1)
                })
                for _ in range(2)
            )  # fmt: skip

        def forward(self, x: Any) -> Any:
            for block in self.blocks:
                x = block["down"](block["deep"](block["up"](x).relu()).relu())
            return x

    torch.manual_seed(0)
    found = parity.derive(Blocks(), Blocks(), (np.random.default_rng(0).standard_normal((2, 3, 8, 8)),))
    assert found.proven and "between" not in found.untried
    assert found.freedom == [
        "outputs of blocks.{i}.up.0.weight with inputs of blocks.{i}.down.weight for i = 0..1",
        "outputs of blocks.0.down.weight with inputs of blocks.1.up.0.weight",
    ]


@pytest.mark.parametrize("bias", [True, False])
def test_units_behind_a_gate_are_free_with_the_gate_and_what_it_scales(bias: bool):
    """As wide as the model, so that biases of other blocks have the same length."""

    class Gated(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            names = ("gate", "up", "down")
            self.blocks = torch.nn.ModuleList(
                torch.nn.ModuleDict({name: torch.nn.Linear(6, 6, bias) for name in names}) for _ in range(2)
            )

        def forward(self, x: Any) -> Any:
            for block in self.blocks:
                x = x + block["down"](torch.nn.functional.silu(block["gate"](x)) * block["up"](x))
            return x

    found = parity.derive(Gated(), Gated(), (np.random.default_rng(0).standard_normal((3, 4, 6)),))
    units = "outputs of blocks.{i}.gate.weight and blocks.{i}.up.weight with inputs of blocks.{i}.down.weight"
    assert found.proven and f"{units} for i = 0..1" in found.freedom, found.freedom


def test_blocks_are_folded_though_one_side_numbers_what_is_inside():
    class Blocks(torch.nn.Module):
        def __init__(self, inside: bool) -> None:
            super().__init__()
            down = [torch.nn.Linear(7, 5) for _ in range(2)]
            self.blocks = torch.nn.ModuleList(
                torch.nn.ModuleDict({"up": torch.nn.Linear(5, 7), "down": torch.nn.Sequential(one) if inside else one})
                for one in down
            )

        def forward(self, x: Any) -> Any:
            for block in self.blocks:
                x = x + block["down"](torch.tanh(block["up"](x)))
            return x

    found = parity.derive(Blocks(True), Blocks(False), (np.random.default_rng(0).standard_normal((3, 4, 5)),))
    right = "blocks.{i}.down.weight"
    assert found.freedom == [
        f"outputs of blocks.{{i}}.up.weight with inputs of blocks.{{i}}.down.0.weight (right: {right}) for i = 0..1"
    ]


def test_units_that_make_no_difference_now_are_not_called_free():
    """Each of the two exchanges has no effect alone: the first as both are below 2, the second as both are 5."""
    elements = SimpleNamespace(values=np.array([0.0, 1.0, 2.0, 5.0, 5.0]))

    def run() -> list[np.ndarray]:
        return [np.maximum(elements.values[1:3], 2), elements.values[3:]]

    pairs = [(np.array([1]), np.array([2])), (np.array([3]), np.array([4]))]
    way = freedom.Exchange(0, lambda _: pairs)
    assert freedom._Trial(run, elements, 9).free({"a with b": [way]}, 1) == []  # type: ignore[arg-type]
    elements.values = np.array([0.0, 1.0, 3.0, 5.0, 6.0])  # now each has one, and none undoes the other
    assert freedom._Trial(run, elements, 9).free({"a with b": [way]}, 1) == []  # type: ignore[arg-type]


def test_only_exchanges_that_may_have_no_effect_are_tried(monkeypatch: pytest.MonkeyPatch):
    """In a residual network, the units between two convolutions; no norm of one block with another's."""

    class Residual(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.blocks = torch.nn.ModuleList(
                torch.nn.Sequential(
                    torch.nn.Conv2d(4, 4, 3, padding=1), torch.nn.BatchNorm2d(4), torch.nn.ReLU(),
                    torch.nn.Conv2d(4, 4, 3, padding=1), torch.nn.BatchNorm2d(4),
                )
                for _ in range(3)
            )  # fmt: skip

        def forward(self, x: Any) -> Any:
            for block in self.blocks:
                x = (x + block(x)).relu()
            return x

    tried = list[int]()
    same = freedom._Trial._same

    def counted(self: Any, pairs: Any) -> bool:
        tried.append(len(pairs))
        return same(self, pairs)

    monkeypatch.setattr(freedom._Trial, "_same", counted)
    torch.manual_seed(0)
    found = parity.derive(Residual(), Residual(), (np.random.default_rng(0).standard_normal((2, 4, 6, 6)),))
    assert found.proven and found.freedom == [
        "outputs of blocks.{i}.0.weight with inputs of blocks.{i}.3.weight for i = 0..2"
    ]
    # of a bias with a mean twice, of units in one block, in all others, far apart in all, and before the last one
    assert len(tried) <= 7, tried


def test_the_numbers_of_blocks_that_one_array_stacks_are_folded():
    from parity.derive.prove.freedom import both

    parts = [f"blocks.{k}.fc.weight" for k in range(3)]
    assert both(["layers/fc/kernel"], {"layers/fc/kernel": parts}) == (
        "layers/fc/kernel (right: blocks.{0..2}.fc.weight)"
    )


def test_what_may_be_permuted_is_listed():
    left, right, x = models()
    found = parity.derive(left, right, (x,))
    assert found.proven
    assert found.freedom == [
        "outputs of q.weight with outputs of k.weight, within each of 2 groups of neighbours on the left",  # heads
        "outputs of v.weight with inputs of o.weight, within each of 2 groups of neighbours on the left",
    ]


@pytest.mark.parametrize("groups, text", [
    ((4, 4, 4), "for i = 0..2, within each of 4 groups of neighbours on the left"), ((1, 1, 1), "for i = 0..2"),
    ((4, 2, 4), "for i = 0..2, within each of 4 groups of neighbours on the left"), ((1, 4, 1), "for i = 0,2"),
])  # fmt: skip
def test_units_of_a_norm_over_groups_are_free_within_a_group(groups: tuple[int, ...], text: str):
    """Channels of two groups cannot change places, as each group has a mean and a variance of its own."""

    class Block(torch.nn.Module):
        def __init__(self, number: int, width: int) -> None:
            super().__init__()
            self.up, self.norm = torch.nn.Linear(6, width), torch.nn.GroupNorm(number, width)
            self.down = torch.nn.Linear(width, 6)

        def forward(self, x: Any) -> Any:
            return x + self.down(self.norm(self.up(x)).tanh())

    def net() -> Any:
        return torch.nn.Sequential(*(Block(number, 8 * (k + 1)) for k, number in enumerate(groups)))

    found = parity.derive(net(), net(), (np.random.default_rng(0).standard_normal((5, 6)),))
    line = "outputs of {i}.up.weight with inputs of {i}.down.weight"
    alone = "outputs of 1.up.weight with inputs of 1.down.weight, within each of 4 groups of neighbours on the left"
    assert found.freedom == [f"{line} {text}", *([alone] if groups == (1, 4, 1) else [])]


def test_complex_rotations_leave_no_exchange_of_neighbours_free():
    """Without imaginary parts, each channel would be multiplied by itself, and any two could change places."""

    class Rotary(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.q, self.k = torch.nn.Linear(4, 4, bias=False), torch.nn.Linear(4, 4, bias=False)
            self.register_buffer("phase", torch.polar(torch.ones(3, 2), torch.outer(torch.arange(3.0), torch.ones(2))))

        def forward(self, x: Any) -> Any:
            q, k = (
                torch.view_as_real(torch.view_as_complex(y.unflatten(-1, (2, 2))) * self.phase).flatten(-2)
                for y in (self.q(x), self.k(x))
            )
            return q @ k.mT

    found = parity.derive(Rotary(), Rotary(), (np.random.default_rng(0).standard_normal((2, 3, 4)),))
    assert found.proven and found.freedom == []


def test_of_equal_blocks_all_are_named():
    text = "outputs of b.{}.fc1 with inputs of b.{}.fc2"
    first, second, third, crossed = (text.format(*ij) for ij in ((0, 0), (1, 1), (2, 2), (0, 1)))
    assert numbered([first]) == first
    assert [spacing(first) == spacing(other) for other in (second, third, crossed)] == [True, True, False]
    gates = [f"outputs of b.{k}.gate and b.{k}.up with inputs of b.{k}.down.1" for k in range(2)]
    assert spacing(gates[0]) == spacing(gates[1]) != spacing(gates[0].replace("b.0.up", "b.1.up"))
    sums = [f"b.{k}.0.short.bias and b.{k}.0.layer.2.bias (right: b.{k}.0.x): only their sum" for k in range(2)]
    assert spacing(sums[0]) == spacing(sums[1])
    assert (
        numbered(sums) == "b.{i}.0.short.bias and b.{i}.0.layer.2.bias (right: b.{i}.0.x): only their sum for i = 0..1"
    )
    assert numbered([first, second, third]) == "outputs of b.{i}.fc1 with inputs of b.{i}.fc2 for i = 0..2"
    lines = [f"outputs of {i}.weight with inputs of {i + 2}.weight" for i in (0, 2)]
    assert numbered(lines) == "outputs of {i}.weight with inputs of {i+2}.weight for i = 0,2"
    lines = [f"outputs of {2 * i + 1}.a (right: b_{i}) with inputs of {2 * i + 3}.c" for i in range(3)]
    assert (
        numbered(lines) == "outputs of {2*i+1}.a (right: b_{i}) with inputs of {2*i+3}.c for i = 0..2"
    )  # as in a Table
    lines = [f"outputs of s.{i}.{j}.a <-> b.{i + 1}.b{j} with inputs of s.{i}.{j}.c"
             for i, count in enumerate((2, 2, 6)) for j in range(count)]  # fmt: skip
    whole = "outputs of s.{i}.{j}.a <-> b.{i+1}.b{j} with inputs of s.{i}.{j}.c for i.j = {0..2}.{0..1}, 2.{2..5}"
    assert numbered(lines) == whole


@pytest.mark.parametrize("ordered", [(), (1,), (0, 2)])
def test_freedom_is_stated_of_blocks_in_which_it_was_tried(ordered: tuple[int, ...]):
    """Hidden units of some blocks have an order: they are multiplied by a ramp."""

    class Blocks(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.up = torch.nn.ModuleList(torch.nn.Linear(6, 8) for _ in range(3))
            self.down = torch.nn.ModuleList(torch.nn.Linear(8, 6) for _ in range(3))

        def forward(self, x: Any) -> Any:
            for k, (up, down) in enumerate(zip(self.up, self.down, strict=True)):
                hidden = torch.tanh(up(x))
                x = x + down(hidden * torch.arange(1, 9) if k in ordered else hidden)
            return x

    found = parity.derive(Blocks(), Blocks(), (np.random.default_rng(0).standard_normal((5, 6)),))
    numbers = {(): "0..2", (1,): "0,2", (0, 2): ""}[ordered]
    each = f"outputs of up.{{i}}.weight with inputs of down.{{i}}.weight for i = {numbers}"
    assert found.proven
    assert found.freedom == ([each] if numbers else ["outputs of up.1.weight with inputs of down.1.weight"])


def test_exchanges_for_which_the_model_would_have_to_be_run_too_often_are_said(monkeypatch: pytest.MonkeyPatch):
    left, right, x = models()
    every = parity.derive(left, right, (x,))
    monkeypatch.setattr(freedom, "FREE_RUNS", 12)
    some = parity.derive(left, right, (x,))
    assert (every.untried, some.untried) == ("", freedom.UNTRIED_OTHERS)
    assert some.freedom and every.freedom[: len(some.freedom)] == some.freedom
    monkeypatch.setattr(freedom, "FREE_OPERATIONS", 1)
    found = parity.derive(left, right, (x,))
    assert (found.freedom, found.untried) == ([], freedom.UNTRIED)
    assert f"\n{freedom.UNTRIED}\n" in str(found) and f"\n# {freedom.UNTRIED}\n" in f"{found.table.print()}\n"
    assert f"# {freedom.UNTRIED}" in re.sub("<[^>]*>", "", page(found, {}))  # a comment of the Table
    assert "Free to permute: a with b" in page(replace(found, freedom=["a with b"]), {})


def test_channels_between_convolutions_are_free_to_change_places():
    """With their norm between them, and all taps of the second kernel."""

    def net() -> Any:
        return torch.nn.Sequential(
            torch.nn.Conv2d(3, 6, 3), torch.nn.BatchNorm2d(6), torch.nn.ReLU(), torch.nn.Conv2d(6, 5, 3),
            torch.nn.ReLU(), torch.nn.Flatten(), torch.nn.Linear(80, 2),
        )  # fmt: skip

    found = parity.derive(net(), net(), (np.random.default_rng(0).standard_normal((2, 3, 8, 8)),))
    assert found.proven and found.freedom == ["outputs of {i}.weight with inputs of {i+3}.weight for i = 0,3"]


def test_names_with_unequal_counts_of_numbers_are_not_alike():
    text = "outputs of a.1.weight with inputs of b.2.3.weight"
    assert spacing(text) != spacing("outputs of a.2.weight with inputs of b.3.4.weight")

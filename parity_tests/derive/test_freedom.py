"""What may be permuted without effect is listed, tried where it can be so, and nothing else is."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import parity
from parity.derive.prove import freedom

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
    assert freedom._Trial(run, elements, 9).free({"a with b": [pairs]}, 1) == []  # type: ignore[arg-type]
    elements.values = np.array([0.0, 1.0, 3.0, 5.0, 6.0])  # now each has one, and none undoes the other
    assert freedom._Trial(run, elements, 9).free({"a with b": [pairs]}, 1) == []  # type: ignore[arg-type]


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
    assert len(tried) <= 6, (
        tried
    )  # of a bias with a mean twice, of units in one block, in all others, and before the last one


def test_the_numbers_of_blocks_that_one_array_stacks_are_folded():
    from parity.derive.prove.freedom import both

    parts = [f"blocks.{k}.fc.weight" for k in range(3)]
    assert both(["layers/fc/kernel"], {"layers/fc/kernel": parts}) == (
        "layers/fc/kernel (right: blocks.{0..2}.fc.weight)"
    )

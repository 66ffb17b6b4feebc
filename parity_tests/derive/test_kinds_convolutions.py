"""Convolutions that crop or pad elsewhere, and gates of recurrent ones."""

from __future__ import annotations

from typing import Any

import pytest

import parity

from .convolution import torch_torch_patches
from .pairs import images

torch = pytest.importorskip("torch", reason="left sides are torch modules")
from .test_kinds_matching import Net, linear  # noqa: E402


def test_a_convolution_is_cropped_behind_an_exchange_of_axes():
    class Cropped(torch.nn.Module):
        def __init__(self, last: bool):
            super().__init__()
            self.last, self.conv = last, torch.nn.Conv1d(4, 4, 4, padding=2)

        def forward(self, x: Any) -> Any:
            y = self.conv(x)
            return (y.mT[:, :-1].mT if self.last else y[:, :, :-1]).tanh()

    for last in (False, True):
        found = parity.derive(Cropped(last), Cropped(not last), (images(2, 4, 9),))
        assert found.proven, found.divergences


def test_what_a_larger_kernel_has_around_a_patch_is_dropped_on_each_side():
    """Both of its spatial axes have a window: the rest of one and the whole of the other have letters of their own."""

    pair = torch_torch_patches()
    found = parity.derive(torch.nn.Sequential(torch.nn.Conv2d(3, 12, 4, 2, 1)), pair.right, pair.inputs)
    lines = [line for line in str(found.table.print()).splitlines() if "0.weight" in line and "#" not in line]
    assert not found.proven and lines == [
        "0.weight: o i y[1:3] x[1:3] <-> project.weight: o (y x i)",
        "0.weight: o i z[:1] x -> drop",
        "0.weight: o i z[3:] x -> drop",
        "0.weight: o i y[1:3] x[:1] -> drop",
        "0.weight: o i y[1:3] x[3:] -> drop",
    ]


class Padded(torch.nn.Module):
    """Strided convolutions that pad on both sides, or behind the image alone, and a gate of means."""

    def __init__(self, behind: bool):
        super().__init__()
        self.behind, n = behind, torch.nn
        self.downs = n.ModuleList(n.Conv2d(6, 6, 3, stride=2, padding=0 if behind else 1) for _ in range(3))
        self.norms = n.ModuleList(n.BatchNorm2d(6) for _ in range(3))
        self.gates = n.ModuleList(n.Linear(6, 6) for _ in range(3))

    def forward(self, x: Any) -> Any:
        for down, norm, gate in zip(self.downs, self.norms, self.gates, strict=True):
            y = torch.nn.functional.pad(x, (0, 1, 0, 1)) if self.behind else x
            y = norm(down(y)).relu()
            x = y * gate(y.mean((2, 3))).sigmoid()[:, :, None, None]
        return x


def test_convolutions_that_pad_elsewhere_give_a_complete_table_and_the_cause():
    found = parity.derive(Padded(False), Padded(True), (images(2, 6, 16, 16),))
    assert not found.proven and not found.missing and not found.failure
    table = found.table.print()
    assert "downs.{i}.weight: o i h w <-> downs.{i}.weight: o i h w" in table
    assert "gates.{i}.weight: o i <-> gates.{i}.weight: o i" in table
    assert any("padding" in place.cause for place in found.divergences), found.divergences


class Cell(torch.nn.Module):
    """A recurrent network of convolutions with fused gates, one kernel for input and state or two, in any order."""

    def __init__(self, order: str, joined: bool):
        super().__init__()
        self.order, self.joined = order, joined
        self.input = torch.nn.Conv1d(5 if joined else 2, 12, 3, padding=1)
        if not joined:
            self.state = torch.nn.Conv1d(3, 12, 3, padding=1, bias=False)

    def forward(self, x: Any) -> Any:
        state = memory = torch.zeros(len(x), 3, x.shape[-1])
        for step in x.unbind(1):
            y = self.input(torch.cat([step, state], 1)) if self.joined else self.input(step) + self.state(state)
            gates = dict(zip(self.order, y.chunk(4, 1), strict=True))
            memory = gates["f"].sigmoid() * memory + gates["i"].sigmoid() * gates["g"].tanh()
            state = gates["o"].sigmoid() * memory.tanh()
        return state


def test_gates_of_convolutions_in_another_order():
    found = parity.derive(Cell("ifog", True), Cell("figo", False), (images(2, 2, 2, 5),))
    assert found.proven, (found.failure, found.missing, found.error)


@pytest.mark.parametrize("last", [True, False], ids=["channels-last", "channels-first"])
def test_pixels_are_shuffled_out_of_channels_in_another_order(last: bool):
    """Behind the shuffle a function of single values reads them: only their places along each axis tell the order."""

    def shuffled(m: Any, x: Any) -> Any:
        y = m.up(x)
        if last:  # channels are (row, column, channel), not (channel, row, column)
            rows = y.unflatten(1, (2, 2, 3)).permute(0, 4, 1, 5, 2, 3)
            return m.down(rows.reshape(len(x), 8, 8, 3).tanh().permute(0, 3, 1, 2))
        y = y.unflatten(1, (2, 2, 3)).permute(0, 3, 4, 1, 5, 2)
        return m.down(y.reshape(len(x), 3, 8, 8).tanh())

    def parts() -> dict[str, Any]:
        return {"up": torch.nn.Conv2d(5, 12, 1), "down": torch.nn.Conv2d(3, 2, 1)}

    left = Net(lambda m, x: m.down(torch.pixel_shuffle(m.up(x), 2).tanh()), **parts())
    found = parity.derive(left, Net(shuffled, **parts()), (images(2, 5, 4, 4),))
    assert found.proven, str(found)


def test_a_convolution_of_one_tap_is_a_dense_layer_where_most_rows_are_zeros():
    """A limit leaves zeros alone at many places: neither kind of layer counts them."""

    class Limited(torch.nn.Module):
        def __init__(self, dense: bool):
            super().__init__()
            self.dense = dense
            layer = torch.nn.Linear if dense else lambda i, o: torch.nn.Conv1d(i, o, 1)
            self.a, self.b = layer(4, 2), layer(2, 3)

        def forward(self, x: Any) -> Any:
            x = (self.a(x.mT if self.dense else x) - 0.2).relu()
            return self.b(x).mT if self.dense else self.b(x)

    found = parity.derive(Limited(False), Limited(True), (images(2, 4, 9),))
    assert found.proven and "b.weight: o i 1 <-> b.weight: o i" in found.table.print()
    assert found.matched == "4 of 4 uses of parameters agree"


@pytest.mark.parametrize("swapped", [False, True])
def test_a_depthwise_convolution_of_several_projections_or_one_for_each(swapped: bool):
    """As in Mamba-2, whose fused projection has a gate beside what the convolution reads."""

    def depthwise(channels: int) -> Any:
        return torch.nn.Conv1d(channels, channels, 3, groups=channels, padding=2)

    def convolved(conv: Any, x: Any) -> Any:
        return torch.nn.functional.silu(conv(x.mT)[..., : x.shape[1]].mT)

    def mixed(m: Any, gate: Any, x: Any, keys: Any, queries: Any) -> Any:
        return m.out(((queries @ keys.mT).tril() @ x) * torch.nn.functional.silu(gate))

    def fused(m: Any, x: Any) -> Any:
        gate, rest = m.inner(x).split([6, 12], -1)
        return mixed(m, gate, *convolved(m.conv, rest).split([6, 3, 3], -1))

    def apart(m: Any, x: Any) -> Any:
        return mixed(m, m.z(x), convolved(m.cx, m.x(x)), convolved(m.cb, m.b(x)), convolved(m.cc, m.c(x)))

    left = Net(fused, inner=linear(4, 18), conv=depthwise(12), out=linear(6, 4))
    right = Net(apart, **{name: linear(4, 6 if name in "zx" else 3) for name in "zxbc"}, out=linear(6, 4),
                cx=depthwise(6), cb=depthwise(3), cc=depthwise(3))  # fmt: skip
    found = parity.derive(*((right, left) if swapped else (left, right)), (images(2, 5, 4),))
    assert found.proven and not found.missing, str(found)
    assert "conv.weight: (Z+b+b) 1 w" in found.table.print(), found.table.print()


def test_convolutions_of_as_many_inputs_over_other_channels_are_told_apart():
    """Four channels under nine taps are as many columns as 36 channels under one."""

    def wide(padding: int) -> torch.nn.Module:
        parts = {"a": torch.nn.Conv2d(4, 36, 3, padding=padding), "b": torch.nn.Conv2d(36, 4, 1)}
        return Net(lambda m, x: m.b(m.a(x).tanh()), **parts)

    found = parity.derive(wide(1), wide(2), (images(2, 4, 5, 5),))
    assert not found.proven and not found.missing


def grouped(fused: bool, count: int = 4) -> Net:
    """A convolution in groups of two channels, or one convolution for each group."""

    def run(m: Any, x: Any) -> Any:
        parts = [conv(part) for conv, part in zip(m.convs, x.chunk(len(m.convs), 1), strict=True)]
        return m.head(torch.relu(torch.cat(parts, 1)).mean((2, 3)))

    single = [torch.nn.Conv2d(2, 2, 3, padding=1) for _ in range(count)]
    convs = [torch.nn.Conv2d(2 * count, 2 * count, 3, padding=1, groups=count)] if fused else single
    return Net(run, convs=torch.nn.ModuleList(convs), head=torch.nn.Linear(2 * count, 5))


@pytest.mark.parametrize("fused", [True, False])
def test_groups_are_convolutions_of_their_own_on_either_side(fused: bool):
    found = parity.derive(grouped(fused), grouped(not fused), (images(2, 8, 4, 4),))
    assert found.proven and len(found.table.lines) == 4, str(found)

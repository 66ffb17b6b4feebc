"""Lists that another number follows: they state their range, as with other depths that number is another."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

import parity
from convert.errors import ConvertError
from convert.files.base import Tensor
from convert.table.laying_out import lay_out
from convert.table.unread import OTHER_DEPTH
from specs.table import Table, TableError

from ..conftest import needs
from .pairs import images


def encoder(counts: Sequence[int], joined: bool) -> Any:
    """Return stages of blocks, each with a layer behind them: in the list of blocks, or beside it."""
    import torch

    def block() -> Any:
        return torch.nn.ModuleDict({"up": torch.nn.Linear(4, 6), "down": torch.nn.Linear(6, 4)})

    class Encoder(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            layers = torch.nn.ModuleList
            blocks = [[block() for _ in range(count)] for count in counts]
            pools = [torch.nn.Linear(4, 4) for _ in counts]
            if joined:
                self.stages = layers(layers([*own, pool]) for own, pool in zip(blocks, pools, strict=True))
            else:
                self.blocks, self.pools = layers(map(layers, blocks)), layers(pools)

        def forward(self, x: Any) -> Any:
            for k in range(len(counts)):
                *blocks, pool = self.stages[k] if joined else (*self.blocks[k], self.pools[k])
                for block in blocks:
                    x = x + block["down"](block["up"](x).tanh())
                x = pool(x).tanh()
            return x

    return Encoder()


def arrays_of(model: Any) -> dict[str, Any]:
    return {name: value.numpy() for name, value in model.state_dict().items()}


@pytest.mark.parametrize("counts", [(2, 2), (2, 3), (3,)], ids=str)
def test_a_list_that_a_number_follows_fits_its_own_depth_alone(counts: tuple[int, ...]):
    needs("torch")
    left, right = encoder(counts, False), encoder(counts, True)
    found = parity.derive(left, right, (images(2, 4),))
    assert found.proven and len(found.behind_lists) == 1, found.behind_lists
    assert "fixed to lists of this length: stages." in str(found) and "stages." in found.table.print()
    arrays = arrays_of(left)
    assert {*found.table.apply(arrays)} == {*right.state_dict()}
    back = found.table.reverse().apply(found.table.apply(arrays))
    assert all(np.array_equal(back[name], arrays[name]) for name in arrays)
    for change in (-1, 1):
        others = [count + change for count in counts]
        with pytest.raises(TableError):
            found.table.apply(arrays_of(encoder(others, False)))
        with pytest.raises(TableError):
            found.table.reverse().apply(arrays_of(encoder(others, True)))


def test_the_range_stands_in_one_line_and_the_refusal_says_what_to_derive():
    needs("torch")
    found = parity.derive(encoder((2, 2), False), encoder((2, 2), True), (images(2, 4),))
    text = found.table.print()
    assert "blocks.{i}.{j=0|1}.up.weight: o i <-> stages.{i}.{j=0|1}.up.weight: o i" in text, text
    assert "# fixed to lists of this length: stages.{i}.2 follows the list stages.{i}.{j=0|1}" in text
    assert found.to_dict()["behind_lists"] == found.behind_lists
    stages = arrays_of(encoder((2, 2, 2), False))  # the number of stages stays open
    assert {*found.table.apply(stages)} == {*encoder((2, 2, 2), True).state_dict()}
    deep = arrays_of(encoder((3, 3), False))
    sources = {name: Tensor(name, array.shape, "float32") for name, array in deep.items()}
    with pytest.raises(ConvertError) as error:
        lay_out(found.table, "deep.pt", sources, None, {})
    assert error.value.problems[-1] == OTHER_DEPTH


def test_numbers_before_and_among_the_blocks_leave_a_list_open():
    """A stem before the blocks, and an array that only the first block has."""
    needs("torch")
    import torch

    def net(depth: int) -> Any:
        blocks = [torch.nn.Linear(4, 4, bias=k == 0) for k in range(depth)]
        return torch.nn.Sequential(torch.nn.Linear(3, 4), *(torch.nn.Sequential(b, torch.nn.Tanh()) for b in blocks))

    found = parity.derive(net(2), net(2), (images(2, 3),))
    assert found.proven and not found.behind_lists, str(found)
    assert {*found.table.apply(arrays_of(net(4)))} == {*net(4).state_dict()}


def gated(flat: bool) -> Any:
    """Return blocks in four stages or in one list: the first of stage 1 and the second of stage 2 have a gate.

    The last block has a norm, whose number follows theirs.
    """
    import torch

    def block(stage: int, k: int) -> Any:
        layers = {"up": torch.nn.Linear(4, 4)}
        if (stage, k) in ((1, 0), (2, 1)):
            layers["gate"] = torch.nn.Linear(4, 4)
        if (stage, k) == (3, 1):
            layers["norm"] = torch.nn.LayerNorm(4)
        return torch.nn.ModuleDict(layers)

    class Model(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            layers = torch.nn.ModuleList
            stages = [[block(stage, k) for k in range(2)] for stage in range(4)]
            self.blocks = layers(itertools.chain(*stages)) if flat else layers(map(layers, stages))

        def forward(self, x: Any) -> Any:
            for block in self.blocks if flat else [block for stage in self.blocks for block in stage]:
                y = block["up"](x).tanh()
                x = x + (y * block["gate"](y).sigmoid() if "gate" in block else y)
            return block["norm"](x)

    return Model()


def test_two_numbers_of_one_name_that_count_together_state_no_range():
    needs("torch")
    left, right = gated(flat=False), gated(flat=True)
    found = parity.derive(left, right, (images(2, 4),))
    assert found.proven, str(found)
    assert "blocks.1.0.gate.weight: o i <-> blocks.2.gate.weight: o i" in found.table.print(), found.table.print()
    for side, other, table in ((left, right, found.table), (right, left, found.table.reverse())):
        assert {*table.apply(arrays_of(side))} == {*other.state_dict()}


def test_a_list_behind_one_whose_range_a_given_line_states_states_its_own():
    """One list of blocks on the left, down and up; on the right a stack of each, of which the second runs backwards."""
    needs("torch")
    needs("flax")
    import jax
    import torch

    class Flat(torch.nn.Module):
        def __init__(self, depth: int) -> None:
            super().__init__()
            self.b = torch.nn.ModuleList(torch.nn.Linear(4, 4) for _ in range(2 * depth))

        def forward(self, x: Any) -> Any:
            seen, half = [], len(self.b) // 2
            for block in self.b[:half]:
                x = block(x).tanh()
                seen.append(x)
            for block in self.b[half:]:
                x = block(x + seen.pop()).tanh()
            return x

    def stacks(p: Any, x: Any) -> Any:
        def down(x: Any, own: Any) -> Any:
            y = jax.numpy.tanh(x @ own["w"] + own["b"])
            return y, y

        x, seen = jax.lax.scan(down, x, p["down"])
        return jax.lax.scan(lambda x, own: (down(x + own[0], own[1])[0], None), x, (seen, p["up"]), reverse=True)[0]

    parameters = {name: {"w": jax.numpy.ones((2, 4, 4)), "b": jax.numpy.ones((2, 4))} for name in ("down", "up")}
    given = "table 1\nb.{l=0|1}.weight: o i <-> down/w: l i o\nb.{l=0|1}.bias: c <-> down/b: l c\n"
    found = parity.derive(Flat(2), (stacks, parameters), (images(3, 4),), table=Table.parse(given))
    assert found.proven and found.behind_lists == ["b.{l=2|3} follows the list b.{l=0|1}"], str(found)
    with pytest.raises(TableError):
        found.table.apply(arrays_of(Flat(3)))


def test_one_list_of_layers_is_stacked_in_two_arrays():
    """As by two scans, with something of their own around each of them."""
    import torch

    from .test_kinds_matching import Net, linear

    def scans(m: Any, x: Any) -> Any:
        for kernel in (*m.first, *m.second):
            x = x + (x @ kernel).tanh()
        return x

    def layers(m: Any, x: Any) -> Any:
        for layer in m.layers:
            x = x + layer(x).tanh()
        return x

    stacks = {"first": torch.nn.Parameter(torch.randn(2, 6, 6)), "second": torch.nn.Parameter(torch.randn(3, 6, 6))}
    models = Net(layers, layers=torch.nn.ModuleList(linear(bias=False) for _ in range(5))), Net(scans, **stacks)
    for left, right in (models, models[::-1]):
        found = parity.derive(left, right, (np.random.default_rng(0).standard_normal((4, 6)),))
        assert found.proven and found.behind_lists == ["layers.{l=2..4} follows the list layers.{l=0|1}"], str(found)
        text = (found.table if left is models[0] else found.table.reverse()).print()
        assert "layers.{l=0|1}.weight: o i <-> first: l i o\nlayers.{l=2..4}.weight: o i <-> second: l i o" in text, (
            text
        )

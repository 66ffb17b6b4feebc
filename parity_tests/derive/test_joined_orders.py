"""Concatenations in other orders: parts of different parameters have lengths of their own, though these are equal."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest

import parity
from specs.notation.lines import TableError
from specs.table import Table

from ..conftest import needs
from .pairs import images

F64 = 1e-12  # rounding of float64 over some sums of ten numbers


def converted(found: Any, left: Any, right: Any, x: Any, **lengths: int) -> float:
    """Return by how much outputs differ of a left model and the right one with its arrays, translated."""
    import torch

    left, right, x = left.double().eval(), right.double().eval(), torch.from_numpy(x)
    arrays = found.table.apply({name: array.numpy() for name, array in left.state_dict().items()}, **lengths)
    right.load_state_dict({name: torch.from_numpy(np.array(array)) for name, array in arrays.items()})
    with torch.no_grad():
        return float((left(x) - right(x)).abs().max())


def branches(widths: Sequence[int], order: Callable[[list[Any]], list[Any]], norm: bool = False) -> Any:
    """Return layers beside each other, whose results are joined in some order, normalized or not, and read by one."""
    import torch

    class Net(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.m = torch.nn.ModuleList(torch.nn.Linear(5, width) for width in widths)
            self.norm = torch.nn.LayerNorm(sum(widths)) if norm else torch.nn.Identity()
            self.out = torch.nn.Linear(sum(widths), 7)

        def forward(self, x: Any) -> Any:
            joined = torch.cat(order([torch.tanh((k + 1) * m(x)) for k, m in enumerate(self.m)]), -1)
            return self.out(self.norm(joined))

    return Net()


def unet(widths: Sequence[int], skip_first: bool) -> Any:
    """Return a U-Net without norms, in which each way up reads the level below and that of the way down."""
    import torch

    def conv(*of: int) -> Any:
        return torch.nn.Conv2d(*of[:2], 3, *of[2:], padding=1)

    class Net(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inc, self.out = conv(3, widths[0]), torch.nn.Conv2d(widths[0], 2, 1)
            levels = [*itertools.pairwise(widths)]
            self.down = torch.nn.ModuleList(conv(a, b, 2) for a, b in levels)
            self.up = torch.nn.ModuleList(conv(a + b, a) for a, b in levels[::-1])

        def forward(self, x: Any) -> Any:
            x, skips = torch.nn.functional.silu(self.inc(x)), []
            for down in self.down:
                skips.append(x)
                x = torch.nn.functional.silu(down(x))
            for up in self.up:
                x, skip = torch.nn.functional.interpolate(x, scale_factor=2), skips.pop()
                x = torch.nn.functional.silu(up(torch.cat([skip, x] if skip_first else [x, skip], 1)))
            return self.out(x)

    return Net()


def reverse(parts: list[Any]) -> list[Any]:
    return parts[::-1]


@pytest.mark.parametrize("norm", [False, True])
def test_parts_of_different_layers_that_are_equally_wide_in_the_small_models_alone(norm: bool):
    """An exchange of two halves would be wrong, unseen, where the parts are 8 and 12 wide."""
    needs("torch")
    x = images(6, 5)
    found = parity.derive(branches((8, 8), list, norm), branches((8, 8), reverse, norm), (x,))
    assert found.proven and "out.weight: o (A+B) <-> out.weight: o (B+A)" in found.table.print(), found.table.print()
    assert "m.0.weight: A i <-> m.0.weight: A i" in found.table.print()  # which shows the length
    assert not found.unchecked and "out.weight" in found.exchanged
    assert converted(found, branches((8, 12), list, norm), branches((8, 12), reverse, norm), x) < F64


def test_three_parts_of_different_layers():
    needs("torch")
    x = images(6, 5)
    found = parity.derive(branches((8, 8, 8), list), branches((8, 8, 8), reverse), (x,))
    assert found.proven and "out.weight: o (A+B+E) <-> out.weight: o (E+B+A)" in found.table.print()
    widths = (3, 6, 4)
    assert converted(found, branches(widths, list), branches(widths, reverse), x) < F64


@pytest.mark.parametrize("widths", [(8, 8), (8, 8, 8, 8)])
def test_another_number_of_parts_is_refused_though_lengths_can_be_found_that_add_up(widths: Sequence[int]):
    needs("torch")
    found = parity.derive(branches((8, 8, 8), list), branches((8, 8, 8), reverse), (images(6, 5),))
    arrays = {name: array.numpy() for name, array in branches(widths, list).state_dict().items()}
    with pytest.raises(TableError, match=r"m\.[23]\.weight"):
        found.table.apply(arrays)


@pytest.mark.parametrize("small", [(8, 8, 8), (4, 8, 16)])
def test_each_level_of_a_unet_has_lengths_of_its_own(small: Sequence[int]):
    needs("torch")
    x = images(2, 3, 8, 8)
    found = parity.derive(unet(small, False), unet(small, True), (x,))
    text = found.table.print()
    assert found.proven and "up.0.weight: E (A+B) h w <-> up.0.weight: E (B+A) h w" in text, text
    assert "up.1.weight: o (E+F) h w <-> up.1.weight: o (F+E) h w" in text, text
    for widths in ((4, 8, 16), (8, 8, 8), (6, 3, 5)):
        assert converted(found, unet(widths, False), unet(widths, True), x) < F64


def test_parts_are_followed_through_norms_pools_and_convolutions_of_each_channel():
    needs("torch")
    import torch

    class Net(torch.nn.Module):
        def __init__(self, a: int, b: int, last: bool):
            super().__init__()
            self.a, self.b, self.last = torch.nn.Conv2d(3, a, 3), torch.nn.Conv2d(3, b, 3), last
            self.norm, self.each = torch.nn.BatchNorm2d(a + b), torch.nn.Conv2d(a + b, a + b, 3, groups=a + b)
            self.conv, self.pooled = torch.nn.Conv2d(a + b, 4, 3), torch.nn.Linear(a + b, 4)

        def forward(self, x: Any) -> Any:
            parts = [self.a(x).relu(), self.b(x).sigmoid()]
            x = self.norm(torch.cat(parts[::-1] if self.last else parts, 1))
            x = self.each(torch.nn.functional.interpolate(x, scale_factor=2, mode="bilinear"))
            return self.conv(x).mean((2, 3)) + self.pooled(x.amax((2, 3)))

    x = images(2, 3, 8, 8)
    found = parity.derive(Net(8, 8, False), Net(8, 8, True), (x,))
    assert found.proven and "p=2" not in found.table.print() and not found.unchecked, found.table.print()
    assert converted(found, Net(5, 8, False), Net(5, 8, True), x) < F64


def test_parts_of_blocks_that_come_from_layers_of_these_blocks_stay_one_line():
    needs("torch")
    import torch

    class Block(torch.nn.Module):
        def __init__(self, width: int, hidden: int, last: bool):
            super().__init__()
            self.a, self.b = torch.nn.Linear(width, width), torch.nn.Linear(width, hidden)
            self.out, self.last = torch.nn.Linear(width + hidden, width), last

        def forward(self, x: Any) -> Any:
            parts = [self.a(x).tanh(), self.b(x).sigmoid()]
            return x + self.out(torch.cat(parts[::-1] if self.last else parts, -1))

    def net(depth: int, width: int, hidden: int, last: bool) -> Any:
        blocks = (Block(width, hidden, last) for _ in range(depth))
        return torch.nn.Sequential(torch.nn.Linear(5, width), torch.nn.Sequential(*blocks))

    x = images(6, 5)
    found = parity.derive(net(2, 8, 8, False), net(2, 8, 8, True), (x,))
    text = found.table.print()
    assert found.proven and "1.{i}.out.weight: o (A+B) <-> 1.{i}.out.weight: o (B+A)" in text, text
    assert "1.{i}.a.weight: A i <-> 1.{i}.a.weight: A i" in text, text
    assert converted(found, net(3, 6, 9, False), net(3, 6, 9, True), x) < F64


@pytest.mark.parametrize("count", [9, 17])
def test_many_parts(count: int):
    needs("torch")
    x, small, large = images(6, 5), (2,) * count, tuple(range(1, count + 1))
    found = parity.derive(branches(small, list), branches(small, reverse), (x,))
    assert found.proven and not found.unchecked, found.table.print()
    assert converted(found, branches(large, list), branches(large, reverse), x) < F64


def test_an_attention_beside_a_layer_of_one_fused_projection():
    """One array has queries, keys, values and the hidden layer, which is as wide as they are in the small model."""
    needs("torch")
    import torch

    class Net(torch.nn.Module):
        def __init__(self, width: int, hidden: int, last: bool):
            super().__init__()
            self.fused, self.split, self.last = torch.nn.Linear(5, 3 * width + hidden), [width] * 3 + [hidden], last
            self.out = torch.nn.Linear(width + hidden, 4)

        def forward(self, x: Any) -> Any:
            q, k, v, hidden = self.fused(x).split(self.split, -1)
            parts = [(q @ k.mT).softmax(-1) @ v, hidden.tanh()]
            return self.out(torch.cat(parts[::-1] if self.last else parts, -1))

    x = images(2, 6, 5)
    found = parity.derive(Net(8, 8, False), Net(8, 8, True), (x,))
    assert found.proven and "out.weight: o (a+b) <-> out.weight: o (b+a)" in found.table.print(), found.table.print()
    assert converted(found, Net(4, 6, False), Net(4, 6, True), x, a=4) < F64


def test_parts_of_constants_are_a_number_of_the_line_and_learned_ones_are_not():
    needs("torch")
    import torch

    class Net(torch.nn.Module):
        def __init__(self, width: int, last: bool, learned: int = 0):
            super().__init__()
            places = torch.arange(6.0)[:, None] * 0.5 ** torch.arange(width)
            tables = [places.sin(), places.cos()]
            if learned:
                tables = [torch.nn.Parameter(torch.randn(6, width)), torch.nn.Parameter(torch.randn(6, learned))]
            self.a, self.b = tables
            self.x, self.last = torch.nn.Linear(5, 4), last
            self.table, self.out = torch.nn.Linear(width + (learned or width), 4), torch.nn.Linear(4, 3)

        def forward(self, x: Any) -> Any:
            parts = [self.a.to(x.dtype).tanh(), self.b.to(x.dtype).sigmoid()]
            return self.out(torch.tanh(self.x(x) + self.table(torch.cat(parts[::-1] if self.last else parts, -1))))

    x = images(6, 5)
    found = parity.derive(Net(8, False), Net(8, True), (x,))
    assert found.proven and "table.weight: o (-p=2 i) <-> table.weight: o (p i)" in found.table.print(), str(found)
    text = parity.derive(Net(8, False, 8), Net(8, True, 8), (x,)).table.print()
    assert "# derived and proven" in text and "table.weight: o (a+b) <-> table.weight: o (b+a)" in text, text


def test_parts_of_one_value_are_a_number_of_the_line():
    """Sines and cosines of one value, and halves that the code cuts: they have one width in every model."""
    needs("torch")
    import torch

    class Net(torch.nn.Module):
        def __init__(self, width: int, last: bool):
            super().__init__()
            self.a, self.wide, self.last = torch.nn.Linear(5, width), torch.nn.Linear(2 * width, 4 * width), last
            self.out = torch.nn.Linear(2 * width, 3)

        def forward(self, x: Any) -> Any:
            x = self.a(x)
            parts = [x.sin(), x.cos()]
            halves = self.wide(torch.cat(parts[::-1] if self.last else parts, -1)).chunk(2, -1)
            gate, value = halves[::-1] if self.last else halves
            return self.out(gate.sigmoid() * value)

    x = images(6, 5)
    found = parity.derive(Net(8, False), Net(8, True), (x,))
    text = found.table.print()
    assert found.proven and not found.unchecked, str(found)
    assert "wide.bias: (-p=2 c) <-> wide.bias: (p c)" in text, text
    assert converted(found, Net(6, False), Net(6, True), x) < F64


def decoder(context_first: bool, start: float) -> Any:
    """Return a recurrent cell that reads what its attention returned in the step before, or numbers in the first."""
    import torch

    class Net(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.cell, self.query = torch.nn.Linear(6, 5), torch.nn.Linear(5, 4, bias=False)
            self.turn = torch.nn.Linear(5, 5, bias=False)

        def forward(self, memory: Any, x: Any) -> Any:
            state, context, outs = x.new_zeros(len(x), 5), x.new_full((len(x), 4), start), []
            for t in range(x.shape[1]):
                both = [context, x[:, t]] if context_first else [x[:, t], context]
                state = torch.tanh(self.cell(torch.cat(both, -1)) + self.turn(state))
                context = (self.query(state)[:, None] @ memory.mT).softmax(-1) @ memory
                context = context[:, 0]
                outs.append(context)
            return torch.stack(outs, 1)

    return Net()


@pytest.mark.parametrize("value", [0.0, 0.5], ids=["zeros", "one number"])
def test_columns_that_are_alike_at_the_first_step_are_ordered_by_the_next_one(value: float):
    """Nothing at step 0 tells the order of a context that has one value there."""
    needs("torch")
    left, right = (decoder(first, value) for first in (False, True))
    inputs = (images(3, 5, 4), images(3, 3, 2))
    found = parity.derive(left, right, inputs)
    assert found.proven and not found.doubtful, found
    assert "cell.weight: o (a+b) <-> cell.weight: o (b+a)" in found.table.print().splitlines()
    arrays = {name: array.numpy() for name, array in left.state_dict().items()}
    moved, given = found.table.apply(arrays, a=2)["cell.weight"], arrays["cell.weight"]
    assert np.array_equal(moved, np.concatenate([given[:, 2:], given[:, :2]], 1))
    start = Table.parse("table 1\ncell.weight: o (a+b) <-> cell.weight: o (b+a)\n", name="start.table")
    again = parity.derive(left, right, inputs, table=start)
    assert again.proven and not again.given_open and again.given_lengths == {"line 2 (cell.weight)": "a=2"}
    assert "as given: line 2 (cell.weight) with a=2: no shape shows" in str(again)


@pytest.mark.parametrize("order", ["qkv", "vkq"])
def test_queries_that_number_their_heads_within_groups_and_across_them(order: str):
    """Heads of queries are a product of two lengths, which no part of a sum is, and two of a group are no pair."""
    needs("torch")
    import torch

    groups, each, size = 4, 2, 3
    heads = {"q": groups * each, "k": groups, "v": groups}

    class Net(torch.nn.Module):
        def __init__(self, fused: bool) -> None:
            super().__init__()
            rows = torch.randn(sum(heads.values()) * size, 5)
            apart = {name: torch.randn(5, count, size) for name, count in heads.items()}
            self.fused, self.arrays = fused, torch.nn.ParameterDict({"joined": rows} if fused else apart)
            self.out = torch.nn.Linear(heads["q"] * size, 2)

        def forward(self, x: Any) -> Any:
            if self.fused:
                parts = (x @ self.arrays["joined"].T).split([heads[name] * size for name in order], -1)
                own = {name: part.unflatten(-1, (-1, size)) for name, part in zip(order, parts, strict=True)}
                q = own["q"].unflatten(2, (groups, each))
            else:
                own = {name: torch.einsum("btw,whd->bthd", x, array) for name, array in self.arrays.items()}
                q = own["q"].unflatten(2, (each, groups)).transpose(2, 3)
            scores = torch.einsum("btkrd,bskd->bkrts", q, own["k"]).softmax(-1)
            return self.out(torch.einsum("bkrts,bskd->btkrd", scores, own["v"]).flatten(2))

    found = parity.derive(Net(True), Net(False), (images(2, 4, 5),))
    assert found.proven and "=2" not in "".join(map(str, found.table.lines)), found.table.print()
    assert {"q", "K", "D"} <= {*found.unchecked}, str(found)


def test_the_order_of_heads_and_groups_behind_a_product_of_jax_is_not_seen_where_one_is_one():
    """The product returns the axis of length 1 of what it reads, which no reduction leaves."""
    jnp = pytest.importorskip("jax").numpy
    rng = np.random.default_rng(0)
    arrays = {"q": rng.random((5, 12)), "k": rng.random((5, 12)), "v": rng.random((5, 12)), "out": rng.random((12, 2))}

    def attention(across: bool) -> Callable[[Any, Any], Any]:
        def run(p: Any, x: Any) -> Any:
            shape = *x.shape[:2], 3
            q, k, v = (
                (x @ p["q"]).reshape(*shape, 1, 4),
                (x @ p["k"]).reshape(*shape, 4),
                (x @ p["v"]).reshape(*shape, 4),
            )
            y = jnp.einsum("bkrts,bskd->btkrd", jnp.tanh(jnp.einsum("btkrd,bskd->bkrts", q, k)), v)
            return (y.swapaxes(2, 3) if across else y).reshape(*x.shape[:2], -1) @ p["out"]

        return run

    found = parity.derive((attention(False), arrays), (attention(True), arrays), (images(2, 3, 5),))
    assert found.proven and "out" in found.unseen_orders, str(found)
    assert not parity.derive((attention(True), arrays), (attention(True), arrays), (images(2, 3, 5),)).unseen_orders


def fused(parts: dict[str, str], width: int, depth: int) -> Any:
    """Return attention in blocks, with projections that hold some of q, k and v each."""
    import torch

    class Net(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            layers = (
                {name: torch.nn.Linear(width, len(letters) * width) for name, letters in parts.items()}
                for _ in range(depth)
            )
            self.blocks, self.head = torch.nn.ModuleList(map(torch.nn.ModuleDict, layers)), torch.nn.Linear(width, 3)

        def forward(self, x: Any) -> Any:
            for block in self.blocks:
                read = {c: y for name, letters in parts.items() for c, y in
                        zip(letters, block[name](x).chunk(len(letters), -1), strict=True)}  # fmt: skip
                x = x + torch.softmax(read["q"] @ read["k"].mT / 2, -1) @ read["v"]
            return self.head(x)

    return Net()


@pytest.mark.parametrize("swapped", [False, True])
def test_projections_of_which_each_side_fuses_others(swapped: bool):
    sides = [{"qk": "qk", "v": "v"}, {"q": "q", "kv": "kv"}][:: -1 if swapped else 1]
    found = parity.derive(*(fused(parts, 4, 2) for parts in sides), (images(2, 5, 4),))
    lines = ["blocks.{i}.qk.weight: (1[1:] o) i", "blocks.{i}.kv.weight: (1[:-1] o) i"]
    assert found.proven and " <-> ".join(lines[:: -1 if swapped else 1]) in found.table.print(), str(found)
    assert converted(found, *(fused(parts, 6, 3) for parts in sides), images(2, 5, 6)) < F64

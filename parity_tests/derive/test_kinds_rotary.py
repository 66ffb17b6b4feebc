"""Rotary positions in pairs or halves, fused or not, and query heads that share those of keys in another order."""

from __future__ import annotations

from fractions import Fraction
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

import parity
from specs.table import Table

from .pairs import images
from .test_kinds_matching import Net, linear

HEADS, WIDTH = 4, 16


def rotated(x: Any, pairs: bool, part: int | Fraction = 1) -> Any:
    """Rotate each half of a head's channels with the other half, or each even channel with the next one.

    Args:
      part: 4 to rotate the first quarter of the channels alone, 5/2 for two fifths.
    """
    if part > 1:
        count = x.shape[-1] // part
        turned, rest = x.split([count, x.shape[-1] - count], -1)
        return torch.cat([rotated(turned, pairs), rest], -1)
    half = x.shape[-1] // 2
    angles = torch.arange(x.shape[-2]).double()[:, None] / 10.0 ** torch.arange(half)
    one, two = (x[..., ::2], x[..., 1::2]) if pairs else (x[..., :half], x[..., half:])
    turned = one * angles.cos() - two * angles.sin(), two * angles.cos() + one * angles.sin()
    return torch.stack(turned, -1).flatten(-2) if pairs else torch.cat(turned, -1)


def attention(
    fused: bool, pairs: bool | None, groups: int = HEADS, by_turns: bool = False, heads: int = HEADS,
    part: int | Fraction = 1,
) -> Net:  # fmt: skip
    """An attention with a residual.

    Args:
      pairs: whether rotary positions turn pairs; None for none. groups: heads of keys and values.
      by_turns: whether query heads use the heads of keys by turns, in place of neighbours the same one.
      part: see rotated.
    """
    d = WIDTH // heads

    def attend(m: Any, x: Any) -> Any:
        n, t, _ = x.shape
        split = [heads * d, groups * d, groups * d]
        parts = m.qkv(x).split(split, -1) if fused else (m.q(x), m.k(x), m.v(x))
        q, k, v = (y.view(n, t, -1, d).transpose(1, 2) for y in parts)
        q, k = (q, k) if pairs is None else (rotated(q, pairs, part), rotated(k, pairs, part))
        times = heads // groups
        k, v = (y.repeat(1, times, 1, 1) if by_turns else y.repeat_interleave(times, 1) for y in (k, v))
        y = (q @ k.transpose(2, 3) / d**0.5).softmax(-1) @ v
        return x + m.o(y.transpose(1, 2).reshape(n, t, WIDTH))

    sizes = {"q": heads * d, "k": groups * d, "v": groups * d}
    layers = {"qkv": sum(sizes.values())} if fused else sizes
    return Net(attend, o=linear(WIDTH, WIDTH), **{name: linear(WIDTH, o) for name, o in layers.items()})


@pytest.mark.parametrize(("fused", "groups"), [((True, False), 1), ((False, True), 2), ((True, True), 1)])
def test_three_quarters_of_each_head_turn_in_orders_that_fit_these_lengths(fused: tuple[bool, bool], groups: int):
    """No piece of a head of 8 channels is as long as half of its 6 that turn, as in Phi-4-mini."""
    left, right = (
        attention(f, p, groups, heads=2, part=Fraction(4, 3)) for f, p in zip(fused, (True, False), strict=True)
    )
    found = parity.derive(left, right, (images(2, 5, WIDTH),))
    text = found.table.print()
    assert found.proven and not found.missing and found.table.orders, str(found)
    assert "whose parts have these lengths alone" in str(found) and "# for these lengths alone: " in text, text
    assert "qkv.weight" in found.exchanged or "q.weight" in found.exchanged
    assert fits(found.table, left, right, **({"q": 16, "k": 8, "v": 8} if fused == (True, False) else {}))


def fits(table: Any, left: Net, right: Net, width: int = WIDTH, **sizes: int) -> bool:
    """Tell whether a Table gives the right model what the left one computes."""
    arrays = {name: array.numpy() for name, array in left.double().state_dict().items()}
    moved = Table.parse(table.print(), table.orders).apply(arrays, **sizes)
    right.double().load_state_dict({name: torch.from_numpy(array) for name, array in moved.items()})
    x = torch.from_numpy(images(2, 5, width))
    with torch.no_grad():
        return torch.allclose(left(x), right(x), rtol=0, atol=1e-12)  # rounding of float64, of values near 1


@pytest.mark.parametrize("groups", [HEADS, 2])
@pytest.mark.parametrize("fused", [(True, False), (False, True)])
def test_one_fused_projection_whose_queries_and_keys_turn_pairs(fused: tuple[bool, bool], groups: int):
    left, right = attention(fused[0], True, groups), attention(fused[1], False, groups)
    found = parity.derive(left, right, (images(2, 5, WIDTH),))
    assert found.proven and not found.missing, (found.reasons, found.divergences)
    left, right = (attention(f, p, 2, heads=2) for f, p in zip(fused, (True, False), strict=True))
    if groups == HEADS:  # one number of heads, and pairs that the code takes apart
        assert "(s[:-1] h " in found.table.print() and found.unchecked == ["h"]
        assert "s2=2: stated" in found.table.print() and "of one length" not in str(found)
        assert fits(found.table, left, right, h=2)
        again = parity.derive(left, right, (images(2, 5, WIDTH),), table=found.table)
        assert again.proven and not again.given_open
        known = again.given_lengths  # of both lines of the weight, and both of the bias
        assert len(known) == 4 and {*known.values()} == {"h=2"}
        return
    assert "qkv.bias: (q+k+k d a)" in found.table.print()
    assert fits(found.table, left, right, q=2, k=2, d=2 if fused[1] else 4, a=4 if fused[1] else 2)


class Stacked(torch.nn.Module):
    """Blocks of such an attention, whose fused projections are one array each, as a scan has them."""

    def __init__(self, blocks: int, groups: int, heads: int) -> None:
        super().__init__()
        rows, self.block = (heads + 2 * groups) * WIDTH // heads, attention(True, True, groups, heads=heads)
        shapes = {"qkv": (blocks, WIDTH, rows), "qkv_bias": (blocks, rows), "o": (blocks, WIDTH, WIDTH)}
        for name, shape in {**shapes, "o_bias": (blocks, WIDTH)}.items():
            setattr(self, name, torch.nn.Parameter(torch.randn(shape) / 4))

    def forward(self, x: Any) -> Any:
        for qkv, qkv_bias, o, o_bias in zip(self.qkv, self.qkv_bias, self.o, self.o_bias, strict=True):
            layers = {"qkv": lambda y, w=qkv, b=qkv_bias: y @ w + b, "o": lambda y, w=o, b=o_bias: y @ w + b}
            x = self.block.run(SimpleNamespace(**layers), x)
        return x


def blocks(count: int, groups: int, heads: int) -> Net:
    def run(m: Any, x: Any) -> Any:
        for block in m.blocks:
            x = block(x)
        return x

    return Net(run, blocks=torch.nn.ModuleList(attention(False, False, groups, heads=heads) for _ in range(count)))


def test_a_fused_projection_of_stacked_blocks_whose_queries_and_keys_turn_pairs():
    left, right = blocks(2, 2, HEADS), Stacked(2, 2, HEADS)
    del right.block.o, right.block.qkv
    found = parity.derive(left, right, (images(2, 5, WIDTH),))
    assert found.proven, str(found)
    text = found.table.print()
    assert (
        "blocks.{l}.q.bias: (q a d), blocks.{l}.k.bias: (k a d), blocks.{l}.v.bias: (v d a) <-> qkv_bias: l (q+k+v d a)"
        in text
    ), text
    left, right = blocks(3, 2, 2), Stacked(3, 2, 2)
    del right.block.o, right.block.qkv
    assert fits(found.table, left, right, q=2, k=2, v=2, d=4, a=2)


@pytest.mark.parametrize(("heads", "groups"), [(2, 2), (2, 1)])
def test_pairs_of_channels_stay_pairs_where_their_length_tells(heads: int, groups: int):
    """Two heads are no pairs: of two pieces of length 2, those inside of heads are the pairs."""
    left, right = attention(True, True, groups, heads=heads), attention(False, False, groups, heads=heads)
    found = parity.derive(left, right, (images(2, 5, WIDTH),))
    text = found.table.print()
    if groups == heads:
        assert "qkv.bias: (s[:-1] h d s2) <-> {s=q|k}.bias: (h s2=2 d)\nqkv.bias: (1[2:] c) <-> v.bias: c" in text, text
    else:
        assert "qkv.bias: (q+1+1 d a=2) <-> q.bias: (q a d)" in text, text
    assert "d" not in found.table.reverse().lengths() and "of one length" not in str(found)


def test_pairs_of_separate_projections_are_stated_and_no_length_is_asked_for_them():
    """Larger models have more and wider heads: 2 is a number of the code, and no shape shows it."""
    found = parity.derive(*(attention(False, pairs, 2, heads=2) for pairs in (True, False)), (images(2, 5, WIDTH),))
    assert found.proven and found.unchecked == ["h"] and "s=2: stated" in found.table.print()
    assert "q.weight: (h d s=2) i <-> q.weight: (h s d) i" in found.table.print()
    assert fits(found.table, attention(False, True), attention(False, False), h=HEADS)


def test_pairs_of_joined_arrays_are_not_told_from_halves_in_heads_of_four_channels():
    found = parity.derive(attention(True, True, 2), attention(False, False, 2), (images(2, 5, WIDTH),))
    assert found.proven and "of one length: d, a: one of them may be 2 in every model, as " in str(found)
    assert "from 3 heads of keys or more, and heads of 8 channels or more" in str(found)


def test_two_heads_that_are_joined_in_another_order_are_no_pairs():
    """The projection behind them has the same order: larger models have more heads."""

    def model(inner: bool) -> Net:
        def attend(m: Any, x: Any) -> Any:
            q, k, v = (
                y.unflatten(-1, (8, 2)).mT if inner else y.unflatten(-1, (2, 8)) for y in (m.q(x), m.k(x), m.v(x))
            )
            weights = torch.einsum("nthd,nshd->nhts", q, k).softmax(-1)
            y = torch.einsum("nhts,nshd->nthd", weights, v)
            return m.o((y.mT if inner else y).flatten(2))

        return Net(attend, **{name: linear(WIDTH, WIDTH) for name in "qkvo"})

    found = parity.derive(model(True), model(False), (images(2, 5, WIDTH),))
    assert found.proven and not any("=" in str(line) for line in found.table.lines)


def test_two_fused_projections_whose_queries_and_keys_turn_pairs_or_halves():
    found = parity.derive(attention(True, True), attention(True, False), (images(2, 5, WIDTH),))
    assert found.proven and not found.table.orders, found.divergences
    assert "qkv.bias: (1[2:] c) <-> qkv.bias: (1[2:] c)" in found.table.print()
    assert fits(found.table, attention(True, True, 2, heads=2), attention(True, False, 2, heads=2), h=2, a=2, b=4)


@pytest.mark.parametrize("pairs", [(None, None), (False, False), (True, False)])
@pytest.mark.parametrize("by_turns", [(False, True), (True, False)])
def test_query_heads_that_share_heads_of_keys_by_turns(pairs: tuple[Any, Any], by_turns: tuple[bool, bool]):
    left, right = (attention(False, p, 2, turns) for p, turns in zip(pairs, by_turns, strict=True))
    found = parity.derive(left, right, (images(2, 5, WIDTH),))
    assert found.proven and not found.missing, (found.failure, found.divergences)
    assert fits(found.table, left, right, **found.table.sizes)


def test_the_order_of_heads_that_share_none_stays():
    left, right = (attention(False, None, HEADS, turns) for turns in (False, True))
    found = parity.derive(left, right, (images(2, 5, WIDTH),))
    assert found.proven and "q.weight: o i <-> q.weight: o i" in found.table.print()


def windowed(window: int) -> Any:
    """Three blocks of grouped queries, of which each position sees as many positions."""

    def attend(m: Any, x: Any) -> Any:
        y = m.norm(x)
        q, k, v = (layer(y).unflatten(-1, (-1, 4)).transpose(1, 2) for layer in (m.q, m.k, m.v))
        q, k, v = rotated(q, False), rotated(k, False).repeat_interleave(3, 1), v.repeat_interleave(3, 1)
        at = torch.arange(x.shape[1])
        hidden = (at[:, None] < at) | (at[:, None] - at >= window)
        y = (q @ k.mT / 2).masked_fill(hidden, -1e9).softmax(-1) @ v
        return x + m.o(y.transpose(1, 2).flatten(2))

    def block() -> Net:
        layers = {
            name: torch.nn.Linear(24, width, bias=False) for name, width in zip("qkvo", (24, 8, 8, 24), strict=True)
        }
        return Net(attend, norm=torch.nn.RMSNorm(24), **layers)

    return torch.nn.Sequential(block(), block(), block())


def test_halves_of_one_projection_are_never_the_same_half_of_the_other_one():
    """Where windows differ, as in Mistral of two libraries, a repeated half may come as near as the right one."""
    found = parity.derive(windowed(4), windowed(5), (np.random.default_rng(0).standard_normal((2, 7, 24)),))
    assert not found.missing and len(found.table.lines) == 5
    assert "a mask hides" in found.divergences[0].cause


@pytest.mark.parametrize("heads", [8, 4])
def test_heads_of_two_channels_do_not_show_whether_pairs_or_halves_are_turned(heads: int):
    own, other = (attention(False, pairs, heads, heads=heads) for pairs in (True, False))
    found = parity.derive(own, other, (images(2, 5, WIDTH),))
    names = [f"{name}.{kind}" for name in "qk" for kind in ("weight", "bias")]
    assert found.proven and sorted(found.unseen_orders) == sorted(names) * (heads == 8), str(found)
    assert not parity.derive(own, own, (images(2, 5, WIDTH),)).unseen_orders


@pytest.mark.parametrize("groups", [HEADS, 2])
def test_one_query_head_for_each_of_keys_does_not_show_which_of_them_share_keys(groups: int):
    own, other = (attention(False, None, groups, by_turns) for by_turns in (True, False))
    found = parity.derive(own, other, (images(2, 5, WIDTH),))
    names = [f"{name}.{kind}" for name in "kv" for kind in ("weight", "bias")]
    assert found.proven and sorted(found.unseen_orders) == sorted(names) * (groups == HEADS), str(found)
    assert not parity.derive(own, own, (images(2, 5, WIDTH),)).unseen_orders
    assert not parity.derive(other, other, (images(2, 5, WIDTH),)).unseen_orders


def partial(form: str, pairs: bool, part: int | Fraction, heads: int = 3, d: int = 16) -> Net:
    """An attention whose rotary positions turn a part of each head, as in GPT-NeoX.

    Args:
      form: the projection: "heads three" and "three heads" fuse it, in this order, and so does "einsum", with axes of
        their own; "split" and "axes" do not, and heads are an axis of their own in "axes".
    """

    def attend(m: Any, x: Any) -> Any:
        if form == "heads three":
            q, k, v = m.qkv(x).unflatten(-1, (heads, 3 * d)).transpose(1, 2).chunk(3, -1)
        elif form == "three heads":
            q, k, v = m.qkv(x).unflatten(-1, (3, heads, d)).permute(2, 0, 3, 1, 4)
        elif form == "einsum":
            q, k, v = torch.einsum("nti,ishd->snhtd", x, m.qkv)
        elif form == "axes":
            q, k, v = (torch.einsum("nti,ihd->nhtd", x, kernel) for kernel in (m.q, m.k, m.v))
        else:
            q, k, v = (layer(x).unflatten(-1, (heads, d)).transpose(1, 2) for layer in (m.q, m.k, m.v))
        q, k = rotated(q, pairs, part), rotated(k, pairs, part)
        return m.o(((q @ k.mT / d**0.5).softmax(-1) @ v).transpose(1, 2).flatten(2))

    width = heads * d
    parts: dict[str, Any] = {"qkv": linear(width, 3 * width, False)}
    if form == "split":
        parts = {name: linear(width, width, False) for name in "qkv"}
    if form == "einsum":
        parts = {"qkv": torch.nn.Parameter(torch.randn(width, 3, heads, d))}
    if form == "axes":
        parts = {name: torch.nn.Parameter(torch.randn(width, heads, d)) for name in "qkv"}
    return Net(attend, o=linear(width, width), **parts)


TWO_FIFTHS = Fraction(5, 2)  # of the channels of a head, as in Phi-2


@pytest.mark.parametrize(
    ("left", "right", "part", "line"),
    [
        ("heads three", "split", 4, "qkv.weight: (h 1[4:-7] a b) i <-> k.weight: (h 1[:-3] b a) i"),
        ("split", "heads three", 2, "k.weight: (h 1[:-1] r=2 a) i <-> qkv.weight: (h 1[2:-3] a r) i"),
        ("three heads", "split", 2, "qkv.weight: (1[1:-1] h 1[1:] a) i <-> k.weight: (h 1[1:] a) i"),
        ("heads three", "heads three", 2, "qkv.weight: (h 1[2:-3] r=2 a) i <-> qkv.weight: (h 1[2:-3] a r) i"),
        ("split", "axes", 2, "q.weight: (h 1[:-1] r=2 a) i <-> q: i h (1[:-1] a r)"),
        ("split", "split", 2, "q.weight: (h 1[:-1] r=2 a) i <-> q.weight: (h 1[:-1] a r) i"),
        ("three heads", "heads three", 2, "qkv.weight: (1[1:-1] h 1[:-1] r=2 a) i <-> qkv.weight: (h 1[2:-3] a r) i"),
        ("three heads", "split", TWO_FIFTHS, "qkv.weight: (1[1:-1] h e[:-3] b a) i <-> k.weight: (h b=2[:-3] a e=2) i"),
        ("split", "heads three", TWO_FIFTHS, "k.weight: (h b=2[:-3] e=2 a) i <-> qkv.weight: (h e[5:-8] a b) i"),
        ("heads three", "three heads", TWO_FIFTHS, "qkv.weight: (h 1[2:] a4) i <-> qkv.weight: (1[2:] h a4) i"),
        ("einsum", "three heads", 2, "qkv: i 1[1:-1] h (1[:-1] r=2 a) <-> qkv.weight: (1[1:-1] h 1[:-1] a r) i"),
        ("heads three", "einsum", 1, "qkv.weight: (h 1[1:-1] r b) i <-> qkv: i 1[1:-1] h (b r=2)"),
    ],
)
def test_rotary_positions_of_a_part_of_each_head_turn_pairs_or_halves(
    left: str, right: str, part: int | Fraction, line: str
):
    d, blocks = (20, 5) if part == TWO_FIFTHS else (16, int(part))
    models = partial(left, False, part, d=d), partial(right, True, part, d=d)
    found = parity.derive(*models, (images(2, 5, 3 * d),))
    text = found.table.print()
    assert found.proven and not found.table.orders and line in text, str(found)
    share = f"1 of {blocks * 3 if part == 1 or left == right == 'heads three' else blocks} parts of each head"
    assert found.to_dict()["by_chance"] == [share] and f"not checked in code: {share}: nothing shows" in text
    assert "=3[" not in "".join(line for line in text.splitlines() if line.startswith("#"))  # no number of the code
    if part != 4:  # a quarter of 16 channels are two pairs, which are halves too: their lengths stay open
        larger = partial(left, False, part, 4, 3 * d // 2), partial(right, True, part, 4, 3 * d // 2)
        assert found.unchecked in ([], ["h"]) and fits(found.table, *larger, 6 * d, h=4)


def test_one_line_for_blocks_whose_queries_keys_and_values_have_an_axis_of_a_stacked_array():
    one = partial("einsum", True, 1)

    def scan(m: Any, x: Any) -> Any:
        for qkv, o, bias in zip(m.qkv, m.o, m.bias, strict=True):
            x = one.run(SimpleNamespace(qkv=qkv, o=lambda y, o=o, bias=bias: y @ o + bias), x)
        return x

    shapes = {"qkv": (2, 48, 3, 3, 16), "o": (2, 48, 48), "bias": (2, 48)}
    stacked = Net(scan, **{name: torch.nn.Parameter(torch.randn(shape) / 4) for name, shape in shapes.items()})
    blocks = torch.nn.Sequential(partial("heads three", False, 1), partial("heads three", False, 1))
    found = parity.derive(blocks, stacked, (images(2, 5, 48),))
    assert found.proven and len(found.table.lines) == 5, str(found)
    assert "{l}.qkv.weight: (h 1[1:-1] r b) i <-> qkv: l i 1[1:-1] h (b r=2)" in found.table.print()

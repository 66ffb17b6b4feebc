"""Attention whose queries and keys have two parts, one of rotary positions: DeepSeek's multi-head latent attention."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

import parity

from .test_kinds_matching import numbers

HEADS, PLAIN, ROTARY, VALUE, LATENT, WIDTH = 2, 4, 4, 4, 8, 16
EXTENTS = PLAIN, ROTARY
INPUTS = np.random.default_rng(0).standard_normal((2, 5, WIDTH))


class Fused(torch.nn.Module):
    """Both parts of queries in one projection, as released code has it.

    Args:
      joined: whether scores are one product of the joined parts; else the sum of one product for each part.
      turned: whether the rotary parts are turned by their positions.
    """

    def __init__(self, joined: bool, turned: bool = False) -> None:
        super().__init__()
        self.joined, self.turned = joined, turned
        self.q = torch.nn.Linear(WIDTH, HEADS * (PLAIN + ROTARY), bias=False)
        self.kv_a = torch.nn.Linear(WIDTH, LATENT + ROTARY, bias=False)
        self.norm = torch.nn.LayerNorm(LATENT)
        self.kv_b = torch.nn.Linear(LATENT, HEADS * (PLAIN + VALUE), bias=False)
        self.o = torch.nn.Linear(HEADS * VALUE, WIDTH, bias=False)

    def forward(self, x: Any) -> Any:
        query = _heads(self.q(x))
        latent, rotary = self.kv_a(x).split([LATENT, ROTARY], -1)
        key, value = _heads(self.kv_b(self.norm(latent))).split([PLAIN, VALUE], -1)
        plain, rotary_query = query.split(EXTENTS, -1)
        rotary = rotary[:, None]
        if self.turned:
            rotary, rotary_query = _turned(rotary), _turned(rotary_query)
        if self.joined:
            keys = torch.cat([key, rotary.expand(-1, HEADS, -1, -1)], -1)
            scores = torch.cat([plain, rotary_query], -1) @ keys.mT
        else:
            scores = plain @ key.mT + rotary_query @ rotary.mT
        return self.o(_attended(scores, value))


class Split(torch.nn.Module):
    """A projection for each part."""

    def __init__(self) -> None:
        super().__init__()
        self.wq, self.wq_rope = (torch.nn.Linear(WIDTH, HEADS * extent, bias=False) for extent in EXTENTS)
        self.wkv, self.wk_rope = (torch.nn.Linear(WIDTH, extent, bias=False) for extent in (LATENT, ROTARY))
        self.ln = torch.nn.LayerNorm(LATENT)
        self.wk, self.wv = (torch.nn.Linear(LATENT, HEADS * extent, bias=False) for extent in (PLAIN, VALUE))
        self.wo = torch.nn.Linear(HEADS * VALUE, WIDTH, bias=False)

    def forward(self, x: Any) -> Any:
        latent = self.ln(self.wkv(x))
        scores = _heads(self.wq(x)) @ _heads(self.wk(latent)).mT + _heads(self.wq_rope(x)) @ self.wk_rope(x)[:, None].mT
        return self.wo(_attended(scores, _heads(self.wv(latent))))


class Blocks(torch.nn.Module):
    """Two residual blocks of attention behind a norm."""

    def __init__(self, attention: Callable[[], torch.nn.Module]) -> None:
        super().__init__()
        self.layers = torch.nn.ModuleList(attention() for _ in range(2))
        self.norms = torch.nn.ModuleList(torch.nn.LayerNorm(WIDTH) for _ in range(2))

    def forward(self, x: Any) -> Any:
        for layer, norm in zip(self.layers, self.norms, strict=True):
            x = x + layer(norm(x))
        return x


def _heads(x: Any) -> Any:  # (b t (h d)) -> (b h t d)
    return x.unflatten(-1, (HEADS, -1)).transpose(1, 2)


def _turned(x: Any) -> Any:  # (b h t d), neighbours as pairs
    angles = torch.arange(x.shape[2], dtype=x.dtype)[:, None] * 100 ** -torch.linspace(0, 1, x.shape[3] // 2 + 1)[:-1]
    even, odd = x[..., ::2], x[..., 1::2]
    pair = even * angles.cos() - odd * angles.sin(), even * angles.sin() + odd * angles.cos()
    return torch.stack(pair, -1).flatten(-2)


def _attended(scores: Any, value: Any) -> Any:  # (b h t s), (b h s d) -> (b t (h d))
    return ((scores * (PLAIN + ROTARY) ** -0.5).softmax(-1) @ value).transpose(1, 2).flatten(2)


def _queries_of_parts(query: Any) -> dict[str, Any]:
    """Return the two projections of Split that one of Fused stands for."""
    plain, rotary = np.split(query.reshape(HEADS, PLAIN + ROTARY, WIDTH), [PLAIN], 1)
    return {"wq": plain.reshape(-1, WIDTH), "wq_rope": rotary.reshape(-1, WIDTH)}


def _sides() -> dict[str, Blocks]:
    return {
        "joined": Blocks(lambda: Fused(True)),
        "summed": Blocks(lambda: Fused(False)),
        "turned": Blocks(lambda: Fused(True, turned=True)),
        "turned, summed": Blocks(lambda: Fused(False, turned=True)),
        "split": Blocks(Split),
    }


@pytest.mark.parametrize("pair", [("joined", "summed"), ("turned", "turned, summed")])
@pytest.mark.parametrize("reversed_", [False, True])
def test_scores_of_joined_parts_are_the_sum_of_one_product_for_each_part(pair: tuple[str, str], reversed_: bool):
    """Columns of queries are told apart by the projection that makes the keys that they meet, turned or not."""
    left, right = (_sides()[name] for name in (pair[::-1] if reversed_ else pair))
    found = parity.derive(left, right, (INPUTS,))
    elements = numbers(left, INPUTS)
    written = found.table.apply(elements)
    assert found.proven
    assert [name for name, value in written.items() if not np.array_equal(value, elements[name])] == []


@pytest.mark.parametrize("fused", ["joined", "summed"])
@pytest.mark.parametrize("reversed_", [False, True])
def test_fused_queries_of_two_parts_are_split_head_by_head(fused: str, reversed_: bool):
    """The latent part of kv_a has as many columns as each part of the queries, and is for something else."""
    names = (fused, "split")
    left, right = (_sides()[name] for name in (names[::-1] if reversed_ else names))
    found = parity.derive(left, right, (INPUTS,))
    elements = numbers(left, INPUTS)
    written = found.table.apply(elements)
    whole, parts = (written, elements) if reversed_ else (elements, written)
    assert found.proven
    for i in range(2):
        for name, rows in _queries_of_parts(whole[f"layers.{i}.q.weight"]).items():
            np.testing.assert_array_equal(parts[f"layers.{i}.{name}.weight"], rows)


class OneKey(torch.nn.Module):
    """Attention with keys of two parts that one projection makes, and queries of one projection, or of one for each."""

    def __init__(self, split: bool) -> None:
        super().__init__()
        self.split = split
        extents = EXTENTS if split else (sum(EXTENTS),)
        self.q = torch.nn.ModuleList(torch.nn.Linear(WIDTH, HEADS * extent, bias=False) for extent in extents)
        self.k = torch.nn.Linear(WIDTH, 2 * HEADS * PLAIN, bias=False)
        self.v = torch.nn.Linear(WIDTH, HEADS * VALUE, bias=False)
        self.o = torch.nn.Linear(HEADS * VALUE, WIDTH, bias=False)

    def forward(self, x: Any) -> Any:
        keys = [_heads(part) for part in self.k(x).chunk(2, -1)]
        queries = [_heads(q(x)) for q in self.q]
        scores = sum(map(torch.matmul, queries, [key.mT for key in keys])) if self.split else None
        scores = queries[0] @ torch.cat(keys, -1).mT if scores is None else scores
        return self.o(_attended(scores, _heads(self.v(x))))


@pytest.mark.parametrize("reversed_", [False, True])
def test_fused_rows_in_an_order_that_no_value_shows_are_marked(reversed_: bool):
    """Both parts of the keys are columns of one product, which does not tell the columns of the queries apart."""
    sides = [Blocks(lambda split=split: OneKey(split)) for split in (reversed_, not reversed_)]
    found = parity.derive(*sides, (INPUTS,))
    elements = numbers(sides[0], INPUTS)
    written = found.table.apply(elements)
    whole, parts = (written, elements) if reversed_ else (elements, written)
    rows = np.split(whole["layers.0.q.0.weight"].reshape(HEADS, -1, WIDTH), 2, 1)
    correct = all(np.array_equal(parts[f"layers.0.q.{k}.weight"], rows[k].reshape(-1, WIDTH)) for k in range(2))
    names = {f"layers.{i}.q.{k}.weight" for i in range(2) for k in range(1 if reversed_ else 2)}
    assert correct or names <= {*found.chosen}
    assert correct or not found.proven


class Differential(torch.nn.Module):
    """Attention by the difference of two maps, whose queries and keys are one projection each, or one for each map."""

    def __init__(self, split: bool) -> None:
        super().__init__()
        names, count = (("q1", "q2", "k1", "k2"), 1) if split else (("q", "k"), 2)
        self.maps = torch.nn.ModuleDict(
            {name: torch.nn.Linear(WIDTH, count * HEADS * PLAIN, bias=False) for name in names}
        )
        self.v = torch.nn.Linear(WIDTH, HEADS * PLAIN, bias=False)
        self.o, self.part = torch.nn.Linear(HEADS * PLAIN, WIDTH), torch.nn.Parameter(torch.rand(()))

    def forward(self, x: Any) -> Any:
        made = [
            projection(x).unflatten(-1, (HEADS, -1, PLAIN)).permute(3, 0, 2, 1, 4) for projection in self.maps.values()
        ]
        queries, keys = (torch.cat(made[at : at + len(made) // 2]) for at in (0, len(made) // 2))
        first, second = (queries @ keys.mT).softmax(-1)
        return self.o(((first - self.part * second) @ _heads(self.v(x))).transpose(1, 2).flatten(2))


@pytest.mark.parametrize("reversed_", [False, True])
def test_what_reads_the_same_as_fused_rows_in_an_unknown_order_is_marked(reversed_: bool):
    """Values of one width with a part of the queries are the only ones that fit it, and not its partner."""
    left, right = Differential(reversed_), Differential(not reversed_)
    found = parity.derive(left, right, (INPUTS,))
    elements = numbers(left, INPUTS)
    written = found.table.apply(elements)
    whole, parts = (written, elements) if reversed_ else (elements, written)
    known = {"v.weight": np.array_equal(written["v.weight"], elements["v.weight"])}
    for name in "qk":
        rows = whole[f"maps.{name}.weight"].reshape(HEADS, 2, -1, WIDTH)
        same = [np.array_equal(parts[f"maps.{name}{k + 1}.weight"], rows[:, k].reshape(-1, WIDTH)) for k in range(2)]
        known |= (
            {f"maps.{name}.weight": all(same)}
            if reversed_
            else {f"maps.{name}{k + 1}.weight": same[k] for k in range(2)}
        )
    assert {name for name, correct in known.items() if not correct} <= {*found.chosen}

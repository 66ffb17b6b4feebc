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
    """

    def __init__(self, joined: bool) -> None:
        super().__init__()
        self.joined = joined
        self.q = torch.nn.Linear(WIDTH, HEADS * (PLAIN + ROTARY), bias=False)
        self.kv_a = torch.nn.Linear(WIDTH, LATENT + ROTARY, bias=False)
        self.norm = torch.nn.LayerNorm(LATENT)
        self.kv_b = torch.nn.Linear(LATENT, HEADS * (PLAIN + VALUE), bias=False)
        self.o = torch.nn.Linear(HEADS * VALUE, WIDTH, bias=False)

    def forward(self, x: Any) -> Any:
        query = _heads(self.q(x))
        latent, rotary = self.kv_a(x).split([LATENT, ROTARY], -1)
        key, value = _heads(self.kv_b(self.norm(latent))).split([PLAIN, VALUE], -1)
        rotary = rotary[:, None]
        if self.joined:
            scores = query @ torch.cat([key, rotary.expand(-1, HEADS, -1, -1)], -1).mT
        else:
            plain, turned = query.split(EXTENTS, -1)
            scores = plain @ key.mT + turned @ rotary.mT
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


def _attended(scores: Any, value: Any) -> Any:  # (b h t s), (b h s d) -> (b t (h d))
    return ((scores * (PLAIN + ROTARY) ** -0.5).softmax(-1) @ value).transpose(1, 2).flatten(2)


def _queries_of_parts(query: Any) -> dict[str, Any]:
    """Return the two projections of Split that one of Fused stands for."""
    plain, rotary = np.split(query.reshape(HEADS, PLAIN + ROTARY, WIDTH), [PLAIN], 1)
    return {"wq": plain.reshape(-1, WIDTH), "wq_rope": rotary.reshape(-1, WIDTH)}


def test_scores_of_joined_parts_against_a_sum_of_products_end_without_an_unmarked_wrong_line():
    """Each side has one array for both parts, so that a wrong match of them is no line between whole arrays."""
    left = Blocks(lambda: Fused(True))
    found = parity.derive(left, Blocks(lambda: Fused(False)), (INPUTS,))
    elements = numbers(left, INPUTS)
    written = found.table.apply(elements)
    unsure = {*found.chosen, *found.doubtful}
    wrong = [name for name, value in written.items() if not np.array_equal(value, elements[name])]
    assert unsure.issuperset(wrong)
    assert found.proven or found.missing


@pytest.mark.parametrize("reversed_", [False, True])
def test_fused_rows_in_an_order_that_no_value_shows_are_marked(reversed_: bool):
    """Where scores are composed otherwise on both sides, nothing tells how rows of both parts are interleaved."""
    sides = Blocks(lambda: Fused(True)), Blocks(Split)
    left, right = sides[::-1] if reversed_ else sides
    found = parity.derive(left, right, (INPUTS,))
    elements = numbers(left, INPUTS)
    written = found.table.apply(elements)
    fused, split = (written, elements) if reversed_ else (elements, written)
    wanted = _queries_of_parts(fused["layers.0.q.weight"])
    correct = all(np.array_equal(split[f"layers.0.{name}.weight"], rows) for name, rows in wanted.items())
    names = {f"layers.{i}.{name}.weight" for i in range(2) for name in (["q"] if reversed_ else wanted)}
    assert correct or names <= {*found.chosen}
    assert correct or not found.proven

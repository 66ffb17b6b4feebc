"""Experts that all run on all rows, of whose results a router chooses by number."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import parity

torch = pytest.importorskip("torch", reason="both sides are torch modules")
from .pairs import images  # noqa: E402
from .test_kinds_matching import linear  # noqa: E402

EXPERTS = WIDTH = 4  # so that the router has a matrix of the experts' shape


class Chosen(torch.nn.Module):
    def __init__(self, take: Any, order: list[int]) -> None:
        super().__init__()
        self.router, self.experts = linear(WIDTH, EXPERTS), torch.nn.ModuleList(linear(WIDTH) for _ in range(EXPERTS))
        self.take, self.order = take, order

    def forward(self, x: Any) -> Any:
        return self.take(torch.stack([self.experts[k](x) for k in self.order], 1), self.router(x).softmax(-1))


def by_index(y: Any, shares: Any) -> Any:
    return y[torch.arange(len(y)), shares.argmax(-1)]


def two(y: Any, shares: Any) -> Any:
    weights, places = shares.topk(2, -1)
    return (y.gather(1, places[..., None].expand(-1, -1, WIDTH)) * weights[..., None]).sum(1)


@pytest.mark.parametrize("order", [[0, 1, 2, 3], [3, 2, 1, 0]])
@pytest.mark.parametrize("rows", [2, 9])
@pytest.mark.parametrize("take", [by_index, two])
def test_each_expert_is_the_one_at_its_place_among_those_that_a_router_chooses_from(
    take: Any, rows: int, order: list[int]
):
    """Which experts the right side reads before its router has a partner depends on weights of its own."""
    left, right = Chosen(take, [*range(EXPERTS)]), Chosen(take, order)
    found = parity.derive(left, right, (images(rows, WIDTH),))
    assert found.proven, found
    own = {name: value.numpy() for name, value in left.state_dict().items()}
    moved = found.table.apply(own)
    for k, other in enumerate(order):
        assert np.array_equal(moved[f"experts.{other}.weight"], own[f"experts.{k}.weight"])
        assert np.array_equal(moved[f"experts.{other}.bias"], own[f"experts.{k}.bias"])

"""Torch parameters that share their memory, which copies of a model do not keep by themselves."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

import parity
from convert.errors import UsageError

TOKENS = np.random.default_rng(0).integers(0, 7, (3, 5))


class Language(torch.nn.Module):
    """An embedding and a head, tied by `tie(model)`."""

    def __init__(self, tie: Callable[[Any], None], seed: int = 0) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.embed, self.mix, self.head = (
            torch.nn.Embedding(7, 4), torch.nn.Linear(4, 4), torch.nn.Linear(4, 7, bias=False)
        )  # fmt: skip
        tie(self)

    def forward(self, tokens: Any) -> Any:
        return self.head(self.mix(self.embed(tokens)).tanh())


def untied(model: Any) -> None:
    pass


def ordinary(model: Any) -> None:
    model.head.weight = model.embed.weight


def by_data(model: Any) -> None:
    model.head.weight.data = model.embed.weight.data


def by_parameter(model: Any) -> None:
    model.head.weight = torch.nn.Parameter(model.embed.weight.data)


def in_part(model: Any) -> None:
    model.mix.weight.data = model.embed.weight.data[1:5]


def as_buffer(model: Any) -> None:
    model.register_buffer("other", model.embed.weight.data)


@pytest.mark.parametrize("tie", [by_data, by_parameter])
def test_ties_by_memory_are_ties(tie: Callable[[Any], None]) -> None:
    found = parity.derive(Language(tie), Language(ordinary), (TOKENS,))
    assert found.proven and "embed.weight: o i = head.weight: o i <->" in found.table.print(), found.table.print()
    moved = parity.transfer(Language(tie), Language(tie, 1), (TOKENS,))
    assert moved.head.weight.data_ptr() == moved.embed.weight.data_ptr()
    assert torch.equal(moved.head.weight, Language(untied).embed.weight)


def test_a_model_tied_by_memory_does_not_train_like_one_without_ties() -> None:
    apart = Language(untied)
    apart.head.weight.data.copy_(apart.embed.weight.data)
    inputs = TOKENS
    assert not parity.compare({"a": Language(by_data), "b": apart}, inputs, "train", dtype="float64").passed
    report = parity.compare({"a": Language(by_data), "b": Language(ordinary)}, inputs, "train", dtype="float64")
    assert report.passed
    assert "embed.weight and head.weight share their memory: they are taken as one parameter" in " ".join(
        str(report).split()
    )


@pytest.mark.parametrize(
    ("tie", "names"), [(in_part, "embed.weight and mix.weight"), (as_buffer, "embed.weight and other")]
)
def test_memory_that_is_shared_in_part_is_refused(tie: Callable[[Any], None], names: str) -> None:
    model = Language(tie)
    with pytest.raises(UsageError, match=f"{names} of the torch model share a part of their memory"):
        parity.derive(model, Language(untied), (TOKENS,))
    with pytest.raises(UsageError, match=f"{names} of the torch model share a part of their memory"):
        parity.compare({"a": model, "b": Language(untied)}, TOKENS, dtype="float64")


def test_parts_of_one_memory_without_a_common_element_are_no_ties() -> None:
    model = Language(untied)
    memory = torch.randn(2, 8)
    model.mix.weight.data, model.head.weight.data = memory[:, :4].repeat(2, 1), model.head.weight.data
    both = torch.randn(8, 8)
    model.mix.weight.data, model.embed.weight.data = both[:4, ::2], both[:7, 1::2]
    found = parity.derive(model, Language(untied), (TOKENS,))
    assert found.proven and " = " not in str(found.table)

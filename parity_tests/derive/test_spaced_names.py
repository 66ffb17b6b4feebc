"""Names with a space, as keys of JAX may have, are one parameter each wherever a result names them."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from html import unescape
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import parity
from parity.derive.report import page
from specs.table import Table

jax = pytest.importorskip("jax", reason="both sides are functions of JAX")
import jax.numpy as jnp  # noqa: E402

from ..parity.pages import unbound  # noqa: E402
from .pairs import images  # noqa: E402

Parameters = Mapping[str, Any]
SHAPES = {"my w": (5, 6), "my b": (6,), "out w": (6, 3)}
THERE = {"their w": (5, 6), "their b": (6,), "last w": (6, 3)}


def drawn(shapes: Mapping[str, tuple[int, ...]]) -> Parameters:
    rng = np.random.default_rng(0)
    return {name: jnp.asarray(rng.standard_normal(shape)) for name, shape in shapes.items()}


def layers(first: str, bias: str, last: str, function: Callable[[Any], Any]) -> Callable[[Parameters, Any], Any]:
    return lambda p, x: function(x @ p[first] + p[bias]) @ p[last]


def derived(there: Mapping[str, tuple[int, ...]] = THERE, function: Callable[[Any], Any] = jnp.tanh) -> Any:
    left = (layers(*SHAPES, jnp.tanh), drawn(SHAPES))
    return parity.derive(left, (layers(*there, function), drawn(there)), (images(7, 5),))


def test_a_proven_pair(tmp_path: Path):
    found = derived()
    assert found.proven and "free to permute: outputs of my w (right: their w) with inputs of out w" in str(found)
    uses = json.loads(json.dumps(found.to_dict()))["uses"]
    assert [(use["left"], use["right"]) for use in uses] == [([a], [b]) for a, b in zip(SHAPES, THERE, strict=True)]
    assert "<code>my w</code>" in unbound(page(found, {}))
    found.table.save(str(tmp_path / "spaced.table"))
    given = {name: np.asarray(array) for name, array in drawn(SHAPES).items()}
    moved = Table.load(str(tmp_path / "spaced.table")).apply(given)
    assert all(np.array_equal(moved[b], given[a]) for a, b in zip(SHAPES, THERE, strict=True))
    assert Table.load(str(tmp_path / "spaced.table")).reverse().apply(moved).keys() == given.keys()


def test_an_incomplete_pair():
    found = derived(THERE | {"last w": (6, 4)})
    assert (found.left_over, found.missing) == (["out w"], ["last w"])
    assert found.to_dict()["left_over"] == ["out w"] and found.stop and found.stop.names == ("last w",)
    assert "left without a partner: out w" in str(found).splitlines()
    assert "stopped at 'last w': no operation on the left" in str(replace(found, sizes=""))
    text = unescape(unbound(page(found, {})))
    assert "<code>out w</code>" in text and "<code>last w</code>" in text and "<code>w</code>" not in text


def test_a_pair_that_parts():
    found = derived(function=jnp.sin)
    assert not found.proven and not found.missing
    assert "tanh on the left, sin on the right" in str(found)
    assert [use.left for use in found.uses] == [("my w",), ("my b",), ("out w",)]
    assert "<code>out w</code>" in unbound(page(found, {}))


def test_several_parameters_of_one_use():
    left = (lambda p, x: x @ (p["my w"] * p["my s"]), drawn({"my w": (5, 6), "my s": (6,)}))
    right = (lambda p, x: x @ (p["their w"] * p["their s"]), drawn({"their w": (5, 6), "their s": (6,)}))
    found = parity.derive(left, right, (images(7, 5),))
    assert {name for use in found.uses for name in use.left} == {"my w", "my s"}
    assert found.left_over == [] and not found.missing

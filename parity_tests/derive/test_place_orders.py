"""Places in other orders, as positions and layers: another model has more of them, and of two any exchange is one."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest

import parity
from specs.notation.lines import TableError

from .pairs import images
from .test_joined_orders import F64, converted

torch = pytest.importorskip("torch", reason="the left sides are torch modules")


class Places(torch.nn.Module):
    """Tokens that are flattened into a head in an order. Args: order: (b, n, c) -> the same, moved."""

    def __init__(self, count: int, order: Callable[[Any], Any] = lambda x: x) -> None:
        super().__init__()
        self.order, self.stem, self.head = order, torch.nn.Linear(3, 4), torch.nn.Linear(count * 4, 5)

    def forward(self, x: Any) -> Any:
        return self.head(self.order(torch.tanh(self.stem(x))).flatten(1))


def in_turns(x: Any) -> Any:
    """Return a grid of three columns, of which every second row runs backwards."""
    rows = x.unflatten(1, (-1, 3)).unbind(1)
    return torch.cat([row.flip(1) if k % 2 else row for k, row in enumerate(rows)], 1)


PLACES = {
    "columns first": (lambda x: x.unflatten(1, (2, -1)).transpose(1, 2).flatten(1, 2), "(c y X)", "(y c X)", {"c": 2}),
    "backwards": (lambda x: x.flip(1), "(-c P)", "(c P)", {}),
    "neighbours": (lambda x: x.unflatten(1, (-1, 2)).flip(2).flatten(1, 2), "(c -y X)", "(c y X)", {"y": 2}),
    "by one": (lambda x: torch.stack([x[:, k - 1] for k in range(x.shape[1])], 1), "(a+b)", "(b+a)", {"b": 4}),
    "in turns": (in_turns, "(a=12+b=4+e=4+f=4)", "(a+f+e+b)", None),
}


@pytest.mark.parametrize("case", PLACES)
def test_so_many_places_are_no_number_of_the_code(case: str):
    """They have one length in every model, and another model has more of them."""
    order, own, other, lengths = PLACES[case]
    x = images(3, 12, 3)
    found = parity.derive(Places(6), Places(6, order), (x[:, :6],))
    text = found.table.print()
    assert (
        found.proven
        and f"head.weight: o {own} <-> head.weight: o {other}\n" in text
        and "whatever the width" not in text
    ), text
    assert "one length in every model" not in str(found)
    if case == "columns first":  # another c is the length of a bias, which shows nothing of this one
        assert found.unchecked == ["c", "y"] and "# not checked: c, y: no shape of either side" in text
    larger = Places(12), Places(12, order)
    if lengths is None:
        assert "# for these lengths alone: (a=12" in text
        with pytest.raises(TableError, match="is 24, not 48"):
            converted(found, *larger, x)
    else:
        assert converted(found, *larger, x, **lengths) < F64


@pytest.mark.parametrize(("case", "names"), [("backwards", []), ("by one", ["head.weight"])])
def test_of_two_places_code_alone_shows_a_reversal(case: str, names: list[str]):
    found = parity.derive(Places(2), Places(2, PLACES[case][0]), (images(3, 2, 3),))
    assert found.proven and "head.weight: o (-c P) <-> head.weight: o (c P)\n" in found.table.print(), str(found)
    assert found.two_places == names


class Looped(torch.nn.Module):
    """Parts of one projection, which a loop treats alike but for the first one. Args: order: of the loop."""

    def __init__(self, order: Sequence[int]) -> None:
        super().__init__()
        self.order, self.wide = order, torch.nn.Linear(5, 4 * len(order))

    def forward(self, x: Any) -> Any:
        parts = self.wide(x).chunk(len(self.order), -1)
        y = torch.sin(parts[self.order[0]])
        for k in self.order[1:]:
            y = torch.tanh(y * parts[k] + 1.0)
        return y


def test_steps_of_a_loop_are_no_number_of_the_code():
    """It would be `(a=1+b=1+...)`, which takes any width that five parts divide."""
    orders = range(5), (1, 0, 3, 2, 4)
    text = (found := parity.derive(*map(Looped, orders), (images(4, 5),))).table.print()
    assert found.proven and "=1" not in text and "whatever the width" not in text, text


def test_a_stack_is_run_from_its_end_in_models_of_any_depth():
    """A scan with reverse=True does so."""
    jnp = pytest.importorskip("jax").numpy

    def mlp(depth: int) -> Any:
        return torch.nn.Sequential(*(torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.Tanh()) for _ in range(depth)))

    def stack(p: Any, x: Any) -> Any:
        for k in range(len(p["w"]))[::-1]:
            x = jnp.tanh(x @ p["w"][k] + p["b"][k])
        return x

    given = {"w": np.ones((3, 4, 4), np.float32), "b": np.ones((3, 4), np.float32)}
    found = parity.derive(mlp(3), (stack, given), (images(3, 4),))
    assert found.proven and "{l}.0.bias: c <-> b: -l c\n" in found.table.print(), str(found)
    state = {name: array.numpy() for name, array in mlp(5).state_dict().items()}
    assert np.array_equal(found.table.apply(state)["b"], np.stack([state[f"{k}.0.bias"] for k in (4, 3, 2, 1, 0)]))


@pytest.mark.parametrize("is_scan", [True, False])
def test_a_stack_of_two_layers_shows_a_reversal_only_where_code_reverses_it(is_scan: bool):
    """A loop that begins with the second half of the layers is the same of two layers."""
    jax = pytest.importorskip("jax")
    jnp = jax.numpy

    def mlp(depth: int) -> Any:
        return torch.nn.Sequential(*(torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.Tanh()) for _ in range(depth)))

    def stack(p: Any, x: Any) -> Any:
        if is_scan:
            return jax.lax.scan(lambda x, p: (jnp.tanh(x @ p["w"] + p["b"]), None), x, p, reverse=True)[0]
        for k in (1, 0):
            x = jnp.tanh(x @ p["w"][k] + p["b"][k])
        return x

    given = {"w": np.ones((2, 4, 4), np.float32), "b": np.ones((2, 4), np.float32)}
    found = parity.derive(mlp(2), (stack, given), (images(3, 4).astype("float32"),))
    assert found.proven and "{l}.0.bias: c <-> b: -l c\n" in found.table.print(), str(found)
    assert found.two_places == found.to_dict()["two_places"] == ([] if is_scan else ["w", "b"]), str(found)
    with warnings.catch_warnings(record=True) as noted:
        found.table.apply({name: array.numpy() for name, array in mlp(4).state_dict().items()})
    assert ["two places alone, outside any proof: w, b: these lines" in str(each.message) for each in noted] == (
        [] if is_scan else [True]
    )

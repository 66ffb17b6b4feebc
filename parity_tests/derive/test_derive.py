"""Two models in, a proven Table out: five pairs of frameworks, and the way to a converted file."""

from __future__ import annotations

import functools
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import parity
from parity.derive.trace.draws import draw
from parity.derive.trace.sides import side
from specs.table import Table

from ..conftest import needs
from . import attention, convolution, pairs, sequence
from .pairs import Pair

PAIRS = {**pairs.PAIRS, **attention.PAIRS, **convolution.PAIRS, **sequence.PAIRS}

FRAMEWORKS = {"linen": "flax", "nnx": "flax", "jax": "flax"}


@functools.cache
def pair(name: str) -> Pair:
    for framework in name.split("_")[:2]:
        needs(FRAMEWORKS.get(framework, framework))
    return PAIRS[name]()


@functools.cache
def derived(name: str) -> parity.Derivation:
    of = pair(name)
    return parity.derive(of.left, of.right, of.inputs, of.right_inputs)


@pytest.mark.parametrize("name", PAIRS)
def test_a_pair_gives_the_table_that_a_person_would_write(name: str):
    of, found = pair(name), derived(name)
    assert found.proven and not found.missing and not found.failure, (found.error, found.missing, found.failure)
    assert not found.two_places  # taps of transposed convolutions run backwards by their definition
    arrays = _arrays(of.left, of.inputs)
    translated = found.table.apply(arrays)
    written = Table.parse(f"table 1\n{of.table}", of.orders).apply(arrays, like=translated, **of.sizes)
    assert written.keys() == translated.keys()
    for array in written:
        assert np.array_equal(written[array], translated[array]), array
    text = found.table.print()
    assert Table.parse(text, found.table.orders).lines == found.table.lines
    again = Table.parse(text, found.table.orders).apply(arrays, like=translated, **found.table.sizes)  # from a file
    assert all(np.array_equal(again[array], translated[array]) for array in translated)


@pytest.mark.parametrize(
    ("name", "lengths"),
    [
        ("torch_torch", "c=8 d=4 a=4 (qkv.weight)"),  # and no width that the shapes show
        ("torch_paddle", "h=2 d=4 (qkv.weight, qkv.bias)"),
    ],
)
def test_a_table_says_on_which_lines_a_conversion_asks_for_lengths(name: str, lengths: str):
    assert f"\n# lengths in the models that it was derived from: {lengths}\n" in derived(name).table.print()


@pytest.mark.parametrize("name", ["torch_torch", "torch_linen"])
def test_the_saved_table_converts_both_ways(name: str, tmp_path: Path):
    left, _, inputs, *_ = pair(name)
    found = derived(name)
    found.table.save(tmp_path / "my.table")
    table = Table.load(tmp_path / "my.table")
    arrays = _arrays(left, inputs)
    translated = found.table.apply(arrays)
    assert str(table) == str(found.table)
    back = table.reverse().apply(translated, like=arrays)
    assert all(np.array_equal(back[name], array) for name, array in arrays.items())


def test_the_command_line_derives_a_table_that_converts_a_file(tmp_path: Path, run: Any):
    needs("torch")
    import torch

    left = pair("torch_torch").left
    torch.save(left.state_dict(), tmp_path / "left.pt")
    (tmp_path / "two.py").write_text(
        "from parity_tests.derive.pairs import torch_torch\n"
        "def left(): return torch_torch().left, torch_torch().inputs\n"
        "def right(): return torch_torch().right\n"
    )
    table = tmp_path / "my.table"
    code, out, err = run("derive", f"{tmp_path}/two.py:left", f"{tmp_path}/two.py:right", "-o", table, "--json")
    assert code == 0, err
    assert json.loads(out)["proven"] is True
    sizes = [
        word for name, length in derived("torch_torch").table.sizes.items() for word in ("--set", f"{name}={length}")
    ]
    code, _, err = run("--table", table, tmp_path / "left.pt", *sizes, "-o", tmp_path / "right.npz")
    assert code == 0, err
    converted = np.load(tmp_path / "right.npz")
    state = left.state_dict()
    assert np.array_equal(converted["d_key.weight"], state["qkv.weight"][8:12].numpy())
    assert np.array_equal(converted["b_up.bias"], state["gate_up.bias"][8:].numpy())


def test_recurrent_gates_states_and_both_biases_are_told_apart():
    needs("torch")
    needs("paddle")
    import paddle
    import torch

    inputs = parity.Call(np.random.default_rng(0).standard_normal((3, 2, 4)), output=lambda result: result[0])
    found = parity.derive(torch.nn.GRU(4, 5), paddle.nn.GRU(4, 5, time_major=True), inputs, inputs)
    assert found.proven and not found.missing
    arrays = {name: np.random.default_rng(1).standard_normal(shape) for name, shape in found.table.known.items()}
    translated = found.table.apply(arrays)
    for name, array in arrays.items():
        assert np.array_equal(translated[name], array) and np.array_equal(translated[f"0.cell.{name[:-3]}"], array)


def test_depthwise_convolutions_and_pooling_of_paddle():
    needs("torch")
    needs("paddle")
    import paddle
    import torch

    a, b = torch.nn, paddle.nn
    left = a.Sequential(
        a.Conv2d(4, 4, 3, padding=1, groups=4), a.BatchNorm2d(4),
        a.ReLU6(), a.AdaptiveAvgPool2d(1), a.Flatten(), a.Linear(4, 6)
    )  # fmt: skip
    right = b.Sequential(
        b.Conv2D(4, 4, 3, padding=1, groups=4), b.BatchNorm2D(4),
        b.ReLU6(), b.AdaptiveAvgPool2D(1), b.Flatten(), b.Linear(4, 6)
    )  # fmt: skip
    found = parity.derive(left, right, (np.random.default_rng(0).standard_normal((2, 4, 6, 5)),))
    assert found.proven and not found.missing
    assert "5.weight: o i <-> 5.weight: i o" in found.table.print()


def test_a_norm_right_after_rows_that_tokens_read():
    needs("torch")
    import torch

    class Model(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.words, self.norm = torch.nn.Embedding(20, 8), torch.nn.RMSNorm(8)
            self.first, self.second = torch.nn.Linear(8, 8, bias=False), torch.nn.Linear(8, 8, bias=False)

        def forward(self, tokens):
            x = self.words(tokens)
            y = self.norm(x)
            return x + torch.sigmoid(self.first(y)) * self.second(y)

    found = parity.derive(Model(), Model(), (np.array([[3, 7, 3, 12], [1, 7, 7, 5]]),))
    assert found.proven and "norm.weight" not in found.inferred


def test_a_matrix_of_one_element_that_nothing_reads_is_mapped_though_others_have_axes_in_an_order():
    needs("torch")
    import torch

    class Model(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.used, self.spare = torch.nn.Linear(4, 4), torch.nn.Linear(1, 1)

        def forward(self, x):
            return self.used(x)

    found = parity.derive(Model(), Model(), (pairs.images(2, 4),))
    assert found.proven and found.inferred == ["spare.weight", "spare.bias"]


def test_rows_that_no_token_reads_continue_the_pattern_and_are_marked():
    needs("torch")
    import torch

    class Model(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.words, self.positions = torch.nn.Embedding(20, 6), torch.nn.Embedding(9, 6)
            self.places, self.head = torch.nn.Parameter(torch.zeros(1, 9, 6)), torch.nn.Linear(6, 6)

        def forward(self, tokens):
            length = tokens.shape[1]
            x = self.words(tokens) + self.places[:, :length].exp() * self.positions(torch.arange(2, 2 + length))
            return self.head(torch.tanh(x))

    found = parity.derive(Model(), Model(), (np.array([[3, 7, 3, 12], [1, 7, 7, 5]]),))
    assert found.proven and set(found.inferred) == {"words.weight", "positions.weight", "places"}
    assert "only some rows are read with these inputs, and the others follow them: places, words" in found.table.print()
    assert found.in_rows == found.inferred and "inferred" not in str(found)
    arrays = {name: np.random.default_rng(1).standard_normal(shape) for name, shape in found.table.known.items()}
    assert all(np.array_equal(array, arrays[name]) for name, array in found.table.apply(arrays).items())


@pytest.mark.parametrize("text", ["nothing.py", "nothing.py:build"])
def test_a_side_without_a_function_or_a_file_is_wrong_usage(text: str, run: Any):
    code, _, err = run("derive", text, text)
    assert code == 2 and "nothing.py" in err


def _arrays(model: Any, inputs: Any) -> dict[str, np.ndarray]:
    of = side(model, inputs if isinstance(inputs, parity.Call) else parity.Call(*inputs))
    drawn = draw(of, 5)
    return {**drawn, **{name: drawn[first] for name, first in of.ties.items()}, **of.others}

"""Test terms of which only the sum counts: each goes where its name says, and not where it has an effect of its own."""

from __future__ import annotations

import weakref
from typing import Any

import numpy as np
import pytest

import parity
from convert.errors import UsageError
from parity.derive.limits import LARGE_USE
from parity.derive.match.added import Added
from specs.table import Table

from .pairs import images

torch = pytest.importorskip("torch")
X = images(5, 4)


class Layer(torch.nn.Module):
    """A recurrent layer of torch."""

    def __init__(self, kind: str):
        super().__init__()
        self.layer = getattr(torch.nn, kind)(4, 6, batch_first=True)

    def forward(self, x: Any) -> Any:
        return self.layer(x)[0]


class Cell(torch.nn.Module):
    """A cell of torch, step by step from zeros of the input's dtype."""

    def __init__(self, kind: str):
        super().__init__()
        self.cell, self.many = getattr(torch.nn, f"{kind}Cell")(4, 6), kind == "LSTM"

    def forward(self, x: Any) -> Any:
        zeros = x.new_zeros(len(x), 6)
        state, outputs = (zeros, zeros) if self.many else zeros, []
        for step in x.unbind(1):
            state = self.cell(step, state)
            outputs.append(state[0] if self.many else state)
        return torch.stack(outputs, 1)


@pytest.mark.parametrize("kind", ["GRU", "LSTM", "RNN"])
@pytest.mark.parametrize("turned", [False, True], ids=["layer first", "cell first"])
def test_both_biases_of_a_cell_go_to_those_of_their_names(kind: str, turned: bool):
    sides = Layer(kind), Cell(kind)
    found = parity.derive(*(sides[::-1] if turned else sides), (images(3, 5, 4),))
    assert found.proven, str(found)
    names = [("layer.bias_ih_l0", "cell.bias_ih"), ("layer.bias_hh_l0", "cell.bias_hh")]
    for pair in names:
        left, right = pair[::-1] if turned else pair
        assert f"{left}: c <-> {right}: c\n" in found.table.print()


class Scaled(torch.nn.Module):
    """Two vectors that are added, one of them behind a factor if it counts by itself.

    Args:
      names: of both vectors.
    """

    def __init__(self, names: tuple[str, str], factor: float):
        super().__init__()
        self.up, self.names, self.factor = torch.nn.Linear(4, 5, bias=False), names, factor
        for k, name in enumerate(names):
            self.register_parameter(name, torch.nn.Parameter(torch.full((5,), 1.0 + k)))

    def forward(self, x: Any) -> Any:
        first, second = (getattr(self, name) for name in self.names)
        return (self.up(x) + first) * self.factor + second


def test_a_sum_is_said_to_leave_the_state_of_an_optimizer_behind():
    """In the Table and in the terminal: a conversion of such a state is refused later."""
    single = torch.nn.Linear(4, 5)
    found = parity.derive(single, Scaled(("one", "two"), 1.0), (images(3, 4),))
    said = "sums of several arrays: bias: their weights convert in both directions, the state of an optimizer does not"
    assert found.proven and f"# {said}" in found.table.print() and said in str(found), found.table.print()


def test_what_counts_by_itself_stays_where_values_show_it():
    found = parity.derive(Scaled(("one", "two"), 2.0), Scaled(("two", "one"), 2.0), (images(3, 4),))
    assert found.proven and "one: c <-> two: c\n" in found.table.print()
    assert "two: c <-> one: c\n" in found.table.print()


def test_terms_of_a_sum_go_to_those_of_their_names():
    found = parity.derive(Scaled(("one", "two"), 1.0), Scaled(("two", "one"), 1.0), (images(3, 4),))
    assert found.proven and "one: c <-> one: c\n" in found.table.print()
    assert any(text.endswith("only their sum has an effect") for text in found.freedom)


def test_lines_of_the_user_stay_as_they_are():
    crossed = Table.parse("table 1\nlayer.bias_ih_l0: c <-> cell.bias_hh: c\nlayer.bias_hh_l0: c <-> cell.bias_ih: c\n")
    found = parity.derive(Layer("LSTM"), Cell("LSTM"), (images(3, 5, 4),), table=crossed)
    assert found.proven and "layer.bias_ih_l0: c <-> cell.bias_hh: c\n" in found.table.print()


def test_zeros_of_the_shape_of_an_input_are_constants():
    from parity.derive.trace.sides import side

    class Zeros(torch.nn.Module):
        def forward(self, x: Any) -> Any:
            filled = torch.empty_like(x)
            filled.zero_()
            return x + x.new_zeros(4) + torch.ones_like(x) + filled.fill_(2.0)

    of = side(Zeros(), parity.Call(images(3, 4)))
    tape = of.record({}, of.call.arrays()).live()
    assert all(node.kind == "add" for node in tape.nodes)
    assert np.allclose(of.run({}, of.call.arrays())[0], images(3, 4) + 3)


def test_numbers_of_a_large_matrix_are_freed_behind_its_product():
    """Those of all matrices would take as much memory as weights of float32."""
    numbers = np.arange(1, 1 + LARGE_USE * 2, dtype=np.int32)
    alive, sums = weakref.ref(numbers), Added([], None, 1)  # type: ignore[arg-type]
    sums.note(0, numbers.reshape(1, -1, 512).swapaxes(1, 2))
    del numbers
    assert alive() is None


def _added(bias: bool) -> Any:
    class Added(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one, self.other = torch.nn.Linear(4, 4), torch.nn.Linear(4, 4, bias=bias)
            self.out = torch.nn.Linear(4, 3)

        def forward(self, x: Any) -> Any:
            return self.out((self.one(x) + self.other(x.tanh())).tanh())

    return Added()


def test_weights_go_back_by_what_was_derived_also_where_the_table_adds():
    found = parity.derive(_added(False), _added(True), (X,))
    trained, x = _added(True), torch.from_numpy(X.astype(np.float32))
    back = parity.transfer(trained, _added(False), table=found)
    torch.testing.assert_close(back(x), trained(x))
    again = parity.transfer({name: array.numpy() for name, array in back.state_dict().items()}, trained, table=found)
    torch.testing.assert_close(again(x), trained(x))


def test_a_given_line_that_adds_left_arrays_is_derived_anew():
    found = parity.derive(_added(False), _added(True), (X,))
    back = parity.derive(_added(True), _added(False), (X,), table=found.table.reverse())
    assert back.proven and "one.bias: c + other.bias: c -> one.bias: c\n" in back.table.print()
    (given,) = back.given_open
    assert "(one.bias)" in given and "or the line adds arrays of the left model" in str(back)
    typo = Table.parse("table 1\none.bias: c + other.bia: c -> one.bias: c")
    with pytest.raises(UsageError, match="the left model has no such arrays"):
        parity.derive(_added(True), _added(False), (X,), table=typo)

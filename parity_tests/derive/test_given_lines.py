"""Lines that a user gives: taken as given, completed, or refused."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

import parity
from convert.errors import UsageError
from parity.derive.fold.rows import table_of
from parity.derive.match.hints import Hint, check_lines
from specs.table import Table

from ..conftest import needs
from .test_contract import X, torch_model
from .test_report import page_of


def test_lines_that_are_known_are_kept_and_completed():
    needs("torch")
    start = Table.parse("table 1\n0.weight: out in <-> 0.weight: out in\n0.bias: out <-> 0.bias: out\n")
    found = parity.derive(torch_model(), torch_model(), (X,), table=start)
    lines = found.table.print().splitlines()
    assert (
        found.proven and "0.weight: out in <-> 0.weight: out in" in lines and "2.weight: o i <-> 2.weight: o i" in lines
    )


def test_a_right_given_line_is_not_accused_of_what_differs_behind_it():
    needs("torch")
    import torch

    class Part(torch.nn.Module):
        def __init__(self, bent: bool):
            super().__init__()
            self.bent, (self.a, self.b, self.c) = bent, (torch.nn.Linear(4, 4) for _ in "abc")

        def forward(self, x: Any) -> Any:
            y = self.b(self.a(x).tanh()).tanh()
            return self.c(y * y.roll(1, -1) - 0.3 * x.sin() if self.bent else y * x)

    torch.manual_seed(0)  # which causes are tried depends on the values
    for name in "ab":  # the lines of b are right: without them, outputs differ as much
        text = f"table 1\n{name}.weight: o i <-> {name}.weight: o i\n{name}.bias: o <-> {name}.bias: o\n"
        found = parity.derive(Part(False), Part(True), (X,), table=Table.parse(text, name="x.table"))
        assert not found.proven and not found.confirmed and found.divergences[0].right == "c"
        assert found.check_given == "" and "check the given line" not in found.following


def test_a_right_given_line_is_not_accused_where_nothing_differs_and_places_are_named_where_something_does():
    """Four layers stand in a stack of two by two, for which no line is found: no output can be compared."""
    needs("torch")
    import torch

    class Grid(torch.nn.Module):
        def __init__(self, bent: float = 0.0) -> None:
            super().__init__()
            self.w, self.head = torch.nn.Parameter(torch.randn(2, 2, 4, 4)), torch.nn.Linear(4, 3, bias=False)
            self.bent = bent

        def forward(self, x: Any) -> Any:
            for k, layer in enumerate(self.w.flatten(0, 1)):
                x = (x @ layer).tanh()
                x = x + self.bent * x.sin() if k == 2 else x
            return self.head(x)

    linears = (torch.nn.Sequential(torch.nn.Linear(4, 4, bias=False), torch.nn.Tanh()) for _ in range(4))
    left = torch.nn.Sequential(*linears, torch.nn.Linear(4, 3, bias=False))
    given = Table.parse("table 1\n4.weight: o i <-> head.weight: o i\n", name="x.table")
    found = parity.derive(left, Grid(), (X,), table=given)
    assert found.missing == ["w"] and not found.check_given and "check the given line" not in found.following
    assert "missing: w: no line was found, though all its values were matched, to 0.0.weight and " in str(found)
    found = parity.derive(left, Grid(0.1), (X,))  # all uses have partners, and one of these meets other values
    assert found.missing == ["w"] and found.divergences[0].left == "3.0" and "4 of 5 uses" in str(found)
    assert found.following.startswith("make both models compute the same there, and derive again")


def test_lines_that_are_wrong_are_not_proven_and_lines_that_do_not_fit_are_refused():
    needs("torch")
    text = "table 1\n2.bias: o <-> 2.bias: o\n0.bias: -o <-> 0.bias: o\n"
    wrong = Table.parse(text, name="wrong.table")
    found = parity.derive(torch_model(), torch_model(), (X,), table=wrong)
    assert not found.proven
    assert str(found).splitlines()[1] == "lines given by wrong.table: check them first: line 3 (0.bias)"
    lines = (
        "0.weight: i o <-> 0.weight: o i",
        *(f"{name} <-> {name}" for name in ("0.bias: o", "2.weight: o i", "2.bias: o")),
    )
    every = Table.parse("\n".join(("table 1", *lines)), name="every.table")
    square = parity.derive(torch_model(4), torch_model(4), (X,), table=every)
    assert (
        str(square).splitlines()[1] == "lines given by every.table: check them first: line 2 (0.weight)"
    )  # not the last
    for text in ("0.gain: o <-> 0.bias: o", "0.weight: o i <-> 0.bias: o i", "0.weight: o i <-> 0.weight: i o"):
        with pytest.raises(UsageError):
            parity.derive(torch_model(), torch_model(), (X,), table=Table.parse(f"table 1\n{text}\n"))


@pytest.mark.parametrize(
    ("lines", "which"),
    [
        ("a.weight: o i <-> w1: i o = w2: i o", "line 2 (a.weight)"),
        ("drop <- b1: c = 0\na.bias -> drop", "line 3 (a.bias)"),
        ("drop <- b1", "line 2 (b1)"),
    ],
)
def test_a_wrong_line_is_said_before_what_it_makes_the_models_differ_in(lines: str, which: str):
    """A tie that the right model does not have, and a bias that it reads: both would pass for a cause."""
    needs("torch")
    import torch

    jnp = pytest.importorskip("jax").numpy

    class Net(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = torch.nn.Linear(4, 4), torch.nn.Linear(4, 4)

        def forward(self, x: Any) -> Any:
            return self.b(self.a(x).tanh())

    def run(p: Any, x: Any) -> Any:
        return jnp.tanh(x @ p["w1"] + p["b1"]) @ p["w2"] + p["b2"]

    rng = np.random.default_rng(0)
    arrays = {name: rng.standard_normal((4, 4) if name[0] == "w" else 4) for name in ("w1", "b1", "w2", "b2")}
    given = Table.parse(f"table 1\n{lines}\n", name="x.table")
    found = parity.derive(Net(), (run, arrays), (rng.standard_normal((3, 4)),), table=given)
    verdict, first = str(found).splitlines()[:2]
    assert first == f"lines given by x.table: check them first: {which}"
    assert verdict.startswith("complete, but not proven: ") and found.following.startswith("check the given line")
    assert "# why: a given line may be wrong (lines given by x.table: " in found.table.print()
    assert "; with it the models part at " in found.why
    assert replace(found, divergences=[]).why == f"a given line may be wrong ({found.check_given})"


@pytest.mark.parametrize("lines", ["p: c <- p: c + q: c", "p: c <- q: c + p: c", "p: c <-> p: c\ndrop <- q: c = 0"])
def test_given_lines_that_set_zeros_are_proven(lines: str):
    """The right model adds a second bias, which becomes zero."""
    needs("torch")
    import torch

    class Biased(torch.nn.Module):
        def __init__(self, names: str):
            super().__init__()
            self.names, self.w = names, torch.nn.Linear(4, 4, bias=False)
            for name in names:
                setattr(self, name, torch.nn.Parameter(torch.randn(4)))

        def forward(self, x: Any) -> Any:
            return sum((getattr(self, name) for name in self.names), self.w(x)).tanh()

    given = Table.parse(f"table 1\n{lines}\n", name="given.table")
    found = parity.derive(Biased("p"), Biased("pq"), (X,), table=given)
    assert found.proven and set(lines.splitlines()) <= set(found.table.print().splitlines())


def test_given_lines_of_open_lengths_are_derived_anew_and_named():
    """The lines of a derived Table may need lengths that derive has no option for: its own output is a hint too."""
    needs("torch")
    text = "table 1\n0.weight: (a+b) in <-> 0.weight: (a+b) in\n0.bias: out <-> 0.bias: out\n"
    start = Table.parse(text, name="start.table")
    found = parity.derive(torch_model(), torch_model(), (X,), table=start)
    assert found.proven and found.given_open == ("line 2 (0.weight)",)
    lines = found.table.print().splitlines()
    assert "0.bias: out <-> 0.bias: out" in lines and not any("(a+b)" in line for line in lines)
    assert "not taken as given: line 2 (0.weight): the shapes of both models leave lengths of their axes" in str(found)
    none = parity.derive(torch_model(), torch_model(), (X,), table=Table.parse("\n".join(text.splitlines()[:2]) + "\n"))
    assert none.proven and none.given_open


def test_lines_that_contradict_what_was_found_are_quoted():
    needs("torch")
    import torch

    models = [torch.nn.Sequential(torch.nn.Linear(4, 5), torch.nn.LayerNorm(5), torch.nn.Linear(5, 2)) for _ in "ab"]
    wrong = Table.parse("table 1\n1.weight: c <-> 1.bias: c\n", name="start.table")
    with pytest.raises(UsageError, match=r"start\.table: its lines contradict what the models compute") as raised:
        parity.derive(*models, (X,), table=wrong)
    assert any('by "1.weight: c <-> 1.bias: c" and "1.weight: c <-> ' in line for line in raised.value.problems)
    text, shapes = "table 1\na: (r=1+z=1 d) <-> a: (z+r d)\n", {"a": (6,)}
    given = Hint(Table.parse(text, name="x.table"), np.zeros((2, 7)), ("a",), ("a",))
    table = replace(table_of(given.table.lines, ("torch", "torch"), {}, shapes, shapes, {}), sizes={"r": 3})
    with pytest.raises(UsageError, match=r"x\.table: letters of its lines have other lengths in lines") as raised:
        check_lines(given, table, shapes, shapes)
    assert 'has r=1 ("a: (r=1+z=1 d) <-> a: (z+r d)")' in raised.value.problems[0]


def gated(gate: str = "") -> Any:
    """Return two layers in a list: with a parameter by which the right model multiplies, or that it adds to a bias."""
    import torch

    class Net(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.h = torch.nn.ModuleList(torch.nn.Linear(4, 4) for _ in "ab")
            if gate:
                self.register_parameter(gate, torch.nn.Parameter(torch.randn(4)))

        def forward(self, x: Any) -> Any:
            y = self.h[1](self.h[0](x).tanh() if gate != "shift" else (self.h[0](x) + self.shift).tanh())
            return y * self.scale if gate == "scale" else y

    return Net()


def with_lines(gate: str, lines: str) -> Any:
    start = Table.parse(f"table 1\n{lines}\n", name="x.table")
    return parity.derive(gated(), gated(gate), (X,), table=start)


def test_a_dropped_parameter_that_is_read_has_no_partner(monkeypatch: pytest.MonkeyPatch):
    needs("torch")
    empty = np.empty

    def nans(*args: Any, **kwargs: Any) -> Any:  # as memory that was used before may contain
        array = empty(*args, **kwargs)
        if array.dtype == float:
            array.fill(np.nan)
        return array

    monkeypatch.setattr(np, "empty", nans)
    found = with_lines("scale", "drop <- scale")
    assert found.verdict == "complete" and not found.proven and found.confirmed
    lines = found.table.print().splitlines()
    assert (found.dropped, found.written, found.arrays[1]) == (["scale"], 4, 5)
    assert "drop <- scale" in lines and "h.{i}.weight: o i <-> h.{i}.weight: o i" in lines


def test_a_given_constant_is_a_value_and_no_element():
    needs("torch")
    for line, back in (("drop <- scale: c = 1", "drops other values"), ("<-> scale: c = 1", "refuses a checkpoint")):
        found = with_lines("scale", line)
        assert found.proven and line in found.table.print() and not found.missing
        said = f"equal with scale = 1, as given lines state: --reverse {back}"
        assert said in str(found) and f"# {said}" in found.table.print()
        assert str(found).startswith("proven with scale = 1: ") and found.to_dict()["constants"] == {"scale": 1.0}
        assert "Proven with scale = 1: the Table translates" in page_of(found, {})
    found = with_lines("scale", "drop <- scale: c = 2")
    assert not found.proven and found.error > 0.1 and not found.missing


@pytest.mark.parametrize("line", ["scale: c = 1 <->", "scale: c = 1 -> drop"])
def test_a_constant_of_the_left_model_folds_the_other_lines_as_ever(line: str, recwarn: pytest.WarningsRecorder):
    needs("torch")
    start = Table.parse(f"table 1\n{line}\n", name="x.table")
    found = parity.derive(gated("scale"), gated(), (X,), table=start)
    assert not found.this_depth and "h.{i}.weight: o i <-> h.{i}.weight: o i" in found.table.print()
    assert not [each for each in recwarn if "scale" in str(each.message)]  # elements have numbers, not 1


def test_what_the_right_model_alone_reads_is_to_be_removed_since_no_line_can_fill_it():
    needs("torch")
    found = parity.derive(gated(), gated("scale"), (X,))
    assert found.missing == ["scale"] and found.following.startswith("remove from the right model what the left one ")
    assert "write a line" not in found.following and "drop" not in found.following
    line = found.following.split("`")[1]
    assert line == "<-> scale: a = 1" and with_lines("scale", line).proven
    comment = f"# incomplete: 1 array of the right model without a line: {found.following}"
    assert found.table.print().splitlines()[1] == comment  # which a conversion by the Table prints


def test_a_given_line_is_refused_beside_one_that_fills_what_it_drops():
    needs("torch")
    sum_line = '"h.0.bias: c <- shift: c + h.0.bias: c"'
    with pytest.raises(UsageError, match=r"x\.table: its lines contradict what the models compute") as raised:
        with_lines("shift", "drop <- shift")
    assert '"drop <- shift"' in raised.value.problems[0] and sum_line in raised.value.problems[0]
    assert with_lines("shift", "drop <- shift: c = 0").proven


@pytest.mark.parametrize(
    ("lines", "problem"),
    [
        ("drop <- scale: 1 = 1", "scale has shape [4] in the right model, line 2 makes [1]"),
        ("drop <- scale: a b = 1", "scale has shape [4] in the right model, line 2 gives it axes a b"),
        ("drop <- scale: c = 1\ndrop <- scale", "scale is used twice, by line 2 and line 3"),
        ("h.0.bias: c <-> scale: c\ndrop <- scale", "scale is used twice, by line 2 and line 3"),
        ("drop <- gain", "gain"),
        ("gain -> drop", "gain"),
        ("drop <- {x}.weight", "{x}.weight"),
    ],
)
def test_a_given_line_that_fits_no_array_is_named(lines: str, problem: str):
    needs("torch")
    with pytest.raises(UsageError, match=r"^x\.table: ") as raised:
        with_lines("scale", lines)
    assert raised.value.problems == [problem]

"""What other tools rely on: calls, fields, names of arrays, hints and transfer."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pytest

import parity
from convert.errors import ConvertError, UsageError
from parity.derive import transfer
from parity.derive.command import run as derive_command
from specs.table import Table, TableError

from ..conftest import needs
from .pairs import images

X = images(3, 4)


def torch_model(width: int = 5) -> Any:
    import torch

    return torch.nn.Sequential(torch.nn.Linear(4, width), torch.nn.Tanh(), torch.nn.Linear(width, 2))


def linen_model() -> Any:
    import flax.linen as nn
    import jax

    class Net(nn.Module):
        @nn.compact
        def __call__(self, x: Any) -> Any:
            return nn.Dense(2, name="end")(nn.tanh(nn.Dense(5, name="begin")(x)))

    return Net(), Net().init(jax.random.key(0), np.zeros((1, 4), np.float32))


def nnx_model() -> Any:
    from flax import nnx

    class Net(nnx.Module):
        def __init__(self, rngs: nnx.Rngs) -> None:
            self.layers = nnx.List([nnx.Linear(4, 5, rngs=rngs), nnx.Linear(5, 2, rngs=rngs)])

        def __call__(self, x: Any) -> Any:
            return self.layers[1](nnx.tanh(self.layers[0](x)))

    return Net(nnx.Rngs(0))


def function() -> Any:
    import jax.numpy as jnp

    def net(p: Any, x: Any) -> Any:
        return jnp.tanh(x @ p["a"][0] + p["a"][1]) @ p["b"]["w"] + p["b"]["shift"]

    shapes = {"a": [(4, 5), (5,)], "b": {"w": (5, 2), "shift": (2,)}}
    zeros = {"a": [jnp.zeros(s) for s in shapes["a"]], "b": {k: jnp.zeros(s) for k, s in shapes["b"].items()}}
    return net, zeros


def paddle_model() -> Any:
    import paddle

    return paddle.nn.Sequential(paddle.nn.Linear(4, 5), paddle.nn.Tanh(), paddle.nn.Linear(5, 2))


SIDES = {
    "flax linen": (linen_model, ["params/begin/kernel", "params/begin/bias", "params/end/kernel", "params/end/bias"]),
    "flax nnx": (nnx_model, ["layers/0/kernel", "layers/0/bias", "layers/1/kernel", "layers/1/bias"]),
    "flax function": (function, ["a/0", "a/1", "b/w", "b/shift"]),
    "paddle": (paddle_model, ["0.weight", "0.bias", "2.weight", "2.bias"]),
    "torch": (torch_model, ["0.weight", "0.bias", "2.weight", "2.bias"]),
}


def test_leaves_of_a_tree_that_are_no_arrays_stay_as_they_are():
    """Modules of equinox are such trees: flags and functions beside arrays."""
    needs("torch")
    needs("flax")
    net, arrays = function()

    def flagged(tree: Any, x: Any) -> Any:
        if tree["training"]:
            raise AssertionError
        return tree["scale"] * tree["act"](net(tree["arrays"], x))

    tree = {"arrays": arrays, "training": False, "act": lambda x: x, "scale": 1.0, "name": "net"}
    found = parity.derive(torch_model(), (flagged, tree), (X,))
    assert found.proven and set(found.table.apply({k: t.numpy() for k, t in torch_model().state_dict().items()})) == {
        f"arrays/{name}" for name in SIDES["flax function"][1]
    }


@pytest.mark.parametrize("name", SIDES)
def test_arrays_have_the_names_of_each_frameworks_checkpoints_and_transfer_fills_them(name: str):
    needs("torch")
    needs(name.split()[0])
    import torch

    build, names = SIDES[name]
    left, right = torch_model(), build()
    state = {key: tensor.numpy() for key, tensor in left.state_dict().items()}
    found = parity.derive(left, right, (X,))
    assert found.proven and set(found.table.apply(state)) == set(names)
    moved = parity.transfer(left, right, (X,))
    assert type(moved) is type(right) and moved is not right
    expected = left(torch.from_numpy(X.astype(np.float32))).detach().numpy()
    assert np.allclose(_output(name, moved), expected, rtol=1e-5, atol=1e-6)  # float32, other order of sums
    for values in (torch_model(), state):  # by what was derived above, of a model and of its arrays
        with mock.patch.object(transfer, "derive", side_effect=AssertionError):
            again = parity.transfer(values, right, table=found)
        weights = values if isinstance(values, dict) else {k: t.numpy() for k, t in values.state_dict().items()}
        expected = np.tanh(X @ weights["0.weight"].T + weights["0.bias"]) @ weights["2.weight"].T + weights["2.bias"]
        assert np.allclose(_output(name, again), expected, rtol=1e-5, atol=1e-6)  # float32


def _output(name: str, model: Any) -> Any:
    x = X.astype(np.float32)
    if name == "flax linen":
        return model[0].apply(model[1], x)
    if name == "flax function":
        return model[0](model[1], x)
    if name == "paddle":
        import paddle

        return model(paddle.to_tensor(x)).numpy()
    if name == "torch":
        import torch

        return model(torch.from_numpy(x)).detach().numpy()
    return model(x)


def test_calls_have_keyword_arguments_a_method_and_a_part_of_the_output():
    needs("torch")
    import torch

    class Model(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = torch.nn.Linear(4, 4), torch.nn.Linear(4, 4)

        def encode(self, x: Any, *, mask: Any, extra: Any) -> Any:
            return {"unused": self.b(x), "main": [torch.sin(self.a(x) * mask + extra["shift"])]}

    def call(x: Any, mask: Any) -> parity.Call:
        return parity.Call(x, method="encode", output=lambda out: out["main"][0], mask=mask, extra={"shift": images(4)})

    mask = np.array([[1.0], [0.0], [1.0]])
    found = parity.derive(Model(), Model(), call(X, mask), call(X, mask))
    assert found.proven and "a.weight: o i <-> a.weight: o i" in found.table.print()
    assert found.unobservable == ["b.weight", "b.bias"] or set(found.missing) == {"b.weight", "b.bias"}


def test_the_command_line_prints_the_same_fields_as_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    needs("torch")
    (tmp_path / "two.py").write_text(
        "from parity_tests.derive.test_contract import torch_model, X\n"
        "def left(): print('of the user'); return torch_model(), (X,)\n"
        "def right(): return torch_model()\n"
        "def wider(): return torch_model(6)\n"
    )
    assert derive_command(f"{tmp_path}/two.py:left", f"{tmp_path}/two.py:right", None, True) == 0
    printed, error = capsys.readouterr()
    assert "of the user\n" in error
    fields = json.loads(printed)
    found = parity.derive(torch_model(), torch_model(), (X,))
    assert (
        fields.keys()
        == found.to_dict().keys()
        >= {"table", "proven", "error", "divergences", "unobservable", "missing"}
    )
    named = found.table.print().replace("torch <-> torch", "two.py:left <-> two.py:right", 1)  # the command has files
    assert fields["table"] == named != found.table.print()
    assert fields["proven"] is True and fields["missing"] == []
    assert fields["freedom"] == ["outputs of 0.weight with inputs of 2.weight"]
    assert fields["verdict"] == "proven" and fields["first"] == "" and fields["build_seconds"] > 0
    assert (
        derive_command(f"{tmp_path}/two.py:left", f"{tmp_path}/two.py:wider", str(tmp_path / "out.table"), False) == 1
    )
    text = capsys.readouterr().out
    verdict, written, sizes, missing, *others = text.splitlines()
    assert verdict == (
        "incomplete: outputs not comparable, as 4 arrays are missing; 0 of 4 uses of parameters matched"
    ), text
    assert written == f"{tmp_path}/out.table: no lines, nothing written"
    assert (
        sizes == "sizes differ: the left model has 5 where the right one has 6, in 0.weight [5, 4] and 0.weight [6, 4]"
    )
    assert missing == "missing: all 4 arrays of the right model: none has a partner"
    assert "stopped at" not in text and "compare" not in text, text  # the sizes say it
    assert " s of CPU" in others[0] and others[1].startswith("next: ") and len(others) == 2, others


def test_a_derivation_prints_what_the_command_does_with_the_verdict_first():
    needs("torch")
    found = parity.derive(torch_model(), torch_model(), (X,))
    text = str(found)
    assert text.startswith("proven: outputs ") and text.endswith(" s of CPU") and "DerivedTable" not in text
    assert repr(found) == "<Derivation: proven, 2 lines, 4 of 4 arrays>"
    assert str(replace(found, built=2.0)).endswith(" s of CPU, after 2.0 s for building both models")
    differing = parity.derive(torch_model(), torch_model()[:2], (X,))
    assert differing.verdict == "complete" and str(differing).startswith("complete, but not proven: ")


def test_lines_that_are_known_are_kept_and_completed():
    needs("torch")
    start = Table.parse("table 1\n0.weight: out in <-> 0.weight: out in\n0.bias: out <-> 0.bias: out\n")
    found = parity.derive(torch_model(), torch_model(), (X,), table=start)
    lines = found.table.print().splitlines()
    assert (
        found.proven and "0.weight: out in <-> 0.weight: out in" in lines and "2.weight: o i <-> 2.weight: o i" in lines
    )


def test_a_given_line_is_to_be_checked_only_behind_the_uses_that_agree():
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
    for name, line in (("a", ""), ("b", "lines given by x.table: check them first: line 3 (b.bias)")):
        text = f"table 1\n{name}.weight: o i <-> {name}.weight: o i\n{name}.bias: o <-> {name}.bias: o\n"
        found = parity.derive(Part(False), Part(True), (X,), table=Table.parse(text, name="x.table"))
        assert not found.proven and not found.confirmed and found.divergences[0].right == "c"
        assert found.check_given == line


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
    assert "drop <- scale" in lines and "h.{i}.weight: o i <-> h.{i}.weight: o i" in lines


def test_a_given_constant_is_a_value_and_no_element():
    needs("torch")
    for line in ("drop <- scale: c = 1", "<-> scale: c = 1"):
        found = with_lines("scale", line)
        assert found.proven and line in found.table.print() and not found.missing
    found = with_lines("scale", "drop <- scale: c = 2")
    assert not found.proven and found.error > 0.1 and not found.missing


def test_what_the_right_model_alone_reads_is_to_be_removed_since_no_line_can_fill_it():
    needs("torch")
    found = parity.derive(gated(), gated("scale"), (X,))
    assert found.missing == ["scale"] and found.following.startswith("remove from the right model what the left one ")
    assert "write a line" not in found.following and "`drop <- NAME`" in found.following
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


def test_real_weights_take_the_place_of_random_ones(tmp_path: Path):
    needs("torch")
    import torch

    left = torch_model()
    torch.save(left.state_dict(), tmp_path / "left.pt")
    found = parity.derive(left, torch_model(), (X,), left_weights=str(tmp_path / "left.pt"))
    assert found.proven
    given = {name: value.numpy() for name, value in left.state_dict().items()}
    assert parity.derive(left, torch_model(), (X,), left_weights=given).proven
    with pytest.raises(UsageError, match="are not of the left model"):
        parity.derive(torch_model(6), torch_model(6), (X,), left_weights=given)
    with pytest.raises(ConvertError, match="no checkpoint of the left model"):
        parity.derive(torch_model(6), torch_model(6), (X,), left_weights=str(tmp_path / "left.pt"))


def test_weights_are_found_in_a_training_checkpoint(tmp_path: Path):
    """Below one place, with wrappers, beside an average and the optimizer's state; not where two places are alike."""
    from parity.derive.match.hints import weights_of
    from parity.derive.trace.sides import Side

    weights = {"a.weight": np.arange(6.0).reshape(2, 3), "a.bias": np.arange(2.0)}
    side = mock.Mock(spec=Side, parameters=weights)

    def saved(arrays):
        np.savez(tmp_path / "left.npz", **arrays)
        return weights_of(str(tmp_path / "left.npz"), side)

    model = {f"state_dict/module.{name}": array for name, array in weights.items()}
    beside = {f"{place}/{name}": array + 7 for place in ("ema", "opt_state/0/mu") for name, array in weights.items()}
    for arrays in (weights, model, model | beside, {f"net.{name}": array for name, array in weights.items()}):
        found = saved(arrays)
        assert found.keys() == weights.keys() and all(np.array_equal(found[name], weights[name]) for name in weights)
    with pytest.raises(ConvertError, match="lie under 'net/' and under 'state_dict/': save one"):
        saved(model | {f"net/{name}": array for name, array in weights.items()})
    with pytest.raises(ConvertError, match="no checkpoint of the left model, under 'state_dict/'") as raised:
        saved({name: array for name, array in model.items() if "bias" not in name})
    assert raised.value.problems == ["missing a.bias"]


def test_transfer_refuses_models_that_differ():
    needs("torch")
    with pytest.raises(ConvertError, match="nothing was transferred"):
        parity.transfer(torch_model(), torch_model(6), (X,))


def test_transfer_by_a_derivation_takes_models_of_other_widths_and_refuses_those_that_do_not_fit():
    needs("torch")
    found = parity.derive(torch_model(), torch_model(), (X,))
    wide = torch_model(9)
    moved = parity.transfer(wide, torch_model(9), table=found)
    assert all((moved.state_dict()[name] == tensor).all() for name, tensor in wide.state_dict().items())
    with pytest.raises(TableError, match=r"0\.weight has shape \[5, 4\] in .*, line \d makes \[9, 4\]"):
        parity.transfer(wide, torch_model(), table=found)
    with pytest.raises(UsageError, match="seconds: of no use with table=d, by which nothing is derived again"):
        parity.transfer(wide, torch_model(9), table=found, seconds=3)
    with pytest.raises(ConvertError, match="nothing was transferred"):
        parity.transfer(wide, torch_model(9), table=parity.derive(torch_model(), torch_model(6), (X,)))


def test_models_that_cannot_be_run_are_a_wrong_call():
    needs("torch")
    with pytest.raises(UsageError, match="the left model cannot be run"):
        parity.derive(torch_model(), torch_model(), (images(3, 7),))
    with pytest.raises(UsageError, match="is no model"):
        parity.derive(3, torch_model(), (X,))


def test_transfer_refuses_values_that_become_infinite():
    needs("torch")
    left, right = torch_model(), torch_model().half()
    next(left.parameters()).data.fill_(1e6)
    with pytest.raises(ConvertError, match="has values that are infinite in the right model's dtype"):
        parity.transfer(left, right, (X,))


def test_gradients_that_alone_differ_are_stated():
    needs("torch")
    import torch

    class Detached(torch.nn.Module):
        def __init__(self, detached: bool) -> None:
            super().__init__()
            self.up, self.detached = torch.nn.Linear(4, 4), detached

        def forward(self, x: Any) -> Any:
            weight = self.up.weight.detach() if self.detached else self.up.weight
            return torch.nn.functional.linear(x, weight, self.up.bias).tanh()

    found = parity.derive(Detached(False), Detached(True), (X,))
    said = "outputs are equal, but gradients differ by 1.0 of their largest, for up.weight"
    assert not found.proven and found.outputs == said and found.other_gradients == ["up.weight"]
    assert "next: look at what changes or cuts gradients there in one model" in str(found)
    assert "# derived, not proven: outputs are equal, but gradients differ by 1" in found.table.print()


def test_models_without_parameters_are_proven_by_their_outputs():
    needs("torch")
    import torch

    found = parity.derive(torch.nn.ReLU(), torch.nn.ReLU(), (X,))
    assert found.proven and found.gradient is None and not found.remark and "Error" not in str(found), found


@pytest.mark.parametrize("saved", ["state", "pure dict", "params"])
def test_weights_are_read_from_orbax_as_a_conversion_reads_them(saved: str, tmp_path: Path):
    """nnx stores one more level, "value", and what linen's params hold is often saved without that level."""
    ocp, nnx = pytest.importorskip("orbax.checkpoint"), pytest.importorskip("flax.nnx")
    from parity.derive.match.hints import weights_of

    state = nnx.state(nnx.Linear(3, 2, rngs=nnx.Rngs(0)))
    pure = nnx.to_pure_dict(state)
    with ocp.StandardCheckpointer() as checkpointer:
        checkpointer.save(tmp_path / "left", {"up": state if saved == "state" else pure})
    place = "params/" * (saved == "params")
    parameters = {f"{place}up/{name}": np.asarray(array) for name, array in pure.items()}
    read = weights_of(str(tmp_path / "left"), mock.Mock(parameters=parameters))
    assert read.keys() == parameters.keys()
    for name, array in parameters.items():
        np.testing.assert_array_equal(read[name], array)

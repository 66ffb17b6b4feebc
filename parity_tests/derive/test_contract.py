"""What other tools rely on: calls, fields, names of arrays, hints and transfer."""

from __future__ import annotations

import inspect
import json
import pydoc
import re
import sys
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
from specs.solving.sizes import SizeError
from specs.table import TableError

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
    given["2.bias"] = given["2.bias"] * np.nan
    torch.save({name: torch.from_numpy(array) for name, array in given.items()}, tmp_path / "nan.pt")
    for weights, name in ((given, "left_weights"), (str(tmp_path / "nan.pt"), str(tmp_path / "nan.pt"))):
        with pytest.raises(UsageError, match=f"^{re.escape(name)}: has NaN") as raised:
            parity.derive(left, torch_model(), (X,), left_weights=weights)
        assert raised.value.problems == ["2.bias"]


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
    with pytest.raises(UsageError, match=r"a Table alone shows no proof: give inputs too, .* or table=d"):
        parity.transfer(wide, torch_model(9), table=found.table)
    with pytest.raises(ConvertError, match="nothing was transferred"):
        parity.transfer(wide, torch_model(9), table=parity.derive(torch_model(), torch_model(6), (X,)))


def test_transfer_by_a_derivation_takes_lengths_that_no_shape_shows():
    needs("torch")
    import torch

    class Flat(torch.nn.Module):
        def __init__(self, across: bool, size: int) -> None:
            super().__init__()
            self.across, self.head = across, torch.nn.Linear(size, 2)

        def forward(self, x: Any) -> Any:
            return self.head((x.mT if self.across else x).flatten(1))

    found = parity.derive(Flat(False, 20), Flat(True, 20), (images(3, 4, 5),))
    left, right, x = Flat(False, 42), Flat(True, 42), torch.from_numpy(images(3, 6, 7)).float()
    with pytest.raises(SizeError, match=r"give lengths \(c=\.\.\., from which p follows\)"):
        parity.transfer(left, right, table=found, reverse=False)
    with pytest.raises(UsageError, match="state reverse=False to take them from what was the left one, reverse=True"):
        parity.transfer(left, right, table=found, c=6)
    moved = parity.transfer(left, right, table=found, c=6, reverse=False)
    assert torch.allclose(moved(x), left(x), atol=1e-6)  # rounding of float32 in sums of 42 products
    back = parity.transfer(moved, left, table=found, c=6, reverse=True)
    assert torch.allclose(back(x), left(x), atol=1e-6)
    with pytest.raises(UsageError, match="seconds: of no use with table=d"):
        parity.transfer(left, right, table=found, c=6, seconds=3)
    with pytest.raises(UsageError, match="reverse: of use with table=d alone"):
        parity.transfer(left, right, images(3, 6, 7), reverse=True)


def test_classes_tell_the_direction_of_a_transfer_between_models_of_the_same_names():
    needs("torch")
    import torch

    class Gated(torch.nn.Module):
        order = (0, 1, 2)

        def __init__(self, width: int) -> None:
            super().__init__()
            self.fused, self.out = torch.nn.Linear(5, 3 * width), torch.nn.Linear(width, 2)

        def forward(self, x: Any) -> Any:
            parts = self.fused(x).chunk(3, -1)
            a, b, c = (parts[k] for k in self.order)
            return self.out(a.sigmoid() * b.tanh() + c.relu())

    class Turned(Gated):
        order = (1, 2, 0)

    found = parity.derive(Gated(6), Turned(6), (x := images(4, 5),))
    for left, right in ((Gated(9), Turned(9)), (Turned(9), Gated(9))):
        moved = parity.transfer(left.double(), right.double(), table=found)
        torch.testing.assert_close(moved(torch.from_numpy(x)), left(torch.from_numpy(x)))
    arrays = {name: array.numpy() for name, array in left.state_dict().items()}  # the class of the right model tells it
    assert torch.equal(parity.transfer(arrays, right, table=found).fused.weight, moved.fused.weight)


def test_help_and_the_signature_of_derive_state_its_arguments():
    called = sys.modules["parity.derive"]
    assert [*inspect.signature(called).parameters][:3] == ["left", "right", "inputs"]
    text = pydoc.plain(pydoc.render_doc(called))
    assert "Args:\n      left, right: torch module" in text and "Returns: the Table" in text
    assert "Twelve rooms" in text  # and the map of the package behind them


def test_models_that_cannot_be_run_are_a_wrong_call():
    needs("torch")
    with pytest.raises(UsageError, match="the left model cannot be run"):
        parity.derive(torch_model(), torch_model(), (images(3, 7),))
    with pytest.raises(UsageError, match="is no model"):
        parity.derive(3, torch_model(), (X,))
    with pytest.raises(UsageError, match=r"a parity\.Call has all inputs of a model: give it alone"):
        parity.derive(torch_model(), torch_model(), (parity.Call(X),))


def test_an_input_that_asks_for_a_gradient_is_read():
    needs("torch")
    import torch

    x = torch.from_numpy(X).float().requires_grad_()
    assert parity.derive(torch_model(), torch_model(), (x,)).proven and x.requires_grad


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
    assert (
        "# derived, not proven: outputs are equal, but gradients differ by 1.0 of their largest" in found.table.print()
    )


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

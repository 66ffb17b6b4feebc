"""What a derivation says beside the verdict: for which depth, shapes and precision it holds."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

import parity
from parity.derive.findings.orders import order
from parity.derive.missing.built import one_sided_weight_norms
from specs.table import Table

from ..conftest import needs
from .pairs import images, initial
from .test_kinds_matching import Net, linear
from .test_report import DERIVED

torch = pytest.importorskip("torch")

X = np.random.default_rng(0).standard_normal((4, 3))


class Skip(torch.nn.Module):
    """Layers of which the last one reads the input too, as those of a NeRF: before the others on one side."""

    def __init__(self, first: bool, depth: int = 3):
        super().__init__()
        self.first = first
        self.points = torch.nn.ModuleList(torch.nn.Linear(5 if k else 3, 5) for k in range(depth))
        self.points.append(torch.nn.Linear(8, 5))

    def forward(self, x: Any) -> Any:
        y = x
        for k, layer in enumerate(self.points):
            last = k == len(self.points) - 1
            y = torch.tanh(layer(torch.cat([x, y] if self.first else [y, x], 1) if last else y))
        return y


def test_lines_of_one_depth_are_named_in_words_in_the_table_and_in_json():
    found = parity.derive(Skip(True), Skip(False), (X,))
    text = "for this depth alone: points.{0..3}: a checkpoint with more or fewer of these blocks is refused"
    assert found.proven and text in str(found) and f"# {text}" in found.table.print()
    assert found.to_dict()["this_depth"] == [f"points.{k}" for k in range(4)] and found.to_dict()["unchecked"] == []


class Two(torch.nn.Module):
    """A layer of two inputs side by side, whose widths no array shows."""

    def __init__(self, first: bool) -> None:
        super().__init__()
        self.fc, self.first = torch.nn.Linear(8, 4), first

    def forward(self, x: Any, y: Any) -> Any:
        return torch.tanh(self.fc(torch.cat([x, y] if self.first else [y, x], 1)))


def test_lengths_that_no_shape_shows_are_named_in_words_in_the_table_and_in_json():
    found = parity.derive(Two(True), Two(False), (X, images(4, 5)))
    text = "not checked: a, b: no shape of either side shows these lengths"
    assert found.proven and text in str(found) and f"# {text}" in found.table.print(), found
    assert found.to_dict()["unchecked"] == ["a", "b"]


def test_a_proven_table_names_the_uses_that_do_not_agree():
    found = replace(DERIVED, proven=True, error=0.0, divergences=[])  # of two uses, one
    text = "written in another form, so that values differ though outputs are equal: layer_1/w"
    assert "1 of 2 uses of parameters agrees to 1e-8" in str(found) and text in str(found)
    assert text not in str(DERIVED) and text not in str(replace(found, uses=found.uses[:1]))


def test_the_shapes_that_were_tested_are_said():
    found = parity.derive(Skip(True), Skip(True), (X,))
    assert "tested with: inputs of shape [4, 3]; limits, paddings and windows that these" in str(found)
    assert found.to_dict()["tested"] == [[4, 3]]


@pytest.mark.parametrize("side", ["left", "right"])
def test_models_that_compute_in_float32_are_proven_in_float64_alone(side: str):
    class Low(torch.nn.Linear):
        def forward(self, x: Any) -> Any:
            return torch.nn.functional.linear(x.float(), self.weight.float(), self.bias.float())

    models = Low(3, 2), torch.nn.Linear(3, 2)
    found = parity.derive(*(models if side == "left" else models[::-1]), (X,))
    assert found.proven and found.error > 1e-9
    first = str(found).splitlines()[0]
    assert first.startswith("proven in float64: outputs")
    assert "as written, the models compute partly in float32, and differ by" in first
    assert found.to_dict()["lower"] == ["float32"]


def test_a_jax_function_in_bfloat16_is_proven_in_float64_alone():
    needs("flax")
    import jax.numpy as jnp

    tree = {"w": np.ones((3, 2), "float32")}
    low = lambda p, x: x.astype(jnp.bfloat16) @ p["w"].astype(jnp.bfloat16)  # noqa: E731
    found = parity.derive((low, tree), (lambda p, x: x @ p["w"], tree), (X,))
    assert found.proven and found.lower == ["bfloat16"]


class Short(torch.nn.Module):
    """Two layers with a tanh in 16 bits between them; `other` is done to what is cast."""

    def __init__(self, dtype: Any, other: Any = None):
        super().__init__()
        self.a, self.b, self.dtype, self.other = torch.nn.Linear(3, 6), torch.nn.Linear(6, 2), dtype, other

    def forward(self, x: Any) -> Any:
        y = self.a(x).to(self.dtype)
        y = self.other(y) if self.other else y
        return self.b(torch.tanh(2 * y).to(x.dtype))


def short_of_jax(dtype: str) -> Any:
    import jax.numpy as jnp

    def run(p: Any, x: Any) -> Any:
        y = jnp.tanh(2 * (x @ p["a"]["w"] + p["a"]["b"]).astype(dtype)).astype(x.dtype)
        return y @ p["b"]["w"] + p["b"]["b"]

    return run, {"a": {"w": np.ones((3, 6)), "b": np.ones(6)}, "b": {"w": np.ones((6, 2)), "b": np.ones(2)}}


@pytest.mark.parametrize("turned", [False, True], ids=["left", "right"])
@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_casts_to_16_bits_are_proven_in_float64(dtype: str, turned: bool):
    needs("flax")
    for other in (short_of_jax(dtype), short_of_jax("float64")):
        pair = Short(getattr(torch, dtype)), other
        found = parity.derive(*(pair[::-1] if turned else pair), (X,))
        assert found.proven and found.exact <= 1e-15, str(found)
        assert found.lower == ([dtype] if found.error > 1e-9 else [])


@pytest.mark.parametrize("turned", [False, True], ids=["left", "right"])
@pytest.mark.parametrize(
    ("other", "said"),
    [
        (lambda y: y * 1.0625, "a factor of 1.0625"),  # no more than casts to 16 bits may do
        (lambda y: y * 1.0625 if y.dtype == torch.bfloat16 else y, "computes in 16 bits"),  # the tape lacks it
    ],
    ids=["factor", "branch"],
)
def test_what_casts_to_16_bits_do_not_explain_is_a_difference(other: Any, said: str, turned: bool):
    needs("flax")
    pair = Short(torch.bfloat16, other), short_of_jax("bfloat16")
    found = parity.derive(*(pair[::-1] if turned else pair), (X,))
    assert not found.proven and said in str(found), str(found)


@pytest.mark.parametrize("side", ["left", "right"])
def test_weight_normalization_of_one_side_is_named_with_a_remedy(side: str):
    def net(norm: Any) -> Any:
        return torch.nn.Sequential(norm(torch.nn.Linear(3, 5)), torch.nn.Tanh(), torch.nn.Linear(5, 2))

    weight_norm = torch.nn.utils.parametrizations.weight_norm
    models = net(weight_norm), net(lambda layer: layer)
    found = parity.derive(*(models if side == "left" else models[::-1]), (X,))
    named = (
        f"weight normalization: 0.parametrizations.weight.original{{0..1}} on the {side} alone: it computes a weight"
    )
    assert not found.proven and named in str(found)
    assert found.following.startswith("store plain weights in that model")
    assert found.to_dict()["weight_norms"] == f"0.parametrizations.weight.original{{0..1}} on the {side} alone"
    assert parity.derive(net(weight_norm), net(weight_norm), (X,)).weight_norms == ""


def test_projections_called_g_and_v_are_no_weight_normalization():
    """A gate and values of one shape: a length is shorter than its direction."""
    names = {"attn/g": (5, 3), "attn/v": (5, 3)}
    assert one_sided_weight_norms({}, names) == ""
    assert one_sided_weight_norms({}, {**names, "attn/g": (5, 1)}) == "attn/g and attn/v on the right alone"


@pytest.mark.parametrize("right", ["torch", "paddle", "nnx", "linen"])
def test_another_rate_of_dropout_is_said_as_no_proof_tests_it(right: str):
    needs({"nnx": "flax", "linen": "flax"}.get(right, right))

    def net(rate: float) -> Any:
        if right == "paddle":
            import paddle

            return paddle.nn.Sequential(paddle.nn.Linear(3, 3), paddle.nn.Dropout(rate))
        if right == "nnx":
            from flax import nnx

            dropout = nnx.Dropout(rate, deterministic=True, rngs=nnx.Rngs(0))
            return nnx.Sequential(nnx.Linear(3, 3, rngs=nnx.Rngs(0)), dropout)
        if right == "linen":
            import flax.linen as nn

            module = nn.Sequential([nn.Dense(3), nn.Dropout(rate, deterministic=True)])
            return module, initial(module, x)
        return torch.nn.Sequential(torch.nn.Linear(3, 3), torch.nn.Dropout(rate))

    left, x = torch.nn.Sequential(torch.nn.Linear(3, 3)), np.ones((4, 3), "f4")
    why = "not compared: dropout (none in the modules on the left, 0.5 on the right), which evaluation does not use"
    found = parity.derive(left, net(0.5), (x,))
    assert found.proven and (why in str(found)) == (right != "linen")  # whose modules exist while the model runs
    found = parity.derive(left, net(0.0), (x,))
    assert found.proven and "dropout" not in str(found).lower().partition("table")[0] and not found.dropout


@pytest.mark.parametrize("right", ["torch", "paddle", "nnx"])
def test_another_momentum_of_batch_norms_is_said_as_no_proof_tests_it(right: str):
    needs({"nnx": "flax"}.get(right, right))

    def norm(momentum: float) -> Any:
        if right == "paddle":
            import paddle

            return paddle.nn.BatchNorm1D(3, momentum=momentum)
        if right == "nnx":
            from flax import nnx

            model = nnx.BatchNorm(3, momentum=momentum, rngs=nnx.Rngs(0), use_running_average=True)
            return model
        return torch.nn.BatchNorm1d(3, momentum=1 - momentum)

    why = "not compared: momentum of BatchNorm (0.9 on the left, 0.99 on the right), which evaluation does not use"
    for momentum in (0.9, 0.99):
        found = parity.derive(torch.nn.BatchNorm1d(3), norm(momentum), (X,))
        assert found.proven and (why in str(found)) == (momentum == 0.99), str(found)


@pytest.mark.parametrize(
    ("function", "said"),
    [
        (lambda y: y * 1.000001, "a factor of 1.000001 on the right, which the left does not have"),
        (
            lambda y: y * 1.01 if torch.is_grad_enabled() else y,
            "outputs are others while gradients are computed: code asks for that, as by torch.is_grad_enabled()",
        ),
    ],
    ids=["factor", "gradients"],
)
def test_a_number_near_one_and_code_that_asks_for_gradients_are_named(function: Any, said: str):
    def net(function: Any) -> Net:
        return Net(lambda m, x: m.b(function(m.a(x).tanh())), a=linear(3, 6), b=linear(6, 2))

    found = parity.derive(net(lambda y: y), net(function), (X,))
    assert not found.proven and said in str(found), str(found)


@pytest.mark.parametrize("kind", ["gate", "norm"])
def test_a_factor_at_which_the_matching_stops_is_told_from_a_norm(kind: str):
    """In the time of this search, none, no factor is left out."""

    def net(whole: bool) -> Net:
        def forward(m: Any, x: Any) -> Any:
            y = m.fc(m.norm(x) if kind == "gate" else x)
            if whole:
                y = y * m.gate if kind == "gate" else m.norm(y + x.cos())
            return x + m.out(x.sin() + y)

        layers: dict[str, Any] = {name: torch.nn.Linear(6, 6, bias=False) for name in ("fc", "out")}
        layers |= {"norm": torch.nn.LayerNorm(6)} if whole or kind == "gate" else {}
        return Net(forward, **layers, **({"gate": torch.nn.Parameter(torch.ones(6))} if whole else {}))

    found = parity.derive(net(False), net(True), (images(4, 6),), seconds=0)
    assert found.stopped and found.stopped.names[0].startswith(kind), str(found)
    lines = "next: if the left model lacks this factor, pass `<-> gate: a = 1` by --table FILE, which sets it to 1"
    assert (lines in str(found)) == (kind == "gate"), str(found)
    assert ("the norm that it belongs to" in str(found)) == (kind == "norm"), str(found)


@pytest.mark.parametrize("act", [torch.tanh, torch.sigmoid])
def test_the_lines_that_take_a_branch_away_are_written_out_where_zeros_do(act: Any):
    def net(*names: str) -> Net:
        def forward(m: Any, x: Any) -> Any:
            y = m.fc(x).tanh()
            return m.head(y + act(m.extra(y)) if names else y)

        return Net(forward, fc=linear(), head=linear(), **{name: linear() for name in names})

    left, right, inputs = net(), net("extra"), (images(4, 6),)
    found = parity.derive(left, right, inputs)
    lines = "<-> extra.weight: a b = 0", "<-> extra.bias: a = 0"
    assert ("`{}` and `{}`".format(*lines) in str(found)) == (act is torch.tanh), str(found)
    assert parity.derive(left, right, inputs, table=Table.parse("\n".join(["table 1", *lines]))).proven == (
        act is torch.tanh
    )


def test_exchanged_parts_are_said_to_have_one_length_whichever_side_states_it():
    table = Table.parse("table 1\na: (r=1+z=1 o) i <-> b: (z+r o) i\n")
    assert all(order(one).endswith("whose parts have one length in every model") for one in (table, table.reverse()))


def test_lines_that_were_chosen_come_before_what_the_code_computes():
    """Experts of one shape, six of which one side reads in reverse: more orders than are tried give equal uses."""

    def net(step: int) -> Net:
        def forward(m: Any, x: Any) -> Any:
            best, at = m.gate(x).softmax(-1).max(-1)
            parts = (torch.where((at == k)[..., None], e(x) * best[..., None], 0) for k, e in enumerate(m.all[::step]))
            return sum(parts)

        return Net(forward, gate=linear(8, 6), all=torch.nn.ModuleList(linear(8, 8) for _ in range(6)))

    torch.manual_seed(0)
    found = parity.derive(net(1), net(-1), (images(1, 3, 8),))
    assert not found.proven and {*found.chosen} > {f"all.{k}.weight" for k in range(6)}
    assert "next: compare the lines of all.{0..5}.weight and all.{0..5}.bias with the code, as several" in str(found)


def test_a_bias_is_not_said_to_be_lacking_where_the_left_drops_one_that_it_reads():
    """Transformer-XL's two biases of queries, which one side adds to scores and the other one to queries."""

    class Attention(torch.nn.Module):
        def __init__(self, terms: bool) -> None:
            super().__init__()
            self.q, self.k, self.v, self.r, self.o = (linear(8, 8, bias=False) for _ in range(5))
            self.u, self.w = (torch.nn.Parameter(torch.randn(8)) for _ in range(2))
            self.terms = terms

        def forward(self, x: Any) -> Any:
            q, k, r = self.q(x), self.k(x), self.r(torch.arange(48.0, dtype=x.dtype).reshape(6, 8).sin())
            if self.terms:
                scores = q @ k.mT + (k @ self.u)[:, None] + q @ r.T + r @ self.w
            else:
                scores = (q + self.u) @ k.mT + (q + self.w) @ r.T
            return self.o((scores / 3).softmax(-1) @ self.v(x))

    torch.manual_seed(0)
    found = parity.derive(Attention(True), Attention(False), (images(2, 6, 8),))
    assert not found.proven and "as the left model has no such bias" not in str(found), str(found)
    assert not found.filled or "as none was found on the left: u, w" in str(found)

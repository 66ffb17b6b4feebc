"""What one side computes, crops, rounds or never reads, and the other does not."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest

import parity
from parity.derive.report import page
from parity.derive.trace.sides import side

from ..conftest import needs
from .pairs import images

torch = pytest.importorskip("torch", reason="both sides are torch modules")

STEPS = np.arange(6)[:, None] / 10 ** (np.arange(8) / 4)


class Positions(torch.nn.Module):
    """Positions from a parameter, from a table of float32, or from one of float64."""

    def __init__(self, table: str):
        super().__init__()
        self.table = table
        self.up = torch.nn.Linear(8, 8)
        if table == "parameter":
            self.positions = torch.nn.Parameter(torch.from_numpy(np.sin(STEPS)).float())

    def forward(self, x: Any) -> Any:
        table = getattr(self, "positions", torch.from_numpy(np.sin(STEPS)))
        if self.table == "rounded":
            table = torch.from_numpy(np.sin(STEPS).astype(np.float32)).to(x.dtype)
        return self.up(x * table).tanh()


def test_a_parameter_that_the_other_side_computes_keeps_its_values():
    found = parity.derive(Positions("parameter"), Positions("computed"), (images(2, 6, 8),))
    assert found.proven, (found.error, found.divergences)
    assert "positions -> drop" in found.table.print() and "# kept" in found.table.print()
    said = "positions on the left (a trained table that is dropped)"
    assert str(found).startswith(f"proven in float64, but for {said}: outputs are equal;"), str(found)
    assert "# trained and dropped, outside any proof: positions on the left: " in found.table.print()
    with pytest.warns(UserWarning, match="trained and dropped, outside any proof: positions on the left"):
        found.table.apply({name: array.detach().numpy() for name, array in Positions("parameter").state_dict().items()})
    back = parity.derive(Positions("computed"), Positions("parameter"), (images(2, 6, 8),))
    assert back.proven and not back.missing and back.to_dict()["trained_tables"] == ["positions on the right"]


def test_a_frozen_table_that_the_other_side_computes_is_dropped_without_remark():
    frozen = Positions("parameter")
    frozen.positions.requires_grad_(False)
    found = parity.derive(frozen, Positions("computed"), (images(2, 6, 8),))
    assert str(found).startswith("proven in float64: ") and "trained" not in found.table.print()


@pytest.mark.parametrize("cut", [False, True])
def test_a_jax_table_that_gradients_reach_is_trained(cut: bool):
    needs("flax")
    import jax

    def model(p: Any, x: Any) -> Any:
        table = jax.lax.stop_gradient(p["table"]) if cut and "table" in p else p.get("table", np.sin(STEPS))
        return jax.numpy.tanh((x * table) @ p["w"])

    left = model, {"table": np.sin(STEPS), "w": np.ones((8, 8))}
    found = parity.derive(left, (model, {"w": np.ones((8, 8))}), (images(2, 6, 8),))
    assert found.proven and found.trained_tables == ([] if cut else ["table on the left"]), str(found)


class Turned(torch.nn.Module):
    """Angles from a buffer of frequencies or of angles, or from frequencies that the model computes.

    There are as many angles as elements of `one`, which the side with a buffer has as half of a layer.
    """

    def __init__(self, stored: str):
        super().__init__()
        self.up, self.computed = torch.nn.Linear(8, 8), 1 / 100 ** (torch.arange(4, dtype=torch.float64) / 4)
        if stored:
            self.both = torch.nn.Linear(8, 4)
            angles = torch.outer(torch.arange(4).double(), self.computed)
            self.register_buffer(stored, angles if stored == "angles" else self.computed)
        else:
            self.one, self.two = torch.nn.Linear(8, 2), torch.nn.Linear(8, 2)

    def forward(self, x: Any) -> Any:
        angles = torch.outer(torch.arange(x.shape[1]).to(x.dtype), getattr(self, "frequencies", self.computed))
        angles = getattr(self, "angles", angles)
        a, b = self.up(x).chunk(2, -1)
        x = torch.cat([a * angles.cos() - b * angles.sin(), a * angles.sin() + b * angles.cos()], -1)
        return self.both(x) if hasattr(self, "both") else torch.cat([self.one(x), self.two(x)], -1)


@pytest.mark.parametrize("stored", ["frequencies", "angles"])
@pytest.mark.parametrize("side", ["left", "right"])
def test_a_buffer_of_one_side_keeps_its_values(side: str, stored: str):
    models = (Turned(stored), Turned("")) if side == "left" else (Turned(""), Turned(stored))
    found = parity.derive(*models, (images(2, 4, 8),))
    assert found.proven and not found.missing, (found.error, found.divergences)
    assert f"kept at the model's own values, since the other side has no array for it: {stored}" in found.table.print()
    assert found.table.print().endswith(f"{stored} -> drop\n" if side == "left" else f"drop <- {stored}\n")


def test_a_table_of_float32_is_named_and_the_rest_is_proven():
    found = parity.derive(Positions("rounded"), Positions("computed"), (images(2, 6, 8),))
    assert found.proven and 1e-9 < found.error < 1e-6
    cause = "the left computes sines and cosines of positions of base 100 in float32"
    assert any(place.cause == cause and 1e-9 < place.size < 1e-6 for place in found.divergences)
    assert re.match(
        r"proven in float64: outputs .*; as written, the models compute partly in float32, and differ",
        str(found),
    )
    assert "as the models compute</dt>" in page(found, {}) and "this is rounding" in page(found, {})


def test_a_table_that_differs_by_more_than_rounding_is_not_set_equal():
    class Other(Positions):
        def forward(self, x: Any) -> Any:
            return self.up(x * torch.from_numpy(np.sin(STEPS + 1e-5))).tanh()

    found = parity.derive(Positions("computed"), Other(""), (images(2, 6, 8),))
    assert not found.proven and not found.missing


class Strided(torch.nn.Module):
    """A strided convolution that pads on one side, or on both and crops the result."""

    def __init__(self, crops: bool):
        super().__init__()
        self.crops, self.down = crops, torch.nn.Conv2d(3, 4, 3, stride=2, padding=2 if crops else 0)
        self.end = torch.nn.Conv2d(4, 4, 1)

    def forward(self, x: Any) -> Any:
        if self.crops:
            return self.end(self.down(x)[:, :, 1:, 1:].tanh())
        return self.end(self.down(torch.nn.functional.pad(x, (0, 1, 0, 1))).tanh())


@pytest.mark.parametrize("crops", [True, False])
def test_a_convolution_whose_result_is_cropped_is_one_that_pads_less(crops: bool):
    found = parity.derive(Strided(crops), Strided(not crops), (images(2, 3, 8, 8),))
    assert found.proven and "down.weight: o i h w <-> down.weight: o i h w" in found.table.print()


class Dead(torch.nn.Module):
    """Two dense layers, of which nothing reads the second."""

    def __init__(self, transposed: bool, names: tuple[str, str]):
        super().__init__()
        self.transposed, self.names = transposed, names
        for name in names:
            layer = torch.nn.Module()
            layer.register_parameter("kernel" if transposed else "weight", torch.nn.Parameter(torch.randn(4, 4)))
            setattr(self, name, layer)

    def forward(self, x: Any) -> Any:
        layer = getattr(self, self.names[0])
        return (x @ layer.kernel if self.transposed else x @ layer.weight.mT).tanh()


def test_a_dead_parameter_follows_the_pattern_of_its_siblings():
    found = parity.derive(Dead(False, ("dense", "pooler")), Dead(True, ("dense", "pooler")), (images(3, 4),))
    assert found.proven and found.inferred == ["pooler.kernel"]
    assert "pooler.weight: o i <-> pooler.kernel: i o" in found.table.print()


@pytest.mark.parametrize("width", [5, 4])
def test_a_dead_parameter_without_a_sibling_has_the_one_order_that_its_lengths_allow(width: int):
    """Of a square kernel, no order is told."""

    def model(shape: tuple[int, ...]) -> Any:
        layers = Dead(len(shape) == 4, ("dense", "pooler"))
        name = "kernel" if len(shape) == 4 else "weight"
        setattr(layers.pooler, name, torch.nn.Parameter(torch.randn(shape)))
        return layers

    found = parity.derive(model((4, width)), model((1, 1, width, 4)), (images(3, 4),))
    line = "pooler.weight: o i <-> pooler.kernel: 1 1 i o" in found.table.print()
    assert (found.proven and line) if width == 5 else found.missing == ["pooler.kernel"], str(found)


class Unread(torch.nn.Module):
    """A table, and two kernels of which nothing reads the second one, whose name is like that of the table."""

    def __init__(self, transposed: bool, unlike: str):
        super().__init__()
        self.transposed = transposed
        shapes = {"text_table": (4, 5), "up": (5, 6), "text": (6, 5), unlike: (7, 7)}
        for name, shape in shapes.items():
            layer = torch.nn.Module()
            shape = shape[::-1] if transposed and name != "text_table" else shape
            layer.weight = torch.nn.Parameter(torch.randn(shape))
            setattr(self, name, layer)

    def forward(self, x: Any) -> Any:
        return ((x @ self.text_table.weight).tanh() @ (self.up.weight.mT if self.transposed else self.up.weight)).sin()


def test_a_dead_parameter_follows_the_most_similar_sibling_whose_order_fits():
    found = parity.derive(Unread(False, "one"), Unread(True, "other"), (images(3, 4),))
    assert "text.weight: o i <-> text.weight: i o" in found.table.print(), found.table.print()
    assert found.missing == ["other.weight"] and found.left_over == ["one.weight"], str(found)


class Heads(torch.nn.Module):
    """Layers of fused projections in a list, or separate projections that are stacked over layers."""

    def __init__(self, stacked: bool):
        super().__init__()
        self.stacked = stacked
        if stacked:
            for name in ("query", "key", "value"):
                setattr(self, name, torch.nn.Parameter(torch.randn(2, 6, 2, 3)))
        else:
            self.layers = torch.nn.ModuleList(torch.nn.Linear(6, 18, bias=False) for _ in range(2))

    def forward(self, x: Any) -> Any:
        for k in range(2):
            if self.stacked:
                q, k_, v = (torch.einsum("bti,ihd->bhtd", x, part[k]) for part in (self.query, self.key, self.value))
            else:
                q, k_, v = self.layers[k](x).unflatten(-1, (3, 2, 3)).permute(2, 0, 3, 1, 4)
            x = ((q @ k_.mT).softmax(-1) @ v).transpose(1, 2).flatten(2)
        return x


def test_fused_layers_of_a_list_become_projections_stacked_over_layers():
    found = parity.derive(Heads(False), Heads(True), (images(2, 5, 6),))
    assert found.proven and len(found.table.lines) == 1
    assert "layers.{l}.weight: (s h d) i <-> {s=query|key|value}: l i h d" in found.table.print()


def test_an_activation_of_an_old_batch_norm_of_paddle_is_recorded():
    needs("paddle")
    import paddle

    left = torch.nn.Sequential(torch.nn.Linear(6, 4), torch.nn.BatchNorm1d(4), torch.nn.SiLU(), torch.nn.Linear(4, 4))
    nn = paddle.nn
    right = nn.Sequential(nn.Linear(6, 4), nn.BatchNorm(4, act="swish"), nn.Linear(4, 4))
    found = parity.derive(left, right, (images(8, 6),))
    assert found.proven and not found.missing, (found.failure, found.error)


def test_a_reshape_in_place_of_paddle_moves_elements():
    """Fused queries, keys and values, which one side has per head, meet the other's only if element numbers pass."""
    needs("paddle")
    import paddle

    class Left(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.qkv, self.out = torch.nn.Linear(6, 24), torch.nn.Linear(8, 5)

        def forward(self, x):
            q, k, v = self.qkv(x).unflatten(-1, (3, 2, 4)).unbind(2)
            return self.out((q.tanh() * k.exp() + v).flatten(2))

    class Right(paddle.nn.Layer):
        def __init__(self):
            super().__init__()
            self.qkv, self.out = paddle.nn.Linear(6, 24), paddle.nn.Linear(8, 5)

        def forward(self, x):
            q, k, v = paddle.split(paddle.reshape_(self.qkv(x), [0, 0, 2, 12]), 3, axis=-1)
            return self.out(paddle.flatten(paddle.tanh(q) * paddle.exp(k) + v, 2))

    found = parity.derive(Left(), Right(), (images(2, 7, 6),))
    assert found.proven and not found.missing, (found.failure, found.error)


def test_a_parameter_of_the_right_side_alone_that_nothing_reads_is_dropped():
    right = torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.Linear(4, 3))
    right[1].register_parameter("head", torch.nn.Parameter(torch.rand(7, 3)))
    found = parity.derive(torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.Linear(4, 3)), right, (images(5, 4),))
    assert found.proven and not found.missing
    assert "drop <- 1.head" in found.table.print() and "nothing reads it: 1.head" in found.table.print()


class Stages(torch.nn.Module):
    """Four stages, all but the last with a second layer."""

    def __init__(self, second: str):
        super().__init__()
        self.second = second
        self.stages = torch.nn.ModuleList(torch.nn.Module() for _ in range(4))
        for k, stage in enumerate(self.stages):
            stage.first = torch.nn.Linear(5, 5)
            if k < 3:
                setattr(stage, second, torch.nn.Linear(5, 5))

    def forward(self, x: Any) -> Any:
        for stage in self.stages:
            x = stage.first(x).tanh()
            x = getattr(stage, self.second)(x).tanh() if hasattr(stage, self.second) else x
        return x


def test_blocks_of_which_some_lack_a_layer_are_folded_all_the_same():
    found = parity.derive(Stages("down"), Stages("other"), (images(9, 5),))
    text = found.table.print()
    assert found.proven and "stages.{i}.first.weight: o i <-> stages.{i}.first.weight: o i" in text
    assert "stages.1.down.weight: o i <-> stages.1.other.weight: o i" in text and len(found.table.lines) == 8


def test_a_branch_that_does_not_depend_on_the_inputs_is_followed():
    needs("flax")
    import jax
    import jax.numpy as jnp

    def net(parameters: Any, x: Any) -> Any:
        shift = jnp.arange(3)[1] - 1
        return jax.lax.cond(shift == 0, lambda y: jnp.tanh(y @ parameters["w"]), lambda y: y @ parameters["v"], x)

    tree = {"w": jnp.ones((5, 5)), "v": jnp.ones((5, 5))}
    left = torch.nn.Sequential(torch.nn.Linear(5, 5, bias=False), torch.nn.Tanh())
    found = parity.derive(left, (net, tree), (images(3, 5),))
    assert found.proven and "0.weight: o i <-> w: i o" in found.table.print()


class Recurrent(torch.nn.Module):
    """Two layers of a recurrent network, all steps at once or one by one: a state is read by two kernels."""

    def __init__(self, steps: bool):
        super().__init__()
        self.steps = steps
        if steps:
            self.parts = torch.nn.ModuleList(torch.nn.Linear(4, 4, bias=k % 2 == 0) for k in range(4))
        else:
            self.rnn = torch.nn.RNN(4, 4, 2, bias=False, batch_first=True)
            self.bias = torch.nn.Parameter(torch.randn(4))

    def forward(self, x: Any) -> Any:
        if not self.steps:
            return self.rnn(x + self.bias)[0]
        x = x + self.parts[0].bias
        for first, second in ((0, 1), (2, 3)):
            h, out = torch.zeros(len(x), 4, dtype=x.dtype), []
            for t in range(x.shape[1]):
                h = (x[:, t] @ self.parts[first].weight.mT + self.parts[second](h)).tanh()
                out.append(h)
            x = torch.stack(out, 1)
        return x


def test_a_layer_that_is_stepped_meets_what_another_kernel_met():
    found = parity.derive(Recurrent(False), Recurrent(True), (images(3, 4, 4),))
    assert not found.failure, found.failure
    text = found.table.print()
    assert "rnn.weight_ih_l{i}: o i <-> parts.{2*i}.weight: o i" in text
    assert "rnn.weight_hh_l{i}: o i <-> parts.{2*i+1}.weight: o i" in text


def test_a_rounded_table_of_tokens_leaves_what_is_computed_from_it_dependent_on_them():
    class Steps(torch.nn.Module):
        def __init__(self, dtype: Any):
            super().__init__()
            self.dtype = dtype
            self.up, self.out = torch.nn.Linear(8, 8), torch.nn.Linear(8, 8)

        def forward(self, steps: Any) -> Any:
            angles = steps.to(self.dtype)[:, None] * torch.exp(-torch.arange(4, dtype=self.dtype))
            return self.out(self.up(torch.cat([angles.sin(), angles.cos()], -1).double()).tanh())

    found = parity.derive(Steps(torch.float64), Steps(torch.float32), (np.array([3, 7, 1]),))
    assert found.proven and not found.missing, found.failure


def test_an_nnx_module_that_counts_its_random_numbers_runs():
    needs("flax")
    from flax import nnx

    model = nnx.RNN(nnx.SimpleCell(2, 3, rngs=nnx.Rngs(0)))
    ours = side(model, parity.Call(images(1, 2, 2)))
    assert ours.run(ours.parameters, ours.call.arrays())[0].shape == (1, 2, 3)


def test_keys_for_random_numbers_stay_as_they_are_given():
    needs("flax")
    import flax.linen as nn
    import jax

    class Dropped(nn.Module):
        @nn.compact
        def __call__(self, x: Any) -> Any:
            return nn.Dropout(0.5, deterministic=True)(nn.Dense(3)(x))

    x, key = images(4, 6), jax.random.key(0)
    variables = Dropped().init(key, x)
    call = parity.Call(x, rngs={"dropout": key})
    assert list(call.arrays()) == ["0/0"]
    found = parity.derive(torch.nn.Linear(6, 3), (Dropped(), variables), (x,), call)
    assert found.proven and not found.kept, str(found)


class Placed(torch.nn.Module):
    """Tokens and a computed table of positions; the places are computed as well, or an input."""

    def __init__(self) -> None:
        super().__init__()
        self.tokens, self.up, self.down = torch.nn.Embedding(9, 8), torch.nn.Linear(8, 8), torch.nn.Linear(8, 4)

    def forward(self, ids: Any, places: Any = None) -> Any:
        places = torch.arange(ids.shape[1]).expand_as(ids) if places is None else places
        x = self.tokens(ids) + torch.from_numpy(np.sin(STEPS))[places]
        return self.down(x + self.up(x).tanh())


@pytest.mark.parametrize("right", [False, True])
def test_places_that_only_one_side_is_given_are_constants(right: bool):
    ids = np.random.default_rng(0).integers(0, 9, (2, 6))
    calls = parity.Call(ids), parity.Call(ids, np.tile(np.arange(6), (2, 1)))
    found = parity.derive(Placed(), Placed(), *(calls if right else calls[::-1]))
    assert found.proven, (found.failure, found.divergences)


class Ended(torch.nn.Module):
    """Read each row of tokens at its end, of which each must have as many."""

    def __init__(self) -> None:
        super().__init__()
        self.tokens, self.up, self.down = torch.nn.Embedding(9, 8), torch.nn.Linear(8, 8), torch.nn.Linear(8, 4)

    def forward(self, ids: Any) -> Any:
        ends = ids.eq(2)
        if len(ends.sum(1).unique()) > 1:
            raise ValueError("rows differ in their number of ends")
        x = self.tokens(ids)
        x = x + self.up(x.mean(1, keepdim=True)).tanh()
        return self.down(x[ends])


def test_tokens_stay_where_a_model_refuses_others():
    ids = np.random.default_rng(0).integers(3, 9, (3, 6))
    ids[:, -2:] = 2
    found = parity.derive(Ended(), Ended(), (ids,))
    assert found.proven, (found.failure, found.divergences)


def test_tokens_stay_where_one_side_is_given_others_that_are_made_from_them():
    class Shifted(Ended):
        def forward(self, ids: Any, before: Any = None) -> Any:
            before = ids.roll(1, 1) + 1 if before is None else before
            return self.down(self.tokens(before) + self.up(self.tokens(ids)).tanh())

    ids = np.random.default_rng(0).integers(0, 8, (2, 6))
    calls = parity.Call(ids), parity.Call(ids, np.roll(ids, 1, 1) + 1)
    for given in (calls, calls[::-1]):
        found = parity.derive(Shifted(), Shifted(), *given)
        assert found.proven, (found.failure, found.error, found.divergences)


class Rotary(torch.nn.Module):
    """Attention with rotary positions, of neighbours with frequencies as a buffer, or of halves with a constant."""

    def __init__(self, halves: bool):
        super().__init__()
        self.halves, frequencies = halves, 1e4 ** -(torch.arange(0, 8, 2).double() / 8)
        self.layers = torch.nn.ModuleList(torch.nn.Linear(16, 16, bias=False) for _ in range(4))
        if halves:
            self.frequencies = [frequencies]
        else:
            self.register_buffer("inv_freq", frequencies)

    def forward(self, x: Any) -> Any:
        q, k, v = (layer(x).unflatten(-1, (2, 8)).transpose(1, 2) for layer in list(self.layers)[:3])
        angles = torch.arange(x.shape[1])[:, None] * (self.frequencies[0] if self.halves else self.inv_freq)
        y = torch.nn.functional.scaled_dot_product_attention(self.turned(q, angles), self.turned(k, angles), v)
        return self.layers[3](y.transpose(1, 2).flatten(2))

    def turned(self, x: Any, angles: Any) -> Any:
        cos, sin = angles.cos().to(x.dtype), angles.sin().to(x.dtype)
        a, b = x.chunk(2, -1) if self.halves else (x[..., ::2], x[..., 1::2])
        a, b = a * cos - b * sin, b * cos + a * sin
        return torch.cat([a, b], -1) if self.halves else torch.stack([a, b], -1).flatten(-2)


@pytest.mark.parametrize("swapped", [False, True])
def test_frequencies_that_one_side_stores_as_a_buffer_keep_their_values(swapped: bool):
    """With random ones the sides part by little, and go on alike: only that they part shows what the buffer is."""
    sides = (Rotary(False), Rotary(True))[:: -1 if swapped else 1]
    found = parity.derive(*sides, (np.random.default_rng(0).standard_normal((2, 7, 16)) / 4,))
    assert found.proven, str(found)

"""What models in JAX do that others do not: grouped convolutions, boxes, plain arrays, devices."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import parity
from convert.errors import UsageError
from parity.derive.trace.call import call_of
from parity.derive.trace.sides import side

from ..conftest import needs
from .pairs import images

torch = pytest.importorskip("torch", reason="left sides are torch modules")


def test_grouped_convolutions_of_jax_are_computed_group_by_group():
    needs("flax")
    import jax

    from parity.derive.trace.jax_groups import by_groups

    form = ("NHWC", "HWIO", "NHWC")

    def model(weights: Any, x: Any) -> Any:
        y = jax.lax.conv_general_dilated(
            x, weights[0], (2, 1), "SAME", rhs_dilation=(1, 2), dimension_numbers=form, feature_group_count=8
        )
        inner = jax.jit(lambda y: jax.lax.conv_general_dilated(
            y, weights[1], (1, 1), "VALID", dimension_numbers=form, feature_group_count=96
        ))  # fmt: skip
        return jax.nn.silu(inner(y)).mean()

    with jax.enable_x64(True):
        arrays = (images(3, 5, 2, 96) / 10, images(3, 3, 1, 96)), images(1, 9, 8, 16)
        compiled = [jax.jit(jax.value_and_grad(f)).lower(*arrays).compile() for f in (by_groups(model), model)]
        jax.tree.map(np.testing.assert_allclose, *(run(*arrays) for run in compiled))
    sizes = [run.memory_analysis().temp_size_in_bytes for run in compiled]
    assert 4 * sizes[0] < sizes[1]  # else a dense kernel of 96 x 96 channels is there


def test_a_type_error_that_names_no_dtype_of_64_bits_ends_the_recording():
    needs("flax")
    calls = []

    def model(weights: Any, x: Any) -> Any:
        calls.append(x)
        return abs(x, weights)

    weights = np.ones(4)
    own = side((model, weights), call_of((images(2, 4),)))
    with pytest.raises(TypeError, match="abs"):
        own.record(own.parameters, own.call.arrays())
    assert len(calls) == 1


def test_arrays_that_are_no_variables_of_an_nnx_module_are_constants():
    needs("flax")
    import jax.numpy as jnp
    from flax import nnx

    class Right(nnx.Module):
        def __init__(self) -> None:
            self.factor = nnx.data(jnp.full((4,), 2.0))
            self.dense = nnx.Linear(4, 4, rngs=nnx.Rngs(0))

        def __call__(self, x: Any) -> Any:
            return jnp.tanh(self.dense(x * self.factor))

    class Left(torch.nn.Linear):
        def forward(self, x: Any) -> Any:
            return super().forward(x * 2).tanh()

    found = parity.derive(Left(4, 4), Right(), (images(3, 4),))
    assert found.proven and not found.missing and "factor" not in found.table.print()


def test_uses_in_einsums_and_in_nnx_name_their_modules():
    needs("flax")
    import flax.linen as nn
    import jax
    import jax.numpy as jnp
    from flax import nnx

    class Inner(nn.Module):
        @nn.compact
        def __call__(self, x: Any) -> Any:
            return jnp.einsum("btc,co->bto", x, self.param("w", nn.initializers.normal(), (4, 3)))

    class Left(nn.Module):
        @nn.compact
        def __call__(self, x: Any) -> Any:
            return Inner(name="att")(x)

    class Right(nnx.Module):
        def __init__(self) -> None:
            self.att = nnx.Linear(4, 3, use_bias=False, rngs=nnx.Rngs(0))

        def __call__(self, x: Any) -> Any:
            return self.att(x)

    left, x = Left(), images(2, 5, 4)
    (use,) = parity.derive((left, left.init(jax.random.key(0), x)), Right(), (x,)).to_dict()["uses"]
    assert (use["left_module"], use["right_module"]) == ("Left/att", "att")


def test_variables_of_linen_in_boxes_of_metadata():
    needs("flax")
    import flax.linen as nn
    import jax

    start = nn.with_partitioning(nn.initializers.normal(), ("in", "out"))
    dense = nn.Dense(4, kernel_init=start)
    variables = dense.init(jax.random.key(0), images(3, 4))
    assert parity.derive(torch.nn.Linear(4, 4), (dense, variables), (images(3, 4),)).proven


def test_integers_of_jax_keep_their_width():
    needs("flax")
    import jax
    import jax.numpy as jnp

    def right(parameters: Any, tokens: Any) -> Any:
        last = jax.lax.div(jnp.cumsum((tokens > 0).astype(jnp.int32), -1)[:, -1], jnp.int32(2))
        half = jnp.arange(tokens.shape[1])[None] < last[:, None]
        return jnp.tanh((parameters["table"][tokens] * half[..., None]).sum(1))

    class Left(torch.nn.Embedding):
        def forward(self, tokens: Any) -> Any:
            half = torch.arange(tokens.shape[1])[None] < ((tokens > 0).sum(1) // 2)[:, None]
            return (super().forward(tokens) * half[..., None]).sum(1).tanh()

    tokens = np.random.default_rng(0).integers(1, 9, (8, 12)).astype(np.int32)
    found = parity.derive(Left(9, 4), (right, {"table": np.zeros((9, 4))}), (tokens,))
    assert found.proven, (found.failure, found.error)


def test_parameters_that_jax_puts_on_devices_and_repeats():
    needs("flax")
    import jax
    import jax.numpy as jnp

    def right(parameters: Any, x: Any) -> Any:
        weight, bias = jax.lax.optimization_barrier((parameters["weight"], parameters["bias"]))
        return jnp.tanh(x @ jax.device_put(weight) + jnp.tile(bias[None], [len(x), 1]))

    left = torch.nn.Sequential(torch.nn.Linear(4, 3), torch.nn.Tanh())
    found = parity.derive(left, (right, {"weight": np.zeros((4, 3)), "bias": np.zeros(3)}), (images(5, 4),))
    assert found.proven, (found.failure, found.missing)


@pytest.mark.parametrize("kind", ["linen", "nnx"])
def test_loops_in_float32_that_round_alike_on_some_inputs_are_proven(kind: str):
    """Outputs of two LSTMs are equal to the last bit in the proof, those for other inputs differ by 1e-7."""
    nn, nnx, jax = (pytest.importorskip(name) for name in ("flax.linen", "flax.nnx", "jax"))
    x = images(2, 4, 3).astype("float32")  # also where an earlier test let JAX compute in float64
    fused, plain = nn.RNN(nn.OptimizedLSTMCell(5)), nn.RNN(nn.LSTMCell(5))
    right = plain, plain.init(jax.random.key(0), x)
    if kind == "linen":
        found = parity.derive((fused, fused.init(jax.random.key(0), x)), right, (x,))
    else:
        found = parity.derive(nnx.RNN(nnx.OptimizedLSTMCell(3, 5, rngs=nnx.Rngs(0))), right, (x,))
    assert found.proven, str(found)


def test_a_loop_that_begins_in_float32_leaves_constants_in_float64():
    """The root in an exact GELU, rounded to float32, would part the models by 1e-8."""
    needs("flax")
    import jax
    import jax.numpy as jnp

    def function(p: Any, x: Any) -> Any:
        def step(state: Any, row: Any) -> Any:
            state = jnp.tanh(row @ p["x"] + state @ p["h"])
            return state, state

        x = jax.nn.gelu(x @ p["stem"], approximate=False)
        return jax.lax.scan(step, jnp.zeros((x.shape[0], 5), jnp.float32), x.swapaxes(0, 1))[0]

    class Right(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem = torch.nn.Linear(4, 4, bias=False)
            self.cell = torch.nn.RNN(4, 5, bias=False, batch_first=True)

        def forward(self, x: Any) -> Any:
            return self.cell(torch.nn.functional.gelu(self.stem(x)))[1][0]

    draw = np.random.default_rng(0)
    shapes = {"stem": (4, 4), "x": (4, 5), "h": (5, 5)}
    parameters = {name: draw.normal(size=shape).astype("float32") for name, shape in shapes.items()}
    found = parity.derive((function, parameters), Right(), (images(2, 3, 4),))
    assert found.proven and not found.missing, (found.error, found.divergences)


@pytest.mark.parametrize("approximate", [False, True], ids=["exact", "tanh"])
@pytest.mark.parametrize("framework", ["torch", "paddle"])
def test_a_gelu_in_float32_is_proven_against_a_fused_one(framework, approximate):
    """Its rounded numbers part the models by 1e-8; the other side has them inside of one operation."""
    needs("flax"), needs(framework)
    import jax

    def function(p: Any, x: Any) -> Any:
        y = jax.nn.gelu((x @ p["a"]).astype("float32"), approximate=approximate)
        return y.astype("float64") @ p["b"]

    if framework == "torch":
        act = torch.nn.GELU("tanh" if approximate else "none")
        left: Any = torch.nn.Sequential(torch.nn.Linear(4, 6, bias=False), act, torch.nn.Linear(6, 3, bias=False))
    else:
        from paddle import nn

        act = nn.GELU(approximate)
        left = nn.Sequential(nn.Linear(4, 6, bias_attr=False), act, nn.Linear(6, 3, bias_attr=False))
    found = parity.derive(left, (function, {"a": np.ones((4, 6)), "b": np.ones((6, 3))}), (images(5, 4),))
    assert found.proven, str(found)


def test_a_selective_state_space_in_a_loop_against_a_scan():
    """States are outer products: each element of a projection meets a column, and no single value."""
    needs("flax")
    import jax
    import jax.numpy as jnp

    class Left(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.rates, self.skip = (torch.nn.Parameter(torch.rand(shape)) for shape in ((6, 4), (6,)))
            self.both, self.step = torch.nn.Linear(6, 8), torch.nn.Linear(6, 6)

        def forward(self, x: Any) -> Any:
            (b, c), step = self.both(x).chunk(2, -1), torch.nn.functional.softplus(self.step(x))
            state, out = torch.zeros(len(x), 6, 4, dtype=x.dtype), []
            for t in range(x.shape[1]):
                kept = torch.exp(-step[:, t, :, None] * torch.exp(self.rates)) * state
                state = kept + step[:, t, :, None] * b[:, t, None] * x[:, t, :, None]
                out.append((state * c[:, t, None]).sum(-1))
            return torch.stack(out, 1) + x * self.skip

    def right(p: Any, x: Any) -> Any:
        b, c = x @ p["b"] + p["b_bias"], x @ p["c"] + p["c_bias"]
        step = jax.nn.softplus(x @ p["step"] + p["step_bias"])

        def advance(state: Any, now: Any) -> Any:
            b, c, step, x = now
            kept = jnp.exp(-jnp.einsum("nc,cs->ncs", step, jnp.exp(p["log_rates"]))) * state
            state = kept + jnp.einsum("nc,ns,nc->ncs", step, b, x)
            return state, jnp.einsum("ncs,ns->nc", state, c)

        steps = tuple(jnp.swapaxes(value, 0, 1) for value in (b, c, step, x))
        return jnp.swapaxes(jax.lax.scan(advance, jnp.zeros((len(x), 6, 4)), steps)[1], 0, 1) + x * p["skip"]

    shapes = {"b": (6, 4), "b_bias": (4,), "c": (6, 4), "c_bias": (4,), "step": (6, 6), "step_bias": (6,),
              "log_rates": (6, 4), "skip": (6,)}  # fmt: skip
    found = parity.derive(Left(), (right, {name: np.ones(shape) for name, shape in shapes.items()}), (images(2, 5, 6),))
    assert found.proven and not found.divergences, str(found)


def test_the_users_code_is_traced_once():
    needs("flax")
    import jax.numpy as jnp

    traced = []

    def function(parameters: Any, x: Any) -> Any:
        traced.append(x.shape)
        return jnp.tanh(x @ parameters["w"])

    x, w = np.random.default_rng(0).standard_normal((2, 3, 3))
    of, gradients = side((function, {"w": w}), call_of(x)), dict[str, Any]()
    of.record(of.parameters, of.call.arrays())
    runs = [of.run({"w": 2 * w}, of.call.arrays()),
            of.gradients({"w": 2 * w}, of.call.arrays(), gradients.__setitem__).written]  # fmt: skip
    assert len(traced) == 1
    assert all(np.allclose(out, np.tanh(2 * x @ w)) for (out,) in runs)
    assert gradients["w"].shape == w.shape and gradients["w"].all()


def test_gradients_are_compared_without_casts_to_lower_precision():
    """Rounding moves values across the kink of a ReLU: gradients as the model is written are then far apart."""
    needs("flax")
    import jax

    def right(p: Any, x: Any) -> Any:
        x = jax.nn.relu(x.astype("bfloat16") @ p["a"].astype("bfloat16"))
        return x @ p["b"].astype("bfloat16")

    layers = torch.nn.Linear(6, 8, bias=False), torch.nn.ReLU(), torch.nn.Linear(8, 3, bias=False)
    kernels = {"a": images(6, 8), "b": images(8, 3)}
    found = parity.derive(torch.nn.Sequential(*layers), (right, kernels), (images(64, 6),))
    assert found.error > 1e-3 and found.proven, found.divergences
    assert found.gradient is not None and found.gradient < 1e-12


@pytest.mark.parametrize("slopes", [1, 6])
def test_a_slope_below_zero_that_is_learned(slopes: int):
    """JAX multiplies all values and selects; torch and paddle have an operation of their own."""
    needs("flax")
    needs("paddle")
    import jax
    import paddle

    left = torch.nn.Sequential(torch.nn.Linear(4, 6), torch.nn.PReLU(slopes), torch.nn.Linear(6, 3))
    layers = paddle.nn.Linear(4, 6), paddle.nn.PReLU(slopes), paddle.nn.Linear(6, 3)
    params = {"a": np.zeros((4, 6)), "b": np.zeros(6), "slope": np.zeros(() if slopes == 1 else slopes)}
    params |= {"c": np.zeros((6, 3)), "d": np.zeros(3)}

    def run(p: Any, x: Any) -> Any:
        y = x @ p["a"] + p["b"]
        return jax.numpy.where(y >= 0, y, y * p["slope"]) @ p["c"] + p["d"]

    for right in (paddle.nn.Sequential(*layers), (run, params)):
        assert parity.derive(left, right, (images(5, 4),)).proven


def test_one_einsum_makes_queries_keys_and_values_whose_halves_turn():
    """Einsums exchange the operands of products: a side alone does not tell queries from keys."""
    needs("flax")
    import jax
    import jax.numpy as jnp

    heads, size, length = 4, 4, 6
    angles = np.arange(length)[:, None] * np.array([1.0, 0.1])
    sin, cos = np.sin(angles), np.cos(angles)
    causal = np.tril(np.ones((length, length), bool))

    class Left(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            for name in ("q", "k", "v", "o"):
                setattr(self, name, torch.nn.Linear(16, 16, bias=False))

        def forward(self, x: Any) -> Any:
            q, k, v = (f(x).unflatten(-1, (heads, size)).transpose(1, 2) for f in (self.q, self.k, self.v))
            c, s = (torch.tensor(np.concatenate([t, t], 1), dtype=x.dtype) for t in (cos, sin))
            q, k = (y * c + torch.cat([-y[..., 2:], y[..., :2]], -1) * s for y in (q, k))
            scores = (q @ k.mT * size**-0.5).masked_fill(~torch.from_numpy(causal), -torch.inf)
            return self.o((scores.softmax(-1) @ v).transpose(1, 2).flatten(2))

    def turned(y: Any) -> Any:
        first, second, c, s = *jnp.split(y, 2, -1), cos[:, None], sin[:, None]
        return jnp.concatenate([first * c - second * s, second * c + first * s], -1)

    def right(p: Any, x: Any) -> Any:
        q, k, v = jnp.einsum("btd,sndh->sbtnh", x, p["qkv"])
        scores = jnp.einsum("btnh,bsnh->btns", turned(q) * size**-0.5, turned(k))
        weights = jax.nn.softmax(jnp.where(causal[:, None], scores, -1e30), -1)
        return jnp.einsum("btnh,nhd->btd", jnp.einsum("btns,bsnh->btnh", weights, v), p["o"])

    params = {"qkv": np.zeros((3, heads, 16, size)), "o": np.zeros((heads, size, 16))}
    found = parity.derive(Left(), (right, params), (images(2, length, 16),))
    assert found.proven and "{s=q|k|v}.weight" in str(found.table)


def test_rows_that_are_set_in_an_array_of_zeros():
    """`array.at[places].set(rows)` moves elements, as the joining of rows with zeros does."""
    needs("flax")
    import jax.numpy as jnp

    def right(p: Any, x: Any) -> Any:
        y = jnp.zeros((x.shape[1], 6)).at[jnp.array([3, 0, 4])].set(p["rows"])
        return jnp.tanh(x + y) @ p["out"]

    class Left(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.rows, self.out = torch.nn.Parameter(torch.rand(3, 6)), torch.nn.Linear(6, 2, bias=False)

        def forward(self, x: Any) -> Any:
            none = torch.zeros(1, 6, dtype=x.dtype)
            return self.out(torch.tanh(x + torch.cat([self.rows[:1], none, none, self.rows[1:]])))

    parameters = {"rows": np.ones((3, 6)), "out": np.ones((6, 2))}
    found = parity.derive(Left(), (right, parameters), (images(2, 5, 6),))
    assert found.proven and not found.missing, str(found)
    moved = found.table.apply({"rows": np.arange(3.0)[:, None] + np.zeros(6), "out.weight": np.zeros((2, 6))})
    assert moved["rows"][:, 0].tolist() == [1, 0, 2]


@pytest.mark.parametrize("shape", [(6,), (6, 1)], ids=["subtracted", "scaled"])
def test_the_softplus_of_a_parameter_is_one_function_of_it(shape: tuple[int, ...]):
    """JAX writes it as logaddexp(p, 0), which reads the parameter several times."""
    needs("flax")
    import jax

    places = np.arange(6.0) if len(shape) > 1 else np.ones(6)

    def left(p: Any, x: Any) -> Any:
        return (x @ p["w"]).reshape(-1, 1, 6) - jax.nn.softplus(p["decay"]) * places

    class Right(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.dense, self.rate = torch.nn.Linear(5, 6, bias=False), torch.nn.Parameter(torch.zeros(shape))

        def forward(self, x: Any) -> Any:
            rates = torch.nn.functional.softplus(self.rate) * torch.as_tensor(places)
            return self.dense(x).reshape(-1, 1, 6) - rates

    parameters = {"w": np.ones((5, 6)), "decay": np.zeros(shape)}
    found = parity.derive((left, parameters), Right(), (images(4, 5),))
    assert found.proven and not found.missing, str(found)
    decay = np.arange(6.0).reshape(shape)
    assert np.array_equal(found.table.apply({"w": np.ones((5, 6)), "decay": decay})["rate"], decay)


def test_the_last_slice_of_a_stack_that_nothing_reads_is_that_of_the_last_block():
    needs("flax")
    import jax

    class Block(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.up, self.scale = torch.nn.Linear(5, 5, bias=False), torch.nn.Parameter(torch.ones(5))

        def forward(self, h: Any, e: Any) -> Any:
            return h + torch.tanh(self.up(h) + e), e * self.scale  # nobody reads the last `e`

    class Net(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layers = torch.nn.ModuleList([Block(), Block()])

        def forward(self, h: Any, e: Any) -> Any:
            for layer in self.layers:
                h, e = layer(h, e)
            return h

    def block(carry: Any, layer: Any) -> Any:
        h, e = carry
        return (h + jax.numpy.tanh(h @ layer["kernel"] + e), e * layer["scale"]), None

    def stacked(weights: Any, h: Any, e: Any) -> Any:
        return jax.lax.scan(block, (h, e), weights)[0][0]

    models = Net(), (stacked, {"kernel": images(2, 5, 5), "scale": images(2, 5)})
    for left, right, line in (
        (*models, "layers.{l}.scale: c <-> scale: l c"),
        (*reversed(models), "scale: l c <-> layers.{l}.scale: c"),
    ):
        found = parity.derive(left, right, (images(3, 5), images(3, 5)))
        assert found.proven and line in str(found.table).splitlines(), str(found)
        assert [*found.unobservable, *found.idle_parts] == ["layers.1.scale"], str(found)


def test_arrays_that_jax_still_computes_are_waited_for_before_a_model_is_recorded(monkeypatch):
    needs("flax")
    import jax

    events, wait = list[Any](), jax.block_until_ready

    def waited(arrays: Any) -> Any:
        events.append(arrays)
        return wait(arrays)

    monkeypatch.setattr(jax, "block_until_ready", waited)
    left, right = torch.nn.Linear(3, 2), (lambda p, x: x @ p["w"] + p["b"], {"w": np.ones((3, 2)), "b": np.ones(2)})
    assert parity.derive(left, right, images(4, 3), say=events.append).proven
    assert events[0] == (left, right) and events[1] == "recording left"


def test_numbers_that_code_of_jax_reads_of_its_own_are_computed_at_once():
    """As int(jnp.max(mask)), which no tracer has; those that depend on inputs are refused with the reason."""
    needs("flax")
    from jax import numpy as jnp

    def right(of_inputs: bool) -> Any:
        def run(p: Any, x: Any) -> Any:
            times = 1 + int(jnp.max(jnp.arange(2)) + (jnp.max(x) > 9 if of_inputs else 0))
            return jnp.tile(x @ p["w"] + p["b"], times)

        return run, {"w": np.ones((3, 2)), "b": np.ones(2)}

    left = torch.nn.Sequential(torch.nn.Linear(3, 2), torch.nn.Upsample(scale_factor=2))
    left[1].forward = lambda x: x.repeat(1, 2)
    assert parity.derive(left, right(False), images(4, 3)).proven
    with pytest.raises(UsageError) as raised:
        parity.derive(left, right(True), images(4, 3))
    (problem, *_) = raised.value.problems
    assert problem.startswith("cannot be recorded: ") and "depends on inputs or parameters: derive" in problem, problem

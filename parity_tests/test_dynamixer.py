"""What is particular to DynaMixer: its intermediates, the axes that squares hide, grids of any shape, no loops."""

import dataclasses

import numpy as np
import pytest

import ports
from convert.plans.planning import plan
from parity.results.elements import relative_error
from specs.dynamixer import TINY, VARIANTS, Config, infer, input_shape, layers
from specs.layer import Sizes, parameters

from .conftest import needs, tiny
from .golden import Case, swap

FRAMEWORKS = ("flax", "torch", "paddle")
CASE = Case("dyna_s_like")

_BLOCK = """
{theirs}.{b}.norm1: b h w c                      {ours}.blocks.{b}.norm1: b h w c
{theirs}.{b}.attn.mix_h.activation: n s i o      {ours}.blocks.{b}.mix.columns.weights: n s i o
{theirs}.{b}.attn.mix_h: n l c                   {ours}.blocks.{b}.mix.columns.lines: n l c
{theirs}.{b}.attn.mix_w.activation: n s i o      {ours}.blocks.{b}.mix.rows.weights: n s i o
{theirs}.{b}.attn.mix_w: n l c                   {ours}.blocks.{b}.mix.rows.lines: n l c
{theirs}.{b}.attn.reweight: b c                  {ours}.blocks.{b}.mix.reweight: b c
{theirs}.{b}.attn: b h w c                       {ours}.blocks.{b}.mix: b h w c
{theirs}.{b}.mlp: b h w c                        {ours}.blocks.{b}.mlp: b h w c
{theirs}.{b}: b h w c                            {ours}.blocks.{b}: b h w c
"""
_ENDS = """
patch_embed: b c h w       stem: b c h w
network.0: b h w c         stages.0.blocks.0: b h w c
network.{s+1}: b h w c     stages.{s}: b h w c
norm: b t c                norm.tokens: b t c
"""
TAPS = (  # upstream's one list holds stage 0, its downsample, then the other stages
    _ENDS.rstrip()
    + _BLOCK.rstrip().replace("{theirs}", "network.0").replace("{ours}", "stages.0")
    + _BLOCK.rstrip().replace("{theirs}", "network.{s+1}").replace("{ours}", "stages.{s}")
)


def as_upstream(taps):
    """Taps with those added that upstream shapes otherwise: columns and rows as lines, and their mixing matrices."""
    found = dict(taps)
    found["norm.tokens"] = taps["norm"].reshape(len(taps["norm"]), -1, taps["norm"].shape[-1])
    for name, out in taps.items():
        if name.endswith((".columns", ".rows")):
            lines = out.swapaxes(1, 2) if name.endswith(".columns") else out
            found[f"{name}.lines"] = lines.reshape(-1, *lines.shape[2:])
            logits = taps[f"{name}.generate"]  # b n s (i o)
            length = lines.shape[2]
            weights = np.exp(logits).reshape(-1, logits.shape[2], length, length)
            found[f"{name}.weights"] = weights / weights.sum(-2, keepdims=True)
    return found


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_every_intermediate(framework):
    needs(framework)
    port = ports.load(CASE.files[0], framework, dtype="float64")
    taps, recorded = as_upstream(port.taps(CASE.images)), CASE.intermediates(TAPS)
    assert {f"eval/inter/{name}.f64" for name in recorded} == {n for n in CASE.arrays if n.startswith("eval/inter/")}
    for name, (tap, truth) in recorded.items():
        assert relative_error(truth, taps[tap]) <= 1e-10, name  # rounding 1e-15; paddle's float32 epsilons 1e-12
    assert relative_error(CASE.logits, port(CASE.images)) <= 1e-10


@pytest.mark.usefixtures("quick_gradients")
@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_gradients(framework):
    needs(framework)
    found = ports.load(CASE.files[0], framework, dtype="float64").gradients(CASE.images)
    assert found.loss == pytest.approx(float(CASE.arrays["train/loss.f64"][0]), rel=1e-10)
    assert relative_error(CASE.arrays["train/grad_input.f64"], found.images) <= 1e-10
    with plan(CASE.files[0], dst=framework) as made:
        recorded = {name for name in CASE.arrays if name.startswith("train/grad/")}
        assert recorded == {f"train/grad/{moves[0].source}.f64" for _, moves in made.steps}
        for tensor, (move,) in made.steps:
            truth = CASE.arrays[f"train/grad/{move.source}.f64"].reshape(move.source_atoms).transpose(move.order)
            assert relative_error(truth.reshape(tensor.shape), found.parameters[tensor.name]) <= 1e-10, tensor.name


def _first(model):
    return model.stages[0].blocks[0]


def _reorder(layer, pattern, **sizes):
    from einops import rearrange

    for array in (layer.weight.data, layer.bias.data):
        array.copy_(rearrange(array, pattern, **sizes))


FAULTS = {  # each leaves every shape as it was, here where grids are square and widths alike
    "rows and columns swapped": lambda m: [
        swap(a.data, b.data)
        for a, b in zip(_first(m).mix.rows.parameters(), _first(m).mix.columns.parameters(), strict=True)
    ],
    "inputs and outputs of the matrices swapped": lambda m: _reorder(
        _first(m).mix.rows.generate, "(i o) ... -> (o i) ...", i=8
    ),
    "segments and reduced numbers swapped": lambda m: _reorder(
        m.stages[1].blocks[0].mix.rows.compress, "(s d) ... -> (d s) ...", d=2
    ),
    "reweighting read as (k c)": lambda m: _reorder(_first(m).mix.reweight.fc2, "(k c) ... -> (c k) ...", k=3),
    "matrices applied the other way round": lambda m: setattr(_first(m).mix.rows, "mix", "bhsoi, bhisk -> bhosk"),
    "an epsilon changed": lambda m: setattr(_first(m).norm1, "eps", 1e-6),
    "GELU flipped": lambda m: setattr(_first(m).mix.reweight.act, "approximate", "tanh"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_planted_fault_is_caught(fault):
    needs("torch")
    port = ports.load(CASE.files[0], "torch", dtype="float64")
    assert relative_error(CASE.logits, port(CASE.images)) <= 1e-13
    FAULTS[fault](port.model)
    assert relative_error(CASE.logits, port(CASE.images)) > 1e-10


def test_the_articles_sketch_read_correctly():
    """rows(x) + columns(x) + proj_c(x), then proj_o: one segment, nothing after the matrices, all three weighed alike.

    The sketch writes its lines, in loops, into two names of the input itself; here they go into arrays of their own.
    Its matrices stand the other way round, p[output, input], and its proj_c has a bias, which ours keeps in proj_o.
    """
    needs("torch")
    import torch

    (rows, columns), d, width = (3, 5), 4, 6
    config = Config(depths=(1,), widths=(width,), hidden=(5,), segments=(1,), reduced=(d,), transitions=(),
                    grid=(rows, columns))  # fmt: skip
    port = ports.build("dynamixer", config, "torch", init="random", dtype="float64")
    mix = port.model.stages[0].blocks[0].mix
    rng = np.random.default_rng(0)
    x, bias_c = rng.standard_normal((rows, columns, width)), rng.standard_normal(width)

    def operation(op, line):  # (n c) -> (n c), as the sketch has it
        n = len(line)
        y = line @ op.compress.weight.numpy().T + op.compress.bias.numpy()
        weight, bias = (p.numpy().reshape(n, n, -1).swapaxes(0, 1).reshape(n * n, -1) for p in op.generate.parameters())
        p = np.exp((weight @ y.ravel() + bias[:, 0]).reshape(n, n))
        return (p / p.sum(1, keepdims=True)) @ line

    with torch.no_grad():
        for op in (mix.rows, mix.columns):
            op.out.weight.copy_(torch.eye(width))
            op.out.bias.zero_()
        mix.reweight.fc2.weight.zero_()
        mix.reweight.fc2.bias.zero_()
        y_rows = np.stack([operation(mix.rows, x[h]) for h in range(rows)])
        y_columns = np.stack([operation(mix.columns, x[:, w]) for w in range(columns)], axis=1)
        y_channels = x @ mix.channels.weight.numpy().T + bias_c
        truth = (y_rows + y_columns + y_channels) @ mix.proj.weight.numpy().T + mix.proj.bias.numpy()
        mix.proj.bias += mix.proj.weight @ torch.from_numpy(bias_c)
        mix.proj.weight *= 3  # the thirds that they are weighed by
        assert relative_error(truth[None], mix(torch.from_numpy(x[None])).numpy()) <= 1e-13  # float64 rounding


def _operations(framework, config):
    """How many operations a forward pass takes."""
    port = ports.build("dynamixer", config, framework, init="random")
    images = np.zeros((1, *input_shape(config)), np.float32)
    if framework == "flax":
        import jax

        traced = jax.make_jaxpr(port.model.module.apply)(port.model.variables, images.transpose(0, 2, 3, 1))
        return str(traced).count(" = ")
    if framework == "torch":
        import torch
        from torch.profiler import ProfilerActivity, profile

        with profile(activities=[ProfilerActivity.CPU]) as profiler, torch.inference_mode():
            port.model(torch.from_numpy(images))
        return sum(event.name in ("aten::bmm", "aten::addmm", "aten::mm") for event in profiler.events())
    from unittest import mock

    import paddle

    with mock.patch.object(paddle, "einsum", wraps=paddle.einsum) as einsum:
        with mock.patch.object(
            paddle.nn.Linear, "forward", autospec=True, side_effect=paddle.nn.Linear.forward
        ) as linear:
            port(images)
    return einsum.call_count + linear.call_count


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_all_rows_are_one_product(framework):
    """A larger grid takes as many operations: nothing loops over rows or columns."""
    needs(framework)
    small = TINY["wider, headless"]
    assert _operations(framework, small) == _operations(framework, dataclasses.replace(small, grid=(7, 11))) > 20


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_rows_and_columns_of_a_grid_that_is_no_square(framework):
    """A token reaches its own row and its own column by the mixing, and no other token in one block but by means."""
    needs(framework)
    port = tiny("dynamixer", "S", framework)  # 7 rows of 11 tokens
    images = np.random.default_rng(0).standard_normal((1, *input_shape(port.config)))
    touched = images.copy()
    touched[:, :, 2 * 3 : 3 * 3, 5 * 3 : 6 * 3] += 1  # the patch of the token in row 2, column 5
    before, after = port.taps(images), port.taps(touched)
    for name, line in (("rows", np.s_[2, :]), ("columns", np.s_[:, 5])):
        tap = f"stages.0.blocks.0.mix.{name}"
        changed = np.abs(after[tap] - before[tap])[0].max(-1) > 0
        expected = np.zeros((7, 11), bool)
        expected[line] = True
        assert np.array_equal(changed, expected)


@pytest.mark.parametrize(
    ("variant", "stages", "downsample"), [("S", (0, 2, 3, 4), 1), ("M", (0, 1, 3, 4), 2), ("L", (0, 2, 3, 4), 1)]
)
def test_where_upstreams_list_holds_stages_and_downsamples(variant, stages, downsample):
    config = VARIANTS[variant]
    assert config.stage_positions == stages
    held = [config.downsample_positions[s] for s, stage in enumerate(config.stages) if stage.downsample]
    assert held == [downsample]


def test_stages_that_only_widen_have_a_pointwise_downsample():
    names = {layer.path: layer.sizes for layer in layers(TINY["wider, headless"])}
    assert names["stages.0.downsample"] == {"i": 8, "o": 9, "h": 1, "w": 1}
    assert "stages.0.downsample" not in {layer.path for layer in layers(TINY["M"])}
    halved = {layer.path: layer.sizes for layer in layers(TINY["two halvings"])}
    assert [halved[f"stages.{s}.downsample"]["h"] for s in (0, 1)] == [2, 2]


@pytest.mark.parametrize("name", [*TINY, *VARIANTS])
@pytest.mark.parametrize("numbered", ["by stage", "in a row"])
def test_infer_tells_everything_but_conventions(name, numbered):
    """Also where a file numbers its downsamples by themselves: which stage each follows is read off the grids."""
    config = {**TINY, **VARIANTS}[name]
    held = {p.name: dict(zip(p.axes, p.shape, strict=True))
            for p in parameters(list(layers(config)))}  # fmt: skip
    if numbered == "in a row":
        moved = [path for path in held if ".downsample." in path]
        for k, path in enumerate(moved):
            held[f"stages.{k // 2}.downsample.{path.rpartition('.')[2]}"] = held.pop(path)
    told = infer(Sizes(held))
    assert dataclasses.replace(config, **told) == config
    conventions = {"norm_eps", "drop_path", "skip_lam"}
    assert {f.name for f in dataclasses.fields(Config)} - set(told) == conventions


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"widths": (6, 10)}, "widths has 2 entries, not 3"),
        ({"transitions": (True, False, False)}, "transitions has 3 entries, not 2"),
        ({"segments": (4, 5, 5)}, "6 channels do not split into 4 segments"),
        ({"grid": (1, 7)}, "nothing is left of the grid"),
        ({"depths": (2, 0, 1)}, r"depths=\(2, 0, 1\): at least 1"),
    ],
)
def test_configurations_that_cannot_be(wrong, says):
    with pytest.raises(ValueError, match=says):
        dataclasses.replace(TINY["S"], **wrong)


def test_images_that_do_not_fill_the_grid_are_refused():
    needs("torch")
    port = tiny("dynamixer", "S", "torch")  # patches of 3 pixels
    images = np.zeros((1, 3, 7 * 3 + 2, 11 * 3))
    assert port(images).shape == (1, 11)  # two rows of pixels to spare, as a convolution without padding leaves them
    with pytest.raises(ValueError, match="make 7x10 tokens of 3x3, the network's grid is 7x11"):
        port(images[..., :-1])


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_drop_path_rises_over_all_blocks(framework):
    needs(framework)
    config = dataclasses.replace(TINY["wider, headless"], drop_path=0.3)
    images = np.random.default_rng(0).standard_normal((5, *input_shape(config)))
    port = ports.build("dynamixer", config, framework, seed=1, init="random", dtype="float64")
    assert np.array_equal(port(images), tiny("dynamixer", "wider, headless", framework)(images))
    drops = port.dropout_calls(images, seed=0)  # three blocks, two branches each; the first block drops nothing
    assert [drop.rate for drop in drops] == pytest.approx([0.15, 0.15, 0.3, 0.3])
    # whole samples, rescaled; paddle's dropout keeps 1 / (1 - rate) in float32
    assert all(len(drop.kept) == 5 and drop.scale <= (1e-7 if framework == "paddle" else 1e-15) for drop in drops)


def test_initialised_as_upstream():
    """timm's trunc_normal_(std=.02) for dense kernels, zero biases, torch's own default for convolutions."""
    needs("torch")
    config = dataclasses.replace(VARIANTS["S"], depths=(1, 1, 1, 1))
    state = ports.build("dynamixer", config, "torch", seed=3).state()
    kernel = state["stages.1.blocks.0.mlp.fc1.weight"]
    assert kernel.std() == pytest.approx(0.02, rel=0.01)  # 442,368 draws: 0.5 % off at most
    assert np.abs(kernel).max() > 0.06  # not cut at two deviations
    biases = {name: v for name, v in state.items() if name.endswith("bias")}
    assert [name for name, v in biases.items() if v.any()] == ["stem.bias", "stages.0.downsample.bias"]
    for name, inputs in (("stem", 3 * 7 * 7), ("stages.0.downsample", 192 * 2 * 2)):
        for leaf in ("weight", "bias"):
            assert 0.9 < np.abs(state[f"{name}.{leaf}"]).max() * np.sqrt(inputs) <= 1

"""What is particular to ConvMixer: intermediates, statistics, padding, residual, fast depthwise convolution."""

import dataclasses
import itertools
from functools import partial

import numpy as np
import pytest

import ports
from convert.__main__ import main
from convert.errors import UsageError
from convert.files.base import Tensor
from convert.plans.planning import plan
from parity.results.elements import relative_error
from specs.convmixer import DIALECTS, TINY, VARIANTS, Config, infer, layers
from specs.dialects import place
from specs.layer import Sizes, parameters

from .conftest import needs, tiny
from .files.samples import hollow
from .golden import Case, differentiated, load, moved, put, tap_inputs
from .test_routes import write_numbers

FRAMEWORKS = ("flax", "torch", "paddle")
CASES = [
    Case("labml_convmixer"),
    Case("locuslab_convmixer_gelu", act="gelu"),
    Case("paddlevit_convmixer_gelu", act="gelu"),
]
OUTPUTS = """
stem: b c h w               norm: b c h w
block{i}: b c h w           blocks.{i}: b c h w
"""
INPUTS = """
block{i}.spatial: b c h w   blocks.{i}.pointwise: b c h w
pooled: b c                 head: b c
"""


@pytest.mark.parametrize("framework", FRAMEWORKS)
@pytest.mark.parametrize("case", CASES, ids=str)
def test_every_intermediate(case, framework):
    port = load(case, framework)
    for table, taps in ((OUTPUTS, port.taps(case.images)), (INPUTS, tap_inputs(port, case.images))):
        recorded = case.intermediates(table)
        assert len(recorded) == case.about["config"]["depth"] + 1
        for name, (tap, truth) in recorded.items():
            assert relative_error(truth, taps[tap]) <= 1e-10, name  # rounding is 1e-15


@pytest.mark.usefixtures("quick_gradients")
@pytest.mark.parametrize(("case", "framework"), differentiated(CASES))
def test_a_step_of_training(case, framework):
    """Loss, every gradient and every running statistic of the original's own code."""
    port = load(case, framework)
    found, pool = port.gradients(case.images), _pool(case)
    assert found.loss == pytest.approx(float(case.arrays["train/loss.f64"][0]), rel=1e-10)
    assert relative_error(case.arrays["train/logits.f64"], found.logits) <= 1e-10
    assert relative_error(pool * case.arrays["train/grad_input.f64"], found.images) <= 1e-10
    largest = max(np.abs(array).max() for array in found.parameters.values())
    steps = _steps(case, framework)
    assert steps.keys() == found.parameters.keys() | found.statistics.keys()
    for name, array in found.parameters.items():
        source, moved, _ = steps[name]
        truth = moved(case.arrays[f"train/grad/{source}.f64"]) * (1 if "head" in name else pool)
        # relative to the largest gradient: a bias before a norm in training has none but rounding noise
        assert np.abs(truth - array).max() <= 1e-10 * largest, name
    for name, array in found.statistics.items():
        source, _, before = steps[name]
        truth = _statistic(case, source, before, framework) if source else before + 1  # paddle's files count no steps
        assert relative_error(truth, array) <= 1e-10, name


def _steps(case, framework):
    """{name: (the array's name in the case, what brings it into the framework's layout, its values)}."""
    with plan(case.files[0], dst=framework, settings=case.settings) as made:
        values = {name: array.astype("float64") for name, array in made.arrays()}
        return {
            tensor.name: (moves[0].source, partial(moved, move=moves[0], shape=tensor.shape), values[tensor.name])
            if isinstance(moves, list)
            else ("", None, values[tensor.name])
            for tensor, moves in made.steps
        }


def _pool(case):
    """What sets the gradients of paddle's own average pool right: its backward rounds 1 / (h w) to float32."""
    if case.about["framework"] != "paddle":
        return 1.0
    positions = np.prod(case.arrays["eval/inter/stem.f64"].shape[2:])
    return 1 / (positions * np.float64(np.float32(1 / positions)))


def _statistic(case, name, before, framework):
    """A recorded statistic, with the variance as the framework keeps it: torch's is unbiased, the others' are not."""
    if name.endswith("num_batches_tracked"):
        return case.arrays[f"train/stats/{name}"][0]
    after = case.arrays[f"train/stats/{name}.f64"]
    if name.endswith("mean"):
        return after
    b, _, h, w = case.arrays["eval/inter/stem.f64"].shape
    unbias = {"torch": b * h * w / (b * h * w - 1)}
    kept = DIALECTS["paddlevit" if case.about["framework"] == "paddle" else "official"].conventions["norm_momentum"]
    factor = unbias.get(framework, 1) / unbias.get(case.about["framework"], 1)
    return kept * before + factor * (after - kept * before)


@pytest.mark.parametrize("framework", FRAMEWORKS)
@pytest.mark.parametrize("name", ["even", "headless", "768/32"])
def test_padding_keeps_the_size_with_the_odd_pixel_on_the_high_side(name, framework):
    port = tiny("convmixer", name, framework)
    images = np.random.default_rng(0).standard_normal((2, *port.spec.input_shape(port.config)))
    x, y = (taps["blocks.0.depthwise"] for taps in (tap_inputs(port, images), port.taps(images)))
    kernel, bias = (next(v for n, v in port.state().items() if "depthwise" in n and n.endswith(leaf))
                    for leaf in (("kernel", "weight"), "bias"))  # fmt: skip
    kernel = kernel[:, :, 0] if framework == "flax" else kernel[:, 0].transpose(1, 2, 0)  # (k l c)
    sides = kernel.shape[:2]
    padded = np.pad(x, [(0, 0), (0, 0), *(((k - 1) // 2, k - 1 - (k - 1) // 2) for k in sides)])
    windows = np.lib.stride_tricks.sliding_window_view(padded, sides, (2, 3))
    assert relative_error(np.einsum("bchwkl,klc->bchw", windows, kernel) + bias[:, None, None], y) <= 1e-12


@pytest.mark.parametrize("framework", ["torch", "paddle"])
def test_a_block_leaves_its_input_alone(framework):
    """`x += residual` would write into the caller's tensor."""
    port = tiny("convmixer", "768/32", framework)
    x = np.random.default_rng(0).standard_normal((2, 7, 7, 5))
    given = port.runner.tensor(x)
    port.model.blocks[0](given)
    assert np.array_equal(given.numpy(), x)


FAULTS = {
    "a pointwise kernel transposed": lambda m: put(m.blocks[0].pointwise.weight, lambda w: w.transpose(0, 1)),
    "a depthwise kernel transposed": lambda m: put(m.blocks[0].depthwise.weight, lambda w: w.transpose(2, 3)),
    "a depthwise kernel flipped": lambda m: put(m.blocks[1].depthwise.weight, lambda w: w.flip(2, 3)),
    "an epsilon rounded to float32": lambda m: setattr(m.norm, "eps", float(np.float32(m.norm.eps))),
    "the tanh GELU": lambda m: setattr(m.blocks[1].act, "approximate", "tanh"),
    "a bias shifted": lambda m: put(m.blocks[0].depthwise.bias, lambda b: b.roll(1)),
    "mean and variance swapped": lambda m: put(m.norm.running_mean, lambda _: m.norm.running_var),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_planted_fault_is_caught(fault):
    """Shapes tell none of these: kernels are square."""
    case = CASES[1]
    port = load(case, "torch")
    FAULTS[fault](port.model)
    _, truth = case.intermediates(OUTPUTS)["block2"]
    # an epsilon rounded is the smallest of them: 1e-11 where variances are near one
    assert relative_error(truth, port.taps(case.images)["blocks.2"]) > 1e-12


def test_the_activation_is_open_unless_the_variant_or_the_code_tells(tmp_path):
    with pytest.raises(UsageError, match="act is open"):
        plan(CASES[1].files[0])
    with plan(CASES[0].files[0]) as labml:
        assert labml.config.act == "gelu"
    for variant, act in (("768/32", "relu"), ("1024/20", "gelu")):
        config = dataclasses.replace(VARIANTS[variant], classes=10)
        with plan(hollow(tmp_path / "weights.safetensors", _official(config))) as official:
            assert (official.src, official.variant, official.config.act) == ("official", variant, act)


def _official(config):
    """Yield the tensors of an official checkpoint."""
    for parameter in parameters(list(layers(config))):
        held = place(parameter, DIALECTS["official"], config)
        yield Tensor(held.name, held.shape, "int64" if parameter.leaf == "count" else "bfloat16")


def test_infer_reads_back_every_tiny_twin():
    for config in TINY.values():
        held = {p.name: dict(zip(p.axes, p.shape, strict=True))
                for p in parameters(list(layers(config)))}  # fmt: skip
        told = infer(Sizes(held))
        assert dataclasses.replace(config, **told) == config


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_dropout_only_in_training(framework):
    plain = tiny("convmixer", "headless", framework)
    port = ports.build("convmixer", TINY["headless"], framework, 1, "random", "float64", dropout=0.5)
    images = np.random.default_rng(0).standard_normal((4, *port.spec.input_shape(port.config)))
    assert np.array_equal(port(images), plain(images))
    assert abs(port.gradients(images).loss - plain.gradients(images).loss) > 1e-9


def test_images_smaller_than_a_patch_are_refused():
    port = tiny("convmixer", "1024/20", "torch")
    with pytest.raises(ValueError, match="4x9 are smaller than one patch of 5x5"):
        port(np.zeros((1, 3, 4, 9)))


SHAPES = [((4, 5), (1, 1)), ((3, 3), (2, 2)), ((3, 1), (2, 1)), ((1, 2), (2, 3))]
PADDINGS = ["SAME", ((1, 0), (4, 2))]  # the latter beyond the kernel, too


@pytest.mark.parametrize(("shape", "padding"), list(itertools.product(SHAPES, PADDINGS)))
def test_shifted_products_are_the_convolution_and_so_are_their_gradients(shape, padding):
    needs("flax")
    native, ours, x, kernel = _convolutions(*shape, padding)
    for plain, fast in zip(_pulled(native, x, kernel), _pulled(ours, x, kernel), strict=True):
        assert plain.shape == fast.shape
        assert relative_error(np.asarray(plain), np.asarray(fast)) <= 1e-12  # the same products, in another order


@pytest.mark.parametrize(("shape", "padding"), [(SHAPES[0], "SAME"), (SHAPES[2], PADDINGS[1])])
def test_a_large_kernel_is_computed_in_blocks_of_channels(shape, padding, monkeypatch):
    needs("flax")
    from ports.flax import depthwise

    monkeypatch.setattr(depthwise, "CACHE", 0)
    monkeypatch.setattr(depthwise, "CHANNELS", 1)
    native, ours, x, kernel = _convolutions(*shape, padding)
    assert "while" in ours.lower(x, kernel).as_text()
    for plain, blocked in zip(_pulled(native, x, kernel), _pulled(ours, x, kernel), strict=True):
        assert relative_error(np.asarray(plain), np.asarray(blocked)) <= 1e-12  # the same products, in another order


@pytest.mark.parametrize("groups", [1, 3])
def test_a_pointwise_convolution_is_a_matrix_product_for_each_group(groups):
    needs("flax")
    import jax
    from jax import lax

    from ports.flax.layers import pointwise_conv

    jax.config.update("jax_enable_x64", True)
    rng = np.random.default_rng(0)
    x, kernel = rng.standard_normal((2, 3, 4, 6)), rng.standard_normal((1, 1, 6 // groups, 9))
    options = {"dimension_numbers": ("NHWC", "HWIO", "NHWC"), "feature_group_count": groups}
    plain, product = (
        jax.jit(lambda x, kernel, op=op: op(x, kernel, (1, 1), "SAME", **options))
        for op in (lax.conv_general_dilated, pointwise_conv)
    )
    assert "convolution" not in product.lower(x, kernel).as_text()
    assert relative_error(np.asarray(plain(x, kernel)), np.asarray(product(x, kernel))) <= 1e-14


def _convolutions(sides, strides, padding):
    import jax
    from jax import lax

    from ports.flax.depthwise import depthwise_conv

    jax.config.update("jax_enable_x64", True)
    rng = np.random.default_rng(0)
    x, kernel = rng.standard_normal((2, 7, 8, 3)), rng.standard_normal((*sides, 1, 3))
    options = {"dimension_numbers": ("NHWC", "HWIO", "NHWC"), "feature_group_count": 3}
    native, ours = (
        jax.jit(lambda x, kernel, op=op: op(x, kernel, strides, padding, **options))
        for op in (lax.conv_general_dilated, depthwise_conv)
    )
    return native, ours, x, kernel


def _pulled(op, x, kernel):
    """An operation's output, and its gradients for random weights of the output."""
    import jax

    y, pull = jax.vjp(op, x, kernel)
    return y, *pull(np.random.default_rng(1).standard_normal(y.shape))


@pytest.mark.parametrize(("platform", "native"), [("cpu", False), ("cuda", True), ("tpu", True)])
def test_the_platform_decides_how_a_depthwise_convolution_is_computed(platform, native):
    """Forward and backward; no machine with the platform is needed to see what would run on it."""
    needs("flax")
    import jax

    _, ours, x, kernel = _convolutions((4, 5), (1, 1), "SAME")
    for function, convolutions in ((ours, 1), (jax.jit(jax.grad(lambda *a: ours(*a).sum(), argnums=(0, 1))), 2)):
        text = function.trace(x, kernel).lower(lowering_platforms=(platform,)).as_text()
        assert text.count("stablehlo.convolution") == (convolutions if native else 0)


def test_sixteen_bit_products_are_summed_in_thirty_two():
    needs("flax")
    import jax.numpy as jnp

    from ports.flax.depthwise import depthwise_conv

    ones = jnp.ones((1, 40, 40, 1), jnp.bfloat16)
    assert float(depthwise_conv(ones, ones[0, :, :, None], (1, 1), "VALID")[0, 0, 0, 0]) == 1600  # 256 in bfloat16


YAML = """
DATA: {IMAGE_SIZE: 224, CROP_PCT: 0.96}
MODEL:
    TYPE: convmixer
    NAME: convmixer_768_32
    CNN: {DIM: 4, DEPTH: 2, KERNEL_SIZE: 9, PATCH_SIZE: 7, ACTIVATION: 'ReLU'}
TRAIN: {BASE_LR: 0.01}
"""


def test_a_yaml_file_of_paddlevit_tells_the_activation(tmp_path, capsys):
    """And one of another network, or of a dialect that has none, is told."""
    config = Config(patch=7, kernel=9, depth=2, width=4, act="relu", classes=5)
    write_numbers(tmp_path / "m.pdparams", "convmixer", config, "paddlevit")
    (tmp_path / "c.yaml").write_text(YAML)
    words = ["paddlevit2torch", str(tmp_path / "m.pdparams"), "-o", str(tmp_path / "x.safetensors")]
    assert main([*words, "--config", str(tmp_path / "c.yaml")]) == 0
    with plan(tmp_path / "x.safetensors") as made:
        assert made.config == dataclasses.replace(config, **convmixer_norms("paddlevit"))
        assert made.preprocessing.values["crop"] == 0.96 and made.preprocessing.assumed == {"mean", "std"}
    (tmp_path / "d.yaml").write_text(YAML.replace("CNN.", "MF.").replace("ACTIVATION: 'ReLU'", "ACTIVATION: 'SiLU'"))
    assert main([*words, "--force", "--config", str(tmp_path / "d.yaml")]) == 2
    assert "MODEL.CNN.ACTIVATION='SiLU' does not fit: it is GELU or ReLU" in capsys.readouterr().err
    write_numbers(tmp_path / "t.pth", "convmixer", config, "timm")
    assert main(["timm2torch", str(tmp_path / "t.pth"), "--config", str(tmp_path / "c.yaml")]) == 2
    assert "no configuration files of timm are known for convmixer: give Config fields" in capsys.readouterr().err


def convmixer_norms(dialect):
    """What its code fixes of every norm."""
    return {name: DIALECTS[dialect].conventions[name] for name in ("norm_eps", "norm_momentum")}


def test_paddles_batch_norm_keeps_its_gradients_in_float64():
    """Of values far from 0 against exact sums: a scale's gradient would cancel between two large ones."""
    needs("paddle")
    import paddle

    from ports.runners.paddle_norms import exact

    rng = np.random.default_rng(0)
    x, weights = 1e4 + rng.standard_normal((2, 1, 64, 64)), rng.standard_normal((2, 1, 64, 64))
    norm = paddle.nn.BatchNorm2D(1).to(dtype="float64")
    norm.eval()
    norm._mean.set_value(np.array([1e4]))
    with exact("float64", []):
        (norm(paddle.to_tensor(x)) * paddle.to_tensor(weights)).sum().backward()
    truth = np.sum(np.longdouble(weights) * (np.longdouble(x) - 10_000)) / np.sqrt(np.longdouble(1 + norm._epsilon))
    assert abs(norm.weight.grad.item() - truth) <= 1e-15 * np.abs(weights).sum()  # measured 1e-17; uncentred 3e-13

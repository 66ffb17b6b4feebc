"""What is particular to Mobile-Former: intermediates, statistics, DyReLU, dropout, PaddleViT's YAML and old files."""

import copy
import dataclasses
from functools import partial

import numpy as np
import pytest
import yaml

import ports
from convert.config.settings import read_config
from convert.errors import ConvertError, UsageError
from convert.plans.planning import plan
from parity.results.elements import relative_error
from specs.applied.arrays import apply
from specs.init import draw
from specs.layer import Sizes, parameters
from specs.mobile_former import MOMENTUM, REFUSED, TINY, VARIANTS, from_yaml, infer, layers

from .conftest import needs, tiny
from .golden import Case, put

FRAMEWORKS = ("flax", "torch", "paddle")
UPSTREAM = {"dyrelu_coefs": (1.0, 0.5), "dyrelu_consts": (1.0, 0.0), "stem_stride": 2}  # none is in a file
CASES = [
    Case("mobileformer_a_base", lite_stride=2, softmax=False, **UPSTREAM),
    Case("mobileformer_a_groups4", lite_stride=1, softmax=False, **UPSTREAM),
]
OUTPUTS = """
stem.conv: b c h w                             stem.conv: b c h w
stem.bn: b c h w                               stem.norm: b c h w
stem: b c h w                                  stem: b c h w
bneck_lite: b c h w                            lite: b c h w
blocks.{i}.toformer_bridge: b m d              blocks.{i}.to_former: b m d
blocks.{i}.former.attn: b m d                  blocks.{i}.former.attention: b m d
blocks.{i}.former: b m d                       blocks.{i}.former: b m d
blocks.{i}.mobile.downsample_dw: b c h w       blocks.{i}.mobile.down: b c h w
blocks.{i}.mobile.bneck.act.project#{n}: b c   blocks.{i}.mobile.hyper.norm: b c
blocks.{i}.mobile.bneck.act#0: b c h w         blocks.{i}.mobile.act: b c h w
blocks.{i}.mobile.bneck.act#1: b c h w         blocks.{i}.mobile.act#1: b c h w
blocks.{i}.mobile: b c h w                     blocks.{i}.mobile: b c h w
blocks.{i}.tomobile_bridge: b c h w            blocks.{i}.to_mobile: b c h w
end_toformer_bridge: b m d                     to_former: b m d
channel_conv: b c h w                          last: b c h w
head.fc{n}: b c                                head.fc{n}: b c
"""


def load(case, framework, **settings):
    needs(framework)
    return ports.load(str(case.files[0]), framework, dtype="float64", **{**case.settings, **settings})


def images(port, n=2):
    return np.random.default_rng(0).standard_normal((n, *port.spec.input_shape(port.config)))


SMALL, GROUPS = CASES
EAGER = [(case, framework) for case in CASES for framework in ("torch", "paddle")]


def pairs(*more):
    """(case, framework) of all eager frameworks, and of flax, which takes ten seconds to compile, as given."""
    made = [*EAGER, *((case, "flax") for case in more)]
    return pytest.mark.parametrize(("case", "framework"), made, ids=str)


@pairs(GROUPS)
def test_every_intermediate(case, framework):
    taps = load(case, framework).taps(case.images)
    recorded = case.intermediates(OUTPUTS)
    assert len(recorded) == sum(name.startswith("eval/inter/") for name in case.arrays)
    for name, (tap, truth) in recorded.items():
        assert relative_error(truth, taps[tap]) <= 1e-10, name  # rounding is 1e-15
    assert relative_error(case.logits, taps["head"]) <= 1e-10


@pytest.mark.usefixtures("quick_gradients")
@pairs(SMALL)
def test_a_step_of_training(case, framework):
    """Loss, gradients and running statistics of the original's own code, whose softmax is for evaluation only."""
    port = load(case, framework, softmax=True)
    found = port.gradients(case.images)
    assert found.loss == pytest.approx(float(case.arrays["train/loss.f64"][0]), rel=1e-10)
    assert relative_error(case.arrays["train/logits.f64"], found.logits) <= 1e-10
    largest = max(np.abs(array).max() for array in found.parameters.values())
    gradients, statistics = (_recorded(case, framework, part) for part in ("grad", "stats"))
    assert gradients.keys() == found.parameters.keys()
    for name, truth in gradients.items():
        # relative to the largest gradient: a bias before a norm in training has none but rounding noise
        assert np.abs(truth - found.parameters[name]).max() <= 1e-10 * largest, name
    counts = {name for name in found.statistics if name.endswith("num_batches_tracked")}  # paddle's files have none
    assert statistics.keys() == found.statistics.keys() - counts
    before, taps = port.state(), port.taps(case.images)
    for name, truth in statistics.items():
        if name.endswith("running_var"):
            truth = _unbiased(truth, before[name], taps[name.removesuffix(".running_var")])
        assert relative_error(truth, found.statistics[name]) <= 1e-10, name


def _recorded(case, framework, part):
    """{name: recorded gradients or statistics}, named and laid out as the framework's arrays."""
    with plan(case.files[0], dst=framework, settings=case.settings) as made:
        steps = [(tensor, moves) for tensor, moves in made.steps if isinstance(moves, list)]
        return {
            tensor.name: apply(moves, tensor.shape, lambda source: case.arrays[f"train/{part}/{source}.f64"])
            for tensor, moves in steps
            if f"train/{part}/{moves[0].source}.f64" in case.arrays
        }


def _unbiased(after, before, output):
    """Torch keeps running variances unbiased."""
    n = output.size // output.shape[1]
    return MOMENTUM * before + (after - MOMENTUM * before) * n / (n - 1)


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_probabilities_in_evaluation(framework):
    port = load(SMALL, framework, softmax=True)
    assert relative_error(SMALL.arrays["eval/output.f64"], port(SMALL.images)) <= 1e-10


@pytest.mark.parametrize("framework", FRAMEWORKS)
@pytest.mark.parametrize("name", ["plain", "k=3, other coefficients"])
def test_dynamic_relu_is_the_largest_piece(framework, name):
    """Of k pieces, the constant consts[0] belongs to the first slope alone; one hyper function serves both calls.

    Upstream keeps coefficients and constants in float32.
    """
    port = tiny("mobile_former", name, framework)
    c, taps = port.config, port.taps(images(port))
    assert [tap for tap in taps if tap.startswith("blocks.0.mobile.hyper")][-1] == "blocks.0.mobile.hyper"
    k, (slope, offset), (first, other) = c.dyrelu_k, *np.float64(np.float32([c.dyrelu_coefs, c.dyrelu_consts]))
    theta = taps["blocks.0.mobile.hyper.norm"].reshape(2, c.blocks[0][0], 2 * k)  # channel by channel
    a = theta[..., :k] * slope + np.array([first] + [other] * (k - 1))
    b = theta[..., k:] * offset + other
    for norm, act in (("norm1", "act"), ("norm2", "act#1")):
        x = taps[f"blocks.0.mobile.{norm}"]
        pieces = a[:, :, None, None] * x[..., None] + b[:, :, None, None]
        assert relative_error(pieces.max(-1), taps[f"blocks.0.mobile.{act}"]) <= 1e-12
        assert len(np.unique(pieces.argmax(-1))) == k  # each piece matters


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_without_dynamic_relu_there_is_no_activation(framework):
    port = tiny("mobile_former", "without DyReLU, alpha", framework)
    taps = port.taps(images(port))
    assert np.array_equal(taps["blocks.1.mobile.act"], taps["blocks.1.mobile.norm1"])
    assert taps["blocks.1.mobile.act#1"].min() < 0
    assert not [tap for tap in taps if "hyper" in tap]


RATES = {"attention_dropout": 0.11, "dropout": 0.22, "mlp_dropout": 0.33, "drop_path": 0.44}


BRIDGE, FORMER = ("attention_dropout", "dropout", "drop_path"), ("attention_dropout", "attention_dropout", "drop_path")
PLACES = [*BRIDGE, *FORMER, "mlp_dropout", "mlp_dropout", "drop_path", *BRIDGE, *BRIDGE, "dropout"]  # of one block
DROPPING = dataclasses.replace(TINY["plain"], blocks=((11, 6, 2),), **RATES)


@pytest.mark.parametrize("framework", ["torch", "paddle"])
def test_every_dropout_has_its_place(framework):
    needs(framework)
    port = ports.build("mobile_former", DROPPING, framework, 1, "random", "float64")
    x = images(port, n=3)
    drops = port.dropout_calls(x, seed=0)
    assert [drop.rate for drop in drops] == [RATES[place] for place in PLACES]
    assert all(drop.scale < 1e-6 for drop in drops)  # paddle keeps rates in float32
    assert [drop.kept.size for drop in drops if drop.rate == RATES["drop_path"]] == [3] * 5  # whole samples
    plain = ports.build("mobile_former", DROPPING, framework, 1, "random", "float64", **dict.fromkeys(RATES, 0.0))
    assert np.array_equal(port(x), plain(x))


def test_every_dropout_of_flax_has_its_place():
    """Shapes alone are computed: running it operation by operation takes twenty seconds."""
    needs("flax")
    import flax.linen as nn
    import jax

    rates = []

    def note(call, args, kwargs, context):
        if isinstance(context.module, nn.Dropout) and not context.module.deterministic:
            rates.append((context.module.rate, len(context.module.broadcast_dims) > 0))
        return call(*args, **kwargs)

    module, x = ports.network("mobile_former", "flax")(DROPPING), np.zeros((1, 29, 37, 3))
    with nn.intercept_methods(note):
        keys = dict.fromkeys(("params", "dropout"), jax.random.key(0))
        jax.eval_shape(lambda x: module.init(keys, x, train=True), x)
    assert rates == [(RATES[place], place == "drop_path") for place in PLACES]


def test_no_dropout_of_a_configuration_is_left_unused():
    assert {f.name for f in dataclasses.fields(TINY["plain"]) if "drop" in f.name} == set(RATES)


def test_a_classifier_sees_the_features_of_a_headless_network():
    port = tiny("mobile_former", "headless, four heads", "torch")
    x = images(port)
    assert port(x).shape == (2, port.config.head_hidden)
    y = port.taps(x)["head.fc1"]
    assert relative_error(y * np.clip(y + 3, 0, 6) / 6, port(x)) <= 1e-12  # hardswish


def test_the_articles_mnist_setting():
    """Images of 48 pixels, ten classes, and a lite bottleneck of stride 1: the same arrays, maps twice as large."""
    needs("torch")
    sides = {}
    for stride in (1, 2):
        settings = {"lite_stride": stride, "classes": 10, "channels": 1, "image": 48}
        port = ports.build("mobile_former", "26m", "torch", **settings)
        taps = port.taps(images(port))
        sides[stride] = [taps[tap].shape[2:] for tap in ("lite", "blocks.7")]
        assert taps["head"].shape == (2, 10)
    assert sides == {1: [(24, 24), (3, 3)], 2: [(12, 12), (2, 2)]}


def test_alpha_scales_all_but_tokens_and_head_once():
    base, wide = VARIANTS["26m"], dataclasses.replace(VARIANTS["26m"], alpha=2.0)
    assert (wide.stem, wide.lite_hidden, wide.lite_out, wide.blocks[0]) == (16, 48, 24, (72, 24, 1))
    assert (wide.last, wide.head_hidden, wide.token_width) == (base.last, base.head_hidden, base.token_width)
    assert dataclasses.replace(wide, classes=10).blocks == wide.blocks


FAULTS = {
    "two heads swapped": lambda m: put(m.blocks[1].to_former.query.weight, lambda w: w.flip(0)),
    "a square query transposed": lambda m: put(m.blocks[2].to_former.query.weight, lambda w: w.transpose(1, 2)),
    "key and value swapped": lambda m: _swap(m.blocks[0].to_mobile.key, m.blocks[0].to_mobile.value),
    "a depthwise kernel transposed": lambda m: put(m.blocks[0].mobile.depthwise.weight, lambda w: w.transpose(2, 3)),
    "qkv as heads of q, k, v": lambda m: put(
        m.blocks[0].former.attention.qkv.weight, lambda w: w.unflatten(0, (2, 3, -1)).transpose(0, 1).flatten(0, 2)
    ),
    "the tanh GELU": lambda m: setattr(m.blocks[0].mobile.hyper.act, "approximate", "tanh"),
    "pieces before channels": lambda m: put(
        m.blocks[0].mobile.hyper.norm.weight, lambda w: w.unflatten(0, (4, -1)).mT.flatten()
    ),
    "the normed token kept": lambda m: setattr(
        m.blocks[0].to_former, "forward", partial(_normed, m.blocks[0].to_former)
    ),
    "statistics of two norms swapped": lambda m: put(
        m.lite.norm1.running_mean, lambda _: m.lite.norm2.running_mean.clone()
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_planted_fault_is_caught(fault):
    """Shapes tell none of these."""
    case = SMALL
    port = load(case, "torch")
    FAULTS[fault](port.model)
    assert relative_error(case.logits, port(case.images)) > 1e-6  # 1e-15 without


def _swap(left, right):
    left.weight, right.weight = right.weight, left.weight


def _normed(bridge, t, f):
    return type(bridge).forward(bridge, t, f) - t + bridge.norm(t)


def test_what_no_file_tells_is_asked_for():
    settings = dict(SMALL.settings)
    for name in ("lite_stride", *UPSTREAM):
        with pytest.raises(UsageError, match=f"{name} is open"):
            plan(SMALL.files[0], settings={k: v for k, v in settings.items() if k != name})


@pytest.mark.parametrize("name", TINY)
def test_infer_reads_back_every_tiny_twin(name):
    config = TINY[name]
    held = {p.name: dict(zip(p.axes, p.shape, strict=True))
            for p in parameters(list(layers(config)))}  # fmt: skip
    told = infer(Sizes(held))
    assert dataclasses.replace(config, **told) == config
    assert told.keys() >= {f.name for f in dataclasses.fields(config) if f.default is dataclasses.MISSING} - {
        "lite_stride", *({"dyrelu_coefs", "dyrelu_consts"} if config.dyrelu_k else ()),
    }  # fmt: skip


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"heads": 3}, "heads=3 does not divide 10"),
        ({"groups": 5}, "groups=5 does not divide 6"),
        ({"lite_stride": 3}, "^lite_stride=3: strides are 1 or 2"),
        ({"blocks": ((11, 6, 4),)}, r"^blocks=\(\(11, 6, 4\),\): strides are 1 or 2"),
        ({"heads": 0}, "^heads=0: at least 1"),
        ({"token_width": 0, "last": 0}, "^token_width=0, last=0, with alpha=1.0: widths are at least 1"),
        ({"alpha": 0.1}, "^stem=0, lite_hidden=0, lite_out=0, blocks=.*, with alpha=0.1: widths are at least 1"),
        ({"alpha": float("nan")}, "alpha=nan"),
    ],
)
def test_networks_that_cannot_be_are_refused(change, message):
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(TINY["plain"], **change)


@pytest.mark.parametrize("fragment", sorted(key for fragments, _ in REFUSED for key in fragments))
def test_the_first_family_of_files_is_refused(fragment, tmp_path):
    """Its names are mostly those of today's network."""
    case = SMALL
    with plan(case.files[0], dst="paddle", settings=case.settings) as made:
        old = {name: np.zeros(tensor.shape, np.float32) for name, tensor in made.sources.items()}
    _write(tmp_path / "old.safetensors", {**old, f"blocks.0.{fragment}.weight": np.zeros(16, np.float32)})
    with pytest.raises(ConvertError, match="November 2021"):
        plan(tmp_path / "old.safetensors", src="paddlevit")
    _write(tmp_path / "new.safetensors", old)
    with plan(tmp_path / "new.safetensors", src="paddlevit", settings=case.settings) as made:
        assert made.architecture == "mobile_former"


def _write(path, arrays):
    from safetensors.numpy import save_file

    save_file(arrays, path)


YAML = """
BASE: ['']
DATA: {IMAGE_SIZE: 224, CROP_PCT: 0.9}
TRAIN: {NUM_EPOCHS: 450}
MODEL:
  TYPE: MobileFormer
  NAME: MobileFormer_26M
  NUM_CLASSES: 10
  DROPPATH: 0.0
  DROPOUT: 0.1
  MLP_DROPOUT: 0.1
  ATTENTION_DROPOUT: 0.1
  MF:
    IN_CHANNELS: 3
    TOKENS: [3, 128]
    NUM_HEAD: 4
    MLP_RATIO: 2.0
    ALPHA: 1.0
    QKV_BIAS: True
    POINTWISECONV_GROUPS: 4
    STEM: {OUT_CHANNELS: 8, KERNELS: 3, STRIEDS: 2, PADDINGS: 1}
    LITE_BNECK: {IN_CHANNEL: 8, HIDDEN_CHANNEL: 24, OUT_CHANNEL: 12, KERNEL: 3, STRIED: 2, PADDING: 1}
    BLOCK:
      IN_CHANNELS: [12, 12, 24, 24, 48, 48, 64, 96]
      HIDDEN_CHANNELS: [36, 72, 72, 144, 192, 288, 384, 576]
      OUT_CHANNELS: [12, 24, 24, 48, 48, 64, 96, 96]
      KERNELS: [3, 3, 3, 3, 3, 3, 3, 3]
      STRIEDS: [1, 2, 1, 2, 1, 1, 2, 1]
      PADDINGS: [1, 1, 1, 1, 1, 1, 1, 1]
    CHANNEL_CONV: {IN_CHANNEL: 96, OUT_CHANNEL: 576}
    HEAD: {IN_CHANNEL: 576, HIDDEN_FEATURE: 1024}
    DYRELU: {USE_DYRELU: True, REDUCE: 6.0, DYRELU_K: 2, COEFS: [1.0, 0.5], CONSTS: [1.0, 0.0]}
"""


def changed(key, value):
    """The YAML above with one key set."""
    mapping = copy.deepcopy(yaml.safe_load(YAML))
    *sections, last = key.split(".")
    inner = mapping
    for section in sections:
        inner = inner.setdefault(section, {})
    inner[last] = value
    return mapping


def test_a_yaml_file_of_paddlevit_is_a_variant(tmp_path):
    (tmp_path / "26m.yaml").write_text(YAML)
    told = from_yaml(read_config(str(tmp_path / "26m.yaml")).values)
    assert dataclasses.replace(VARIANTS["52m"], **told) == dataclasses.replace(VARIANTS["26m"], classes=10)


@pytest.mark.parametrize(
    ("key", "value", "told"),
    [
        ("MODEL.MF.ALPHA", 1.5, {"stem": 12, "lite_out": 18, "last": 576}),
        ("MODEL.MF.LITE_BNECK.STRIED", 1, {"lite_stride": 1}),
        ("MODEL.MF.DYRELU.USE_DYRELU", False, {"dyrelu_k": 0, "dyrelu_hidden": 0}),
        ("MODEL.MF.QKV_BIAS", False, {}),
    ],
)
def test_what_a_yaml_key_means(key, value, told):
    assert from_yaml(changed(key, value)).items() >= told.items()


def test_the_hidden_width_is_rounded_as_upstream_rounds():
    """int(1 / 4.4 * 264), which is not int(264 / 4.4) = 59."""
    assert from_yaml({"MODEL": {"MF": {"TOKENS": [3, 264], "DYRELU": {"REDUCE": 4.4}}}})["dyrelu_hidden"] == 60


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("MODEL.MF.TOKEN", [3, 128], "'MODEL.MF.TOKEN', did you mean 'MODEL.MF.TOKENS'"),
        ("MODEL.MF.LITE_BNECK.STRIDE", 1, "did you mean 'MODEL.MF.LITE_BNECK.STRIED'"),
        ("TRIAN.EPOCHS", 1, "unknown name 'TRIAN.EPOCHS'"),
        ("MODEL.MF.NUM_HEAD", "four", "NUM_HEAD='four' does not fit: it is int"),
        ("MODEL.MF.HEAD.IN_CHANNEL", 96, "HEAD.IN_CHANNEL=96"),
        ("MODEL.MF.BLOCK.IN_CHANNELS", [12] * 8, "BLOCK.IN_CHANNELS"),
        ("MODEL.MF.BLOCK.STRIEDS", [1, 2], "as long as there are blocks"),
        ("MODEL.MF.BLOCK.KERNELS", [5] * 8, "BLOCK.KERNELS"),
        ("MODEL.MF.DYRELU.REDUCE", 0, "must be a positive number"),
        ("MODEL.MF.DYRELU.REDUCE", 5e-324, "must be a positive number"),
        ("MODEL.TYPE", "ViT", "it is 'MobileFormer'"),
        ("BASE", ["other.yaml"], "copy what those files say"),
    ],
)
def test_a_yaml_file_that_does_not_fit_says_where(key, value, message):
    with pytest.raises(ValueError, match=message):
        from_yaml(changed(key, value))


def test_upstreams_initialisation():
    """Kaiming normal for every kernel, zero biases, Xavier for the tokens as paddle reads their shape (1, m, d)."""
    config = VARIANTS["508m"]
    drawn = {p.name: draw(p, 0) for p in parameters(list(layers(config)))}
    for name, fan_in in (("head.fc1", 1440 + 192), ("blocks.9.mobile.depthwise", 9), ("blocks.9.to_mobile.key", 24)):
        assert drawn[f"{name}.kernel"].std() == pytest.approx((2 / fan_in) ** 0.5, rel=0.05)  # of thousands of draws
        assert not drawn[f"{name}.bias"].any()
    bound = (6 / (6 * 192 + 192)) ** 0.5
    assert 0.99 * bound < np.abs(drawn["tokens"]).max() <= bound

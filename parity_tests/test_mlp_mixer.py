"""What is particular to MLP-Mixer: its intermediates, blind spots, conventions of its dialects, faults that hide."""

import dataclasses

import numpy as np
import pytest

import ports
from convert.plans.planning import plan
from parity.results.elements import relative_error
from specs.mlp_mixer import TINY, VARIANTS, Config, infer, layers

from .conftest import needs, tiny
from .golden import Case, moved, swap

FRAMEWORKS = ("flax", "torch", "paddle")
CASES = [Case(name) for name in ("flax_mixer", "timm_mixer", "passl_mixer", "paddlevit_mixer")]
TAPS = """
block{i}.token_mlp_out: b c t       blocks.{i}.token_mix: b t c
block{i}.channel_mlp_out: b t c     blocks.{i}.channel_mix: b t c
block{i}: b t c                     blocks.{i}: b t c
norm: b t c                         norm: b t c
"""


@pytest.mark.parametrize("framework", FRAMEWORKS)
@pytest.mark.parametrize("case", CASES, ids=str)
def test_every_intermediate(case, framework):
    """The token MLP's second bias has no effect on logits at all: only intermediates tell where it is."""
    needs(framework)
    port = ports.load(case.files[0], framework, dtype="float64", **case.settings)
    taps, recorded = port.taps(case.images), case.intermediates(TAPS)
    taps["stem"] = taps["stem"].reshape(*taps["stem"].shape[:2], -1).swapaxes(1, 2)
    recorded["stem"] = "stem", case.arrays["eval/inter/stem.f64"]
    pooled = taps["norm"].mean(1)
    assert len(recorded) == 3 * case.about["config"]["blocks"] + 2
    for name, (tap, truth) in recorded.items():
        assert relative_error(truth, taps[tap]) <= 1e-10, name  # rounding 1e-15; paddle's float32 epsilons 1e-12
    assert relative_error(case.arrays["eval/inter/pooled.f64"], pooled) <= 1e-10
    assert relative_error(case.logits, port(case.images)) <= 1e-10


@pytest.mark.usefixtures("quick_gradients")
@pytest.mark.parametrize("framework", FRAMEWORKS)
@pytest.mark.parametrize("case", CASES, ids=str)
def test_gradients(case, framework):
    needs(framework)
    port = ports.load(case.files[0], framework, dtype="float64", **case.settings)
    found = port.gradients(case.images)
    assert found.loss == pytest.approx(float(case.arrays["train/loss.f64"][0]), rel=1e-10)
    assert relative_error(case.image_gradient, found.images) <= 1e-10
    recorded = {k[11:-4]: v for k, v in case.arrays.items() if k.startswith("train/grad/")}
    largest = max(np.abs(v).max() for v in recorded.values())
    with plan(case.files[0], dst=framework) as made:
        for tensor, moves in made.steps:
            truth = moved(recorded.pop(moves[0].source), moves[0], tensor.shape)
            # relative to the largest gradient: some are zero in exact arithmetic and rounding noise in any other
            assert np.abs(truth - found.parameters[tensor.name]).max() <= 1e-10 * largest, tensor.name
    assert not recorded


def test_the_second_token_bias_is_invisible_in_logits_and_caught_in_intermediates():
    needs("torch")
    port = tiny("mlp_mixer", "S/16", "torch")
    images = np.random.default_rng(0).standard_normal((2, 3, *port.spec.input_shape(port.config)[1:]))
    before, taps = port(images), port.taps(images)
    bias = port.model.blocks[0].token_mix.fc2.bias.data
    kept = bias.clone()
    bias.copy_(bias.roll(1))
    after, moved = port(images), port.taps(images)
    bias.copy_(kept)
    assert relative_error(before, after) < 1e-12  # it shifts whole tokens, and every consumer is a shift-invariant norm
    assert relative_error(taps["blocks.0.token_mix"], moved["blocks.0.token_mix"]) > 1e-3


FAULTS = {
    "a transpose dropped": lambda m: _reread(m.blocks[0].channel_mix.fc1.weight.data),
    "two norms swapped": lambda m: swap(m.blocks[0].norm1.weight.data, m.blocks[0].norm2.weight.data),
    "the GELU flipped": lambda m: [setattr(b.token_mix.act, "approximate", "tanh") for b in m.blocks],
    "an epsilon changed": lambda m: setattr(m.norm, "eps", 1e-5),
    "a bias shifted": lambda m: m.blocks[0].token_mix.fc2.bias.data.copy_(m.blocks[0].token_mix.fc2.bias.data.roll(1)),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_planted_fault_is_caught(fault):
    """Each fault, alone, moves some tap beyond the tolerance that the unharmed port keeps."""
    needs("torch")
    case = Case("timm_mixer")
    port = ports.load(case.files[0], "torch", dtype="float64")
    truth = port.taps(case.images) | {"output": port(case.images)}
    FAULTS[fault](port.model)
    found = port.taps(case.images) | {"output": port(case.images)}
    errors = {tap: relative_error(truth[tap], found[tap]) for tap in truth}
    assert max(errors.values()) > 1e-10, "unseen"


def _reread(weight):
    """What is left in a matrix whose transpose was forgotten: its elements in the other order."""
    weight.copy_(weight.T.reshape(weight.shape).clone())


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_ragged_images_pad_as_google_does(framework):
    """SAME: the stem sees zeros beyond a ragged edge; VALID: it drops what does not fill a patch."""
    needs(framework)
    made = {}
    for padding, tokens in (("SAME", 9), ("VALID", 4)):
        config = Config(
            patch=(3, 5), depth=1, width=7, token_hidden=3, channel_hidden=5, image=(8, 14), padding=padding
        )
        assert config.token_count == tokens
        port = ports.build("mlp_mixer", config, framework, init="random", dtype="float64", classes=2)
        made[padding] = port(np.ones((1, 3, 8, 14)))
        assert made[padding].shape == (1, 2)
    assert not np.allclose(made["SAME"], made["VALID"])


def test_a_config_takes_an_image_size_or_a_token_grid():
    base = dict(patch=(4, 2), depth=1, width=8, token_hidden=4, channel_hidden=8)
    assert Config(**base, image=(16, 6)).token_count == 12
    assert Config(**base, tokens=12).token_count == 12
    assert Config(**base, tokens=(4, 3)).grid == (4, 3)
    assert dataclasses.replace(VARIANTS["S/16"], image=384).token_count == 576
    with pytest.raises(ValueError, match="makes 12 tokens"):
        Config(**base, image=(16, 6), tokens=11)

    with pytest.raises(ValueError, match="makes"):
        Config(**base, image=(16, 6), tokens=(3, 4))


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_another_grid_of_as_many_tokens_is_refused(framework):
    """By the port and by the framework's own model, where the Config states the grid."""
    needs(framework)
    config = Config(patch=4, depth=1, width=7, token_hidden=3, channel_hidden=5, image=(24, 16), classes=2)
    by_tokens = dataclasses.replace(config, image=None, tokens=(6, 4))
    for port in (ports.build("mlp_mixer", one, framework, init="random") for one in (config, by_tokens)):
        assert port(np.zeros((1, 3, 24, 16), np.float32)).shape == port(np.zeros((1, 3, 25, 19), np.float32)).shape
        for height, width in ((16, 24), (8, 48)):
            images = np.zeros((1, 3, height, width), np.float32)
            for call in (port, lambda images, port=port: _own(port, images)):
                with pytest.raises(ValueError, match=f"images of {height}x{width} make .* the network's grid is 6x4"):
                    call(images)
    free = ports.build("mlp_mixer", dataclasses.replace(by_tokens, tokens=24), framework, init="random")
    assert free(np.zeros((1, 3, 16, 24), np.float32)).shape == _own(free, np.zeros((1, 3, 8, 48), np.float32)).shape


def _own(port, images):
    """Call a port's model as its framework does."""
    if port.framework == "flax":
        return port.model.module.apply(port.model.variables, images.transpose(0, 2, 3, 1))
    if port.framework == "torch":
        import torch

        return port.model(torch.from_numpy(images))
    import paddle

    return port.model(paddle.to_tensor(images))


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_drop_path_and_dropout_only_in_training(framework):
    needs(framework)
    config = dataclasses.replace(TINY["S/16"], dropout=0.3, drop_path=0.4)
    plain = ports.build("mlp_mixer", TINY["S/16"], framework, init="random", dtype="float64")
    port = ports.build("mlp_mixer", config, framework, init="random", dtype="float64")
    images = np.random.default_rng(0).standard_normal((4, *port.spec.input_shape(config)))
    assert np.array_equal(port(images), plain(images))
    assert abs(port.gradients(images).loss - plain.gradients(images).loss) > 1e-9


@pytest.mark.parametrize("framework", FRAMEWORKS)
@pytest.mark.parametrize("rate", [0.0, 0.25, 1.0])
def test_drop_path_drops_whole_samples_and_rescales_the_rest(framework, rate):
    needs(framework)
    outputs = _drop_path(framework, rate, 4000)
    kept = outputs[:, 0, 0] != 0
    assert np.array_equal(outputs[:, 0, 0] != 0, outputs[:, 1, 2] != 0)  # a sample goes as a whole
    assert np.allclose(outputs[kept], 1 / (1 - rate) if rate < 1 else 0)
    # five standard deviations of 4000 draws
    assert abs(kept.mean() - (1 - rate)) <= 5 * np.sqrt(rate * (1 - rate) / 4000)


def _drop_path(framework, rate, samples):
    ones = np.ones((samples, 2, 3))
    if framework == "flax":
        import jax

        from ports.flax.layers import DropPath

        layer = DropPath(rate, deterministic=False)
        return np.asarray(layer.apply({}, ones, rngs={"dropout": jax.random.key(0)}))
    if framework == "torch":
        import torch

        from ports.torch.layers import DropPath

        torch.manual_seed(0)
        return DropPath(rate).train()(torch.from_numpy(ones)).numpy()
    import paddle

    from ports.paddle.layers import DropPath

    paddle.seed(0)
    layer = DropPath(rate)
    layer.train()
    return layer(paddle.to_tensor(ones)).numpy()


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_initialised_as_upstream(framework):
    """lecun_normal kernels (truncated at two deviations), zero biases, a zero head."""
    needs(framework)
    config = dataclasses.replace(VARIANTS["S/32"], depth=1)
    state = ports.build("mlp_mixer", config, framework, seed=3).state()
    kernel = next(v for n, v in state.items() if "channel_mix" in n and "fc1" in n and v.ndim == 2)
    deviation = np.sqrt(1 / 512)
    assert kernel.std() == pytest.approx(deviation, rel=0.01)  # a million draws: 0.1 % off at most
    assert np.abs(kernel).max() <= 2 * deviation / 0.8796
    assert all(not v.any() for n, v in state.items() if "bias" in n or "head" in n)


def test_infer_reads_back_every_tiny_twin():
    from specs.layer import Sizes, parameters

    for config in TINY.values():
        held = {p.name: dict(zip(p.axes, p.shape, strict=True))
                for p in parameters(list(layers(config)))}  # fmt: skip
        told = infer(Sizes(held))
        again = dataclasses.replace(config, **{**told, "image": None})
        assert list(layers(again)) == list(layers(config))

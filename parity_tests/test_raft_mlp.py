"""What is particular to RaftMLP: intermediates, windows and their token counts, rafts, bicubic off the native grid."""

import dataclasses
import importlib
import itertools

import numpy as np
import pytest
from einops import rearrange

import ports
from convert.errors import ConvertError, UsageError
from convert.files.base import Tensor
from convert.plans.planning import plan
from parity.results.elements import relative_error
from ports.resize import bicubic_matrix
from specs.applied.arrays import apply
from specs.dialects import place
from specs.layer import Sizes, parameters
from specs.notation.paths import fill, match, parse_path
from specs.raft_mlp import DIALECTS, TINY, VARIANTS, Config, infer, layers

from .conftest import needs, tiny
from .files.samples import hollow
from .golden import Case, differentiated, load, put, tap_inputs

FRAMEWORKS = ("flax", "torch", "paddle")
CASES = [Case("raft_native"), Case("raft_interp"), Case("raft_mixer_sc")]
TAPS = """
levels.{l}.fn.0        levels.{l}.multi_scale_embed       b h w c -> b (h w) c
levels.{l}.fn.1        levels.{l}.patch_embed             b h w c -> b (h w) c
levels.{l}.fn.{b+2}.1  levels.{l}.blocks.{b}.vertical     b h w (g o) -> b (o w) (g h)
levels.{l}.fn.{b+2}.3  levels.{l}.blocks.{b}.horizontal   b h w (g o) -> b (o h) (g w)
levels.{l}.fn.{b+2}.5  levels.{l}.blocks.{b}.channel      b h w c -> b (h w) c
levels.{l}.fn.{b+2}    levels.{l}.blocks.{b}              b h w c -> b (h w) c
levels.{l}             levels.{l}                         b h w c -> b c h w
heads.{n}              heads.{n}                          b c -> b c
"""
INPUTS = """
levels.{l}.fn.0        levels.{l}.patch_embed             b h w c -> b (h w) c
"""


def as_upstream(name, port, taps, into):
    """Our tap under an upstream name, in upstream's axes."""
    depths = {f"levels.{n}.fn.{depth + 2}": f"levels.{n}" for n, depth in enumerate(port.config.depths)}
    name = depths.get(name, name)  # a level ends by making an image of its tokens
    for table, held in ((TAPS, taps), (INPUTS, into)):
        for theirs, ours, axes in (line.split(maxsplit=2) for line in table.strip().splitlines()):
            found = match(parse_path(theirs), name)
            if found and (tap := fill(parse_path(ours), found[0])) in held:
                raft = {"g": port.config.rafts[found[0]["l"]]} if "(g o)" in axes else {}
                return rearrange(held[tap], axes, **raft)
    raise KeyError(name)


@pytest.mark.parametrize("framework", FRAMEWORKS)
@pytest.mark.parametrize("case", CASES, ids=str)
def test_every_intermediate(case, framework):
    port = load(case, framework)
    taps, into = port.taps(case.images), tap_inputs(port, case.images)
    recorded = {k[11:-4]: v for k, v in case.arrays.items() if k.startswith("eval/inter/")}
    assert len(recorded) > 20
    for name, truth in recorded.items():
        # rounding is 1e-15, 1e-12 with paddle's float32 epsilons
        assert relative_error(truth, as_upstream(name, port, taps, into)) <= 1e-10, name


@pytest.mark.usefixtures("quick_gradients")
@pytest.mark.parametrize(("case", "framework"), differentiated(CASES))
def test_a_step_of_training(case, framework):
    """Loss, logits and every gradient of the original's own code."""
    port = load(case, framework)
    found = port.gradients(case.images)
    assert found.loss == pytest.approx(float(case.arrays["train/loss.f64"][0]), rel=1e-10)
    assert relative_error(case.arrays["train/logits.f64"], found.logits) <= 1e-10
    assert relative_error(case.image_gradient, found.images) <= 1e-10
    with plan(case.files[0], dst=framework, settings=case.settings) as made:
        assert {tensor.name for tensor, _ in made.steps} == found.parameters.keys()
        for tensor, moves in made.steps:
            truth = apply(moves, tensor.shape, lambda name: case.arrays[f"train/grad/{name}.f64"])
            assert relative_error(truth, found.parameters[tensor.name]) <= 1e-10, tensor.name


# --- the one resize

SIZES = [((8, 8), (4, 4)), ((10, 14), (8, 8)), ((3, 4), (7, 5)), ((5, 7), (6, 8)), ((1, 3), (2, 2)), ((13, 2), (1, 31))]


@pytest.mark.parametrize("sizes", SIZES, ids=str)
def test_bicubic_matrices_are_torchs_resize(sizes):
    needs("torch")
    import torch.nn.functional as F
    from torch import from_numpy

    source, target = sizes
    x = np.random.default_rng(0).standard_normal((2, 3, *source))
    truth = F.interpolate(from_numpy(x), target, mode="bicubic", align_corners=False).numpy()
    rows, columns = (bicubic_matrix(*sides) for sides in zip(target, source, strict=True))
    assert relative_error(truth, rows @ x @ columns.T) <= 1e-13  # the same products, in another order
    assert np.allclose(rows.sum(1), 1, atol=1e-14)


@pytest.mark.parametrize("framework", FRAMEWORKS)
@pytest.mark.parametrize("sizes", SIZES, ids=str)
def test_resize_in_every_framework(sizes, framework):
    port = tiny("raft_mlp", "L", framework)
    source, target = sizes
    x = np.random.default_rng(0).standard_normal((2, *source, 3))
    given = port.runner.inward(x.transpose(0, 3, 1, 2)) if framework == "flax" else port.runner.tensor(x)
    found = importlib.import_module(f"ports.{framework}.layers").resize(given, target)
    rows, columns = (bicubic_matrix(*sides) for sides in zip(target, source, strict=True))
    assert relative_error(np.einsum("Hh,bhwc,Ww->bHWc", rows, x, columns), np.asarray(found)) <= 1e-13


@pytest.mark.parametrize("pair", list(itertools.combinations(FRAMEWORKS, 2)), ids="-".join)
@pytest.mark.parametrize("size", [(1, 2), (23, 9)], ids=str)
def test_images_off_the_native_grid(size, pair):
    left, right = (tiny("raft_mlp", "shortcut, headless", framework) for framework in pair)
    x = np.random.default_rng(0).standard_normal((2, 3, *size))
    ours, theirs = left.taps(x), right.taps(x)
    assert list(ours) == list(theirs)
    assert {tap: e for tap in ours if not (e := relative_error(ours[tap], theirs[tap])) <= 1e-10} == {}


# --- windows of the multi-scale embedding


@pytest.mark.parametrize("framework", FRAMEWORKS)
@pytest.mark.parametrize("number", range(3))
def test_one_convolution_is_the_dense_layer_over_all_windows(number, framework):
    """Unfolded as upstream does it: windows of each size, in the order listed, side by side, features (c kh kw)."""
    port, tap = tiny("raft_mlp", "rafts", framework), f"levels.{number}.multi_scale_embed"
    level = port.config.levels[number]
    images = np.random.default_rng(0).standard_normal((2, *port.spec.input_shape(port.config)))
    x, y = tap_inputs(port, images)[tap], port.taps(images)[tap]  # (b h w c)
    features = np.concatenate([unfolded(x, k, level.patch, (k - level.patch) // 2) for k in level.kernels], -1)
    held = {n.replace("/", ".").replace("levels_", "levels."): v for n, v in port.state().items()}
    kernel, bias = (next(v for n, v in held.items() if tap in n and n.endswith(leaf))
                    for leaf in (("kernel", "weight"), "bias"))  # fmt: skip
    assert relative_error(features @ (kernel.T if framework == "torch" else kernel) + bias, y) <= 1e-12


def unfolded(x, k, stride, pad):
    """Windows of an image (b h w c) as features (b h' w' (c kh kw))."""
    padded = np.pad(x, [(0, 0), (pad, pad), (pad, pad), (0, 0)])
    windows = np.lib.stride_tricks.sliding_window_view(padded, (k, k), (1, 2))[:, ::stride, ::stride]
    return rearrange(windows, "b h w c k l -> b h w (c k l)")


def test_windows_moved_by_one_pixel_would_make_a_token_of_each_corner():
    """The tutorial's 57 x 57 = 3249 tokens from 56 x 56 pixels and kernels 4 and 8; the network has 14 x 14."""
    x = np.zeros((1, 56, 56, 48))
    assert [unfolded(x, k, 1, k // 2).shape[1:] for k in (4, 8)] == [(57, 57, 768), (57, 57, 3072)]
    assert [unfolded(x, k, 4, (k - 4) // 2).shape[1:] for k in (4, 8)] == [(14, 14, 768), (14, 14, 3072)]


@pytest.mark.parametrize(("kernels", "patch"), [((4, 6), 4), ((3, 6), 3), ((8, 4), 4), ((8, 4), 8), ((4, 8), 2)])
def test_windows_that_do_not_fit_the_patch_are_refused(kernels, patch):
    with pytest.raises(ValueError, match="kernel"):
        dataclasses.replace(TINY["S"], kernels=(kernels, (2,), (2,), (2,)), patches=(patch, 2, 2, 2))


# --- the raft


def test_norms_of_a_raft_are_interleaved_in_upstreams_files():
    """Stored for channel o * raft + g what is ours at g * (width / raft) + o; the channel mixing's own is not."""
    case = CASES[0]
    with plan(case.files[0], dst="torch", settings=case.settings) as made:
        ours, sources = dict(made.arrays()), {t.name: moves[0].source for t, moves in made.steps}
        theirs = {name: made.reader.read(sources[name]) for name in ours if name.endswith("norm.weight")}
    for name, raw in theirs.items():
        values = np.frombuffer(bytes(raw), np.float32)
        raft = case.settings["rafts"][int(name.split(".")[1])] if "vertical" in name or "horizontal" in name else 1
        assert np.array_equal(ours[name], values.reshape(-1, raft).T.ravel()), name


def _block(model):
    return model.levels[2].blocks[0]


def _patched(module, forward):
    module.forward = forward.__get__(module)


FAULTS = {
    "a raft's norm in file order": lambda m: put(_block(m).vertical.norm.weight, lambda w: w.view(4, 8).T.reshape(-1)),
    "a raft's groups as the fast axis": lambda m: setattr(_block(m).vertical, "rafts", "b (h g) (w o)"),
    "vertical for horizontal": lambda m: setattr(_block(m).vertical, "rafts", "b (g w) (h o)"),
    "windows in another order": lambda m: put(
        m.levels[0].multi_scale_embed.weight, lambda w: w.roll(3 * 16, 1)),
    "windows transposed": lambda m: put(
        m.levels[3].multi_scale_embed.weight, lambda w: w.view(-1, 32, 2, 2).mT.reshape(w.shape)),
    "the block's input added, not the vertical output": lambda m: _patched(
        _block(m), lambda self, x: self.channel(self.horizontal(y := self.vertical(x)) - y + x)),
    "epsilon 1e-6": lambda m: setattr(_block(m).channel.norm, "eps", 1e-6),
    "the tanh GELU": lambda m: setattr(_block(m).horizontal.act, "approximate", "tanh"),
}  # fmt: skip


@pytest.mark.parametrize("fault", FAULTS)
def test_a_planted_fault_is_caught(fault):
    """No shape tells any of these, and an epsilon moves the logits by 2e-6."""
    needs("torch")
    case = CASES[0]
    port = load(case, "torch")
    assert relative_error(case.logits, port(case.images)) <= 1e-13
    FAULTS[fault](port.model)
    assert relative_error(case.logits, port(case.images)) > 1e-9


# --- training

SMALL = Config(depths=(1,), widths=(6,), patches=(2,), rafts=(3,), kernels=((),), image=(4, 6), classes=5)


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_drop_path_and_dropout_in_training_alone(framework):
    """With every branch dropped, no block learns: all three branches of a block are under drop-path."""
    needs(framework)
    x = np.random.default_rng(0).standard_normal((2, 3, 4, 6))
    plain, dropped, noisy = (
        ports.build("raft_mlp", SMALL, framework, 1, "random", "float64", **rates)
        for rates in ({}, {"drop_path": 1 - 1e-9}, {"dropout": 0.5})
    )
    assert np.array_equal(dropped(x), plain(x))
    assert np.array_equal(noisy(x), plain(x))
    moved = {name: np.abs(array).max() > 0 for name, array in dropped.gradients(x).parameters.items()}
    assert moved == {name: "blocks" not in name for name in moved}
    assert abs(noisy.gradients(x).loss - np.mean(plain(x) ** 2)) > 1e-9


# --- what a file tells


def test_what_shapes_do_not_tell_is_asked_for():
    with pytest.raises(UsageError) as error:
        plan(CASES[0].files[0])
    assert all(f"{name} is open" in str(error.value) for name in ("patches", "rafts", "kernels", "image"))
    with pytest.raises(UsageError) as error:
        plan(CASES[2].files[0])  # plain patches: there are no windows to ask for
    assert "rafts is open" in str(error.value)
    assert "kernels is open" not in str(error.value)


def test_a_wrong_raft_is_refused_and_a_wrong_window_too():
    case = CASES[0]
    for wrong, name in (
        ({"rafts": (4, 2, 4, 3)}, r"fn\.2\.1\.fn\.0"),
        ({"kernels": ((4,), (2, 4), (2, 4), (2,))}, "fn.0.fc"),
    ):
        with pytest.raises(ConvertError, match=rf"levels\.0\.{name}.* has shape"):
            plan(case.files[0], settings={**case.settings, **wrong})


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_variant_is_known_by_its_shapes(variant, tmp_path):
    config = dataclasses.replace(VARIANTS[variant], classes=10)
    with plan(hollow(tmp_path / "weights.safetensors", _official(config))) as made:
        assert (made.src, made.variant, made.config) == ("official", variant, config)


def _official(config):
    """Yield the tensors of an official checkpoint."""
    for parameter in parameters(list(layers(config))):
        held = place(parameter, DIALECTS["official"], config)
        yield Tensor(held.name, held.shape, "float32")


def test_infer_reads_back_every_tiny_twin():
    for config in TINY.values():
        held = {p.name: dict(zip(p.axes, p.shape, strict=True))
                for p in parameters(list(layers(config)))}  # fmt: skip
        told = infer(Sizes(held))
        assert dataclasses.replace(config, **told) == config
        assert ("kernels" in told) == (not any(config.kernels))

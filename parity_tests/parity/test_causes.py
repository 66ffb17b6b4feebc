"""Guesses: never a crash, never hours of work, and the plainest words for what is found."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest

from parity.causes import hypotheses
from parity.causes.guessing import guess
from parity.judging.judge import Subject, judge
from parity.running.recording import Recording
from parity.summaries import findings
from parity.summaries.summary import verdict
from ports.runners.records import Tap

RNG = np.random.default_rng(0)
IMAGES = RNG.standard_normal((2, 3, 7, 6))
KERNEL, BIAS = RNG.standard_normal((3, 3, 3, 3)), RNG.standard_normal(3)


def recording(label: str, output: np.ndarray, images: np.ndarray = IMAGES, kernel: np.ndarray = KERNEL) -> Recording:
    """Of one convolution "stem"."""
    made = Recording(label, "torch", "float64", "cpu", {"stem": output}, [Tap("stem", (images,), (output,))])
    made.weights, made.kinds = {"stem.kernel": kernel, "stem.bias": BIAS[: len(kernel)]}, {"stem": "conv"}
    return made


def padded(p: int) -> np.ndarray:
    return hypotheses.convolve(IMAGES, KERNEL, (1, 1), (p, p, p, p)) + BIAS[:, None, None]


@pytest.mark.parametrize("shape", [(2, 3, 9, 8), (2, 3, 3, 2), (2, 5)])
def test_an_output_of_an_odd_shape_is_no_crash(shape: tuple[int, ...]) -> None:
    assert guess("stem", "layers", recording("a", padded(0)), recording("b", RNG.standard_normal(shape))) == ""


@pytest.mark.parametrize("p", [1, 2])
def test_a_padding_has_its_plainest_name(p: int) -> None:
    """The padding of a 3x3 kernel by 1 is also SAME, and SAME with its odd pixel anywhere: nothing is odd."""
    told = guess("stem", "layers", recording("a", padded(0)), recording("b", padded(p)))
    assert f"stride 1x1, no padding in a, stride 1x1, padding {p} in b" in told


@pytest.mark.parametrize("size", [6, 8, 10])
def test_same_padding_with_a_stride_is_named_at_every_size(size: int) -> None:
    """It pads (0, 1) at even sizes. Padding 1 reads what SAME with a low odd pixel does, at every size."""
    x = RNG.standard_normal((2, 3, size, size))
    same, half = (
        hypotheses.convolve(x, KERNEL, (2, 2), pads) + BIAS[:, None, None] for pads in ((0, 1, 0, 1), (1, 1, 1, 1))
    )
    told = guess("stem", "layers", recording("a", half, x), recording("b", same, x))
    assert told.cause == "stride 2x2, padding 1 in a, stride 2x2, SAME padding in b"


def test_a_padding_that_two_rules_give_at_this_size_alone_has_both_names() -> None:
    x = RNG.standard_normal((2, 3, 7, 7))
    half, none = (hypotheses.convolve(x, KERNEL, (2, 2), (p, p, p, p)) + BIAS[:, None, None] for p in (1, 0))
    told = guess("stem", "layers", recording("a", half, x), recording("b", none, x))
    assert told.cause == "stride 2x2, padding 1 or SAME padding in a, stride 2x2, no padding in b"
    without = recording("b", half - BIAS[:, None, None], x)  # what both have is no difference
    assert guess("stem", "layers", recording("a", half, x), without).cause.endswith("padding 1, no bias in b")


def test_a_bias_of_zeros_is_no_missing_bias() -> None:
    """One element of the other model's bias is not 0."""
    x, kernel = RNG.standard_normal((5, 4)), RNG.standard_normal((4, 3))
    sides = []
    for label, bias in (("a", np.zeros(3)), ("b", np.array([0.0, 1e-3, 0.0]))):
        out = x @ kernel + bias
        made = Recording(label, "torch", "float64", "cpu", {"fc": out}, [Tap("fc", (x,), (out,))])
        made.weights, made.kinds = {"fc.kernel": kernel, "fc.bias": bias}, {"fc": "dense"}
        sides.append(made)
    assert guess("fc", "layers", *sides).cause == "a bias of zeros in a, the bias in b"
    del sides[0].weights["fc.bias"]
    assert guess("fc", "layers", *sides).cause == "no bias in a, the bias in b"


def test_a_patch_embedding_costs_no_more_than_a_few_convolutions(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the hypotheses, only those of the right shape are computed: four pairs of stride and padding."""
    images, kernel = RNG.standard_normal((1, 3, 32, 32)), RNG.standard_normal((3, 3, 16, 16))
    output = hypotheses.convolve(images, kernel, (16, 16), (0, 0, 0, 0)) + BIAS[:, None, None]
    calls, original = [], hypotheses.convolve

    def counted(*args: object) -> np.ndarray:
        calls.append(args)
        return original(*args)  # type: ignore[arg-type]

    monkeypatch.setattr(hypotheses, "convolve", counted)
    left = recording("a", output, images, kernel)
    right = recording("b", output - BIAS[:, None, None], images, kernel)
    assert "no padding, no bias in b" in guess("stem", "layers", left, right)
    assert len(calls) == 2 * 4 * 4  # both sides, padding 0 to 3, four ways to read the kernel
    calls.clear()
    monkeypatch.setattr(hypotheses, "WORK", 3 * output.size * 3 * 16 * 16)
    guess("stem", "layers", left, right)
    assert len(calls) == 2 * 3  # what is allowed, a side


def test_a_convolution_is_what_torch_computes() -> None:
    torch = pytest.importorskip("torch", reason="torch is not installed")
    x, kernel = RNG.standard_normal((2, 4, 9, 8)), RNG.standard_normal((6, 2, 3, 2))
    theirs = torch.nn.functional.conv2d(torch.from_numpy(x), torch.from_numpy(kernel), None, (2, 1), (1, 2), groups=2)
    ours = hypotheses.convolve(x, kernel, (2, 1), (1, 1, 2, 2))
    np.testing.assert_allclose(ours, theirs.numpy(), rtol=0, atol=1e-13)  # sums of 12 terms of about 1


def test_one_number_is_no_multiple_of_another() -> None:
    a, b = (
        Recording(
            label, "torch", "float64", "cpu", {"loss": np.asarray(x), "w": x * np.arange(3.0), "one": np.eye(2)[:1]}
        )
        for label, x in (("a", 1.0), ("b", 0.7))
    )
    b.arrays["one"] = 0.7 * b.arrays["one"]
    assert guess("loss", "gradients", a, b) == ""
    assert guess("one", "gradients", a, b) == ""
    assert "every value of b is 0.7 times that of a" in guess("w", "gradients", a, b)


def normed(epsilon: float, dtype: str = "float64", scale: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    """(input, output) of a LayerNorm."""
    x = (scale * np.random.default_rng(1).standard_normal((4, 16))).astype(dtype)
    centred = x - x.mean(-1, keepdims=True, dtype="float64")
    return x, (centred / np.sqrt(x.var(-1, keepdims=True, dtype="float64") + epsilon)).astype(dtype)


def layer_norm(label: str, x: np.ndarray, out: np.ndarray) -> Recording:
    made = Recording(label, "torch", str(x.dtype), "cpu", {"norm": out}, [Tap("norm", (x,), (out,))])
    made.weights, made.kinds = {"norm.scale": np.ones(16), "norm.bias": np.zeros(16)}, {"norm": "norm"}
    return made


def test_rounding_is_no_other_order() -> None:
    """A norm computed in float32 rounds its output: its sorted values agree, and so do they in place."""
    x, out = normed(1e-5)
    rough = out.astype(np.float32).astype(np.float64)
    left, right = layer_norm("a", x, out), layer_norm("b", x, rough)
    left.dtype = right.dtype = "float32"
    assert guess("norm", "layers", left, right) == ""
    swapped = layer_norm("b", x, out[::-1])
    assert guess("norm", "layers", left, swapped).startswith(
        "another order, as of a flatten or a concatenation: its output holds the same 64"
    )


def test_the_order_of_a_concatenation_is_no_flatten_order() -> None:
    x, out = normed(1e-5)
    joined = layer_norm("b", x, np.concatenate([out[:, 6:], out[:, :6]], 1))
    text = (
        "order of a concatenation: its output holds the same 64 values, "
        "in b those of a with the first 6 of 16 along axis 1 last"
    )
    assert guess("norm", "layers", layer_norm("a", x, out), joined) == text
    mixed = layer_norm("b", x, out[:, np.random.default_rng(3).permutation(16)])
    assert guess("norm", "layers", layer_norm("a", x, out), mixed).startswith("another order, as of a flatten")


def test_an_epsilon_that_the_dtype_cannot_tell_is_not_told() -> None:
    """In float32 an epsilon of 1e-5 is its own rounding, and 1e-8, 1e-12 and 0 are one."""
    left, right = (layer_norm(label, *normed(eps, "float32")) for label, eps in (("a", 1e-5), ("b", 1e-12)))
    told = guess("norm", "layers", left, right)
    assert told.startswith("epsilon is 1e-5 in a, ")
    assert all(re.search(rf"\b{name}\b", told) for name in ("1e-8", "1e-12", "0"))
    assert "float32(" not in told
    assert guess("norm", "layers", left, layer_norm("b", *normed(float(np.float32(1e-5)), "float32"))) == ""


@pytest.mark.parametrize(("epsilon", "dtype", "name"), [
    (1e-4, "float64", "1e-4"), (1e-7, "float64", "1e-7"), (3.5e-6, "float64", "3.5e-6"), (1e-4, "float32", "1e-4"),
    (float(np.float32(2e-3)), "float64", "float32(2e-3)"),
])  # fmt: skip
def test_an_epsilon_that_is_not_usual_is_solved_for(epsilon: float, dtype: str, name: str) -> None:
    left, right = (layer_norm(label, *normed(eps, dtype)) for label, eps in (("a", 1e-5), ("b", epsilon)))
    assert guess("norm", "layers", left, right).startswith(f"epsilon is 1e-5 in a, {name} in b")


def test_an_epsilon_of_other_norms_is_solved_for() -> None:
    """Of a batch norm and an RMSNorm, with scales and biases; noise is named as no epsilon."""
    x, scale, bias, mean = (RNG.standard_normal(shape) for shape in ((3, 4, 2, 2), 4, 4, 4))
    wide, var = (slice(None), None, None), np.arange(1.0, 5.0)
    for kind, arrays, compute in (
        ("batch_norm", {"scale": scale, "bias": bias, "mean": mean, "var": var},
         lambda e: (x - mean[wide]) / np.sqrt(var[wide] + e) * scale[wide] + bias[wide]),
        ("rms_norm", {"scale": scale[:2]}, lambda e: x / np.sqrt((x * x).mean(-1, keepdims=True) + e) * scale[:2]),
    ):  # fmt: skip
        sides = []
        for label, epsilon in (("a", 1e-5), ("b", 1e-4)):
            made = layer_norm(label, x, compute(epsilon))
            made.weights, made.kinds = {f"norm.{leaf}": array for leaf, array in arrays.items()}, {"norm": kind}
            sides.append(made)
        assert guess("norm", "layers", *sides).startswith("epsilon is 1e-5 in a, 1e-4 in b"), kind
    noisy = RNG.standard_normal((4, 16))
    assert guess("norm", "layers", layer_norm("a", *normed(1e-5)), layer_norm("b", normed(1e-5)[0], noisy)) == ""


@pytest.mark.parametrize("layout", ["whole", "half", "tokens"])
def test_an_activation_is_named_also_where_a_gate_or_a_reshape_follows(layout: str) -> None:
    """A norm reads all of a dense layer's activated output, the second half of it, or pixels as tokens."""
    x = RNG.standard_normal((2, 8, 3, 4) if layout == "tokens" else (2, 12, 8))
    read = {
        "whole": lambda y: y,
        "half": lambda y: y[..., 4:],
        "tokens": lambda y: y.reshape(2, 8, 12).swapaxes(1, 2),
    }[layout]
    sides = []
    for label, name in (("a", "GELU by the error function"), ("b", "GELU by tanh")):
        activated = read(hypotheses.ACTIVATIONS[name](x))
        taps = [Tap("fc", (x,), (x,)), Tap("norm", (activated,), (activated,))]
        sides.append(Recording(label, "torch", "float64", "cpu", {"fc": x, "norm": activated}, taps))
    told = guess("norm", "layers", *sides)
    cause = "GELU by the error function in a, GELU by tanh in b, after fc"
    assert told == f"{cause} (recomputing both reproduces their outputs exactly)"


def test_a_place_is_no_cause() -> None:
    """What was not recomputed is not what it looks like: the report states the place under a label of its own."""
    x = RNG.standard_normal((2, 8))
    a, b = (
        Recording(
            label, "torch", "float64", "cpu", {"fc": x, "norm": y}, [Tap("fc", (x,), (x,)), Tap("norm", (y,), (y,))]
        )
        for label, y in (("a", np.cos(x)), ("b", np.sin(x)))
    )
    assert guess("norm", "layers", a, b) == ""
    (result,) = judge(Subject("own", "own", "layers", "float64", "cpu"), [a, b])
    facts = dict(findings.facts(findings.find([result])[0]))
    assert facts["cause lies"] == "after fc and ahead of norm, whose input differs already"
    assert "looks like" not in facts


DENSE, X = RNG.standard_normal((3, 3)), RNG.standard_normal((4, 3))


@pytest.mark.parametrize(("bias", "left", "right", "told"), [
    (None, X @ DENSE, X @ DENSE.T, "the kernel as (in, out) in a, the kernel transposed in b"),
    (BIAS, X @ DENSE + BIAS, X @ DENSE.T + BIAS, "the kernel as (in, out) in a, the kernel transposed in b"),
    (BIAS, X @ DENSE + BIAS, X @ DENSE, "the bias in a, no bias in b"),
])  # fmt: skip
def test_a_bias_is_named_only_where_a_layer_has_one(
    bias: np.ndarray | None, left: np.ndarray, right: np.ndarray, told: str
) -> None:
    sides = []
    for label, output in (("a", left), ("b", right)):
        made = Recording(label, "torch", "float64", "cpu", {"fc": output}, [Tap("fc", (X,), (output,))])
        made.weights, made.kinds = {"fc.kernel": DENSE} | ({} if bias is None else {"fc.bias": bias}), {"fc": "dense"}
        sides.append(made)
    assert guess("fc", "layers", *sides).startswith(f"{told} (recomputing both")


@pytest.mark.parametrize("moved", [0.0, 1e-17, 1e-3])
def test_an_activation_ahead_of_a_layer_comes_before_its_weights(moved: float) -> None:
    """Though its bias differs too: by rounding, or as another training's does."""
    sides = []
    for label, name in (("a", "GELU by the error function"), ("b", "GELU by tanh")):
        hidden = hypotheses.ACTIVATIONS[name](X)
        bias = np.full(DENSE.shape[1], moved * (label == "b"))
        out = hidden @ DENSE + bias
        taps = [Tap("fc", (X,), (X,)), Tap("last", (hidden,), (out,))]
        made = Recording(label, "torch", "float64", "cpu", {"fc": X, "last": out}, taps, architecture="mlp_mixer")
        made.weights, made.kinds = {"last.kernel": DENSE, "last.bias": bias}, {"last": "dense"}
        sides.append(made)
    results = judge(Subject("mlp_mixer", "tiny", "layers", "float64", "cpu"), sides)
    facts = dict(findings.facts(findings.find(results)[0]))
    assert "first at `last`: GELU by the error function in a, GELU by tanh in b" in verdict(results)
    assert facts["next"] == "use the same activation in both models, and compare again"
    assert ("weights" in facts) is (moved > 1e-9)


GAMMA = RNG.standard_normal(3)
SQUARES = "the mean of squares"


@pytest.mark.parametrize(("whole", "how"), [
    (lambda x, y: x + GAMMA * (y - x), "multiplied by it ahead of the residual"),
    (lambda x, y: GAMMA * y, "multiplied by it"),
    (lambda x, y: y + GAMMA, "with it added"),
])  # fmt: skip
@pytest.mark.parametrize("channels", [1, -1])
@pytest.mark.parametrize("lacking", ["a", "b"])
def test_an_array_that_one_side_leaves_out_is_named(whole: Any, how: str, channels: int, lacking: str) -> None:
    x, y = RNG.standard_normal((2, 2, 4, 5, 3))
    sides = []
    for label in ("a", "b"):
        out, image = (np.moveaxis(array, -1, channels) for array in (y if label == lacking else whole(x, y), x))
        made = Recording(label, "torch", "float64", "cpu", {"block": out}, [Tap("block", (image,), (out,))])
        made.weights, made.kinds = (
            {"block.gamma": GAMMA, "gamma": GAMMA},
            dict.fromkeys(["block.gamma", "gamma"], "array"),
        )
        sides.append(made)
    other = "ab".replace(lacking, "")
    told = guess("block", "layers", *sides)
    assert told.startswith(f"{lacking} leaves out block.gamma ({how}, its output is that of {other}, to "), told


@pytest.mark.parametrize(("more", "less"), ["ab", "ba"])
def test_the_side_that_adds_a_residual_once_more_is_named(more: str, less: str) -> None:
    x, y = RNG.standard_normal((2, 4, 3))
    sides = []
    for label in "ab":
        out = x + y if label == more else y
        sides.append(Recording(label, "torch", "float64", "cpu", {"block": out}, [Tap("block", (x,), (out,))]))
    assert guess("block", "layers", *sides).startswith(f"a residual that {more} adds once more than {less} (")


def returning(label: str, x: np.ndarray, y: np.ndarray, end: np.ndarray, names: str = "pq") -> Recording:
    """Of two modules p and q, the second of which reads what the first one returns, and of what the model returns."""
    taps = [Tap(names[0], (x,), (x + 1,)), Tap(names[1], (x + 1,), (y,)), Tap("output", (x,), (end,))]
    return Recording(label, "torch", "float64", "cpu", {tap.name: tap.outputs[0] for tap in taps}, taps)


@pytest.mark.parametrize(("change", "cause"), [
    (lambda x, y: np.maximum(y, 0), "no activation in a, ReLU in b, after q"),
    (lambda x, y: hypotheses.softmax(y), "no activation in a, softmax over the last axis in b, after q"),
    (lambda x, y: y + x + 1, "a residual that b adds once more than a"),
    (lambda x, y: 0.5 * y, "every value of b is 0.5 times that of a"),
    (lambda x, y: y.swapaxes(1, 2),
     "another order: it holds the same 64 values, in b those of a with axes in the order 0, 2, 1"),
])  # fmt: skip
def test_what_is_done_to_the_last_layer_before_it_is_returned_is_named(change: Any, cause: str) -> None:
    x, y = RNG.standard_normal((2, 4, 4, 4))
    sides = returning("a", x, y, y), returning("b", x, y, change(x, y))
    (result,) = judge(Subject("own", "own", "layers", "float64", "cpu"), sides)
    first = result.first_divergence
    assert first == "output" and first.guess.cause == cause
    assert f"first at `output`: {cause.removesuffix(', after q')} (own" in verdict([result])


def test_an_unknown_change_of_what_a_model_returns_lies_after_its_last_layer() -> None:
    x, y = RNG.standard_normal((2, 4, 4))
    sides = returning("a", x, y, y), returning("b", x, y, y + np.cos(y))
    (result,) = judge(Subject("own", "own", "layers", "float64", "cpu"), sides)
    rows = dict(findings.facts(findings.find([result])[0]))
    assert rows["cause lies"] == "after q, in what the models return" and "looks like" not in rows
    assert rows["next"] == "look at what is done to the output of q before it is returned"


@pytest.mark.parametrize(("more", "less"), ["ab", "ba"])
def test_a_residual_ahead_of_a_layer_is_named(more: str, less: str) -> None:
    x, y, end = RNG.standard_normal((3, 4, 4))
    sides = []
    for label in "ab":
        made = returning(label, x, y, end)
        read = y + x + 1 if label == more else y
        made.taps.insert(2, Tap("head", (read,), (np.tanh(read),)))
        made.arrays = {tap.name: tap.outputs[0] for tap in made.taps}
        sides.append(made)
    told = guess("head", "layers", *sides)
    assert told.cause == f"a residual that {more} adds once more than {less}"
    assert told.evidence == "what head gets differs by exactly the input of module q"


def grouped(x: np.ndarray, groups: int, epsilon: float) -> np.ndarray:
    """Compute a GroupNorm without scale and bias; of one channel in a group it is an InstanceNorm."""
    split = x.reshape(len(x), groups, -1)
    return ((split - split.mean(-1, keepdims=True)) / np.sqrt(split.var(-1, keepdims=True) + epsilon)).reshape(x.shape)


@pytest.mark.parametrize(("kind", "leaf", "shape", "one", "other", "cause"), [
    ("group_norm", "scale", (4,), (2, 1e-5), (2, 1e-3), "epsilon is 1e-5 in a, 1e-3 in b"),
    ("group_norm", "scale", (4,), (1, 1e-5), (2, 1e-5), "1 group in a, 2 groups in b"),
    ("", "weight", (4,), (4, 1e-5), (4, 1e-3), "epsilon is 1e-5 in a, 1e-3 in b"),
    ("", "weight", (4, 3, 2), (1, 1e-5), (1, 1e-6), "epsilon is 1e-5 in a, 1e-6 in b"),
], ids=["epsilon of a group norm", "groups", "instance norm", "three axes"])  # fmt: skip
def test_epsilon_and_groups_of_norms_over_several_axes_are_named(
    kind: str, leaf: str, shape: tuple[int, ...], one: tuple[int, float], other: tuple[int, float], cause: str
) -> None:
    x, scale = RNG.standard_normal((2, 4, 3, 2)), RNG.standard_normal(shape)
    sides = []
    for label, (groups, epsilon) in (("a", one), ("b", other)):
        out = grouped(x, groups, epsilon) * (scale if scale.ndim > 1 else scale[:, None, None])
        made = Recording(label, "torch", "float64", "cpu", {"norm": out}, [Tap("norm", (x,), (out,))])
        made.weights, made.kinds = {f"norm.{leaf}": scale}, {"norm": kind} if kind else {}
        sides.append(made)
    assert guess("norm", "layers", *sides).cause == cause


@pytest.mark.parametrize(("one", "other", "cause"), [
    ((1e-5, False, 0), (3e-4, False, 0), "epsilon is 1e-5 in a, 3e-4 in b"),
    ((1e-5, False, 1), (3e-4, False, 1), "epsilon is 1e-5 in a, 3e-4 in b"),
    ((1e-5, False, 0), (1e-5, True, 0), f"{SQUARES} in a, a biased variance in b"),
    ((1e-5, False, 0), (1e-5, False, 1), f"{SQUARES} in a, {SQUARES}, its scale as what is added to 1 in b"),
], ids=["epsilon", "epsilon of a scale beside 1", "LayerNorm", "scale beside 1"])  # fmt: skip
def test_an_rms_norm_of_ones_own_is_recomputed(
    one: tuple[float, bool, int], other: tuple[float, bool, int], cause: str
) -> None:
    x, scale, sides = RNG.standard_normal((5, 4)), RNG.standard_normal(4), []
    for label, (epsilon, centred, plus) in (("a", one), ("b", other)):
        y = x - centred * x.mean(-1, keepdims=True)
        out = y / np.sqrt((y * y).mean(-1, keepdims=True) + epsilon) * (plus + scale)
        made = Recording(label, "torch", "float64", "cpu", {"norm": out}, [Tap("norm", (x,), (out,))])
        made.weights = {"norm.weight": scale}
        sides.append(made)
    assert guess("norm", "layers", *sides).cause == cause


def test_a_norm_over_the_channels_of_images_is_recomputed() -> None:
    x = RNG.standard_normal((2, 3, 4, 5))
    sides = []
    for label, epsilon in (("a", 1e-6), ("b", 1e-4)):
        out = (x - x.mean(1, keepdims=True)) / np.sqrt(x.var(1, keepdims=True) + epsilon) * GAMMA[:, None, None]
        made = Recording(label, "torch", "float64", "cpu", {"norm": out}, [Tap("norm", (x,), (out,))])
        made.weights, made.kinds = {"norm.scale": GAMMA}, {"norm": "norm"}
        sides.append(made)
    assert guess("norm", "layers", *sides).startswith("epsilon is 1e-6 in a, 1e-4 in b (recomputing both")


@pytest.mark.parametrize("agree", [True, False])
def test_images_in_two_layouts_are_no_difference_of_models_whose_outputs_agree(agree: bool) -> None:
    image, logits = RNG.standard_normal((2, 4, 4, 4)), RNG.standard_normal((2, 5))
    sides = []
    for framework, out, last in (("flax", image, logits), ("torch", np.moveaxis(image, -1, 1), logits * (2 - agree))):
        arrays = {"stages.0.norm": out, "output": last}
        taps = [Tap(name, (array,), (array,)) for name, array in arrays.items()]
        sides.append(Recording(framework, framework, "float64", "cpu", arrays, taps, architecture="mlp_mixer"))
    (result,) = judge(Subject("mlp_mixer", "tiny", "layers", "float64", "cpu"), sides)
    facts = dict(findings.facts(findings.find([result])[0]))
    layouts = "the same images with channels last in flax and second in torch"
    assert (layouts in facts.get("looks like", "")) is agree
    if agree:
        assert facts["looks like"] == f"{layouts}: feature_maps of the page lacks 'stages.#.norm'"
        assert facts["next"] == "list these modules in feature_maps of the page: the models agree"

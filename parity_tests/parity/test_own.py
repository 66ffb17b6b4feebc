"""Models of no known architecture: a user's torch module, linen module and paddle layer."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import parity
from convert.errors import UsageError
from ports.runners.torch import Runner

torch = pytest.importorskip("torch", reason="torch is not installed")
paddle = pytest.importorskip("paddle", reason="paddle is not installed")
nn = pytest.importorskip("flax.linen", reason="flax is not installed")

RNG = np.random.default_rng(0)
KERNEL, BIAS = RNG.standard_normal((5, 3, 3, 3)), RNG.standard_normal(5)
SCALE, SHIFT, HEAD = RNG.uniform(0.5, 1.5, 5), RNG.standard_normal(5), RNG.standard_normal((5, 4))
IMAGES = RNG.standard_normal((2, 3, 7, 6))


class Torch(torch.nn.Module):
    def __init__(self, eps: float = 1e-6) -> None:
        super().__init__()
        self.conv = torch.nn.Conv2d(3, 5, 3)
        self.norm = torch.nn.LayerNorm(5, eps=eps)
        self.act = torch.nn.GELU()
        self.head = torch.nn.Linear(5, 4, bias=False)

    def forward(self, x: Any) -> Any:
        return self.head(self.act(self.norm(self.conv(x).flatten(2).mT)).mean(1))


class Paddle(paddle.nn.Layer):
    def __init__(self) -> None:
        super().__init__()
        self.conv = paddle.nn.Conv2D(3, 5, 3)
        self.norm = paddle.nn.LayerNorm(5, epsilon=1e-6)
        self.act = paddle.nn.GELU()
        self.head = paddle.nn.Linear(5, 4, bias_attr=False)

    def forward(self, x: Any) -> Any:
        return self.head(self.act(self.norm(self.conv(x).flatten(2).transpose([0, 2, 1]))).mean(1))


class Linen(nn.Module):
    approximate: bool = False

    @nn.compact
    def __call__(self, x: Any, deterministic: bool = True) -> Any:
        x = nn.Conv(5, (3, 3), padding="VALID", name="stem")(x)
        x = nn.LayerNorm(use_fast_variance=False, name="norm")(x.reshape(len(x), -1, 5))
        return nn.Dense(4, use_bias=False, name="head")(nn.gelu(x, approximate=self.approximate).mean(1))


NAMES = {"linen": {"stem": "conv", "norm": "norm", "head": "head"}}


def torch_model(**kwargs: Any) -> Any:
    made = Torch(**kwargs).double()
    state = {"conv.weight": KERNEL, "conv.bias": BIAS, "norm.weight": SCALE, "norm.bias": SHIFT, "head.weight": HEAD.T}
    made.load_state_dict({name: torch.from_numpy(array.copy()) for name, array in state.items()})
    return made


def paddle_model() -> Any:
    made = Paddle()
    made.to(dtype="float64")
    state = {"conv.weight": KERNEL, "conv.bias": BIAS, "norm.weight": SCALE, "norm.bias": SHIFT, "head.weight": HEAD}
    for name, tensor in made.state_dict().items():
        tensor.set_value(state[name])
    return made


def linen_model(**kwargs: Any) -> Any:
    import jax

    jax.config.update("jax_enable_x64", True)
    params = {
        "stem": {"kernel": KERNEL.transpose(2, 3, 1, 0), "bias": BIAS},
        "norm": {"scale": SCALE, "bias": SHIFT},
        "head": {"kernel": HEAD},
    }
    return Linen(**kwargs), {"params": jax.tree.map(jax.numpy.asarray, params)}


@pytest.mark.parametrize("check", ["forward", "layers", "single-step", "gradients", "train"])
def test_models_of_three_frameworks_agree(check: str) -> None:
    models = {"torch": torch_model(), "paddle": paddle_model(), "linen": linen_model()}
    report = parity.compare(models, IMAGES, check, names=NAMES, steps=2)
    assert report.passed, str(report)
    assert [r.pair for r in report] == ["torch-paddle", "torch-linen", "paddle-linen"]
    if check == "layers":
        assert [name for name, _, _ in report.results[1].curve] == ["conv", "norm", "head", "output"]
    if check == "gradients":
        named = ["loss", "output", "head.kernel", "norm.bias", "norm.scale", "conv.bias", "conv.kernel", "images"]
        assert [name for name, _, _ in report.results[1].curve] == named


def test_the_cause_in_a_users_model_is_named() -> None:
    models = {"torch": torch_model(), "linen": linen_model(approximate=True)}
    first = parity.compare(models, IMAGES, "layers", names=NAMES).first_divergence
    assert first == "head"
    assert first is not None
    assert first.previous is not None
    assert first.previous[0] == "norm"


def test_an_epsilon_in_a_users_model_is_guessed() -> None:
    first = parity.compare({"mine": torch_model(eps=1e-5), "theirs": torch_model()}, IMAGES, "layers").first_divergence
    assert first == "norm"
    assert first is not None
    assert first.guess.startswith(
        "epsilon is 1e-5 in mine, 1e-6 in theirs (recomputing both reproduces their outputs to "
    )


def test_a_bound_linen_module_is_a_model() -> None:
    module, variables = linen_model()
    assert parity.compare({"a": module.bind(variables), "b": torch_model()}, IMAGES).passed


def test_taps_of_one_side_alone_are_listed() -> None:
    report = parity.compare({"torch": torch_model(), "linen": linen_model()}, IMAGES, "layers")
    assert report.passed, str(report)
    assert "in torch: 'conv'; in linen: 'stem'" in report.results[0].cause
    assert [name for name, *_ in report.results[0].curve] == ["norm", "head", "output"]


def test_modules_of_other_names_ahead_of_what_differs_are_compared_by_names() -> None:
    class Net(torch.nn.Module):
        def __init__(self, name: str, scale: float) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.name, self.scale = name, scale
            self.add_module(name, torch.nn.Linear(8, 8))
            self.last = torch.nn.Linear(8, 4)

        def forward(self, x: Any) -> Any:
            return self.last(self.scale * self.get_submodule(self.name)(x))

    x = np.random.default_rng(0).standard_normal((3, 8), dtype="float32")
    text = str(parity.compare({"mine": Net("fc", 1), "other": Net("mid", 2)}, x, check="layers"))
    assert "  between       fc (in mine, no partner); mid (in other, no partner)\n" in text, text
    said = " ".join(text.split())
    assert "next compare the modules in between, too: names={'mine': {'fc': 'mid'}} pairs these two" in said, text
    names = {"mine": {"fc": "mid"}}
    again = str(parity.compare({"mine": Net("fc", 1), "other": Net("mid", 2)}, x, check="layers", names=names))
    assert "names=" not in again and "look at what is done to the output of mid" in " ".join(again.split()), again


def test_lower_precision_is_judged_by_its_noise() -> None:
    models = {"torch": torch_model().float(), "paddle": paddle_model()}
    models["paddle"].to(dtype="float32")
    report = parity.compare(models, IMAGES, "layers")
    assert report.passed, str(report)
    double, result = report
    assert (double.dtype, double.noise) == ("float64", {})
    assert result.dtype == "float32"
    assert max(result.noise["torch"]) < 1e-6


def test_a_call_is_taken_as_inputs() -> None:
    """As `derive` takes it; the number of compared arrays stands in the report."""
    model = torch_model()
    report = parity.compare({"a": model, "b": model}, parity.Call(IMAGES), check="layers", dtype="float64")
    assert report.passed
    arrays = len(report.results[0].curve)
    assert arrays > 1 and f"\n{arrays} pairs of arrays; error nearest to its limit: " in str(report)
    with pytest.raises(UsageError, match=r"takes a parity.Call without method and output"):
        parity.compare({"a": model, "b": model}, parity.Call(IMAGES, output=lambda out: out[0]))
    with pytest.raises(UsageError, match=r"not of object: pass an array, a tuple of them, a dict or parity.Inputs"):
        parity.compare({"a": model, "b": model}, object())


class Scaled(torch.nn.Module):
    def __init__(self, scale_first: bool) -> None:
        super().__init__()
        self.fc, self.scale_first = torch.nn.Linear(5, 3), scale_first

    def forward(self, first: Any, second: Any) -> Any:
        return self.fc(second) * first if self.scale_first else self.fc(first) * second


def test_each_model_may_get_inputs_of_its_own() -> None:
    models = {"one": Scaled(False), "two": Scaled(True)}
    models["two"].load_state_dict(models["one"].state_dict())
    x, scale = RNG.standard_normal((4, 5)).astype("float32"), np.full((4, 1), 2, "float32")
    inputs = {"one": parity.Inputs(x, scale), "two": parity.Call(scale, second=x)}
    report = parity.compare(models, inputs, check="layers")
    assert report.passed and report.about["inputs"].startswith("one: images [4, 5] float32, ")
    for given, check, message in (
        (inputs, "gradients", "gradients pairs the arrays of inputs by their order, which differs for one and two"),
        (
            inputs | {"two": parity.Call(x.T, scale)},
            "gradients",
            r"array 1 of the inputs differs for one and two, \[4, 5\] and \[5, 4\]: wrap one",
        ),
        (inputs | {"two": parity.Call(scale + 1, x + 1)}, "forward", "models are compared on the same values: images"),
        ({"one": inputs["one"], "tow": inputs["two"]}, "forward", "give a parity.Inputs for each of one and two"),
        (inputs | {"two": parity.Call(scale, np.array(["x"]))}, "forward", "two: images:1"),
    ):
        with pytest.raises(UsageError, match=message):
            parity.compare(models, given, check=check)


def test_inputs_that_a_model_does_not_take_are_named_with_the_remedy() -> None:
    models, remedy = {"a": torch_model(), "b": linen_model()}, "or each model its own, as {label: parity.Inputs"
    with pytest.raises(UsageError, match=r"does not fit the inputs \(an array \[2, 3\], a bool\): ") as refused:
        parity.compare(models, (np.ones((2, 3)), True))
    assert refused.value.message.startswith("a: the model takes (x") and remedy in refused.value.message
    with pytest.raises(
        UsageError, match=r"b: .*; it was called with \[2, 9\] float64: if this does not fit, give"
    ) as refused:
        parity.compare(models, np.ones((2, 9)))
    assert remedy in refused.value.message and refused.value.__cause__ is not None  # flax's own error
    causes = {r.cause for r in parity.compare({"a": models["a"], "c": torch_model()}, np.ones((2, 9, 7, 6)))}
    assert all(
        "it was called with [2, 9, 7, 6] float64: if this does not fit, give inputs" in cause for cause in causes
    )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"names": {"a": {"stem": "conv"}}}, "a: no module 'stem'"),
        ({"names": {"a": {"cnv": "conv"}}}, "a: no module 'cnv', did you mean 'conv'"),
        ({"names": {"c": {"conv": "conv"}}}, "no model 'c'"),
        ({"names": {"port": {"stem": "stem"}}}, "names for 'port', which is a port"),
        ({"names": {"a": {}}}, "names for 'a' are empty"),
        ({"names": {"a": ["conv"]}}, "names for 'a' must map paths"),
        ({"names": ["conv"]}, "names must map labels"),
        ({"names": {"a": {"conv": "x", "norm": "y", "head": "x"}}}, "modules 'conv', 'head' are all called 'x'"),
        ({"names": {"a": {"conv": "output"}}}, "'output' is the name of the whole model's output"),
        ({"feature_maps": ["cnv"]}, "no module 'cnv', did you mean 'conv'"),
        ({"feature_maps": "conv"}, "must be a collection"),
        (
            {"check": ["layers", "train"]},
            r"check=\['layers', 'train'\]: give one name, and call once for each: one of f",
        ),
        ({"check": "layer"}, "no check 'layer', did you mean 'layers'"),
        ({"check": "train", "steps": 0}, "steps must be a whole number from 1 on, not 0"),
        ({"steps": 2.5}, "steps must be a whole number"),
        ({"images": IMAGES[:0]}, r"images of shape \[0, 3, 7, 6\] are empty"),
        ({"images": [[1.0], [1.0, 2.0]]}, "inputs must be arrays of numbers"),
        ({"images": "photo.png"}, "images must be an array of numbers"),
        ({"models": {"a": 1, "b": 2}}, "a: int is no model"),
        ({"models": {}}, "needs two models"),
        ({"models": [1, 2]}, "must map labels to models"),
    ],
)
def test_what_matches_nothing_is_refused(options: dict[str, Any], message: str) -> None:
    import ports
    import specs

    port = ports.build("mlp_mixer", specs.get("mlp_mixer").tiny["S/16"], "torch", dtype="float64")
    given = {"models": {"a": torch_model(), "b": torch_model(), "port": port}, "images": IMAGES, **options}
    with pytest.raises(UsageError, match=message):
        parity.compare(given.pop("models"), given.pop("images"), **given)


FC = torch.nn.Sequential(torch.nn.Linear(4, 3))


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")  # of torch's older interfaces
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (torch.jit.script, "a: a ScriptModule .*: give the module that it was made from"),
        (lambda m: torch.export.export(m, (torch.ones(2, 4),)).module(), "a: a module of torch.export .* was exported"),
        (lambda m: torch.ao.quantization.quantize_dynamic(m, {torch.nn.Linear}), "a: a quantized module .*: give the"),
        (lambda m: copy.deepcopy(m).to("meta"), "a: the model is on device meta, .*: load its weights first"),
    ],
    ids=["scripted", "exported", "quantized", "meta"],
)
def test_modules_that_cannot_be_run_otherwise_are_refused_with_the_remedy(change: Any, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        parity.compare({"a": change(FC), "b": FC}, np.ones((2, 4), "float32"))


class Stored(torch.nn.Module):
    """A dense layer beside buffers of what NumPy lacks, and a state that is no array."""

    def __init__(self, scale: float = 0.5) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.fc = torch.nn.Linear(4, 4)
        self.register_buffer("scale", torch.full((4,), scale).to(torch.float8_e4m3fn))
        self.register_buffer("mix", torch.eye(4).to_sparse())

    def get_extra_state(self) -> dict[str, int]:
        return {"version": 2}

    def set_extra_state(self, state: Any) -> None:
        assert state == {"version": 2}

    def forward(self, x: Any) -> Any:
        return (self.mix @ (self.fc(x) * self.scale.to(x.dtype)).T).T


def pruned() -> Any:
    from torch.nn.utils import prune

    return prune.l1_unstructured(torch.nn.Linear(4, 3), "weight", 0.5)


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")
@pytest.mark.parametrize("check", ["layers", "gradients", "train"])
def test_weights_that_hooks_compute_are_computed_in_the_copies_too(check: str) -> None:
    from torch.nn.utils import prune

    x = np.random.default_rng(0).standard_normal((2, 4)).astype("float32")
    model = pruned()
    other = copy_of_weights(model)
    prune.remove(other, "weight")
    assert parity.compare({"a": model, "b": model}, x, check).passed
    assert parity.compare({"a": model, "b": other}, x).passed
    normed = torch.nn.utils.weight_norm(torch.nn.Linear(4, 3))
    assert parity.compare({"a": normed, "b": normed}, x, check, dtype="float64").passed
    normed.weight_g.data *= 2
    assert not parity.compare({"a": normed, "b": pruned()}, x).passed


def copy_of_weights(model: Any) -> Any:
    other = pruned()
    other.load_state_dict(model.state_dict())
    return other


class Cached(torch.nn.Module):
    """A layer with a matrix that was computed once, from its parameters or from none."""

    def __init__(self, cache: Callable[[Any], Any]) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.fc = torch.nn.Linear(4, 4)
        self.cache = cache(self.fc.weight)

    def forward(self, x: Any) -> Any:
        return self.fc(x) @ (self.cache[0] if isinstance(self.cache, list) else self.cache)


def test_tensors_that_are_attributes_are_cast_and_those_that_cannot_be_copied_are_refused() -> None:
    x = np.ones((2, 4), "float32")
    fixed = Cached(lambda weight: torch.eye(4))
    assert parity.compare({"a": fixed, "b": fixed}, x, dtype="float64").passed
    alias = Cached(lambda weight: weight)
    alias.__dict__["cache"] = alias.__dict__["_parameters"].pop("cache")
    wide = Runner.own(alias).cast("float64").model
    assert wide.cache is wide.fc.weight and wide.cache.dtype == torch.float64
    for computed in (lambda weight: weight * 2, lambda weight: [weight * 2]):
        with pytest.raises(UsageError, match=r"that was computed from parameters, and that no call .*: detach that"):
            parity.compare({"a": Cached(computed), "b": FC}, x, dtype="float64")


def test_buffers_of_float8_sparse_ones_and_extra_states_are_taken() -> None:
    x = np.random.default_rng(0).standard_normal((3, 4)).astype("float32")
    assert parity.compare({"a": Stored(), "b": Stored()}, x).passed
    report = parity.compare({"a": Stored(), "b": Stored(0.25)}, x, "layers")
    assert report.first_divergence == "output"


def test_models_in_different_dtypes_are_refused() -> None:
    with pytest.raises(UsageError, match="different dtypes"):
        parity.compare({"a": torch_model(), "b": torch_model().float()}, IMAGES)


class Renamed(torch.nn.LayerNorm):
    """A norm under a name of its own."""


@pytest.mark.parametrize("check", ["gradients", "train"])
def test_arrays_of_a_derived_layer_are_compared_as_those_of_its_base(check: str) -> None:
    models = {name: torch.nn.Sequential(torch.nn.Linear(4, 4), norm(4)) for name, norm in NORMS.items()}
    models["b"].load_state_dict(models["a"].state_dict())
    (row,) = parity.compare(models, np.random.default_rng(0).standard_normal((3, 4)), check, steps=1)
    assert (row.passed, row.cause) == (True, "")
    assert any(name.endswith("1.scale") for name, *_ in row.curve)


NORMS = {"a": torch.nn.LayerNorm, "b": Renamed}


def test_paddles_casts_keep_imaginary_parts_and_integers() -> None:
    class Table(paddle.nn.Layer):
        def __init__(self, phase: Any) -> None:
            super().__init__()
            self.register_buffer("phase", paddle.to_tensor(np.array([1, 1j, phase], "complex64")))
            self.register_buffer("order", paddle.to_tensor([2, 0, 1]))
            self.scale = self.create_parameter([3], default_initializer=paddle.nn.initializer.Constant(2.0))

        def forward(self, x: Any) -> Any:
            return (x * self.scale).astype(self.phase.dtype)[:, self.order] * self.phase

    x = RNG.standard_normal((4, 3))
    for check in ("forward", "gradients"):
        assert parity.compare({"a": Table(1 + 1j), "b": Table(1 + 1j)}, x, check, dtype="float64").passed
    assert parity.compare({"a": Table(1 + 1j), "b": Table(1 - 1j)}, x, dtype="float64").passed is False


@pytest.mark.parametrize("check", ["gradients", "train"])
def test_a_layer_that_is_the_whole_model_is_compared_in_the_common_layout(check: str) -> None:
    """A square kernel would be compared untransposed without a word of its shape."""
    ours, theirs = torch.nn.Linear(4, 4), paddle.nn.Linear(4, 4)
    kernel, bias = ours.weight.detach().numpy().T.copy(), ours.bias.detach().numpy()
    theirs.weight.set_value(kernel)
    theirs.bias.set_value(bias)
    linen = nn.Dense(4), {"params": {"kernel": kernel, "bias": bias}}
    x = RNG.standard_normal((3, 4)).astype("float32")
    report = parity.compare({"torch": ours, "paddle": theirs, "flax": linen}, x, check=check)
    assert report.passed and not any(result.cause for result in report.results), str(report)


def test_paddles_recurrent_layers_are_compared_as_they_are() -> None:
    """Their state of dropout has no memory before it is drawn."""
    layer = paddle.nn.LSTM(3, 4)
    assert parity.compare({"a": layer, "b": layer}, np.ones((2, 5, 3), "float32")).passed


def test_outputs_of_other_names_are_no_matter_of_modules() -> None:
    class Named(torch.nn.Linear):
        def forward(self, x: Any) -> Any:
            return {"logits": super().forward(x)}

    report = parity.compare({"a": Named(4, 2), "b": torch.nn.Linear(4, 2)}, np.ones((3, 4), "float32"))
    assert not report.passed and "let both models return arrays under the same names" in " ".join(str(report).split())


def test_modules_that_names_leave_out_are_compared_if_their_paths_are_equal() -> None:
    """Not where a name of the user's is taken, by a module or for another one."""

    class Net(torch.nn.Module):
        def __init__(self, first: str) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.first = first
            for name in (first, "norm", "head"):
                setattr(self, name, torch.nn.LayerNorm(3))

        def forward(self, x: Any) -> Any:
            return self.head(self.norm(getattr(self, self.first)(x)))

    x = np.random.default_rng(0).standard_normal((2, 3)).astype(np.float32)
    models = {"a": Net("one"), "b": Net("two")}
    report = parity.compare(models, x, "layers", names={"b": {"two": "one"}})
    assert [[name for name, _, _ in r.curve] for r in report.results] == [["one", "norm", "head", "output"]] * 2
    report = parity.compare(models, x, "layers", names={"b": {"two": "head"}})
    assert [name for name, _, _ in report.results[0].curve] == ["norm", "head", "output"]


class Blocks(torch.nn.Module):
    def __init__(self, blocks: str, first: str) -> None:
        super().__init__()
        torch.manual_seed(0)
        pairs = [torch.nn.ModuleDict({first: torch.nn.Linear(3, 3), "norm": torch.nn.LayerNorm(3)}) for _ in range(2)]
        self.names = blocks, first
        setattr(self, blocks, torch.nn.ModuleList(pairs))

    def forward(self, x: Any) -> Any:
        blocks, first = self.names
        for block in getattr(self, blocks):
            x = block["norm"](block[first](x))
        return x


def test_a_number_sign_in_names_is_every_number() -> None:
    models = {"a": Blocks("blocks", "fc"), "b": Blocks("layers", "linear")}
    x = np.random.default_rng(0).standard_normal((2, 3)).astype(np.float32)
    names = {"b": {"layers.#.linear": "blocks.#.fc", "layers.1.norm": "blocks.1.norm"}}
    (result, *_) = parity.compare(models, x, "layers", names=names).results
    assert [name for name, _, _ in result.curve] == ["blocks.0.fc", "blocks.1.fc", "blocks.1.norm", "output"]


@pytest.mark.parametrize(
    ("names", "said"),
    [
        ({"layers.#.lin": "blocks.#.fc"}, "b: no module 'layers.#.lin', did you mean 'layers.#.linear'?"),
        (
            {"layers.#.linear": "blocks.fc"},
            "'layers.#.linear' and 'blocks.fc' in `names`: # is a number, and stands in",
        ),
        (
            {"layers.#.linear": "blocks.#.fc", "layers.0.norm": "blocks.1.fc"},
            "modules 'layers.1.linear' and 'layers.0.norm' are both called 'blocks.1.fc' by `names`",
        ),
    ],
)
def test_a_number_sign_that_fits_no_module_is_refused(names: dict[str, str], said: str) -> None:
    models = {"a": Blocks("blocks", "fc"), "b": Blocks("layers", "linear")}
    with pytest.raises(UsageError) as refused:
        parity.compare(models, np.ones((2, 3), np.float32), "layers", names={"b": names})
    assert said in str(refused.value)

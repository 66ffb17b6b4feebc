"""`names` of parity.compare: it renames modules, and everything that is compared without it still is."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest

import parity
from convert.errors import UsageError
from parity.given.module_names import chosen, possible

torch = pytest.importorskip("torch")
paddle = pytest.importorskip("paddle")
nn = pytest.importorskip("flax.linen")

WIDTH = 3
X = np.random.default_rng(0).standard_normal((2, WIDTH))
KERNELS = {
    f"blocks.{b}.mlp.{part}": np.random.default_rng(10 * b + k).standard_normal((WIDTH, WIDTH))
    for b in range(2)
    for k, part in enumerate(("fc1", "fc2"))
}


class TorchMlp(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fc1 = torch.nn.Linear(WIDTH, WIDTH, bias=False)
        self.fc2 = torch.nn.Linear(WIDTH, WIDTH, bias=False)

    def forward(self, x: Any) -> Any:
        return self.fc2(torch.tanh(self.fc1(x)))


class TorchBlock(torch.nn.Module):
    """A block whose inner module is called `mlp`, or has another name."""

    def __init__(self, inner: str) -> None:
        super().__init__()
        self.inner = inner
        setattr(self, inner, TorchMlp())

    def forward(self, x: Any) -> Any:
        return x + getattr(self, self.inner)(x)


def torch_model(inner: str = "mlp", blocks: str = "blocks") -> Any:
    model = torch.nn.Module()
    setattr(model, blocks, torch.nn.Sequential(TorchBlock(inner), TorchBlock(inner)))
    model.forward = getattr(model, blocks).forward
    names = {f"{name}.weight".replace("mlp", inner).replace("blocks", blocks): w for name, w in KERNELS.items()}
    model.double().load_state_dict({name: torch.from_numpy(w.T.copy()) for name, w in names.items()})
    return model


class PaddleMlp(paddle.nn.Layer):
    def __init__(self) -> None:
        super().__init__()
        self.fc1 = paddle.nn.Linear(WIDTH, WIDTH, bias_attr=False)
        self.fc2 = paddle.nn.Linear(WIDTH, WIDTH, bias_attr=False)

    def forward(self, x: Any) -> Any:
        return self.fc2(paddle.tanh(self.fc1(x)))


class PaddleBlock(paddle.nn.Layer):
    def __init__(self) -> None:
        super().__init__()
        self.ffn = PaddleMlp()

    def forward(self, x: Any) -> Any:
        return x + self.ffn(x)


class Paddle(paddle.nn.Layer):
    def __init__(self) -> None:
        super().__init__()
        self.blocks = paddle.nn.Sequential(PaddleBlock(), PaddleBlock())

    def forward(self, x: Any) -> Any:
        return self.blocks(x)


def paddle_model() -> Any:
    model = Paddle()
    model.to(dtype="float64")
    for name, tensor in model.state_dict().items():
        tensor.set_value(KERNELS[name.removesuffix(".weight").replace("ffn", "mlp")])
    return model


class LinenMlp(nn.Module):
    @nn.compact
    def __call__(self, x: Any) -> Any:
        x = nn.tanh(nn.Dense(WIDTH, use_bias=False, name="fc1")(x))
        return nn.Dense(WIDTH, use_bias=False, name="fc2")(x)


class LinenBlock(nn.Module):
    @nn.compact
    def __call__(self, x: Any) -> Any:
        return x + LinenMlp(name="mlp")(x)


class Linen(nn.Module):
    @nn.compact
    def __call__(self, x: Any) -> Any:
        for b in range(2):
            x = LinenBlock(name=f"layer_{b}")(x)
        return x


def linen_model() -> Any:
    import jax

    jax.config.update("jax_enable_x64", True)
    kernels = {name.replace("blocks.", "layer_"): {"kernel": jax.numpy.asarray(w)} for name, w in KERNELS.items()}
    params: dict[str, Any] = {}
    for name, leaf in kernels.items():
        block, mlp, fc = name.split(".")
        params.setdefault(block, {}).setdefault(mlp, {})[fc] = leaf
    return Linen(), {"params": params}


BLOCK = ["mlp.fc1", "mlp.fc2", "mlp", ""]  # in the order in which their calls end
EVERY = [f"blocks.{b}.{path}".rstrip(".") for b in range(2) for path in BLOCK]


def taps(models: dict[str, Any], names: Any) -> list[list[str]]:
    """Return what is compared, for each pair of models."""
    report = parity.compare(models, X, "layers", names=names)
    assert report.passed, str(report)
    return [[name for name, *_ in result.curve if name != "output"] for result in report.results]


def test_modules_inside_of_a_named_one_are_compared_in_three_frameworks() -> None:
    models = {"torch": torch_model(), "paddle": paddle_model(), "linen": linen_model()}
    names = {"paddle": {"blocks.#.ffn": "blocks.#.mlp"}, "linen": {"layer.#": "blocks.#"}}
    assert taps(models, names) == [EVERY] * 3


@pytest.mark.parametrize("key", ["layer_#", "layer.#", "layer_#/mlp", "layer_#.mlp", "layer.#/mlp"])
def test_names_take_the_spelling_of_the_model_itself(key: str) -> None:
    """linen writes "layer_0/mlp"; its path is "layer.0.mlp"."""
    models = {"torch": torch_model(), "linen": linen_model()}
    name = "blocks.#.mlp" if "mlp" in key else "blocks.#"
    inner = [path for path in EVERY if path.count(".") > 1 or "mlp" not in key]
    assert taps(models, {"linen": {key: name}}) == [inner]
    assert taps(models, {"linen": {key.replace("#", str(k)): name.replace("#", str(k)) for k in (0, 1)}}) == [inner]
    renamed = [re.sub(r"^blocks", "layer", path) for path in inner]
    assert taps(models, {"torch": {name: key}}) == [renamed]  # also as the name of another model's module
    both = {"torch": {name: "b#"}, "linen": {key: "b#"}}
    numbered = re.escape(name).replace(r"\#", r"(\d)")
    assert taps(models, both) == [[re.sub(f"^{numbered}", r"b\1", path) for path in inner]]


def test_names_of_one_module_in_two_spellings_are_refused() -> None:
    models = {"torch": torch_model(), "linen": linen_model()}
    names = {"linen": {"layer.0": "blocks.0", "layer_0": "blocks.1"}}
    with pytest.raises(UsageError, match=r"linen: 'layer\.0' and 'layer_0' in `names` are one module: leave one of"):
        parity.compare(models, X, "layers", names=names)


@pytest.mark.parametrize("check", ["gradients", "train"])
def test_arrays_inside_of_a_named_module_are_compared(check: str) -> None:
    models = {"torch": torch_model(), "paddle": paddle_model(), "linen": linen_model()}
    names = {"paddle": {"blocks.#.ffn": "blocks.#.mlp"}, "linen": {"layer.#": "blocks.#"}}
    report = parity.compare(models, X, check, names=names, steps=2)
    assert report.passed, str(report)
    prefix = "" if check == "gradients" else "sgd: "
    assert all({f"{prefix}{name}.kernel" for name in KERNELS} <= {n for n, *_ in r.curve} for r in report.results)


@pytest.mark.parametrize(
    "one", [{"blocks.#.mlp": "blocks.#.mlp"}, {"blocks.#": "B.#"}, {"blocks.1": "last"}, {"blocks": "all"}]
)
def test_what_is_compared_without_names_is_compared_with_the_same_names_on_both_sides(one: dict[str, str]) -> None:
    models = {"a": torch_model(), "b": torch_model()}
    assert len(taps(models, {"a": one, "b": one})[0]) == len(EVERY)


def test_names_of_one_side_take_a_partner_from_the_named_module_alone() -> None:
    models = {"a": torch_model(), "b": torch_model()}
    assert taps(models, {"a": {"blocks.#": "B.#"}}) == [[name for name in EVERY if name.count(".") > 1]]
    named = {"a": {"blocks.0": "first"}, "b": {"blocks.1.mlp.fc1": "last"}}
    assert taps(models, named) == [[name for name in EVERY if name not in ("blocks.0", "blocks.1.mlp.fc1")]]


def test_a_module_whose_path_is_another_ones_name_gives_it_up() -> None:
    paths = ["stem", "stem.proj", "head"]
    assert chosen(paths, {"stem.proj": "stem"}) == {"stem": "stem (module)", "stem.proj": "stem", "head": "head"}
    assert chosen(["output"], {}) == {"output": "output (module)"}  # the name of what the model returns


def test_a_module_follows_the_name_of_the_one_around_it_where_that_has_a_partner() -> None:
    paths, stated = ["enc", "enc.fc", "enc.fc.a", "dec"], {"enc": "first", "enc.fc": "mlp"}
    assert possible(paths, stated) == {"first", "mlp", "mlp.a", "enc.fc.a", "dec"}
    assert chosen(paths, stated, {"mlp.a"})["enc.fc.a"] == "mlp.a"
    assert chosen(paths, stated, {"enc.fc.a"})["enc.fc.a"] == "enc.fc.a"
    swapped = chosen(["a", "a.x", "b", "b.x"], {"a": "b", "b": "a"}, {"a.x", "b.x"})
    assert swapped == {"a": "b", "a.x": "b.x", "b": "a", "b.x": "a.x"}


def test_a_name_of_one_side_pairs_modules_that_are_else_not_compared_on_the_other() -> None:
    """The other side has a Sequential for a block, and an activation has no parameters."""

    plain, block = torch.nn.Sequential(torch.nn.Sequential(torch.nn.Linear(WIDTH, WIDTH), torch.nn.GELU())), nested()
    block.block.fc.load_state_dict(plain[0][0].state_dict())
    models = {"block": block.double(), "plain": plain.double()}
    assert taps(models, {"block": {"block": "0", "block.act": "0.1"}}) == [["0.1", "0"]]
    assert taps(models, {"plain": {"0": "block", "0.1": "block.act"}}) == [["block.act", "block"]]
    assert taps(models, {"block": {"block.fc": "0.0"}}) == [["0.0"]]


def nested() -> Any:
    """Build a model of a block with a Linear and an activation."""

    class Block(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc, self.act = torch.nn.Linear(WIDTH, WIDTH), torch.nn.GELU()

        def forward(self, x: Any) -> Any:
            return self.act(self.fc(x))

    model = torch.nn.Module()
    model.block = Block()
    model.forward = lambda x: model.block(x)
    return model


def test_a_numbered_attribute_goes_with_the_numbered_module_of_linen() -> None:
    paths = ["layer_0", "layer_0.fc", "Dense_1", "head_2"]
    offered = {"layer.0", "layer.0.fc", "Dense.1"}
    assert chosen(paths, {}, offered) == dict(zip(paths, ["layer.0", "layer.0.fc", "Dense.1", "head_2"], strict=True))
    assert chosen([*paths, "layer.0"], {}, offered)["layer_0"] == "layer_0"  # a model that has both keeps its paths
    assert chosen(["a", "a.b_0"], {"a": "x"}, {"x.b.0"}) == {"a": "x", "a.b_0": "x.b.0"}
    named = torch_model()
    attributes = torch.nn.Module()
    attributes.layer_0, attributes.layer_1 = named.blocks
    attributes.forward = lambda x: attributes.layer_1(attributes.layer_0(x))
    assert taps({"torch": attributes, "linen": linen_model()}, {}) == [[re.sub("^blocks", "layer", n) for n in EVERY]]


@pytest.mark.parametrize("check", ["gradients", "train"])
def test_an_array_of_no_known_layer_goes_with_the_numbered_module_of_linen(check: str) -> None:
    """Compared by sorted values, channels in another order would agree."""

    class Scale(nn.Module):
        @nn.compact
        def __call__(self, x: Any) -> Any:
            return x * self.param("gamma", nn.initializers.ones, (3,))

    class Linen(nn.Module):
        @nn.compact
        def __call__(self, x: Any) -> Any:
            return Scale(name="scale_1")(Scale(name="scale_0")(x))

    class TorchScale(torch.nn.Module):
        def __init__(self, values: Any) -> None:
            super().__init__()
            self.gamma = torch.nn.Parameter(torch.tensor(values))

        def forward(self, x: Any) -> Any:
            return x * self.gamma

    gammas = [1.0, 2.0, 3.0], [0.5, 0.25, 4.0]
    left = torch.nn.Sequential()
    left.scale = torch.nn.Sequential(*map(TorchScale, gammas))
    right = Linen(), {"params": {f"scale_{i}": {"gamma": np.array(g, "float32")} for i, g in enumerate(gammas)}}
    (result,) = parity.compare({"torch": left, "linen": right}, X[:, :3].astype("float32"), check=check).results
    named = {name.rpartition(": ")[2] for name, *_ in result.curve}
    assert result.passed and {"scale.0.gamma", "scale.1.gamma"} <= named and "sorted" not in result.cause


def test_the_advice_to_name_modules_is_for_those_of_every_block() -> None:
    models = {"a": torch_model(), "b": torch_model("ffn", "layers")}
    with torch.no_grad():
        models["b"].layers[1].ffn.fc1.weight += 1
    said = " ".join(str(parity.compare(models, X, "layers")).split())
    assert "names={'a': {'blocks.#.mlp.fc1': 'layers.#.ffn.fc1'}} pairs these two of every block if they are" in said

"""Orders of axes: which arrays of flax models are images, and outputs of which derive has found the order."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
import pytest

import parity
from parity.comparing.layouts import _by_shape, _turned
from specs.table import Table

torch = pytest.importorskip("torch", reason="torch is not installed")
pytest.importorskip("flax", reason="flax is not installed")

import jax.numpy as jnp  # noqa: E402  # after flax is known to be there
from flax import nnx  # noqa: E402


class Rms(torch.nn.Module):
    """A norm of which nothing but its code shows the kind."""

    def __init__(self, width: int, eps: float) -> None:
        super().__init__()
        self.g, self.eps = torch.nn.Parameter(torch.ones(width)), eps

    def forward(self, x: Any) -> Any:
        return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + self.eps) * self.g


class Torch(torch.nn.Module):
    """A norm over heads (b t h d), between two dense layers."""

    def __init__(self, norm: Any, heads: tuple[int, ...]) -> None:
        super().__init__()
        self.up, self.norm, self.head = torch.nn.Linear(6, int(np.prod(heads))), norm, torch.nn.Linear(4, 3)
        self.heads = heads

    def forward(self, x: Any) -> Any:
        return self.head(self.norm(self.up(x).unflatten(-1, self.heads)))


class Nnx(nnx.Module):
    def __init__(self, norm: Any, heads: tuple[int, ...]) -> None:
        self.up, self.head = (nnx.Linear(*sizes, rngs=nnx.Rngs(0)) for sizes in ((6, int(np.prod(heads))), (4, 3)))
        self.norm, self.heads = norm, heads

    def __call__(self, x: Any) -> Any:
        return self.head(self.norm(self.up(x).reshape(*x.shape[:2], *self.heads)))


def pair(norm: Any, other: Any, heads: tuple[int, ...]) -> dict[str, Any]:
    """Return two models of the same weights, of which the norms may differ."""
    torch.manual_seed(0)
    left, right = Torch(norm, heads), Nnx(other, heads)
    copy({left.up: right.up, left.head: right.head})
    return {"torch": left, "nnx": right}


def copy(layers: dict[Any, Any]) -> None:
    """Give layers of nnx the weights of those of torch."""
    for one, other in layers.items():
        axes = (2, 3, 1, 0) if one.weight.ndim == 4 else (1, 0)
        other.kernel[...] = jnp.asarray(one.weight.detach().numpy().transpose(axes))
        other.bias[...] = jnp.asarray(one.bias.detach().numpy())


def inputs(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).standard_normal(shape, dtype=np.float32)


@pytest.mark.parametrize("check", ["layers", "single-step"])
@pytest.mark.parametrize("first", ["torch", "nnx"])
@pytest.mark.parametrize("tokens", [5, 4])
def test_heads_are_no_images(tokens: int, first: str, check: str) -> None:
    """Of 4 tokens, 4 heads and 4 features, the shapes are those of images, too."""
    heads = (4, 4) if tokens == 4 else (2, 4)
    models = pair(torch.nn.LayerNorm(4, 1e-3), nnx.LayerNorm(4, epsilon=1e-6, rngs=nnx.Rngs(0)), heads)
    report = parity.compare({first: models[first], **models}, inputs(2, tokens, 6), check=check, dtype="float64")
    assert report.first_divergence == "norm", str(report)
    epsilons = {"torch": "1e-3 in torch", "nnx": "1e-6 in nnx"}
    said = ", ".join([epsilons.pop(first), *epsilons.values()])
    assert report.first_divergence.guess.startswith(f"epsilon is {said}"), str(report)
    place = zip(report.first_divergence.worst.index, (2, tokens, *heads), strict=True)
    assert all(k < length for k, length in place) and "not compared" not in str(report)


@pytest.mark.parametrize("check", ["forward", "layers", "single-step", "gradients"])
def test_equal_models_with_heads_agree(check: str) -> None:
    """The output has four axes too."""
    models = pair(torch.nn.LayerNorm(4, 1e-6), nnx.LayerNorm(4, epsilon=1e-6, rngs=nnx.Rngs(0)), (2, 4))
    report = parity.compare(models, inputs(2, 5, 6), check=check, dtype="float64")
    assert report.passed and "shapes differ" not in str(report), str(report)


@pytest.mark.parametrize("first", ["torch", "nnx"])
@pytest.mark.parametrize("heads", [(), (2,)], ids=["3 axes", "4 axes"])
def test_the_epsilon_of_a_norm_of_ones_own_is_named_from_either_side(heads: tuple[int, ...], first: str) -> None:
    models = pair(Rms(4, 1e-3), nnx.RMSNorm(4, epsilon=1e-6, rngs=nnx.Rngs(0)), (*heads, 4))
    models = {first: models[first], **models}
    report = parity.compare(models, inputs(2, 5, 6), check="layers", dtype="float64")
    epsilons = {"torch": "1e-3 in torch", "nnx": "1e-6 in nnx"}
    said = ", ".join(epsilons[label] for label in models)
    assert report.first_divergence.guess.startswith(f"epsilon is {said}"), str(report)


class TorchImages(torch.nn.Module):
    def __init__(self, last: bool = False) -> None:
        super().__init__()
        self.one, self.two, self.last = torch.nn.Conv2d(3, 4, 3), torch.nn.Conv2d(4, 4, 1), last

    def forward(self, x: Any) -> Any:
        y = self.two(torch.tanh(self.one(x)))
        return y.permute(0, 2, 3, 1) if self.last else y


class NnxImages(nnx.Module):
    def __init__(self, second: bool = False) -> None:
        self.one, self.two = (nnx.Conv(n, 4, (k, k), padding="VALID", rngs=nnx.Rngs(0)) for n, k in ((3, 3), (4, 1)))
        self.second = second

    def __call__(self, x: Any) -> Any:
        y = self.two(jnp.tanh(self.one(x)))
        return y.transpose(0, 3, 1, 2) if self.second else y


def images(last: bool = False, second: bool = False) -> dict[str, Any]:
    """Return two models that return images. Args: of which the order of axes is not the framework's."""
    torch.manual_seed(0)
    left, right = TorchImages(last), NnxImages(second)
    copy({left.one: right.one, left.two: right.two})
    return {"torch": left, "nnx": right}


@pytest.mark.parametrize("check", ["layers", "single-step"])
@pytest.mark.parametrize("height", [7, 6])
def test_images_have_their_index_in_the_first_models_own_array(height: int, check: str) -> None:
    """An image of 6 pixels gives 4 rows of 4 pixels with 4 channels, which fit in any order of axes."""
    models, x = images(), inputs(2, 3, height, 6)
    assert parity.compare(models, x, check=check, dtype="float64").passed
    with torch.no_grad():
        models["torch"].one.bias[2] += 100
    report = parity.compare({"nnx": models["nnx"], "torch": models["torch"]}, x, check=check, dtype="float64")
    worst = report.first_divergence.worst
    own = np.asarray(models["nnx"].one(jnp.asarray(x.transpose(0, 2, 3, 1))))
    assert report.first_divergence == "one" and worst.index[3] == 2, str(report)
    assert own[worst.index] == pytest.approx(worst.left, rel=1e-5)  # computed in float32 here


@functools.cache
def turned(odd: str, first: str) -> tuple[dict[str, Any], Any]:
    """Return two models that return images, one in another order of axes, and what `derive` found of them."""
    models = images(last=odd == "torch", second=odd == "nnx")
    models, x = {first: models[first], **models}, inputs(2, 3, 7, 6)
    return models, parity.derive(*models.values(), (x if first == "torch" else x.transpose(0, 2, 3, 1),))


@pytest.mark.parametrize("check", ["forward", "layers", "single-step", "gradients", "train"])
@pytest.mark.parametrize("first", ["torch", "nnx"])
@pytest.mark.parametrize("odd", ["torch", "nnx"])
def test_an_output_is_compared_in_the_order_of_axes_that_derive_found(odd: str, first: str, check: str) -> None:
    models, found = turned(odd, first)
    assert found.proven, str(found)
    report = parity.compare(models, inputs(2, 3, 7, 6), check=check, names=found, dtype="float64", steps=2)
    assert report.passed, str(report)


class Turned(Torch):
    def forward(self, x: Any) -> Any:
        return super().forward(x).transpose(1, 2)


@pytest.mark.parametrize("check", ["forward", "layers", "gradients"])
def test_tokens_are_compared_in_the_order_of_axes_that_derive_found(check: str) -> None:
    torch.manual_seed(0)
    left, right = (kind(torch.nn.LayerNorm(4), (4,)) for kind in (Torch, Turned))
    right.load_state_dict(left.state_dict())
    x = inputs(2, 5, 6)
    found = parity.derive(left, right, (x,))
    assert found.proven and found.output_order == (0, 2, 1)
    report = parity.compare({"a": left, "b": right}, x, check=check, names=found, dtype="float64")
    said = " ".join(str(report).split())
    assert report.passed and "b: its output is compared with its axes in the order (0, 2, 1)" in said, said
    right.head.bias.data[0] += 1
    assert not parity.compare({"a": left, "b": right}, x, check=check, names=found, dtype="float64").passed


class Heads(nnx.Module):
    """Attention's projections with axes of heads of their own; torch's are `Flat`."""

    def __init__(self, inner: bool) -> None:
        rngs, self.inner = nnx.Rngs(0), inner
        self.q = nnx.LinearGeneral(6, (4, 2) if inner else (2, 4), rngs=rngs)
        self.out = nnx.LinearGeneral((2, 4), 3, axis=(-2, -1), rngs=rngs)

    def __call__(self, x: Any) -> Any:
        y = jnp.tanh(self.q(x))
        return self.out(y.swapaxes(-1, -2) if self.inner else y)


class Flat(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.q, self.out = torch.nn.Linear(6, 8), torch.nn.Linear(8, 3)

    def forward(self, x: Any) -> Any:
        return self.out(torch.tanh(self.q(x)))


@pytest.mark.parametrize("check", ["layers", "single-step"])
@pytest.mark.parametrize("first", ["torch", "nnx"])
@pytest.mark.parametrize("inner", [False, True], ids=["h d", "d h"])
def test_axes_that_a_table_composes_are_composed_in_what_modules_return(inner: bool, first: str, check: str) -> None:
    torch.manual_seed(0)
    left, right = Flat(), Heads(inner)
    axes = "d h" if inner else "h d"
    table = Table.parse(
        f"table 1\nq.weight: (h=2 d) i <-> q/kernel: i {axes}\nq.bias: (h=2 d) <-> q/bias: {axes}\n"
        "out.weight: o (h=2 d) <-> out/kernel: h d o\nout.bias: c <-> out/bias: c"
    )
    weight, bias = left.q.weight.detach().numpy().T.reshape(6, 2, 4), left.q.bias.detach().numpy().reshape(2, 4)
    right.q.kernel[...] = jnp.asarray(weight.swapaxes(1, 2) if inner else weight)
    right.q.bias[...] = jnp.asarray(bias.T if inner else bias)
    right.out.kernel[...] = jnp.asarray(left.out.weight.detach().numpy().T.reshape(2, 4, 3))
    right.out.bias[...] = jnp.asarray(left.out.bias.detach().numpy())
    models, table = (
        ({"torch": left, "nnx": right}, table) if first == "torch" else ({"nnx": right, "torch": left}, table.reverse())
    )
    report = parity.compare(models, inputs(2, 5, 6), check=check, names=table, dtype="float64")
    said = " ".join(str(report).split())
    assert report.passed and {"q", "out"} < {name for name, *_ in report.results[0].curve}, said
    assert "not compared" not in said and f"compared with {first}'s order of axes: 'q'" in said
    with torch.no_grad():
        left.q.bias[5] += 10  # head 1, feature 1
    report = parity.compare(models, inputs(2, 5, 6), check=check, names=table, dtype="float64")
    index = report.first_divergence.worst.index
    assert report.first_divergence == "q" and index[2:] == ((5,) if first == "torch" else (1, 1)), str(report)


@pytest.mark.parametrize("check", ["forward", "layers", "gradients"])
@pytest.mark.parametrize("tokens", [5, 3], ids=["shapes decide", "values decide"])
def test_an_order_of_an_outputs_axes_that_no_table_states_is_found_and_said(tokens: int, check: str) -> None:
    torch.manual_seed(0)
    left, right = (kind(torch.nn.LayerNorm(4), (4,)) for kind in (Torch, Turned))
    right.load_state_dict(left.state_dict())
    axes = {name: "o i"[: 2 * array.ndim] for name, array in left.state_dict().items()}
    lines = (f"{name}: {of} <-> {name}: {of}" for name, of in axes.items())
    table = Table.parse("\n".join(["table 1", *lines]))
    x, order = inputs(2, tokens, 6), "b: its output is compared with its axes in the order (0, 2, 1): the"
    report = parity.compare({"a": left, "b": right}, x, check=check, names=table, dtype="float64")
    said = " ".join(str(report).split())
    assert report.passed and f"{order} values show it, and no Table states it" in said, said
    right.head.bias.data[0] += 1
    report = parity.compare({"a": left, "b": right}, x, check=check, names=table, dtype="float64")
    said = " ".join(str(report).split())
    assert not report.passed and (f"{order} shapes alone show it" in said) == (tokens == 5), said


@pytest.mark.parametrize("check", ["forward", "layers"])
def test_finding_the_order_of_axes_runs_no_model_once_more(check: str, monkeypatch: pytest.MonkeyPatch) -> None:
    calls, forward = list[bool](), TorchImages.forward
    monkeypatch.setattr(TorchImages, "forward", lambda self, x: (calls.append(True), forward(self, x))[1])
    ports, x, counts = {"a": TorchImages(), "b": TorchImages()}, inputs(2, 3, 7, 6), []
    for models in (
        ports,
        {"a": ports["a"], "b": ports["b"], "nnx": images()["nnx"]},
    ):  # without images of flax, and with
        calls.clear()
        parity.compare(models, x, check=check, dtype="float64")
        counts.append(len(calls))
    assert counts[0] == counts[1] > 0


SHAPES = [
    ((2, 5, 8), (2, 5, 2, 4), True), ((2, 3, 4, 5), (2, 20, 3), True), ((2, 20, 3), (2, 3, 4, 5), True),
    ((2, 3, 6), (2, 6, 3), True), ((10, 8), (2, 5, 8), True), ((4, 4, 4), (1, 4, 4, 4), True), ((), (1,), True),
    ((2, 5), (2, 5, 3), False), ((2, 5, 3), (2, 5), False), ((2, 12), (2, 3, 5), False), ((2,), (2, 0), False),
    ((2, 0), (0,), False),
]  # fmt: skip


@pytest.mark.parametrize(("left", "right", "fits"), SHAPES)
def test_a_view_leads_back_to_the_array_and_to_the_place_of_each_element(
    left: tuple[int, ...], right: tuple[int, ...], fits: bool
) -> None:
    views, array = [*_by_shape(left, right), *_turned(left, right)], np.arange(np.prod(right, dtype=int)).reshape(right)
    assert bool(views) == fits
    for view in views:
        seen = view.seen(array)
        assert seen.shape == left and np.array_equal(view.back(seen), array)
        assert all(seen[place] == array[view.place(place)] for place in np.ndindex(*left))


@pytest.mark.parametrize("check", ["forward", "layers"])
def test_an_output_whose_axes_one_model_joins_is_compared_and_it_is_said(check: str) -> None:
    class Joined(Torch):
        def forward(self, x: Any) -> Any:
            return super().forward(x).flatten(1, 2)

    torch.manual_seed(0)
    left, right = (kind(torch.nn.LayerNorm(4), (4,)) for kind in (Torch, Joined))
    right.load_state_dict(left.state_dict())
    axes = {name: "o i"[: 2 * array.ndim] for name, array in left.state_dict().items()}
    table = Table.parse("\n".join(["table 1", *(f"{name}: {of} <-> {name}: {of}" for name, of in axes.items())]))
    for models, shape in (
        ({"a": left, "b": right}, "[2, 5, 3], which is [2, 15]"),
        ({"b": right, "a": left}, "[2, 15]"),
    ):
        report = parity.compare(models, inputs(2, 5, 6), check=check, names=table, dtype="float64")
        said = " ".join(str(report).split())
        assert report.passed and f"its output is compared as {shape}" in said, said


@pytest.mark.parametrize("length", [17, 6])
@pytest.mark.parametrize("check", ["layers", "single-step"])
def test_what_convolutions_of_sequences_return_is_compared_channels_second(length: int, check: str) -> None:
    """Also where the sequence is as long as it has channels, and only the kind of the layer shows the order."""
    left = torch.nn.Sequential(torch.nn.Conv1d(3, 6, 5, padding=2), torch.nn.GroupNorm(2, 6), torch.nn.Flatten())
    right = nnx.Sequential(
        nnx.Conv(3, 6, 5, rngs=nnx.Rngs(0)), nnx.GroupNorm(6, 2, epsilon=1e-5, rngs=nnx.Rngs(0)),
        lambda x: x.swapaxes(1, 2).reshape(len(x), -1),
    )  # fmt: skip
    right.layers[0].kernel[...] = jnp.asarray(left[0].weight.detach().numpy().transpose(2, 1, 0))
    right.layers[0].bias[...] = jnp.asarray(left[0].bias.detach().numpy())
    x = np.random.default_rng(0).standard_normal((2, 3, length))
    names = {"nnx": {f"layers.{k}": f"{k}" for k in range(2)}}
    given = {"torch": parity.Inputs(x), "nnx": parity.Inputs(x.swapaxes(1, 2))}
    report = parity.compare({"torch": left, "nnx": right}, given, check, names=names, dtype="float64")
    assert report.passed and "not compared" not in str(report), report

"""Users' flax models: nnx modules, to_linen, unusual variables, and the switch between training and evaluation."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import parity
from convert.errors import UsageError

torch = pytest.importorskip("torch", reason="torch is not installed")
nn = pytest.importorskip("flax.linen", reason="flax is not installed")

import jax  # noqa: E402  # after flax is known to be there
from flax import nnx  # noqa: E402

RNG = np.random.default_rng(0)
X = RNG.standard_normal((8, 6))
ARRAYS = {
    "fc": (RNG.standard_normal((6, 4)), RNG.standard_normal(4)),
    "blocks.0": (RNG.standard_normal((4, 4)), RNG.standard_normal(4)),
    "blocks.1": (RNG.standard_normal((4, 4)), RNG.standard_normal(4)),
}
CHECKS = ["forward", "layers", "single-step", "gradients", "train"]
pytestmark = pytest.mark.usefixtures("float64")


class Torch(torch.nn.Module):
    def __init__(self, drop: float = 0.0) -> None:
        super().__init__()
        self.fc = torch.nn.Linear(6, 4)
        self.blocks = torch.nn.ModuleList([torch.nn.Linear(4, 4) for _ in range(2)])
        self.norm = torch.nn.BatchNorm1d(4, momentum=0.25)
        self.drop = torch.nn.Dropout(drop)

    def forward(self, x: Any) -> Any:
        x = self.fc(x)
        for block in self.blocks:
            x = block(x)
        return self.drop(self.norm(x))


class Nnx(nnx.Module):
    def __init__(self, rngs: nnx.Rngs, drop: float = 0.0, momentum: float = 0.75) -> None:
        self.fc = nnx.Linear(6, 4, rngs=rngs)
        self.blocks = nnx.List([nnx.Linear(4, 4, rngs=rngs) for _ in range(2)])
        self.norm = nnx.BatchNorm(4, momentum=momentum, rngs=rngs)
        self.drop = nnx.Dropout(drop, rngs=rngs)

    def __call__(self, x: Any) -> Any:
        x = self.fc(x)
        for block in self.blocks:
            x = block(x)
        return self.drop(self.norm(x))


def torch_model(**options: Any) -> Any:
    model = Torch(**options).double()
    for path, (kernel, bias) in ARRAYS.items():
        model.get_submodule(path).weight.data = torch.from_numpy(kernel.T.copy())
        model.get_submodule(path).bias.data = torch.from_numpy(bias.copy())
    return model


def nnx_model(**options: Any) -> Any:
    model = Nnx(nnx.Rngs(0), **options)
    nnx.update(model, jax.tree.map(lambda a: a.astype("float64"), nnx.state(model, nnx.Not(nnx.RngState))))
    for module, (kernel, bias) in zip((model.fc, *model.blocks), ARRAYS.values(), strict=True):
        module.kernel.set_value(jax.numpy.asarray(kernel))
        module.bias.set_value(jax.numpy.asarray(bias))
    return model


def to_linen_model() -> Any:
    """Variables with integer keys: params/blocks/0/kernel."""
    module = nnx.bridge.to_linen(Nnx, momentum=0.75)
    variables = module.init({"params": jax.random.key(0), "dropout": jax.random.key(0)}, X)
    variables = jax.tree.map(lambda a: a.astype("float64"), variables)
    for path, (kernel, bias) in ARRAYS.items():
        name, _, number = path.partition(".")
        holder = variables["params"][name]
        (holder[int(number)] if number else holder).update(
            kernel=jax.numpy.asarray(kernel), bias=jax.numpy.asarray(bias)
        )
    return module, variables


@pytest.mark.parametrize("check", CHECKS)
def test_nnx_modules_are_compared_like_any_other(check: str) -> None:
    models = {"torch": torch_model(), "nnx": nnx_model(), "to_linen": to_linen_model()}
    report = parity.compare(models, X, check, steps=2)
    assert report.passed, str(report)
    names = [name for name, _, _ in report.results[0].curve]
    if check == "layers":
        assert names == ["fc", "blocks.0", "blocks.1", "norm", "output"]
    if check == "gradients":
        assert names[2:6] == ["norm.bias", "norm.scale", "blocks.1.bias", "blocks.1.kernel"]


def test_arrays_of_another_dtype_are_reported() -> None:
    model = nnx_model()
    model.norm.mean.set_value(model.norm.mean.get_value().astype("float32"))
    about = parity.compare({"torch": torch_model(), "nnx": model}, X).about
    assert "float64, arrays in float32 as well" in about["nnx"]
    assert "as well" not in about["torch"]


def test_an_nnx_model_is_left_alone() -> None:
    model = nnx_model(drop=0.25)
    model.eval()
    before = [np.asarray(a) for a in jax.tree.leaves(nnx.state(model, nnx.Not(nnx.RngKey)))]
    call = vars(nnx.Linear)["__call__"]
    for check in CHECKS:
        parity.compare({"a": model, "b": model}, X, check, steps=2)
    assert model.drop.deterministic
    assert model.norm.use_running_average
    after = [np.asarray(a) for a in jax.tree.leaves(nnx.state(model, nnx.Not(nnx.RngKey)))]
    assert all((a == b).all() for a, b in zip(before, after, strict=True))
    assert vars(nnx.Linear)["__call__"] is call


def test_a_fault_in_an_nnx_model_is_named() -> None:
    assert parity.compare(
        {"torch": torch_model(), "nnx": nnx_model(momentum=0.5)}, X, "train", steps=2
    ).first_divergence
    wrong = nnx_model()
    wrong.blocks[1].bias.set_value(wrong.blocks[1].bias.get_value() + 1)
    assert parity.compare({"torch": torch_model(), "nnx": wrong}, X, "layers").first_divergence == "blocks.1"


@pytest.mark.parametrize("check", ["gradients", "train"])
def test_dropout_of_users_models_is_set_aside_and_its_masks_are_judged(check: str) -> None:
    models = {"torch": torch_model(drop=0.25), "nnx": nnx_model(drop=0.25)}
    report = parity.compare(models, X, check, steps=2)
    assert report.passed, str(report)
    if check == "train":
        assert [name for name, _, _ in report.results[0].curve][-1] == "dropout 0 (rate 0.25)"
        models["nnx"] = nnx_model(drop=0.5)
        assert not parity.compare(models, X, check, steps=2).passed


class ByArgument(nn.Module):
    """Its switch is an argument of the call, whose name is its field's."""

    momentum: float = 0.9

    @nn.compact
    def __call__(self, x: Any, inference: bool = True) -> Any:
        return nn.BatchNorm(use_running_average=inference, momentum=self.momentum, name="norm")(x)


class ByAttribute(nn.Module):
    momentum: float = 0.9
    train: bool = False

    @nn.compact
    def __call__(self, x: Any) -> Any:
        return nn.BatchNorm(use_running_average=not self.train, momentum=self.momentum, name="norm")(x)


class ByChild(nn.Module):
    norm: Any

    @nn.compact
    def __call__(self, x: Any) -> Any:
        return self.norm(x)


class Unknown(nn.Module):
    momentum: float = 0.9
    frozen: bool = True

    @nn.compact
    def __call__(self, x: Any) -> Any:
        return nn.BatchNorm(use_running_average=self.frozen, momentum=self.momentum, name="norm")(x)


class Needed(nn.Module):
    """In training mode unless it is switched off, and without a default."""

    momentum: float = 0.9

    @nn.compact
    def __call__(self, x: Any, train: bool) -> Any:
        return nn.BatchNorm(use_running_average=not train, momentum=self.momentum, name="norm")(x)


def child(momentum: float = 0.9) -> Any:
    return ByChild(nn.BatchNorm(use_running_average=True, momentum=momentum))


def filled(module: Any) -> Any:
    variables = module.init(jax.random.key(0), X, *([False] if isinstance(module, Needed) else []))
    return module, jax.tree.map(lambda a: a.astype("float64"), variables)


@pytest.mark.parametrize("make", [ByArgument, ByAttribute, child, Needed])
def test_the_training_switch_is_used_wherever_it_is(make: Any) -> None:
    """Another momentum shows in training alone."""
    same = {"a": filled(make()), "b": filled(make())}
    other = {"a": filled(make()), "b": filled(make(momentum=0.5))}
    assert parity.compare(same, X, "train", steps=1).passed
    assert parity.compare(other, X, "train", steps=1).first_divergence == "sgd: norm.mean"
    for check in ("forward", "layers", "gradients"):
        assert parity.compare(other, X, check).passed


def test_a_switch_of_unknown_name_is_asked_for() -> None:
    other = {"a": filled(Unknown()), "b": filled(Unknown(momentum=0.5))}
    for check in ("gradients", "train"):
        with pytest.raises(UsageError, match=r"norm \(BatchNorm, use_running_average=True\)") as raised:
            parity.compare(other, X, check, steps=1)
        assert "training={'inference': False}" in str(raised.value)
    named = parity.compare(other, X, "train", steps=1, training={"frozen": False})
    assert named.first_divergence == "sgd: norm.mean"
    assert parity.compare(other, X, "train", steps=1, training={}).passed  # as it runs: nothing is learnt
    assert parity.compare(other, X, "layers").passed  # which needs no training mode
    with pytest.raises(UsageError, match="no argument or attribute 'frosen', did you mean 'frozen'"):
        parity.compare(other, X, "train", training={"frosen": False})
    with pytest.raises(UsageError, match="training must map names to values"):
        parity.compare(other, X, "train", training=True)  # type: ignore[arg-type]


class Statistics(nn.Module):
    """Running statistics of the user's own, without any switch."""

    @nn.compact
    def __call__(self, x: Any) -> Any:
        return x - self.variable("batch_stats", "mean", lambda: jax.numpy.zeros(6)).value


def test_statistics_that_never_change_are_noticed() -> None:
    model = filled(Statistics())
    with pytest.raises(UsageError, match=r"running statistics \(batch_stats\), which a step does not change"):
        parity.compare({"a": model, "b": model}, X, "gradients")


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (lambda: (nn.Dense(4), nn.Dense(4).init(jax.random.key(0), X)["params"]), "no collection 'params' but"),
        (lambda: nn.Dense(4), "a linen module has no variables by itself"),
        (lambda: (nn.Dense(4), [1.0]), "a linen module comes with a list"),
        (lambda: Nnx, "the class Nnx is no model"),
    ],
)
def test_a_flax_model_without_its_variables_is_refused(model: Any, message: str) -> None:
    with pytest.raises(UsageError, match=f"jax: .*{message}"):
        parity.compare({"torch": torch_model(), "jax": model()}, X)


def test_boxed_and_frozen_variables_are_read() -> None:
    from flax.core import freeze

    boxed = nn.Dense(4, kernel_init=nn.with_partitioning(nn.initializers.ones, (None, "model")))
    variables = boxed.init(jax.random.key(0), X)
    models = {"a": (boxed, freeze(variables)), "b": (boxed, nn.meta.unbox(variables))}
    assert parity.compare(models, X, "layers").passed


class Remat(nn.Module):
    drop: float = 0.0

    @nn.compact
    def __call__(self, x: Any, train: bool = False) -> Any:
        x = nn.remat(nn.Dense)(4, name="inner")(x)
        x = nn.remat(nn.Dropout)(self.drop, deterministic=not train, name="drop")(x)
        return nn.Dense(4, name="outer")(x)


def test_modules_inside_a_transformation_are_no_taps() -> None:
    models = {"a": filled(Remat(0.5)), "b": filled(Remat(0.5))}
    for names in (None, {label: {"outer": "outer"} for label in models}):
        report = parity.compare(models, X, "layers", names=names)
        assert report.passed and [name for name, *_ in report.results[0].curve] == ["outer", "output"]
        said = "1 module not compared, inside nn.scan, nn.remat, nn.vmap or another transformation of JAX, where"
        assert f"{said} its outputs cannot be read: 'inner'" in " ".join(str(report).split())
    with pytest.raises(UsageError, match=r"names: module 'inner' is inside nn\.scan, nn\.remat"):
        parity.compare(models, X, "layers", names={"a": {"inner": "inner"}})
    assert parity.compare(models, X, "gradients").passed  # dropout is set aside inside of it as well
    with pytest.raises(UsageError, match="masks of dropout inside"):
        parity.compare(models, X, "train", steps=1)


def test_modules_that_nnx_scans_are_named_as_inside_a_transformation() -> None:
    """nnx.scan calls copies of them: they are not said to be never called."""

    class Block(nnx.Module):
        def __init__(self, rngs: nnx.Rngs) -> None:
            self.fc = nnx.Linear(4, 4, rngs=rngs)

        def __call__(self, x: Any) -> Any:
            return x + self.fc(x)

    class Scanned(nnx.Module):
        def __init__(self) -> None:
            self.blocks = nnx.split_rngs(splits=2)(nnx.vmap(Block))(nnx.Rngs(0))
            self.head = nnx.Conv(4, 4, 1, rngs=nnx.Rngs(0))
            self.unused = nnx.Embed(3, 4, rngs=nnx.Rngs(0))

        def __call__(self, x: Any) -> Any:
            step = nnx.scan(lambda x, block: block(x), in_axes=(nnx.Carry, 0), out_axes=nnx.Carry)
            return self.head(step(x, self.blocks)[:, None])[:, 0]

    x = np.ones((2, 4), "float32")
    report = parity.compare({"a": Scanned(), "b": Scanned()}, x, "layers")
    said = " ".join(str(report).split())
    assert report.passed and "1 module not compared, inside nn.scan, nn.remat, nn.vmap or another" in said
    assert "cannot be read: 'blocks.fc'" in said and "never called: 'unused'" in said


def test_a_model_that_is_inside_a_transformation_as_a_whole_is_refused() -> None:
    whole = nn.remat(nn.Dense)(4)
    with pytest.raises(UsageError, match=r"of a module inside nn\.scan, nn\.remat") as refused:
        parity.compare({"a": filled(whole), "b": filled(whole)}, X, "layers")
    assert refused.value.__suppress_context__  # no page of jax's own tracebacks before it


@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_complex_parameters_have_the_same_gradients_as_in_torch(dtype: str) -> None:
    """jax.grad returns the conjugate of torch's."""
    w = (RNG.standard_normal((6, 3)) + 1j * RNG.standard_normal((6, 3))).astype("complex64")

    class Linen(nn.Module):
        @nn.compact
        def __call__(self, x: Any) -> Any:
            return x @ self.param("w", lambda _: w)

    class OwnNnx(nnx.Module):
        def __init__(self) -> None:
            self.w = nnx.Param(jax.numpy.asarray(w))

        def __call__(self, x: Any) -> Any:
            return x @ self.w[...]

    class OwnTorch(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.w = torch.nn.Parameter(torch.tensor(w))

        def forward(self, x: Any) -> Any:
            return x.to(self.w.dtype) @ self.w

    models = {"torch": OwnTorch(), "linen": (Linen(), {"params": {"w": w}}), "nnx": OwnNnx()}
    report = parity.compare(models, X, "gradients", dtype=dtype)
    assert report.passed
    assert {tuple(name for name, *_ in r.curve) for r in report} == {("loss", "output", "w", "images")}


class Tied(nnx.Module):
    """Tokens in, scores of every token out, by one table."""

    def __init__(self, **options: Any) -> None:
        self.embed = nnx.Embed(7, 4, rngs=nnx.Rngs(0), **options)

    def __call__(self, tokens: Any) -> Any:
        return {"scores": self.embed.attend(jax.numpy.tanh(self.embed(tokens)))}


class TiedTorch(torch.nn.Module):
    def __init__(self, table: np.ndarray) -> None:
        super().__init__()
        self.embed = torch.nn.Embedding(7, 4)
        self.embed.weight.data = torch.from_numpy(np.array(table))

    def forward(self, tokens: Any) -> Any:
        return {"scores": self.embed(tokens).tanh() @ self.embed.weight.mT}


@pytest.mark.parametrize("check", ["forward", "train"])
def test_a_table_of_nnx_is_read_in_float64_where_the_model_is(check: str) -> None:
    """nnx.Embed notes the dtype of its parameter when it is built, and casts to it in every call."""
    tokens, model = np.arange(6).reshape(2, 3), Tied()
    sides = {"torch": TiedTorch(np.asarray(model.embed.embedding[...])), "flax": model}
    assert parity.compare(sides, tokens, check, dtype="float64").passed
    assert model.embed.dtype == "float32", "the user's own model was changed"
    mixed = {**sides, "flax": Tied(dtype="bfloat16")}
    assert not parity.compare(mixed, tokens, check, dtype="float64").passed, "a dtype that a user chose is kept"


@pytest.mark.parametrize("shape", [(2, 3, 8, 6), (2, 8, 6, 3)], ids=["first", "last"])
def test_an_error_about_a_shape_says_how_images_are_laid_out(shape):
    """Images are channels first for all models: those of a linen model alone are given otherwise by mistake."""
    import flax.linen as nn
    import jax

    module = nn.Conv(4, (3, 3))
    variables = module.init(jax.random.key(0), np.zeros((1, 8, 6, 3)))
    models = {"a": (module, variables), "b": (module, variables)}
    images = np.random.default_rng(0).standard_normal(shape)
    if shape[1] == 3:
        assert parity.compare(models, images).passed
        return
    with pytest.raises(UsageError, match=r"channels first to all models, .*as \[2, 6, 3, 8\]; .*\(0, 3, 1, 2\)"):
        parity.compare(models, images)
    first = images.transpose(0, 3, 1, 2)
    remedy = r"images in linen have channels last: x\.transpose\(0, 2, 3, 1\) .*right_inputs=... gives the right model"
    for call in (parity.derive, parity.transfer):
        with pytest.raises(UsageError, match=remedy):
            call((module, variables), (module, variables), (first,))


def test_modules_are_listed_as_an_nnx_model_spells_them() -> None:
    report = parity.compare({"a": nnx_model(), "b": nnx_model()}, X, check="layers", dtype="float64")
    assert {one.path for one in report.modules["a"]} == {"fc", "blocks.0", "blocks.1", "norm", "drop"}

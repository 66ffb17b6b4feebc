"""docs/own-architecture.md: its page is well defined, and it leaves no member out."""

import re
import sys
from dataclasses import fields
from pathlib import Path

import pytest

from specs.checking.checks import faults
from specs.kinds import KINDS
from specs.layer import Layer, count
from specs.preprocessing import Preprocessing
from specs.spec import Dialect, Spec

ROOT = Path(__file__).parent.parent
TEXT = (ROOT / "docs" / "own-architecture.md").read_text()
PYTHON = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)


def test_the_python_of_the_page_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    space = {"__name__": "docs"}
    monkeypatch.setitem(sys.modules, "docs", type(sys)("docs"))
    for code in PYTHON:
        exec(compile(code, "own-architecture.md", "exec", dont_inherit=True), space)
    assert faults(space["SPEC"]) == []
    fixed = {name for dialect in space["SPEC"].dialects.values() for name in dialect.conventions}
    assert space["SPEC"].unshown and space["SPEC"].unshown.isdisjoint(fixed)
    twin = space["TINY"]["S"]
    assert count(list(space["layers"](twin))) > 0
    with pytest.raises(ValueError, match="do not split"):
        space["SPEC"].check_images(twin, 7, 8)


def test_the_table_of_the_page_is_well_defined(tmp_path, monkeypatch):
    """Every line places or renames something, as the converter checks it."""
    import specs
    from convert import dialect_faults

    monkeypatch.setattr(specs, "_added", {})
    page = tmp_path / "documented.py"
    page.write_text("".join(code for code in PYTHON if "parity" not in code))
    (tmp_path / "head_mixer_torch.py").write_text("class HeadMixer: ...")
    monkeypatch.setitem(sys.modules, "my_package.head_mixer_flax", type(sys)("head_mixer_flax"))
    dialect_faults.check_dialects(specs.add(str(page)))


@pytest.mark.parametrize("name", [
    *(f.name for f in fields(Spec)), *Dialect._fields, *KINDS, *(f.name for f in fields(Preprocessing)),
])  # fmt: skip
def test_it_names_every_member_and_every_kind(name):
    assert f"`{name}`" in TEXT


@pytest.mark.parametrize("name", Layer._fields)
def test_it_says_what_a_layer_is_made_of(name):
    assert name in re.search(r"`Layer\(([^)]*)\)`", TEXT)[1]


@pytest.mark.parametrize(("kind", "leaf"), [(kind, leaf) for kind in KINDS for leaf in KINDS[kind].axes if leaf])
def test_it_names_every_leaf_with_its_axes(kind, leaf):
    (row,) = [line for line in TEXT.splitlines() if line.startswith("|") and f"`{kind}`" in line.split("|")[1]]
    assert leaf in row


STAGED = """
SPEC = Spec(
    config=Staged, layers=layers_of, infer=infer_of, variants={}, network="Staged",
    feature_maps=("stem", "block", "block.norm"),
    tiny={"a": Staged(width=5, scaled=True, classes=3), "b": Staged(width=6, scaled=False, classes=2)},
    input_shape=lambda c: (c.channels, 16, 12), ports={f: f"staged_{f}.py" for f in ("flax", "torch", "paddle")},
)
"""
CONFIG = """
@dataclass(frozen=True, kw_only=True)
class Staged:
    width: int
    scaled: bool
    channels: int = 3
    classes: int = 1000


def layers_of(c):
    yield conv("stem", c.channels, c.width, 2, 2)
    yield from block("block", c.width, c.scaled)
    yield dense("head", c.width, c.classes)


def infer_of(sizes):
    return {"width": sizes["stem.kernel", "o"], "channels": sizes["stem.kernel", "i"], "scaled": "block.gamma" in sizes,
            "classes": sizes["head.kernel", "o"]}
"""
NETWORKS = {
    "flax": """
import flax.linen as nn
{block}
class Staged(nn.Module):
    config: object

    @nn.compact
    def __call__(self, images, train=False):
        c = self.config
        x = nn.Conv(c.width, (2, 2), (2, 2), padding="VALID", name="stem")(images)
        return nn.Dense(c.classes, name="head")(Block(c.width, c.scaled, name="block")(x).mean((1, 2)))
""",
    "torch": """
import torch
from torch import nn
{block}
class Staged(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.stem = nn.Conv2d(c.channels, c.width, 2, 2)
        self.block, self.head = Block(c.width, c.scaled), nn.Linear(c.width, c.classes)

    def forward(self, images):
        return self.head(self.block(self.stem(images)).mean((2, 3)))
""",
}
NETWORKS["paddle"] = (
    NETWORKS["torch"].replace("import torch\nfrom torch", "from paddle").replace("nn.Module", "nn.Layer")
    .replace("Conv2d", "Conv2D").replace("(2, 3)", "[2, 3]")
)  # fmt: skip


def test_the_block_of_the_page_is_the_same_in_every_framework(tmp_path, monkeypatch):
    import ports
    import specs
    from parity.__main__ import main
    from specs.dialects import PORTS, shapes
    from specs.layer import norm

    from .conftest import needs

    monkeypatch.setattr(specs, "_added", {})
    head, *_ = PYTHON
    (stages,) = (code for code in PYTHON if "def stages" in code)
    (tmp_path / "staged.py").write_text(head + stages + CONFIG + STAGED)
    for framework, text in NETWORKS.items():
        needs(framework)
        (snippet,) = re.findall(rf"```python {framework}\n(.*?)```", TEXT, re.DOTALL)
        (tmp_path / f"staged_{framework}.py").write_text(text.replace("{block}", snippet))
    assert main(["staged", "--spec", str(tmp_path / "staged.py"), "--check", "layers", "gradients"]) == 0
    port = ports.build("staged", "tiny a", "torch")
    counted = [name for name, _ in port.model.named_parameters()]
    assert counted == [name for name in shapes(port.spec.layers(port.config), PORTS["torch"]) if name in counted]
    assert "params/stages_0_1/norm/scale" in shapes([norm("stages.0.1.norm", 3)], PORTS["flax"])


def test_the_stages_of_the_page_are_read_off_their_arrays():
    from specs.layer import Sizes, parameters

    space = {"__name__": __name__}
    for code in (PYTHON[0], *(code for code in PYTHON if "def stages" in code)):
        exec(compile(code, "own-architecture.md", "exec", dont_inherit=True), space)
    arrays = parameters(list(space["stages"]((2, 1), (4, 6))))
    sizes = Sizes({array.name: dict(zip(array.axes, array.shape, strict=True)) for array in arrays})
    assert space["infer_stages"](sizes) == {"depths": (2, 1), "widths": (4, 6), "scaled": True}
    assert "stages.1.down.kernel" in sizes and "stages.0.down.kernel" not in sizes


VOLUMES = """
def layers_of(c):
    yield Layer("stem", "conv{n}d", {{"i": c.channels, "o": c.width, {sizes}}})
    yield batch_norm("body.norm", c.width)
    yield dense("head", c.width, c.classes)


def infer_of(sizes):
    stem = sizes.axes("stem.kernel")
    return {{"width": stem["o"], "channels": stem["i"], "classes": sizes["head.kernel", "o"]}}


SPEC = Spec(
    config=Volumes, layers=layers_of, infer=infer_of, variants={{}}, network="Volumes", feature_maps=("body",),
    tiny={{"a": Volumes(width=6, classes=3), "b": Volumes(width=4, classes=2)}},
    input_shape=lambda c: (c.channels, 6, 6), ports={{f: f"volumes{n}_{{f}}.py" for f in ("flax", "torch")}},
)
"""
OF_VOLUMES = {
    "flax": """
import flax.linen as nn
class Body(nn.Module):
    train: bool

    @nn.compact
    def __call__(self, x):
        return nn.relu(nn.BatchNorm(not self.train, momentum=0.9, epsilon=1e-5, name="norm")(x))

class Volumes(nn.Module):
    config: object

    @nn.compact
    def __call__(self, images, train=False):
        c = self.config
        x = nn.Conv(c.width, {kernel}, padding="VALID", name="stem")({flax})
        x = Body(train, name="body")(x)
        return nn.Dense(c.classes, name="head")(x.mean(tuple(range(1, x.ndim - 1))))
""",
    "torch": """
from torch import nn
class Body(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.norm = nn.BatchNorm{n}d(c.width)

    def forward(self, x):
        return self.norm(x).relu()

class Volumes(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.stem = nn.Conv{n}d(c.channels, c.width, {kernel})
        self.body, self.head = Body(c), nn.Linear(c.width, c.classes)

    def forward(self, images):
        return self.head(self.body(self.stem({torch})).flatten(2).mean(2))
""",
}


@pytest.mark.parametrize(("n", "kernel", "sizes", "flax", "torch"), [
    (1, (3,), '"w": 3', "images.reshape(len(images), -1, c.channels)", "images.flatten(2)"),
    (3, (1, 2, 3), '"d": 1, "h": 2, "w": 3', "images[:, None]", "images[:, :, None]"),
])  # fmt: skip
def test_sequences_and_volumes_are_compared_channels_second(n, kernel, sizes, flax, torch, tmp_path, monkeypatch):
    import specs
    from parity.__main__ import main

    from .conftest import needs

    monkeypatch.setattr(specs, "_added", {})
    config = CONFIG.partition("def layers_of")[0].replace("Staged", "Volumes").replace("    scaled: bool\n", "")
    page = tmp_path / f"volumes{n}.py"
    page.write_text(PYTHON[0] + config + VOLUMES.format(n=n, sizes=sizes))
    for framework, text in OF_VOLUMES.items():
        needs(framework)
        filled = text.format(n=n, kernel=kernel, flax=flax, torch=torch)
        (tmp_path / f"volumes{n}_{framework}.py").write_text(filled)
    assert main([f"volumes{n}", "--spec", str(page), "--check", "layers", "single-step", "gradients"]) == 0


RECURRENT = """
def layers_of(c):
    yield lstm_cell("lstm", c.channels, c.width)
    yield dense("head", c.width, c.classes)


def infer_of(sizes):
    arrays = sizes.axes("lstm.input_kernel")
    return {"width": arrays["h"], "channels": arrays["i"], "classes": sizes["head.kernel", "o"]}


SPEC = Spec(
    config=Recurrent, layers=layers_of, infer=infer_of, variants={}, network="Recurrent",
    tiny={"a": Recurrent(width=5, classes=4), "b": Recurrent(width=6, classes=2)},
    input_shape=lambda c: (c.channels, 3, 2), ports={f: f"recurrent_{f}.py" for f in ("flax", "torch", "paddle")},
)
"""
OF_RECURRENT = {
    "flax": """
import flax.linen as nn
import jax
import jax.numpy as jnp
{block}
class Recurrent(nn.Module):
    config: object

    @nn.compact
    def __call__(self, images, train=False):
        x = LSTM(self.config.width, name="lstm")(images.reshape(len(images), -1, self.config.channels))
        return nn.Dense(self.config.classes, name="head")(x[:, -1])
""",
    "torch": """
import torch
from torch import nn
{block}
class Recurrent(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.lstm, self.head = LSTM(c.channels, c.width), nn.Linear(c.width, c.classes)

    def forward(self, images):
        return self.head(self.lstm(images.flatten(2).transpose(1, 2))[:, -1])
""",
}
OF_RECURRENT["paddle"] = (
    OF_RECURRENT["torch"].replace("import torch\nfrom torch", "import paddle\nfrom paddle")
    .replace("nn.Module", "nn.Layer").replace("transpose(1, 2)", "transpose([0, 2, 1])")
)  # fmt: skip


def test_the_lstm_of_the_page_is_the_same_in_every_framework(tmp_path, monkeypatch):
    import specs
    from parity.__main__ import main

    from .conftest import needs

    monkeypatch.setattr(specs, "_added", {})
    config = CONFIG.partition("def layers_of")[0].replace("Staged", "Recurrent").replace("    scaled: bool\n", "")
    page = tmp_path / "recurrent.py"
    page.write_text(PYTHON[0] + "from specs.layer import lstm_cell\n" + config + RECURRENT)
    for framework, text in OF_RECURRENT.items():
        needs(framework)
        (snippet,) = re.findall(rf"```python {framework} lstm\n(.*?)```", TEXT, re.DOTALL)
        (tmp_path / f"recurrent_{framework}.py").write_text(text.replace("{block}", snippet))
    assert main(["recurrent", "--spec", str(page), "--check", "layers", "gradients"]) == 0

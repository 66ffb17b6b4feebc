"""docs/quick-start.md, as it stands there: convert, fine-tune, save with the framework's own call, convert back."""

import json
import shutil
import tomllib
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest

import ports
from convert.__main__ import main
from convert.errors import UsageError

from . import documents
from .conftest import needs
from .golden import Case

TEXT = documents.read("docs/quick-start.md")
SINGLE = 1e-5  # float32 runs of one model in two frameworks, relative to the largest logit: as in test_goldens.py


class Journey(NamedTuple):
    """A section of the quick start.

    Args:
      heading: of the section.
      framework: in which it trains.
      other: the second framework, which its proof needs.
      case: the golden case that stands for the user's file.
      golden: the case's file.
      source, saved, back: names of the files in the document.
      open: Config fields that the saved file leaves open.
    """

    heading: str
    framework: str
    other: str
    case: str
    golden: str
    source: str
    saved: str
    back: str
    open: list[str]


JOURNEYS = [
    Journey("PyTorch", "torch", "flax", "flax_mixer", "weights.npz", "mixer.npz", "tuned.pt", "tuned.npz",
            ["gelu", "norm_eps"]),
    Journey("JAX and Flax", "flax", "torch", "timm_mixer", "weights.pth", "mixer.pth", "tuned.msgpack", "tuned.pth",
            ["gelu", "norm_eps"]),
    Journey("PaddlePaddle", "paddle", "torch", "locuslab_convmixer_gelu", "checkpoint.pth.tar", "convmixer.pth.tar",
            "tuned.pdparams", "tuned.pth", ["act", "norm_eps", "norm_momentum"]),
]  # fmt: skip


def batches(images):
    rng = np.random.default_rng(0)
    return [(rng.standard_normal(images.shape, dtype="float32"), rng.integers(0, 7, len(images))) for _ in range(5)]


def convert(text):
    """Return the arguments of every `python -m convert` in a text."""
    named = [documents.module(words) for words in documents.commands(text)]
    return [arguments for name, arguments in named if name == "convert"]


@pytest.fixture(params=JOURNEYS, ids=lambda journey: journey.framework)
def journey(request, tmp_path, monkeypatch):
    """A journey with its source file in the current folder."""
    needs(request.param.framework)
    needs(request.param.other)
    monkeypatch.chdir(tmp_path)
    shutil.copy(Case(request.param.case).folder / request.param.golden, request.param.source)
    return request.param


def outputs(space, images):
    """Return what the trained model computes, in the framework that trained it."""
    port = space["port"]
    if "variables" in space:
        port.model = space["module"], space["variables"]
    return port(images)


@pytest.mark.filterwarnings("ignore:When training, we now always track global mean")  # paddle, of its own BatchNorm
def test_the_journey(journey, capsys):
    """The file that comes back computes what the trained model does; what it leaves open is asked for."""
    case, text = Case(journey.case), documents.section(TEXT, journey.heading)
    there = [words for words in convert(text) if journey.saved not in words and journey.back not in words]
    back = [words for words in convert(text) if words not in there]
    assert next(words[0] for words in there) == "inspect"
    assert [words[0] for words in back][1:] == ["diff", "verify"]
    for words in there:
        assert main(words) == 0, words
    printed = capsys.readouterr()
    assert "proven: " in printed.out + printed.err

    space = {"images": case.images.astype("float32"), "batches": batches(case.images)}
    exec(compile(documents.python(text), "quick-start.md", "exec", dont_inherit=True), space)
    expected = outputs(space, case.images)
    capsys.readouterr()

    route, *_ = back[0]
    assert main([route, journey.saved, "-o", journey.back]) == 2
    err = capsys.readouterr().err
    assert all(f"{name} is open" in err for name in journey.open)
    assert "--config" in err
    assert not Path(journey.back).exists()

    for words in back:
        assert main(words) == 0, words
    printed = capsys.readouterr()
    assert "the same model" in printed.out and "intact" in printed.out
    assert json.loads(Path(f"{journey.back}.json").read_text())["assumed"] == []
    found = ports.load(journey.back, journey.framework, dtype="float64")(case.images)
    size = np.abs(expected).max()
    assert np.abs(found - expected).max() <= SINGLE * size
    assert np.abs(found - case.logits).max() > 100 * SINGLE * size, "training changed nothing"


def test_a_guess_is_marked_and_computes_something_else(tmp_path, monkeypatch, capsys):
    """--assume where --config is needed: the record says so, and another GELU gives other logits."""
    needs("torch")
    monkeypatch.chdir(tmp_path)
    case = Case("flax_mixer")
    shutil.copy(case.folder / "weights.npz", "mixer.npz")
    assert main(["google2torch", "mixer.npz"]) == 0
    port = ports.load("mixer.safetensors", "torch", dtype="float64")
    import torch

    torch.save(port.model.state_dict(), "tuned.pt")
    assert main(["torch2google", "tuned.pt", "--assume"]) == 0
    assert json.loads(Path("tuned.npz.json").read_text())["assumed"] == ["gelu", "norm_eps"]
    with pytest.warns(UserWarning, match="assumed when the record was written, not known: gelu=erf"):
        guessed = ports.load("tuned.npz", "torch", dtype="float64")(case.images)
    assert np.abs(guessed - case.logits).max() > 1e-6
    capsys.readouterr()


@pytest.mark.parametrize("journey", JOURNEYS, ids=lambda journey: journey.framework)
def test_the_journey_installs_what_it_needs(journey):
    """Each section names the two frameworks of its proof, by extras that exist."""
    (words,) = [words for words in documents.commands(documents.section(TEXT, journey.heading)) if words[0] == "pip"]
    assert words[1] == "install"
    extras = words[2].removeprefix(".[").removesuffix("]").split(",")
    assert extras == [journey.framework, journey.other]
    known = tomllib.loads(documents.read("pyproject.toml"))["project"]["optional-dependencies"]
    assert set(extras) <= set(known)


@pytest.mark.parametrize("framework, suffix", [("torch", ".pt"), ("paddle", ".pdparams"), ("flax", ".msgpack")])
def test_a_model_with_another_head_is_saved_and_converted_back(framework, suffix, tmp_path, monkeypatch, capsys):
    """Its own save function, `ports.save` and `port.save` lead to the same file, with the new number of classes."""
    needs(framework)
    monkeypatch.chdir(tmp_path)
    assert main(["google2torch", str(Case("flax_mixer").folder / "weights.npz"), "-o", "mixer.safetensors"]) == 0
    text = documents.section(TEXT, "Another number of classes")
    (code,) = (block.text for block in documents.blocks(text) if f'framework="{framework}"' in block.text)
    space = {}
    exec(compile(code, "quick-start.md", "exec", dont_inherit=True), space)
    (words,) = convert(text)
    own = [word.replace("torch2", f"{framework}2").replace("five.pt", f"five{suffix}") for word in words]
    assert main(own) == 0, capsys.readouterr().err
    assert main([own[0], "five.safetensors", "-o", "saved.npz"]) == 0
    if framework != "flax":
        space["port"].save("port.safetensors")
        assert main([own[0], "port.safetensors", "-o", "port.npz"]) == 0
    for name in ("saved.npz", *(["port.npz"] if framework != "flax" else [])):
        with np.load("five.npz") as one, np.load(name) as other:
            assert one["head/bias"].shape == (5,) and one.files == other.files
            assert all(np.array_equal(one[key], other[key]) for key in one.files)
        assert json.loads(Path(f"{name}.json").read_text())["config"]["classes"] == 5
    with pytest.raises(UsageError, match="Another number of classes, shows how to give a model another head"):
        ports.load("mixer.safetensors", framework, classes=5)

"""README's journey, as it stands there: convert, fine-tune, save with the framework's own call, convert back."""

import json
import re
import shlex
import shutil
from pathlib import Path

import numpy as np
import pytest

import ports
from convert.__main__ import main

from .conftest import needs
from .golden import Case

README = Path(__file__).parent.parent / "README.md"
CASE = Case("flax_mixer")
FRAMEWORKS = ("torch", "flax", "paddle")
SAVED = {"torch": "tuned.pt", "flax": "tuned.msgpack", "paddle": "tuned.pdparams"}
TOLERANCE = 1e-10  # float64, as of every comparison of ports


def section():
    """README's section on fine-tuning."""
    return re.search(r"\n## Fine-tune elsewhere.*?(?=\n## )", README.read_text(), re.DOTALL)[0]


def block(framework):
    """A framework's lines of Python."""
    text = re.search(rf"\nin {framework}:\n\n((?:    .*\n)+)", section())[1]
    return re.sub(r"^    ", "", text, flags=re.MULTILINE)


def commands(start):
    """Commands of a route that begins so, as words after `python -m convert`."""
    return [
        shlex.split(line)[3:] for line in re.findall(rf"^    (python -m convert {start}.*)$", section(), re.MULTILINE)
    ]


def batches():
    rng = np.random.default_rng(0)
    shape = CASE.images.shape
    return [(rng.standard_normal(shape), rng.integers(0, 7, shape[0])) for _ in range(5)]


def outputs(variables):
    """What the tuned model computes, in the framework that tuned it."""
    port = variables["port"]
    if "variables" in variables:
        port.runner.model = port.model._replace(variables=variables["variables"])
    return port(CASE.images)


@pytest.fixture
def tuned(tmp_path, monkeypatch):
    """Take README's journey as far as the framework's own file; what it computes."""

    def tune(framework):
        needs(framework)
        monkeypatch.chdir(tmp_path)
        shutil.copy(CASE.folder / "weights.npz", "mixer.npz")
        (first,) = commands("google2torch")
        assert main(first) == 0
        variables = {"batches": batches()}
        exec(block(framework), variables)
        return outputs(variables)

    return tune


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_the_journey_in_the_readme(framework, tuned, capsys):
    """The converted file computes what the tuned model does. A guess is marked, and computes something else."""
    expected = tuned(framework)
    route = f"{framework}2google"
    assert main([route, SAVED[framework]]) == 2
    err = capsys.readouterr().err
    assert "gelu is open: set it (erf or tanh)" in err
    assert "--config mixer.safetensors" in err and "--assume" in err
    assert not Path("tuned.npz").exists()

    (back,) = commands(route)
    assert main(back) == 0
    assert "assumed" not in capsys.readouterr().err
    found = ports.load("tuned.npz", framework, dtype="float64")(CASE.images)
    assert np.abs(found - expected).max() <= TOLERANCE
    assert np.abs(found - CASE.logits).max() > 1e-6, "tuning changed nothing"

    assert main([route, SAVED[framework], "--assume", "--force"]) == 0
    assert "these weights mean" not in capsys.readouterr().err
    assert json.loads(Path("tuned.npz.json").read_text())["assumed"] == ["gelu", "norm_eps"]
    with pytest.warns(UserWarning, match="assumed when the record was written, not known: gelu=erf"):
        guessed = ports.load("tuned.npz", framework, dtype="float64")(CASE.images)
    assert np.abs(guessed - expected).max() > 1e-6

"""The state of an optimizer moves with the weights: 5 steps in A and 5 in B are 10 steps in A."""

import itertools
import math
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

import convert
from convert.errors import ConvertError
from convert.optimizer.shared import one_step
from convert.plans import planning

from . import optimizing
from .conftest import needs
from .optimizing import HYPER, SUFFIX, TINY, TRAINERS, batches, config_of, save_config

TOLERANCE = 1e-9  # relative, float64: ten steps of training amplify rounding
DIRECTIONS = list(itertools.permutations(TRAINERS, 2))
CASES = [("mlp_mixer", kind) for kind in HYPER] + [(a, "adamw") for a in TINY if a != "mlp_mixer"]


def stated(kind):
    """What optax and paddle do not store."""
    return [
        word for name, value in {**HYPER[kind], "kind": kind}.items() for word in ("--hyper", f"{name}={spelt(value)}")
    ]


def spelt(value):
    return str(value).lower() if isinstance(value, bool) else value


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """The files of a training after 5 and after 10 steps."""
    made = {}

    def train(architecture, kind, framework):
        needs(framework)
        key = architecture, kind, framework
        if key not in made:
            folder = tmp_path_factory.mktemp("trained")
            run = TRAINERS[framework](architecture, kind)
            files = [folder / f"step{n}{SUFFIX[framework]}" for n in (5, 10)]
            for file, some in zip(files, (batches(architecture)[:5], batches(architecture)[5:]), strict=True):
                run.train(some)
                run.save(file)
            made[key] = files
        return made[key]

    return train


def weights(path, architecture):
    """A file's weights, in the layout that all frameworks share."""
    from specs import config as configs

    with planning.plan(path, settings=configs.as_dict(optimizing.config_of(architecture))) as plan:
        return dict(plan.arrays())


def compare(left, right):
    counters = {name for name in {*left, *right} if name.endswith(".count")}  # of batches: torch's alone
    assert left.keys() - counters == right.keys() - counters
    for name in left.keys() - counters:
        error, size = np.abs(left[name] - right[name]).max(), np.abs(left[name]).max()
        assert error <= TOLERANCE * size, f"{name}: {error:.1e} of {size:.1e}"


@pytest.mark.parametrize(("left", "right"), DIRECTIONS)
@pytest.mark.parametrize(("architecture", "kind"), CASES)
def test_training_goes_on_elsewhere(architecture, kind, left, right, trained, run, tmp_path):
    needs(right)
    five, ten = trained(architecture, kind, left)
    again = TRAINERS[right](architecture, kind)
    like = []
    if right == "paddle":
        import paddle

        paddle.save(again.model.state_dict(), str(tmp_path / "new.pdparams"))
        like = ["--like", tmp_path / "new.pdparams"]
    out = tmp_path / f"out{SUFFIX[right]}"
    config = ["--config", save_config(architecture, tmp_path / "config.json")]
    hyper = stated(kind) if left != "torch" else []
    code, _, err = run(f"{left}2{right}", five, "-o", out, "--with-optimizer", *config, *like, *hyper)
    assert code == 0, err
    normed = any(name.endswith(".var") for name in weights(five, architecture))
    assert ("updates running variances with n / (n - 1)" in err) == (normed and "torch" in (left, right))
    to_do = err.partition("goes along")[0]
    assert "learning-rate scheduler needs an entry" not in to_do, err  # neither state shows a schedule
    again.load(out)
    again.train(batches(architecture)[5:])
    again.save(tmp_path / f"end{SUFFIX[right]}")
    compare(weights(ten, architecture), weights(tmp_path / f"end{SUFFIX[right]}", architecture))


# Running statistics were apart by 1.2e-7 where float32 rounds the settings, else by 4e-16; weights by 2e-14 at most.
@pytest.mark.parametrize(("epsilon", "momentum", "least", "most"), [(1e-5, 0.9, 1e-9, 1e-6), (2**-17, 0.875, 0, 1e-12)])
def test_paddle_rounds_settings_of_running_statistics(epsilon, momentum, least, most, run, tmp_path, monkeypatch):
    """Five steps in paddle and five in torch, which averages the biased variance as docs/training.md shows."""
    needs("paddle"), needs("torch")
    config = replace(config_of("convmixer"), norm_eps=epsilon, norm_momentum=momentum)
    monkeypatch.setattr(optimizing, "config_of", lambda architecture: config)
    five, rest = batches("convmixer")[:5], batches("convmixer")[5:]
    there, back = TRAINERS["paddle"]("convmixer", "adamw"), TRAINERS["torch"]("convmixer", "adamw")
    there.model.train(), back.model.train()
    there.train(five), there.save(tmp_path / "five.pdparams")
    there.train(rest), there.save(tmp_path / "ten.pdparams")
    words = ["--config", save_config("convmixer", tmp_path / "config.json"), "--with-optimizer", *stated("adamw")]
    code, _, err = run("paddle2torch", tmp_path / "five.pdparams", "-o", tmp_path / "five.pt", *words)
    assert code == 0, err
    assert "paddle rounds epsilon and momentum of norms to float32, in 5 BatchNorms: " in err
    back.load(tmp_path / "five.pt")
    exec(optimizing.shown("## BatchNorm"), {"model": back.model})
    back.train(rest), back.save(tmp_path / "ten.pt")
    left, right = (weights(tmp_path / f"ten{suffix}", "convmixer") for suffix in (".pdparams", ".pt"))
    statistics, others = [0.0], [0.0]
    for name in left.keys() - {name for name in left if name.endswith(".count")}:
        error = np.abs(left[name] - right[name]).max() / np.abs(left[name]).max()
        (statistics if name.endswith((".mean", ".var")) else others).append(error)
    assert least <= max(statistics) <= most and max(others) <= TOLERANCE


def test_python_writes_what_the_command_writes(trained, run, tmp_path):
    """With what paddle does not store, stated as values and not as text."""
    needs("torch")
    five, config = trained("mlp_mixer", "sgd", "paddle")[0], save_config("mlp_mixer", tmp_path / "config.json")
    out = tmp_path / "five.pt"
    assert run("paddle2torch", five, "-o", out, "--with-optimizer", "--config", config, *stated("sgd"))[0] == 0
    written = out.read_bytes()
    with (
        convert.plan(five, "paddle", "torch", config) as plan,
        convert.with_optimizer(plan, out, {**HYPER["sgd"], "kind": "sgd"}) as whole,
    ):
        record = whole.write(force=True)
    assert out.read_bytes() == written and record["optimizer"]["kind"] == "sgd"


@pytest.mark.parametrize("stated", [{}, {"step": 3}])
@pytest.mark.parametrize("count", [2.5, -3.0, math.nan, math.inf])
def test_a_count_that_is_no_number_of_steps_is_refused(count, stated):
    with pytest.raises(ConvertError, match=r"its optimizer counts \S+ steps: a count is a whole number from 0 on"):
        one_step(SimpleNamespace(path="m.pt"), {count}, stated)

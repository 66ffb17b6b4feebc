"""Training of sound pairs agrees and of unsound ones does not, with dropout and from upstream's initialisation."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest

import parity
import ports
import specs
from ports.runners.records import describe_drop

torch = pytest.importorskip("torch", reason="torch is not installed")
paddle = pytest.importorskip("paddle", reason="paddle is not installed")

SPEC = specs.get("mobile_former")
PLAIN = SPEC.tiny["plain"]
IMAGES = np.random.default_rng(0).standard_normal((2, *SPEC.input_shape(PLAIN)))


def pair(init: str, **rates: float) -> dict[str, Any]:
    config = dataclasses.replace(PLAIN, **rates)
    return {f: ports.build("mobile_former", config, f, init=init, dtype="float64") for f in ("torch", "paddle")}


def test_dropout_behind_zeros_is_no_false_alarm_and_hides_no_momentum() -> None:
    """The last dropout of Mobile-Former follows an activation that is 0 where earlier masks make it so."""
    made = pair("random", dropout=0.2)
    report = parity.compare(made, IMAGES, "train", steps=2)
    assert report.passed, str(report)
    assert "torch's BatchNorms were trained with the biased variance" in report.results[0].cause
    made["torch"].model.stem.norm.momentum = 0.9
    assert parity.compare(made, IMAGES, "train", steps=2).first_divergence == "sgd: stem.norm.mean"


def test_biases_of_zeros_ahead_of_norms_are_no_false_alarm(recwarn: pytest.WarningsRecorder) -> None:
    """Upstream's initialisation: what trains them is the rounding of gradients that cancel, up to 1e-14 in size.

    Paddle warns at each step of each BatchNorm that it tracks statistics: that is not repeated.
    """
    report = parity.compare(pair("upstream"), IMAGES, "train", steps=2)
    assert report.passed, str(report)
    assert not [warning for warning in recwarn if "track global mean" in str(warning.message)]


def test_units_are_counted_whatever_they_hold() -> None:
    into = np.array([[0.0, 1.0], [0.0, 0.0], [2.0, 3.0]])
    drop = describe_drop(into, into * [[0.0], [2.0], [2.0]], 0.5)
    assert (drop.units, drop.kept.tolist()) == (6, [False, True, True])
    whole = describe_drop(into[[0, 2]], into[[0, 2]] * [[0.0], [2.0]], 0.5, [1])
    assert (whole.units, whole.kept.tolist()) == (2, [False, True])


@pytest.mark.parametrize("windows", [3, 4], ids=["1/9 rounds", "1/16 is exact, and a scale of 1e-4 more is a fault"])
def test_average_pooling_of_paddle_is_named_where_gradients_differ_by_what_it_rounds(windows: int) -> None:
    left = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.AvgPool2d(windows)).double()
    right = paddle.nn.Sequential(paddle.nn.Conv2D(3, 4, 3), paddle.nn.AvgPool2D(windows)).to(dtype="float64")
    right.set_state_dict({name: paddle.to_tensor(array.numpy()) for name, array in left.state_dict().items()})
    if windows == 4:
        left[0].weight.register_hook(lambda gradient: gradient * 1.0001)
    images = np.random.default_rng(0).standard_normal((2, 3, 10, 10))
    text = " ".join(str(parity.compare({"torch": left, "mine": right}, images, "gradients")).split())
    assert ("next look for AvgPool2D or AdaptiveAvgPool2D in mine: paddle rounds 1/n" in text) == (windows == 3), text
    assert "look for a detached tensor" in text

"""Below float64 the verdict is about the port: faults of precision are caught, the number format is not blamed."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import parity
import ports
import specs
from parity.judging.judge import Subject, judge
from parity.running.recording import record
from ports.port import Port

from .plant import around, arrays, rebuilt

TWIN = specs.get("mlp_mixer").tiny["S/16"]
IMAGES = np.random.default_rng(0).standard_normal((2, *specs.get("mlp_mixer").input_shape(TWIN)))
OFFSET = 1000.0  # of the stem's bias: tokens whose mean is large beside their spread


def port(framework: str, monkeypatch: pytest.MonkeyPatch, offset: float = OFFSET) -> Port:
    if framework not in ports.available():
        pytest.skip(f"{framework} is not installed")
    built = ports.build("mlp_mixer", TWIN, framework, init="random", dtype="float32")
    name = {"flax": "params/stem/bias"}.get(framework, "stem.bias")
    return arrays(**{name: lambda x: x + offset})(built, monkeypatch)


def test_large_means_are_no_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    report = parity.compare({f: port(f, monkeypatch) for f in ("torch", "paddle", "flax")}, IMAGES, "layers")
    assert report.passed, str(report)
    assert all(1e-9 < max(noise) < 1e-3 for result in report for noise in result.noise.values())


def test_flax_fast_variance_is_caught_in_float32(monkeypatch: pytest.MonkeyPatch) -> None:
    """E[x^2] - E[x]^2 cancels where the mean is large; in float64 nothing would show."""
    models = {f: port(f, monkeypatch) for f in ("torch", "paddle")}
    sound = port("flax", monkeypatch)
    import flax.linen as nn

    import ports.flax.mlp_mixer as code

    monkeypatch.setattr(code, "layer_norm", lambda c, name: nn.LayerNorm(epsilon=c.norm_eps, name=name))
    report = parity.compare(
        {**models, "flax": rebuilt(sound, sound.state().items())}, IMAGES, "layers", dtype="float32"
    )
    assert [(r.pair, r.passed) for r in report] == [
        ("torch-paddle", True),
        ("torch-flax", False),
        ("paddle-flax", False),
    ]
    assert report.first_divergence == "blocks.0.norm1"


def test_tf32_is_caught_in_float32(monkeypatch: pytest.MonkeyPatch) -> None:
    def truncated(call: Any, x: Any) -> Any:
        return call(x.half().to(x.dtype))  # ten bits of mantissa, as TF32 keeps

    mutant = around("blocks.0.channel_mix.fc1", truncated)(port("torch", monkeypatch, 0), monkeypatch)
    report = parity.compare({"paddle": port("paddle", monkeypatch, 0), "torch": mutant}, IMAGES, "layers")
    assert report.first_divergence == "blocks.0.channel_mix.fc1"


def test_single_steps_isolate_each_culprit(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two faults: in single steps both are seen, and nothing after them."""
    mutant = around("blocks.0.norm1", lambda call, x: call(x) * 1.5)(port("torch", monkeypatch), monkeypatch)
    mutant = around("head", lambda call, x: call(x) + 1)(mutant, monkeypatch)
    pair = {"paddle": port("paddle", monkeypatch), "torch": mutant}
    (result,) = parity.compare(pair, IMAGES, "single-step")
    off = [name for name, error, limit in result.curve if error > limit]
    assert off == ["blocks.0.norm1", "blocks.0.token_mix <- 0", "head", "output"]
    assert result.first_divergence == "blocks.0.norm1"
    (gathered,) = parity.compare(pair, IMAGES, "layers", dtype="float32")
    assert sum(error > limit for _, error, limit in gathered.curve) > len(off)


def test_training_in_bfloat16_is_judged(monkeypatch: pytest.MonkeyPatch) -> None:
    """By the noise that both show there: every array of every optimizer; and a fault is caught."""
    for framework in ("torch", "flax"):
        if framework not in ports.available():
            pytest.skip(f"{framework} is not installed")
    torch, flax = (ports.build("mlp_mixer", TWIN, f, init="random", dtype="bfloat16") for f in ("torch", "flax"))
    sound, other = record(flax, IMAGES, "train"), record(torch, IMAGES, "train")
    faulty = record(around("head", lambda call, x: 2 * call(x))(torch, monkeypatch), IMAGES, "train")
    subject = Subject("mlp_mixer", "S/16", "train", "bfloat16", "cpu")
    (result,) = judge(subject, [sound, other])
    assert result.passed, str(result)
    assert not result.cause  # nothing drowned
    assert {name.partition(":")[0] for name, _, _ in result.curve} == {"sgd", "adam", "adamw"}
    assert all(limit < 1 for _, _, limit in result.curve)
    (result,) = judge(subject, [sound, faulty])
    assert result.first_divergence == "sgd: losses"

"""`make parity DEVICE=gpu`: every architecture on the GPU, against the other frameworks and against its own CPU run."""

import contextlib
import io
import json
import os

import pytest

import specs
from parity.__main__ import main

DEVICE = os.environ.get("PARITY_DEVICE", "cpu")


def rows(*words):
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        main([*words, "--json"])
    return json.loads(printed.getvalue())


@pytest.mark.skipif(DEVICE == "cpu", reason="the CPU is what all other tests run on: make parity DEVICE=gpu")
@pytest.mark.parametrize("architecture", specs.names())
def test_on_the_gpu(architecture, monkeypatch):
    monkeypatch.delenv("JAX_PLATFORMS", raising=False)  # conftest says cpu, and the processes inherit it
    checks = ("--check", "forward", "layers", "gradients", "--dtype", "float64", "float32")
    found = rows(architecture, "--device", DEVICE, *checks)
    causes = {row["reason"] for row in found if row["passed"] is None}
    assert [row for row in found if row["passed"] is False] == []
    if not any(row["passed"] for row in found):
        pytest.skip("; ".join(sorted(causes)))


@pytest.mark.skipif(DEVICE != "cpu", reason="asks for what happens without a GPU")
def test_without_a_gpu_the_cause_is_said(capsys):
    variant = next(iter(specs.get("mlp_mixer").tiny))
    found = rows(f"mlp_mixer:tiny {variant}", "--device", "gpu", "--check", "forward", "--frameworks", "torch")
    if any(row["passed"] for row in found):
        pytest.skip("there is a GPU here")
    assert found
    assert all(row["passed"] is None and "GPU" in row["reason"] for row in found)

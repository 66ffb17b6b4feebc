"""`make parity DEVICE=gpu`: every small model on the GPU, against the other frameworks and against its own CPU run."""

import contextlib
import io
import json
import os
from pathlib import Path
from types import SimpleNamespace

import pytest

import specs
from parity.__main__ import main
from parity.running.processes import Processes

from ..conftest import LONGEST, gpu_table, needs, pytest_collection_modifyitems, unit

DEVICE = os.environ.get("PARITY_DEVICE", "cpu")
TWINS = [(architecture, name) for architecture in specs.names() for name in specs.get(architecture).tiny]
CHECKS = ("--check", "forward", "layers", "gradients", "--dtype", "float64", "float32")


def rows(*words):
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        main([*words, "--json"])
    return json.loads(printed.getvalue())


@pytest.fixture(scope="module")
def shared():
    """Start each framework once for all models: its first run on a GPU takes 6 to 11 s."""
    with Processes() as processes:
        yield contextlib.nullcontext(processes)


@pytest.mark.skipif(DEVICE == "cpu", reason="the CPU is what all other tests run on: make parity DEVICE=gpu")
@pytest.mark.parametrize(("architecture", "twin"), TWINS)
def test_on_the_gpu(architecture, twin, shared, monkeypatch, record_property):
    monkeypatch.delenv("JAX_PLATFORMS", raising=False)  # conftest says cpu, and the processes inherit it
    monkeypatch.setattr("parity.comparing.suite.Processes", lambda: shared)
    found = rows(f"{architecture}:tiny {twin}", "--device", DEVICE, *CHECKS)
    for row in found:
        if row["error"] is not None:
            record_property("error on the GPU", (architecture, twin, row["dtype"], row["error"]))
    assert [row for row in found if row["passed"] is False] == []
    if not any(row["passed"] for row in found):
        pytest.skip("; ".join(sorted({row["reason"] for row in found})))


@pytest.mark.skipif(DEVICE != "cpu", reason="asks for what happens without a GPU")
def test_without_a_gpu_the_cause_is_said(capsys):
    variant = next(iter(specs.get("mlp_mixer").tiny))
    found = rows(f"mlp_mixer:tiny {variant}", "--device", "gpu", "--check", "forward", "--frameworks", "torch")
    if any(row["passed"] for row in found):
        pytest.skip("there is a GPU here")
    assert found
    assert all(row["passed"] is None and "GPU" in row["reason"] for row in found)


def test_workers_share_the_tests_on_the_gpu_and_take_other_files_whole():
    here = "parity_tests/parity/test_device.py"
    assert unit(f"{here}::test_on_the_gpu[a-b]") != unit(f"{here}::test_on_the_gpu[a-c]")
    assert unit("parity_tests/test_ports.py::test_taps_agree[a::b]") == "parity_tests/test_ports.py"


def test_processes_of_one_run_share_what_jax_compiled():
    needs("flax")
    import jax

    def triple(x):
        return 3 * x

    jax.jit(triple)(1.0)
    assert list(Path(os.environ["JAX_COMPILATION_CACHE_DIR"]).glob("jit_triple-*"))


def test_the_files_that_take_longest_come_first():
    tests = Path(__file__).parents[1]
    others = [tests / "derive" / "test_absent.py", tests / "test_words.py"]
    items = [SimpleNamespace(path=path) for path in (*others, *(tests / name for name in reversed(LONGEST)))]
    pytest_collection_modifyitems(items)
    assert [item.path for item in items] == [*(tests / name for name in LONGEST), *others]
    assert all(item.path.exists() for item in items)


def test_the_largest_errors_on_the_gpu_are_a_table():
    errors = [("a", "x", "float64", 1e-15), ("a", "y", "float64", 2e-15), ("a", "x", "float32", 3e-7)]
    assert gpu_table([*errors, ("b", "x", "float64", 0.0)]) == [
        "| architecture | models | float64 | float32 |",
        "|---|---|---|---|",
        "| `a` | 2 | 2.0e-15 | 3.0e-7 |",
        "| `b` | 1 | 0 | not run |",
    ]

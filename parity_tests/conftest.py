"""Shared by all tests: which frameworks are here, and ports made once a session."""

from __future__ import annotations

import atexit
import functools
import gc
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import ports
import specs
from convert.errors import ConvertError
from convert.pages import use
from ports.frameworks import declared, quick_xla_flags
from specs.numbers import short

os.environ.setdefault("XLA_FLAGS", quick_xla_flags())  # tests run each tiny network once; set before jax is imported
os.environ.setdefault("JAX_PLATFORMS", "cpu")  # also where there is a GPU; what needs it has processes of its own
os.environ.setdefault("OMP_NUM_THREADS", "1")  # tiny models: threads cost more than they save, and paddle warns of two
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES", "-1")
if "JAX_COMPILATION_CACHE_DIR" not in os.environ:  # what one process of this run compiled, itself and others load
    os.environ["JAX_COMPILATION_CACHE_DIR"] = _compiled = tempfile.mkdtemp(prefix="triptych-compiled-")
    atexit.register(shutil.rmtree, _compiled, ignore_errors=True)
gc.set_threshold(20_000)  # three frameworks are a million objects, and no garbage: 700 took a tenth of the time


@pytest.fixture
def float64() -> Iterator[None]:
    """Let jax compute in float64 for one test."""
    import jax

    before = jax.config.jax_enable_x64
    jax.config.update("jax_enable_x64", True)
    yield
    jax.config.update("jax_enable_x64", before)


@pytest.fixture
def quick_gradients(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let XLA compile gradients at its lowest level too, a quarter of the time, where a test knows the right ones."""
    if "flax" in ports.available():
        monkeypatch.setattr("ports.runners.functional.OPTIMISED", frozenset())


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup() -> None:
    """Let each test draw the same weights, whatever ran before it in its process."""
    for framework, seed in (("torch", "manual_seed"), ("paddle", "seed")):
        if module := sys.modules.get(framework):
            getattr(module, seed)(0)


def pytest_addoption(parser: pytest.Parser) -> None:
    what = "run the generic tests on a page from outside as well; select it by its name: -k NAME"
    parser.addoption("--spec", metavar="PAGE", action="append", default=[], help=what)


def pytest_configure(config: pytest.Config) -> None:
    """Add pages before any test is collected."""
    try:
        use(config.getoption("--spec"))
    except ConvertError as error:
        raise pytest.UsageError(str(error)) from None


# The files that take longest, longest first: none of them is still running when all others have ended.
LONGEST = (
    "parity/test_device.py", "test_ports.py", "test_own_architecture.py", "derive/test_kinds_routed.py",
    "test_optimizer.py", "test_dangers.py", "test_mobile_former.py", "test_dynamixer.py", "test_distributed.py",
    "test_upstream.py", "test_raft_mlp.py",
)  # fmt: skip


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the longest files first; this needs --no-loadscope-reorder, as xdist puts the files of most tests first."""
    here = Path(__file__).parent
    places = {here / name: place for place, name in enumerate(LONGEST)}
    items.sort(key=lambda item: places.get(item.path, len(places)))


def pytest_collection_finish() -> None:
    """Let no collection of garbage look again at what importing the frameworks and the tests left: it is none."""
    gc.freeze()


def unit(nodeid: str) -> str:
    """Return what a worker takes at once: a file, or one of the tests on a GPU, which take minutes."""
    return nodeid if "::test_on_the_gpu[" in nodeid else nodeid.partition("::")[0]


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Give each worker a unit at a time."""
    from xdist.scheduler import LoadFileScheduling

    class Scheduling(LoadFileScheduling):
        def _split_scope(self, nodeid: str) -> str:
            return unit(nodeid)

    return Scheduling(config, log) if config.getoption("dist") == "loadfile" else None


def pytest_report_header() -> list[str]:
    missing = [name for name in ("flax", "torch", "paddle") if name not in ports.available()]
    return [f"not installed, their tests are skipped: {', '.join(missing)}"] if missing else []


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print the golden cases that were left out, the planted faults with what detected them, and errors on a GPU."""
    from .golden import LEFT_OUT

    if LEFT_OUT:
        terminalreporter.section("golden cases left out")
        for line in LEFT_OUT:
            terminalreporter.write_line(line)
    reports = [report for found in ("passed", "failed") for report in terminalreporter.stats.get(found, [])]
    properties = [pair for report in reports for pair in report.user_properties]
    rows = [value for key, value in properties if key == "planted fault"]
    if rows:
        terminalreporter.section("planted faults")
        terminalreporter.write_line(f"{'planted fault':70} {'detected by':34} first divergence")
        for row in rows:
            terminalreporter.write_line(row)
    errors = [value for key, value in properties if key == "error on the GPU"]
    if errors:
        terminalreporter.section("errors on the GPU")
        for line in gpu_table(errors):
            terminalreporter.write_line(line)


def gpu_table(errors: list[tuple[str, str, str, float]]) -> list[str]:
    """Write the table of docs/parity.md: the largest of errors (architecture, model, dtype, error)."""
    models: dict[str, set[str]] = {}
    largest: dict[tuple[str, str], float] = {}
    for architecture, model, dtype, error in errors:
        models.setdefault(architecture, set()).add(model)
        largest[architecture, dtype] = max(error, largest.get((architecture, dtype), 0.0))
    dtypes = list(dict.fromkeys(dtype for _, dtype in largest))
    lines = [f"| architecture | models | {' | '.join(dtypes)} |", f"|---|---|{'---|' * len(dtypes)}"]
    for name, ran in models.items():
        cells = [short(largest[name, dtype]) if (name, dtype) in largest else "not run" for dtype in dtypes]
        lines.append(f"| `{name}` | {len(ran)} | {' | '.join(cells)} |")
    return lines


def needs(framework: str) -> None:
    """Skip, with the cause, a test of a framework that is not installed."""
    if framework not in ports.available():
        pytest.skip(f"{framework} is not installed: pip install '.[{framework}]'")


def needs_port(architecture: str, framework: str) -> None:
    """Skip, with the cause, a test that runs an architecture in a framework in which it cannot run."""
    needs(framework)
    if not declared(architecture, framework):
        pytest.skip(f"the page of {architecture} declares no port in {framework}")


@functools.lru_cache(maxsize=24)
def tiny(architecture: str, name: str, framework: str, dtype: str = "float64"):
    """A tiny twin with random weights, the same in every framework."""
    needs_port(architecture, framework)
    config = specs.get(architecture).tiny[name]
    return ports.build(architecture, config, framework, seed=1, init="random", dtype=dtype)


@pytest.fixture
def run(capsys):
    """Run a command; (exit code, stdout, stderr)."""

    from convert.__main__ import main

    def call(*words):
        try:
            code = main([str(word) for word in words])
        except SystemExit as stop:  # argparse's way out
            code = stop.code
        printed = capsys.readouterr()
        assert "Traceback" not in printed.err
        return code, printed.out, printed.err

    return call

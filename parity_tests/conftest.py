"""Shared by all tests: which frameworks are here, and ports made once a session."""

from __future__ import annotations

import functools
import gc
import os
from collections.abc import Iterator

import pytest

import ports
import specs
from convert.errors import ConvertError
from convert.pages import use
from ports.frameworks import declared, quick_xla_flags

os.environ.setdefault("XLA_FLAGS", quick_xla_flags())  # tests run each tiny network once; set before jax is imported
os.environ.setdefault("JAX_PLATFORMS", "cpu")  # also where there is a GPU; what needs it has processes of its own
os.environ.setdefault("OMP_NUM_THREADS", "1")  # tiny models: threads cost more than they save, and paddle warns of two
gc.set_threshold(20_000)  # three frameworks are a million objects, and no garbage: 700 took a tenth of the time


@pytest.fixture
def float64() -> Iterator[None]:
    """Let jax compute in float64 for one test."""
    import jax

    before = jax.config.jax_enable_x64
    jax.config.update("jax_enable_x64", True)
    yield
    jax.config.update("jax_enable_x64", before)


def pytest_addoption(parser: pytest.Parser) -> None:
    what = "run the generic tests on a page from outside as well; select it by its name: -k NAME"
    parser.addoption("--spec", metavar="PAGE", action="append", default=[], help=what)


def pytest_configure(config: pytest.Config) -> None:
    """Add pages before any test is collected."""
    try:
        use(config.getoption("--spec"))
    except ConvertError as error:
        raise pytest.UsageError(str(error)) from None


def pytest_report_header() -> list[str]:
    missing = [name for name in ("flax", "torch", "paddle") if name not in ports.available()]
    return [f"not installed, their tests are skipped: {', '.join(missing)}"] if missing else []


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print the golden cases that were left out, and the table of planted faults with what detected them."""
    from .golden import LEFT_OUT

    if LEFT_OUT:
        terminalreporter.section("golden cases left out")
        for line in LEFT_OUT:
            terminalreporter.write_line(line)
    reports = [report for found in ("passed", "failed") for report in terminalreporter.stats.get(found, [])]
    rows = [value for report in reports for key, value in report.user_properties if key == "planted fault"]
    if rows:
        terminalreporter.section("planted faults")
        terminalreporter.write_line(f"{'planted fault':70} {'detected by':34} first divergence")
        for row in rows:
            terminalreporter.write_line(row)


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

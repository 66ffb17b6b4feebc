"""The proof of the prover: faults are planted one at a time, and each must be found where it is."""

from __future__ import annotations

import functools
import zlib
from collections import Counter
from collections.abc import Callable

import numpy as np
import pytest

import ports
import specs
from parity.judging.judge import Subject, judge
from parity.results.result import Result
from parity.running.recording import Recording, record
from ports.port import Port

from .faults import Fault, every

FAULTS = list(every())
NEEDED = 40
CHECKS = {"flax": ("layers",), "torch": ("layers", "gradients", "train"), "paddle": ("layers", "gradients", "train")}
STEPS = 3  # of training


def port_of(architecture: str, twin: str, framework: str) -> Port:
    config = specs.get(architecture).tiny[twin]
    return ports.build(architecture, config, framework, init="random", dtype="float64")


def images_of(architecture: str, twin: str) -> np.ndarray:
    spec = specs.get(architecture)
    seed = zlib.crc32(twin.encode())
    return np.random.default_rng(seed).standard_normal((2, *spec.input_shape(spec.tiny[twin])))


@functools.cache
def reference(architecture: str, twin: str, framework: str, check: str) -> Recording:
    """What the unmutated port records; a torch fault is measured against paddle, all others against torch."""
    port = port_of(architecture, twin, framework)
    return record(port, images_of(architecture, twin), check, steps=STEPS)


def verdict(a: Recording, b: Recording, check: str) -> Result:
    (result,) = judge(Subject("", "", check, "float64", "cpu"), [a, b])
    return result


@pytest.mark.parametrize(("architecture", "fault"), FAULTS, ids=[f"{a}-{f.framework}-{f.what}" for a, f in FAULTS])
def test_every_planted_fault_is_named(
    architecture: str, fault: Fault, monkeypatch: pytest.MonkeyPatch, record_property: Callable[[str, object], None]
) -> None:
    other = "paddle" if fault.framework == "torch" else "torch"
    for framework in (fault.framework, other):
        if framework not in ports.available():
            pytest.skip(f"{framework} is not installed")
    checks = CHECKS[fault.framework] if fault.framework != "flax" else (fault.check,)
    sound = {check: reference(architecture, fault.twin, other, check) for check in checks}
    mutant = fault.plant(port_of(architecture, fault.twin, fault.framework), monkeypatch)
    found = {}
    for check in checks:
        made = record(mutant, images_of(architecture, fault.twin), check, steps=STEPS)
        found[check] = verdict(sound[check], made, check)
    result = found[fault.check]
    by = [name for name, r in found.items() if r.passed is False]
    if any(name == "output" and not error <= limit for name, error, limit in found.get("layers", result).curve):
        by.insert(0, "forward")
    what = f"{architecture} {fault.framework}: {fault.what}"
    record_property("planted fault", f"{what:70} {' '.join(by):34} {result.first_divergence}")
    assert result.passed is False, f"{fault.what} went unnoticed"
    assert result.first_divergence == fault.first
    assert fault.guess in result.first_divergence.guess, result.first_divergence.sentence()


@pytest.mark.parametrize("check", ["layers", "gradients", "train"])
@pytest.mark.parametrize(("architecture", "twin"), sorted({(a, f.twin) for a, f in FAULTS}))
def test_unmutated_ports_are_clean(architecture: str, twin: str, check: str) -> None:
    """The same comparisons without a fault: what the faults above are told from."""
    recordings = [reference(architecture, twin, f, check) for f in ("torch", "paddle") if f in ports.available()]
    if len(recordings) < 2:
        pytest.skip("torch and paddle are not both installed")
    result = verdict(*recordings, check)
    assert result.passed, str(result.first_divergence and result.first_divergence.sentence())
    assert len(result.curve) > 3


def test_there_are_enough_faults_everywhere() -> None:
    assert len(FAULTS) >= NEEDED
    assert len({architecture for architecture, _ in FAULTS}) >= 5
    by_framework = Counter(fault.framework for _, fault in FAULTS)
    assert min(by_framework[f] for f in ("flax", "torch", "paddle")) >= 5

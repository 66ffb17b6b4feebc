"""Recordings and results of three ports, one of which may be off by a factor."""

from __future__ import annotations

import numpy as np

from parity.judging.judge import Subject, judge
from parity.results.result import Result
from parity.running.recording import Recording

LABELS = ("flax", "torch", "paddle")
CHECKS = ("forward", "layers", "gradients", "train")


def recording(label: str, slip: float = 0.0) -> Recording:
    arrays = {f"blocks.{k}.norm1": np.arange(1.0, 6.0) * (1 + slip * (k > 0)) for k in range(2)}
    arrays |= {name: np.arange(1.0, 6.0) * (1 + slip) for name in ("output", "sgd: losses")}  # else nothing is proven
    return Recording(label, label, "float64", "cpu", arrays)


def results(slip: float = 0.0, variants: tuple[str, ...] = ("tiny S/16", "tiny B/16")) -> list[Result]:
    """Every check of every variant, torch off by `slip` from the second array on."""
    found: list[Result] = []
    for variant in variants:
        for check in CHECKS:
            subject = Subject("mlp_mixer", variant, check, "float64", "cpu")
            found += judge(subject, [recording(label, slip * (label == "torch")) for label in LABELS])
    return found


def without(framework: str) -> list[Result]:
    """Every check of one variant where a framework is not installed."""
    cause = f"{framework} is not installed: pip install '.[{framework}]'"
    found: list[Result] = []
    for check in CHECKS:
        made = [recording(label) for label in LABELS if label != framework]
        made.append(Recording(framework, framework, "float64", "cpu", cause=cause, unable=True))
        found += judge(Subject("mlp_mixer", "tiny S/16", check, "float64", "cpu"), made)
    return found

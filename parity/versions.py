"""Versions of the frameworks, without importing any."""

from __future__ import annotations

from importlib import metadata

PACKAGES = {"flax": ("flax", "jax"), "torch": ("torch",), "paddle": ("paddlepaddle", "paddlepaddle-gpu")}


def version(framework: str) -> str:
    """E.g. "0.12.8 (jax 0.10.2)"."""
    found = {}
    for package in PACKAGES[framework]:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    first, *others = found.values() or ["of unknown version"]
    return first + "".join(f" (jax {other})" for other in others)

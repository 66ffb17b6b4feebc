"""Versions of the frameworks, without importing any."""

from __future__ import annotations

from importlib import metadata

PACKAGES = {"flax": ("flax", "jax"), "torch": ("torch",), "paddle": ("paddlepaddle", "paddlepaddle-gpu")}


def version(framework: str) -> str:
    """Return the version, such as "0.12.8 (jax 0.10.2)"."""
    installed = {}
    for package in PACKAGES[framework]:
        try:
            installed[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    first, *others = installed.values() or ["of unknown version"]
    return first + "".join(f" (jax {other})" for other in others)

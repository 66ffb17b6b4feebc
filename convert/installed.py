"""List the versions of Triptych and of the frameworks, without importing any."""

from __future__ import annotations

import platform
from collections.abc import Iterator
from importlib import metadata

from .version import __version__

LIBRARIES = {"flax": ("flax", "jax"), "torch": ("torch",), "paddle": ("paddlepaddle", "paddlepaddle-gpu")}


def version(framework: str) -> str:
    """Return the version, such as "0.12.8 (jax 0.10.2)"."""
    first, *others = _installed(framework) or ["of unknown version"]
    return first + "".join(f" (jax {other})" for other in others)


def _installed(framework: str) -> list[str]:
    """Return the versions of a framework's packages that are installed."""
    versions = []
    for package in LIBRARIES[framework]:
        try:
            versions.append(metadata.version(package))
        except metadata.PackageNotFoundError:
            continue
    return versions


def lines() -> Iterator[str]:
    """Yield what --version prints."""
    yield f"Triptych {__version__}, Python {platform.python_version()}"
    for framework in LIBRARIES:
        yield f"{framework:8}{version(framework) if _installed(framework) else 'not installed'}"

"""State what a report's numbers come from: date, command, versions, device."""

from __future__ import annotations

import glob
import hashlib
import os
import platform
import subprocess
import sys
import time
from collections.abc import Mapping
from functools import cache

import numpy as np

from convert import installed
from convert.errors import printable
from convert.version import PACKAGES, __version__

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
DEVICES = "/dev/nvidia[0-9]*", "/dev/dxg", "/dev/kfd"  # of NVIDIA, under WSL, of AMD


def surroundings(device: str = "cpu") -> dict[str, str]:
    """Return what every report of this run states, by label."""
    return {
        "date": time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime()),
        "triptych": f"{__version__}, {code()}",
        "python": f"{platform.python_version()}, {platform.system()} {platform.machine()}",
        "device": f"cpu: {processor()}" if device == "cpu" else f"gpu: {graphics()}; cpu: {processor()}",
    }


@cache
def code() -> str:
    """Name the code of Triptych that runs: its commit, and a digest of its files if they are not those of a commit."""
    commit = _git("rev-parse", "--short=12", "HEAD") if os.path.exists(os.path.join(ROOT, ".git")) else None
    changed = _git("status", "--porcelain", "--", *PACKAGES) if commit else None
    if commit and changed == "":
        return f"commit {commit}"
    digest = hashlib.sha256()
    for part in PACKAGES:
        for folder, folders, files in os.walk(os.path.join(ROOT, part)):
            folders[:] = sorted(name for name in folders if name != "__pycache__")
            for path in (os.path.join(folder, name) for name in sorted(files)):
                with open(path, "rb") as file:
                    digest.update(f"{os.path.relpath(path, ROOT)}\0".encode() + hashlib.sha256(file.read()).digest())
    return f"{f'commit {commit}, modified: ' if commit else ''}files {digest.hexdigest()[:12]}"


def _git(*words: str) -> str | None:
    """Return what git says of Triptych's folder; None where it says nothing."""
    try:
        done = subprocess.run(["git", "-C", ROOT, *words], capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()


def script() -> dict[str, str]:
    """Return the file that runs and its hash, by label; {} where there is none, as in a shell or a notebook."""
    path = getattr(sys.modules.get("__main__"), "__file__", None) or ""
    if not path.endswith(".py") or "ipykernel" in path or not os.path.isfile(path):
        return {}
    with open(path, "rb") as file:
        return {"script": f"{printable(os.path.normpath(path))}, sha256 {hashlib.sha256(file.read()).hexdigest()}"}


def fingerprint(arrays: Mapping[str, np.ndarray]) -> str:
    """Return the first 16 digits of a hash of arrays with their names, dtypes and shapes, in whatever order."""
    digest = hashlib.sha256()
    for name, array in sorted(arrays.items()):
        digest.update(f"{name} {array.dtype} {array.shape}\0".encode() + np.ascontiguousarray(array).tobytes())
    return f"sha256 {digest.hexdigest()[:16]}"


def frameworks() -> dict[str, str]:
    """Return the versions of the frameworks that this process has imported, by name."""
    imported = {name: installed.version(name) for name in installed.LIBRARIES if name in sys.modules}
    if "jax" in sys.modules and "flax" not in imported:
        imported["jax"] = sys.modules["jax"].__version__
    return imported


def graphics() -> str:
    """Return the names of this machine's GPUs, as NVIDIA's driver states them; "none found" where there is none."""
    names = []
    for path in sorted(glob.glob("/proc/driver/nvidia/gpus/*/information")):
        with open(path, encoding="utf-8") as file:
            names += [line.partition(":")[2].strip() for line in file if line.startswith("Model")]
    return ", ".join(names) or ("of unknown name" if any(map(glob.glob, DEVICES)) else "none found")


def processor() -> str:
    """Return the number and name of this machine's processors."""
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            names = [line.partition(":")[2].strip() for line in file if line.startswith("model name")]
    except OSError:
        names = []
    return f"{os.cpu_count()} x {names[0] if names else platform.machine()}"

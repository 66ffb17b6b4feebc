"""State what a report's numbers come from: date, command, versions, device."""

from __future__ import annotations

import glob
import os
import platform
import sys
import time

from convert.version import __version__
from convert.versions import PACKAGES, version

DEVICES = "/dev/nvidia[0-9]*", "/dev/dxg", "/dev/kfd"  # of NVIDIA, under WSL, of AMD


def surroundings(device: str = "cpu") -> dict[str, str]:
    """Return what every report of this run states, by label."""
    return {
        "date": time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime()),
        "triptych": __version__,
        "python": f"{platform.python_version()}, {platform.system()} {platform.machine()}",
        "device": f"cpu: {processor()}" if device == "cpu" else f"gpu: {graphics()}; cpu: {processor()}",
    }


def frameworks() -> dict[str, str]:
    """Return the versions of the frameworks that this process has imported, by name."""
    imported = {name: version(name) for name in PACKAGES if name in sys.modules}
    if "jax" in sys.modules and "flax" not in imported:
        imported["jax"] = sys.modules["jax"].__version__
    return imported


def graphics() -> str:
    """Return the names of this machine's GPUs, as an NVIDIA driver states them; "none found" where there is no device."""
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

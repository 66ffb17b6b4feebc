"""Print the tables of the benchmarks: `python -m benchmarks [models|files]`."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import Any

import ports
import specs

from . import files

BATCHES = (1, 8)


def child(*words: object) -> dict[str, Any]:
    """Run one measurement in a process of its own: threads and memory of one framework do not touch another."""
    command = [sys.executable, "-W", "ignore", "-m", "benchmarks.models", *map(str, words)]
    done = subprocess.run(
        command, capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "2"}, check=False
    )
    if done.returncode:
        raise SystemExit(f"{' '.join(command)}:\n{done.stderr}")
    return dict(json.loads(done.stdout.splitlines()[-1]))


def models() -> None:
    print(f"{'architecture':16} {'variant':8} {'batch':>5} {'framework':9} {'images/s':>9} {'GFLOP/s':>8} {'share':>6} "
          f"{'original':>9} {'ratio':>6}")  # fmt: skip
    missing: dict[str, str] = {}
    for architecture in specs.names():
        variant = next(iter(specs.get(architecture).variants))
        flops = child("flops", architecture, variant, 0)["flops"] if "torch" in ports.available() else 0.0
        for batch in BATCHES:
            for framework in ports.available():
                result = child(framework, architecture, variant, batch)
                images, original = result["images"], result.get("original")
                beside = f" {original:9.2f} {images / original:6.2f}" if original else ""
                rate, share = flops * images / 1e9, flops * images / result["matmul"]
                print(f"{architecture:16} {variant:8} {batch:5} {framework:9} {images:9.2f} {rate:8.1f} {share:6.2f}"
                      f"{beside}", flush=True)  # fmt: skip
                missing |= {f"{architecture} in {framework}": result["missing"]} if result["missing"] else {}
    for port, reason in missing.items():
        print(f"no original beside {port}: {reason}")


if __name__ == "__main__":
    wanted = sys.argv[1:] or ["models", "files"]
    if "models" in wanted:
        models()
    if "files" in wanted:
        suffixes = list(files.SUFFIXES)
        files.start_up()
        files.curve()
        files.main([(a, b) for a in suffixes for b in suffixes if a != b], runs=3)

"""Print the tables of the benchmarks: `python -m benchmarks [models|files]`."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import ports
import specs

from . import files

BATCHES = (1, 8)


def child(*words: object) -> dict[str, float]:
    """One measurement in a process of its own: thread counts and memory of one framework do not touch another."""
    command = [sys.executable, "-W", "ignore", "-m", "benchmarks.models", *map(str, words)]
    done = subprocess.run(
        command, capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "2"}, check=False
    )
    if done.returncode:
        raise SystemExit(f"{' '.join(command)}:\n{done.stderr}")
    return dict(json.loads(done.stdout.splitlines()[-1]))


def models() -> None:
    print(f"{'architecture':16} {'variant':8} {'batch':>5} {'framework':9} {'images/s':>9} {'GFLOP/s':>8} {'share':>6}")
    for architecture in specs.names():
        variant = next(iter(specs.get(architecture).variants))
        flops = child("flops", architecture, variant, 0)["flops"] if "torch" in ports.available() else 0.0
        for batch in BATCHES:
            for framework in ports.available():
                found = child(framework, architecture, variant, batch)
                share = flops * found["images"] / found["matmul"]
                print(f"{architecture:16} {variant:8} {batch:5} {framework:9} {found['images']:9.2f} "
                      f"{flops * found['images'] / 1e9:8.1f} {share:6.2f}", flush=True)  # fmt: skip


if __name__ == "__main__":
    wanted = sys.argv[1:] or ["models", "files"]
    if "models" in wanted:
        models()
    if "files" in wanted:
        suffixes = list(files.SUFFIXES)
        files.start_up()
        files.curve()
        files.main([(a, b) for a in suffixes for b in suffixes if a != b], runs=3)

"""Time conversions of a Mixer-L/16 beside `cp` of the same file, and measure their peak memory."""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from convert.files import writer_for
from convert.files.base import Tensor
from specs.dialects import PORTS, shapes
from specs.mlp_mixer import VARIANTS, layers

LARGE = VARIANTS["L/16"]
DEPTHS = (3, 24, 90, 240)  # 0.1, 0.8, 3 and 8 GB
SUFFIXES = {"msgpack": "flax", "safetensors": "torch", "npz": "flax", "pt": "torch", "pdparams": "paddle"}


# Bytecode is kept, as of any installed package, in a place of its own.
BYTECODE = tempfile.TemporaryDirectory()
ENVIRONMENT = {**os.environ, "PYTHONPYCACHEPREFIX": BYTECODE.name, "PYTHONDONTWRITEBYTECODE": ""}


def make(path: Path, arrays: Mapping[str, tuple[int, ...]]) -> None:
    """Write arrays of pseudo-random bytes that are finite floats; no two arrays begin alike."""
    tensors = [Tensor(name, shape, "float32") for name, shape in arrays.items()]
    noise = bytes(b & 0x3F if k % 4 == 3 else b for k, b in enumerate(os.urandom(1 << 20)))  # no exponent of all ones
    with open(path, "w+b", buffering=0) as file:
        writer = writer_for(path)(file, tensors, {})
        for k, tensor in enumerate(tensors):
            own = noise[4 * k :] + noise[: 4 * k]
            whole, rest = divmod(tensor.nbytes, len(own))
            writer.write(tensor, itertools.chain(itertools.repeat(own, whole), [own[:rest]]))
        writer.finish()


class Timed(NamedTuple):
    """What a process takes: seconds from start to end, of processor time in all threads, and megabytes at its peak."""

    seconds: float
    processor: float
    megabytes: float


def timed(words: list[str]) -> Timed:
    """Run a process and measure it."""
    probe = "import os,sys,resource,subprocess; subprocess.run(sys.argv[1:],check=True,stdout=subprocess.DEVNULL);" \
            "r=resource.getrusage(resource.RUSAGE_CHILDREN); print(r.ru_utime+r.ru_stime,r.ru_maxrss/1024)"  # fmt: skip
    start = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-S", "-c", probe, *words], check=True, capture_output=True, text=True, env=ENVIRONMENT
    )
    return Timed(time.perf_counter() - start, *map(float, done.stdout.split()))


def overhead() -> float:
    """Return seconds that `timed` itself takes."""
    return min(timed(["true"]).seconds for _ in range(5))


def compare(source: Path, target: Path, route: str, runs: int) -> dict[str, float]:
    """Measure the best conversion over the best cp, interleaved, with hashes and read-back and without; peak memory."""
    base, peak = overhead(), 0.0
    copy = target.with_name("copy")
    command = [sys.executable, "-m", "convert", route, str(source), "-o", str(target), "--assume"]
    jobs = {"cp": ["cp", str(source), str(copy)], "convert": command, "bare": [*command, "--no-verify"]}
    seconds: dict[str, list[float]] = {name: [] for name in jobs}
    for _ in range(runs):
        for name, words in jobs.items():
            found = timed(words)
            seconds[name].append(found.seconds - base)
            peak = max(peak, found.megabytes)
            for made in (copy, target, target.with_name(target.name + ".json")):
                made.unlink(missing_ok=True)
    best = {name: min(times) for name, times in seconds.items()}
    return {**best, "ratio": best["convert"] / best["cp"], "bare ratio": best["bare"] / best["cp"], "peak": peak}


HEADS = f"{'cp':>7} {'convert':>8} {'ratio':>6} {'--no-verify':>11} {'ratio':>6} {'peak MB':>8}"


def told(found: dict[str, float]) -> str:
    return (f"{found['cp']:7.2f} {found['convert']:8.2f} {found['ratio']:6.2f} {found['bare']:11.2f} "
            f"{found['bare ratio']:6.2f} {found['peak']:8.0f}")  # fmt: skip


def main(pairs: list[tuple[str, str]], runs: int = 5) -> None:
    """Return every pair of formats."""
    print(f"{'Mixer-L/16':34} {HEADS}")
    with tempfile.TemporaryDirectory() as folder:
        for suffix, group in itertools.groupby(pairs, lambda pair: pair[0]):
            source = Path(folder) / f"source.{suffix}"
            make(source, shapes(layers(LARGE), PORTS[SUFFIXES[suffix]]))
            for _, other in group:
                route = f"{SUFFIXES[suffix]}2{SUFFIXES[other]}"
                found = compare(source, Path(folder) / f"target.{other}", route, runs)
                print(f"{suffix + ' -> ' + other:34} {told(found)}", flush=True)
            source.unlink()


def curve(depths: tuple[int, ...] = DEPTHS, runs: int = 3) -> None:
    """Measure time and memory by size: the same layers, more of them."""
    print(f"{'msgpack -> safetensors, by size':34} {HEADS}")
    for depth in depths:
        with tempfile.TemporaryDirectory() as folder:
            source = Path(folder) / "source.msgpack"
            make(source, shapes(layers(replace(LARGE, depth=depth)), PORTS["flax"]))
            found = compare(source, Path(folder) / "target.safetensors", "flax2torch", runs)
            print(f"{source.stat().st_size / 1e6:10,.1f} MB {'':20} {told(found)}", flush=True)


def start_up() -> None:
    """Measure medians beside `python -c pass`."""
    from statistics import median

    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "mixer.msgpack"
        make(source, shapes(layers(LARGE), PORTS["flax"]))
        rows = {
            "python -c pass": [sys.executable, "-c", "pass"],
            "convert --help": [sys.executable, "-m", "convert", "--help"],
            "convert inspect": [sys.executable, "-m", "convert", "inspect", str(source)],
        }
        base = overhead()
        for name, words in rows.items():
            runs = [timed(words) for _ in range(9)]
            took, peak = median(run.seconds for run in runs) - base, max(run.megabytes for run in runs)
            print(f"{name:34} {1000 * took:5.0f} ms {peak:5.0f} MB")

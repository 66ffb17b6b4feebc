"""Derive each port from another framework's, its names scrambled: proven or not, seconds, and memory after imports.

python -m benchmarks.ports [full] [ARCHITECTURE[:VARIANT] ...]      tiny twins, or the first variants
"""

from __future__ import annotations

import json
import multiprocessing
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

import ports
import specs

PAIRS = [("torch", "flax"), ("torch", "paddle"), ("paddle", "flax")]


def scrambled(module: Any, variables: Any) -> Any:
    """Return the network as a function of arrays that are called w0, w1, ... in an order of their own."""
    from flax.traverse_util import flatten_dict, unflatten_dict

    flat = flatten_dict(variables, sep="/")
    order = np.random.default_rng(0).permutation(len(flat))
    names = {f"w{k}": name for k, name in zip(order, flat, strict=True)}

    def network(arrays: Any, x: Any) -> Any:
        return module.apply(unflatten_dict({names[key]: a for key, a in arrays.items()}, sep="/"), x)

    return network, {key: flat[names[key]] for key in sorted(names)}


def smallest(architecture: str) -> Any:
    """Return the Config of the tiny twin of the fewest layers."""
    spec = specs.get(architecture)
    return min(spec.tiny.values(), key=lambda config: len(list(spec.layers(config))))


def derived(architecture: str, config: Any, pair: tuple[str, str], images: int = 2) -> Any:
    """Derive the Table from the first framework's port to the second's, which is scrambled if it is linen's."""
    import parity

    left, right = (ports.build(architecture, config, f, seed=1, init="random", dtype="float64").model for f in pair)
    right = scrambled(*right) if pair[1] == "flax" else right
    x = np.random.default_rng(0).standard_normal((images, *specs.get(architecture).input_shape(config)))
    return parity.derive(left, right, (x,))


def _measured(architecture: str, config: Any, pair: tuple[str, str], images: int, results: Any) -> None:
    import parity  # noqa: F401

    for framework in pair:
        ports.build(architecture, smallest(architecture), framework)  # imports what it needs
    Path("/proc/self/clear_refs").write_text("5")  # reset the peak of memory
    before, start, cpu = _memory("VmRSS"), time.perf_counter(), time.process_time()
    found = derived(architecture, config, pair, images)
    results.put({"pair": "-".join(pair), "proven": found.proven, "missing": len(found.missing), "error": found.error,
                 "seconds": round(time.perf_counter() - start, 1),
                 "cpu seconds": round(time.process_time() - cpu, 1), "MB": _memory("VmHWM") - before})  # fmt: skip


def _memory(field: str) -> int:
    """Return MB that this process uses (VmRSS) or has used at most (VmHWM)."""
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(field))
    return int(line.split()[1]) // 1024


def main(full: bool, architectures: list[str]) -> None:
    context = multiprocessing.get_context("spawn")
    for word in architectures:
        architecture, _, variant = word.partition(":")
        variants = specs.get(architecture).variants
        config = variants[variant] if variant else next(iter(variants.values())) if full else smallest(architecture)
        images = 2 if config in specs.get(architecture).tiny.values() else 1
        for pair in PAIRS:
            results = context.Queue()
            process = context.Process(target=_measured, args=(architecture, config, pair, images, results))
            process.start()
            process.join()
            print(architecture, json.dumps(results.get()) if not process.exitcode else "failed", flush=True)


if __name__ == "__main__":
    words = sys.argv[1:]
    main("full" in words, [word for word in words if word != "full"] or specs.names())

"""Time every architecture in every framework, beside its original implementation and the framework's matrix product.

`python -m benchmarks.models FRAMEWORK ARCHITECTURE VARIANT BATCH` prints one line of JSON. It is one process of two
threads, in which port, original and product alternate, so that a loaded machine slows all of them alike.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

import specs

from . import originals

THREADS = 2
SIDE = 2048  # of the square matrices whose product is the measure
SECONDS = 4.0  # of port and original together


def best(runs: Mapping[str, Callable[[], Any]]) -> dict[str, float]:
    """Return the shortest time of each run, in seconds, of alternating runs after one of each to warm up."""
    for run in runs.values():
        run()
    seconds = dict.fromkeys(runs, float("inf"))
    end = time.perf_counter() + SECONDS
    while time.perf_counter() < end:
        for name, run in runs.items():
            start = time.perf_counter()
            run()
            seconds[name] = min(seconds[name], time.perf_counter() - start)
    return seconds


def measure(framework: str, architecture: str, variant: str, batch: int) -> dict[str, Any]:
    """Return images a second of port and original and FLOP a second of the product, or why there is no original."""
    import ports

    folder = Path(os.environ["ORIGINALS"]) if os.environ.get("ORIGINALS") else None
    spec, runs, missing = specs.get(architecture), {"matmul": _product(framework)}, ""
    config = spec.variants[variant]
    images = np.random.default_rng(0).standard_normal((batch, *spec.input_shape(config))).astype(np.float32)
    try:
        original = originals.find(architecture, framework, folder)
        config = replace(config, **original.settings)
        call = originals.build(original, framework, config, images, folder)
        runs["original"] = lambda: call(images)
    except originals.Missing as error:
        missing = str(error)
    port = ports.build(architecture, config, framework, init="random")
    seconds = best({**runs, "images": lambda: port(images)})
    work = {"matmul": 2.0 * SIDE**3, "original": batch, "images": batch}
    return {"missing": missing, **{name: work[name] / time for name, time in seconds.items()}}


def _product(framework: str) -> Callable[[], Any]:
    ones = np.random.default_rng(0).standard_normal((SIDE, SIDE)).astype(np.float32)
    if framework == "torch":
        import torch

        torch.set_num_threads(THREADS)
        t = torch.from_numpy(ones)
        return lambda: t @ t
    if framework == "paddle":
        import paddle

        p = paddle.to_tensor(ones)
        return lambda: p @ p
    import jax

    j = jax.numpy.asarray(ones)
    multiply = jax.jit(lambda a: a @ a)
    return lambda: multiply(j).block_until_ready()


def flops(architecture: str, variant: str) -> float:
    """Count multiplications and additions of products and convolutions for one image, as torch counts them."""
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    import ports

    spec = specs.get(architecture)
    config = spec.variants[variant]
    with torch.device("meta"):
        model = ports.network(architecture, "torch")(config).eval().requires_grad_(False)
        images = torch.empty(1, *spec.input_shape(config))
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        model(images)
    return float(counter.get_total_flops())


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", str(THREADS))
    kind, network, name, size = sys.argv[1:]
    answer = {"flops": flops(network, name)} if kind == "flops" else measure(kind, network, name, int(size))
    print(json.dumps(answer))

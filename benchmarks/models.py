"""Measure images per second of every architecture in every framework, and its share of the framework's matmul rate.

Run as `python -m benchmarks.models FRAMEWORK ARCHITECTURE VARIANT BATCH`: one line of JSON, one process, two threads.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np

THREADS = 2
SIDE = 2048  # of the square matrices whose product is the measure
SECONDS = 2.0  # of each measurement


def rate(run: Callable[[], Any], work: float) -> float:
    """Work per second at the best of many runs, after one to warm up."""
    run()
    best, end = float("inf"), time.perf_counter() + SECONDS
    while time.perf_counter() < end:
        start = time.perf_counter()
        run()
        best = min(best, time.perf_counter() - start)
    return work / best


def measure(framework: str, architecture: str, variant: str, batch: int) -> dict[str, float]:
    """Both rates, interleaved: matmul, model, matmul."""
    import ports

    port = ports.build(architecture, variant, framework, init="random")
    images = np.random.default_rng(0).standard_normal((batch, *port.spec.input_shape(port.config))).astype(np.float32)
    product = _product(framework)
    before = rate(product, 2 * SIDE**3)
    speed = rate(lambda: port(images), batch)
    return {"images": speed, "matmul": max(before, rate(product, 2 * SIDE**3))}


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
    """Multiplications and additions of products and convolutions for one image, as torch counts them on its port."""
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    import ports
    import specs

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

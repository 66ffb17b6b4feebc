"""Derive the Tables of a corpus of real pairs and judge them by its ground truth: one line a pair.

    python benchmarks/pairs/run.py CORPUS MODULE [NAME ...]      in an environment that has the pairs' packages

CORPUS is a folder with modules of pairs: MODULE.PAIRS = {name: () -> pair}, where a pair has left and right sides and
`truth`: {right name: expression of left arrays}. Each pair runs in its own process where no names are given.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import subprocess
import sys
import time
import warnings
from types import SimpleNamespace
from typing import Any

import numpy as np


def judge(pair: Any) -> dict[str, Any]:
    """What derive() finds for a pair, and how many right parameters are right, wrong and missing."""
    import parity
    from parity.derive.sides import side

    calls = [parity.Call(*s.args, method=s.method, output=s.pick, **s.kwargs) for s in (pair.left, pair.right)]
    clock = time.process_time()
    found = parity.derive(pair.left.model, pair.right.model, calls[0], calls[1], seconds=60)
    seconds = time.process_time() - clock
    of = side(pair.left.model, calls[0])
    numbers, start = {}, 1
    for name, array in of.parameters.items():
        numbers[name] = np.arange(start, start + array.size, dtype=float).reshape(array.shape)
        start += array.size
    numbers |= {name: numbers[first] for name, first in of.ties.items()} | of.others
    moved = {_name(k): v for k, v in found.table.apply(numbers).items()}
    by_name = {_name(k): v for k, v in numbers.items()}
    counts: dict[str, list[str]] = {"right": [], "wrong": [], "missing": []}
    for name, expression in pair.truth.items():
        here = moved.get(_name(name))
        wanted = np.asarray(expression({k: by_name.get(_name(k)) for k in expression.names}))
        kind = "missing" if here is None else "right" if np.array_equal(here, wanted.reshape(here.shape)) else "wrong"
        counts[kind].append(name)
    return {
        "proven": found.proven, "error": found.error, "seconds": round(seconds, 1), "failure": found.failure,
        "right": len(counts["right"]), "wrong": counts["wrong"], "missing": counts["missing"],
        "lines": len(found.table.lines), "divergences": [d._asdict() for d in found.divergences],
        "unobservable": found.unobservable,
    }  # fmt: skip


def _name(name: str) -> str:
    return name.replace("/", ".")


def main(corpus: str, module: str, *names: str) -> None:
    sys.path.insert(0, corpus)
    if not names:
        for name in importlib.import_module(module).PAIRS:
            subprocess.run([sys.executable, "-W", "ignore", __file__, corpus, module, name], check=False, timeout=200)
        return
    warnings.simplefilter("ignore")
    with contextlib.suppress(ImportError, OSError, RuntimeError):  # else the corpus has a stand-in for its operators
        import torch
        import torchvision  # noqa: F401

        library = torch.library.Library
        torch.library.Library = lambda *_: SimpleNamespace(define=lambda *_: None)
        import stubs  # noqa: F401

        torch.library.Library = library
    pairs = importlib.import_module(module).PAIRS
    for name in names:
        try:
            result = judge(pairs[name]())
        except Exception as error:
            if os.environ.get("TRACE"):
                raise
            result = {"failed": f"{type(error).__name__}: {str(error)[:300]}"}
        print(json.dumps({"pair": name, **result}, default=str), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])

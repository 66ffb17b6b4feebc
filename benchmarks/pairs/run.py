"""Derive the Tables of a corpus of real pairs and judge them by its ground truth: one line of JSON a pair.

    make pairs CORPUS=FOLDER [PAIRS="NAME ..."]                        in an environment of its own, .pairs: does both
    python benchmarks/pairs/run.py CORPUS [NAME ...] >> results.jsonl  where the pairs' packages are installed
    python benchmarks/pairs/run.py --markdown results.jsonl            the table of the latest result of each pair

CORPUS is a folder with requirements.txt, requirements-nodeps.txt (packages without what they ask for) and a module
`pairs`: PAIRS = {name: () -> pair}, where a pair has left and right sides and `truth`: {right name: expression of left
arrays}; NAME+repaired is a pair whose two models were made equal.
Each pair runs in its own process, forked after the imports, and is ended after LIMIT seconds or above MEMORY.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import signal
import sys
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

LIMIT = 180  # seconds of CPU for building a pair and deriving its Table
SECONDS = float(os.environ.get("SECONDS_A_PAIR", 60))  # for the matching alone
MEMORY = 4096  # MB
EQUIVALENT = 1e-9  # relative difference of the right model's outputs under two translations that are one function


def judge(pair: Any) -> dict[str, Any]:
    """Tell what derive() finds for a pair, and which right parameters are right, wrong and missing."""
    import parity
    from parity.derive.trace.draws import draw
    from parity.derive.trace.sides import side

    calls = [parity.Call(*s.args, method=s.method, output=s.pick, **s.kwargs) for s in (pair.left, pair.right)]
    Path("/proc/self/clear_refs").write_text("5")  # reset the peak of memory
    before = _resident(os.getpid())
    clock = time.process_time()
    found = parity.derive(pair.left.model, pair.right.model, calls[0], calls[1], seconds=SECONDS)
    seconds = time.process_time() - clock
    of = side(pair.left.model, calls[0])
    numbers, start = {}, 1
    for name, array in of.parameters.items():
        numbers[name] = np.arange(start, start + array.size, dtype=float).reshape(array.shape)
        start += array.size
    derived, truth = _moved(found.table, of, numbers), _wanted(pair, of, numbers)
    kinds: dict[str, list[str]] = {"right": [], "wrong": [], "missing": []}
    for name, wanted in truth.items():
        here = derived.get(name)
        same = here is not None and np.array_equal(here, np.reshape(wanted, np.shape(here)))
        kinds["missing" if here is None else "right" if same else "wrong"].append(name)
    equivalent = not kinds["missing"]
    if equivalent and kinds["wrong"]:
        equivalent = _equivalent(pair, of, found.table, draw(of, 5), calls[1])
    return {
        "proven": found.proven, "error": found.error, "seconds": round(seconds, 1), "failure": found.failure,
        "mb": _peak(), "before": before, "right": len(kinds["right"]), "wrong": kinds["wrong"],
        "missing": kinds["missing"], "equivalent": equivalent, "lines": len(found.table.lines),
        "left": pair.left.framework, "other": pair.right.framework,
        "divergences": [{**d._asdict(), "cause": d.cause} for d in found.divergences],
        "unobservable": found.unobservable, "inferred": found.inferred, "unfilled": found.missing,
    }  # fmt: skip


def _name(name: str) -> str:
    return name.replace("/", ".")


def _moved(table: Any, of: Any, arrays: Mapping[str, Any]) -> dict[str, Any]:
    known = {**arrays, **{name: arrays[first] for name, first in of.ties.items()}, **of.others}
    return {_name(name): array for name, array in table.apply(known).items()}


def _wanted(pair: Any, of: Any, arrays: Mapping[str, Any]) -> dict[str, Any]:
    known = {**arrays, **{name: arrays[first] for name, first in of.ties.items()}, **of.others}
    known = {_name(name): array for name, array in known.items()}
    return {
        _name(name): np.asarray(expression({k: known.get(_name(k)) for k in expression.names}))
        for name, expression in pair.truth.items()
    }


def _equivalent(pair: Any, of: Any, table: Any, weights: Mapping[str, Any], call: Any) -> bool:
    """Tell whether the right model computes the same with the weights as the table and as the truth translate them."""
    from parity.derive.trace.sides import side

    model = side(pair.right.model, call)
    outputs = []
    for translated in (_wanted(pair, of, weights), _moved(table, of, weights)):
        arrays = {name: translated.get(_name(name), array) for name, array in model.parameters.items()}
        arrays = {name: np.reshape(array, model.parameters[name].shape) for name, array in arrays.items()}
        outputs.append(model.run(arrays, call.arrays()))
    pairs = zip(*outputs, strict=True)
    return all(np.abs(a - b).max(initial=0) <= EQUIVALENT * np.abs(a).max(initial=0) for a, b in pairs)


def _peak() -> int:
    """Return the peak of this process's memory in MB."""
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) // 1024


def _resident(pid: int) -> int:
    with contextlib.suppress(OSError, IndexError):
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") >> 20
    return 0


def _seconds(pid: int) -> float:
    """Return the CPU time that a process took, which other processes do not lengthen."""
    with contextlib.suppress(OSError, IndexError):
        fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    return 0.0


def _run(name: str, builders: Mapping[str, Callable[[], Any]]) -> None:
    try:
        base, _, repaired = name.partition("+")
        pair = builders[base]()
        result = judge(pair.repaired() if repaired else pair)
        result["equal"] = bool(pair.equal or repaired)
    except Exception as error:
        if os.environ.get("TRACE"):
            raise
        result = {"failed": f"{type(error).__name__}: {str(error)[:300]}"}
    print(json.dumps({"pair": name, **result}, default=str), flush=True)


def _watched(name: str, builders: Mapping[str, Callable[[], Any]]) -> None:
    """Run a pair in a process of its own, within limits of time and memory."""
    pid = os.fork()
    if not pid:
        _run(name, builders)
        sys.stdout.flush()
        os._exit(0)
    reason = ""
    while os.waitpid(pid, os.WNOHANG) == (0, 0):
        reason = "time" if _seconds(pid) > LIMIT else "memory" if _resident(pid) > MEMORY else ""
        if reason:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            print(json.dumps({"pair": name, "failed": f"out of {reason}"}), flush=True)
            return
        time.sleep(0.1)


def _imports(corpus: str) -> None:
    sys.path.insert(0, corpus)
    warnings.simplefilter("ignore")
    with contextlib.suppress(ImportError, OSError, RuntimeError):  # else the corpus has a stand-in for its operators
        import torch
        import torchvision  # noqa: F401

        library = torch.library.Library
        torch.library.Library = lambda *_: SimpleNamespace(define=lambda *_: None)
        import stubs  # noqa: F401

        torch.library.Library = library


def markdown(file: str) -> Iterator[str]:
    """Yield the lines of a table: the latest result of each pair."""
    latest = {result["pair"]: result for result in map(json.loads, Path(file).read_text().splitlines())}
    yield "| pair | complete | right | proven | seconds | MB | of these, derive | what is left |"
    yield "|---|---|---|---|---:|---:|---:|---|"
    for name, r in sorted(latest.items()):
        if "failed" in r:
            yield f"| {name} | no | | no | | | | {r['failed'].splitlines()[0][:120]} |"
            continue
        complete = not r["missing"]
        right = (
            "no" if not complete and r["wrong"] else "" if not complete else "yes" if not r["wrong"] else "equivalent"
        )
        right = "no" if complete and r["wrong"] and not r["equivalent"] else right
        proven = "yes" if r["proven"] else "" if r["equal"] else "differ"
        own = r["mb"] - r["before"] if "before" in r else ""
        left = r["failure"] or (f"{len(r['missing'])} missing" if r["missing"] else "")
        cells = (name, "yes" if complete else "no", right, proven, r["seconds"], r["mb"], own, left)
        yield f"| {' | '.join(map(str, cells))} |"


def main(*arguments: str) -> None:
    if arguments[0] == "--markdown":
        print("\n".join(markdown(arguments[1])))
        return
    _imports(arguments[0])
    builders = importlib.import_module("pairs").PAIRS
    for name in arguments[1:] or builders:
        _watched(name, builders)


if __name__ == "__main__":
    main(*sys.argv[1:])

"""One framework's part of a comparison, here or in a process of its own; whatever goes wrong becomes a cause."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass

import specs
from convert.errors import ConvertError

from .record import Recording, load, record, save
from .targets import Target

# How frameworks say that they lack a kernel; anything else that is raised is a failure of the port.
LACKS = r"not implemented|unimplemented|not support|unsupported|not registered|no kernel|isn't implemented|not compiled"
TIMEOUT = 3600  # seconds that a framework's process may take for one model


@dataclass(frozen=True)
class Job:
    """All checks of one model in one framework, dtype and device."""

    target: Target
    framework: str
    dtype: str
    device: str
    checks: tuple[str, ...]
    batch: int = 2
    steps: int = 10


Recordings = dict[str, Recording]  # by check


def attempt(job: Job, feeds: Mapping[str, Recording], label: str = "") -> Recordings:
    """Run a job in this process.

    Args:
      feeds: the reference's recordings by check, for single steps.
    """
    import ports
    from ports.runners.base import Unavailable

    label = label or job.framework
    empty = Recording(label, job.framework, job.dtype, job.device)
    try:
        ports.require(job.framework)
        port = job.target.port(job.framework, job.dtype, job.device)
    except (Unavailable, ports.UsageError) as error:
        return {check: _without(empty, str(error), True) for check in job.checks}
    except ConvertError:
        raise
    except failures() as error:
        return {check: _without(empty, *_told(error, job.dtype)) for check in job.checks}
    images = job.target.images(port.config, job.batch)
    found: Recordings = {}
    for check in job.checks:
        try:
            found[check] = record(port, images, check, label, feeds.get(check), job.steps)
        except failures() as error:
            found[check] = _without(empty, *_told(error, job.dtype))
    return found


def failures() -> tuple[type[BaseException], ...]:
    """What running a model may raise, in the frameworks that are loaded."""
    known: list[type[BaseException]] = [RuntimeError, TypeError, ValueError, ArithmeticError, LookupError]
    known += [AttributeError, AssertionError, NotImplementedError, MemoryError, OSError, ImportError]
    if "paddle" in sys.modules:
        core = getattr(sys.modules["paddle"].base, "core", None)
        known.append(getattr(core, "EnforceNotMet", RuntimeError))
    return tuple(known)


def _without(empty: Recording, cause: str, unable: bool) -> Recording:
    return Recording(empty.label, empty.framework, empty.dtype, empty.device, cause=cause, unable=unable)


def _told(error: BaseException, dtype: str) -> tuple[str, bool]:
    """(what was raised, in a line; whether it is a kernel that the framework lacks in a half-precision dtype)."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    telling = [line for line in lines if re.search(LACKS, line, re.IGNORECASE)] or lines[-1:] or [""]
    lacks = dtype in ("float16", "bfloat16") and bool(re.search(LACKS, str(error), re.IGNORECASE))
    cause = f"{type(error).__name__}: {telling[0][:300]}"
    return (f"{dtype} is beyond it on this device: {cause}" if lacks else cause), lacks


def isolated(job: Job, feeds: Mapping[str, Recording], label: str = "") -> Recordings:
    """Run a job in a process of its own: its crash leaves a cause, and nothing else."""
    with tempfile.TemporaryDirectory() as folder:
        for check, feed in feeds.items():
            save(feed, os.path.join(folder, f"feed-{check}.npz"))
        about = {"label": label or job.framework, "folder": folder, "specs": specs.added()}
        order = json.dumps({**asdict(job), **about})
        try:
            done = subprocess.run(
                [sys.executable, "-W", "ignore", "-m", "parity.attempt"],
                input=order, capture_output=True, text=True, timeout=TIMEOUT, check=False,
            )  # fmt: skip
        except subprocess.TimeoutExpired:
            return _crashed(job, label, f"its process was still running after {TIMEOUT} s")
        paths = {check: os.path.join(folder, f"{check}.npz") for check in job.checks}
        lost = _crashed(job, label, _last_words(done)) if done.returncode else {}
        return {check: load(path) if os.path.exists(path) else lost[check] for check, path in paths.items()}


def _crashed(job: Job, label: str, cause: str) -> Recordings:
    empty = Recording(label or job.framework, job.framework, job.dtype, job.device)
    return {check: _without(empty, cause, False) for check in job.checks}


def _last_words(done: subprocess.CompletedProcess[str]) -> str:
    how = f"exit code {done.returncode}"
    if done.returncode < 0:
        how = signal.Signals(-done.returncode).name
    lines = [line.strip() for line in done.stderr.splitlines() if line.strip()]
    return f"its process died ({how})" + (f": {lines[-1][:300]}" if lines else "")


def main() -> None:
    """A process of its own: an order on stdin, a recording a check in its folder, each written once it is made."""
    order = json.loads(sys.stdin.read())
    folder, label = order.pop("folder"), order.pop("label")
    for source in order.pop("specs"):  # pages that the user named
        specs.add(source)
    job = Job(**{**order, "target": Target(**order["target"]), "checks": tuple(order["checks"])})
    feeds = {c: load(p) for c in job.checks if os.path.exists(p := os.path.join(folder, f"feed-{c}.npz"))}
    for check in job.checks:
        one = Job(job.target, job.framework, job.dtype, job.device, (check,), job.batch, job.steps)
        save(attempt(one, feeds, label)[check], os.path.join(folder, f"{check}.npz"))


if __name__ == "__main__":
    main()

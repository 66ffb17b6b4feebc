"""Run one framework's part of a comparison in this process; whatever goes wrong becomes a cause."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from traceback import walk_tb
from typing import Protocol

from convert.errors import ConvertError, cut, install
from parity.given.targets import Target
from parity.results.result import NO_PORT, NOT_INSTALLED
from ports.runners.inputs import Inputs

from .ended import Ended
from .recording import Recording, mark_random, record

# How frameworks say that they lack a kernel; anything else that is raised is a failure of the port.
LACKS = r"not implemented|unimplemented|not support|unsupported|not registered|no kernel|isn't implemented|not compiled"
KERNEL = r"kernel `(\w+)` is not registered|\"(\w+)\" not implemented for"  # how paddle and torch name it
LINES = 12  # of a message that is quoted whole


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
Run = Callable[..., Recordings]  # runs a job here, or in a framework's process


def run_here(job: Job, feeds: Mapping[str, Recording], label: str = "") -> Recordings:
    """Run a job in this process. Whatever a port raises becomes the cause of its recordings.

    Args:
      feeds: the reference's recordings by check, for single steps.
    Raises: ConvertError for a target that fits no framework, such as a checkpoint of another network.
    """
    import ports
    from ports.frameworks import PortError, Unavailable, declared

    without = partial(not_run, job, label)
    if job.framework not in ports.available():
        return without(f"{job.framework} {NOT_INSTALLED}: {install(job.framework)}", True)
    if not declared(job.target.architecture, job.framework):
        return without(f"{job.target.architecture} {NO_PORT} {job.framework}", True)
    try:
        port = job.target.port(job.framework, job.dtype, job.device)
        images = job.target.images(port.config, job.batch)
        if misfits := port.runner.misfits(Inputs(images)):
            return without(f"its port does not fit the page: {'; '.join(misfits)}", False)
    except Unavailable as error:
        return without(error.why, True)
    except PortError as error:
        return without(error.line(), False)
    except ConvertError:
        raise
    except Exception as error:  # a port is code: anything may be wrong with it
        return without(*cause_of(error, job))
    recordings: Recordings = {}
    is_random = cache(partial(port.is_random, images))  # it runs the model, alike for each check of one mode
    for check in job.checks:
        try:
            recordings[check] = record(port, images, check, label or job.framework, feeds.get(check), job.steps)
            mark_random(recordings[check], check, is_random)
        except Exception as error:
            recordings[check] = without(*cause_of(error, job))[check]
    return recordings


def not_run(job: Job, label: str, cause: str, unable: bool = False) -> Recordings:
    """Return recordings that say of every check of a job why it was not run."""
    about = label or job.framework, job.framework, job.dtype, job.device
    return {check: Recording(*about, cause=cause, unable=unable) for check in job.checks}


class Runs(Protocol):
    """What runs a model, or is to run it: a job, a port, a model of the user's."""

    @property
    def framework(self) -> str: ...

    @property
    def dtype(self) -> str: ...

    @property
    def device(self) -> str: ...


def cause_of(error: Exception, run: Runs) -> tuple[str, bool]:
    """Return (what was raised, in a line; whether the framework lacks a kernel in a half-precision dtype)."""
    if isinstance(error, ConvertError):
        return error.line(), False
    lacks = run.dtype in ("float16", "bfloat16") and bool(re.search(LACKS, str(error), re.IGNORECASE))
    if lacks and (kernel := re.search(KERNEL, str(error))):
        return f"{run.framework} has no {kernel[1] or kernel[2]} in {run.dtype} on {run.device}", True
    unable = f"it cannot compute this model in {run.dtype} on {run.device}: " if lacks else ""
    return f"{unable}{raised(error)}", lacks


def raised(error: Exception) -> str:
    """Say in a line what was raised, and where in a port."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    message = lines[-1:] if len(lines) > LINES else lines  # of a long report, such as paddle's, the last line
    telling = [line for line in lines if re.search(LACKS, line, re.IGNORECASE)][:1] or message
    kind = "" if isinstance(error, Ended) else f"{type(error).__name__}: "
    return f"{kind}{cut(' '.join(telling))}{_place(error)}"


def _place(error: Exception) -> str:
    """Name the line of a port that raised: the last one that is neither ours nor a library's."""
    ours = str(Path(__file__).absolute().parents[2])
    engine = tuple(os.path.join(ours, *parts, "") for parts in (("parity",), ("ports", "runners"), ("convert",)))
    frames = [(frame.f_code.co_filename, line) for frame, line in walk_tb(error.__traceback__)]
    own = [(path, line) for path, line in frames if os.path.isfile(path) and not path.startswith(engine)]
    own = [
        (path, line) for path, line in own if "site-packages" not in path and os.path.dirname(path) != f"{ours}/ports"
    ]
    return f" ({own[-1][0]}, line {own[-1][1]})" if own else ""

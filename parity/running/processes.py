"""Run each framework's jobs in a process of its own, which waits for the next job; its crash becomes a cause.

A process reads orders, one a line of JSON, and answers each with a line. Recordings go through files.
"""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict
from typing import IO, Self

import specs
from convert.errors import command, cut
from parity.given.targets import Target

from .archive import load, save
from .job import Job, Recordings, not_run, run_here
from .recording import Recording

TIMEOUT = 3600  # seconds that a framework's process may take for one model


class Processes:
    """Run jobs, each framework's in one process: starting one for every model took most of the time."""

    def __init__(self) -> None:
        self.alive: dict[str, _Process] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for process in self.alive.values():
            process.stop()

    def __call__(self, job: Job, feeds: Mapping[str, Recording], label: str = "") -> Recordings:
        """Run a job in its framework's process, and start that where there is none.

        Args:
          feeds: the reference's recordings by check, for single steps.
        """
        if job.framework not in self.alive:
            self.alive[job.framework] = _Process()
        with tempfile.TemporaryDirectory() as folder:
            for check, feed in feeds.items():
                save(feed, _feed(folder, check))
            about = {"label": label or job.framework, "folder": folder, "specs": specs.added()}
            cause = self.alive[job.framework].obey(json.dumps({**asdict(job), **about}))
            if cause:
                del self.alive[job.framework]
            lost = not_run(job, label, cause)
            paths = {check: _recorded(folder, check) for check in job.checks}
            return {check: load(path) if os.path.exists(path) else lost[check] for check, path in paths.items()}


# with the path of this process: `-m` would put the user's folder first, which may hold a convert.py or a ports.py
START = """
import sys; sys.path[:] = {path!r}
import runpy; runpy.run_module('parity.running.processes', run_name='__main__')
"""


class _Process:
    def __init__(self) -> None:
        self.errors: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115  # kept as long as the process; a pipe might fill up
        words = [sys.executable, "-P", "-W", "ignore", "-c", START.format(path=sys.path)]
        pipe = subprocess.PIPE
        self.process = subprocess.Popen(words, stdin=pipe, stdout=pipe, stderr=self.errors, text=True)

    def obey(self, order: str) -> str:
        """Wait until an order is carried out. Returns: what happened to the process instead, or ""."""
        assert self.process.stdin and self.process.stdout
        with suppress(BrokenPipeError):  # it died since the last order; said below
            self.process.stdin.write(f"{order}\n")
            self.process.stdin.flush()
        if not select.select([self.process.stdout], [], [], TIMEOUT)[0]:
            self.stop()
            return f"its process was still running after {TIMEOUT} s"
        if self.process.stdout.readline():
            return ""
        self.process.wait()
        cause = self._last_words()
        self.stop()
        return cause

    def stop(self) -> None:
        self.process.kill()
        self.process.communicate()
        self.errors.close()

    def _last_words(self) -> str:
        code = self.process.returncode
        how = signal.Signals(-code).name if code < 0 else f"exit code {code}"
        self.errors.seek(0)
        lines = [line.strip() for line in self.errors.read().decode(errors="replace").splitlines() if line.strip()]
        return f"its process died ({how})" + (f": {cut(lines[-1])}" if lines else "")


def _feed(folder: str, check: str) -> str:
    return os.path.join(folder, f"feed-{check}.npz")


def _recorded(folder: str, check: str) -> str:
    return os.path.join(folder, f"{check}.npz")


def main() -> None:
    """Carry out orders from stdin, and write the recording of each check into its folder as soon as it has run."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what a port or a framework prints is no answer
    for line in sys.stdin:
        _carry_out(json.loads(line))
        print("done", file=answers, flush=True)


def _carry_out(order: dict) -> None:
    folder, label = order.pop("folder"), order.pop("label")
    for source in order.pop("specs"):  # pages that the user named
        if source not in specs.added():
            specs.add(source)
    job = Job(**{**order, "target": Target(**order["target"]), "checks": tuple(order["checks"])})
    feeds = {check: load(path) for check in job.checks if os.path.exists(path := _feed(folder, check))}
    for check in job.checks:
        single = Job(job.target, job.framework, job.dtype, job.device, (check,), job.batch, job.steps)
        save(run_here(single, feeds, label)[check], _recorded(folder, check))


if __name__ == "__main__":
    with command():  # which runs the jobs of the command line alone
        main()

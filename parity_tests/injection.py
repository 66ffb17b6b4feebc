"""Faults at chosen moments of a conversion: before the nth call that changes what is on disk.

Run as a program it kills a conversion at every such call, in forks of itself, and prints what it found as JSON.
"""

from __future__ import annotations

import io
import json
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

from convert.__main__ import main
from convert.errors import ConvertError
from convert.files import open_checkpoint
from convert.records.record import read
from convert.records.verification import verify

CHANGES = frozenset([os.fsync, os.link, os.unlink, os.replace, os.rename])
METHODS = ("write", "truncate")  # of files


class Before:
    """Calls `action` before the nth change on disk that this thread makes, from 0; `count` is how many there were."""

    def __init__(self, number: int | None, action: Callable[[], Any]):
        self.number, self.action, self.count = number, action, 0

    def _profile(self, frame: FrameType, event: str, call: Any) -> None:
        if event != "c_call":  # first, as most events are others: they cost as much as the conversion itself
            return
        of_file = call.__name__ in METHODS and isinstance(call.__self__, io.FileIO)
        if not of_file and call not in CHANGES:
            return
        self.count += 1
        if self.count - 1 == self.number:
            sys.setprofile(None)
            self.action()

    def __enter__(self) -> Before:
        sys.setprofile(self._profile)
        return self

    def __exit__(self, *_: object) -> None:
        sys.setprofile(None)


def forked(call: Callable[[], int]) -> int:
    """The exit code of a call in a process of its own; -9 where that was killed."""
    child = os.fork()
    if child == 0:
        signal.alarm(60)  # a fork of a process with threads may hang: it ends rather than wait
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
        os.dup2(2, 1)
        os._exit(call())
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def kill() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def content(folder: Path) -> dict[str, bytes]:
    """Every visible file."""
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir()) if not path.name.startswith(".")}


def problems(folder: Path, out: Path, old: dict[str, bytes], new: dict[str, bytes]) -> list[str]:
    """What is wrong with a folder in which a conversion was killed."""
    found = [
        f"{name} is neither the old nor the new one"
        for name, data in content(folder).items()
        if data not in (old.get(name), new.get(name))
    ]
    if out.name in old and not out.exists() and not out.name.endswith(".index.json"):
        found.append(f"{out.name} is gone")
    if out.exists():
        try:
            with open_checkpoint(out) as reader:
                record = read(reader)
            recorded = bool(record.content) and not record.change
            found += verify(str(out)).problems if recorded else []
        except ConvertError as error:
            found.append(str(error))
        beside = out.with_name(out.name + ".json")
        if beside.exists() and not recorded:
            found.append(f"{beside.name} describes another file")
    return found


def kill_everywhere(folder: Path, out: Path, first: list[str], words: list[str]) -> dict[str, Any]:
    """Kill `words` at every change, each time over what `first` wrote; run it again after each.

    Args:
      first: arguments that write the old target; none where there is none.
      words: arguments that write the new one.
    """
    main([*words, "--force", "--json"])  # here, so that the forks have everything imported and looked up
    new = content(folder)
    reset(folder, {})
    if first:
        forked(lambda: main(first))
    old = content(folder)
    found: list[str] = []
    for number in range(100_000):

        def attempt(number: int = number) -> int:
            with Before(number, kill):
                return main(words)

        reset(folder, old)
        code = forked(attempt)
        if code != -signal.SIGKILL:
            break
        found += [f"killed at {number}: {problem}" for problem in problems(folder, out, old, new)]
        again = forked(lambda: main([*words, "--force"]))
        if again or content(folder) != new or any(path.name.startswith(".") for path in folder.iterdir()):
            found.append(f"killed at {number}: run again, exit {again}: {sorted(os.listdir(folder))}")
    return {"points": number, "last": code, "problems": found, "changed": old != new}


def reset(folder: Path, files: dict[str, bytes]) -> None:
    for path in folder.iterdir():
        path.unlink()
    for name, data in files.items():
        (folder / name).write_bytes(data)


if __name__ == "__main__":
    where, target, old_words, new_words = sys.argv[1:]
    import numpy  # noqa: F401  (once, not in every fork)

    print(json.dumps(kill_everywhere(Path(where), Path(target), json.loads(old_words), json.loads(new_words))))

"""Read an Orbax checkpoint's arrays through tensorstore in a process of its own, see `tensorstore_child`.

Of 51 hostile folders in the tests, two abort the process that opens them with tensorstore (a shape and a chunk of 2^40)
and two take over 1.8 GB and 20 seconds. With limits on a child they are errors like every other.
"""

from __future__ import annotations

import importlib.util
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
from typing import IO, Any

from convert.errors import FormatError, UsageError, install
from convert.files.base import MAX_NAME, pread

SPEED = 16 << 20  # bytes per second of processor time that reading takes at least; blosc and zstd reach 300 MB/s
CHILD = os.path.join(os.path.dirname(__file__), "tensorstore_child.py")
MAX_LINE = 256 << 20  # bytes of one answer: a million keys


class Process:
    """The child process.

    Args:
      path: the checkpoint, for messages.
      base: what is read: a folder's path or a URL, with a slash at its end.
    Raises: UsageError where tensorstore is missing.
    """

    def __init__(self, path: str, base: str):
        require()
        self.path, self._shared = path, _memory_file()
        self._child = subprocess.Popen(
            [sys.executable, "-P", "-W", "ignore", CHILD, base, str(self._shared.fileno())],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            pass_fds=[self._shared.fileno()],
            process_group=0,  # Ctrl-C reaches us alone
        )

    def call(self, what: str, *, room: int = 0, **arguments: Any) -> Any:
        """Call a method of `tensorstore_child.Arrays`.

        Args:
          room: bytes of payload that it needs in memory, beside what every call may use.
        Raises: ValueError with the error's text; FormatError where the process has ended.
        """
        request = {"call": what, "room": 4 * room, "seconds": room // SPEED, **arguments}
        stdin, stdout = self._child.stdin, self._child.stdout
        assert stdin is not None and stdout is not None
        try:
            stdin.write(json.dumps(request).encode() + b"\n")
            stdin.flush()
        except BrokenPipeError:
            raise self._ended() from None
        line = stdout.readline(MAX_LINE)
        if not line.endswith(b"\n"):
            raise self._ended()
        answer = json.loads(line)
        if "error" in answer:
            raise ValueError(reason(answer["error"]))
        return answer["result"]

    def payload(self, start: int, stop: int) -> bytes:
        """Return bytes [start, stop) of what the last call of "band" has read; fewer at the end."""
        return pread(self._shared.fileno(), stop - start, start)

    def _ended(self) -> FormatError:
        self._child.kill()
        status = self._child.wait()
        how = f"signal {signal.Signals(-status).name}" if status < 0 else f"exit status {status}"
        return FormatError(
            self.path,
            f"cannot be read: it ended the process that reads it through tensorstore within limits ({how})",
            "if you trust it, restore it with orbax and save it again",
        )

    def close(self) -> None:
        self._child.kill()
        self._child.wait()
        for file in (self._child.stdin, self._child.stdout, self._shared):
            if file is not None:
                file.close()


def _memory_file() -> IO[bytes]:
    """Return a file without a name: in memory where the system can."""
    if hasattr(os, "memfd_create"):
        return os.fdopen(os.memfd_create("triptych"), "w+b", buffering=0)
    return tempfile.TemporaryFile(buffering=0)


def require() -> None:
    """Check that tensorstore is installed. Raises: UsageError that names the extra to install."""
    if not importlib.util.find_spec("tensorstore"):
        raise UsageError(f"Orbax checkpoints need tensorstore: {install('orbax')}")


def reason(text: str) -> str:
    """Return what tensorstore says, without its specs and source places, fit for one line of a message."""
    text = re.sub(r" \[(tensorstore_spec|source locations)=.*", "", text, flags=re.DOTALL)
    text = re.sub(r"in OCDBT database at local file \"[^\"]*\"", "in the database", text)
    return ascii(text[:MAX_NAME])[1:-1][:300]

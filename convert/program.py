"""Run a command: print strict JSON, report errors in one line, return the exit status."""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
from collections.abc import Callable, Iterator
from typing import Any

from .errors import ConvertError, command

INTERRUPTED = 130


class Arguments(argparse.ArgumentParser):
    """A parser whose errors are one line, and whose help fails where it cannot be written (argparse ignores that)."""

    def print_help(self, file: Any = None) -> None:
        print(self.format_help(), end="", file=file)

    def error(self, message: str) -> Any:
        self.exit(2, f"{self.prog.rpartition(' ')[2]}: {message} ({self.prog} --help)\n")


def guarded(name: str, work: Callable[[], int], argv: list[str], interrupted: str = "interrupted") -> int:
    """Run the work of a command and flush what it printed; return its exit status.

    Errors of the user's are printed, never as a traceback: on one line where --json asks for output that programs read.
    Output that cannot be written, as on a full disk, is such an error; a reader that closed our pipe is not told of it.

    Args:
      name: of the command, before each error.
      interrupted: what to say on Ctrl-C.
    """
    output = sys.stdout and _Output(sys.stdout)  # None if closed by the shell: >&-
    try:
        with contextlib.redirect_stdout(output), command():
            code = _reported(name, work, argv, interrupted)
            if output is not None:
                output.flush()
        return code
    except BrokenPipeError:
        return _silenced()
    except OSError as error:
        print(f"{name}: {error}", file=sys.stderr)
        return _silenced()


class _Output:
    """Standard output, whose errors say so: those of the system name no file."""

    def __init__(self, stream: Any):
        self._stream = stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> Any:
        with _naming("standard output"):
            return self._stream.write(text)

    def flush(self) -> None:
        with _naming("standard output"):
            self._stream.flush()


@contextlib.contextmanager
def _naming(what: str) -> Iterator[None]:
    """Name what could not be written. Raises: OSError; BrokenPipeError as it is."""
    try:
        yield
    except BrokenPipeError:
        raise
    except OSError as error:
        raise OSError(f"{what}: {error.strerror or error}") from None


def _reported(name: str, work: Callable[[], int], argv: list[str], interrupted: str) -> int:
    try:
        return work()
    except SystemExit as leaving:  # argparse's way out, and ours on SIGTERM
        return leaving.code if isinstance(leaving.code, int) else 0
    except ConvertError as error:
        print(f"{name}: {error.line() if wants_json(argv) else error}", file=sys.stderr)
        return error.code
    except KeyboardInterrupt:
        print(f"{name}: {interrupted}", file=sys.stderr)
        return INTERRUPTED


def wants_json(argv: list[str]) -> bool:
    """Whether --json was given, which argparse allows to shorten."""
    return any(len(word) > 2 and "--json".startswith(word) for word in argv)


def _silenced() -> int:
    """Send what else is printed, also when the process ends, to /dev/null; return the exit status of a failure."""
    with contextlib.suppress(OSError, ValueError, AttributeError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 1


def dumps(value: Any) -> str:
    """Strict JSON, as every --json prints it: a number that is not finite, for which JSON has no word, is null."""
    import json

    return json.dumps(_finite(value), indent=1, allow_nan=False)


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if abs(value) < float("inf") else None
    if isinstance(value, dict):
        return {key: _finite(inner) for key, inner in value.items()}
    return list(map(_finite, value)) if isinstance(value, list | tuple) else value

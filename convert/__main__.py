"""Run the command line, `python -m convert` or `triptych convert`. Thin, so that --help answers at once.

command_line/parsers.py lists the commands and what each takes; commands.py beside it does the work.
"""

import gc
import io
import os
import resource
import signal
import sys

from .command_line.parsers import COMMANDS, TABLE, is_route, parser
from .running import INTERRUPTED, Deferred, guarded, keep_freed_memory


def main(argv: list[str] | None = None) -> int:
    argv = sys.argv[1:] if argv is None else argv
    return guarded("convert", lambda: _run(argv), argv, "interrupted; no partial file was left behind")


def _run(argv: list[str]) -> int:
    command = _command(argv)
    if command and command not in COMMANDS and not is_route(command):
        from .command_line.commands import REVERSED
        from .command_line.routes import route
        from .errors import UsageError

        if "--reverse" in argv:
            raise UsageError(REVERSED)
        route(command)  # which raises what is wrong with it
    wants_help = not {"-h", "--help"}.isdisjoint(argv)  # also where --help stands in the place of a value
    arguments = parser(command).parse_args(["--help"] if wants_help else argv)
    from .command_line import commands

    return commands.run(arguments)


def _command(argv: list[str]) -> str:
    """Return the first word that is neither an option nor the value of one; TABLE where that stands for a command."""
    table = any(word.partition("=")[0] == TABLE for word in argv)
    if all(word.startswith("-") for word in argv):  # as --help: no need to ask which options take a value
        return TABLE if table else ""
    words = iter(argv)
    for word in words:
        if not word.startswith("-"):
            return TABLE if table and word not in COMMANDS else word
        if word in _valued():
            next(words, None)
    return TABLE if table else ""


def _valued() -> set[str]:
    """Return the options of all commands that take a value."""
    actions = (action for command in COMMANDS for action in parser(command)._actions)
    return {option for action in actions if action.nargs is None for option in action.option_strings}


def program(argv: list[str] | None = None) -> int:
    """Run `main` in a process of its own, which is set up to move bytes and not to calculate."""
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # numpy's others would spin, and nothing here multiplies
    # dataclasses and zipfile import these, which takes 15 ms, and hardly use them.
    sys.meta_path.insert(0, Deferred("bz2", "inspect", "lzma", "pathlib", "shutil"))
    keep_freed_memory()
    gc.set_threshold(100_000)  # directories are many small objects and no garbage
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))  # shards are open at once
    if isinstance(sys.stdout, io.TextIOWrapper) and sys.stdout.errors == "strict":
        sys.stdout.reconfigure(errors="backslashreplace")  # names that it cannot spell
    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) != signal.SIG_IGN:  # as under nohup
            signal.signal(number, lambda number, _: sys.exit(128 + number))  # like Ctrl-C: nothing is left behind
    status = main(argv)
    if status == INTERRUPTED:  # threads of a framework may still compile, and abort where Python takes down its own
        sys.stdout.flush(), sys.stderr.flush()
        os._exit(status)
    gc.freeze()  # the interpreter's last collection would walk every module once more: a tenth of what inspect takes
    return status


if __name__ == "__main__":
    sys.exit(program())

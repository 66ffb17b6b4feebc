"""Run a command: print strict JSON, report errors in one line, return the exit status."""

from __future__ import annotations

import argparse
import contextlib
import os
import re
import sys
from collections.abc import Callable, Iterable, Iterator
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader
from types import ModuleType
from typing import Any

from .errors import ConvertError, called, command
from .terminal import WIDTH, help_columns, say, wrapped

INTERRUPTED, BROKEN_PIPE = 130, 141  # 128 + SIGINT, 128 + SIGPIPE
BLOCK = 8 << 20  # bytes: several strips of a tensor and what is computed of them
OPTIONS = {  # words that other tools have for commands or options -> our option
    "plan": "dry-run", "prove": "prove", "output": "out", **dict.fromkeys(["overwrite", "replace", "clobber"], "force"),
}  # fmt: skip
NEGATED = re.compile("--(no|un|dis|skip|without)")  # beginnings of options that turn something off


class Formatter(argparse.RawDescriptionHelpFormatter):
    """Fit help into WIDTH columns, or into a narrower terminal (asked without shutil, whose import takes long)."""

    def __init__(self, prog: str):
        super().__init__(prog, max_help_position=22, width=help_columns(sys.stdout))

    def _split_lines(self, text: str, width: int) -> list[str]:
        return wrapped(text, width)

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        """Fit lines, written for WIDTH columns, into fewer: join those of a paragraph, and wrap each."""
        lines: list[str] = []
        for line in text.splitlines():
            begins = not lines or not lines[-1] or not line or line.startswith(" ") or lines[-1].startswith(" ")
            if begins or lines[-1].endswith(":") or width >= WIDTH:
                lines.append(line)
            else:
                lines[-1] += f" {line}"
        margins = [" " * (len(line) - len(line.lstrip()) + 2) if line.startswith(" ") else "" for line in lines]
        folded = (wrapped(line, width, rest=margin) for line, margin in zip(lines, margins, strict=True))
        return "\n".join(indent + line for some in folded for line in some)


class Arguments(argparse.ArgumentParser):
    """Parse the arguments of one command.

    Errors are one line. Help that cannot be written is an error too, which argparse ignores.

    Args:
      command: as "convert diff": help and errors name it as its user called it.
      usage: the words after it.
    """

    def __init__(self, command: str, usage: str, **options: Any):
        prog = called(command)
        super().__init__(prog=prog, usage=f"{prog} {usage}", formatter_class=Formatter, allow_abbrev=False, **options)
        self.stored = set[str]()
        self.register("action", None, Once)

    def print_help(self, file: Any = None) -> None:
        print(self.format_help(), end="", file=file)

    def parse_args(self, args: Any = None, namespace: Any = None) -> Any:
        """Parse them; a misspelt option is answered with the one that was meant."""
        self._given = sys.argv[1:] if args is None else list(args)
        self.stored.clear()
        parsed, others = self.parse_known_args(args, namespace)
        if others:
            shown = [action for action in self._actions if action.help != argparse.SUPPRESS]
            options = [name for one in shown if not isinstance(one, Version) for name in one.option_strings]
            wrong = next((other.partition("=")[0] for other in others if other.startswith("--")), "")
            self.error(f"unrecognized arguments: {' '.join(others)}{_meant(wrong, options) if wrong else ''}")
        return parsed

    def error(self, message: str) -> Any:
        given: list[str] = getattr(self, "_given", [])
        dashed = next((word for word in given if word.startswith("-") and os.path.lexists(word)), "")
        file = f"; the file {dashed!r} is given as {f'./{dashed}'!r}" if dashed else ""
        say(f"{self.prog}: {message}{file} (see {self.prog} --help)", sys.stderr, "bad")
        self.exit(2)


def _meant(wrong: str, options: Iterable[str]) -> str:
    """Return ", did you mean '--x'?" with the option that an unknown one stands for; "" if it may stand for none.

    That is our word for it, one that begins so, or one that differs in a letter or two. None turns something off that
    the unknown one turns on: '--verify' is not answered with '--no-verify'.
    """
    from specs.words import MISSPELT, nearest

    word = wrong.removeprefix("--")  # the dashes make all options alike
    alike = [one.removeprefix("--") for one in options if bool(NEGATED.match(one)) == bool(NEGATED.match(wrong))]
    longer = [one for one in alike if word[2:] and one.startswith(word)]
    near = OPTIONS[word] if OPTIONS.get(word) in alike else next(iter(longer), "") or nearest(word, alike, MISSPELT)
    return f", did you mean '--{near}'?" if near else ""


class Once(argparse.Action):
    """Store the value of an option that may be given once: a second one would hide the first without a word."""

    def __call__(self, parser: argparse.ArgumentParser, namespace: Any, values: Any, option: str | None = None) -> None:
        assert isinstance(parser, Arguments)
        if option and self.dest in parser.stored:
            parser.error(f"argument {'/'.join(self.option_strings)}: given twice, as {values!r} too")
        parser.stored.add(self.dest)
        setattr(namespace, self.dest, values)


class Version(argparse.Action):
    """Print the versions of Triptych and of the frameworks, none of which is imported."""

    def __init__(self, option_strings: Any, dest: str, **options: Any):
        about = "print the versions of Triptych and of the frameworks"
        super().__init__(option_strings, argparse.SUPPRESS, nargs=0, default=argparse.SUPPRESS, help=about)

    def __call__(self, parser: argparse.ArgumentParser, *_: Any) -> None:
        from .installed import lines

        print("\n".join(lines()))
        parser.exit()


ASSUME = "accept the default of each setting that changes the outputs and that nobody states"


def add_spec(parser: argparse.ArgumentParser) -> None:
    """Add --spec."""
    parser.add_argument(
        "--spec", metavar="PAGE", action="append", default=[],
        help="an architecture of yours: its .py file, or an installed entry point; runs its code (may be repeated)",
    )  # fmt: skip


def add_settings(
    parser: argparse.ArgumentParser,
    form: str = "KEY=VALUE",
    about: str = "one Config field; may be repeated",
    assume: str = ASSUME,
) -> None:
    """Add --config and --set; --assume unless its help is empty."""
    parser.add_argument(
        "--config",
        metavar="FILE",
        help="Config fields: JSON, YAML, a checkpoint with a record, or the .json beside one",
    )
    parser.add_argument("--set", metavar=form, action="append", default=[], help=about)
    if assume:
        parser.add_argument("--assume", action="store_true", help=assume)


def add_quiet(parser: argparse.ArgumentParser, beside: str = "") -> None:
    """Add --quiet. Args: beside: what a command prints all the same."""
    parser.add_argument("--quiet", action="store_true", help=f"print only notes and what is wrong{beside}")


class Deferred:
    """Finds modules of the standard library that run when one of their names is first used, not when imported first."""

    def __init__(self, *names: str):
        self.names = names

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
        spec = PathFinder.find_spec(name) if name in self.names else None
        if spec is not None and isinstance(spec.loader, SourceFileLoader):
            spec.loader = _LaterLoader(name, spec.loader.path)
        return spec


# What the import system reads of a module, for which it does not have to run.
BEFORE_IT_RUNS = frozenset(
    f"__{name}__" for name in ("class", "dict", "file", "loader", "name", "package", "path", "spec")
)


class _LaterLoader(SourceFileLoader):
    def create_module(self, spec: ModuleSpec) -> ModuleType:
        return _Later(spec.name)

    def exec_module(self, module: ModuleType) -> None:
        if type(module) is not _Later:
            super().exec_module(module)


class _Later(ModuleType):
    """A module that has not run. One that Ctrl-C ends runs again at its next use.

    Unlike importlib.util.LazyLoader's, it does not run when it is imported again: Python's import drops a Ctrl-C there.
    """

    def __getattribute__(self, name: str) -> Any:
        if name in BEFORE_IT_RUNS:
            return super().__getattribute__(name)
        self.__class__ = ModuleType  # type: ignore[assignment]  # while it runs, as modules that it imports may use it
        try:
            self.__loader__.exec_module(self)  # type: ignore[union-attr]
        except BaseException:
            self.__class__ = _Later
            raise
        return getattr(self, name)


def keep_freed_memory() -> None:
    """Keep freed blocks of up to BLOCK bytes in this process, for the next tensors.

    The system clears each page that it hands out: a quarter of what a conversion spends in the kernel. glibc returns a
    block that is larger than any freed before, and twice as much at the end of its heap (mallopt(3), M_MMAP_THRESHOLD).
    With other C libraries this does nothing. The block freed here is never touched, so it takes no memory.
    """
    bytes(BLOCK)


def guarded(name: str, work: Callable[[], int], argv: list[str], interrupted: str = "interrupted") -> int:
    """Run the work of a command and flush what it printed; return its exit status.

    Errors of the user's are printed, never as a traceback: on one line where --json asks for output that programs read.
    Output that cannot be written, as on a full disk, is such an error; a reader that closed our pipe is not told of it.

    Args:
      name: of the command, which stands before each error as its user called it.
      interrupted: what to say on Ctrl-C.
    """
    name = called(name)
    output = sys.stdout and _Output(sys.stdout)  # None if closed by the shell: >&-
    try:
        with contextlib.redirect_stdout(output), command():
            code = _reported(name, work, argv, interrupted)
            if output is not None:
                output.flush()
        return code
    except BrokenPipeError:  # as of `| head`, which the shell reports as SIGPIPE
        _silenced()
        return BROKEN_PIPE
    except OSError as error:
        say(f"{name}: {_folder_gone() or error}", sys.stderr, "bad")
        return _silenced()


def _folder_gone() -> str:
    """Say that the current folder was deleted, which the system's error does not name; "" while it exists."""
    try:
        os.getcwd()
    except FileNotFoundError:
        return "the current folder was deleted: change to another one"
    return ""


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
        return _undisguised(work)
    except SystemExit as leaving:  # argparse's way out, and ours on SIGTERM
        return leaving.code if isinstance(leaving.code, int) else 0
    except ConvertError as error:
        say(f"{name}: {error.line() if wants_json(argv) else error}", sys.stderr, "bad")
        return error.code
    except KeyboardInterrupt:
        say(f"{name}: {interrupted}", sys.stderr, "bad")
        # An interrupt of code that exec runs from a text, as imports do, marks the whole process: Python would end it
        # by the signal, whatever is returned here. The next text that is run removes the mark.
        exec("")
        return INTERRUPTED
    except Exception as error:  # of a page that the user added, or a fault of ours, which is raised
        from .pages import fault

        if not (what := fault(error)):
            raise
        say(f"{name}: {what}", sys.stderr, "bad")
        return 1


def _undisguised(work: Callable[[], int]) -> int:
    """Run work. Raises: Ctrl-C and a request to end as they are, also where imports hide them, as of C code."""
    try:
        return work()
    except (ImportError, RuntimeError) as error:
        cause: BaseException | None = error
        while cause is not None and not isinstance(cause, KeyboardInterrupt | SystemExit):
            cause = cause.__cause__ or cause.__context__
        if cause is None:
            raise
        raise cause from None


def wants_json(argv: list[str]) -> bool:
    """Tell whether --json was given."""
    return "--json" in argv


def _silenced() -> int:
    """Send what else is printed, also when the process ends, to /dev/null; return the exit status of a failure."""
    with contextlib.suppress(OSError, ValueError, AttributeError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 1


def dumps(value: Any) -> str:
    """Write strict JSON, as every --json prints it: a number that is not finite, which JSON lacks, is null."""
    import json

    return json.dumps(_finite(value), indent=1, allow_nan=False)


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if abs(value) < float("inf") else None
    if isinstance(value, dict):
        return {key: _finite(inner) for key, inner in value.items()}
    return list(map(_finite, value)) if isinstance(value, list | tuple) else value

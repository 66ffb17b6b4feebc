"""Define the errors that a user can act on: no traceback, an exit code, every problem at once."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from specs.solving.sizes import Remedy

# How a remedy is spelled for somebody who calls a function; on the command line it is --NAME VALUE.
PYTHON = {
    "assume": "assume=True", "config": "settings={!r}", "dtype": "dtype={!r}", "force": "force=True",
    "like": "like={!r}",
    "layout": "convert.plans.nnx.as_nnx(plan)", "lossy": "lossy=True", "no-verify": "verify=False",
    "reverse": "backwards=True", "set": "{}", "spec": "specs.add({!r})", "step": "step={}",
    "table": "table={!r}", "unreplicate": "unreplicate=True", "weights": "weights={!r}",
}  # fmt: skip
PORTS = {**PYTHON, "config": "config={!r}"}  # how ports.load and ports.save spell it
LONG = 300  # characters of what somebody else's code raised that are quoted
_asked_by_save: list[bool] = []  # not empty while ports.save runs
_asked_by_load: list[bool] = []  # not empty while ports.load runs
_asked_by_command: list[bool] = []  # not empty while a command runs: one process serves one user


def command() -> contextlib.AbstractContextManager[None]:
    """Spell remedies as options of the command line."""
    return _during(_asked_by_command)


def saving() -> contextlib.AbstractContextManager[None]:
    """Spell remedies as arguments of ports.save, which writes a model in memory."""
    return _during(_asked_by_save)


def loading() -> contextlib.AbstractContextManager[None]:
    """Spell remedies as arguments of ports.load."""
    return _during(_asked_by_load)


@contextlib.contextmanager
def _during(asked: list[bool]) -> Iterator[None]:
    asked.append(True)
    try:
        yield
    finally:
        asked.pop()


def is_saving() -> bool:
    """Tell whether the arrays are those of a model in memory, not of a file."""
    return bool(_asked_by_save)


def subject() -> str:
    """Return what messages call that which has the arrays: a file, or the model that is saved."""
    return "model" if is_saving() else "file"


def option(name: str, value: str = "") -> str:
    """Spell an option as its user writes it: option("weights", "ema") is --weights ema, or weights='ema' in Python."""
    if _asked_by_command:
        return f"--{name} {value}".rstrip()
    return (PORTS if _asked_by_save or _asked_by_load else PYTHON)[name].format(value)


def command_or_call(command: str, call: str) -> str:
    """Choose what to tell the user of a command, or of a function."""
    return command if _asked_by_command else call


def called(command: str) -> str:
    """Spell a command as its user calls it: "convert routes" is "triptych convert routes" where that was called."""
    ways = {"triptych": "triptych", "triptych.py": "python -m triptych"}  # the installed script, and this module
    return f"{ways.get(os.path.basename(sys.argv[0]), 'python -m')} {command}".strip()


PACKAGES = {  # of an extra of pyproject.toml, as tested, see constraints.txt; flax brings optax
    "flax": "jax==0.10.2 flax==0.12.8", "torch": "torch==2.13.0", "paddle": "paddlepaddle==3.3.1",
    "orbax": "tensorstore==0.1.86", "examples": "scikit-learn==1.9.1",
}  # fmt: skip


SAVED = {  # how a model's own framework writes its arrays, under the names that they have there
    "torch": 'torch.save(model.state_dict(), "{}.pt")',
    "paddle": 'paddle.save(model.state_dict(), "{}.pdparams")',
    "flax": "flax.serialization.to_bytes(variables), as {}.msgpack",
}


def saved(framework: str, name: str = "model") -> str:
    """Spell the call by which a framework saves the arrays of a model. Args: name: of the file, without a suffix."""
    return SAVED[framework].format(name)


def install(extra: str) -> str:
    """Spell the command that installs what is missing: an extra of this folder, or packages by their own names.

    No name of ours is on PyPI, so that none is named: anybody could register it.
    """
    root = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    if not os.path.exists(os.path.join(root, "pyproject.toml")):  # installed from a wheel
        return f"pip install {PACKAGES[extra]}"
    here = os.path.realpath(root) == os.path.realpath(os.getcwd())
    return f"pip install '{'.' if here else root}[{extra}]'"


def cut(text: str) -> str:
    """Cut off what somebody else's code raised where it is long."""
    return text if len(text) <= LONG else f"{text[:LONG]} ..."


def printable(text: str) -> str:
    """Fit a text on one line, without codes that a terminal obeys: names come out of strangers' files."""
    if text.isprintable():  # most are, at once
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


class ConvertError(Exception):
    """Bad input. The message names file, place and remedy.

    code: the exit status: 1 for what models, checkpoints and other files contain, 2 for the command line, paths on it
      included.
    fits_as: the dialect as which the file fits, where another one was asked for; "" of any other error.
    unknown: names that the user states and that the architecture has no field of.
    """

    code = 1
    fits_as = ""
    unknown: tuple[str, ...] = ()

    def __init__(self, message: str, problems: Iterable[str] = ()):
        self.message, self.problems = message, list(problems)
        super().__init__(message)

    def __str__(self) -> str:
        return "\n".join(map(printable, [self.message, *(f"  - {problem}" for problem in self.problems)]))

    def line(self) -> str:
        """Return the message and its problems on one line."""
        return ": ".join(map(printable, filter(None, [self.message, "; ".join(self.problems)])))


class FormatError(ConvertError):
    """A file that cannot be read safely: says which file, where in it, what is wrong and what to do."""

    def __init__(self, path: object, problem: str, remedy: str = ""):
        super().__init__(f"{path}: {problem}" + (f" ({remedy})" if remedy else ""))
        self.problem = problem


class MissingFile(FormatError):
    """A file that a command names and that is not there."""

    code = 2

    def __init__(self, path: object):
        link = os.path.islink(str(path))
        super().__init__(path, "is a link to no file" if link else "there is no such file", "check the path")


class PlanError(ConvertError):
    """A file from which a target cannot be made; `problems` lists everything that does not fit.

    Args:
      unfit: names of arrays of another shape or dtype.
      only_more: whether all arrays of the model fit, and the file has others beside them.
    """

    def __init__(self, message: str, problems: Iterable[str] = (), unfit: Iterable[str] = (), only_more: bool = False):
        super().__init__(message, problems)
        self.unfit, self.only_more = tuple(unfit), only_more


class Unconfigured(PlanError):
    """A file from whose arrays no configuration of an architecture follows, so that its arrays are not compared."""


class UsageError(ConvertError):
    """The command or call is wrong: an unknown route, an option that does not fit, a folder that is not there."""

    code = 2


class Exists(UsageError):
    """A target that is there already and that nobody allows to replace."""

    def __init__(self, path: str, remedy: str = ""):
        super().__init__(f"{path}: exists already ({option('force')} replaces it{remedy})")
        self.path = path


class OpenLengths(UsageError):
    """Lengths of axes that names, shapes and the user leave open.

    Args:
      what: the message without its remedy. remedy: what states the lengths.
      axes: all that are open, by the numbers of the lines.
      shown: (line, axis) -> where a shape of the same module shows an open axis: "h=2 on line 5".
    """

    def __init__(
        self, what: str, problems: Iterable[str], remedy: Remedy, axes: Mapping[int, frozenset[str]],
        shown: Mapping[tuple[int, str], str],
    ):  # fmt: skip
        super().__init__(what + remedy.options(), problems)
        self.what, self.remedy, self.axes, self.shown = what, remedy, dict(axes), dict(shown)

    def by_lengths(self) -> OpenLengths:
        """Return the same without the advice to give a file of the other side, for a command that has it."""
        return OpenLengths(self.what, self.problems, self.remedy._replace(or_like=False), self.axes, self.shown)


class OpenFields(UsageError):
    """Config fields that change the outputs and that neither the file, nor its record, nor the user states.

    Args:
      path, architecture: of the file.
      fields: their names -> what to set them to, as in "gelu or relu".
      problems: every remedy.
      choices: the values of those that have a list of them, or a default.
      shown: other fields, which the file's arrays show.
    """

    def __init__(
        self,
        path: str,
        architecture: str,
        fields: Mapping[str, str],
        problems: Iterable[str],
        choices: Mapping[str, Sequence[Any]],
        shown: Mapping[str, Any],
    ):
        self.architecture, self.fields, self.choices, self.shown = architecture, dict(fields), dict(choices), shown
        it = "it" if len(fields) == 1 else "them"
        stated = f"the model's arrays do not show {it}" if is_saving() else f"neither the file nor a record states {it}"
        self.why = f"{stated}, and outputs or training of {architecture} depend on {it}"
        self.remedies = list(problems)
        head, lines = self._lines(" is open")
        super().__init__(f"{path}: {head}: {self.why}", [*lines, *self.remedies])

    def _lines(self, state: str) -> tuple[str, list[str]]:
        """Return what is open as the head of a message, and below it a line for each field where there are several."""
        if len(self.fields) == 1:
            ((name, values),) = self.fields.items()
            return f"{name}{state}, set it ({values})", []
        lines = [f"{name}{state}: set it ({values})" for name, values in self.fields.items()]
        return f"{len(lines)} fields are open", lines

    def wanted(self) -> ConvertError:
        """Return the error for a reader who knows which file leaves these fields open."""
        head, lines = self._lines("")
        return ConvertError(f"{head}: {self.why}", [*lines, *self.remedies])

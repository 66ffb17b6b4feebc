"""The errors a person who typed a command can act on: no traceback, an exit code, every problem at once."""

from collections.abc import Iterable


def printable(text: str) -> str:
    """On one line, without codes that a terminal obeys: names come out of strangers' files."""
    if text.isprintable():  # most are, at once
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


class ConvertError(Exception):
    """Bad input. The message names file, place and remedy; `code` is the exit status (1 refused, 2 wrong usage)."""

    code = 1

    def __init__(self, message: str, problems: Iterable[str] = ()):
        self.message, self.problems = message, list(problems)
        super().__init__(message)

    def __str__(self) -> str:
        return "\n".join(map(printable, [self.message, *(f"  - {problem}" for problem in self.problems)]))

    def line(self) -> str:
        """The message and its problems on one line."""
        return ": ".join(map(printable, filter(None, [self.message, "; ".join(self.problems)])))


class FormatError(ConvertError):
    """A file that cannot be read safely: says which file, where in it, what is wrong and what to do."""

    def __init__(self, path: object, problem: str, remedy: str = ""):
        super().__init__(f"{path}: {problem}" + (f" ({remedy})" if remedy else ""))


class PlanError(ConvertError):
    """A file from which a target cannot be made; `problems` lists everything that does not fit."""


class UsageError(ConvertError):
    """The command or call is wrong: an unknown route, an option that does not fit."""

    code = 2


class OpenFields(UsageError):
    """Config fields that change the outputs and that neither the file, nor its record, nor the user states.

    Args:
      fields: their names.
    """

    def __init__(self, message: str, fields: Iterable[str], problems: Iterable[str] = ()):
        super().__init__(message, problems)
        self.fields = tuple(fields)

"""Print lines for people: wrapped between words and coloured on a terminal, unchanged everywhere else."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Collection, Iterable, Sequence
from typing import Any

from .errors import printable
from .records.altered import WARNING

WIDTH = 80  # columns, where no terminal states its own
WIDEST = 100  # columns that are filled on a wider terminal: longer lines of prose are hard to read
LEAST = 30  # columns that are filled on a narrower terminal as well
# Codes of ANSI terminals by what a text says.
CODES = {"good": "32;1", "bad": "31;1", "doubt": "33", "head": "1", "soft": "2"}
GRADES = ("good", "bad", "doubt")  # kinds of which the verdict alone has a colour
_VERDICT = r"(?:[^:;,]|, but\b)+"  # of a text that begins with one: "complete, but not proven" of "...: outputs differ"
# With the spaces before it, by which columns are aligned: an option with its value is one word, as is a dtype with its
# shape, a limit with its number, a letter with its range ("i = 0..1"), an arrow with the name behind it, a shape in
# parentheses, a command with --help, and one of `ports` with its architecture.
_WORD = (
    r" *(?:(?:\(see )?(?:python -m|triptych) (?:(?:[a-z0-9]+ ){1,2}--help|ports [a-z])[^ ]*|"
    r"\(?--[a-z][a-z-]* [^ ]+|<- [^ ]+|\(?limit \d[^ ]*|[a-z] = \d[^ ]*|\(\d+,[\d, ]{0,60}\)[^ ]*|"
    r"(?:[a-z][a-z0-9_]* (?=\[))?(?:\[[^\[\]]{0,60}\]|[^ ])+)"
)
_NUMBERS = r"(?:-?\d[\w.+-]*, ?){12,}-?\d[\w.+-]*"  # a list of more than a dozen numbers
_INDENT = r" *(?:- )?"


def say_note(text: str) -> None:
    """Print a note on standard error, or a warning where it begins as one, also behind a file's name."""
    file, alarm, what = text.partition(WARNING)
    if alarm and (not file or file.endswith(": ")):
        say(printable(f"{WARNING}{file}{what}"), sys.stderr, "bad")
    else:
        say(printable(f"note: {text}"), sys.stderr, "doubt")


def columns(stream: Any) -> int | None:
    """Return the columns to fill, at most WIDEST: of COLUMNS, or else of the terminal; None if it is no terminal."""
    try:
        own = os.get_terminal_size(stream.fileno()).columns or WIDTH
    except (OSError, ValueError, AttributeError):  # a pipe, a closed stream, a stream of a test
        return None
    return max(LEAST, min(WIDEST, _stated() or own))


def help_columns(stream: Any) -> int:
    """Return the columns that --help fills: those of `columns`, and where no terminal shows it, COLUMNS or WIDTH."""
    return columns(stream) or max(LEAST, min(WIDTH, _stated() or WIDTH))


def _stated() -> int:
    """Return the number that the variable COLUMNS states; 0 if it states none."""
    stated = os.environ.get("COLUMNS", "")
    return int(stated) if stated.isdecimal() else 0


def wants_colour(stream: Any) -> bool:
    """Tell whether a stream is a terminal that shows colour, and NO_COLOR (https://no-color.org) is not set."""
    tty = stream is not None and stream.isatty()  # None where the shell closed it
    return tty and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def painted(text: str, code: str) -> str:
    return f"\x1b[{code}m{text}\x1b[0m" if code and text else text


def shortened(text: str) -> str:
    """Leave out the middle of lists of many numbers: "0,2,4,6,...,46"."""

    def ends(match: re.Match[str]) -> str:
        numbers = re.split(r"(?<=,) ?", match[0])
        gap = " " if ", " in match[0] else ""
        return gap.join([*numbers[:4], "...,", numbers[-1]])

    return re.sub(_NUMBERS, ends, text)


def wrapped(text: str, width: int, first: str = "", rest: str = "") -> list[str]:
    """Wrap one line between words only: no number or name is broken.

    Args:
      first: what the first line begins with. rest: what each other line begins with.
    """
    lines, line, empty = [], first, True
    for word in re.findall(_WORD, text):
        if not empty and len(line) + len(word) > width:
            lines.append(line)
            line, word = rest, word.lstrip(" ")
        line, empty = line + word, False
    return [*lines, line]


def marked(text: str, code: str, words: str) -> str:
    """Paint the first place that has these words, also where lines are broken between them."""
    return re.sub(r"\s+".join(map(re.escape, words.split())), lambda match: painted(match[0], code), text, count=1)


def say(text: str, stream: Any = None, kind: str = "", indent: int = 2, words: str = "") -> None:
    """Print lines of printable text.

    On a terminal each is wrapped, its rest indented, and long lists of numbers are shortened. A heading or a remark has
    the style of its kind; of any other kind the verdict alone has the colour.

    Args:
      words: what alone is painted, in the first line; by default the verdict that the text begins with.
    """
    stream = sys.stdout if stream is None else stream
    width = columns(stream)
    if width is None:
        print(text, file=stream)
        return
    code = CODES.get(kind, "") if wants_colour(stream) else ""
    if kind in GRADES and not words and (verdict := re.match(_VERDICT, text)):
        words = verdict[0]
    for line in shortened(text).split("\n"):
        match = re.match(_INDENT, line)
        parts = wrapped(line, width, rest=" " * ((len(match[0]) if match else 0) + indent))
        if words:
            parts, words = [marked("\n".join(parts), code, words)], ""
        elif kind not in GRADES:
            parts = [painted(part, code) for part in parts]
        print("\n".join(parts), file=stream)


def table(
    header: Sequence[str], rows: Iterable[Sequence[str]], right: Collection[int] = (), stacked: bool = False
) -> list[str]:
    """Align rows below a header, within the width of the terminal; elsewhere each row is one line.

    A first cell of more than half the width has a line of its own. The last cell of a row that is too long is wrapped
    within its column, or on lines of its own where a word of it is too long for that column.

    Args:
      right: the columns whose cells are aligned on the right.
      stacked: where some row is too long, the last cell of each has a line of its own, and the first more of the width.
    """
    width, cells = columns(sys.stdout) or sys.maxsize, [header, *rows]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    stacked = stacked and sum(w + 2 for w in widths) > width
    room = width - sum(w + 2 for w in widths[1:-1]) - 2 if stacked else width // 2
    widths[0] = max(len(first) for first, *_ in cells if len(first) <= room or first == header[0])
    lines: list[str] = []
    beside = False
    for first, *others in cells[::-1]:  # the header last: its last cell stands above such cells alone
        if len(first) > widths[0]:
            above = wrapped(first, width, "  ", "    ")
            first = ""
        else:
            above = []
        *most, last = first, *others
        aligned = [c.rjust(w) if k in right else c.ljust(w) for k, (c, w) in enumerate(zip(most, widths, strict=False))]
        last = last.rjust(widths[-1]) if len(most) in right else last
        line = "".join(f"  {cell}" for cell in aligned)
        fits = not stacked and len(line) + 2 + len(last) <= width
        if [first, *others] == list(header) and len(cells) > 1 and not beside:
            last, fits = "", True
        beside |= fits
        below = [f"{line}  {last}".rstrip()]
        within = wrapped(last, width, f"{line}  ", " " * (len(line) + 2))
        if not fits and not stacked and max(map(len, within)) <= width:
            below, beside = within, True
        elif not fits:
            below = [line.rstrip(), *(wrapped(last, width, "    ", "      ") if last else [])]
        lines[:0] = [*above, *below]
    return [line for line in lines if line]

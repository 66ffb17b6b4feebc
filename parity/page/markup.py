"""Build HTML and SVG elements. Every text and attribute is escaped, unless it is markup that was built here."""

from __future__ import annotations

import re
from collections.abc import Sequence
from html import escape

ALONE = {"br", "path", "line", "polyline", "polygon"}  # elements without content
SHORT = 12  # characters of a name that is not broken
WHOLE = 28  # characters of the longest word that is not broken
CODE = 24  # the same of code, whose letters are wider: beside a label it fits on a narrow screen

MARKS = {"differs": "✗", "close": "!"}  # beside the number of a grade, which is not shown by its colour alone
BOUND = 34  # characters of a number with its label and unit that are not broken from each other
LABELS = "limits?|errors?|seed|batch|epsilon|momentum|float16|bfloat16|float32|float64|most|of|by|to|at|under"
UNITS = "arrays?|channels?|checks?|comparisons?|decades?|elements?|images?|lines?|models?|pairs?|parameters?|places?"
UNITS += "|s|seconds?|steps?|times|uses|compared|agrees?|differs?"
NUMBER = r"(?:[\[(][\d, ]+[\])]|[(\[]?-?\d)\S*"  # "1e-10", "(2", "3.0e-5;", "[3, 8]"
LABELLED = re.compile(rf"((?<!\S)(?:\S?(?:{LABELS}) )*{NUMBER}(?: of {NUMBER}| (?:{UNITS})\b[^\s\w]*)*(?!\S))")
WORD = r"""(?:[^\s'"]|'[^']*'|"[^"]*")+"""  # of a command line, with what is quoted in it
ARGUMENT = re.compile(rf"python -m \S+|-\S+ (?!-){WORD}|{WORD}")  # an option has its value with it
NAMES = r"names=(?:\{.*?\}\}|\w+\.\w+\(\.{3}\))"  # an argument of Python: "names=parity.derive(...)"
COMMAND = re.compile(rf"""((?:python -m|triptych) (?:convert|parity)\b(?:[^)'"]|'[^']*'|"[^"]*")*|{NAMES})""")


class Markup(str):
    """Text that is HTML already, and is not escaped again."""


def tag(name: str, *children: str, **attributes: object) -> Markup:
    """Build one element.

    Args:
      children: what stands in it; plain strings are escaped.
      attributes: `class_` and `stroke_width` become class and stroke-width; None leaves an attribute out.
    """
    words = [name]
    for key, value in attributes.items():
        if value is not None:
            words.append(f'{key.rstrip("_").replace("_", "-")}="{escape(str(value))}"')
    if name in ALONE:
        return Markup(f"<{' '.join(words)}/>")
    return Markup(f"<{' '.join(words)}>{join(*children)}</{name}>")


def prose(text: str) -> Markup:
    """Escape a text that is broken into lines between words.

    What stays on one line: a number with its label and its unit ("limit 1e-10", "of 36 uses"), and a short word with a
    hyphen ("flax-torch"). A long word is broken as a name is.
    """
    return join(*(_labelled(part) if k % 2 else _words(part) for k, part in enumerate(LABELLED.split(text))))


def _labelled(text: str) -> Markup:
    return whole(text) if re.search(r"[\s-]", text) and len(text) <= BOUND else _words(text)


def _words(text: str) -> Markup:
    return join(*(_word(part) if k % 2 else part for k, part in enumerate(re.split(r"(\S+)", text))))


def coded(text: str) -> Markup:
    """Escape a text; what stands between backticks is a name from code, which is broken if it is long."""
    texts, parts = text.split("`"), list[Markup]()
    for k, part in enumerate(texts):
        if k % 2 and len(part) <= CODE:
            stops = texts[k + 1][: len(texts[k + 1]) - len(texts[k + 1].lstrip(".,:;)"))]  # no line begins with these
            texts[k + 1] = texts[k + 1][len(stops) :]
            parts.append(tag("span", tag("code", part), stops, class_="whole"))
        else:
            parts.append(tag("code", name(part)) if k % 2 else prose(part))
    return join(*parts)


def _word(text: str) -> Markup:
    if len(text) > (SHORT if "{" in text else WHOLE):
        return name(text)
    return whole(text) if re.search(r"\S-|\{\S*\}", text) else join(text)


def whole(text: str) -> Markup:
    """Build a text that is not broken into lines."""
    return tag("span", text, class_="whole")


def name(text: str) -> Markup:
    """Escape a name of an array, a module or a file.

    A long one may be broken behind dots, slashes and colons, and behind underscores where a part between these is long,
    but not ahead of a number, and not within braces: "layer_0", "layer_{0..2}".
    """
    if len(text) <= SHORT:
        return join(text)
    parts = list[str]()
    for long in _parts(text, "./:"):
        for part in _parts(long, "_") if len(long) > WHOLE else [long]:
            parts += [(parts.pop() if parts and part[0].isdigit() else "") + part]
    return Markup("<wbr>".join(whole(p) if "{" in p and len(p) <= WHOLE else escape(p) for p in parts))


def _parts(text: str, marks: str) -> list[str]:
    """Split a text behind marks that do not stand within braces."""
    return re.findall(rf"(?:\{{[^{{}}]*\}}|[^{marks}])*[{marks}]+|(?:\{{[^{{}}]*\}}|[^{marks}])+", text)


def graded(grade: str, text: str) -> str:
    """Put the mark of a grade before a number."""
    return f"{MARKS[grade]} {text}" if grade in MARKS else text


def command(text: str) -> Markup:
    """Build a command that is broken into lines between its arguments; copied, it is the text that was given.

    An argument that may be longer than a line of a narrow screen is broken as well, its option ahead of its value.
    """
    words = [word for part in ARGUMENT.findall(text) for word in (part.split(" ", 1) if _is_long(part) else [part])]
    parts = [tag("span", word, class_="long" if len(word) > WHOLE else None) for word in words]
    return tag("code", join(*(join(" " * bool(k), part) for k, part in enumerate(parts))), class_="command")


def _is_long(argument: str) -> bool:
    """Tell whether an option with its value may be longer than a line of a narrow screen."""
    return len(argument) > WHOLE and argument.startswith("-")


def with_commands(text: str, names: re.Pattern[str] | None = None) -> Markup:
    """Escape a text in which commands of Triptych stand, at its end or within parentheses, or arguments `names=`.

    Args:
      names: what else is code; none of it by default.
    """
    parts = COMMAND.split(text)
    marked = (names.sub(r"`\g<0>`", part) if names else part for part in parts)
    return join(
        *(command(parts[k]) if k % 2 else coded(part) if names else prose(part) for k, part in enumerate(marked))
    )


def leading(address: str, text: str) -> Markup:
    """Link to another part of the page, beside a heading: "→ plot"."""
    return tag("a", f"→ {text}", href=address, class_="leads")


def in_a_row_of(parts: Sequence[Markup]) -> Markup:
    """Join markup as in a sentence: "a, b and c"."""
    between = [""] + [", "] * (len(parts) - 2) + [" and "] * (len(parts) > 1)
    return join(*(join(mark, part) for mark, part in zip(between, parts, strict=True)))


def words(text: str) -> Markup:
    """Escape the name of a class, which may be broken ahead of its capitals: "LayerNorm"."""
    return Markup("<wbr>".join(map(escape, re.findall(r"[A-Z]*[^A-Z]+|[A-Z]+$", text))))


def join(*parts: str) -> Markup:
    """Join parts; plain strings are escaped."""
    return Markup("".join(part if isinstance(part, Markup) else escape(part) for part in parts))

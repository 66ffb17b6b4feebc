"""Build HTML and SVG elements. Every text and attribute is escaped, unless it is markup that was built here."""

from __future__ import annotations

import re
from html import escape

ALONE = {"br", "path", "line", "polyline", "polygon"}  # elements without content
SHORT = 12  # characters of a name that is not broken
WHOLE = 28  # characters of the longest word that is not broken

MARKS = {"differs": "✗", "close": "!"}  # beside the number of a grade, which is not shown by its colour alone


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
    """Escape a text; keep short words with a hyphen on one line ("1e-10", "flax-torch"), break long ones as names."""
    return join(*(_word(part) if k % 2 else part for k, part in enumerate(re.split(r"(\S+)", text))))


def coded(text: str) -> Markup:
    """Escape a text; what stands between backticks is a name from code."""
    return join(*(tag("code", name(part)) if k % 2 else prose(part) for k, part in enumerate(text.split("`"))))


def _word(text: str) -> Markup:
    if len(text) > WHOLE:
        return name(text)
    return whole(text) if re.search(r"\S-|\{\S*\}", text) else join(text)


def whole(text: str) -> Markup:
    """Build a text that is not broken into lines."""
    return tag("span", text, class_="whole")


def name(text: str) -> Markup:
    """Escape a name of an array, a module or a file.

    A long one may be broken behind dots, slashes and underscores, but not within braces: "layer_{0..2}".
    """
    if len(text) <= SHORT:
        return join(text)
    parts = re.findall(r"(?:\{[^{}]*\}|[^./_])*[./_]+|(?:\{[^{}]*\}|[^./_])+", text)
    return Markup("<wbr>".join(whole(p) if "{" in p and len(p) <= WHOLE else escape(p) for p in parts))


def graded(grade: str, text: str) -> str:
    """Put the mark of a grade before a number."""
    return f"{MARKS[grade]} {text}" if grade in MARKS else text


def words(text: str) -> Markup:
    """Escape the name of a class, which may be broken ahead of its capitals: "LayerNorm"."""
    return Markup("<wbr>".join(map(escape, re.findall(r"[A-Z]*[^A-Z]+|[A-Z]+$", text))))


def join(*parts: str) -> Markup:
    """Join parts; plain strings are escaped."""
    return Markup("".join(part if isinstance(part, Markup) else escape(part) for part in parts))

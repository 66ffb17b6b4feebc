"""Build HTML and SVG elements. Every text and attribute is escaped, unless it is markup that was built here."""

from __future__ import annotations

from html import escape

ALONE = {"br", "path", "line", "polyline", "polygon"}  # elements without content


class Markup(str):
    """Text that is HTML already."""


def tag(name: str, *children: str, **attributes: object) -> Markup:
    """One element.

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


def join(*parts: str) -> Markup:
    """Parts one after the other; plain strings are escaped."""
    return Markup("".join(part if isinstance(part, Markup) else escape(part) for part in parts))

"""Read the documents: their sections, and the commands and snippets in them."""

import re
import shlex
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parent.parent


class Block(NamedTuple):
    """A fenced block: its language (sh, python, text) and its lines."""

    language: str
    text: str


def read(document):
    """Return the text of a document, by its path in the repository."""
    return (ROOT / document).read_text()


def section(text, heading):
    """Return the section under a heading of level two, without the heading."""
    found = re.search(rf"^## {re.escape(heading)}\n(.*?)(?=^## |\Z)", text, re.DOTALL | re.MULTILINE)
    assert found, f"no section {heading!r}"
    return found[1]


def blocks(text):
    """Return every fenced block, in order."""
    fenced = re.findall(r"^```(\w+)\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)
    return [Block(language, lines) for language, lines in fenced]


def commands(text):
    """Return every line of the `sh` blocks as words, without comments."""
    lines = [line for language, block in blocks(text) if language == "sh" for line in block.splitlines()]
    return [words for line in lines if (words := shlex.split(line, comments=True))]


def python(text):
    """Return the `python` blocks as one program."""
    return "\n".join(block for language, block in blocks(text) if language == "python")


def module(words):
    """Return (name of the module, its arguments) of a command `python -m MODULE ...`; ("", []) for any other."""
    return (words[2], words[3:]) if words[:2] == ["python", "-m"] else ("", [])

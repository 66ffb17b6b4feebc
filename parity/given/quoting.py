"""Write names of models and arrays in sentences: quoted or marked, so that none runs into its sentence."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

INPUT = " <- "  # stands between a layer and the number of its input


def quoted(name: str) -> str:
    """Quote a name that would run into its sentence, as it has a space or a comma."""
    return f"'{name}'" if re.search("[ ,]", name) else name


def possessive(name: str) -> str:
    """Write a name in the genitive: "mine's", "theirs'"."""
    return f"{name}'" if name.endswith("s") else f"{name}'s"


def some(names: Sequence[str]) -> str:
    """List up to four names, and count the others."""
    more = f" and {len(names) - 4} more" if len(names) > 4 else ""
    return ", ".join(map(repr, names[:4])) + more


def marked(name: str) -> str:
    """Put a name between backticks: a page sets it as code, `unmarked` quotes it where it has to."""
    return f"`{name}`"


def unmarked(text: str) -> str:
    """Return a text for a terminal: marked names are quoted if they have a space or a comma."""
    return re.sub("`([^`]*)`", lambda found: quoted(found[1]), text)


def pair_of(left: str, right: str, labels: Iterable[str] = ()) -> str:
    """Name a pair of models by their labels: "flax-torch"; "a / my own model" where a label is more than a word.

    Args:
      labels: of all models that are compared, so that all pairs are written alike.
    """
    return f"{left}{' / ' if re.search('[ ,-]', ''.join((left, right, *labels))) else '-'}{right}"


def place(name: str, names: Iterable[str] = ()) -> str:
    """Name an array in words, marked: "`fc2`", "the input of `fc2`" for "fc2 <- 0".

    Args:
      names: all arrays that are compared, which tell whether the layer has several inputs.
    """
    path, _, number = name.partition(INPUT)
    if not number:
        return marked(name)
    return f"{f'input {number}' if f'{path}{INPUT}1' in names else 'the input'} of {marked(path)}"

"""Write words for people: the article that a name from code takes."""

from __future__ import annotations

SPELLED = ("lstm", "mlp", "nnx", "npy", "npz")  # names whose first letter is spoken as "el", "em", "en"


def with_article(noun: str) -> str:
    """Put "a" or "an" before a name: "an npz file", "a torch file", "an int", "a uint8"."""
    name = noun.lower()
    return f"an {noun}" if name.startswith(("a", "e", "i", "o", *SPELLED)) else f"a {noun}"

"""Write words for people: articles of names from code, names in a row, the nearest name where one is unknown."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

WORDS = (
    "no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve",
)  # fmt: skip
NEAR = 0.6  # similarity of names, of 1, from which one may have been meant
MISSPELT = 0.8  # similarity of a name with a wrong letter or two
FAR = 0.4  # the same of few names, or of long ones
SPELLED = ("lstm", "mlp", "nnx", "npy", "npz")  # names whose first letter is spoken as "el", "em", "en"


def with_article(noun: str) -> str:
    """Put "a" or "an" before a name: "an npz file", "a torch file", "an int", "a uint8"."""
    name = noun.lower()
    return f"an {noun}" if name.startswith(("a", "e", "i", "o", *SPELLED)) else f"a {noun}"


def count(number: int, noun: str) -> str:
    """Write a number with its noun: "1 comparison", "2 comparisons"."""
    return f"{number:,} {noun}" + ("" if number == 1 else "s")


def in_words(number: int) -> str:
    """Write a number, one up to twelve as a word: "two"."""
    return WORDS[number] if 0 <= number < len(WORDS) else f"{number:,}"


def counted(number: int, noun: str) -> str:
    """Begin a sentence with a number and its noun: "One comparison", "Eight comparisons", "24 comparisons"."""
    return begun(f"{in_words(number)} {noun}{'' if number == 1 else 's'}")


def begun(text: str) -> str:
    """Return a text as the beginning of a sentence."""
    return f"{text[:1].upper()}{text[1:]}"


def in_a_row(names: Iterable[object]) -> str:
    """Join names as in a sentence: "h, w and c"; "" for none."""
    texts = [str(name) for name in names]
    return " and ".join(filter(None, [", ".join(texts[:-1]), *texts[-1:]]))


def first_few(texts: Sequence[str], most: int, others: int = 0) -> str:
    """List the first texts, and count the rest and `others`: "a, b and 3 more"."""
    others += len(texts[most:])
    return ", ".join(texts[:most]) + (f" and {others:,} more" if others else "")


def unknown(name: str, known: Iterable[str], listed: bool = False) -> str:
    """Say that a name is unknown, and which known one is nearest, if one is near.

    Args:
      listed: whether all known ones are named as well: there are few.
    """
    names = list(known)
    every = f" (one of {', '.join(names)})" if listed else ""
    return f"unknown name {name!r}{hint(name, names)}{every}"


def one_of(name: str, known: Iterable[str]) -> str:
    """Say that a name is unknown, and which known one is nearest, or all of them if none is near."""
    names = list(known)
    return unknown(name, names, listed=bool(names) and not nearest(name, names))


def hint(name: str, known: Iterable[str], least: float = NEAR) -> str:
    """Return ", did you mean 'x'?" with the nearest known name; "" if none is near.

    Args:
      least: similarity from which a name is near.
    """
    name = nearest(name, known, least)
    return f", did you mean {name!r}?" if name else ""


def nearest(name: str, known: Iterable[str], least: float = NEAR) -> str:
    """Return the nearest known name; "" if none is near. See hint."""
    from difflib import get_close_matches

    names = list(known)
    near = get_close_matches(name, names, n=1, cutoff=MISSPELT)
    near = near or [one for one in names if name in one.split("_")]  # "eps": "norm_eps", though "depths" is as similar
    near = near or get_close_matches(name, names, n=1, cutoff=least)
    near = near or [one for one in names if one.lower() == name.lower()]
    return near[0] if near else ""

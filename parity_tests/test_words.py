"""specs/words.py: names from code take the article with which they are spoken, and are joined as in a sentence."""

import re
from pathlib import Path

import pytest

from specs import words

ROOT = Path(words.__file__).parents[1]


@pytest.mark.parametrize(
    "text",
    ["an npz file", "a torch", "a msgpack file", "an mlp_mixer", "a convmixer", "an int", "a uint8", "an LSTM"],
)
def test_the_article_follows_the_sound(text):
    assert words.with_article(text.partition(" ")[2]) == text


@pytest.mark.parametrize("text", ["", "h", "h and w", "h, w and c"])
def test_names_are_joined_as_in_a_sentence(text):
    assert words.in_a_row(name for name in "hwc" if name in text.replace("and", "")) == text


@pytest.mark.parametrize(
    ("most", "others", "text"), [(2, 0, "a, b and 1 more"), (3, 0, "a, b, c"), (3, 1200, "a, b, c and 1,200 more")]
)
def test_the_first_names_are_listed_and_the_others_counted(most, others, text):
    assert words.first_few(["a", "b", "c"], most, others) == text


@pytest.mark.parametrize(
    ("name", "known", "nearest"),
    [
        ("eps", ["depths", "norm_eps"], "norm_eps"),
        ("widht", ["width", "widht_of"], "width"),
        ("norm", ["norms", "norm_eps"], "norms"),
        ("dept", ["depths", "norm_eps"], "depths"),
        ("eps", ["depths", "norm_eps", "stem_eps"], "norm_eps"),
        ("GELU", ["gelu"], "gelu"),
        ("other", ["gelu"], ""),
    ],
)
def test_the_nearest_name_is_misspelt_or_has_the_name_as_a_word(name, known, nearest):
    assert words.nearest(name, known) == nearest


@pytest.mark.parametrize("text", ["0 tensors", "1 tensor", "2 tensors", "1,000 more reasons"])
def test_a_noun_follows_its_number(text):
    number, _, noun = text.partition(" ")
    assert words.count(int(number.replace(",", "")), noun.removesuffix("s")) == text


def test_messages_count_by_one_function():
    """A plural of one ("1 tensors"), or a noun that is spelled in a place of its own."""
    files = [path for folder in ("specs", "convert", "ports", "parity") for path in (ROOT / folder).rglob("*.py")]
    own = re.compile(r"""(?:len\([^{}]*\)|:,)\} \w+\{['"]s['"] (?:\*|if)""")
    lines = [f"{path}: {line}" for path in files for line in path.read_text().splitlines() if own.search(line)]
    assert not lines


def test_no_message_puts_an_article_before_a_name_that_it_does_not_know():
    files = [path for folder in ("specs", "convert", "ports", "parity") for path in (ROOT / folder).rglob("*.py")]
    guessed = re.compile(r'f".*\b[Aa]n? \{(?!noun|with_article|\')')
    assert not [f"{path}: {line}" for path in files for line in path.read_text().splitlines() if guessed.search(line)]


def test_counts_up_to_twelve_are_words():
    assert [words.in_words(number) for number in (0, 9, 12, 13, 1000)] == ["no", "nine", "twelve", "13", "1,000"]

"""Words of texts take their article and are joined as in a sentence; numbers that a person reads have one style."""

import re
from pathlib import Path

import pytest

from specs import numbers, words

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


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (1e-6, "1e-6"),
        (1e16, "1e16"),
        (0.1, "0.1"),
        ([0.5, 1e-5], "[0.5, 1e-5]"),
        ("1e-06", "1e-06"),
        (None, "None"),
        (0.0001, "1e-4"),
        (0.01, "0.01"),
        ([-0.0025, "0.001"], "[-2.5e-3, '0.001']"),
        (1 / 300, "3.3333333333333335e-3"),
    ],
)
def test_settings_are_read_back_as_they_were(value, text):
    assert numbers.exact(value) == text and (isinstance(value, str) or eval(text) == value)


def test_what_float32_makes_of_a_short_decimal_is_that_decimal():
    """As paddle stores settings, also within a tuple; other long numbers stay as they are."""
    assert numbers.exact(9.999999747378752e-06) == "1e-5"
    assert numbers.exact((0.8999999761581421, 0.5)) == "(0.9, 0.5)"
    for value in (1.7071067811865474e-3, 0.1 + 0.2, 0.33333334326744080):
        assert float(numbers.exact(value)) == value


def test_measured_values_have_three_digits_or_as_many_as_show_their_difference():
    assert numbers.measured(5.3333e-5) == "5.33e-5"
    assert numbers.apart(0.81405, -1.08541) == ("0.814", "-1.09")
    assert numbers.apart(0.64042, 0.64106) == ("0.64042", "0.64106")  # 0.64 and 0.641 would differ by 0.001
    assert numbers.apart(-1.991216, -1.9930526) == ("-1.991216", "-1.993053")  # 1.84e-3, and not 1.83e-3
    assert numbers.apart(2.0, 2.0) == ("2", "2") and numbers.apart(1.0, float("nan")) == ("1", "NaN")
    assert numbers.apart(-0.14988213777542114, float("nan")) == ("-0.15", "NaN")
    assert numbers.measured(float("-inf")) == "-inf"
    assert numbers.apart(5.0, 5.000000005) == ("5", "5.000000005")
    assert numbers.apart(1.0, 1.0 + 2**-52) == ("1", "1.0000000000000002")
    assert numbers.apart(2**53 + 1, 2.0**53) == (str(2**53 + 1), str(2**53))  # whole numbers, in full
    assert numbers.apart(2, 2.5) == ("2", "2.5") and numbers.apart(3, float("inf")) == ("3", "inf")
    assert numbers.apart(1 + 2j, 1 + 2.0004j) == ("1+2j", "1+2.0004j")


def test_measured_values_below_a_hundredth_have_an_exponent_as_errors_have():
    assert numbers.measured(0.00184) == "1.84e-3" and numbers.measured(0.0123) == "0.0123"
    assert numbers.apart(1e-5, 0.001) == ("1e-5", "1e-3") and numbers.apart(0.0012, 0.0013) == ("1.2e-3", "1.3e-3")
    assert numbers.apart(0.0123, 0.0045) == ("0.0123", "0.0045")  # both alike


def test_errors_and_measured_limits_have_two_digits_and_chosen_limits_no_zero_behind_them():
    errors = [(1.0286, "1.0"), (0.5, "0.50"), (60.2, "60"), (9.2e-4, "9.2e-4"), (1e-15, "1.0e-15"), (0, "0")]
    assert [numbers.short(value) for value, _ in errors] == [text for _, text in errors]
    limits = [(1e-10, "1e-10"), (5.72e-6, "5.7e-6"), (1.46e-3, "1.5e-3"), (0.25, "0.25"), (5.0, "5"), (None, "-")]
    limits += [(9.02e-6, "9.0e-6"), (5.96e-6, "6.0e-6"), (0.3001, "0.30"), (1e-10 * (1 + 1e-15), "1e-10"), (0, "0")]
    assert [numbers.limit(value) for value, _ in limits] == [text for _, text in limits]


def test_numbers_that_round_to_a_hundredth_are_written_alike():
    for write, text in ((numbers.short, "0.010"), (numbers.measured, "0.01")):
        assert {write(value) for value in (0.009999, 0.01, 0.010001)} == {text}
    assert numbers.short(0.0099) == "9.9e-3" and numbers.measured(-0.009999) == "-0.01"


def test_no_other_file_writes_exponents_by_itself():
    files = [path for folder in ("specs", "convert", "ports", "parity") for path in (ROOT / folder).rglob("*.py")]
    own = {str(path) for path in files if re.search(r"\{[^{}\"]*:\.?\d*[eg]\}", path.read_text())}
    assert own == {str(ROOT / "specs" / "numbers.py")}


def test_errors_and_limits_that_are_no_finite_number_are_a_word():
    for write in (numbers.short, numbers.limit):
        assert [write(value) for value in (float("nan"), float("inf"), None)] == ["NaN", "infinite", "-"]


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (1.2e-18, "2e-18"),
        (3.2e-18, "4e-18"),
        (4.2e-5, "5e-5"),
        (1e-23, "2e-23"),
        (1.0, "2.0"),
        (7.2, "8.0"),
        (2.6e-5, "3e-5"),
        (9.7e-3, "0.01"),
    ],
)
def test_a_number_of_one_digit_above_a_value(value: float, text: str) -> None:
    assert numbers.above(value) == text and float(text) > value

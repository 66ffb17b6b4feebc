"""specs/numerals.py: every number that a person reads is written in one style."""

import re
from pathlib import Path

import pytest

from specs import numerals

ROOT = Path(numerals.__file__).parents[1]


@pytest.mark.parametrize(
    ("value", "text"),
    [(1e-6, "1e-6"), (1e16, "1e16"), (0.1, "0.1"), ([0.5, 1e-5], "[0.5, 1e-5]"), ("1e-06", "1e-06"), (None, "None")],
)
def test_settings_are_read_back_as_they_were(value, text):
    assert numerals.exact(value) == text and (isinstance(value, str) or eval(text) == value)


def test_measured_values_have_three_digits_or_as_many_as_show_their_difference():
    assert numerals.measured(5.3333e-5) == "5.33e-5"
    assert numerals.apart(0.81405, -1.08541) == ("0.814", "-1.09")
    assert numerals.apart(0.64042, 0.64106) == ("0.64042", "0.64106")  # 0.64 and 0.641 would differ by 0.001
    assert numerals.apart(2.0, 2.0) == ("2", "2") and numerals.apart(1.0, float("nan")) == ("1", "NaN")
    assert numerals.apart(-0.14988213777542114, float("nan")) == ("-0.15", "NaN")
    assert numerals.measured(float("-inf")) == "-inf"
    assert numerals.apart(5.0, 5.000000005) == ("5", "5.000000005")
    assert numerals.apart(1.0, 1.0 + 2**-52) == ("1", "1.0000000000000002")
    assert numerals.apart(1 + 2j, 1 + 2.0004j) == ("1+2j", "1+2.0004j")


def test_no_other_file_writes_exponents_by_itself():
    files = [path for folder in ("specs", "convert", "ports", "parity") for path in (ROOT / folder).rglob("*.py")]
    own = {str(path) for path in files if re.search(r"\{[^{}\"]*:\.?\d*[eg]\}", path.read_text())}
    assert own == {str(ROOT / "specs" / "numerals.py")}

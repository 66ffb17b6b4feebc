"""Write numbers for people in one style: settings in full ("1e-6", "0.1"), measured values in three digits ("5.33e-5"),
errors and their limits in two ("1.9e-14", "1e-10"). Below 0.01 each has an exponent."""

from __future__ import annotations

import math
import re
import struct
from numbers import Integral
from typing import Any

DECIMALS = 5  # significant digits of a decimal that people write: float32 tells them apart
SMALL = 0.01  # smaller numbers have an exponent
_LONG = re.compile(r"(?<![\w.'\"])\d\.\d{9,}(?:e[+-]\d+)?(?![\w.'\"])")  # also within a list
_EXPONENT = re.compile(r"(?<=\d)e([+-]?)0*(?=\d)")
_ZEROS = re.compile(r"(\.\d*[1-9])0+e|\.0+e")  # at the end of "1.50e-05" and "1.0e-10"
_SMALL = re.compile(r"(?<![\w.'\"])0\.00+([1-9]\d*)(?![\w.'\"])")  # 0.0001, also within a list


def exact(value: Any) -> str:
    """Write a setting so that Python reads the same value back: "1e-6", "[0.5, 1e-6]", "None"; a text as it is.

    What float32 makes of a short decimal, as paddle stores settings, is that decimal: 9.999999747378752e-06 is "1e-5".
    """
    if isinstance(value, str):
        return value
    text = _LONG.sub(_decimal, str(value))
    return _SMALL.sub(lambda match: _with_exponent(float(match[0]), len(match[1])), _short_exponents(text))


def _decimal(match: re.Match[str]) -> str:
    """Return the decimal of at most DECIMALS digits that float32 rounds to a number; else the number as it is."""
    value = float(match[0])
    short = float(f"{value:.{DECIMALS}g}")
    return str(short) if _single(short) == value else match[0]


def _single(value: float) -> float:
    try:
        return float(struct.unpack("<f", struct.pack("<f", value))[0])
    except OverflowError:
        return value


def measured(value: complex, digits: int = 3) -> str:
    """Write a measured value: "5.33e-5", "0.18", "NaN", "1+2j"."""
    if isinstance(value, complex) or value == 0 or not _is_small(value, digits):
        return _fixed(value, digits)
    return _with_exponent(value, digits)


def apart(left: complex, right: complex, least: int = 3) -> tuple[str, str]:
    """Write two measured values in the least number of digits whose difference is theirs, as `measured` writes it.

    Integers are written in full, also beside a float that is a whole number; where one value is not finite, both have
    the least number of digits.
    """
    if isinstance(left, Integral) or isinstance(right, Integral):
        whole = [int(value) for value in (left, right) if _is_whole(value)]
        if len(whole) == 2:
            return str(whole[0]), str(whole[1])
    difference = complex(left) - complex(right)
    gap = math.hypot(difference.real, difference.imag)  # infinite where float64 has no such number
    if not math.isfinite(gap):
        return measured(left, least), measured(right, least)
    # both alike: beside a larger one, a small value has none of its own exponent
    write = measured if max(abs(left), abs(right)) < SMALL else _fixed

    def shows(digits: int) -> bool:
        shown = abs(complex(f"{left:.{digits}g}") - complex(f"{right:.{digits}g}"))
        return f"{shown:.2e}" == f"{gap:.2e}"

    digits = next((n for n in range(least, 17) if gap and shows(n)), 17 if gap else least)
    return write(left, digits), write(right, digits)


def _is_whole(value: Any) -> bool:
    """Tell whether a number is an integer that 64 bits hold, in whatever type."""
    return isinstance(value, Integral) or (isinstance(value, float) and value.is_integer() and abs(value) <= 2**64)


def short(value: float | None) -> str:
    """Write an error in two digits: "1.9e-14", "1.0", "60", "0", "infinite", "NaN"; "-" for None."""
    if value is None or value == 0 or not math.isfinite(value):
        return _in_a_word(value)
    has_exponent = _is_small(value, 2) or value >= 99.5
    return _short_exponents(f"{value:.1e}") if has_exponent else f"{value:#.2g}".rstrip(".")


def limit(value: float | None) -> str:
    """Write a tolerance: a chosen one without a zero at its end, "1e-10", a measured one in two digits, "9.0e-6"."""
    if value is None or not math.isfinite(value) or not math.isclose(float(f"{value:.1e}"), value, rel_tol=1e-9):
        return short(value)
    if value == 0:
        return "0"
    return _with_exponent(value, 2) if _is_small(value, 2) or value >= 99.5 else f"{value:.2g}"


def _is_small(value: float, digits: int) -> bool:
    """Tell whether a number has an exponent: by what is written, so that 0.00999 and 0.01001 look alike."""
    return float(f"{abs(value):.{digits - 1}e}") < SMALL


def _in_a_word(value: float | None) -> str:
    """Write an error or a tolerance that has no digits: none at all, 0, NaN or an infinite one."""
    if value is None:
        return "-"
    return "0" if value == 0 else "NaN" if math.isnan(value) else "infinite"


def above(value: float) -> str:
    """Write the next number of one digit above a value: "2e-18" for 1.2e-18."""
    digit, exponent = f"{value:.0e}".split("e")
    nearest = float(f"{digit}e{exponent}")
    return exact(nearest if nearest > value else float(f"{int(digit) + 1}e{exponent}"))


def _with_exponent(value: float, digits: int) -> str:
    """Write a number in at most this many digits and an exponent: "1.84e-3", "1e-10"."""
    return _short_exponents(_ZEROS.sub(r"\1e", f"{value:.{digits - 1}e}"))


def _fixed(value: complex, digits: int) -> str:
    return _short_exponents(f"{value:.{digits}g}").replace("nan", "NaN")


def _short_exponents(text: str) -> str:
    """Shorten exponents: "2e-06" to "2e-6", "1e+02" to "1e2"."""
    return _EXPONENT.sub(lambda match: f"e{match[1].removeprefix('+')}", text)

"""Write numbers for people in one style: settings in full ("1e-6", "0.1"), measured values in three digits ("5.33e-5"),
errors in two ("1.9e-14") and their limits in one ("1e-10")."""

from __future__ import annotations

import math
import re
from numbers import Integral
from typing import Any

_EXPONENT = re.compile(r"(?<=\d)e([+-]?)0*(?=\d)")


def exact(value: Any) -> str:
    """Write a setting so that Python reads the same value back: "1e-6", "[0.5, 1e-6]", "None"; a text as it is."""
    return value if isinstance(value, str) else _short_exponents(str(value))


def measured(value: complex, digits: int = 3) -> str:
    """Write a measured value: "5.33e-5", "0.18", "NaN", "1+2j"."""
    return _short_exponents(f"{value:.{digits}g}").replace("nan", "NaN")


def apart(left: complex, right: complex, least: int = 3) -> tuple[str, str]:
    """Write two measured values in the least number of digits whose difference is theirs, to half a percent.

    Integers are written in full; where one value is not finite, both have the least number of digits.
    """
    if isinstance(left, Integral) and isinstance(right, Integral):
        return str(left), str(right)
    gap = abs(left - right)
    if not math.isfinite(gap):
        return measured(left, least), measured(right, least)

    def shows(digits: int) -> bool:
        return abs(abs(complex(f"{left:.{digits}g}") - complex(f"{right:.{digits}g}")) - gap) <= 0.005 * gap

    digits = next((n for n in range(least, 17) if gap and shows(n)), 17 if gap else least)
    return measured(left, digits), measured(right, digits)


def short(value: float | None) -> str:
    """Write an error in two digits: "1.9e-14", "0.18", "60", "0", "infinite"."""
    if value is None or value == 0 or not math.isfinite(value):
        return "-" if value is None else "0" if value == 0 else "infinite"
    return f"{value:.2g}" if 0.01 <= value < 99.5 else _short_exponents(f"{value:.1e}")


def limit(value: float | None) -> str:
    """Write a tolerance in one digit."""
    if value is None or value == 0:
        return "-" if value is None else "0"
    return f"{value:.1g}" if 0.01 <= value < 9.5 else _short_exponents(f"{value:.0e}")


def _short_exponents(text: str) -> str:
    """Shorten exponents: "2e-06" to "2e-6", "1e+02" to "1e2"."""
    return _EXPONENT.sub(lambda found: f"e{found[1].removeprefix('+')}", text)

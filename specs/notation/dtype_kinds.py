"""Tell what the dtypes of arrays have in common: kinds and ranges of numbers, a dtype for constants that state none."""

from collections.abc import Mapping

SIGNIFICANT = {  # bits of a normal number: integers of more bits are rounded
    "float64": 53, "float32": 24, "float16": 11, "bfloat16": 8, "float8_e4m3fn": 4, "float8_e5m2": 3,
}  # fmt: skip
LARGEST = {"float16": 65504.0, "bfloat16": 2.0**128 - 2.0**120, "float32": 2.0**128 - 2.0**104}


def kind(dtype: str) -> str:
    """Return the kind of a dtype: "float" of float32, bfloat16 and float8_e5m2, "int", "uint", "bool" or "complex"."""
    return "float" if "float" in dtype else dtype.rstrip("0123456789")


def first_float(dtypes: Mapping[str, str]) -> str:
    """Name the first floating-point array, whose dtype constants take that state none; "" if there is none."""
    kinds = ("float16", "float32", "float64", "bfloat16")
    return next((name for name, dtype in dtypes.items() if dtype in kinds), "")


def misfit(value: float, dtype: str) -> str:
    """Say why an array of this dtype cannot hold a number; "" if it can, rounded where it is of floating point."""
    if kind(dtype) == "float":
        return f"{value} is too large for {dtype}" if abs(value) > LARGEST.get(dtype, float("inf")) else ""
    if kind(dtype) == "complex":
        return ""
    bits = int(dtype.lstrip("boluint") or 1)
    signed = kind(dtype) == "int"
    least, most = (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if signed else (0, 2**bits - 1)
    return "" if value == int(value) and least <= value <= most else f"{dtype} does not hold {value}"

"""Tell what the dtypes of arrays have in common: kinds of numbers, and a dtype for constants that state none."""

from collections.abc import Mapping


def kind(dtype: str) -> str:
    """Return the kind of a dtype: "float" of float32, bfloat16 and float8_e5m2, "int", "uint", "bool" or "complex"."""
    return "float" if "float" in dtype else dtype.rstrip("0123456789")


def first_float(dtypes: Mapping[str, str]) -> str:
    """Name the first floating-point array, whose dtype constants take that state none; "" if there is none."""
    kinds = ("float16", "float32", "float64", "bfloat16")
    return next((name for name, dtype in dtypes.items() if dtype in kinds), "")

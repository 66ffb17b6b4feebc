"""Compute the CRC of a zip's members."""

from __future__ import annotations


def crc32(data: bytes | bytearray | memoryview, before: int = 0) -> int:
    """Return the CRC of earlier data with `data` behind them. Args: before: the CRC of the earlier data."""
    from zlib_ng import zlib_ng  # four times as fast as zlib; imported with the first payload, since it takes 2 ms

    return zlib_ng.crc32(data, before)
